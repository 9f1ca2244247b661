"""The measuring of bench/storage."""
import argparse
import os
import statistics
import subprocess

import psycopg

from common import BODY

# What is set on the queue's table; the first is the server's default
SETTINGS = {
    "server's defaults": "",
    "vacuum by row count": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000",
    "no cost delay": "autovacuum_vacuum_cost_delay = 0",
    "both": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,"
            " autovacuum_vacuum_cost_delay = 0",
    "no truncation": "vacuum_truncate = off",
    "fillfactor 70": "fillfactor = 70",
    "both, fillfactor 70": "autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000,"
                           " autovacuum_vacuum_cost_delay = 0, fillfactor = 70",
}

LOAD = ("SELECT pgmq.send('q', '%s'::jsonb);\n" % BODY +
        "SELECT coalesce(max(msg_id), 0) AS id FROM pgmq.read('q', 30, 1) \\gset\n"
        "SELECT pgmq.archive('q', :id::bigint);\n")


def one_round(conn, args, settings):
    conn.execute("SELECT pgmq.drop_queue('q')")
    conn.execute("SELECT pgmq.create('q')")
    conn.execute("ALTER TABLE pgmq.q_q RESET (autovacuum_vacuum_scale_factor, autovacuum_vacuum_threshold,"
                 " autovacuum_vacuum_cost_delay, vacuum_truncate, fillfactor)")
    if settings:
        conn.execute("ALTER TABLE pgmq.q_q SET (%s)" % settings)
    for _ in range(0, args.backlog, 10000):
        conn.execute("SELECT count(*) FROM pgmq.send_batch('q', array_fill(%s::jsonb, ARRAY[10000]))", (BODY,))
    conn.execute("VACUUM ANALYZE pgmq.q_q")
    conn.execute("CHECKPOINT")
    start = conn.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
    path = os.path.join(args.scratch, "storage.pgbench")
    with open(path, "w") as file:
        file.write(LOAD)
    out = subprocess.run(["pgbench", "-n", "-M", "prepared", "-c", "4", "-j", "1", "-T", str(args.seconds),
                          "-f", path, "storage"], capture_output=True, text=True, check=True).stdout
    tps = float(next(line for line in out.splitlines() if line.startswith("tps =")).split()[2])
    wal, table, pkey, vt = conn.execute(
        "SELECT pg_current_wal_insert_lsn() - %s::pg_lsn, pg_relation_size('pgmq.q_q') / 1048576.0,"
        " pg_relation_size('pgmq.q_q_pkey') / 1048576.0, pg_relation_size('pgmq.q_q_vt_idx') / 1048576.0",
        (start,)).fetchone()
    return tps, float(wal) / (tps * args.seconds), float(table), float(pkey), float(vt)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--backlog", type=int, default=0)
    parser.add_argument("--seconds", type=int, default=15)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    with psycopg.connect(dbname="postgres", autocommit=True) as conn:
        conn.execute("CREATE DATABASE storage")
    conn = psycopg.connect(dbname="storage", autocommit=True)
    conn.execute("CREATE EXTENSION pgmq")
    results = {name: [] for name in SETTINGS}
    for number in range(args.rounds):
        for name, settings in SETTINGS.items():
            results[name].append(one_round(conn, args, settings))
    base = results["server's defaults"]
    print("| settings, backlog %s | throughput | WAL bytes per message | table MB | primary key MB | vt index MB |"
          % format(args.backlog, ","))
    print("|---|--:|--:|--:|--:|--:|")
    for name, rounds in results.items():
        ratio = statistics.median(r[0] / b[0] for r, b in zip(rounds, base))
        print("| %s | %.2f | %.0f | %s |" % (
            name, ratio, statistics.median(r[1] for r in rounds),
            " | ".join("%.1f" % statistics.median(r[i] for r in rounds) for i in (2, 3, 4))), flush=True)


main()

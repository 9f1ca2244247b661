"""The measuring of bench/flat."""
import argparse
import json
import os
import statistics
import subprocess
import sys
import time

import psycopg

from common import BODY, CPU_SECONDS, FRAME, cpu_of_calls, marks_table, run_marked

# What lies behind the depth, to be read while measuring
AVAILABLE = 12000

READS = {
    "read(1)": ("SELECT * FROM pgmq.read('q', 3600, 1)", 300, 1),
    "read(100)": ("SELECT * FROM pgmq.read('q', 3600, 100)", 40, 100),
    "pop": ("SELECT * FROM pgmq.pop('q')", 300, 1),
    "read_with_poll": ("SELECT * FROM pgmq.read_with_poll('q', 3600, 1)", 300, 1),
}


def connect(database, **more):
    conn = psycopg.connect(dbname=database, autocommit=True, **more)
    conn.prepare_threshold = 0
    return conn


def send(conn, count, delay=0):
    while count > 0:
        some = min(count, 10000)
        conn.execute("SELECT count(*) FROM pgmq.send_batch('q', array_fill(%s::jsonb, ARRAY[%s]), %s::integer)",
                     (BODY, some, delay))
        count -= some


def consume(conn, database, count):
    """As consumers do; the peer would take hours, so its messages go by plain SQL."""
    if database == "peer":
        conn.execute("UPDATE pgmq.q_q SET vt = now() + interval '1 h', read_ct = 1 WHERE msg_id <= %s", (count,))
        conn.execute("DELETE FROM pgmq.q_q WHERE msg_id <= %s", (count,))
        return
    while count > 0:
        some = min(count, 500)
        conn.execute("SELECT pgmq.delete('q', array_agg(msg_id)) FROM pgmq.read('q', 30, %s)", (some,))
        count -= some


class Scenario:
    """What lies in front of the messages that are read; holders stay until close()."""

    def __init__(self, kind, depth, database):
        self.holder = None
        conn = connect(database)
        conn.execute("SELECT pgmq.drop_queue('q')")
        conn.execute("SELECT pgmq.create('q')")
        if kind == "delayed":
            send(conn, depth, 36000)
        elif kind == "leased":
            send(conn, depth)
            if database == "peer":
                conn.execute("UPDATE pgmq.q_q SET vt = now() + interval '10 h'")
            else:
                for _ in range(0, depth, 1000):
                    conn.execute("SELECT count(*) FROM pgmq.read('q', 36000, 1000)")
            conn.execute("VACUUM pgmq.q_q")
        elif kind == "backlog":
            send(conn, depth)
        else:
            self.holder = psycopg.connect(dbname=database)
            if kind == "snapshot":
                self.holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                self.holder.execute("SELECT count(*) FROM pgmq.q_q")
            elif kind == "idle_xid":
                self.holder.execute("SELECT pg_current_xact_id()")
            elif kind == "sender":
                self.holder.execute("SELECT pgmq.send('q', '{}')")
            send(conn, depth)
            consume(conn, database, depth)
            conn.execute("VACUUM pgmq.q_q")
        send(conn, AVAILABLE)
        conn.execute("ANALYZE pgmq.q_q")
        conn.execute("CHECKPOINT")
        conn.close()

    def close(self):
        if self.holder:
            self.holder.close()


def buffers_of_call(conn, query):
    plan = conn.execute("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + query).fetchone()[0]
    plan = plan if isinstance(plan, list) else json.loads(plan)
    return plan[0]["Plan"]["Shared Hit Blocks"] + plan[0]["Plan"]["Shared Read Blocks"]


def measure(database, slow):
    """CPU microseconds and buffers per call of each read, in one session and in new ones."""
    result = {}
    conn = connect(database)
    for name, (query, calls, _) in READS.items():
        calls = max(5, calls // 20) if slow else calls
        cpu_of_calls(conn, query, 5)
        part = max(2, calls // 5)
        result[name] = (statistics.median(cpu_of_calls(conn, query, part) for _ in range(5)),
                        statistics.median(buffers_of_call(conn, query) for _ in range(5)))
    conn.close()
    fresh = []
    for _ in range(9):
        conn = connect(database)
        fresh.append(cpu_of_calls(conn, READS["read(1)"][0], 10))
        conn.close()
    result["read(1), new session"] = (statistics.median(fresh), None)
    return result


def flatness(args):
    kinds = args.only.split(",") if args.only else \
        ["delayed", "leased", "backlog", "snapshot", "idle_xid", "sender"]
    depths = [int(d) for d in args.depths.split(",")]
    arms = ["ours"] + (["peer"] if args.peer else [])
    print("| in front | read | " + " | ".join(
        "%s %s: CPU | buffers" % (arm, format(d, ",")) for arm in arms for d in depths) + " |")
    print("|---|---|" + "--:|--:|" * (len(depths) * len(arms)), flush=True)
    worst = 0
    for kind in kinds:
        base, cells = {}, {}
        for depth in depths:
            for arm in arms:
                scenario = Scenario(kind, depth, arm)
                slow = arm == "peer" and depth >= 100000
                for name, (cpu, buffers) in measure(arm, slow).items():
                    base.setdefault((arm, name), (cpu, buffers))
                    cells[arm, depth, name] = (cpu, buffers)
                scenario.close()
        for name in list(READS) + ["read(1), new session"]:
            row = []
            for arm in arms:
                for depth in depths:
                    cpu, buffers = cells[arm, depth, name]
                    if depth == depths[0]:
                        row.append("%.0f us | %s" % (cpu, buffers if buffers is not None else "-"))
                    else:
                        ratio = cpu / base[arm, name][0]
                        row.append("%.2f | %s" % (ratio, "-" if not buffers else
                                                  "%.2f" % (buffers / base[arm, name][1])))
                        if arm == "ours" and kind != "sender" and depth == depths[-1]:
                            worst = max(worst, ratio)
            print("| %s | %s | %s |" % (kind, name, " | ".join(row)), flush=True)
    print("\nworst CPU ratio of ours at %s, without the last kind: %.2f (wanted: at most 1.3)"
          % (format(depths[-1], ","), worst))


def pgbench(database, script, clients, seconds, scratch, sync="off"):
    path = os.path.join(scratch, "%s.pgbench" % database)
    with open(path, "w") as file:
        file.write(script)
    env = dict(os.environ, PGOPTIONS="-c synchronous_commit=" + sync)
    return subprocess.Popen(["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "2",
                             "-T", str(seconds), "-P", "30", "-f", path, database],
                            env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def tps(process):
    out, err = process.communicate()
    if process.returncode:
        sys.exit(err)
    return float(next(line for line in out.splitlines() if line.startswith("tps =")).split()[2])


def consumers(args):
    """CPU per message of 1 to 256 clients that read from one queue at once.

    "by id" is what the server itself needs for as many clients: the same change
    to the same table, by plain SQL, each client on messages of its own.
    """
    arms = ["ours", "by id"] + (["peer"] if args.peer else [])
    counts = [int(c) for c in args.clients.split(",")]
    conns = {arm: connect("ours" if arm == "by id" else arm) for arm in arms}
    print("| batch | synchronous_commit | who | " + " | ".join("%d clients" % c for c in counts) + " |")
    print("|--:|---|---|" + "--:|" * len(counts), flush=True)
    for arm in arms:
        if arm != "by id":
            marks_table(conns[arm])
    for batch in (1, 100):
        ops_of = {"ours": "SELECT count(*) FROM pgmq.read('q', 3600, %d);" % batch,
                  "by id": "\\set id (:client_id * :last + :n) * {0} + 1\n"
                  "WITH u AS (UPDATE pgmq.q_q SET read_ct = read_ct + 1, last_read_at = clock_timestamp(),"
                  " vt = clock_timestamp() + interval '1 h' WHERE msg_id BETWEEN :id AND :id + {0} - 1"
                  " RETURNING msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers)"
                  " SELECT count(*) FROM u;".format(batch)}
        ops_of["peer"] = ops_of["ours"]
        paths = {arm: os.path.join(args.scratch, "%s%d.pgbench" % (arm[:2], batch)) for arm in arms}
        for arm in arms:
            with open(paths[arm], "w") as file:
                file.write(FRAME.format(cpu=CPU_SECONDS, op=ops_of[arm]))
        for sync in ("off", "on"):
            for arm in arms:
                row, base = [], None
                for count in counts:
                    results = []
                    for _ in range(args.rounds):
                        # Every client reads as often, the queue does not run dry
                        ops = max(args.reads // batch // count, 2)
                        conn = conns[arm]
                        conn.execute("SELECT pgmq.drop_queue('q')")
                        conn.execute("SELECT pgmq.create('q')")
                        send(conn, (ops + 5) * count * batch * 5 // 4 + batch)
                        conn.execute("VACUUM ANALYZE pgmq.q_q")
                        results.append(run_marked(conn, paths[arm], count, 3, 3 + ops + 1,
                                                  "-c synchronous_commit=" + sync)[1] * 1e6 / batch)
                    cpu = statistics.median(results)
                    base = base or cpu
                    row.append("%.1f us" % cpu if count == counts[0] else "%.2f" % (cpu / base))
                print("| %d | %s | %s | %s |" % (batch, sync, arm, " | ".join(row)), flush=True)


def sizes(conn):
    return conn.execute("SELECT pg_table_size('pgmq.q_q') / 1048576.0, pg_indexes_size('pgmq.q_q') / 1048576.0").fetchone()


def steady(args):
    """Two databases under the same load at the same time; a snapshot is held in one of them."""
    script = ("SELECT pgmq.send('q', '%s'::jsonb);\n" % BODY +
              "SELECT coalesce(max(msg_id), 0) AS id FROM pgmq.read('q', 30, 1) \\gset\n"
              "SELECT pgmq.archive('q', :id::bigint);\n")
    with psycopg.connect(dbname="postgres", autocommit=True) as conn:
        conn.execute("CREATE DATABASE held TEMPLATE ours")
    conns = {database: connect(database) for database in ("ours", "held")}
    for conn in conns.values():
        conn.execute("SELECT pgmq.drop_queue('q')")
        conn.execute("SELECT pgmq.create('q')")
        send(conn, 1000)
    with connect("postgres") as conn:
        conn.execute("ALTER SYSTEM SET autovacuum = on")
        conn.execute("SELECT pg_reload_conf()")
    holder = psycopg.connect(dbname="held")
    holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
    holder.execute("SELECT count(*) FROM pgmq.q_q")
    loads = {database: pgbench(database, script, 4, args.steady, args.scratch) for database in conns}
    rates = {database: tps(load) for database, load in loads.items()}
    print("4 clients each, %d s, side by side: %.0f cycles a second without a held snapshot, %.0f with: %.2f"
          " (wanted: at least 0.95)" % (args.steady, rates["ours"], rates["held"], rates["held"] / rates["ours"]))
    print("queue without: table %.0f MB, indexes %.0f MB" % sizes(conns["ours"]))
    print("queue with:    table %.0f MB, indexes %.0f MB" % sizes(conns["held"]), flush=True)
    holder.rollback()
    holder.close()
    began = time.monotonic()
    while time.monotonic() - began < 120:
        tps(pgbench("held", script, 4, 10, args.scratch))
        table, indexes = sizes(conns["held"])
        print("%3.0f s after the holder has ended, under load: table %.1f MB, indexes %.1f MB"
              % (time.monotonic() - began, table, indexes), flush=True)
        if table < 20:
            break


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--depths", default="0,10000,100000,1000000")
    parser.add_argument("--only")
    parser.add_argument("--consumers", action="store_true")
    parser.add_argument("--clients", default="1,16,64,256")
    parser.add_argument("--reads", type=int, default=25000, help="messages read in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--steady", type=int)
    args = parser.parse_args()
    with psycopg.connect(dbname="postgres", autocommit=True) as conn:
        conn.execute("CREATE DATABASE ours")
        conn.execute("CREATE DATABASE peer")
        print("PostgreSQL %s" % conn.execute("SHOW server_version").fetchone()[0], flush=True)
    with connect("ours") as conn:
        conn.execute("CREATE EXTENSION pgmq")
    if args.peer:
        with psycopg.connect(dbname="peer", autocommit=True) as conn:
            conn.execute(open(args.peer, encoding="utf-8").read())
    if args.steady:
        steady(args)
    elif args.consumers:
        consumers(args)
    else:
        flatness(args)


main()

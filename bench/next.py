"""The measuring of bench/next."""
import argparse
import os
import re
import statistics
import subprocess

import psycopg

from common import BODY

# The variables are what the last call has returned
SCRIPTS = {
    ("delete", 1): ("SELECT msg_id FROM pgmq.read('q', 600, 1) \\gset\n"
                    "SELECT pgmq.delete('q', :msg_id::bigint);\n"),
    ("next", 1): ("SELECT msg_id, read_ct FROM"
                  " pgmq.next('q', 600, 1, ARRAY[:msg_id]::bigint[], ARRAY[:read_ct]::integer[]) \\gset\n"),
    ("delete", 100): ("SELECT array_agg(msg_id) AS ids FROM pgmq.read('q', 600, 100) \\gset\n"
                      "SELECT count(*) FROM pgmq.delete('q', :ids::bigint[]);\n"),
    ("next", 100): ("SELECT array_agg(msg_id) AS ids, array_agg(read_ct) AS attempts FROM"
                    " pgmq.next('q', 600, 100, :ids::bigint[], :attempts::integer[]) \\gset\n"),
}

# (clients, messages of a call, calls of each client, the ratio that is promised)
CASES = ((1, 1, 1500, 1.5), (16, 1, 400, 1.2), (1, 100, 200, 1.0), (16, 100, 30, 1.0))


def fill(conn, messages):
    conn.execute("SELECT pgmq.purge_queue('q')")
    for start in range(0, messages, 10000):
        conn.execute("SELECT count(*) FROM pgmq.send_batch('q', array_fill(%s::jsonb, %s::int[]))",
                     (BODY, [min(10000, messages - start)]))
    conn.execute("VACUUM ANALYZE pgmq.q_q")
    conn.execute("CHECKPOINT")


def rate(conn, path, clients, quantity, calls):
    """Messages a second"""
    fill(conn, clients * quantity * (calls + 1))
    done = subprocess.run(["pgbench", "-n", "-M", "prepared", "-c", str(clients), "-j", "1", "-t", str(calls), "-f", path,
                           "-D", "msg_id=0", "-D", "read_ct=0", "-D", "ids={}", "-D", "attempts={}", conn.info.dbname],
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, check=True)
    assert "ERROR" not in done.stderr, done.stderr
    return quantity * float(re.search(r"^tps = ([\d.]+)", done.stdout, re.M).group(1))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true")
    args = parser.parse_args()
    conn = psycopg.connect(autocommit=True)
    conn.execute("CREATE EXTENSION pgmq")
    conn.execute("SELECT pgmq.create('q')")
    paths = {}
    for key, script in SCRIPTS.items():
        paths[key] = os.path.join(args.scratch, "%s-%d.sql" % key)
        with open(paths[key], "w", encoding="ascii") as file:
            file.write(script)
    print("clients  batch   read + delete   next   ratio   promised      (messages a second)")
    for clients, quantity, calls, promised in CASES:
        pairs = []
        for number in range(3 if args.quick else args.rounds):
            pair = {}
            for verb in ("delete", "next") if number % 2 else ("next", "delete"):
                pair[verb] = rate(conn, paths[verb, quantity], clients, quantity, max(calls // (5 if args.quick else 1), 10))
            pairs.append(pair)
        print("%7d %6d %15.0f %6.0f %7.2f %10.1f"
              % (clients, quantity, statistics.median(p["delete"] for p in pairs), statistics.median(p["next"] for p in pairs),
                 statistics.median(p["next"] / p["delete"] for p in pairs), promised), flush=True)


main()

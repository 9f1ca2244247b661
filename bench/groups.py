"""The measuring of bench/groups."""
import argparse
import os
import statistics
import subprocess
import time

import psycopg

from common import BODY, CPU_SECONDS, cpu_of_calls

CPU = "SELECT 1e6 * " + CPU_SECONDS

READS = {
    "read": "SELECT * FROM pgmq.read('q', 3600, 10)",
    "read_grouped": "SELECT * FROM pgmq.read_grouped('q', 3600, 10)",
    "read_grouped_rr": "SELECT * FROM pgmq.read_grouped_rr('q', 3600, 10)",
    "read_grouped_head": "SELECT * FROM pgmq.read_grouped_head('q', 3600, 10)",
}

# name: (what it is, number of groups, share of the messages that lies in the first one)
SCENARIOS = {
    "one": ("1 group", 1, 0),
    "thousand": ("1,000 groups", 1000, 0),
    "many": ("100,000 groups", 100000, 0),
    "blocked": ("900,000 in a leased group, 1,000 others", 1000, 0.9),
    "expired": ("100,000 groups, all leases just run out", 100000, 0),
    "snapshot": ("1,000 groups, half consumed under a held snapshot", 1000, 0),
}


def connect(database):
    conn = psycopg.connect(dbname=database, autocommit=True)
    conn.prepare_threshold = 0
    return conn


def send(conn, messages, groups, share):
    """The first group has its share, mixed with the others"""
    big = int(share * 10)
    group = "mod(i, %d)" % groups
    if big:
        group = "CASE WHEN mod(i, 10) < %d THEN -1 ELSE %s END" % (big, "mod(i / 10, %d)" % groups)
    for start in range(0, messages, 10000):
        conn.execute("SELECT count(*) FROM pgmq.send_batch('q', array_fill(%s::jsonb, ARRAY[10000]),"
                     " ARRAY(SELECT jsonb_build_object('x-pgmq-group', 'group ' || " + group + ")"
                     " FROM generate_series(%s::int + 1, %s + 10000) AS i))", (BODY, start, start))


class Scenario:
    def __init__(self, name, database, messages):
        self.holder = None
        _, groups, share = SCENARIOS[name]
        conn = connect(database)
        conn.execute("SELECT pgmq.drop_queue('q')")
        conn.execute("SELECT pgmq.create('q')")
        conn.execute("SELECT pgmq.create_fifo_index('q')")
        send(conn, messages, groups, share)
        if name == "blocked":
            conn.execute("SELECT count(*) FROM pgmq.read_grouped('q', 36000, 1)")
        elif name == "expired":
            if database == "peer":
                conn.execute("UPDATE pgmq.q_q SET vt = clock_timestamp(), read_ct = 1 WHERE msg_id <= %s", (groups,))
            else:
                conn.execute("SELECT count(*) FROM pgmq.read_grouped_head('q', 1, %s)", (groups,))
                time.sleep(1.2)
        elif name == "snapshot" and database != "peer":
            self.holder = psycopg.connect(dbname=database)
            self.holder.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
            self.holder.execute("SELECT count(*) FROM pgmq.q_q")
            for _ in range(messages // 2000):
                conn.execute("SELECT pgmq.delete('q', array_agg(msg_id)) FROM pgmq.read_grouped('q', 3600, 1000)")
        conn.execute("ANALYZE pgmq.q_q")
        conn.execute("CHECKPOINT")
        conn.close()

    def close(self):
        if self.holder:
            self.holder.close()


def calls_of(conn, query, calls):
    cpu_of_calls(conn, query, 2)
    return statistics.median(cpu_of_calls(conn, query, max(1, calls // 10)) for _ in range(10))


def cost(args, arms):
    names = [n for n in SCENARIOS if not args.only or n in args.only.split(",")]
    if names:
        print("backend CPU in microseconds of a call for 10 messages, %s in the queue; in brackets: times a plain read\n"
              % format(args.messages, ","))
        print("| groups | " + " | ".join("%s: %s" % (arm, read) for arm in arms for read in READS) + " |")
        print("|---|" + "--:|" * (len(READS) * len(arms)), flush=True)
    for name in names:
        cells = []
        for arm in arms:
            scenario = Scenario(name, arm, args.messages)
            conn = connect(arm)
            plain = None
            for read, query in READS.items():
                calls = 10 if arm == "peer" else 30
                if SCENARIOS[name][1] == 1 and read != "read":
                    # finish each batch, so that the one group can be read again; measured apart
                    values = []
                    for _ in range(calls // 10 if arm == "peer" else calls):
                        before = conn.execute(CPU).fetchone()[0]
                        ids = [row[0] for row in conn.execute(query).fetchall()]
                        values.append(conn.execute(CPU).fetchone()[0] - before)
                        conn.execute("SELECT count(*) FROM pgmq.delete('q', %s::bigint[])", (ids,))
                    value = statistics.median(values)
                else:
                    value = calls_of(conn, query, calls)
                plain = plain or value
                cells.append("%s (%.1f)" % (format(round(value), ","), value / plain))
                # A plain read has taken messages out of the middle: give them back
                if read == "read":
                    conn.execute("UPDATE pgmq.q_q SET vt = clock_timestamp(), read_ct = 0"
                                 " WHERE last_read_at IS NOT NULL AND vt > clock_timestamp() AND vt < clock_timestamp() + interval '9 h'")
            conn.close()
            scenario.close()
        print("| %s | %s |" % (SCENARIOS[name][0], " | ".join(cells)), flush=True)
    if names:
        print()


def drain(args, arms):
    print("12 consumers, batches of 50 and delete, synchronous_commit off: messages a second from 1,000 groups\n")
    print("| | " + " | ".join(arms) + " |")
    print("|---|" + "--:|" * len(arms), flush=True)
    for read in list(READS)[1:]:
        cells = []
        for arm in arms:
            conn = connect(arm)
            conn.execute("SELECT pgmq.drop_queue('q')")
            conn.execute("SELECT pgmq.create('q')")
            conn.execute("SELECT pgmq.create_fifo_index('q')")
            send(conn, args.drain_messages, 1000, 0)
            conn.execute("VACUUM ANALYZE pgmq.q_q")
            path = os.path.join(args.scratch, "drain.sql")
            with open(path, "w", encoding="ascii") as script:
                script.write("SELECT count(*) FROM (SELECT array_agg(msg_id) AS ids FROM pgmq.%s('q', 60, 50)) AS m,"
                             " pgmq.delete('q', ids);\n" % read)
            before = conn.execute("SELECT count(*) FROM pgmq.q_q").fetchone()[0]
            start = time.monotonic()
            subprocess.run(["pgbench", "-n", "-M", "prepared", "-c", "12", "-j", "2", "-T", str(args.seconds),
                            "-f", path, arm], check=True, capture_output=True)
            seconds = time.monotonic() - start
            after = conn.execute("SELECT count(*) FROM pgmq.q_q").fetchone()[0]
            cells.append(format(round((before - after) / seconds), ","))
            if after == 0:
                cells[-1] += " (and it was empty)"
            conn.close()
        print("| %s | %s |" % (read, " | ".join(cells)), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--messages", type=int, default=1000000)
    parser.add_argument("--drain-messages", type=int, default=500000)
    parser.add_argument("--seconds", type=int, default=15)
    args = parser.parse_args()
    arms = ["ours"] + (["peer"] if args.peer else [])
    admin = connect("postgres")
    for arm in arms:
        admin.execute("CREATE DATABASE " + arm)
    connect("ours").execute("CREATE EXTENSION pgmq")
    if args.peer:
        with psycopg.connect(dbname="peer", autocommit=True) as conn, open(args.peer, encoding="utf8") as script:
            conn.execute("CREATE SCHEMA IF NOT EXISTS pgmq")
            conn.execute(script.read())
    cost(args, arms)
    if not args.only or "drain" in args.only.split(","):
        drain(args, arms)


if __name__ == "__main__":
    main()

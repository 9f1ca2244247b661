"""The measuring of bench/groups."""
import argparse
import os
import statistics
import subprocess
import threading
import time

import psycopg

from common import BODY, CPU_SECONDS, backend_cpu, cpu_of_calls

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


# The arms that are on a server of their own
HOSTS = {}


def connect(arm):
    host = {"host": HOSTS[arm]} if arm in HOSTS else {}
    conn = psycopg.connect(dbname=arm, autocommit=True, **host)
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


def hold_snapshot(arm):
    holder = connect(arm)
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM pgmq.q_q")
    return holder


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
            self.holder = hold_snapshot(database)
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
                            "-f", path, arm], check=True, capture_output=True,
                           env=dict(os.environ, **({"PGHOST": HOSTS[arm]} if arm in HOSTS else {})))
            seconds = time.monotonic() - start
            after = conn.execute("SELECT count(*) FROM pgmq.q_q").fetchone()[0]
            cells.append(format(round((before - after) / seconds), ","))
            if after == 0:
                cells[-1] += " (and it was empty)"
            conn.close()
        print("| %s | %s |" % (read, " | ".join(cells)), flush=True)


class HotGroup:
    """One group with four senders and three consumers, while a snapshot is held"""
    SENDERS = 4
    CONSUMERS = 3
    CALLS = ("send", "read of 10", "read of nothing", "delete of 10")

    def __init__(self, arm, target):
        self.arm, self.target = arm, target
        self.sent = self.consumed = 0
        self.lock = threading.Lock()
        self.costs = []         # (call, messages consumed so far, CPU)
        conn = connect(arm)
        conn.execute("SELECT pgmq.drop_queue('q')")
        conn.execute("SELECT pgmq.create('q')")
        conn.execute("SELECT pgmq.create_fifo_index('q')")
        conn.close()

    def call(self, conn, call, sql, *args):
        pid = conn.info.backend_pid
        before = backend_cpu(pid)
        rows = conn.execute(sql, args).fetchall()
        cost = backend_cpu(pid) - before
        if call != "send":
            call += " of 10" if len(rows) == 10 else " of nothing" if not rows else " of some"
        with self.lock:
            self.costs.append((call, self.consumed, cost))
            self.consumed += len(rows) if call.startswith("delete") else 0
        return rows

    def send(self):
        conn = connect(self.arm)
        while self.consumed < self.target:
            if self.sent - self.consumed > 2000:
                time.sleep(0.005)
                continue
            self.call(conn, "send", "SELECT pgmq.send('q', '%s'::jsonb)" % BODY)
            self.sent += 1

    def consume(self):
        conn = connect(self.arm)
        while self.consumed < self.target:
            rows = self.call(conn, "read", "SELECT msg_id FROM pgmq.read_grouped('q', 60, 10)")
            if rows:
                self.call(conn, "delete", "SELECT pgmq.delete('q', %s::bigint[])", [row[0] for row in rows])
            else:
                time.sleep(0.001)

    def run(self):
        holder = hold_snapshot(self.arm)
        threads = [threading.Thread(target=self.send) for _ in range(self.SENDERS)]
        threads += [threading.Thread(target=self.consume) for _ in range(self.CONSUMERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        holder.close()

    def cost(self, call, begin, end):
        values = [cost for name, consumed, cost in self.costs if name == call and begin <= consumed < end]
        return statistics.mean(values) if values else float("nan")


def hot(args, arms):
    """A tenth of the messages before the first measure, and one more for each"""
    step = args.hot_messages // 10
    print("one group, four senders, three consumers, a held snapshot: backend CPU in microseconds of a call, at the start,"
          " after %s consumed, and the ratio\n" % format(args.hot_messages, ","))
    print("| | " + " | ".join("%s: %s" % (arm, call) for arm in arms for call in HotGroup.CALLS) + " |")
    print("|---|" + "--:|" * (len(HotGroup.CALLS) * len(arms)), flush=True)
    cells = []
    for arm in arms:
        group = HotGroup(arm, args.hot_messages + step)
        group.run()
        for call in HotGroup.CALLS:
            start, end = group.cost(call, step // 10, step), group.cost(call, args.hot_messages, args.hot_messages + step)
            cells.append("%.0f, %.0f (%.2f)" % (start, end, end / start))
    print("| hot group | %s |\n" % " | ".join(cells), flush=True)


def memory(pid):
    """Memory of the process's own and the highest of all, in MB"""
    with open("/proc/%d/status" % pid, encoding="ascii") as status:
        fields = dict(line.split(":", 1) for line in status)
    return [int(fields[name].split()[0]) / 1024 for name in ("RssAnon", "VmHWM")]


def unindexed(args, arms):
    print("grouped reads without an index, %s messages in 100,000 groups: the backend's own memory at most, and with shared"
          " memory, in MB; seconds of a call\n" % format(args.unindexed_messages, ","))
    print("| | " + " | ".join("%s: %s" % (arm, read) for arm in arms for read in list(READS)[1:]) + " |")
    print("|---|" + "--:|" * (3 * len(arms)), flush=True)
    cells = []
    for arm in arms:
        conn = connect(arm)
        conn.execute("SELECT pgmq.drop_queue('q')")
        conn.execute("SELECT pgmq.create('q')")
        conn.execute("INSERT INTO pgmq.q_q (vt, enqueued_at, message, headers) SELECT now(), now(), '%s',"
                     " jsonb_build_object('x-pgmq-group', 'group ' || mod(i, 100000)) FROM generate_series(1, %d) AS i"
                     % (BODY, args.unindexed_messages))
        conn.execute("VACUUM ANALYZE pgmq.q_q")
        conn.close()
        for read in list(READS)[1:]:
            conn = connect(arm)
            pid, over, own = conn.info.backend_pid, threading.Event(), []

            def watch():
                while not over.wait(0.01):
                    own.append(memory(pid)[0])
            watcher = threading.Thread(target=watch)
            watcher.start()
            start = time.monotonic()
            assert len(conn.execute(READS[read]).fetchall()) == 10
            seconds = time.monotonic() - start
            over.set()
            watcher.join()
            cells.append("%.0f, %.0f; %.1f s" % (max(own), memory(pid)[1], seconds))
            conn.close()
    print("| without an index | %s |\n" % " | ".join(cells), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--before")
    parser.add_argument("--before-host")
    parser.add_argument("--only")
    parser.add_argument("--messages", type=int, default=1000000)
    parser.add_argument("--drain-messages", type=int, default=500000)
    parser.add_argument("--hot-messages", type=int, default=100000)
    parser.add_argument("--unindexed-messages", type=int, default=5000000)
    parser.add_argument("--seconds", type=int, default=15)
    args = parser.parse_args()
    arms = ["ours"] + (["before"] if args.before_host else []) + (["peer"] if args.peer else [])
    if args.before_host:
        HOSTS["before"] = args.before_host
    for arm in arms:
        with psycopg.connect(dbname="postgres", autocommit=True, **({"host": HOSTS[arm]} if arm in HOSTS else {})) as admin:
            admin.execute("CREATE DATABASE " + arm)
        if arm != "peer":
            connect(arm).execute("CREATE EXTENSION pgmq")
    if args.peer:
        with psycopg.connect(dbname="peer", autocommit=True) as conn, open(args.peer, encoding="utf8") as script:
            conn.execute("CREATE SCHEMA IF NOT EXISTS pgmq")
            conn.execute(script.read())
    cost(args, arms)
    only = args.only.split(",") if args.only else ["drain", "hot", "unindexed"]
    own = [arm for arm in arms if arm != "peer"]
    if "drain" in only:
        drain(args, arms)
    if "hot" in only:
        hot(args, own)
    if "unindexed" in only:
        unindexed(args, own)


if __name__ == "__main__":
    main()

"""The measuring of bench/run.

Three arms take turns: ours, the best plain SQL for the very same tables
("hand"), and the PL/pgSQL pgmq ("peer"), each in a database of its own on one
server.  A round is one pgbench run of one arm.  Before it the arm's tables are
emptied, filled to the same state and vacuumed, outside of the measuring.

Every client reads its backend's CPU time and the clock, through the server,
after a few warming operations and again at its end, so that connecting and
the first planning count for nobody.
"""
import argparse
import os
import statistics
import sys
import time

import psycopg

from common import BODY, CPU_SECONDS, FRAME, marks_table, run_marked

BATCH = "{%s}" % ",".join('"%s"' % BODY.replace('"', '\\"') for _ in range(100))

# Where one message a call is taken, and where a hundred
BACKLOG, DEEP_BACKLOG = 20000, 100000

TAKE = """msg_id = ANY (ARRAY(
  SELECT msg_id FROM (SELECT msg_id FROM hand.q WHERE vt <> enqueued_at AND vt <= now()
    ORDER BY vt, msg_id LIMIT {n} FOR UPDATE SKIP LOCKED) AS due
  UNION ALL
  SELECT msg_id FROM (SELECT msg_id FROM hand.q WHERE vt = enqueued_at
    ORDER BY msg_id LIMIT {n} FOR UPDATE SKIP LOCKED) AS fresh
  LIMIT {n}))"""
LEASE = """UPDATE hand.q SET read_ct = read_ct + 1, last_read_at = clock_timestamp(),
  vt = clock_timestamp() + interval '30 s' WHERE """ + TAKE
COLUMNS = "msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers"


class Op:
    """One row of the table: what a client runs, and the state it starts from."""

    def __init__(self, title, ours, hand, backlog=0, takes=0, warm=10, cpu_target=None, leased=0):
        self.title, self.script = title, {"ours": ours, "hand": hand, "peer": ours}
        self.backlog, self.takes, self.warm = backlog, takes, warm
        self.cpu_target, self.leased = cpu_target, leased

    def most_per_client(self, clients):
        """How often it may run in a round: no more than a third of the backlog goes."""
        if not self.takes:
            return 1000000
        return max(self.backlog // 3 // self.takes // clients - self.warm, 3)


# The operations; \gset takes a read's row to the client, as a consumer does.
# A set cannot be had that way, so the hundred ids are put into an array on the
# server, in all arms.
READ_100 = ("SELECT array_agg(msg_id) AS ids FROM pgmq.read('q', 30, 100) \\gset\n"
            "SELECT pgmq.delete('q', :ids::bigint[]);",
            "WITH r AS (" + LEASE.format(n=100) + " RETURNING " + COLUMNS + ")"
            " SELECT array_agg(msg_id) AS ids FROM r \\gset\n"
            "DELETE FROM hand.q WHERE msg_id = ANY (:ids::bigint[]) RETURNING msg_id;")
OPS = {
    "send": Op("send",
               "SELECT pgmq.send('q', :body::jsonb);",
               "INSERT INTO hand.q (vt, message) VALUES (now(), :body::jsonb) RETURNING msg_id;",
               cpu_target=0.5),
    "send100": Op("send_batch(100)",
                  "SELECT pgmq.send_batch('q', (SELECT msgs FROM bench.batch));",
                  "INSERT INTO hand.q (vt, message) SELECT now(), unnest((SELECT msgs FROM bench.batch))"
                  " RETURNING msg_id;",
                  cpu_target=0.6),
    "read1": Op("read(1) + delete",
                "SELECT * FROM pgmq.read('q', 30, 1) \\gset\n"
                "SELECT pgmq.delete('q', :msg_id::bigint);",
                LEASE.format(n=1) + " RETURNING " + COLUMNS + " \\gset\n"
                "DELETE FROM hand.q WHERE msg_id = :msg_id;",
                BACKLOG, 1, cpu_target=0.25),
    "read100": Op("read(100) + delete(array)", *READ_100, DEEP_BACKLOG, 100, warm=2, cpu_target=0.25),
    "read100leased": Op("the same behind 100,000 leased", *READ_100, DEEP_BACKLOG, 100, warm=2,
                        leased=DEEP_BACKLOG),
    "pop": Op("pop",
              "SELECT * FROM pgmq.pop('q');",
              "DELETE FROM hand.q WHERE " + TAKE.format(n=1) + " RETURNING " + COLUMNS + ";",
              BACKLOG, 1),
    "archive": Op("archive",
                  "\\set id :client_id * :last + :n\n"
                  "SELECT pgmq.archive('q', :id::bigint);",
                  "\\set id :client_id * :last + :n\n"
                  "WITH gone AS (DELETE FROM hand.q WHERE msg_id = :id RETURNING " + COLUMNS + ")"
                  " INSERT INTO hand.a (" + COLUMNS + ") SELECT " + COLUMNS + " FROM gone;",
                  BACKLOG, 1),
}

# Only when asked for: filling its tables takes as long as all the others
EXTRA = {"read100leased"}

TABLES = {"ours": ("pgmq.q_q", "pgmq.a_q"), "hand": ("hand.q", "hand.a"), "peer": ("pgmq.q_q", "pgmq.a_q")}
DATABASE = {"ours": "bench_ours", "hand": "bench_ours", "peer": "bench_peer"}

# Plain prepared SQL is at its best with the plans that ours is given
OPTIONS = {"ours": "", "peer": "",
           "hand": "-c plan_cache_mode=force_generic_plan -c enable_seqscan=off"
                   " -c enable_bitmapscan=off -c enable_sort=off -c jit=off"}

class Bench:
    def __init__(self, args):
        self.args = args
        self.arms = ["ours", "hand"] + (["peer"] if args.peer else [])
        self.conn = {}
        with psycopg.connect(dbname="postgres", autocommit=True) as conn:
            for database in sorted({DATABASE[arm] for arm in self.arms}):
                conn.execute("CREATE DATABASE " + database)
        for arm in self.arms:
            self.conn[arm] = psycopg.connect(dbname=DATABASE[arm], autocommit=True, options=OPTIONS[arm])
        ours = self.conn["ours"]
        self.server = ours.execute("SHOW server_version").fetchone()[0]
        ours.execute("CREATE EXTENSION pgmq")
        ours.execute("SELECT pgmq.create('q')")
        ours.execute("CREATE SCHEMA hand")
        ours.execute("CREATE TABLE hand.q (LIKE pgmq.q_q INCLUDING ALL)")
        ours.execute("CREATE TABLE hand.a (LIKE pgmq.a_q INCLUDING ALL)")
        ours.execute("CREATE EXTENSION pg_walinspect")
        if args.peer:
            self.conn["peer"].execute(open(args.peer, encoding="utf-8").read())
            self.conn["peer"].execute("SELECT pgmq.create('q')")
        for database in {DATABASE[arm]: arm for arm in self.arms}.values():
            marks_table(self.conn[database])
            # In a table: making an array from text is the client's affair, and the same in all arms
            self.conn[database].execute("CREATE TABLE bench.batch AS SELECT %s::jsonb[] AS msgs", (BATCH,))
        self.files = {}
        for key, op in OPS.items():
            for arm in self.arms:
                path = os.path.join(args.scratch, "%s-%s.pgbench" % (key, arm))
                with open(path, "w") as file:
                    # pgbench ends a statement at a semicolon, a backslash command at the line
                    file.write(FRAME.format(cpu=CPU_SECONDS, op=op.script[arm]))
                self.files[key, arm] = path

    def fill(self, arm, messages, leased=0):
        """The same state before each round of each arm; the leased messages are the older ones."""
        queue, archive = TABLES[arm]
        conn = self.conn[arm]
        conn.execute("TRUNCATE %s, %s RESTART IDENTITY" % (queue, archive))
        if messages:
            conn.execute("INSERT INTO %s (vt, message, read_ct, last_read_at)"
                         " SELECT now() + interval '1 h', %%s::jsonb, 1, now()"
                         " FROM generate_series(1, %%s)" % queue, (BODY, leased))
            conn.execute("INSERT INTO %s (vt, message) SELECT now(), %%s::jsonb"
                         " FROM generate_series(1, %%s)" % queue, (BODY, messages))
            conn.execute("VACUUM (ANALYZE) %s, %s" % (queue, archive))

    def round(self, key, arm, clients, sync, ops):
        """Run it; operations per second, and CPU seconds per operation."""
        op = OPS[key]
        self.fill(arm, op.backlog, op.leased)
        return run_marked(self.conn[arm], self.files[key, arm], clients, op.warm, op.warm + ops + 1,
                          OPTIONS[arm] + " -c synchronous_commit=" + sync,
                          (("body", BODY),))

    def row(self, key, clients, sync):
        """All rounds of one row: medians per arm, and of the ratios round by round."""
        op, ops, results = OPS[key], {}, {arm: [] for arm in self.arms}
        for arm in self.arms:
            # Not counted: finds out how many operations make a round
            trial = max(3, 40 // clients)
            rate, _ = self.round(key, arm, clients, sync, min(trial, op.most_per_client(clients)))
            ops[arm] = int(min(max(rate * self.args.seconds / clients, 3), op.most_per_client(clients)))
        for number in range(self.args.rounds):
            turn = number % len(self.arms)
            for arm in self.arms[turn:] + self.arms[:turn]:
                results[arm].append(self.round(key, arm, clients, sync, ops[arm]))
        row = {"key": key, "clients": clients, "sync": sync}
        for arm in self.arms:
            row[arm] = [statistics.median(r[i] for r in results[arm]) for i in (0, 1)]
            row["x" + arm] = [statistics.median(our[i] / their[i] for our, their in
                                                zip(results["ours"], results[arm])) for i in (0, 1)]
        return row

    def wal_per_message(self, arm):
        """Bytes of a send, a read and a delete, each a transaction of its own."""
        conn, cycles = self.conn[arm], 2000
        self.fill(arm, 0)
        if arm == "hand":
            send = "INSERT INTO hand.q (vt, message) VALUES (now(), %s::jsonb)"
            read = LEASE.format(n=1) + " RETURNING msg_id"
            delete = "DELETE FROM hand.q WHERE msg_id = %s"
        else:
            send = "SELECT pgmq.send('q', %s::jsonb)"
            read = "SELECT msg_id FROM pgmq.read('q', 30, 1)"
            delete = "SELECT pgmq.delete('q', %s)"
        conn.execute("CHECKPOINT")
        for cycle in range(200 + cycles):
            if cycle == 200:            # the pages in use have been logged in full by now
                start = conn.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
            conn.execute(send, (BODY,))
            msg_id, = conn.execute(read).fetchone()
            assert conn.execute(delete, (msg_id,)).rowcount == 1
        end = conn.execute("SELECT pg_current_wal_insert_lsn()").fetchone()[0]
        # Flushed, so that it can be read; a checkpoint would remove it
        conn.execute("SELECT pg_logical_emit_message(true, 'bench', 'flush')")
        total, = conn.execute("SELECT %s::pg_lsn - %s::pg_lsn", (end, start)).fetchone()
        full, = self.conn["ours"].execute("SELECT coalesce(sum(fpi_size), 0) FROM pg_get_wal_stats(%s, %s)",
                                          (start, end)).fetchone()
        return float(total - full) / cycles, float(full) / cycles


# The calls alone: so many in one statement, without a client's round trips and commits
CALLS = {
    "send": ("SELECT count(*) FROM generate_series(1, 1000) AS g,"
             " LATERAL pgmq.send('q', jsonb_build_object('id', g, 'event', 'order.created', 'customer', 12345))",
             1000, 0, 0.5),
    "send_batch(100)": ("SELECT count(*) FROM generate_series(1, 50) AS g,"
                        " LATERAL pgmq.send_batch('q', CASE WHEN g > 0 THEN (SELECT msgs FROM bench.batch) END)",
                        50, 0, 0.6),
    "read(1) + delete": ("SELECT count(pgmq.delete('q', m.msg_id)) FROM generate_series(1, 500) AS g,"
                         " LATERAL pgmq.read('q', 30 + 0 * g, 1) AS m", 500, 20000, 0.25),
    "read(100) + delete(array)": ("SELECT count(d) FROM generate_series(1, 30) AS g,"
                                  " LATERAL (SELECT array_agg(msg_id) AS ids FROM pgmq.read('q', 30 + 0 * g, 100)) AS m,"
                                  " LATERAL pgmq.delete('q', m.ids) AS d", 30, 100000, 0.25),
}


def calls_alone(bench, rounds):
    """Medians, over rounds in turns, of our CPU per call and of its ratio to the peer's."""
    print("\n| calls in one statement | ours: CPU us | peer: CPU | wanted |\n|---|--:|--:|--:|")
    for title, (query, count, backlog, wanted) in CALLS.items():
        results = {"ours": [], "peer": []}
        for _ in range(rounds):
            for arm in results:
                conn = bench.conn[arm]
                bench.fill(arm, backlog)
                conn.execute(query)         # plans, and reads the catalog
                before = conn.execute("SELECT " + CPU_SECONDS).fetchone()[0]
                conn.execute(query)
                results[arm].append((conn.execute("SELECT " + CPU_SECONDS).fetchone()[0] - before) / count * 1e6)
        print("| %s | %.0f | %s | %g |" % (
            title, statistics.median(results["ours"]),
            number(statistics.median(o / p for o, p in zip(results["ours"], results["peer"]))), wanted), flush=True)


def number(value):
    return "%.2f" % value


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--clients")
    parser.add_argument("--sync")
    parser.add_argument("--only")
    parser.add_argument("--calls", action="store_true")
    args = parser.parse_args()
    args.rounds = args.rounds or (3 if args.quick else 5)
    args.seconds = args.seconds or (0.3 if args.quick else 0.5)
    clients = [int(c) for c in (args.clients or ("1,4" if args.quick else "1,4,16")).split(",")]
    syncs = (args.sync or ("off" if args.quick else "off,on")).split(",")
    keys = args.only.split(",") if args.only else [key for key in OPS if key not in EXTRA]
    if args.calls:
        keys = []

    began = time.monotonic()
    bench = Bench(args)
    peer = "peer" in bench.arms
    print("PostgreSQL %s, %d cores; ours against hand-written SQL and the peer;"
          " medians of %d rounds\n" % (bench.server, os.cpu_count(), args.rounds))
    print("| operation | clients | sync. commit | ours: per second | ours: CPU us"
          " | hand: throughput | hand: CPU | peer: throughput | peer: CPU |")
    print("|---|--:|---|--:|--:|--:|--:|--:|--:|", flush=True)
    rows = []
    for key in keys:
        for sync in syncs:
            for count in clients:
                row = bench.row(key, count, sync)
                rows.append(row)
                ratios = row["xhand"] + (row["xpeer"] if peer else [])
                print("| %s | %d | %s | %.0f | %.0f | %s |" % (
                    OPS[key].title, count, sync, row["ours"][0], row["ours"][1] * 1e6,
                    " | ".join([number(r) for r in ratios] + ["-"] * (4 - len(ratios)))), flush=True)

    if peer and not args.only:
        calls_alone(bench, args.rounds)

    print("\n| WAL per message (send, read, delete of 60 bytes) | bytes | in full pages |\n|---|--:|--:|")
    wal = {arm: bench.wal_per_message(arm) for arm in bench.arms}
    for arm, (size, full) in wal.items():
        print("| %s | %.0f | %.0f |" % (arm, size, full))

    print("\n| target | wanted | worst row | |\n|---|--:|--:|---|")
    targets = [("throughput against hand, " + OPS[key].title, ">=", 0.9,
                min(r["xhand"][0] for r in rows if r["key"] == key)) for key in keys]
    targets += [("CPU against the peer, " + OPS[key].title, "<=", OPS[key].cpu_target,
                 max(r["xpeer"][1] for r in rows if r["key"] == key))
                for key in keys if peer and OPS[key].cpu_target]
    targets.append(("WAL bytes per message", "<=", 800, wal["ours"][0]))
    for what, sign, wanted, got in targets:
        met = got >= wanted if sign == ">=" else got <= wanted
        print("| %s | %s %g | %s | %s |" % (what, sign, wanted,
                                            number(got) if wanted < 10 else "%.0f" % got,
                                            "met" if met else "MISSED"))
    print("\n%.0f s" % (time.monotonic() - began))


main()

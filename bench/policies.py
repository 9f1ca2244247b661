"""The measuring of bench/policies.

To add a policy, add a line to POLICIES; to add an operation, a function to OPERATIONS; to add what may lie in front of
messages, a line to DEPTHS.
"""
import argparse
import itertools
import os
import statistics
import subprocess
import time

import psycopg

from common import BODY, CPU_SECONDS

CPU = "SELECT 1e6 * " + CPU_SECONDS

# Headers with a level that is not the default
LEVEL = '{"x-pgmq-priority": 7}'

READS = ("read", "read_ack")

# As many as a round of sends begins with
FULL = "max_length => 2010, overflow => 'drop_oldest'"

# name: (arguments of set_policy, the operations that it is measured with)
POLICIES = {
    "none": ("", ("send", "send_batch") + READS),
    "max_reads": ("max_reads => 5, retry_delay => '5 s', dead_letter_queue => 'bench_dead'", ("send",) + READS),
    "message_ttl": ("message_ttl => '1 day'", ("send",) + READS),
    "priority": ("priority => true", ("send", "send_level", "send_levels") + READS),
    "priority_wait": ("priority => true, priority_max_wait => '1 hour'", READS),
    "rate_limit": ("rate_limit => 1000000000", READS),
    "max_in_flight": ("max_in_flight => 1000000", READS),
    "one_in_flight": ("max_in_flight => 1", ("one_ack", "next")),
    "both_limits": ("max_in_flight => 1000, rate_limit => 1000000000", ("read_ack",)),
    "max_length": ("max_length => 1000000000", ("send", "send_batch", "read_ack")),
    "drop_oldest": (FULL, ("send", "send_batch")),
    "drop_to_queue": (FULL + ", dead_letter_queue => 'bench_dead'", ("send", "send_batch")),
    "dedup_window": ("dedup_window => '1 hour'", ("send_unique", "send", "read")),
}


PLAIN, POLICY = "bench_plain", "bench_policy"


# ---- operations: a call, on a queue that has been filled ----

def send(conn, queue, _):
    conn.execute("SELECT pgmq.send(%s, %s)", (queue, BODY)).fetchall()


def send_batch(conn, queue, _):
    conn.execute("SELECT pgmq.send_batch(%s, array_fill(%s::jsonb, '{100}'))", (queue, BODY)).fetchall()


KEYS = itertools.count()


def send_unique_both(conn, queue, _):
    conn.execute("SELECT * FROM pgmq.send_unique(%s, %s, %s)", (queue, BODY, str(next(KEYS)))).fetchall()


def send_unique(conn, queue, state):
    """Without the policy a plain send"""
    (send if queue == PLAIN else send_unique_both)(conn, queue, state)


def send_level(conn, queue, _):
    conn.execute("SELECT pgmq.send(%s, %s, %s::jsonb)", (queue, BODY, LEVEL)).fetchall()


def send_levels(conn, queue, _):
    conn.execute("SELECT pgmq.send_batch(%s, array_fill(%s::jsonb, '{100}'), array_fill(%s::jsonb, '{100}'))",
                 (queue, BODY, LEVEL)).fetchall()


def read(conn, queue, _):
    assert conn.execute("SELECT * FROM pgmq.read(%s, 600, 1)", (queue,)).fetchall()


def read_ack(conn, queue, _, quantity=100):
    rows = conn.execute("SELECT msg_id, read_ct FROM pgmq.read(%s, 600, %s::int)", (queue, quantity)).fetchall()
    assert len(rows) == quantity, len(rows)
    conn.execute("SELECT ok FROM pgmq.ack_batch(%s, %s, %s)",
                 (queue, [row[0] for row in rows], [row[1] for row in rows])).fetchall()


def one_ack(conn, queue, state):
    read_ack(conn, queue, state, 1)


def next_one(conn, queue, state):
    done = state.get("done", [])
    rows = conn.execute("SELECT msg_id, read_ct FROM pgmq.next(%s, 600, 1, %s::bigint[], %s::int[])",
                        (queue, [row[0] for row in done], [row[1] for row in done])).fetchall()
    assert len(rows) == 1, len(rows)
    state["done"] = rows


# name: (function, calls in a round)
OPERATIONS = {
    "send": (send, 2000),
    "send_batch": (send_batch, 20),
    "send_unique": (send_unique, 1000),
    "send_unique_both": (send_unique_both, 1000),
    "send_level": (send_level, 2000),
    "send_levels": (send_levels, 100),
    "read": (read, 1000),
    "read_ack": (read_ack, 60),
    "one_ack": (one_ack, 1000),
    "next": (next_one, 1000),
}


def connect(**where):
    conn = psycopg.connect(autocommit=True, **where)
    conn.prepare_threshold = 0
    return conn


def make_queue(conn, queue, settings):
    conn.execute("SELECT pgmq.drop_queue(%s)", (queue,))
    conn.execute("SELECT pgmq.create(%s)", (queue,))
    if settings:
        conn.execute("SELECT pgmq.set_policy(%s, " + settings + ")", (queue,))


def fill(conn, queue, messages, headers=None):
    for start in range(0, messages, 10000):
        some = [min(10000, messages - start)]
        conn.execute("SELECT count(*) FROM pgmq.send_batch(%s, array_fill(%s::jsonb, %s::int[]), array_fill(%s::jsonb, %s::int[]))",
                     (queue, BODY, some, headers, some))


def cpu_of(conn, function, queue, calls):
    """Microseconds of the backend for a call"""
    state = {}
    function(conn, queue, state)
    before = conn.execute(CPU).fetchone()[0]
    for _ in range(calls):
        function(conn, queue, state)
    return (conn.execute(CPU).fetchone()[0] - before) / calls


def compare(name, operation, conn, rounds, calls, prepare):
    """
    Pairs of rounds, without and with the policy, or with little and with much in front; which of them is first changes
    from pair to pair
    """
    function, _ = OPERATIONS[operation]
    pairs = []
    for number in range(rounds + 1):
        cost = {}
        for queue in (PLAIN, POLICY) if number % 2 else (POLICY, PLAIN):
            prepare(queue)
            cost[queue] = cpu_of(conn, function, queue, calls)
        pairs.append((cost[PLAIN], cost[POLICY]))
    pairs = pairs[1:]           # the first one has warmed up
    print("%-18s %-16s %8.1f us without, %8.1f us with it: %.2f"
          % (name, operation, statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
             statistics.median(p[1] / p[0] for p in pairs)), flush=True)


def measure(name, operation, rounds):
    settings, _ = POLICIES[name]
    _, calls = OPERATIONS[operation]
    conn = connect()
    make_queue(conn, "bench_dead", "")
    make_queue(conn, PLAIN, "")
    make_queue(conn, POLICY, settings)
    has_keys = conn.execute("SELECT to_regclass('pgmq.k_bench_policy')").fetchone()[0]

    def prepare(queue):
        conn.execute("SELECT pgmq.purge_queue(%s)", (queue,))
        if has_keys:
            conn.execute("TRUNCATE pgmq.k_bench_policy")
        if "overflow" in settings:
            # The limit is reached before the first send that counts
            fill(conn, queue, 2010)
        else:
            fill(conn, queue, 101 * calls + 101 if operation == "read_ack" else calls + 10)

    compare(name, operation, conn, rounds, calls, prepare)
    conn.close()


# ---- many messages in front ----

INSERT = ("INSERT INTO pgmq.q_bench_policy (enqueued_at, vt, read_ct, message{column})"
          " SELECT {at}, {vt}, {read_ct}, '{body}'{value} FROM generate_series(1, {count}) AS g")


def insert(conn, count, at="now()", vt="now()", read_ct=0, column="", value=""):
    conn.execute(INSERT.format(at=at, vt=vt, read_ct=read_ct, column=column, value=value, count=count, body=BODY))


def in_front_low(conn, count):
    insert(conn, count, column=", pgmq_rank", value=", 9")


def in_front_levels(conn, count):
    for rank in range(10):
        insert(conn, count, column=", pgmq_rank", value=", %d" % rank)


def in_front_keys(conn, count):
    insert(conn, count)
    conn.execute("INSERT INTO pgmq.k_bench_policy (dedup_key, msg_id, expires_at)"
                 " SELECT 'old' || g, g, now() + interval '1 hour' FROM generate_series(1, %s) AS g" % count)


def in_front_leased(conn, count):
    # Below the limit, which is a million at most
    insert(conn, count * 9 // 10, vt="now() + interval '1 hour'", read_ct=1)


def in_front_exhausted(conn, count):
    insert(conn, count, at="now() - interval '1 day'", vt="now() - interval '1 hour' + g * interval '1 us'", read_ct=3)


def in_front_expired(conn, count):
    old = "now() - interval '1 day' + g * interval '1 us'"
    insert(conn, count, at=old, vt=old)


# name: (arguments of set_policy, what is in front, the operations)
DEPTHS = {
    "low": ("priority => true", in_front_low, READS),
    "levels": ("priority => true", in_front_levels, ("send_level",) + READS),
    "keys": ("dedup_window => '1 hour'", in_front_keys, ("send_unique_both", "read")),
    "over": ("max_length => {}, overflow => 'drop_oldest'", insert, ("send", "read")),
    "leased": ("max_in_flight => 1000000", in_front_leased, READS),
    "exhausted": ("max_reads => 3, dead_letter_queue => 'bench_dead'", in_front_exhausted, READS),
    "expired": ("message_ttl => '1 hour'", in_front_expired, READS),
}

# Behind them, to be read while measuring, and how many calls are a round
AVAILABLE = 20000
DEEP_CALLS = {"read": 100, "read_ack": 10}


def move_dead(conn, name):
    """Reads until all are moved: no call may take long"""
    cpu, wall, first = [], [], None
    left = "SELECT count(*) FROM pgmq.q_bench_policy WHERE enqueued_at < now() - interval '1 hour'"
    while conn.execute(left).fetchone()[0] > 0:
        for _ in range(200):
            before, began = conn.execute(CPU).fetchone()[0], time.perf_counter()
            rows = conn.execute("SELECT * FROM pgmq.read('bench_policy', 600, 1)").fetchall()
            wall.append((time.perf_counter() - began) * 1000)
            cpu.append((conn.execute(CPU).fetchone()[0] - before) / 1000)
            if rows and first is None:
                first = len(wall)
    # It makes the plans, and finds where reads begin
    first_call = cpu[0], wall[0]
    for values in cpu, wall:
        del values[0]
        values.sort()
    print("%-18s %d calls have moved all, call %d found a live message; milliseconds of CPU: median %.1f, 99%% below %.1f,"
          " at most %.1f; by the clock: %.1f, %.1f, %.1f; the first call is not among these: it took %.1f, by the clock %.1f"
          % ((name, len(wall) + 1, first) + tuple(v[int(len(v) * part) - (part == 1)] for v in (cpu, wall)
                                              for part in (0.5, 0.99, 1)) + first_call), flush=True)


def deep(name, count, rounds):
    """The same policy with a few messages, and with many in front of them"""
    settings, in_front, operations = DEPTHS[name]
    conn = connect()
    make_queue(conn, "bench_dead", "")
    for queue, many in ((PLAIN, AVAILABLE), (POLICY, count)):
        make_queue(conn, queue, settings.format(many))
    in_front(conn, count)
    if in_front in (in_front_exhausted, in_front_expired):
        insert(conn, AVAILABLE)
        move_dead(conn, name)
    fill(conn, POLICY, AVAILABLE, LEVEL if "priority" in settings else None)
    conn.execute("ANALYZE pgmq.q_bench_policy")
    # Until the queue is as long as it may be: a send removes a hundred more than it needs
    for _ in range(AVAILABLE // 50 if name == "over" else 0):
        send(conn, POLICY, None)
    fill(conn, PLAIN, AVAILABLE, LEVEL if "priority" in settings else None)
    for operation in operations:
        compare(name + " in front", operation, conn, rounds,
                DEEP_CALLS.get(operation, 100), lambda queue: None)
    conn.close()


# ---- 64 consumers of a queue with a rate ----

CONSUME = "SELECT pgmq.delete('bench_crowd', msg_id) FROM pgmq.read_with_poll('bench_crowd', 600, 1, 5);\n"


def crowd(scratch, seconds, settings):
    conn = connect()
    make_queue(conn, "bench_crowd", settings)
    fill(conn, "bench_crowd", 4000 * seconds)
    path = os.path.join(scratch, "consume.sql")
    with open(path, "w", encoding="ascii") as script:
        script.write(CONSUME)
    with subprocess.Popen(["pgbench", "-n", "-c", "64", "-T", str(seconds), "-f", path, conn.info.dbname],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as load:
        while conn.execute("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgbench'").fetchone()[0] < 64:
            time.sleep(0.01)
        samples = waiting = light = 0
        while load.poll() is None:
            row = conn.execute("SELECT count(*), count(*) FILTER (WHERE wait_event_type = 'Lock'),"
                               " count(*) FILTER (WHERE wait_event_type = 'LWLock')"
                               " FROM pg_stat_activity WHERE application_name = 'pgbench'").fetchone()
            samples, waiting, light = samples + row[0], waiting + row[1], light + row[2]
            time.sleep(0.02)
    got = conn.execute("SELECT last_value - (SELECT count(*) FROM pgmq.q_bench_crowd) FROM pgmq.q_bench_crowd_msg_id_seq").fetchone()[0]
    print("64 consumers, %s: %.0f messages a second, %.2f %% of the samples wait for a lock, %.2f %% for an internal one"
          % (settings, got / seconds, 100 * waiting / samples, 100 * light / samples), flush=True)
    conn.close()


# ---- a queue without policies, in this version and in an earlier one ----

NO_POLICY = {
    "send": ("SELECT pgmq.send('q', '" + BODY + "'::jsonb)", 0),
    "send_batch(100)": ("SELECT pgmq.send_batch('q', array_fill('" + BODY + "'::jsonb, '{100}'))", 0),
    "read(1)": ("SELECT * FROM pgmq.read('q', 600, 1)", 1),
    "read(100)": ("SELECT * FROM pgmq.read('q', 600, 100)", 100),
    "read_grouped(1)": ("SELECT * FROM pgmq.read_grouped('q', 600, 1)", 1),
    "pop": ("SELECT * FROM pgmq.pop('q')", 1),
    "delete": ("SELECT pgmq.delete('q', nextval('bench_id'))", 1),
    "archive": ("SELECT pgmq.archive('q', nextval('bench_id'))", 1),
    "set_vt": ("SELECT * FROM pgmq.set_vt('q', nextval('bench_id'), 60)", 1),
}


def buffers_of(conn, query):
    plan = conn.execute("EXPLAIN (ANALYZE, BUFFERS, WAL, TIMING OFF, FORMAT JSON) " + query).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], plan["WAL Records"]


def refill(conn, messages):
    conn.execute("SELECT pgmq.drop_queue('q')")
    conn.execute("SELECT pgmq.create('q')")
    conn.execute("SELECT setval('bench_id', 1, false)")
    conn.execute("SELECT pgmq.create_fifo_index('q')")
    conn.execute("SELECT count(*) FROM (SELECT pgmq.send('q', %s, jsonb_build_object('x-pgmq-group', g::text))"
                 " FROM generate_series(1, %s) AS g) AS s", (BODY, messages))


def no_policy(before_host, rounds):
    conns = connect(), connect(host=before_host)
    conns[1].execute("CREATE EXTENSION pgmq")
    for conn in conns:
        conn.execute("CREATE SEQUENCE bench_id")
    for name, (query, taken) in NO_POLICY.items():
        calls = 20 if "100" in name else 300
        cpu, buffers = [], []
        for number in range(rounds + 1):
            order = conns if number % 2 else conns[::-1]
            for conn in order:
                refill(conn, taken * (calls + 60) + 10)
            cost = {conn: cpu_of(conn, lambda conn, *_: conn.execute(query).fetchall(), None, calls) for conn in order}
            cpu.append(cost[conns[0]] / cost[conns[1]])
            buffers += zip(*[[buffers_of(conn, query) for _ in range(20)] for conn in conns])
        print("no policy, %-16s buffers %d before, %d now; WAL records %d, %d; CPU: %.2f"
              % (name, statistics.median(b[1][0] for b in buffers), statistics.median(b[0][0] for b in buffers),
                 statistics.median(b[1][1] for b in buffers), statistics.median(b[0][1] for b in buffers),
                 statistics.median(cpu[1:])), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--messages", type=int, default=1000000)
    parser.add_argument("--before")
    parser.add_argument("--before-host")
    args = parser.parse_args()
    only = args.only.split(",") if args.only else ["before", *POLICIES, *DEPTHS, "crowd"]
    connect().execute("CREATE EXTENSION pgmq")
    if args.before_host and "before" in only:
        no_policy(args.before_host, args.rounds)
    for name, (_, operations) in POLICIES.items():
        for operation in operations if name in only else ():
            measure(name, operation, args.rounds)
    for name in DEPTHS:
        if name in only:
            deep(name, args.messages, args.rounds)
    if "crowd" in only:
        for settings in ("rate_limit => 1000", "max_in_flight => 16"):
            crowd(args.scratch, args.seconds, settings)


main()

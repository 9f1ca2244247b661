"""The measuring of bench/policies.

To add a policy, add a line to POLICIES; to add an operation, a function to OPERATIONS; to add what may lie in front of
messages, a line to DEPTHS.
"""
import argparse
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


def send_unique(conn, queue, state):
    """Without the policy a plain send"""
    if queue == PLAIN:
        send(conn, queue, state)
        return
    state["key"] = state.get("key", 0) + 1
    conn.execute("SELECT * FROM pgmq.send_unique(%s, %s, %s)", (queue, BODY, str(state["key"]))).fetchall()


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
    "send_level": (send_level, 2000),
    "send_levels": (send_levels, 100),
    "read": (read, 1000),
    "read_ack": (read_ack, 60),
    "one_ack": (one_ack, 1000),
    "next": (next_one, 1000),
}


def connect():
    conn = psycopg.connect(autocommit=True)
    conn.prepare_threshold = 0
    return conn


def make_queue(conn, queue, settings):
    conn.execute("SELECT pgmq.drop_queue(%s)", (queue,))
    conn.execute("SELECT pgmq.create(%s)", (queue,))
    if settings:
        conn.execute("SELECT pgmq.set_policy(%s, " + settings + ")", (queue,))


def fill(conn, queue, messages):
    for start in range(0, messages, 10000):
        conn.execute("SELECT count(*) FROM pgmq.send_batch(%s, array_fill(%s::jsonb, %s::int[]))",
                     (queue, BODY, [min(10000, messages - start)]))


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
    print("%-14s %-11s %8.1f us without, %8.1f us with it: %.2f"
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
          " SELECT {at}, {vt}, {read_ct}, '" + BODY + "'{value} FROM generate_series(1, {count}) AS g")


def insert(conn, count, at="now()", vt="now()", read_ct=0, column="", value=""):
    conn.execute(INSERT.format(at=at, vt=vt, read_ct=read_ct, column=column, value=value, count=count))


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
    insert(conn, count, vt="now() + interval '1 hour'", read_ct=1)


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
    for values in cpu, wall:
        values.sort()
    print("%-14s %d calls have moved all, call %d found a live message; milliseconds of CPU: median %.1f, 99%% below %.1f,"
          " at most %.1f; by the clock: %.1f, %.1f, %.1f"
          % ((name, len(wall), first) + tuple(v[int(len(v) * part) - (part == 1)] for v in (cpu, wall)
                                              for part in (0.5, 0.99, 1))), flush=True)


def deep(name, count, rounds):
    """The same policy with a few messages, and with many in front of them"""
    settings, in_front, operations = DEPTHS[name]
    conn = connect()
    make_queue(conn, "bench_dead", "")
    for queue, many in ((PLAIN, 1000), (POLICY, count)):
        make_queue(conn, queue, settings.format(many))
    in_front(conn, count)
    if in_front in (in_front_exhausted, in_front_expired):
        insert(conn, AVAILABLE)
        move_dead(conn, name)
    insert(conn, AVAILABLE, column=", pgmq_rank" if "priority" in settings else "",
           value=", %d" % 0 if "priority" in settings else "")
    conn.execute("ANALYZE pgmq.q_bench_policy")
    fill(conn, PLAIN, 1000 if name == "over" else AVAILABLE)
    for operation in operations:
        compare(name + " in front" if name != "over" else name, operation, conn, rounds,
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


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--seconds", type=int, default=10)
    args = parser.parse_args()
    only = args.only.split(",") if args.only else list(POLICIES) + ["crowd"]
    connect().execute("CREATE EXTENSION pgmq")
    for name, (_, operations) in POLICIES.items():
        for operation in operations if name in only else ():
            measure(name, operation, args.rounds)
    if "crowd" in only:
        for settings in ("rate_limit => 1000", "max_in_flight => 16"):
            crowd(args.scratch, args.seconds, settings)


main()

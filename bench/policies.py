"""The measuring of bench/policies.

To add a policy, add a line to POLICIES; to add an operation, a function to OPERATIONS.
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

# name: (arguments of set_policy, the operations that it is measured with)
POLICIES = {
    "none": ("", ("send", "read", "read_ack")),
    "priority": ("priority => true", ("send", "send_level", "send_levels", "read", "read_ack")),
    "priority_wait": ("priority => true, priority_max_wait => '1 hour'", ("read", "read_ack")),
    "rate_limit": ("rate_limit => 1000000000", ("read", "read_ack")),
    "max_in_flight": ("max_in_flight => 1000000", ("read", "read_ack")),
    "one_in_flight": ("max_in_flight => 1", ("one_ack", "next")),
    "both_limits": ("max_in_flight => 1000, rate_limit => 1000000000", ("read_ack",)),
    "max_length": ("max_length => 1000000000", ("send", "read_ack")),
    # As many as a round of sends begins with
    "drop_oldest": ("max_length => 2010, overflow => 'drop_oldest'", ("send",)),
}


# ---- operations: a call, on a queue that has been filled ----

def send(conn, queue, _):
    conn.execute("SELECT pgmq.send(%s, %s)", (queue, BODY)).fetchall()


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


def measure(name, operation, rounds):
    """Pairs of rounds, without and with the policy; which of them is first changes from pair to pair"""
    settings, _ = POLICIES[name]
    function, calls = OPERATIONS[operation]
    conn = connect()
    queues = ("bench_plain", "bench_policy")
    make_queue(conn, queues[0], "")
    make_queue(conn, queues[1], settings)
    pairs = []
    for number in range(rounds + 1):
        cost = {}
        for queue in queues if number % 2 else queues[::-1]:
            conn.execute("SELECT pgmq.purge_queue(%s)", (queue,))
            fill(conn, queue, 101 * calls + 101 if operation == "read_ack" else calls + 10)
            cost[queue] = cpu_of(conn, function, queue, calls)
        pairs.append([cost[queue] for queue in queues])
    pairs = pairs[1:]           # the first one has warmed up
    print("%-16s %-10s %8.1f us without, %8.1f us with it: %.3f"
          % (name, operation, statistics.median(p[0] for p in pairs), statistics.median(p[1] for p in pairs),
             statistics.median(p[1] / p[0] for p in pairs)), flush=True)
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

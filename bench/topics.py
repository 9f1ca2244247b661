"""The measuring of bench/topics."""
import argparse
import statistics

import psycopg

from common import BODY, CPU_SECONDS

# Patterns, of which %s is the number, and keys that one of them matches
KINDS = {
    "exact: `orders.eu.N`": ("orders.eu.%s", "orders.eu.%s"),
    "prefix: `tenant.N.#`": ("tenant.%s.#", "tenant.%s.order.created"),
    "suffix: `#.N`": ("#.%s", "order.created.%s"),
    "middle: `*.N.*`": ("*.%s.*", "order.%s.created"),
    "inside segments: `ev*N.x#y`": ("ev*%s.x#y", "event%s.x.and.y"),
}

# The peer tries every regular expression: with more bindings it would take minutes
PEER_MAX = 10000


def connect(database):
    return psycopg.connect(dbname=database, autocommit=True)


def load(conn, pattern, bindings, together):
    """The bindings of one kind, or of all kinds, lead to one queue; the rest is empty."""
    conn.execute("DELETE FROM pgmq.topic_bindings")
    patterns = [p for p, _ in KINDS.values()] if together else [pattern]
    conn.execute(
        "INSERT INTO pgmq.topic_bindings (pattern, queue_name)"
        " SELECT replace(p, '%%s', i::text), 'q' FROM unnest(%s::text[]) AS p, generate_series(1000001, 1000000 + %s) AS i",
        (patterns, bindings // len(patterns)))
    conn.execute("VACUUM ANALYZE pgmq.topic_bindings")


def cpu(conn, call, calls):
    """Microseconds of the backend's CPU for one of many calls in one statement."""
    conn.execute("TRUNCATE pgmq.q_q")
    query = "SELECT count(n) FROM (SELECT %s AS n FROM generate_series(1, %d)) AS calls" % (call, calls)
    before = conn.execute("SELECT " + CPU_SECONDS).fetchone()[0]
    assert conn.execute(query).fetchone()[0] == calls
    spent = conn.execute("SELECT " + CPU_SECONDS).fetchone()[0] - before
    return float(spent) * 1e6 / calls


def measure(conn, key, args, calls):
    """(a send, a topic send, the median ratio of the rounds)"""
    send = "pgmq.send('q', '%s')" % BODY
    topic = "pgmq.send_topic('%s', '%s')" % (key, BODY)
    assert conn.execute("SELECT " + topic).fetchone()[0] == 1, key
    rounds = [(cpu(conn, send, 2000), cpu(conn, topic, calls)) for _ in range(args.rounds + 1)][1:]
    return (statistics.median(r[0] for r in rounds), statistics.median(r[1] for r in rounds),
            statistics.median(r[1] / r[0] for r in rounds))


def first_send(conn_name, key):
    """Milliseconds of CPU for the send of a session that has not read the bindings yet, less a plain one."""
    def one(call):
        conn = connect(conn_name)
        conn.execute("SELECT pgmq.send('q', '{}')")
        before = conn.execute("SELECT " + CPU_SECONDS).fetchone()[0]
        conn.execute("SELECT " + call)
        spent = conn.execute("SELECT " + CPU_SECONDS).fetchone()[0] - before
        memory = conn.execute("SELECT sum(total_bytes) / 1024.0 FROM pg_backend_memory_contexts"
                              " WHERE name = 'pgmq topics'").fetchone()[0]
        conn.close()
        return float(spent) * 1e3, memory
    costs = [one("pgmq.send_topic('%s', '{}')" % key) for _ in range(3)]
    plain = min(one("pgmq.send('q', '{}')")[0] for _ in range(3))
    return statistics.median(c for c, _ in costs) - plain, costs[0][1]


def table(args):
    arms = ["ours"] + (["peer"] if args.peer else [])
    conns = {arm: connect(arm) for arm in arms}
    print("| bindings | patterns | a send: us | send_topic: us | ratio | first in a session: ms | memory: kB |"
          + (" peer: us | ratio to its send |" if args.peer else ""))
    print("|--:|---|--:|--:|--:|--:|--:|" + ("--:|--:|" if args.peer else ""), flush=True)
    worst = {}
    for bindings in (int(b) for b in args.bindings.split(",")):
        for title, (pattern, key) in list(KINDS.items()) + [("all of these", KINDS["middle: `*.N.*`"])]:
            key = key % (1000000 + max(bindings // 10, 1))
            for conn in conns.values():
                load(conn, pattern, max(bindings, 1), title == "all of these" and bindings >= len(KINDS))
            send, topic, ratio = measure(conns["ours"], key, args, 2000)
            first, memory = first_send("ours", key)
            row = ["%.1f" % send, "%.1f" % topic, "%.2f" % ratio, "%.1f" % first, "%d" % memory]
            if args.peer and bindings > PEER_MAX:
                row += ["-", "-"]
            elif args.peer:
                _, theirs, their_ratio = measure(conns["peer"], key, args, max(2, 20000 // max(bindings, 10)))
                row += ["%.0f" % theirs, "%.1f" % their_ratio]
            worst[bindings] = max(worst.get(bindings, 0), ratio)
            print("| %s | %s | %s |" % (format(bindings, ","), title, " | ".join(row)), flush=True)
    for bindings, ratio in worst.items():
        print("worst of %s bindings: %.2f times a send" % (format(bindings, ","), ratio))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--bindings", default="1,10000,100000")
    parser.add_argument("--rounds", type=int, default=5)
    args = parser.parse_args()
    with psycopg.connect(autocommit=True) as admin:
        for arm in ["ours"] + (["peer"] if args.peer else []):
            admin.execute("CREATE DATABASE " + arm)
    conn = connect("ours")
    conn.execute("CREATE EXTENSION pgmq")
    conn.execute("SELECT pgmq.create('q')")
    conn.close()
    if args.peer:
        conn = connect("peer")
        conn.execute("CREATE SCHEMA IF NOT EXISTS pgmq")
        with open(args.peer) as file:
            conn.execute(file.read(), prepare=False)
        conn.execute("SELECT pgmq.create('q')")
        conn.close()
    table(args)


main()

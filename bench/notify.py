"""The measuring of bench/notify."""
import argparse
import os
import select
import statistics
import threading
import time

import psycopg

from common import BODY, CPU_SECONDS, FRAME, marks_table, run_marked

SEND = "SELECT pgmq.send('q', '%s'::jsonb);" % BODY
MODES = {"off": None, "250 ms": 250, "0": 0}


def connect(database, **options):
    return psycopg.connect(dbname=database, autocommit=True, **options)


class Listener(threading.Thread):
    """Counts notifications while it is used in a with statement."""

    def __init__(self, database):
        super().__init__(daemon=True)
        self.conn, self.count, self.done = connect(database), 0, False
        self.conn.execute('LISTEN "pgmq.q_q.INSERT"')

    def run(self):
        while not self.done:
            if select.select([self.conn], [], [], 0.1)[0]:
                self.conn.pgconn.consume_input()
                while self.conn.pgconn.notifies() is not None:
                    self.count += 1

    def __enter__(self):
        self.start()
        return self

    def __exit__(self, *_):
        self.done = True
        self.join()
        self.conn.close()


def prepare(conn, interval):
    """A new queue for each round"""
    conn.execute("SELECT pgmq.drop_queue('q')")
    conn.execute("SELECT pgmq.create('q')")
    if interval is not None:
        conn.execute("SELECT pgmq.enable_notify_insert('q', %s)", (interval,))


def throughput(args, conns):
    print("\n| clients | synchronous_commit | throttle | " +
          " | ".join("%s: sends/s | ratio to off | CPU, ratio to off | notifications/s" % arm for arm in conns) + " |")
    print("|--:|---|---|" + "--:|--:|--:|--:|" * len(conns))
    path = os.path.join(args.scratch, "notify.pgbench")
    with open(path, "w", encoding="utf-8") as file:
        file.write(FRAME.format(cpu=CPU_SECONDS, op=SEND))
    for clients in [int(c) for c in args.clients.split(",")]:
        for sync in ("on", "off"):
            rates = {(arm, mode): [] for arm in conns for mode in MODES}
            cpus = {key: [] for key in rates}
            told = {key: [] for key in rates}
            ops = {}
            for number in range(-1, args.rounds):
                for arm, conn in conns.items():
                    modes = list(MODES)
                    for mode in modes[number % 3:] + modes[:number % 3]:
                        prepare(conn, MODES[mode])
                        # The first round is not counted: it finds out how many sends make a round
                        count = ops.get((arm, mode), 100)
                        with Listener(arm) as listener:
                            rate, cpu = run_marked(conn, path, clients, 10, 10 + count + 1,
                                                 "-c synchronous_commit=" + sync)
                        if number < 0:
                            ops[arm, mode] = max(int(rate * args.seconds / clients), 20)
                        else:
                            rates[arm, mode].append(rate)
                            cpus[arm, mode].append(cpu)
                            told[arm, mode].append(listener.count * rate / (clients * count))
            for mode in MODES:
                row = ["%d" % clients, sync, mode]
                for arm in conns:
                    row += ["%.0f" % statistics.median(rates[arm, mode])]
                    row += ["%.2f" % statistics.median(it / off for it, off in zip(those[arm, mode], those[arm, "off"]))
                            for those in (rates, cpus)]
                    row += ["%.0f" % statistics.median(told[arm, mode])]
                print("| %s |" % " | ".join(row), flush=True)


def beside_an_open_transaction(arm, conn):
    """How long a send takes while another transaction that has sent stays open for a second"""
    prepare(conn, 250)
    conn.execute(SEND)
    time.sleep(0.3)
    with psycopg.connect(dbname=arm) as other:
        other.execute(SEND)
        timer = threading.Timer(1, other.commit)
        timer.start()
        began = time.monotonic()
        conn.execute(SEND)
        waited = time.monotonic() - began
        timer.join()
    print("%s: a send beside a transaction that has sent and stays open for 1 s takes %.1f ms" % (arm, waited * 1000))


def opposite_order(arm, conn):
    """Two transactions that send to two queues, one the other way round"""
    for queue in "ab":
        conn.execute("SELECT pgmq.create(%s)", (queue,))
        conn.execute("SELECT pgmq.enable_notify_insert(%s, 0)", (queue,))
    send = "SELECT pgmq.send(%s, '1'::jsonb)"
    errors = []

    def second(other):
        try:
            other.execute(send, ("a",))
            other.commit()
        except psycopg.Error as error:
            errors.append(error)

    with psycopg.connect(dbname=arm) as one, psycopg.connect(dbname=arm) as two:
        one.execute(send, ("a",))
        two.execute(send, ("b",))
        thread = threading.Thread(target=second, args=(two,))
        thread.start()
        time.sleep(0.2)
        try:
            one.execute(send, ("b",))
            one.commit()
        except psycopg.Error as error:
            errors.append(error)
        thread.join()
        one.rollback()
        two.rollback()
    print("%s: two transactions that send to two queues in opposite order: %s"
          % (arm, errors[0].diag.message_primary if errors else "both commit"), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--clients", default="1,16")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=2)
    args = parser.parse_args()
    conns = {}
    for arm in ["ours"] + (["peer"] if args.peer else []):
        with connect("postgres") as conn:
            conn.execute("CREATE DATABASE " + arm)
        conns[arm] = connect(arm, options="-c client_min_messages=error")
        if arm == "ours":
            conns[arm].execute("CREATE EXTENSION pgmq")
        else:
            conns[arm].execute(open(args.peer, encoding="utf-8").read())
        marks_table(conns[arm])
    print("PostgreSQL %s" % conns["ours"].execute("SHOW server_version").fetchone()[0], flush=True)
    for arm, conn in conns.items():
        beside_an_open_transaction(arm, conn)
        opposite_order(arm, conn)
    throughput(args, conns)


main()

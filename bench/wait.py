"""The measuring of bench/wait."""
import argparse
import multiprocessing
import os
import random
import statistics
import subprocess
import threading
import time

import psycopg

from common import BODY, FRAME, CPU_SECONDS, marks_table, run_marked

POLL = "SELECT msg_id FROM pgmq.read_with_poll('q', 3600, 1)"
POLL_LONG = "SELECT msg_id FROM pgmq.read_with_poll('q', 3600, 1, 60)"
WAIT = "CALL pgmq.wait('q', 60000)"
READ = "SELECT msg_id FROM pgmq.read('q', 3600, 1)"


def connect(database):
    conn = psycopg.connect(dbname=database, autocommit=True)
    conn.prepare_threshold = 0
    return conn


def make_database(admin, name, peer=None):
    admin.execute('CREATE DATABASE "%s"' % name)
    conn = connect(name)
    if peer:
        with open(peer, encoding="utf-8") as script:
            conn.execute("CREATE SCHEMA IF NOT EXISTS pgmq")
            subprocess.run(["psql", "-qX", "-v", "ON_ERROR_STOP=1", "-d", name], input=script.read(),
                           text=True, check=True, stdout=subprocess.DEVNULL)
    else:
        conn.execute("CREATE EXTENSION pgmq")
    if name == "unmarked":
        conn.execute("UPDATE pg_proc SET probin = '$libdir/pgmq_unmarked' WHERE probin = '$libdir/pgmq'")
        conn.close()            # it has loaded the other library
        conn = connect(name)
    conn.execute("SELECT pgmq.create('q')")
    conn.execute("SELECT pgmq.create('other')")
    marks_table(conn)
    conn.close()


# ---- how late ----

def receive(database, how, count, pipe):
    """In a process of its own: the moments at which messages are in hand"""
    conn = connect(database)
    moments = []
    pipe.send("ready")
    while len(moments) < count:
        if how == "wait":
            conn.execute(WAIT)
            got = conn.execute(READ).fetchall()
        else:
            got = conn.execute(how).fetchall()
        moments.extend([time.monotonic()] * len(got))
    pipe.send(moments)


def late(database, how, count):
    """Seconds from before the send until the message is in hand elsewhere"""
    conn = connect(database)
    conn.execute("SELECT pgmq.purge_queue('q')")
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=receive, args=(database, how, count, theirs))
    process.start()
    ours.recv()
    sent = []
    rng = random.Random(1)
    for _ in range(count):
        # long enough for it to wait again; and at any moment of a poll's sleep
        time.sleep(rng.uniform(0.02, 0.12) if "peer" not in database else rng.uniform(0.12, 0.25))
        sent.append(time.monotonic())
        conn.execute("SELECT pgmq.send('q', %s::jsonb)", (BODY,))
    moments = ours.recv()
    process.join()
    conn.close()
    return [got - at for at, got in zip(sent, moments)]


def round_trips(database, count):
    """Two of them, at the same pace: after a pause everything is colder."""
    conn = connect(database)
    times = []
    for _ in range(count):
        time.sleep(0.03)
        began = time.monotonic()
        conn.execute("SELECT 1")
        times.append(time.monotonic() - began)
    conn.close()
    return 2 * statistics.median(times)


def table_late(args):
    print("\nFrom the send in one connection to the message in hand in another, ms\n")
    print("| | n | two bare round trips | median | over those | p99 | longest |")
    print("|---|---|---|---|---|---|---|")
    cases = [("marked", POLL, "read_with_poll"), ("marked", "wait", "wait, then read")]
    if args.peer:
        cases.append(("peer", POLL, "PL/pgSQL read_with_poll"))
    for database, how, name in cases:
        count = args.messages if database != "peer" else max(args.messages // 4, 20)
        bare = round_trips(database, count)
        times = sorted(late(database, how, count))
        print("| %s | %d | %.2f | %.2f | %.2f | %.2f | %.2f |" % (
            name, count, 1000 * bare, 1000 * statistics.median(times), 1000 * (statistics.median(times) - bare),
            1000 * times[min(int(count * 0.99), count - 1)], 1000 * times[-1]), flush=True)


# ---- what idle waiters cost ----

def cpu_of(pids):
    total = 0
    for pid in pids:
        with open("/proc/%d/schedstat" % pid, encoding="ascii") as stat:
            total += int(stat.read().split()[0])
    return total / 1e9


def idle(database, sql, waiters, seconds):
    """CPU seconds a second of the backends of so many waiters"""
    stop = threading.Event()
    conns = [connect(database) for _ in range(waiters)]
    pids = [conn.info.backend_pid for conn in conns]

    def wait(conn):
        try:
            while not stop.is_set():
                conn.execute(sql).fetchall()
        except psycopg.Error:
            pass                # ended below

    threads = [threading.Thread(target=wait, args=(conn,)) for conn in conns]
    for thread in threads:
        thread.start()
    time.sleep(6)               # every one has called at least twice
    began, before = time.monotonic(), cpu_of(pids)
    time.sleep(seconds)
    cost = (cpu_of(pids) - before) / (time.monotonic() - began)
    stop.set()
    with connect(database) as admin:
        admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (pids,))
    for thread in threads:
        thread.join()
    return cost


def table_idle(args):
    print("\n%d sessions wait for one queue, in which nothing happens: percent of a core\n" % args.waiters)
    print("| | |")
    print("|---|---|")
    cases = [("marked", "SELECT pg_sleep(5)", "for comparison: pg_sleep(5)"),
             ("marked", POLL, "read_with_poll, default arguments: 5 s"),
             ("marked", POLL_LONG, "read_with_poll, 60 s"),
             ("marked", WAIT, "wait, 60 s")]
    if args.peer:
        cases.append(("peer", POLL, "PL/pgSQL read_with_poll, default arguments"))
    for database, sql, name in cases:
        with connect(database) as conn:
            conn.execute("SELECT pgmq.purge_queue('q')")
        cost = idle(database, sql, args.waiters, args.seconds)
        print("| %s | %.2f |" % (name, 100 * cost), flush=True)


# ---- what a sender pays ----

class Consumers:
    """Sessions that wait while a sender is measured"""

    def __init__(self, database, sql, count):
        self.stop = threading.Event()
        self.database = database
        self.conns = [connect(database) for _ in range(count)]
        self.pids = [conn.info.backend_pid for conn in self.conns]
        self.threads = [threading.Thread(target=self.consume, args=(conn, sql)) for conn in self.conns]
        for thread in self.threads:
            thread.start()
        time.sleep(0.5)

    def consume(self, conn, sql):
        try:
            while not self.stop.is_set():
                conn.execute(sql)
        except psycopg.Error:
            pass

    def close(self):
        self.stop.set()
        with connect(self.database) as admin:
            admin.execute("SELECT pg_terminate_backend(pid) FROM unnest(%s::int[]) AS pid", (self.pids,))
        for thread in self.threads:
            thread.join()


def send_round(database, args, waiting):
    conn = connect(database)
    conn.execute("SELECT pgmq.purge_queue('q')")
    consumers = [Consumers(database, sql, count) for sql, count in waiting]
    rate, cpu = run_marked(conn, args.script, 1, 500, 500 + args.sends)
    for one in consumers:
        one.close()
    conn.close()
    return rate, cpu


def table_sender(args):
    os.makedirs(args.scratch, exist_ok=True)
    args.script = os.path.join(args.scratch, "send.sql")
    with open(args.script, "w", encoding="utf-8") as script:
        script.write(FRAME.format(cpu=CPU_SECONDS, op="SELECT pgmq.send('q', '%s');" % BODY))
    print("\nOne sender, with marks against without, in turns; medians of %d rounds\n" % args.rounds)
    print("| who waits | CPU of the sender's backend, us a send | ratio | ratio of sends a second |")
    print("|---|---|---|---|")
    # A consumer that takes and deletes what it gets, and waits again
    consumer = "SELECT pgmq.delete('q', array_agg(msg_id)) FROM pgmq.read_with_poll('q', 30, 100, 60)"
    elsewhere = "SELECT pgmq.read_with_poll('other', 30, 1, 60)"
    for name, waiting in (("nobody", []),
                          ("100 sessions, for another queue", [(elsewhere, 100)]),
                          ("a consumer, for this queue", [(consumer, 1)])):
        cpu = {"marked": [], "unmarked": []}
        rate = {"marked": [], "unmarked": []}
        for number in range(args.rounds):
            # A B, then B A: neither is always the first
            for database in (("marked", "unmarked"), ("unmarked", "marked"))[number % 2]:
                one = send_round(database, args, waiting)
                rate[database].append(one[0])
                cpu[database].append(one[1])
        print("| %s | %.1f | %.3f | %.3f |" % (
            name, 1e6 * statistics.median(cpu["marked"]),
            statistics.median(a / b for a, b in zip(cpu["marked"], cpu["unmarked"])),
            statistics.median(a / b for a, b in zip(rate["marked"], rate["unmarked"]))), flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", default="late,idle,sender")
    args = parser.parse_args()
    args.messages = 100 if args.quick else 400
    args.waiters = 200
    args.seconds = 5 if args.quick else 15
    args.sends = 3000 if args.quick else 6000
    args.rounds = 4 if args.quick else 12

    admin = connect("postgres")
    make_database(admin, "marked")
    make_database(admin, "unmarked")
    if args.peer:
        make_database(admin, "peer", args.peer)
    for name in args.only.split(","):
        {"late": table_late, "idle": table_idle, "sender": table_sender}[name](args)


if __name__ == "__main__":
    main()

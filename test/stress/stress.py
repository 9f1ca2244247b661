"""Starts the clients, disturbs them, and checks what they have logged.

Run by test/stress/run, against a server that it has started.
"""
import argparse
import ctypes
import glob
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import time

import psycopg

import workload
from check import ENOUGH, INVARIANTS, Checker
from session import Session
from workload import ALL_QUEUES, FIRST_TO_BE_HAD, GROUPED, GROUPED_READS, INDEXED, PARTITIONS, UNPARTITIONED

# A round ends with everything drained and checked; a long run has many.
ROUND = 180


def say(text):
    print(text, flush=True)


class Shared:
    """What processes share.  No locks: any of them may be killed at any time."""

    def __init__(self):
        self.stop = multiprocessing.RawValue(ctypes.c_int, 0)
        self.paused = multiprocessing.RawValue(ctypes.c_int, 0)
        self.epoch = multiprocessing.RawValue(ctypes.c_int, 0)
        self.broken = multiprocessing.RawValue(ctypes.c_int, 0)     # a client has a bug
        self.lost = multiprocessing.RawValue(ctypes.c_double, 0)    # when an auditor found the first
        self.depth = multiprocessing.RawArray(ctypes.c_int, len(ALL_QUEUES))


class Round:
    def __init__(self, options, seed, seconds, log_dir):
        self.options = options
        self.seed = seed
        self.seconds = seconds
        self.log_dir = log_dir
        self.rng = random.Random("%s supervisor" % seed)
        self.shared = Shared()
        self.clients = {}       # name without incarnation -> (process, incarnation, kind, queue)
        os.mkdir(log_dir)
        self.session = Session(self.shared, "supervisor", log_dir, self.rng)
        self.healed = {}        # queue -> how many groups the sweep had to find

    def count_healed(self):
        """A restart or a purge begins to count anew"""
        for queue in INDEXED:
            count = self.session.value("SELECT pgmq._groups_healed(%s)", queue)
            self.healed[queue] = max(count, self.healed.get(queue, 0))

    def start(self, name, kind, queue=None, incarnation=0):
        process = multiprocessing.get_context("fork").Process(
            target=workload.run_client, daemon=True,
            args=(self.shared, kind, "%s.%d" % (name, incarnation), self.log_dir, self.seed, queue))
        process.start()
        self.clients[name] = (process, incarnation, kind, queue)

    def prepare(self):
        self.session.connect()
        self.session.execute("DROP EXTENSION IF EXISTS pgmq CASCADE")
        self.session.execute("DROP SCHEMA IF EXISTS pgmq CASCADE")
        self.session.execute("DROP EXTENSION IF EXISTS pg_partman CASCADE")
        self.session.execute("CREATE EXTENSION pgmq")
        if PARTITIONS != "none":
            self.session.execute("CREATE EXTENSION pg_partman")
        self.session.execute("CREATE TABLE IF NOT EXISTS elsewhere (a int)")
        for queue in ALL_QUEUES:
            self.create(queue)
            if queue in INDEXED:
                self.session.value("SELECT pgmq.create_fifo_index(%s::text)", queue)

    def create(self, queue):
        """Partitions are small, and dropped when consumed: they come and go all the time"""
        if PARTITIONS == "none" or queue in UNPARTITIONED:
            self.session.value("SELECT pgmq.create(%s::text)", queue)
            return
        self.session.execute("SET client_min_messages = warning")
        self.session.value("SELECT pgmq.create_partitioned(%s::text, %s, %s, 2, false, true)", queue,
                           *{"id": ("200", "100000"), "time": ("2 seconds", "1 day")}[PARTITIONS])

    # ---- disturbances ----

    def a_backend(self):
        rows = self.session.rows("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'stress w%%'")
        return self.rng.choice(rows)[0] if rows else None

    def disturb_cancel(self):
        self.session.execute("SELECT pg_cancel_backend(%s)", self.a_backend())

    def disturb_terminate(self):
        self.session.execute("SELECT pg_terminate_backend(%s)", self.a_backend())

    def disturb_kill_client(self):
        name = self.rng.choice([n for n, c in self.clients.items() if c[2].endswith("worker")])
        process, incarnation, kind, queue = self.clients[name]
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.start(name, kind, queue, incarnation + 1)

    def disturb_restart(self):
        """The server goes down at once: all of it, or by the death of one backend"""
        pid = self.a_backend()
        data = self.options.data
        self.count_healed()
        self.shared.paused.value = 1
        self.shared.epoch.value += 1
        if self.rng.random() < 0.5 and pid:
            os.kill(pid, signal.SIGKILL)
            # The supervisor's own connection ends when the postmaster has noticed
            try:
                while True:
                    self.session.execute("SELECT pg_sleep(0.01)")
            except psycopg.Error:
                pass
        else:
            subprocess.run(["pg_ctl", "-D", data, "-m", "immediate", "-w", "-s", "stop"], check=True)
            subprocess.run(["pg_ctl", "-D", data, "-l", data + "/log", "-w", "-s", "start"], check=True)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.session.conn = psycopg.connect(autocommit=True, application_name="stress supervisor")
                break
            except psycopg.Error:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        # What was assigned from here on before the crash left no trace
        next_xid = int(self.session.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text"))
        self.session.log.put("RESTART", time.monotonic(), next_xid)
        self.shared.paused.value = 0

    def run(self):
        """Until the time is over or a message was missed"""
        for number in range(self.options.workers):
            self.start("w%d" % number, "worker")
        for number in range(max(1, self.options.workers // 2)):
            self.start("wg%d" % number, "groupworker")
        for queue in ALL_QUEUES:
            self.start("auditor-" + queue, "auditor", queue)
        for number in range(2):
            self.start("house%d" % number, "housekeeper")
        self.start("finisher", "finisher")
        if PARTITIONS != "none":
            self.start("maintainer", "maintainer")

        began = time.monotonic()
        every = {self.disturb_cancel: 1, self.disturb_terminate: 4, self.disturb_kill_client: 4}
        if self.options.restarts:
            every[self.disturb_restart] = 25
        due = {what: began + self.rng.uniform(0.5, 1.5) * often for what, often in every.items()}
        while time.monotonic() < began + self.seconds:
            time.sleep(0.05)
            if self.shared.broken.value:
                raise RuntimeError("a client failed")
            if self.shared.lost.value and not self.options.go_on:
                say("a message was missed after %.1f s" % (self.shared.lost.value - began))
                break
            for what in due:
                if time.monotonic() >= due[what]:
                    what()
                    due[what] = time.monotonic() + self.rng.uniform(0.5, 1.5) * every[what]

    def stop(self):
        self.shared.stop.value = 1
        deadline = time.monotonic() + 15
        for process, _, _, _ in self.clients.values():
            process.join(max(0, deadline - time.monotonic()))
            if process.is_alive():
                os.kill(process.pid, signal.SIGKILL)
                process.join()
        self.shared.stop.value = 0
        session = self.session
        while session.value("SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE 'stress%%'") > 1:
            session.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                            " WHERE application_name LIKE 'stress%%' AND pid <> pg_backend_pid()")
            time.sleep(0.05)
        for (gid,) in session.rows("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'stress-%%'"):
            session.execute("%s PREPARED '%s'" % (self.rng.choice(("COMMIT", "ROLLBACK")), gid))

    def drain(self):
        """Ordinary reads by a new session, until the tables are empty"""
        session = Session(self.shared, "drain", self.log_dir, self.rng)
        session.connect()
        for queue in ALL_QUEUES:
            progress = time.monotonic()
            while True:
                session.begin()
                if queue in GROUPED:
                    got = session.read_grouped(queue, self.rng.choice(GROUPED_READS), 100, 30)
                else:
                    got = session.read(queue, 100, 30)
                session.finish(queue, [(row[0], row[5]) for row in got], "delete")
                session.commit()
                if got:
                    progress = time.monotonic()
                    continue
                left = session.rows("SELECT msg_id, message->>'k', vt::text, vt <= clock_timestamp()"
                                    " FROM pgmq.q_%s" % queue)
                if not left:
                    break
                ready = session.rows(FIRST_TO_BE_HAD % queue) if queue in GROUPED else any(row[3] for row in left)
                if not ready:
                    progress = time.monotonic()     # held or delayed: 3 s at most
                if time.monotonic() > progress + 2:
                    left = [row[:3] for row in left if row[3]]
                    session.log.put("LEFT", time.monotonic(), 0, queue, left)
                    # They are not lost, only never handed out
                    session.begin()
                    session.finish(queue, [row[:2] for row in left], "delete")
                    session.commit()
                time.sleep(0.02)
        session.conn.close()

    def xid_committed(self, xids):
        return {int(xid): status == "committed" for xid, status in self.session.rows(
            "SELECT x::text, pg_xact_status(x::text::xid8) FROM unnest(%s::text[]) AS x",
            [str(xid) for xid in xids])}

    def check(self):
        archived = {queue: self.session.rows("SELECT message->>'k', read_ct FROM pgmq.a_" + queue)
                    for queue in ALL_QUEUES}
        checker = Checker(self.log_dir, self.xid_committed, archived)
        checker.check()
        self.count_healed()
        for queue, count in self.healed.items():
            if count:
                checker.violate("swept", None, "%d groups of queue %s were found by the sweep" % (count, queue))
        say("seed %s: %s" % (self.seed, checker.figures()))
        checker.report(say)
        broken = {name for name, _ in INVARIANTS if checker.violations[name]}
        # A round that ended early for a violation may have seen little else
        little = [] if broken else checker.too_little(self.seconds)
        for what in little:
            say("too little to check: " + what)
        return broken | ({ENOUGH[0]} if little else set())


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", required=True)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--workers", type=int, default=9)
    parser.add_argument("--no-server-restarts", dest="restarts", action="store_false")
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first missed message")
    parser.add_argument("--data", required=True)
    parser.add_argument("--logs", required=True)
    options = parser.parse_args()

    broken = set()
    number, left = 0, options.seconds
    while left > 0 and not broken:
        seconds = min(left, ROUND)
        left -= seconds
        # The first round has the seed as it was given, so that it can be given again
        seed = options.seed if number == 0 else "%s.%d" % (options.seed, number)
        round_ = Round(options, seed, seconds, os.path.join(options.logs, "round%d" % number))
        try:
            round_.prepare()
            round_.run()
        finally:
            round_.stop()
        round_.drain()
        broken = round_.check()
        round_.session.conn.close()
        if not broken and not os.environ.get("KEEP_WORK"):
            shutil.rmtree(round_.log_dir)
        number += 1
    for name, promise in INVARIANTS + (ENOUGH,):
        say("%s - stress: %s" % ("not ok" if name in broken else "ok", promise))
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()

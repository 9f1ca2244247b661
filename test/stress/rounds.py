"""One round of any part of the stress test: start clients, disturb them, stop them, drain the queues, check.

What differs between the parts (which queues, which clients, what they were promised) is in their
subclasses of Round: queues.py, policies.py and streams.py.
"""
import collections
import ctypes
import multiprocessing
import os
import random
import signal
import subprocess
import time

import psycopg

from session import Session, Stopped

PR_SET_PDEATHSIG = 1


def say(text):
    print(text, flush=True)


class Shared:
    """What processes share.  No locks: any of them may be killed at any time."""

    def __init__(self, queues):
        self.stop = multiprocessing.RawValue(ctypes.c_int, 0)
        self.paused = multiprocessing.RawValue(ctypes.c_int, 0)
        self.epoch = multiprocessing.RawValue(ctypes.c_int, 0)
        self.broken = multiprocessing.RawValue(ctypes.c_int, 0)     # a client has a bug
        self.lost = multiprocessing.RawValue(ctypes.c_double, 0)    # when an auditor found the first
        self.depth = multiprocessing.RawArray(ctypes.c_int, queues)
        self.port = multiprocessing.RawValue(ctypes.c_int, int(os.environ["PGPORT"]))


def run_client(shared, make, name, log_dir, seed):
    """The body of a client process"""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    client = make(shared, name, log_dir, random.Random("%s %s" % (seed, name)))
    status = 0
    try:
        error, connected = None, False
        while not shared.stop.value:
            try:
                if error:
                    client.recover(error)
                elif not connected:
                    client.connect()
                error, connected = None, True
                client.step()
            except psycopg.Error as caught:
                # Also while it connects or recovers: the server may be stopped again
                error = caught
    except Stopped:
        pass
    except BaseException:
        import traceback
        traceback.print_exc()
        shared.broken.value = 1
        status = 1
    os._exit(status)


class Round:
    """Subclasses have: queues, invariants, enough, least; prepare(), start_clients(), drain(), find()"""

    restart_every = 25

    def __init__(self, options, seed, seconds, log_dir):
        self.options = options
        self.seed = seed
        self.seconds = seconds
        self.log_dir = log_dir
        self.rng = random.Random("%s supervisor" % seed)
        self.shared = Shared(len(self.queues))
        self.restarts = 0
        self.disturbed = collections.Counter()
        self.clients = {}       # name without incarnation -> (process, incarnation, make)
        os.mkdir(log_dir)
        self.session = Session(self.shared, "supervisor", log_dir, self.rng)

    def start(self, name, make, incarnation=0):
        """make(shared, name, log_dir, rng) is the client; workers, which may be killed, have names that begin with w"""
        process = multiprocessing.get_context("fork").Process(
            target=run_client, daemon=True,
            args=(self.shared, make, "%s.%d" % (name, incarnation), self.log_dir, self.seed))
        process.start()
        self.clients[name] = (process, incarnation, make)

    # ---- disturbances ----

    def before_restart(self):
        """What a restart would lose"""

    def after_restart(self):
        """Before any client is connected again"""

    def disturb(self):
        """What a part does besides"""

    def a_backend(self):
        rows = self.session.rows("SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'stress w%%'")
        return self.rng.choice(rows)[0] if rows else None

    def disturb_cancel(self):
        self.disturbed["cancels"] += 1
        self.session.execute("SELECT pg_cancel_backend(%s)", self.a_backend())

    def disturb_terminate(self):
        self.disturbed["terminations"] += 1
        self.session.execute("SELECT pg_terminate_backend(%s)", self.a_backend())

    def disturb_kill_client(self):
        name = self.rng.choice([name for name in self.clients if name.startswith("w")])
        process, incarnation, make = self.clients[name]
        self.disturbed["clients killed"] += 1
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        self.start(name, make, incarnation + 1)

    def disturb_restart(self):
        """The server goes down at once: all of it, or by the death of one backend"""
        pid = self.a_backend()
        data = self.options.data
        self.before_restart()
        self.restarts += 1
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
        self.after_restart()
        self.shared.paused.value = 0

    def run(self):
        """Until the time is over or a message was missed"""
        self.start_clients()
        began = time.monotonic()
        every = {self.disturb_cancel: 1, self.disturb_terminate: 4, self.disturb_kill_client: 4}
        if self.options.restarts:
            every[self.disturb_restart] = self.restart_every
        due = {what: began + self.rng.uniform(0.5, 1.5) * often for what, often in every.items()}
        while time.monotonic() < began + self.seconds:
            time.sleep(0.05)
            if self.shared.broken.value:
                raise RuntimeError("a client failed")
            if self.shared.lost.value and not self.options.go_on:
                say("a message was missed after %.1f s" % (self.shared.lost.value - began))
                break
            self.disturb()
            for what in due:
                if time.monotonic() >= due[what]:
                    what()
                    due[what] = time.monotonic() + self.rng.uniform(0.5, 1.5) * every[what]

    def stop(self):
        self.shared.stop.value = 1
        deadline = time.monotonic() + 15
        for process, _, _ in self.clients.values():
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

    def xid_committed(self, xids):
        return {int(xid): status == "committed" for xid, status in self.session.rows(
            "SELECT x::text, pg_xact_status(x::text::xid8) FROM unnest(%s::text[]) AS x",
            [str(xid) for xid in xids])}

    def check(self, seen):
        """What was broken, by the names of the invariants; adds to the numbers of what was seen in all rounds"""
        checker = self.find()
        say("seed %s: %s" % (self.seed, checker.figures()))
        checker.report(say)
        seen.update(checker.seen)
        return {name for name, _ in self.invariants if checker.violations[name]}

    @classmethod
    def too_little(cls, seen, seconds):
        """What there was not enough of, in so many seconds, for the invariants to mean something"""
        return ["%d %s, not %d" % (seen[what], what, max(least * seconds, 1))
                for what, least in cls.least.items() if seen[what] < max(least * seconds, 1)]

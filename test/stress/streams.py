"""The part of the stress test that is about streams.

Once a round the server is replaced: by a standby that is promoted, or by a new one into which a dump was restored.  Clients
are at work meanwhile, so their last transactions are lost, and the leases that they hold may be unknown to the new server.
"""
import collections
import os
import shutil
import subprocess
import time

import psycopg

import streamclients
from rounds import Round
from streamcheck import ENOUGH, INVARIANTS, LEAST, StreamChecker, read_book, read_commits
from streamclients import BINDINGS, SOUGHT, STEADY, STREAMS, TOPIC_QUEUE
from workload import Finisher

DUMP_ATTEMPTS = 50
DRAIN_WITHIN = 20       # seconds, of which the leases take 2


class StreamRound(Round):
    queues, invariants, enough, least = tuple(STREAMS), INVARIANTS, ENOUGH, LEAST
    restart_every = 8
    switched = 0            # in all rounds

    def __init__(self, *args):
        super().__init__(*args)
        self.commits, self.switches = {}, collections.Counter()
        self.to_switch = self.options.restarts
        self.began = time.monotonic()

    def prepare(self):
        session = self.session
        session.connect()
        session.execute("SET client_min_messages = warning")
        for name in ("EXTENSION IF EXISTS pgmq", "SCHEMA IF EXISTS pgmq", "EXTENSION IF EXISTS pg_partman", "SCHEMA IF EXISTS stress"):
            session.execute("DROP %s CASCADE" % name)
        session.execute("CREATE EXTENSION pgmq")
        session.execute("CREATE SCHEMA stress")
        session.execute(streamclients.BOOK)
        client = streamclients.Booked(self.shared, "prepare", self.log_dir, self.rng)
        client.connect()
        client.begin()
        for stream, (shards, retention, keep, _) in STREAMS.items():
            client.value("SELECT pgmq.create_stream(%s, %s, %s * interval '1 s', " + streamclients.interval(keep) + ")",
                         stream, shards, retention)
            for subscription in STEADY + SOUGHT:
                client.subscribe(stream, subscription, "earliest")
        client.value("SELECT pgmq.create(%s)", TOPIC_QUEUE)
        client.value("SELECT pgmq.bind_topic('#', %s)", TOPIC_QUEUE)
        for pattern, stream in BINDINGS:
            client.value("SELECT pgmq.bind_topic_stream(%s, %s)", pattern, stream)
        client.commit()
        client.conn.close()

    def start_clients(self):
        for number in range(self.options.workers):
            self.start("w%d" % number, streamclients.StreamWorker)
        self.start("keeper", streamclients.Keeper)
        self.start("resetter", streamclients.Resetter)
        self.start("finisher", Finisher)
        self.began = time.monotonic()

    # ---- another server ----

    def disturb(self):
        """About half way, so that there is much before and after it"""
        if self.to_switch and time.monotonic() > self.began + self.seconds * 0.4:
            self.to_switch = False
            self.switch()

    def switch(self):
        old = self.options.data
        promoted = (int(self.options.seed) + StreamRound.switched) % 2 == 0
        StreamRound.switched += 1
        self.switches["standbys promoted" if promoted else "dumps restored"] += 1
        new = self.options.other
        port = int(os.environ["PGPORT"]) ^ 1
        (self.copy_standby if promoted else self.copy_dump)(old, new, port)
        self.shared.paused.value = 1
        self.shared.epoch.value += 1
        self.commits.update(read_commits(self.session))
        subprocess.run(["pg_ctl", "-D", old, "-m", "immediate", "-w", "-s", "stop"], check=True)
        if promoted:
            subprocess.run(["pg_ctl", "-D", new, "-w", "-s", "promote"], check=True, stdout=subprocess.DEVNULL)
        with open(new + "/log", "a") as log, open(old + "/log") as old_log:
            shutil.copyfileobj(old_log, log)
        subprocess.run(["find", old, "-mindepth", "1", "-delete"], check=True)
        self.options.data, self.options.other = new, old
        self.shared.port.value = port
        os.environ["PGPORT"] = str(port)
        self.session.conn = psycopg.connect(autocommit=True, application_name="stress supervisor")
        self.shared.paused.value = 0

    def begin_server(self, data, port, *settings):
        with open(data + "/postgresql.conf", "a") as conf:
            conf.write("port = %d\n" % port + "".join(setting + "\n" for setting in settings))
        subprocess.run(["pg_ctl", "-D", data, "-l", data + "/log", "-w", "-s", "start"], check=True)

    def copy_standby(self, old, new, port):
        subprocess.run(["pg_basebackup", "-D", new, "-c", "fast", "-R", "-N"], check=True)
        os.remove(new + "/log")
        self.begin_server(new, port)
        deadline = time.monotonic() + 60
        while not self.session.value("SELECT count(*) FROM pg_stat_replication WHERE state = 'streaming'"):
            if time.monotonic() > deadline:
                raise RuntimeError("the standby does not follow")
            time.sleep(0.05)
        time.sleep(self.rng.uniform(0, 0.5))

    def copy_dump(self, old, new, port):
        subprocess.run(["initdb", "-D", new, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"],
                       check=True, stdout=subprocess.DEVNULL)
        shutil.copy(old + "/postgresql.conf", new)
        self.begin_server(new, port)
        self.dump(old + "/dump")
        subprocess.run(["pg_restore", "-p", str(port), "-d", "postgres", "--exit-on-error", old + "/dump"], check=True)

    def dump(self, path):
        """With time between its snapshot and its locks"""
        for attempt in range(DUMP_ATTEMPTS):
            with psycopg.connect() as conn:
                conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
                snapshot, = conn.execute("SELECT pg_export_snapshot()").fetchone()
                time.sleep(self.rng.uniform(0, 0.7))
                done = subprocess.run(["pg_dump", "-Fc", "--snapshot", snapshot, "-f", path], capture_output=True, text=True, check=False)
            # A part was emptied or dropped before pg_dump has locked it
            if done.returncode == 0 or "does not exist" not in done.stderr or attempt == DUMP_ATTEMPTS - 1:
                break
            self.disturbed["dumps that failed"] += 1
        assert done.returncode == 0, done.stderr

    # ---- the end ----

    def drain(self):
        """Ordinary calls by a new session, until each subscription has passed all events"""
        session = streamclients.Booked(self.shared, "drain", self.log_dir, self.rng)
        session.connect()
        streamclients.mend(session)
        # One who had maintenance at work may have come to an end before he could note it
        keeper = streamclients.Keeper(self.shared, "note", self.log_dir, self.rng)
        keeper.connect()
        keeper.note_parts()
        keeper.conn.close()
        self.undrained = []
        for stream, subscription in session.rows("SELECT stream_name, subscription FROM pgmq.list_subscriptions()"):
            until = time.monotonic() + DRAIN_WITHIN
            while left := self.behind(session, stream, subscription):
                if time.monotonic() > until:
                    self.undrained += [((stream, subscription, shard), "%s" % (row,)) for shard, *row in left]
                    break
                self.consume(session, stream, subscription)
        session.conn.close()

    @staticmethod
    def behind(session, stream, subscription):
        return session.rows("SELECT shard, passed_id, last_id, leased_until::text, held_up_by FROM pgmq.stream_lag(%s)"
                            " WHERE subscription = %s AND behind > 0", stream, subscription)

    @staticmethod
    def consume(session, stream, subscription):
        session.begin()
        lease = session.receive(stream, subscription, 30, 100)
        if lease:
            session.advance(lease, lease.events[-1][0])
        session.commit()
        if not lease:
            time.sleep(0.05)

    def find(self):
        dropped = {row[:2]: row[2] for row in self.session.rows(
            "SELECT stream_name, subscription, dropped_events FROM pgmq.list_subscriptions()")}
        copies = [row[0] for row in self.session.rows("SELECT message->>'k' FROM pgmq.q_" + TOPIC_QUEUE)]
        checker = StreamChecker(self.log_dir, read_book(self.session, self.commits), dropped, copies, self.undrained)
        checker.check()
        checker.seen["restarts"] = self.restarts
        checker.seen["switches"] = sum(self.switches.values())
        checker.seen.update(self.switches)
        checker.seen.update(self.disturbed)
        return checker

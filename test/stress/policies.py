"""The part of the stress test that is about delivery policies"""
import functools
import time

import policyclients
from policycheck import ENOUGH, INVARIANTS, LEAST, PolicyChecker, read_arrivals, read_book, read_table
from policyclients import ALL_QUEUES, DEAD, GROUPED, PARTITIONED, PARTITIONS, QUEUES, TOGETHER, UNIQUE, UNLOGGED
from rounds import Round
from workload import Finisher, Maintainer

DRAIN_WITHIN = 20       # seconds, of which the leases and the retries take 3


class PolicyRound(Round):
    queues, invariants, enough, least = ALL_QUEUES, INVARIANTS, ENOUGH, LEAST
    restart_every = 10

    def prepare(self):
        session = self.session
        session.connect()
        session.execute("SET client_min_messages = warning")
        for name in ("EXTENSION IF EXISTS pgmq", "SCHEMA IF EXISTS pgmq", "EXTENSION IF EXISTS pg_partman", "SCHEMA IF EXISTS stress"):
            session.execute("DROP %s CASCADE" % name)
        session.execute("DROP ROLE IF EXISTS stress_other")
        session.execute("CREATE ROLE stress_other")
        session.execute("CREATE EXTENSION pgmq")
        session.execute("CREATE EXTENSION pg_partman")
        session.execute("CREATE SCHEMA stress")
        session.execute(policyclients.BOOK)
        for queue in DEAD:
            policyclients.restore(self.session, queue)
        for queue, (_, policy) in QUEUES.items():
            self.create(queue)
            if policy:
                names = ", ".join("%s => %%s" % name for name in policy)
                session.value("SELECT pgmq.set_policy('%s', %s)" % (queue, names), *policy.values())
            if queue not in UNIQUE:
                session.value("SELECT pgmq.bind_topic(%s, %s)", "to." + queue, queue)
        for queue in TOGETHER:
            session.value("SELECT pgmq.bind_topic('together', %s)", queue)

    def after_restart(self):
        self.session.execute("INSERT INTO stress.book (kind, began) VALUES ('crashed', clock_timestamp())")

    def create(self, queue):
        if PARTITIONS != "none" and queue in PARTITIONED:
            self.session.value("SELECT pgmq.create_partitioned(%s::text, %s, %s, 2, false, true)", queue,
                               *{"id": ("200", "100000"), "time": ("2 seconds", "1 day")}[PARTITIONS])
        else:
            self.session.value("SELECT pgmq.create%s(%%s::text)" % ("_unlogged" if queue in UNLOGGED else ""), queue)
        if queue in GROUPED:
            self.session.value("SELECT pgmq.create_fifo_index(%s::text)", queue)

    def start_clients(self):
        for number in range(self.options.workers):
            self.start("w%d" % number, policyclients.PolicyWorker)
        for queue in DEAD:
            self.start("undertaker-" + queue, functools.partial(policyclients.Undertaker, queue=queue))
        self.start("levels", policyclients.LevelAuditor)
        self.start("rate", policyclients.RateReader)
        self.start("owner", policyclients.Owner)
        self.start("finisher", Finisher)
        if PARTITIONS != "none":
            self.start("maintainer", Maintainer)

    def tables(self):
        names = [row[0] for row in self.session.rows(
            "SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'pgmq'::regnamespace"
            " AND c.relkind IN ('r', 'p') AND NOT c.relispartition AND c.relname ~ '^[qa]_'")]
        return {name: read_table(self.session, "pgmq." + name) for name in names}

    def drain(self):
        """Ordinary reads, until the queues are empty or what is left is dead"""
        for queue in DEAD:
            policyclients.restore(self.session, queue)
        for queue in QUEUES:
            self.session.value("SELECT pgmq.resume_queue(%s::text)", queue)
        # The book says that what comes after is no surprise to the rows
        self.session.execute("INSERT INTO stress.book (kind) VALUES ('stopped')")
        self.before = self.tables()
        session = policyclients.Booked(self.shared, "drain", self.log_dir, self.rng)
        session.connect()
        self.left = []
        for queue in QUEUES:
            until = time.monotonic() + DRAIN_WITHIN
            while session.value("SELECT count(*) FROM pgmq.q_" + queue):
                if time.monotonic() > until:
                    self.left += session.rows("SELECT '%s', msg_id, to_jsonb(q)::text FROM pgmq.q_%s AS q" % (queue, queue))
                    break
                got = session.read(queue, 100, 30, "read_grouped" if queue in GROUPED else "read")
                if got:
                    session.verb("ack", queue, [(queue, row[0], row[1]) for row in got])
                else:
                    time.sleep(0.05)
        session.conn.close()

    def find(self):
        checker = PolicyChecker(self.log_dir, read_book(self.session), read_arrivals(self.session),
                                self.before, self.tables())
        checker.check()
        checker.seen["restarts"] = self.restarts
        for queue, msg_id, row in self.left:
            checker.violate("drained", checker.messages.get((queue, msg_id)), row)
        return checker

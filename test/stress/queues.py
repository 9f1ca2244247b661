"""The part of the stress test that is about queues without policies, plain ones and those that are read by groups"""
import functools
import time

import workload
from check import ENOUGH, INVARIANTS, LEAST, Checker
from rounds import Round
from session import Session
from workload import ALL_QUEUES, FIRST_TO_BE_HAD, GROUPED, GROUPED_READS, INDEXED, PARTITIONS, UNPARTITIONED


class QueueRound(Round):
    queues, invariants, enough, least = ALL_QUEUES, INVARIANTS, ENOUGH, LEAST

    def __init__(self, *args):
        super().__init__(*args)
        self.healed = {}        # queue -> how many groups the sweep had to find

    def count_healed(self):
        """A restart or a purge begins to count anew"""
        for queue in INDEXED:
            count = self.session.value("SELECT pgmq._groups_healed(%s)", queue)
            self.healed[queue] = max(count, self.healed.get(queue, 0))

    before_restart = count_healed

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

    def start_clients(self):
        for number in range(self.options.workers):
            self.start("w%d" % number, workload.Worker)
        for number in range(max(1, self.options.workers // 2)):
            self.start("wg%d" % number, workload.GroupWorker)
        for queue in ALL_QUEUES:
            make = workload.GroupAuditor if queue in GROUPED else workload.Auditor
            self.start("auditor-" + queue, functools.partial(make, queue=queue))
        for number in range(2):
            self.start("house%d" % number, workload.Housekeeper)
        self.start("finisher", workload.Finisher)
        if PARTITIONS != "none":
            self.start("maintainer", workload.Maintainer)

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

    def find(self):
        archived = {queue: self.session.rows("SELECT message->>'k', read_ct FROM pgmq.a_" + queue)
                    for queue in ALL_QUEUES}
        checker = Checker(self.log_dir, self.xid_committed, archived)
        checker.check()
        self.count_healed()
        for queue, count in self.healed.items():
            if count:
                checker.violate("swept", None, "%d groups of queue %s were found by the sweep" % (count, queue))
        return checker

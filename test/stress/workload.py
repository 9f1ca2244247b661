"""What the clients do.

Workers do everything at random.  One auditor a queue consumes like anybody
else and measures whether what is visible is handed out.  Housekeepers hold
snapshots and xids, vacuum, purge and end prepared transactions.
"""
import os
import time

from session import ISOLATION, Session

# Transactions are long on some queues and mostly short on others: the floors of
# a queue move only when those that wrote to it end, and both must be tried.
QUEUES = ("busy", "mixed", "calm")
LONG_SHARE = {"busy": 0.30, "mixed": 0.10, "calm": 0.04, "lanes": 0.08, "tracks": 0.08, "paths": 0.08}

PARTITIONS = os.environ.get("PGMQ_STRESS_PARTITIONS", "none")     # or "id", "time"

# Queues that are read by groups, and how often each has its turn: two with a group index, of which one
# is never partitioned and the other always, and one without an index
GROUPED = {"lanes": 4, "paths": 1} if PARTITIONS == "none" else {"lanes": 2, "tracks": 5, "paths": 1}
INDEXED = tuple(queue for queue in ("lanes", "tracks") if queue in GROUPED)
UNPARTITIONED = ("lanes",)
ALL_QUEUES = QUEUES + tuple(GROUPED)
GROUPED_READS = ("read_grouped", "read_grouped_rr", "read_grouped_head")

# The first message of each group, if nothing keeps it from being handed out: it is visible, and does not
# come into a group of which somebody holds a message already
FIRST_TO_BE_HAD = """
    SELECT msg_id, message->>'k', g || ' ' || vt::text FROM
        (SELECT DISTINCT ON (g) *, bool_or(is_held) OVER (PARTITION BY g) AS group_is_held FROM
            (SELECT *, headers->>'x-pgmq-group' AS g,
                    read_ct > 0 AND vt <> enqueued_at AND vt > clock_timestamp() AS is_held
             FROM pgmq.q_%s) AS messages
         ORDER BY g, msg_id) AS first
    WHERE (vt <= clock_timestamp() OR vt = enqueued_at) AND (read_ct > 0 OR NOT group_is_held)"""

# Producers leave it at so many: only a read that comes back short proves anything.
DEPTH = 150


class Worker(Session):
    def __init__(self, *args):
        super().__init__(*args)
        self.held = []          # (queue, msg_id, key)

    def pick_queue(self):
        return self.rng.choice(QUEUES)

    def isolation(self):
        return self.rng.choices(ISOLATION, (8, 2, 1))[0]

    def delay(self):
        return self.rng.choice((0, 0, 0, 0, 1, 2, 3))

    def quantity(self):
        return self.rng.choice((1, 1, 1, 5, 20, 100))

    def is_long(self, queue):
        return self.rng.random() < LONG_SHARE[queue]

    def depth(self, queue):
        return self.shared.depth[ALL_QUEUES.index(queue)]

    def hold(self, queue, rows):
        self.held.extend((queue, row[0], row[5]) for row in rows)
        del self.held[:-200]

    def end(self, rollback=0.1, prepare=0.0):
        dice = self.rng.random()
        if dice < rollback:
            self.rollback()
        elif dice < rollback + prepare:
            self.prepare()
        else:
            self.commit()

    def send_some(self, queue):
        self.send(queue, self.rng.choice((1, 1, 1, 2, 10)), self.delay(), self.rng.random() < 0.3)

    # ---- scenarios ----

    def do_send(self, queue):
        if self.depth(queue) > DEPTH:
            return self.do_consume(queue)
        if self.rng.random() < 0.3:
            return self.send_some(queue)
        self.begin(self.isolation())
        self.send_some(queue)
        self.end(0.1, 0.05)

    def do_send_long(self, queue):
        if self.depth(queue) > DEPTH:
            return self.do_consume(queue)
        self.begin(self.isolation())
        for _ in range(self.rng.randint(1, 4)):
            dice = self.rng.random()
            target = queue if self.rng.random() < 0.8 else self.pick_queue()
            if dice < 0.35:
                savepoint = self.savepoint()
                self.send_some(target)
                self.nap(self.rng.uniform(0, 0.2))
                if self.rng.random() < 0.5:
                    self.rollback_to(savepoint)
            else:
                self.send_some(target)
            self.nap(self.rng.uniform(0.02, 0.5))
        self.end(0.15, 0.15)

    def do_consume(self, queue):
        self.begin(self.isolation())
        got = self.read(queue, self.quantity(), self.rng.randint(0, 3),
                        poll=self.rng.random() < 0.15)
        if self.rng.random() < 0.3:
            self.finish(queue, [(row[0], row[5]) for row in got], self.rng.choice(("delete", "archive")))
        self.hold(queue, got)
        self.end(0.15)

    def do_consume_auto(self, queue):
        self.hold(queue, self.read(queue, self.quantity(), self.rng.randint(0, 3)))

    def do_consume_long(self, queue):
        """Several reads in one transaction, with time for the floors to move between them"""
        self.begin(self.isolation())
        for _ in range(self.rng.randint(2, 6)):
            if self.rng.random() < 0.2:
                savepoint = self.savepoint()
                self.read(queue, self.quantity(), self.rng.randint(0, 3))
                if self.rng.random() < 0.5:
                    self.rollback_to(savepoint)
            else:
                got = self.read(queue, self.rng.choice((1, 1, 5, 100)), self.rng.randint(0, 3))
                if self.rng.random() < 0.2:
                    self.finish(queue, [(row[0], row[5]) for row in got], "delete")
                self.hold(queue, got)
            self.nap(self.rng.uniform(0.01, 0.3))
        self.end(0.5, 0.1)

    def do_read_again(self, queue):
        """The same, but shorter, and mostly taken back; in a fixed snapshot too"""
        self.begin(self.rng.choices(ISOLATION, (2, 2, 1))[0])
        self.read(queue, self.rng.choice((1, 1, 3)), self.rng.randint(0, 1))
        for _ in range(self.rng.randint(2, 5)):
            self.nap(self.rng.uniform(0.01, 0.1))
            self.read(queue, 1, self.rng.randint(0, 1))
        self.end(0.75)

    def do_read_late(self, queue):
        """In a snapshot that is older than what there is to read"""
        self.begin(self.rng.choice(ISOLATION[1:]))
        self.value("SELECT 1")
        self.nap(self.rng.uniform(0.05, 0.4))
        for _ in range(3):
            self.hold(queue, self.read(queue, 1, 1))
            self.nap(self.rng.uniform(0, 0.1))
        self.end(0.3)

    def do_read_where(self, queue):
        self.begin(self.isolation())
        got = self.read(queue, self.quantity(), self.rng.randint(0, 3), self.rng.randrange(8))
        self.hold(queue, got)
        self.end(0.1)

    def do_pop(self, queue):
        self.begin(self.isolation())
        self.pop(queue, self.rng.choice((1, 1, 5)))
        if self.is_long(queue):
            self.nap(self.rng.uniform(0.1, 1.0))
            self.pop(queue, 1)
        self.end(0.3, 0.05)

    def do_finish(self, queue):
        """Finish what was read before, in time or not"""
        if not self.held:
            return self.do_consume(queue)
        count = self.rng.choice((1, 3, 30))
        queue = self.held[-1][0]
        mine = [message for message in self.held[-count:] if message[0] == queue]
        del self.held[-count:]
        mine = sorted({message[1:] for message in mine})
        how = self.rng.choice(("delete", "archive"))
        if self.rng.random() < 0.2:
            return self.finish(queue, mine, how)
        self.begin(self.isolation())
        self.finish(queue, mine, how)
        if self.is_long(queue):
            self.nap(self.rng.uniform(0.1, 1.0))
        self.end(0.15)

    def do_set_vt(self, queue):
        """To the past and to the future, of one's own messages and of what was one's own"""
        mine = [message for message in self.held if message[0] == queue][-5:]
        if not mine:
            return self.do_consume(queue)
        self.begin(self.isolation())
        ids = sorted({message[1] for message in mine})[:self.rng.choice((1, 5))]
        self.set_vt(queue, ids, self.rng.choice((-10, 0, 0, 1, 2)), self.rng.random() < 0.5)
        if self.is_long(queue) or self.rng.random() < 0.1:
            self.nap(self.rng.uniform(0.1, 1.5))
        self.end(0.25, 0.05)

    def do_expire(self, queue):
        """Let a lease run out, and finish all the same"""
        self.begin()
        got = self.read(queue, self.rng.choice((1, 5)), self.rng.randint(0, 1))
        self.commit()
        self.nap(self.rng.uniform(0.5, 1.5))
        self.begin()
        self.finish(queue, [(row[0], row[5]) for row in got][:2], "delete")
        self.end()

    SHORT = ((do_send, 12), (do_consume, 4), (do_consume_auto, 2), (do_read_where, 1), (do_pop, 2),
             (do_finish, 4), (do_set_vt, 2), (do_read_again, 3),
             (do_read_late, 1))
    LONG = ((do_send_long, 5), (do_consume_long, 3), (do_expire, 1))

    def step(self):
        queue = self.pick_queue()
        choice = self.LONG if self.is_long(queue) else self.SHORT
        scenario = self.rng.choices([c[0] for c in choice], [c[1] for c in choice])[0]
        scenario(self, queue)
        if self.rng.random() < 0.3:
            self.nap(self.rng.uniform(0, 0.05))


class GroupWorker(Worker):
    """The same on queues that are read by groups; a few of its reads don't care for groups"""

    def pick_queue(self):
        return self.rng.choices(list(GROUPED), list(GROUPED.values()))[0]

    def send_some(self, queue):
        # One group has half of the messages, many share the rest and run empty
        count = self.rng.choice((1, 1, 1, 2, 10))
        groups = ["g%d" % (0 if self.rng.random() < 0.5 else self.rng.randint(1, 60)) for _ in range(count)]
        self.send(queue, count, self.delay(), self.rng.random() < 0.3, groups)

    def read(self, queue, qty, lease, condition=None, poll=False):
        if self.rng.random() < 0.03:
            return super().read(queue, qty, lease, condition)
        return self.read_grouped(queue, self.rng.choice(GROUPED_READS), qty, lease, poll)


class GroupAuditor(Session):
    """Looks whether the groups that are to be had are handed out.

    Nobody writes to the queue while it looks.  Each group that is to be had must
    be handed out, at the latest when the pause for groups that open
    transactions have blocked is over.
    """
    AT_MOST = 1.6

    def __init__(self, *args, queue):
        super().__init__(*args)
        self.queue = queue

    def step(self):
        self.shared.depth[ALL_QUEUES.index(self.queue)] = self.value(
            "SELECT count(*) FROM pgmq.q_%s" % self.queue)
        self.nap(self.rng.uniform(0.3, 1.0))
        self.begin()
        self.execute("SET LOCAL lock_timeout = '3s'")
        self.execute("LOCK TABLE pgmq.q_%s IN SHARE ROW EXCLUSIVE MODE" % self.queue)
        since = time.monotonic()
        heads = {row[0]: row[1:] for row in self.rows(FIRST_TO_BE_HAD % self.queue)}
        got = {row[0] for row in self.read_grouped(self.queue, "read_grouped_head", None, 5)}
        while set(heads) - got and time.monotonic() < since + self.AT_MOST:
            self.nap(0.2)
            got |= {row[0] for row in self.read_grouped(self.queue, "read_grouped_head", None, 5)}
        missed = [[msg_id] + list(heads[msg_id]) for msg_id in set(heads) - got]
        self.log.put("WATCHED", time.monotonic(), since, self.queue, len(heads), 0)
        if missed and not self.shared.stop.value:
            self.log.put("LOST", time.monotonic(), since, self.queue, missed)
            if not self.shared.lost.value:
                self.shared.lost.value = time.monotonic()
        self.rollback()


class Auditor(Session):
    """Consumes one queue, and measures.

    What it looks for is a message that is visible and that nobody touches, while
    readers ask and come back short.  It looks at the table twice by plain
    SELECT.  A message that was there both times is locked for a moment: if the
    lock was to be had, nobody else holds the message, and the lock leaves the
    auditor's xid in the row until somebody else touches it.  After one more
    second of asking that xid must not be there any more.
    """
    LOOK_EVERY = 0.25
    AT_MOST = 1.0

    def __init__(self, *args, queue):
        super().__init__(*args)
        self.queue = queue
        self.seen = {}
        self.seen_at = 0
        self.mark = None        # (xid, msg_ids, when)
        self.short_since = 0    # start of the latest read that came back short
        self.shorts = 0         # such reads since the mark

    def recover(self, error):
        super().recover(error)
        self.seen, self.mark = {}, None

    def ask(self):
        qty = self.rng.choice((1, 10, 100, 100, None))
        self.begin()
        start = time.monotonic()
        got = self.read(self.queue, qty, self.rng.choice((1, 1, 2, 3)))
        if self.rng.random() < 0.1:
            return self.rollback()
        if self.rng.random() < 0.5:
            self.finish(self.queue, [(row[0], row[5]) for row in got],
                        self.rng.choice(("delete", "archive")))
            self.commit()
        else:
            self.commit()
            if self.rng.random() < 0.85:
                self.begin()
                self.finish(self.queue, [(row[0], row[5]) for row in got], "delete")
                self.commit()
        if qty is None or len(got) < qty:
            self.short_since = start
            self.shorts += 1

    def look(self):
        rows = self.rows("SELECT msg_id, ctid::text, xmin::text, message->>'k' FROM pgmq.q_%s"
                         " WHERE vt <= clock_timestamp()" % self.queue)
        self.shared.depth[ALL_QUEUES.index(self.queue)] = len(rows)
        now = {row[0]: row[1:3] for row in rows}
        still = [msg_id for msg_id, version in now.items() if self.seen.get(msg_id) == version]
        # Nearly all have been touched meanwhile, and need no watching
        self.log.put("LOOKED", time.monotonic(), self.seen_at, self.queue, len(self.seen))
        self.seen = now
        return still

    def put_mark(self, ids):
        self.execute("BEGIN")
        xid = int(self.value("SELECT pg_current_xact_id()::text"))
        got = self.rows("SELECT msg_id FROM pgmq.q_%s WHERE msg_id = ANY (%%s)"
                        " AND vt <= clock_timestamp() FOR UPDATE SKIP LOCKED" % self.queue, ids)
        self.execute("ROLLBACK")
        if got:
            self.mark = (xid, [row[0] for row in got], time.monotonic())
            self.shorts = 0

    def check_mark(self):
        xid, ids, when = self.mark
        if self.shorts < 3 or self.short_since < when + self.AT_MOST:
            if time.monotonic() > when + 5:
                self.log.put("WATCHED", time.monotonic(), when, self.queue, 0, len(ids))
                self.mark = None        # too deep a queue to say anything
            return
        lost = self.rows("SELECT msg_id, message->>'k', " + "xmin::text || ' ' || ctid::text || ' ' ||"
                         " vt::text || ' ' || (vt = enqueued_at)::text FROM pgmq.q_%s"
                         " WHERE msg_id = ANY (%%s) AND xmax::text = %%s" % self.queue,
                         ids, str(xid % 2**32))
        self.mark = None
        self.log.put("WATCHED", time.monotonic(), when, self.queue, len(ids), 0)
        if lost:
            self.log.put("LOST", time.monotonic(), when, self.queue, lost)
            if not self.shared.lost.value:
                self.shared.lost.value = time.monotonic()

    def step(self):
        self.ask()
        if self.mark:
            self.check_mark()
        elif time.monotonic() >= self.seen_at + self.LOOK_EVERY:
            still = self.look()
            self.seen_at = time.monotonic()
            if still:
                self.put_mark(still)
        self.nap(self.rng.uniform(0, 0.05))


class Housekeeper(Session):
    """Holds snapshots and xids, vacuums and purges"""

    def step(self):
        queue = self.rng.choice(ALL_QUEUES)
        dice = self.rng.random()
        if dice < 0.35:
            self.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
            self.value("SELECT count(*) FROM pgmq.q_" + queue)
            self.nap(self.rng.uniform(1, 5))
            self.execute("COMMIT")
        elif dice < 0.6:
            self.execute("BEGIN")
            self.execute("INSERT INTO elsewhere VALUES (1)")
            self.nap(self.rng.uniform(0.5, 4))
            self.execute("COMMIT" if self.rng.random() < 0.5 else "ROLLBACK")
        elif dice < 0.95:
            self.execute(self.rng.choice(("VACUUM ", "VACUUM ", "VACUUM ANALYZE ", "VACUUM FREEZE "))
                         + "pgmq.q_" + queue)
            self.nap(self.rng.uniform(0, 1))
        else:
            self.purge(queue)


class Maintainer(Session):
    """Has partitions made, emptied and dropped; now and then too late, so that messages overrun them"""

    def step(self):
        self.execute("SET pgmq.maintenance_lock_timeout = '%dms'" % self.rng.choice((50, 300, 1000)))
        self.execute("CALL pgmq.maintain()")
        self.nap(self.rng.uniform(5, 12) if self.rng.random() < 0.1 else self.rng.uniform(0.1, 1))


class Finisher(Session):
    """Ends prepared transactions, some only after so long that a restart may come before"""

    def step(self):
        for (gid,) in self.rows("SELECT gid FROM pg_prepared_xacts WHERE gid LIKE 'stress-%%'"
                                " AND prepared < clock_timestamp() -"
                                " CASE hashtext(gid) & 7 WHEN 0 THEN interval '4 s'"
                                " ELSE (hashtext(gid) & 2047) * interval '0.7 ms' END"):
            self.execute("%s PREPARED '%s'" % ("ROLLBACK" if self.rng.random() < 0.3 else "COMMIT", gid))
        self.nap(0.1)

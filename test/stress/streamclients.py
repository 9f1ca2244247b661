"""What clients do to streams.

As with policies, each call writes what it returned into stress.book, in its own statement.  So the book has what was
committed and nothing else, also after a crash, a restore or a promotion, which may lose the last commits.  A call that
changes a shard of a subscription holds the shard when it writes.  So the ids of the book are the order of the changes
of each shard.

A consumer that advances writes the events that it is done with into the book, in the same transaction: these are
its effects, each of which must happen exactly once.
"""
import collections
import datetime
import json
import time

import psycopg

from session import ISOLATION, Session

# name -> (shards, retention, keep_unconsumed, how often it has its turn); times in seconds
STREAMS = {
    "orders": (3, 3, None, 5),
    "kept": (2, 1, 10**9, 4),
    "single": (1, 2, 2, 4),
    "frail": (2, 3600, None, 1),        # its sequence is set back
}
FRAIL = "frail"
# Subscriptions that exist all the time, of each stream
STEADY = ("first", "second")
SOUGHT = ("replay",)        # positions are changed by seek()
BRIEF = ("brief",)          # comes and goes
SUBSCRIPTIONS = STEADY + SOUGHT + BRIEF
KEYS = 12

# What is sent to a topic: routing key -> streams.  The queue gets all of it, and nobody reads it.
TOPICS = {"news.all": ("orders", "single"), "news.orders": ("orders",)}
BINDINGS = (("news.*", "orders"), ("news.all", "single"))
TOPIC_QUEUE = "copies"

BOOK = """
CREATE TABLE stress.book (
    id bigint GENERATED ALWAYS AS IDENTITY, tx text, client text, kind text, stream text, subscription text,
    isolation text DEFAULT current_setting('transaction_isolation'),
    began timestamptz, at timestamptz DEFAULT clock_timestamp(),
    vt float8, qty integer, shard integer, event_id bigint, k text, key text, attempt integer, lease bigint, outcome text,
    published_at timestamptz);
CREATE TABLE stress.parts (stream text, part text, low bigint, high bigint, emptied boolean, seen timestamptz DEFAULT clock_timestamp());
CREATE TABLE stress.highest (id bigint);
"""
COLUMNS = ("shard", "event_id", "k", "key", "attempt", "lease", "outcome", "published_at")
EVENT = {"shard": "shard", "event_id": "event_id", "k": "message->>'k'", "key": "key", "attempt": "attempt",
         "lease": "lease", "published_at": "published_at"}

# What a client holds: events are (event_id, k), those that it is not done with
Lease = collections.namedtuple("Lease", "stream subscription shard lease events")

# The parts of the logs, without the default ones; "high" is the first id behind.  One that was emptied has another name.
PARTS = """
    SELECT substr(p.relname, 3) AS stream, c.relname AS part,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'FROM \\(''?(\\d+)''?\\)'))[1]::bigint AS low,
        (regexp_match(pg_get_expr(c.relpartbound, c.oid), 'TO \\(''?(\\d+)''?\\)'))[1]::bigint AS high,
        c.relname ~ '_p\\d+_\\d+$' AS emptied
    FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid JOIN pg_class AS p ON p.oid = inhparent
    WHERE p.relnamespace = 'pgmq'::regnamespace AND p.relname LIKE 's\\_%%' AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"""


def interval(seconds):
    """Of a constant, as SQL"""
    return "NULL" if seconds is None else "interval '%d s'" % seconds


class Booked(Session):
    """Calls, each with its entries in the book"""

    def __init__(self, *args):
        super().__init__(*args)
        self.published = 0      # in this transaction

    def book(self, kind, stream, subscription, call, args, columns, vt=None, qty=None, began=None):
        """call: what follows FROM; columns: expressions for some of COLUMNS"""
        if not self.in_tx:
            self.tx += 1
            self.log.put("B", time.monotonic(), self.tx, "auto")
        names = [name for name in COLUMNS if name in columns]
        sql = ("WITH c AS MATERIALIZED (SELECT %s FROM %s), b AS (INSERT INTO stress.book"
               " (tx, client, kind, stream, subscription, began, vt, qty, %s)"
               " SELECT %%s, %%s, %%s, %%s, %%s, to_timestamp(%%s), %%s, %%s, c.* FROM c) SELECT * FROM c" % (
                   ", ".join("%s AS %s" % (columns[name], name) for name in names), call, ", ".join(names)))
        return self.rows(sql, *args, "%s/%d" % (self.name, self.tx), self.name, kind, stream, subscription,
                         began or time.time(), vt, qty)

    def keys(self, count):
        self.seq += count
        return ["%s-%d" % (self.name, self.seq - n) for n in range(count)]

    # ---- transactions ----

    def begin(self, isolation="READ COMMITTED"):
        super().begin(isolation)
        self.published = 0

    def rolled_back(self, error=None):
        if self.published:
            self.log.put("ROLLED", time.monotonic(), self.tx, self.published)
        self.published = 0

    def rollback(self):
        super().rollback()
        self.rolled_back()

    def recover(self, error):
        self.rolled_back()
        super().recover(error)

    def rollback_to(self, number):
        super().rollback_to(number)
        self.rolled_back()

    def prepare(self):
        self.book("prepared", None, None, "(SELECT %s::text AS n) AS n", (str(self.published),), {"outcome": "n"})
        super().prepare()

    # ---- calls ----

    def publish(self, stream, count=1):
        ks = self.keys(count)
        bodies = [json.dumps({"k": k}) for k in ks]
        keys = [self.rng.choice((None, "key %d" % self.rng.randrange(KEYS), "schlüssel %d" % self.rng.randrange(KEYS)))
                for _ in ks]
        self.published += count
        if count == 1:
            call, args = "(SELECT %s::text AS k, %s::text AS key, pgmq.publish(%s, %s, %s) AS id) AS p", (
                ks[0], keys[0], stream, bodies[0], keys[0])
        else:
            # Ids come in array order
            call, args = ("(SELECT (%s::text[])[n] AS k, (%s::text[])[n] AS key, id"
                          " FROM pgmq.publish_batch(%s, %s::jsonb[], %s::text[]) WITH ORDINALITY AS p(id, n)) AS p", (
                              ks, keys, stream, bodies, keys))
        return self.book("publish", stream, None, call, args, {"event_id": "id", "k": "k", "key": "key"})

    def send_topic(self, routing_key, count):
        """The book has what was sent, and which events have come of it"""
        assert self.in_tx
        ks = self.keys(count)
        key = self.rng.choice((None, "key %d" % self.rng.randrange(KEYS)))
        headers = json.dumps({"x-pgmq-group": key}) if key else None
        last = [self.value("SELECT last_value - 1 FROM pgmq.s_%s_event_id_seq" % stream) for stream in TOPICS[routing_key]]
        self.published += count
        if count == 1:
            call = "(SELECT %s::text AS k, pgmq.send_topic(%s, %s, %s, %s) AS o) AS t"
            args = (ks[0], routing_key, json.dumps({"k": ks[0]}), headers, self.rng.choice((0, 1)))
        else:
            call = ("(SELECT unnest(%s::text[]) AS k, count(*) / %s AS o"
                    " FROM pgmq.send_batch_topic(%s, %s::jsonb[], %s::jsonb[], %s)) AS t")
            args = (ks, count, routing_key, [json.dumps({"k": k}) for k in ks], [headers] * count, self.rng.choice((0, 1)))
        self.book("topic", None, None, call, args, {"k": "k", "key": "'%s'" % routing_key, "outcome": "o::text"})
        for stream, last_id in zip(TOPICS[routing_key], last):
            self.book("publish", stream, None, "(SELECT event_id, message->>'k' AS k, key FROM pgmq.s_%s WHERE event_id > %%s"
                      " AND message->>'k' = ANY (%%s)) AS e" % stream, (last_id, ks), {"event_id": "event_id", "k": "k", "key": "key"})

    def publish_by_hand(self, stream, count):
        """By a statement on the log: the transaction has no record.  Such rows have a shard, and mostly no key."""
        assert self.in_tx
        shard, savepoint, began = self.rng.randrange(STREAMS[stream][0]), self.savepoint(), time.monotonic()
        rows = self.rows("INSERT INTO pgmq.s_%s (shard, published_at, message) SELECT %%s, clock_timestamp(), jsonb_build_object('k', k)"
                         " FROM unnest(%%s::text[]) AS k RETURNING event_id, message->>'k'" % stream, shard, self.keys(count))
        # publish() draws ids again if that took too long for their order to be that of published_at
        if time.monotonic() > began + 0.4:
            return self.rollback_to(savepoint)
        self.published += count
        return self.book("hand", stream, None, "unnest(%s::bigint[], %s::text[]) AS u(id, k)",
                         ([row[0] for row in rows], [row[1] for row in rows]),
                         {"event_id": "id", "k": "k", "shard": str(shard)})

    def receive(self, stream, subscription, vt, qty):
        """The lease, or None"""
        rows = self.book("receive", stream, subscription, "pgmq.receive(%s, %s, %s, %s)",
                         (stream, subscription, vt, qty), EVENT, vt, qty)
        if not rows:
            return None
        self.log.put("LEASE", time.monotonic(), self.tx, rows[0][5])
        return Lease(stream, subscription, rows[0][0], rows[0][5], [(row[1], row[2]) for row in rows])

    def verb(self, kind, lease, more="", args=(), vt=None, event_id=None):
        """advance, extend_lease, return_lease; whether it was accepted"""
        before, after = (("%s::bigint, ", "") if kind == "advance" else ("", more))
        call = "pgmq.%s(%%s, %%s, %%s, %s%%s::bigint%s) AS o" % (kind, before, after)
        values = (event_id,) if kind == "advance" else ()
        rows = self.book(kind, lease.stream, lease.subscription, "(SELECT o, %s::bigint AS id FROM " + call + ") AS r",
                         (event_id, lease.stream, lease.subscription, lease.shard) + values + (lease.lease,) + args,
                         {"shard": str(lease.shard), "event_id": "id", "lease": str(lease.lease), "outcome": "o::text"}, vt)
        return rows[0][-1] == "true"

    def advance(self, lease, event_id):
        """With the effects, in one transaction; whether it was accepted"""
        assert self.in_tx
        if not self.verb("advance", lease, event_id=event_id):
            return False
        done = [event for event in lease.events if event[0] <= event_id]
        self.book("effect", lease.stream, lease.subscription, "unnest(%s::bigint[], %s::text[]) AS u(id, k)",
                  ([event[0] for event in done], [event[1] for event in done]),
                  {"shard": str(lease.shard), "event_id": "id", "k": "k", "lease": str(lease.lease)})
        return True

    def extend(self, lease, vt):
        return self.verb("extend_lease", lease, ", %s::int", (vt,), vt)

    def give_back(self, lease):
        return self.verb("return_lease", lease)

    def book_positions(self, kind, stream, subscription, began, how, start):
        """Where the subscription is now: the rows that this transaction has written, whatever its snapshot sees of others"""
        outcome = start.timestamp() if isinstance(start, datetime.datetime) else start
        self.book(kind, stream, subscription, "(SELECT DISTINCT ON (shard) shard, passed_id FROM pgmq.p_%s WHERE subscription = %%s"
                  " AND xmin::text = pg_current_xact_id()::xid::text ORDER BY shard, state DESC) AS p" % stream, (subscription,),
                  {"shard": "shard", "event_id": "passed_id", "k": "'%s'" % how, "outcome": "'%s'" % outcome}, began=began)

    def subscribe(self, stream, subscription, how="latest", **start):
        assert self.in_tx
        began = time.time()
        names = ", ".join("%s => %%s" % name for name in start) or "start => '%s'" % how
        if self.value("SELECT pgmq.subscribe(%s, %s, " + names + ")", stream, subscription, *start.values()):
            self.book_positions("subscribe", stream, subscription, began, how, next(iter(start.values()), ""))

    def seek(self, stream, subscription, force, how="latest", **start):
        assert self.in_tx
        began = time.time()
        names = ", ".join("%s => %%s" % name for name in start) or "start => '%s'" % how
        self.value("SELECT pgmq.seek(%s, %s, force => %s, " + names + ")", stream, subscription, force, *start.values())
        self.book_positions("force" if force else "seek", stream, subscription, began, how, next(iter(start.values()), ""))

    def unsubscribe(self, stream, subscription):
        self.book("unsubscribe", stream, subscription, "pgmq.unsubscribe(%s, %s) AS o", (stream, subscription),
                  {"outcome": "o::text"})

    def fetch(self, stream, shard, after_id, qty):
        """The shard and after_id are those of the first entry, which is no event"""
        self.book("fetch", stream, None, "(SELECT %s::int AS shard, %s::bigint AS event_id, NULL AS k UNION ALL"
                  " SELECT * FROM (SELECT shard, event_id, message->>'k' FROM pgmq.fetch(%s, %s, %s, %s)) AS f) AS f",
                  (shard, after_id, stream, shard, after_id, qty), {"shard": "shard", "event_id": "event_id", "k": "k"}, qty=qty)


class StreamWorker(Booked):
    def __init__(self, *args):
        super().__init__(*args)
        self.held = []          # leases that were committed

    def isolation(self):
        return self.rng.choices(ISOLATION, (6, 3, 1))[0]

    def stream(self):
        return self.rng.choices(list(STREAMS), [stream[3] for stream in STREAMS.values()])[0]

    def subscription(self):
        return self.rng.choices(SUBSCRIPTIONS, (4, 4, 2, 1))[0]

    def recover(self, error):
        """Whether what it held has come to an end is not known"""
        self.held = []
        super().recover(error)

    def begin_somehow(self):
        """Sometimes with a snapshot that is old when the call is made"""
        self.begin(self.isolation())
        if self.rng.random() < 0.2:
            self.value("SELECT count(*) FROM stress.highest")
            self.nap(self.rng.uniform(0, 0.4))

    def end(self, rollback=0.12, prepare=0.06):
        """Whether it was committed"""
        dice = self.rng.random()
        if self.rng.random() < 0.15:
            self.nap(self.rng.uniform(0, 2) if self.rng.random() < 0.2 else self.rng.uniform(0, 0.3))
        if dice < rollback:
            self.rollback()
        elif dice < rollback + prepare:
            self.prepare()
        else:
            self.commit()
        return dice >= rollback + prepare

    def publish_some(self, stream):
        # By hand nothing refuses an id below the end
        if self.rng.random() < 0.12 and stream != FRAIL:
            self.publish_by_hand(stream, self.rng.choice((1, 3)))
        else:
            self.publish(stream, self.rng.choice((1, 1, 1, 2, 10)))

    def keep(self, lease):
        if lease and lease.events:
            self.held.append(lease)
            del self.held[:-12]

    # ---- scenarios ----

    def do_publish(self):
        stream = self.stream()
        if self.rng.random() < 0.3:
            return self.publish(stream)
        self.begin_somehow()
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            savepoint = self.savepoint() if self.rng.random() < 0.2 else None
            self.publish_some(stream if self.rng.random() < 0.8 else self.stream())
            if savepoint and self.rng.random() < 0.5:
                self.rollback_to(savepoint)
                if self.rng.random() < 0.5:
                    self.publish_some(stream)
        return self.end()

    def do_topic(self):
        self.begin_somehow()
        for _ in range(self.rng.choice((1, 1, 2))):
            savepoint = self.savepoint() if self.rng.random() < 0.2 else None
            self.send_topic(self.rng.choice(list(TOPICS)), self.rng.choice((1, 1, 3)))
            if savepoint and self.rng.random() < 0.5:
                self.rollback_to(savepoint)
        self.end()

    def do_consume(self):
        """In one transaction; the events may be advanced in another"""
        stream, subscription = self.stream(), self.subscription()
        vt, qty = self.rng.choice((0, 0, 1, 1, 2)), self.rng.choice((1, 3, 10, 50, 50))
        if self.rng.random() < 0.1:
            return self.keep(self.receive(stream, subscription, vt, qty))
        self.begin_somehow()
        savepoint = self.savepoint() if self.rng.random() < 0.1 else None
        lease = self.receive(stream, subscription, vt, qty)
        if savepoint and self.rng.random() < 0.5:
            self.rollback_to(savepoint)
            lease = self.receive(stream, subscription, vt, qty)
        if self.rng.random() < 0.1:
            self.nap(self.rng.uniform(0, 1.5))
        if lease and self.rng.random() < 0.1:
            self.publish_some(self.stream())
        if lease and self.rng.random() < 0.6:
            lease = self.advance_some(lease)
        if self.end(0.15):
            self.keep(lease)
        return None

    def advance_some(self, lease):
        """What is left of the lease; None if it was refused"""
        event_id = self.rng.choice(lease.events)[0] if self.rng.random() < 0.4 else lease.events[-1][0]
        if not self.advance(lease, event_id):
            return None
        return lease._replace(events=[event for event in lease.events if event[0] > event_id])

    def use(self, lease):
        """Call something with it; what is left of it"""
        dice = self.rng.random()
        if dice < 0.6:
            return self.advance_some(lease)
        if dice < 0.8:
            return lease if self.extend(lease, self.rng.choice((0, 1, 2))) else None
        if dice < 0.95:
            self.give_back(lease)
            return lease if self.rng.random() < 0.3 else None
        # Beyond what was received; by a lease that was never issued
        savepoint = self.savepoint()
        try:
            if self.rng.random() < 0.5:
                self.verb("advance", lease, event_id=lease.events[-1][0] + 1)
            else:
                self.verb("advance", lease._replace(lease=lease.lease ^ 1), event_id=lease.events[-1][0])
        except psycopg.errors.InvalidParameterValue:
            self.rollback_to(savepoint)
            self.book("beyond", lease.stream, lease.subscription, "(SELECT 1) AS n", (), {"shard": str(lease.shard)})
        return lease

    def do_held(self):
        if not self.held:
            return self.do_consume()
        lease = self.held.pop(self.rng.randrange(len(self.held)))
        if self.rng.random() < 0.2:
            self.nap(self.rng.uniform(0, 1))
        self.begin_somehow()
        left = self.use(lease)
        if left is None and self.rng.random() < 0.8:
            return self.rollback()
        if self.end():
            self.keep(left)
        return None

    def start(self, stream):
        """Arguments of subscribe and seek"""
        last = self.value("SELECT COALESCE(max(event_id), 0) FROM pgmq.s_" + stream)
        return self.rng.choice((
            {"how": "earliest"}, {"how": "latest"}, {"how": "latest"},
            {"how": "id", "start_id": self.rng.randint(max(last - 200, 1), last + 1)},
            {"how": "time", "start_time": datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(seconds=self.rng.uniform(0, 3))}))

    def do_seek(self):
        stream, subscription = self.stream(), self.rng.choice(SOUGHT + BRIEF)
        start = self.start(stream)
        self.begin(self.isolation())
        self.seek(stream, subscription, self.rng.random() < 0.6, **start)
        self.end(0.1, 0.03)

    def do_subscribe(self):
        stream, subscription = self.stream(), self.rng.choice(BRIEF)
        start = self.start(stream)
        self.begin(self.isolation())
        dice = self.rng.random()
        if dice < 0.6:
            self.unsubscribe(stream, subscription)
        if dice > 0.15:
            self.subscribe(stream, subscription, **start)
        self.end(0.1, 0.03)

    def do_fetch(self):
        stream = self.stream()
        after_id = self.value("SELECT COALESCE(max(event_id), 0) FROM pgmq.s_" + stream) - self.rng.randrange(100)
        self.begin_somehow()
        self.fetch(stream, self.rng.randrange(STREAMS[stream][0]), max(after_id, 0), self.rng.choice((1, 10, 100)))
        self.end(0, 0)

    SCENARIOS = ((do_publish, 10), (do_topic, 1.5), (do_consume, 14), (do_held, 7), (do_seek, 1), (do_subscribe, 0.5), (do_fetch, 1.5))

    def step(self):
        self.rng.choices([s[0] for s in self.SCENARIOS], [s[1] for s in self.SCENARIOS])[0](self)
        if self.rng.random() < 0.3:
            self.nap(self.rng.uniform(0, 0.05))


class Keeper(Session):
    """Has parts made and dropped, and enters in the book which have gone.  Locks the logs, holds snapshots, vacuums."""

    def note_parts(self):
        """In one transaction, so that each part whose events have gone is in the book once.  "seen" was before that."""
        self.begin("REPEATABLE READ")
        at = datetime.datetime.now(datetime.timezone.utc)
        now = {(row[0], row[2]): row for row in self.rows(PARTS)}
        before = {(row[0], row[2]): row for row in self.rows("SELECT * FROM stress.parts")}
        # One that was made meanwhile was filled from the default partition
        last_seen = max((row[5] for row in before.values()), default=at)
        for names in now.keys() | before.keys():
            stream, part, low, high, emptied, seen = before.get(names) or now[names][:4] + (False, last_seen)
            if not emptied and (names not in now or now[names][4]):
                self.execute("INSERT INTO stress.book (tx, client, kind, stream, began, event_id, lease, k)"
                             " VALUES (%s, %s, 'dropped', %s, %s, %s, %s, %s)",
                             "%s/%d" % (self.name, self.tx), self.name, stream, seen, low, high, part)
        self.execute("DELETE FROM stress.parts")
        for row in now.values():
            self.execute("INSERT INTO stress.parts VALUES (%s, %s, %s, %s, %s, %s)", *row, at)
        self.commit()

    def bind_again(self):
        """In one transaction, so that nobody may miss the binding"""
        pattern, stream = self.rng.choice(BINDINGS)
        self.begin()
        self.value("SELECT pgmq.unbind_topic_stream(%s, %s)", pattern, stream)
        self.value("SELECT pgmq.bind_topic_stream(%s, %s)", pattern, stream)
        self.commit()

    def maintain(self):
        self.execute("SET pgmq.maintenance_lock_timeout = '%dms'" % self.rng.choice((20, 200)))
        self.note_parts()
        self.execute("CALL pgmq.maintain()")
        self.note_parts()

    def step(self):
        stream = self.rng.choice(list(STREAMS))
        dice = self.rng.random()
        if dice < 0.5:
            self.maintain()
            self.nap(self.rng.uniform(0, 0.3))
        elif dice < 0.8:
            self.begin()
            self.execute("SET LOCAL lock_timeout = '300ms'")
            self.execute("LOCK TABLE pgmq.s_%s IN ACCESS EXCLUSIVE MODE" % stream)
            self.nap(self.rng.uniform(0, 0.05))
            self.commit()
        elif dice < 0.85:
            self.begin("REPEATABLE READ")
            self.value("SELECT count(*) FROM pgmq.p_" + stream)
            self.nap(self.rng.uniform(0.5, 2))
            self.commit()
        elif dice < 0.9:
            self.bind_again()
        else:
            self.execute("VACUUM pgmq.p_" + stream)
        self.nap(self.rng.uniform(0, 0.2))


SEQUENCE = "pgmq.s_frail_event_id_seq"


def mend(session):
    """The sequence as it must be, whatever interrupted that.  An open transaction may have drawn what is above the log."""
    session.value("SELECT setval('" + SEQUENCE + "', greatest(last_value, (SELECT max(id) FROM stress.highest),"
                  " (SELECT max(event_id) FROM pgmq.s_frail), (SELECT max(passed_id) FROM pgmq.p_frail))) FROM " + SEQUENCE)
    session.execute("DELETE FROM stress.highest")


class Resetter(Booked):
    """Sets a sequence back, which must be an error before an event is lost by it"""

    # Ids that sessions may draw meanwhile
    ROOM = 1000

    def connect(self):
        super().connect()
        mend(self)

    def attempt(self, name, call, *args):
        """The calls are in the book like those of other clients, if they are not refused"""
        try:
            call(*args)
            outcome = "accepted"
        except psycopg.errors.ObjectNotInPrerequisiteState:
            outcome = "refused"
        self.book("reset", FRAIL, None, "(SELECT %s::text AS name, %s::text AS o) AS o", (name, outcome), {"k": "name", "outcome": "o"})

    def step(self):
        self.nap(self.rng.uniform(0.2, 1.5))
        last, top = self.rows("SELECT last_value, (SELECT COALESCE(max(event_id), 0) FROM pgmq.s_frail) FROM " + SEQUENCE)[0]
        if top < 20:
            return
        self.execute("INSERT INTO stress.highest VALUES (%s)", last + self.ROOM)
        self.value("SELECT setval('" + SEQUENCE + "', %s)", self.rng.randint(1, top - 2))
        self.attempt("publish", self.publish, FRAIL)
        self.attempt("fetch", self.fetch, FRAIL, 0, top - 1, 1)
        self.attempt("receive", self.receive, FRAIL, self.rng.choice(STEADY), 0, 1)
        self.nap(self.rng.uniform(0, 0.3))
        mend(self)

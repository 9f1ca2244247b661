"""What clients do to queues with policies.

Each call writes what it returned into stress.book, in its own statement.  So the book has what was committed
and nothing else, whatever rolled it back, killed it or prepared it.  A call that changes a message holds the
lock of its row when it writes, so the ids of the book are the order of the changes of each message.
"""
import json
import os
import time

import psycopg

from session import ISOLATION, Session

PARTITIONS = os.environ.get("PGMQ_STRESS_PARTITIONS", "none")

RETRY = {"retry_delay": "100 ms", "retry_backoff": 2, "retry_delay_max": "1 s"}

# The queues with their settings, and how often each has its turn
QUEUES = {
    "jobs": (4, {"max_reads": 3, "dead_letter_queue": "dead"} | RETRY),
    "lanes": (5, {"max_reads": 1, "dead_letter_queue": "deadlanes"} | RETRY),
    "shelf": (2, {"max_reads": 2} | RETRY),                                             # no dead-letter queue
    "brief": (2, {"message_ttl": "1 s", "max_reads": 5, "dead_letter_queue": "dead"} | RETRY),
    "flash": (1, {"message_ttl": "1 s"}),                                               # expired ones are deleted
    "rated": (1, {"rate_limit": 10, "rate_period": "400 ms"}),
    "once": (3, {"dedup_window": "700 ms"}),
    "onceonly": (3, {}),                        # keys are taken until their message has left
    "levels": (3, {"priority": True}),
    "waits": (2, {"priority": True, "priority_max_wait": "400 ms"}),
    "flight": (3, {"max_in_flight": 3}),
    "short": (3, {"max_length": 15}),
    "drops": (4, {"max_length": 15, "overflow": "drop_oldest", "dead_letter_queue": "dead"}),
    "plain": (1, {}),
}
LIMITED, MAX_LENGTH = ("short", "drops"), 15
IN_FLIGHT = 3
RATE, RATE_PERIOD = 10, 0.4
WINDOWS = {"once": 0.7}
MAX_WAIT = {"levels": None, "waits": 0.4}
UNIQUE = ("once", "onceonly")
KEYS = 4
GROUPED = ("lanes",)
CHANGED = ("jobs", "lanes", "shelf")        # of which the policy changes all the time
PARTITIONED = ("jobs", "lanes")
DEAD = ("dead", "deadlanes")
UNLOGGED = ("brief", "short", "flight", "waits")
# Topics with policies: each queue but those with keys has its own, "to.<queue>", and some have one together
TOGETHER = ("short", "brief", "waits")
TTL = {name: 1.0 for name, (_, policy) in QUEUES.items() if "message_ttl" in policy}
DELETES_EXPIRED = tuple(name for name in TTL if "dead_letter_queue" not in QUEUES[name][1])
ALL_QUEUES = tuple(QUEUES) + DEAD

DEPTH = 60      # senders leave it at so many

BOOK = """
CREATE TABLE stress.book (
    id bigint GENERATED ALWAYS AS IDENTITY, client text, kind text, queue text,
    began timestamptz, at timestamptz DEFAULT clock_timestamp(),
    seconds float8,             -- a delay or a lease that was asked for
    msg_id bigint, attempt integer, k text, outcome text,
    vt timestamptz, taken timestamptz, enqueued_at timestamptz);
CREATE TABLE stress.arrivals (id bigint GENERATED ALWAYS AS IDENTITY, relid oid, msg_id bigint, k text, headers jsonb);
CREATE TABLE stress.full_queues (queue text);
CREATE FUNCTION stress.is_full() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    IF EXISTS (SELECT FROM stress.full_queues WHERE queue = TG_ARGV[0]) OR random() < 0.02 THEN
        RAISE 'the queue is full';
    END IF;
    INSERT INTO stress.arrivals (relid, msg_id, k, headers) VALUES (TG_RELID, NEW.msg_id, NEW.message->>'k', NEW.headers);
    RETURN NEW;
END $$;
"""
# The outcome of a dead letter is the queue that it comes from
MESSAGE = ("msg_id", "read_ct", "message->>'k'", "headers->>'x-dlq-origin-queue'", "vt", "last_read_at", "enqueued_at")
BATCHES = {"ack": "ok", "ack_archive": "ok", "release": "ok", "touch": "ok", "nack": "outcome"}


class Booked(Session):
    """Calls, each with its entries in the book"""

    def book(self, kind, queue, call, args, columns, seconds=None, began=None):
        """call: what follows FROM; columns: msg_id, attempt, k, outcome, vt, taken, enqueued_at, and the queue if it is not given"""
        if not self.in_tx:
            self.tx += 1
            self.log.put("B", time.monotonic(), self.tx, "auto")
        columns = tuple(columns) + ("NULL",) * (8 - len(columns))
        types = ("bigint", "integer", "text", "text", "timestamptz", "timestamptz", "timestamptz", "text")
        sql = ("WITH c AS MATERIALIZED (SELECT %s FROM %s), b AS (INSERT INTO stress.book"
               " (client, kind, began, seconds, msg_id, attempt, k, outcome, vt, taken, enqueued_at, queue)"
               " SELECT %%s, %%s, to_timestamp(%%s), %%s, c0, c1, c2, c3, c4, c5, c6, COALESCE(c7, %%s) FROM c) SELECT * FROM c" % (
                   ", ".join("(%s)::%s AS c%d" % (c, t, n) for n, (c, t) in enumerate(zip(columns, types))), call))
        # What the call is told stands before what the book is told
        got = self.rows(sql, *args, self.name, kind, began or time.time(), seconds, queue)
        if not self.in_tx:
            self.log.put("C", time.monotonic(), self.tx)
        return got

    def keys(self, count):
        self.seq += count
        return ["%s-%d" % (self.name, self.seq - n) for n in range(count)]

    def send(self, queue, count, delay, headers):
        keys = self.keys(count)
        bodies = [json.dumps({"k": key}) for key in keys]
        ttl = headers.get("x-pgmq-ttl")
        self.book("send", queue, "pgmq.send_batch(%s::text, %s::jsonb[], %s::jsonb[], %s::int) WITH ORDINALITY AS s(id, n)",
                  (keys, ttl, queue, bodies, [json.dumps(headers)] * count, delay),
                  ("s.id", "NULL", "(%s::text[])[n]", "%s"), delay)

    def send_topic(self, topic, count, delay, headers):
        """A message has the same key in each queue that it comes to"""
        keys = self.keys(count)
        bodies = [json.dumps({"k": key}) for key in keys]
        self.book("topic", None, "(SELECT queue_name, msg_id, row_number() OVER (PARTITION BY queue_name ORDER BY msg_id) AS n"
                  " FROM pgmq.send_batch_topic(%s::text, %s::jsonb[], %s::jsonb[], %s::int)) AS s",
                  (keys, headers.get("x-pgmq-ttl"), topic, bodies, [json.dumps(headers)] * count, delay),
                  ("msg_id", "NULL", "(%s::text[])[n]", "%s", "NULL", "NULL", "NULL", "queue_name"), delay)

    def send_unique(self, queue, dedup_keys, window):
        """attempt: 1 for a duplicate; outcome: the dedup_key"""
        keys = self.keys(len(dedup_keys))
        bodies = [json.dumps({"k": key}) for key in keys]
        given = "%s * interval '1 s'" % window if window else "NULL"
        if len(keys) == 1 and self.rng.random() < 0.7:
            self.book("unique", queue, "pgmq.send_unique(%s::text, %s::jsonb, %s::text, " + given + ") AS s",
                      (keys[0], dedup_keys[0], queue, bodies[0], dedup_keys[0]),
                      ("s.msg_id", "s.is_duplicate::int", "%s", "%s"), window)
        else:
            self.book("unique", queue, "pgmq.send_unique_batch(%s::text, %s::jsonb[], %s::text[], " + given + ")"
                      " WITH ORDINALITY AS s(msg_id, is_duplicate, n)", (keys, dedup_keys, queue, bodies, dedup_keys),
                      ("s.msg_id", "s.is_duplicate::int", "(%s::text[])[s.n]", "(%s::text[])[s.n]"), window)

    def read(self, queue, qty, lease, form="read"):
        arguments = {"read_with_poll": ", 1, 100000", "read_grouped_with_poll": ", 1, 100000"}.get(form, "")
        return self.book("read", queue, "pgmq.%s(%%s::text, %%s::int, %%s::int%s)" % (form, arguments),
                         (queue, lease, qty), MESSAGE, lease)

    def next(self, queue, qty, lease, tokens, skip_stale):
        """What it acknowledges is known only if it may not skip: the others are booked as probable"""
        began = time.time()
        rows = self.book("read", queue, "pgmq.next(%s::text, %s::int, %s::int, %s::bigint[], %s::int[], %s)",
                         (queue, lease, qty, [t[1] for t in tokens], [t[2] for t in tokens], skip_stale), MESSAGE, lease)
        self.book("skipped" if skip_stale else "ack", queue, "unnest(%s::bigint[], %s::int[]) AS u(id, attempt)",
                  ([t[1] for t in tokens], [t[2] for t in tokens]), ("u.id", "u.attempt", "NULL", "'true'"), began=began)
        return rows

    def pop(self, queue, qty):
        return self.book("pop", queue, "pgmq.pop(%s::text, %s::int)", (queue, qty), MESSAGE)

    def verb(self, name, queue, tokens, seconds=None):
        """A verb with tokens: (queue, msg_id, attempt)"""
        more, values = "", ()
        if name in ("release", "touch"):
            more, values = ", %s::int", (seconds,)
        elif name == "nack":
            more, values = ", %s::text, %s::int", (self.rng.choice((None, "it failed")), seconds)
        if len(tokens) == 1 and (name not in BATCHES or self.rng.random() < 0.7):
            _, msg_id, attempt = tokens[0]
            return self.book(name, queue, "(SELECT %s::bigint AS id, %s::int AS attempt,"
                             " pgmq." + name + "(%s::text, %s::bigint, %s::int" + more + ")::text AS outcome) AS r",
                             (msg_id, attempt, queue, msg_id, attempt) + values,
                             ("r.id", "r.attempt", "NULL", "r.outcome"), seconds)
        ids, attempts = [t[1] for t in tokens], [t[2] for t in tokens]
        return self.book(name, queue, "pgmq." + name + "_batch(%s::text, %s::bigint[], %s::int[]" + more + ")"
                         " WITH ORDINALITY AS r(id, outcome, n)", (attempts, queue, ids, attempts) + values,
                         ("r.id", "(%s::int[])[r.n]", "NULL", "r.outcome::text"), seconds)

    def old_verb(self, name, queue, msg_id):
        if name == "set_vt":
            return self.book("set_vt", queue, "pgmq.set_vt(%s::text, %s::bigint, %s::int)",
                             (queue, msg_id, self.rng.choice((0, 0, 1))), MESSAGE)
        return self.book(name, queue, "(SELECT %s::bigint AS id, pgmq." + name + "(%s::text, %s::bigint)::text AS outcome) AS r",
                         (msg_id, queue, msg_id), ("r.id", "NULL", "NULL", "r.outcome"))


class PolicyWorker(Booked):
    def __init__(self, *args):
        super().__init__(*args)
        self.held = []          # tokens that were committed: (queue, msg_id, attempt)

    def isolation(self):
        return self.rng.choices(ISOLATION, (8, 2, 1))[0]

    def queue(self):
        return self.rng.choices(list(QUEUES), [weight for weight, _ in QUEUES.values()])[0]

    def headers(self, queue):
        headers = {"x-pgmq-group": "g%d" % self.rng.randrange(6)} if queue in GROUPED else {}
        if queue in MAX_WAIT and self.rng.random() < 0.8:
            headers["x-pgmq-priority"] = self.rng.randrange(10)
        if queue in TTL and self.rng.random() < 0.3:
            headers["x-pgmq-ttl"] = self.rng.choice((0.2, 3))
        return headers

    def form(self, queue):
        forms = (("read_grouped", "read_grouped_rr", "read_grouped_head", "read_grouped_with_poll") if queue in GROUPED
                 else ("read", "read", "read", "read_with_poll", "read_where"))
        return self.rng.choice(forms)

    def end(self, rollback=0.1, prepare=0.05):
        """Whether it was committed"""
        dice = self.rng.random()
        if self.rng.random() < 0.15:
            self.nap(self.rng.uniform(0, 0.5))
        if dice < rollback:
            self.rollback()
        elif dice < rollback + prepare:
            self.prepare()
        else:
            self.commit()
        return dice >= rollback + prepare

    def hold(self, queue, rows):
        self.held += [(queue, row[0], row[1]) for row in rows]
        del self.held[:-60]

    def some_tokens(self):
        """Of one queue: those that count, stale ones, some twice"""
        queue = self.rng.choice(self.held)[0]
        mine = [token for token in self.held if token[0] == queue]
        tokens = mine[-self.rng.choice((1, 1, 1, 3, 10)):]
        if self.rng.random() < 0.1:
            tokens = tokens + tokens[:1]
        if self.rng.random() < 0.15:
            tokens = [(q, msg_id, attempt - 1) for q, msg_id, attempt in tokens]
        if self.rng.random() < 0.6:
            self.held = [token for token in self.held if token not in tokens]
        return queue, tokens

    def use(self, queue, tokens, name=None):
        """Call a verb with them"""
        # What is to die in the order of its group must die of itself
        weights = (3, 1, 1, 2, 1, 0) if queue in GROUPED else (5, 2, 9, 4, 4, 1)
        name = name or self.rng.choices(("ack", "ack_archive", "nack", "release", "touch", "dead_letter"), weights)[0]
        if name == "dead_letter":
            try:
                savepoint = self.savepoint() if self.in_tx else None
                return self.verb(name, queue, tokens[:1])
            except psycopg.errors.RaiseException:
                return self.rollback_to(savepoint) if self.in_tx else None
        seconds = {"nack": self.rng.choice((None, None, 0, 1)), "touch": 1,
                   "release": self.rng.choice((0, 0, 1))}.get(name)
        return self.verb(name, queue, tokens, seconds)

    # ---- scenarios ----

    def do_send(self):
        queue = self.queue()
        if self.shared.depth[ALL_QUEUES.index(queue)] > DEPTH:
            return self.do_consume()
        if queue in LIMITED:
            return self.send_limited(queue)
        self.begin(self.isolation())
        if queue in UNIQUE:
            keys = ["k%d" % self.rng.randrange(KEYS) for _ in range(self.rng.choice((1, 1, 3)))]
            self.send_unique(queue, keys, self.rng.choice((None, None, 0.3)))
        else:
            self.send_somehow(queue, self.rng.choice((1, 1, 2, 5)), "to." + queue)
        return self.end()

    def send_somehow(self, queue, count, topic):
        """To the queue, or to a topic"""
        delay, headers = self.rng.choice((0, 0, 0, 1)), self.headers(queue)
        if self.rng.random() < 0.3:
            self.send_topic(topic, count, delay, headers)
        else:
            self.send(queue, count, delay, headers)

    def send_limited(self, queue):
        """What prepared transactions send is not counted at once, so there are none"""
        self.begin(self.isolation())
        try:
            for _ in range(self.rng.choice((1, 2))):
                self.send_somehow(queue, self.rng.choice((1, 2, 5)), "together" if queue in TOGETHER else "to." + queue)
            self.end(0.1, 0)
        except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.RaiseException):
            # There is no room, or the dead-letter queue has refused what would have made some
            self.rollback()
            self.execute("INSERT INTO stress.book (client, kind, queue) VALUES (%s, 'refused', %s)", self.name, queue)

    def do_consume(self):
        queue = self.queue()
        qty, lease, form = self.rng.choice((1, 1, 5, 20)), self.rng.choice((0, 0, 1) if queue in GROUPED else (0, 1, 1, 2)), self.form(queue)
        if self.rng.random() < 0.3:
            return self.hold(queue, self.read(queue, qty, lease, form))
        self.begin(self.isolation())
        savepoint = self.savepoint() if self.rng.random() < 0.1 else None
        got = self.read(queue, qty, lease, form)
        if savepoint and self.rng.random() < 0.5:
            self.rollback_to(savepoint)
            got = []
        if got and self.rng.random() < 0.3:
            self.use(queue, [(queue, row[0], row[1]) for row in got[:3]])
        if self.end():
            self.hold(queue, got)
        return None

    def do_read_late(self):
        """In a snapshot that is older than the policy; the last one counts"""
        queue = self.rng.choice(CHANGED)
        self.begin(self.rng.choice(ISOLATION[1:]))
        self.value("SELECT 1")
        self.nap(self.rng.uniform(0.1, 0.5))
        got = self.read(queue, 20, 0, self.form(queue))
        if self.end():
            self.hold(queue, got)

    def do_tokens(self):
        if not self.held:
            return self.do_consume()
        queue, tokens = self.some_tokens()
        if self.rng.random() < 0.4:
            return self.use(queue, tokens)
        self.begin(self.isolation())
        again = self.rng.choice((None, None, None, "nack", "release"))
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            self.use(queue, tokens, again)
        return self.end()

    def do_next(self):
        if not self.held:
            return self.do_consume()
        queue, tokens = self.some_tokens()
        if queue in GROUPED:
            return self.use(queue, tokens)
        self.begin(self.isolation())
        got = self.next(queue, self.rng.choice((1, 5)), self.rng.choice((0, 1)), tokens, self.rng.random() < 0.5)
        if self.end():
            self.hold(queue, got)
        return None

    def do_old_verb(self):
        if not self.held:
            return self.do_consume()
        queue, msg_id, _ = self.rng.choice(self.held)
        self.begin(self.isolation())
        if self.rng.random() < 0.2 and queue not in GROUPED:
            self.pop(queue, 1)
        else:
            # Who makes a lease longer by set_vt takes a place that nobody has given
            self.old_verb(self.rng.choice(("delete", "archive", "delete" if queue == "flight" else "set_vt")), queue, msg_id)
        return self.end()

    SCENARIOS = ((do_send, 8), (do_consume, 10), (do_tokens, 10), (do_next, 2), (do_old_verb, 1),
                 (do_read_late, 2))

    def step(self):
        self.rng.choices([s[0] for s in self.SCENARIOS], [s[1] for s in self.SCENARIOS])[0](self)
        if self.rng.random() < 0.3:
            self.nap(self.rng.uniform(0, 0.05))


def restore(session, queue):
    """A dead-letter queue as it was, whatever was done to it and whatever interrupted that"""
    table = "pgmq.q_" + queue

    def exists(name):
        return session.value("SELECT to_regclass(%s) IS NOT NULL", name)

    if exists(table + "_away"):
        session.execute("ALTER TABLE %s_away RENAME TO q_%s" % (table, queue))
    if not exists(table):
        session.begin()
        session.value("SELECT pgmq.create(%s::text)", queue)
        session.execute("CREATE TRIGGER is_full BEFORE INSERT ON %s FOR EACH ROW EXECUTE FUNCTION stress.is_full('%s')"
                        % (table, queue))
        session.commit()
    session.execute("ALTER TABLE %s OWNER TO CURRENT_USER" % table)
    session.execute("DELETE FROM stress.full_queues WHERE queue = '%s'" % queue)
    session.value("SELECT pgmq.resume_queue(%s::text)", queue)


class Undertaker(Booked):
    """Does everything to a dead-letter queue, while messages are moved there"""

    def __init__(self, *args, queue):
        super().__init__(*args)
        self.queue = queue
        self.table = "pgmq.q_" + queue

    def until_then(self):
        self.nap(self.rng.uniform(0.1, 0.6))

    def do_drop(self):
        self.begin()
        self.execute("LOCK TABLE %s IN ACCESS EXCLUSIVE MODE" % self.table)
        self.book("dropped", self.queue, self.table, (), MESSAGE[:1] + ("NULL",) + MESSAGE[2:4])
        self.value("SELECT pgmq.drop_queue(%s::text)", self.queue)
        if self.rng.random() < 0.3:
            self.until_then()
        if self.rng.random() < 0.3:
            return self.rollback()
        self.commit()
        return self.until_then()

    def do_rename(self):
        self.execute("ALTER TABLE %s RENAME TO q_%s_away" % (self.table, self.queue))
        self.until_then()

    def do_change_owner(self):
        self.execute("ALTER TABLE %s OWNER TO stress_other" % self.table)
        self.until_then()

    def do_pause(self):
        self.value("SELECT pgmq.pause_queue(%s::text)", self.queue)
        self.until_then()

    def do_fill(self):
        self.execute("INSERT INTO stress.full_queues VALUES (%s)", self.queue)
        self.until_then()

    def do_lock(self):
        self.execute("BEGIN")
        self.execute("LOCK TABLE %s IN %s MODE" % (self.table, self.rng.choice(("ACCESS EXCLUSIVE", "SHARE"))))
        self.until_then()
        self.execute("COMMIT")

    def do_bury(self):
        self.pop(self.queue, self.rng.choice((1, 10)))

    def do_redrive(self):
        try:
            self.redrive()
        except (psycopg.errors.ProgramLimitExceeded, psycopg.errors.RaiseException):
            pass        # a queue that it would go to is full, or a dead-letter queue refuses what would make room there

    def redrive(self):
        self.book("redrive", self.queue, "pgmq.redrive(%s::text, NULL, %s) AS n", (self.queue, self.rng.choice((1, 5))),
                  ("NULL", "n"))

    def do_nothing(self):
        self.until_then()

    ACTIONS = ((do_drop, 1), (do_rename, 2), (do_change_owner, 2), (do_pause, 1), (do_fill, 2), (do_lock, 2), (do_bury, 2),
               (do_redrive, 4), (do_nothing, 10))

    def step(self):
        self.execute("SET lock_timeout = '2s'")
        restore(self, self.queue)
        self.rng.choices([a[0] for a in self.ACTIONS], [a[1] for a in self.ACTIONS])[0](self)


class RateReader(Booked):
    """Reads more than is allowed, so that the limit is always reached"""

    def step(self):
        if self.shared.depth[ALL_QUEUES.index("rated")] < RATE:
            self.send("rated", RATE, 0, {})
        self.read("rated", 2 * RATE, 0, self.rng.choice(("read", "read_with_poll")))
        self.nap(0.1)


# What a read must hand out first, for whoever sees and can lock everything
LEVEL = "CASE WHEN headers->>'x-pgmq-priority' ~ '^[0-9]$' THEN (headers->>'x-pgmq-priority')::int ELSE 4 END"
# Of two senders at a moment, the one with the lower msg_id may have read the clock later
SAME_MOMENT = 0.3


class LevelAuditor(Booked):
    """Reads while nobody else writes, so that it is known what must come"""

    def step(self):
        self.nap(self.rng.uniform(0.1, 0.4))
        queue = self.rng.choices(list(MAX_WAIT), (1, 2))[0]
        self.begin()
        self.execute("SET LOCAL lock_timeout = '3s'")
        self.execute("LOCK TABLE pgmq.q_%s IN SHARE ROW EXCLUSIVE MODE" % queue)
        for _ in range(3):
            self.audit(queue, self.rng.choice((1, 1, 1, 6)))
        # Some will have waited too long the next time
        if self.shared.depth[ALL_QUEUES.index(queue)] < DEPTH:
            self.send(queue, 5, 0, {"x-pgmq-priority": self.rng.randrange(10)})
        self.commit()

    def audit(self, queue, qty):
        now = "SELECT extract(epoch FROM clock_timestamp())::float8"
        there = {row[0]: row[1:] for row in self.rows(
            "SELECT msg_id, " + LEVEL + ", extract(epoch FROM vt)::float8, vt = enqueued_at FROM pgmq.q_" + queue)}
        since = self.value(now)
        got = [row[0] for row in self.read(queue, qty, 1)]
        until = self.value(now)
        wait = MAX_WAIT[queue] or float("inf")
        visible = {msg_id for msg_id, (_, vt, fresh) in there.items() if fresh or vt <= since}
        late = {msg_id for msg_id in visible if there[msg_id][1] + wait + SAME_MOMENT < since}
        perhaps = {msg_id for msg_id in visible - late if there[msg_id][1] + wait < until}
        # What became visible meanwhile may have come or not; by level comes what has not waited too long
        wrong = None
        if not any(since < vt <= until for _, vt, _ in there.values()):
            came = sorted((there[msg_id][0] for msg_id in got if msg_id not in late), reverse=True)
            wanted = sorted((there[msg_id][0] for msg_id in visible - late), reverse=True)[:max(qty - len(late), 0)]
            if len(late.intersection(got)) < min(qty, len(late)) and not set(got) <= late | perhaps:
                wrong = "%s came, but of %s that had waited too long" % (got, sorted(late))
            elif not perhaps and came != wanted:
                wrong = "%s came instead of %s" % (came, wanted)
        self.execute("INSERT INTO stress.book (client, kind, queue, attempt, seconds, outcome) VALUES (%s, 'levels', 'all', %s, %s, %s)",
                     self.name, len({there[msg_id][0] for msg_id in visible - late}), len(late), wrong)


class Owner(Booked):
    """Changes policies, pauses queues, and tells how long each queue is"""

    def change(self, kind, queue, value, call, *args):
        """A change, and when it was known to have been committed: from then on everybody must know it"""
        self.begin()
        entry = self.value("INSERT INTO stress.book (client, kind, queue, began, attempt)"
                           " VALUES (%s, %s, %s, clock_timestamp(), %s) RETURNING id", self.name, kind, queue, value)
        self.value("SELECT pgmq." + call, queue, *args)
        if self.rng.random() < 0.2:
            return self.rollback()
        self.commit()
        return self.execute("INSERT INTO stress.book (client, kind, queue, msg_id) VALUES (%s, 'known', %s, %s)",
                            self.name, queue, entry)

    def pause(self):
        queue = self.rng.choice(CHANGED)
        self.change("pause", queue, None, "pause_queue(%s::text)")
        self.nap(self.rng.uniform(0, 0.5))
        self.resume(queue)

    def resume(self, queue):
        # Before it is done: whoever reads from now on may have seen it
        self.execute("INSERT INTO stress.book (client, kind, queue) VALUES (%s, 'resume', %s)", self.name, queue)
        self.value("SELECT pgmq.resume_queue(%s::text)", queue)

    def connect(self):
        super().connect()
        for (queue,) in self.rows("SELECT queue_name FROM pgmq.list_policies() WHERE paused_until > clock_timestamp()"):
            if queue in QUEUES:
                self.resume(queue)

    def step(self):
        for number, queue in enumerate(ALL_QUEUES):
            if queue not in DEAD:
                length = self.value("SELECT count(*) FROM pgmq.q_" + queue)
                self.shared.depth[number] = length
                if queue in LIMITED:
                    self.execute("INSERT INTO stress.book (client, kind, queue, attempt) VALUES (%s, 'length', %s, %s)",
                                 self.name, queue, length)
        dice = self.rng.random()
        if dice < 0.5:
            self.execute("SET lock_timeout = '2s'")
            queue = self.rng.choice(CHANGED)
            max_reads = self.rng.randint(1, 2 if queue in GROUPED else 4)
            self.change("policy", queue, max_reads, "set_policy(%s::text, max_reads => %s)", max_reads)
        elif dice < 0.7:
            self.pause()
        elif dice < 0.8:
            self.execute("VACUUM pgmq.q_" + self.rng.choice(list(QUEUES)))
        self.nap(0.2)

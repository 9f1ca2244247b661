"""Queues that nobody damages: a sender and a consumer of each kind, for whom everything has to go on as if they were alone.

What is sent and taken out is written to fuzz.ledger and fuzz.gone by the same statements, so the server's own
transactions say what must be found at the end, whatever was rolled back, prepared or lost in a crash.
"""
import json
import random
import select
import time

import psycopg

from client import Caller, Client
from damage import make_queue

# name: kind.  in_: of the innocent, led_: of random transactions of sends and reads that must lose nothing
INNOCENT = {"in_std": "std", "in_unl": "unlogged", "in_pid": "id", "in_ptime": "time", "in_grp": "std+group", "in_ntf": "std+notify", "in_top": "std",
            "in_gpid": "id+group"}
LEDGER = {"led_std": "std", "led_unl": "unlogged", "led_pid": "id", "led_ptime": "time", "led_grp": "std+group+notify", "led_ntf": "std+notify", "led_top": "std",
          "led_pol": "std", "led_gpol": "std+group"}
# Queues with policies; what dies there is in the dead-letter queue of all of them, or in the archive
POLICIES = {"led_pol": "max_reads => 2, dead_letter_queue => 'dead_pol', retry_delay_max => '1 s', max_in_flight => 50",
            "led_gpol": "max_reads => 1, dead_letter_queue => 'dead_pol', retry_delay_max => '1 s'",
            "led_std": "rate_limit => 1000, priority => true", "led_ntf": "max_length => 100000, dedup_window => '1 s'"}
DEAD_LETTERS = "dead_pol"
# On two busy cores beside a server with assertions, and after locks of whoever alters tables
LATE = 30


def books(queue):
    return ("fuzz.ledger_unlogged", "fuzz.gone_unlogged") if queue.endswith("_unl") else ("fuzz.ledger", "fuzz.gone")


def make(conn, ledger):
    """As their owner, from whom callers have the rights to send to and consume from those with books only"""
    for name, kind in list(INNOCENT.items()) + (list(LEDGER.items()) if ledger else []):
        for sql in make_queue(name, kind):
            conn.execute(sql)
    conn.execute("SELECT pgmq.bind_topic('innocent.t', 'in_top')")
    if ledger:
        # What is archived there is looked for at the end
        for name in ("led_pid", "led_ptime"):
            conn.execute("SELECT pgmq.set_retention('%s', NULL)" % name)
        conn.execute("SELECT pgmq.create('%s')" % DEAD_LETTERS)
        for name, policy in POLICIES.items():
            conn.execute("SELECT pgmq.set_policy('%s', %s)" % (name, policy))
        conn.execute("CREATE TRIGGER sometimes BEFORE INSERT ON pgmq.q_%s FOR EACH ROW EXECUTE FUNCTION fuzz.sometimes()" % DEAD_LETTERS)
        for name in LEDGER:
            conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.q_%s, pgmq.a_%s TO maker" % (name, name))
        for name in ("led_top", "led_grp"):
            conn.execute("SELECT pgmq.bind_topic('ledger.t', '%s')" % name)


class Sender(Client):
    """Sends to all of them in turn, a message each tenth of a second"""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.number = 0

    def step(self):
        for queue in INNOCENT:
            self.number += 1
            tag = "%s-%d" % (self.name, self.number)
            body = "jsonb_build_object('k', '%s', 'at', extract(epoch FROM clock_timestamp()))" % tag
            if queue == "in_top":
                call = "pgmq.send_batch_topic('innocent.t', ARRAY[%s]) AS s(q, id)" % body
            elif "grp" in queue or "gpid" in queue:
                call = "pgmq.send('%s', %s, '{\"x-pgmq-group\": \"g%d\"}'::jsonb) AS s(id)" % (queue, body, self.number % 5)
            else:
                call = "pgmq.send('%s', %s) AS s(id)" % (queue, body)
            sql = "INSERT INTO %s SELECT '%s', s.id, '%s' FROM %s" % (books(queue)[0], queue, tag, call)
            if self.run(sql, "innocent send") is None:
                if innocent_error(self.last_error[0]):
                    self.counts["innocent refused"] += 1
                    self.violate("innocent", "%s: %s" % (sql, self.last_error[1]))
                break
            self.counts["innocent sent"] += 1
        self.nap(0.1)


def innocent_error(state):
    """Whether nobody but the extension can be to blame: the server went down, or locks crossed"""
    return state not in ("lost", "connect", "40P01") and not state.startswith("57P")


class Consumer(Client):
    def __init__(self, *args, queue, crashes, **more):
        super().__init__(*args, **more)
        self.queue = queue
        self.crashes = crashes      # when the server has last gone down
        self.ready = 0

    def connected(self):
        if self.queue == "in_ntf":
            self.run("LISTEN \"pgmq.q_in_ntf.INSERT\"")
        self.ready = time.time()

    def wait(self):
        """In one of the ways that there are, for a second at most"""
        rng = self.rng
        if self.queue == "in_ntf" and rng.random() < 0.9:
            began = time.time()
            self.notified(1)
            # somebody sends all the time
            if time.time() - began >= 1:
                self.counts["notifications missed"] += 1
        elif "grp" not in self.queue and "gpid" not in self.queue and rng.random() < 0.6:
            self.run(rng.choice(("CALL pgmq.wait('%s', 1000)", "CALL pgmq.wait_any(ARRAY['%s', 'in_std'], 1000)")) % self.queue, "innocent wait")

    def notified(self, seconds):
        if select.select([self.conn.fileno()], [], [], seconds)[0]:
            self.conn.pgconn.consume_input()
            while self.conn.pgconn.notifies():
                self.counts["notifications"] += 1

    def read(self):
        rng = self.rng
        queue = self.queue
        if "grp" in queue or "gpid" in queue:
            return rng.choice(("read_grouped('%s', 5, 10)", "read_grouped_rr('%s', 5, 10)", "read_grouped_head('%s', 5, 10)",
                               "read_grouped_with_poll('%s', 5, 10, 1)")) % queue
        return rng.choice(("read('%s', 5, 10)", "read('%s', 5, 1)", "read_with_poll('%s', 5, 10, 1)")) % queue

    def step(self):
        if self.conn.closed:
            self.connect()
        self.wait()
        gone = books(self.queue)[1]
        self.run("BEGIN")
        if self.rng.random() < 0.3 and "grp" not in self.queue and "gpid" not in self.queue:
            rows = self.run("WITH p AS MATERIALIZED (SELECT msg_id, message FROM pgmq.pop('%s', 5)), g AS (INSERT INTO %s SELECT '%s', msg_id FROM p)"
                            " SELECT msg_id, message FROM p" % (self.queue, gone, self.queue), "innocent pop")
        else:
            rows = self.run("SELECT msg_id, message FROM pgmq." + self.read(), "innocent read")
            if rows and self.run("INSERT INTO %s SELECT '%s', d FROM pgmq.delete('%s', ARRAY[%s]::bigint[]) AS d" % (
                    gone, self.queue, self.queue, ", ".join(str(row[0]) for row in rows)), "innocent delete") is None:
                rows = None
        if rows is None or self.run("COMMIT") is None:
            if innocent_error(self.last_error[0]):
                self.violate("innocent", "%s: %s" % (self.queue, self.last_error[1]))
            if not self.conn.closed:
                self.run("ROLLBACK")
            self.nap(0.1)
            return
        for message in (json.loads(row[1]) for row in rows):
            self.counts["innocent consumed"] += 1
            late = time.time() - float(message["at"])
            if late > LATE and float(message["at"]) > max(self.crashes.value, self.ready) + 5:
                self.violate("late", "%s: %s came after %.1f s" % (self.queue, message["k"], late))
        if not rows:
            self.nap(0.05)


class Watcher(Client):
    """Calls what goes over all queues: it passes the damaged ones by, and has the others"""

    def step(self):
        began = time.monotonic()
        for sql, column, wanted in (
                ("SELECT queue_name FROM pgmq.metrics_all()", 0, set(INNOCENT)),
                ("SELECT queue FROM pgmq.list_partitions()", 0, {"in_pid", "in_ptime"}),
                ("SELECT queue_name FROM pgmq.list_queues()", 0, set(INNOCENT)),
                ("CALL pgmq.maintain()", None, set())):
            rows = self.run(sql, "over all queues")
            if rows is None:
                if innocent_error(self.last_error[0]):
                    self.violate("over all", "%s: %s" % (sql, self.last_error[1]))
                if self.conn.closed:
                    return
                continue
            missing = wanted - {row[column] for row in rows} if wanted else ()
            if missing:
                self.violate("over all", "%s does not have %s" % (sql, ", ".join(sorted(missing))))
        self.counts["over all queues, rounds"] += 1
        if time.monotonic() - began > 60:
            self.violate("over all", "a round took %.0f s" % (time.monotonic() - began))
        self.nap(0.5)


class LedgerCaller(Caller):
    """A caller whose transactions also send to and take from queues whose books must balance"""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.number = 0

    def with_token(self, queue, gone):
        """The end of a delivery, mostly with its token"""
        rng = self.rng
        read = "pgmq.%s('%s', %d, %d) AS r" % (rng.choice(("read", "read_grouped", "read_where")), queue, rng.choice((0, 0, 1)), rng.randint(1, 3))
        attempt = rng.choice(("r.read_ct", "r.read_ct", "r.read_ct", "r.read_ct - 1"))
        arrays = "(SELECT array_agg(r.msg_id), array_agg(%s) FROM %s) AS t(ids, attempts)" % (attempt, read)
        what = rng.random()
        if what < 0.2:
            return "INSERT INTO %s SELECT '%s', r.msg_id FROM %s WHERE pgmq.ack('%s', r.msg_id, %s)" % (gone, queue, read, queue, attempt)
        if what < 0.3:
            return "INSERT INTO %s SELECT '%s', a.msg_id FROM %s, LATERAL pgmq.ack_batch('%s', t.ids, t.attempts) AS a WHERE a.ok" % (
                gone, queue, arrays, queue)
        if what < 0.5:
            return "SELECT pgmq.%s('%s', r.msg_id, %s) FROM %s" % (
                rng.choice(("ack_archive", "nack", "nack", "release", "dead_letter")), queue, attempt, read)
        if what < 0.7:
            return "SELECT a FROM %s, LATERAL pgmq.%s_batch('%s', t.ids, t.attempts) AS a" % (
                arrays, rng.choice(("ack_archive", "nack", "nack", "release")), queue)
        # What it acknowledges is what it may not skip
        if what < 0.8:
            return ("WITH t AS MATERIALIZED (SELECT * FROM %s), n AS MATERIALIZED (SELECT n.msg_id FROM t, LATERAL pgmq.next('%s', 0, 2, t.ids, t.attempts, false) AS n),"
                    " c AS MATERIALIZED (SELECT count(*) FROM n) INSERT INTO %s SELECT '%s', unnest(t.ids) FROM t, c" % (arrays, queue, gone, queue))
        return "SELECT * FROM %s" % read

    def tagged(self):
        rng = self.rng
        queue = rng.choice(list(LEDGER))
        ledger, gone = books(queue)
        self.number += 1
        tag = "%s-%d" % (self.name, self.number)
        body = "'{\"k\": \"%s\"}'::jsonb" % tag
        headers = self.calls.values.headers() if rng.random() < 0.5 else "'{\"x-pgmq-group\": \"a\"}'::jsonb"
        ids = "(SELECT array_agg(r.msg_id) FROM pgmq.read('%s', 0, %d) AS r)" % (queue, rng.randint(1, 3))
        what = rng.random()
        if queue in POLICIES and what < 0.6:
            return self.with_token(queue, gone)
        if what < 0.3:
            delay = rng.choice(("", ", 0", ", 1", ", now()"))
            return "INSERT INTO %s SELECT '%s', s, '%s' FROM pgmq.send('%s', %s, %s%s) AS s" % (ledger, queue, tag, queue, body, headers, delay)
        if what < 0.45:
            return ("INSERT INTO %s SELECT '%s', s, '%s' FROM pgmq.send_batch('%s', ARRAY[%s, %s]) AS s" % (ledger, queue, tag, queue, body, body))
        if what < 0.5:
            return "INSERT INTO fuzz.ledger SELECT s.queue_name, s.msg_id, '%s' FROM pgmq.send_batch_topic('ledger.t', ARRAY[%s, %s]) AS s" % (tag, body, body)
        if what < 0.6:
            return "INSERT INTO %s SELECT '%s', msg_id FROM pgmq.pop('%s', %d)" % (gone, queue, queue, rng.choice((1, 3)))
        if what < 0.72:
            return "INSERT INTO %s SELECT '%s', d FROM pgmq.delete('%s', %s) AS d" % (gone, queue, queue, ids)
        if what < 0.8:
            return "SELECT * FROM pgmq.archive('%s', %s)" % (queue, ids)
        if what < 0.9:
            return "SELECT * FROM pgmq.set_vt('%s', %s, %d)" % (queue, ids, rng.choice((0, 0, 1)))
        return "SELECT * FROM pgmq.%s('%s', 0, 3)" % (rng.choice(("read", "read_grouped", "read_grouped_head")), queue)

    def call(self):
        if self.rng.random() < 0.4:
            self.run(self.tagged(), "ledger")
        else:
            super().call()

    def block(self):
        if self.rng.random() < 0.6:
            super().block()
            return
        raises = self.rng.choice(("", "RAISE EXCEPTION 'fuzz';"))
        self.run("DO $fuzz$ BEGIN\nBEGIN %s; %s EXCEPTION WHEN OTHERS THEN NULL; END;\nBEGIN %s; PERFORM %s; EXCEPTION WHEN OTHERS THEN %s; END;\nEND $fuzz$" % (
            perform(self.tagged()), raises, perform(self.tagged()), self.calls.bare(self.calls.of(("send", "pop", "read", "delete", "create", "drop_queue"))),
            perform(self.tagged())), "DO block")


def perform(sql):
    return "PERFORM" + sql.removeprefix("SELECT") if sql.startswith("SELECT") else sql


def drain(conn, seconds):
    """The innocent queues to their end, by ordinary reads; how many messages were left"""
    deadline = time.monotonic() + seconds
    rng = random.Random(1)
    left = {queue: 1 for queue in INNOCENT}
    while any(left.values()) and time.monotonic() < deadline:
        for queue in INNOCENT:
            read = rng.choice(("read_grouped", "read_grouped_rr", "read_grouped_head")) if "grp" in queue or "gpid" in queue else "read"
            conn.execute("WITH r AS MATERIALIZED (SELECT array_agg(r.msg_id) AS ids FROM pgmq.%s('%s', 5, 100) AS r)"
                         " INSERT INTO %s SELECT '%s', d FROM r, LATERAL pgmq.delete('%s', r.ids) AS d" % (read, queue, books(queue)[1], queue, queue))
            left[queue] = conn.execute("SELECT count(*) FROM pgmq.q_" + queue).fetchone()[0]
        time.sleep(0.1)
    return {queue: count for queue, count in left.items() if count}


def balance(conn, queue, crashed):
    """Differences between the books and what is there; what was sent is in the queue, in the archive, or gone, once"""
    ledger, gone = books(queue)
    dead = "" if queue not in POLICIES else (
        " UNION ALL SELECT (headers->>'x-dlq-origin-msg-id')::bigint FROM pgmq.q_%s WHERE headers->>'x-dlq-origin-queue' = '%s'" % (DEAD_LETTERS, queue))
    try:
        rows = conn.execute(
            "SELECT coalesce(l.msg_id, f.msg_id), l.n, f.n FROM (SELECT msg_id, count(*) AS n FROM %s WHERE queue = '%s' GROUP BY 1) AS l"
            " FULL JOIN (SELECT msg_id, count(*) AS n FROM (SELECT msg_id FROM pgmq.q_%s UNION ALL SELECT msg_id FROM pgmq.a_%s"
            " UNION ALL SELECT msg_id FROM %s WHERE queue = '%s'%s) AS all_of_it GROUP BY 1) AS f USING (msg_id)"
            " WHERE l.n IS DISTINCT FROM 1 OR f.n IS DISTINCT FROM 1" % (ledger, queue, queue, queue, gone, queue, dead)).fetchall()
    except psycopg.Error as error:
        return ["%s: %s" % (queue, error)]
    if crashed and queue.endswith("_unl"):
        # the archive is not emptied by a crash, the books are
        rows = [row for row in rows if row[1] is not None]
    return ["%s, msg_id %s: sent %s times, found %s times" % (queue, msg_id, sent or 0, found or 0) for msg_id, sent, found in rows]

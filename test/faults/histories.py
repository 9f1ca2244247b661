"""What a few sessions do with the message groups of one queue, by chance, and whether what is promised holds.

    histories.py CONNECTION STEPS|SECONDSs SEED standard|partitioned|unlogged|unindexed

A round is a number of steps: a session chosen by chance makes a call that is chosen
by chance, in a transaction or without one.  There are savepoints, prepared transactions,
all isolation levels, sessions that are killed, messages that are moved to another group,
deleted or given a lower msg_id by hand, and statements that do several of these at once.
In some rounds the queue has max_reads, so that messages become dead letters.
One step is made at a time.  A model (model.py) is told what it did, and checks what
was handed out.  At the end of a round, when no transaction is open:

- the queue has the messages that it must have, each in its group;
- every group whose first message is visible is handed out, by groups; a note has told of it;
- so is the rest, once all leases have been taken back (in some of the rounds).

What it prints is TAP.  When a check fails it prints what was done since the queue was
empty.  A step that would wait for another session fails: that one can't go on meanwhile.
"""
import random
import sys
import time

import psycopg

from groups import Failed, Limit, connect, find, healed, notes, to_be_had
from model import Model, Transaction

QUEUE = "histories"
TABLE = "pgmq.q_" + QUEUE
# In some rounds there are few of them, for more to happen in each
GROUPS = ("ab", "abcd")
SESSIONS = 4
LEASE = 1000
# Fewer than the server has room for
MOST_PREPARED = 3
# With more messages than this every call becomes slow
MOST_MESSAGES = 60
MAX_READS = (None, 1, 1, 2)

# A trigger tells of each dead letter in the call that has moved it
WATCH_DEAD = """
SELECT pgmq.create('dead');
CREATE FUNCTION tell() RETURNS trigger LANGUAGE plpgsql SET client_min_messages = notice AS $$ BEGIN
    RAISE NOTICE 'dead %', new.headers->>'x-dlq-origin-msg-id';
    RETURN new;
END $$;
CREATE TRIGGER tell BEFORE INSERT ON pgmq.q_dead FOR EACH ROW EXECUTE FUNCTION tell();
"""

# How often each of the steps is chosen, in comparison with the others
STEPS = {
    "begin": 8, "commit": 4, "roll_back": 3, "savepoint": 5, "roll_back_to": 4, "release": 2,
    "prepare": 1, "finish_prepared": 2, "kill": 1,
    "send": 10, "send_below": 3,
    "read_by_groups": 18, "read_often": 3, "consume": 3, "read": 1, "pop": 1,
    "acknowledge": 3, "give_back": 3,
    "delete": 4, "archive": 1, "delete_by_hand": 1, "delete_group": 1, "merge": 1,
    "set_vt": 3, "set_vt_by_hand": 1, "move": 5,
    "change_much": 2, "change_and_read": 2, "regret": 2,
    "vacuum": 1, "empty": 1, "index_again": 1,
}
# In some rounds transactions change their minds: messages are moved to and fro, and parts of it are rolled back
MANY_CHANGES = STEPS | {"savepoint": 8, "roll_back_to": 8, "move": 14, "read": 0, "pop": 0, "set_vt_by_hand": 0,
                        "kill": 0, "vacuum": 0, "empty": 0, "index_again": 0}

# What a step may come to where others are at work.  Anything else is an error.
REFUSED = (psycopg.errors.LockNotAvailable, psycopg.errors.SerializationFailure)


def headers(group):
    return "'{\"x-pgmq-group\": \"%s\"}'::jsonb" % group


def watch_dead(conn):
    """Where the connection adds the ids of those that it hears of"""
    moved = []
    conn.add_notice_handler(lambda notice: moved.append(int(notice.message_primary.split()[1])))
    return moved


def array(ids):
    return "'{%s}'::bigint[]" % ",".join(map(str, ids))


class Refused(Exception):
    """The statement has failed, and so has the part of the transaction that it was in"""


class Session:
    def __init__(self, connection, name, model, history):
        self.connection, self.name, self.model, self.history = connection, name, model, history
        self.open()

    def open(self):
        self.conn = connect(self.connection)
        # Whoever it would wait for does nothing meanwhile
        self.conn.execute("SET lock_timeout = 1")
        self.dead = watch_dead(self.conn)
        self.transaction = None
        self.savepoints = []    # for each, how much the transaction could undo then
        self.failed = False

    def note(self, what):
        self.history.append("%s: %s" % (self.name, what))

    def execute(self, sql):
        """The rows; empty ones, as many as were changed, if it returns none.  If it is refused,
        what came since the last savepoint is rolled back with it."""
        self.note(sql)
        self.dead.clear()
        try:
            cursor = self.conn.execute(sql)
            rows = cursor.fetchall() if cursor.description else [()] * max(cursor.rowcount, 0)
        except REFUSED as error:
            self.note("-- " + str(error).splitlines()[0])
            if self.transaction:
                self.failed = True
                self.model.roll_back(self.transaction, self.savepoints[-1] if self.savepoints else 0)
            raise Refused from error
        except psycopg.Error as error:
            raise Failed("%s: %s" % (self.name, error)) from error
        if rows and rows[0]:
            self.note("-- " + ", ".join(" ".join(map(str, row)) for row in rows))
        if self.dead:
            self.note("-- dead: %s" % self.dead)
        return rows

    def begin(self, level):
        self.execute("BEGIN ISOLATION LEVEL " + level)
        self.transaction = Transaction()

    def savepoint(self):
        self.execute("SAVEPOINT s%d" % len(self.savepoints))
        self.savepoints.append(len(self.transaction.undo))

    def roll_back_to(self, number):
        self.execute("ROLLBACK TO s%d" % number)
        self.model.roll_back(self.transaction, self.savepoints[number])
        del self.savepoints[number + 1:]
        self.failed = False

    def release(self, number):
        self.execute("RELEASE s%d" % number)
        del self.savepoints[number:]

    def end(self, sql):
        """COMMIT, ROLLBACK or PREPARE, as whose owner it then has none; returns it if it has come through"""
        transaction, self.transaction = self.transaction, None
        self.savepoints, failed, self.failed = [], self.failed, False
        try:
            self.execute("ROLLBACK" if failed else sql)
        except Refused:
            failed = True       # a serializable one at its end
        if failed or sql == "ROLLBACK":
            self.model.roll_back(transaction)
            return None
        return transaction

    def commit(self):
        transaction = self.end("COMMIT")
        if transaction:
            self.model.commit(transaction)


class Histories:
    def __init__(self, connection, kind, rng):
        self.kind, self.rng = kind, rng
        self.model, self.history = Model(committed=kind == "unindexed"), []
        self.admin = connect(connection)
        self.create()
        self.dead = watch_dead(self.admin)
        self.sessions = [Session(connection, str(n + 1), self.model, self.history) for n in range(SESSIONS)]
        self.prepared = {}      # transactions, by name
        self.rounds = self.steps = self.refused = self.handed_out = self.dead_letters = 0
        self.session = None     # whose turn it is
        self.groups = GROUPS[0]

    def create(self):
        if self.kind == "partitioned":
            self.admin.execute("SELECT pgmq.create_partitioned('%s', '200', '100000', 2)" % QUEUE)
        elif self.kind == "unlogged":
            self.admin.execute("SELECT pgmq.create_unlogged('%s')" % QUEUE)
        else:
            self.admin.execute("SELECT pgmq.create('%s')" % QUEUE)
        # There is room for lower ids
        self.admin.execute("ALTER SEQUENCE %s_msg_id_seq INCREMENT 5" % TABLE)
        if self.kind != "unindexed":
            self.admin.execute("SELECT pgmq.create_fifo_index('%s')" % QUEUE)
        self.admin.execute(WATCH_DEAD)

    def tell(self, sql):
        """By nobody of the sessions"""
        self.history.append("0: " + sql)
        return self.admin.execute(sql)

    # Chance

    def some(self, *counts):
        """So many ids of messages, if there are any; of some that are not committed, or gone for some"""
        ids = list(self.model.messages)
        return self.rng.sample(ids, min(self.rng.choice(counts), len(ids)))

    def group(self):
        return self.rng.choice(self.groups)

    def nobody_is_at_work(self):
        return not self.prepared and not any(session.transaction for session in self.sessions)

    # What a statement has done, for the model

    def execute(self, sql):
        return self.session.execute(sql)

    def sent(self, rows, groups):
        for (msg_id,), group in zip(rows, groups):
            self.model.send(self.session.transaction, msg_id, group)

    def removed(self, rows):
        for msg_id, in rows:
            self.model.remove(self.session.transaction, msg_id)

    def freed(self, rows):
        for msg_id, in rows:
            self.model.let_go(msg_id)

    def moved(self, rows, group):
        for msg_id, in rows:
            self.model.move(self.session.transaction, msg_id, group)

    def buried(self, in_order=True):
        """What the last statement has moved to the dead-letter queue"""
        for msg_id in self.session.dead:
            self.model.bury(self.session.transaction, msg_id, in_order)
        self.dead_letters += len(self.session.dead)

    def given(self, rows, leased=True):
        self.model.give(self.session.transaction, rows, leased)
        self.handed_out += len(rows)

    # Steps: transactions

    def begin(self):
        if not self.session.transaction:
            self.session.begin(self.rng.choice(("READ COMMITTED",) * 3 + ("REPEATABLE READ", "SERIALIZABLE")))

    def commit(self):
        if self.session.transaction:
            self.session.commit()

    def roll_back(self):
        if self.session.transaction:
            self.session.end("ROLLBACK")

    def savepoint(self):
        if self.session.transaction:
            self.session.savepoint()

    def roll_back_to(self):
        if self.session.savepoints:
            self.session.roll_back_to(self.rng.randrange(len(self.session.savepoints)))

    def release(self):
        if self.session.savepoints:
            self.session.release(self.rng.randrange(len(self.session.savepoints)))

    def prepare(self):
        if self.session.transaction and len(self.prepared) < MOST_PREPARED:
            name = "%s %d" % (self.kind, self.steps)
            transaction = self.session.end("PREPARE TRANSACTION '%s'" % name)
            if transaction:
                self.prepared[name] = transaction

    def finish_prepared(self):
        if self.prepared:
            name = self.rng.choice(list(self.prepared))
            transaction = self.prepared.pop(name)
            commit = self.rng.random() < 0.5
            self.tell("%s PREPARED '%s'" % ("COMMIT" if commit else "ROLLBACK", name))
            (self.model.commit if commit else self.model.roll_back)(transaction)

    def kill(self):
        """The session goes, with its transaction; or the client does"""
        session = self.session
        if not session.transaction:
            return
        session.note("-- is killed")
        pid = session.conn.info.backend_pid
        if self.rng.random() < 0.5:
            self.admin.execute("SELECT pg_terminate_backend(%s)", [pid])
        session.conn.close()
        while self.admin.execute("SELECT true FROM pg_stat_activity WHERE pid = %s", [pid]).fetchone():
            time.sleep(0.001)
        self.model.roll_back(session.transaction)
        session.open()

    # Steps: messages come

    def send(self):
        groups = [self.group() for _ in range(self.rng.choice((1, 1, 2, 4)))]
        delay = self.rng.choice(("0", "0", "0", "0", str(LEASE), "'infinity'::timestamptz"))
        self.sent(self.execute("SELECT pgmq.send_batch('%s', array_fill('1'::jsonb, '{%d}'), ARRAY[%s], %s)" % (
            QUEUE, len(groups), ", ".join(map(headers, groups)), delay)), groups)

    def send_below(self):
        """In front of a message, as one comes whose msg_id was drawn earlier"""
        for msg_id in self.some(1):
            below = msg_id - self.rng.randint(1, 4)
            # Ids may be used again, but not while there is one in the archive
            if below in self.model.messages or below in self.archived():
                return
            group, vt = self.group(), self.rng.choice(("at", "at", "at + '%d s'" % LEASE))
            self.sent(self.execute(
                "INSERT INTO %s (msg_id, enqueued_at, vt, message, headers) OVERRIDING SYSTEM VALUE"
                " SELECT %d, at, %s, '1', %s FROM (SELECT clock_timestamp() AS at OFFSET 0) AS now RETURNING msg_id" % (
                    TABLE, below, vt, headers(group))), [group])

    # Steps: messages are handed out

    def read_by_groups(self):
        function = self.rng.choice(("read_grouped", "read_grouped_rr", "read_grouped_head"))
        lease = self.rng.choice((0, LEASE, LEASE, LEASE))
        rows = self.execute("SELECT msg_id, headers->>'x-pgmq-group' FROM pgmq.%s('%s', %d, %d)" % (
            function, QUEUE, lease, self.rng.choice((1, 2, 3, 10))))
        if function == "read_grouped_head" and len({row[1] for row in rows}) < len(rows):
            raise Failed("more than the first of a group: %s" % rows)
        self.buried()
        self.given(rows, lease > 0)

    def read_often(self):
        """Three calls of one statement"""
        rows = self.execute(
            "SELECT msg_id, headers->>'x-pgmq-group' FROM generate_series(1, 3) AS time,"
            " LATERAL pgmq.read_grouped('%s', %d + time * 0, 1)" % (QUEUE, LEASE))
        self.buried()
        for row in rows:
            self.given([row])

    def consume(self):
        rows = self.execute(CONSUME % (QUEUE, QUEUE, LEASE, 2))
        self.buried()
        self.given([row[:2] for row in rows])
        if not all(row[2] for row in rows):
            raise Failed("what was handed out could not be deleted: %s" % rows)
        self.removed([row[:1] for row in rows])

    def read(self):
        """Not by groups; it does not say that its group is held.  Without a lease it would be
        an unread message no more, and so one that was given back by hand."""
        rows = self.execute("SELECT msg_id FROM pgmq.read('%s', %d, %d)" % (QUEUE, LEASE, self.rng.choice((1, 3))))
        self.buried(False)
        for msg_id, in rows:
            self.model.count(self.session.transaction, msg_id)

    def pop(self):
        rows = self.execute("SELECT msg_id FROM pgmq.pop('%s', %d)" % (QUEUE, self.rng.choice((1, 2))))
        self.buried(False)
        self.removed(rows)

    # Steps: messages go, or change

    def with_tokens(self, call, what):
        """End the deliveries of some messages, if there were any"""
        return self.execute("SELECT r.msg_id FROM (SELECT COALESCE(array_agg(msg_id), '{}'), COALESCE(array_agg(read_ct), '{}')"
                            " FROM %s WHERE msg_id = ANY (%s)) AS t(ids, attempts), LATERAL pgmq.%s AS r WHERE r.%s" % (
                                TABLE, array(self.some(1, 1, 2, 5)), call % QUEUE, what))

    def acknowledge(self):
        self.removed(self.with_tokens("ack_batch('%s', t.ids, t.attempts)", "ok"))

    def give_back(self):
        """With max_reads, release would take a failure back, which the model does not know"""
        delay = self.rng.choice((0, 0, LEASE))
        rows = self.with_tokens(*self.rng.choice((
            ("release_batch('%%s', t.ids, t.attempts, %d)" % delay, "ok"),
            ("nack_batch('%%s', t.ids, t.attempts, 'failed', %d)" % delay, "outcome = 'retry'"))[self.model.max_reads is not None:]))
        self.buried(False)
        self.freed(rows)

    def delete(self):
        self.removed(self.execute("SELECT pgmq.delete('%s', %s)" % (QUEUE, array(self.some(1, 1, 2, 5)))))

    def archive(self):
        self.removed(self.execute("SELECT pgmq.archive('%s', %s)" % (QUEUE, array(self.some(1, 1, 2, 5)))))

    def archived(self):
        return {row[0] for row in self.admin.execute("SELECT msg_id FROM pgmq.a_%s" % QUEUE)}

    def delete_by_hand(self):
        self.removed(self.execute("DELETE FROM %s WHERE msg_id = ANY (%s) RETURNING msg_id" % (TABLE, array(self.some(1, 2, 5)))))

    def delete_group(self):
        self.removed(self.execute(
            "DELETE FROM %s WHERE headers->>'x-pgmq-group' = '%s' RETURNING msg_id" % (TABLE, self.group())))

    def merge(self):
        """It returns nothing (before 17) but how many rows it deleted, so there is one at most"""
        for msg_id in self.some(1):
            rows = self.execute("MERGE INTO %s AS queue USING (VALUES (%d)) AS gone (id) ON queue.msg_id = gone.id"
                                " WHEN MATCHED THEN DELETE" % (TABLE, msg_id))
            self.removed([(msg_id,)] * len(rows))

    def set_vt(self):
        when = self.rng.choice(("0", "0", "0", str(LEASE), "'infinity'::timestamptz", "-5"))
        self.freed(self.execute("SELECT msg_id FROM pgmq.set_vt('%s', %s, %s)" % (QUEUE, array(self.some(1, 1, 3, 10)), when)))

    def set_vt_by_hand(self):
        when = self.rng.choice(("now()", "'-infinity'", "'infinity'", "enqueued_at"))
        which = self.rng.choice(("true", "msg_id % 2 = 0", "headers->>'x-pgmq-group' = 'a'"))
        self.freed(self.execute("UPDATE %s SET vt = %s WHERE %s RETURNING msg_id" % (TABLE, when, which)))

    def move(self):
        group = self.group()
        vt = self.rng.choice(("", ", vt = clock_timestamp()", ", vt = clock_timestamp() + '%d s'" % LEASE))
        self.moved(self.execute("UPDATE %s SET headers = %s%s WHERE msg_id = ANY (%s) RETURNING msg_id" % (
            TABLE, headers(group), vt, array(self.some(1, 1, 2, 3)))), group)

    # Steps: several things in one statement

    def change_much(self):
        ids = self.some(3)
        if len(ids) < 3:
            return
        group = self.group()
        rows = self.execute(
            "WITH removed AS (DELETE FROM {table} WHERE msg_id = {0} RETURNING msg_id),"
            " freed AS (UPDATE {table} SET vt = clock_timestamp() WHERE msg_id = {1} RETURNING msg_id),"
            " moved AS (UPDATE {table} SET headers = {headers} WHERE msg_id = {2} RETURNING msg_id),"
            " sent AS (INSERT INTO {table} (vt, message, headers) VALUES (now(), '1', {headers}) RETURNING msg_id)"
            " SELECT 'removed', msg_id FROM removed UNION ALL SELECT 'freed', msg_id FROM freed"
            " UNION ALL SELECT 'moved', msg_id FROM moved UNION ALL SELECT 'sent', msg_id FROM sent".format(
                *ids, table=TABLE, headers=headers(group)))
        self.removed(self.of(rows, "removed"))
        self.freed(self.of(rows, "freed"))
        self.moved(self.of(rows, "moved"), group)
        self.sent(self.of(rows, "sent"), [group])

    def change_and_read(self):
        """What comes first in the UNION is done first; its triggers are called after the read"""
        for msg_id in self.some(1):
            group = self.group()
            rows = self.execute(
                "WITH removed AS (DELETE FROM {table} WHERE msg_id = {0} RETURNING msg_id),"
                " sent AS (INSERT INTO {table} (vt, message, headers) VALUES (now(), '1', {headers}) RETURNING msg_id)"
                " SELECT 'removed', msg_id, NULL FROM removed UNION ALL SELECT 'sent', msg_id, NULL FROM sent"
                " UNION ALL SELECT 'given', msg_id, headers->>'x-pgmq-group' FROM pgmq.read_grouped('{queue}', {lease}, 3)".format(
                    msg_id, table=TABLE, headers=headers(group), queue=QUEUE, lease=LEASE))
            self.removed([row[:1] for row in self.of(rows, "removed")])
            self.sent([row[:1] for row in self.of(rows, "sent")], [group])
            self.buried()
            self.given(self.of(rows, "given"))

    @staticmethod
    def of(rows, what):
        return [row[1:] for row in rows if row[0] == what]

    def regret(self):
        """All of it is rolled back"""
        self.execute(
            "DO $$ BEGIN PERFORM pgmq.read_grouped('{0}', {1}, 2); PERFORM pgmq.delete('{0}', {2});"
            " PERFORM pgmq.send('{0}', '1', {3}, 0); RAISE division_by_zero;"
            " EXCEPTION WHEN division_by_zero THEN NULL; END $$".format(
                QUEUE, LEASE, array(self.some(2)), headers(self.group())))

    # Steps: the tables

    def vacuum(self):
        """To cut off the end of the table it would wait for seconds where a transaction is open"""
        table = TABLE if self.kind == "unindexed" or self.rng.random() < 0.5 else "pgmq.g_" + QUEUE
        self.tell("VACUUM (TRUNCATE false) " + table)

    def empty(self):
        if self.nobody_is_at_work() and self.rng.random() < 0.2:
            self.execute(self.rng.choice(("TRUNCATE " + TABLE, "SELECT pgmq.purge_queue('%s')" % QUEUE)))
            self.model.forget_all()

    def index_again(self):
        """create_fifo_index, with messages there, and where something of it is missing"""
        if self.kind == "unindexed" or not self.nobody_is_at_work():
            return
        missing = self.rng.choice(("INDEX %s_fifo_idx" % TABLE, "TABLE pgmq.g_" + QUEUE, "TRIGGER pgmq_group_sent ON " + TABLE, None))
        if missing:
            self.execute("DROP " + missing)
            if self.rng.random() < 0.3:
                self.send()
        self.execute("SELECT pgmq.create_fifo_index('%s')" % QUEUE)

    # Rounds

    def step(self, steps):
        self.session = self.rng.choice(self.sessions)
        step = self.rng.choices(list(steps), steps.values())[0]
        if not self.model.messages and self.rng.random() < 0.5:
            step = "send"       # else most of them would find nothing
        if self.session.failed:
            step = "roll_back_to" if self.session.savepoints and self.rng.random() < 0.7 else "roll_back"
        self.steps += 1
        try:
            getattr(self, step)()
        except Refused:
            self.refused += 1

    def round(self):
        self.rounds += 1
        steps, self.groups = self.rng.choice((STEPS, MANY_CHANGES)), self.rng.choice(GROUPS)
        self.model.max_reads = self.rng.choice(MAX_READS)
        self.tell("SELECT pgmq.set_policy('%s', max_reads => %d, dead_letter_queue => 'dead')" % (QUEUE, self.model.max_reads)
                  if self.model.max_reads else "SELECT pgmq.reset_policy('%s')" % QUEUE)
        for _ in range(self.rng.choice((5, 20, 60))):
            self.step(steps)
        self.end_transactions()
        self.check_messages()
        self.check_found()
        if self.rng.random() < 0.5 or len(self.model.messages) > MOST_MESSAGES:
            self.drain()

    def end_transactions(self):
        for self.session in self.sessions:
            self.rng.choice((self.commit, self.roll_back))()
        while self.prepared:
            self.finish_prepared()

    def check_messages(self):
        there = dict(self.admin.execute("SELECT msg_id, headers->>'x-pgmq-group' FROM " + TABLE).fetchall())
        wanted = {msg_id: message.group for msg_id, message in self.model.messages.items()}
        if there != wanted:
            raise Failed("the queue has %s, not %s" % (there, wanted))

    def check_found(self):
        """What must be to be had is found"""
        function = self.rng.choice(("read_grouped", "read_grouped_rr", "read_grouped_head"))
        self.find(to_be_had(self.admin, QUEUE, self.model.max_reads), lambda: self.read_quietly(
            "SELECT msg_id, headers->>'x-pgmq-group' FROM pgmq.%s('%s', %d, 100)" % (function, QUEUE, LEASE)))

    def drain(self):
        """All that is left, once it has been set free.  The queue is empty then, and a new history begins."""
        ids = list(self.model.messages)
        self.tell("SELECT pgmq.set_vt('%s', %s, 0)" % (QUEUE, array(ids)))
        self.freed([(msg_id,) for msg_id in ids])
        self.find(set(ids), self.consume_quietly)
        if self.kind == "partitioned":
            self.admin.execute("CALL pgmq.maintain()")
        self.history.clear()

    def find(self, wanted, read):
        find(wanted, read, lambda left: Failed("not found: %s; notes: %s" % (left, notes(self.admin, QUEUE))))
        if healed(self.admin, QUEUE):
            raise Failed("no note told of a group, only the sweep found it")

    def read_quietly(self, sql):
        """One call when no transaction is open; the ids"""
        self.dead.clear()
        rows = [row[:2] for row in self.admin.execute(sql)]
        if rows or self.dead:
            self.history.append("0: %s\n0: -- %s, dead: %s" % (sql, rows, self.dead))
        for msg_id in self.dead:
            self.model.bury(None, msg_id, True)
        self.model.give(None, rows, True)
        return {row[0] for row in rows}

    def consume_quietly(self):
        got = self.read_quietly(CONSUME % (QUEUE, QUEUE, LEASE, 20))
        for msg_id in got:
            self.model.remove(None, msg_id)
        return got.union(self.dead)

    def show(self, failed):
        print("# round %d: %s" % (self.rounds, failed))
        for line in "\n".join(self.history).splitlines():
            print("#   " + line)

    def play(self, limit):
        """Whether all has held, up to the first that has not"""
        good = True
        while good and not limit.is_reached():
            before = self.steps
            try:
                self.round()
            except Failed as failed:
                self.show(failed)
                good = False
            limit.count(self.steps - before)
        print("# %d rounds, %d steps, of which %d were refused; %d messages handed out, %d dead letters"
              % (self.rounds, self.steps, self.refused, self.handed_out, self.dead_letters))
        # Where next to nothing is handed out everything holds
        if self.handed_out < self.steps / 20 or self.dead_letters < self.steps / 400:
            print("# these are too few")
            good = False
        return good


CONSUME = ("SELECT msg_id, headers->>'x-pgmq-group', pgmq.delete('%s', msg_id)"
           " FROM pgmq.read_grouped('%s', %d, %d)")


def main():
    connection, limit, seed, kind = sys.argv[1:5]
    good = Histories(connection, kind, random.Random("%s %s" % (seed, kind))).play(Limit(limit))
    print("%sok - histories: by chance" % ("" if good else "not "))


if __name__ == "__main__":
    main()

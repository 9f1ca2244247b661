"""A queue with message groups that is used while everything that makes groups findable is damaged.

    damage.py CONNECTION SECONDS SEED standard|partitioned [COMMAND]

Senders and consumers go on all the time.  Meanwhile another session, again and again,
does one of the things by which notes get lost, or an index is there and then is not.
At the end all messages must have been handed out, once each, and in the order of
their groups: a message came before those of its group that had been sent when
it was handed out and have a higher id.

No call may fail.  With a command, which ends the server as a crash does and starts it again,
that is one more damage.  Then calls may lose their connection, and of a send that has lost it
nobody knows whether it was committed.  What it prints is TAP.
"""
import collections
import random
import shlex
import subprocess
import sys
import threading
import time

import psycopg

QUEUE = "damaged"
TABLE = "pgmq.q_" + QUEUE
GROUPS = 15
SENDERS = CONSUMERS = 2
# How long the messages that are left over may take
DEADLINE = 60
# A lease that outlives a crash, though its consumer does not know of it, must end before that
LEASE, LEASE_BESIDE_CRASHES = 60, 15

HEADERS = "jsonb_build_object('x-pgmq-group', 'g' || %s::int)"


def connect(connection):
    conn = psycopg.connect(connection, autocommit=True, prepare_threshold=None)
    conn.execute("SET client_min_messages = error")
    return conn


class Session:
    def __init__(self, conn):
        self.conn = conn


class Damage:
    def __init__(self, connection, kind, seed, restart=None):
        self.connection, self.kind, self.rng = connection, kind, random.Random(seed)
        self.restart = shlex.split(restart) if restart else None
        self.lease = LEASE_BESIDE_CRASHES if restart else LEASE
        self.stop, self.drained = threading.Event(), threading.Event()
        self.lock = threading.Lock()
        self.sent = {}          # msg_id -> (group, when the send had returned)
        self.given = []         # (group, ids, when the read was called, when it had returned)
        self.away = []          # (from when, until when, first id, last id) of partitions that were detached
        self.errors = collections.Counter()
        self.done = collections.Counter()
        self.admin = connect(connection)
        if kind == "partitioned":
            self.admin.execute("SELECT pgmq.create_partitioned(%s, '500', '1000000', 4)", [QUEUE])
        else:
            self.admin.execute("SELECT pgmq.create(%s)", [QUEUE])
        self.admin.execute("SELECT pgmq.create_fifo_index(%s)", [QUEUE])
        # That of a partitioned table says ONLY, which would make an index that is not valid
        self.definition = self.admin.execute("SELECT replace(pg_get_indexdef('%s_fifo_idx'::regclass), ' ON ONLY ', ' ON ')" % TABLE).fetchone()[0]

    def reconnect(self):
        until = time.monotonic() + DEADLINE
        while True:
            try:
                return connect(self.connection)
            except psycopg.OperationalError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.05)

    def call(self, session, sql, *args):
        """The rows; None if it failed, which it must not; or if the connection was lost"""
        try:
            return session.conn.execute(sql, args).fetchall()
        except psycopg.Error as error:
            if self.restart and (session.conn.closed or isinstance(error, psycopg.OperationalError)):
                session.conn = self.reconnect()
                self.done["lost connections"] += 1
            else:
                self.errors["%s %s" % (error.sqlstate, str(error).splitlines()[0])] += 1
            return None

    def note_sent(self, rows, group):
        now = time.monotonic()
        with self.lock:
            for msg_id, in rows or ():
                self.sent[msg_id] = (group, now)

    def send(self, seed):
        session, rng = Session(self.reconnect()), random.Random(seed)
        while not self.stop.is_set():
            group = rng.randrange(GROUPS)
            # some as bulk loaders do
            self.call(session, "SELECT set_config('session_replication_role', %s, false)", "replica" if rng.random() < 0.1 else "origin")
            rows = self.call(session, "SELECT pgmq.send_batch(%s, array_fill('1'::jsonb, ARRAY[%s::int]), array_fill(" + HEADERS + ", ARRAY[%s::int]))",
                             QUEUE, n := rng.choice((1, 1, 3)), group, n)
            self.note_sent(rows, group)
            time.sleep(rng.random() * 0.01)

    def consume(self, seed):
        session, rng = Session(self.reconnect()), random.Random(seed)
        while not self.drained.is_set():
            function = rng.choice(("read_grouped", "read_grouped_rr", "read_grouped_head"))
            now = time.monotonic()
            rows = self.call(session, "SELECT msg_id, substr(headers->>'x-pgmq-group', 2)::int FROM pgmq.%s('%s', %d, 20)"
                             % (function, QUEUE, self.lease))
            if not rows:
                time.sleep(0.01)
                continue
            ids = [row[0] for row in rows]
            with self.lock:
                for group in {row[1] for row in rows}:
                    self.given.append((group, [row[0] for row in rows if row[1] == group], now, time.monotonic()))
            while ids:
                # One in a partition that is detached just now can't be deleted
                rows = self.call(session, "SELECT pgmq.delete(%s, %s::bigint[])", QUEUE, ids)
                ids = [msg_id for msg_id in ids if (msg_id,) not in (rows or ())]
                if rows is None and self.restart:
                    # It may have been committed
                    left = self.call(session, "SELECT msg_id FROM " + TABLE)
                    ids = [msg_id for msg_id in ids if left is None or (msg_id,) in left]

    # What is done to it

    def truncate(self):
        self.admin.execute("TRUNCATE pgmq.g_" + QUEUE)

    def forget(self):
        self.admin.execute("DELETE FROM pgmq.g_" + QUEUE)

    def put_off(self):
        self.admin.execute("UPDATE pgmq.g_%s SET vt = clock_timestamp() + '1 day' WHERE head > 0" % QUEUE)

    def disable(self):
        """Those who wait for the lock let nobody else pass, so all is done in one transaction each"""
        self.admin.execute("ALTER TABLE %s DISABLE TRIGGER USER" % TABLE)
        time.sleep(0.1)
        self.admin.execute("ALTER TABLE %s ENABLE TRIGGER USER" % TABLE)

    def copy(self):
        group = self.rng.randrange(GROUPS)
        with self.admin.transaction():
            self.admin.execute("SET LOCAL session_replication_role = replica")
            # Others draw ids at the same time
            ids = [row[0] for row in self.admin.execute(
                "SELECT nextval(pg_get_serial_sequence(%s, 'msg_id')) FROM generate_series(1, 5)", [TABLE]).fetchall()]
            with self.admin.cursor().copy("COPY %s (msg_id, vt, enqueued_at, message, headers) FROM STDIN" % TABLE) as copy:
                for msg_id in ids:
                    copy.write_row((msg_id, "now", "now", "1", '{"x-pgmq-group": "g%d"}' % group))
        self.note_sent([(msg_id,) for msg_id in ids], group)

    def reindex(self):
        for table in (TABLE, "pgmq.g_" + QUEUE):
            self.admin.execute("REINDEX TABLE CONCURRENTLY " + table)

    def rebuild(self):
        self.admin.execute("DROP INDEX %s_fifo_idx" % TABLE)
        time.sleep(0.1)
        self.admin.execute(self.definition)

    def rebuild_concurrently(self):
        if self.kind == "partitioned":
            return
        self.admin.execute("DROP INDEX CONCURRENTLY %s_fifo_idx" % TABLE)
        time.sleep(0.05)
        self.admin.execute(self.definition.replace("CREATE INDEX", "CREATE INDEX CONCURRENTLY"))

    def drop_notes(self):
        self.admin.execute("DROP TABLE pgmq.g_" + QUEUE)
        time.sleep(0.05)
        self.admin.execute("SELECT pgmq.create_fifo_index(%s)", [QUEUE])

    def partition(self):
        """One that still has messages, perhaps"""
        name = self.admin.execute(
            "SELECT c.oid::regclass::text, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid"
            " WHERE inhparent = '%s'::regclass AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"
            " AND split_part(pg_get_expr(c.relpartbound, c.oid), '''', 4)::bigint <= (SELECT last_value FROM %s_msg_id_seq) ORDER BY c.oid DESC LIMIT 1"
            % (TABLE, TABLE)).fetchone()
        return name

    def detach(self):
        """A partition that gets no more messages goes, and comes back with those it had"""
        if self.kind != "partitioned":
            return
        found = self.partition()
        if found is None:
            return
        begin = time.monotonic()
        self.admin.execute("ALTER TABLE %s DETACH PARTITION %s" % (TABLE, found[0]))
        time.sleep(0.05)
        self.admin.execute("ALTER TABLE %s ATTACH PARTITION %s %s" % (TABLE, found[0], found[1]))
        bounds = [int(part) for part in found[1].split("'")[1::2]]
        self.away.append((begin, time.monotonic(), bounds[0], bounds[1] - 1))

    def straight(self):
        """Into the partition itself, where no trigger is"""
        if self.kind != "partitioned":
            return
        group = self.rng.randrange(GROUPS)
        with self.admin.transaction():
            msg_id = self.admin.execute("SELECT nextval(pg_get_serial_sequence(%s, 'msg_id'))", [TABLE]).fetchone()[0]
            leaf = self.admin.execute(
                "SELECT c.oid::regclass::text FROM pg_inherits JOIN pg_class AS c ON c.oid = inhrelid WHERE inhparent = '%s'::regclass"
                " AND split_part(pg_get_expr(c.relpartbound, c.oid), '''', 2)::bigint <= %s"
                " AND split_part(pg_get_expr(c.relpartbound, c.oid), '''', 4)::bigint > %s AND pg_get_expr(c.relpartbound, c.oid) <> 'DEFAULT'"
                % (TABLE, msg_id, msg_id)).fetchone()
            if leaf is None:
                return
            self.admin.execute("INSERT INTO " + leaf[0] + " (msg_id, vt, enqueued_at, message, headers) SELECT %s, now(), now(), '1', " + HEADERS,
                               [msg_id, group])
        self.note_sent([(msg_id,)], group)

    def crash(self):
        subprocess.run(self.restart, check=True, stdout=subprocess.DEVNULL)
        self.admin = self.reconnect()
        time.sleep(0.3)

    def maintain(self):
        self.admin.execute("CALL pgmq.maintain()")

    def play(self, seconds):
        threads = [threading.Thread(target=self.send, args=(n,), daemon=True) for n in range(SENDERS)]
        consumers = [threading.Thread(target=self.consume, args=(n,), daemon=True) for n in range(CONSUMERS)]
        for thread in threads + consumers:
            thread.start()
        what = (self.truncate, self.forget, self.put_off, self.disable, self.copy, self.reindex, self.rebuild,
                self.rebuild_concurrently, self.drop_notes, self.detach, self.straight, self.maintain)
        if self.restart:
            what += (self.crash,) * 4
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            damage = self.rng.choice(what)
            damage()
            self.done[damage.__name__] += 1
            time.sleep(self.rng.random() * 0.05)
        self.stop.set()
        for thread in threads:
            thread.join()
        until = time.monotonic() + DEADLINE
        while self.left() and time.monotonic() < until:
            time.sleep(0.05)
        self.drained.set()
        for thread in consumers:
            thread.join()

    def left(self):
        return self.admin.execute("SELECT count(*) FROM " + TABLE).fetchone()[0]

    def was_away(self, msg_id, begin, end):
        return any(first <= msg_id <= last and since < end and begin < until for since, until, first, last in self.away)

    def check(self):
        """What is wrong, as texts"""
        wrong = ["%d times: %s" % (count, error) for error, count in self.errors.items()]
        count = collections.Counter(msg_id for _, ids, _, _ in self.given for msg_id in ids)
        wrong += ["%d was delivered %d times" % (msg_id, n) for msg_id, n in count.items() if n > 1]
        wrong += ["%d of group %d was not delivered" % (msg_id, group) for msg_id, (group, _) in self.sent.items() if not count[msg_id]]
        came = {}
        for number, (_, ids, called, returned) in enumerate(self.given):
            for place, msg_id in enumerate(sorted(ids)):
                came[msg_id] = (number, place, called, returned)
        of_group = collections.defaultdict(list)
        for msg_id, (group, at) in self.sent.items():
            of_group[group].append((msg_id, at))
        for messages in of_group.values():
            messages.sort()
            for (earlier, at), (later, _) in zip(messages, messages[1:]):
                if earlier in came and later in came and came[later] < came[earlier] and at < came[later][2] and \
                        not self.was_away(earlier, came[later][2], came[later][3]):
                    wrong.append("%d was delivered before %d, which had been sent" % (later, earlier))
        return wrong


def main():
    connection, seconds, seed, kind = sys.argv[1], float(sys.argv[2]), sys.argv[3], sys.argv[4]
    damage = Damage(connection, kind, seed, *sys.argv[5:6])
    damage.play(seconds)
    wrong = damage.check()
    for line in wrong[:50]:
        print("# " + line)
    print("# %d messages; %s" % (len(damage.sent), dict(damage.done)))
    print("%sok - damage" % ("not " if wrong else ""))


if __name__ == "__main__":
    main()

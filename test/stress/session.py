"""One client's connection and its log.

Every client process has a connection of its own and a log of its own, to which
it only ever adds: one event a line, written by one write(), so that what a
client has logged is kept when the client is killed.  Times are CLOCK_MONOTONIC,
which all processes share.

What makes the logs conclusive: a client logs what a call returned before it
asks for the commit, and the transaction's xid with it.  So a transaction
without an "X" event can't have been committed, and the outcome of any other
one can be asked from the server later, whatever killed the client.
"""
import json
import os
import time

import psycopg

ROW = ("msg_id, read_ct, (extract(epoch from enqueued_at) * 1000000)::bigint,"
       " (extract(epoch from last_read_at) * 1000000)::bigint,"
       " (extract(epoch from vt) * 1000000)::bigint, message->>'k'")
CLOCK = "(extract(epoch from clock_timestamp()) * 1000000)::bigint"

ISOLATION = ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE")


class Stopped(Exception):
    """The run is over"""


class Log:
    def __init__(self, path):
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_EXCL, 0o644)

    def put(self, *event):
        os.write(self.fd, json.dumps(event, separators=(",", ":")).encode() + b"\n")


class Session:
    """Calls of the queue's functions, each logged with what it returned"""

    def __init__(self, shared, name, log_dir, rng):
        self.shared = shared
        self.name = name
        self.rng = rng
        self.log = Log(os.path.join(log_dir, name + ".log"))
        self.conn = None
        self.tx = 0
        self.seq = 0
        self.in_tx = False
        self.savepoints = 0

    # ---- connection ----

    def connect(self):
        """Nobody connects while the supervisor looks which xids a crash has lost."""
        while True:
            epoch = self.shared.epoch.value
            if self.shared.paused.value:
                if self.shared.stop.value:
                    raise Stopped
                time.sleep(0.02)
                continue
            try:
                self.conn = psycopg.connect(autocommit=True, application_name="stress " + self.name,
                                            port=self.shared.port.value)
            except psycopg.Error:
                self.conn = None
                if self.shared.stop.value:
                    raise Stopped
                time.sleep(0.05)
                continue
            if self.shared.paused.value or self.shared.epoch.value != epoch:
                self.conn.close()
                continue
            return

    def recover(self, error):
        """After an error: end the transaction, with a new connection if need be"""
        self.log.put("A", time.monotonic(), self.tx, type(error).__name__ + ": " + str(error)[:100])
        self.in_tx = False
        try:
            if not self.conn.closed:
                self.conn.execute("ROLLBACK")
                return
        except psycopg.Error:
            pass
        try:
            self.conn.close()
        except psycopg.Error:
            pass
        self.connect()

    def execute(self, sql, *args):
        return self.conn.execute(sql, args)

    def rows(self, sql, *args):
        return self.conn.execute(sql, args).fetchall()

    def value(self, sql, *args):
        return self.conn.execute(sql, args).fetchone()[0]

    def nap(self, seconds):
        until = time.monotonic() + seconds
        while not self.shared.stop.value:
            left = until - time.monotonic()
            if left <= 0:
                return
            time.sleep(min(left, 0.1))

    # ---- transactions ----

    def begin(self, isolation="READ COMMITTED"):
        self.tx += 1
        self.log.put("B", time.monotonic(), self.tx, isolation)
        self.execute("BEGIN ISOLATION LEVEL " + isolation)
        self.in_tx = True
        self.savepoints = 0

    def log_xid(self):
        xid = self.value("SELECT pg_current_xact_id_if_assigned()::text")
        self.log.put("X", time.monotonic(), self.tx, int(xid) if xid else None)

    def commit(self):
        self.log_xid()
        self.execute("COMMIT")
        self.in_tx = False
        self.log.put("C", time.monotonic(), self.tx)

    def rollback(self):
        self.execute("ROLLBACK")
        self.in_tx = False
        self.log.put("A", time.monotonic(), self.tx, "rolled back")

    def prepare(self):
        gid = "stress-%s-%d" % (self.name, self.tx)
        self.log_xid()
        self.execute("PREPARE TRANSACTION '%s'" % gid)
        self.in_tx = False
        self.log.put("T", time.monotonic(), self.tx, gid)

    def savepoint(self):
        self.savepoints += 1
        self.execute("SAVEPOINT s%d" % self.savepoints)
        self.log.put("SP", time.monotonic(), self.tx, self.savepoints)
        return self.savepoints

    def rollback_to(self, number):
        self.execute("ROLLBACK TO SAVEPOINT s%d" % number)
        self.log.put("RT", time.monotonic(), self.tx, number)

    def _call(self, sql, *args):
        """Run one call; outside of a transaction it is one, with no xid to be had"""
        start = time.monotonic()
        if not self.in_tx:
            self.tx += 1
            self.log.put("B", start, self.tx, "auto")
        return start, self.rows(sql, *args)

    def _returned(self, *event):
        self.log.put(*event)
        if not self.in_tx:
            self.log.put("C", time.monotonic(), self.tx)

    # ---- the queue's functions ----

    def send(self, queue, count=1, delay=0, at=False, groups=None):
        """delay in seconds; 'at' gives it as a time; a group for each message, or none"""
        keys = []
        for _ in range(count):
            self.seq += 1
            keys.append("%s-%d" % (self.name, self.seq))
        bodies = [json.dumps({"k": key, "m": self.rng.randrange(8)}) for key in keys]
        headers = [json.dumps({"x-pgmq-group": group}) for group in groups] if groups else [None] * count
        if not self.in_tx:
            self.log.put("MS", time.monotonic(), self.tx + 1, queue, keys, groups)
        # A time is taken before the send, so it may lie up to 0.1 s before the delay's end
        when = {(True, True): ", clock_timestamp() + %d * interval '1 s'" % delay,
                (True, False): ", %d" % delay}.get((delay > 0, at), "")
        if count == 1:
            start, got = self._call("SELECT * FROM pgmq.send(%s::text, %s::jsonb, %s::jsonb" + when + ")",
                                    queue, bodies[0], headers[0])
        else:
            start, got = self._call("SELECT * FROM pgmq.send_batch(%s::text, %s::jsonb[], %s::jsonb[]" + when + ")",
                                    queue, bodies, headers)
        ids = [row[0] for row in got]
        self._returned("S", start, time.monotonic(), self.tx, queue, list(zip(keys, ids)),
                       delay, "at" if at else "in", groups)

    def read(self, queue, qty, lease, condition=None, poll=False):
        if not self.in_tx:
            self.log.put("MR", time.monotonic(), self.tx + 1, queue)
        where = json.dumps({} if condition is None else {"m": condition})
        if poll:
            # Mostly with no look at intervals: then only a wake-up ends the wait early
            call = ("pgmq.read_with_poll(%%s::text, %%s::int, %%s::int, 1, %d, %%s::jsonb)"
                    % self.rng.choice((50, 600000, 600000)))
        else:
            call = "pgmq.read(%s::text, %s::int, %s::int, %s::jsonb)"
        start, got = self._call("SELECT " + ROW + " FROM " + call, queue, lease, qty, where)
        self._returned("R", start, time.monotonic(), self.tx, queue, qty, lease, condition, got)
        return got

    def read_grouped(self, queue, how, qty, lease, poll=False):
        """how: read_grouped, read_grouped_rr or read_grouped_head"""
        if not self.in_tx:
            self.log.put("MR", time.monotonic(), self.tx + 1, queue)
        call = "pgmq.%s%s(%%s::text, %%s::int, %%s::int%s)" % (
            (how, "_with_poll", ", 1, 50") if poll else (how, "", ""))
        start, got = self._call("SELECT " + ROW + " FROM " + call, queue, lease, qty)
        self._returned("R", start, time.monotonic(), self.tx, queue, qty, lease, None, got, how)
        return got

    def pop(self, queue, qty):
        assert self.in_tx       # what a call returned is lost with the connection
        start, got = self._call("SELECT " + ROW + ", " + CLOCK + " FROM pgmq.pop(%s::text, %s::int)",
                                queue, qty)
        self._returned("O", start, time.monotonic(), self.tx, queue, qty, got)
        return got

    def finish(self, queue, messages, how):
        """messages: (msg_id, key)"""
        if not messages:
            return
        messages = sorted(set(messages))
        if not self.in_tx:
            self.log.put("MF", time.monotonic(), self.tx + 1, queue, how, messages)
        ids = [message[0] for message in messages]
        if len(ids) == 1:
            start, got = self._call("SELECT pgmq.%s(%%s::text, %%s::bigint)" % how, queue, ids[0])
            gone = set(ids) if got[0][0] else set()
        else:
            start, got = self._call("SELECT * FROM pgmq.%s(%%s::text, %%s::bigint[])" % how, queue, ids)
            gone = {row[0] for row in got}
        self._returned("F", start, time.monotonic(), self.tx, queue, how,
                       [message for message in messages if message[0] in gone])

    def set_vt(self, queue, ids, seconds, at=False):
        assert self.in_tx
        when = "clock_timestamp() + %d * interval '1 s'" % seconds if at else "%d" % seconds
        if len(ids) == 1:
            call, arg = "pgmq.set_vt(%s::text, %s::bigint, " + when + ")", ids[0]
        else:
            call, arg = "pgmq.set_vt(%s::text, %s::bigint[], " + when + ")", ids
        start, got = self._call("SELECT " + ROW + " FROM " + call, queue, arg)
        self._returned("V", start, time.monotonic(), self.tx, queue, seconds, got)

    def purge(self, queue):
        """Under the lock that purge_queue takes, so that what goes is known by name"""
        self.begin()
        self.execute("SET LOCAL lock_timeout = '3s'")
        start = time.monotonic()
        self.execute("LOCK TABLE pgmq.q_%s IN ACCESS EXCLUSIVE MODE" % queue)
        keys = [row[0] for row in self.rows("SELECT message->>'k' FROM pgmq.q_%s" % queue)]
        count = self.value("SELECT pgmq.purge_queue(%s::text)", queue)
        self.log.put("P", start, time.monotonic(), self.tx, queue, count, keys)
        self.commit()

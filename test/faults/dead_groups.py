"""What many readers move out of the groups of one queue at once, and whether the order of each group is kept.

    dead_groups.py CONNECTION MESSAGES|SECONDSs SEED standard|partitioned|unlogged|unindexed

Senders send messages, some of which are dead a millisecond later.  Each group has one sender, so its msg_ids are in
the order in which its messages came.  Readers read by groups, in all forms, and roll back or commit.  They delete
what they got, or let its lease end until it has failed too often; some messages are hidden for longer than those after them.  Some moves fail: a trigger on the dead-letter
queue refuses every twentieth message more often than not.  In the end, when nobody sends any more, the queue must become empty.  Then:

- each message that was sent is in the dead-letter queue, or was deleted by a reader, and not both;
- the dead-letter queue has the messages of each group in the order of their msg_id;
- no message was handed out before an earlier one of its group was gone;
- no group was found by the sweep only.

What it prints is TAP.
"""
import random
import sys
import threading
import time

import psycopg

from groups import Failed, Limit, connect, healed

QUEUE = "deadgroups"
READERS = 8
SENDERS = 2
GROUPS_EACH = 4
BATCH = 6
# With more messages than this every call without the index becomes slow
MOST_MESSAGES = 200
DEADLINE = 60
REFUSED = (psycopg.errors.SerializationFailure, psycopg.errors.DeadlockDetected)
FORMS = ("read_grouped", "read_grouped_rr", "read_grouped_head",
         "read_grouped_with_poll", "read_grouped_rr_with_poll", "read_grouped_head_with_poll")

CREATE = {
    "standard": "SELECT pgmq.create('{0}'); SELECT pgmq.create_fifo_index('{0}')",
    "unlogged": "SELECT pgmq.create_unlogged('{0}'); SELECT pgmq.create_fifo_index('{0}')",
    "unindexed": "SELECT pgmq.create('{0}')",
    "partitioned": "SELECT pgmq.create_partitioned('{0}', '50', '100000'); SELECT pgmq.create_fifo_index('{0}')",
}
PREPARE = """
SELECT pgmq.create('dead');
SELECT pgmq.set_policy('{0}', max_reads => 2, dead_letter_queue => 'dead', message_ttl => '1 day', retry_delay_max => '3 ms');
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
    IF (new.headers->>'x-dlq-origin-msg-id')::integer % 20 = 0 AND random() < 0.7 THEN RAISE 'refused'; END IF;
    RETURN new;
END $$;
CREATE TRIGGER refuse BEFORE INSERT ON pgmq.q_dead FOR EACH ROW EXECUTE FUNCTION refuse();
"""
# Messages before those that were handed out
AHEAD = """
SELECT 1 FROM pgmq.q_{0} AS taken JOIN pgmq.q_{0} AS earlier
    ON earlier.headers->>'x-pgmq-group' = taken.headers->>'x-pgmq-group' AND earlier.msg_id < taken.msg_id
WHERE taken.msg_id = ANY (%s) AND earlier.msg_id <> ALL (%s)
"""


class Test:
    def __init__(self, connection, limit, seed, kind):
        self.connection, self.limit, self.seed = connection, limit, seed
        self.lock = threading.Lock()
        self.sent, self.deleted, self.errors = {}, [], []
        self.sending = SENDERS
        self.rolled_back = 0
        self.admin = connect(connection)
        for sql in CREATE[kind].split(";"):
            self.admin.execute(sql.format(QUEUE))
        self.admin.execute(PREPARE.format(QUEUE))

    def guarded(self, work, number):
        try:
            work(connect(self.connection), random.Random("%s %s %d" % (self.seed, work.__name__, number)), number)
        except Exception as error:      # for the thread that waits for all
            with self.lock:
                self.errors.append("%s %d: %r" % (work.__name__, number, error))

    def queued(self, conn):
        return conn.execute("SELECT count(*) FROM pgmq.q_" + QUEUE).fetchone()[0]

    def send(self, conn, rng, number):
        try:
            while not self.limit.is_reached() and not self.errors:
                if self.queued(conn) > MOST_MESSAGES:
                    time.sleep(0.01)
                    continue
                groups = ["%d.%d" % (number, rng.randrange(GROUPS_EACH)) for _ in range(rng.randint(1, BATCH))]
                headers = ["{\"x-pgmq-group\": \"%s\"%s}" % (g, rng.choice(("", ", \"x-pgmq-ttl\": 0.001"))) for g in groups]
                with conn.transaction():
                    ids = [row[0] for row in conn.execute(
                        "SELECT * FROM pgmq.send_batch(%s, array_fill('1'::jsonb, ARRAY[%s::integer]), %s::jsonb[])",
                        [QUEUE, len(groups), headers])]
                    if rng.random() < 0.1:
                        raise psycopg.Rollback()
                    with self.lock:
                        self.sent.update(zip(ids, groups))
                        self.limit.count(len(ids))
                if rng.random() < 0.3:
                    time.sleep(rng.random() / 50)
        finally:
            with self.lock:
                self.sending -= 1

    def read(self, conn, rng, number):
        until = None
        while not self.errors:
            if not self.sending:
                until = until or time.monotonic() + DEADLINE
                if self.queued(conn) == 0:
                    return
                if time.monotonic() > until:
                    raise Failed("the queue does not become empty")
            try:
                self.step(conn, rng)
            except REFUSED:
                self.rolled_back += 1

    def step(self, conn, rng):
        form = rng.choice(FORMS)
        poll = ", 1, 20" if form.endswith("poll") and rng.random() < 0.2 else ", 0, 20" if form.endswith("poll") else ""
        deleted = []
        with conn.transaction():
            fixed = rng.random() < 0.2
            if fixed:
                conn.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            ids = [row[0] for row in conn.execute(
                "SELECT msg_id FROM pgmq.%s(%%s, 0, %%s%s)" % (form, poll), [QUEUE, rng.randint(1, 12)])]
            # A fixed snapshot still shows what is gone
            if not fixed and conn.execute(AHEAD.format(QUEUE), [ids, ids]).fetchone():
                raise Failed("%s: an earlier message of a group is in the queue" % ids)
            if ids and rng.random() < 0.5:
                deleted = [row[0] for row in conn.execute("SELECT * FROM pgmq.delete(%s, %s)", [QUEUE, ids])]
            elif ids and rng.random() < 0.6:
                conn.execute("SELECT pgmq.set_vt(%s, %s, clock_timestamp() + %s * interval '1 ms')",
                             [QUEUE, rng.sample(ids, rng.randint(1, (len(ids) + 1) // 2)), rng.randint(1, 30)])
            if rng.random() < 0.3:
                time.sleep(rng.random() / 100)
            if rng.random() < 0.3:
                self.rolled_back += 1
                raise psycopg.Rollback()
            with self.lock:
                self.deleted += deleted

    def run(self):
        threads = [threading.Thread(target=self.guarded, args=(self.send, n)) for n in range(SENDERS)]
        threads += [threading.Thread(target=self.guarded, args=(self.read, n)) for n in range(READERS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if self.errors:
            raise Failed("; ".join(self.errors))

    def check(self):
        dead = self.admin.execute("SELECT (headers->>'x-dlq-origin-msg-id')::bigint, headers->>'x-pgmq-group'"
                                  " FROM pgmq.q_dead ORDER BY msg_id").fetchall()
        ids = sorted([row[0] for row in dead] + self.deleted)
        if ids != sorted(self.sent):
            raise Failed("sent %d, of which %d are dead letters and %d deleted; lost %s, twice %s" % (
                len(self.sent), len(dead), len(self.deleted), sorted(set(self.sent) - set(ids))[:9],
                sorted(i for i in set(ids) if ids.count(i) > 1)[:9]))
        last = {}
        for msg_id, group in dead:
            if group != self.sent[msg_id] or last.get(group, 0) > msg_id:
                raise Failed("message %d of group %s came after %d" % (msg_id, group, last.get(group, 0)))
            last[group] = msg_id
        if healed(self.admin, QUEUE):
            raise Failed("%d groups had no note" % healed(self.admin, QUEUE))
        print("# %d sent, %d dead letters, %d rolled back" % (len(self.sent), len(dead), self.rolled_back))
        if min(len(dead), len(self.deleted)) < len(self.sent) / 20:
            raise Failed("enough of both")


def main():
    connection, limit, seed, kind = sys.argv[1:]
    test = Test(connection, Limit(limit), seed, kind)
    try:
        test.run()
        test.check()
    except Failed as error:
        print("not ok - dead groups: %s" % error)
    else:
        print("ok - dead groups")


main()

"""Queues that are used while their indexes are rebuilt, made and dropped, CONCURRENTLY and not.

    ddl.py CONNECTION SECONDS SEED KIND [INDEX]

KIND is standard, unlogged, id or time; INDEX is "groups" for a queue with a group index.
Clients make random calls, each of which is a transaction of its own.  No call may fail, and
no statement of the session that rebuilds: neither of them is chosen to end a deadlock.

What it prints is TAP.
"""
import collections
import random
import sys
import threading
import time

import psycopg

TABLE = "pgmq.q_rebuilt"
CLIENTS = 4
HEADERS = "jsonb_build_object('x-pgmq-group', mod(%d, 10))"


def connect(connection):
    conn = psycopg.connect(connection, autocommit=True)
    conn.execute("SET client_min_messages = error")
    return conn


class Rebuilt:
    def __init__(self, connection, kind, grouped, seed):
        self.connection, self.seed = connection, int(seed)
        self.stop = threading.Event()
        self.errors, self.done = collections.Counter(), collections.Counter()
        self.admin = connect(connection)
        self.partitioned = kind in ("id", "time")
        if self.partitioned:
            self.admin.execute("SELECT pgmq.create_partitioned('rebuilt', %s, NULL, 2)", ["100" if kind == "id" else "1 second"])
            self.admin.execute("ALTER TABLE pgmq.a_rebuilt ALTER archived_at SET DEFAULT now()")
        else:
            self.admin.execute("SELECT pgmq.create%s('rebuilt')" % ("_unlogged" if kind == "unlogged" else ""))
        if grouped:
            self.admin.execute("SELECT pgmq.create_fifo_index('rebuilt')")

    def run(self, conn, sql, *args):
        try:
            cursor = conn.execute(sql, args or None)
            self.done[sql.split("(")[0].split(" pgmq.q_")[0]] += 1
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            self.errors["%s: %s %s" % (sql, error.sqlstate, str(error).splitlines()[0])] += 1
            return []

    def use(self, seed):
        conn, rng = connect(self.connection), random.Random(seed)
        ids = []
        while not self.stop.is_set():
            what = rng.randrange(8)
            if what < 2:
                self.run(conn, "SELECT pgmq.send('rebuilt', '1', " + HEADERS % rng.randrange(10) + ")")
            elif what == 2:
                # of each group, so that messages in several partitions are read together
                self.run(conn, "SELECT pgmq.send_batch('rebuilt', array_fill('1'::jsonb, ARRAY[10]),"
                         " ARRAY(SELECT jsonb_build_object('x-pgmq-group', i) FROM generate_series(0, 9) AS i))")
            elif what < 5:
                call = rng.choice(("read", "read_grouped", "read_grouped_rr", "read_grouped_head"))
                ids += [row[0] for row in self.run(conn, "SELECT msg_id FROM pgmq.%s('rebuilt', %d, 7)" % (call, rng.choice((0, 1, 5))))]
            elif what == 5:
                self.run(conn, "SELECT msg_id FROM pgmq.pop('rebuilt', 3)")
            elif ids:
                rng.shuffle(ids)
                some, ids = ids[:10], ids[10:]
                call = rng.choice(("delete('rebuilt', %s)", "archive('rebuilt', %s)", "set_vt('rebuilt', %s, 0)"))
                self.run(conn, "SELECT pgmq." + call % "'{%s}'::bigint[]" % ",".join(map(str, some)))

    def leaf(self, rng):
        rows = self.run(self.admin, "SELECT inhrelid::regclass::text FROM pg_inherits WHERE inhparent = %s::regclass", TABLE)
        return rng.choice(rows)[0]

    def rebuild(self, rng):
        both = rng.choice(("", " CONCURRENTLY"))
        tables = [TABLE, TABLE, "pgmq.a_rebuilt"] + ([self.leaf(rng)] if self.partitioned else [])
        if rng.random() < 0.5:
            self.run(self.admin, "REINDEX TABLE%s %s" % (both, rng.choice(tables)))
            return
        indexes = self.run(self.admin, "SELECT indexrelid::regclass::text FROM pg_index WHERE indrelid = %s::regclass AND indisvalid",
                           rng.choice(tables))
        if indexes and rng.random() < 0.6:
            self.run(self.admin, "REINDEX INDEX%s %s" % (both, rng.choice(indexes)[0]))
            return
        # The server has no such statement for partitioned tables
        both = "" if self.partitioned else both
        self.run(self.admin, "CREATE INDEX%s rebuilt_extra ON %s (read_ct)" % (both, TABLE))
        self.run(self.admin, "DROP INDEX%s pgmq.rebuilt_extra" % both)

    def maintain(self):
        conn = connect(self.connection)
        while not self.stop.wait(0.3):
            self.run(conn, "CALL pgmq.maintain()")

    def play(self, seconds):
        rng = random.Random(self.seed)
        threads = [threading.Thread(target=self.use, args=(self.seed * 100 + n,)) for n in range(CLIENTS)]
        if self.partitioned:
            threads.append(threading.Thread(target=self.maintain))
        for thread in threads:
            thread.start()
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            self.rebuild(rng)
        self.stop.set()
        for thread in threads:
            thread.join()


def main():
    connection, seconds, seed, kind = sys.argv[1:5]
    rebuilt = Rebuilt(connection, kind, "groups" in sys.argv[5:], seed)
    rebuilt.play(float(seconds))
    for error, count in rebuilt.errors.items():
        print("# %d times: %s" % (count, error))
    print("# %s" % dict(rebuilt.done))
    print("%sok - rebuilt" % ("not " if rebuilt.errors else ""))


if __name__ == "__main__":
    main()

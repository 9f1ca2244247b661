"""Disk use under a held snapshot; see bench/retention."""
import argparse
import time

import psycopg

from common import BODY

BATCH = 10000
INTERVAL = 250000

SIZE = """
SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)
  FROM pg_class AS c WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind = 'r' AND c.relname ~ ('^q_' || %s || '($|_)')
"""


def megabytes(count):
    return "%.1f MB" % (count / 1e6)


class Queue:
    def __init__(self, conn, name):
        self.conn = conn
        self.name = name
        self.most = 0

    def pass_through(self, messages, maintain):
        """Send and pop batches; the largest size seen."""
        started = time.monotonic()
        for n in range(messages // BATCH):
            self.conn.execute("SELECT count(*) FROM pgmq.send_batch(%s, array_fill(%s::jsonb, %s::int[]))",
                              (self.name, BODY, [BATCH]))
            taken, = self.conn.execute("SELECT count(*) FROM pgmq.pop(%s, %s)", (self.name, BATCH)).fetchone()
            assert taken == BATCH, taken
            if n % 5 == 4:
                self.most = max(self.most, self.size())
                if maintain:
                    self.conn.execute("CALL pgmq.maintain()")
        return time.monotonic() - started

    def size(self):
        return int(self.conn.execute(SIZE, (self.name,)).fetchone()[0])


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--messages", type=int, default=20000000)
    parser.add_argument("--standard", type=int, default=1000000)
    args = parser.parse_args()
    conn = psycopg.connect(autocommit=True)
    conn.execute("CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman")
    conn.execute("SELECT pgmq.create_partitioned('parts', %s, NULL, 4, drop_consumed => true)", (str(INTERVAL),))
    conn.execute("SELECT pgmq.create('plain')")
    holder = psycopg.connect()
    holder.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT txid_current()")

    for name, messages, maintain in (("plain", args.standard, False), ("parts", args.messages, True)):
        queue = Queue(conn, name)
        seconds = queue.pass_through(messages, maintain)
        last = queue.size()
        if maintain:
            conn.execute("CALL pgmq.maintain()")
            last = queue.size()
        print("%-12s %10d messages, %5.0f s: at most %s, at the end %s, %.2f bytes a message"
              % ("partitioned" if maintain else "standard", messages, seconds, megabytes(queue.most),
                 megabytes(last), last / messages), flush=True)
    catalog, = conn.execute("SELECT sum(pg_total_relation_size(c)) FROM unnest('{pg_class,pg_attribute,pg_index,"
                            "pg_depend,pg_type,pg_constraint,pg_inherits,pg_statistic}'::regclass[]) AS c").fetchone()
    print("the system's catalogs take %s, dead rows of dropped partitions included" % megabytes(int(catalog)))
    holder.rollback()


main()

"""What the tests of message groups have in common: what must be to be had from a queue, and by when."""
import time

import psycopg

# A group that was found blocked is looked at again after 1.28 s at most
DEADLINE = 5

# The first message of each group, if it must be handed out when no transaction is open.  Not one
# that came into a group of which somebody held a message already.  Dead messages that are visible do not count: they are moved.
TO_BE_HAD = """
SELECT msg_id FROM (
    SELECT DISTINCT ON (grp) * FROM (
        SELECT *, max(vt) FILTER (WHERE read_ct > 0 AND vt <> enqueued_at) OVER (PARTITION BY grp) AS held
        FROM (SELECT *, headers->>'x-pgmq-group' AS grp FROM pgmq.q_{0}) AS messages) AS messages
    WHERE NOT (COALESCE(read_ct >= {1}, false) AND (vt <= clock_timestamp() OR vt = enqueued_at))
    ORDER BY grp, msg_id) AS first
WHERE (vt <= clock_timestamp() OR vt = enqueued_at) AND (read_ct > 0 OR held IS NULL OR held <= clock_timestamp())
"""


class Limit:
    """How long a test goes on: so many times ("500"), so that a slow machine tests as much; or by the clock ("600s")"""

    def __init__(self, text):
        self.until = time.monotonic() + float(text[:-1]) if text.endswith("s") else None
        self.left = 0 if self.until else int(text)

    def is_reached(self):
        return time.monotonic() >= self.until if self.until else self.left <= 0

    def count(self, number=1):
        self.left -= number


class Failed(Exception):
    """Something that was promised does not hold"""


def connect(connection):
    """A session that finds what is to be had by groups without the looks at everything that come by time"""
    conn = psycopg.connect(connection, autocommit=True, prepare_threshold=None)
    conn.execute("SET pgmq.rescan_interval = '1d'")
    conn.execute("SET client_min_messages = error")
    return conn


def run(conn, sql):
    """A statement whose rows are not wanted: psycopg itself takes ten times as long for it"""
    result = conn.pgconn.exec_(sql.encode())
    if result.status not in (psycopg.pq.ExecStatus.COMMAND_OK, psycopg.pq.ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)
    return result


def to_be_had(conn, queue, max_reads=None):
    return {row[0] for row in conn.execute(TO_BE_HAD.format(queue, max_reads or "NULL"))}


def notes(conn, queue):
    """As text.  A queue without a group index has none."""
    if conn.execute("SELECT to_regclass('pgmq.g_%s')" % queue).fetchone()[0] is None:
        return []
    return [row[0] for row in conn.execute("SELECT notes::text FROM pgmq.g_%s AS notes" % queue)]


def healed(conn, queue):
    """How often the sweep had to find a group, since the notes were made: a mistake, though nothing is lost by it"""
    return conn.execute("SELECT pgmq._groups_healed(%s)", [queue]).fetchone()[0]


def find(wanted, read, complain):
    """Has read(), which returns ids, called until all that is wanted has come.  After the deadline
    complain() is raised, which is told what has not."""
    until = time.monotonic() + DEADLINE
    while wanted:
        wanted = wanted - read()
        if wanted and time.monotonic() > until:
            raise complain(sorted(wanted))

"""Two calls on a stream, one of which stops in the middle for others.

    streamraces.py CONNECTION

Each round starts a call, has it stop at one of its checks for interrupts or of its allocations (fault.c), lets other
sessions publish, look and end meanwhile, and lets the call end.  When all transactions have ended, it is known which
events there are.  Then:

- What any look has returned, whenever it was, is how these begin: no event has appeared below one that was returned.
- A subscription that begins at the end gets each event that was not committed when it began.
- A shard was not leased to two sessions, and a lease that was not the last one has moved nothing.

Each call stops at each of its places, beside all that can happen meanwhile.  What it prints is TAP.
"""
import itertools
import sys

import psycopg

from groups import Failed, connect, run
from races import Call

SETUP = """
SELECT pgmq.create_stream('s'), pgmq.subscribe('s', 'all');
"""
HAND = "INSERT INTO pgmq.s_s (shard, message) VALUES (0, '0')"
PUBLISH = "SELECT pgmq.publish('s', '0')"
LOOK = "look"

# What stops: how its transaction begins, the statement, and what that returns.  %d is the position of all subscriptions.
FIRST = {
    "fetch": ("BEGIN", "SELECT event_id FROM pgmq.fetch('s', 0, %d, 100)", "events"),
    "receive": ("BEGIN", "SELECT event_id FROM pgmq.receive('s', 'all', 300, 100)", "events"),
    "receive, old snapshot": ("BEGIN ISOLATION LEVEL REPEATABLE READ", "SELECT event_id FROM pgmq.receive('s', 'all', 300, 100)", "events"),
    "subscribe": ("BEGIN", "SELECT pgmq.subscribe('s', 'new')", "position"),
    "publish": ("BEGIN", PUBLISH, None),
    "by hand": ("BEGIN", HAND, None),
}

# These stop at so many places, in code that others of them have in common, that not everything happens meanwhile
LONG = ("receive, old snapshot", "subscribe")

# What was before, and what happens meanwhile: (session, statement)
BEFORE = {
    "nothing": (),
    "an event": (("y", PUBLISH),),
    "open": (("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH)),
    "open and seen": (("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH), (LOOK, None)),
    "by hand and seen": (("x", "BEGIN"), ("x", HAND), ("y", PUBLISH), (LOOK, None)),
}
MEANWHILE = {
    "one opens": (("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH)),
    "one opens by hand": (("x", "BEGIN"), ("x", HAND), ("y", PUBLISH)),
    "one opens and is seen": (("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH), (LOOK, None)),
    "one takes back": (("x", "BEGIN"), ("x", "SAVEPOINT s"), ("x", PUBLISH), ("x", "ROLLBACK TO s"), ("y", PUBLISH),
                       ("x", PUBLISH), ("y", PUBLISH)),
    "one ends": (("y", PUBLISH), ("x", "COMMIT")),
    "one ends and begins": (("y", PUBLISH), ("x", "COMMIT"), ("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH)),
    "one ends and is seen": (("x", "COMMIT"), (LOOK, None), ("x", "BEGIN"), ("x", HAND), ("y", PUBLISH)),
    "one prepares": (("x", "BEGIN"), ("x", PUBLISH), ("x", "PREPARE TRANSACTION 'races'"), ("x", "BEGIN"), ("x", PUBLISH), ("y", PUBLISH)),
}

# Calls of consumers: by the lease of before, and for a new one
LEASES = {
    "receive": "SELECT count(*) > 0 FROM pgmq.receive('s', 'all', 300, 100)",
    "advance": "SELECT pgmq.advance('s', 'all', 0, %d, %d)",
    "extend": "SELECT pgmq.extend_lease('s', 'all', 0, %.0s%d, 300)",
}


class Races:
    def __init__(self, connection):
        self.hold, self.first, self.x, self.y, self.look = (connect(connection) for _ in range(5))
        run(self.hold, "SELECT pg_advisory_lock(1)")
        for conn in (self.x, self.y, self.look):
            # Who waits for what the stopped one has locked gives up
            run(conn, "SET lock_timeout = '50ms'")
        self.from_id = 0
        self.looks = []
        self.stopped = 0

    # ---- a call that stops ----

    def start(self, arm, sql, number):
        """The call, and whether it has stopped there; else it has come to its end"""
        run(self.first, "SELECT %s(%d)" % (arm, number))
        call = Call(self.first, sql)
        while call.is_alive():
            result = run(self.hold, "SELECT wait_event FROM pg_stat_get_activity(%d) WHERE wait_event_type = 'Lock'"
                         % self.first.info.backend_pid)
            if result.ntuples and result.get_value(0, 0) == b"advisory":
                self.stopped += 1
                return call, True
            call.join(0.0002)
        return call, False

    def let_go(self, call):
        run(self.hold, "SELECT pg_advisory_unlock(1)")
        call.join()
        run(self.hold, "SELECT pg_advisory_lock(1)")

    # ---- what others do ----

    def fetch(self):
        return [row[0] for row in self.look.execute("SELECT event_id FROM pgmq.fetch('s', 0, %s, 100)", [self.from_id])]

    def do(self, script):
        """What cannot be done beside the stopped one is left out"""
        for session, sql in script:
            if session == LOOK:
                self.looks.append(self.fetch())
                continue
            conn = getattr(self, session)
            try:
                run(conn, sql)
            except (psycopg.errors.LockNotAvailable, psycopg.errors.InFailedSqlTransaction):
                pass

    def visible(self):
        return [row[0] for row in self.look.execute("SELECT event_id FROM pgmq.s_s WHERE event_id > %s ORDER BY 1", [self.from_id])]

    def end_others(self):
        run(self.x, "COMMIT")
        if self.look.execute("SELECT count(*) FROM pg_prepared_xacts").fetchone()[0]:
            run(self.x, "COMMIT PREPARED 'races'")

    # ---- rounds: publishers and readers ----

    def begin(self):
        run(self.look, "SELECT pgmq.unsubscribe('s', 'new'),"
            " pgmq.seek('s', 'all', 'latest', force => true)")
        self.from_id = self.look.execute("SELECT max(passed_id) FROM pgmq.stream_lag('s') WHERE subscription = 'all'").fetchone()[0]
        self.looks = []

    def position(self):
        return self.first.execute("SELECT max(passed_id) FROM pgmq.p_s WHERE subscription = 'new'"
                                  " AND xmin::text = pg_current_xact_id()::xid::text").fetchone()[0]

    def publishers(self, name, before, meanwhile, arm, number):
        """Whether it has stopped"""
        how, sql, kind = FIRST[name]
        self.begin()
        self.do(BEFORE[before])
        run(self.first, how)
        run(self.first, "SELECT count(*) FROM pgmq.stream")
        call, stopped = self.start(arm, sql.replace("%d", str(self.from_id)), number)
        if stopped:
            self.do(MEANWHILE[meanwhile] + ((LOOK, None),))
            self.let_go(call)
        if call.error:
            raise call.error
        there = self.visible()
        self.looks.append(self.fetch())
        if kind == "events":
            self.looks.append([row[0] for row in call.rows])
        position = self.position() if kind == "position" else self.from_id
        self.end_others()
        self.looks.append(self.fetch())
        run(self.first, "COMMIT")
        events = self.visible()
        for look in self.looks:
            if look != events[:len(look)]:
                raise Failed("%s were returned, of %s" % (look, events))
        if self.fetch() != events:
            raise Failed("%s are left of %s" % (self.fetch(), events))
        late = [event for event in events if event <= position and event not in there]
        if late:
            raise Failed("it starts behind %d, but %s were not committed" % (position, late))
        return stopped

    # ---- rounds: consumers ----

    def consumers(self, name, other, arm, number):
        self.begin()
        run(self.y, PUBLISH)
        # Its lease is over at once, and the last one all the same
        event_id, lease = self.look.execute("SELECT event_id, lease FROM pgmq.receive('s', 'all', 0, 100)").fetchone()
        run(self.first, "BEGIN")
        call, stopped = self.start(arm, LEASES[name] % ((event_id, lease) if "%" in LEASES[name] else ()), number)
        accepted = None
        if stopped:
            try:
                accepted = self.x.execute(LEASES[other] % ((event_id, lease) if "%" in LEASES[other] else ())).fetchone()[0]
            except psycopg.errors.LockNotAvailable:
                pass
            self.let_go(call)
        if call.error:
            raise call.error
        # An extended lease may be extended again, and advanced
        if accepted and call.rows[0][0] and "receive" in (name, other):
            raise Failed("both have the shard")
        if accepted is None and stopped and not call.rows[0][0]:
            raise Failed("nobody has the shard")
        run(self.first, "COMMIT")
        return stopped

    # ---- all of them ----

    def recover(self):
        for conn in (self.first, self.x, self.y, self.look):
            conn.execute("ROLLBACK")
        self.end_others()

    def every(self, what, play, *args):
        """With a stop at each place, until it does not stop any more"""
        bad, before = 0, self.stopped
        for arm in ("fault_pause", "fault_pause_alloc"):
            for number in itertools.count(1):
                try:
                    if not play(*args, arm, number):
                        break
                except Failed as failed:
                    bad += 1
                    print("# %s, %s(%d): %s" % (what, arm, number, failed), flush=True)
                    self.recover()
        print("%sok - %s: %d stops" % ("not " if bad or self.stopped == before else "", what, self.stopped - before), flush=True)


def main():
    races = Races(sys.argv[1])
    races.look.execute(SETUP)
    # the first one plans, too
    for name in FIRST:
        races.publishers(name, "open", "one ends", "fault_pause", 1000000)
    for name, meanwhile in itertools.product(FIRST, MEANWHILE):
        for before in BEFORE:
            # What ends must have begun
            if before.startswith(("open", "by hand")) != meanwhile.startswith("one ends"):
                continue
            if name not in LONG or meanwhile in ("one opens", "one ends and begins"):
                races.every("%s; before: %s; meanwhile: %s" % (name, before, meanwhile), races.publishers, name, before, meanwhile)
    for name, other in itertools.product(LEASES, LEASES):
        races.every("%s; meanwhile: %s" % (name, other), races.consumers, name, other)


if __name__ == "__main__":
    main()

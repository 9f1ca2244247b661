"""Two calls on a queue with message groups, one of which stops in the middle for the other.

    races.py CONNECTION ROUNDS|SECONDSs SEED standard|partitioned [ROUND...]

Each round puts a queue in one of a few states, starts a call, has it stop at one
of its checks for interrupts (fault.c), makes another call meanwhile, and lets the
first one end.  Transactions are committed or rolled back, the second one before
the first call ends or after it.  Then:

- no group was given to both, nor anything of it to others while it is held;
- every group whose first message is visible is handed out, by groups; a note has told of it;
- so is the rest, once all leases have been taken back.

A test in which no call is stopped finds nothing, so it must have stopped enough of them:
in each of the parts, by chance in half of the rounds, and each kind of call.

What it prints is TAP.  A round that fails is named, so that it can be repeated
by giving its name in place of chance.
"""
import collections
import random
import sys
import threading
import time

import psycopg

from groups import Failed, Limit, connect, find, healed, notes, run, to_be_had

QUEUE = "races"

SETUP = """
CREATE FUNCTION tell(groups text, delay int = 0) RETURNS SETOF bigint LANGUAGE sql AS $$
    SELECT pgmq.send_batch('races', array_agg(to_jsonb(g)), array_agg(jsonb_build_object('x-pgmq-group', g)), delay)
    FROM regexp_split_to_table(groups, '') AS g $$;
-- in front of the queue: the first, the second
CREATE FUNCTION nth(n int) RETURNS bigint LANGUAGE sql AS $$
    SELECT msg_id FROM pgmq.q_races ORDER BY msg_id OFFSET n - 1 LIMIT 1 $$;
-- A message that comes late: its msg_id is drawn, and then it waits to be let in
CREATE FUNCTION wait_to_come() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pg_advisory_lock_shared(2), pg_advisory_unlock_shared(2), set_config('lock_timeout', '30ms', true);
    RETURN NEW;
END $$;
CREATE TRIGGER wait_to_come BEFORE INSERT ON pgmq.q_races
    FOR EACH ROW WHEN (NEW.headers ? 'late') EXECUTE FUNCTION wait_to_come();
CREATE FUNCTION consume(qty int) RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $$
DECLARE
    m pgmq.message_record;
BEGIN
    FOR m IN SELECT * FROM pgmq.read_grouped('races', 300, qty) LOOP
        PERFORM pgmq.delete('races', m.msg_id);
        RETURN NEXT m;
    END LOOP;
END $$;
CREATE FUNCTION consume_and_follow() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $$
BEGIN
    PERFORM consume(1);
    RETURN QUERY SELECT * FROM pgmq.read_grouped('races', 300, 1);
END $$;
CREATE FUNCTION again() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $$
BEGIN
    BEGIN
        PERFORM pgmq.read_grouped('races', 300, 2);
        RAISE division_by_zero;
    EXCEPTION WHEN division_by_zero THEN
        NULL;
    END;
    RETURN QUERY SELECT * FROM pgmq.read_grouped('races', 300, 1);
END $$;
-- a part of the transaction that is rolled back
CREATE FUNCTION regret(what text) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
    EXECUTE what;
    RAISE division_by_zero;
EXCEPTION WHEN division_by_zero THEN
    NULL;
END $$;
CREATE FUNCTION regret_and_read(what text) RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $$
BEGIN
    PERFORM pgmq.delete('races', nth(1));
    PERFORM regret(what);
    RETURN QUERY SELECT * FROM pgmq.read_grouped('races', 300, 2);
END $$;
CREATE FUNCTION send_and_read() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS $$
BEGIN
    PERFORM tell('a');
    RETURN QUERY SELECT * FROM pgmq.read_grouped('races', 300, 1);
END $$;
CREATE FUNCTION move(grp text) RETURNS void LANGUAGE sql AS $$
    UPDATE pgmq.q_races SET headers = jsonb_build_object('x-pgmq-group', grp) WHERE msg_id = nth(1) $$;
-- notes that are no longer needed, and late ones
CREATE PROCEDURE stale(groups text, late boolean = false) LANGUAGE sql AS $$
    INSERT INTO pgmq.g_races (enqueued_at, vt, grp, head, late)
    SELECT now(), now(), g, 0, stale.late FROM regexp_split_to_table(groups, '') AS g $$;
"""

# What the queue is like before: statements.  Those of OPEN come first; the second of them
# in a transaction that is committed when the first call has stopped.
OPEN = {
    "being sent": ("SELECT tell('b')", "SELECT tell('a')"),
    "being sent behind": ("SELECT tell('aab')", "SELECT tell('ab')"),
    "being sent behind a dead one": ("SELECT tell('a')", "SELECT tell('a')"),
    "being deleted": ("SELECT tell('aab')", "SELECT pgmq.delete('races', nth(1))"),
    "being read": ("SELECT tell('aab')", "SELECT pgmq.read_grouped('races', 0, 1)"),
}
STATES = {
    "empty": [],
    "stale": ["CALL stale('bca')"],
    "late": ["CALL stale('ab', true)", "SELECT tell('ab')"],
    "one": ["SELECT tell('a')"],
    "two": ["SELECT tell('aa')"],
    "mixed": ["SELECT tell('abab')"],
    "leased": ["SELECT tell('a')", "SELECT pgmq.read_grouped('races', 300, 1)", "SELECT tell('a')"],
    "leased and noted": ["SELECT tell('aa')", "SELECT pgmq.read_grouped('races', 300, 1)", "CALL stale('a')"],
    "both leased": ["SELECT tell('aaa')", "SELECT pgmq.read_grouped('races', 300, 2)"],
    "delayed": ["SELECT tell('a', 300)", "SELECT tell('a')"],
    "due": ["SELECT tell('aab')", "SELECT pgmq.read_grouped('races', 0, 2)"],
    "plainly read": ["SELECT tell('aab')", "SELECT pgmq.read('races', 300, 1)"],
    "late behind": ["SELECT tell('aab')", "SELECT pgmq.read_grouped('races', 300, 1)", "CALL stale('a', true)"],
    "partly deleted": ["SELECT tell('aaab')", "SELECT pgmq.read_grouped('races', 300, 3)", "SELECT pgmq.delete('races', nth(2))"],
    "many": ["SELECT tell('abcdefabcdef')", "SELECT pgmq.read_grouped_head('races', 300, 3)"],
    "being sent": ["SELECT tell('a')"],
    "being sent behind": [],
    "being sent behind a dead one": ["SELECT consume(1)", "SELECT tell('a')"],
    "being deleted": [],
    "being read": [],
    "consumed": ["SELECT tell('ab')", "SELECT consume(2)", "SELECT tell('b')"],
}

# Those that give messages by groups come with a yes
CALLS = {
    "read_grouped": ("SELECT msg_id, message FROM pgmq.read_grouped('races', 300, 10)", True),
    "read_grouped one": ("SELECT msg_id, message FROM pgmq.read_grouped('races', 300, 1)", True),
    "read_grouped_rr": ("SELECT msg_id, message FROM pgmq.read_grouped_rr('races', 300, 10)", True),
    "read_grouped_head": ("SELECT msg_id, message FROM pgmq.read_grouped_head('races', 300, 10)", True),
    "no lease": ("SELECT msg_id, message FROM pgmq.read_grouped('races', 0, 1)", False),
    "read": ("SELECT msg_id, message FROM pgmq.read('races', 300, 1)", False),
    "pop": ("SELECT msg_id, message FROM pgmq.pop('races')", False),
    "consume": ("SELECT msg_id, message FROM consume(2)", False),
    "consume and follow": ("SELECT msg_id, message FROM consume_and_follow()", False),
    "again": ("SELECT msg_id, message FROM again()", True),
    "send": ("SELECT tell('a')", False),
    "send and read": ("SELECT msg_id, message FROM send_and_read()", False),
    "send two": ("SELECT tell('ba')", False),
    "send delayed": ("SELECT tell('a', 300)", False),
    "delete first": ("SELECT pgmq.delete('races', nth(1))", False),
    "delete second": ("SELECT pgmq.delete('races', nth(2))", False),
    "delete last": ("SELECT pgmq.delete('races', max(msg_id)) FROM pgmq.q_races", False),
    "delete one by one": ("SELECT pgmq.delete('races', msg_id) FROM pgmq.q_races WHERE msg_id <> nth(2)", False),
    "archive first": ("SELECT pgmq.archive('races', nth(1))", False),
    "archive all": ("SELECT pgmq.archive('races', ARRAY(SELECT msg_id FROM pgmq.q_races))", False),
    "free": ("SELECT pgmq.set_vt('races', nth(1), 0)", False),
    "free second": ("SELECT pgmq.set_vt('races', nth(2), 0)", False),
    "free all": ("SELECT pgmq.set_vt('races', array_agg(msg_id), 0) FROM pgmq.q_races", False),
    "put off": ("SELECT pgmq.set_vt('races', nth(1), 300)", False),
    "send and regret": ("SELECT regret('SELECT tell(''ab'')')", False),
    "delete and regret": ("SELECT regret('SELECT pgmq.delete(''races'', nth(1))')", False),
    # Its delete by hand may take away what the other has been given, and so make way in the group
    "delete, regret and read": ("SELECT msg_id, message FROM regret_and_read('SELECT pgmq.delete(''races'', array_agg(msg_id)) FROM pgmq.q_races')", False),
    "purge": ("SELECT pgmq.purge_queue('races')", False),
    "move": ("SELECT move('b')", False),
    "move and regret": ("SELECT move('b'), regret('SELECT move(''a'')')", False),
}

# A call that has begun before all others, and goes on when the first has stopped
LATE = "send late"
LATE_CALL = "SELECT pgmq.send('races', '\"a\"', '{\"x-pgmq-group\": \"a\", \"late\": true}'::jsonb)"

# Beside these, whoever was given a group has it until his lease ends
LEAVE_ALONE = ("send", "send two", "send delayed", "send and regret", "read_grouped", "read_grouped one",
               "read_grouped_rr", "read_grouped_head", "again", LATE)

BEGINNINGS = ("BEGIN", "BEGIN ISOLATION LEVEL REPEATABLE READ")

# How the first begins, how it ends, how the second does, and whether that is before the first call goes on
ENDINGS = [(begin, first, second, early) for begin in BEGINNINGS
           for first in ("COMMIT", "ROLLBACK") for second in ("COMMIT", "ROLLBACK") for early in (True, False)]

# Locks that other sessions hold; what a call is stopped by is an advisory one
OF_OTHERS = ("transactionid", "tuple", "virtualxid", "relation")


class Call(threading.Thread):
    """A statement in a session of its own"""

    def __init__(self, conn, sql):
        super().__init__(daemon=True)
        self.conn, self.sql, self.rows, self.error = conn, sql, [], None
        self.start()

    def run(self):
        try:
            cursor = self.conn.execute(self.sql)
            self.rows = cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            self.error = error


class Races:
    def __init__(self, connection, partitioned):
        self.partitioned = partitioned
        self.hold, self.first, self.second, self.third, self.fourth, self.fifth, self.sixth = (
            connect(connection) for _ in range(7))
        self.hold.execute("SELECT pg_advisory_lock(1), pg_advisory_lock(2)")
        # Who waits for what the stopped one has locked gives up
        self.second.execute("SET lock_timeout = '30ms'")
        self.checks = {}        # (state, call) -> how many there were
        self.planned = set()    # calls
        self.stopped = collections.Counter()    # how many calls, by name
        self.held_up = False
        self.healed = 0

    def waits_for(self, conn):
        """The kind of lock that its call waits for; pg_locks would take three times as long"""
        result = run(self.hold, "SELECT wait_event FROM pg_stat_get_activity(%d) WHERE wait_event_type = 'Lock'" % conn.info.backend_pid)
        return result.get_value(0, 0).decode() if result.ntuples else None

    def start(self, sql, number):
        """Whether the call has stopped there; else it has come to its end"""
        run(self.first, "SELECT fault_pause(%d)" % number)
        call = Call(self.first, sql)
        while call.is_alive():
            kind = self.waits_for(self.first)
            if kind == "advisory":
                return call, True
            if kind in OF_OTHERS:
                run(self.fifth, "COMMIT")
            call.join(0.0002)
        return call, False

    def let_go(self, call, other, other_end):
        """To its end; if it waits for the other one, that ends first"""
        run(self.hold, "SELECT pg_advisory_unlock(1)")
        while call.is_alive():
            call.join(0.0005)
            if call.is_alive() and self.waits_for(self.first) in OF_OTHERS:
                run(other, other_end)
                call.join()
        run(other, other_end)
        run(self.hold, "SELECT pg_advisory_lock(1)")

    def begin_late(self):
        """Up to where its message would come in"""
        # Notes of rounds before may say that something came late
        run(self.third, "DELETE FROM pgmq.g_races WHERE head > 0")
        run(self.sixth, "BEGIN")
        late = Call(self.sixth, LATE_CALL)
        while self.waits_for(self.sixth) != "advisory":
            late.join(0.0002)
        return late

    def come_late(self, late):
        """What it says to that"""
        run(self.hold, "SELECT pg_advisory_unlock(2)")
        late.join()
        run(self.hold, "SELECT pg_advisory_lock(2)")
        return late.error

    def call_other(self, other, late):
        """What it was given; None if it had to give up"""
        if late:
            error = self.come_late(late)
            if error and not isinstance(error, psycopg.errors.LockNotAvailable):
                raise error
            return None if error else []
        run(self.second, "BEGIN")
        try:
            cursor = self.second.execute(CALLS[other][0])
            return cursor.fetchall() if cursor.description else []
        except psycopg.errors.LockNotAvailable:
            return None

    def open(self, state):
        if state in OPEN:
            before, meanwhile = OPEN[state]
            run(self.third, before)
            run(self.fifth, "BEGIN")
            run(self.fifth, meanwhile)

    def play(self, state, name, other, ending, number):
        """One round"""
        begin, end, other_end, early = ending
        late = self.begin_late() if other == LATE else None
        second = self.sixth if late else self.second
        self.open(state)
        for statement in STATES[state]:
            run(self.third, statement)
        held = self.held() if other in LEAVE_ALONE else set()
        run(self.first, begin)
        call, stopped = self.start(CALLS[name][0], number)
        given = []
        if stopped:
            self.stopped[name] += 1
            run(self.fifth, "COMMIT")
            given = self.call_other(other, late)
            if given is None:
                given, other_end = [], "ROLLBACK"
            if early:
                run(second, other_end)
            self.let_go(call, second, other_end)
        elif late:
            self.come_late(late)
            run(second, "ROLLBACK")
        run(self.fifth, "COMMIT")
        if isinstance(call.error, psycopg.errors.SerializationFailure):
            end = "ROLLBACK"
        elif call.error:
            raise Failed("failed: %s" % call.error)
        run(self.first, end)
        if number == 0:
            self.checks[state, name] = self.first.execute("SELECT fault_seen()").fetchone()[0]
        mine = call.rows if CALLS[name][1] else []
        self.check_held(held, mine)
        if end == "ROLLBACK":
            mine = []
        self.check_given(mine, given if other_end == "COMMIT" and not late and CALLS[other][1] else [])
        self.check_left(self.held() if CALLS[name][1] and other in LEAVE_ALONE else set())

    def check_given(self, mine, others):
        both = {row[1] for row in mine} & {row[1] for row in others}
        if both:
            raise Failed("both have messages of %s: %s and %s" % (sorted(both), mine, others))

    def check_held(self, held, rows):
        if held & {row[1] for row in rows}:
            raise Failed("given though %s are held: %s" % (sorted(held), rows))

    def held(self):
        """Groups of which somebody has messages"""
        return {row[0] for row in self.third.execute(
            "SELECT headers->>'x-pgmq-group' FROM pgmq.q_races WHERE read_ct > 0 AND vt > clock_timestamp()")}

    def check_left(self, held):
        """What is to be had is found, nothing of these groups, and then all the rest"""
        left = to_be_had(self.third, QUEUE)
        if held:
            left.add(None)      # one look at least
        self.find(left, lambda: {None} | self.read(held), "not found")
        ids = {row[0] for row in self.third.execute("SELECT msg_id FROM pgmq.q_races")}
        run(self.third, "SELECT pgmq.set_vt('races', '{%s}'::bigint[], 0)" % ",".join(map(str, ids)))
        self.find(ids, lambda: {row[0] for row in self.third.execute("SELECT msg_id FROM consume(10)")}, "not found when set free")

    def read(self, held):
        rows = self.third.execute("SELECT msg_id, message FROM pgmq.read_grouped_head('races', 300, 10)").fetchall()
        self.check_held(held, rows)
        return {row[0] for row in rows}

    def find(self, wanted, read, what):
        find(wanted, read, lambda left: Failed("%s: %s; notes: %s" % (what, left, notes(self.third, QUEUE))))
        before, self.healed = self.healed, healed(self.third, QUEUE)
        if self.healed != before:
            raise Failed("no note told of a group, only the sweep found it")

    def hold_up(self, yes):
        """Another session that seems to write to queue and notes: no floors move past it"""
        self.fourth.execute("ROLLBACK")
        self.held_up = yes
        if yes:
            self.fourth.execute("BEGIN")
            self.fourth.execute("LOCK TABLE pgmq.q_races, pgmq.g_races IN ROW EXCLUSIVE MODE")

    def keep_up(self):
        """Partitions are made and dropped.  Without it messages go to the default one, and are moved from there."""
        self.third.execute("SET pgmq.maintenance_lock_timeout = '10ms'")
        self.third.execute("CALL pgmq.maintain()")

    def recover(self):
        for conn in (self.first, self.second, self.third, self.fifth, self.sixth):
            conn.execute("ROLLBACK")
        self.third.execute("DELETE FROM pgmq.q_races")
        self.third.execute("DELETE FROM pgmq.g_races WHERE head > 0")

    def round(self, state, name, other, ending, number):
        try:
            self.play(state, name, other, ending, number)
            return True
        except Failed as failed:
            print("# %s/%s/%s/%d/%d: %s" % (state, name, other, ENDINGS.index(ending), number, failed), flush=True)
            self.recover()
            return False

    def count(self, state, name):
        """How many checks the call comes by, when nothing else is going on"""
        if (state, name) not in self.checks:
            # the first one plans, too
            for _ in range(1 if name in self.planned else 2):
                self.round(state, name, "send", ENDINGS[0], 0)
            self.planned.add(name)
        return self.checks.get((state, name), 0)

    def every(self, state, name, other, ending):
        """With a stop at each of the checks"""
        self.hold_up(True)
        checks, before = self.count(state, name), self.stopped[name]
        # The other may make it longer
        bad = sum(not self.round(state, name, other, ending, number) for number in range(1, checks + 20))
        stopped = self.stopped[name] - before
        if checks == 0 or stopped < checks / 2:
            bad += 1
            print("# %s, %s: %d checks, and it stopped at %d" % (state, name, checks, stopped))
        print("%sok - races: %s, %s stops for %s" % ("not " if bad else "", state, name, other), flush=True)

    def by_chance(self, limit, rng):
        self.stopped.clear()
        rounds = collections.Counter()
        good = True
        while not limit.is_reached():
            state, name = rng.choice(list(STATES)), rng.choice(list(CALLS))
            other = LATE if rng.random() < 0.1 else rng.choice(list(CALLS))
            if rng.random() < 0.03:
                self.hold_up(rng.random() < 0.5)
                if self.partitioned:
                    self.keep_up()
            if name == "purge" and (self.held_up or other == LATE):
                continue        # it would wait
            number = rng.randint(1, max(1, self.count(state, name)) + 5)
            good &= self.round(state, name, other, rng.choice(ENDINGS), number)
            rounds[name] += 1
            limit.count()
        print("%sok - races: by chance" % ("" if good else "not "))
        self.say_what_stopped(rounds)

    def say_what_stopped(self, rounds):
        stopped = sum(self.stopped.values())
        never = [name for name in CALLS if not self.stopped[name]]
        print("# %d rounds, in %d of them a call stopped for another" % (sum(rounds.values()), stopped))
        for name in never:
            print("# %s never stopped, in %d rounds" % (name, rounds[name]))
        print("%sok - races: enough calls stopped, of each kind"
              % ("not " if never or stopped <= sum(rounds.values()) / 2 else ""))


# Ways in which messages have got lost to reading by groups, or to two consumers at once
KNOWN = (
    ("stale", "read_grouped_head", "send", ENDINGS[0]),
    ("one", "consume", "send", ENDINGS[0]),
    ("being sent behind a dead one", "read_grouped one", "read", ENDINGS[0]),
    ("partly deleted", "archive all", "send and read", ENDINGS[0]),
    ("leased and noted", "read_grouped_rr", LATE, ENDINGS[0]),
    ("one", "read_grouped", LATE, ENDINGS[0]),
    # the first message is changed when its index page has been read, and before its newest version is visited
    ("due", "read_grouped_head", "free", ENDINGS[0]),
)


def main():
    connection, limit, seed, kind = sys.argv[1:5]
    partitioned = kind == "partitioned"
    setup = psycopg.connect(connection, autocommit=True)
    setup.execute("SET client_min_messages = error")
    if partitioned:
        setup.execute("SELECT pgmq.create_partitioned('races', '20', '1000', 2, false, true)")
    else:
        setup.execute("SELECT pgmq.create('races')")
    setup.execute("SELECT pgmq.create_fifo_index('races')")
    setup.execute(SETUP)
    setup.close()
    races = Races(connection, partitioned)
    for name in sys.argv[5:]:
        state, call, other, ending, number = name.split("/")
        races.round(state, call, other, ENDINGS[int(ending)], int(number))
    if len(sys.argv) > 5:
        return
    for case in KNOWN:
        races.every(*case)
    races.by_chance(Limit(limit), random.Random(seed))


if __name__ == "__main__":
    main()

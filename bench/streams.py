"""The measuring of bench/streams.

To add a case, add a function, and a line to CASES.
"""
import argparse
import multiprocessing
import os
import re
import statistics
import subprocess
import threading
import time

import psycopg

from common import BODY, backend_cpu

LOG = "pgmq.s_bench"
PART = 2 ** 17                  # how many ids the first parts of a log have
RECEIVE = "SELECT * FROM pgmq.receive('bench', %s, 600, %s)"
SLICE = 2                       # seconds of pgbench, for one arm
ADVANCE = "SELECT pgmq.advance('bench', %s, %s, %s, %s)"


def connect(**options):
    conn = psycopg.connect(autocommit=True, **options)
    conn.prepare_threshold = 0
    return conn


def median(values):
    return statistics.median(values)


def say(*lines):
    print("\n".join(lines), flush=True)


# ---- what a call costs ----

class Cost:
    """Per call: CPU of the backend and seconds of the clock, both in microseconds, and bytes of WAL"""

    def __init__(self, conn, call, calls):
        pid = conn.info.backend_pid
        wal = wal_position(conn)
        began, cpu = time.perf_counter(), backend_cpu(pid)
        for _ in range(calls):
            call()
        self.cpu = (backend_cpu(pid) - cpu) / calls
        self.clock = (time.perf_counter() - began) * 1e6 / calls
        self.wal = (wal_position(conn) - wal) / calls


def wal_position(conn):
    return int(conn.execute("SELECT pg_current_wal_insert_lsn() - '0/0'").fetchone()[0])


def buffers(conn, query, args=()):
    """The pages that a statement looks at"""
    plan = conn.execute("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) " + query, args).fetchone()[0][0]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]


def ratio_line(name, costs, arm, base):
    """How many times as many calls of "arm" as of "base" there are: the median of the ratios of the pairs"""
    pairs = list(zip(costs[arm], costs[base]))
    return "| %s | %s | %.1f | %.1f | %.2f | %.2f | %.0f | %.0f |" % (
        name, base, median([a.cpu for a, _ in pairs]), median([b.cpu for _, b in pairs]),
        median([b.cpu / a.cpu for a, b in pairs]), median([b.clock / a.clock for a, b in pairs]),
        median([a.wal for a, _ in pairs]), median([b.wal for _, b in pairs]))


def throughput_line(name, pairs, base):
    """The same for pairs of calls per second"""
    return "| %s | %s | %.0f | %.0f | %.2f | %.2f to %.2f |" % (
        name, base, median([a for a, _ in pairs]), median([b for _, b in pairs]),
        median([a / b for a, b in pairs]), min(a / b for a, b in pairs), max(a / b for a, b in pairs))


THROUGHPUT = ("| | beside | calls per second | of the other | ratio | least and most |",
              "|---|---|--:|--:|--:|--:|")
RATIOS = ("| | beside | CPU us | CPU us of the other | calls per CPU | calls per second | WAL bytes | WAL bytes of the other |",
          "|---|---|--:|--:|--:|--:|--:|--:|")


def one_round(arms, calls):
    """The arms take turns call by call, so what else the machine does hits them alike"""
    costs = {name: Cost(conn, call, max(calls // 10, 1)) for name, (conn, call) in arms.items()}
    cpu = {name: -backend_cpu(conn.info.backend_pid) for name, (conn, _) in arms.items()}
    clock = dict.fromkeys(arms, 0.0)
    for number in range(calls):
        for name in list(arms) if number % 2 else list(arms)[::-1]:
            began = time.perf_counter()
            arms[name][1]()
            clock[name] += time.perf_counter() - began
    for name, (conn, _) in arms.items():
        costs[name].cpu = (cpu[name] + backend_cpu(conn.info.backend_pid)) / calls
        costs[name].clock = clock[name] * 1e6 / calls
    return costs


def rounds_of(arms, rounds, calls, prepare):
    """Costs of each arm in each round; the first round warms up"""
    costs = {name: [] for name in arms}
    for number in range(rounds + 1):
        prepare()
        for name, cost in one_round(arms, calls).items():
            if number:
                costs[name].append(cost)
    return costs


def calls_per_second(args, query, synchronous):
    """Of one client that does nothing else.  "%s" stands for the body."""
    path = os.path.join(args.scratch, "call.sql")
    with open(path, "w", encoding="ascii") as script:
        script.write(query.replace("%s", ":body") + ";\n")
    done = subprocess.run(["pgbench", "-n", "-M", "prepared", "-T", str(SLICE), "-f", path, "-D", "body=" + BODY],
                          env=dict(os.environ, PGOPTIONS="-c synchronous_commit=" + synchronous),
                          capture_output=True, text=True, check=True)
    found = re.search(r"^tps = ([0-9.]+)", done.stdout, re.M)
    assert found, done.stdout + done.stderr
    return float(found.group(1))


def statement(conn, query, args=()):
    def call():
        cursor = conn.execute(query, args)
        if cursor.description:
            cursor.fetchall()
    return conn, call


# ---- setting up ----

def make_stream(conn, subscribers=(), retention="7 days", keep_unconsumed=None, name="bench"):
    conn.execute("SELECT pgmq.drop_stream(%s)", (name,))
    conn.execute("SELECT pgmq.create_stream(%s, 1, %s, %s)", (name, retention, keep_unconsumed))
    for subscription in subscribers:
        conn.execute("SELECT pgmq.subscribe(%s, %s, 'earliest')", (name, subscription))


def make_peer(conn, consumers=()):
    """A queue of PgQ whose ticks come when they are asked for"""
    if conn.execute("SELECT count(*) FROM pgq.queue WHERE queue_name = 'bench'").fetchone()[0]:
        conn.execute("SELECT pgq.drop_queue('bench', true)")
    conn.execute("SELECT pgq.create_queue('bench')")
    for consumer in consumers:
        conn.execute("SELECT pgq.register_consumer('bench', %s)", (consumer,))


def tick(conn):
    """A batch ends here"""
    conn.execute("SELECT pgq.force_tick('bench')")
    conn.execute("SELECT pgq.ticker('bench')")


def publish_many(conn, events):
    for start in range(0, events, 1000):
        conn.execute("SELECT count(*) FROM pgmq.publish_batch('bench', array_fill(%s::jsonb, %s::int[]))",
                     (BODY, [min(1000, events - start)]))


# ---- cases ----

ONE = "SELECT pgmq.publish('bench', %s)"
HUNDRED = "SELECT * FROM pgmq.publish_batch('bench', array_fill(%s::jsonb, '{100}'))"
ONE_BY_HAND = "INSERT INTO " + LOG + " (shard, message) VALUES (0, %s)"
HUNDRED_BY_HAND = "INSERT INTO " + LOG + " (shard, published_at, message) SELECT 0, now(), unnest(array_fill(%s::jsonb, '{100}'))"
ONE_OF_PEER = "SELECT pgq.insert_event('bench', 'created', %s)"
WAITING = ", synchronous_commit on"

# name, settings, calls, the call, what it is measured beside, and how.  A function has to return the ids, so it is
# beside an INSERT that does; with count(*) they are not sent to the client, and it is beside a plain one.
PUBLISH = (
    ("publish", "off", 1000, ONE, "INSERT RETURNING", ONE_BY_HAND + " RETURNING event_id"),
    ("publish", "off", 1000, ONE, "INSERT", ONE_BY_HAND),
    ("publish", "on", 300, ONE, "INSERT RETURNING", ONE_BY_HAND + " RETURNING event_id"),
    ("publish", "on", 300, ONE, "INSERT", ONE_BY_HAND),
    ("publish", "off", 1000, ONE, "PgQ", ONE_OF_PEER),
    ("publish_batch(100)", "off", 200, HUNDRED, "INSERT RETURNING", HUNDRED_BY_HAND + " RETURNING event_id"),
    ("publish_batch(100), counted", "off", 200, HUNDRED.replace("*", "count(*)"), "INSERT", HUNDRED_BY_HAND),
    ("publish_batch(100)", "off", 200, HUNDRED, "PgQ", ONE_OF_PEER + " FROM generate_series(1, 100)"),
)


def publish(args):
    """The same log is written in all ways"""
    setup = connect()
    for name, synchronous, calls, ours, base, theirs in PUBLISH:
        if base == "PgQ" and not args.pgqd:
            continue
        conns = connect(), connect()
        for conn in conns:
            conn.execute("SET synchronous_commit = " + synchronous)
        arms = {"streams": statement(conns[0], ours, (BODY,)), base: statement(conns[1], theirs, (BODY,))}

        def prepare():
            make_stream(setup)
            if args.pgqd:
                make_peer(setup)
        say(ratio_line(name + WAITING * (synchronous == "on"), rounds_of(arms, args.rounds, calls, prepare), "streams", base))
        for conn in conns:
            conn.close()


def throughput(args):
    """The same by pgbench: slices of one kind of call, in turn"""
    setup = connect()
    for name, synchronous, _, ours, base, theirs in PUBLISH:
        if base == "PgQ" and not args.pgqd:
            continue
        pairs = []
        for number in range(args.rounds + 1):
            make_stream(setup)
            if args.pgqd:
                make_peer(setup)
            pair = [calls_per_second(args, query, synchronous) for query in (ours, theirs)[::1 if number % 2 else -1]]
            if number:
                pairs.append(pair[::1 if number % 2 else -1])
        say(throughput_line(name + WAITING * (synchronous == "on"), pairs, base))
    setup.close()


def subscriptions(args):
    """Streams of their own, of which each has another number of subscriptions"""
    setup, counts = connect(), (0, 1, 50)
    for name, calls, query in ("publish", 1000, ONE), ("publish_batch(100)", 200, HUNDRED):
        arms = {count: statement(connect(), query.replace("bench", "bench%d" % count), (BODY,)) for count in counts}

        def prepare():
            for count in counts:
                make_stream(setup, ["subscription %d" % i for i in range(count)], name="bench%d" % count)
        costs = rounds_of(arms, args.rounds, calls, prepare)
        for count in counts[1:]:
            say(ratio_line("%s, subscriptions: %d" % (name, count), costs, count, 0).replace("| 0 |", "| none |"))
        for conn, _ in arms.values():
            conn.close()


def runner(conn):
    """Statements without making rows of Python of what they return"""
    def run(query, *params):
        result = conn.pgconn.exec_params(query, [str(p).encode() for p in params])
        assert result.status == psycopg.pq.ExecStatus.TUPLES_OK, result.error_message
        return result
    return run


def consume_ours(run, subscription):
    rows = run(b"SELECT * FROM pgmq.receive('bench', $1, 600, 1000)", subscription)
    assert rows.ntuples == 1000
    last = [rows.get_value(999, column).decode() for column in (0, 1, 7)]
    assert run(b"SELECT pgmq.advance('bench', $1, $2, $3, $4)", subscription, *last).get_value(0, 0) == b"t"


def consume_peer(run, consumer):
    batch = run(b"SELECT pgq.next_batch('bench', $1)", consumer).get_value(0, 0).decode()
    assert run(b"SELECT * FROM pgq.get_batch_events($1)", batch).ntuples == 1000
    run(b"SELECT pgq.finish_batch($1)", batch)


def consume(args):
    setup, batches = connect(), 60
    names = ["consumer %d" % i for i in range(10)]

    def prepare():
        make_stream(setup, names)
        publish_many(setup, 1000 * batches)
        if args.pgqd:
            make_peer(setup, names)
            for _ in range(batches):
                setup.execute("SELECT count(pgq.insert_event('bench', 'created', %s)) FROM generate_series(1, 1000)", (BODY,))
                tick(setup)
        setup.execute("VACUUM ANALYZE")

    def arms(consumers):
        def arm(consume_one):
            conn = connect()
            run = runner(conn)
            return conn, lambda: [consume_one(run, name) for name in consumers]
        return {"streams": arm(consume_ours), **({"PgQ": arm(consume_peer)} if args.pgqd else {})}
    for name, consumers in ("a batch of 1,000", names[:1]), ("ten subscriptions, a batch of 1,000 of each", names):
        both = arms(consumers)
        costs = rounds_of(both, args.rounds, 50 // len(consumers), prepare)
        if args.pgqd:
            say(ratio_line(name, costs, "streams", "PgQ"))
        else:
            say("| %s | | %.1f |" % (name, median([cost.cpu for cost in costs["streams"]])))


# ---- from publish to event in hand ----

def publisher(query, events, interval):
    conn = connect()
    for _ in range(events):
        time.sleep(interval)
        conn.execute(query, ('{"at": %d}' % time.monotonic_ns(),))
    conn.close()


def lateness(query, events, interval, receive):
    """Milliseconds from before the publish to when the event is in the consumer's hands"""
    load = multiprocessing.Process(target=publisher, args=(query, events, interval))
    load.start()
    late = []
    while len(late) < events:
        bodies = receive()
        now = time.monotonic_ns()
        late += [(now - (body["at"] if isinstance(body, dict) else int(body[7:-1]))) / 1e6 for body in bodies]
    load.join()
    late.sort()
    return "median %.2f, p99 %.2f, at most %.2f ms" % (median(late), late[int(len(late) * 0.99)], late[-1])


def receive_ours(conn, function):
    def receive():
        rows = conn.execute("SELECT shard, event_id, lease, message FROM " + function).fetchall()
        if rows:
            conn.execute(ADVANCE, ("consumer",) + rows[-1][:3])
        return [row[3] for row in rows]
    return receive


def receive_peer(conn):
    def receive():
        batch = conn.execute("SELECT pgq.next_batch('bench', 'consumer')").fetchone()[0]
        if batch is None:
            time.sleep(0.001)
            return []
        bodies = [row[0] for row in conn.execute("SELECT ev_data FROM pgq.get_batch_events(%s)", (batch,)).fetchall()]
        conn.execute("SELECT pgq.finish_batch(%s)", (batch,))
        return bodies
    return receive


def start_ticker(args, period):
    """PgQ's own daemon"""
    path = os.path.join(args.scratch, "pgqd.ini")
    with open(path, "w", encoding="ascii") as ini:
        ini.write("[pgqd]\nbase_connstr = host=%s port=%s user=%s\ninitial_database = %s\ndatabase_list = %s\n"
                  "ticker_period = %s\nsyslog = 0\nlogfile = %s.log\npidfile = %s.pid\n"
                  % (os.environ["PGHOST"], os.environ["PGPORT"], os.environ["PGUSER"], os.environ["PGDATABASE"],
                     os.environ["PGDATABASE"], period, path, path))
    return subprocess.Popen([args.pgqd, path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def round_trip(conn, interval):
    """Milliseconds"""
    times = []
    for _ in range(500):
        time.sleep(interval)
        began = time.monotonic_ns()
        conn.execute("SELECT 1").fetchall()
        times.append((time.monotonic_ns() - began) / 1e6)
    return median(times)


def latency(args):
    setup, events, interval = connect(), 2000, 0.005
    say("a round trip: median %.2f ms" % round_trip(setup, interval))
    poll = "pgmq.receive('bench', 'consumer', 600, 100)"
    waiting = "pgmq.receive_with_poll('bench', 'consumer', 600, 100, 5)"
    there = setup.execute("SELECT count(*) FROM pg_proc WHERE proname = 'receive_with_poll'").fetchone()[0]
    for name, function in [("polling", poll)] + [("waiting", waiting)] * there:
        make_stream(setup, ["consumer"])
        say("from publish to event in hand, %s: %s"
            % (name, lateness(ONE, events, interval, receive_ours(connect(), function))))
    if not args.pgqd:
        return
    for name, period, lag in ("as it is installed", "1", None), ("tuned", "0.05", "10 ms"):
        make_peer(setup, ["consumer"])
        if lag:
            setup.execute("SELECT pgq.set_queue_config('bench', 'ticker_max_lag', %s)", (lag,))
            setup.execute("SELECT pgq.set_queue_config('bench', 'ticker_idle_period', '1 s')")
            setup.execute("SELECT pgq.set_queue_config('bench', 'ticker_max_count', '1')")
        with start_ticker(args, period) as ticker:
            try:
                say("from publish to event in hand, PgQ %s: %s"
                    % (name, lateness(ONE_OF_PEER, events, interval, receive_peer(connect()))))
            finally:
                ticker.terminate()


# ---- under a held snapshot ----

def one_batch_ours(conn):
    rows = conn.execute(RECEIVE, ("consumer", 1)).fetchall()
    assert len(rows) == 1
    assert conn.execute(ADVANCE, ("consumer", rows[0][0], rows[0][1], rows[0][7])).fetchone()[0]


def pages_ours(conn):
    pages = buffers(conn, RECEIVE, ("consumer", 1))
    state = conn.execute("SELECT shard, leased_id, lease FROM pgmq.p_bench ORDER BY state DESC LIMIT 1").fetchone()
    return pages + buffers(conn, ADVANCE, ("consumer",) + state)


def one_batch_peer(conn):
    batch = conn.execute("SELECT pgq.next_batch('bench', 'consumer')").fetchone()[0]
    assert len(conn.execute("SELECT * FROM pgq.get_batch_events(%s)", (batch,)).fetchall()) == 1
    conn.execute("SELECT pgq.finish_batch(%s)", (batch,))


def pages_peer(conn):
    pages = buffers(conn, "SELECT pgq.next_batch('bench', 'consumer')")
    batch = conn.execute("SELECT pgq.next_batch('bench', 'consumer')").fetchone()[0]
    return pages + buffers(conn, "SELECT * FROM pgq.get_batch_events(%s)", (batch,)) + \
        buffers(conn, "SELECT pgq.finish_batch(%s)", (batch,))


def measured(conn, one_batch, pages, step):
    """CPU of a batch by rounds, the median; pages of a batch"""
    rounds = [Cost(conn, lambda: one_batch(conn), step // 10).cpu for _ in range(9)]
    return median(rounds), median([pages(conn) for _ in range(step // 10)])


def flat_under_snapshot(conn, holder, batches, one_batch, pages):
    step = max(batches // 20, 20)
    for _ in range(20):
        one_batch(conn)
    holder.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    holder.execute("SELECT count(*) FROM pg_class")
    start = measured(conn, one_batch, pages, step)
    for _ in range(batches - 2 * step):
        one_batch(conn)
    end = measured(conn, one_batch, pages, step)
    holder.execute("COMMIT")
    return ("%.0f us and %.0f pages at the start, %.0f us and %.0f pages at the end: %.2f and %.2f"
            % (start + end + (end[0] / start[0], end[1] / start[1])))


def snapshot(args):
    setup, holder, events = connect(), connect(), args.batches + 200
    make_stream(setup, ["consumer"])
    publish_many(setup, events)
    setup.execute("VACUUM ANALYZE")
    say("%d batches under a held snapshot: %s"
        % (args.batches, flat_under_snapshot(connect(), holder, args.batches, one_batch_ours, pages_ours)))
    if not args.pgqd:
        return
    make_peer(setup, ["consumer"])
    for _ in range(events):
        setup.execute("SELECT pgq.insert_event('bench', 'created', %s)", (BODY,))
        tick(setup)
    setup.execute("VACUUM ANALYZE")
    say("the same of PgQ: %s" % flat_under_snapshot(connect(), holder, args.batches, one_batch_peer, pages_peer))


# ---- the rest ----

def idle(args):
    """Calls that find nothing"""
    conn = connect()
    calls = {"receive": lambda: conn.execute(RECEIVE, ("consumer", 100)).fetchall()}
    make_stream(conn, ["consumer"])
    publish_many(conn, 1000)
    one = conn.execute(RECEIVE, ("consumer", 1000)).fetchall()[-1]
    conn.execute(ADVANCE, ("consumer", one[0], one[1], one[7]))
    if args.pgqd:
        make_peer(conn, ["consumer"])
        calls["PgQ: next_batch"] = lambda: conn.execute("SELECT pgq.next_batch('bench', 'consumer')").fetchall()
        calls["PgQ: a tick"] = lambda: tick(conn)
    conn.execute("VACUUM")
    for name, call in calls.items():
        call()
        conn.execute("CHECKPOINT")
        before = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()[0]
        cost = Cost(conn, call, 1000)
        after = conn.execute("SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone()[0]
        say("1,000 idle calls, %s: %d transaction ids, %.0f bytes of WAL, %.1f us of CPU each"
            % (name, after - before, cost.wal * 1000, cost.cpu))


def depth(args):
    """Pages and CPU of a receive and of a fetch, with few and with many events before and behind"""
    conn = connect()
    pages, cpu = {}, {}
    for events in 3000, args.events:
        make_stream(conn, ["consumer"])
        publish_many(conn, events)
        conn.execute("VACUUM ANALYZE " + LOG)
        middle = events // 2
        fetch = "SELECT * FROM pgmq.fetch('bench', 0, %s, 1000)"
        conn.execute("SELECT pgmq.seek('bench', 'consumer', start_id => %s)", (middle,))

        def receive():
            row = conn.execute(RECEIVE, ("consumer", 1000)).fetchall()[-1]
            conn.execute("SELECT pgmq.return_lease('bench', 'consumer', %s, %s)", (row[0], row[7]))

        def fetch_rows():
            conn.execute(fetch, (middle,)).fetchall()
        for name, call in ("receive", receive), ("fetch", fetch_rows):
            call()
            cpu.setdefault(name, []).append(median([Cost(conn, call, 20).cpu for _ in range(args.rounds)]))
        pages.setdefault("fetch", []).append(buffers(conn, fetch, (middle,)))
        pages.setdefault("receive", []).append(buffers(conn, RECEIVE, ("consumer", 1000)))
    for name, values in pages.items():
        say("%s of 1,000 in the middle of 3,000 and of %d events: %d and %d pages, CPU %.0f and %.0f us: %.2f and %.2f"
            % ((name, args.events) + tuple(values) + tuple(cpu[name]) +
               (values[1] / values[0], cpu[name][1] / cpu[name][0])))


def longest_publish(busy):
    """Milliseconds of the longest publish while "busy" runs"""
    def load():
        conn = connect()
        while not over.is_set():
            began = time.monotonic()
            conn.execute(ONE, (BODY,))
            longest.append((time.monotonic() - began) * 1000)
            time.sleep(0.001)
        conn.close()
    over, longest = threading.Event(), []
    thread = threading.Thread(target=load)
    thread.start()
    busy()
    over.set()
    thread.join()
    return max(longest)


def drop(args):
    """A part is to be dropped while a transaction that has read the log stays open for two seconds"""
    conn, reader = connect(), connect()

    def fill():
        make_stream(conn, (), "0")
        publish_many(conn, PART + 1000)

    def behind_reader(statement):
        def busy():
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM " + LOG)
            ender = threading.Timer(2, lambda: reader.execute("COMMIT"))
            ender.start()
            statement()
            ender.join()
        return busy

    def maintain():
        """As often as a worker that has much to do"""
        until = time.monotonic() + 2
        while time.monotonic() < until:
            conn.execute("CALL pgmq.maintain()")
    fill()
    time.sleep(2.1)             # retention, and a second
    conn.execute("SET pgmq.maintenance_lock_timeout = '200 ms'")
    parts = "SELECT count(*) FROM pg_inherits WHERE inhparent = '%s'::regclass AND inhrelid::regclass::text LIKE '%%_p1'" % LOG
    say("the longest publish while maintenance wants to drop a part, with 200 ms for its locks, and a reader is open for"
        " 2 seconds: %.0f ms" % longest_publish(behind_reader(maintain)))
    conn.execute("CALL pgmq.maintain()")
    say("when the reader has ended, the part is %s" % ("there" if conn.execute(parts).fetchone()[0] else "gone"))
    fill()
    say("the same with DROP TABLE: %.0f ms" % longest_publish(behind_reader(lambda: conn.execute("DROP TABLE %s_p1" % LOG))))


def space(args):
    """Three subscriptions, one of them behind; what is left when the others have consumed all"""
    conn, chunk, behind = connect(), 100000, 300000
    names = "one", "two", "slow"
    make_stream(conn, names, "2 seconds", "1 hour")
    most, step = 0, 10000
    size = "SELECT sum(pg_total_relation_size(inhrelid))::float8 FROM pg_inherits WHERE inhparent = '%s'::regclass" % LOG

    def consume_all(name, events):
        for _ in range(events // step):
            row = conn.execute("SELECT max(event_id), max(lease) FROM pgmq.receive('bench', %s, 600, %s)", (name, step)).fetchone()
            assert conn.execute(ADVANCE, (name, 0) + row).fetchone()[0]
    for published in range(0, args.space_events, chunk):
        publish_many(conn, chunk)
        if published == 0:
            event = conn.execute(size).fetchone()[0] / chunk
        for name in names:
            if name != "slow" or published >= behind:
                consume_all(name, chunk)
        conn.execute("CALL pgmq.maintain()")
        most = max(most, conn.execute(size).fetchone()[0])
    until = time.monotonic() + 60
    allowed = event * (behind + 2 * PART)
    while conn.execute(size).fetchone()[0] > allowed and time.monotonic() < until:
        time.sleep(0.2)
        conn.execute("CALL pgmq.maintain()")
    say("%d events, retention 2 seconds, a subscription that is %d behind: %.0f MB at most, %.0f MB in the end; the unconsumed"
        " events have %.0f MB, and two parts %.0f MB" % (args.space_events, behind, most / 1e6,
                                                        conn.execute(size).fetchone()[0] / 1e6,
                                                        event * behind / 1e6, event * 2 * PART / 1e6))


CASES = {
    "throughput": throughput,
    "publish": publish,
    "subscriptions": subscriptions,
    "consume": consume,
    "latency": latency,
    "snapshot": snapshot,
    "idle": idle,
    "depth": depth,
    "drop": drop,
    "space": space,
}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--scratch", required=True)
    parser.add_argument("--pgqd")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--only")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--batches", type=int, default=10000)
    parser.add_argument("--events", type=int, default=1000000)
    parser.add_argument("--space-events", type=int, default=2000000)
    args = parser.parse_args()
    conn = connect()
    conn.execute("CREATE EXTENSION pgmq")
    if args.pgqd:
        conn.execute("CREATE EXTENSION pgq")
    conn.close()
    only = args.only.split(",") if args.only else list(CASES)
    heads = {"throughput": THROUGHPUT, "publish": RATIOS, "subscriptions": RATIOS, "consume": RATIOS}
    shown = None
    for name in only:
        if heads.get(name, shown) is not shown:
            shown = heads[name]
            say(*shown)
        CASES[name](args)


main()

"""The load of scripts/quickstart: package stanzas through a queue.

    quickstart.py FILE LIMIT      (LIMIT 0: all of FILE)

Two producers send the stanzas of FILE in batches.  Four consumers read them
under a lease of a few seconds and archive them; one of the four kills itself
now and then between the read and the archiving, so that what it held comes
back when its lease ends.  At the end the archive is compared with FILE, stanza
by stanza.  The server is the one that PGHOST and its like name.
"""
import ctypes
import json
import mmap
import os
import random
import signal
import sys
import time

import psycopg
from psycopg.types.json import Jsonb, set_json_dumps

QUEUE = "packages"
PRODUCERS, CONSUMERS = 2, 4
MORTAL = 0                       # the consumer that dies
SEND_BATCH, READ_BATCH = 100, 50
LEASE_SECONDS = 2

# psycopg escapes what is not ASCII otherwise; the server takes UTF-8 as it is.
set_json_dumps(lambda value: json.dumps(value, ensure_ascii=False))


def stanzas(path, limit):
    """The stanzas of a package index as dictionaries of all their fields."""
    fields, name, count = {}, None, 0
    with open(path, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            line = line.rstrip("\n").replace("\0", "")
            if not line:
                if fields:
                    yield fields
                    count += 1
                    if count == limit:
                        return
                fields, name = {}, None
            elif line[0] in " \t":
                fields[name] += "\n" + line[1:]
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
    if fields:
        yield fields


class Counters(ctypes.Structure):
    """What one process has done so far; in shared memory, so that it outlives a kill."""
    _fields_ = [("sent", ctypes.c_int64), ("read", ctypes.c_int64),
                ("again", ctypes.c_int64), ("archived", ctypes.c_int64)]


class Shared(ctypes.Structure):
    _fields_ = [("stop", ctypes.c_int64), ("worker", Counters * (PRODUCERS + CONSUMERS))]


shared = Shared.from_buffer(mmap.mmap(-1, ctypes.sizeof(Shared)))


def total(counter):
    return sum(getattr(worker, counter) for worker in shared.worker)


def produce(number, path, limit):
    """Send every PRODUCERS-th stanza; the header says which one it is."""
    counters = shared.worker[number]
    with psycopg.connect(autocommit=True) as conn:
        msgs, headers = [], []

        def flush():
            if msgs:
                ids = conn.execute("SELECT pgmq.send_batch(%s, %s::jsonb[], %s::jsonb[])",
                                   (QUEUE, msgs, headers)).fetchall()
                counters.sent += len(ids)
                msgs.clear()
                headers.clear()

        for record, fields in enumerate(stanzas(path, limit)):
            if record % PRODUCERS == number:
                msgs.append(Jsonb(fields))
                headers.append(Jsonb({"record": record}))
            if len(msgs) == SEND_BATCH:
                flush()
        flush()


def consume(number):
    """Read and archive until told to stop, or until it is time to die."""
    counters = shared.worker[PRODUCERS + number]
    lives = random.randint(5, 20) if number == MORTAL else None
    with psycopg.connect(autocommit=True) as conn:
        while not shared.stop:
            rows = conn.execute(
                "SELECT msg_id, read_ct, message, headers"
                " FROM pgmq.read_with_poll(%s, %s, %s, max_poll_seconds => 1)",
                (QUEUE, LEASE_SECONDS, READ_BATCH)).fetchall()
            if not rows:
                continue
            counters.read += len(rows)
            counters.again += sum(read_ct > 1 for _, read_ct, _, _ in rows)
            if lives is not None:
                lives -= 1
                if lives == 0:
                    os.kill(os.getpid(), signal.SIGKILL)
            for _, _, message, _ in rows:
                if "Package" not in message:
                    sys.exit("consumer %d: not a package: %.200r" % (number, message))
            done = conn.execute("SELECT pgmq.archive(%s, %s::bigint[])",
                                (QUEUE, [row[0] for row in rows])).fetchall()
            counters.archived += len(done)


def start(work, *args):
    """Run work(*args) in a process of its own, which leaves without a word to
    the connections that it has from its parent."""
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        work(*args)
        status = 0
    except BaseException as error:      # must not get back into the parent's code
        print("%s%r: %s" % (work.__name__, args, error), file=sys.stderr)
    finally:
        sys.stderr.flush()
        os._exit(status)


class Progress:
    """One line that is rewritten on a terminal, a line every few seconds elsewhere."""

    def __init__(self, expected):
        self.expected, self.tty = expected, sys.stderr.isatty()
        self.began = self.shown = time.monotonic()

    def show(self, killed, last=False):
        now = time.monotonic()
        if not last and now - self.shown < (0.1 if self.tty else 2):
            return
        self.shown = now
        line = "%5.1f s  sent %d  read %d  redelivered %d  archived %d of %d  consumers killed %d" % (
            now - self.began, total("sent"), total("read"), total("again"),
            total("archived"), self.expected, killed)
        if self.tty:
            line = "\r\033[K" + line + ("\n" if last else "")
        else:
            line += "\n"
        sys.stderr.write(line)
        sys.stderr.flush()


def run_load(conn, path, limit, expected):
    """Returns the seconds it took and how many consumers died."""
    producers = {start(produce, number, path, limit) for number in range(PRODUCERS)}
    consumers = {start(consume, number): number for number in range(CONSUMERS)}
    killed, progress, look_at = 0, Progress(expected), 0
    try:
        while producers or consumers:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if pid and consumers.get(pid) == MORTAL and os.WIFSIGNALED(status):
                killed += 1
                del consumers[pid]
                consumers[start(consume, MORTAL)] = MORTAL
            elif pid:
                producers.discard(pid)
                consumers.pop(pid, None)
                if status:
                    sys.exit("a process failed")
            else:
                time.sleep(0.02)        # between two looks at the children
            # Done is when the queue says so, not when the workers do
            if not producers and time.monotonic() >= look_at:
                look_at = time.monotonic() + 0.2
                if conn.execute("SELECT queue_length FROM pgmq.metrics(%s)",
                                (QUEUE,)).fetchone()[0] == 0:
                    shared.stop = 1
            progress.show(killed)
    finally:
        for pid in [*producers, *consumers]:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
    seconds = time.monotonic() - progress.began
    progress.show(killed, last=True)
    return seconds, killed


def check(conn, path, limit):
    """Compare the archive with the input; neither counts on what the workers say."""
    missing = doubled = changed = expected = 0
    with conn.transaction(), conn.cursor(name="archive") as archive:
        archive.execute("SELECT (headers->>'record')::bigint, message FROM pgmq.a_%s"
                        " ORDER BY 1" % QUEUE)
        row = archive.fetchone()
        for record, fields in enumerate(stanzas(path, limit)):
            expected += 1
            copies = 0
            while row is not None and row[0] == record:
                copies += 1
                changed += row[1] != fields
                row = archive.fetchone()
            missing += copies == 0
            doubled += max(copies - 1, 0)
        while row is not None:          # more than there was to send
            doubled += 1
            row = archive.fetchone()
    return expected, missing, doubled, changed


def main():
    path, limit = sys.argv[1], int(sys.argv[2])
    expected = sum(1 for _ in stanzas(path, limit))
    print("%d package stanzas; %d producers, %d consumers, lease %d s" %
          (expected, PRODUCERS, CONSUMERS, LEASE_SECONDS), file=sys.stderr)
    with psycopg.connect(autocommit=True) as conn:
        conn.execute("SELECT pgmq.create(%s)", (QUEUE,))
        seconds, killed = run_load(conn, path, limit, expected)
        print("comparing the archive with the input", file=sys.stderr)
        expected, missing, doubled, changed = check(conn, path, limit)
        sent, left = conn.execute("SELECT total_messages, queue_length FROM pgmq.metrics(%s)",
                                  (QUEUE,)).fetchone()
        archived, read = conn.execute("SELECT count(*), coalesce(sum(read_ct), 0)"
                                      " FROM pgmq.a_%s" % QUEUE).fetchone()
    rows = [("in the index", expected), ("sent", sent), ("read", read),
            ("redelivered", read - archived), ("consumers killed", killed),
            ("archived", archived), ("archived twice", doubled), ("archived changed", changed),
            ("left in the queue", left), ("lost", missing),
            ("seconds", "%.1f" % seconds), ("messages per second", "%.0f" % (expected / seconds))]
    print()
    for name, value in rows:
        print("  %-20s %10s" % (name, value))
    print()
    bad = missing or doubled or changed or left or sent != expected or archived != expected
    if bad:
        sys.exit("FAILED: the archive is not the input")


main()

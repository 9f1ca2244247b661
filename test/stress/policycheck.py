"""What was promised of queues with policies, checked on the book that the clients kept and on the tables.

The book has the committed calls only, and the changes of each message in their order.  So each message is
followed through its deliveries and what was said of them, and in the end its row must be what came of that.
"""
import bisect
import collections
import datetime
import glob
import json
import os

from check import EXPECTED, SHOWN
from policyclients import (DELETES_EXPIRED, GROUPED, IN_FLIGHT, MAX_LENGTH, QUEUES, RATE, RATE_PERIOD, TTL, UNLOGGED,
                           WINDOWS)

INVARIANTS = (
    ("place", "each committed message is in exactly one queue or archive, or was consumed"),
    ("gone", "nothing is delivered after it was consumed"),
    ("lease", "nothing is delivered while a lease or a delay runs"),
    ("paused", "nothing is delivered while the queue is paused"),
    ("count", "read_ct counts the committed deliveries"),
    ("token", "a stale token changes nothing"),
    ("refused", "a token of the last delivery counts"),
    ("row", "a message is as the last call has left it"),
    ("failures", "nothing is delivered that has failed as often as max_reads allows"),
    ("dead", "dead letters have failed that often, or are as old as their reason says"),
    ("expired", "nothing is delivered after its time to live"),
    ("rate", "over k periods at most k + 1 times the rate is delivered"),
    ("flight", "no more messages are leased at once than max_in_flight allows"),
    ("length", "a queue does not grow beyond its limit"),
    ("levels", "no lower priority comes before a higher one, and what has waited too long comes before all"),
    ("unique", "a key that is taken is not sent again"),
    ("taken", "a key is taken for its window, or until its message has left the queue"),
    ("order", "dead letters of a group come in its order"),
    ("drained", "ordinary reads drain a queue in the end"),
    ("error", "no call fails but for what was done to it"),
)
ENOUGH = ("enough", "there was enough of everything to check")

# So much for each second of a round; see LEAST in check.py
LEAST = {
    "sent": 5,
    "delivered": 10,
    "delivered with failures": 3,
    "delivered after a release": 0.5,
    "ack with a token": 2,
    "nack: retry": 1,
    "nack: dead": 0.1,
    "release with a token": 0.5,
    "touch with a token": 0.2,
    "stale tokens": 5,
    "rows": 1,
    "max_reads in dead-letter queues": 0.3,
    "max_reads in archives": 0.3,
    "expired in dead-letter queues": 0.1,
    "dead letters of a group": 0.1,
    "changes of policies": 0.1,
    "leases up to the limit": 0.2,
    "periods at the rate": 1,
    "duplicates": 0.2,
    "keys that were free again": 0.3,
    "reads with several levels to choose from": 0.2,
    "reads where some had waited too long": 0.1,
    "sent to topics": 1,
    "full queues": 0.3,
    "refused sends": 0.2,
    "overflow in dead-letter queues": 0.2,
}

BOOK = """
    SELECT id, client, kind, queue, {began}, {at}, seconds, msg_id, attempt, k, outcome, {vt}, {taken}, {enqueued_at}
    FROM stress.book ORDER BY id"""
Entry = collections.namedtuple("Entry", "id client kind queue began at seconds msg_id attempt k outcome vt taken enqueued_at")
ROWS = """
    SELECT msg_id, read_ct, message->>'k', {vt}, headers, COALESCE((to_jsonb(t)->>'pgmq_releases')::int, 0)
    FROM {table} AS t ORDER BY msg_id"""
Arrival = collections.namedtuple("Arrival", "relid msg_id k headers")
Row = collections.namedtuple("Row", "msg_id read_ct k vt headers releases")

ENDS = ("ack", "ack_archive", "delete", "archive", "pop", "dead_letter")
TO_ARCHIVE = ("ack_archive", "archive", "dead_letter")
FOREVER = float("inf")
KNOWN_AFTER = 1.0       # after a commit that its client did not see
COMMITTED_AFTER = 8.0   # after a call in a transaction that may have been prepared


def seconds(column):
    return "extract(epoch FROM %s)::float8" % column


def read_book(session):
    text = BOOK.format(**{c: seconds(c) for c in ("began", "at", "vt", "taken", "enqueued_at")})
    return [Entry(*row) for row in session.rows(text)]


def read_arrivals(session):
    return [Arrival(*row) for row in session.rows("SELECT relid, msg_id, k, headers FROM stress.arrivals ORDER BY id")]


def read_table(session, table):
    return [Row(*row) for row in session.rows(ROWS.format(vt=seconds("vt"), table=table))]


def errors(log_dir):
    """Errors in the clients' logs that nothing explains"""
    for path in sorted(glob.glob(os.path.join(log_dir, "*.log"))):
        with open(path) as lines:
            for line in lines:
                event = json.loads(line) if line.endswith("\n") else [""]
                if event[0] == "A" and event[3] != "rolled back" and not event[3].startswith(EXPECTED):
                    yield os.path.basename(path), event[3]


class Message:
    """A message in one queue, as the calls so far have left it"""

    def __init__(self, k, queue, msg_id):
        self.k, self.queue, self.msg_id = k, queue, msg_id
        self.read_ct = self.releases = self.settled = 0
        self.free_at = 0        # not delivered before
        self.vt = None          # exactly, where it is known
        # Its time to live ends between; not known of one that redrive has sent
        self.until_sooner, self.until = 0 if queue in TTL else FOREVER, FOREVER
        self.end = None         # the entry that took it out
        self.suspect = None     # an entry with a token that was refused though it counts
        self.entries = []

    def failures(self):
        return self.read_ct - self.releases


class PolicyChecker:
    def __init__(self, log_dir, book, arrivals, before, after):
        """arrivals: what came to dead-letter queues; before and after the queues were drained: {table: rows}"""
        self.log_dir, self.book, self.before, self.after = log_dir, book, before, after
        self.arrivals = arrivals
        self.violations = collections.defaultdict(list)
        self.seen = collections.Counter()
        self.messages = {}      # (queue, msg_id) -> Message
        self.beside = {}        # a message that was leased beyond the limit -> the others that were leased then
        self.max_reads = self.timeline()
        self.paused = self.pauses()

    def violate(self, invariant, message, text):
        self.violations[invariant].append((message, text))

    # ---- policies ----

    def known(self):
        """When changes were surely in force"""
        return {e.msg_id: e.at for e in self.book if e.kind == "known"}

    def pauses(self):
        """queue -> times in which it was surely paused"""
        known, since, times = self.known(), {}, collections.defaultdict(list)
        for entry in self.book:
            if entry.kind == "pause":
                since[entry.queue] = known.get(entry.id)
            elif entry.kind in ("resume", "stopped"):
                for queue in [entry.queue] if entry.queue else list(since):
                    if since.get(queue):
                        times[queue].append((since.pop(queue), entry.at))
        return times

    def timeline(self):
        """queue -> [(may be in force from, is surely from, value)]"""
        known = self.known()
        times = {queue: [(0, 0, policy.get("max_reads"))] for queue, (_, policy) in QUEUES.items()}
        for entry in self.book:
            if entry.kind == "policy":
                times[entry.queue].append((entry.began, known.get(entry.id, entry.at + KNOWN_AFTER), entry.attempt))
                self.seen["changes of policies"] += 1
        return times

    def allowed(self, queue, began, at):
        """The values of max_reads that can have been in force between"""
        values = []
        for maybe, surely, value in self.max_reads[queue]:
            if surely < began:
                values = []
            if maybe <= at:
                values.append(value)
        return values

    # ---- each message ----

    def check(self):
        for client, text in errors(self.log_dir):
            self.violate("error", None, "%s: %s" % (client, text))
        for entry in self.book:
            if entry.queue in QUEUES and entry.msg_id is not None and entry.kind != "known":
                self.follow(entry)
            elif entry.kind == "stopped":
                self.check_rows()
            elif entry.kind == "crashed":
                self.empty_unlogged(entry)
        self.check_dead()
        self.check_places()
        self.check_order()
        self.check_rate()
        self.check_unique()
        self.check_flight()
        self.seen["pauses"] += sum(map(len, self.paused.values()))
        for entry in self.book:
            if entry.kind == "length":
                self.seen["full queues"] += entry.attempt >= MAX_LENGTH - 1
                # Beside a count by others, what they send and remove meanwhile is an error
                if entry.attempt > MAX_LENGTH * 1.3:
                    self.violate("length", None, "entry %d: %s has %d messages" % (entry.id, entry.queue, entry.attempt))
            elif entry.kind == "refused":
                self.seen["refused sends"] += 1
            elif entry.kind == "levels":
                self.seen["reads with several levels to choose from"] += entry.attempt > 1
                self.seen["reads where some had waited too long"] += entry.attempt > 0 and entry.seconds > 0
                if entry.outcome:
                    self.violate("levels", None, "entry %d: levels %s" % (entry.id, entry.outcome))
        return self.violations

    def follow(self, entry):
        message = self.messages.get((entry.queue, entry.msg_id))
        if message is None:
            message = self.messages[(entry.queue, entry.msg_id)] = Message(entry.k, entry.queue, entry.msg_id)
        last = message.entries[-1] if message.entries else None
        message.entries.append(entry)
        # Twice in the arrays of one call
        if last and last[1:5] + last[8:9] == entry[1:5] + entry[8:9]:
            self.seen["given twice to a call"] += 1
            if last.outcome != entry.outcome:
                self.violate("token", message, "entry %d: another outcome for the same token" % entry.id)
            return
        getattr(self, "on_" + entry.kind)(message, entry)

    def alive(self, message, entry):
        """Something was done to it, so it is there, and was before"""
        if message.end:
            self.violate("gone", message, "entry %d: %s after %s" % (entry.id, entry.kind, message.end.kind))
        if message.suspect:
            self.violate("refused", message, "entry %d: the token was that of the last delivery" % message.suspect.id)
            message.suspect = None

    def on_send(self, message, entry):
        self.seen["sent"] += 1
        message.free_at = entry.began + entry.seconds
        if entry.queue in TTL:
            ttl = float(entry.outcome or TTL[entry.queue])
            message.until_sooner, message.until = entry.began + ttl, entry.at + ttl

    def on_topic(self, message, entry):
        self.seen["sent to topics"] += 1
        self.on_send(message, entry)

    def empty_unlogged(self, entry):
        """The server has come up again after a crash: whatever was in these queues is gone"""
        for message in self.messages.values():
            if message.queue in UNLOGGED and not message.end:
                message.end = entry
                message.entries.append(entry)
                self.seen["lost by a crash"] += 1

    def deliver(self, message, entry, taken):
        """What holds for each delivery: of a message that was delivered as often as it says, and that was free"""
        self.seen["delivered"] += 1
        self.alive(message, entry)
        message.k = message.k or entry.k
        if taken < message.free_at:
            self.violate("lease", message, "entry %d: %.6f s too early" % (entry.id, message.free_at - taken))
        if entry.began > message.until:
            self.violate("expired", message, "entry %d: %.3f s too late" % (entry.id, entry.began - message.until))
        for since, until in self.paused[entry.queue]:
            if since < entry.began and entry.at < until:
                self.violate("paused", message, "entry %d: the queue was paused from %.6f to %.6f" % (entry.id, since, until))
        allowed = self.allowed(entry.queue, entry.began, entry.at)
        if None not in allowed and message.failures() >= max(allowed):
            self.violate("failures", message, "entry %d: after %d failures, max_reads is %s" % (entry.id, message.failures(), allowed))
        self.seen["delivered with failures"] += message.failures() > 0
        self.seen["delivered after a release"] += message.releases > 0

    def on_unique(self, message, entry):
        """A duplicate does nothing to the message that it is told of"""
        if entry.attempt:
            self.seen["duplicates"] += 1
            return
        self.seen["sent"] += 1
        message.k = entry.k
        message.free_at = entry.began

    def on_read(self, message, entry):
        self.deliver(message, entry, entry.taken)
        if entry.attempt != message.read_ct + 1:
            self.violate("count", message, "entry %d: read_ct is %d after %d" % (entry.id, entry.attempt, message.read_ct))
        message.read_ct = entry.attempt
        message.vt = message.free_at = entry.vt

    def on_pop(self, message, entry):
        """Ends it, and changes nothing before"""
        self.deliver(message, entry, entry.at)
        if entry.attempt != message.read_ct:
            self.violate("count", message, "entry %d: read_ct is %d after %d" % (entry.id, entry.attempt, message.read_ct))
        message.end = entry

    def counts(self, message, entry):
        """Whether the call took the token for that of the last delivery, and was right"""
        is_last = not message.end and message.read_ct == entry.attempt
        if entry.outcome in ("false", "stale"):
            self.seen["stale tokens"] += not is_last
            # Perhaps it was moved meanwhile; if not, somebody sees it later
            if is_last and entry.kind != "touch":
                message.suspect = entry
            elif is_last and entry.at < message.free_at and message.vt:
                message.suspect = entry
            return False
        self.seen[entry.kind + " with a token"] += 1
        if not is_last:
            self.violate("token", message, "entry %d: %s with the token %s was accepted, %s" % (
                entry.id, entry.kind, entry.attempt, "it was gone" if message.end else "it was delivered %d times" % message.read_ct))
        self.alive(message, entry)
        return is_last

    def on_ack(self, message, entry):
        if self.counts(message, entry):
            message.end = entry

    on_ack_archive = on_dead_letter = on_ack

    def on_skipped(self, message, entry):
        """A token that 'next' was given: if it counts the message is gone, by that or because it was moved"""
        if not message.end and message.read_ct == entry.attempt:
            message.end = entry

    def on_delete(self, message, entry):
        if entry.outcome == "true":
            self.alive(message, entry)
            message.end = entry

    on_archive = on_delete

    def on_set_vt(self, message, entry):
        self.alive(message, entry)
        message.vt = message.free_at = entry.vt

    def on_touch(self, message, entry):
        if not self.counts(message, entry):
            return
        # A dead message whose move has failed is hidden, as if it were leased
        allowed = self.allowed(entry.queue, entry.began - 2, entry.at)
        live = (None in allowed or message.failures() < min(allowed)) and entry.at < message.until_sooner
        if message.vt and message.vt < entry.began and live:
            self.violate("token", message, "entry %d: the lease ended %.3f s before" % (entry.id, entry.began - message.vt))
        message.vt, message.free_at = None, entry.began + entry.seconds

    def on_release(self, message, entry):
        if self.counts(message, entry):
            message.releases += message.settled != entry.attempt
            message.settled = entry.attempt
            message.vt, message.free_at = None, entry.began + entry.seconds

    def on_nack(self, message, entry):
        if not self.counts(message, entry):
            return
        message.releases -= message.settled == entry.attempt
        message.settled = -entry.attempt
        delay = 0 if entry.seconds is None else entry.seconds
        message.vt, message.free_at = None, entry.began + delay
        allowed = self.allowed(entry.queue, entry.began, entry.at)
        self.seen["nack: " + entry.outcome] += 1
        if entry.outcome == "dead":
            if None in allowed or message.failures() < min(allowed):
                self.violate("dead", message, "entry %d: dead after %d failures, max_reads is %s" % (entry.id, message.failures(), allowed))
        elif None not in allowed and message.failures() >= max(allowed):
            self.violate("failures", message, "entry %d: %s after %d failures, max_reads is %s" % (
                entry.id, entry.outcome, message.failures(), allowed))

    # ---- the tables ----

    def check_rows(self):
        """When all was quiet: the rows are what the calls have left"""
        for queue in QUEUES:
            for row in self.before["q_" + queue]:
                message = self.messages.get((queue, row.msg_id))
                if message is None:     # it was sent back from a dead-letter queue, and nothing was done since
                    continue
                self.seen["rows"] += 1
                if message.end or message.suspect:
                    self.alive(message, self.book[-1])
                if row.read_ct != message.read_ct or ("max_reads" in QUEUES[queue][1] and row.releases != message.releases):
                    self.violate("row", message, "read_ct %d and %d releases, not %d and %d" % (
                        row.read_ct, row.releases, message.read_ct, message.releases))
                stuck = "x-pgmq-stuck" in (row.headers or {})
                self.seen["stuck"] += stuck
                if not stuck and message.vt and abs(row.vt - message.vt) > 1e-5:
                    self.violate("row", message, "vt is %.6f s later" % (row.vt - message.vt))

    def dead_letters(self):
        """(where, msg_id there, headers, the message that it was), in the order in which they came"""
        for arrival in self.arrivals:
            yield arrival.relid, arrival.msg_id, arrival.headers, self.origin(arrival.headers)
        for table, rows in self.after.items():
            for row in rows:
                if table.startswith("a_") and "x-dlq-origin-queue" in (row.headers or {}):
                    yield table, row.msg_id, row.headers, self.origin(row.headers)

    def origin(self, headers):
        queue, msg_id = headers["x-dlq-origin-queue"], int(headers["x-dlq-origin-msg-id"])
        # One that was sent back from a dead-letter queue, and died before anybody has got it, is not in the book
        return self.messages.get((queue, msg_id)) or Message(None, queue, msg_id)

    def check_dead(self):
        for where, _, headers, message in self.dead_letters():
            reason, read_ct = headers.get("x-dlq-reason"), int(headers["x-dlq-read-ct"])
            self.seen["%s in %s" % (reason, "archives" if isinstance(where, str) else "dead-letter queues")] += 1
            if read_ct != message.read_ct:
                self.violate("count", message, "x-dlq-read-ct %d after %d deliveries" % (read_ct, message.read_ct))
            at = datetime.datetime.fromisoformat(headers["x-dlq-at"]).timestamp()
            # A read knows the policy from its beginning
            allowed = self.allowed(message.queue, at - 2, at)
            if reason == "max_reads" and (None in allowed or message.failures() < min(allowed)):
                self.violate("dead", message, "max_reads after %d failures, max_reads is %s" % (message.failures(), allowed))
            if reason == "expired" and at < message.until_sooner:
                self.violate("dead", message, "expired %.6f s too early" % (message.until_sooner - at))
            if reason is None:
                self.violate("dead", message, "it was not dead")
            elif reason != "rejected" and at < message.free_at and not any(e.outcome == "dead" for e in message.entries):
                self.violate("dead", message, "%s %.6f s before its lease or its delay ended" % (reason, message.free_at - at))
            if reason == "rejected" and not any(e.kind == "dead_letter" for e in message.entries):
                self.violate("dead", message, "nobody has rejected it")

    def check_places(self):
        """Each message is in one place, whatever was moved.  What came to a topic has the same key in several queues."""
        places = collections.defaultdict(list)
        for table, rows in self.after.items():
            for row in rows:
                places[(row.k, (row.headers or {}).get("x-dlq-origin-queue", table[2:]))].append(table)
        sent = {}
        for entry in self.book:
            if entry.kind in ("send", "topic") or (entry.kind == "unique" and not entry.attempt):
                sent[(entry.k, entry.queue)] = self.messages[(entry.queue, entry.msg_id)]
            elif entry.kind == "dropped" or (entry.kind == "pop" and entry.queue not in QUEUES):
                places[(entry.k, entry.outcome)].append(entry.kind)
                self.seen[entry.kind + " dead letters"] += 1
        uncertain = set()
        for message in self.messages.values():
            key = message.k, message.queue
            if message.end and message.end.kind in ("skipped", "crashed"):
                uncertain.add(key)
            elif message.end and message.end.kind not in TO_ARCHIVE:
                places[key].append(message.end.kind)
        for key, where in places.items():
            if key not in sent:
                self.violate("place", None, "%s of %s is in %s, but was never sent" % (*key, where))
            elif len(where) > 1:
                self.violate("place", sent[key], "it is in %s" % where)
        for key, message in sent.items():
            if key not in places and key not in uncertain and message.queue not in DELETES_EXPIRED:
                self.violate("place", message, "it is nowhere")
        self.seen["places"] += len(places)

    def check_order(self):
        """What reads have moved; a nack or a dead_letter moves what its caller holds"""
        last = {}
        for where, msg_id, headers, message in sorted(self.dead_letters(), key=lambda d: (str(d[0]), d[1])):
            if message.queue not in GROUPED or isinstance(where, str):
                continue
            if any(e.kind == "dead_letter" or e.outcome == "dead" for e in message.entries):
                continue
            group = where, headers.get("x-pgmq-group")
            self.seen["dead letters of a group"] += group in last
            if group in last and last[group] > message.msg_id:
                self.violate("order", message, "%s: it comes after %d" % (group, last[group]))
            last[group] = message.msg_id

    def check_rate(self):
        """Of calls that began and ended within k periods.  A call that waited is no evidence for any moment."""
        calls = sorted((e.began, e.at) for e in self.book if e.queue == "rated" and e.kind in ("read", "pop"))
        for place, (since, _) in enumerate(calls):
            for periods in range(1, 5):
                until = since + periods * RATE_PERIOD
                end = bisect.bisect_right(calls, (until, until))
                count = sum(at <= until for _, at in calls[place:end])
                self.seen["periods at the rate"] += count >= RATE
                if count > (periods + 1) * RATE:
                    self.violate("rate", None, "%d messages in %d periods from %.3f" % (count, periods, since))

    def leases(self, message):
        """From when to when it was leased at least, and by which read or touch"""
        since = until = by = None
        for entry in message.entries:
            if entry.kind == "read":
                if by:
                    yield since, min(until, entry.began), by
                # No time at all is no lease
                since, until, by = entry.taken, entry.vt, entry if entry.seconds else None
            elif by and entry.kind == "touch" and entry.outcome == "true":
                # The lease may have ended while the touch ran, which asks for no room
                if until < entry.at:
                    yield since, until, by
                    since, by = entry.at, entry
                until = entry.began + entry.seconds     # which can be earlier than before
            elif by and self.ends_lease(entry, by.attempt):
                yield since, min(until, entry.began), by
                by = None
        if by:
            yield since, until, by

    @staticmethod
    def ends_lease(entry, attempt):
        """Whether this ends the delivery with that number.  A crash empties the queue, which is unlogged."""
        if entry.kind == "skipped":
            return entry.attempt == attempt
        return entry.kind == "crashed" or (entry.kind != "touch" and entry.outcome in ("true", "retry", "dead"))

    def check_flight(self):
        changes = []
        for message in self.messages.values():
            if message.queue == "flight":
                for since, until, by in self.leases(message):
                    changes += [(since, 1, message, by), (until, -1, message, by)] if until > since else []
        leased = {}             # message -> by which read or touch
        for when, change, message, by in sorted(changes, key=lambda c: c[:2]):
            if change < 0:
                del leased[message]
                continue
            leased[message] = by
            self.seen["leases up to the limit"] += len(leased) == IN_FLIGHT
            # What a touch has leased anew counts for the reads that begin after it
            count = [other for other, how in leased.items() if how.kind == "read" or how.at < by.began]
            if by.kind == "read" and len(count) > IN_FLIGHT:
                self.violate("flight", message, "%d messages are leased at %.6f, with %s" % (
                    len(count), when, [other.msg_id for other in count]))
                self.beside[message] = [other for other in count if other is not message]

    def check_unique(self):
        """The second sender of a key waits for the first, so the order of the book is that of the sends"""
        firsts = {}             # (queue, dedup_key) -> entries
        for entry in self.book:
            if entry.kind != "unique":
                continue
            before = firsts.setdefault((entry.queue, entry.outcome), [])
            if entry.attempt:
                self.check_duplicate(entry, before)
                continue
            if before:
                self.check_first(entry, before[-1])
            before.append(entry)

    def window(self, entry):
        return entry.seconds or WINDOWS.get(entry.queue)

    def check_first(self, entry, last):
        window, end = self.window(last), self.messages[(last.queue, last.msg_id)].end
        self.seen["keys that were free again"] += 1
        if window and entry.at < last.began + window:
            self.violate("unique", self.messages[(entry.queue, entry.msg_id)],
                         "entry %d: the key %s was taken by %d for another %.6f s" % (
                             entry.id, entry.outcome, last.msg_id, last.began + window - entry.at))
        if not window and (end is None or end.at > entry.at):
            self.violate("unique", self.messages[(entry.queue, entry.msg_id)],
                         "entry %d: the message %d of the key %s was there" % (entry.id, last.msg_id, entry.outcome))

    def check_duplicate(self, entry, before):
        first = next((e for e in reversed(before) if e.msg_id == entry.msg_id), None)
        message = self.messages[(entry.queue, entry.msg_id)]
        if first is None:
            self.violate("taken", message, "entry %d: nobody has sent it with the key %s" % (entry.id, entry.outcome))
        elif self.window(first) and entry.began > first.at + self.window(first):
            self.violate("taken", message, "entry %d: the window of %s ended before" % (entry.id, entry.outcome))
        elif not self.window(first) and message.end and entry.began > message.end.at + COMMITTED_AFTER:
            self.violate("taken", message, "entry %d: its message ended before" % entry.id)

    # ---- the report ----

    def report(self, say):
        for name, promise in INVARIANTS:
            broken = self.violations[name]
            if broken:
                say("%d violations: %s" % (len(broken), promise))
            for message, text in broken[:SHOWN]:
                say("  %s: %s" % (message and "message %s, %s %d" % (message.k, message.queue, message.msg_id), text))
                self.report_entries(message, say)
                for other in self.beside.get(message, ()):
                    say("   beside %d:" % other.msg_id)
                    self.report_entries(other, say)
                if message:
                    for table, rows in self.after.items():
                        for row in rows:
                            if row.k == message.k:
                                say("    in the end in %s: %s" % (table, row))

    @staticmethod
    def report_entries(message, say):
        for entry in message.entries if message else ():
            say("    %d %.3f to %.3f %s: %s attempt %s, %s, seconds %s, vt %s, taken %s" % (
                entry.id, entry.began, entry.at, entry.client, entry.kind, entry.attempt, entry.outcome,
                entry.seconds, entry.vt, entry.taken))

    def figures(self):
        return ", ".join("%d %s" % (n, what) for what, n in sorted(self.seen.items()))

"""What was promised of streams, checked on the book that the clients kept.

The book has the committed calls only, and the changes of each shard of a subscription in their order.  So it is known in
the end which events there are; and each shard is followed through its leases and positions.  What was received must be
all events behind the position, up to the last one.  So an event that comes to lie below one that was received is noticed.
"""
import bisect
import collections
import glob
import json
import os

from check import SHOWN
from policycheck import FOREVER, errors, seconds
from streamclients import FRAIL, STREAMS, SUBSCRIPTIONS, TOPICS

INVARIANTS = (
    ("lost", "each committed event reaches every subscription that began before it"),
    ("twice", "what is done in the transaction of advance() happens once in each pass"),
    ("gap", "events come in the order of their ids, and none appears below one that was received"),
    ("phantom", "no event that was rolled back is received"),
    ("again", "no event is received that was passed"),
    ("leased", "no shard is leased to two sessions"),
    ("open", "a shard belongs to the transaction that has changed it until that ends"),
    ("stale", "a lease that is not the last one changes nothing"),
    ("refused", "the last lease counts"),
    ("reused", "no number of a lease is used again"),
    ("attempt", "attempt counts how often a subscription has received an event"),
    ("start", "a subscription starts where it was told to"),
    ("shard", "an event is in the shard of its key"),
    ("time", "ids and published_at have the same order within a second"),
    ("dropped", "nothing is dropped before its time"),
    ("counted", "events that were dropped before a subscription had passed them are counted"),
    ("topic", "what is sent to a topic reaches its queue and all its streams, or none"),
    ("reset", "no id is given again that was used"),
    ("drained", "ordinary calls bring each subscription to the end"),
    ("error", "no call fails but for what was done to it"),
)
ENOUGH = ("enough", "there was enough of everything to check")

# So much for each second of a round; see LEAST in check.py
LEAST = {
    "published": 8,
    "published by hand": 0.7,
    "rolled back": 2,
    "committed after a higher id": 1.5,
    "received": 25,
    "received in a fixed snapshot": 5,
    "received again": 5,
    "effects": 15,
    "advanced in part": 0.5,
    "extended": 0.1,
    "returned": 0.03,
    "stale leases": 0.1,
    "leases that ended by the clock": 0.3,
    "seek": 0.1,
    "force": 0.1,
    "subscribe": 0.2,
    "fetched": 2,
    "prepared": 0.3,
    "sent to topics": 0.3,
    "open for more than a second": 0.5,
    "savepoints rolled back to": 0.5,
    "received beside another lease": 0.2,
    "parts dropped": 0.1,
    "events dropped": 1,
    "kept for a subscription": 0.3,
    "skipped": 0.5,
    "publish refused after a reset": 0.1,
    "receive refused after a reset": 0.05,
    "restarts": 0.04,
    "switches": 0.005,
}

BOOK = """
    SELECT id, tx, client, kind, stream, subscription, isolation, {began}, {at}, vt, qty, shard, event_id, k, key, attempt, lease,
        outcome, {published_at}, {committed} FROM stress.book ORDER BY id"""
Entry = collections.namedtuple("Entry", "id tx client kind stream subscription isolation began at vt qty shard event_id k key"
                               " attempt lease outcome published_at committed")
COMMITTED = "pg_xact_commit_timestamp(xmin)"
MARGIN = 1.0            # published_at and ids
MAX_ATTEMPTS = 8        # counts that a state has room for

# Errors by what clients do to streams
EXPECTED_HERE = ("ObjectInUse: ", "ObjectNotInPrerequisiteState: the sequence of stream \"%s\" " % FRAIL,
                 "ObjectNotInPrerequisiteState: the end of stream ",
                 # An id that a transaction has drawn before the sequence was set back; it is not committed yet
                 "UniqueViolation: duplicate key value violates unique constraint \"s_%s_" % FRAIL)


def read_commits(session):
    """When each transaction was committed; a restore would lose that"""
    return dict(session.rows("SELECT tx, max(%s) FROM stress.book GROUP BY 1" % seconds(COMMITTED)))


def read_book(session, commits):
    """commits: of servers that this one was restored from"""
    columns = {name: seconds(name) for name in ("began", "at", "published_at")}
    rows = (Entry(*row) for row in session.rows(BOOK.format(committed=seconds(COMMITTED), **columns)))
    return [entry._replace(committed=commits.get(entry.tx, entry.committed)) for entry in rows]


def shard_of(key, event_id, shards):
    """FNV-1a and the mixer of MurmurHash3, as documented"""
    if key is None:
        return event_id % shards
    mask, value = 2**64 - 1, 0xcbf29ce484222325
    for byte in key.encode():
        value = (value ^ byte) * 0x100000001b3 & mask
    value = (value ^ value >> 33) * 0xff51afd7ed558ccd & mask
    value = (value ^ value >> 33) * 0xc4ceb9fe1a85ec53 & mask
    return (value ^ value >> 33) % shards


class Shard:
    """A shard of a subscription, as the calls so far have left it"""

    def __init__(self, names):
        self.names = names              # stream, subscription, shard
        self.exists = False
        self.tx, self.committed = None, 0
        self.history = []               # (at, committed, position, or None while there is no subscription)
        self.skipped = set()            # dropped before they were passed
        self.entries = []
        self.begin(0)

    def begin(self, passed):
        """A pass: the position is set"""
        self.started = self.passed = passed
        self.lease, self.until, self.leased_id = None, 0, 0
        self.received = collections.Counter()
        self.marks, self.counted_high = set(), 0
        self.effects = set()


class StreamChecker:
    def __init__(self, log_dir, book, dropped_events, copies, undrained):
        """dropped_events: {(stream, subscription): how many}; copies: k of what the queue of topics has; undrained: what the drain has left"""
        self.log_dir, self.book = log_dir, book
        self.dropped_events, self.copies, self.undrained = dropped_events, collections.Counter(copies), undrained
        self.violations = collections.defaultdict(list)
        self.seen = collections.Counter()
        self.events = {}                # (stream, shard, event_id) -> entry that has published it
        self.ids = collections.defaultdict(list)        # (stream, shard) -> sorted
        self.published_at = {}          # as events
        self.drops = collections.defaultdict(list)      # stream -> (first id, first id behind, seen before, gone at)
        self.handed_out = collections.defaultdict(list)     # stream -> (when, the last event)
        self.published_to = collections.defaultdict(list)   # k -> streams
        self.shards = {}
        self.leases = {}

    def violate(self, invariant, names, event_id, text):
        """names: (stream, subscription, shard)"""
        self.violations[invariant].append((names, event_id, text))

    # ---- what there is ----

    def find_events(self):
        for entry in self.book:
            if entry.kind in ("publish", "hand"):
                shard = entry.shard if entry.kind == "hand" else shard_of(entry.key, entry.event_id, STREAMS[entry.stream][0])
                self.seen["published" if entry.kind == "publish" else "published by hand"] += 1
                if (entry.stream, shard, entry.event_id) in self.events:
                    self.violate("reset", (entry.stream, None, shard), entry.event_id, "entry %d: it was published before" % entry.id)
                self.events[(entry.stream, shard, entry.event_id)] = entry
                self.ids[(entry.stream, shard)].append(entry.event_id)
                self.published_to[entry.k].append(entry.stream)
                self.seen["published in a fixed snapshot"] += entry.isolation != "read committed"
                self.seen["open for more than a second"] += entry.committed is not None and entry.committed > entry.at + 1
            elif entry.kind == "dropped":
                self.drops[entry.stream].append((entry.event_id, entry.lease, entry.began, entry.at))
            elif entry.kind in ("receive", "fetch") and entry.published_at:
                self.published_at[(entry.stream, entry.shard, entry.event_id)] = entry.published_at
        for ids in self.ids.values():
            ids.sort()
        for stream in STREAMS:
            first, published = FOREVER, sorted((event_id, entry.committed) for (s, _, event_id), entry in self.events.items() if s == stream)
            for _, committed in reversed(published):
                self.seen["committed after a higher id"] += committed > first
                first = min(first, committed)

    def between(self, names, after, until):
        """Events behind one, up to another"""
        ids = self.ids[(names[0], names[2])]
        return ids[bisect.bisect_right(ids, after):bisect.bisect_right(ids, until)]

    def was_dropped(self, stream, event_id, at):
        return any(low <= event_id < high and began <= at for low, high, began, _ in self.drops[stream])

    def complete(self, names, after, got, at, who):
        """What was handed out is all that there is behind a position"""
        wanted = self.between(names, after, got[-1])
        if got != sorted(set(got)):
            self.violate("gap", names, got[0], "%s: %s are not in order" % (who, got))
        for event_id in set(got).difference(wanted):
            there = (names[0], names[2], event_id) in self.events
            self.violate("again" if there else "phantom", names, event_id, "%s: the position is %d" % (who, after))
        missing = set(wanted).difference(got)
        skipped = {event_id for event_id in missing if self.was_dropped(names[0], event_id, at)}
        for event_id in sorted(missing - skipped):
            self.violate("gap", names, event_id, "%s: it lies between the position %d and %d, which came" % (who, after, got[-1]))
        return skipped

    # ---- each shard ----

    def groups(self):
        """The entries of each call; those of one call have other calls' between them"""
        calls = {}
        for entry in self.book:
            what = {"receive": entry.lease, "effect": entry.lease, "fetch": entry.began}.get(entry.kind, entry.id)
            calls.setdefault((entry.kind, entry.tx, entry.stream, entry.subscription, what), []).append(entry)
        return calls.values()

    def check(self):
        for client, text in errors(self.log_dir):
            if not text.startswith(EXPECTED_HERE):
                self.violate("error", (None,) * 3, None, "%s: %s" % (client, text))
        self.find_events()
        for entries in self.groups():
            entry = entries[0]
            shard = None
            if entry.shard is not None and entry.subscription:
                names = (entry.stream, entry.subscription, entry.shard)
                shard = self.shards.setdefault(names, Shard(names))
                shard.entries += entries
            method = getattr(self, "on_" + entry.kind, None)
            if method:
                method(shard, entries)
        for names, shard in self.shards.items():
            if shard.exists:
                self.end_pass(shard, FOREVER, self.book[-1].at)
        self.check_dropped()
        self.check_counted()
        self.check_topics()
        self.check_leases()
        self.check_published_at()
        for names, text in self.undrained:
            self.violate("drained", names, None, text)
        return self.violations

    def change(self, shard, entry):
        """The call has the shard: so the transaction that had it before has ended"""
        if shard.tx != entry.tx and entry.at < shard.committed:
            self.violate("open", shard.names, entry.event_id, "entry %d: the transaction %s had it, for another %.6f s" % (
                entry.id, shard.tx, shard.committed - entry.at))
        shard.tx, shard.committed = entry.tx, entry.committed
        if not shard.exists and entry.kind != "subscribe":
            self.violate("stale", shard.names, entry.event_id, "entry %d: there was no subscription" % entry.id)

    def on_receive(self, shard, entries):
        first, last = entries[0], entries[-1]
        got = [entry.event_id for entry in entries]
        self.seen["received"] += len(got)
        self.seen["received in a fixed snapshot"] += len(got) * (first.isolation != "read committed")
        self.handed_out[first.stream].append((first.at, got[-1]))
        self.change(shard, first)
        who = "entry %d" % first.id
        if first.at < shard.until:
            self.violate("leased", shard.names, got[0], "%s: leased for another %.6f s" % (who, shard.until - first.at))
        self.seen["leases that ended by the clock"] += shard.lease is not None
        self.seen["received beside another lease"] += any(
            other is not shard and other.names[:2] == shard.names[:2] and other.until > first.at for other in self.shards.values())
        if len(got) > first.qty:
            self.violate("gap", shard.names, got[-1], "%s: %d events came, not %d" % (who, len(got), first.qty))
        shard.skipped |= self.complete(shard.names, shard.passed, got, first.at, who)
        for entry in entries:
            self.check_event(shard, entry)
        shard.lease, shard.until, shard.leased_id = first.lease, first.began + first.vt, last.event_id
        shard.received.update(got)
        shard.marks = {mark for mark in shard.marks if mark > shard.passed} | {last.event_id}
        if len(shard.marks) > MAX_ATTEMPTS:
            shard.counted_high = max(shard.marks)

    def check_event(self, shard, entry):
        published = self.events.get((entry.stream, entry.shard, entry.event_id))
        if published and published.k != entry.k:
            self.violate("phantom", shard.names, entry.event_id, "entry %d: %s came, not %s" % (entry.id, entry.k, published.k))
        wanted = shard.received[entry.event_id] + 1
        self.seen["received again"] += wanted > 1
        if entry.attempt < wanted or (entry.attempt > wanted and entry.event_id > shard.counted_high):
            self.violate("attempt", shard.names, entry.event_id, "entry %d: it is %d, not %d" % (entry.id, entry.attempt, wanted))

    def counts(self, shard, entry):
        """Whether the call took the lease for the last one, and was right"""
        last = shard.exists and shard.lease == entry.lease
        if entry.outcome == "false":
            self.seen["stale leases"] += not last
            if last and not (entry.kind == "advance" and entry.event_id < shard.passed):
                self.violate("refused", shard.names, entry.event_id, "entry %d: %s with the last lease" % (entry.id, entry.kind))
            return False
        if not last:
            self.violate("stale", shard.names, entry.event_id, "entry %d: %s by the lease %s was accepted, the last one is %s" % (
                entry.id, entry.kind, entry.lease, shard.lease))
        self.change(shard, entry)
        return True

    def on_advance(self, shard, entries):
        entry = entries[0]
        if not self.counts(shard, entry):
            return
        if not shard.passed < entry.event_id <= shard.leased_id:
            self.violate("stale", shard.names, entry.event_id, "entry %d: from %d, received up to %d" % (
                entry.id, shard.passed, shard.leased_id))
        shard.passed = entry.event_id
        shard.history.append((entry.at, entry.committed, entry.event_id))
        if entry.event_id == shard.leased_id:
            shard.lease, shard.until = None, 0
        else:
            self.seen["advanced in part"] += 1

    def on_extend_lease(self, shard, entries):
        if self.counts(shard, entries[0]):
            shard.until = entries[0].began + entries[0].vt
            self.seen["extended"] += 1

    def on_return_lease(self, shard, entries):
        if self.counts(shard, entries[0]):
            shard.lease, shard.until = None, 0
            self.seen["returned"] += 1

    def on_effect(self, shard, entries):
        for entry in entries:
            self.seen["effects"] += 1
            if entry.event_id in shard.effects:
                self.violate("twice", shard.names, entry.event_id, "entry %d" % entry.id)
            shard.effects.add(entry.event_id)

    # ---- passes ----

    def end_pass(self, shard, passed, at):
        missing = set(self.between(shard.names, shard.started, passed)) - shard.effects
        for event_id in sorted(missing):
            if not self.was_dropped(shard.names[0], event_id, at):
                self.violate("lost", shard.names, event_id, "in the pass from %d to %s" % (shard.started, passed))

    def set_position(self, shard, entry):
        self.seen[entry.kind] += 1
        if shard.exists:
            self.end_pass(shard, shard.passed, entry.at)
        self.change(shard, entry)
        if entry.kind == "seek" and entry.at < shard.until:
            self.violate("leased", shard.names, None, "entry %d: seek, but it is leased for another %.6f s" % (
                entry.id, shard.until - entry.at))
        shard.exists = True
        shard.begin(entry.event_id)
        shard.history.append((entry.at, entry.committed, entry.event_id))
        self.check_start(shard, entry)

    def check_start(self, shard, entry):
        how, start, passed = entry.k, entry.outcome, entry.event_id
        if how in ("earliest", "id") and passed != (int(start) - 1 if how == "id" else 0):
            self.violate("start", shard.names, passed, "entry %d: it starts behind %d, not at %s" % (entry.id, passed, start or how))
        if how in ("latest", "time"):
            for event_id in self.between(shard.names, 0, passed):
                if self.events[(entry.stream, entry.shard, event_id)].committed > entry.at:
                    self.violate("start", shard.names, event_id, "entry %d: it starts behind %d, which was not settled" % (entry.id, passed))
        # Ids are used again there
        if how == "time" and entry.stream != FRAIL:
            self.check_start_time(shard, entry, float(start))

    def check_start_time(self, shard, entry, start):
        # What was handed out by then was surely below the end of the log
        end = max((event_id for at, event_id in self.handed_out[entry.stream] if at < entry.began), default=0)
        for event_id in self.ids[(entry.stream, entry.shard)]:
            at = self.published_at.get((entry.stream, entry.shard, event_id))
            if at is None:
                continue
            if event_id <= entry.event_id and at >= start:
                self.violate("start", shard.names, event_id, "entry %d: it was published %.6f s after the time" % (entry.id, at - start))
            # Where nothing is left, it starts before all that has gone
            if entry.event_id < event_id <= end and at < start - MARGIN and not self.was_dropped(entry.stream, event_id, entry.at):
                self.violate("start", shard.names, event_id, "entry %d: it was published %.6f s before the time" % (entry.id, start - at))

    def on_subscribe(self, shard, entries):
        self.set_position(shard, entries[0])

    on_seek = on_force = on_subscribe

    def on_unsubscribe(self, _, entries):
        entry = entries[0]
        for shard in range(STREAMS[entry.stream][0]):
            shard = self.shards.get((entry.stream, entry.subscription, shard))
            if shard is not None and shard.exists and entry.outcome == "true":
                self.end_pass(shard, shard.passed, entry.at)
                self.change(shard, entry)
                shard.exists = False
                shard.history.append((entry.at, entry.committed, None))
                shard.skipped.clear()

    # ---- calls that change nothing ----

    def on_fetch(self, _, entries):
        head, got = entries[0], [entry.event_id for entry in entries[1:]]
        self.seen["fetched"] += len(got)
        if got:
            self.complete((head.stream, None, head.shard), head.event_id, got, head.at, "entry %d" % head.id)

    def on_reset(self, _, entries):
        """publish and receive may be accepted if nothing was handed out that is above"""
        entry = entries[0]
        self.seen["%s %s after a reset" % (entry.k, entry.outcome)] += 1
        if entry.k == "fetch" and entry.outcome == "accepted":
            self.violate("reset", (FRAIL, None, 0), None, "entry %d: events were fetched that are above the sequence" % entry.id)

    def on_prepared(self, *_):
        self.seen["prepared"] += 1

    # ---- after all ----

    def check_dropped(self):
        for stream, drops in self.drops.items():
            _, retention, keep, _ = STREAMS[stream]
            for low, high, began, at in drops:
                self.seen["parts dropped"] += 1
                for (s, shard, event_id), published_at in self.published_at.items():
                    if s == stream and low <= event_id < high:
                        self.seen["events dropped"] += 1
                        self.check_age((stream, None, shard), event_id, at - published_at, retention)
                        if keep is not None:
                            self.check_kept(stream, shard, event_id, began, at, published_at, retention + keep)

    def check_age(self, names, event_id, age, least):
        if age < least:
            self.violate("dropped", names, event_id, "at the age of %.6f s, not %.6f s" % (age, least))

    def check_kept(self, stream, number, event_id, began, at, published_at, least):
        """Unless each subscription has passed it"""
        for subscription in SUBSCRIPTIONS:
            shard = self.shards.get((stream, subscription, number))
            positions = [None]
            for changed, committed, position in shard.history if shard else ():
                if committed <= began:
                    positions = [position]
                elif changed <= at:
                    positions.append(position)
            if None not in positions and max(positions) < event_id:
                self.seen["kept for a subscription"] += 1
                self.check_age((stream, subscription, number), event_id, at - published_at, least)

    def check_counted(self):
        """Of those that do not go back"""
        for (stream, subscription), count in self.dropped_events.items():
            if subscription in ("first", "second"):
                skipped = sum(len(self.shards[names].skipped) for names in self.shards if names[:2] == (stream, subscription))
                self.seen["skipped"] += skipped
                if count < skipped:
                    self.violate("counted", (stream, subscription, None), None, "%d were counted, of %d" % (count, skipped))

    def check_topics(self):
        sent = {entry.k: entry for entry in self.book if entry.kind == "topic"}
        self.seen["sent to topics"] += len(sent)
        for k, entry in sent.items():
            streams = TOPICS[entry.key]
            if (sorted(self.published_to[k]), self.copies[k], entry.outcome) != (sorted(streams), 1, "%d" % (len(streams) + 1)):
                self.violate("topic", (None,) * 3, None, "entry %d: %s to %s is in %s and %d times in the queue; the call said %s" % (
                    entry.id, k, entry.key, self.published_to[k], self.copies[k], entry.outcome))
        for k in self.copies - collections.Counter(sent.keys()):
            self.violate("topic", (None,) * 3, None, "%s is in the queue only" % k)

    def check_leases(self):
        """Also those of transactions that were rolled back, or lost"""
        for path in sorted(glob.glob(os.path.join(self.log_dir, "*.log"))):
            with open(path) as lines:
                for line in lines:
                    event = json.loads(line) if line.endswith("\n") else [""]
                    if event[0] == "LEASE":
                        who = os.path.basename(path)
                        if event[3] in self.leases:
                            self.violate("reused", (None,) * 3, None, "%d: %s, %s" % (event[3], self.leases[event[3]], who))
                        self.leases[event[3]] = who
                    elif event[0] == "ROLLED":
                        self.seen["rolled back"] += event[3]
                    elif event[0] == "RT":
                        self.seen["savepoints rolled back to"] += 1

    def check_published_at(self):
        by_stream = collections.defaultdict(list)
        for (stream, shard, event_id), at in self.published_at.items():
            if (stream, shard, event_id) in self.events and self.events[(stream, shard, event_id)].kind == "publish":
                by_stream[stream].append((event_id, at, shard))
        for stream, events in by_stream.items():
            latest = 0
            # Ids are used again there, in other shards
            for event_id, at, shard in sorted(events) if stream != FRAIL else ():
                if at < latest - MARGIN:
                    self.violate("time", (stream, None, shard), event_id, "published %.6f s before a lower id" % (latest - at))
                latest = max(latest, at)

    # ---- the report ----

    def report(self, say):
        for name, promise in INVARIANTS:
            broken = self.violations[name]
            if broken:
                say("%d violations: %s" % (len(broken), promise))
            for names, event_id, text in broken[:SHOWN]:
                say("  %s %s shard %s, event %s: %s" % (names + (event_id, text)))
                for entry in self.history(names, event_id):
                    say("    %d %.6f to %.6f, committed %.6f, %s (%s): %s %s" % (
                        entry.id, entry.began or 0, entry.at, entry.committed or 0, entry.tx, entry.isolation, entry.kind,
                        {n: v for n, v in entry._asdict().items() if v is not None and n in (
                            "vt", "qty", "event_id", "k", "key", "attempt", "lease", "outcome", "published_at")}))

    def history(self, names, event_id):
        """Who has published the event, and what was done to the shard around it"""
        published = self.events.get((names[0], names[2], event_id))
        near = []
        shard = self.shards.get(names)
        if shard is not None:
            entries = [entry for entry in shard.entries if entry.kind not in ("receive", "effect") or entry.event_id == event_id]
            where = [n for n, entry in enumerate(entries) if entry.event_id == event_id] or [len(entries)]
            near = entries[max(where[0] - 5, 0):where[-1] + 4][:16]
        return ([published] if published else []) + near

    def figures(self):
        return ", ".join("%d %s" % (n, what) for what, n in sorted(self.seen.items()))

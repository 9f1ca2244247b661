"""The invariants, checked on the clients' logs and what the tables hold at the end."""
import collections
import glob
import json
import os

from workload import INDEXED

INVARIANTS = (
    ("lost", "every committed send was delivered, purged, or was still there"),
    ("late", "what is visible is handed out within a second of asking"),
    ("drained", "ordinary reads drain a queue in the end"),
    ("lease", "nothing is handed out while a committed lease on it runs"),
    ("gone", "nothing comes back after a committed delete, archive, pop or purge"),
    ("count", "read_ct counts the committed hand-outs"),
    ("phantom", "nothing is handed out that was not committed"),
    ("durable", "what was committed stays committed"),
    ("error", "no call fails but for what was done to it"),
    ("order", "inside a group nothing is handed out before what was sent earlier"),
    ("exclusive", "two consumers never hold messages of one group"),
    ("swept", "a note told of each group that was there to be had"),
)

ENOUGH = ("enough", "there was enough of everything to check")

# Where nothing happens everything holds.  So much must have been held against an invariant, for each
# second of a round; a busy machine does twenty times as much.
LEAST = {
    "committed sends": 5,
    "sends rolled back": 0.5,
    "committed delete": 3,
    "committed archive": 1,
    "committed pop": 0.1,
    "committed reads": 5,
    "hand-outs taken back": 2,
    "messages read again": 0.5,
    "leases that had run out": 1,
    "delays": 1,
    "acknowledged commits with an xid": 2,
    "calls": 10,
    "visible messages looked at again": 1,
    "watched groups": 1,
    "drained": 0.1,
    "other messages of a group": 40,
    "groups that changed hands": 0.5,
}

SHOWN = 3       # violations of each kind that are reported with their history

FOREVER = float("inf")
SECOND = 1000000

# The events of calls: start, end, transaction, queue, ...
CALLS = ("S", "R", "O", "F", "V", "P")

# An auto-committed call that failed with one of these has certainly done nothing
CERTAIN = ("QueryCanceled", "SerializationFailure", "DeadlockDetected", "LockNotAvailable")

# What is done to calls: cancels, kills, restarts, fixed snapshots, lock timeouts of clients' own
EXPECTED = CERTAIN + ("AdminShutdown", "CrashShutdown", "CannotConnectNow", "OperationalError",
                      "DuplicateObject", "UndefinedObject", "InFailedSqlTransaction", "IdleInTransaction")


class GroupedRead:
    """A call of one of the functions that read by groups"""

    def __init__(self, tx, event):
        self.tx = tx
        self.start, self.end, self.queue = event[1], event[2], event[4]
        self.how = event[9]
        self.keys = [row[5] for row in event[8]]
        self.rows = event[8]


def consumer_of(read):
    """A client that was killed and started anew is the same consumer"""
    return read.tx.client.split(".")[0]


class Tx:
    def __init__(self, client, number, isolation):
        self.client = client
        self.number = number
        self.isolation = isolation
        self.xid = None
        self.asked = None       # when the commit was asked for
        self.end = FOREVER      # when it was known to have committed
        self.last = None        # when its client last said anything of it, and what
        self.acknowledged = False
        self.aborted = None
        self.outcome = None     # True, False, or None: not known
        self.events = []
        self.savepoints = {}
        self.maybe = None       # what an auto-committed call would have done

    def __str__(self):
        return "%s/%d%s" % (self.client, self.number,
                            {True: " committed", False: " aborted", None: " unknown"}[self.outcome])


class Key:
    """The story of one message"""

    def __init__(self):
        self.sends = []         # (tx, queue, msg_id, delay, how)
        self.handouts = []      # (tx, start, end, kind, row, lease, clock)
        self.finishes = []      # (tx, start, how)
        self.retimed = []       # (tx, start, row)
        self.maybe_finished = False
        self.group = None       # (queue, name)
        self.sent_by = None     # when the send had returned


def read_logs(log_dir):
    """All transactions, the restarts, and what auditors found"""
    transactions, restarts, found = [], [], []
    for path in sorted(glob.glob(os.path.join(log_dir, "*.log"))):
        client = os.path.basename(path)[:-4]
        by_number = {}
        with open(path) as lines:
            for line in lines:
                if not line.endswith("\n"):
                    break       # killed while it wrote
                event = json.loads(line)
                kind = event[0]
                if kind == "RESTART":
                    restarts.append((event[1], event[2]))
                    continue
                if kind in ("LOST", "LEFT", "LOOKED", "WATCHED"):
                    found.append(event)
                    continue
                if kind == "A" and event[3] != "rolled back" and not event[3].startswith(EXPECTED):
                    found.append(("ERROR", client, event[3]))
                number = event[3] if kind in CALLS else event[2]
                if kind == "B":
                    by_number[number] = Tx(client, number, event[3])
                    transactions.append(by_number[number])
                    if (number, "maybe") in by_number:
                        by_number[number].maybe = by_number[(number, "maybe")]
                    continue
                if kind in ("MS", "MR", "MF"):
                    by_number[(number, "maybe")] = event
                    continue
                tx = by_number.get(number)
                if tx is None:
                    continue    # an error outside of any transaction
                if kind in "CAT":
                    tx.last = (event[1], {"C": "committed", "A": "aborted", "T": "prepared"}[kind])
                if kind == "X":
                    tx.asked, tx.xid = event[1], event[3]
                elif kind == "C":
                    tx.acknowledged, tx.end = True, event[1]
                elif kind == "A":
                    tx.aborted = tx.aborted or event[3]
                elif kind == "SP":
                    tx.savepoints[event[3]] = len(tx.events)
                elif kind == "RT":
                    del tx.events[tx.savepoints[event[3]]:]
                elif kind in CALLS:
                    tx.events.append(event)
    return transactions, restarts, found


class Checker:
    def __init__(self, log_dir, xid_committed, archived):
        """xid_committed(xids) -> {xid: bool}; archived {queue: [(key, read_ct)]}"""
        self.transactions, self.restarts, self.found = read_logs(log_dir)
        self.archived = archived
        self.keys = collections.defaultdict(Key)
        self.grouped_reads = []
        self.grouped_queues = set()
        self.violations = collections.defaultdict(list)
        self.slack = collections.Counter()      # hand-outs that nobody knows, by queue
        self.seen = collections.Counter()       # what there was to check, see LEAST
        self.resolve(xid_committed)
        self.collect()

    def violate(self, invariant, key, text):
        self.violations[invariant].append((key, text))

    def resolve(self, xid_committed):
        """Who has committed.  The server knows, but for xids that a crash made it forget."""
        ask = []
        for tx in self.transactions:
            if tx.isolation == "auto":
                if tx.acknowledged:
                    tx.outcome = True
                elif tx.aborted and tx.aborted.startswith(CERTAIN):
                    tx.outcome = False
            elif tx.asked is None:
                tx.outcome = False
            elif tx.xid is None:
                tx.outcome = tx.acknowledged
            elif any(tx.asked < when and tx.xid >= next_xid for when, next_xid in self.restarts):
                tx.outcome = False
            else:
                ask.append(tx)
        outcomes = xid_committed(sorted({tx.xid for tx in ask}))
        for tx in ask:
            tx.outcome = outcomes[tx.xid]
        for tx in self.transactions:
            self.seen["acknowledged commits with an xid"] += tx.acknowledged and tx.xid is not None
            self.seen["calls"] += len(tx.events)
            if tx.acknowledged and not tx.outcome:
                self.violate("durable", None, "%s, xid %s, was acknowledged" % (tx, tx.xid))

    def collect(self):
        for tx in self.transactions:
            if tx.outcome is None and tx.maybe:
                event = tx.maybe
                if event[0] == "MR":
                    self.slack[event[3]] += 1
                elif event[0] == "MS":
                    for key in event[4]:
                        self.keys[key].sends.append((tx, event[3], None, 0, "maybe"))
                    for key, group in zip(event[4], event[5] or ()):
                        self.keys[key].group = (event[3], group)
                else:
                    for _, key in event[5]:
                        self.keys[key].maybe_finished = True
            for event in tx.events:
                kind, start, end, _, queue = event[:5]
                if kind == "S":
                    for key, msg_id in event[5]:
                        self.keys[key].sends.append((tx, queue, msg_id, event[6], event[7]))
                    for (key, _), group in zip(event[5], event[8] or ()):
                        self.keys[key].group = (queue, group)
                        self.keys[key].sent_by = end
                elif kind == "R":
                    if len(event) > 9:
                        self.grouped_reads.append(GroupedRead(tx, event))
                        self.grouped_queues.add(queue)
                    for row in event[8]:
                        self.keys[row[5]].handouts.append((tx, start, end, "read", row, event[6], None))
                    # With a lease of no time at all it is due again, but not in this call
                    for key, times in collections.Counter(row[5] for row in event[8]).items():
                        if times > 1:
                            self.violate("lease", key, "%s got it %d times from one read" % (tx, times))
                    if tx.outcome and event[8] and tx.isolation != "auto" and tx.xid is None:
                        self.violate("durable", event[8][0][5], "%s: read without an xid" % tx)
                elif kind == "O":
                    for row in event[6]:
                        self.keys[row[5]].handouts.append((tx, start, end, "pop", row, None, row[6]))
                        self.keys[row[5]].finishes.append((tx, start, "pop"))
                elif kind == "F":
                    for _, key in event[6]:
                        self.keys[key].finishes.append((tx, start, event[5]))
                elif kind == "V":
                    for row in event[6]:
                        self.keys[row[5]].retimed.append((tx, start, row))
                elif kind == "P":
                    for key in event[6]:
                        self.keys[key].finishes.append((tx, start, "purge"))
                    if event[5] != len(event[6]):
                        self.violate("lost", None, "%s: purge_queue said %d of %d messages"
                                     % (tx, event[5], len(event[6])))

    # ---- the invariants ----

    def check(self):
        for event in self.found:
            if event[0] == "LOST":
                for msg_id, key, detail in event[4]:
                    self.violate("late", key, "queue %s, msg_id %d: untouched from %.3f to %.3f, while"
                                 " readers asked (%s)" % (event[3], msg_id, event[2], event[1], detail))
            elif event[0] == "LEFT":
                for msg_id, key, detail in event[4]:
                    self.violate("drained", key, "queue %s, msg_id %d: left over by the last reads (%s)"
                                 % (event[3], msg_id, detail))
            elif event[0] == "ERROR":
                self.violate("error", None, "%s: %s" % event[1:])
            elif event[0] == "WATCHED":
                self.seen["watched groups" if event[3] in self.grouped_queues else "watched messages"] += event[4]
            elif event[0] == "LOOKED":
                self.seen["visible messages looked at again"] += event[4]
        archived = {}
        for queue, rows in self.archived.items():
            for key, read_ct in rows:
                if key in archived:
                    self.violate("gone", key, "archived twice")
                archived[key] = read_ct
        for key, story in self.keys.items():
            self.check_ends(key, story, archived)
            self.check_handouts(key, story)
        self.check_order()
        self.check_exclusive()
        return self.violations

    def check_ends(self, key, story, archived):
        sent = [send for send in story.sends if send[0].outcome is not False]
        certain = [send for send in sent if send[0].outcome]
        ends = [finish for finish in story.finishes if finish[0].outcome]
        self.seen["committed sends"] += bool(certain)
        self.seen["sends rolled back"] += bool(story.sends) and not sent
        for tx, _, how in ends:
            self.seen["committed " + how] += 1
            self.seen["drained"] += tx.client.startswith("drain")
        if len(ends) > 1:
            self.violate("gone", key, "taken out %d times" % len(ends))
        if certain and not ends and not story.maybe_finished:
            self.violate("lost", key, "sent, and nowhere to be found")
        if key in archived and not story.maybe_finished and not any(e[2] == "archive" for e in ends):
            self.violate("gone", key, "in the archive, but never archived")
        if key not in archived and any(e[2] == "archive" for e in ends):
            self.violate("lost", key, "archived, but not in the archive")
        if not sent and any(h[0].outcome for h in story.handouts):
            self.violate("phantom", key, "handed out, though its send was rolled back")
        for tx, start, how in ends:
            for handout in story.handouts:
                if handout[1] > tx.end and handout[0] is not tx:
                    self.violate("gone", key, "handed out by %s after the %s of %s" % (handout[0], how, tx))

    def check_handouts(self, key, story):
        reads = sorted((h for h in story.handouts if h[3] == "read" and h[0].outcome),
                       key=lambda h: h[4][1])
        pops = [h for h in story.handouts if h[3] == "pop" and h[0].outcome]
        self.seen["hand-outs taken back"] += sum(h[0].outcome is False for h in story.handouts)
        queue = story.sends[0][1] if story.sends else None
        # Every hand-out, committed or not, writes its lease
        for tx, start, end, kind, row, lease, clock in story.handouts:
            if kind == "read" and row[4] < row[3] + lease * SECOND:
                self.violate("lease", key, "%s got a lease of %d us instead of %d s"
                             % (tx, row[4] - row[3], lease))
            if kind == "pop" and clock < row[4]:
                self.violate("lease", key, "%s popped it before its vt" % tx)
        counts = [h[4][1] for h in reads]
        last = counts[-1] if counts else 0
        missing = last - len(set(counts))
        self.seen["committed reads"] += len(reads)
        self.seen["messages read again"] += len(reads) > 1
        if len(set(counts)) < len(counts):
            self.violate("count", key, "read_ct of the committed reads: %s" % counts)
        elif missing > self.slack[queue]:
            self.violate("count", key, "read_ct of the committed reads: %s, and %d reads unknown"
                         % (counts, self.slack[queue]))
        for pop in pops:
            if not last <= pop[4][1] <= last + self.slack[queue]:
                self.violate("count", key, "popped with read_ct %d after reads %s" % (pop[4][1], counts))
        delayed = [s for s in story.sends if s[0].outcome and s[3] and s[4] == "in"]
        for send in delayed:
            first = reads[0] if reads and counts[0] == 1 else None
            touched = any(v[2][1] == 0 for v in story.retimed)
            self.seen["delays"] += first is not None and not touched
            if first and not touched and first[4][3] < first[4][2] + send[3] * SECOND:
                self.violate("lease", key, "delayed by %d s, but %s read it after %.6f s" %
                             (send[3], first[0], (first[4][3] - first[4][2]) / SECOND))
        for one, two in zip(reads, reads[1:]):
            if two[4][1] != one[4][1] + 1:
                continue
            until = self.lease_of(one, story)
            self.seen["leases that had run out"] += until is not None
            if until is not None and two[4][3] < until:
                self.violate("lease", key, "%s read it %.6f s before the lease of %s ended"
                             % (two[0], (until - two[4][3]) / SECOND, one[0]))

    def lease_of(self, read, story):
        """The vt that held after a read: its own, or what the last set_vt made of it"""
        changes = sorted((v for v in story.retimed if v[0].outcome and v[2][1] == read[4][1]),
                         key=lambda v: v[1])
        if not changes:
            return read[4][4]
        last = changes[-1]
        # Whose end isn't known, or who overlaps, may have come after the last
        return min(v[2][4] for v in changes if v is last or v[0].end > last[1])

    # ---- groups ----

    def gone_from(self, story):
        """The earliest moment at which a message may have been gone for others, and in which transactions"""
        if story.maybe_finished:
            return 0, {}
        possible = [f for f in story.finishes if f[0].outcome is not False]
        mine = {}
        for tx, start, _ in possible:
            mine[tx] = min(start, mine.get(tx, FOREVER))
        return min([tx.asked or start for tx, start, _ in possible], default=FOREVER), mine

    def check_order(self):
        """Every earlier message of the group is gone, or comes before in the same call.

        Earlier is what has a lower msg_id and had been sent, committed or not, when
        the call began.  Without a group index it must have been committed.
        """
        groups = collections.defaultdict(list)
        for key, story in self.keys.items():
            for tx, queue, msg_id, _, _ in story.sends:
                if story.group and msg_id is not None and tx.outcome:
                    there_from = story.sent_by if queue in INDEXED else tx.end or FOREVER
                    groups[story.group].append((there_from, msg_id, key) + self.gone_from(story))
        for messages in groups.values():
            messages.sort(key=lambda m: m[0], reverse=True)
        alive = collections.defaultdict(list)
        for read in sorted((r for r in self.grouped_reads if r.tx.outcome), key=lambda r: r.end):
            for place, row in enumerate(read.rows):
                group = self.keys[row[5]].group
                waiting = groups[group]
                while waiting and waiting[-1][0] < read.end:
                    alive[group].append(waiting.pop())
                alive[group] = [m for m in alive[group] if m[3] > read.end]
                before = set(read.keys[:place])
                for sent_by, msg_id, key, _, mine in alive[group]:
                    self.seen["other messages of a group"] += 1
                    if msg_id < row[0] and sent_by < read.start and key not in before and \
                            mine.get(read.tx, FOREVER) > read.end:
                        self.violate("order", row[5], "%s of %s returned msg_id %d of group %s while %d (%s) was there"
                                     % (read.how, read.tx, row[0], group[1], msg_id, key))

    def check_exclusive(self):
        """While a consumer holds a message of a group by a committed read, nobody else gets one"""
        groups = collections.defaultdict(list)
        for read in self.grouped_reads:
            if read.tx.outcome:
                for row in read.rows:
                    groups[self.keys[row[5]].group].append((row[3], read, row))
        for group, handouts in groups.items():
            handouts.sort(key=lambda h: (h[0], h[2][0]))
            held, last = [], None
            for taken_at, read, row in handouts:
                self.seen["groups that changed hands"] += bool(last and consumer_of(last) != consumer_of(read))
                last = read
                held = [h for h in held if h[0] > taken_at]
                for until, other, message in held:
                    if consumer_of(other) == consumer_of(read) or message[5] == row[5]:
                        continue
                    if self.keys[row[5]].retimed or self.keys[message[5]].retimed:
                        continue
                    # Without an index nothing tells of messages that came late
                    if row[0] < message[0] and group and group[0] not in INDEXED:
                        continue
                    if self.gone_from(self.keys[message[5]])[0] > read.end:
                        self.violate("exclusive", row[5], "%s got msg_id %d of group %s while %s held %d (%s)"
                                     % (read.tx, row[0], group and group[1], other.tx, message[0], message[5]))
                held.append((row[4], read, row))

    # ---- the report ----

    def history(self, key):
        """All that the logs say of a message, in the order of time"""
        lines = []
        story = self.keys[key]
        involved = set()

        def add(when, tx, text):
            involved.add(tx)
            lines.append((when, "%s (%s): %s" % (tx, tx.isolation.lower(), text)))

        for tx, queue, msg_id, delay, how in story.sends:
            start = [e[1] for e in tx.events if e[0] == "S" and any(m[0] == key for m in e[5])]
            add(start[0] if start else 0, tx, "sent to %s as msg_id %s, delay %s %d s" % (queue, msg_id, how, delay))
        for tx, start, end, kind, row, lease, clock in story.handouts:
            add(start, tx, "%s, lease %s s, returned %.3f: read_ct %d, last_read_at %s, vt %s"
                % (kind, lease, end, row[1], row[3], row[4]))
        for tx, start, how in story.finishes:
            if how != "pop":
                add(start, tx, how)
        for tx, start, row in story.retimed:
            add(start, tx, "set_vt to %s" % row[4])
        for tx in involved:
            if tx.last:
                lines.append((tx.last[0], "%s/%d: %s" % (tx.client, tx.number, tx.last[1])))
        if lines:
            first, last = min(lines)[0], max(lines)[0]
            lines.extend((when, "restart, next xid %d" % next_xid)
                         for when, next_xid in self.restarts if first < when < last)
        return ["    %.3f %s" % line for line in sorted(lines)]

    def report(self, say):
        """Print it; how many invariants are broken"""
        for name, promise in INVARIANTS:
            broken = self.violations[name]
            if not broken:
                continue
            say("%d violations: %s" % (len(broken), promise))
            for key, text in broken[:SHOWN]:
                say("  message %s: %s" % (key, text))
                if key is not None:
                    for line in self.history(key):
                        say(line)
        return sum(1 for name, _ in INVARIANTS if self.violations[name])

    def figures(self):
        count = self.seen.copy()
        count["watched in vain"] = sum(event[5] for event in self.found if event[0] == "WATCHED")
        count["restarts"] = len(self.restarts)
        count["calls of unknown outcome"] = sum(1 for tx in self.transactions if tx.outcome is None)
        return ", ".join("%d %s" % (n, what) for what, n in count.items())

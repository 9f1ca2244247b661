"""Starts the clients, watches the server's log and the sessions, and says what was broken.

Run by test/fuzz/run, against a server that it has started.
"""
import argparse
import collections
import ctypes
import glob
import json
import multiprocessing
import os
import random
import re
import subprocess
import sys
import time

import psycopg

import calls
import damage
import innocent
import rights
from client import Caller, Finisher, Shared
from values import ODD_NAMES, STREAMS, Values

INVARIANTS = (
    ("crash", "no crash, no failed assertion, no undefined behaviour"),
    ("internal", "no internal error"),
    ("hang", "every call ends, or can be cancelled or terminated"),
    ("results", "what is returned is text of the database's encoding, and of its type"),
    ("books", "what was committed is there once, and nothing else"),
    ("innocent", "queues that nobody damaged go on without an error"),
    ("late", "and without delay"),
    ("over all", "functions over all queues pass by the damaged ones"),
    ("rights", "calls do what their rights allow, and nobody's code runs with rights of others"),
    ("shutdown", "the server goes down at once"),
    ("enough", "the fuzzer has seen enough to notice"),
    ("fuzzer", "the fuzzer itself works"),
)

# Internal errors that are the server's own, with the reason
# Errors of the server's own, which statements on such tables raise without this extension, too.  Where the log has
# a backtrace (backtrace_functions in "run"), the error must come from a statement: C code of ours that opens or looks
# up what another session has dropped must be ready for that.
EXPECTED_INTERNAL = (
    (r"could not open relation with OID [1-9]\d*", "the server's own: a relation named by OID was dropped by another session"),
    (r"cache lookup failed for (relation|attribute|type|function|index|constraint|trigger) ", "the server's own: what was looked up was dropped by another session"),
    (r"tuple concurrently (updated|deleted)", "the server's own: two sessions altered one object"),
    (r"attempted to .* invisible tuple", "the server's own: catalog rows of two sessions"),
    (r"could not find trigger \d+", "the server's own: a deferred event's trigger was dropped"),
    (r"relation .* has no triggers", "the server's own: the same"),
    (r"cannot drop active portal", "the server's own: a cursor closes itself"),
    (r"missing chunk number \d+ for toast value", "a scan with SnapshotAny"),
    (r"relation deleted while still in use", "the server's own"),
    (r"could not open file .*: No such file", "the server's own: a database was dropped under a session"),
    (r"role with OID \d+ does not exist", "the server's own"),
    (r"no owned sequence found|more than one owned sequence found", "the server's own: an identity column without its sequence"),
    (r"trying to store an on-disk parallel heap tuple", "the server's own"),
)
# Frames between an error and code of ours that say that a statement is being run
RUNS_STATEMENT = re.compile(r"^(_?SPI_\w+|PortalRun|ExecutorRun|ExecutorStart|ProcessUtility|pg_analyze\w*|pg_plan_query|RI_FKey\w+|ExecCallTriggerFunc)")
MORE_TIME = 6           # times the time that was asked for, at most, until enough was seen
HANG_AFTER = 40         # seconds after which a call is cancelled from outside
HANG_GRACE = 15         # seconds for it to end then
QUEUES = [("z0", "std+topic+policy"), ("z1", "std+notify+topic+unique"), ("z2", "unlogged+topic+unique"), ("z3", "id+policy+unique"), ("z4", "time"),
          ("z5", "std+group+policy"), ("z6", "std+group+notify+trigger+policy"), ("z7", "id+group+trigger+unique"), ("z8", "drops+notify"),
          ('Z q"u%s', "std+group+unique"), ("\u00e9%d\u4e2d", "std+notify"),
          ("x" * 44, "id"), ("z9", "time+group")] + list(STREAMS)


def say(text):
    print(text, flush=True)


def connect(database="fuzz", user="postgres", **more):
    return psycopg.connect(dbname=database, user=user, autocommit=True, application_name="fuzz supervisor", **more)


class Log:
    """The server's log, read as it grows"""

    ENTRY = re.compile(r"^\d{4}-\d\d-\d\d [\d:.]+ \w+ \[(\d+)\] (\w{5}) ?(.*)$")

    def __init__(self, path):
        self.path = path
        self.file = open(path, encoding="utf-8", errors="replace")
        self.file.seek(0, os.SEEK_END)
        self.pending = ""
        self.recent = collections.deque(maxlen=400)

    def lines(self):
        text = self.pending + self.file.read()
        parts = text.split("\n")
        self.pending = parts.pop()
        self.recent.extend(parts)
        return parts


class Run:
    def __init__(self, options):
        self.options = options
        self.rng = random.Random("%s supervisor" % options.seed)
        self.shared = Shared()
        self.crashes = multiprocessing.RawValue(ctypes.c_double, 0)
        self.violations = collections.defaultdict(list)
        self.found = collections.Counter()      # crashes by where they were
        self.clients = {}
        self.counts = collections.Counter()
        self.log = Log(os.path.join(options.data, "log"))
        self.conn = None
        self.asked = {}         # pid -> when it was asked to end, and how
        self.trapped = None         # what a process said before it died
        self.undefined = False
        self.show = 0               # so many more lines of the log are of interest
        self.trace = []
        self.suspect = None         # an expected internal error whose backtrace may follow
        self.names = {}         # of frames
        self.restarts = 0
        self.server = os.path.join(subprocess.run(["pg_config", "--bindir"], capture_output=True, text=True, check=True).stdout.strip(), "postgres")

    def violate(self, what, text):
        self.violations[what].append(text)
        if len(self.violations[what]) <= 5:
            say("# %s: %s" % (what, text))

    # ---- preparation ----

    def prepare(self):
        admin = connect("postgres")
        for role in ("maker", "keeper", "stranger", "dbowner"):
            admin.execute("CREATE ROLE %s LOGIN" % role)
        self.make_database("fuzz", "postgres")
        with connect(user="keeper") as conn:
            conn.execute("SET client_min_messages = error")
            innocent.make(conn, self.options.mode == "a")
        if self.options.mode == "b":
            self.make_database("fuzz_template", "dbowner")
            admin.execute("CREATE DATABASE fuzz_ext TEMPLATE fuzz_template OWNER dbowner")
            for number in range(2):
                self.make_database("fuzz_trial%d" % number, "dbowner", False)
        with connect() as conn:
            self.verbs = calls.load(conn)
        admin.close()
        self.conn = connect("postgres")

    def make_database(self, name, owner, queues=True):
        """owner: who installs the extension"""
        with connect("postgres") as conn:
            conn.execute("CREATE DATABASE %s OWNER dbowner" % name)
        here = os.path.dirname(os.path.abspath(__file__))
        with connect(name) as conn, open(os.path.join(here, "setup.sql"), encoding="utf-8") as file:
            conn.execute("SET client_min_messages = error")
            conn.execute(file.read())
            if self.options.mode != "c":
                # nobody should be granted that; here it is for more damage
                conn.execute("GRANT USAGE, CREATE ON SCHEMA partman TO maker, keeper, dbowner")
                conn.execute("GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA partman TO maker, keeper, dbowner")
        with connect(name, owner) as conn:
            conn.execute("SET client_min_messages = error")
            conn.execute("CREATE EXTENSION pgmq")
        if self.options.mode == "c":
            rights.prepare(connect)
            return
        with connect(name, owner) as conn:
            conn.execute("GRANT ALL ON SCHEMA pgmq TO maker, keeper")
            conn.execute("GRANT ALL ON ALL TABLES IN SCHEMA pgmq TO maker, keeper")
        if not queues:
            return
        with connect(name, "maker") as conn:
            conn.execute("SET client_min_messages = error")
            for queue, kind in QUEUES:
                for sql in damage.make_queue(queue, kind):
                    conn.execute(sql)

    # ---- clients ----

    def start(self, client):
        process = multiprocessing.get_context("fork").Process(target=client.main, daemon=True)
        process.start()
        self.clients[client.name] = (process, client)

    def start_clients(self):
        options = self.options
        common = (self.shared,)
        names = [name for name, _ in QUEUES]
        more = {"logs": options.logs, "seed": options.seed}
        if options.mode == "c":
            rights.start(self, common, more)
        else:
            for number in range(options.clients):
                user = "postgres" if number % 4 == 3 else "maker"
                kind = innocent.LedgerCaller if options.mode == "a" else Caller
                database = "fuzz_ext" if options.mode == "b" and number % 2 == 1 else "fuzz"
                self.start(kind(*common, name="caller%d" % number, user=user, database=database, verbs=self.verbs, queues=QUEUES, make=damage.make_queue,
                                extreme=self.rng.choice((0.05, 0.15, 0.4)), **more))
            self.start(Finisher(*common, name="finisher", user="postgres", **more))
        if options.mode == "b":
            for number in range(2):
                rng = random.Random("%s values %d" % (options.seed, number))
                self.start(damage.Breaker(*common, name="breaker%d" % number, queues=QUEUES, values=Values(rng, names, 0.5), **more))
                self.start(damage.Trial(*common, name="trial%d" % number, user="dbowner", database="fuzz_trial%d" % number, queues=QUEUES, values=Values(rng, names, 0.5),
                                        template=None, **more))
            self.start(damage.ExtensionBreaker(*common, name="extbreaker", user="dbowner", database="fuzz_ext", queues=QUEUES, values=Values(rng, names, 0.5),
                                               template="fuzz_template", **more))
            self.start(Finisher(*common, name="extfinisher", user="postgres", database="fuzz_ext", **more))
        self.start(innocent.Sender(*common, name="sender", user="keeper", **more))
        for queue in innocent.INNOCENT:
            self.start(innocent.Consumer(*common, name="consumer_" + queue, user="keeper", queue=queue, crashes=self.crashes, **more))
        self.start(innocent.Watcher(*common, name="watcher", user="postgres", **more))

    # ---- what is seen ----

    def last_statements(self, pid, count=25):
        lines = []
        for path in sorted(glob.glob(os.path.join(self.options.logs, "*.sql.old")) + glob.glob(os.path.join(self.options.logs, "*.sql"))):
            with open(path, encoding="utf-8") as file:
                mine = [line for line in file if line.startswith("%d " % pid)]
            lines += mine
            if mine:
                source = os.path.basename(path)
        if not lines:
            return ["    no client's (a worker)"]
        return ["    session " + source] + ["    " + json.loads(line.split(" ", 2)[2])[:2000] for line in lines[-count:]]

    def resolve(self, frames):
        """Names for the frames of a backtrace"""
        names = []
        for frame in frames[:40]:
            match = re.match(r"(.+)\((\w*)\+(0x[0-9a-f]+)\) ?\[", frame)
            if not match or "trace.so" in frame or "libc.so" in frame:
                continue
            binary, symbol, offset = match.groups()
            if binary.startswith("postgres"):       # as it shows itself
                binary = self.server
            if (binary, symbol, offset) not in self.names:
                self.names[(binary, symbol, offset)] = self.name_of(binary, symbol, int(offset, 16))
            names.append(self.names[(binary, symbol, offset)])
        return names

    @staticmethod
    def name_of(binary, symbol, offset):
        ours = "pgmq.so" in binary
        if symbol and not ours:
            return symbol
        if symbol:
            out = subprocess.run("nm '%s' | awk '$3 == \"%s\" { print $1 }'" % (binary, symbol), shell=True, capture_output=True, text=True, check=False).stdout
            offset += int(out.strip() or "0", 16)
        out = subprocess.run(["addr2line", "-f", "-s", "-e", binary, hex(offset - 1)], capture_output=True, text=True, check=False).stdout.split("\n") + [""]
        if ours:
            return "pgmq:%s (%s)" % (out[0], out[1])
        return out[0] if out[0] not in ("", "??") else os.path.basename(binary) + hex(offset)

    def crashed(self, pid, what):
        frames = self.resolve(self.trace)
        self.trace = []
        ours = [frame for frame in frames if frame.startswith("pgmq:")]
        signature = "%s at %s" % (re.sub(r" \(PID \d+\)", "", what), " < ".join(ours[:3]) if ours else " < ".join(frames[:6]) or "?")
        self.found[signature] += 1
        self.crashes.value = time.time()
        if self.found[signature] == 1:
            say("# %.0f s, crash of pid %d: %s" % (time.monotonic() - self.began, pid, signature))
            for frame in frames[:16]:
                say("#   " + frame)
            for line in self.last_statements(pid):
                say("#" + line)
        self.violations["crash"].append(signature)

    def look_at_log(self):
        for line in self.log.lines():
            entry = Log.ENTRY.match(line)
            if self.suspect is not None and not self.belongs_to_suspect(line, entry):
                self.judge_suspect()
            if self.show > 0:
                self.show -= 1
                say("#   " + line[:300])
            if line.startswith("FUZZTRACE "):
                self.trace = []
            elif re.match(r".+\(\w*\+0x[0-9a-f]+\)\[0x[0-9a-f]+\]$", line) and not entry:
                self.trace.append(line)
            elif line.startswith("TRAP: "):
                self.trapped = re.sub(r", PID: \d+", "", line)
            elif "runtime error: " in line:
                # Its process ends with 1, as after FATAL
                self.trapped = re.sub(r"0x[0-9a-f]+", "0x", line)
                self.undefined = True
            elif self.undefined and re.search(r"\(PID \d+\) exited with exit code 1", line):
                self.undefined = False
                self.crashed(int(re.search(r"PID (\d+)", line).group(1)), self.trapped)
                self.trapped = None
            elif "terminated by signal" in line or "PANIC:" in line or re.search(r"server process \(PID \d+\) exited with exit code [^01]", line):
                match = re.search(r"PID (\d+)", line)
                pid = int(match.group(1)) if match else int(entry.group(1)) if entry else 0
                what = self.trapped or line.split("LOG:", 1)[-1].strip()
                self.trapped = None
                self.crashed(pid, what)
            elif "database system is ready" in line:
                self.restarts += 1
            elif entry:
                self.look_at_entry(line, *entry.groups())

    def look_at_entry(self, line, pid, state, rest):
        self.counts["log " + state] += 1
        if "CANARY" in line:
            rights.check_canary(self, line)
        if state.startswith("XX") and re.search(r"(ERROR|FATAL|PANIC|WARNING|LOG): ", rest):
            self.internal_error(line, int(pid), rest)
        elif state == "58P01" or state == "58030":
            self.counts["system errors"] += 1

    def belongs_to_suspect(self, line, entry):
        """Whether this is another line of the same report; notes a frame of its backtrace"""
        if entry:
            return entry.group(1) == self.suspect["pid"] and re.search(r" (DETAIL|HINT|CONTEXT|QUERY|LOCATION|BACKTRACE|STATEMENT): ", " " + entry.group(3)) is not None
        if re.match(r"\t.+\(\w*\+0x[0-9a-f]+\) \[0x[0-9a-f]+\]$", line):
            self.suspect["frames"].append(line.strip())
        return line.startswith("\t")

    def judge_suspect(self):
        """Did it come from a statement?"""
        suspect, self.suspect = self.suspect, None
        frames = self.resolve(suspect["frames"])
        ours = [i for i, frame in enumerate(frames) if frame.startswith("pgmq:")]
        if frames:
            self.counts["expected internal errors with a backtrace"] += 1
        if not ours or any(RUNS_STATEMENT.match(frame) for frame in frames[:ours[0]]):
            return
        self.report_internal(suspect["line"], int(suspect["pid"]), "%s in %s" % (suspect["rest"], " < ".join(frames[i] for i in ours[:3])))

    def internal_error(self, line, pid, rest):
        for pattern, reason in EXPECTED_INTERNAL:
            if re.search(pattern, rest):
                self.counts["expected: " + pattern] += 1
                self.suspect = {"pid": str(pid), "line": line, "rest": rest, "frames": []}
                return
        self.report_internal(line, pid, rest)

    def report_internal(self, line, pid, rest):
        text = re.sub(r"\d+", "N", re.sub(r"^.*?(ERROR|FATAL|WARNING|LOG|PANIC):", r"\1:", rest))
        self.found["internal: " + text] += 1
        if self.found["internal: " + text] == 1:
            say("# %.0f s, internal error: %s" % (time.monotonic() - self.began, line))
            for statement in self.last_statements(pid, 6):
                say("#" + statement)
        self.violations["internal"].append(text)

    def sessions(self):
        try:
            if self.conn is None or self.conn.closed:
                self.conn = connect("postgres")
            return self.conn.execute(
                "SELECT pid, extract(epoch FROM clock_timestamp() - coalesce(query_start, backend_start))::float, query, application_name, wait_event_type,"
                " wait_event, backend_type, datname FROM pg_stat_activity WHERE (state = 'active' AND application_name LIKE 'fuzz %'"
                " AND application_name <> 'fuzz supervisor') OR backend_type LIKE 'pgmq%'").fetchall()
        except psycopg.Error:
            self.conn = None
            return []

    def watch_sessions(self):
        """What lasts is cancelled, then terminated; who heeds neither hangs"""
        now = time.monotonic()
        rows = self.sessions()
        there = {row[0] for row in rows}
        for pid in [pid for pid in self.asked if pid not in there]:
            del self.asked[pid]
        for pid, seconds, query, name, wait_type, wait, backend, database in rows:
            # The launcher lives on; a round of the worker has an end
            if seconds < HANG_AFTER or backend == "pgmq launcher" or backend == "pgmq announcer":
                if pid in self.asked and seconds < HANG_AFTER:
                    del self.asked[pid]
                continue
            if pid not in self.asked and backend.startswith("pgmq"):
                # of which nobody expects that it can be cancelled
                self.asked[pid] = (now, "terminate")
                self.violate("hang", "%s (%s) works for %d s, waits for %s/%s: %s" % (backend, database, seconds, wait_type, wait, query[:500]))
                self.signal("pg_terminate_backend", pid)
            elif pid not in self.asked:
                self.asked[pid] = (now, "cancel")
                if wait_type != "Lock" and not re.search(r"poll|wait|sleep|very_slow", query):
                    self.violate("hang", "%s (%s, %s) works for %d s, waits for %s/%s: %s" % (name, backend, database, seconds, wait_type, wait, query[:500]))
                self.counts["calls cancelled for their time"] += 1
                self.signal("pg_cancel_backend", pid)
            elif self.asked[pid][1] == "cancel" and now > self.asked[pid][0] + HANG_GRACE:
                self.asked[pid] = (now, "terminate")
                self.violate("hang", "%s (%s) does not heed a cancel: %s" % (name, backend, query[:500]))
                self.signal("pg_terminate_backend", pid)
            elif self.asked[pid][1] == "terminate" and now > self.asked[pid][0] + HANG_GRACE:
                self.asked[pid] = (now, "kill")
                self.violate("hang", "%s (%s) does not heed pg_terminate_backend: %s" % (name, backend, query[:500]))
                for line in self.last_statements(pid, 8):
                    say("#" + line)
                self.stack(pid)
                subprocess.run(["kill", "-9", str(pid)], check=False)

    def stack(self, pid):
        """Where it is, from a signal that has it write its frames"""
        subprocess.run(["kill", "-SEGV", str(pid)], check=False)
        time.sleep(1)

    def signal(self, function, pid):
        try:
            self.conn.execute("SELECT %s(%d)" % (function, pid))
        except psycopg.Error:
            self.conn = None

    def disturb(self):
        """Cancel one of the callers, rarely terminate one"""
        rows = [row for row in self.sessions() if row[3].startswith("fuzz caller") or row[3].startswith("fuzz breaker")]
        if rows:
            pid = self.rng.choice(rows)[0]
            what = "pg_terminate_backend" if self.rng.random() < 0.1 else "pg_cancel_backend"
            self.signal(what, pid)
            self.counts["disturbed by " + what] += 1

    # ---- the run ----

    def run(self):
        self.began = time.monotonic()
        self.start_clients()
        due = {self.look_at_log: 0.2, self.watch_sessions: 1, self.disturb: 0.7 if self.options.mode != "c" else 1e9}
        at = {what: self.began + often for what, often in due.items()}
        # A machine that is busy with other things gets more time to see enough
        while time.monotonic() < self.began + self.options.seconds or (
                time.monotonic() < self.began + MORE_TIME * self.options.seconds and self.missing(self.read_counts())):
            time.sleep(0.05 if time.monotonic() < self.began + self.options.seconds else 1)
            for what, often in due.items():
                if time.monotonic() >= at[what]:
                    what()
                    at[what] = time.monotonic() + often * self.rng.uniform(0.5, 1.5)
            if self.shared.failed.value or (self.violations and not self.options.go_on):
                break
        self.took = time.monotonic() - self.began

    def stop(self):
        self.shared.stop.value = 1
        deadline = time.monotonic() + 45
        for name, (process, _) in self.clients.items():
            while process.is_alive() and time.monotonic() < deadline:
                process.join(0.2)
                self.look_at_log()
                self.watch_sessions()
                self.end_waits()
            if process.is_alive():
                self.violate("hang", "client %s does not end" % name)
                process.kill()
        self.counts = self.read_counts(self.violate)
        self.look_at_log()

    def read_counts(self, violate=None):
        """Those of the clients, as they have saved them, with ours"""
        counts = collections.Counter(self.counts)
        for path in glob.glob(os.path.join(self.options.logs, "*.counts")):
            with open(path, encoding="utf-8") as file:
                saved = json.load(file)
            counts.update(saved["counts"])
            for what, text in saved["violations"] if violate else ():
                violate(what, text)
        return counts

    def end_waits(self):
        for row in self.sessions():
            if row[1] > 3 and row[3].startswith("fuzz"):
                self.signal("pg_cancel_backend", row[0])

    def finish(self):
        """What must hold when all is quiet"""
        deadline = time.monotonic() + 60
        while True:
            try:
                conn = connect()
                break
            except psycopg.Error:
                if time.monotonic() > deadline:
                    self.violate("crash", "the server does not come back")
                    self.shutdown()
                    return
                time.sleep(0.2)
        for database in ("fuzz", "fuzz_ext"):
            try:
                with connect(database) as other:
                    for (gid,) in other.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall():
                        other.execute("COMMIT PREPARED '%s'" % gid.replace("'", "''"))
            except psycopg.Error:
                pass
        # Somebody may have left locks or settings behind, but not for us
        conn.execute("SET statement_timeout = '60s'")
        try:
            left = innocent.drain(conn, 20)
            if left:
                self.violate("books", "left over by reads: %s" % left)
        except psycopg.Error as error:
            self.violate("innocent", "drain: %s" % error)
        for queue in list(innocent.INNOCENT) + (list(innocent.LEDGER) if self.options.mode == "a" else []):
            for text in innocent.balance(conn, queue, self.crashes.value)[:5]:
                self.violate("books", text)
        rights.check_end(self, conn)
        conn.close()
        if self.conn is not None:
            self.conn.close()
        self.look_at_log()
        self.shutdown()
        if self.suspect is not None:
            self.judge_suspect()

    def shutdown(self):
        began = time.monotonic()
        done = subprocess.run(["pg_ctl", "-D", self.options.data, "-m", "fast", "-w", "-t", "30", "-s", "stop"], check=False).returncode == 0
        took = time.monotonic() - began
        if not done or took > 20:
            self.violate("shutdown", "it took %.1f s%s" % (took, "" if done else " and was not done then"))
            subprocess.run(["pg_ctl", "-D", self.options.data, "-m", "immediate", "-w", "-s", "stop"], check=False)
        self.counts["shutdown, ms"] = int(took * 1000)
        self.look_at_log()

    # ---- whether it could have noticed ----

    def missing(self, counts):
        """A fuzzer that does nothing notices nothing: what was not done often enough"""
        minutes = self.options.seconds / 60
        wanted = {"innocent sent": 100 * minutes, "innocent consumed": 100 * minutes, "over all queues, rounds": 3 * minutes, "notifications": 3 * minutes}
        if self.options.mode in "ab":
            wanted.update({"transactions": 200 * minutes, "savepoints rolled back": 50 * minutes, "cursors": 20 * minutes, "prepared": 5 * minutes,
                           "call DO block": 50 * minutes, "connections without statement_timeout": minutes / 2})
            for verb in {verb.name for verb in self.verbs}:
                # each by chance: a few in a minute, and of the usual ones most of them done
                wanted["call " + verb] = minutes / 3 if minutes >= 3 and not verb.startswith("_") else 0
            for verb in ("send", "read", "pop", "send_batch", "delete", "set_vt", "read_grouped"):
                wanted["done " + verb] = 5 * minutes
            for state in ("57014", "22023", "42P01"):
                wanted["error " + state] = minutes / 2
        if self.options.mode == "a":
            wanted["done ledger"] = 100 * minutes
        if self.options.mode == "b":
            kinds = sum(1 for what in counts if what.startswith("damage ") and counts[what])
            counts["kinds of damage"] = kinds
            wanted.update({"damages": 40 * minutes, "kinds of damage": min(40 * minutes, 100), "repairs": 10 * minutes, "trials": 15 * minutes})
        if self.options.mode == "c":
            wanted.update(rights.enough(minutes))
        return ["%s: %d, wanted %d" % (what, counts[what], least) for what, least in wanted.items() if counts[what] < int(least)]

    def enough(self):
        missing = self.missing(self.counts)
        # If it stopped early, or a crash took some of the time away from the clients, that is enough
        if not self.violations and not self.found:
            for text in missing:
                self.violate("enough", text)

    def report(self):
        def total(prefix):
            return sum(count for what, count in self.counts.items() if what.startswith(prefix))
        say("# mode %s, %.0f s: %d calls, %d of them done, %d transactions, %d restarts, %d damages of %d kinds" % (
            self.options.mode, self.took, total("call "), total("done "), self.counts["transactions"], self.restarts, self.counts["damages"], self.counts["kinds of damage"]))
        say("# errors: " + ", ".join("%s %d" % (what[6:], count) for what, count in self.counts.most_common() if what.startswith("error ")))
        say("# " + ", ".join("%s %d" % (what, count) for what, count in sorted(self.counts.items())
                            if not re.match(r"call |done |failed |error |damage |log ", what)))
        if self.options.verbose:
            for what, count in sorted(self.counts.items()):
                say("#   %s: %d" % (what, count))
        for signature, count in self.found.most_common():
            say("# %d times: %s" % (count, signature))
        for name, promise in INVARIANTS:
            broken = self.violations[name]
            say("%s - fuzz %s: %s%s" % ("not ok" if broken else "ok", self.options.mode, promise, " (%d times)" % len(broken) if broken else ""))
        return 1 if any(self.violations.values()) else 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", required=True)
    parser.add_argument("--mode", choices=("a", "b", "c"), required=True)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--clients", type=int, default=6)
    parser.add_argument("--go-on", action="store_true", help="do not stop at the first violation")
    parser.add_argument("--verbose", action="store_true")
    parser.add_argument("--data", required=True)
    parser.add_argument("--logs", required=True)
    run = Run(parser.parse_args())
    run.prepare()
    try:
        run.run()
    finally:
        run.stop()
    run.finish()
    run.enough()
    sys.exit(run.report())


if __name__ == "__main__":
    main()

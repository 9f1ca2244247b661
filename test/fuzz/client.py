"""A client process: its connection, the log of its statements, and its random transactions.

Every statement is logged before it is sent, by one write(), with the pid of the
backend: the last ones of a backend that crashed are found by that pid.
"""
import collections
import ctypes
import json
import multiprocessing
import os
import random
import signal
import time
import traceback

import psycopg
from psycopg.types.string import TextLoader

import calls
import values

LOG_SIZE = 2000000
# Not default_transaction_deferrable: a cancel while a savepoint waits for a safe snapshot leaves the server in a state
# that fails an assertion of its own at the next statement, without any extension.
SETTINGS = (
    "enable_seqscan = off", "enable_indexscan = off", "enable_bitmapscan = off", "enable_indexonlyscan = off", "enable_sort = off",
    "enable_nestloop = off", "enable_hashjoin = off", "enable_material = off", "plan_cache_mode = force_custom_plan",
    "plan_cache_mode = force_generic_plan", "timezone = 'Asia/Kathmandu'", "timezone = 'America/New_York'", "datestyle = 'German'",
    "datestyle = 'SQL, DMY'", "intervalstyle = 'sql_standard'", "search_path = ''", "search_path = 'pg_catalog'", "search_path = 'pgmq'",
    "search_path = 'fuzz, pg_catalog'", "standard_conforming_strings = off", "escape_string_warning = off", "quote_all_identifiers = on",
    "work_mem = '64kB'", "statement_timeout = '30ms'", "statement_timeout = '5ms'", "lock_timeout = '20ms'", "row_security = off",
    "row_security = on", "jit = on", "jit_above_cost = 0", "default_transaction_read_only = on", "default_transaction_isolation = 'serializable'",
    "default_table_access_method = 'heap2'", "default_table_access_method = 'nohandler'", "extra_float_digits = -15", "bytea_output = 'escape'",
    "transform_null_equals = on", "array_nulls = off", "xmloption = 'document'", "check_function_bodies = off", "constraint_exclusion = on",
    "enable_partition_pruning = off", "max_parallel_workers_per_gather = 4", "parallel_setup_cost = 0", "min_parallel_table_scan_size = 0",
    "synchronous_commit = off", "client_min_messages = 'debug1'", "idle_in_transaction_session_timeout = '100ms'", "temp_buffers = '800kB'",
    "cursor_tuple_fraction = 0.001", "from_collapse_limit = 1", "lc_messages = 'C'", "default_toast_compression = 'pglz'",
    "pgmq.plan_cache_size = 1", "pgmq.plan_cache_size = 2", "pgmq.rescan_interval = 0", "pgmq.rescan_interval = 2147483647",
    "pgmq.recheck_interval = 1", "pgmq.recheck_interval = 2147483647", "pgmq.maintenance_lock_timeout = 1", "pgmq.tenant = 'x'",
    "tcp_keepalives_idle = 0", "gin_fuzzy_search_limit = 1", "role = 'none'")
# A subtransaction that ends during a commit, as an EXCEPTION block in a cursor WITH HOLD does, fails an assertion of the
# server itself, without any extension.  What goes over all queues has one for each.
ASSERTIONS = bool(os.environ.get("FUZZ_ASSERTIONS"))
SUPERUSER_SETTINGS = ("session_replication_role = 'replica'", "session_replication_role = 'local'", "role = 'maker'", "role = 'stranger'",
                      "session_authorization = 'maker'", "debug_print_plan = off", "log_min_duration_statement = 0")


# Python's own types can't hold all of these; that they are text of the right encoding is checked
for kind in ("timestamptz", "timestamp", "date", "interval", "numeric", "json", "jsonb"):
    psycopg.adapters.register_loader(kind, TextLoader)


class Stopped(Exception):
    """The run is over"""


class Lost(Exception):
    """The connection is gone, and the transaction with it"""


class Shared:
    """What processes share, without locks"""

    def __init__(self):
        self.stop = multiprocessing.RawValue(ctypes.c_int, 0)
        self.failed = multiprocessing.RawValue(ctypes.c_int, 0)     # a client has a bug
        self.damage = multiprocessing.RawValue(ctypes.c_int, 0)     # tables of the extension are damaged at the moment


class Client:
    def __init__(self, shared, name, logs, seed, user="maker", database="fuzz"):
        self.shared = shared
        self.name = name
        self.logs = logs
        self.rng = random.Random("%s %s" % (seed, name))
        self.user = user
        self.database = database
        self.conn = None
        self.pid = 0
        self.file = None
        self.written = 0
        self.transaction = 0
        self.nested = False         # inside of what makes no sense without this connection
        self.counts = collections.Counter()
        self.violations = []
        self.last_error = ("", "")
        self.saved = 0

    # ---- the connection ----

    def connect(self):
        while True:
            if self.shared.stop.value:
                raise Stopped
            try:
                self.conn = psycopg.connect(dbname=self.database, user=self.user, autocommit=True,
                                            application_name="fuzz " + self.name, prepare_threshold=None)
                self.pid = self.conn.info.backend_pid
                self.counts["connections"] += 1
                self.connected()
                return
            except psycopg.Error as error:
                self.last_error = ("connect", str(error))
                time.sleep(0.05)

    def connected(self):
        """What a new connection begins with"""

    def log(self, text):
        if self.file is None or self.written > LOG_SIZE:
            path = os.path.join(self.logs, self.name + ".sql")
            if self.file is not None:
                os.close(self.file)
                os.replace(path, path + ".old")
            self.file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
            self.written = 0
        line = b"%d %.3f " % (self.pid, time.time()) + json.dumps(text).encode() + b"\n"
        self.written += os.write(self.file, line)

    def violate(self, what, text):
        self.violations.append((what, "%s (%s, pid %d): %s" % (self.name, self.user, self.pid, text)))
        self.log("-- VIOLATION " + what + ": " + text)

    def run(self, sql, verb=None, quiet=False):
        """The rows, [] for a statement without any, None after an error, which is counted"""
        if self.conn is None or self.conn.closed:
            self.connect()
        self.log(sql)
        began = time.monotonic()
        state = None
        rows = None
        try:
            cursor = self.conn.execute(sql)
            rows = cursor.fetchall() if cursor.description else []
        except UnicodeDecodeError as error:
            self.violate("results", "%s returned %r" % (sql[:300], error))
        except psycopg.Error as error:
            state = error.sqlstate or "lost"
            self.last_error = (state, str(error))
            self.log("-- %s %s" % (state, str(error)[:300]))
            if error.sqlstate is None or self.conn.closed:
                self.counts["connection lost"] += 1
                self.conn.close()
                if self.nested:
                    raise Lost from error
        if verb:
            self.counts["call " + verb] += 1
            self.counts[("done " if state is None else "failed ") + verb] += 1
        if state:
            self.counts["error " + state] += 1
        took = time.monotonic() - began
        if took > 5 and not quiet:
            self.log("-- took %.1f s" % took)
        return rows

    def in_transaction(self):
        return not self.conn.closed and self.conn.info.transaction_status != psycopg.pq.TransactionStatus.IDLE

    def nap(self, seconds):
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            if self.shared.stop.value:
                raise Stopped
            time.sleep(min(0.05, seconds))

    def broken(self):
        return self.conn.info.transaction_status == psycopg.pq.TransactionStatus.INERROR

    # ---- the process ----

    def work(self):
        raise NotImplementedError

    def step(self):
        """Once round; the loop ends with the run"""

    def main(self):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        try:
            self.connect()
            while not self.shared.stop.value:
                try:
                    self.step()
                    if time.monotonic() > self.saved + 2:
                        self.save()
                except psycopg.OperationalError as error:       # the server went down between two calls of run()
                    self.last_error = ("lost", str(error))
                    self.counts["connection lost"] += 1
                    self.conn.close()
                    self.nap(0.1)
        except Stopped:
            pass
        except Exception as error:      # a bug of the fuzzer
            self.failure(error)
        finally:
            self.save()
            try:
                if self.conn is not None:
                    self.conn.close()
            except psycopg.Error:
                pass

    def failure(self, error):
        self.log("-- " + traceback.format_exc())
        self.violations.append(("fuzzer", "%s: %s" % (self.name, traceback.format_exc())))
        self.shared.failed.value = 1

    def save(self):
        path = os.path.join(self.logs, self.name + ".counts")
        with open(path + ".new", "w", encoding="utf-8") as file:
            json.dump({"counts": self.counts, "violations": self.violations}, file)
        os.replace(path + ".new", path)
        self.saved = time.monotonic()


class Caller(Client):
    """Random calls in random transactions"""

    def __init__(self, *args, verbs, queues, make, extreme=0.15, **more):
        super().__init__(*args, **more)
        self.queues = queues
        self.make = make        # the statements that make a queue
        self.calls = calls.Calls(self.rng, verbs, values.Values(self.rng, [name for name, _ in queues], extreme))
        self.holds = 0
        self.prepared = 0

    def connected(self):
        if self.rng.random() < 0.8:
            # The rest is watched from outside
            self.run("SET statement_timeout = '%ds'" % self.rng.choice((1, 5)))
        else:
            self.counts["connections without statement_timeout"] += 1
        if self.rng.random() < 0.3:
            self.run("LISTEN \"pgmq.q_z1.INSERT\"; LISTEN \"pgmq.q_z6.INSERT\"")
        while self.rng.random() < 0.3:
            self.setting("")
        self.holds = 0

    def setting(self, local):
        choice = SETTINGS + SUPERUSER_SETTINGS if self.user == "postgres" else SETTINGS
        # A session that can't do anything any more is of no use
        if not local:
            choice = [c for c in choice if "timeout" not in c and "read_only" not in c and "role =" not in c and "authorization" not in c]
        self.run("SET %s%s" % (local, self.rng.choice(choice)))

    def call(self):
        verb, sql = self.calls.statement()
        self.run(sql, verb.name)

    def block(self):
        self.run(self.calls.block(), "DO block")

    def cursor(self):
        rng = self.rng
        name = "c%d" % rng.randrange(4)
        verb = self.calls.of(("read", "pop", "send", "send_batch", "delete", "archive", "set_vt", "read_grouped", "read_grouped_rr",
                              "metrics_all", "list_partitions", "send_batch_topic", "test_routing", "read_grouped_head"))
        hold = rng.random() < 0.2 and not (ASSERTIONS and verb.name in ("metrics_all", "list_partitions"))
        call = self.calls.bare(verb)
        query = rng.choice(("SELECT * FROM %s", "SELECT %s", "SELECT %s FROM generate_series(1, 5)")) % call
        self.run("DECLARE %s %sCURSOR %sFOR %s" % (name, rng.choice(("", "SCROLL ", "NO SCROLL ")), "WITH HOLD " if hold else "", query),
                 verb.name)
        self.counts["cursors"] += 1
        for _ in range(rng.randrange(3)):
            self.run("%s %s FROM %s" % (rng.choice(("FETCH", "FETCH", "MOVE")), rng.choice(("1", "2", "ALL", "BACKWARD 1", "0")), name))
        if rng.random() < 0.4:
            self.run("CLOSE " + name)

    def anything(self):
        rng = self.rng
        what = rng.random()
        if what < 0.7:
            self.call()
        elif what < 0.82:
            self.block()
        elif what < 0.9:
            self.cursor()
        elif what < 0.95:
            self.setting("LOCAL ")
        elif what < 0.97:
            self.run("SET CONSTRAINTS ALL " + rng.choice(("IMMEDIATE", "DEFERRED")))
        else:
            self.run(rng.choice(("LISTEN \"pgmq.q_z%d.INSERT\"" % rng.randrange(8), "UNLISTEN *", "NOTIFY fuzz",
                                 "SELECT pg_sleep(0.01)", "FETCH 1 FROM c1", "SELECT * FROM pg_class LIMIT 3")))

    def savepoints(self, depth=0):
        """What happens inside of one, then its end: rolled back, released, or left open"""
        rng = self.rng
        name = "s%d" % rng.randrange(3)     # the same names again, so that they shadow each other
        self.run("SAVEPOINT " + name)
        for _ in range(rng.randint(1, 3)):
            if depth < 3 and rng.random() < 0.3:
                self.savepoints(depth + 1)
            else:
                self.anything()
            if self.broken() and rng.random() < 0.9:
                break
        end = rng.random()
        if end < (0.95 if self.broken() else 0.6):
            self.run("ROLLBACK TO " + name)
            self.counts["savepoints rolled back"] += 1
            if rng.random() < 0.4:
                self.run("RELEASE " + name)
        elif end < 0.85:
            self.run("RELEASE " + name)

    def xact(self):
        rng = self.rng
        self.transaction += 1
        self.run("BEGIN%s%s" % (rng.choice(("", "", "", " ISOLATION LEVEL REPEATABLE READ", " ISOLATION LEVEL SERIALIZABLE")),
                                " READ ONLY" if rng.random() < 0.04 else ""))
        # Locks in any order would deadlock most of the time
        for _ in range(rng.choice((1, 1, 2, 2, 3, 6))):
            if rng.random() < 0.4:
                self.savepoints()
            else:
                self.anything()
            if self.broken():
                break
        end = rng.random()
        if end < 0.6:
            self.run("COMMIT")
        elif end < 0.7:
            self.run("COMMIT AND CHAIN")
            self.anything()
            self.run("ROLLBACK" if end < 0.65 else "COMMIT")
        elif end < 0.82:
            self.run("PREPARE TRANSACTION 'fuzz-%s-%d'" % (self.name, self.transaction))
            self.counts["prepared"] += 1
        else:
            self.run("ROLLBACK")
        self.counts["transactions"] += 1

    def step(self):
        rng = self.rng
        if self.conn.closed:
            self.connect()
        what = rng.random()
        if what < 0.35:
            self.call()
        elif what < 0.45:
            self.block()
        elif what < 0.93:
            self.nested = True
            try:
                self.xact()
            except Lost:
                return
            finally:
                self.nested = False
        elif what < 0.94:
            # what was dropped comes back
            for sql in self.make(*rng.choice(self.queues)):
                self.run(sql)
        elif what < 0.955:
            self.run(rng.choice(("DISCARD ALL", "DISCARD PLANS", "RESET ALL", "CLOSE ALL", "DISCARD TEMP", "SELECT pg_backend_pid()")))
        elif what < 0.98:
            self.setting("")
        elif rng.random() < 0.3:
            self.conn.close()
        if not self.conn.closed and self.in_transaction():
            self.run("ROLLBACK")


class Finisher(Client):
    """Ends what others have prepared, after a while"""

    def step(self):
        for (gid,) in self.run("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()"
                               " AND prepared < clock_timestamp() - interval '0.3 s'") or ():
            how = "COMMIT" if self.rng.random() < 0.6 else "ROLLBACK"
            if self.run("%s PREPARED %s" % (how, values.lit(gid))) is not None:
                self.counts["prepared ended"] += 1
        self.nap(0.3)

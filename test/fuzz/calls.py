"""The calls: every function and procedure of the extension, in all the places where SQL can have them."""
import collections

Verb = collections.namedtuple("Verb", "name kind args result is_set")

# What takes others' work away is rare, so that runs stay interesting
WEIGHTS = {"drop_queue": 0.15, "purge_queue": 0.3, "create": 0.5, "create_unlogged": 0.3, "create_partitioned": 0.4,
           "convert_archive_partitioned": 0.3, "create_non_partitioned": 0.3, "create_fifo_indexes_all": 0.2, "maintain": 0.4,
           "metrics_all": 0.5, "send": 3, "send_batch": 1.5, "read": 5, "pop": 3, "delete": 2, "archive": 2, "set_vt": 2, "wait": 2,
           "wait_any": 2, "set_retention": 0.6, "rescan": 0.5, "create_fifo_index": 1, "_create_fifo_index_if_not_exists": 0.3,
           "enable_notify_insert": 1.5, "bind_topic": 2, "pause_queue": 0.1, "resume_queue": 1,
           "ack": 2, "nack": 2, "next": 2, "publish": 3, "publish_batch": 2, "receive": 4, "advance": 3, "drop_stream": 0.15, "create_stream": 0.5, "unsubscribe": 0.3,
           "subscribe": 2}


def load(conn):
    """From the catalog, so that none is forgotten; but one call of prepare_downgrade() locks and changes the queues
    of all other sessions, and one of upgrade_queues() waits for all their transactions"""
    rows = conn.execute(
        "SELECT p.proname, p.prokind, p.prorettype::regtype::text, p.proretset,"
        " ARRAY(SELECT coalesce(p.proargnames[i + 1], '') || '=' || p.proargtypes[i]::regtype::text"
        "       FROM generate_series(0, p.pronargs - 1) AS i ORDER BY i)"
        " FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'"
        " JOIN pg_extension AS e ON d.refobjid = e.oid AND e.extname = 'pgmq'"
        " WHERE p.proname NOT IN ('prepare_downgrade', 'upgrade_queues') ORDER BY p.oid::regprocedure::text").fetchall()
    return [Verb(name, kind, tuple(tuple(arg.split("=", 1)) for arg in args), result, is_set)
            for name, kind, result, is_set, args in rows]


class Calls:
    def __init__(self, rng, verbs, values):
        self.rng = rng
        self.verbs = verbs
        self.values = values
        same = collections.Counter(verb.name for verb in verbs)
        self.weights = [WEIGHTS.get(verb.name, 1) / (same[verb.name] if verb.name in WEIGHTS else 1) *
                        (0.1 if verb.name.startswith("_") else 1) for verb in verbs]

    def pick(self):
        return self.rng.choices(self.verbs, self.weights)[0]

    def bare(self, verb):
        args = [self.values.argument(*arg) for arg in verb.args]
        if verb.kind == "p":
            # INOUT arguments take anything
            return "pgmq.%s(%s)" % (verb.name, ", ".join(args))
        return "pgmq.%s(%s)" % (verb.name, ", ".join(args))

    def statement(self, verb=None):
        """A call as a statement, and the verb"""
        rng = self.rng
        verb = verb or self.pick()
        call = self.bare(verb)
        if verb.kind == "p":
            return verb, "CALL " + call
        if verb.result == "trigger" or rng.random() < 0.6:
            return verb, "SELECT * FROM " + call if verb.is_set else "SELECT " + call
        if verb.name in ("advance", "extend_lease", "return_lease"):
            # A consumer in one statement: other leases are rarely right
            more = {"advance": "r.event_id, r.lease", "extend_lease": "r.lease, 1", "return_lease": "r.lease"}[verb.name]
            of = (rng.randrange(2), rng.randrange(3))
            return verb, "SELECT pgmq.%s('y%d', 'sub%d', r.shard, %s) FROM pgmq.receive('y%d', 'sub%d', %d, 5) AS r" % (
                (verb.name,) + of + (more,) + of + (rng.choice((0, 1, 5)),))
        shape = rng.randrange(12)
        if shape == 0:
            return verb, "SELECT %s FROM generate_series(1, 3)" % call
        if shape == 1:
            return verb, "SELECT * FROM generate_series(1, 3) AS n, LATERAL %s AS x" % call
        if shape == 2:
            return verb, "EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM " + call
        if shape == 3:
            return verb, "WITH x AS MATERIALIZED (SELECT * FROM %s) SELECT count(*) FROM x" % call
        if shape == 4:
            return verb, "SELECT * FROM %s LIMIT 1" % call
        if shape == 5:
            return verb, "CREATE TEMP TABLE fuzz_t%d ON COMMIT DROP AS SELECT * FROM %s" % (rng.randrange(1000000), call)
        if shape == 6:
            return verb, "SELECT * FROM %s WITH ORDINALITY AS x ORDER BY 1 DESC" % call
        if shape == 7:
            return verb, "SELECT CASE WHEN random() < 0.5 THEN 0 ELSE (SELECT count(*) FROM %s) END" % call
        if shape == 8:
            other = self.bare(self.of(("read", "pop", "send", "metrics", "delete", "archive")))
            return verb, "SELECT * FROM ROWS FROM (%s, %s)" % (call, other)
        if shape == 9:
            other = self.bare(self.of(("read", "pop", "send", "metrics", "delete", "archive")))
            return verb, "SELECT (SELECT count(*) FROM %s), (SELECT count(*) FROM %s)" % (call, other)
        if shape == 10:
            return verb, "SELECT count(*) FROM (SELECT %s FROM (VALUES (1), (2)) AS v) AS x" % call
        return verb, "SELECT pgmq.send(%s, to_jsonb(x)) FROM %s AS x" % (self.values.name(), call)

    def of(self, names):
        return self.rng.choice([verb for verb in self.verbs if verb.name in names])

    def block(self, depth=0):
        """A DO block with exception blocks, nested at times"""
        return "DO $fuzz$ BEGIN\n%s\nEND $fuzz$" % "\n".join(self.block_lines(depth))

    def block_lines(self, depth):
        rng = self.rng
        lines = []
        for _ in range(rng.randint(1, 3)):
            verb = self.pick()
            if verb.kind == "p":
                # no CALL with INOUT arguments in PL/pgSQL without variables
                call = "CALL pgmq.maintain();" if verb.name == "maintain" else "EXECUTE %s;" % self.quoted("CALL " + self.bare(verb))
            else:
                call = "PERFORM %s;" % self.bare(verb)
            what = rng.random()
            if what < 0.55:
                inner = [call]
                if depth < 2 and rng.random() < 0.3:
                    inner += self.block_lines(depth + 1)
                if rng.random() < 0.4:
                    inner.append("RAISE EXCEPTION 'fuzz';")
                lines.append("BEGIN %s EXCEPTION WHEN OTHERS THEN %s END;" % (
                    "\n".join(inner), rng.choice(("NULL;", "NULL;", "PERFORM %s;" % self.bare(self.of(("send", "read", "pop"))), "RAISE;"))))
            elif what < 0.65 and depth == 0:
                lines.append(call + rng.choice((" COMMIT;", " ROLLBACK;")))
            elif what < 0.72:
                lines.append("FOR i IN 1..%d LOOP %s END LOOP;" % (rng.choice((3, 20)), call))
            else:
                lines.append(call)
        return lines

    @staticmethod
    def quoted(text):
        return "$q$" + text + "$q$"

"""Roles, their rights, and what their calls may do.

Two things are tried.  A matrix: roles with random rights call everything, and what is allowed and what is
refused with 42501 must be as docs/privileges.md says.  And hostile objects: a maker of queues hangs code on
everything that is its own, or that the documented rights let it write.  That code says in the server's log as
whom it runs.  It may run as its owner, and as somebody who has written to that very table by itself; nobody
else, and never as a superuser.
"""
import collections
import re
import time

import psycopg

from client import Client
from damage import LOG_COLUMNS, QUEUE_COLUMNS, in_words, is_stream, make_queue
from values import lit

# What a call needs: rights on the queue's table (q), its archive (a), its sequence (s), the extension's tables and the schema
NEEDS = {
    "SELECT * FROM pgmq.send('{q}', '{{}}'::jsonb)": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq.send('{q}', '{{}}'::jsonb, 0)": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq.send_batch('{q}', ARRAY['{{}}', '1']::jsonb[], now())": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq.send_unique('{q}', '1', 'key')": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq.send_unique_batch('{q}', '{{1,2}}', '{{key,other}}', '1 hour')": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq._send_batch('{q}', ARRAY['{{}}']::jsonb[], NULL, now())": "q:SELECT q:INSERT",
    "SELECT * FROM pgmq.read('{q}', 0, 2)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read('{q}', 0, 2147483647, '{{\"a\": 1}}')": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read_where('{q}', 0, 2, '{{}}', '{{\"h\": 1}}')": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read_with_poll('{q}', 0, 2, 0)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read_grouped('{q}', 0, 2)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read_grouped_rr('{q}', 0, 2)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.read_grouped_head('{q}', 0, 2)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.set_vt('{q}', 1::bigint, 0)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.set_vt('{q}', ARRAY[1, 2]::bigint[], 0)": "q:SELECT q:UPDATE",
    "SELECT pgmq.delete('{q}', 1::bigint)": "q:SELECT q:DELETE",
    "SELECT * FROM pgmq.delete('{q}', ARRAY[1, 2]::bigint[])": "q:SELECT q:DELETE",
    "SELECT * FROM pgmq.pop('{q}')": "q:SELECT q:UPDATE q:DELETE",
    "SELECT pgmq.archive('{q}', 1::bigint)": "q:SELECT q:DELETE a:INSERT",
    "SELECT * FROM pgmq.archive('{q}', ARRAY[1, 2]::bigint[])": "q:SELECT q:DELETE a:INSERT a:SELECT",
    "SELECT pgmq.ack('{q}', 1, 1)": "q:SELECT q:DELETE",
    "SELECT * FROM pgmq.ack_batch('{q}', ARRAY[1, 2], ARRAY[1, 1])": "q:SELECT q:DELETE",
    "SELECT pgmq.ack_archive('{q}', 1, 1)": "q:SELECT q:DELETE a:INSERT",
    "SELECT * FROM pgmq.ack_archive_batch('{q}', ARRAY[1, 2], ARRAY[1, 1])": "q:SELECT q:DELETE a:INSERT a:SELECT",
    "SELECT pgmq.nack('{q}', 1, 1, 'e')": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.nack_batch('{q}', ARRAY[1, 2], ARRAY[1, 1])": "q:SELECT q:UPDATE",
    "SELECT pgmq.release('{q}', 1, 1)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.touch_batch('{q}', ARRAY[1, 2], ARRAY[1, 1], 0)": "q:SELECT q:UPDATE",
    "SELECT * FROM pgmq.next('{q}', 0, 1, ARRAY[1], ARRAY[1])": "q:SELECT q:UPDATE q:DELETE",
    "SELECT * FROM pgmq.peek('{q}')": "q:SELECT",
    "SELECT pgmq.redrive('{q}')": "q:SELECT q:UPDATE q:DELETE",
    "SELECT pgmq.purge_queue('{q}')": "q:SELECT q:TRUNCATE",
    "SELECT * FROM pgmq.metrics('{q}')": "q:SELECT s:SELECT",
    "SELECT * FROM pgmq.queue_status('{q}')": "q:SELECT",
    "SELECT * FROM pgmq.list_queues()": "meta:SELECT",
    "SELECT pgmq.send_topic('{q}.x', '1'::jsonb)": "q:SELECT q:INSERT topic_bindings:SELECT",
    "SELECT * FROM pgmq.test_routing('x')": "topic_bindings:SELECT",
    "SELECT * FROM pgmq.list_topic_bindings()": "topic_bindings:SELECT",
    "SELECT pgmq.bind_topic('{q}.y', '{q}')": "meta:SELECT topic_bindings:INSERT topic_bindings:SELECT",
    "SELECT pgmq.unbind_topic('{q}.y', '{q}')": "topic_bindings:SELECT topic_bindings:DELETE",
    # on a stream of the same owner
    "SELECT pgmq.publish('{q}_s', '1', 'a')": "log:INSERT",
    "SELECT * FROM pgmq.publish_batch('{q}_s', ARRAY['1', '2']::jsonb[])": "log:INSERT",
    "SELECT pgmq.subscribe('{q}_s', 'new')": "log:SELECT",
    "SELECT * FROM pgmq.fetch('{q}_s', 0, 0, 5)": "log:SELECT",
    "SELECT * FROM pgmq.list_streams()": "stream:SELECT",
    "SELECT * FROM pgmq.list_subscriptions()": "subscription:SELECT",
    "SELECT * FROM pgmq.stream_lag()": "subscription:SELECT",
    "SELECT pgmq.bind_topic_stream('{q}.y', '{q}_s')": "topic_stream_bindings:INSERT topic_stream_bindings:SELECT",
    "SELECT pgmq.unbind_topic_stream('{q}.y', '{q}_s')": "topic_stream_bindings:SELECT topic_stream_bindings:DELETE",
    # for owners only
    "SELECT * FROM pgmq.receive('{q}_s', 'sub', 0, 5)": "owner",
    "SELECT * FROM pgmq.receive_with_poll('{q}_s', 'sub', 0, 5, 1)": "owner",
    "CALL pgmq.wait_stream('{q}_s', 'sub', 10)": "owner",
    "SELECT pgmq.advance('{q}_s', 'sub', 0, 1, 1)": "owner",
    "SELECT pgmq.extend_lease('{q}_s', 'sub', 0, 1, 1)": "owner",
    "SELECT pgmq.return_lease('{q}_s', 'sub', 0, 1)": "owner",
    "SELECT pgmq.seek('{q}_s', 'sub', 'latest', force => true)": "owner",
    "SELECT pgmq.unsubscribe('{q}_s', 'sub')": "owner",
    "SELECT pgmq.set_stream_retention('{q}_s', '1 s')": "owner",
    "SELECT pgmq.drop_stream('{q}_s')": "owner",
    "SELECT pgmq.drop_queue('{q}')": "owner",
    "SELECT pgmq.create_fifo_index('{q}')": "owner",
    "SELECT pgmq.convert_archive_partitioned('{q}')": "owner",
    "SELECT pgmq.set_retention('{q}', '0', true)": "owner",
    "SELECT pgmq.enable_notify_insert('{q}')": "owner",
    "SELECT pgmq.set_policy('{q}', retry_delay => '1 s')": "owner",
    "SELECT pgmq.reset_policy('{q}')": "owner",
    "SELECT pgmq.pause_queue('{q}', '-infinity')": "owner",
    "SELECT pgmq.resume_queue('{q}')": "owner",
    "SELECT pgmq.create('{q}')": "owner",
    # for everybody
    "SELECT pgmq.validate_routing_key('a.b')": "",
    "SELECT pgmq.format_table_name('{q}', 'q')": "",
}
RIGHTS = sorted({right for needs in NEEDS.values() for right in needs.split()} - {"owner"}) + [
    "meta:INSERT", "meta:DELETE", "partition_config:SELECT", "partition_config:INSERT", "partition_config:UPDATE", "schema:CREATE", "a:DELETE", "a:UPDATE",
    "notify_insert_throttle:SELECT", "notify_insert_throttle:INSERT", "notify_insert_throttle:UPDATE", "notify_insert_throttle:DELETE", "s:USAGE", "s:UPDATE"]
OBJECTS = {"log": "TABLE pgmq.s_%s_s", "q": "TABLE pgmq.q_%s", "a": "TABLE pgmq.a_%s", "s": "SEQUENCE pgmq.q_%s_msg_id_seq"}


class Matrix(Client):
    """A role with some rights at a time, which makes each call, on a queue of those rights and on another's"""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.number = 0

    def connected(self):
        self.run("SET client_min_messages = error")

    def grant(self, what, on, role):
        """Another session may be changing the same privileges; then the server refuses, and it is tried again"""
        sql = "GRANT %s ON %s TO %s" % (what, on, role)
        if not any(self.run(sql) is not None for _ in range(50)):
            self.violate("fuzzer", "could not " + sql)

    def step(self):
        rng = self.rng
        self.number += 1
        role = "r_%s_%d" % (self.name, self.number)
        queue, other = "m_%s_%d" % (self.name, self.number), "n_%s_%d" % (self.name, self.number)
        kind = rng.choice(("std", "std", "std+group", "std+notify", "unlogged", "id"))
        rights = {right for right in RIGHTS if rng.random() < 0.25}
        # Half of the time what one call needs, so that something is allowed
        for needs in rng.sample(list(NEEDS.values()), 3):
            rights |= set(needs.split()) - {"owner"}
        usage = rng.random() < 0.9
        self.run("CREATE ROLE %s LOGIN" % role)
        self.run("SET ROLE keeper")
        for name in (queue, other):
            for sql in make_queue(name, kind):
                self.run(sql)
            self.run("SELECT pgmq.bind_topic('%s.x', '%s')" % (name, name))
            self.run("SELECT pgmq.send_batch('%s', ARRAY['1', '2', '3', '4']::jsonb[])" % name)
            self.run("SELECT pgmq.create_stream('%s_s'), pgmq.subscribe('%s_s', 'sub'), pgmq.publish('%s_s', '1')" % (3 * (name,)))
        self.run("RESET ROLE")
        if usage:
            self.grant("USAGE", "SCHEMA pgmq", role)
        for right in rights:
            where, what = right.split(":")
            on = "SCHEMA pgmq" if where == "schema" else OBJECTS[where] % queue if where in OBJECTS else "TABLE pgmq." + where
            self.grant(what, on, role)
        before = self.state(other)
        with psycopg.connect(dbname="fuzz", user=role, autocommit=True, application_name="fuzz " + role) as conn:
            conn.execute("SET client_min_messages = error")
            # what drops it comes last
            for template, needs in sorted(NEEDS.items(), key=lambda item: item[1] == "owner"):
                allowed = usage and set(needs.split()) <= rights
                self.expect(conn, role, template.format(q=queue), allowed, rights)
                if needs.startswith(("q:", "log:", "owner")):
                    self.expect(conn, role, template.format(q=other), False, rights)
        if self.state(other) != before:
            self.violate("rights", "%s has changed %s" % (role, other))
        for name in (queue, other):
            self.run("SET ROLE keeper")
            self.run("SELECT pgmq.drop_queue('%s')" % name)
            self.run("SELECT pgmq.drop_stream('%s_s')" % name)
            self.run("RESET ROLE")
        self.run("DROP OWNED BY " + role)
        self.run("DROP ROLE " + role)
        self.counts["roles"] += 1

    def state(self, queue):
        return self.run("SELECT md5(string_agg((msg_id, read_ct, vt, message)::text, ',' ORDER BY msg_id)),"
                        " (SELECT count(*) FROM pgmq.topic_bindings WHERE queue_name = '%s') FROM pgmq.q_%s" % (queue, queue))

    def expect(self, conn, role, sql, allowed, rights):
        self.log("-- as %s: %s" % (role, sql))
        try:
            conn.execute(sql)
            state = None
        except psycopg.Error as error:
            state = error.sqlstate
            if state is None:
                raise
        self.counts["allowed" if allowed else "to be refused"] += 1
        if allowed and state == "42501":
            self.violate("rights", "%s is refused with %s" % (sql, ", ".join(sorted(rights))))
        if not allowed and state != "42501":
            self.violate("rights", "%s is not refused (%s) with %s" % (sql, state, ", ".join(sorted(rights))))


# ---- hostile objects ----

CANARY = """
CREATE SCHEMA evil;
GRANT USAGE ON SCHEMA evil TO PUBLIC;
CREATE FUNCTION evil.canary(what text) RETURNS boolean LANGUAGE plpgsql VOLATILE AS $$
BEGIN
	RAISE LOG 'CANARY % owner=% user=% session=% role=% super=%', what, 'maker', current_user, session_user,
		pg_catalog.current_setting('session_replication_role'), pg_catalog.current_setting('is_superuser');
	RETURN true;
END $$;
CREATE FUNCTION evil.id(bigint) RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN PERFORM evil.canary('expression'); RETURN $1; END $$;
CREATE FUNCTION evil.at() RETURNS timestamptz LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM evil.canary('at'); RETURN pg_catalog.now(); END $$;
CREATE FUNCTION evil.text(text) RETURNS text LANGUAGE plpgsql VOLATILE AS $$ BEGIN PERFORM evil.canary('text'); RETURN $1; END $$;
CREATE FUNCTION evil.trg() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	PERFORM evil.canary('trigger');
	IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
	RETURN NEW;
END $$;
CREATE TYPE evil.flag AS (x bigint);
CREATE FUNCTION evil.flag_bool(evil.flag) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('cast'); RETURN true; END $$;
CREATE FUNCTION evil.flag_id(evil.flag) RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('cast'); RETURN $1.x; END $$;
CREATE CAST (evil.flag AS boolean) WITH FUNCTION evil.flag_bool(evil.flag) AS IMPLICIT;
CREATE CAST (evil.flag AS bigint) WITH FUNCTION evil.flag_id(evil.flag) AS IMPLICIT;
CREATE DOMAIN evil.id_domain AS bigint CHECK (evil.id(VALUE) IS NOT NULL);
CREATE FUNCTION evil.log_note(text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('search_path'); END $$;
CREATE TABLE evil.template (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz, message jsonb);
CREATE INDEX ON evil.template ((msg_id * evil.id(1)));
CREATE FUNCTION evil.eq(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('operator'); RETURN true; END $$;
"""
# On a queue that is the maker's own: {q}, {a}, {g}, {n}: its name, {r}: a number, {v}: somebody else's queue, {other}: a name that somebody will create
HOSTILE = {
    "trigger": ["CREATE TRIGGER evil{r} {when} ON {t} {each} EXECUTE FUNCTION evil.trg()", "ALTER TABLE {t} ENABLE {always} TRIGGER evil{r}"],
    "deferred trigger": ["CREATE CONSTRAINT TRIGGER evil{r} AFTER INSERT OR DELETE OR UPDATE ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.trg()"],
    "check": ["ALTER TABLE {t} ADD CHECK (evil.id(msg_id) IS NOT NULL) NOT VALID"],
    "default": ["ALTER TABLE {t} ALTER vt SET DEFAULT evil.at(), ALTER read_ct SET DEFAULT evil.id(0)::int"],
    "generated": ["ALTER TABLE {t} ADD COLUMN extra{r} bigint GENERATED ALWAYS AS (evil.id(msg_id)) STORED"],
    "index": ["CREATE INDEX ON {t} (evil.id(msg_id))"],
    "index predicate": ["CREATE INDEX ON {t} (msg_id) WHERE evil.id(msg_id) > 0"],
    "vt index": ["DROP INDEX IF EXISTS pgmq.q_{n}_vt_idx", "CREATE INDEX q_{n}_vt_idx ON {q} (vt, evil.id(msg_id)) WHERE vt <> enqueued_at"],
    "policy": ["ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "CREATE POLICY evil{r} ON {t} USING (evil.id(msg_id) IS NOT NULL)"],
    "view": ["ALTER TABLE {t} RENAME TO old{r}", "CREATE VIEW {t} AS SELECT evil.id(1) AS msg_id, 0 AS read_ct, evil.at() AS enqueued_at, evil.at() AS last_read_at, evil.at() AS vt,"
             " '{{}}'::jsonb AS message, NULL::jsonb AS headers"],
    "sequence view": ["ALTER SEQUENCE pgmq.q_{n}_msg_id_seq RENAME TO old{r}", "CREATE VIEW pgmq.q_{n}_msg_id_seq AS SELECT evil.id(1) AS last_value, evil.canary('view') AS is_called"],
    "view and a row": ["CREATE VIEW pgmq.q_w{r} AS SELECT evil.id(1) AS msg_id, evil.at() AS vt, evil.at() AS enqueued_at, 0 AS read_ct", "CREATE SEQUENCE pgmq.q_w{r}_msg_id_seq",
                       "INSERT INTO pgmq.meta VALUES ('w{r}', {flag}, false)"],
    "rule": ["CREATE RULE evil{r} AS ON {event} TO {t} DO ALSO SELECT evil.canary('rule')"],
    "domain": ["ALTER TABLE {t} ALTER read_ct TYPE evil.id_domain"],
    "cast": ["ALTER TABLE {t} ALTER read_ct DROP DEFAULT", "ALTER TABLE {t} ALTER read_ct TYPE evil.flag USING ROW(0)::evil.flag"],
    "inherited": ["CREATE TABLE pgmq.child{r} (CHECK (evil.id(msg_id) IS NOT NULL)) INHERITS ({t})"],
    "statistics": ["CREATE STATISTICS pgmq.stat{r} ON (evil.id(msg_id)), vt FROM {t}"],
    "template": ["UPDATE partman.part_config SET template_table = 'evil.template' WHERE parent_table = 'pgmq.q_{n}'"],
    "template of another": ["UPDATE partman.part_config SET template_table = 'evil.template' WHERE parent_table = 'pgmq.q_{v}'"],
    "partman function": ["CREATE OR REPLACE FUNCTION partman.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('partman');"
                         " RETURN pg_catalog.format($1, VARIADIC ARRAY[$2]); END $$",
                         "CREATE OR REPLACE FUNCTION partman.format(text, text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('partman');"
                         " RETURN pg_catalog.format($1, VARIADIC ARRAY[$2, $3]); END $$"],
    "function in pgmq": ["CREATE OR REPLACE FUNCTION pgmq.now() RETURNS timestamptz LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('pgmq'); RETURN pg_catalog.now(); END $$",
                         "CREATE OR REPLACE FUNCTION pgmq.lower(varchar) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM evil.canary('pgmq'); RETURN pg_catalog.lower($1::text); END $$"],
    "operator in pgmq": ["CREATE OPERATOR pgmq.= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.eq)"],
    "operator in public": ["CREATE OPERATOR public.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = evil.eq)"],
    "bait": ["CREATE TABLE pgmq.bait{r} (msg_id bigint NOT NULL, read_ct integer NOT NULL DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz,"
             " archived_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message jsonb, headers jsonb)",
             "CREATE TRIGGER t AFTER INSERT ON pgmq.bait{r} FOR EACH STATEMENT EXECUTE FUNCTION evil.trg()", "ALTER TABLE pgmq.bait{r} ENABLE ALWAYS TRIGGER t",
             "INSERT INTO pgmq.bait{r} (msg_id, vt) VALUES (-5, now())", "ALTER TABLE pgmq.bait{r} ADD CONSTRAINT pgmq_converted CHECK (true)",
             "UPDATE pgmq.partition_config SET converted_archive = 'bait{r}' WHERE queue_name = '{v}'"],
    "prepared table": ["CREATE TABLE pgmq.q_{other} (" + QUEUE_COLUMNS + ")", "CREATE TRIGGER t BEFORE INSERT ON pgmq.q_{other} FOR EACH ROW EXECUTE FUNCTION evil.trg()"],
    "prepared archive": ["CREATE TABLE pgmq.a_{other} (" + QUEUE_COLUMNS + ", archived_at timestamptz)", "CREATE TRIGGER t BEFORE INSERT ON pgmq.a_{other} FOR EACH ROW EXECUTE FUNCTION evil.trg()"],
    "prepared notes": ["CREATE TABLE pgmq.g_{other} (msg_id bigint, enqueued_at timestamptz, vt timestamptz, grp text, head bigint, late boolean)",
                       "CREATE TRIGGER t BEFORE INSERT ON pgmq.g_{other} FOR EACH ROW EXECUTE FUNCTION evil.trg()"],
    "prepared sequence": ["CREATE SEQUENCE pgmq.q_{other}_msg_id_seq"],
    "prepared view": ["CREATE VIEW pgmq.q_{other} AS SELECT evil.id(1) AS msg_id, evil.at() AS vt"],
    "prepared row": ["INSERT INTO pgmq.meta VALUES ('{other}', false, false)"],
    "prepared template": ["CREATE TABLE partman.template_pgmq_q_{other} (" + QUEUE_COLUMNS + ")", "CREATE INDEX ON partman.template_pgmq_q_{other} (evil.id(msg_id))"],
    "prepared partition": ["CREATE TABLE pgmq.q_{other}_p0 (" + QUEUE_COLUMNS + ", CHECK (evil.id(msg_id) > 0))", "CREATE TABLE pgmq.q_{other}_default (" + QUEUE_COLUMNS + ")"],
    "search_path": ["SET LOCAL search_path = evil, public", "SELECT pgmq.send('v_note', '1', '{{\"x-pgmq-group\": \"a\"}}'::jsonb)", "SELECT * FROM pgmq.read_grouped('v_note', 0, 1)"],
    "names": ["INSERT INTO pgmq.meta VALUES ('a;b{r}', false, false), ('{r}', true, true)"],
}
# Attempts on others' queues that must be refused; the innocent notice if one works
ATTACKS = (
    "SELECT pgmq.set_retention('{v}', '0', true)", "UPDATE pgmq.partition_config SET drop_unread = true, retention_interval = '0' WHERE queue_name = '{v}'",
    "DELETE FROM pgmq.meta WHERE queue_name = '{v}'", "UPDATE pgmq.meta SET is_partitioned = NOT is_partitioned WHERE queue_name = '{v}'",
    "DELETE FROM pgmq.partition_config WHERE queue_name = '{v}'", "INSERT INTO pgmq.partition_config VALUES ('{v}', '0', true, true, 'q_in_std')",
    "UPDATE pgmq.partition_config SET converted_archive = 'q_in_std' WHERE queue_name = '{v}'", "SELECT pgmq.drop_queue('{v}')", "SELECT pgmq.purge_queue('{v}')",
    "SELECT pgmq.create('{v}')", "SELECT pgmq.convert_archive_partitioned('{v}')", "SELECT pgmq.create_fifo_index('{v}')", "SELECT * FROM pgmq.read('{v}', 3600, 100)",
    "SELECT * FROM pgmq.pop('{v}', 10)", "SELECT pgmq.enable_notify_insert('{v}', 2147483647)", "SELECT pgmq.disable_notify_insert('{v}')",
    "SELECT pgmq.update_notify_insert('{v}', 2147483647)", "SELECT pgmq.unbind_topic('innocent.t', '{v}')", "SELECT pgmq.acquire_queue_lock('{v}')",
    "SELECT * FROM pgmq.set_vt('{v}', ARRAY[1, 2, 3]::bigint[], 3600)", "SELECT pgmq.rescan('{v}')", "CALL pgmq.wait('{v}', 100)",
)
WHENS = ("BEFORE INSERT OR UPDATE", "AFTER INSERT", "AFTER UPDATE OR DELETE", "BEFORE DELETE", "AFTER INSERT OR UPDATE OR DELETE")
VICTIMS = ("in_std", "in_pid", "in_ptime", "in_unl", "in_grp", "in_ntf", "in_top", "in_gpid", "su", "v_std", "v_id", "v_note")


class Hostile(Client):
    """A maker of queues that is up to no good, with what the documentation says it needs for its task, and CREATE where it can"""

    def __init__(self, *args, **more):
        super().__init__(*args, **more)
        self.number = 0
        self.streams = collections.defaultdict(bool)     # which of its names are streams

    def connected(self):
        self.run("SET lock_timeout = '1s'; SET statement_timeout = '5s'; SET client_min_messages = error")

    def step(self):
        rng = self.rng
        self.number += 1
        name = "h%d" % rng.randrange(8)
        if rng.random() < 0.3:
            with psycopg.connect(dbname="fuzz", user="postgres", autocommit=True, application_name="fuzz repair") as conn:
                try:
                    conn.execute("SET lock_timeout = '2s'; SET client_min_messages = error; SELECT fuzz.wipe(%s)" % lit(name))
                except psycopg.Error as error:
                    self.log("-- %s" % error)
            kind = rng.choice(("id", "time", "std", "std+group", "id", "drops", "std+notify", "unlogged", "stream 1", "stream 2"))
            self.streams[name] = is_stream(kind)
            for sql in make_queue(name, kind):
                self.run(sql)
            # more than the partitions have room for, and from long ago
            self.run("SELECT count(*) FROM pgmq.send_batch('%s', array_fill('{}'::jsonb, '{%d}'))" % (name, rng.choice((1, 60))))
            self.run("SELECT count(*) FROM pgmq.archive('%s', ARRAY[1, 2, 3]::bigint[])" % name)
            if rng.random() < 0.2:
                self.run("SELECT pgmq.convert_archive_partitioned('%s', '10', '100', 2)" % name)
        else:
            what = rng.choice(list(HOSTILE))
            tables = {kind: "pgmq.%s_%s" % (kind, name) for kind in ("sp" if self.streams[name] else "qag")}
            if self.streams[name]:
                tables.update(q=tables["s"], a=tables["p"], g=tables["p"], columns=LOG_COLUMNS)
            filled = dict(tables, t=rng.choice(list(tables.values())), n=name, r=str(self.number), v=rng.choice(VICTIMS), other="%s%d" % (rng.choice("op"), rng.randrange(20)),
                          when=rng.choice(WHENS), each=rng.choice(("FOR EACH ROW", "FOR EACH STATEMENT")), always=rng.choice(("ALWAYS", "REPLICA", "")),
                          event=rng.choice(("INSERT", "UPDATE", "DELETE")), flag=rng.choice(("true", "false")))
            self.run("BEGIN")
            done = 0
            for template in HOSTILE[what]:
                self.run("SAVEPOINT s")
                if self.run(in_words(template.format(**filled), filled)) is None:
                    self.run("ROLLBACK TO s")
                else:
                    done += 1
            self.run("COMMIT")
            self.counts["hostile " + what] += done > 0
            self.counts["hostile objects"] += done > 0
        for attack in rng.sample(ATTACKS, 2):
            self.run(attack.format(v=rng.choice(VICTIMS)))
            self.counts["attacks"] += 1
        self.nap(rng.choice((0.01, 0.1)))


class Victim(Client):
    """Somebody else, a maker of queues or a superuser, who names its own queues only"""

    def __init__(self, *args, prefix, **more):
        super().__init__(*args, **more)
        self.prefix = prefix    # of the queues that it makes: what another victim has dropped is the maker's to take

    def connected(self):
        self.run("SET client_min_messages = error; SET statement_timeout = '20s'")

    def step(self):
        rng = self.rng
        own = rng.choice(("v_std", "v_id", "v_note") if self.user == "other_maker" else ("su",))
        what = rng.random()
        if what < 0.2:
            new = "%s%d" % (self.prefix, rng.randrange(20))
            made = self.run("SELECT pgmq.%s(%s)" % (rng.choice(("create", "create_unlogged", "create_partitioned")), lit(new)))
            # It may have been there, as a queue of the maker's with a row of its own: whoever may use every queue has to look
            if made is not None and self.run("SELECT FROM pg_class WHERE oid = to_regclass('pgmq.q_%s') AND relowner = current_user::regrole" % new):
                for call in ("send('%s', '{}')", "create_fifo_index('%s')", "send('%s', '1', '{\"x-pgmq-group\": \"a\"}'::jsonb)", "read_grouped('%s', 0, 1)",
                             "archive('%s', 1::bigint)", "pop('%s')", "metrics('%s')", "drop_queue('%s')"):
                    self.run("SELECT pgmq." + call % new)
        elif what < 0.6:
            self.run(rng.choice(("SELECT * FROM pgmq.metrics_all()", "SELECT * FROM pgmq.list_partitions()", "CALL pgmq.maintain()", "SELECT pgmq.create_fifo_indexes_all()",
                                 "SELECT * FROM pgmq.list_queues()", "SELECT * FROM pgmq.list_notify_insert_throttles()", "SELECT * FROM pgmq.test_routing('a.b')",
                                 "SELECT * FROM pgmq.stream_lag()", "SELECT * FROM pgmq.list_streams()", "SELECT * FROM pgmq.list_subscriptions()")), "by a victim")
        else:
            for call in ("send('%s', '{}', '{\"x-pgmq-group\": \"a\"}'::jsonb)", "read('%s', 0, 2)", "read_grouped('%s', 0, 2)", "pop('%s')", "metrics('%s')",
                         "list_partitions('%s')"):
                self.run("SELECT pgmq." + call % own)
            if rng.random() < 0.1 and own in ("v_id", "su"):
                self.run("SELECT pgmq.set_retention('%s', '100')" % own)
        self.counts["steps of victims"] += 1
        self.nap(0.05)


class App(Client):
    """Somebody who may use the maker's queues: its triggers and checks run with this one's rights, as on any table"""

    def step(self):
        name = "h%d" % self.rng.randrange(8)
        for call in ("send('%s', '{}')", "read('%s', 0, 2)", "pop('%s')", "delete('%s', 1::bigint)",
                     "publish('%s', '1')", "subscribe('%s', 'app', 'earliest')", "receive('%s', 'app', 0, 2)", "seek('%s', 'app', 'earliest', force => true)"):
            self.run("SELECT pgmq." + call % name)
        self.nap(0.2)


def grants(role):
    """The rows of docs/privileges.md for makers of queues, also partitioned ones, with notifications and topics"""
    return ("GRANT USAGE, CREATE ON SCHEMA pgmq TO {r}; GRANT SELECT, INSERT, DELETE ON pgmq.meta TO {r}; GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.partition_config TO {r};"
            " GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.notify_insert_throttle, pgmq.policy TO {r}; GRANT SELECT, INSERT, DELETE ON pgmq.topic_bindings TO {r};"
            " GRANT USAGE ON SCHEMA partman TO {r}").format(r=role)


def prepare(connect):
    with connect() as conn:
        conn.execute("SET client_min_messages = error")
        for role in ("other_maker", "app"):
            conn.execute("CREATE ROLE %s LOGIN" % role)
        for role in ("maker", "other_maker", "keeper"):
            conn.execute(grants(role))
        # More than it needs: nothing of pgmq runs what lies there
        conn.execute("GRANT CREATE ON DATABASE fuzz TO maker; GRANT CREATE ON SCHEMA public, partman TO maker; GRANT USAGE ON SCHEMA pgmq TO app")
        for sql in make_queue("su", "id"):
            conn.execute(sql)
    with connect(user="maker") as conn:
        conn.execute(CANARY)
        conn.execute("ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq GRANT SELECT, INSERT, UPDATE, DELETE ON TABLES TO app")
    with connect(user="other_maker") as conn:
        conn.execute("SET client_min_messages = error")
        for name, kind in (("v_std", "std"), ("v_id", "id"), ("v_note", "std+group")):
            for sql in make_queue(name, kind):
                conn.execute(sql)
        # A trigger on the notes whose function has an unqualified name in it
        conn.execute("CREATE FUNCTION fuzz.note_trigger() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM log_note('x'); RETURN NEW; EXCEPTION WHEN undefined_function"
                     " THEN RETURN NEW; END $$; CREATE TRIGGER note BEFORE INSERT OR UPDATE ON pgmq.g_v_note FOR EACH ROW EXECUTE FUNCTION fuzz.note_trigger()")
        conn.execute("GRANT SELECT, INSERT, UPDATE ON pgmq.q_v_note TO maker")


def start(run, common, more):
    for number in range(2):
        run.start(Matrix(*common, name="matrix%d" % number, user="postgres", **more))
    for number in range(2):
        run.start(Hostile(*common, name="hostile%d" % number, user="maker", **more))
    run.start(Victim(*common, name="victim", user="other_maker", prefix="o", **more))
    run.start(Victim(*common, name="superuser", user="postgres", prefix="p", **more))
    run.start(App(*common, name="app", user="app", **more))


def check_canary(run, line):
    """One line of the log: as whom did code of the maker run"""
    match = re.search(r"CANARY (.*) owner=(\S+) user=(\S+) session=(\S+) role=(\S+) super=(\S+)", line)
    if not match:
        return
    what, owner, user, session, role, _ = match.groups()
    run.counts["canary as " + ("owner" if user == owner else user)] += 1
    run.counts["canaries"] += 1
    if user != owner or role != "origin":
        signature = "code of %s, %s, as %s with session_replication_role %s, for %s" % (owner, what, user, role, session)
        if user != "app" or session != "app" or role != "origin":
            run.found[signature] += 1
            if run.found[signature] == 1:
                run.show = 15
    if role != "origin":
        run.violate("rights", "code of %s (%s) ran with session_replication_role %s, as %s for %s" % (owner, what, role, user, session))
    if user != owner and not (user == "app" and session == "app"):
        run.violate("rights", "code of %s (%s) ran as %s, for %s: %s" % (owner, what, user, session, line[:120]))


def check_end(run, conn):
    rows = conn.execute("SELECT rolname FROM pg_roles WHERE rolsuper AND rolname <> 'postgres'").fetchall()
    if rows:
        run.violate("rights", "superusers: %s" % rows)


def enough(minutes):
    return {"roles": 6 * minutes, "allowed": 60 * minutes, "to be refused": 150 * minutes, "hostile objects": 30 * minutes, "attacks": 100 * minutes,
            "canary as owner": 20 * minutes, "canary as app": 5 * minutes, "steps of victims": 30 * minutes}

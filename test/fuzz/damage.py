"""What owners do to the tables, indexes, sequences, triggers and columns of their queues, and to those of the extension."""
import re
import time

import psycopg

from client import Client, Lost
from values import STREAMS, lit

# q, a, g, k: the tables of a queue; t: one of them; n: its bare name; c: a column; seq: the queue's sequence.
COLUMNS = ("msg_id", "read_ct", "enqueued_at", "last_read_at", "vt", "message", "headers", "archived_at", "grp", "head", "late",
           "pgmq_releases", "pgmq_settled", "pgmq_rank", "dedup_key", "expires_at")
TYPES = ("text", "name", "bigint", "integer", "smallint", "numeric", "fuzz.id", "fuzz.pair", "text[]", "bytea", "json", "timestamp", "oid",
         "boolean", "jsonb", "timestamptz", "char(3)", "void", "double precision", "int8range", "inet")
QUEUE_COLUMNS = ("msg_id bigint, read_ct int, enqueued_at timestamptz, last_read_at timestamptz, vt timestamptz, message jsonb, headers jsonb")
QUEUE_VALUES = ("1::bigint AS msg_id, 0 AS read_ct, now() AS enqueued_at, now() AS last_read_at, now() AS vt,"
                " '{{}}'::jsonb AS message, NULL::jsonb AS headers")
NOTE_COLUMNS = "msg_id bigint, enqueued_at timestamptz, vt timestamptz, grp text, head bigint, late boolean"
KEY_COLUMNS = "dedup_key text COLLATE \"C\", msg_id bigint, expires_at timestamptz"

# A stream is damaged as a queue is, with other words: t is its log, one of its parts, or its positions
STREAM_COLUMNS = ("event_id", "published_at", "shard", "key", "message", "headers", "subscription", "state", "passed_id", "lease", "leased_until", "leased_id", "attempts")
LOG_COLUMNS = "event_id bigint, shard int, published_at timestamptz, key text, message jsonb, headers jsonb"
LOG_VALUES = "1::bigint AS event_id, 0 AS shard, now() AS published_at, NULL::text AS key, '{{}}'::jsonb AS message, NULL::jsonb AS headers"
POSITION_COLUMNS = ("subscription text COLLATE \"C\", shard int, state bigint, passed_id bigint, lease bigint, leased_until timestamptz, leased_id bigint, attempts bigint[]")
STREAM_WORDS = {"msg_id": "event_id", "vt": "published_at", "enqueued_at": "published_at", "read_ct": "shard"}
STREAM_INDEX_KEYS = ("shard, event_id", "event_id, shard", "shard", "event_id", "shard DESC, event_id DESC", "shard, event_id DESC", "(shard + 1), event_id", "published_at",
                     "shard, event_id NULLS FIRST", "subscription, shard, state", "subscription COLLATE \"POSIX\", shard, state", "subscription text_pattern_ops, shard, state",
                     "subscription, state, shard", "shard, state", "shard, event_id, published_at")
STREAM_DAMAGE = {
    "events by hand": ["INSERT INTO {s} (event_id, shard, published_at) OVERRIDING SYSTEM VALUE VALUES ({id}, 0, {vt}), ({id2}, 1, {vt}), ({id}, 77, now())"],
    "events without an id": ["INSERT INTO {s} (shard, message) VALUES (0, '1'), (1, '2')"],
    "a state by hand": ["INSERT INTO {p} SELECT subscription, shard, state + {r}, {id}, {id2}, {vt}, {id}, attempts FROM {p}"],
    "states by hand": ["UPDATE {p} SET passed_id = {id}", "UPDATE {p} SET lease = {id}, leased_id = {id2}, leased_until = {vt}", "UPDATE {p} SET attempts = ARRAY[{id}, {id2}, NULL, 1]::bigint[]"],
    "other attempts": ["ALTER TABLE {p} ALTER attempts TYPE bytea USING '\\xffffff2fffffff7fffffff7fffffff7f'::bytea"],
    "delete states": ["DELETE FROM {p} WHERE shard = 0"],
    "nulls in states": ["ALTER TABLE {p} DROP CONSTRAINT IF EXISTS \"p_{name}_pkey\"", "ALTER TABLE {p} ALTER {c} DROP NOT NULL", "UPDATE {p} SET {c} = NULL",
                        "CREATE INDEX \"p_{name}_pkey\" ON {p} (subscription, shard, state)", "INSERT INTO {p} (subscription, shard) VALUES ('sub0', 0), ('sub1', NULL)"],
    "nulls in events": ["ALTER TABLE {s} DROP CONSTRAINT IF EXISTS \"s_{name}_pkey\"", "ALTER TABLE {s} ALTER {c} DROP NOT NULL", "UPDATE {s} SET {c} = NULL",
                        "CREATE INDEX \"s_{name}_pkey\" ON {s} (shard, event_id)"],
    "positions of other columns": ["ALTER TABLE {p} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {p} (subscription name, shard {type}, state int, passed_id text, lease {type}, leased_until int, leased_id text,"
                                   " attempts text, PRIMARY KEY (subscription, shard, state))"],
    "positions of other columns' order": ["ALTER TABLE {p} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {p} (state bigint, shard int, subscription text COLLATE \"C\", passed_id bigint, lease bigint,"
                                          " leased_until timestamptz, leased_id bigint, attempts bigint[], PRIMARY KEY (subscription, shard, state))"],
    "positions of own making": ["ALTER TABLE {p} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {p} (" + POSITION_COLUMNS + ")", "CREATE INDEX ON {p} (subscription, shard, state)",
                                "INSERT INTO {p} SELECT 'sub0', i % 3, {id}, {id2}, 5, {vt}, {id2}, '{{}}' FROM generate_series(0, 5) AS i"],
    "positions of another access method": ["ALTER TABLE {p} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {p} (" + POSITION_COLUMNS + ", PRIMARY KEY (subscription, shard, state)) USING heap2"],
    "view for positions": ["ALTER TABLE {p} RENAME TO \"old_{n}{r}\"", "CREATE VIEW {p} AS SELECT * FROM pgmq.\"old_{n}{r}\""],
    "log of own making": ["ALTER TABLE {s} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {s} (event_id {type} GENERATED BY DEFAULT AS IDENTITY, shard int, published_at timestamptz, key text, message jsonb,"
                          " headers jsonb) PARTITION BY RANGE (event_id)", "CREATE TABLE pgmq.\"{n}_d\" PARTITION OF {s} DEFAULT", "CREATE INDEX ON {s} (shard, event_id)"],
    "log with a serial": ["ALTER TABLE {s} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {s} (message jsonb, headers jsonb, key text, event_id bigserial, shard int, published_at timestamptz,"
                          " PRIMARY KEY (shard, event_id)) PARTITION BY RANGE (event_id)", "CREATE TABLE pgmq.\"{n}_d{r}\" PARTITION OF {s} FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"],
    "log by shards": ["ALTER TABLE {s} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {s} (event_id bigint GENERATED ALWAYS AS IDENTITY, shard int, published_at timestamptz, key text, message jsonb,"
                      " headers jsonb, PRIMARY KEY (shard, event_id)) PARTITION BY RANGE (shard)", "CREATE TABLE pgmq.\"{n}_d{r}\" PARTITION OF {s} FOR VALUES FROM (MINVALUE) TO (MAXVALUE)"],
    "no positions": ["DROP TABLE {p}"],
    "no parts": ["DROP TABLE IF EXISTS pgmq.\"s_{name}_p1\", pgmq.\"s_{name}_default\""],
    "parts of parts": ["CREATE TABLE pgmq.\"s_{name}_q{r}\" PARTITION OF {s} FOR VALUES FROM (-100) TO (-1) PARTITION BY LIST (shard)"],
    "part of other indexes": ["ALTER TABLE {s} DROP CONSTRAINT \"s_{name}_pkey\"", "CREATE INDEX ON ONLY {s} (shard, event_id)", "CREATE INDEX ON pgmq.\"s_{name}_p1\" ({ikeys})"],
    "shards": ["UPDATE pgmq.stream SET shards = {id}::numeric % 100 WHERE identity = lower({lit})"],
    "no row of the stream": ["DELETE FROM pgmq.stream WHERE identity = lower({lit})"],
    "no row of a subscription": ["DELETE FROM pgmq.subscription WHERE subscription = 'sub0' AND lower(stream_name) = lower({lit})"],
    "role of a subscription": ["UPDATE pgmq.subscription SET role = 'nobody' WHERE lower(stream_name) = lower({lit})"],
    "rows of streams": ["INSERT INTO pgmq.stream (stream_name, shards, retention) VALUES ({odd}, 1, '1 s')", "INSERT INTO pgmq.subscription (stream_name, subscription, role) VALUES ({odd}, 'sub0', 'maker')",
                        "INSERT INTO pgmq.subscription (stream_name, subscription, role) VALUES ({lit}, '', 'maker'), ({lit}, repeat('x', 5000), 'maker')"],
}

QUEUE_DAMAGE = {
    "drop not null": ["ALTER TABLE {t} DROP CONSTRAINT IF EXISTS \"{n}_pkey\"", "ALTER TABLE {t} ALTER {c} DROP IDENTITY IF EXISTS",
                      "ALTER TABLE {t} ALTER {c} DROP NOT NULL", "UPDATE {t} SET {c} = NULL"],
    "nulls": ["ALTER TABLE {t} ALTER vt DROP NOT NULL, ALTER enqueued_at DROP NOT NULL, ALTER read_ct DROP NOT NULL",
              "INSERT INTO {t} (vt) VALUES (NULL), (NULL)", "INSERT INTO {t} DEFAULT VALUES"],
    "nulls in notes": ["ALTER TABLE {g} ALTER {c} DROP NOT NULL", "UPDATE {g} SET {c} = NULL", "INSERT INTO {g} (vt, enqueued_at) VALUES (now(), now())"],
    "retype": ["ALTER TABLE {t} ALTER {c} DROP DEFAULT", "ALTER TABLE {t} ALTER {c} TYPE {type} USING NULL"],
    "retype with values": ["ALTER TABLE {t} ALTER {c} DROP DEFAULT", "ALTER TABLE {t} ALTER {c} TYPE {type} USING {c}::text::{type}"],
    "retype id": ["ALTER TABLE {t} ALTER msg_id DROP IDENTITY IF EXISTS", "ALTER TABLE {t} ALTER msg_id TYPE {type} USING msg_id::text::{type}",
                  "INSERT INTO {t} (vt) VALUES (now())"],
    "composite id": ["ALTER TABLE {t} ALTER msg_id DROP IDENTITY IF EXISTS", "ALTER TABLE {t} DROP CONSTRAINT IF EXISTS \"{n}_pkey\"",
                     "ALTER TABLE {t} ALTER msg_id TYPE fuzz.pair USING ROW(msg_id, 'x')::fuzz.pair"],
    "drop column": ["ALTER TABLE {t} DROP COLUMN {c} CASCADE"],
    "rename column": ["ALTER TABLE {t} RENAME COLUMN {c} TO other"],
    "swap columns": ["ALTER TABLE {t} RENAME COLUMN vt TO tmp", "ALTER TABLE {t} RENAME COLUMN enqueued_at TO vt", "ALTER TABLE {t} RENAME COLUMN tmp TO enqueued_at"],
    "swap other columns": ["ALTER TABLE {t} RENAME COLUMN message TO tmp", "ALTER TABLE {t} RENAME COLUMN msg_id TO message", "ALTER TABLE {t} RENAME COLUMN tmp TO msg_id"],
    "add column": ["ALTER TABLE {t} ADD COLUMN \"x%s'y\" text NOT NULL DEFAULT 'x'"],
    "add strict column": ["ALTER TABLE {t} ADD COLUMN strict text", "ALTER TABLE {t} ADD CHECK (strict IS NOT NULL) NOT VALID"],
    "generated column": ["ALTER TABLE {t} DROP COLUMN {c} CASCADE", "ALTER TABLE {t} ADD COLUMN {c} bigint GENERATED ALWAYS AS (1) STORED"],
    "generated message": ["ALTER TABLE {t} DROP COLUMN message CASCADE", "ALTER TABLE {t} ADD COLUMN message jsonb GENERATED ALWAYS AS ('{{}}'::jsonb) STORED"],
    "drop identity": ["ALTER TABLE {t} ALTER msg_id DROP IDENTITY"],
    "identity by default": ["ALTER TABLE {t} ALTER msg_id SET GENERATED BY DEFAULT"],
    "restart identity": ["ALTER TABLE {t} ALTER msg_id RESTART WITH {id}"],
    "sequence settings": ["ALTER SEQUENCE {seq} INCREMENT BY -1 MINVALUE -1000000 MAXVALUE 100 CYCLE", "SELECT setval('{seq}', 5)"],
    "sequence cache": ["ALTER SEQUENCE {seq} CACHE 50"],
    "sequence exhausted": ["SELECT setval('{seq}', 9223372036854775807)"],
    "sequence far": ["SELECT setval('{seq}', {id}, {flag})"],
    "rename sequence": ["ALTER SEQUENCE {seq} RENAME TO \"old_{n}_seq{r}\""],
    "empty table for sequence": ["ALTER SEQUENCE {seq} RENAME TO \"old_{n}_seq{r}\"", "CREATE TABLE {seq} (last_value bigint, is_called boolean)"],
    "table for sequence": ["ALTER SEQUENCE {seq} RENAME TO \"old_{n}_seq{r}\"", "CREATE TABLE {seq} (last_value {type}, log_cnt bigint, is_called boolean)",
                           "INSERT INTO {seq} VALUES (NULL), (NULL)"],
    "view for sequence": ["ALTER SEQUENCE {seq} RENAME TO \"old_{n}_seq{r}\"", "CREATE VIEW {seq} AS SELECT NULL::bigint AS last_value, NULL::boolean AS is_called, 'x'::text AS log_cnt"],
    "sequence for sequence": ["ALTER SEQUENCE {seq} RENAME TO \"old_{n}_seq{r}\"", "CREATE SEQUENCE {seq}", "SELECT setval('{seq}', 4611686018427387904)"],
    "rename table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\""],
    "view for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE VIEW {t} AS SELECT * FROM pgmq.\"old_{n}{r}\""],
    "other view": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE VIEW {t} AS SELECT 1 AS msg_id, 'x'::text AS vt, 2 AS message"],
    "view of values": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE VIEW {t} AS SELECT " + QUEUE_VALUES],
    "matview for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE MATERIALIZED VIEW {t} AS SELECT " + QUEUE_VALUES],
    "sequence for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE SEQUENCE {t}"],
    "index for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE INDEX {t_bare} ON pgmq.\"old_{n}{r}\" (vt)"],
    "composite for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TYPE {t} AS (msg_id bigint, vt timestamptz)"],
    "foreign table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE FOREIGN TABLE {t} (" + QUEUE_COLUMNS + ") SERVER nowhere OPTIONS (filename '/dev/null', format 'csv')"],
    "foreign table without handler": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE FOREIGN TABLE {t} (" + QUEUE_COLUMNS + ") SERVER noserver"],
    "partitioned for table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY RANGE (msg_id)",
                              "CREATE TABLE pgmq.\"{n}_p0\" PARTITION OF {t} FOR VALUES FROM (0) TO (10)"],
    "partitioned by list": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY LIST (msg_id)",
                            "CREATE TABLE pgmq.\"{n}_p1\" PARTITION OF {t} FOR VALUES IN (1, 2, NULL)", "CREATE TABLE pgmq.\"{n}_default\" PARTITION OF {t} DEFAULT"],
    "partitioned by hash": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY HASH (msg_id)",
                            "CREATE TABLE pgmq.\"{n}_p2\" PARTITION OF {t} FOR VALUES WITH (MODULUS 1, REMAINDER 0)"],
    "partitioned by expression": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY RANGE ((msg_id + 1), vt)",
                                  "CREATE TABLE pgmq.\"{n}_p3\" PARTITION OF {t} FOR VALUES FROM (MINVALUE, MINVALUE) TO (MAXVALUE, MAXVALUE)"],
    "partitioned, empty": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY RANGE (enqueued_at)"],
    "sub-partitioned": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") PARTITION BY RANGE (msg_id)",
                        "CREATE TABLE pgmq.\"{n}_p4\" PARTITION OF {t} FOR VALUES FROM (MINVALUE) TO (MAXVALUE) PARTITION BY LIST (read_ct)",
                        "CREATE TABLE pgmq.\"{n}_p5\" PARTITION OF pgmq.\"{n}_p4\" DEFAULT"],
    "foreign partition": ["CREATE FOREIGN TABLE pgmq.\"{n}_p{r}\" PARTITION OF {t} FOR VALUES FROM ({id}) TO ({id2}) SERVER noserver"],
    "other access method": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ") USING heap2", "INSERT INTO {t} (msg_id, vt) VALUES (1, now())"],
    "notes of another access method": ["ALTER TABLE {g} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {g} (" + NOTE_COLUMNS + ") USING heap2"],
    "notes of other columns": ["ALTER TABLE {g} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {g} (grp name, head int, late text, vt text, enqueued_at int, msg_id text)"],
    "notes without constraints": ["ALTER TABLE {g} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {g} (" + NOTE_COLUMNS + ")", "INSERT INTO {g} VALUES (1), (2, now(), now(), 'a', NULL, true, 1)"],
    "keys of other columns": ["ALTER TABLE {k} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {k} (dedup_key {type} PRIMARY KEY, expires_at int, msg_id text)"],
    "keys without an index": ["ALTER TABLE {k} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {k} (" + KEY_COLUMNS + ")", "INSERT INTO {k} VALUES ('k1', 1), ('k1'), (NULL, 2, now())"],
    "keys of another access method": ["ALTER TABLE {k} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {k} (" + KEY_COLUMNS + ") USING heap2"],
    "view for keys": ["ALTER TABLE {k} RENAME TO \"old_{n}{r}\"", "CREATE VIEW {k} AS SELECT 'k1'::text AS dedup_key, 1::bigint AS msg_id, now() AS expires_at"],
    "keys by hand": ["UPDATE {k} SET msg_id = {id}", "UPDATE {k} SET expires_at = {vt}", "INSERT INTO {k} VALUES ('k1', {id}, {vt}) ON CONFLICT DO NOTHING"],
    "drop keys": ["DROP TABLE {k}"],
    "partial index of keys": ["ALTER TABLE {k} DROP CONSTRAINT \"dedup_key_idx_{name}\"", "CREATE UNIQUE INDEX \"dedup_key_idx_{name}\" ON {k} (dedup_key) WHERE msg_id > 1"],
    "bare table": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (x int)"],
    "table without columns": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} ()"],
    "table of its own making": ["ALTER TABLE {t} RENAME TO \"old_{n}{r}\"", "CREATE TABLE {t} (" + QUEUE_COLUMNS + ")", "INSERT INTO {t} DEFAULT VALUES"],
    "inherited": ["CREATE TABLE pgmq.\"{n}_child{r}\" () INHERITS ({t})", "INSERT INTO pgmq.\"{n}_child{r}\" (msg_id, vt) VALUES ({id}, now())"],
    "drop table": ["DROP TABLE {t} CASCADE"],
    "drop index": ["DROP INDEX pgmq.{i}"],
    "index elsewhere": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE TABLE IF NOT EXISTS pgmq.\"{n}_other\" (" + QUEUE_COLUMNS + ", grp text, head bigint, late boolean)",
                        "CREATE INDEX {i} ON pgmq.\"{n}_other\" ({ikeys})", "INSERT INTO pgmq.\"{n}_other\" (msg_id, vt, grp, head, late) SELECT i, now(), 'a', i, true FROM generate_series(1, 50) AS i"],
    "index of another kind": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE INDEX {i} ON {t} USING {method} ({c})"],
    "index of other keys": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE INDEX {i} ON {it} ({ikeys})", "UPDATE {g} SET late = true"],
    "group index of own making": ["DROP INDEX IF EXISTS pgmq.\"q_{name}_fifo_idx\"", "CREATE INDEX \"q_{name}_fifo_idx\" ON {q} ({gkeys})"],
    "partial index": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE INDEX {i} ON {it} ({ikeys}) WHERE {ic} IS NULL"],
    "expression index": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE INDEX {i} ON {t} (fuzz.number(msg_id), (msg_id % 3), vt)"],
    "unique index": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE UNIQUE INDEX {i} ON {it} ({ikeys})"],
    "late index": ["DROP INDEX IF EXISTS pgmq.\"fifo_late_idx_{name}\"", "CREATE INDEX \"fifo_late_idx_{name}\" ON {g} ({ikeys})", "UPDATE {g} SET late = true"],
    "head index": ["DROP INDEX IF EXISTS pgmq.\"fifo_head_idx_{name}\"", "CREATE INDEX \"fifo_head_idx_{name}\" ON {g} ({ikeys})"],
    "invalid index": ["DROP INDEX IF EXISTS pgmq.{i}", "INSERT INTO {t} (read_ct, vt) VALUES (77777, now()), (77777, now())",
                      "CONCURRENTLY CREATE UNIQUE INDEX CONCURRENTLY {i} ON {t} (read_ct)"],
    "table for index": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE TABLE pgmq.{i} (x int)"],
    "sequence for index": ["DROP INDEX IF EXISTS pgmq.{i}", "CREATE SEQUENCE pgmq.{i}"],
    "rename index": ["ALTER INDEX pgmq.{i} RENAME TO \"old_{n}_idx{r}\""],
    "drop triggers": ["ALTER TABLE {q} DISABLE TRIGGER USER", "DROP TRIGGER IF EXISTS {trigger} ON {q}"],
    "disable triggers": ["ALTER TABLE {q} DISABLE TRIGGER ALL"],
    "always trigger": ["ALTER TABLE {q} ENABLE ALWAYS TRIGGER {trigger}"],
    "trigger elsewhere": ["CREATE TRIGGER {trigger}{r} {when} ON {t} {each} EXECUTE FUNCTION pgmq.{tf}({targ})"],
    "user's trigger": ["CREATE TRIGGER fuzz{r} {when} ON {t} {each} EXECUTE FUNCTION fuzz.trigger()"],
    "deferred trigger": ["CREATE CONSTRAINT TRIGGER fuzz{r} AFTER INSERT OR UPDATE OR DELETE ON {t} DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION fuzz.trigger()"],
    "rule": ["CREATE RULE fuzz AS ON {event} TO {t} DO INSTEAD NOTHING"],
    "rule with select": ["CREATE RULE fuzz AS ON DELETE TO {t} DO INSTEAD SELECT 1"],
    "row security": ["ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "CREATE POLICY fuzz{r} ON {t} USING (msg_id % 2 = 0)"],
    "failing policy": ["ALTER TABLE {t} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "CREATE POLICY fuzz{r} ON {t} USING (fuzz.fails(1))"],
    "check": ["ALTER TABLE {t} ADD CHECK (fuzz.{check}(msg_id)) NOT VALID"],
    "check on default": ["ALTER TABLE {t} ALTER {c} SET DEFAULT NULL"],
    "foreign key": ["CREATE TABLE pgmq.\"{n}_fk{r}\" (id bigint REFERENCES {t} ON DELETE CASCADE DEFERRABLE INITIALLY DEFERRED)", "INSERT INTO pgmq.\"{n}_fk{r}\" SELECT msg_id FROM {t} LIMIT 3"],
    "exclusion": ["ALTER TABLE {t} ADD EXCLUDE USING hash (read_ct WITH =)"],
    "deferrable key": ["ALTER TABLE {t} DROP CONSTRAINT \"{n}_pkey\"", "ALTER TABLE {t} ADD CONSTRAINT \"{n}_pkey\" PRIMARY KEY (msg_id) DEFERRABLE INITIALLY DEFERRED"],
    "rows by hand": ["INSERT INTO {t} (msg_id, vt) OVERRIDING SYSTEM VALUE VALUES ({id}, {vt}), ({id2}, {vt})"],
    "headers by hand": ["INSERT INTO {q} (vt, headers) VALUES (now(), {headers}), (now(), {headers})"],
    "update by hand": ["UPDATE {t} SET {c} = DEFAULT"],
    "notes by hand": ["UPDATE {g} SET head = {id}", "UPDATE {g} SET grp = 'x'", "UPDATE {g} SET late = NOT late"],
    "delete notes": ["DELETE FROM {g}"],
    "replace notes": ["INSERT INTO {g} (enqueued_at, vt, grp, head, late) VALUES (now(), {vt}, {group}, {id}, true)"],
    "replica role": ["ALTER TABLE {t} REPLICA IDENTITY NOTHING"],
    "truncate": ["TRUNCATE {t} CASCADE"],
    "truncate and restart": ["TRUNCATE {t} RESTART IDENTITY CASCADE"],
    "vacuum full": ["CONCURRENTLY VACUUM FULL {t}"],
    "vacuum": ["CONCURRENTLY VACUUM (FREEZE, ANALYZE) {t}"],
    "cluster": ["CLUSTER {t} USING \"{n}_pkey\""],
    "reindex": ["REINDEX TABLE {t}"],
    "reindex concurrently": ["CONCURRENTLY REINDEX TABLE CONCURRENTLY {t}"],
    "set unlogged": ["ALTER TABLE {t} SET UNLOGGED"],
    "set logged": ["ALTER TABLE {t} SET LOGGED"],
    "fillfactor": ["ALTER TABLE {t} SET (fillfactor = 10, autovacuum_enabled = off)"],
    "detach partition": ["ALTER TABLE {t} DETACH PARTITION pgmq.{p}"],
    "detach and attach": ["ALTER TABLE {t} DETACH PARTITION pgmq.{p}", "ALTER TABLE {t} ATTACH PARTITION pgmq.{p} FOR VALUES FROM ({id}) TO ({id2})"],
    "attach default": ["CREATE TABLE pgmq.\"{n}_d{r}\" (LIKE {t} INCLUDING ALL)", "ALTER TABLE {t} ATTACH PARTITION pgmq.\"{n}_d{r}\" DEFAULT"],
    "drop partition": ["DROP TABLE pgmq.{p}"],
    "rename partition": ["ALTER TABLE pgmq.{p} RENAME TO \"old_{n}_p{r}\""],
    "move partition": ["ALTER TABLE pgmq.{p} SET SCHEMA fuzz"],
    "move table": ["ALTER TABLE {t} SET SCHEMA fuzz"],
    "other owner": ["ALTER TABLE {t} OWNER TO stranger"],
    "revoke own rights": ["REVOKE ALL ON {t} FROM CURRENT_USER"],
    "meta row": ["INSERT INTO pgmq.meta VALUES ({odd}, {flag}, {flag2})"],
    "meta flags": ["UPDATE pgmq.meta SET is_partitioned = NOT is_partitioned WHERE queue_name = {lit}"],
    "delete meta row": ["DELETE FROM pgmq.meta WHERE queue_name = {lit}"],
    "other spelling": ["INSERT INTO pgmq.meta VALUES (upper({lit}), {flag}, {flag2})"],
    "config row": ["INSERT INTO pgmq.partition_config VALUES (lower({lit}), {interval}, {flag}, {flag2}, {odd}) ON CONFLICT (queue_name)"
                   " DO UPDATE SET retention_interval = excluded.retention_interval, converted_archive = excluded.converted_archive"],
    "part_config": ["UPDATE partman.part_config SET partition_interval = {interval} WHERE parent_table = 'pgmq.' || {nlit}"],
    "part_config type": ["UPDATE partman.part_config SET control = {clit}, premake = 3 WHERE parent_table = 'pgmq.' || {nlit}"],
    "part_config retention": ["UPDATE partman.part_config SET retention = {interval}, retention_keep_table = {flag} WHERE parent_table = 'pgmq.' || {nlit}"],
    "part_config template": ["UPDATE partman.part_config SET template_table = 'pgmq.' || {nlit} WHERE parent_table = 'pgmq.' || {nlit}"],
    "no part_config": ["DELETE FROM partman.part_config WHERE parent_table = 'pgmq.' || {nlit}"],
    "endless interval": ["UPDATE partman.part_config SET partition_interval = '1 mon -719 hours' WHERE parent_table = 'pgmq.' || {nlit}",
                         "INSERT INTO {t} (enqueued_at, vt) VALUES (now() + interval '75 days', now())"],
    "far rows": ["INSERT INTO {t} (enqueued_at, vt) VALUES ('infinity', now()), ('294276-12-31', now()), (now() + interval '400 days', now())"],
    "converted by hand": ["ALTER TABLE {a} ADD CONSTRAINT pgmq_converted CHECK (msg_id > {id})"],
    "statistics": ["CREATE STATISTICS pgmq.\"{n}_st{r}\" ON read_ct, vt FROM {t}", "ANALYZE {t}"],
    "prepared index": ["CREATE INDEX \"{n}_x{r}\" ON {t} (vt, msg_id) WHERE vt <> enqueued_at", "DROP INDEX pgmq.\"{n}_vt_idx\"",
                       "ALTER INDEX pgmq.\"{n}_x{r}\" RENAME TO \"{n}_vt_idx\""],
    "vt index descending": ["DROP INDEX pgmq.\"{n}_vt_idx\"", "CREATE INDEX \"{n}_vt_idx\" ON {t} (vt DESC, msg_id DESC) WHERE vt <> enqueued_at"],
}

# What somebody may have made before create() is called
PREPARED = {
    "table before create": ["CREATE TABLE {t} (" + QUEUE_COLUMNS + ")"],
    "other table before create": ["CREATE TABLE {t} (msg_id text, vt int)"],
    "sequence before create": ["CREATE SEQUENCE {seq}"],
    "table for the sequence before create": ["CREATE TABLE {seq} (last_value bigint, is_called boolean)"],
    "index before create": ["CREATE TABLE pgmq.\"{n}_other\" (" + QUEUE_COLUMNS + ", grp text, head bigint, late boolean)", "CREATE INDEX {i} ON pgmq.\"{n}_other\" ({ikeys})"],
    "notes before create": ["CREATE TABLE {g} (" + NOTE_COLUMNS + ")"],
    "view before create": ["CREATE VIEW {t} AS SELECT " + QUEUE_VALUES],
    "type before create": ["CREATE TYPE {t} AS (msg_id bigint)"],
    "partition before create": ["CREATE TABLE pgmq.\"{n}_p0\" (" + QUEUE_COLUMNS + ")", "CREATE TABLE pgmq.\"{n}_default\" (x int)"],
}

EXTENSION_TABLES = {"meta": ("queue_name", "is_partitioned", "is_unlogged", "created_at"),
                    "topic_bindings": ("pattern", "queue_name", "bound_at", "compiled_regex"),
                    "notify_insert_throttle": ("queue_name", "throttle_interval_ms", "last_notified_at"),
                    "partition_config": ("queue_name", "retention_interval", "drop_unread", "drop_consumed", "converted_archive"),
                    "policy": ("queue_name", "identity", "max_reads", "dead_letter_queue", "retry_delay_max", "message_ttl", "max_length", "overflow", "rate_limit",
                               "dedup_window", "paused_until"),
                    "stream": ("stream_name", "identity", "shards", "retention", "keep_unconsumed", "created_at"),
                    "subscription": ("stream_name", "subscription", "identity", "role", "created_at", "dropped_events")}
EXTENSION_DAMAGE = {
    "ext nulls": ["{drop_keys}", "ALTER TABLE {e} {not_nulls}", "INSERT INTO {e} ({c}) VALUES (NULL)", "INSERT INTO {e} ({c2}) VALUES (NULL)",
                  "INSERT INTO {e} DEFAULT VALUES"],
    "ext null": ["{drop_keys}", "ALTER TABLE {e} ALTER {c} DROP NOT NULL", "UPDATE {e} SET {c} = NULL"],
    "ext names": ["{drop_keys}", "ALTER TABLE {e} {not_nulls}", "INSERT INTO {e} (queue_name) VALUES ({odd}), ({odd2}), ('z1'), ('z5')"],
    "ext retype": ["{drop_keys}", "ALTER TABLE {e} ALTER {c} DROP DEFAULT", "ALTER TABLE {e} ALTER {c} TYPE {type} USING NULL"],
    "ext retype names": ["{drop_keys}", "ALTER TABLE {e} {not_nulls}", "ALTER TABLE {e} ALTER queue_name TYPE {type} USING queue_name::text::{type}"],
    "ext name type": ["{drop_keys}", "DROP INDEX IF EXISTS pgmq.meta_identity_idx", "ALTER TABLE {e} ALTER queue_name TYPE name USING queue_name::name",
                      "UPDATE {e} SET queue_name = E'\\x01\\x01AAAAAAAA'"],
    "ext bigint names": ["{drop_keys}", "DROP INDEX IF EXISTS pgmq.meta_identity_idx", "ALTER TABLE {e} ALTER queue_name TYPE bigint USING 1"],
    "ext cast": ["{drop_keys}", "ALTER TABLE {e} ALTER {c} DROP DEFAULT", "ALTER TABLE {e} ALTER {c} TYPE fuzz.pair USING ROW(1, 'x')::fuzz.pair"],
    "ext drop column": ["ALTER TABLE {e} DROP COLUMN {c} CASCADE"],
    "ext rename column": ["ALTER TABLE {e} RENAME COLUMN {c} TO other"],
    "ext add column": ["ALTER TABLE {e} ADD COLUMN x text NOT NULL DEFAULT 'x'"],
    "ext drop": ["ALTER EXTENSION pgmq DROP TABLE {e}", "DROP TABLE {e} CASCADE"],
    "ext not a member": ["ALTER EXTENSION pgmq DROP TABLE {e}"],
    "ext rename": ["ALTER TABLE {e} RENAME TO old{r}"],
    "ext view": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE VIEW {e} AS SELECT * FROM pgmq.old{r}"],
    "ext view of values": ["ALTER TABLE {e} RENAME TO old{r}",
                           "CREATE VIEW {e} AS SELECT {v1} AS queue_name, {v2} AS pattern, {v3} AS is_partitioned, {v4} AS is_unlogged, now() AS created_at,"
                           " {v1} AS throttle_interval_ms, {v2} AS retention_interval, {v3} AS drop_unread, {v4} AS drop_consumed, {v2} AS converted_archive,"
                           " {v3} AS compiled_regex, {v4} AS bound_at, {v1} AS last_notified_at, {v2} AS identity, {v3} AS max_reads, {v4} AS dead_letter_queue,"
                           " {v1} AS max_length, {v2} AS overflow, {v3} AS dedup_window"],
    "ext matview": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE MATERIALIZED VIEW {e} AS SELECT * FROM pgmq.old{r}"],
    "ext sequence": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE SEQUENCE {e}"],
    "ext index": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE INDEX {bare} ON pgmq.old{r} (queue_name)"],
    "ext type": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TYPE {e} AS (queue_name text)"],
    "ext foreign": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE FOREIGN TABLE {e} (queue_name varchar, pattern text, is_partitioned boolean, is_unlogged boolean, created_at timestamptz,"
                    " throttle_interval_ms int) SERVER {server}"],
    "ext partitioned": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TABLE {e} (LIKE pgmq.old{r}) PARTITION BY LIST (queue_name)",
                        "CREATE TABLE pgmq.part{r} PARTITION OF {e} DEFAULT"],
    "ext heap2": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TABLE {e} (LIKE pgmq.old{r} INCLUDING DEFAULTS) USING heap2", "INSERT INTO {e} (queue_name) VALUES ('z1')"],
    "ext copy": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TABLE {e} AS SELECT * FROM pgmq.old{r}"],
    "ext other types": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TABLE {e} (queue_name {type}, pattern {type2}, throttle_interval_ms {type3}, is_partitioned {type}, is_unlogged {type2}, created_at {type3},"
                        " retention_interval {type}, drop_unread {type}, drop_consumed {type}, converted_archive {type2}, compiled_regex text, bound_at {type3}, last_notified_at {type})",
                        "INSERT INTO {e} DEFAULT VALUES"],
    "ext empty": ["ALTER TABLE {e} RENAME TO old{r}", "CREATE TABLE {e} ()"],
    "ext index dropped": ["{drop_keys}", "DROP INDEX IF EXISTS pgmq.meta_identity_idx, pgmq.idx_topic_bindings_covering, pgmq.idx_notify_throttle_active"],
    "ext index replaced": ["{drop_keys}", "CREATE INDEX {key} ON {other_e} ({oc})"],
    "ext index of other columns": ["{drop_keys}", "CREATE INDEX {key} ON {e} ({c})"],
    "ext index of another kind": ["{drop_keys}", "CREATE INDEX {key} ON {e} USING hash (queue_name)"],
    "ext partial index": ["{drop_keys}", "CREATE UNIQUE INDEX {key} ON {e} (queue_name) WHERE {c} IS NULL"],
    "ext table for index": ["{drop_keys}", "CREATE TABLE pgmq.{key} (x int)"],
    "ext triggers": ["ALTER TABLE {e} DISABLE TRIGGER USER"],
    "ext users trigger": ["CREATE TRIGGER fuzz {when} ON {e} {each} EXECUTE FUNCTION fuzz.trigger()"],
    "ext trigger function": ["CREATE TRIGGER fuzz{r} {when} ON {e} {each} EXECUTE FUNCTION pgmq.{tf}()"],
    "ext rule": ["CREATE RULE fuzz AS ON {event} TO {e} DO INSTEAD NOTHING"],
    "ext row security": ["ALTER TABLE {e} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "CREATE POLICY p ON {e} USING (queue_name::text <> 'z1')"],
    "ext slow": ["ALTER TABLE {e} ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY", "CREATE POLICY p ON {e} USING (fuzz.slow(1))"],
    "ext check": ["ALTER TABLE {e} ADD CHECK (fuzz.{check}(1)) NOT VALID"],
    "ext truncate": ["TRUNCATE {e} CASCADE"],
    "ext vacuum full": ["CONCURRENTLY VACUUM FULL {e}"],
    "ext reindex": ["CONCURRENTLY REINDEX TABLE CONCURRENTLY {e}"],
    "ext unlogged": ["ALTER TABLE {e} SET UNLOGGED"],
    "ext policies": ["{drop_keys}", "INSERT INTO pgmq.policy (queue_name, max_length, overflow, max_reads, dead_letter_queue, dedup_window)"
                     " VALUES ('z1', -5, 'x', -1, 'z1', '-1 s'), ('z1', 0, 'drop_oldest', 0, 'nothing', '1 us'), ('z2', 1, NULL, 1, E'\\x01', '178000000 years'), ('', 1, '', 1, '', NULL)"],
    "ext patterns": ["{drop_keys}", "ALTER TABLE pgmq.topic_bindings ALTER pattern DROP NOT NULL", "INSERT INTO pgmq.topic_bindings (pattern, queue_name) VALUES (repeat('#.', 5000), 'z1'), (NULL, 'z2'), ('', 'z3'), ('..', 'z0'), ('f.#', 'nothing')"],
    "ext types of rows": ["ALTER TYPE pgmq.message_record {typechange}"],
    "ext metrics type": ["ALTER TYPE pgmq.metrics_result {typechange}"],
    "ext queue_record": ["ALTER TYPE pgmq.queue_record {typechange}"],
    "ext function": ["DROP FUNCTION IF EXISTS pgmq.send(text, jsonb)", "CREATE FUNCTION pgmq.send(text, jsonb) RETURNS SETOF text LANGUAGE sql AS 'SELECT ''x''::text'"],
    "ext function moved": ["ALTER FUNCTION pgmq.read(text, integer, integer, jsonb) SET SCHEMA fuzz"],
    "ext function settings": ["ALTER FUNCTION pgmq.send(text, jsonb) SET search_path = ''", "ALTER FUNCTION pgmq.read(text, integer, integer, jsonb) SECURITY DEFINER PARALLEL SAFE"],
    "ext schema": ["ALTER SCHEMA pgmq RENAME TO pgmq_old{r}"],
    "ext dropped": ["DROP EXTENSION pgmq CASCADE"],
    "ext partman": ["DROP EXTENSION pg_partman CASCADE"],
    "ext part_config view": ["ALTER TABLE partman.part_config RENAME TO old{r}", "CREATE VIEW partman.part_config AS SELECT {v1} AS parent_table, {v2} AS control, {v3} AS partition_interval, {v4} AS premake, {v1} AS retention, {v2} AS template_table, {v3} AS partition_type, {v4} AS epoch"],
}
TYPE_CHANGES = ("DROP ATTRIBUTE IF EXISTS message CASCADE", "DROP ATTRIBUTE IF EXISTS queue_name CASCADE", "ADD ATTRIBUTE extra text CASCADE",
                "ALTER ATTRIBUTE msg_id TYPE text CASCADE", "ALTER ATTRIBUTE vt TYPE bigint CASCADE", "ALTER ATTRIBUTE message TYPE bigint CASCADE",
                "ALTER ATTRIBUTE queue_length TYPE text CASCADE", "ALTER ATTRIBUTE queue_name TYPE integer CASCADE", "ALTER ATTRIBUTE read_ct TYPE bigint CASCADE",
                "ALTER ATTRIBUTE enqueued_at TYPE timestamp CASCADE", "ALTER ATTRIBUTE is_partitioned TYPE text CASCADE")
TRIGGER_FUNCTIONS = ("_group_sent", "_group_removed", "_group_updated", "_group_truncated", "notify_queue_listeners", "_notify_settings_changed",
                     "_topic_bindings_changed", "_restore_in_any_order")
TRIGGERS = ("pgmq_group_sent", "pgmq_group_removed", "pgmq_group_updated", "pgmq_group_truncated", "trigger_notify_queue_insert_listeners")
WHENS = ("AFTER INSERT", "BEFORE INSERT", "AFTER UPDATE", "BEFORE UPDATE", "AFTER DELETE", "BEFORE DELETE", "AFTER INSERT OR UPDATE OR DELETE")
TRANSITIONS = ("FOR EACH ROW", "FOR EACH STATEMENT", "FOR EACH ROW", "FOR EACH STATEMENT", "REFERENCING NEW TABLE AS pgmq_sent FOR EACH STATEMENT",
               "REFERENCING OLD TABLE AS pgmq_removed FOR EACH STATEMENT", "REFERENCING NEW TABLE AS x FOR EACH STATEMENT")
KEYS = {"meta": "meta_queue_name_key", "topic_bindings": "topic_bindings_unique_pattern_queue", "notify_insert_throttle": "notify_insert_throttle_queue_name_key",
        "partition_config": "partition_config_pkey", "policy": "policy_pkey", "stream": "stream_pkey", "subscription": "subscription_pkey"}
INDEX_KEYS = ("msg_id", "vt", "vt, msg_id", "msg_id, vt", "read_ct", "grp, head", "late, head", "head, grp", "grp DESC, head", "grp, head DESC", "(grp::name), head",
              "grp COLLATE \"C.UTF-8\", head", "grp", "late", "head", "grp text_pattern_ops, head", "vt DESC, msg_id DESC", "(headers->>'x-pgmq-group'), msg_id",
              "(headers->>'x-pgmq-group') COLLATE \"C\", msg_id", "(read_ct::text), msg_id")
GROUP_KEYS = ("(headers->>'x-pgmq-group'), msg_id", "(coalesce(headers->>'x-pgmq-group', '_default_fifo_group')), msg_id",
              "(coalesce(headers->>'x-pgmq-group', '_default_fifo_group')) COLLATE \"C\", msg_id", "(coalesce(headers->>'x-pgmq-group', '')) COLLATE \"C\" DESC, msg_id",
              "(coalesce(headers->>'x-pgmq-group', '_default_fifo_group')), read_ct", "(read_ct::text), msg_id", "msg_id, (headers->>'x-pgmq-group')",
              "(NULL::text), msg_id", "read_ct, msg_id", "(headers->>'x-pgmq-group'), vt", "(headers->>'x-pgmq-group')")
IDS = ("-5", "0", "1", "2", "7", "150", "151", "5000", "9223372036854775807", "-9223372036854775808", "4611686018427387904")
VTS = ("now()", "'-infinity'", "'infinity'", "now() + interval '1 s'", "now() - interval '1 day'", "'294276-12-31'")
VALUES = ("NULL::text", "1", "'z1'::text", "'z1'::varchar", "'z3'::name", "true", "now()", "1.5", "'{}'::jsonb", "fuzz.slow(1)", "'a'::text", "1/0", "NULL::bigint")


# Calls that are tried on a queue after it was damaged, or on one after the extension was
POKES = ("send({}, '{{}}', '{{\"x-pgmq-group\": \"a\"}}'::jsonb)", "send_batch({}, ARRAY['{{}}', '{{}}']::jsonb[])", "read({}, 0, 5)", "read({}, 0, 1)", "read_grouped({}, 0, 5)",
         "read_grouped_rr({}, 0, 2)", "read_grouped_head({}, 0, 5)", "pop({})", "set_vt({}, 1::bigint, 0)", "set_vt({}, ARRAY[1, 2, 3]::bigint[], 0)", "delete({}, 2::bigint)",
         "archive({}, ARRAY[3]::bigint[])", "metrics({})", "metrics_all()", "list_partitions({})", "list_partitions()", "list_queues()", "create_fifo_index({})",
         "enable_notify_insert({}, 10)", "update_notify_insert({}, 20)", "disable_notify_insert({})", "list_notify_insert_throttles()", "test_routing('f.a.b')", "list_topic_bindings({})",
         "list_topic_bindings()", "send_topic('f.a.b', '{{}}'::jsonb)", "bind_topic('f.x', {})", "unbind_topic('f.x', {})", "set_retention({}, '5')", "create({})",
         "convert_archive_partitioned({}, '10', '100', 2)", "purge_queue({})",
         "send_unique({}, '{{}}', 'k1')", "send_unique_batch({}, ARRAY['1', '2']::jsonb[], ARRAY['k1', 'k2'], '1 s')", "set_policy({}, max_length => 3, overflow => 'drop_oldest')",
         "set_policy({}, max_reads => 2, dead_letter_queue => 'z1')", "reset_policy({})", "list_policies()", "peek({})", "ack({}, 1, 1)", "queue_status({})",
         "rescan({})", "create_partitioned({}, '10')", "create_fifo_indexes_all()")
STREAM_POKES = ("publish({}, '1')", "publish({}, '1', 'a')", "publish_batch({}, ARRAY['1', '2']::jsonb[], ARRAY['a', NULL])", "subscribe({}, 'sub3')", "unsubscribe({}, 'sub3')",
                "subscribe({}, 'sub3', 'earliest')", "receive({}, 'sub0', 0, 5)", "receive({}, 'sub1', 1, 1)", "advance({}, 'sub0', 0, 1, 1)", "extend_lease({}, 'sub0', 0, 5, 1)",
                "return_lease({}, 'sub1', 0, 5)", "seek({}, 'sub0', 'earliest', force => true)", "seek({}, 'sub0', start_time => now())", "seek({}, 'sub1', start_id => 3, force => true)",
                "fetch({}, 0, 0, 10)", "stream_lag({})", "stream_lag()", "list_streams()", "list_subscriptions({})", "create_stream({})", "create({})", "drop_stream({})",
                "receive({}, 'sub0', 0, 5) AS r, LATERAL pgmq.advance({}, 'sub0', r.shard, r.event_id, r.lease)", "send({}, '1'::jsonb)", "queue_status()", "metrics_all()")


def is_stream(sort):
    return sort.startswith("stream")


def in_words(text, filled):
    """A statement about queues as one about streams"""
    if filled.get("e") in ("pgmq.stream", "pgmq.subscription"):
        text = text.replace("queue_name", "stream_name")
    if "s" not in filled:
        return text
    for queues, streams in ((QUEUE_COLUMNS, filled["columns"]), (QUEUE_VALUES, LOG_VALUES)):
        text = text.replace(queues.replace("{{", "{").replace("}}", "}"), streams.replace("{{", "{").replace("}}", "}"))
    return re.sub(r"\b(%s)\b" % "|".join(STREAM_WORDS), lambda match: STREAM_WORDS[match.group(1)], text)


def pokes(filled):
    return STREAM_POKES if "s" in filled else POKES


class Breaker(Client):
    """An owner who damages its own queues, and makes them anew from time to time"""

    damages = QUEUE_DAMAGE

    def __init__(self, *args, queues, values, **more):
        super().__init__(*args, **more)
        self.queues = queues
        self.values = values        # of odd arguments
        self.makers = {}
        self.serial = 0

    def queue_for(self, templates):
        """One that has what the damage is about"""
        text = " ".join(templates)
        word = "stream" if "{p}" in text and "{s}" in text or re.search(r"\{[sp]\}.*subscription|pgmq.stream", text) else "group" if re.search(r"\{g\}|fifo|\{gkeys\}", text) else "unique" if "{k}" in text else "id time drops" if re.search(r"\{p\}|part_config|_config |enqueued_at, vt", text) else ""
        fit = [queue for queue in self.queues if set(word.split()) & set(queue[1].replace(" ", "+").split("+"))]
        return self.rng.choice(fit if fit and self.rng.random() < 0.8 else self.queues)

    def choose_stream(self, name):
        """What choose() gives for a queue: q stands for the log, a for the positions"""
        rng = self.rng
        low = name.lower()
        bare = rng.choice(("s_%s", "s_%s", "p_%s", "p_%s", "s_%s_p1", "s_%s_default")) % low

        def quoted(text):
            return '"' + text.replace('"', '""') + '"'

        log, positions = "pgmq." + quoted("s_" + low), "pgmq." + quoted("p_" + low)
        ikeys = rng.choice(STREAM_INDEX_KEYS)
        return {
            "s": log, "q": log, "p": positions, "a": positions, "g": positions, "k": positions, "t": "pgmq." + quoted(bare), "t_bare": quoted(bare),
            "n": bare.replace('"', '""'), "c": rng.choice(STREAM_COLUMNS), "seq": "pgmq." + quoted("s_%s_event_id_seq" % low),
            "i": quoted(rng.choice(("s_%s_pkey", "p_%s_pkey", "s_%s_p1_pkey", "s_%s_default_pkey")) % low),
            "it": positions if "sta" in ikeys else log, "ikeys": ikeys, "ic": rng.choice(STREAM_COLUMNS), "gkeys": ikeys, "nlit": lit(bare),
            "clit": lit(rng.choice(STREAM_COLUMNS)), "columns": POSITION_COLUMNS if bare.startswith("p_") else LOG_COLUMNS}

    def choose(self, name, sort):
        filled = self.choose_queue(name, sort)
        if is_stream(sort):
            filled.update(self.choose_stream(name))
        return filled

    def choose_queue(self, name, sort):
        rng = self.rng
        self.serial += 1
        kind = rng.choice("qqqa" + ("gg" if "group" in sort else "") + ("kk" if "unique" in sort else ""))
        bare = "%s_%s" % (kind, name.lower())

        def quoted(text):
            return '"' + text.replace('"', '""') + '"'

        def odd():
            return self.values.name()

        low = name.lower()
        index = rng.choice(("q_%s_vt_idx", "q_%s_pkey", "q_%s_fifo_idx", "fifo_head_idx_%s", "fifo_late_idx_%s", "g_%s_vt_idx", "g_%s_pkey",
                            "archived_at_idx_%s", "a_%s_pkey", "q_%s_part_idx", "dedup_key_idx_%s")) % low
        ikeys = rng.choice(INDEX_KEYS)
        partition = rng.choice(("p0", "p10", "p20", "default")) if rng.random() < 0.5 else time.strftime("p%Y_%m_%d", time.gmtime(time.time() + rng.randint(-3, 3) * 86400))
        return {
            "q": "pgmq." + quoted("q_" + low), "a": "pgmq." + quoted("a_" + low), "g": "pgmq." + quoted("g_" + low), "k": "pgmq." + quoted("k_" + low), "t": "pgmq." + quoted(bare),
            "t_bare": quoted(bare), "n": bare.replace('"', '""'), "name": low.replace('"', '""'), "r": str(self.serial), "c": rng.choice(COLUMNS),
            "type": rng.choice(TYPES), "seq": "pgmq." + quoted("q_%s_msg_id_seq" % low if rng.random() < 0.85 else "g_%s_msg_id_seq" % low),
            "i": quoted(index), "it": "pgmq." + quoted(("g_" if "grp" in ikeys or "head" in ikeys or "late" in ikeys else rng.choice(("q_", "q_", "g_"))) + low),
            "ikeys": ikeys, "ic": rng.choice(COLUMNS), "gkeys": rng.choice(GROUP_KEYS), "method": rng.choice(("gist", "hash", "brin", "gin", "spgist", "btree")),
            "trigger": rng.choice(TRIGGERS), "when": rng.choice(WHENS), "each": rng.choice(TRANSITIONS), "tf": rng.choice(TRIGGER_FUNCTIONS),
            "targ": rng.choice((lit(low), "", lit(low) + ", 'x'", "'z2'", odd().replace("NULL", "''"))), "event": rng.choice(("INSERT", "UPDATE", "DELETE")),
            "check": rng.choice(("slow", "fails", "very_slow", "slow")), "id": rng.choice(IDS), "id2": rng.choice(IDS), "vt": rng.choice(VTS),
            "headers": self.values.headers(), "group": rng.choice(("'a'", "'b'", "''", "repeat('g', 300)", "'_default_fifo_group'")),
            "p": quoted("%s_%s" % (bare, partition)), "odd": odd(), "flag": rng.choice(("true", "false")), "flag2": rng.choice(("true", "false")),
            "lit": lit(name), "nlit": lit(bare), "clit": lit(rng.choice(COLUMNS)), "interval": self.values.argument("partition_interval", "text"),
        }

    def connected(self):
        self.run("SET lock_timeout = '1s'")
        self.run("SET statement_timeout = '5s'")

    def apply(self, damages, fill):
        """One damage: all of it or nothing, unless the server wants it outside of a transaction"""
        rng = self.rng
        what = rng.choice(list(damages))
        filled = fill(damages[what])
        statements = []
        for template in damages[what]:
            text = in_words(template.format(**filled), filled)
            statements += [part for part in text.split("\n") if part]
        outside = [text for text in statements if text.startswith("CONCURRENTLY ")]
        done = 0
        if not outside:
            self.run("BEGIN")
        for text in statements:
            if outside:
                done += self.run(text.removeprefix("CONCURRENTLY ")) is not None
                continue
            # What can't be done is passed over: often the rest can
            self.run("SAVEPOINT s")
            if self.run(text) is None:
                self.run("ROLLBACK TO s")
            else:
                done += 1
            if self.conn.closed:
                return
        if not outside:
            if rng.random() < 0.1:
                self.nap(rng.random())
            self.run("COMMIT" if rng.random() < 0.92 else "ROLLBACK")
        self.counts["damage " + what] += done > 0
        self.counts["damages"] += done > 0
        # Others come by chance
        for call in rng.sample(pokes(filled), 3):
            self.run("SELECT * FROM pgmq." + call.format(*2 * (filled.get("lit", "'z1'"),)), "poke")

    def fill_queue(self, templates):
        return self.choose(*self.queue_for(templates))

    def recreate(self, name, kind):
        """By a superuser, because the owner may have given it away; made again by the owner"""
        self.log("SELECT fuzz.wipe(%s)" % lit(name))
        try:
            with psycopg.connect(dbname=self.database, user="postgres", autocommit=True, application_name="fuzz repair") as conn:
                conn.execute("SET lock_timeout = '2s'; SET client_min_messages = error")
                conn.execute("SELECT fuzz.wipe(%s)" % lit(name))
        except psycopg.Error as error:
            self.log("-- %s" % error)
            self.counts["repairs failed"] += 1
            return
        if self.rng.random() < 0.15:
            self.apply(PREPARED, lambda _: self.choose(name, "group"))
        for sql in make_queue(name, kind):
            self.run(sql)
        if is_stream(kind):
            self.counts["repairs"] += 1
            return
        for _ in range(3):
            self.run("SELECT pgmq.send(%s, '{}'::jsonb, '{\"x-pgmq-group\": \"a\"}'::jsonb)" % lit(name))
        self.counts["repairs"] += 1

    def step(self):
        if self.rng.random() < 0.4:
            self.recreate(*self.rng.choice(self.queues))
        for _ in range(self.rng.choice((1, 1, 2, 3))):
            if self.rng.random() < 0.2:
                self.apply(STREAM_DAMAGE, lambda _: self.choose(*self.rng.choice(STREAMS)))
            else:
                self.apply(self.damages, self.fill_queue)
            if self.conn.closed:
                break
        self.nap(self.rng.choice((0.02, 0.1, 0.3)))


class ExtensionBreaker(Breaker):
    """The owner of a database, who damages the extension in it; a fresh copy of the database comes after some damages"""

    def __init__(self, *args, template, **more):
        super().__init__(*args, **more)
        self.template = template
        self.left = 0

    def renew(self):
        if self.conn is not None:
            self.conn.close()
        for _ in range(200):
            try:
                with psycopg.connect(dbname="postgres", user="postgres", autocommit=True, application_name="fuzz renew") as conn:
                    conn.execute("DROP DATABASE IF EXISTS %s WITH (FORCE)" % self.database)
                    conn.execute("CREATE DATABASE %s TEMPLATE %s OWNER dbowner" % (self.database, self.template))
                break
            except psycopg.Error as error:
                self.log("-- renew: %s" % error)
                self.end_prepared()
                self.nap(0.05)
        self.counts["repairs"] += 1
        self.left = self.rng.choice((1, 2, 3, 5))
        self.connect()

    def end_prepared(self):
        """A database with prepared transactions can't be dropped"""
        try:
            with psycopg.connect(dbname=self.database, user="postgres", autocommit=True) as conn:
                for (gid,) in conn.execute("SELECT gid FROM pg_prepared_xacts WHERE database = current_database()").fetchall():
                    conn.execute("ROLLBACK PREPARED " + lit(gid))
        except psycopg.Error:
            pass

    def fill_extension(self, _):
        rng = self.rng
        self.serial += 1
        table = rng.choice(list(EXTENSION_TABLES))
        other = rng.choice(list(EXTENSION_TABLES))
        columns = EXTENSION_TABLES[table]
        drop_keys = "\n".join("ALTER TABLE pgmq.%s DROP CONSTRAINT IF EXISTS %s CASCADE" % item for item in KEYS.items())
        drop_keys += "\nALTER TABLE pgmq.topic_bindings DROP CONSTRAINT IF EXISTS topic_bindings_meta_queue_name_fk"
        drop_keys += "\nALTER TABLE pgmq.policy DROP CONSTRAINT IF EXISTS policy_queue_name_key, DROP CONSTRAINT IF EXISTS policy_meta_queue_name_fk"
        return {"e": "pgmq." + table, "bare": table, "c": rng.choice(columns), "c2": rng.choice(columns), "r": str(self.serial), "drop_keys": drop_keys,
                "not_nulls": ", ".join("ALTER %s DROP NOT NULL" % column for column in columns if column != "compiled_regex"),
                "odd": self.values.name(), "odd2": self.values.name(), "type": rng.choice(TYPES), "type2": rng.choice(TYPES), "type3": rng.choice(TYPES),
                "v1": rng.choice(VALUES), "v2": rng.choice(VALUES), "v3": rng.choice(VALUES), "v4": rng.choice(VALUES), "server": rng.choice(("nowhere", "noserver")),
                "key": KEYS[table], "other_e": "pgmq." + other, "oc": rng.choice(EXTENSION_TABLES[other]), "when": rng.choice(WHENS), "each": rng.choice(TRANSITIONS),
                "tf": rng.choice(TRIGGER_FUNCTIONS), "event": rng.choice(("INSERT", "UPDATE", "DELETE")), "check": rng.choice(("slow", "fails")),
                "typechange": rng.choice(TYPE_CHANGES)}

    def step(self):
        if self.left <= 0 or self.conn.closed:
            self.renew()
        self.left -= 1
        self.apply(EXTENSION_DAMAGE, self.fill_extension)
        for call in self.rng.sample(STREAM_POKES, 2):
            self.run("SELECT * FROM pgmq." + call.format(*2 * ("'y1'",)), "poke")
        if self.rng.random() < 0.3:
            self.apply(QUEUE_DAMAGE, self.fill_queue)
        self.nap(self.rng.choice((0.2, 0.5, 1)))


class Trial(ExtensionBreaker):
    """Damages in a transaction that is rolled back: nothing has to be made anew, so there are many of them.

    The session has a database for itself, and one queue that is not damaged must be as it was after each.
    """

    def connected(self):
        super().connected()
        for name, kind in self.queues + [("sane", "std+group+notify")]:
            if "trigger" not in kind:
                for sql in make_queue(name, kind):
                    self.run(sql)
        self.run("SELECT pgmq.purge_queue('sane')")
        self.run("SELECT pgmq.create_stream('sane events'), pgmq.subscribe('sane events', 'sub')")
        self.run("SELECT pgmq.seek('sane events', 'sub', 'latest', force => true)")

    def poke(self, name, sort):
        self.run("SAVEPOINT p")
        call = self.rng.choice(STREAM_POKES if is_stream(sort) else POKES).format(*2 * (lit(name),))
        if self.run("SELECT * FROM pgmq." + call, "poke") is None or self.rng.random() < 0.3:
            self.run("ROLLBACK TO p")

    def step(self):
        rng = self.rng
        if self.conn.closed:
            self.connect()
        name, sort = rng.choice(self.queues)
        self.nested = True
        try:
            self.run("BEGIN")
            for _ in range(rng.randrange(3)):
                self.poke(name, sort)
            for _ in range(rng.choice((1, 1, 2))):
                self.damage(name, sort)
            for _ in range(10):
                self.poke(name, sort)
            self.run("ROLLBACK")
            self.sane()
            self.sane_stream()
        except Lost:
            pass
        finally:
            self.nested = False

    def damage(self, name, sort):
        rng = self.rng
        if is_stream(sort) and rng.random() < 0.5:
            damages, filled = STREAM_DAMAGE, self.choose(name, sort)
        elif rng.random() < 0.6:
            damages, filled = QUEUE_DAMAGE, self.choose(name, sort)
        else:
            damages, filled = EXTENSION_DAMAGE, self.fill_extension(None)
        what = rng.choice(list(damages))
        done = 0
        for template in damages[what]:
            for text in in_words(template.format(**filled), filled).split("\n"):
                if text and not text.startswith("CONCURRENTLY "):
                    self.run("SAVEPOINT d")
                    if self.run(text) is None:
                        self.run("ROLLBACK TO d")
                    else:
                        done += 1
        self.counts["damage " + what] += done > 0
        self.counts["trials"] += done > 0

    def sane(self):
        """Sent is read is deleted, as if nothing had been"""
        rows = self.run("SELECT * FROM pgmq.send('sane', '{}')")
        msg_id = rows[0][0] if rows else 0
        how = self.rng.choice(("read", "read_grouped", "read_grouped_head"))
        got = self.run("SELECT msg_id FROM pgmq.%s('sane', 0, 10)" % how)
        gone = self.run("SELECT pgmq.delete('sane', %d::bigint)" % msg_id)
        if got != [(msg_id,)] or gone != [(True,)]:
            if self.last_error[0] not in ("57014", "lost"):
                self.violate("innocent", "after a rollback, sent %s, %s returned %s, delete %s (%s)" % (rows, how, got, gone, self.last_error))
            self.run("SELECT pgmq.purge_queue('sane')")


    def sane_stream(self):
        """What is published is received, and nothing else"""
        rows = self.run("SELECT pgmq.publish('sane events', '{}')")
        event_id = rows[0][0] if rows else 0
        got = self.run("SELECT r.event_id, pgmq.advance('sane events', 'sub', r.shard, r.event_id, r.lease) FROM pgmq.receive('sane events', 'sub', 60, 10) AS r")
        if got != [(event_id, True)]:
            if self.last_error[0] not in ("57014", "lost"):
                self.violate("innocent", "after a rollback, published %s, received %s (%s)" % (rows, got, self.last_error))
            self.run("SELECT pgmq.seek('sane events', 'sub', 'latest', force => true)")


def make_stream(name, shards):
    return ["SELECT pgmq.create_stream(%s, %s, '1 s', '1 s')" % (lit(name), shards),
            "SELECT pgmq.subscribe(%s, 'sub0', 'earliest'), pgmq.subscribe(%s, 'sub1'), pgmq.subscribe(%s, 'sub2', start_id => 1)" % (3 * (lit(name),)),
            "SELECT pgmq.publish(%s, to_jsonb(i), (i %% 5)::text) FROM generate_series(1, 10) AS i" % lit(name)]


def make_queue(name, kind):
    """The statements that make a queue of a kind: words with + between them; or a stream"""
    if is_stream(kind):
        return make_stream(name, kind.split()[1])
    words = kind.split("+")
    how = {"std": "create(%s)", "unlogged": "create_unlogged(%s)", "id": "create_partitioned(%s, '10', '1000', 2)",
           "time": "create_partitioned(%s, '1 day', '7 days', 2)", "drops": "create_partitioned(%s, '5', '10', 2, true, true)"}[words[0]]
    made = ["SELECT pgmq." + how % lit(name)]
    if "group" in words:
        made.append("SELECT pgmq.create_fifo_index(%s)" % lit(name))
    if "unique" in words:
        made.append("SELECT pgmq.send_unique(%s, '{}', 'k1'), pgmq.send_unique(%s, '{}', 'k2', '1 hour')" % (lit(name), lit(name)))
    if "notify" in words:
        made.append("SELECT pgmq.enable_notify_insert(%s, %d)" % (lit(name), 50))
    if "topic" in words:
        made += ["SELECT pgmq.bind_topic(%s, %s)" % (lit(pattern), lit(name)) for pattern in ("f.#", "f.a.*")]
    if "policy" in words:
        # The dead-letter queue is one that is damaged, too; it may be missing
        made.append("SELECT pgmq.set_policy(%s, max_reads => 2, message_ttl => '1 minute', retry_delay_max => '1 s', rate_limit => 1000,"
                    " max_in_flight => 100, priority => true)" % lit(name))
        made.append("DO $$ BEGIN PERFORM pgmq.set_policy(%s, dead_letter_queue => 'z1'); EXCEPTION WHEN OTHERS THEN NULL; END $$" % lit(name))
    if "trigger" in words:
        made.append('CREATE TRIGGER fuzz AFTER INSERT OR DELETE ON pgmq."q_%s" FOR EACH STATEMENT EXECUTE FUNCTION fuzz.trigger()' % name.lower().replace('"', '""'))
        made.append('CREATE TRIGGER fuzz2 BEFORE INSERT OR UPDATE ON pgmq."q_%s" FOR EACH ROW EXECUTE FUNCTION fuzz.trigger()' % name.lower().replace('"', '""'))
    return made

\echo Use "CREATE EXTENSION pgmq" to load this file. \quit

-- The extension is trusted: this script runs as a superuser even if another role
-- installs it.  The schema may exist already and belong to any role.  So every
-- name is qualified, nothing is replaced, and nothing is skipped because it exists
-- already.  @extowner@ is the role that runs CREATE EXTENSION.

------------------------------------------------------------ types and tables

CREATE TYPE pgmq.message_record AS (
    msg_id bigint,
    read_ct integer,
    enqueued_at timestamp with time zone,
    last_read_at timestamp with time zone,
    vt timestamp with time zone,
    message pg_catalog.jsonb,
    headers pg_catalog.jsonb
);
COMMENT ON TYPE pgmq.message_record IS 'A message as read and pop return it';

CREATE TYPE pgmq.queue_record AS (
    queue_name character varying,
    is_partitioned boolean,
    is_unlogged boolean,
    created_at timestamp with time zone
);
COMMENT ON TYPE pgmq.queue_record IS 'A queue as list_queues returns it';

CREATE TYPE pgmq.metrics_result AS (
    queue_name pg_catalog.text,
    queue_length bigint,
    newest_msg_age_sec integer,
    oldest_msg_age_sec integer,
    total_messages bigint,
    scrape_time timestamp with time zone,
    queue_visible_length bigint,
    default_partition_length bigint
);
COMMENT ON TYPE pgmq.metrics_result IS 'The numbers of a queue as metrics returns them';

CREATE TABLE pgmq.meta (
    queue_name character varying NOT NULL CONSTRAINT meta_queue_name_key UNIQUE,
    is_partitioned boolean NOT NULL,
    is_unlogged boolean NOT NULL,
    created_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now()
);
COMMENT ON TABLE pgmq.meta IS 'The queues, each in the spelling that it was created with';

-- A queue's identity is its lower-cased name.  The index is not unique: a database
-- from the PL/pgSQL extension may hold two spellings of one queue, and its dump
-- must load.
CREATE INDEX meta_identity_idx ON pgmq.meta (pg_catalog.lower(queue_name));

SELECT pg_catalog.pg_extension_config_dump('pgmq.meta', '');

-- Which patterns lead to which queues.  compiled_regex is for readers of the table;
-- sends match the pattern itself.
CREATE TABLE pgmq.topic_bindings (
    pattern pg_catalog.text NOT NULL,
    queue_name pg_catalog.text NOT NULL
        CONSTRAINT topic_bindings_meta_queue_name_fk
        REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    bound_at timestamp with time zone NOT NULL DEFAULT pg_catalog.now(),
    compiled_regex pg_catalog.text GENERATED ALWAYS AS (
        '^' OPERATOR(pg_catalog.||)
        pg_catalog.replace(
            pg_catalog.replace(
                pg_catalog.regexp_replace(pattern, E'[][+.?(){}|^$\\\\]', E'\\\\\\&', 'g'),
                '*', '[^.]+'),
            '#', '.*')
        OPERATOR(pg_catalog.||) '$'
    ) STORED,
    CONSTRAINT topic_bindings_unique_pattern_queue UNIQUE (pattern, queue_name)
);
COMMENT ON TABLE pgmq.topic_bindings IS 'Which routing keys lead to which queues';

CREATE INDEX idx_topic_bindings_covering ON pgmq.topic_bindings (pattern) INCLUDE (queue_name, compiled_regex);

-- Sessions keep the bindings that they have read.  The trigger tells them about every
-- change of the table, also by replication.
CREATE FUNCTION pgmq._topic_bindings_changed()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__topic_bindings_changed';
COMMENT ON FUNCTION pgmq._topic_bindings_changed() IS
    'Private: make all sessions read the bindings again';

CREATE TRIGGER topic_bindings_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.topic_bindings
    FOR EACH ROW EXECUTE FUNCTION pgmq._topic_bindings_changed();
CREATE TRIGGER topic_bindings_truncated AFTER TRUNCATE ON pgmq.topic_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._topic_bindings_changed();
ALTER TABLE pgmq.topic_bindings ENABLE ALWAYS TRIGGER topic_bindings_changed;
ALTER TABLE pgmq.topic_bindings ENABLE ALWAYS TRIGGER topic_bindings_truncated;

SELECT pg_catalog.pg_extension_config_dump('pgmq.topic_bindings', '');

-- Which queues notify of insertions, and how often at most.  Senders only read
-- it.  Logged: a crash must not switch notifications off.
CREATE TABLE pgmq.notify_insert_throttle (
    queue_name character varying NOT NULL
        CONSTRAINT notify_insert_throttle_queue_name_key UNIQUE
        CONSTRAINT notify_insert_throttle_meta_queue_name_fk
            REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    throttle_interval_ms integer NOT NULL DEFAULT 0,
    last_notified_at timestamp with time zone NOT NULL DEFAULT pg_catalog.to_timestamp(0)
);
COMMENT ON TABLE pgmq.notify_insert_throttle IS 'The queues that notify of insertions; list_notify_insert_throttles() shows when they last did';
CREATE INDEX idx_notify_throttle_active ON pgmq.notify_insert_throttle (queue_name, last_notified_at)
    WHERE throttle_interval_ms OPERATOR(pg_catalog.>) 0;

SELECT pg_catalog.pg_extension_config_dump('pgmq.notify_insert_throttle', '');

-- When partitions are dropped.  By its own record, pg_partman would drop unread messages with them.
CREATE TABLE pgmq.partition_config (
    queue_name character varying NOT NULL PRIMARY KEY,
    retention_interval pg_catalog.text,
    drop_unread boolean NOT NULL,
    drop_consumed boolean NOT NULL,
    converted_archive pg_catalog.text
);
COMMENT ON TABLE pgmq.partition_config IS 'When partitions of a partitioned queue are dropped; queue_name is lower-case';
COMMENT ON COLUMN pgmq.partition_config.retention_interval IS
    'Older partitions are dropped: a number of ids or a time; NULL: none';
COMMENT ON COLUMN pgmq.partition_config.drop_unread IS
    'True: they are dropped with the messages in them; false: when they are empty';
COMMENT ON COLUMN pgmq.partition_config.drop_consumed IS
    'True: empty partitions are dropped at any age, and an empty current one is truncated';
COMMENT ON COLUMN pgmq.partition_config.converted_archive IS
    'The table that was the archive before the conversion, until it is attached';

SELECT pg_catalog.pg_extension_config_dump('pgmq.partition_config', '');

-- Rows of these tables decide what happens to a queue, so only its owner may write
-- them.  Replicated rows are not checked again: the publisher has checked them.
-- Bindings are different: a role that may bind decides where messages go.
CREATE FUNCTION pgmq._check_queue_owner()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__check_queue_owner';
COMMENT ON FUNCTION pgmq._check_queue_owner() IS
    'Private: the trigger that refuses rows of other owners'' queues';

CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.meta
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.meta
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.notify_insert_throttle
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.notify_insert_throttle
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.partition_config
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.partition_config
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.topic_bindings
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();

-- pg_restore -j loads these tables side by side, although two of them refer to the third.
CREATE FUNCTION pgmq._restore_in_any_order()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__restore_in_any_order';
COMMENT ON FUNCTION pgmq._restore_in_any_order() IS
    'Private: the trigger that lists a queue when a row refers to it before its own row is restored';

CREATE TRIGGER restore_in_any_order BEFORE INSERT ON pgmq.meta
    FOR EACH ROW EXECUTE FUNCTION pgmq._restore_in_any_order();
CREATE TRIGGER restore_in_any_order BEFORE INSERT ON pgmq.topic_bindings
    FOR EACH ROW EXECUTE FUNCTION pgmq._restore_in_any_order();
CREATE TRIGGER restore_in_any_order BEFORE INSERT ON pgmq.notify_insert_throttle
    FOR EACH ROW EXECUTE FUNCTION pgmq._restore_in_any_order();

-- A publication FOR ALL TABLES publishes these too; without an identity they
-- could be neither updated nor deleted from.
ALTER TABLE pgmq.meta REPLICA IDENTITY USING INDEX meta_queue_name_key;
ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY USING INDEX topic_bindings_unique_pattern_queue;
ALTER TABLE pgmq.notify_insert_throttle REPLICA IDENTITY USING INDEX notify_insert_throttle_queue_name_key;

-- The installing role owns the objects that it may want to grant.
ALTER TABLE pgmq.meta OWNER TO @extowner@;
ALTER TABLE pgmq.topic_bindings OWNER TO @extowner@;
ALTER TABLE pgmq.notify_insert_throttle OWNER TO @extowner@;
ALTER TABLE pgmq.partition_config OWNER TO @extowner@;

-- Monitoring roles may read everything, as they may with the PL/pgSQL extension.
GRANT USAGE ON SCHEMA pgmq TO pg_monitor;
GRANT SELECT ON TABLE pgmq.meta, pgmq.topic_bindings, pgmq.notify_insert_throttle, pgmq.partition_config TO pg_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE @extowner@ IN SCHEMA pgmq GRANT SELECT ON TABLES TO pg_monitor;
ALTER DEFAULT PRIVILEGES FOR ROLE @extowner@ IN SCHEMA pgmq GRANT SELECT ON SEQUENCES TO pg_monitor;

------------------------------------------------------------------------- send

CREATE FUNCTION pgmq.send(queue_name pg_catalog.text, msg pg_catalog.jsonb)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb) IS
    'Send a message; returns its msg_id';

CREATE FUNCTION pgmq.send(queue_name pg_catalog.text, msg pg_catalog.jsonb, headers pg_catalog.jsonb)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_headers';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb) IS
    'Send a message with headers; returns its msg_id';

CREATE FUNCTION pgmq.send(queue_name pg_catalog.text, msg pg_catalog.jsonb, delay integer)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_delay';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb, integer) IS
    'Send a message that becomes visible after delay seconds; returns its msg_id';

CREATE FUNCTION pgmq.send(queue_name pg_catalog.text, msg pg_catalog.jsonb, delay timestamp with time zone)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_at';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb, timestamp with time zone) IS
    'Send a message that becomes visible at a time; returns its msg_id';

CREATE FUNCTION pgmq.send(
    queue_name pg_catalog.text,
    msg pg_catalog.jsonb,
    headers pg_catalog.jsonb,
    delay integer
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_headers_delay';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb, integer) IS
    'Send a message with headers that becomes visible after delay seconds; returns its msg_id';

CREATE FUNCTION pgmq.send(
    queue_name pg_catalog.text,
    msg pg_catalog.jsonb,
    headers pg_catalog.jsonb,
    delay timestamp with time zone
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_headers_at';
COMMENT ON FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb, timestamp with time zone) IS
    'Send a message with headers that becomes visible at a time; returns its msg_id';

CREATE FUNCTION pgmq.send_batch(queue_name pg_catalog.text, msgs pg_catalog.jsonb[])
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[]) IS
    'Send many messages; returns their msg_ids in array order';

CREATE FUNCTION pgmq.send_batch(queue_name pg_catalog.text, msgs pg_catalog.jsonb[], headers pg_catalog.jsonb[])
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_headers';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[]) IS
    'Send many messages with headers; returns their msg_ids in array order';

CREATE FUNCTION pgmq.send_batch(queue_name pg_catalog.text, msgs pg_catalog.jsonb[], delay integer)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_delay';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[], integer) IS
    'Send many messages that become visible after delay seconds; returns their msg_ids in array order';

CREATE FUNCTION pgmq.send_batch(queue_name pg_catalog.text, msgs pg_catalog.jsonb[], delay timestamp with time zone)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_at';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[], timestamp with time zone) IS
    'Send many messages that become visible at a time; returns their msg_ids in array order';

CREATE FUNCTION pgmq.send_batch(
    queue_name pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[],
    delay integer
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_headers_delay';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[], integer) IS
    'Send many messages with headers that become visible after delay seconds; returns their msg_ids in array order';

CREATE FUNCTION pgmq.send_batch(
    queue_name pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[],
    delay timestamp with time zone
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_headers_at';
COMMENT ON FUNCTION pgmq.send_batch(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[], timestamp with time zone) IS
    'Send many messages with headers that become visible at a time; returns their msg_ids in array order';

CREATE FUNCTION pgmq._send_batch(
    queue_name pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[],
    delay timestamp with time zone
)
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__send_batch';
COMMENT ON FUNCTION pgmq._send_batch(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[], timestamp with time zone) IS
    'Private: send_batch without its checks';

CREATE FUNCTION pgmq._validate_batch_params(msgs pg_catalog.jsonb[], headers pg_catalog.jsonb[])
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__validate_batch_params';
COMMENT ON FUNCTION pgmq._validate_batch_params(pg_catalog.jsonb[], pg_catalog.jsonb[]) IS
    'Private: the checks of send_batch';

----------------------------------------------------------------- read and pop

CREATE FUNCTION pgmq.read(
    queue_name pg_catalog.text,
    vt integer,
    qty integer,
    conditional pg_catalog.jsonb DEFAULT '{}'
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read';
COMMENT ON FUNCTION pgmq.read(pg_catalog.text, integer, integer, pg_catalog.jsonb) IS
    'Take up to qty visible messages and hide them for vt seconds; with conditional, only those whose body contains it';

CREATE FUNCTION pgmq.read_with_poll(
    queue_name pg_catalog.text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100,
    conditional pg_catalog.jsonb DEFAULT '{}'
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_with_poll';
COMMENT ON FUNCTION pgmq.read_with_poll(pg_catalog.text, integer, integer, integer, integer, pg_catalog.jsonb) IS
    'Like read, but wait up to max_poll_seconds for a message; poll_interval_ms is the maximum time between two checks';

CREATE FUNCTION pgmq.pop(queue_name pg_catalog.text, qty integer DEFAULT 1)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_pop';
COMMENT ON FUNCTION pgmq.pop(pg_catalog.text, integer) IS
    'Take up to qty visible messages and delete them at once';

CREATE PROCEDURE pgmq.wait(
    queue_name pg_catalog.text,
    timeout_ms integer DEFAULT 5000,
    INOUT ready boolean DEFAULT NULL
)
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_wait';
COMMENT ON PROCEDURE pgmq.wait(pg_catalog.text, integer, boolean) IS
    'Wait up to timeout_ms milliseconds until there is a message to read, without holding a snapshot; true if there is one';

CREATE PROCEDURE pgmq.wait_any(
    queue_names pg_catalog.text[],
    timeout_ms integer DEFAULT 5000,
    INOUT ready pg_catalog.text[] DEFAULT NULL
)
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_wait_any';
COMMENT ON PROCEDURE pgmq.wait_any(pg_catalog.text[], integer, pg_catalog.text[]) IS
    'Like wait, for any of several queues; returns the names of those with messages to read';

---------------------------------------------------------------------- groups

CREATE PROCEDURE pgmq.wait_grouped(
    queue_name pg_catalog.text,
    timeout_ms integer DEFAULT 5000,
    INOUT ready boolean DEFAULT NULL
)
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_wait_grouped';
COMMENT ON PROCEDURE pgmq.wait_grouped(pg_catalog.text, integer, boolean) IS
    'Like wait, until a grouped read can return a message';

CREATE FUNCTION pgmq.read_grouped(queue_name pg_catalog.text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped';
COMMENT ON FUNCTION pgmq.read_grouped(pg_catalog.text, integer, integer) IS
    'Take up to qty visible messages in the order of their groups, all of the group with the oldest message first, and hide them for vt seconds';

CREATE FUNCTION pgmq.read_grouped_with_poll(
    queue_name pg_catalog.text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped_with_poll';
COMMENT ON FUNCTION pgmq.read_grouped_with_poll(pg_catalog.text, integer, integer, integer, integer) IS
    'Like read_grouped, but wait up to max_poll_seconds for a message';

CREATE FUNCTION pgmq.read_grouped_rr(queue_name pg_catalog.text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped_rr';
COMMENT ON FUNCTION pgmq.read_grouped_rr(pg_catalog.text, integer, integer) IS
    'Take up to qty visible messages in the order of their groups, one of each group in turn, and hide them for vt seconds';

CREATE FUNCTION pgmq.read_grouped_rr_with_poll(
    queue_name pg_catalog.text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped_rr_with_poll';
COMMENT ON FUNCTION pgmq.read_grouped_rr_with_poll(pg_catalog.text, integer, integer, integer, integer) IS
    'Like read_grouped_rr, but wait up to max_poll_seconds for a message';

CREATE FUNCTION pgmq.read_grouped_head(queue_name pg_catalog.text, vt integer, qty integer)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped_head';
COMMENT ON FUNCTION pgmq.read_grouped_head(pg_catalog.text, integer, integer) IS
    'Take the first message of up to qty groups and hide them for vt seconds';

CREATE FUNCTION pgmq.read_grouped_head_with_poll(
    queue_name pg_catalog.text,
    vt integer,
    qty integer,
    max_poll_seconds integer DEFAULT 5,
    poll_interval_ms integer DEFAULT 100
)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_read_grouped_head_with_poll';
COMMENT ON FUNCTION pgmq.read_grouped_head_with_poll(pg_catalog.text, integer, integer, integer, integer) IS
    'Like read_grouped_head, but wait up to max_poll_seconds for a message';

CREATE FUNCTION pgmq.create_fifo_index(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_fifo_index';
COMMENT ON FUNCTION pgmq.create_fifo_index(pg_catalog.text) IS
    'Make the index, the notes and the triggers for fast grouped reads; harmless if they exist';

CREATE FUNCTION pgmq.create_fifo_indexes_all()
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_fifo_indexes_all';
COMMENT ON FUNCTION pgmq.create_fifo_indexes_all() IS
    'create_fifo_index for every queue';

CREATE FUNCTION pgmq._create_fifo_index_if_not_exists(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_fifo_index';
COMMENT ON FUNCTION pgmq._create_fifo_index_if_not_exists(pg_catalog.text) IS
    'Private: the same as create_fifo_index';

CREATE FUNCTION pgmq._groups_healed(queue_name pg_catalog.text)
RETURNS bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__groups_healed';
COMMENT ON FUNCTION pgmq._groups_healed(pg_catalog.text) IS
    'Private: how many groups without a note the sweep has found since the server was started';

CREATE FUNCTION pgmq._group_sent()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__group_sent';
COMMENT ON FUNCTION pgmq._group_sent() IS
    'Private: messages were inserted; called by the triggers that create_fifo_index makes';

CREATE FUNCTION pgmq._group_removed()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__group_removed';
COMMENT ON FUNCTION pgmq._group_removed() IS
    'Private: messages were deleted; called by the triggers that create_fifo_index makes';

CREATE FUNCTION pgmq._group_updated()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__group_updated';
COMMENT ON FUNCTION pgmq._group_updated() IS
    'Private: a message becomes visible earlier or has another group; called by the triggers that create_fifo_index makes';

CREATE FUNCTION pgmq._group_truncated()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__group_truncated';
COMMENT ON FUNCTION pgmq._group_truncated() IS
    'Private: the queue was truncated; called by the triggers that create_fifo_index makes';

------------------------------------------------------ delete, archive, set_vt

CREATE FUNCTION pgmq.delete(queue_name pg_catalog.text, msg_id bigint)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_delete';
COMMENT ON FUNCTION pgmq.delete(pg_catalog.text, bigint) IS
    'Delete a message; false if there is none';

CREATE FUNCTION pgmq.delete(queue_name pg_catalog.text, msg_ids bigint[])
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_delete_array';
COMMENT ON FUNCTION pgmq.delete(pg_catalog.text, bigint[]) IS
    'Delete messages; returns the msg_ids that existed';

CREATE FUNCTION pgmq.archive(queue_name pg_catalog.text, msg_id bigint)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_archive';
COMMENT ON FUNCTION pgmq.archive(pg_catalog.text, bigint) IS
    'Move a message to the archive; false if there is none';

CREATE FUNCTION pgmq.archive(queue_name pg_catalog.text, msg_ids bigint[])
RETURNS SETOF bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_archive_array';
COMMENT ON FUNCTION pgmq.archive(pg_catalog.text, bigint[]) IS
    'Move messages to the archive; returns the msg_ids that existed';

CREATE FUNCTION pgmq.set_vt(queue_name pg_catalog.text, msg_id bigint, vt integer)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_vt';
COMMENT ON FUNCTION pgmq.set_vt(pg_catalog.text, bigint, integer) IS
    'Make a message visible vt seconds from now; returns it';

CREATE FUNCTION pgmq.set_vt(queue_name pg_catalog.text, msg_id bigint, vt timestamp with time zone)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_vt_at';
COMMENT ON FUNCTION pgmq.set_vt(pg_catalog.text, bigint, timestamp with time zone) IS
    'Make a message visible at a time; returns it';

CREATE FUNCTION pgmq.set_vt(queue_name pg_catalog.text, msg_ids bigint[], vt integer)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_vt_array';
COMMENT ON FUNCTION pgmq.set_vt(pg_catalog.text, bigint[], integer) IS
    'Make messages visible vt seconds from now; returns them';

CREATE FUNCTION pgmq.set_vt(queue_name pg_catalog.text, msg_ids bigint[], vt timestamp with time zone)
RETURNS SETOF pgmq.message_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_vt_array_at';
COMMENT ON FUNCTION pgmq.set_vt(pg_catalog.text, bigint[], timestamp with time zone) IS
    'Make messages visible at a time; returns them';

----------------------------------------------------------------------- queues

CREATE FUNCTION pgmq.create(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_non_partitioned';
COMMENT ON FUNCTION pgmq.create(pg_catalog.text) IS
    'Create a queue; harmless if it exists';

CREATE FUNCTION pgmq.create_non_partitioned(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_non_partitioned';
COMMENT ON FUNCTION pgmq.create_non_partitioned(pg_catalog.text) IS
    'Create a queue; harmless if it exists';

CREATE FUNCTION pgmq.create_unlogged(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_unlogged';
COMMENT ON FUNCTION pgmq.create_unlogged(pg_catalog.text) IS
    'Create a queue whose messages do not survive a crash; harmless if it exists';

CREATE FUNCTION pgmq.create_partitioned(
    queue_name pg_catalog.text,
    partition_interval pg_catalog.text DEFAULT '10000',
    retention_interval pg_catalog.text DEFAULT '100000',
    premake integer DEFAULT 4,
    drop_unread boolean DEFAULT false,
    drop_consumed boolean DEFAULT false
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_partitioned';
COMMENT ON FUNCTION pgmq.create_partitioned(pg_catalog.text, pg_catalog.text, pg_catalog.text, integer, boolean, boolean) IS
    'Create a queue whose table and archive are partitioned, by msg_id or by time; harmless if it exists';

CREATE FUNCTION pgmq.drop_queue(queue_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_drop_queue';
COMMENT ON FUNCTION pgmq.drop_queue(pg_catalog.text) IS
    'Drop a queue and its archive; false if there is none';

CREATE FUNCTION pgmq.drop_queue(queue_name pg_catalog.text, partitioned boolean)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_drop_queue_partitioned';
COMMENT ON FUNCTION pgmq.drop_queue(pg_catalog.text, boolean) IS
    'Deprecated: use drop_queue(queue_name)';

CREATE FUNCTION pgmq.purge_queue(queue_name pg_catalog.text)
RETURNS bigint LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_purge_queue';
COMMENT ON FUNCTION pgmq.purge_queue(pg_catalog.text) IS
    'Remove all messages of a queue; returns how many';

CREATE FUNCTION pgmq.list_queues()
RETURNS SETOF pgmq.queue_record LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_queues';
COMMENT ON FUNCTION pgmq.list_queues() IS
    'All queues';

CREATE FUNCTION pgmq.detach_archive(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_detach_archive';
COMMENT ON FUNCTION pgmq.detach_archive(pg_catalog.text) IS
    'Deprecated: does nothing';

----------------------------------------------------------------------- topics

CREATE FUNCTION pgmq.validate_routing_key(routing_key pg_catalog.text)
RETURNS boolean LANGUAGE C IMMUTABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_validate_routing_key';
COMMENT ON FUNCTION pgmq.validate_routing_key(pg_catalog.text) IS
    'Returns true, or raises an error that says what is wrong with the routing key';

CREATE FUNCTION pgmq.validate_topic_pattern(pattern pg_catalog.text)
RETURNS boolean LANGUAGE C IMMUTABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_validate_topic_pattern';
COMMENT ON FUNCTION pgmq.validate_topic_pattern(pg_catalog.text) IS
    'Returns true, or raises an error that says what is wrong with the pattern';

CREATE FUNCTION pgmq.bind_topic(pattern pg_catalog.text, queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_bind_topic';
COMMENT ON FUNCTION pgmq.bind_topic(pg_catalog.text, pg_catalog.text) IS
    'Bind a queue to a pattern: it gets the messages whose routing key matches; harmless if it is bound';

CREATE FUNCTION pgmq.unbind_topic(pattern pg_catalog.text, queue_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_unbind_topic';
COMMENT ON FUNCTION pgmq.unbind_topic(pg_catalog.text, pg_catalog.text) IS
    'Remove the binding of a queue to a pattern; false if there is no such binding';

CREATE FUNCTION pgmq.list_topic_bindings()
RETURNS TABLE(pattern pg_catalog.text, queue_name pg_catalog.text, bound_at timestamp with time zone, compiled_regex pg_catalog.text) LANGUAGE C STABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_topic_bindings';
COMMENT ON FUNCTION pgmq.list_topic_bindings() IS
    'All bindings, the newest first';

CREATE FUNCTION pgmq.list_topic_bindings(queue_name pg_catalog.text)
RETURNS TABLE(pattern pg_catalog.text, queue_name pg_catalog.text, bound_at timestamp with time zone, compiled_regex pg_catalog.text) LANGUAGE C STABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_topic_bindings_of';
COMMENT ON FUNCTION pgmq.list_topic_bindings(pg_catalog.text) IS
    'The bindings of a queue, the newest first';

CREATE FUNCTION pgmq.test_routing(routing_key pg_catalog.text)
RETURNS TABLE(pattern pg_catalog.text, queue_name pg_catalog.text, compiled_regex pg_catalog.text) LANGUAGE C STABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_test_routing';
COMMENT ON FUNCTION pgmq.test_routing(pg_catalog.text) IS
    'The bindings that a routing key matches';

CREATE FUNCTION pgmq.send_topic(routing_key pg_catalog.text, msg pg_catalog.jsonb)
RETURNS integer LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_topic';
COMMENT ON FUNCTION pgmq.send_topic(pg_catalog.text, pg_catalog.jsonb) IS
    'Send a message to all queues that the routing key leads to; returns how many';

CREATE FUNCTION pgmq.send_topic(routing_key pg_catalog.text, msg pg_catalog.jsonb, delay integer)
RETURNS integer LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_topic_delay';
COMMENT ON FUNCTION pgmq.send_topic(pg_catalog.text, pg_catalog.jsonb, integer) IS
    'Send a message, visible after delay seconds, to all queues that the routing key leads to; returns how many';

CREATE FUNCTION pgmq.send_topic(
    routing_key pg_catalog.text,
    msg pg_catalog.jsonb,
    headers pg_catalog.jsonb,
    delay integer
)
RETURNS integer LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_topic_headers_delay';
COMMENT ON FUNCTION pgmq.send_topic(pg_catalog.text, pg_catalog.jsonb, pg_catalog.jsonb, integer) IS
    'Send a message with headers, visible after delay seconds, to all queues that the routing key leads to; returns how many';

CREATE FUNCTION pgmq.send_batch_topic(routing_key pg_catalog.text, msgs pg_catalog.jsonb[])
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[]) IS
    'Send many messages to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

CREATE FUNCTION pgmq.send_batch_topic(
    routing_key pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[]
)
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic_headers';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[]) IS
    'Send many messages with headers to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

CREATE FUNCTION pgmq.send_batch_topic(routing_key pg_catalog.text, msgs pg_catalog.jsonb[], delay integer)
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic_delay';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[], integer) IS
    'Send many messages, visible after delay seconds, to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

CREATE FUNCTION pgmq.send_batch_topic(
    routing_key pg_catalog.text,
    msgs pg_catalog.jsonb[],
    delay timestamp with time zone
)
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic_at';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[], timestamp with time zone) IS
    'Send many messages, visible at a time, to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

CREATE FUNCTION pgmq.send_batch_topic(
    routing_key pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[],
    delay integer
)
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic_headers_delay';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[], integer) IS
    'Send many messages with headers, visible after delay seconds, to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

CREATE FUNCTION pgmq.send_batch_topic(
    routing_key pg_catalog.text,
    msgs pg_catalog.jsonb[],
    headers pg_catalog.jsonb[],
    delay timestamp with time zone
)
RETURNS TABLE(queue_name pg_catalog.text, msg_id bigint) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_send_batch_topic_headers_at';
COMMENT ON FUNCTION pgmq.send_batch_topic(pg_catalog.text, pg_catalog.jsonb[], pg_catalog.jsonb[], timestamp with time zone) IS
    'Send many messages with headers, visible at a time, to all queues that the routing key leads to; returns their msg_ids, by queue, in array order';

------------------------------------------------------------------- partitions

CREATE FUNCTION pgmq.convert_archive_partitioned(
    table_name pg_catalog.text,
    partition_interval pg_catalog.text DEFAULT '10000',
    retention_interval pg_catalog.text DEFAULT '100000',
    leading_partition integer DEFAULT 10
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_convert_archive_partitioned';
COMMENT ON FUNCTION pgmq.convert_archive_partitioned(pg_catalog.text, pg_catalog.text, pg_catalog.text, integer) IS
    'Partition the archive of the queue table_name, including its rows';

CREATE PROCEDURE pgmq.maintain()
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_maintain';
COMMENT ON PROCEDURE pgmq.maintain() IS
    'Maintain all queues: make partitions, move rows out of default partitions, drop old partitions';

CREATE FUNCTION pgmq.list_partitions(queue_name pg_catalog.text DEFAULT NULL)
RETURNS TABLE (
    queue pg_catalog.text,
    partition pg_catalog.text,
    lower_bound pg_catalog.text,
    upper_bound pg_catalog.text,
    messages bigint,
    bytes bigint,
    past_retention boolean,
    held_back boolean
)
LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_partitions';
COMMENT ON FUNCTION pgmq.list_partitions(pg_catalog.text) IS
    'The partitions of a queue or of all queues, and which of them are held back by messages in them';

CREATE FUNCTION pgmq.set_retention(
    queue_name pg_catalog.text,
    retention_interval pg_catalog.text,
    drop_unread boolean DEFAULT false,
    drop_consumed boolean DEFAULT false
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_retention';
COMMENT ON FUNCTION pgmq.set_retention(pg_catalog.text, pg_catalog.text, boolean, boolean) IS
    'Set when partitions of a queue and its archive are dropped';

---------------------------------------------------------------------- metrics

CREATE FUNCTION pgmq.metrics(queue_name pg_catalog.text)
RETURNS pgmq.metrics_result LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_metrics';
COMMENT ON FUNCTION pgmq.metrics(pg_catalog.text) IS
    'Length, ages and totals of a queue';

CREATE FUNCTION pgmq.metrics_all()
RETURNS SETOF pgmq.metrics_result LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_metrics_all';
COMMENT ON FUNCTION pgmq.metrics_all() IS
    'Length, ages and totals of every queue';

---------------------------------------------------------------- notifications

CREATE FUNCTION pgmq.enable_notify_insert(queue_name pg_catalog.text, throttle_interval_ms integer DEFAULT 250)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_enable_notify_insert';
COMMENT ON FUNCTION pgmq.enable_notify_insert(pg_catalog.text, integer) IS
    'Notify listeners of the queue''s channel of insertions, at most once in throttle_interval_ms';

CREATE FUNCTION pgmq.disable_notify_insert(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_disable_notify_insert';
COMMENT ON FUNCTION pgmq.disable_notify_insert(pg_catalog.text) IS
    'Stop the notifications of insertions; harmless if there are none';

CREATE FUNCTION pgmq.update_notify_insert(queue_name pg_catalog.text, throttle_interval_ms integer)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_update_notify_insert';
COMMENT ON FUNCTION pgmq.update_notify_insert(pg_catalog.text, integer) IS
    'Change the minimum time between two notifications of a queue';

CREATE FUNCTION pgmq.list_notify_insert_throttles()
RETURNS TABLE (queue_name pg_catalog.text, throttle_interval_ms integer, last_notified_at timestamp with time zone)
LANGUAGE C STABLE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_notify_insert_throttles';
COMMENT ON FUNCTION pgmq.list_notify_insert_throttles() IS
    'The queues that notify of insertions, how often at most, and when they last did';

CREATE FUNCTION pgmq.notify_queue_listeners()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_notify_queue_listeners';
COMMENT ON FUNCTION pgmq.notify_queue_listeners() IS
    'The trigger that enable_notify_insert puts on a queue''s table';

CREATE FUNCTION pgmq._notify_settings_changed()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__notify_settings_changed';
COMMENT ON FUNCTION pgmq._notify_settings_changed() IS
    'Private: the trigger by which all sessions learn of changed settings';

CREATE TRIGGER notify_settings_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.notify_insert_throttle
    FOR EACH ROW EXECUTE FUNCTION pgmq._notify_settings_changed();
CREATE TRIGGER notify_settings_truncated AFTER TRUNCATE ON pgmq.notify_insert_throttle
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._notify_settings_changed();
ALTER TABLE pgmq.notify_insert_throttle ENABLE ALWAYS TRIGGER notify_settings_changed;
ALTER TABLE pgmq.notify_insert_throttle ENABLE ALWAYS TRIGGER notify_settings_truncated;

---------------------------------------------------------------------- helpers

CREATE FUNCTION pgmq.acquire_queue_lock(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_acquire_queue_lock';
COMMENT ON FUNCTION pgmq.acquire_queue_lock(pg_catalog.text) IS
    'Take the queue''s advisory lock, which create and drop_queue take; held until the end of the transaction';

CREATE FUNCTION pgmq.format_table_name(queue_name pg_catalog.text, prefix pg_catalog.text)
RETURNS pg_catalog.text LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_format_table_name';
COMMENT ON FUNCTION pgmq.format_table_name(pg_catalog.text, pg_catalog.text) IS
    'The bare name of a table of the queue: prefix q or a';

CREATE FUNCTION pgmq.validate_queue_name(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_validate_queue_name';
COMMENT ON FUNCTION pgmq.validate_queue_name(pg_catalog.text) IS
    'Raises an error for a name that create refuses because of its length';

CREATE FUNCTION pgmq._belongs_to_pgmq(table_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__belongs_to_pgmq';
COMMENT ON FUNCTION pgmq._belongs_to_pgmq(pg_catalog.text) IS
    'Private: whether a table is a member of the extension';

CREATE FUNCTION pgmq._extension_exists(extension_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__extension_exists';
COMMENT ON FUNCTION pgmq._extension_exists(pg_catalog.text) IS
    'Private: whether an extension is installed in this database';

CREATE FUNCTION pgmq._ensure_pg_partman_installed()
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__ensure_pg_partman_installed';
COMMENT ON FUNCTION pgmq._ensure_pg_partman_installed() IS
    'Private: raises an error if pg_partman is not installed';

CREATE FUNCTION pgmq._get_pg_partman_schema()
RETURNS pg_catalog.text LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__get_pg_partman_schema';
COMMENT ON FUNCTION pgmq._get_pg_partman_schema() IS
    'Private: the schema that pg_partman is installed in, quoted';

CREATE FUNCTION pgmq._get_pg_partman_major_version()
RETURNS integer LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__get_pg_partman_major_version';
COMMENT ON FUNCTION pgmq._get_pg_partman_major_version() IS
    'Private: the first number of pg_partman''s version';

CREATE FUNCTION pgmq._get_partition_col(partition_interval pg_catalog.text)
RETURNS pg_catalog.text LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__get_partition_col';
COMMENT ON FUNCTION pgmq._get_partition_col(pg_catalog.text) IS
    'Private: the column that a queue is partitioned by: msg_id if the interval is an integer';

CREATE FUNCTION pgmq.rescan(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_rescan';
COMMENT ON FUNCTION pgmq.rescan(pg_catalog.text) IS
    'Make the next read search the whole queue, for messages that were not written by the functions of pgmq';

------------------------------------------- other versions of the interface

CREATE FUNCTION pgmq.create_first_names(schema_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_create_first_names';
COMMENT ON FUNCTION pgmq.create_first_names(pg_catalog.text) IS
    'Make the functions of the earliest versions, such as pgmq_send, in a schema; harmless if they exist';

CREATE FUNCTION pgmq.drop_first_names(schema_name pg_catalog.text)
RETURNS boolean LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_drop_first_names';
COMMENT ON FUNCTION pgmq.drop_first_names(pg_catalog.text) IS
    'Drop the functions that create_first_names has made in a schema; false if there are none';

CREATE FUNCTION pgmq.prepare_downgrade()
RETURNS SETOF pg_catalog.text LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_prepare_downgrade';
COMMENT ON FUNCTION pgmq.prepare_downgrade() IS
    'Drop from all queues what the PL/pgSQL extension does not know; returns what was dropped';

------------------------------------------------- queues of the PL/pgSQL extension

CREATE PROCEDURE pgmq.upgrade_queues(queue_name pg_catalog.text DEFAULT NULL)
LANGUAGE C
AS 'MODULE_PATHNAME', 'pgmq_upgrade_queues';
COMMENT ON PROCEDURE pgmq.upgrade_queues(pg_catalog.text) IS
    'Give queues of the PL/pgSQL extension the indexes and triggers of this one, while they are in use';

CREATE FUNCTION pgmq._queues_to_upgrade()
RETURNS TABLE (
    queue_name pg_catalog.text,
    is_partitioned boolean,
    needs_vt_index boolean,
    needs_id_index boolean,
    needs_group_index boolean,
    needs_logged_sequence boolean,
    needs_statement_trigger boolean,
    needs_retention boolean,
    needs_complete_tables boolean
)
LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__queues_to_upgrade';
COMMENT ON FUNCTION pgmq._queues_to_upgrade() IS
    'Private: the rows of pgmq.queues_to_upgrade, with the rights of the caller';

CREATE VIEW pgmq.queues_to_upgrade WITH (security_invoker = true) AS
SELECT queue_name, is_partitioned, needs_vt_index, needs_id_index, needs_group_index,
       needs_logged_sequence, needs_statement_trigger, needs_retention, needs_complete_tables
  FROM pgmq._queues_to_upgrade();
COMMENT ON VIEW pgmq.queues_to_upgrade IS
    'The queues of the PL/pgSQL extension that lack something, which CALL pgmq.upgrade_queues() gives them';
ALTER TABLE pgmq.queues_to_upgrade OWNER TO @extowner@;
GRANT SELECT ON TABLE pgmq.queues_to_upgrade TO pg_monitor;

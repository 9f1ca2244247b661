\echo Use "ALTER EXTENSION pgmq UPDATE" to load this file. \quit

-- The update from 2.0.0, put together from the files of this directory.  It runs as a superuser, where a plain role
-- owns the extension's tables and perhaps the schema.  So every name is qualified, nothing is replaced, and no
-- row is read or written.

------------------------------------------------------------ delivery policies

-- What a queue does with messages that fail, arrive twice, too late or too often.  A column that is NULL is a setting
-- that is off.  identity gives a queue one row, in whatever spelling.
CREATE TABLE pgmq.policy (
    queue_name character varying NOT NULL
        CONSTRAINT policy_queue_name_key UNIQUE
        CONSTRAINT policy_meta_queue_name_fk REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
    identity pg_catalog.text NOT NULL GENERATED ALWAYS AS (pg_catalog.lower(queue_name)) STORED
        CONSTRAINT policy_pkey PRIMARY KEY,
    max_reads integer,
    dead_letter_queue pg_catalog.text,
    retry_delay interval,
    retry_backoff double precision,
    retry_delay_max interval,
    message_ttl interval,
    max_length bigint,
    overflow pg_catalog.text,
    priority boolean,
    priority_max_wait interval,
    max_in_flight integer,
    rate_limit integer,
    rate_period interval,
    dedup_window interval,
    archive_retention interval,
    paused_until timestamp with time zone
);
COMMENT ON TABLE pgmq.policy IS 'The delivery policies of queues; set_policy, reset_policy, pause_queue and resume_queue write it';

-- Sessions keep the policies that they have read.  The C function makes all of them forget what they keep of the
-- table that it fires on.  Libraries of version 2.0.0 have it, so their sessions can still drop a queue that has a
-- policy.
CREATE FUNCTION pgmq._policy_changed()
RETURNS trigger LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq__notify_settings_changed';
COMMENT ON FUNCTION pgmq._policy_changed() IS
    'Private: make all sessions read the delivery policies again';

CREATE TRIGGER policy_changed AFTER INSERT OR UPDATE OR DELETE ON pgmq.policy
    FOR EACH ROW EXECUTE FUNCTION pgmq._policy_changed();
CREATE TRIGGER policy_truncated AFTER TRUNCATE ON pgmq.policy
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._policy_changed();
ALTER TABLE pgmq.policy ENABLE ALWAYS TRIGGER policy_changed;
ALTER TABLE pgmq.policy ENABLE ALWAYS TRIGGER policy_truncated;

CREATE TRIGGER check_queue_owner BEFORE INSERT OR UPDATE OR DELETE ON pgmq.policy
    FOR EACH ROW EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER check_table_owner BEFORE TRUNCATE ON pgmq.policy
    FOR EACH STATEMENT EXECUTE FUNCTION pgmq._check_queue_owner();
CREATE TRIGGER restore_in_any_order BEFORE INSERT ON pgmq.policy
    FOR EACH ROW EXECUTE FUNCTION pgmq._restore_in_any_order();

ALTER TABLE pgmq.policy REPLICA IDENTITY USING INDEX policy_queue_name_key;
SELECT pg_catalog.pg_extension_config_dump('pgmq.policy', '');

-- The table belongs to the owner of meta.  pg_monitor may read it if it may read meta: a privilege that was revoked
-- stays revoked.
DO $owner$
DECLARE
    meta constant pg_catalog.oid := 'pgmq.meta'::pg_catalog.regclass;
BEGIN
    EXECUTE pg_catalog.format('ALTER TABLE pgmq.policy OWNER TO %s', (
        SELECT c.relowner::pg_catalog.regrole FROM pg_catalog.pg_class AS c WHERE c.oid OPERATOR(pg_catalog.=) meta));
    IF EXISTS (
        SELECT FROM pg_catalog.pg_class AS c, pg_catalog.aclexplode(c.relacl) AS a
         WHERE c.oid OPERATOR(pg_catalog.=) meta AND a.privilege_type OPERATOR(pg_catalog.=) 'SELECT'
           AND a.grantee OPERATOR(pg_catalog.=) 'pg_monitor'::pg_catalog.regrole::pg_catalog.oid)
    THEN
        GRANT SELECT ON TABLE pgmq.policy TO pg_monitor;
    END IF;
END
$owner$;

CREATE FUNCTION pgmq.set_policy(
    queue_name pg_catalog.text,
    max_reads integer DEFAULT NULL,
    dead_letter_queue pg_catalog.text DEFAULT NULL,
    retry_delay interval DEFAULT NULL,
    retry_backoff double precision DEFAULT NULL,
    retry_delay_max interval DEFAULT NULL,
    message_ttl interval DEFAULT NULL,
    max_length bigint DEFAULT NULL,
    overflow pg_catalog.text DEFAULT NULL,
    priority boolean DEFAULT NULL,
    priority_max_wait interval DEFAULT NULL,
    max_in_flight integer DEFAULT NULL,
    rate_limit integer DEFAULT NULL,
    rate_period interval DEFAULT NULL,
    dedup_window interval DEFAULT NULL,
    archive_retention interval DEFAULT NULL
)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_set_policy';
COMMENT ON FUNCTION pgmq.set_policy(
    pg_catalog.text, integer, pg_catalog.text, interval, double precision, interval, interval,
    bigint, pg_catalog.text, boolean, interval, integer, integer, interval, interval, interval
) IS
    'Set delivery policies of a queue; what is NULL stays as it is';

CREATE FUNCTION pgmq.reset_policy(queue_name pg_catalog.text, settings pg_catalog.text[] DEFAULT NULL)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_reset_policy';
COMMENT ON FUNCTION pgmq.reset_policy(pg_catalog.text, pg_catalog.text[]) IS
    'Switch settings of a queue''s delivery policy off; NULL: all of them';

CREATE FUNCTION pgmq.list_policies()
RETURNS TABLE (
    queue_name pg_catalog.text,
    max_reads integer,
    dead_letter_queue pg_catalog.text,
    retry_delay interval,
    retry_backoff double precision,
    retry_delay_max interval,
    message_ttl interval,
    max_length bigint,
    overflow pg_catalog.text,
    priority boolean,
    priority_max_wait interval,
    max_in_flight integer,
    rate_limit integer,
    rate_period interval,
    dedup_window interval,
    archive_retention interval,
    paused_until timestamp with time zone
) LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_list_policies';
COMMENT ON FUNCTION pgmq.list_policies() IS
    'The queues that have a delivery policy, with their settings';

CREATE FUNCTION pgmq.pause_queue(queue_name pg_catalog.text, until timestamp with time zone DEFAULT 'infinity')
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_pause_queue';
COMMENT ON FUNCTION pgmq.pause_queue(pg_catalog.text, timestamp with time zone) IS
    'Hand out no messages of a queue until a time; they can still be sent';

CREATE FUNCTION pgmq.resume_queue(queue_name pg_catalog.text)
RETURNS void LANGUAGE C VOLATILE COST 100
AS 'MODULE_PATHNAME', 'pgmq_resume_queue';
COMMENT ON FUNCTION pgmq.resume_queue(pg_catalog.text) IS
    'End the pause of a queue';

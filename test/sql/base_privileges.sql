-- What each call needs, with one plain role: granted step by step, and 42501 for all that is not.
\set VERBOSITY terse
\set SHOW_CONTEXT never
SELECT pgmq.create('g'), pgmq.create('other');
CREATE ROLE regress_pgmq_user;
CREATE TABLE calls (n serial, call text);
GRANT SELECT ON calls TO regress_pgmq_user;
INSERT INTO calls (call) VALUES
    ('pgmq.send(''g'', ''1'')'), ('pgmq.send(''g'', ''1'', 60)'), ('pgmq.send_batch(''g'', ''{1,2}'')'),
    ('pgmq.read(''g'', 0, 1)'), ('pgmq.read(''g'', 0, 1, ''1'')'), ('pgmq.read_with_poll(''g'', 0, 1, 0)'),
    ('pgmq.set_vt(''g'', 1, 0)'), ('pgmq.set_vt(''g'', ''{1}''::bigint[], 0)'),
    ('pgmq.pop(''g'')'), ('pgmq.delete(''g'', 1)'), ('pgmq.delete(''g'', ''{1}''::bigint[])'),
    ('pgmq.archive(''g'', 1)'), ('pgmq.archive(''g'', ''{1}''::bigint[])'),
    ('pgmq.purge_queue(''g'')'), ('pgmq.metrics(''g'')'), ('pgmq.metrics_all()'), ('pgmq.list_queues()'),
    ('pgmq.create(''g'')'), ('pgmq.create(''new'')'), ('pgmq.create_unlogged(''new'')'), ('pgmq.drop_queue(''g'')'),
    -- these touch nothing
    ('pgmq.acquire_queue_lock(''g'')'), ('pgmq.validate_queue_name(''g'')'), ('pgmq.format_table_name(''g'', ''q'')'),
    ('pgmq._validate_batch_params(''{1}'', NULL)');
-- What works under the grants on the schema, the queue, the archive, the sequence and meta: nothing is left of what it did.
CREATE FUNCTION allowed(VARIADIC grants text[] DEFAULT '{}') RETURNS SETOF text LANGUAGE plpgsql AS $$
DECLARE
    c text;
    g text;
BEGIN
    FOREACH g IN ARRAY grants LOOP
        EXECUTE format('GRANT %s TO regress_pgmq_user', g);
    END LOOP;
    FOR c IN SELECT call FROM calls ORDER BY n LOOP
        BEGIN
            SET LOCAL ROLE regress_pgmq_user;
            EXECUTE format('SELECT %s', c);
            RETURN NEXT c;
            RAISE EXCEPTION 'undo' USING ERRCODE = 'PQ000';
        EXCEPTION
            WHEN SQLSTATE 'PQ000' OR insufficient_privilege THEN NULL;
            WHEN OTHERS THEN RETURN NEXT format('%s: %s %s', c, SQLSTATE, SQLERRM);
        END;
    END LOOP;
    FOREACH g IN ARRAY grants LOOP
        EXECUTE format('REVOKE %s FROM regress_pgmq_user', g);
    END LOOP;
END $$;
SET client_min_messages = warning;
SELECT allowed();
SELECT allowed('USAGE ON SCHEMA pgmq');
-- the rights on another queue are of no use
SELECT allowed('USAGE ON SCHEMA pgmq', 'ALL ON pgmq.q_other', 'ALL ON pgmq.a_other');
-- INSERT alone does not return the id
SELECT allowed('USAGE ON SCHEMA pgmq', 'INSERT ON pgmq.q_g');
-- a sender
SELECT allowed('USAGE ON SCHEMA pgmq', 'INSERT, SELECT ON pgmq.q_g');
-- a reader
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, UPDATE ON pgmq.q_g');
-- who deletes
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, DELETE ON pgmq.q_g');
-- who pops
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, UPDATE, DELETE ON pgmq.q_g');
-- who archives; the ids come from the archive
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, DELETE ON pgmq.q_g', 'INSERT ON pgmq.a_g');
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, DELETE ON pgmq.q_g', 'INSERT, SELECT ON pgmq.a_g');
-- who purges
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT, TRUNCATE ON pgmq.q_g');
-- who watches one queue, or the list, or all
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT ON pgmq.q_g', 'SELECT ON SEQUENCE pgmq.q_g_msg_id_seq');
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT ON pgmq.meta');
SELECT allowed('USAGE ON SCHEMA pgmq', 'SELECT ON ALL TABLES IN SCHEMA pgmq', 'SELECT ON ALL SEQUENCES IN SCHEMA pgmq');
SELECT allowed('pg_monitor');
-- who makes queues; a queue of somebody else can't be dropped
SELECT allowed('USAGE, CREATE ON SCHEMA pgmq');
SELECT allowed('USAGE, CREATE ON SCHEMA pgmq', 'SELECT, INSERT, DELETE ON pgmq.meta');
-- everything that can be granted
SELECT allowed('ALL ON SCHEMA pgmq', 'ALL ON ALL TABLES IN SCHEMA pgmq', 'ALL ON ALL SEQUENCES IN SCHEMA pgmq');
-- one's own queue: everything
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_pgmq_user;
GRANT SELECT, INSERT, DELETE ON pgmq.meta TO regress_pgmq_user;
SET ROLE regress_pgmq_user;
SELECT pgmq.create('mine'), pgmq.create_unlogged('mine, too');
SELECT pgmq.send('mine', '1'), pgmq.send_batch('mine, too', '{1,2}');
SELECT msg_id FROM pgmq.read('mine', 0, 1) UNION ALL SELECT msg_id FROM pgmq.pop('mine, too');
SELECT pgmq.archive('mine', 1), pgmq.delete('mine, too', 2), pgmq.purge_queue('mine');
SELECT queue_name, queue_length FROM pgmq.metrics('mine');
SELECT pgmq.drop_queue('mine'), pgmq.drop_queue('mine, too');
RESET ROLE;
-- taken back in a session that has the plans: no rights are left over
GRANT INSERT, SELECT ON pgmq.q_g TO regress_pgmq_user;
SET ROLE regress_pgmq_user;
SELECT pgmq.send('g', '1');
RESET ROLE;
REVOKE INSERT ON pgmq.q_g FROM regress_pgmq_user;
SET ROLE regress_pgmq_user;
SELECT pgmq.send('g', '1');
\echo :LAST_ERROR_SQLSTATE
RESET ROLE;
REVOKE ALL ON SCHEMA pgmq FROM regress_pgmq_user;
-- not even a name can be asked for without the schema
SET ROLE regress_pgmq_user;
SELECT pgmq.send('g', '1');
RESET ROLE;
SELECT pgmq.drop_queue('g'), pgmq.drop_queue('other');
DROP FUNCTION allowed;
DROP TABLE calls;
REVOKE ALL ON pgmq.meta FROM regress_pgmq_user;
DROP ROLE regress_pgmq_user;

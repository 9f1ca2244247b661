-- Who may not take messages can't disturb those who may.
\set VERBOSITY terse
SELECT pgmq.create('ours');
CREATE ROLE regress_pgmq_stranger;
CREATE ROLE regress_pgmq_reader;
CREATE ROLE regress_pgmq_columns;
GRANT USAGE ON SCHEMA pgmq TO regress_pgmq_stranger, regress_pgmq_reader, regress_pgmq_columns;
GRANT SELECT ON pgmq.q_ours TO regress_pgmq_stranger, regress_pgmq_reader, regress_pgmq_columns;
GRANT UPDATE ON pgmq.q_ours TO regress_pgmq_reader;
GRANT UPDATE (vt, read_ct, last_read_at) ON pgmq.q_ours TO regress_pgmq_columns;
SET ROLE regress_pgmq_stranger;
SELECT pgmq.rescan('ours');
SELECT pgmq.read('ours', 30, 1);
SET ROLE regress_pgmq_reader;
SELECT pgmq.rescan('ours');
SELECT pgmq.read('ours', 30, 1);
SET ROLE regress_pgmq_columns;
SELECT pgmq.rescan('ours');
SELECT pgmq.read('ours', 30, 1);
RESET ROLE;
SELECT pgmq.rescan('ours');
SELECT pgmq.rescan('no_such');

-- A read that a trigger looks into, in a block of its own, warns of nothing
CREATE FUNCTION looks() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	BEGIN
		DELETE FROM pgmq.q_ours WHERE false;
	EXCEPTION WHEN division_by_zero THEN NULL;
	END;
	RETURN NULL;
END $$;
CREATE TRIGGER looks BEFORE UPDATE ON pgmq.q_ours FOR EACH STATEMENT EXECUTE FUNCTION looks();
BEGIN;
SELECT pgmq.read('ours', 30, 1);
COMMIT;
SELECT pgmq.drop_queue('ours');
DROP FUNCTION looks;
REVOKE USAGE ON SCHEMA pgmq FROM regress_pgmq_stranger, regress_pgmq_reader, regress_pgmq_columns;
DROP ROLE regress_pgmq_stranger, regress_pgmq_reader, regress_pgmq_columns;

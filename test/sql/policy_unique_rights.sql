-- A sender needs on the queue what a send needs, and nothing on the keys; what runs as their owner is only ours.
SET client_min_messages = warning;
CREATE ROLE regress_once_owner;
CREATE ROLE regress_once_sender;
CREATE ROLE regress_once_stranger;
GRANT USAGE, CREATE ON SCHEMA pgmq TO regress_once_owner, regress_once_stranger;
GRANT SELECT, INSERT ON pgmq.meta TO regress_once_owner;
GRANT USAGE ON SCHEMA pgmq TO regress_once_sender;
RESET client_min_messages;
SET ROLE regress_once_owner;
SELECT pgmq.create('once');
SELECT * FROM pgmq.send_unique('once', '1', 'key');
GRANT INSERT, SELECT ON pgmq.q_once TO regress_once_sender;

-- The sender
SET ROLE regress_once_sender;
SELECT * FROM pgmq.send_unique('once', '2', 'key');
SELECT * FROM pgmq.send_unique('once', '2', 'key 2');
SELECT * FROM pgmq.send_unique_batch('once', '{1,2}', '{key 2,key 3}', '1 hour');
SELECT * FROM pgmq.k_once;
INSERT INTO pgmq.k_once VALUES ('other');
UPDATE pgmq.k_once SET msg_id = 1;
DELETE FROM pgmq.k_once;
SELECT pgmq.set_policy('once', dedup_window => '1 day');
SET ROLE regress_once_owner;
-- with privileges on columns
REVOKE ALL ON pgmq.q_once FROM regress_once_sender;
GRANT INSERT (enqueued_at, vt, message, headers), SELECT (msg_id) ON pgmq.q_once TO regress_once_sender;
SET ROLE regress_once_sender;
SELECT * FROM pgmq.send_unique('once', '4', 'key 4');
-- with too little, whether the key is taken or not
SET ROLE regress_once_owner;
REVOKE INSERT (vt) ON pgmq.q_once FROM regress_once_sender;
SET ROLE regress_once_sender;
SELECT * FROM pgmq.send_unique('once', '4', 'key 4');
SELECT * FROM pgmq.send_unique('once', '4', 'key 5');
SET ROLE regress_once_owner;
GRANT INSERT ON pgmq.q_once TO regress_once_sender;
REVOKE SELECT (msg_id) ON pgmq.q_once FROM regress_once_sender;
SET ROLE regress_once_sender;
SELECT * FROM pgmq.send_unique('once', '4', 'key 4');
SELECT * FROM pgmq.send_unique_batch('once', '{4}', '{key 4}');
SET ROLE regress_once_stranger;
SELECT * FROM pgmq.send_unique('once', '4', 'key 4');
SET ROLE regress_once_owner;
GRANT SELECT ON pgmq.q_once TO regress_once_sender;
RESET ROLE;
SELECT dedup_key, msg_id FROM pgmq.k_once ORDER BY 1;

-- Code of the owner on the keys runs as the owner, with a search path of its own; the caller's operators do not
SET ROLE regress_once_owner;
CREATE FUNCTION pgmq.once_code() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
	RAISE NOTICE '%: % %', TG_OP, current_user, current_setting('search_path');
	RETURN NEW;
END$$;
CREATE TRIGGER code BEFORE INSERT OR UPDATE ON pgmq.k_once FOR EACH ROW EXECUTE FUNCTION pgmq.once_code();
SET ROLE regress_once_sender;
SELECT is_duplicate FROM pgmq.send_unique('once', '5', 'key 5', '1 hour');
SET ROLE regress_once_owner;
DROP TRIGGER code ON pgmq.k_once;
DROP FUNCTION pgmq.once_code();
RESET ROLE;
CREATE SCHEMA once_evil AUTHORIZATION regress_once_sender;
SET ROLE regress_once_sender;
CREATE FUNCTION once_evil.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'as %', current_user; END$$;
CREATE FUNCTION once_evil.equal(bigint, bigint) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN RAISE 'as %', current_user; END$$;
CREATE OPERATOR once_evil.= (LEFTARG = text, RIGHTARG = text, FUNCTION = once_evil.equal);
CREATE OPERATOR once_evil.= (LEFTARG = bigint, RIGHTARG = bigint, FUNCTION = once_evil.equal);
SET search_path = once_evil, pg_catalog;
SELECT is_duplicate FROM pgmq.send_unique('once', '6', 'key 6');
SELECT is_duplicate FROM pgmq.send_unique('once', '6', 'key 6');
RESET ROLE;
DELETE FROM pgmq.q_once WHERE message OPERATOR(pg_catalog.=) '6';
SET ROLE regress_once_sender;
SELECT is_duplicate FROM pgmq.send_unique('once', '6', 'key 6');
RESET search_path;

-- Policies that hide messages from the sender and the owner do not free a key
SET ROLE regress_once_owner;
ALTER TABLE pgmq.q_once ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
CREATE POLICY sends ON pgmq.q_once FOR INSERT WITH CHECK (true);
CREATE POLICY sees ON pgmq.q_once FOR SELECT USING (message = '7');
SET ROLE regress_once_sender;
SELECT is_duplicate FROM pgmq.send_unique('once', '7', 'key');
SET ROLE regress_once_owner;
SET client_min_messages = error;
CALL pgmq.maintain();
RESET client_min_messages;
SET ROLE regress_once_sender;
SELECT is_duplicate FROM pgmq.send_unique('once', '7', 'key');
SET ROLE regress_once_owner;
ALTER TABLE pgmq.q_once DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;

-- A table by this name that another role has made
SELECT pgmq.create('trap'), pgmq.create('trap 2');
GRANT INSERT, SELECT ON pgmq.q_trap TO regress_once_sender;
SET ROLE regress_once_stranger;
CREATE TABLE pgmq.k_trap (LIKE pgmq.k_once INCLUDING ALL);
CREATE TABLE pgmq.k_trap (dedup_key text COLLATE "C" PRIMARY KEY, msg_id bigint, expires_at timestamptz);
CREATE FUNCTION pgmq.once_trap() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN RAISE 'trapped %', current_user; END$$;
CREATE TRIGGER trap BEFORE INSERT ON pgmq.k_trap FOR EACH STATEMENT EXECUTE FUNCTION pgmq.once_trap();
SET ROLE regress_once_sender;
SELECT * FROM pgmq.send_unique('trap', '1', 'key');
SET ROLE regress_once_owner;
SELECT * FROM pgmq.send_unique('trap', '1', 'key');
SELECT pgmq.drop_queue('trap');
RESET ROLE;
SELECT relowner::regrole FROM pg_class WHERE oid = 'pgmq.k_trap'::regclass;
DROP TABLE pgmq.k_trap;
DROP FUNCTION pgmq.once_trap();

-- An owner who may not make tables; the keys follow the owner of the queue by hand
REVOKE CREATE ON SCHEMA pgmq FROM regress_once_owner;
SET ROLE regress_once_owner;
SELECT * FROM pgmq.send_unique('trap 2', '1', 'key');
SELECT pgmq.set_policy('trap 2', dedup_window => '1 day');
RESET ROLE;
SELECT * FROM pgmq.send_unique('trap 2', '1', 'key');
ALTER TABLE pgmq.q_once OWNER TO regress_once_stranger;
SELECT * FROM pgmq.send_unique('once', '8', 'key');
ALTER TABLE pgmq.k_once OWNER TO regress_once_stranger;
SELECT is_duplicate FROM pgmq.send_unique('once', '8', 'key');

SELECT pgmq.drop_queue('once'), pgmq.drop_queue('trap 2');
DROP SCHEMA once_evil CASCADE;
DROP OWNED BY regress_once_owner, regress_once_sender, regress_once_stranger;
DROP ROLE regress_once_owner, regress_once_sender, regress_once_stranger;

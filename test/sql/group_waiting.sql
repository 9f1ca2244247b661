-- wait_grouped: what it says of groups that can be had and of those that can't, and what it refuses.
-- (Who is woken is in t/044_wait_grouped.pl.)
\set VERBOSITY terse
SELECT pgmq.create('wg'), pgmq.create_fifo_index('wg'), pgmq.create('plain');
CALL pgmq.wait_grouped('wg', 10);
SELECT q, pgmq.send_batch(q, ARRAY['1', '2', '3']::jsonb[], ARRAY['{"x-pgmq-group": "a"}', '{"x-pgmq-group": "a"}', '{"x-pgmq-group": "b"}']::jsonb[])
  FROM unnest('{wg,plain}'::text[]) AS q;
CALL pgmq.wait_grouped('wg', 60000);
CALL pgmq.wait_grouped('plain', 60000);
-- it takes nothing
CALL pgmq.wait_grouped('WG');
SELECT msg_id, read_ct FROM pgmq.read_grouped_head('wg', 3600, 10);
SELECT msg_id, read_ct FROM pgmq.read_grouped_head('plain', 3600, 10);
-- what is visible lies behind what others hold: wait reports it, wait_grouped does not
CALL pgmq.wait('wg', 60000);
CALL pgmq.wait_grouped('wg', 10);
CALL pgmq.wait_grouped('plain', 0);
-- the last of a group is deleted, and nothing is behind it; the first is, and there is
SELECT pgmq.delete('wg', 3);
CALL pgmq.wait_grouped('wg', 0);
SELECT pgmq.delete('wg', 1);
CALL pgmq.wait_grouped('wg', 60000);
-- a lease that ends meanwhile
SELECT msg_id FROM pgmq.read_grouped('wg', 1, 1);
CALL pgmq.wait_grouped('wg', 60000);
-- without notes
TRUNCATE pgmq.g_wg;
CALL pgmq.wait_grouped('wg', 60000);
SELECT count(*) > 0 AS noted FROM pgmq.g_wg WHERE head > 0;
-- while nothing may be written
SET default_transaction_read_only = on;
CALL pgmq.wait_grouped('wg', 60000);
RESET default_transaction_read_only;
-- refused
BEGIN; CALL pgmq.wait_grouped('wg', 10); ROLLBACK;
CALL pgmq.wait_grouped('nothing', 10);
CALL pgmq.wait_grouped(NULL);
CREATE ROLE regress_stranger;
SET ROLE regress_stranger;
CALL pgmq.wait_grouped('wg', 10);
RESET ROLE;
GRANT USAGE ON SCHEMA pgmq TO regress_stranger;
GRANT SELECT ON pgmq.q_wg TO regress_stranger;
SET ROLE regress_stranger;
CALL pgmq.wait_grouped('wg', 10);
RESET ROLE;
GRANT UPDATE ON pgmq.q_wg TO regress_stranger;
SET ROLE regress_stranger;
CALL pgmq.wait_grouped('wg', 60000);
RESET ROLE;
REVOKE ALL ON pgmq.q_wg FROM regress_stranger;
REVOKE ALL ON SCHEMA pgmq FROM regress_stranger;
DROP ROLE regress_stranger;
SELECT pgmq.drop_queue('wg'), pgmq.drop_queue('plain');

# Whose rights maintenance has: neither the owner of the database, nor a maker of queues, nor a role that
# may write to pg_partman's table has code of its own run with the rights of another role.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('rights');
$node->init;
$node->append_conf('postgresql.conf', qq{
fsync = off
autovacuum = off
shared_preload_libraries = 'pgmq'
pgmq.databases = 'app'
pgmq.maintenance_interval = 1
max_worker_processes = 12
});
$node->start;
sql_on($node, 'app');

# Wait for two whole rounds of the worker: the second has begun after this was called
sub rounds
{
	my ($name) = @_;

	$node->safe_psql('app', q{
		SELECT pgmq.send_batch('beat', array_fill('{}'::jsonb, '{100}'))}) foreach 1;
	ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.q_beat_default'), "$name: the worker goes on");
}

sub nobody_gained
{
	my ($name) = @_;

	sql_is(q{SELECT count(*) FROM pg_roles WHERE rolsuper AND rolname <> 'postgres'}, 0, "$name: nobody has become a superuser");
	sql_is(q{SELECT string_agg(DISTINCT ran_as || ' ran ' || what, ', ') FROM public.witness WHERE ran_as <> owner}, '', "$name: no code ran as another role");
}

$node->safe_psql('postgres', q{
	CREATE ROLE dbowner LOGIN; CREATE ROLE maker LOGIN; CREATE ROLE other_maker LOGIN;
	CREATE DATABASE app OWNER dbowner});
$node->safe_psql('app', q{
	GRANT ALL ON SCHEMA public TO PUBLIC;
	SET ROLE dbowner; CREATE EXTENSION pgmq; RESET ROLE;
	CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
	CREATE SCHEMA evil AUTHORIZATION maker; GRANT USAGE ON SCHEMA evil TO PUBLIC;
	GRANT USAGE, CREATE ON SCHEMA pgmq TO maker, other_maker;
	GRANT SELECT, INSERT, DELETE ON pgmq.meta TO maker, other_maker;
	GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.partition_config TO maker, other_maker;
	GRANT USAGE ON SCHEMA partman TO maker, other_maker;
	CREATE TABLE public.witness (ran_as text, owner text, what text); GRANT ALL ON public.witness TO PUBLIC;
	-- What an attacker would do with somebody else's rights
	CREATE FUNCTION public.spring(owner text, what text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.witness VALUES (current_user, owner, what);
		IF (SELECT rolsuper FROM pg_catalog.pg_roles WHERE rolname = current_user) AND session_user <> 'postgres' THEN
			EXECUTE 'ALTER ROLE ' || owner || ' SUPERUSER';
		END IF;
	END $$;
	SELECT pgmq.create_partitioned('su', '10', NULL, 2);
	SET ROLE other_maker; SELECT pgmq.create_partitioned('beat', '10', NULL, 2)});

# A superuser's queue, beside tables that are not a superuser's
ok($node->wait_for_log(qr/WARNING:  maintenance of queue "su" failed: pgmq.q_su belongs to a superuser, the tables of the extensions do not/),
	q{a superuser's queue is passed over while the extension's tables are not a superuser's});
my ($out, $err) = sql('CALL pgmq.maintain()');
like($err, qr/"su" failed: pgmq.q_su belongs to a superuser/, 'by a call of a superuser as well');
rounds('beside it');

# The owner of the database can have its sessions begin as another role
my $as_superuser = 'SET SESSION AUTHORIZATION postgres; SET ROLE none';
$node->safe_psql('postgres', "ALTER DATABASE app SET session_authorization = 'maker'; ALTER DATABASE app SET role = 'maker'");
$node->safe_psql('app', "$as_superuser; SELECT pgmq.send_batch('beat', array_fill('{}'::jsonb, '{100}'))");
ok($node->poll_query_until('app', "$as_superuser; SELECT count(*) = 0 FROM pgmq.q_beat_default", "SET\nSET\nt"),
	'the worker does not become a role that the database names');
$node->safe_psql('postgres', 'ALTER DATABASE app RESET ALL');

# ... and end at the first error, which a step of another queue has: here a transaction keeps its lock
my $holder = $node->background_psql('app');
$holder->query_safe(q{SET ROLE maker; SELECT pgmq.create_partitioned('aheld', '10', NULL, 2);
	SELECT count(*) FROM pgmq.send_batch('aheld', array_fill('{}'::jsonb, '{100}'));
	BEGIN; LOCK TABLE pgmq.q_aheld IN ACCESS SHARE MODE});
$node->safe_psql('postgres', 'ALTER DATABASE app SET exit_on_error = on');
# a worker that began before has its settings
$node->poll_query_until('app', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance'});
rounds('a database that ends sessions at an error');
$node->safe_psql('postgres', 'ALTER DATABASE app RESET ALL');

# ... and end them when a transaction lasts; not those of this test
SKIP:
{
	skip 'no transaction_timeout before 17', 1 if $node->pg_version < 17;
	local $ENV{PGOPTIONS} = '-c transaction_timeout=0';
	$node->safe_psql('postgres', 'ALTER DATABASE app SET transaction_timeout = 1');
	$node->poll_query_until('app', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE backend_type = 'pgmq maintenance'});
	rounds('a database that ends transactions after a millisecond');
	$node->safe_psql('postgres', 'ALTER DATABASE app RESET ALL');
}
$holder->query_safe(q{COMMIT; SELECT pgmq.drop_queue('aheld')});
$holder->quit;

# The extension's table, in the hands of its owner
my $position = -s $node->logfile;
$node->safe_psql('app', q{
	SET ROLE dbowner;
	CREATE FUNCTION public.seen() RETURNS varchar LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('dbowner', 'view'); RETURN 'x'; END$$;
	ALTER TABLE pgmq.meta RENAME TO meta_old;
	CREATE VIEW pgmq.meta AS SELECT public.seen() AS queue_name, false AS is_partitioned, false AS is_unlogged, now() AS created_at});
ok($node->wait_for_log(qr/ERROR:  "pgmq.meta" is not the table that the extension pgmq made/, $position), 'a view in place of pgmq.meta is refused by the worker');
said('CALL pgmq.maintain()', qr/ERROR:  "pgmq.meta" is not the table/, 'and by a call of a superuser');
nobody_gained('a view');
$position = -s $node->logfile;
$node->safe_psql('app', q{
	SET ROLE dbowner; DROP VIEW pgmq.meta;
	CREATE TABLE pgmq.meta (LIKE pgmq.meta_old); ALTER TABLE pgmq.meta ENABLE ROW LEVEL SECURITY});
ok($node->wait_for_log(qr/ERROR:  "pgmq.meta" is not the table.*\n.*It is not a member of the extension/, $position), 'so is a table that is no member of the extension');
$node->safe_psql('app', q{
	SET ROLE dbowner; DROP TABLE pgmq.meta; ALTER TABLE pgmq.meta_old RENAME TO meta;
	CREATE TYPE public.flag AS (x int);
	CREATE FUNCTION public.flag_bool(public.flag) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('dbowner', 'cast'); RETURN false; END$$;
	CREATE CAST (public.flag AS boolean) WITH FUNCTION public.flag_bool(public.flag) AS IMPLICIT;
	ALTER TABLE pgmq.meta ALTER is_partitioned TYPE public.flag USING ROW(1)::public.flag});
ok($node->wait_for_log(qr/ERROR:  table "pgmq.meta" does not have the columns/, $position), 'a column of another type');
nobody_gained('a cast');
$node->safe_psql('app', q{
	SET ROLE dbowner;
	ALTER TABLE pgmq.meta ALTER is_partitioned TYPE boolean USING true;
	CREATE FUNCTION public.passes(text) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('dbowner', 'policy'); RETURN true; END$$;
	CREATE POLICY p ON pgmq.meta USING (public.passes(queue_name));
	CREATE POLICY p ON pgmq.partition_config USING (public.passes(queue_name));
	ALTER TABLE pgmq.meta ENABLE ROW LEVEL SECURITY; ALTER TABLE pgmq.meta FORCE ROW LEVEL SECURITY;
	ALTER TABLE pgmq.partition_config ENABLE ROW LEVEL SECURITY; ALTER TABLE pgmq.partition_config FORCE ROW LEVEL SECURITY});
rounds('policies of the owner on the tables of the extension');
sql_is(q{SELECT count(*) FROM witness WHERE what = 'policy'}, '0', 'which are not asked');
nobody_gained('policies');
$node->safe_psql('app', q{
	ALTER TABLE pgmq.meta NO FORCE ROW LEVEL SECURITY; ALTER TABLE pgmq.meta DISABLE ROW LEVEL SECURITY; DROP POLICY p ON pgmq.meta;
	ALTER TABLE pgmq.partition_config NO FORCE ROW LEVEL SECURITY; ALTER TABLE pgmq.partition_config DISABLE ROW LEVEL SECURITY; DROP POLICY p ON pgmq.partition_config;
	TRUNCATE witness});
rounds('after all that');
$node->safe_psql('app', q{
	SET ROLE dbowner; ALTER TABLE pgmq.partition_config RENAME TO pc;
	CREATE FUNCTION public.configured() RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('dbowner', 'view of configuration'); RETURN NULL; END$$;
	CREATE VIEW pgmq.partition_config AS SELECT queue_name, public.configured() AS retention_interval, drop_unread, drop_consumed, converted_archive FROM pgmq.pc;
	GRANT ALL ON pgmq.partition_config TO PUBLIC});
said('CALL pgmq.maintain()', qr/"pgmq.partition_config" is not the table/, 'a view in place of pgmq.partition_config');
nobody_gained('the configuration');
$node->safe_psql('app', 'DROP VIEW pgmq.partition_config; ALTER TABLE pgmq.pc RENAME TO partition_config');

# From here on the tables are a superuser's, so that there is something to gain
$node->safe_psql('app', q{ALTER TABLE pgmq.meta OWNER TO postgres; ALTER TABLE pgmq.partition_config OWNER TO postgres;
	SELECT pgmq.send_batch('su', array_fill('{}'::jsonb, '{100}'))});
ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.q_su_default'), q{then a superuser's queue is maintained});

# A trigger of a role that was granted TRIGGER does not run as the owner of pg_partman's table
$node->safe_psql('app', q{
	GRANT TRIGGER, SELECT, INSERT, UPDATE, DELETE, REFERENCES ON partman.part_config TO maker; GRANT CREATE ON SCHEMA partman TO maker;
	SET ROLE maker;
	CREATE FUNCTION evil.on_config() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('maker', 'trigger'); RETURN COALESCE(NEW, OLD); END$$;
	CREATE TRIGGER t BEFORE INSERT OR UPDATE OR DELETE ON partman.part_config FOR EACH ROW EXECUTE FUNCTION evil.on_config()});
said(q{SELECT pgmq.create_partitioned('guarded', '10')}, qr/ERROR:  "partman.part_config" is not the table.*\n.*The function of its trigger "t" belongs to a role/, q{a stranger's trigger on part_config}, role => 'other_maker');
$node->safe_psql('app', 'DROP TRIGGER t ON partman.part_config');

# Functions and operators in pg_partman's schema that fit better than those that pg_partman means
foreach my $args ('text', 'text, text', 'text, text, text', 'text, text, text, text')
{
	$node->safe_psql('app', qq{SET ROLE maker; CREATE FUNCTION partman.format(text, $args) RETURNS text LANGUAGE plpgsql AS
		'BEGIN PERFORM public.spring(''maker'', ''format''); RETURN \$1; END'});
}
$node->safe_psql('app', q{
	SET ROLE maker;
	CREATE FUNCTION partman.cat(text, text) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('maker', 'operator'); RETURN pg_catalog.textcat($1, $2); END$$;
	CREATE OPERATOR partman.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = partman.cat);
	CREATE FUNCTION partman.split_part(text, text, integer) RETURNS text LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('maker', 'split_part'); RETURN pg_catalog.split_part($1, $2, $3); END$$;
	-- a template with code in it, and whatever else part_config has
	CREATE TABLE evil.tpl (msg_id bigint, read_ct int, enqueued_at timestamptz, vt timestamptz, message jsonb);
	CREATE FUNCTION evil.vol() RETURNS int LANGUAGE plpgsql VOLATILE AS $$BEGIN PERFORM public.spring('maker', 'template'); RETURN 1; END$$;
	CREATE FUNCTION evil.idx(int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM evil.vol(); RETURN 1; END';
	CREATE INDEX ON evil.tpl ((msg_id * evil.idx(1)));
	UPDATE partman.part_config SET template_table = 'evil.tpl', datetime_string = '''||evil.vol()||''', control = 'msg_id), evil.vol(',
		retention_schema = 'evil', constraint_cols = ARRAY['evil.vol()'] WHERE parent_table ~ '_(su|beat)$';
	TRUNCATE witness});
$node->safe_psql('app', q{SELECT pgmq.send_batch('su', array_fill('{}'::jsonb, '{100}'))});
ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.q_su_default'), q{a superuser's queue with a record that maker has written is maintained});
rounds('and that of other_maker');
$node->safe_psql('app', q{SET ROLE other_maker; SELECT pgmq.create_partitioned('hers', '1 day', '7 days'), pgmq.create('conv');
	SELECT pgmq.send('conv', '1'), pgmq.archive('conv', 1); SELECT pgmq.convert_archive_partitioned('conv', '10', NULL); SELECT pgmq.set_retention('hers', '8 days')});
sql_is(q{SELECT DISTINCT ran_as, what FROM witness}, '', q{nothing in pg_partman's schema or named in its table is run});
nobody_gained('pg_partman');
# Its own columns: retention, interval
$node->safe_psql('app', q{
	SELECT pgmq.send_batch('beat', array_fill('{}'::jsonb, '{35}'));
	SET ROLE maker; UPDATE partman.part_config SET retention = '0' WHERE parent_table ~ '_(su|beat)$'});
my $unread = $node->safe_psql('app', 'SELECT count(*) FROM pgmq.q_beat');
rounds('after that');
$unread += 100;
sql_is('SELECT count(*) FROM pgmq.q_beat', $unread, q{retention in part_config drops no message of a queue that has its own});
$node->safe_psql('app', 'DROP FUNCTION partman.format(text, text), partman.format(text, text, text), partman.format(text, text, text, text), partman.format(text, text, text, text, text), partman.split_part(text, text, integer);
	DROP OPERATOR partman.|| (text, text); REVOKE ALL ON ALL TABLES IN SCHEMA partman FROM maker; REVOKE CREATE ON SCHEMA partman FROM maker');

# Another one's queue is nobody's to change, with the grants of the docs
said(q{SELECT pgmq.set_retention('beat', '0', true)}, qr/ERROR: .*(must be owner|permission denied)/, 'set_retention is for the owner', role => 'maker');
said(q{UPDATE partman.part_config SET retention = '0'}, qr/ERROR:  permission denied/, 'and nobody needs rights on part_config', role => 'maker');
sql_is(q{SELECT pgmq.create_partitioned('own', '10', '100'); SELECT pgmq.set_retention('own', '50'); SELECT pgmq.drop_queue('own')}, "\n\nt", 'to make, change and drop a queue', role => 'maker');

# The archive that was put aside: a table of somebody else's, and another queue's
$node->safe_psql('app', q{
	SET ROLE maker;
	CREATE TABLE pgmq.bait (msg_id bigint not null, read_ct integer NOT NULL DEFAULT 0, enqueued_at timestamptz NOT NULL DEFAULT now(), last_read_at timestamptz,
		archived_at timestamptz NOT NULL DEFAULT now(), vt timestamptz NOT NULL, message jsonb, headers jsonb);
	CREATE FUNCTION evil.trg() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('maker', 'bait'); RETURN NULL; END$$;
	CREATE TRIGGER t AFTER INSERT ON pgmq.bait FOR EACH STATEMENT EXECUTE FUNCTION evil.trg();
	ALTER TABLE pgmq.bait ENABLE ALWAYS TRIGGER t;
	INSERT INTO pgmq.bait (msg_id, vt) VALUES (-5, now()); ALTER TABLE pgmq.bait ADD CONSTRAINT pgmq_converted CHECK (true);
	TRUNCATE witness});
$position = -s $node->logfile;
$node->safe_psql('app', q{UPDATE pgmq.partition_config SET converted_archive = 'bait' WHERE queue_name IN ('su', 'beat')});
ok($node->wait_for_log(qr/WARNING:  relation "pgmq.bait" is not an archive that can be attached/, $position), q{a table of another role is no archive});
ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.partition_config WHERE converted_archive IS NOT NULL'), 'it is forgotten');
nobody_gained('bait');
sql_is('SELECT count(*) FROM witness', 0, 'its trigger has not run');
$node->safe_psql('app', q{SET ROLE other_maker; SELECT pgmq.create('precious'); SELECT pgmq.send('precious', '1')});
foreach my $table ('q_precious', 'a_precious', 'a_beat', 'meta', 'partition_config', 'q_beat_default', 'nothing')
{
	$node->safe_psql('app', qq{SET ROLE other_maker; SELECT pgmq.create_partitioned('al', '10')});
	$node->safe_psql('app', qq{UPDATE pgmq.partition_config SET converted_archive = '$table' WHERE queue_name = 'al'});
	sql_is("SELECT pgmq.drop_queue('al')", 't', "drop_queue, with $table named in partition_config", role => 'other_maker');
}
sql_is(q{SELECT count(*) FROM pg_class WHERE oid IN ('pgmq.q_precious'::regclass, 'pgmq.a_precious'::regclass, 'pgmq.a_beat'::regclass, 'pgmq.meta'::regclass, 'pgmq.q_beat_default'::regclass)},
	5, 'no table of another queue is dropped');

# Code of the owner runs as usual: in the role "origin", as the owner, restricted
$node->safe_psql('app', q{
	SET ROLE dbowner;
	CREATE TABLE public.accounts (who text, amount int);
	CREATE FUNCTION public.guard() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN IF NEW.amount > 100 THEN RAISE EXCEPTION ''too much''; END IF; RETURN NEW; END';
	CREATE TRIGGER guard BEFORE INSERT ON public.accounts FOR EACH ROW EXECUTE FUNCTION public.guard(); GRANT INSERT, SELECT ON public.accounts TO maker;
	SET ROLE maker;
	SELECT pgmq.create_partitioned('m', '10', NULL, 2);
	CREATE FUNCTION pgmq.m_chk(bigint) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN
		PERFORM public.spring('maker', current_setting('session_replication_role') || ' ' || current_setting('search_path') || ' ' || current_setting('timezone'));
		IF current_setting('session_replication_role') <> 'origin' THEN INSERT INTO public.accounts VALUES ('maker', 1000000); END IF; RETURN true; END $$;
	ALTER TABLE pgmq.q_m ADD CHECK (pgmq.m_chk(msg_id));
	CREATE FUNCTION pgmq.m_fired() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN PERFORM public.spring(''maker'', ''fired''); RETURN COALESCE(NEW, OLD); END';
	CREATE TRIGGER always BEFORE INSERT OR DELETE ON pgmq.q_m FOR EACH ROW EXECUTE FUNCTION pgmq.m_fired();
	ALTER TABLE pgmq.q_m ENABLE ALWAYS TRIGGER always;
	CREATE CONSTRAINT TRIGGER late AFTER INSERT OR DELETE ON pgmq.q_m DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION pgmq.m_fired();
	SELECT count(*) FROM pgmq.send_batch('m', array_fill('{}'::jsonb, '{40}'));
	TRUNCATE witness});
ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.q_m_default'), 'rows are moved past constraints and triggers');
sql_is('SELECT DISTINCT ran_as, what FROM witness', 'maker|origin pg_catalog, pg_temp UTC', 'constraints run as the owner, with fixed settings; no trigger fires');
sql_is('SELECT count(*) FROM public.accounts', 0, 'and the guard of another table was not passed');
sql_is(q{SELECT tgname, tgenabled, count(*) > 4 FROM pg_trigger WHERE tgname IN ('always', 'late') GROUP BY 1, 2 ORDER BY 1}, "always|A|t\nlate|O|t", 'triggers are as they were, on new partitions, too');
sql_is(q{SELECT count(*) = 40 AND count(DISTINCT msg_id) = 40 FROM pgmq.q_m}, 't', 'no message is lost');
# A rule or a policy that hides rows loses none
$node->safe_psql('app', q{
	SET ROLE maker; TRUNCATE witness;
	SELECT pgmq.create_partitioned('hidden', '10', NULL, 2);
	ALTER TABLE pgmq.q_hidden_default ENABLE ROW LEVEL SECURITY; ALTER TABLE pgmq.q_hidden_default FORCE ROW LEVEL SECURITY;
	CREATE POLICY half ON pgmq.q_hidden_default USING (msg_id % 2 = 0) WITH CHECK (true);
	SELECT count(*) FROM pgmq.send_batch('hidden', array_fill('{}'::jsonb, '{40}'))});
ok($node->wait_for_log(qr/WARNING:  maintenance of queue "hidden" failed \(default partition\): could not move rows/), 'rows that the owner does not see stay');
sql_is('SELECT count(*) FROM pgmq.q_hidden', 40, 'all of them');
$node->safe_psql('app', q{SELECT pgmq.drop_queue('hidden')});
# A foreign key on the queue
$node->safe_psql('app', q{
	SELECT pgmq.create_partitioned('referenced', '10', NULL, 2); SELECT count(*) FROM pgmq.send_batch('referenced', array_fill('{}'::jsonb, '{40}'));
	CREATE TABLE refers (msg_id bigint REFERENCES pgmq.q_referenced ON DELETE CASCADE);
	INSERT INTO refers SELECT msg_id FROM pgmq.q_referenced; CALL pgmq.maintain()});
sql_is('SELECT (SELECT count(*) FROM pgmq.q_referenced_default), (SELECT count(*) FROM refers), (SELECT count(*) FROM pgmq.q_referenced)', '0|40|40', 'a move deletes nothing that refers to the rows');

# Partitions of another owner
$node->safe_psql('app', q{SET ROLE maker; SELECT pgmq.create_partitioned('given', '10', NULL, 2); SELECT count(*) FROM pgmq.send_batch('given', array_fill('{}'::jsonb, '{40}'));
	CREATE FUNCTION evil.given_chk(bigint) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('maker', 'partition'); RETURN true; END$$;
	ALTER TABLE pgmq.q_given_default ADD CHECK (evil.given_chk(msg_id)); TRUNCATE witness});
$node->safe_psql('app', 'ALTER TABLE pgmq.q_given OWNER TO other_maker');
ok($node->wait_for_log(qr/WARNING:  maintenance of queue "given" failed: its partition pgmq.q_given_\w+ belongs to another role/), 'a queue with partitions of another role');
nobody_gained('partitions of another role');
$node->safe_psql('app', q{DO $$DECLARE t regclass; BEGIN FOR t IN SELECT inhrelid FROM pg_inherits WHERE inhparent = 'pgmq.q_given'::regclass LOOP EXECUTE format('ALTER TABLE %s OWNER TO other_maker', t); END LOOP; END$$;
	ALTER TABLE pgmq.q_given_default DROP CONSTRAINT q_given_default_msg_id_check});
ok($node->poll_query_until('app', 'SELECT count(*) = 0 FROM pgmq.q_given_default'), 'with all of them given as well, it is maintained');

# convert_archive_partitioned keeps who may see what
$node->safe_psql('app', q{
	SET ROLE other_maker;
	SELECT pgmq.create('ar'); SELECT pgmq.send_batch('ar', array_fill('{}'::jsonb, '{3}')); SELECT pgmq.archive('ar', ARRAY[1,2,3]::bigint[]);
	ALTER TABLE pgmq.a_ar ENABLE ROW LEVEL SECURITY; ALTER TABLE pgmq.a_ar FORCE ROW LEVEL SECURITY;
	CREATE POLICY one ON pgmq.a_ar FOR SELECT TO maker USING (msg_id = 2 AND EXISTS (SELECT FROM pgmq.meta AS m WHERE m.queue_name = 'ar' AND a_ar.read_ct = 0));
	CREATE POLICY own ON pgmq.a_ar TO other_maker USING (true) WITH CHECK (msg_id > 0);
	CREATE POLICY "no more" ON pgmq.a_ar AS RESTRICTIVE FOR ALL TO PUBLIC USING (msg_id < 100000);
	GRANT SELECT (msg_id, read_ct), UPDATE (vt) ON pgmq.a_ar TO maker; GRANT INSERT ON pgmq.a_ar TO PUBLIC});
my $visible = q{SELECT array_agg(msg_id) FROM pgmq.a_ar};
my $rules = q{SELECT polname, polcmd, polpermissive, polroles, pg_get_expr(polqual, polrelid), pg_get_expr(polwithcheck, polrelid) FROM pg_policy WHERE polrelid = 'pgmq.a_ar'::regclass ORDER BY 1;
	SELECT relrowsecurity, relforcerowsecurity, relacl, relowner::regrole FROM pg_class WHERE oid = 'pgmq.a_ar'::regclass;
	SELECT attname, attacl FROM pg_attribute WHERE attrelid = 'pgmq.a_ar'::regclass AND attacl IS NOT NULL ORDER BY 1};
my $before = $node->safe_psql('app', $rules);
sql_is($visible, '{2}', 'a policy shows one row', role => 'maker');
($out, $err) = sql(q{SELECT pgmq.convert_archive_partitioned('ar', '10')}, 'other_maker');
is($err, '', 'converted');
is($node->safe_psql('app', $rules), $before, 'policies and privileges are the same');
sql_is($visible, '{2}', 'and so is what is seen', role => 'maker');

# Triggers of an archive that was put aside are as they were when it comes back, and have not fired
$node->safe_psql('app', q{
	SET ROLE other_maker; TRUNCATE witness;
	SELECT pgmq.create('aside'); SELECT setval('pgmq.q_aside_msg_id_seq', 60000);
	INSERT INTO pgmq.a_aside (msg_id, vt, message) SELECT i, now(), to_jsonb(repeat('x', 1000)) FROM generate_series(1, 40000) AS i;
	CREATE FUNCTION public.fired() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN PERFORM public.spring('other_maker', 'fired'); RETURN COALESCE(NEW, OLD); END$$;
	CREATE TRIGGER o BEFORE INSERT ON pgmq.a_aside FOR EACH ROW EXECUTE FUNCTION public.fired();
	CREATE TRIGGER a BEFORE INSERT ON pgmq.a_aside FOR EACH ROW EXECUTE FUNCTION public.fired(); ALTER TABLE pgmq.a_aside ENABLE ALWAYS TRIGGER a;
	CREATE TRIGGER r BEFORE INSERT ON pgmq.a_aside FOR EACH ROW EXECUTE FUNCTION public.fired(); ALTER TABLE pgmq.a_aside ENABLE REPLICA TRIGGER r;
	CREATE TRIGGER d BEFORE INSERT ON pgmq.a_aside FOR EACH ROW EXECUTE FUNCTION public.fired(); ALTER TABLE pgmq.a_aside DISABLE TRIGGER d;
	CREATE CONSTRAINT TRIGGER z AFTER INSERT ON pgmq.a_aside DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION public.fired();
	SELECT pgmq.convert_archive_partitioned('aside', '1000', NULL);
	INSERT INTO pgmq.a_aside (msg_id, vt) VALUES (50000, now())});
ok($node->poll_query_until('app', q{SELECT count(*) = 0 FROM pgmq.partition_config WHERE converted_archive IS NOT NULL}), 'a large archive comes back');
sql_is('SELECT count(*), max(msg_id) FROM pgmq.a_aside', '40001|50000', 'with what was archived meanwhile');
sql_is('SELECT count(*) FROM witness', 0, 'without its triggers');
sql_is(q{SELECT string_agg(tgname::text || tgenabled::text, ' ' ORDER BY tgname) FROM pg_trigger WHERE tgname IN ('o', 'a', 'r', 'd', 'z')}, 'aA dD oO rR zO', 'which are as they were');

nobody_gained('at the end');
$node->stop;
done_testing();

# Taking over the PL/pgSQL extension in the hands of plain roles: who may adopt what, what an update leaves alone, what
# attacks on it come to, and what becomes of users' objects that use functions which are gone.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('adoption');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE boss LOGIN; CREATE ROLE deputy LOGIN IN ROLE boss; CREATE ROLE aloof LOGIN NOINHERIT IN ROLE boss;
	CREATE ROLE other LOGIN; CREATE ROLE app LOGIN;
	CREATE ROLE "Strange Role" LOGIN});
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');

# as(role, database, sql): (what it returned, SQLSTATE and message of the error)
sub as
{
	my ($role, $db, $sql) = @_;
	my ($stdout, $stderr);

	$node->psql($db, $sql, stdout => \$stdout, stderr => \$stderr, on_error_stop => 1,
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	my ($error) = $stderr =~ /ERROR:  (.*)/;
	return ($stdout, $error // '');
}

sub may
{
	my ($role, $db, $sql, $expected, $name) = @_;
	my ($out, $error) = as($role, $db, $sql);

	is($error ? "error: $error" : $out, $expected, $name);
}

sub may_not
{
	my ($role, $db, $sql, $like, $name) = @_;
	my ($out, $error) = as($role, $db, $sql);

	like($error, $like, $name) or diag("returned: $out");
}

# installed(name, role, version): what the version's SQL makes, by that role in a database of boss
sub installed
{
	my ($db, $role, $version) = @_;

	$node->safe_psql('postgres', qq{CREATE DATABASE $db OWNER boss; GRANT CREATE ON DATABASE $db TO other, deputy, aloof, "Strange Role"});
	may($role, $db, old_installation($version) . old_queues($version), '', "$db: SQL of $version, run by $role");
}

# The same, as an extension of the version
sub extended
{
	my ($db, $role, $version) = @_;

	installed($db, $role, $version);
	may($role, $db, "CREATE EXTENSION pgmq VERSION 'unpackaged'", '', "$db: adopted");
	$node->safe_psql($db, old_extension($version));
}

my $ADOPT = "CREATE EXTENSION pgmq VERSION 'unpackaged'; ALTER EXTENSION pgmq UPDATE";
my $UPDATE = 'ALTER EXTENSION pgmq UPDATE';

# Not the temporary view of catalogs(): it goes when its session has ended
sub everything
{
	my ($db) = @_;

	return catalogs($node, $db) . $node->safe_psql($db, q{SELECT oid, relname, relowner, relacl, relfilenode FROM pg_class
		WHERE relpersistence <> 't' ORDER BY oid});
}

###################################################### who may adopt what

installed('of_super', $superuser, '1.11.1');
my $before = everything('of_super');
may_not('other', 'of_super', "CREATE EXTENSION pgmq VERSION 'unpackaged'", qr/^42501: .* cannot be adopted by role other/,
	'a role with CREATE on the database cannot adopt what a superuser has installed');
may_not('boss', 'of_super', $ADOPT, qr/^42501: .* cannot be adopted by role boss/, 'nor can the owner of the database');
is(everything('of_super'), $before, 'and nothing has changed');
$node->safe_psql('of_super', 'ALTER SCHEMA pgmq OWNER TO boss');
may_not('boss', 'of_super', $ADOPT, qr/^42501: /, 'with the schema alone neither');
may($superuser, 'of_super', $ADOPT, '', 'a superuser can');
may($superuser, 'of_super', "SELECT pgmq.send('orders', '1')", '8', 'and the queues go on');

installed('of_boss', 'boss', '1.13.1');
$node->safe_psql('of_boss', 'ALTER FUNCTION pgmq.pop(text, integer) OWNER TO other');
may_not('boss', 'of_boss', $ADOPT, qr/^42501: function pgmq.pop\(text,integer\) cannot be adopted by role boss/, 'one function of another role is enough');
$node->safe_psql('of_boss', 'ALTER FUNCTION pgmq.pop(text, integer) OWNER TO boss; ALTER TABLE pgmq.meta OWNER TO other');
may_not('boss', 'of_boss', $ADOPT, qr/^42501: table pgmq.meta cannot be adopted/, 'or one table');
$node->safe_psql('of_boss', 'ALTER TABLE pgmq.meta OWNER TO boss; ALTER TYPE pgmq.queue_record OWNER TO other');
may_not('boss', 'of_boss', $ADOPT, qr/^42501: type pgmq.queue_record cannot be adopted/, 'or one type');
$node->safe_psql('of_boss', 'ALTER TYPE pgmq.queue_record OWNER TO boss; ALTER SCHEMA pgmq OWNER TO other');
may_not('boss', 'of_boss', $ADOPT, qr/^42501: schema pgmq cannot be adopted/, 'or the schema');
$node->safe_psql('of_boss', 'ALTER SCHEMA pgmq OWNER TO boss');

# What clients and users have put there is left alone
$node->safe_psql('of_boss', q{
	SET ROLE boss;
	CREATE TABLE pgmq.__pgmq_migrations (name text); INSERT INTO pgmq.__pgmq_migrations VALUES ('1');
	CREATE FUNCTION pgmq.send(text, text) RETURNS bigint LANGUAGE sql AS 'SELECT 0::bigint';
	CREATE FUNCTION pgmq.helper() RETURNS int LANGUAGE sql SECURITY DEFINER AS 'SELECT 7';
	CREATE TYPE pgmq.mine AS (a int)});
may_not('aloof', 'of_boss', $ADOPT, qr/^42501: .* cannot be adopted by role aloof/, 'a member without the rights of the owner cannot adopt');
may_not('deputy', 'of_boss', "BEGIN ISOLATION LEVEL SERIALIZABLE; $ADOPT; COMMIT", qr/^25001: pgmq cannot be adopted/,
	'a snapshot of before could show another owner');
may('deputy', 'of_boss', $ADOPT, '', 'a member of the owner adopts');
may('deputy', 'of_boss', q{
	SELECT proowner::regrole FROM pg_proc WHERE oid IN ('pgmq.send(text, text)'::regprocedure, 'pgmq.helper()'::regprocedure);
	SELECT relowner::regrole FROM pg_class WHERE oid IN ('pgmq.__pgmq_migrations'::regclass, 'pgmq.mine'::regclass, 'pgmq.meta'::regclass);
	SELECT count(*) FROM pg_depend WHERE deptype = 'e' AND objid IN ('pgmq.send(text, text)'::regprocedure,
		'pgmq.helper()'::regprocedure, 'pgmq.__pgmq_migrations'::regclass, 'pgmq.mine'::regtype);
	SELECT extversion, extowner::regrole FROM pg_extension WHERE extname = 'pgmq'},
	"boss\nboss\nboss\nboss\nboss\n0\n$NEW_VERSION|deputy", 'and objects of clients and users stay as they are');
may('boss', 'of_boss', "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND proowner <> '$superuser'::regrole", '2',
	'all functions of the extension belong to the superuser');

$node->safe_psql('postgres', 'CREATE DATABASE empty OWNER boss');
may_not('boss', 'empty', $ADOPT, qr/^42704: there is no installation of pgmq/, 'nothing to adopt');
may('boss', 'empty', 'CREATE EXTENSION pgmq; SELECT extversion FROM pg_extension WHERE extname = $$pgmq$$', $NEW_VERSION, 'and a fresh installation is none the worse');

$node->safe_psql('postgres', 'CREATE DATABASE strange OWNER "Strange Role"');
may('Strange Role', 'strange', old_installation('1.5.1') . old_queues('1.5.1') . "SET quote_all_identifiers = on; $ADOPT", '', 'a role whose name needs quotes');

###################################################### attacks on the update

extended('attacked', 'boss', '1.11.1');
may('boss', 'attacked', q{
	CREATE TABLE public.ran (who text);
	GRANT INSERT ON public.ran TO PUBLIC;
	CREATE FUNCTION public.ran() RETURNS boolean LANGUAGE plpgsql AS
		$$ BEGIN RAISE LOG 'ran as %', current_user; INSERT INTO public.ran VALUES (current_user); RETURN true; END $$;
	CREATE FUNCTION public.quiet() RETURNS boolean LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN RETURN public.ran(); END $$;
	CREATE FUNCTION public.quiet(text) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		$$ BEGIN PERFORM public.ran(); PERFORM public.misuse(); RETURN $1; END $$;
	-- calls what the script of the update has made, from within a statement of the script
	CREATE FUNCTION public.misuse() RETURNS void LANGUAGE plpgsql AS $$
	DECLARE f regprocedure;
	BEGIN
		FOR f IN SELECT oid FROM pg_proc WHERE proname LIKE '%as_owner' LOOP
			BEGIN
				EXECUTE pg_catalog.format('SELECT %s(''pg_catalog.pg_class'', ''SELECT public.ran()'')', f::regproc);
				RAISE LOG 'misused %', f;
			EXCEPTION WHEN insufficient_privilege THEN
				RAISE LOG 'refused the misuse of %: %', f, SQLERRM;
			END;
		END LOOP;
	END $$;
	CREATE FUNCTION pgmq._as_owner(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); END $$;
	CREATE FUNCTION public.fired() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); RETURN NEW; END $$;
	CREATE TRIGGER fired BEFORE INSERT OR UPDATE OR DELETE ON pgmq.meta FOR EACH ROW EXECUTE FUNCTION public.fired();
	CREATE TRIGGER fired BEFORE INSERT OR UPDATE OR DELETE ON pgmq.topic_bindings FOR EACH ROW EXECUTE FUNCTION public.fired();
	CREATE TRIGGER fired BEFORE INSERT OR UPDATE OR DELETE ON pgmq.notify_insert_throttle FOR EACH ROW EXECUTE FUNCTION public.fired();
	ALTER TABLE pgmq.meta ADD CHECK (public.quiet()) ;
	ALTER TABLE pgmq.notify_insert_throttle ADD CHECK (public.quiet(queue_name) <> '');
	CREATE INDEX ON pgmq.notify_insert_throttle (public.quiet(queue_name));
	CREATE INDEX ON pgmq.meta (public.quiet(queue_name)) WHERE public.quiet();
	ALTER TABLE pgmq.meta ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON pgmq.meta USING (public.ran());
	ALTER TABLE pgmq.q_orders ADD CHECK (public.quiet());
	-- members that are none of ours
	CREATE FUNCTION pgmq.evil() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
	ALTER EXTENSION pgmq ADD FUNCTION pgmq.evil();
	CREATE FUNCTION pgmq._before_2_evil() RETURNS text LANGUAGE sql SECURITY DEFINER AS 'SELECT current_user::text';
	CREATE TABLE pgmq.q_evil (a int);
	ALTER EXTENSION pgmq ADD TABLE pgmq.q_evil;
	ALTER FUNCTION pgmq.send(text, jsonb) SECURITY DEFINER SET search_path = public;
	ALTER FUNCTION pgmq.create_partitioned(text, text, text) SECURITY DEFINER;
	-- what a careless script would call
	CREATE FUNCTION pgmq.format(text, name) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); RETURN ''; END $$;
	CREATE FUNCTION pgmq.to_regclass(varchar) RETURNS regclass LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); RETURN NULL; END $$;
	CREATE FUNCTION pgmq.same(name, text) RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); RETURN true; END $$;
	CREATE OPERATOR pgmq.= (LEFTARG = name, RIGHTARG = text, FUNCTION = pgmq.same);
	-- expressions that the server folds or parses where it looks at them
	CREATE UNIQUE INDEX other_key ON pgmq.topic_bindings (pattern, queue_name) WHERE public.quiet();
	ALTER TABLE pgmq.topic_bindings DROP CONSTRAINT topic_bindings_unique_pattern_queue;
	ALTER INDEX pgmq.other_key RENAME TO topic_bindings_unique_pattern_queue;
	CREATE DOMAIN public.checked AS int CHECK (public.ran());
	CREATE TYPE public.pair AS (a public.checked);
	CREATE FUNCTION public.number(public.pair) RETURNS text LANGUAGE sql IMMUTABLE AS $$ SELECT '1' $$;
	CREATE OR REPLACE FUNCTION pgmq.create_partitioned(queue_name text, partition_interval text DEFAULT public.number('(1)'::public.pair),
		retention_interval text DEFAULT public.number('(2)'::public.pair)) RETURNS void LANGUAGE sql AS '';
	CREATE FUNCTION public.user_of_it() RETURNS void BEGIN ATOMIC SELECT pgmq.create_partitioned('a', 'b', 'c'); END;
	CREATE FUNCTION pgmq.set_config(text, text, boolean) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM public.ran(); RETURN ''; END $$;
	TRUNCATE public.ran}, '', 'attacked: all that an owner can prepare');
may_not('boss', 'attacked', "BEGIN ISOLATION LEVEL REPEATABLE READ; $UPDATE; COMMIT", qr/^25001: pgmq cannot be updated/, 'attacked: in an old snapshot');
$node->safe_psql('attacked', 'CREATE SCHEMA pgmq_update');
$node->psql('attacked', $UPDATE, stderr => \my $in_the_way);
like($in_the_way, qr/schema "pgmq_update" already exists.*HINT:  .*Rename or drop the schema/s, 'attacked: a schema is in the way');
$node->safe_psql('attacked', 'DROP SCHEMA pgmq_update');
may('boss', 'attacked', $UPDATE, '', 'attacked: updated');
# Also what left no row
ok(slurp_file($node->logfile) =~ qr/LOG:  ran as boss/, 'code of the owner has run');
ok(slurp_file($node->logfile) =~ qr/LOG:  refused the misuse of/, 'code of the owner has tried what the script uses');
ok(slurp_file($node->logfile) !~ qr/LOG:  misused pgmq_update/, 'in vain');
ok(slurp_file($node->logfile) !~ qr/LOG:  ran as (?!boss)/, 'no code of the owner has run as another role');
may('boss', 'attacked', 'SELECT DISTINCT who FROM public.ran', 'boss', 'code of the owner has run as the owner only');
may('boss', 'attacked', q{SELECT pgmq.evil(), pgmq._before_2_evil()}, 'boss|boss', 'functions of the owner have kept their owner');
may('boss', 'attacked', q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND prosecdef
	AND proowner <> 'boss'::regrole}, '0', 'no function of the superuser is SECURITY DEFINER');
may('boss', 'attacked', q{SELECT count(*) FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relowner <> 'boss'::regrole
	AND relkind IN ('r', 'p', 'S')}, '0', 'all tables belong to the owner of the extension');

foreach my $try (
	[ 'ALTER TABLE pgmq.meta RENAME TO meat; CREATE VIEW pgmq.meta AS SELECT * FROM pgmq.meat', qr/^42809: "pgmq.meta" is not a table that/, 'a view in the place of a table' ],
	[ 'CREATE TABLE public.child () INHERITS (pgmq.topic_bindings)', qr/^42809: "pgmq.topic_bindings"/, 'a table with a child' ],
	[ 'DROP TABLE pgmq.notify_insert_throttle; CREATE TABLE pgmq.notify_insert_throttle (LIKE pgmq.meta)', qr/^(42809|2BP01)/, 'another table' ],
	[ 'ALTER TABLE pgmq.meta ALTER COLUMN queue_name TYPE text', qr/^42809: "pgmq.meta"/, 'another type of a column' ],
	[ 'CREATE TABLE pgmq.partition_config (queue_name varchar)', qr/^42809: "pgmq.partition_config"/, 'a name that is needed' ],
	[ 'ALTER TYPE pgmq.message_record ADD ATTRIBUTE more int', qr/^42804: type "pgmq.message_record" is not one/, 'another type' ],
	[ q{CREATE FUNCTION pgmq.rescan(queue_name text) RETURNS void LANGUAGE sql AS ''}, qr/^55000: function pgmq.rescan\(text\) is not a member/, 'a function that is needed' ])
{
	my ($sql, $like, $what) = @$try;

	$node->safe_psql('postgres', 'DROP DATABASE IF EXISTS refused');
	extended('refused', 'boss', '1.11.1');
	my ($out, $error) = as('boss', 'refused', $sql);
	may_not('boss', 'refused', $UPDATE, $like, "refused: $what") if $error eq '';
	is($error =~ /^2BP01/ ? '' : $error, '', "$what was there");
}

###################################################### what steps aside

# The statement of docs/migrating.md that says what uses them
my ($uses) = grep { /keeps the old function/ } slurp_file("$FindBin::RealBin/../../docs/migrating.md") =~ /^```sql\n(.*?)^```/msg;

sub with_dependents
{
	my ($version, $made, $used, $checks) = @_;
	(my $db = "dependents_$version") =~ tr/./_/;

	extended($db, 'boss', $version);
	may('boss', $db, $made, '', "$db: users' objects");
	may('boss', $db, 'CREATE VIEW public.metrics AS SELECT queue_length FROM pgmq.metrics_all();
		CREATE VIEW public.archiving AS SELECT pgmq.archive($$mixed$$, 1)', '', "$db: and others");
	is(join("\n", sort grep { s/keeps the old function.*_before_2_// } split /\n/, $node->safe_psql($db, $uses)), join("\n", @$used), "$db: what uses functions that are replaced by others");
	may('boss', $db, $UPDATE, '', "$db: updated without CASCADE");
	may($_->[0], $db, $_->[1], $_->[2], "$db: $_->[3]") foreach @$checks;
	# A dump has all of it.  Where the update had to put an attribute last, views by place do not fit a fresh installation.
	return unless at_least($version, '1.9.0');
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	$node->command_ok([ 'pg_dump', '-f', $file, '-d', $node->connstr($db) ], "$db: pg_dump");
	$node->safe_psql('postgres', "CREATE DATABASE r$db OWNER boss");
	$node->command_ok([ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', $file, '-d', $node->connstr("r$db") ], "$db: restored");
	my $queues = "SELECT count(*) FROM pgmq.list_queues()";
	is($node->safe_psql("r$db", $queues), $node->safe_psql($db, $queues), "$db: with the queues");
}

with_dependents('1.4.4', q{
	CREATE VIEW public.reading AS SELECT msg_id, message FROM pgmq.read('mixed', 0, 1);
	CREATE VIEW public.popping AS SELECT * FROM pgmq.pop('mixed');
	CREATE VIEW public.sending AS SELECT pgmq.send('mixed', '{"by": "view"}') AS id;
	REVOKE EXECUTE ON FUNCTION pgmq.read(text, integer, integer), pgmq.send(text, jsonb, integer), pgmq.purge_queue(text) FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION pgmq.read(text, integer, integer) TO app WITH GRANT OPTION;
	GRANT EXECUTE ON FUNCTION pgmq.send(text, jsonb, integer), pgmq.purge_queue(text) TO app;
	GRANT USAGE ON SCHEMA pgmq TO app, other;
	GRANT ALL ON pgmq.q_mixed TO app, other}, [
	'rule _RETURN on view popping|pop',
	'rule _RETURN on view reading|read',
	'rule _RETURN on view sending|send' ], [
	[ 'boss', 'SELECT * FROM public.reading', '4|{"n": 4}', 'a view over read(text, integer, integer)' ],
	[ 'boss', 'SELECT msg_id, message FROM public.popping', '5|{"n": 5}', 'a view over pop(text)' ],
	[ 'boss', 'SELECT * FROM public.sending', '8', 'a view over send with a default' ],
	[ 'boss', "SELECT count(*) FROM pgmq.read('mixed', 0, 10)", '3', 'the call itself' ],
	[ 'app', "SELECT count(*) FROM pgmq.read('mixed', 0, 10); SELECT pgmq.send('mixed', '1', 0)", "3\n9", 'grants have gone to the successors' ],
	[ 'other', "SELECT has_function_privilege('pgmq.read(text, integer, integer, jsonb)', 'EXECUTE'), has_function_privilege('pgmq.send(text, jsonb, integer)', 'EXECUTE'),
		has_function_privilege('pgmq.purge_queue(text)', 'EXECUTE')", 'f|f|f', 'and others have got none' ],
	[ 'boss', "SELECT has_function_privilege('pgmq.purge_queue(text)', 'EXECUTE WITH GRANT OPTION'); SELECT pgmq.purge_queue('mixed') > 0", "t\nt", 'the owner may go on' ],
	[ 'boss', "SELECT has_function_privilege(r, 'pgmq.read(text, integer, integer, jsonb)', 'EXECUTE WITH GRANT OPTION'),
		has_function_privilege(r, 'pgmq.send(text, jsonb, integer)', 'EXECUTE WITH GRANT OPTION') FROM unnest('{app,boss}'::text[]) AS r",
		"t|f\nt|t", 'with the options of before' ] ]);

with_dependents('1.9.0', q{
	CREATE VIEW public.grouped AS SELECT msg_id FROM pgmq.read_grouped('mixed', 0, 2);
	CREATE VIEW public.conditional AS SELECT msg_id FROM pgmq.read_grouped('mixed', 0, 2, '{"n": 6}')}, [
	'rule _RETURN on view conditional|read_grouped',
	'rule _RETURN on view grouped|read_grouped' ], [
	[ 'boss', 'SELECT * FROM public.grouped', "5\n6", 'a view over read_grouped with four arguments' ],
	[ 'boss', "SELECT count(*) FROM pgmq.read_grouped('mixed', 0, 5)", '2', 'the call itself' ] ]);
may_not('boss', 'dependents_1_9_0', 'SELECT * FROM public.conditional', qr/^0A000: groups cannot be read with a condition/, 'a condition is refused');

with_dependents('1.12.0', q{
	CREATE FUNCTION public.making(name text) RETURNS void BEGIN ATOMIC SELECT pgmq.create_partitioned(name, '10', '100'); END}, [
	'function making(text)|create_partitioned' ], [
	[ 'boss', "SELECT pg_get_functiondef('public.making(text)'::regprocedure) ~ '_before_2_create_partitioned'", 't', 'a function with a parsed body' ] ]);
may_not('boss', 'dependents_1_12_0', "SELECT public.making('new')", qr/^P0001: pg_partman is required/, 'which calls the successor');

# Back, and there again: what the first update has left is not in the way
may('boss', 'dependents_1_12_0', q{DROP VIEW public.metrics, public.archiving; DROP TRIGGER trigger_notify_queue_insert_listeners ON pgmq.q_orders; DROP EXTENSION pgmq;}
	. old_installation('1.12.0') . q{CREATE EXTENSION pgmq VERSION 'unpackaged';
	CREATE FUNCTION public.making_too(name text) RETURNS void BEGIN ATOMIC SELECT pgmq.create_partitioned(name, '10', '100'); END}, '', 'back');
$node->safe_psql('dependents_1_12_0', old_extension('1.12.0'));
may('boss', 'dependents_1_12_0', "$UPDATE; SELECT p.proname, d.objid::regprocedure FROM pg_depend AS d JOIN pg_proc AS p ON d.refclassid = 'pg_proc'::regclass AND refobjid = p.oid
	WHERE p.proname LIKE '\\_before\\_2%' ORDER BY 1", "_before_2_create_partitioned|making(text)\n_before_2_create_partitioned_2|making_too(text)", 'and there again');
may_not('boss', 'dependents_1_12_0', 'SELECT public.making_too($$new$$)', qr/^P0001: pg_partman is required/, 'with another function');

###################################################### privileges

# What was revoked stays revoked
extended('unmonitored', 'boss', '1.7.0');
may('boss', 'unmonitored', q{
	REVOKE ALL ON SCHEMA pgmq FROM pg_monitor;
	REVOKE ALL ON ALL TABLES IN SCHEMA pgmq FROM pg_monitor;
	ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq REVOKE SELECT ON TABLES FROM pg_monitor;
	ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq REVOKE SELECT ON SEQUENCES FROM pg_monitor}, '', 'privileges of pg_monitor are revoked');
# What another role gives away of its own tables says nothing about others
$node->safe_psql('unmonitored', 'GRANT USAGE ON SCHEMA pgmq TO other');
may('other', 'unmonitored', 'ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq GRANT SELECT ON TABLES TO pg_monitor', '', 'default privileges of another role');
may('boss', 'unmonitored', "$UPDATE; SELECT has_schema_privilege('pg_monitor', 'pgmq', 'USAGE'), count(*) FROM pg_class
	WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') AND has_table_privilege('pg_monitor', oid, 'SELECT');
	SELECT count(*) FROM pg_default_acl WHERE defaclrole <> 'other'::regrole", "f|0\n0", 'and stay so');

# Another role owns meta, and has no CREATE on the schema
extended('given', $superuser, '1.9.0');
$node->safe_psql('given', 'ALTER TABLE pgmq.meta OWNER TO other; ALTER TABLE pgmq.notify_insert_throttle OWNER TO other; GRANT USAGE ON SCHEMA pgmq TO other');
may($superuser, 'given', "SET client_min_messages = warning; $UPDATE; SELECT relname, relowner::regrole FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r'
	AND relname !~ '^[aq]_' ORDER BY 1; SELECT to_regclass('pgmq.meta_identity_idx')", join("\n", map { "$_|other" } qw(meta notify_insert_throttle partition_config policy stream subscription topic_bindings topic_stream_bindings)) . "\n",
	'the owner of meta gets the new tables, and needs no CREATE on the schema');
may($superuser, 'given', "SELECT pgmq.create('new'), pgmq.send('new', '1'), pgmq.bind_topic('x', 'new'), pgmq.enable_notify_insert('new'); SELECT pgmq.send_topic('x', '1'); SELECT count(*) FROM pgmq.list_queues()",
	"|1||\n1\n7", 'and everything works');

# A table of a type that gets an attribute
extended('typed', 'boss', '1.4.4');
may('boss', 'typed', 'CREATE TABLE public.rows OF pgmq.message_record', '', 'a typed table');
may_not('boss', 'typed', $UPDATE, qr/^2BP01: table public.rows is of type "pgmq.message_record", which gets an attribute/, 'is named');
may('boss', 'typed', "ALTER TABLE public.rows NOT OF; $UPDATE", '', 'and is no obstacle after NOT OF');

###################################################### the owner of all functions

my ($routines) = grep { /^SELECT format.'ALTER ROUTINE/ } slurp_file("$FindBin::RealBin/../../docs/migrating.md") =~ /^```sql\n(.*?)^```/msg;
$node->safe_psql('postgres', 'CREATE ROLE admin LOGIN SUPERUSER');
may($superuser, 'given', "SELECT count(*) > 0 FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND prokind = 'p'", 't', 'there are procedures');
(my $functions = $routines) =~ s/ALTER ROUTINE/ALTER FUNCTION/;
may_not($superuser, 'given', $functions, qr/^42809: .* is not a function/, 'ALTER FUNCTION refuses them');
may($superuser, 'given', "$routines; SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND proowner <> 'admin'::regrole AND proname !~ '^_before'", '0', 'ALTER ROUTINE does not');
may('other', 'given', "SELECT count(*) FROM pgmq.list_queues(); CALL pgmq.maintain()", '7', 'and the functions work');

###################################################### sessions that are connected meanwhile

foreach my $version (qw(1.4.4 1.7.0 1.11.1 1.13.1))
{
	(my $db = "session_$version") =~ tr/./_/;
	extended($db, $superuser, $version);
	my $calls = q{
		EXECUTE sending; EXECUTE reading;
		SELECT public.sends(); SELECT count(*) FROM public.reads();
	};
	# The update is made from within the session, by another one
	my $update = sprintf('\! psql -X -q -d "%s" -c "ALTER EXTENSION pgmq UPDATE"', $node->connstr($db));
	is($node->safe_psql($db, qq{
		PREPARE sending AS SELECT pgmq.send('mixed', '1') > 0;
		PREPARE reading AS SELECT count(*) FROM pgmq.read('mixed', 60, 1);
		CREATE FUNCTION public.sends() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN RETURN (SELECT s > 0 FROM pgmq.send(\$\$mixed\$\$, \$\$1\$\$) AS s); END';
		CREATE FUNCTION public.reads() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS
			'DECLARE r pgmq.message_record; BEGIN FOR r IN SELECT * FROM pgmq.read(\$\$mixed\$\$, 60, 1) LOOP RETURN NEXT r; END LOOP; END';
		$calls $calls
		$update
		$calls $calls
		SELECT msg_id FROM public.reads()}),
		join("\n", ('t', 0, 't', 0) x 2, ('t', 1, 't', 1) x 2, 9), "$version: prepared statements and functions of a session go on");
}

###################################################### leftovers of the PL/pgSQL extension's own scripts

SKIP:
{
	chomp(my $sharedir = `pg_config --sharedir`);
	my @leftovers = map { "$sharedir/extension/pgmq--$_.sql" }
		qw(1.4.4--1.4.5 1.4.5--1.5.0 1.5.0--1.5.1 1.12.0--1.13.0 1.13.0--1.13.1);

	skip 'the directory of extensions cannot be written', 2 unless -w "$sharedir/extension";
	append_to_file($_, "SELECT 1/0;\n") foreach @leftovers;
	is($node->safe_psql('postgres', q{
		SELECT DISTINCT path FROM pg_extension_update_paths('pgmq')
		 WHERE target = '2.0.0' AND source IN ('1.4.4', '1.12.0')}),
		"1.12.0--takeover--2.0.0\n1.4.4--takeover--2.0.0", 'leftovers are no part of the path');
	extended('leftovers', 'boss', '1.4.4');
	may('boss', 'leftovers', $UPDATE, '', 'and are not run');
	unlink @leftovers;
}

$node->stop;
done_testing();

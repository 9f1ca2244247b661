# Who may do what: plain roles install, grant, use and remove the extension, each
# with the least it needs; and nobody gets a superuser to run code of theirs.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('privileges');
$node->init;
$node->start;

# run(database, role, sql): (what it returned, what went wrong: SQLSTATE and message)
sub run
{
	my ($db, $role, $sql) = @_;
	my ($stdout, $stderr);

	$node->psql($db, $sql,
		stdout => \$stdout, stderr => \$stderr, on_error_stop => 1,
		extra_params => [ '-U', $role, '-v', 'VERBOSITY=verbose' ]);
	my @errors = $stderr =~ /ERROR:  (.*)/g;
	return ($stdout, join("\n", @errors));
}

sub may
{
	my ($db, $role, $sql, $expected, $name) = @_;
	my ($out, $error) = run($db, $role, $sql);

	is($error ? "error: $error" : $out, $expected, $name);
}

sub may_not
{
	my ($db, $role, $sql, $name) = @_;
	my ($out, $error) = run($db, $role, $sql);

	like($error, qr/^42501: /, $name) or diag("returned: $out");
}

# What of the extension the public may use: (object, privilege)
my $PUBLIC_SQL = q{
	SELECT string_agg(DISTINCT a.privilege_type, ',')
	  FROM (SELECT proacl AS acl, 'f' AS kind, proowner AS owner FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace
	        UNION ALL
	        SELECT relacl, CASE relkind WHEN 'S' THEN 's' ELSE 'r' END, relowner FROM pg_class
	         WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'S', 'v')
	        UNION ALL
	        SELECT nspacl, 'n', nspowner FROM pg_namespace WHERE nspname = 'pgmq') AS o,
	       aclexplode(coalesce(o.acl, acldefault(o.kind::"char", o.owner))) AS a
	 WHERE a.grantee = 0};

$node->safe_psql('postgres', q{
	CREATE ROLE boss LOGIN;
	CREATE ROLE builder LOGIN;
	CREATE ROLE stranger LOGIN;
	CREATE ROLE sender LOGIN;
	CREATE ROLE reader LOGIN;
	CREATE ROLE popper LOGIN;
	CREATE ROLE deleter LOGIN;
	CREATE ROLE archiver LOGIN;
	CREATE ROLE setter LOGIN;
	CREATE ROLE purger LOGIN;
	CREATE ROLE measurer LOGIN;
	CREATE ROLE maker LOGIN;
	CREATE ROLE watcher LOGIN;
	GRANT pg_monitor TO watcher;
	CREATE DATABASE owned OWNER boss;
	CREATE DATABASE built;
	GRANT CREATE ON DATABASE built TO builder;
});
$node->safe_psql('built', 'REVOKE CREATE ON SCHEMA public FROM PUBLIC');

###################################################### installing without a superuser

may_not('owned', 'stranger', 'CREATE EXTENSION pgmq', 'a role without CREATE on the database cannot install');

# installed(database, role): the life of the extension in the hands of a plain role
sub check_life
{
	my ($db, $role) = @_;

	may($db, $role, 'CREATE EXTENSION pgmq', '', "$role installs");
	may($db, $role, "SELECT nspowner::regrole FROM pg_namespace WHERE nspname = 'pgmq'",
		$role, "the schema is ${role}'s");
	may($db, $role, "SELECT relowner::regrole FROM pg_class WHERE oid = 'pgmq.meta'::regclass",
		$role, "meta is ${role}'s");
	may($db, $role, $PUBLIC_SQL, 'EXECUTE', 'the public may execute and nothing else');
	may($db, $role, q{SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND prosecdef},
		'0', 'no function runs with the rights of its owner');
	may($db, $role, "SELECT pgmq.create('jobs'), pgmq.create_unlogged('scratch')", '|', "$role creates queues");
	may($db, $role, $PUBLIC_SQL, 'EXECUTE', 'the public has nothing on queues');
	may($db, $role, "SELECT pgmq.send('jobs', '1')", '1', "$role sends");
	may($db, $role, "SELECT msg_id FROM pgmq.read('jobs', 0, 1)", '1', "$role reads");
	may($db, $role, "SELECT pgmq.archive('jobs', 1)", 't', "$role archives");
	may($db, $role, "SELECT pgmq.purge_queue('jobs')", '0', "$role purges");
	may($db, $role, "SELECT queue_length, total_messages FROM pgmq.metrics('jobs')", '0|1', "$role measures");
	may($db, $role, "SELECT pgmq.drop_queue('scratch')", 't', "$role drops a queue");
}

check_life('owned', 'boss');
check_life('built', 'builder');

# A role with nothing has no way in: not into the schema, nor past it
may_not('owned', 'stranger', $_, "a stranger cannot: $_")
  for "SELECT pgmq.send('jobs', '1')", "SELECT pgmq.read('jobs', 1, 1)", 'SELECT pgmq.list_queues()',
  "SELECT pgmq.create('mine')", "SELECT pgmq.drop_queue('jobs')";
run('owned', 'boss', 'GRANT USAGE ON SCHEMA pgmq TO PUBLIC');
may_not('owned', 'stranger', $_, "with USAGE alone a stranger still cannot: $_")
  for "SELECT pgmq.send('jobs', '1')", "SELECT pgmq.send_batch('jobs', '{1}'::jsonb[])",
  "SELECT pgmq.read('jobs', 1, 1)", "SELECT pgmq.read_with_poll('jobs', 1, 1, 0)", "SELECT pgmq.pop('jobs')",
  "SELECT pgmq.delete('jobs', 1)", "SELECT pgmq.delete('jobs', '{1}'::bigint[])",
  "SELECT pgmq.archive('jobs', 1)", "SELECT pgmq.archive('jobs', '{1}'::bigint[])",
  "SELECT pgmq.set_vt('jobs', 1, 1)", "SELECT pgmq.purge_queue('jobs')", "SELECT pgmq.metrics('jobs')",
  'SELECT pgmq.metrics_all()', 'SELECT pgmq.list_queues()',
  "SELECT pgmq.create('mine')", "SELECT pgmq.drop_queue('jobs')", "SELECT pgmq.drop_queue('jobs', false)";
may('owned', 'stranger', "SELECT pgmq.format_table_name('Jobs', 'q')", 'q_jobs', 'functions on names need no more');
run('owned', 'boss', 'REVOKE USAGE ON SCHEMA pgmq FROM PUBLIC');

################################################################# the least that works

# Each role gets its grants one by one; without any single one of them the call is
# refused, with all of them it works.
sub check_minimum
{
	my ($role, $grants, $calls) = @_;
	my @grants = ('USAGE ON SCHEMA pgmq', @$grants);

	foreach my $missing (@grants)
	{
		foreach my $grant (@grants)
		{
			my (undef, $error) = run('owned', 'boss',
				($grant eq $missing ? "REVOKE $grant FROM" : "GRANT $grant TO") . " $role");
			die $error if $error;
		}
		may_not('owned', $role, $_->[0], "$role without $missing cannot: $_->[0]") foreach @$calls;
	}
	run('owned', 'boss', "GRANT $_ TO $role") foreach @grants;
	may('owned', $role, $_->[0], $_->[1], "$role can: $_->[0]") foreach @$calls;
}

run('owned', 'boss', "SELECT pgmq.send_batch('jobs', array_fill('{}'::jsonb, '{100}'))");

check_minimum('sender', [ 'INSERT ON pgmq.q_jobs', 'SELECT ON pgmq.q_jobs' ],
	[ [ "SELECT pgmq.send('jobs', '{}') > 1", 't' ],
	  [ "SELECT pgmq.send('jobs', '{}', 3600) > 1", 't' ],
	  [ "SELECT pgmq.send('jobs', '{}', now() + interval '1 hour') > 1", 't' ],
	  [ "SELECT count(*) FROM pgmq.send_batch('jobs', '{1,2}'::jsonb[])", '2' ] ]);
check_minimum('reader', [ 'SELECT ON pgmq.q_jobs', 'UPDATE ON pgmq.q_jobs' ],
	[ [ "SELECT msg_id FROM pgmq.read('jobs', 600, 1)", '2' ],
	  [ "SELECT msg_id FROM pgmq.read('jobs', 600, 1, '{}')", '3' ],
	  [ "SELECT msg_id FROM pgmq.read_with_poll('jobs', 600, 1)", '4' ] ]);
check_minimum('setter', [ 'SELECT ON pgmq.q_jobs', 'UPDATE ON pgmq.q_jobs' ],
	[ [ "SELECT msg_id FROM pgmq.set_vt('jobs', 4, 700)", '4' ],
	  [ "SELECT msg_id FROM pgmq.set_vt('jobs', '{4}'::bigint[], now() + interval '1 hour')", '4' ] ]);
# FOR UPDATE in a pop needs UPDATE as well
check_minimum('popper',
	[ 'SELECT ON pgmq.q_jobs', 'UPDATE ON pgmq.q_jobs', 'DELETE ON pgmq.q_jobs' ],
	[ [ "SELECT msg_id FROM pgmq.pop('jobs')", '5' ] ]);
check_minimum('deleter', [ 'SELECT ON pgmq.q_jobs', 'DELETE ON pgmq.q_jobs' ],
	[ [ "SELECT pgmq.delete('jobs', 2)", 't' ],
	  [ "SELECT pgmq.delete('jobs', '{3}'::bigint[])", '3' ] ]);
# One archived message says nothing back; an array says which
check_minimum('archiver',
	[ 'SELECT ON pgmq.q_jobs', 'DELETE ON pgmq.q_jobs', 'INSERT ON pgmq.a_jobs' ],
	[ [ "SELECT pgmq.archive('jobs', 6)", 't' ] ]);
check_minimum('archiver',
	[ 'SELECT ON pgmq.q_jobs', 'DELETE ON pgmq.q_jobs', 'INSERT ON pgmq.a_jobs', 'SELECT ON pgmq.a_jobs' ],
	[ [ "SELECT pgmq.archive('jobs', '{7}'::bigint[])", '7' ] ]);
# TRUNCATE says that the queue may be emptied, SELECT that its messages may be counted
check_minimum('purger', [ 'SELECT ON pgmq.q_jobs', 'TRUNCATE ON pgmq.q_jobs' ],
	[ [ "SELECT pgmq.purge_queue('jobs') > 50", 't' ] ]);
check_minimum('measurer', [ 'SELECT ON pgmq.q_jobs', 'SELECT ON SEQUENCE pgmq.q_jobs_msg_id_seq' ],
	[ [ "SELECT queue_length FROM pgmq.metrics('jobs')", '0' ] ]);
check_minimum('measurer',
	[ 'SELECT ON pgmq.q_jobs', 'SELECT ON SEQUENCE pgmq.q_jobs_msg_id_seq', 'SELECT ON pgmq.meta' ],
	[ [ 'SELECT queue_name, queue_length FROM pgmq.metrics_all()', 'jobs|0' ] ]);
check_minimum('stranger', [ 'SELECT ON pgmq.meta' ],
	[ [ 'SELECT queue_name FROM pgmq.list_queues()', 'jobs' ] ]);
# A maker of queues owns the queues it makes
check_minimum('maker', [ 'CREATE ON SCHEMA pgmq', 'SELECT ON pgmq.meta', 'INSERT ON pgmq.meta' ],
	[ [ "SELECT pgmq.create('made')", '' ] ]);
check_minimum('maker', [ 'SELECT ON pgmq.meta' ],
	[ [ "SELECT pgmq.drop_queue('made')", 't' ] ]);
may_not('owned', 'maker', "SELECT pgmq.drop_queue('jobs')", "a maker cannot drop a queue of somebody else's");
may_not('owned', 'reader', "SELECT pgmq.send('jobs', '{}')", 'a reader cannot send');
may_not('owned', 'sender', "SELECT pgmq.read('jobs', 0, 1)", 'a sender cannot read');
may_not('owned', 'sender', "SELECT pgmq.delete('jobs', 1)", 'a sender cannot delete');
may_not('owned', 'reader', "SELECT pgmq.delete('jobs', 1)", 'a reader cannot delete');
may_not('owned', 'reader', "SELECT pgmq.purge_queue('jobs')", 'a reader cannot purge');

# Rights are asked at every call, not when the plan is made
{
	my $session = $node->background_psql('owned', on_error_stop => 0);

	$session->query_safe('SET SESSION AUTHORIZATION sender');
	$session->query_safe("SELECT pgmq.send('jobs', '{}')");
	run('owned', 'boss', 'REVOKE INSERT ON pgmq.q_jobs FROM sender');
	$session->query("SELECT pgmq.send('jobs', '{}')");
	like($session->{stderr}, qr/permission denied for table q_jobs/, 'a right that is taken away is gone at once');
	$session->{stderr} = '';
	run('owned', 'boss', 'GRANT INSERT ON pgmq.q_jobs TO sender');
	$session->query_safe("SELECT pgmq.send('jobs', '{}')");
	$session->query_safe('SET SESSION AUTHORIZATION reader');
	$session->query("SELECT pgmq.send('jobs', '{}')");
	like($session->{stderr}, qr/permission denied for table q_jobs/, 'a kept plan gives its rights to nobody');
	$session->{stderr} = '';
	$session->quit;
}

# Row security is the caller's too, by the same plan
run('owned', 'boss', q{
	SELECT pgmq.purge_queue('jobs');
	SELECT pgmq.send('jobs', '{"for": "reader"}');
	SELECT pgmq.send('jobs', '{"for": "popper"}');
	ALTER TABLE pgmq.q_jobs ENABLE ROW LEVEL SECURITY;
	CREATE POLICY own ON pgmq.q_jobs USING (message->>'for' = current_user)});
may('owned', 'reader', "SELECT message->>'for' FROM pgmq.read('jobs', 0, 10)", 'reader', 'row security holds for read');
{
	my $session = $node->background_psql('owned');

	$session->query_safe('SET SESSION AUTHORIZATION reader');
	is($session->query_safe("SELECT message->>'for' FROM pgmq.read('jobs', 0, 10)"), 'reader', 'one role, one row');
	$session->query_safe('SET SESSION AUTHORIZATION popper');
	is($session->query_safe("SELECT message->>'for' FROM pgmq.read('jobs', 0, 10)"), 'popper', 'another role, another row');
	$session->quit;
}
run('owned', 'boss', 'ALTER TABLE pgmq.q_jobs DISABLE ROW LEVEL SECURITY');

# Monitoring looks at everything and touches nothing
may('owned', 'watcher', "SELECT queue_length FROM pgmq.metrics('jobs')", '2', 'pg_monitor measures');
may('owned', 'watcher', 'SELECT queue_name, queue_length FROM pgmq.metrics_all()', 'jobs|2', 'pg_monitor measures all');
may('owned', 'watcher', 'SELECT queue_name FROM pgmq.list_queues()', 'jobs', 'pg_monitor lists');
may('owned', 'watcher', 'SELECT count(*) FROM pgmq.a_jobs WHERE msg_id < 7', '2', 'pg_monitor looks into archives');
may_not('owned', 'watcher', $_, "pg_monitor cannot: $_")
  for "SELECT pgmq.send('jobs', '1')", "SELECT pgmq.read('jobs', 1, 1)", "SELECT pgmq.pop('jobs')",
  "SELECT pgmq.delete('jobs', 1)", "SELECT pgmq.archive('jobs', 1)", "SELECT pgmq.set_vt('jobs', 1, 1)",
  "SELECT pgmq.purge_queue('jobs')", "SELECT pgmq.create('mine')", "SELECT pgmq.drop_queue('jobs')";

################################################################ removing and coming back

may_not('owned', 'maker', 'DROP EXTENSION pgmq', 'only the owner of the extension drops it');
foreach my $case ([ 'owned', 'boss' ], [ 'built', 'builder' ])
{
	my ($db, $role) = @$case;
	my ($last, $rows);

	run($db, $role, "SELECT pgmq.create('Later'); SELECT pgmq.send('later', '{\"kept\": 1}')");
	($last) = run($db, $role, 'SELECT max(msg_id) FROM pgmq.q_later');
	may($db, $role, 'DROP EXTENSION pgmq', '', "$role drops the extension");
	may($db, $role, "SELECT string_agg(relname, ',' ORDER BY relname) FROM pg_class
		WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r'",
		'a_jobs,a_later,q_jobs,q_later', 'the queues and archives stay');
	may($db, $role, "SELECT count(*) FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace",
		'0', 'the functions go');
	may($db, $role, 'CREATE EXTENSION pgmq', '', "$role installs again");
	may($db, $role, 'SELECT count(*) FROM pgmq.list_queues()', '0', 'there are no queues');
	may($db, $role, "SELECT pgmq.create('Later')", '', 'create takes the tables over');
	may($db, $role, 'SELECT queue_name, is_unlogged FROM pgmq.list_queues()', 'Later|f', 'the queue is listed');
	may($db, $role, "SELECT msg_id, message FROM pgmq.read('later', 0, 5)", $last . '|{"kept": 1}',
		'with its messages');
	may($db, $role, "SELECT pgmq.send('later', '{}') > $last", 't', 'and its ids');
	may($db, $role, $PUBLIC_SQL, 'EXECUTE', 'the public may execute and nothing else');
}
may('owned', 'sender', "SELECT pgmq.send('jobs', '{}') > 1", 't', 'what was granted on a queue outlives the extension');

# DROP OWNED and the end of the role that installed are no dead end either
may('built', 'builder', 'DROP EXTENSION pgmq; DROP SCHEMA pgmq CASCADE', '', 'all of it goes when its owner says so');

######################################################## a schema that was there before

# Everything a hostile owner of the schema can prepare: objects of the names that
# the script makes, and functions, operators, casts and types that would be taken
# for the server's if any name in the script were not qualified.  Each of them
# writes down who ran it.
my $TRAPS = q{
	CREATE SCHEMA pgmq;
	CREATE TABLE pgmq.caught (who text, what text);
	GRANT INSERT ON pgmq.caught TO PUBLIC;
	GRANT USAGE ON SCHEMA pgmq TO PUBLIC;
	CREATE FUNCTION pgmq.trap(what text) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO pgmq.caught SELECT rolname, what FROM pg_catalog.pg_roles
		 WHERE rolname IN (current_user, session_user);
	END $$;
	CREATE FUNCTION pgmq.now() RETURNS timestamptz LANGUAGE sql VOLATILE AS
		$$SELECT pgmq.trap('now'); SELECT pg_catalog.now()$$;
	CREATE FUNCTION pgmq.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE AS
		$$SELECT pgmq.trap('clock_timestamp'); SELECT pg_catalog.clock_timestamp()$$;
	CREATE FUNCTION pgmq.lower(varchar) RETURNS text LANGUAGE plpgsql IMMUTABLE AS
		$$BEGIN PERFORM pgmq.trap('lower'); RETURN pg_catalog.lower($1); END$$;
	CREATE FUNCTION pgmq.pg_extension_config_dump(text, text) RETURNS void LANGUAGE sql AS
		$$SELECT pgmq.trap('pg_extension_config_dump')$$;
	CREATE FUNCTION pgmq.pg_extension_config_dump(regclass, text) RETURNS void LANGUAGE sql AS
		$$SELECT pgmq.trap('pg_extension_config_dump')$$;
	CREATE FUNCTION pgmq.equal(text, text) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN PERFORM pgmq.trap('='); RETURN $1 OPERATOR(pg_catalog.=) $2; END$$;
	CREATE OPERATOR pgmq.= (LEFTARG = text, RIGHTARG = text, FUNCTION = pgmq.equal);
	CREATE FUNCTION pgmq.join(text, text) RETURNS text LANGUAGE plpgsql AS
		$$BEGIN PERFORM pgmq.trap('||'); RETURN pg_catalog.textcat($1, $2); END$$;
	CREATE OPERATOR pgmq.|| (LEFTARG = text, RIGHTARG = text, FUNCTION = pgmq.join);
	CREATE FUNCTION pgmq.later(timestamptz, timestamptz) RETURNS boolean LANGUAGE plpgsql AS
		$$BEGIN PERFORM pgmq.trap('<>'); RETURN $1 OPERATOR(pg_catalog.<>) $2; END$$;
	CREATE OPERATOR pgmq.<> (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = pgmq.later);
	CREATE OPERATOR pgmq.<= (LEFTARG = timestamptz, RIGHTARG = timestamptz, FUNCTION = pgmq.later);
	CREATE DOMAIN pgmq.text AS pg_catalog.text CHECK (pgmq.trap(VALUE::pg_catalog.text) IS NULL);
	CREATE DOMAIN pgmq.jsonb AS pg_catalog.jsonb CHECK (pgmq.trap('jsonb') IS NULL);
};

# hostile(name, role, installer, sql): a fresh database whose schema pgmq belongs to the role
sub hostile
{
	my ($db, $installer, $sql) = @_;
	my $error;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER boss; GRANT CREATE ON DATABASE $db TO builder");
	(undef, $error) = run($db, 'builder', $TRAPS . $sql);
	die "the trap is not set: $error" if $error;
	return (run($db, $installer, 'CREATE EXTENSION pgmq'))[1];
}

sub nobody_caught
{
	my ($db, $name) = @_;

	is($node->safe_psql($db, 'SELECT * FROM pgmq.caught'), '', $name);
}

my $super = $node->safe_psql('postgres', 'SELECT current_user');

# Do the traps work?  A call by an unqualified name, with the script's search_path
$node->safe_psql('postgres', 'CREATE DATABASE control OWNER boss; GRANT CREATE ON DATABASE control TO builder');
run('control', 'builder', $TRAPS);
run('control', $super, "SET search_path = pgmq, pg_catalog; SELECT now(), 'a' || 'b'::pg_catalog.text");
is($node->safe_psql('control', 'SELECT DISTINCT who FROM pgmq.caught'), $super, 'the traps would catch a superuser');

foreach my $installer ('boss', $super)
{
	my $db = "traps_$installer";
	my $error = hostile($db, $installer, '');

	note($error ? "refused: $error" : 'installed');
	nobody_caught($db, "traps in the schema catch nobody when $installer installs");
	next if $error;

	# Using what was installed must not spring them either, whatever the path
	$error = (run($db, $super, q{
		SET search_path = pgmq, pg_catalog;
		SELECT pgmq.create('q'::pg_catalog.text);
		SELECT pgmq.create_unlogged('u'::pg_catalog.text);
		SELECT pgmq.send('q'::pg_catalog.text, '{}'::pg_catalog.jsonb);
		SELECT pgmq.send('q'::pg_catalog.text, '{}'::pg_catalog.jsonb, 1);
		SELECT pgmq.send_batch('q'::pg_catalog.text, '{1,2,3}'::pg_catalog.jsonb[]);
		SELECT pgmq.read('q'::pg_catalog.text, 0, 5);
		SELECT pgmq.read('q'::pg_catalog.text, 0, 5, '{"a": 1}'::pg_catalog.jsonb);
		SELECT pgmq.set_vt('q'::pg_catalog.text, 1::bigint, 0);
		SELECT pgmq.set_vt('q'::pg_catalog.text, '{1}'::bigint[], pg_catalog.now());
		SELECT pgmq.archive('q'::pg_catalog.text, 1::bigint);
		SELECT pgmq.delete('q'::pg_catalog.text, '{3}'::bigint[]);
		SELECT pgmq.pop('q'::pg_catalog.text, 1);
		SELECT pgmq.metrics('q'::pg_catalog.text);
		SELECT pgmq.metrics_all();
		SELECT pgmq.list_queues();
		SELECT pgmq.purge_queue('q'::pg_catalog.text);
		SELECT pgmq.create_fifo_index('u'::pg_catalog.text);
		SELECT pgmq.create_first_names('public'::pg_catalog.text);
		SELECT public.pgmq_send('q'::pg_catalog.text, '{}'::pg_catalog.jsonb);
		SELECT public.pgmq_read('q'::pg_catalog.text, 0, 1);
		SELECT public.pgmq_pop('q'::pg_catalog.text);
		SELECT public.pgmq_archive('q'::pg_catalog.text, 1::bigint);
		SELECT public.pgmq_delete('q'::pg_catalog.text, 1::bigint);
		SELECT pgmq.drop_first_names('public'::pg_catalog.text);
		SELECT queue_name FROM pgmq.queues_to_upgrade;
		CALL pgmq.upgrade_queues();
		SELECT pgmq.prepare_downgrade();
		SELECT pgmq.drop_queue('u'::pg_catalog.text);
		SELECT pgmq._belongs_to_pgmq('meta'::pg_catalog.text)}))[1];
	is($error, '', 'every function works among the traps');
	nobody_caught($db, "nor when a superuser uses what $installer installed");
}

# An object of a name that the script makes stops it: nothing is replaced or adopted
my %squat = (
	table => 'CREATE TABLE pgmq.meta (queue_name varchar UNIQUE, is_partitioned boolean,
		is_unlogged boolean, created_at timestamptz)',
	type => 'CREATE TYPE pgmq.message_record AS (msg_id bigint)',
	function => 'CREATE FUNCTION pgmq.send(pg_catalog.text, pg_catalog.jsonb) RETURNS SETOF bigint
		LANGUAGE sql AS $$SELECT 1::bigint$$',
	index => 'CREATE TABLE pgmq.other (a int); CREATE INDEX meta_identity_idx ON pgmq.other (a)');
foreach my $kind (sort keys %squat)
{
	my $error = hostile("squat_$kind", 'boss', $squat{$kind});

	like($error, qr/^(42P07|42710|42723): /, "a $kind in the way stops the installation");
	nobody_caught("squat_$kind", "a $kind in the way runs nothing");
	is($node->safe_psql("squat_$kind", "SELECT count(*) FROM pg_extension WHERE extname = 'pgmq'"), '0',
		"a $kind in the way: nothing is installed");
}

$node->stop;
done_testing();

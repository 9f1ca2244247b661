# Dump and restore, and clean restarts: queues, archives, the list of queues and
# the ids survive both.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('dump');
# Names and bodies here are not ASCII
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->start;

# Queues of both kinds, under names that need quoting, with fresh, delayed, leased
# and archived messages, bodies of all sorts, and ids that were used up.
$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('orders');
	SELECT pgmq.create_unlogged('Scratch');
	SELECT pgmq.create('Größe "q" 50%.\ x');
	SELECT pgmq.create('empty');
	SELECT pgmq.create('drained');

	SELECT pgmq.send_batch('orders', ARRAY(SELECT jsonb_build_object('n', i, 'text', E'a\tb\\\n"ü"') FROM generate_series(1, 500) AS i),
		ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 7) FROM generate_series(1, 500) AS i));
	SELECT pgmq.send('orders', NULL);
	SELECT pgmq.send('orders', 'null', '[1, "two", null]'::jsonb);
	SELECT pgmq.send('orders', '1e400', 3600);
	SELECT pgmq.send('orders', '"never"', 'infinity'::timestamptz);
	SELECT pgmq.read('orders', 3600, 50);
	SELECT pgmq.archive('orders', ARRAY(SELECT generate_series(1, 20)::bigint));
	SELECT pgmq.delete('orders', 21);
	BEGIN; SELECT pgmq.send('orders', '"burnt"'); ROLLBACK;

	SELECT pgmq.send_batch('scratch', array_fill('{"s": 1}'::jsonb, '{39}'));
	SELECT pgmq.send_unique('scratch', '{"s": 1}', E'a\tkey');
	SELECT pgmq.read('scratch', 3600, 10);
	SELECT pgmq.archive('scratch', ARRAY(SELECT generate_series(1, 5)::bigint));

	SELECT pgmq.send('Größe "q" 50%.\ x', '{"größe": 1}');
	SELECT pgmq.send_unique('Größe "q" 50%.\ x', '{"größe": 2}', 'schlüssel', '1 day');
	SELECT pgmq.archive('Größe "q" 50%.\ x', 1);

	SELECT pgmq.send_batch('drained', array_fill('{}'::jsonb, '{30}'));
	SELECT pgmq.pop('drained', 30);

	-- Every setting; levels, a key, a release, a lease, and a message that is dead
	SELECT pgmq.create('policed'), pgmq.create('dead');
	SELECT pgmq.set_policy('policed', max_reads => 2, dead_letter_queue => 'dead', retry_delay => '1 s', retry_backoff => 2,
		retry_delay_max => '1 min', message_ttl => '1 year', max_length => 6, overflow => 'reject', priority => true,
		priority_max_wait => '1 day', max_in_flight => 4, rate_limit => 1000000, rate_period => '1 s', dedup_window => '1 day',
		archive_retention => '1 year');
	SELECT pgmq.send_batch('policed', array_fill('1'::jsonb, '{4}'),
		ARRAY['{"x-pgmq-priority": 0}', '{"x-pgmq-priority": 9}', NULL, '{"x-pgmq-priority": 8}']::jsonb[]);
	SELECT pgmq.send_unique('policed', '1', 'policed');
	SELECT pgmq.read('policed', 3600, 1), pgmq.read('policed', 0, 1), pgmq.release('policed', 4, 1);
	SELECT pgmq.read('policed', 0, 1), pgmq.read('policed', 0, 1);

	CREATE SCHEMA "First";
	SELECT pgmq.create_first_names('First');

	SELECT pgmq.set_policy('Scratch', retry_delay => '1 day 00:00:00.000001', retry_backoff => 1.1);
	SELECT pgmq.pause_queue('Größe "q" 50%.\ x', 'infinity'), pgmq.pause_queue('scratch', '-infinity');

	CREATE ROLE consumer LOGIN;
	GRANT USAGE ON SCHEMA pgmq TO consumer;
	GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.q_orders TO consumer;
});

my %QUEUES = (
	'orders' => 'orders', 'Scratch' => 'scratch', 'Größe "q" 50%.\ x' => 'größe "q" 50%.\ x',
	'empty' => 'empty', 'drained' => 'drained', 'policed' => 'policed', 'dead' => 'dead');

# Everything there is to know about the queues of a database, as text
sub contents
{
	my ($db) = @_;
	my $all = $node->safe_psql($db, 'SELECT * FROM pgmq.list_queues(); SELECT * FROM pgmq.policy ORDER BY 1');

	foreach my $queue (sort values %QUEUES)
	{
		(my $ident = $queue) =~ s/"/""/g;
		$all .= "\n== $queue\n" . $node->safe_psql($db, qq{
			SELECT * FROM pgmq."q_$ident" ORDER BY msg_id;
			SELECT * FROM pgmq."a_$ident" ORDER BY msg_id;
			SELECT last_value, is_called FROM pgmq."q_${ident}_msg_id_seq"});
	}
	$all .= "\n== keys\n" . $node->safe_psql($db, q{
		SELECT * FROM pgmq.k_scratch; SELECT * FROM pgmq.k_policed; SELECT * FROM pgmq."k_größe ""q"" 50%.\\ x"});
	# The shape: kinds of relations, indexes, identities, defaults, grants
	$all .= "\n== catalog\n" . $node->safe_psql($db, q{
		SELECT c.relname, c.relkind, c.relpersistence, c.relacl, c.reloptions FROM pg_class AS c
		 WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind IN ('r', 'S', 'i') ORDER BY 1;
		SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' ORDER BY 1;
		SELECT attrelid::regclass, attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
		       pg_get_expr(adbin, adrelid)
		  FROM pg_attribute LEFT JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
		 WHERE attnum > 0 AND attrelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r')
		 ORDER BY attrelid::regclass::text, attnum;
		SELECT extname, extversion, extconfig::regclass[] FROM pg_extension WHERE extname = 'pgmq';
		SELECT nspacl FROM pg_namespace WHERE nspname = 'pgmq';
		SELECT pg_get_functiondef(oid), obj_description(oid, 'pg_proc') FROM pg_proc WHERE pronamespace = '"First"'::regnamespace ORDER BY 1;
		SELECT defaclobjtype, defaclacl FROM pg_default_acl WHERE defaclnamespace = 'pgmq'::regnamespace ORDER BY 1;
		SELECT count(*) FROM pg_depend WHERE refclassid = 'pg_extension'::regclass
		   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgmq')});
	return $all;
}

# What a queue must still be able to do, with ids that go on where they were
sub check_alive
{
	my ($db, $when) = @_;

	is($node->safe_psql($db, q{SELECT * FROM pgmq.send_unique('scratch', '1', E'a\tkey');
		SELECT * FROM pgmq.send_unique('größe "q" 50%.\ x', '1', 'schlüssel')}), "40|t\n2|t", "$when: keys are taken");
	is($node->safe_psql($db, q{SELECT * FROM pgmq.send_unique('policed', '1', 'policed'); SELECT msg_id FROM pgmq.read('policed', 3600, 2);
		SELECT headers->'x-dlq-origin-msg-id', headers->'x-dlq-read-ct' FROM pgmq.q_dead; SELECT pgmq.release('policed', 3, 1)}),
		"5|t\n3\n5\n4|3\nt", "$when: levels, dead messages and the policy are as they were");
	like(($node->psql($db, q{SELECT pgmq.send_batch('policed', array_fill('1'::jsonb, '{3}'))}))[2], qr/"policed" is full/,
		"$when: so is the limit of its length");
	foreach my $queue (sort keys %QUEUES)
	{
		(my $ident = $QUEUES{$queue}) =~ s/"/""/g;
		(my $literal = $queue) =~ s/'/''/g;
		my $last = $node->safe_psql($db, qq{SELECT CASE WHEN is_called THEN last_value ELSE 0 END FROM pgmq."q_${ident}_msg_id_seq"});
		my $id = $node->safe_psql($db, "SELECT pgmq.send('$literal', '\"new\"')");

		is($id, $last + 1, "$when: $queue: ids go on");
		is($node->safe_psql($db, "SELECT pgmq.archive('$literal', $id)"), 't', "$when: $queue: archives");
	}
	is($node->safe_psql($db, "SELECT queue_name, total_messages FROM pgmq.metrics('drained')"), 'drained|31',
		"$when: used ids are not used again");
	is($node->safe_psql($db, "SELECT msg_id, read_ct FROM pgmq.read('orders', 60, 3)"), "51|1\n52|1\n53|1",
		"$when: leased and delayed messages stay hidden, the next ones are handed out");
	is($node->safe_psql($db, "SELECT count(*) FROM pgmq.archive('scratch', ARRAY(SELECT msg_id FROM pgmq.q_scratch))"),
		'35', "$when: the archive of the unlogged queue takes the rest");
	is($node->safe_psql($db, q{SELECT pgmq.create_first_names('First'); SELECT count(*) FROM "First".pgmq_read('empty', 0, 1);
		SELECT pgmq.drop_first_names('First'), to_regproc('"First".pgmq_send') IS NULL}), "\n0\nt|t", "$when: the first names are still ours");
	is($node->safe_psql($db, "SELECT pgmq.create('ORDERS'); SELECT count(*) FROM pgmq.list_queues()"),
		"\n7", "$when: create finds the queue");
	is($node->safe_psql($db, q{SELECT pgmq.drop_queue('größe "q" 50%.\ x')}), 't', "$when: a queue can be dropped");
	is($node->safe_psql($db, 'SELECT count(*) FROM pgmq.metrics_all()'), '6', "$when: and the others measured");
}

my $dir = PostgreSQL::Test::Utils::tempdir();
my $origin = contents('origin');
like($origin, qr/"never"/, 'there is something to dump');
like($origin, qr/q_scratch_msg_id_seq\|S\|p/, 'the sequence of the unlogged queue is logged');
like($origin, qr/q_scratch\|r\|u/, 'the queue is not');
like($origin, qr/k_scratch\|r\|u/, 'nor are its keys');

# plain, by psql
$node->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", '-d', $node->connstr('origin') ], 'pg_dump, plain');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/plain.out", '-f', "$dir/plain.sql", '-d', $node->connstr('plain') ],
	'restored without an error');
is(contents('plain'), $origin, 'plain: everything is as it was');

# the custom format, by four workers at a time
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", '-d', $node->connstr('origin') ], 'pg_dump, custom');
$node->safe_psql('postgres', 'CREATE DATABASE parallel');
$node->command_ok([ 'pg_restore', '-j4', '--exit-on-error', '-d', $node->connstr('parallel'), "$dir/custom" ],
	'restored by four workers without an error');
is(contents('parallel'), $origin, 'custom, parallel: everything is as it was');

# a second time over what is there
$node->command_ok(
	[ 'pg_restore', '--clean', '--if-exists', '--exit-on-error', '-d', $node->connstr('parallel'), "$dir/custom" ],
	'restored over itself');
is(contents('parallel'), $origin, 'over itself: everything is as it was');

# without the data: the queues are there and listed, and empty
$node->command_ok([ 'pg_dump', '-s', '-f', "$dir/schema.sql", '-d', $node->connstr('origin') ], 'pg_dump, schema only');
$node->safe_psql('postgres', 'CREATE DATABASE schema_only');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/schema.out", '-f', "$dir/schema.sql", '-d', $node->connstr('schema_only') ],
	'schema restored without an error');
is($node->safe_psql('schema_only', "SELECT pgmq.send('orders', '{}'); SELECT count(*) FROM pgmq.q_orders"), "1\n1",
	'without data a queue starts empty');

# all of the cluster as a template
$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE origin');
is(contents('copy'), $origin, 'CREATE DATABASE ... TEMPLATE: everything is as it was');

# A clean restart loses nothing, of the unlogged queue neither
$node->restart;
is(contents('origin'), $origin, 'restart: everything is as it was');

check_alive('origin', 'restart');
check_alive('plain', 'plain');
check_alive('parallel', 'parallel');

# Grants come along
my ($out, $err);
$node->psql('plain', "SELECT pgmq.send('orders', '{}') > 0", stdout => \$out, stderr => \$err, extra_params => [ '-U', 'consumer' ]);
is($out, 't', 'what was granted on a queue is granted after the restore') or diag($err);

$node->stop;
done_testing();

# Streams of a plain role in dumps, restored in each order of sections and by that role; in updates from versions without
# streams, beside sessions that stay connected; and when the extension is dropped and made again.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('copies');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off");
$node->start;
my $dir = PostgreSQL::Test::Utils::tempdir();
my @AS_BOSS = (extra_params => [ '-U', 'boss', '-v', 'ON_ERROR_STOP=1' ]);
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN; CREATE ROLE reader LOGIN; GRANT reader TO boss');

# outcome(database, SQL): the rows, or the SQLSTATE
sub outcome
{
	my ($db, $sql) = @_;
	my ($code, $out, $err) = $node->psql($db, $sql, extra_params => [ '-U', 'boss', '-v', 'VERBOSITY=verbose' ]);

	return $err =~ /ERROR:  (\w{5})/ ? $1 : $out;
}

################################################################ dump and restore

# Names that need quotes; shards, leases, positions in the middle, received twice; parts, and events in the default part
$node->safe_psql('postgres', 'CREATE DATABASE origin OWNER boss');
$node->safe_psql('origin', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create_stream('Orders', 3, '1 day', '1 hour'), pgmq.create_stream('a "b"%s'), pgmq.create_stream('empty', 64);
	SELECT count(*) FROM generate_series(1, 60) AS n, pgmq.publish('orders', to_jsonb(n), (n % 7)::text, '{"h": 1}');
	SELECT setval(pg_get_serial_sequence('pgmq.s_orders', 'event_id'), 300000);
	SELECT count(*) FROM pgmq.publish_batch('orders', '{61,62,63}');
	SELECT pgmq.publish('a "b"%s', '1');
	GRANT USAGE ON SCHEMA pgmq TO reader; GRANT SELECT ON pgmq.s_orders TO reader;
	SELECT pgmq.subscribe('orders', 'new'), pgmq.subscribe('a "b"%s', E'x;"y" \\\\%', 'earliest'), pgmq.subscribe('empty', 'all');
	SET ROLE reader; SELECT pgmq.subscribe('orders', 'theirs', 'earliest');
	SELECT bool_and(pgmq.advance('orders', 'theirs', shard, event_id, lease)) FROM pgmq.receive('orders', 'theirs', 60, 5);
	SELECT count(*) FROM pgmq.receive('orders', 'theirs', 0, 4); SELECT count(*) FROM pgmq.receive('orders', 'theirs', 3600, 4);
	RESET ROLE;
	ALTER TABLE pgmq.s_orders ENABLE ROW LEVEL SECURITY; CREATE POLICY few ON pgmq.s_orders TO reader USING (event_id <> 20);
	BEGIN; SELECT pgmq.publish('orders', '"rolled back"'); ROLLBACK}, @AS_BOSS);
my $ROWS = q{
	SELECT * FROM pgmq.stream ORDER BY 2; SELECT * FROM pgmq.subscription ORDER BY 3;
	SELECT tableoid::regclass, * FROM pgmq.s_orders ORDER BY event_id; SELECT * FROM pgmq.p_orders ORDER BY 1, 2, 3;
	SELECT * FROM pgmq."s_a ""b""%s"; SELECT * FROM pgmq."p_a ""b""%s"; SELECT count(*) FROM pgmq.p_empty;
	SELECT sequencename, last_value FROM pg_sequences ORDER BY 1;
	SELECT c.oid::regclass, relkind, relowner::regrole, ARRAY(SELECT unnest(relacl)::text ORDER BY 1), relrowsecurity, pg_get_expr(relpartbound, c.oid) FROM pg_class AS c
		WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^[sp]_' ORDER BY relname;
	SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename ~ '^[sp]_' ORDER BY 1; SELECT polname, polrelid::regclass FROM pg_policy ORDER BY 1;
	SELECT extversion, extconfig::regclass[] FROM pg_extension WHERE extname = 'pgmq'};
my $rows = $node->safe_psql('origin', $ROWS);
like($rows, qr/s_orders_default\|300001/, 'there are events in the default part');

my %parts = (whole => [], schema => ['-s'], rows => ['-a'], map { $_ => ["--section=$_"] } 'pre-data', 'data', 'post-data');
$node->command_ok([ 'pg_dump', '-U', 'boss', '-Fc', '-f', "$dir/custom", '-d', $node->connstr('origin') ], 'dumped by the owner');
foreach my $part (sort keys %parts)
{
	$node->command_ok([ 'pg_dump', '-U', 'boss', @{ $parts{$part} }, '-f', "$dir/$part.sql", '-d', $node->connstr('origin') ], "dumped by the owner: $part");
}
my $number = 0;
foreach my $order ([qw(whole)], [qw(schema rows)], [qw(pre-data data post-data)], [qw(pre-data post-data data)], ['jobs'])
{
	my $db = 'copy' . ++$number;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER boss");
	foreach my $part (@$order)
	{
		$node->command_ok($part eq 'jobs' ? [ 'pg_restore', '-U', 'boss', '-j3', '--exit-on-error', '-d', $node->connstr($db), "$dir/custom" ] :
			[ 'psql', '-Xq', '-U', 'boss', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/$part.sql", '-d', $node->connstr($db) ], "@$order: restored: $part");
		# Before all is there, calls are refused: the row, the index or the ids are missing
		like(outcome($db, q{BEGIN; SELECT count(*) FROM pgmq.publish('orders', '0'); ROLLBACK}), $part eq $order->[-1] ? qr/^1$/ : qr/^(42809|55000)$/, "@$order: a publisher after $part");
	}
	is($node->safe_psql($db, $ROWS) =~ s/s_orders_event_id_seq\|\d+//r, $rows =~ s/s_orders_event_id_seq\|\d+//r, "@$order: all of it is there");
	is(outcome($db, q{SELECT pgmq.publish('orders', '64', 'x') > 300003; SET ROLE reader; SELECT pgmq.seek('orders', 'theirs', 'latest')}), '55006', "@$order: a lease is one");
	# What is delivered from there: all but what was passed, with attempts
	is(outcome($db, q{SET ROLE reader; SELECT pgmq.seek('orders', 'theirs', start_id => 1, force => true);
		SELECT count(*) FROM (SELECT pgmq.receive('orders', 'theirs', 60, 1000) FROM generate_series(1, 3)) AS r}), "\n63", "@$order: a replay, without what the policy hides");
	is(outcome($db, q{SELECT message FROM pgmq.receive('orders', 'new', 60, 10)}), '64', "@$order: the other one has its position");
	is(outcome($db, q{SELECT pgmq.drop_stream('empty'), pgmq.drop_stream('orders'), pgmq.create_stream('orders'); SELECT count(*) FROM pgmq.list_subscriptions()}), "t|t|\n1", "@$order: dropped and made again");
}

# Without the sequence: rows alone, into a database that has the schema
$node->safe_psql('postgres', 'CREATE DATABASE behind OWNER boss');
$node->command_ok([ 'psql', '-Xq', '-U', 'boss', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/schema.sql", '-d', $node->connstr('behind') ], 'schema only');
(my $no_sequences = slurp_file("$dir/rows.sql")) =~ s/^SELECT pg_catalog.setval.*\n//mg;
append_to_file("$dir/behind.sql", $no_sequences);
$node->command_ok([ 'psql', '-Xq', '-U', 'boss', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', '-f', "$dir/behind.sql", '-d', $node->connstr('behind') ], 'rows without sequences');
my (undef, undef, $err) = $node->psql('behind', q{SELECT pgmq.publish('orders', '1')}, extra_params => [ '-U', 'boss', '-v', 'VERBOSITY=verbose' ]);
like($err, qr/55000: the sequence of stream "orders" was set back.*HINT:  Set pgmq\.s_orders_event_id_seq/s, 'a sequence that lags is an error with a hint');
foreach my $call (q{pgmq.receive('orders', 'new', 60, 1)}, q{pgmq.fetch('orders', 0, 0, 1)}, q{pgmq.subscribe('orders', 'later')}, q{pgmq.seek('orders', 'new', 'latest')}, q{pgmq.stream_lag('orders')})
{
	is(outcome('behind', "SELECT $call"), '55000', "so it is for $call");
}
is(outcome('behind', q{SELECT setval('pgmq.s_orders_event_id_seq', 300005); SELECT pgmq.publish('orders', '1'); SELECT message FROM pgmq.receive('orders', 'new', 60, 1)}), "300005\n300006\n1", 'and after the hint it goes on');

# A part that is emptied after the dump's snapshot, and before its lock, would be empty in the dump, and not passed
$node->safe_psql('postgres', 'CREATE DATABASE emptied OWNER boss');
$node->safe_psql('emptied', q{
	CREATE EXTENSION pgmq; SELECT pgmq.create_stream('kept', 1, '1 s', '1000 years'), pgmq.subscribe('kept', 'sub');
	CALL pgmq.maintain(); SELECT count(*) FROM pgmq.publish_batch('kept', array_fill('1'::jsonb, '{100}'))}, @AS_BOSS);
# Old events of a part that is full
$node->safe_psql('emptied', q{UPDATE pgmq.s_kept SET published_at = now() - interval '1 hour'; CALL pgmq.maintain()}, @AS_BOSS);
my $COUNT = q{SELECT count(*) FROM pgmq.s_kept; SELECT passed_id FROM pgmq.p_kept};
is(outcome('emptied', $COUNT), "100\n0", 'the events stay while they are not passed');
my $dumper = $node->background_psql('emptied');
$dumper->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $snapshot = $dumper->query_safe('SELECT pg_export_snapshot()');
# As an open consumer does: the part can be emptied, and not be dropped
$dumper->query_safe('LOCK TABLE ONLY pgmq.s_kept IN ACCESS SHARE MODE');
is(outcome('emptied', q{SELECT pgmq.advance('kept', 'sub', shard, max(event_id), lease) FROM pgmq.receive('kept', 'sub', 60, 100) GROUP BY shard, lease;
	SET client_min_messages = error; SET pgmq.maintenance_lock_timeout = '1 s'; CALL pgmq.maintain()}), 't', 'then they are passed');
is(outcome('emptied', $COUNT . q{; SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgmq.s_kept'::regclass AND inhrelid::regclass::text ~ '_p1_2$'}),
	"0\n100\n1", 'and go, but the part stays');
$node->command_fails_like([ 'pg_dump', '-U', 'boss', "--snapshot=$snapshot", '-f', "$dir/emptied.sql", '-d', $node->connstr('emptied') ],
	qr/relation "pgmq\.s_kept_p\d+" does not exist/, 'a dump that would lack them fails');
$dumper->quit;
$node->command_ok([ 'pg_dump', '-U', 'boss', '-f', "$dir/emptied.sql", '-d', $node->connstr('emptied') ], 'and succeeds when it is repeated');

# A copy of the database by the server
$node->safe_psql('postgres', 'CREATE DATABASE template_copy TEMPLATE origin');
is($node->safe_psql('template_copy', $ROWS), $rows, 'CREATE DATABASE ... TEMPLATE');

################################################################ updates

foreach my $from ('2.0.0', '2.1.0')
{
	(my $db = "from_$from") =~ tr/./_/;
	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER boss");
	$node->safe_psql($db, "CREATE EXTENSION pgmq VERSION '$from'; SELECT pgmq.create('old'); REVOKE SELECT ON pgmq.meta FROM pg_monitor", @AS_BOSS);
	# Sessions that are connected over the update.  They have asked for streams before there were any.
	my @sessions = map { $node->background_psql($db, on_error_stop => 0, extra_params => [ '-U', 'boss' ]) } 1, 2;
	my $in = sub {
		my ($session, $sql) = @_;
		my ($out) = $session->query($sql);
		my ($error) = ($session->{stderr} // '') =~ /ERROR:  (.*)/;

		$session->{stderr} = '';
		return $error ? "error: $error" : $out;
	};
	is($in->($_, q{SELECT pgmq.send('old', '1') > 0; SELECT pgmq.create('other')}), "t\n", "$from: a queue, with the new library") foreach $sessions[0];
	is($in->($sessions[1], q{BEGIN; SELECT count(*) FROM pgmq.read('old', 0, 1)}), '1', "$from: an open transaction");
	like($in->($sessions[0], q{SELECT pgmq.create_stream('s')}), qr/^error: function pgmq.create_stream\(unknown\) does not exist/, "$from: no streams");
	$node->safe_psql($db, "SET lock_timeout = '20s'; ALTER EXTENSION pgmq UPDATE", @AS_BOSS);
	is($in->($sessions[1], q{COMMIT; SELECT pgmq.create_stream('s'), pgmq.subscribe('s', 'sub')}), '|t', "$from: a session that was connected creates a stream");
	is($in->($sessions[0], q{SELECT pgmq.publish('s', '1'); SELECT message FROM pgmq.receive('s', 'sub', 60, 1)}), "1\n1", "$from: another one uses it");
	like($in->($sessions[0], q{SELECT pgmq.create('s')}), qr/^error: a stream "s" exists/, "$from: its name is taken");
	is($in->($sessions[0], q{SELECT relowner::regrole, relacl::text ~ 'pg_monitor' FROM pg_class WHERE oid IN ('pgmq.stream'::regclass, 'pgmq.subscription'::regclass, 'pgmq.topic_stream_bindings'::regclass)}) =~ s/\|$/|f/mgr,
		"boss|f\nboss|f\nboss|f", "$from: the tables are the owner's, and what was revoked stays revoked");
	$_->quit foreach @sessions;
}

# From the PL/pgSQL extension
$node->safe_psql('postgres', 'CREATE DATABASE taken');
$node->safe_psql('taken', old_installation('1.9.0') . old_queues('1.9.0') . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
$node->safe_psql('taken', old_extension('1.9.0'));
# A table of a user, which has a name of ours
$node->safe_psql('taken', 'CREATE TABLE pgmq.subscription (x int)');
isnt(($node->psql('taken', 'ALTER EXTENSION pgmq UPDATE'))[0], 0, 'a table of a user in the place of ours: nothing is replaced');
is($node->safe_psql('taken', q{DROP TABLE pgmq.subscription; ALTER EXTENSION pgmq UPDATE; SELECT pgmq.create_stream('s'), pgmq.publish('s', '1')}), '|1', 'taken over from 1.9.0');

################################################################ the extension goes

is(outcome('from_2_1_0', 'ALTER EXTENSION pgmq SET SCHEMA public'), '0A000', 'the schema stays what it is');
like(outcome('from_2_1_0', 'SELECT pgmq.prepare_downgrade()'), qr/^$|q_/, 'prepare_downgrade() has nothing to say of streams');
is(outcome('from_2_1_0', q{SELECT pgmq.publish('s', '2') IS NOT NULL}), 't', 'which go on');
is(outcome('from_2_1_0', 'DROP EXTENSION pgmq; SELECT count(*) FROM pgmq.s_s'), '2', 'the events of a stream outlive the extension');
is(outcome('from_2_1_0', q{CREATE EXTENSION pgmq; SELECT pgmq.create_stream('s')}), '42P07', 'made again, it does not take them for its own');
is(outcome('from_2_1_0', q{SELECT pgmq.publish('s', '3')}), '55000', 'a log without its row');
# docs/operations.md
is(outcome('from_2_1_0', q{INSERT INTO pgmq.stream (stream_name, shards, retention) VALUES ('s', 1, '7 days')}), '', 'its owner gives the row back');
is(outcome('from_2_1_0', q{INSERT INTO pgmq.subscription (stream_name, subscription, role) VALUES ('s', 'sub', 'boss')}), '', 'and those of its subscriptions');
is(outcome('from_2_1_0', q{SELECT pgmq.seek('s', 'sub', start_id => 2, force => true); SELECT pgmq.publish('s', '3'); SELECT message FROM pgmq.receive('s', 'sub', 60, 10)}), "\n3\n2\n3", 'and the stream goes on');

$node->stop;
done_testing();

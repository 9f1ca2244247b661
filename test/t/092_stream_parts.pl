# Parts of streams come and go beside traffic: by the background worker, and beside transactions that stay open.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('parts');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', q{
fsync = off
autovacuum = off
max_prepared_transactions = 2
shared_preload_libraries = 'pgmq'
pgmq.maintenance_interval = 1
});
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE FUNCTION parts(log regclass) RETURNS bigint LANGUAGE sql AS
		'SELECT count(*) FROM pg_inherits WHERE inhparent = log';
	CREATE TABLE published (stream text, event_id bigint);
	CREATE TABLE seen (stream text, subscription text, shard integer, event_id bigint);
	-- the events of a transaction, seen and passed at once
	CREATE FUNCTION consume(stream text, subscription text, qty integer) RETURNS bigint LANGUAGE plpgsql AS $$
	DECLARE
		r record;
		n bigint := 0;
	BEGIN
		FOR r IN SELECT shard, lease, array_agg(event_id) AS ids, max(event_id) AS last
			FROM pgmq.receive(stream, subscription, 60, qty) GROUP BY 1, 2
		LOOP
			INSERT INTO seen SELECT stream, subscription, r.shard, unnest(r.ids);
			IF NOT pgmq.advance(stream, subscription, r.shard, r.last, r.lease) THEN RAISE EXCEPTION 'lost'; END IF;
			n := n + cardinality(r.ids);
		END LOOP;
		RETURN n;
	END $$});

# ---- maintain() has not run for long: a whole lot of events without a part of their own
$node->safe_psql('postgres', q{
	SELECT pgmq.create_stream('late', 2);
	SELECT pgmq.subscribe('late', 'all');
	SELECT count(*) FROM pgmq.publish_batch('late', array_fill('1'::jsonb, '{10}'));
	SELECT setval('pgmq.s_late_event_id_seq', 3000000)});
$node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.publish_batch('late', array_fill('1'::jsonb, '{100000}'))}) foreach 1 .. 3;
sql_is('SELECT count(*) FROM pgmq.s_late_default', 300000, 'events wait in the default partition');
sql_is(q{SELECT consume('late', 'all', 100000) + consume('late', 'all', 100000)}, 200000, 'consumers do not care');
my $open = $node->background_psql('postgres');
$open->query_safe(q{BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM published});
$node->safe_psql('postgres', 'CALL pgmq.maintain()');
sql_is(q{SELECT count(*) FROM pgmq.s_late_default_2}, 0, 'maintain() gives them a part');
is($open->query_safe(q{SELECT count(*) FROM pgmq.fetch('late', 0, 2999999, 1000000)}), 150000, 'where an older snapshot finds them too');
$open->query_safe('COMMIT');
sql_is(q{SELECT consume('late', 'all', 100000) + consume('late', 'all', 100000)}, 100010, 'as do consumers');
sql_is(q{SELECT count(*), count(DISTINCT event_id) FROM seen WHERE stream = 'late'}, '300010|300010', 'each event once');
sql_is(q{SELECT parts('pgmq.s_late')}, 5, 'and there are parts ahead');
$node->safe_psql('postgres', q{SELECT pgmq.drop_stream('late'); TRUNCATE seen});

# ---- a drop beside an open reader: publishers wait behind its request for a lock, and that ends soon
$node->safe_psql('postgres', q{
	SELECT pgmq.create_stream('busy', 1, '1 hour');
	SELECT pgmq.publish('busy', '1');
	SELECT setval('pgmq.s_busy_event_id_seq', 131071);
	SELECT pgmq.publish('busy', '1');
	CALL pgmq.maintain();
	UPDATE pgmq.s_busy SET published_at = published_at - interval '1 day' WHERE event_id < 131072});
$open->query_safe(q{BEGIN; SELECT event_id FROM pgmq.fetch('busy', 0, 1, 1)});
my ($out, $err) = ('', '');
my $maintain = IPC::Run::start(
	[ 'psql', '-X', '-d', $node->connstr('postgres'), '-c', q{SET pgmq.maintenance_lock_timeout = '500ms'}, '-c', 'CALL pgmq.maintain()' ],
	'>', \$out, '2>', \$err);
my $published = 0;
my $failed = '';
while ($maintain->pumpable)
{
	my ($code, undef, $error) = $node->psql('postgres', q{SET lock_timeout = '2s'; SELECT pgmq.publish('busy', '1')});
	$published++;
	$failed .= $error if $code;
	$maintain->pump_nb;
}
ok($maintain->finish, 'maintain() beside an open reader');
like($err, qr/NOTICE:  stream "busy" is busy, its maintenance is left to the next call \(empty partitions\)/, 'which it leaves alone');
is($failed, '', 'no publisher has waited for long');
cmp_ok($published, '>', 1, "$published have published meanwhile");
sql_is(q{SELECT parts('pgmq.s_busy'), count(*) FROM pgmq.s_busy WHERE event_id < 131072}, '5|0', 'the events are gone, their empty part is not');
$open->query_safe('COMMIT');
$node->safe_psql('postgres', 'CALL pgmq.maintain()');
sql_is(q{SELECT parts('pgmq.s_busy')}, 4, 'the part goes afterwards');
$open->quit;
$node->safe_psql('postgres', q{SELECT pgmq.drop_stream('busy')});

# ---- the worker, beside publishers and consumers
$node->safe_psql('postgres', q{
	SELECT pgmq.create_stream('kept', 3, '1 second', '1000 years');
	SELECT pgmq.create_stream('short', 3, '1 second');
	SELECT pgmq.subscribe('kept', 'quick'), pgmq.subscribe('kept', 'slow'), pgmq.subscribe('short', 'quick'), pgmq.subscribe('short', 'slow');
	-- it is idle until the end: all its events are lost, and counted
	SELECT pgmq.subscribe('short', 'idle')});
$node->append_conf('postgresql.conf', "pgmq.databases = 'postgres'\n");
$node->reload;
my $dir = $node->basedir;
append_to_file("$dir/publish.sql", q{
	BEGIN;
	INSERT INTO published SELECT s.name, pgmq.publish_batch(s.name, array_fill('"x"'::jsonb, '{20}'), ARRAY(SELECT i::text FROM generate_series(1, 20) AS i))
		FROM (VALUES ('kept'), ('short')) AS s (name);
	COMMIT;
	BEGIN; SELECT count(*) FROM pgmq.publish_batch('kept', '{1,2,3}') AS k, pgmq.publish_batch('short', '{1}') AS s; ROLLBACK;
});
append_to_file("$dir/consume.sql", qq{
	SELECT consume('kept', 'quick', 200);
	SELECT consume('short', 'quick', 200);
	BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT consume('kept', 'slow', 10), consume('short', 'slow', 5); COMMIT;
});
my $load = IPC::Run::start(
	[ 'pgbench', '-n', '-d', $node->connstr('postgres'), '-c', 4, '-j', 2, '-t', 400, '-R', '150', '--max-tries=1000',
		'-f', "$dir/publish.sql\@1", '-f', "$dir/consume.sql\@1" ], '>', \$out, '2>', \$err);
my $most = 0;
while ($load->pumpable)
{
	my $parts = $node->safe_psql('postgres', q{SELECT parts('pgmq.s_short')});
	$most = $parts if $parts > $most;
	$load->pump_nb;
}
ok($load->finish, 'publishers and consumers') or diag($err);
cmp_ok($most, '<', 30, "there were at most $most parts");
# consumers take the rest
foreach my $stream ('kept', 'short')
{
	foreach my $subscription ('quick', 'slow')
	{
		ok($node->poll_query_until('postgres', "SELECT sum(consume('$stream', '$subscription', 10000)) = 0 FROM generate_series(1, 4)"),
			"$stream, $subscription: all that is left");
	}
}
sql_is(q{SELECT s, count(*), count(DISTINCT event_id), (SELECT count(*) FROM (SELECT event_id FROM published WHERE stream = 'kept'
	EXCEPT SELECT event_id FROM seen WHERE stream = 'kept' AND subscription = s) AS missing)
	FROM (VALUES ('quick'), ('slow')) AS v (s) JOIN seen ON stream = 'kept' AND subscription = s GROUP BY 1 ORDER BY 1},
	$node->safe_psql('postgres', q{SELECT s, count(*), count(*), 0 FROM published, (VALUES ('quick'), ('slow')) AS v (s) WHERE stream = 'kept' GROUP BY 1 ORDER BY 1}),
	'keep_unconsumed: each subscription has seen each event once');
sql_is(q{SELECT sum(dropped_events) FROM pgmq.list_subscriptions('kept')}, 0, 'and has lost none');
ok($node->poll_query_until('postgres', "SELECT count(*) = 0 FROM pgmq.s_$_"), "$_: all events go") foreach 'kept', 'short';
ok($node->poll_query_until('postgres', "SELECT parts('pgmq.s_$_') = 4"), "$_: and their parts") foreach 'kept', 'short';
sql_is(q{SELECT subscription, dropped_events + (SELECT count(*) FROM seen AS s WHERE s.stream = 'short' AND s.subscription = l.subscription)
	FROM pgmq.list_subscriptions('short') AS l ORDER BY 1},
	$node->safe_psql('postgres', q{SELECT s, count(*) FROM published, (VALUES ('idle'), ('quick'), ('slow')) AS v (s) WHERE stream = 'short' GROUP BY 1 ORDER BY 1}),
	'without it, each event was seen or is counted');
sql_is(q{SELECT count(*) - count(DISTINCT event_id) FROM seen WHERE stream = 'short' GROUP BY subscription}, "0\n0", 'and none twice');
is(join("\n", slurp_file($node->logfile) =~ /^.*(?:WARNING:|ERROR:  (?!could not serialize)).*\n(?:.*(?:DETAIL|CONTEXT|STATEMENT).*\n)*/mg), '', 'nothing failed');
$node->stop;
done_testing();

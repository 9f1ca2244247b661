# Streams over a crash, with transactions that were prepared before it; on a standby and after its promotion; after dump and
# restore; on a subscriber of logical replication.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('streams');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', q{
autovacuum = off
max_prepared_transactions = 5
});
$primary->start;

sub fetched
{
	my ($node, $db, $stream) = @_;
	return $node->safe_psql($db, qq{SELECT string_agg(message #>> '{}', ' ' ORDER BY event_id) FROM pgmq.fetch('$stream', 0, 0, 1000)});
}

# ---- a crash
$primary->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create_stream('s');
	SELECT pgmq.subscribe('s', 'all');
	SELECT count(*) FROM pgmq.publish_batch('s', '{1,2,3}');
	CREATE TABLE lease AS SELECT lease, max(event_id) AS event_id FROM pgmq.receive('s', 'all', 3600, 2) GROUP BY 1;
	BEGIN; SELECT pgmq.publish('s', '"prepared"'); PREPARE TRANSACTION 'publisher';
	SELECT pgmq.publish('s', '"after it"')});
is(fetched($primary, 'postgres', 's'), '1 2 3', 'what comes after a prepared transaction is not handed out');
$primary->stop('immediate');
$primary->start;
# Its ids are not known any more
is(fetched($primary, 'postgres', 's'), '', 'after a crash nothing is, until the prepared transaction is finished');
is($primary->safe_psql('postgres', q{SELECT pgmq.publish('s', '"after the crash"') IS NOT NULL; SELECT held_up_by FROM pgmq.stream_lag('s')}),
	"t\npublisher", 'which is named');
is(fetched($primary, 'postgres', 's'), '', 'also when other sessions look');
is($primary->safe_psql('postgres', q{SELECT pgmq.advance('s', 'all', 0, event_id, lease) FROM lease}), 't', 'the lease is still the last one');
$primary->safe_psql('postgres', q{COMMIT PREPARED 'publisher'});
is(fetched($primary, 'postgres', 's'), '1 2 3 prepared after it after the crash', 'then all of it is');
is($primary->safe_psql('postgres', q{SELECT message FROM pgmq.receive('s', 'all', 0, 2)}), "3\n\"prepared\"", 'and the position is where it was');
# a lease that a prepared transaction has taken
$primary->safe_psql('postgres', q{BEGIN; SELECT pgmq.receive('s', 'all', 0, 1); PREPARE TRANSACTION 'consumer'});
$primary->stop('immediate');
$primary->start;
is($primary->safe_psql('postgres', q{SELECT count(*) FROM pgmq.receive('s', 'all', 0, 1)}), '0', 'a prepared transaction keeps its shard over a crash');
$primary->safe_psql('postgres', q{ROLLBACK PREPARED 'consumer'});
is($primary->safe_psql('postgres', q{SELECT event_id, attempt FROM pgmq.receive('s', 'all', 0, 1)}), '3|2', 'until it is finished');
# a clean stop forgets the ids of a prepared transaction as a crash does
$primary->safe_psql('postgres', q{
	SELECT pgmq.create_stream('clean');
	SELECT pgmq.subscribe('clean', 'all', 'earliest');
	SELECT pgmq.publish('clean', '1');
	SELECT count(*) FROM pgmq.fetch('clean', 0, 0, 1);
	BEGIN; SELECT pgmq.publish('clean', '2'); PREPARE TRANSACTION 'publisher';
	SELECT pgmq.publish('clean', '3')});
is(fetched($primary, 'postgres', 'clean'), '1', 'what comes after a prepared transaction is not handed out');
$primary->restart;
is(fetched($primary, 'postgres', 'clean'), '', 'after a restart nothing is');
is($primary->safe_psql('postgres', q{SELECT held_up_by FROM pgmq.stream_lag('clean')}), 'publisher', 'which is named again');
$primary->safe_psql('postgres', q{ROLLBACK PREPARED 'publisher'});
is(fetched($primary, 'postgres', 'clean'), '1 3', 'until it is rolled back');
# nor is what nobody looked for before it was prepared, when its session has published again, and so has a new record
$primary->safe_psql('postgres', q{
	SELECT pgmq.create_stream('unread');
	SELECT pgmq.publish('unread', '1');
	BEGIN; SELECT pgmq.publish('unread', '2'); PREPARE TRANSACTION 'publisher';
	SELECT pgmq.publish('unread', '3')});
is(fetched($primary, 'postgres', 'unread'), '', 'a prepared transaction holds up older events of a stream that was not read');
$primary->safe_psql('postgres', q{COMMIT PREPARED 'publisher'});
is(fetched($primary, 'postgres', 'unread'), '1 2 3', 'until it is committed');
$primary->safe_psql('postgres', q{SELECT pgmq.drop_stream(s) FROM unnest('{clean,unread}'::text[]) AS s});

# ---- a sequence that was set back, with no event left that would show it
$primary->safe_psql('postgres', q{
	SELECT pgmq.create_stream('back');
	SELECT pgmq.subscribe('back', 'all');
	SELECT count(*) FROM pgmq.publish_batch('back', '{1,2,3}');
	SELECT pgmq.advance('back', 'all', shard, max(event_id), lease) FROM pgmq.receive('back', 'all', 60, 10) GROUP BY shard, lease;
	TRUNCATE pgmq.s_back RESTART IDENTITY});
foreach my $when ('at once', 'after a restart')
{
	my ($code, $out, $err) = $primary->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT pgmq.publish('back', '4')");
	like($err, qr/55000/, "publish notices that the sequence is below a position, $when");
	$primary->restart;
}
is($primary->safe_psql('postgres', q{SELECT count(*) FROM pgmq.s_back}), '0', 'and publishes nothing that nobody would receive');
$primary->safe_psql('postgres', q{
	BEGIN; LOCK TABLE pgmq.p_s IN ACCESS EXCLUSIVE MODE; SELECT pgmq.drop_stream('back'); COMMIT});

# ---- a standby
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;
foreach my $call (q{pgmq.fetch('s', 0, 0, 1)}, q{pgmq.stream_lag('s')})
{
	my ($code, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT * FROM $call");
	like($err, qr/55000/, "standby: $call");
}
foreach my $call (q{pgmq.publish('s', '1')}, q{pgmq.receive('s', 'all', 1, 1)}, q{pgmq.advance('s', 'all', 0, 1, 1)},
	q{pgmq.subscribe('s', 'more')}, q{pgmq.seek('s', 'all', 'latest')})
{
	my ($code, $out, $err) = $standby->psql('postgres', "\\set VERBOSITY sqlstate\nSELECT $call");
	like($err, qr/25006/, "standby: $call");
}
is($standby->safe_psql('postgres', q{SELECT stream_name FROM pgmq.list_streams()}), 's', 'standby: streams are listed');
$primary->safe_psql('postgres', q{SELECT pgmq.publish('s', '"before promotion"')});
$primary->wait_for_catchup($standby);
$standby->promote;
$standby->safe_psql('postgres', q{SELECT pgmq.publish('s', '"after promotion"')});
is(fetched($standby, 'postgres', 's'), '1 2 3 prepared after it after the crash before promotion after promotion', 'promoted: events go on');
is($standby->safe_psql('postgres', q{SELECT event_id, attempt FROM pgmq.receive('s', 'all', 0, 1)}), '3|3', 'promoted: positions are where they were');
$standby->stop;

# ---- dump and restore
$primary->safe_psql('postgres', q{
	SELECT pgmq.create_stream('Wide', 3, '1 day', '1 hour');
	SELECT count(*) FROM generate_series(1, 30) AS n, pgmq.publish('wide', to_jsonb(n));
	CREATE ROLE consumer; GRANT USAGE ON SCHEMA pgmq TO consumer; GRANT SELECT ON pgmq.s_wide TO consumer;
	SET ROLE consumer; SELECT pgmq.subscribe('wide', 'theirs', 'earliest'); RESET ROLE;
	SELECT bool_and(pgmq.advance('wide', 'theirs', shard, event_id, lease)) FROM pgmq.receive('wide', 'theirs', 60, 5)});
my $SHOWN = q{
	SELECT stream_name, shards, retention, keep_unconsumed FROM pgmq.list_streams() ORDER BY 1;
	SELECT stream_name, subscription, role, dropped_events FROM pgmq.list_subscriptions() ORDER BY 1, 2;
	SELECT subscription, shard, passed_id, lease FROM pgmq.p_wide ORDER BY 1, 2;
	SELECT subscription, shard, passed_id, lease FROM pgmq.p_s ORDER BY 1, 2;
	SELECT shard, count(*), max(event_id) FROM pgmq.s_wide GROUP BY 1 ORDER BY 1};
my $dumped = $primary->safe_psql('postgres', $SHOWN);
my $dump = $primary->basedir . '/dump';
$primary->run_log([ 'pg_dump', '-Fc', '-f', $dump, $primary->connstr('postgres') ]);
foreach my $jobs (1, 3)
{
	$primary->safe_psql('postgres', "CREATE DATABASE restored$jobs");
	$primary->command_ok([ 'pg_restore', '-j', $jobs, '-d', $primary->connstr("restored$jobs"), $dump ], "restored, $jobs jobs");
	is($primary->safe_psql("restored$jobs", $SHOWN), $dumped, 'with positions and events');
	is($primary->safe_psql("restored$jobs", q{
		SELECT pgmq.publish('wide', '31') > 30;
		SELECT count(*) FROM (SELECT pgmq.receive('wide', 'theirs', 60, 100) FROM generate_series(1, 3)) AS r}), "t\n26", 'and it goes on');
}
# a restore that is not finished: data without the sequence
$primary->safe_psql('restored1', q{SELECT setval(pg_get_serial_sequence('pgmq.s_wide', 'event_id'), 1, false)});
foreach my $call (q{pgmq.publish('wide', '1')}, q{pgmq.fetch('wide', 0, 0, 1)}, q{pgmq.receive('wide', 'theirs', 1, 1)})
{
	my ($code, $out, $err) = $primary->psql('restored1', "\\set VERBOSITY sqlstate\nSELECT $call");
	like($err, qr/55000/, "a sequence that is behind: $call");
}

# ---- a subscriber of logical replication gets rows, and no ids
$primary->safe_psql('postgres', q{CREATE PUBLICATION p FOR TABLE pgmq.s_s WITH (publish_via_partition_root)});
$primary->safe_psql('postgres', q{CREATE DATABASE subscriber});
$primary->safe_psql('subscriber', q{CREATE EXTENSION pgmq; SELECT pgmq.create_stream('s')});
$primary->safe_psql('postgres', q{SELECT pg_create_logical_replication_slot('sub', 'pgoutput')});
$primary->safe_psql('subscriber', 'CREATE SUBSCRIPTION sub CONNECTION $$' . $primary->connstr('postgres') . '$$' .
	' PUBLICATION p WITH (create_slot = false, slot_name = sub)');
$primary->safe_psql('postgres', q{SELECT pgmq.publish('s', '"replicated"')});
ok($primary->poll_query_until('subscriber', q{SELECT count(*) > 0 FROM pgmq.s_s WHERE message = '"replicated"'}), 'events are replicated');
my ($code, $out, $err) = $primary->psql('subscriber', "\\set VERBOSITY sqlstate\nSELECT pgmq.fetch('s', 0, 0, 1)");
like($err, qr/55000/, 'which are not settled there');
$primary->safe_psql('subscriber', 'ALTER SUBSCRIPTION sub DISABLE');
$primary->safe_psql('subscriber', 'ALTER SUBSCRIPTION sub SET (slot_name = NONE)');
$primary->safe_psql('subscriber', 'DROP SUBSCRIPTION sub');
$primary->stop;
done_testing();

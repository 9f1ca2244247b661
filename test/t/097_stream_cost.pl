# What calls on streams look at and write: a batch under a held snapshot, a call in the middle of many events, an event
# for many subscriptions.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('cost');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
fsync = off
max_prepared_transactions = 2
});
$node->start;

sub sql { return $node->safe_psql('postgres', shift) }

sql(q{
CREATE EXTENSION pgmq;
CREATE FUNCTION cost(query text, what text DEFAULT 'Shared Hit Blocks') RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, WAL, FORMAT json) ' || query INTO plan;
	RETURN (plan -> 0 -> 'Plan' ->> what)::int;
END $$;
-- of a batch of one event: the pages of both calls
CREATE FUNCTION batch() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	pages int := cost('SELECT * FROM pgmq.receive(''s'', ''all'', 60, 1)');
BEGIN
	RETURN pages + (SELECT cost(format('SELECT pgmq.advance(''s'', ''all'', 0, %s, %s)', leased_id, lease))
					  FROM pgmq.p_s ORDER BY state DESC LIMIT 1);
END $$;
CREATE PROCEDURE batches(count int) LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. count LOOP
		PERFORM pgmq.advance('s', 'all', shard, event_id, lease) FROM pgmq.receive('s', 'all', 60, 1);
		COMMIT;
	END LOOP;
END $$;
CREATE PROCEDURE measured(INOUT pages int DEFAULT 0) LANGUAGE plpgsql AS $$
DECLARE
	all_pages int[];
BEGIN
	FOR i IN 1 .. 9 LOOP
		all_pages := all_pages || batch();
		COMMIT;
	END LOOP;
	pages := (SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY p) FROM unnest(all_pages) AS p);
END $$});

# ---- a held snapshot
sql(q{
SELECT pgmq.create_stream('s');
SELECT pgmq.subscribe('s', 'all', 'earliest');
SELECT count(*) FROM pgmq.publish_batch('s', array_fill('1'::jsonb, '{4000}'));
CALL batches(300);
VACUUM;
BEGIN;
CREATE TABLE keeps_dead_rows ();
PREPARE TRANSACTION 'holder'});
sql('CALL batches(100)');
my $start = sql('CALL measured()');
sql('CALL batches(2500)');
my $end = sql('CALL measured()');
cmp_ok($end, '<=', $start * 1.3, "a batch looks at $start pages, and at $end after 2,500 under a held snapshot");
sql(q{ROLLBACK PREPARED 'holder'});

# ---- many events before and behind
sql(q{
SELECT pgmq.create_stream('few');
SELECT pgmq.create_stream('many');
SELECT count(*) FROM pgmq.publish_batch('few', array_fill('1'::jsonb, '{1000}'));
SELECT count(*) FROM pgmq.publish_batch('many', array_fill('1'::jsonb, '{60000}'));
VACUUM});
my ($few, $many) = map { sql("SELECT cost('SELECT * FROM pgmq.fetch(''$_->[0]'', 0, $_->[1], 100)') FROM generate_series(1, 2) OFFSET 1") }
	(['few', 500], ['many', 30000]);
cmp_ok($many, '<=', $few + 4, "a fetch looks at $few pages among few events, and at $many among many");

# ---- subscriptions
foreach my $call (q{SELECT pgmq.publish('few', '1')}, q{SELECT pgmq.publish_batch('few', '{1,2,3}')})
{
	# the least of several: a page may be full, and the sequence writes WAL at times
	my $cost = sprintf(q{SELECT min(cost(%s, 'Shared Hit Blocks')) || ' pages, ' || min(cost(%1$s, 'WAL Records')) || ' records'
						   FROM generate_series(1, 9)}, '$q$' . $call . '$q$');
	my $none = sql($cost);
	sql(q{SELECT pgmq.subscribe('few', 'subscription ' || i) FROM generate_series(1, 50) AS i});
	is(sql($cost), $none, "$call costs the same with 50 subscriptions");
	sql(q{SELECT pgmq.unsubscribe('few', 'subscription ' || i) FROM generate_series(1, 50) AS i});
}

done_testing();

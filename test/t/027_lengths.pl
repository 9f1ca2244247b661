# max_length: the length of a queue is counted again after a restart and a crash, is right for tables of any size, and holds
# beside concurrent senders and workers.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(ok_until);
use IPC::Run ();

my $node = PostgreSQL::Test::Cluster->new('lengths');
$node->init;
$node->append_conf('postgresql.conf', "autovacuum = off\nmax_connections = 40");
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('small'), pgmq.create('large'), pgmq.create_unlogged('lost'), pgmq.create('ring');
	SELECT pgmq.set_policy('small', max_length => 10), pgmq.set_policy('lost', max_length => 10);
	SELECT count(*) FROM pgmq.send_batch('small', array_fill('1'::jsonb, ARRAY[10]));
	SELECT count(*) FROM pgmq.send_batch('lost', array_fill('1'::jsonb, ARRAY[10]))});

sub sends
{
	my ($queue) = @_;
	my $err;

	return $node->psql('postgres', "SELECT pgmq.send('$queue', '1')", stderr => \$err) == 0 ? 'sent' : $err =~ /"$queue" is full/ ? 'full' : $err;
}

is(sends('small'), 'full', 'the limit is reached');
is(sends('lost'), 'full', 'also in an unlogged queue');
$node->restart;
is(sends('small'), 'full', 'a restart does not change that');
is(sends('lost'), 'full', 'nor in an unlogged queue');
$node->safe_psql('postgres', q{SELECT pgmq.pop('small')});
is(sends('small'), 'sent', 'there is room after a removal');
is(sends('small'), 'full', 'for one message');
$node->stop('immediate');
$node->start;
is(sends('small'), 'full', 'after a crash the rows are counted');
is(sends('lost'), 'sent', 'and those of an unlogged queue are gone');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_small'), 10, 'there are as many as allowed');

# A large table: messages at its end, dead rows before them
$node->safe_psql('postgres', q{
	INSERT INTO pgmq.q_large (vt, message) SELECT now(), to_jsonb(repeat('x', 200)) FROM generate_series(1, 60000);
	DELETE FROM pgmq.q_large WHERE msg_id <= 40000;
	SELECT pgmq.set_policy('large', max_length => 22500)});
my $sent = $node->safe_psql('postgres', q{
	DO $$ BEGIN
		FOR i IN 1 .. 8000 LOOP PERFORM pgmq.send('large', '1'); END LOOP;
	EXCEPTION WHEN program_limit_exceeded THEN NULL; END $$;
	SELECT pgmq.set_policy('large', max_length => 16000)});
is(sends('large'), 'full', 'a large queue is longer than a lower limit');
$node->safe_psql('postgres', q{SELECT pgmq.set_policy('large', max_length => 26000)});
is(sends('large'), 'sent', 'and shorter than a higher one');

# What was dropped costs nothing later, even if no session reads the queue and nothing is vacuumed
$node->safe_psql('postgres', q{
	SELECT pgmq.create('dropped');
	SELECT pgmq.set_policy('dropped', max_length => 100, overflow => 'drop_oldest');
	DO $$ BEGIN
		FOR i IN 1 .. 400 LOOP
			PERFORM pgmq.send_batch('dropped', array_fill('1'::jsonb, ARRAY[100]));
			COMMIT;
		END LOOP;
	END $$});
# The least of some: a send may also look at 256 pages to count the rows
my ($pages) = sort { $a <=> $b } $node->safe_psql('postgres',
	q{SELECT pgmq.send('dropped', '1') \g /dev/null} . "\n" .
	q{EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) SELECT pgmq.send('dropped', '1');} x 5) =~ /shared hit=(\d+)/g;
cmp_ok($pages, '<', 40, 'a send that makes room does not look at what was dropped before');

# Many senders and workers at the limit: it is not exceeded, and no message is lost but by the limit
my $script = $node->basedir . '/ring.sql';
my $worker = $node->basedir . '/worker.sql';
append_to_file($script, q{SELECT count(*) FROM pgmq.send_batch('ring', '{1,2,3}'::jsonb[]);} . "\n");
append_to_file($worker, q{
SELECT array_agg(msg_id) AS ids, array_agg(read_ct) AS attempts FROM pgmq.read('ring', 600, 2) \gset
SELECT keeps(count(*) FILTER (WHERE NOT ok)) FROM pgmq.ack_batch('ring', NULLIF(':ids', '')::bigint[], NULLIF(':attempts', '')::int[]);
SELECT count(*) FROM pgmq.read('ring', 0, 2);
});
$node->safe_psql('postgres', q{SELECT pgmq.set_policy('ring', max_length => 300, overflow => 'drop_oldest')});
$node->safe_psql('postgres', q{
	CREATE FUNCTION keeps(lost bigint) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		IF lost > 0 THEN RAISE 'a message that was leased is gone'; END IF;
	END $$});
my $longest = 0;
my @runs = map { IPC::Run::start([ 'pgbench', '-n', '-c', $_->[1], '-t', 300, '-f', $_->[0], $node->connstr('postgres') ], '>', \my $out, '2>&1') }
	[ $script, 8 ], [ $worker, 4 ];
while (grep { $_->pumpable } @runs)
{
	my $now = $node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_ring');

	$longest = $now if $now > $longest;
	$_->pump_nb foreach grep { $_->pumpable } @runs;
}
ok((grep { $_->finish } @runs) == @runs, 'no sender and no worker has failed');
cmp_ok($longest, '<=', 300 + 8 * 3, 'the limit holds beside them');
cmp_ok($longest, '>=', 250, 'and the queue was full');
# What the last count has missed beside the others is there until the next one, 10 seconds later at the latest
ok_until('afterwards it is as long as allowed, and not shorter', sub {
	$node->safe_psql('postgres', q{SELECT pgmq.send_batch('ring', array_fill('1'::jsonb, ARRAY[3])) FROM generate_series(1, 200)});
	my $left = $node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_ring');
	return $left <= 300 && $left >= 290;
});
is($node->safe_psql('postgres', q{
	SELECT count(*) FROM pgmq.q_ring WHERE vt <= now() AND msg_id <= (SELECT max(msg_id) - 300 FROM pgmq.q_ring)}), 0, 'the oldest are gone');

$node->stop;
done_testing();

# Many readers move dead messages out of the groups of one queue at once: the dead-letter queue gets each group in its
# order, and each message is in one place.  For another chance and for longer: PGMQ_TEST_SEED=2 PGMQ_TEST_SECONDS=600
use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib $FindBin::RealBin;
use PgmqWaiters;

my $seed = $ENV{PGMQ_TEST_SEED} // 1;
my $seconds = $ENV{PGMQ_TEST_SECONDS};
# Not by the clock: a slow machine must test as much
my $limit = $seconds ? "${seconds}s" : 2000;
note("PGMQ_TEST_SEED=$seed");

my $node = PostgreSQL::Test::Cluster->new('dead_groups');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;

foreach my $kind (qw(standard partitioned unlogged unindexed))
{
	my $output = '';

	$node->safe_psql('postgres', "CREATE DATABASE $kind");
	$node->safe_psql($kind, 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman');
	IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/dead_groups.py", $node->connstr($kind), $limit, $seed, $kind ],
		'>&', \$output, IPC::Run::timeout(($seconds // 0) + $PostgreSQL::Test::Utils::timeout_default));
	like($output, qr/^ok - dead groups/m, "$kind: order in the dead-letter queue, nothing lost") or diag($output);
	note($output);
}

# A session that waits moves nothing before there is something for it to return, and is woken when there is
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('waits'), pgmq.create('dead'), pgmq.create_fifo_index('waits');
	SELECT pgmq.set_policy('waits', max_reads => 1, dead_letter_queue => 'dead')});
my $SEND = q{SELECT pgmq.send('waits', '1', '{"x-pgmq-group": "a"}'::jsonb)};
my %waits = (
	poll => q{SELECT count(*) FROM pgmq.read_grouped_with_poll('waits', 600, 1, 600, 600000)},
	wait_grouped => q{CALL pgmq.wait_grouped('waits', 600000)});

foreach my $call (sort keys %waits)
{
	# For wait_grouped, a message that has to be moved is something to read
	my $dead = "$SEND; $SEND; UPDATE pgmq.q_waits SET read_ct = 1; SELECT pgmq.set_vt('waits', min(msg_id), 0) FROM pgmq.q_waits";

	$node->safe_psql('postgres', "SELECT pgmq.purge_queue('waits'), pgmq.purge_queue('dead')");
	$node->safe_psql('postgres', "BEGIN; $dead; COMMIT") if $call eq 'poll';
	my $waiter = start_waiter($node, $call, $waits{$call});
	is($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_dead'), '0', "$call: nothing is moved by a session that goes on waiting");
	$node->safe_psql('postgres', $call eq 'poll' ? $SEND : "BEGIN; $dead; COMMIT");
	is(ended($waiter), $call eq 'poll' ? '1' : 't', "$call: it is woken");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.q_dead}), $call eq 'poll' ? '2' : '0', "$call: what it has moved");
}

$node->stop;
done_testing();

# Message groups among sessions that do this and that by chance, held against a
# model.  The chance is the same in every run; for another one and for longer:
# PGMQ_TEST_SEED=2 PGMQ_TEST_SECONDS=600
use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PGMQ_TEST_SEED} // 1;
my $seconds = $ENV{PGMQ_TEST_SECONDS};
# Not by the clock: a slow machine must test as much
my $limit = $seconds ? "${seconds}s" : $ENV{PGMQ_TEST_HALF} ? 2000 : 4000;
note("PGMQ_TEST_SEED=$seed");

my $node = PostgreSQL::Test::Cluster->new('histories');
$node->init;
# A vacuum at a time of its own would make a run differ from the next one
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nmax_prepared_transactions = 10\n");
$node->start;

foreach my $kind (qw(standard partitioned unlogged unindexed))
{
	my $output = '';

	$node->safe_psql('postgres', "CREATE DATABASE $kind");
	$node->safe_psql($kind, 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman');
	IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/histories.py", $node->connstr($kind), $limit, $seed, $kind ],
		'>&', \$output, IPC::Run::timeout(($seconds // 0) + $PostgreSQL::Test::Utils::timeout_default));
	like($output, qr/^ok - histories/m, "$kind: order, one holder, nothing lost");
	note($output);
}

$node->stop;
done_testing();

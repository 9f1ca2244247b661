# Two calls on a queue with groups, one of which stops at each of its checks for
# interrupts in turn, for the other: whatever they do, no message gets out of the
# sight of those who read by groups.  The chance is the same in every run; for
# another one and for longer: PGMQ_TEST_SEED=2 PGMQ_TEST_SECONDS=600
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../faults";
use Faults;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seed = $ENV{PGMQ_TEST_SEED} // 1;
my $seconds = $ENV{PGMQ_TEST_SECONDS};
# Not by the clock: a slow machine must test as much
my $limit = $seconds ? "${seconds}s" : 500;
note("PGMQ_TEST_SEED=$seed");

my $node = PostgreSQL::Test::Cluster->new('races');
$node->init;
# A vacuum would stop for nobody
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\n");
$node->start;

foreach my $kind (qw(standard partitioned))
{
	my $output = '';

	$node->safe_psql('postgres', "CREATE DATABASE $kind");
	$node->safe_psql($kind, 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman;' . fault_functions());
	IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/races.py", $node->connstr($kind), $limit, $seed, $kind ],
		'>&', \$output, IPC::Run::timeout(($seconds // 0) + $PostgreSQL::Test::Utils::timeout_default));
	note($output);
	my @results = $output =~ /^((?:not )?ok - .*)$/mg;
	is(scalar @results, 9, "$kind: every part came to its end") or diag($output);
	foreach (@results)
	{
		my ($bad, $what) = /^(not )?ok - (.*)$/;
		ok(!$bad, "$kind, $what") or diag($output);
	}
}

$node->stop;
done_testing();

# REINDEX, CREATE INDEX and DROP INDEX, CONCURRENTLY or not, beside senders and consumers: no
# error and no deadlock, on queues of each kind, with a group index and without.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{PGMQ_TEST_SECONDS} // ($ENV{PGMQ_TEST_HALF} ? 2 : 4);
my $seed = $ENV{PGMQ_TEST_SEED} // 1;

my $node = PostgreSQL::Test::Cluster->new('rebuilt');
$node->init;
# Maintenance gives up before the server looks for a deadlock
$node->append_conf('postgresql.conf', "deadlock_timeout = '500ms'\n");
$node->start;

foreach my $kind (qw(standard unlogged id time))
{
	foreach my $index ('', 'groups')
	{
		my $name = join('_', $kind, $index || 'plain');
		my $output = '';

		$node->safe_psql('postgres', "CREATE DATABASE $name");
		$node->safe_psql($name, 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman');
		IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/ddl.py", $node->connstr($name), $seconds, $seed, $kind, $index || () ],
			'>&', \$output, IPC::Run::timeout($seconds + $PostgreSQL::Test::Utils::timeout_default));
		note($output);
		like($output, qr/^ok - rebuilt/m, "$kind, $index: nothing fails") or diag($output);
	}
}

$node->stop;
done_testing();

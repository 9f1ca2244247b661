# Two calls on a stream, one of which stops at each of its checks for interrupts and at each of its allocations, while others
# publish, look and end: whatever they do, no event appears below one that was returned, and no shard has two leases.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../faults";
use Faults;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('streamraces');
$node->init;
# A vacuum would stop for nobody
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nmax_prepared_transactions = 5\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq;' . fault_functions());

my $output = '';
IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/streamraces.py", $node->connstr('postgres') ],
	'>&', \$output, IPC::Run::timeout(3 * $PostgreSQL::Test::Utils::timeout_default));
note($output);
my @results = $output =~ /^((?:not )?ok - .*)$/mg;
is(scalar @results, 95, 'every part came to its end') or diag($output);
foreach (@results)
{
	my ($bad, $what) = /^(not )?ok - (.*)$/;
	ok(!$bad, $what) or diag($output =~ /^(# \Q$what\E,.*)$/m);
}

$node->stop;
done_testing();

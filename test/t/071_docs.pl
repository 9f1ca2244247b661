# The examples of the reference and of the guides print what the pages say, the reference has every function of the
# extension, and the five calls of the README work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DocExamples;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('docs');
$node->init;
# Nothing is to be in the way of maintain(), which would say so
$node->append_conf('postgresql.conf', 'autovacuum = off');
$node->start;

DocExamples::run($node, 'api', 'CREATE EXTENSION pg_partman');
DocExamples::run($node, 'topics');
DocExamples::run($node, 'partitions');

my $page = DocExamples::page('api');
my @functions = split /\n/, $node->safe_psql('api', q{
	SELECT DISTINCT proname FROM pg_depend JOIN pg_proc AS p ON p.oid = objid
	 WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
	   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgmq')});
is_deeply([ grep { $page !~ /pgmq\.\Q$_\E\(/ } @functions ], [], 'the reference has every function');

# One form for each function: what it needs stands there
my @without = map { $_->[0] } grep { $_->[1] !~ /\*\*Privileges\*\*/ && $_->[1] =~ /^### / }
  map { [ /^### (.*)/ ? $1 : '', $_ ] } split /^(?=##+ )/m, $page;
is_deeply(\@without, [ 'detach_archive', 'Waiting for groups', 'validate_routing_key, validate_topic_pattern',
	'format_table_name', 'validate_queue_name', 'acquire_queue_lock' ],
	'and what privileges each needs, except for those that need none of their own');

my ($calls) = slurp_file("$FindBin::RealBin/../../README.md") =~ /^```sql\n(.*?)^```/ms;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');
is(() = $calls =~ /^SELECT /mg, 5, 'the README has five calls');
like($node->safe_psql('postgres', $calls), qr/^\n1\n1\|1\|.*"tea".*\nt\nf$/, 'and they work');

$node->stop;
done_testing();

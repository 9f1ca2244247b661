# The recipe of docs/guide.md for recurring messages, with pg_cron as it is on the page.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DocExamples;
use PgmqSql;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('recurring');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\n");
$node->start;
sql_on($node, 'postgres');

if ((sql("SELECT count(*) FROM pg_available_extensions WHERE name = 'pg_cron'"))[0] ne '1')
{
	$node->stop;
	plan skip_all => 'there is no package of pg_cron for this version of the server';
}
$node->append_conf('postgresql.conf', q{
shared_preload_libraries = 'pg_cron'
cron.use_background_workers = on
cron.database_name = 'postgres'
});
$node->restart;

my ($section) = DocExamples::page('guide') =~ /^## Send a message every night\n(.*?)^## /ms;
my @statements = $section =~ /^    ((?:CREATE EXTENSION|SELECT cron\.).*?;)$/msg;
is(scalar @statements, 5, 'the page has an extension, three jobs, and the end of one');

sql(q{CREATE EXTENSION pgmq; SELECT pgmq.create('reports')});
foreach my $statement (@statements[ 0 .. 3 ])
{
	# A schedule by the hour would have the test wait for it
	$statement =~ s/'\d+ \d+ \* \* \*'/'\@reboot'/;
	my ($out, $err) = sql($statement);
	is($err, '', "runs: $statement");
}
foreach my $times (1, 2)
{
	$node->restart;
	ok_until("the jobs have run, $times", sub { (sql(q{SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'}))[0] eq 3 * $times });
}
sql_is(q{SELECT message, count(*) FROM pgmq.q_reports GROUP BY 1 ORDER BY message::text COLLATE "C"},
	qq({"report": "daily"}|2\n{"report": "once"}|1\n{"report": "waiting"}|1), 'what has a key was sent once');
sql($statements[4]);
sql_is('SELECT count(*) FROM cron.job', '2', 'one is scheduled no more');

$node->stop;
done_testing();

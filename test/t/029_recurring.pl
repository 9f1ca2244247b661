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

# The databases of the page
foreach my $database ('shop', 'warehouse')
{
	sql("CREATE DATABASE $database");
	$node->safe_psql($database, 'CREATE EXTENSION pgmq');
}
$node->safe_psql('warehouse', q{SELECT pgmq.create('reports')});
sql_on($node, 'shop');

my ($section) = DocExamples::page('guide') =~ /^## Send a message every night\n(.*?)^## /ms;
$node->append_conf('postgresql.conf', join("\n", $section =~ /^    (\w\S* = .*)$/mg, ''));
$node->restart;

my @statements = $section =~ /^    ((?:CREATE EXTENSION|SELECT (?:cron|pgmq)\.).*?;)$/msg;
is(scalar @statements, 7, 'the page has a queue, an extension, four jobs, and the end of one');

foreach my $statement (@statements[ 0 .. 5 ])
{
	# A schedule by the hour would have the test wait for it
	$statement =~ s/'\d+ \d+ \* \* \*'/'\@reboot'/;
	my ($out, $err) = sql($statement);
	is($err, '', "runs: $statement");
}
foreach my $times (1, 2)
{
	$node->restart;
	ok_until("the jobs have run, $times", sub { (sql(q{SELECT count(*) FROM cron.job_run_details WHERE status = 'succeeded'}))[0] eq 4 * $times });
}
sql_is(q{SELECT message, count(*) FROM pgmq.q_reports GROUP BY 1 ORDER BY message::text COLLATE "C"},
	qq({"report": "daily"}|2\n{"report": "once"}|1\n{"report": "waiting"}|1), 'what has a key was sent once');
sql_is(q{SELECT message, count(*) FROM pgmq.q_reports GROUP BY 1}, '{"report": "daily"}|2', 'a job sends to another database', db => 'warehouse');
sql($statements[6]);
sql_is('SELECT count(*) FROM cron.job', '3', 'one is scheduled no more');

$node->stop;
done_testing();

# Other people's environments: a publication of all tables, settings of an
# application under "pgmq.", a sequence with a cache.
use strict;
use warnings;

use File::Basename;
use lib dirname(__FILE__);
use PgmqVerbs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('environments');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "fsync = off\nwal_level = logical");
$node->start;

################################################# a publication of all tables

sub outcome
{
	my ($db, $sql) = @_;
	my ($out, $err);

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
	$node->safe_psql($db, $sql);
	$node->safe_psql($db, PgmqVerbs::setup(1));
	$node->psql($db, join(";\n", 'SET client_min_messages = error', PgmqVerbs::verbs(1), grep({ /maintain/ } PgmqVerbs::calls()), 'SELECT 1;'),
		stdout => \$out, stderr => \$err, on_error_stop => 0);
	return "$out\n$err";
}

my $expected = outcome('alone', 'SELECT 1');
my $published = outcome('published', 'CREATE PUBLICATION everything FOR ALL TABLES');
unlike($published, qr/ERROR/, 'no call fails under a publication of all tables');
is($published, $expected, 'and each does what it does without one');
is( $node->safe_psql('published', q{
		SELECT c.oid::regclass FROM pg_class c
		 WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p')
		   AND NOT EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid
		                      AND (indisreplident OR (indisprimary AND relreplident = 'd')))
		 ORDER BY 1}),
	'', 'every table has an identity');

######################################## settings of an application, "pgmq."

is( $node->safe_psql('alone', q{
		SET pgmq.tenant = 'blue';
		SELECT count(*) FROM pgmq.pop('v', 0);
		SELECT current_setting('pgmq.tenant');
		SET pgmq.tenant = 'red';
		SELECT current_setting('pgmq.tenant')}),
	"0\nblue\nred", 'a setting of an application stays');
my ($rc, $out, $err) = $node->psql('alone', "SELECT count(*) FROM pgmq.pop('v', 0); SET pgmq.rescan_interval = 'often'");
like($err, qr/invalid value for parameter "pgmq.rescan_interval"/, 'our own are checked');

################################################# a sequence with a cache

my ($first, $second) = map { $node->background_psql('alone') } 1 .. 2;
$first->query_safe($_)
  for "SET client_min_messages = error", "SELECT pgmq.create('sc')", 'ALTER SEQUENCE pgmq.q_sc_msg_id_seq CACHE 10',
  "SELECT pgmq.send('sc', '1')";
# More than floors lag behind, in transactions of their own
$second->query_safe($_)
  for 'SET pgmq.rescan_interval = 86400000',
  q{DO $$ BEGIN
	FOR i IN 1 .. 200 LOOP
		PERFORM pgmq.send('sc', '2');
		COMMIT;
		PERFORM pgmq.pop('sc', 100);
		COMMIT;
	END LOOP;
  END $$};
is($first->query_safe("SELECT * FROM pgmq.send('sc', '3')"), '2', 'an id far below the last');
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
my $got = '';
$got = $second->query_safe("SELECT msg_id FROM pgmq.read('sc', 60, 100)") while $got eq '' && time() < $deadline;
is($got, '2', 'a read finds it without a rescan');
$_->quit foreach $first, $second;

$node->stop;
done_testing();

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
DocExamples::run($node, 'retries');
DocExamples::run($node, 'streams', 'CREATE ROLE shop', 'CREATE ROLE billing');
DocExamples::run($node, 'privileges', 'CREATE ROLE app', 'CREATE ROLE worker', 'CREATE ROLE invoices', 'CREATE ROLE search',
	q{SELECT pgmq.create('orders'), pgmq.create_stream('events')});

# Those of the page on policies print nothing there; none of them fails
$node->safe_psql('postgres', 'CREATE DATABASE policies');
$node->safe_psql('policies', q{CREATE EXTENSION pgmq; SELECT pgmq.create('orders'), pgmq.create('orders_slow')});
is($node->psql('policies', $_), 0, "policies: $_") foreach DocExamples::page('policies') =~ /^```sql\n(.*?)^```/gms;

# The policies of the page on privileges
my $own = $node->safe_psql('privileges', q{
	SELECT FROM pgmq.send('orders', '1', headers => '{"from": "shop"}');
	SET ROLE app;
	SELECT FROM pgmq.send('orders', '2', headers => '{"from": "app"}');
	SELECT message FROM pgmq.q_orders;
	SET ROLE worker;
	SELECT pgmq.delete('orders', msg_id) FROM pgmq.read('orders', 60, 10)});
is($own =~ s/\n+/,/gr =~ s/^,//r, '2,t,t', 'a sender sees its own messages, and a worker all');
is($node->psql('privileges', q{SET ROLE app; SELECT pgmq.send('orders', '3')}), 3, 'and sends no others');

# Why a queue does not move: each query of the page on operations shows its cause, to the role that monitors
{
	my ($table) = DocExamples::page('operations') =~ /^\| cause \| query .*?\n(.*?)\n\n/ms;
	my %query = map { /^\| (.*?) \| `(.*?)`/ ? ($1 => $2) : () } split /\n/, $table;
	my %expected = (
		leased => qr/^1\|/, delayed => qr/^3\|/, fail => qr/^1\|2\|/, group => qr/^a\|4\|/, open => qr/\|idle in transaction\|SELECT/,
		lock => qr/\|\{\d+\}\|SELECT pgmq.delete/, reads => qr/pgmq/, hide => qr/^few\|\{watcher\}\|/, hand => qr/^2$/,
		paused => qr/^infinity$/, max_in_flight => qr/^1\|1$/, rate_limit => qr/^9\|$/, moved => qr/^2\|.*\|disk full$/);

	$node->safe_psql('postgres', 'CREATE DATABASE stuck');
	$node->safe_psql('stuck', q{
		CREATE EXTENSION pgmq;
		SELECT pgmq.create('orders');
		CREATE ROLE watcher IN ROLE pg_monitor;
		GRANT USAGE ON SCHEMA pgmq TO watcher;
		GRANT SELECT ON pgmq.q_orders TO watcher;
		SELECT pgmq.send('orders', '"fails"');
		SELECT FROM pgmq.read('orders', 0, 1);
		SELECT pgmq.read('orders', 600, 1);
		SELECT pgmq.send_batch('orders', '{1,2}'::jsonb[], delay => 600);
		SELECT pgmq.send('orders', '1', '{"x-pgmq-group": "a"}'::jsonb, delay => 600);
		SELECT pgmq.send('orders', '2', '{"x-pgmq-group": "a"}'::jsonb);
		INSERT INTO pgmq.q_orders (vt, message) VALUES (now(), '3');
		UPDATE pgmq.q_orders SET headers = '{"x-pgmq-stuck": "disk full"}' WHERE msg_id = 2;
		SELECT pgmq.set_policy('orders', max_in_flight => 1, rate_limit => 9), pgmq.pause_queue('orders');
		CREATE POLICY few ON pgmq.q_orders TO watcher USING (msg_id < 3)});
	my $holder = $node->background_psql('stuck');
	$holder->query_safe(q{BEGIN; SELECT pgmq.delete('orders', 2)});
	my $blocked = $node->background_psql('stuck');
	$blocked->query_until(qr/start/, "\\echo start\nSELECT pgmq.delete('orders', 2);\n");
	$node->poll_query_until('stuck', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock')});
	is(scalar keys %query, scalar keys %expected, 'every cause has a query');
	foreach my $word (sort keys %expected)
	{
		my ($cause) = grep { /\b$word\b/ } keys %query;
		like($node->safe_psql('stuck', "SET ROLE watcher; $query{$cause}"), $expected{$word}, $cause);
	}
	$holder->query_safe('ROLLBACK');
	$_->quit foreach $holder, $blocked;
}

# Which queues need attention
{
	my ($query) = DocExamples::page('operations') =~ /^## Which queues.*?^```sql\n(.*?)^```/ms;
	$node->safe_psql('postgres', 'CREATE DATABASE attention');
	$node->safe_psql('attention', q{
		CREATE EXTENSION pgmq;
		SELECT pgmq.create(name) FROM unnest('{fine,late,paused,empty,fails,Dead,moving}'::text[]) AS name;
		SELECT pgmq.set_policy('fails', max_reads => 1, dead_letter_queue => 'DEAD'), pgmq.pause_queue('paused');
		SELECT pgmq.send('fails', '1'), pgmq.send('fine', '1');
		SELECT FROM pgmq.read('fails', 0, 1);
		SELECT FROM pgmq.read('fails', 0, 1);
		SELECT pgmq.send('moving', '1', '{"x-pgmq-stuck": "disk full"}'::jsonb, 60);
		INSERT INTO pgmq.q_late (vt, message) VALUES (now() - interval '6 minutes', '1');
		UPDATE pgmq.q_dead SET vt = now() - interval '6 minutes';
		CREATE ROLE partly;
		GRANT USAGE ON SCHEMA pgmq TO partly;
		GRANT SELECT ON pgmq.meta, pgmq.policy, pgmq.q_fine, pgmq.q_fails TO partly});
	is(join(' ', sort $node->safe_psql('attention', $query) =~ /^(\w+)/mg), 'fails late moving paused', 'queues that need attention');
	is( join(' ', sort $node->safe_psql('attention', "SET ROLE partly; $query") =~ /^(\w+)/mg),
		'Dead empty late moving paused', 'or that the role may not read');
}

my $page = DocExamples::page('api');
my @functions = split /\n/, $node->safe_psql('api', q{
	SELECT DISTINCT proname FROM pg_depend JOIN pg_proc AS p ON p.oid = objid
	 WHERE classid = 'pg_proc'::regclass AND refclassid = 'pg_extension'::regclass AND deptype = 'e'
	   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgmq')});
my $private = DocExamples::page('internals');
is_deeply([ grep { (/^_|^notify_queue_listeners$/ ? $private : $page) !~ /pgmq\.\Q$_\E\(/ } @functions ], [],
	'the reference has every function, and the page on internals every private one');

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

# Dumps that are taken, and copies that are made, while senders and readers work.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use LoadedQueues;

my $dir = PostgreSQL::Test::Utils::tempdir();
my $node = PostgreSQL::Test::Cluster->new('origin');
$node->init(allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "log_statement = none\nautovacuum_naptime = 1s\nmax_logical_replication_workers = 10\nmax_worker_processes = 30\n");
$node->start;
my $target = PostgreSQL::Test::Cluster->new('target');
$target->init;
$target->append_conf('postgresql.conf', "log_statement = none\nfsync = off\nmax_sync_workers_per_subscription = 4\nwal_retrieve_retry_interval = 100ms\nmax_logical_replication_workers = 10\nmax_worker_processes = 30\n");
$target->start;

loaded_queues($node);
my @load = map { start_sql($node, 'origin', "CALL load.$_()") } qw(send read);
wait_for_work($node, 0, 0);

###################################################### dumps

# dump_under_load(what it is, command): when it has seen all tables it waits for a lock, and senders and readers go on;
# how much had been sent before
sub dump_under_load
{
	my ($how, @command) = @_;
	my ($sent_before) = work_done($node);
	my ($out, $err) = ('', '');

	$node->safe_psql('origin', 'DROP TABLE IF EXISTS load.gate; CREATE TABLE load.gate ()');
	my $gate = $node->background_psql('origin');
	$gate->query_safe('BEGIN; LOCK TABLE load.gate');
	my $dump = IPC::Run::start(\@command, '<', \undef, '>', \$out, '2>', \$err, IPC::Run::timeout(2 * $PostgreSQL::Test::Utils::timeout_default));
	$node->poll_query_until('origin', q{SELECT count(*) > 0 FROM pg_locks WHERE relation = 'load.gate'::regclass AND NOT granted}) or die "$how does not wait";
	# It holds locks on the queues.  A queue is created, and bound, and partitions are made and perhaps to be dropped
	my @before = work_done($node);
	$node->safe_psql('origin', q{
		SET client_min_messages = error; SELECT pgmq.create('later'); SELECT pgmq.bind_topic('load.later', 'later'); CALL pgmq.maintain()});
	wait_for_work($node, @before);
	$gate->query_safe('COMMIT');
	$gate->quit;
	ok($dump->finish, "$how: dumped") or diag($err);
	is($err, '', "$how: without a warning");
	$node->safe_psql('origin', q{SELECT pgmq.drop_queue('later')});
	return $sent_before;
}

# restore(what it is, database, command)
sub restore
{
	my ($how, $db, @command) = @_;
	my ($out, $err) = ('', '');

	ok(IPC::Run::run(\@command, '<', \undef, '>', \$out, '2>', \$err), "$how: restored") or diag($err);
	is($err, '', "$how: without an error");
}

sub from { return ('-d', $node->connstr('origin')) }
sub to
{
	my ($db) = @_;

	$target->safe_psql('postgres', "CREATE DATABASE $db");
	return ('-d', $target->connstr($db));
}
sub script { return ('psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', '/dev/null', map({ ('-f', "$dir/$_") } @{ $_[0] }), @_[1 .. $#_]) }

# A standby that follows meanwhile
$node->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($node, 'copy', has_streaming => 1);
$standby->append_conf('postgresql.conf', 'fsync = off');
$standby->start;

my $sent = dump_under_load('plain', 'pg_dump', '-f', "$dir/plain.sql", from());
restore('plain', 'plain', script(['plain.sql'], to('plain')));
check_copy($target, 'plain', 'plain', sent => $sent);

$sent = dump_under_load('custom', 'pg_dump', '-Fc', '-f', "$dir/custom", from());
restore('custom, 4 jobs', 'custom', 'pg_restore', '-j4', '--exit-on-error', to('custom'), "$dir/custom");
check_copy($target, 'custom', 'custom, 4 jobs', sent => $sent);

# From the same file, the schemas of the queues only: in a database that has the extension
$target->safe_psql('postgres', 'CREATE DATABASE selected');
$target->safe_psql('selected', 'CREATE EXTENSION pgmq; CREATE SCHEMA load; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
restore('pg_restore -n', 'selected', 'pg_restore', '-j4', '--exit-on-error', '-n', 'pgmq', '-n', 'load', '-n', 'partman', '-d', $target->connstr('selected'), "$dir/custom");
check_copy($target, 'selected', 'pg_restore -n', sent => $sent);

# The schema first
$node->command_ok([ 'pg_dump', '-s', '-f', "$dir/schema.sql", from() ], 'schema only');
$sent = dump_under_load('then the data', 'pg_dump', '-a', '--load-via-partition-root', '-f', "$dir/data.sql", from());
restore('schema, then data', 'parts', script([ 'schema.sql', 'data.sql' ], to('parts')));
check_copy($target, 'parts', 'schema, then data', sent => $sent);

# Some schemas, by four workers each time
$sent = dump_under_load('-n', 'pg_dump', '-Fd', '-j4', '-n', 'pgmq', '-n', 'load', '-n', 'partman', '-e', 'pgmq', '-e', 'pg_partman', '-f', "$dir/schemas", from());
restore('-n', 'schemas', 'pg_restore', '-j4', '--exit-on-error', to('schemas'), "$dir/schemas");
check_copy($target, 'schemas', '-n', sent => $sent);

$sent = dump_under_load('pg_dumpall', 'pg_dumpall', '-d', $node->connstr('postgres'), '-f', "$dir/all.sql");
{
	my ($out, $err);
	IPC::Run::run([ 'psql', '-Xq', '-o', '/dev/null', '-f', "$dir/all.sql", '-d', $target->connstr('postgres') ], '<', \undef, '>', \$out, '2>', \$err);
	unlike($err =~ s/.*role "[^"]*" already exists\n//r, qr/ERROR|FATAL/, 'pg_dumpall: restored');
}
check_copy($target, 'origin', 'pg_dumpall', sent => $sent);

###################################################### a standby that is promoted, and a subscriber

($sent) = work_done($node);
$node->wait_for_catchup($standby);
$standby->promote;
check_copy($standby, 'origin', 'promoted standby', sent => $sent, unlogged => 0);
$standby->stop;

$node->command_ok([ 'pg_dump', '-s', '-f', "$dir/schema2.sql", from() ], 'schema for the subscriber');
restore('subscriber', 'subscriber', script(['schema2.sql'], to('subscriber')));
$node->safe_psql('origin', 'CREATE PUBLICATION everything FOR TABLES IN SCHEMA pgmq, load WITH (publish_via_partition_root = true)');
$target->safe_psql('subscriber', 'CREATE SUBSCRIPTION everything CONNECTION $conn$' . $node->connstr('origin') . '$conn$ PUBLICATION everything');
$target->wait_for_subscription_sync($node, 'everything', 'subscriber');
wait_for_work($node, work_done($node));
$node->safe_psql('origin', 'UPDATE load.control SET stop = true');
is(end_sql($_), '', 'senders and readers had no error') foreach @load;
($sent) = work_done($node);
$node->wait_for_catchup('everything');
$target->safe_psql('subscriber', 'DROP SUBSCRIPTION everything');
my ($code, undef, $error) = $target->psql('subscriber', q{SELECT pgmq.publish('events', '1')}, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
like($error, qr/ERROR:  55000: the sequence of stream "events" was set back.*^HINT:  Set pgmq\.s_events_event_id_seq/ms, 'a subscriber has events, but not their sequence');
# The statement of docs/operations.md, for the publisher, makes those for the subscriber
my ($sequences) = grep { /setval/ } slurp_file("$FindBin::RealBin/../../docs/operations.md") =~ /^```sql\n(.*?)^```/msg;
$target->safe_psql('subscriber', $node->safe_psql('origin', $sequences));
check_copy($target, 'subscriber', 'subscriber', sent => $sent, unlogged => 0);
check_copy($node, 'origin', 'and the origin', sent => $sent);

note(join(', ', map { "$_: $SEEN{$_}" } sort keys %SEEN));
cmp_ok($SEEN{copies}, '>=', 9, 'copies of every kind were looked at');
cmp_ok($SEEN{$_}, '>', 50, "enough $_") foreach qw(sent visible leased heads);

$target->stop;
$node->stop;
done_testing();

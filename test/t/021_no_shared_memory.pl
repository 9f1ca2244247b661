# Without shared memory nobody can be woken: then everybody looks at intervals, and
# the log says so, once for each session.  Nor does anything else depend on it.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('no_shared_memory');
$node->init;
$node->append_conf('postgresql.conf', q{
max_connections = 20
max_locks_per_transaction = 10
dynamic_shared_memory_type = mmap
max_parallel_workers_per_gather = 0
});
$node->start;
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');

# From 17 on shared memory is a file below pg_dynshmem.  Before, it comes out of what
# the table of locks may grow into, and does not give back.
if ($version >= 170000)
{
	chmod(0500, $node->data_dir . '/pg_dynshmem') or die $!;
}
else
{
	$node->safe_psql('postgres', q{
		DO $$ BEGIN
			FOR i IN 1..1000000 LOOP PERFORM pg_advisory_xact_lock(i); END LOOP;
		EXCEPTION WHEN out_of_memory THEN NULL; END $$});
}

# One transaction holds few locks: there is no room for more.
$node->safe_psql('postgres', $_) foreach ('CREATE EXTENSION pgmq', q{SELECT pgmq.create('q')});

my $reader = $node->background_psql('postgres', on_error_stop => 1);
my $sender = $node->background_psql('postgres', on_error_stop => 1);
my $began = time;
foreach my $call (q{SELECT message FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)}, q{CALL pgmq.wait('q', 600000)})
{
	# the marker comes when psql has sent the query
	$reader->query_until(qr/waiting/, "\\echo waiting\n$call;\n\\echo over\n");
	$node->poll_query_until('postgres', q{SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Extension')});
	$sender->query_safe(q{SELECT pgmq.send('q', '1')});
	like($reader->query_until(qr/over/, ''), qr/^(1|t)$/m, "found by looking: $call");
	$sender->query_safe(q{SELECT pgmq.pop('q')});
}
cmp_ok(time - $began, '<', 60, 'soon');
$reader->query_safe(q{BEGIN; SELECT pgmq.send('q', '2'); ROLLBACK; SELECT pgmq.read('q', 0, 1)});
# Limits of a queue cannot be kept then, which is an error where they are set, and where a dump has brought them along.
# Other policies can be set.
$sender->query_safe(q{SELECT pgmq.set_policy('q', max_reads => 5); INSERT INTO pgmq.policy (queue_name, rate_limit) VALUES ('q', 1000)
	ON CONFLICT (queue_name) DO UPDATE SET rate_limit = EXCLUDED.rate_limit});
foreach my $call (q{SELECT pgmq.set_policy('q', rate_limit => 500)}, q{SELECT pgmq.set_policy('q', max_in_flight => 5)}, q{SELECT pgmq.read('q', 0, 1)}, q{SELECT pgmq.pop('q')}, q{SELECT pgmq.read_grouped('q', 0, 1)}, q{CALL pgmq.wait('q', 0)})
{
	my ($rc, $out, $err) = $node->psql('postgres', "\\set VERBOSITY verbose\n$call");
	like($err, qr/ERROR:  53200: no shared memory for the limits of queue "q"/, "refused: $call");
}
$sender->query_safe(q{SELECT pgmq.send('q', '3'), pgmq.delete('q', 1), pgmq.reset_policy('q'); SELECT pgmq.read('q', 0, 1)});
$_->quit foreach ($reader, $sender);

my $log = PostgreSQL::Test::Utils::slurp_file($node->logfile);
my $said = () = $log =~ /LOG:  pgmq: could not allocate shared memory for waking/g;
# the reader, the sender, and perhaps one that made the queue
cmp_ok($said, '>=', 2, 'the log says so');
cmp_ok($said, '<=', 4, 'once for each session');
unlike($log, qr/PANIC|TRAP/, 'and nothing broke');
chmod(0700, $node->data_dir . '/pg_dynshmem');
$node->stop;

done_testing();

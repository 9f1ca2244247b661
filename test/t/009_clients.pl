# Clients that vanish: killed without a word in the midst of what they do.  What
# their transaction had not committed comes back at once, what it had when the
# lease is over; nothing is lost, and nothing keeps others from working.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('clients');
$node->init;
$node->append_conf('postgresql.conf', qq(
log_statement = none
autovacuum = off
# nothing may be found only because somebody looks for what is written by hand
pgmq.rescan_interval = 1d
# a session that waits asks whether its client is there
client_connection_check_interval = 100ms
max_prepared_transactions = 2
));
$node->start;
$node->safe_psql('postgres', q{CREATE EXTENSION pgmq; SELECT pgmq.create('work'); SELECT pgmq.create('empty')});

# start_client(script): a psql that does this and then waits for more
sub start_client
{
	my ($script) = @_;
	my $client = { in => "$script\n", out => '', err => '' };

	$client->{run} = IPC::Run::start([ $node->installed_command('psql'), '-XAtq', '-d', $node->connstr('postgres') . " application_name=victim" ],
		'<', \$client->{in}, '>', \$client->{out}, '2>', \$client->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	$client->{run}->pump_nb;
	return $client;
}

# until the client has printed this
sub wait_for_output
{
	my ($client, $pattern) = @_;

	$client->{run}->pump until $client->{out} =~ $pattern;
}

sub vanish
{
	my ($client) = @_;

	$client->{run}->kill_kill(grace => 0);
}

sub wait_until_gone
{
	$node->poll_query_until('postgres', q{SELECT count(*) = 0 FROM pg_stat_activity WHERE application_name = 'victim'})
	  or die 'the session of a client that is gone stays';
}

sub messages { return $node->safe_psql('postgres', q{SELECT coalesce(string_agg(msg_id || ' ' || read_ct, ', ' ORDER BY msg_id), '') FROM pgmq.q_work}) }
sub readable { return $node->safe_psql('postgres', "BEGIN; SELECT coalesce(string_agg(msg_id::text, ' '), '') FROM pgmq.read('work', 3600, 100000); ROLLBACK") }

# In a transaction that has read, sent, popped, deleted and archived
$node->safe_psql('postgres', q{SELECT pgmq.send_batch('work', '{1,2,3,4,5,6}')});
my $before = messages();
my $client = start_client(q{BEGIN;
	SELECT count(*) FROM pgmq.read('work', 3600, 2);
	SELECT count(*) FROM pgmq.pop('work', 1);
	SELECT pgmq.delete('work', 1), pgmq.archive('work', 2), pgmq.send('work', '"never"');
	SELECT count(*) FROM pgmq.set_vt('work', 5, 3600);
	SELECT 'ready';});
wait_for_output($client, qr/ready/);
is(readable(), '4 6', 'in a transaction: others see what is left');
vanish($client);
wait_until_gone();
is(messages(), $before, 'in a transaction: nothing is changed');
is(readable(), '1 2 3 4 5 6', 'in a transaction: all of it comes back at once');

# Between the read and the delete: the lease holds, and then it is over
$client = start_client(q{SELECT msg_id FROM pgmq.read('work', 2, 3); SELECT 'ready';});
wait_for_output($client, qr/ready/);
vanish($client);
wait_until_gone();
my ($lease) = $node->safe_psql('postgres', 'SELECT max(vt) FROM pgmq.q_work');
my @got = split /\n/, $node->safe_psql('postgres', q{
	SELECT msg_id, last_read_at FROM pgmq.read('work', 3600, 100) ORDER BY 1});
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
push @got, split /\n/, $node->safe_psql('postgres', q{SELECT msg_id, last_read_at FROM pgmq.read_with_poll('work', 3600, 100, 10, 20)})
  while @got < 6 && time() < $deadline;
is(join(' ', sort map { /^(\d+)/ } @got), '1 2 3 4 5 6', 'after a read: all messages are handed out');
is($node->safe_psql('postgres', "SELECT count(*) FROM pgmq.q_work WHERE read_ct = 2 AND last_read_at < '$lease'::timestamptz - interval '0.1 s'"), '0',
	'after a read: not before the lease was over');

# While it waits for messages: the session ends by itself, and takes none
my @waiters = map { start_client(q{\echo ready
	SELECT msg_id FROM pgmq.read_with_poll('empty', 3600, 1, 600, 10);}) } 1 .. 3;
ok($node->poll_query_until('postgres', q{SELECT count(*) = 3 FROM pg_stat_activity
	WHERE application_name = 'victim' AND state = 'active' AND wait_event_type = 'Extension'}), 'clients wait');
vanish($_) foreach @waiters;
wait_until_gone();
$node->safe_psql('postgres', q{SELECT pgmq.send('empty', '1')});
is($node->safe_psql('postgres', q{SELECT msg_id, read_ct FROM pgmq.read('empty', 3600, 1)}), '1|1', 'while waiting: the message is for who is there');

# In the midst of a large result, which it does not take: the read is rolled back
$node->safe_psql('postgres', q{SELECT pgmq.purge_queue('work');
	SELECT count(*) FROM pgmq.send_batch('work', ARRAY(SELECT to_jsonb(repeat(md5(i::text), 300)) FROM generate_series(1, 3000) AS i)) AS s});
my ($first, $last) = split /\|/, $node->safe_psql('postgres', 'SELECT min(msg_id), max(msg_id) FROM pgmq.q_work');
pipe(my $from, my $to) or die "pipe: $!";
my $reader = fork() // die "fork: $!";
if ($reader == 0)
{
	# a pipe that nobody reads: psql stops taking rows when it is full
	open(STDOUT, '>&', $to) or die $!;
	exec $node->installed_command('psql'), '-XAtq', '-d', $node->connstr('postgres') . ' application_name=victim',
	  '-v', 'FETCH_COUNT=0', '-c', q{COPY (SELECT * FROM pgmq.read('work', 3600, 3000)) TO STDOUT};
}
ok($node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity
	WHERE application_name = 'victim' AND wait_event = 'ClientWrite'}), 'a client does not take its result');
kill 'KILL', $reader;
waitpid($reader, 0);
wait_until_gone();
close $from;
close $to;
is($node->safe_psql('postgres', 'SELECT count(*), max(read_ct) FROM pgmq.q_work'), '3000|0', 'in the midst of a result: nothing is leased');
is(readable(), join(' ', $first .. $last), 'in the midst of a result: all of it comes back at once');

# Between the send and the commit; and after PREPARE, where another finishes it
$client = start_client(q{BEGIN; SELECT pgmq.send('empty', '"not sent"'); SELECT 'ready';});
wait_for_output($client, qr/ready/);
my $other = start_client(q{BEGIN; SELECT pgmq.send('empty', '"prepared"'); PREPARE TRANSACTION 'p'; SELECT 'ready';});
wait_for_output($other, qr/ready/);
$node->safe_psql('postgres', q{SELECT pgmq.send('empty', '"later"')});
is($node->safe_psql('postgres', q{SELECT message FROM pgmq.read('empty', 3600, 10)}), '"later"', 'before the commit: others go on');
vanish($_) foreach $client, $other;
wait_until_gone();
$node->safe_psql('postgres', q{COMMIT PREPARED 'p'});
is($node->safe_psql('postgres', q{SELECT message FROM pgmq.read('empty', 3600, 10)}), '"prepared"', 'after PREPARE: what was sent is handed out');

# The statement is at the server, and nobody waits for it: it is done, or not at all
foreach my $round (1 .. 5)
{
	my $sender = start_client(q{SELECT count(*) FROM pgmq.send_batch('empty', array_fill('1'::jsonb, ARRAY[20000])) AS s;});
	$node->poll_query_until('postgres', q{SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'victim'});
	vanish($sender);
}
wait_until_gone();
my $sent = $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.q_empty WHERE vt = enqueued_at});
is($sent % 20000, 0, "in the midst of a send: all of a batch or nothing ($sent)");
is($node->safe_psql('postgres', q{SELECT count(*), count(DISTINCT msg_id) FROM pgmq.pop('empty', 200000)}), "$sent|$sent",
	'in the midst of a send: what is there can be read');

$node->stop;
done_testing();

# Consumers that wait for groups: as many are told as there are groups, and one that can have
# no message because a trigger keeps it goes on waiting.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('waitinggroups');
$node->init;
# What nobody announces is no part of this
$node->append_conf('postgresql.conf', "pgmq.recheck_interval = '1h'\nmax_prepared_transactions = 10\nshared_preload_libraries = 'pgmq'\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman');

my $sleeping = q{FROM pg_stat_activity WHERE wait_event_type = 'Extension' AND state = 'active' AND query LIKE '%pgmq.%'};

sub send_to
{
	my ($queue, $group) = @_;

	$node->safe_psql('postgres', "SELECT pgmq.send('$queue', '1', '{\"x-pgmq-group\": \"$group\"}'::jsonb)");
}

# Consumers that wait, and say when they were told
sub waiters
{
	my ($count, $call) = @_;
	my @waiters = map { $node->background_psql('postgres') } 1 .. $count;

	$node->safe_psql('postgres', 'CREATE TABLE IF NOT EXISTS told (what text); TRUNCATE told');
	$_->query_until(qr/waiting/, "\\echo waiting\n$call;\nINSERT INTO told VALUES ('told');\n") foreach @waiters;
	ok($node->poll_query_until('postgres', "SELECT count(*) = $count $sleeping"), "$call: $count wait");
	return @waiters;
}

my %queues = (
	plain => [ q{SELECT pgmq.create('plain')}, q{SELECT pgmq.create_fifo_index('plain')} ],
	slow => [q{SELECT pgmq.create('slow')}],
	parts => [ q{SELECT pgmq.create_partitioned('parts', '1000', NULL, 2)}, q{SELECT pgmq.create_fifo_index('parts')} ],
);
my %calls = (
	wait_grouped => 'CALL pgmq.wait_grouped(%s, 600000)',
	poll => 'SELECT msg_id FROM pgmq.read_grouped_with_poll(%s, 600, 1, 600, 3600000)',
);
foreach my $queue (sort keys %queues)
{
	foreach my $call (sort keys %calls)
	{
		$node->safe_psql('postgres', join ';', @{ $queues{$queue} });
		my @waiters = waiters(4, sprintf($calls{$call}, "'$queue'"));

		foreach my $n (1 .. 3)
		{
			send_to($queue, "g$n");
			ok($node->poll_query_until('postgres', "SELECT count(*) >= $n FROM told"), "$queue, $call: message $n is told");
			ok($node->poll_query_until('postgres', "SELECT count(*) = 4 - $n $sleeping"), "$queue, $call: the others go on waiting");
			is($node->safe_psql('postgres', 'SELECT count(*) FROM told'), $n, "$queue, $call: to one consumer");
		}
		# Behind one that is held there is nothing for anybody, and a delete makes it available
		if ($call eq 'poll' && $queue ne 'slow')
		{
			send_to($queue, 'g1');
			ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $sleeping"), "$queue, $call: it goes on waiting");
			is($node->safe_psql('postgres', 'SELECT count(*) FROM told'), 3, "$queue, $call: nothing behind a message that is held");
			$node->safe_psql('postgres', "SELECT pgmq.delete('$queue', 1)");
		}
		else
		{
			send_to($queue, 'g4');
		}
		ok($node->poll_query_until('postgres', 'SELECT count(*) = 4 FROM told'), "$queue, $call: all have been told");
		$_->quit foreach @waiters;
		$node->safe_psql('postgres', "SELECT pgmq.drop_queue('$queue')");
	}
}

# An open or a prepared transaction is at work on a group's first message: nothing is there to
# be read of this group, and other groups can be read
foreach my $queue (sort keys %queues)
{
	my %claims = (
		'read' => "SELECT pgmq.read_grouped_head('$queue', 30, 20)",
		'delete' => "SELECT pgmq.delete('$queue', array_agg(msg_id)) FROM pgmq.q_$queue WHERE headers->>'x-pgmq-group' <> 'last'",
		'lock' => "SELECT FROM pgmq.q_$queue FOR UPDATE",
	);
	foreach my $claim (sort keys %claims)
	{
		$node->safe_psql('postgres', join ';', @{ $queues{$queue} });
		$node->safe_psql('postgres', "SELECT pgmq.send('$queue', '1', jsonb_build_object('x-pgmq-group', i % 20)) FROM generate_series(1, 40) AS i");
		$node->safe_psql('postgres', "BEGIN; $claims{$claim}; PREPARE TRANSACTION 'claim'");
		my ($waiter) = waiters(1, "CALL pgmq.wait_grouped('$queue', 600000)");
		is($node->safe_psql('postgres', "SELECT count(*) FROM pgmq.read_grouped('$queue', 30, 1)"), 0, "$queue, $claim: nothing is read");
		send_to($queue, 'last');
		ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM told'), "$queue, $claim: another group is told");
		is($node->safe_psql('postgres', "SELECT headers->>'x-pgmq-group' FROM pgmq.read_grouped('$queue', 30, 1)"), 'last',
			"$queue, $claim: and read, behind those that are claimed");
		$waiter->quit;
		($waiter) = waiters(1, "CALL pgmq.wait_grouped('$queue', 600000)");
		$node->safe_psql('postgres', q{ROLLBACK PREPARED 'claim'});
		ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM told'), "$queue, $claim: the end of the transaction, too");
		$waiter->quit;
		$node->safe_psql('postgres', "SELECT pgmq.drop_queue('$queue')");
	}
}

# A trigger keeps a message from being handed out.  The read goes on to wait, and does not try
# again all the time.
foreach my $index ('', q{SELECT pgmq.create_fifo_index('kept')})
{
	my $how = $index ? 'with the index' : 'without';

	$node->safe_psql('postgres', join ';', q{SELECT pgmq.create('kept')}, $index, q{
		CREATE SEQUENCE tries;
		CREATE OR REPLACE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$
		BEGIN
			IF NEW.headers->>'x-pgmq-group' <> 'a' THEN RETURN NEW; END IF;
			PERFORM nextval('tries');
			RETURN NULL;
		END $$;
		CREATE TRIGGER keep BEFORE UPDATE ON pgmq.q_kept FOR EACH ROW EXECUTE FUNCTION keep()});
	send_to('kept', 'a');
	my ($waiter) = waiters(1, q{SELECT msg_id FROM pgmq.read_grouped_with_poll('kept', 600, 5, 600, 3600000)});
	ok($node->poll_query_until('postgres', 'SELECT is_called FROM tries'), "$how: it has tried");
	ok($node->poll_query_until('postgres', "SELECT count(*) = 1 $sleeping"), "$how: it goes on waiting");
	send_to('kept', 'b');
	ok($node->poll_query_until('postgres', 'SELECT count(*) = 1 FROM told'), "$how: another group is handed out");
	cmp_ok($node->safe_psql('postgres', 'SELECT last_value FROM tries'), '<=', 6, "$how: it did not try all the time");
	$waiter->quit;
	$node->safe_psql('postgres', q{SELECT pgmq.drop_queue('kept'); DROP SEQUENCE tries});
}

$node->stop;
done_testing();

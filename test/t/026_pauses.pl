# Who waits for a queue that is paused is woken when the pause ends, by the clock or by resume_queue, and never by an
# interval: all intervals are ten minutes here, and no wait is allowed half of that.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqWaiters;

my $node = PostgreSQL::Test::Cluster->new('pauses');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('q');
	SELECT pgmq.create_fifo_index('q')});

# Three of a kind, so that those behind the first one are woken, too
my %waits = (
	plain => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)},
	condition => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000, '{"a": 1}')},
	fill => q{SELECT count(*) FROM pgmq.read_grouped_with_poll('q', 600, 1, 600, 600000)},
	round => q{SELECT count(*) FROM pgmq.read_grouped_rr_with_poll('q', 600, 1, 600, 600000)},
	head => q{SELECT count(*) FROM pgmq.read_grouped_head_with_poll('q', 600, 1, 600, 600000)},
	wait => q{CALL pgmq.wait('q', 600000)},
	wait_any => q{CALL pgmq.wait_any('{q}', 600000)},
	wait_grouped => q{CALL pgmq.wait_grouped('q', 600000)});
my %woken = (wait => 't', wait_any => '{q}', wait_grouped => 't');
my $SEND = q{SELECT count(*) FROM pgmq.send_batch('q', array_fill('{"a": 1}'::jsonb, '{9}'),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', i) FROM generate_series(1, 9) AS i))};

foreach my $kind (sort keys %waits)
{
	foreach my $end ('resumed', 'over', 'deleted by hand')
	{
		my @waiters;

		$node->safe_psql('postgres', "SELECT pgmq.purge_queue('q'); SELECT pgmq.pause_queue('q'); $SEND");
		push @waiters, start_waiter($node, "${kind}_$_", $waits{$kind}) foreach 1 .. 3;
		# What is sent while it is paused wakes nobody for good
		$node->safe_psql('postgres', $SEND);
		is(join(' ', map { $_->{harness}->pump_nb; $_->{out} } @waiters), '  ', "$kind: nobody gets anything while it is paused");
		if ($end eq 'resumed')
		{
			$node->safe_psql('postgres', q{BEGIN; SELECT pgmq.resume_queue('q'); COMMIT});
		}
		elsif ($end eq 'over')
		{
			$node->safe_psql('postgres', q{SELECT pgmq.pause_queue('q', clock_timestamp() + '300 ms')});
		}
		else
		{
			# A statement on the table wakes nobody by itself, the next send does
			$node->safe_psql('postgres', "DELETE FROM pgmq.policy; $SEND");
		}
		is(join(' ', map { ended($_) } @waiters), join(' ', ($woken{$kind} // '1') x 3), "$kind: all are woken when it is $end");
		is($node->safe_psql('postgres', q{SELECT pgmq.resume_queue('q'); SELECT count(*) FROM pgmq.policy}), "\n0", "$kind: no row is left");
	}
}

# A pause that is made while a session waits
$node->safe_psql('postgres', q{SELECT pgmq.purge_queue('q')});
my $waiter = start_waiter($node, 'late', $waits{plain} =~ s/count\(\*\)/clock_timestamp()/r);
$node->safe_psql('postgres', q{SELECT pgmq.pause_queue('q', clock_timestamp() + '500 ms'); SELECT pgmq.send('q', '1')});
my $got = ended($waiter);
is($node->safe_psql('postgres', "SELECT '$got' > paused_until FROM pgmq.policy"), 't', 'a pause that comes while a session waits counts');

$node->stop;
done_testing();

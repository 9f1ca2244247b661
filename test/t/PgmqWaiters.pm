# Sessions that wait for a queue while the test goes on.
package PgmqWaiters;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(until_true);
use IPC::Run ();

our @EXPORT = qw(start_waiter ended);

# start_waiter(node, name, sql): a psql of that name that waits meanwhile.  One that time wakes may be over before it
# was seen to sleep, where the machine is slow: option may_end.
sub start_waiter
{
	my ($node, $name, $sql, %options) = @_;
	my $run = { name => $name, out => '', err => '' };

	$run->{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . " application_name=$name", '-c', $sql ],
		'<', \'', '>', \$run->{out}, '2>', \$run->{err});
	until_true(sub {
		$options{may_end} && is_over($run) ||
		$node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
			WHERE application_name = '$name' AND state = 'active' AND wait_event_type = 'Extension'}) eq '1'
	}, "$name sleeps") or die "$name does not wait: $run->{err}";
	return $run;
}

sub is_over
{
	my ($run) = @_;

	$run->{harness}->pump_nb if $run->{harness}->pumpable;
	return !$run->{harness}->pumpable;
}

# ended(run): what it printed, when it is over
sub ended
{
	my ($run) = @_;
	my $over = until_true(sub { is_over($run) }, "end of $run->{name}");

	$run->{harness}->kill_kill unless $over;
	eval { $run->{harness}->finish };
	return $over ? "$run->{out}$run->{err}" =~ s/\n+\z//r : 'not woken';
}

1;

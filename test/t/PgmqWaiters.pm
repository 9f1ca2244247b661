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

# start_waiter(node, name, sql): a psql of that name that waits meanwhile
sub start_waiter
{
	my ($node, $name, $sql) = @_;
	my $run = { name => $name, out => '', err => '' };

	$run->{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . " application_name=$name", '-c', $sql ],
		'<', \'', '>', \$run->{out}, '2>', \$run->{err});
	until_true(sub {
		$node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
			WHERE application_name = '$name' AND state = 'active' AND wait_event_type = 'Extension'}) eq '1'
	}, "$name sleeps") or die "$name does not wait: $run->{err}";
	return $run;
}

# ended(run): what it printed, when it is over
sub ended
{
	my ($run) = @_;
	my $over = until_true(sub { !$run->{harness}->pumpable || do { $run->{harness}->pump_nb; 0 } }, "end of $run->{name}");

	$run->{harness}->kill_kill unless $over;
	eval { $run->{harness}->finish };
	return $over ? "$run->{out}$run->{err}" =~ s/\n+\z//r : 'not woken';
}

1;

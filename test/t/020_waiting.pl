# Who waits is woken: by commits, rollbacks, set_vt and the clock, never by an
# interval.  All intervals are ten minutes here, and no wait is allowed half of that.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(until_true);
use Time::HiRes qw(usleep);
use IPC::Run ();

my $node = PostgreSQL::Test::Cluster->new('waiting');
$node->init;
$node->append_conf('postgresql.conf', q{
# The timer of a login wakes a session once more, in whatever it does by then
authentication_timeout = '10min'
autovacuum = off
max_connections = 260
max_prepared_transactions = 5
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE EXTENSION dblink;
	SELECT pgmq.create('q')});

# A psql that runs SQL meanwhile
sub start_sql
{
	my ($name, $sql) = @_;
	my $run = { name => $name, out => '', err => '' };

	$run->{harness} = IPC::Run::start(
		[ 'psql', '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres') . " application_name=$name", '-c', $sql ],
		'<', \'', '>', \$run->{out}, '2>', \$run->{err});
	return $run;
}

# sleeps(name): whether this one waits for messages by now
sub sleeps
{
	my ($name) = @_;

	return until_true(sub {
		$node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity
			WHERE application_name = '$name' AND state = 'active' AND wait_event_type = 'Extension'}) eq '1'
	}, "$name sleeps");
}

sub start_waiter
{
	my ($name, $sql) = @_;
	my $run = start_sql($name, $sql // q{SELECT message FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)});

	sleeps($name) or die "$name does not wait: $run->{err}";
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

sub pid_of
{
	return $node->safe_psql('postgres', "SELECT pid FROM pg_stat_activity WHERE application_name = '$_[0]'");
}

sub empty { $node->safe_psql('postgres', q{SELECT pgmq.purge_queue('q')}); }

# A session that stays, for steps of transactions
my $other = $node->background_psql('postgres', on_error_stop => 1);

# woken_by(name, steps, expected): one who waits gets this after those steps
sub woken_by
{
	my ($name, $steps, $expected) = @_;
	my $waiter = start_waiter('one');

	$other->query_safe($_) foreach @$steps;
	is(ended($waiter), $expected, "woken by $name");
	empty();
}

woken_by('a send', [q{SELECT pgmq.send('q', '1')}], 1);
woken_by('a batch', [q{SELECT pgmq.send_batch('Q', '{2,3}')}], 2);
woken_by('the commit of a transaction', [ q{BEGIN}, q{SELECT pgmq.send('q', '4')}, q{SELECT pg_sleep(0.01)}, q{COMMIT} ], 4);
woken_by('what is left of a transaction with subtransactions',
	[ q{BEGIN; SAVEPOINT a; SELECT pgmq.send('q', '5'); SAVEPOINT b; SELECT pgmq.send('q', '6'); ROLLBACK TO b; RELEASE a; COMMIT} ], 5);
woken_by('a delay that ends', [q{SELECT pgmq.send('q', '7', 1)}], 7);
woken_by('COMMIT PREPARED',
	[ q{BEGIN; SELECT pgmq.send('q', '8'); PREPARE TRANSACTION 'p'}, q{COMMIT PREPARED 'p'} ], 8);
# more than a transaction can remember one by one
my $MANY = 300;
$node->safe_psql('postgres', "SELECT pgmq.create('many_' || i) FROM generate_series(1, $MANY) AS i");
woken_by('the last of many queues in a transaction',
	[ qq{BEGIN; SELECT count(*) FROM generate_series(1, $MANY) AS i, pgmq.send('many_' || i, '0'); SELECT pgmq.send('q', '9'); COMMIT} ], 9);

# given_back(name, steps that take a message, steps that give it back, the end): woken by the second
sub given_back
{
	my ($name, $take, $give_back, $end) = @_;

	$other->query_safe(q{SELECT pgmq.send('q', '"back"')});
	$other->query_safe($take);
	my $waiter = start_waiter('one');
	$other->query_safe($give_back);
	is(ended($waiter), '"back"', "woken by $name");
	$other->query_safe($end) if defined $end;
	empty();
}

given_back("the rollback of a read", q{BEGIN; SELECT pgmq.read('q', 600, 1)}, 'ROLLBACK');
given_back("the rollback of a pop", q{BEGIN; SELECT pgmq.pop('q')}, 'ROLLBACK');
given_back("the rollback of a delete", q{BEGIN; SELECT pgmq.delete('q', max(msg_id)) FROM pgmq.q_q}, 'ROLLBACK');
given_back("the rollback of an archive", q{BEGIN; SELECT pgmq.archive('q', array_agg(msg_id)) FROM pgmq.q_q}, 'ROLLBACK');
given_back("a rollback to a savepoint", q{BEGIN; SELECT pgmq.send('q', '1', 600); SAVEPOINT s; SELECT pgmq.read('q', 600, 1)}, 'ROLLBACK TO s', 'ROLLBACK');
given_back("ROLLBACK PREPARED", q{BEGIN; SELECT pgmq.read('q', 600, 1); PREPARE TRANSACTION 'p'}, q{ROLLBACK PREPARED 'p'});
given_back("set_vt", q{SELECT pgmq.read('q', 600, 1)}, q{SELECT pgmq.set_vt('q', max(msg_id), 0) FROM pgmq.q_q});
given_back("set_vt of an array, a second later", q{SELECT pgmq.read('q', 600, 1)},
	q{SELECT pgmq.set_vt('q', array_agg(msg_id), 1) FROM pgmq.q_q});
given_back("a read without a lease", q{BEGIN; SELECT pgmq.read('q', 0, 1)}, 'COMMIT');
given_back("a lease that was given while one waits", q{BEGIN; SELECT pgmq.read('q', 1, 1)}, 'COMMIT');

# A commit that comes late: its message lies in front of what was handed out since.
$other->query_safe(q{BEGIN; SELECT pgmq.send('q', '"late"')});
$node->safe_psql('postgres', q{SELECT pgmq.send_batch('q', array_fill('1'::jsonb, ARRAY[50])); SELECT pgmq.pop('q', 1) FROM generate_series(1, 50)});
my $late = start_waiter('late');
$other->query_safe('COMMIT');
is(ended($late), '"late"', 'a commit that comes late is not passed by');
empty();

# Conditions: told of everything, and takes no wake-up away.
my $picky = start_waiter('picky', q{SELECT message FROM pgmq.read_with_poll('q', 600, 1, 600, 600000, '{"a": 1}')});
my $plain = start_waiter('plain');
$other->query_safe(q{SELECT pgmq.send('q', '{"a": 2}')});
is(ended($plain), '{"a": 2}', 'who takes anything is woken beside one with a condition');
$other->query_safe(q{SELECT pgmq.send('q', '{"a": 1}')});
is(ended($picky), '{"a": 1}', 'and that one by what it wants');
empty();

# wait: no snapshot, so vacuum goes on; read_with_poll can't help having one.
sub dead_rows_after
{
	my ($waiter) = @_;
	my ($out, $err);

	$node->safe_psql('postgres', q{DROP TABLE IF EXISTS t; CREATE TABLE t AS SELECT generate_series(1, 100) AS a});
	my $run = start_waiter(@$waiter);
	my $xmin = $node->safe_psql('postgres', "SELECT coalesce(backend_xmin::text, 'none') FROM pg_stat_activity WHERE application_name = '$waiter->[0]'");
	$node->safe_psql('postgres', 'DELETE FROM t');
	$node->psql('postgres', 'VACUUM VERBOSE t', stderr => \$err);
	my ($dead) = $err =~ /(\d+) are dead but not yet removable/;
	$node->safe_psql('postgres', q{SELECT pgmq.send('q', '1')});
	return ($xmin, $dead, ended($run));
}
my ($xmin, $dead, $result) = dead_rows_after([ 'waits', q{CALL pgmq.wait('q', 600000)} ]);
is($xmin, 'none', 'wait holds no snapshot');
is($dead, 0, 'and vacuum removes what was deleted meanwhile');
is($result, 't', 'wait is woken');
empty();
($xmin, $dead, $result) = dead_rows_after([ 'polls' ]);
isnt($xmin, 'none', 'read_with_poll holds one');
is($dead, 100, 'and keeps vacuum from removing anything, as this test can tell');
empty();
$node->safe_psql('postgres', q{SELECT pgmq.create('r')});
my $any = start_waiter('any', q{CALL pgmq.wait_any('{q,R}', 600000)});
is($node->safe_psql('postgres', q{SELECT coalesce(backend_xmin::text, 'none') FROM pg_stat_activity WHERE application_name = 'any'}),
	'none', 'wait_any holds no snapshot');
$other->query_safe(q{SELECT pgmq.send('r', '1')});
is(ended($any), '{R}', 'wait_any is woken by any of its queues');
# What another transaction has taken and not committed yet is not there for wait
$other->query_safe(q{BEGIN; SELECT pgmq.read('r', 600, 1)});
my $held = start_waiter('held', q{CALL pgmq.wait('r', 600000)});
$other->query_safe('ROLLBACK');
is(ended($held), 't', 'wait does not see what somebody else has in hand, and is woken when it comes back');

# The wait event has a name where the server lets us give one.
my $named = start_waiter('named');
my $version = $node->safe_psql('postgres', 'SHOW server_version_num');
is($node->safe_psql('postgres', q{SELECT wait_event FROM pg_stat_activity WHERE application_name = 'named'}),
	$version >= 170000 ? 'PgmqWait' : 'Extension', 'wait event');

# Whatever ends a wait ends it at once.
my $pid = pid_of('named');
$node->safe_psql('postgres', "SELECT pg_cancel_backend($pid)");
like(ended($named), qr/canceling statement due to user request/, 'cancelled');
{
	local $ENV{PGOPTIONS} = '-c statement_timeout=200ms';
	my $timeout = start_sql('timeout', q{CALL pgmq.wait('q', 600000)});
	like(ended($timeout), qr/canceling statement due to statement timeout/, 'statement_timeout');
}
my $gone = start_waiter('gone');
my $gone_pid = pid_of('gone');
$gone->{harness}->signal('KILL');
ok(until_true(sub { $node->safe_psql('postgres', "SELECT count(*) FROM pg_stat_activity WHERE pid = $gone_pid") eq '0' },
	'the backend of a client that has gone'), 'the client has gone');
eval { $gone->{harness}->finish };

# A wake-up goes to who waits longest, of those that do not look at the clock.  Here
# that one can't react, and then goes away: somebody else has to get the message.
foreach my $how ('terminate', 'cancel')
{
	my @waiters = map { start_waiter("$how$_") } 1 .. 3;
	my $second = pid_of("${how}2");

	kill('STOP', $second) or die "cannot stop $second: $!";
	$other->query_safe(q{SELECT pgmq.send('q', '"passed on"')});
	$node->safe_psql('postgres', "SELECT pg_${how}_backend($second)");
	kill('CONT', $second);
	like(ended($waiters[1]), qr/terminating connection|canceling statement/, "who was woken is gone: $how");
	is(ended($waiters[2]), '"passed on"', "and has passed the wake-up on: $how");
	$other->query_safe(q{SELECT pgmq.send('q', '"last"')});
	is(ended($waiters[0]), '"last"', "and the first waits on: $how");
	empty();
}

# The leader goes: another sees to the clock.
my $leader = start_waiter('leader');
my $follower = start_waiter('follower');
$other->query_safe(q{SELECT pgmq.send('q', '"due"', 2)});
$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . pid_of('leader') . ')');
like(ended($leader), qr/terminating connection/, 'the leader is terminated');
is(ended($follower), '"due"', 'and the one after it sees to what becomes due');
empty();

# An error inside: a trigger refuses what was to be taken, the next gets on with it.
$node->safe_psql('postgres', q{
	CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('application_name') = 'refused' THEN RAISE 'refused'; END IF; RETURN new; END $$;
	CREATE TRIGGER refuse BEFORE UPDATE ON pgmq.q_q FOR EACH ROW EXECUTE FUNCTION refuse()});
my $first = start_waiter('first');
my $refused = start_waiter('refused');
my $next = start_waiter('next');
$other->query_safe(q{SELECT pgmq.send('q', '1')});
like(ended($refused), qr/refused/, 'an error in the one that was woken');
ok(until_true(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.q_q WHERE vt > now()}) eq '1' }, 'read'),
	'another has read the message');
$other->query_safe(q{SELECT pgmq.send('q', '2')});
is(join(' ', sort(ended($first), ended($next))), '1 2', 'and the third waits on');
$node->safe_psql('postgres', 'DROP TRIGGER refuse ON pgmq.q_q');
empty();

# One who fails while he has messages in hand: who has passed them by meanwhile is told.
$node->safe_psql('postgres', q{
	CREATE FUNCTION hold_and_refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('application_name') NOT IN ('holds', 'removes') THEN RETURN coalesce(new, old); END IF;
		PERFORM pg_advisory_xact_lock(7); RAISE 'refused'; END $$;
	CREATE TRIGGER hold BEFORE UPDATE OR DELETE ON pgmq.q_q FOR EACH ROW EXECUTE FUNCTION hold_and_refuse()});
foreach my $case ([ 'holds', q{SELECT pgmq.read('q', 600, 1)} ], [ 'removes', q{SELECT pgmq.delete('q', max(msg_id)) FROM pgmq.q_q} ])
{
	my ($name, $sql) = @$case;

	$other->query_safe(q{SELECT pg_advisory_lock(7); SELECT pgmq.send('q', '"passed by"')});
	my $holds = start_sql($name, $sql);
	until_true(sub { $node->safe_psql('postgres', qq{SELECT count(*) FROM pg_stat_activity WHERE application_name = '$name' AND wait_event = 'advisory'}) eq '1' }, "$name has it in hand");
	my $passer = start_waiter('passer');
	$other->query_safe(q{SELECT pg_advisory_unlock(7)});
	like(ended($holds), qr/refused/, "$name: fails");
	is(ended($passer), '"passed by"', "$name: and who passed by is woken");
	empty();
}
$node->safe_psql('postgres', 'DROP TRIGGER hold ON pgmq.q_q');

# A sweep that goes on where the last one stopped has not seen what was committed behind it.
$other->query_safe(q{BEGIN; SELECT pgmq.send('q', '"late"')});
my $second_late = $node->background_psql('postgres', on_error_stop => 1);
$second_late->query_safe(q{BEGIN; SELECT pgmq.send('q', '"later"')});
$node->safe_psql('postgres', q{SELECT pgmq.send_batch('q', array_fill('1'::jsonb, ARRAY[50])); SELECT pgmq.pop('q', 1) FROM generate_series(1, 50)});
$second_late->query_safe('COMMIT');
# one message at a time: the sweep stops behind the first that it finds
is($node->safe_psql('postgres', q{SELECT message FROM pgmq.read('q', 600, 1)}), '"later"', 'a sweep finds the second');
$other->query_safe('COMMIT');
is(ended(start_sql('sweeper', q{SELECT message FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)})), '"late"',
	'and the first one is not passed by after that');
$second_late->quit;
empty();

# What one has seen and left there, all the others see, too.  (The lock keeps the floors where they are.)
$other->query_safe(q{BEGIN; LOCK TABLE pgmq.q_q IN ROW EXCLUSIVE MODE});
$node->safe_psql('postgres', q{SELECT pgmq.send('q', '"seen"')});
is(join(' ', map { $node->safe_psql('postgres', $_) } (q{CALL pgmq.wait('q', 0)}) x 2, q{SELECT count(*) FROM pgmq.read('q', 600, 1)}),
	't t 1', 'a message that one has seen is there for the others');
$other->query_safe('COMMIT');
empty();

# 200 wait, and as many are woken as there are messages.  A process that was not
# woken has not run: its count of voluntary switches stays.
my $crowd = 200;
my $herd = $node->background_psql('postgres', on_error_stop => 1);
$herd->query_safe(qq{SELECT dblink_connect('c' || i, format('host=%s port=%s dbname=postgres application_name=herd', split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'))) FROM generate_series(1, $crowd) AS i});
$herd->query_safe(qq{SELECT dblink_send_query('c' || i, \$\$SELECT message FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)\$\$) FROM generate_series(1, $crowd) AS i});
ok(until_true(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'herd' AND wait_event_type = 'Extension'}) eq $crowd }, 'all wait'),
	"$crowd wait");

sub switches
{
	my %of;
	foreach my $pid (split /\n/, $node->safe_psql('postgres', q{SELECT pid FROM pg_stat_activity WHERE application_name = 'herd'}))
	{
		my $status = PostgreSQL::Test::Utils::slurp_file("/proc/$pid/status");
		($of{$pid}) = $status =~ /^voluntary_ctxt_switches:\s*(\d+)/m;
	}
	return \%of;
}

SKIP:
{
	skip 'needs /proc', 4 unless -r '/proc/self/status';
	foreach my $messages (1, 10)
	{
		my $before = switches();
		$other->query_safe(qq{SELECT pgmq.send_batch('q', array_fill('1'::jsonb, ARRAY[$messages]))});
		ok(until_true(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.q_q WHERE read_ct = 0}) eq '0' }, 'read'),
			"$messages sent are read");
		my $after = switches();
		my $woken = grep { $after->{$_} != $before->{$_} } keys %$before;
		cmp_ok($woken, '<=', $messages + 3, "of $crowd no more than " . ($messages + 3) . " were woken by $messages");
	}
}

# All at once: none is left behind.
$other->query_safe(qq{SELECT pgmq.send_batch('q', array_fill('1'::jsonb, ARRAY[$crowd - 11]))});
ok(until_true(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'herd' AND state = 'active'}) eq '0' }, 'none waits'),
	"$crowd messages, and none waits any more");
is($node->safe_psql('postgres', 'SELECT count(*), min(read_ct), max(read_ct) FROM pgmq.q_q'), "$crowd|1|1", 'each got one');

# The same of those that only wait.  Nobody reads the messages, so there is something to see all the time.
my $few = 20;
$herd->query_safe(qq{SELECT dblink_disconnect('c' || i) FROM generate_series($few + 1, $crowd) AS i});
$herd->query_safe(qq{SELECT count(*) FROM generate_series(1, $few) AS i, dblink_get_result('c' || i) AS r (message jsonb)}) for 1 .. 2;
empty();
$herd->query_safe(qq{SELECT dblink_send_query('c' || i, 'CALL pgmq.wait(''q'', 600000)') FROM generate_series(1, $few) AS i});
my $WAITING = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'herd' AND state = 'active'};
my $ASLEEP = "$WAITING AND wait_event_type = 'Extension'";
until_true(sub { $node->safe_psql('postgres', $ASLEEP) eq $few }, 'all wait');
foreach my $left ($few - 5, $few - 10)
{
	$other->query_safe(q{SELECT pgmq.send_batch('q', '{1,2,3,4,5}')});
	ok(until_true(sub { $node->safe_psql('postgres', $ASLEEP) eq $left }, "$left left"), "five messages end five waits of $few, $left are left");
	# the next one would have been woken by now
	usleep(100_000);
	is($node->safe_psql('postgres', $WAITING), $left, 'and no more');
}
$herd->quit;
empty();

# Commits when there is no memory: the process may not get another byte.
SKIP:
{
	skip 'needs prlimit', 6 if system('prlimit --version >/dev/null 2>&1') != 0;
	foreach my $queues (1, $MANY)
	{
		my $poor = $node->background_psql('postgres', on_error_stop => 0);
		my $poor_pid = $poor->query_safe('SELECT pg_backend_pid()');
		my $waiter = start_waiter('one');

		$poor->query_safe(q{BEGIN});
		$poor->query_safe("SELECT count(*) FROM generate_series(1, $queues) AS i, pgmq.send('many_' || i, '0')");
		$poor->query_safe(q{SELECT pgmq.send('q', '"poor"')});
		my ($size) = PostgreSQL::Test::Utils::slurp_file("/proc/$poor_pid/status") =~ /^VmSize:\s*(\d+)/m;
		system("prlimit --pid $poor_pid --as=" . ($size * 1024)) == 0 or die 'prlimit';
		$poor->query('COMMIT');
		is(ended($waiter), '"poor"', "woken by a commit that could not allocate, with $queues other queues");
		$poor->query(q{SELECT length(repeat('x', 200000000))});
		like($poor->{stderr}, qr/out of memory/, 'and there was none indeed');
		$poor->quit;
		empty();
	}
	unlike(PostgreSQL::Test::Utils::slurp_file($node->logfile), qr/PANIC/, 'no panic');
	is($node->safe_psql('postgres', 'SELECT 1'), 1, 'the server is up');
}

# The extension is dropped beside sessions that wait: they end with what was documented, or with a plain error
for my $call (q{CALL pgmq.wait('q', 2000)}, q{CALL pgmq.wait_grouped('q', 2000)}, q{CALL pgmq.wait_any('{q}', 2000)})
{
	my $waiter = start_waiter('beside', $call);

	$node->safe_psql('postgres', 'DROP EXTENSION pgmq CASCADE');
	like(ended($waiter), qr/^(f|\{\})$/, "$call says that nothing came, although the extension is gone");
	$node->safe_psql('postgres', q{DROP SCHEMA pgmq CASCADE; CREATE EXTENSION pgmq; SELECT pgmq.create('q')});
}

# Shutdown, and the same again after it
my $last = start_waiter('last', q{CALL pgmq.wait('q', 600000)});
my $poll = start_waiter('poll');
$other->quit;
$node->stop('fast');
like(ended($last), qr/terminating connection/, 'shutdown ends wait');
like(ended($poll), qr/terminating connection/, 'and read_with_poll');
$node->start;
$other = $node->background_psql('postgres', on_error_stop => 1);
woken_by('a send, after a restart', [q{SELECT pgmq.send('q', '1')}], 1);
my $crashed = start_waiter('crashed');
$other->quit;
$node->stop('immediate');
ended($crashed);
$node->start;
$other = $node->background_psql('postgres', on_error_stop => 1);
woken_by('a send, after a crash', [q{SELECT pgmq.send('q', '1')}], 1);
$other->quit;
$node->stop;

done_testing();

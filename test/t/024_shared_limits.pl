# What sessions share is limited, and a call can't make others pay.  Calls that are refused,
# fail or find nothing wake nobody.  A session that uses up what all share leaves enough for others.
# All intervals are ten minutes here, and no wait is allowed a fraction of that.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(until_true);
use Time::HiRes qw(usleep);

my $node = PostgreSQL::Test::Cluster->new('shared_limits');
$node->init;
$node->append_conf('postgresql.conf', q{
# The timer of a login wakes a session once more, in whatever it does by then
authentication_timeout = '10min'
autovacuum = off
max_connections = 100
max_prepared_transactions = 5
max_locks_per_transaction = 256
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
log_line_prefix = '%a '
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE EXTENSION dblink;
	SELECT pgmq.create('w');
	CREATE ROLE stranger;
	GRANT USAGE ON SCHEMA pgmq TO stranger});

sub sql { return $node->safe_psql('postgres', $_[0]); }

# ---- sessions that wait, each with a connection of dblink's ----

my $herd = $node->background_psql('postgres', on_error_stop => 1);

# start_herd(name, how many, what each runs)
sub start_herd
{
	my ($name, $count, $call) = @_;

	$herd->query_safe(qq{SELECT dblink_connect('$name' || i, format('host=%s port=%s dbname=postgres application_name=$name',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port'))) FROM generate_series(1, $count) AS i});
	$herd->query_safe(qq{SELECT dblink_send_query('$name' || i, \$call\$$call\$call\$) FROM generate_series(1, $count) AS i});
}

sub start_sleepers
{
	my ($name, $count, $call) = @_;

	start_herd($name, $count, $call);
	until_true(sub { asleep($name) == $count }, "$name wait") or die "$name do not wait";
}

sub asleep
{
	return sql(qq{SELECT count(*) FROM pg_stat_activity WHERE application_name = '$_[0]' AND state = 'active' AND wait_event_type = 'Extension'});
}

sub end_herd
{
	my ($name, $count) = @_;

	$herd->query_safe(qq{SELECT dblink_cancel_query('$name' || i), dblink_disconnect('$name' || i) FROM generate_series(1, $count) AS i});
}

# ---- calls that must wake nobody ----

my $CROWD = 10;
my $caller = $node->background_psql('postgres', on_error_stop => 0);
my @crowd;

# How often the processes of the crowd have slept: one that is woken goes to sleep once more.  On a busy machine that
# takes as long as it takes: the number counts when all of them sleep, and it is the same as a moment ago.
sub sleeps
{
	my $before = -1;

	until_true(sub {
		my @all = map { slurp_file("/proc/$_/status") } @crowd;
		my $asleep = grep { /^State:\s*S/m } @all;
		my $sum = 0;

		$sum += /^voluntary_ctxt_switches:\s*(\d+)/m ? $1 : die "no number of context switches in $_" foreach @all;
		my $rest = $asleep == @all && $sum == $before;
		$before = $sum;
		return $rest;
	}, 'all sleep') or die 'the crowd does not sleep';
	return $before;
}

# wakes_nobody(name, sql): errors are none of its business
sub wakes_nobody
{
	my ($name, $sql) = @_;
	my $before = sleeps();

	$caller->query($sql);
	$caller->{stderr} = '';
	usleep(100_000);
	my $woken = sleeps() - $before;
	cmp_ok($woken, '<=', 3, "wakes nobody: $name");
}

# in_block(how often, statement): in an exception block each
sub in_block
{
	my ($times, $statement) = @_;

	return qq{DO \$do\$ BEGIN
		FOR i IN 1..$times LOOP
			BEGIN
				$statement;
				RAISE division_by_zero;
			EXCEPTION WHEN insufficient_privilege OR undefined_table OR division_by_zero OR raise_exception
				OR invalid_row_count_in_limit_clause OR read_only_sql_transaction THEN NULL;
			END;
		END LOOP;
	END \$do\$};
}

my @taking = (
	q{pgmq.read('w', 0, 2147483647)}, q{pgmq.read('w', 30, NULL)}, q{pgmq.read('w', 30, 1, '{"a": 1}')}, q{pgmq.pop('w', 5)},
	q{pgmq.read_with_poll('w', 30, 1, 600, 1)}, q{pgmq.read_grouped('w', 30, 100)}, q{pgmq.read_grouped_rr('w', 30, 100)},
	q{pgmq.read_grouped_head('w', 30, 100)}, q{pgmq.read_grouped_with_poll('w', 30, 100, 600, 1)},
	q{pgmq.delete('w', 1)}, q{pgmq.delete('w', ARRAY[1, 2, 3])}, q{pgmq.archive('w', 1)}, q{pgmq.archive('w', ARRAY[1, 2])},
	q{pgmq.set_vt('w', 1, 0)}, q{pgmq.set_vt('w', 1, now())}, q{pgmq.set_vt('w', ARRAY[1, 2], 0)}, q{pgmq.set_vt('w', ARRAY[1, 2], now())});

SKIP:
{
	skip 'needs /proc', 1 unless -r '/proc/self/status';
	start_sleepers('takers', $CROWD, q{SELECT message FROM pgmq.read_with_poll('w', 600, 1, 600, 600000)});
	start_sleepers('watchers', $CROWD, q{CALL pgmq.wait('w', 600000)});
	@crowd = split /\n/, sql(q{SELECT pid FROM pg_stat_activity WHERE application_name IN ('takers', 'watchers')});
	is(scalar @crowd, 2 * $CROWD, 'a crowd sleeps');
	$caller->query_safe(q{SET pgmq.recheck_interval = 1; SELECT pgmq.send('none', '1') WHERE false});

	$caller->query_safe('SET ROLE stranger');
	wakes_nobody("200 refused calls of $_", in_block(200, "PERFORM * FROM $_")) foreach @taking;
	foreach my $what (q{pgmq.wait('w', 60000)}, q{pgmq.wait_any('{w}', 60000)})
	{
		# outside of a block: there a wait is refused for another reason
		wakes_nobody("refused calls of $what", "CALL $what;" x 50);
	}
	wakes_nobody('refused calls on 200 queues in a transaction',
		q{DO $$ BEGIN FOR i IN 1..200 LOOP BEGIN PERFORM pgmq.delete('n' || i, 1); EXCEPTION WHEN OTHERS THEN NULL; END; END LOOP; END $$});
	$caller->query_safe('RESET ROLE');

	$caller->query_safe(q{SELECT pgmq.create('mine_' || i) FROM generate_series(1, 200) AS i});
	wakes_nobody('sends to 200 other queues in a transaction',
		q{SELECT count(*) FROM generate_series(1, 200) AS i, pgmq.send('mine_' || i, '1')});
	wakes_nobody('deletes from 200 other queues that are rolled back',
		q{BEGIN; SELECT count(*) FROM generate_series(1, 200) AS i, pgmq.delete('mine_' || i, 1); ROLLBACK});
	wakes_nobody('calls on queues that do not exist', in_block(300, q{PERFORM * FROM pgmq.read('nowhere', 30, 1)}));
	wakes_nobody('calls that find nothing and are rolled back', in_block(300, "PERFORM * FROM $_"))
		foreach q{pgmq.read('w', 30, 2147483647)}, q{pgmq.pop('w', 5)}, q{pgmq.delete('w', ARRAY[1, 2, 3])}, q{pgmq.set_vt('w', 1, 0)};
	wakes_nobody('calls with bad arguments', in_block(300, "PERFORM * FROM $_"))
		foreach q{pgmq.read('w', 30, -1)}, q{pgmq.pop('w', -1)}, q{pgmq.send_batch('w', '{}')};
	wakes_nobody('reads in a read-only transaction',
		'BEGIN READ ONLY; ' . in_block(300, q{PERFORM * FROM pgmq.read('w', 30, 2147483647)}) . '; ROLLBACK');

	# and all of them can still be woken
	sql(qq{SELECT count(*) FROM pgmq.send_batch('w', array_fill('1'::jsonb, ARRAY[2 * $CROWD]))});
	ok(until_true(sub { asleep('takers') + asleep('watchers') == 0 }, 'all are woken'), 'and messages wake them');
	end_herd('takers', $CROWD);
	end_herd('watchers', $CROWD);
	sql(q{SELECT pgmq.purge_queue('w')});
}

# ---- messages of which the transaction doesn't know how many they are ----

# given_back(name, how to wait, transaction, what gives three messages back): three waits end
sub given_back
{
	my ($name, $call, $take, $give_back) = @_;
	my $WAITERS = 5;

	sql(q{SELECT pgmq.send_batch('w', '{1,2,3,4,5}')});
	$caller->query_safe($take);
	start_sleepers('back', $WAITERS, $call);
	$caller->query_safe($give_back);
	ok(until_true(sub { asleep('back') == $WAITERS - 3 }, $name), "$name: three waits end");
	usleep(100_000);
	is(asleep('back'), $WAITERS - 3, "$name: and no more");
	end_herd('back', $WAITERS);
	$caller->query_safe('ROLLBACK');
	sql(q{SELECT pgmq.purge_queue('w')});
}

foreach my $call (q{SELECT message FROM pgmq.read_with_poll('w', 600, 1, 600, 600000)}, q{CALL pgmq.wait('w', 600000)})
{
	my ($how) = $call =~ /pgmq\.(\w+)/;

	given_back("$how, a savepoint after earlier reads", $call,
		q{BEGIN; SELECT pgmq.pop('w', 2); SAVEPOINT s; SELECT pgmq.pop('w', 3)}, 'ROLLBACK TO s');
	given_back("$how, ROLLBACK PREPARED", $call,
		q{BEGIN; SELECT pgmq.pop('w', 2); COMMIT; BEGIN; SELECT pgmq.pop('w', 3); PREPARE TRANSACTION 'p'},
		q{ROLLBACK PREPARED 'p'; BEGIN});
	given_back("$how, COMMIT PREPARED", $call,
		q{BEGIN; SELECT pgmq.pop('w', 5); COMMIT; BEGIN; SELECT pgmq.send_batch('w', '{1,2,3}'); PREPARE TRANSACTION 'p'},
		q{COMMIT PREPARED 'p'; BEGIN});
}

# ---- sessions that take all places ----

# 4,096 of them, and half for sessions that have one already
$caller->query_safe(q{SELECT count(*) FROM (SELECT pgmq.create('h' || i) FROM generate_series(1, 1000) AS i) AS c});
my $ALL = q{(SELECT array_agg('h' || i) FROM generate_series(1, 1000) AS i)};
my $WAIT_FOR_ALL = qq{DO \$\$ DECLARE ready text[]; names text[] := $ALL; BEGIN CALL pgmq.wait_any(names, 600000, ready); END \$\$};
my $NO_PLACE = qr/LOG:  pgmq: too many waits for messages to wake this session/;
start_sleepers('hogs', 2, $WAIT_FOR_ALL);
unlike(slurp_file($node->logfile), qr/^hogs $NO_PLACE/m, 'two sessions wait for a thousand queues each');
start_herd('late', 1, $WAIT_FOR_ALL);
ok(until_true(sub { slurp_file($node->logfile) =~ /^late $NO_PLACE/m }, 'a third'), 'there are no places for a third');
start_sleepers('modest', 10, q{SELECT message FROM pgmq.read_with_poll('w', 600, 1, 600, 600000)});
unlike(slurp_file($node->logfile), qr/^modest $NO_PLACE/m, 'there are places for waits for one queue');
sql(q{SELECT pgmq.send_batch('w', '{1,2,3,4,5,6,7,8,9,10}')});
ok(until_true(sub { asleep('modest') == 0 }, 'others are woken'), 'and they are woken');
sql(q{SELECT pgmq.send('h1000', '1')});
ok(until_true(sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'late' AND state = 'active'}) eq '0' }, 'found'),
	'a session without places finds messages by looking');
is(sql(q{SELECT count(*) FROM pgmq.pop('h1000')}), '1', 'the message');
end_herd('modest', 10);
end_herd('late', 1);
end_herd('hogs', 2);
start_sleepers('again', 1, $WAIT_FOR_ALL);
unlike(slurp_file($node->logfile), qr/^again $NO_PLACE/m, 'places are free again when waits end');
end_herd('again', 1);

# What is taken beyond the places for positions and notifications: each call works
is(sql(q{SELECT count(*) FROM generate_series(1, 1000) AS i, pgmq.send('h' || i, to_jsonb(i))}), '1000', 'sent to many queues');
is(sql(q{SELECT count(*) FROM generate_series(1, 1000) AS i, pgmq.pop('h' || i) AS m WHERE m.message = to_jsonb(i)}), '1000', 'and popped from them');

$_->quit foreach ($caller, $herd);

# ---- queues with limits ----

# The first 64 that have a rate find their places, preloaded or not
$node->adjust_conf('postgresql.conf', 'shared_preload_libraries', "''");
$node->restart;
my $limited = sub {
	my ($first, $last) = @_;

	return sql(qq{
		SET client_min_messages = error;
		CREATE PROCEDURE pg_temp.make() LANGUAGE plpgsql AS \$\$
		BEGIN
			FOR i IN $first .. $last LOOP
				PERFORM pgmq.create('r' || i), pgmq.send('r' || i, '1'), pgmq.send('r' || i, '2');
				BEGIN
					PERFORM pgmq.set_policy('r' || i, rate_limit => 1, rate_period => '1 day');
				EXCEPTION WHEN out_of_memory THEN NULL; END;
				PERFORM pgmq.read('r' || i, 60, 1);
				COMMIT;
			END LOOP;
		END \$\$;
		CALL pg_temp.make();
		SELECT count(*) FROM pgmq.list_policies() AS p, pgmq.metrics(p.queue_name) AS m WHERE p.rate_limit = 1 AND m.queue_visible_length = 1});
};
sql(q{SELECT pgmq.create('early'), pgmq.set_policy('early', rate_limit => 1, rate_period => '1 day'), pgmq.create('free'), pgmq.send('free', '1')});
is($limited->(1, 64), '64', 'limits of 64 queues');
SKIP:
{
	skip 'all sessions have ample memory', 6 if $node->pg_version->major >= 17;
	my $places = $limited->(65, 300);

	is($places, 128, 'all places are taken, and each queue with a rate was read');
	my (undef, undef, $err) = $node->psql('postgres', q{\set VERBOSITY verbose
		SELECT pgmq.set_policy('free', max_in_flight => 5)});
	like($err, qr/ERROR:  53200: no shared memory for the limits of queue "free".*DETAIL:  Too many.*HINT:  Add pgmq to/s, 'no limit can be set that cannot be kept');
	(undef, undef, $err) = $node->psql('postgres', q{SELECT pgmq.read('early', 60, 1)});
	like($err, qr/no shared memory for the limits of queue "early"/, 'one that was set before has lost its place');
	is(sql(q{SELECT count(*) FROM pgmq.read('free', 60, 1)}), '1', 'a queue without limits needs none');
	is(sql(q{SELECT count(*) FROM pgmq.list_policies() AS p, pgmq.read(p.queue_name, 60, 1) WHERE p.queue_name <> 'early'}), '0', 'and limits hold');
	sql(q{SELECT pgmq.set_policy(queue_name, rate_period => '1 us') FROM pgmq.list_policies() WHERE queue_name <> 'early'});
	sql(q{SELECT count(*) FROM pgmq.list_policies() AS p, pgmq.read(p.queue_name, 60, 1) WHERE p.queue_name <> 'early'});
	is(sql(q{SELECT pgmq.set_policy('free', max_in_flight => 5), count(*) FROM pgmq.read('early', 60, 1)}), '|0', 'places are free again when allowances are whole');
}
unlike(slurp_file($node->logfile), qr/PANIC|TRAP/, 'nothing broke');
$node->stop;

done_testing();

# Sessions that wait for events are woken: by commits and rollbacks of those who publish, receive, advance and so on, and when a
# lease is over; never by an interval.  All intervals are ten minutes here, and no wait is allowed half of that.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(ok_until);
use PgmqWaiters;

my $node = PostgreSQL::Test::Cluster->new('streamwaiting');
$node->init;
$node->append_conf('postgresql.conf', q{
authentication_timeout = '10min'
autovacuum = off
max_prepared_transactions = 5
pgmq.recheck_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE EXTENSION dblink;
	CREATE FUNCTION here() RETURNS text LANGUAGE sql AS $$ SELECT format('host=%s port=%s dbname=postgres',
		split_part(current_setting('unix_socket_directories'), ',', 1), current_setting('port')) $$;
	CREATE TABLE held (lease bigint, event_id bigint);
	SELECT pgmq.create_stream('s')});

my $receive = q{SELECT message FROM pgmq.receive_with_poll('s', 'a', 600, 10, 600)};
my $wait = q{CALL pgmq.wait_stream('s', 'a', 600000)};
my $lease = q{INSERT INTO held SELECT lease, max(event_id) FROM pgmq.receive('s', 'a', 600, 2) GROUP BY 1};

my $one = q{SELECT pgmq.publish('s', '1')};
my $two = q{SELECT count(*) FROM pgmq.publish_batch('s', '{1,2}')};

# Another session, in which a transaction can stay open
my $other = $node->background_psql('postgres', on_error_stop => 1);
$other->query_safe('SET client_min_messages = error');

sub fresh
{
	$node->safe_psql('postgres', q{
		TRUNCATE held;
		DO 'BEGIN PERFORM pgmq.unsubscribe(''s'', n) FROM unnest(''{a,b}''::text[]) AS n; END';
		SELECT pgmq.subscribe('s', 'a'), pgmq.subscribe('s', 'b')});
	return;
}

# woken(name, before, first, last, got): sessions sleep, one from before "first" and one from after it, until "last" wakes them
sub woken
{
	my ($name, $before, $first, $last, $got) = @_;

	foreach my $by_receive (0, 1)
	{
		fresh();
		$node->safe_psql('postgres', $before) if $before;
		# Nobody waits while there are events
		my @waiters = $by_receive || $before eq $two || $before =~ /extend_lease/ ? () : (start_waiter($node, 'early', $wait));
		$other->query_safe($first) if $first;
		push @waiters, start_waiter($node, 'late', $by_receive ? $receive : $wait, may_end => ($name =~ /later|is over/ ? 1 : 0));
		$other->query_safe($last);
		my $ended = join ' ', map { ended($_) } @waiters;
		$other->query_safe('ROLLBACK');
		is($ended, $by_receive ? $got : join(' ', ('t') x @waiters), "$name: " . ($by_receive ? 'receive_with_poll' : 'wait_stream'));
	}
	return;
}

woken('a publish', '', '', $one, '1');
woken('a batch', '', '', $two, "1\n2");
woken('a commit', '', "BEGIN; $two", 'COMMIT', "1\n2");
woken('a publish in a savepoint', '', "BEGIN; SAVEPOINT a; $two; RELEASE a", 'COMMIT', "1\n2");
# The end of the stream moves
my $behind = q{SELECT count(*) FROM dblink(here(), $$SELECT pgmq.publish('s', '3')$$) AS t (id bigint)};
woken('a rolled-back publish', '', "BEGIN; $two; $behind", 'ROLLBACK', '3');
woken('a publish before a savepoint rolled back', '', "BEGIN; SAVEPOINT a; $two; $behind", 'ROLLBACK TO a', '3');
woken('a publisher whose session ends', '', q{SELECT dblink_connect('gone', here()), dblink_exec('gone', 'BEGIN'),
	dblink_exec('gone', 'DO $$ BEGIN PERFORM pgmq.publish(''s'', ''1''); END $$'); } . $behind, q{SELECT dblink_disconnect('gone')}, '3');
woken('a publish of a block that fails', '', 'BEGIN', qq{DO \$do\$ BEGIN BEGIN PERFORM pgmq.publish('s', '1');
	PERFORM * FROM dblink(here(), \$\$SELECT pgmq.publish('s', '3')\$\$) AS t (id bigint);
	RAISE 'no'; EXCEPTION WHEN raise_exception THEN NULL; END; END \$do\$}, '3');
woken('a prepared publish', '', "BEGIN; $two; PREPARE TRANSACTION 'p'", q{COMMIT PREPARED 'p'}, "1\n2");
woken('a prepared publish rolled back', '', "BEGIN; $two; $behind; PREPARE TRANSACTION 'p'", q{ROLLBACK PREPARED 'p'}, '3');
# A shard becomes free
woken('a returned lease', "$two; $lease", '', q{SELECT pgmq.return_lease('s', 'a', 0, lease) FROM held}, "1\n2");
woken('a returned lease, in an open transaction', "$two; $lease", q{BEGIN; SELECT pgmq.return_lease('s', 'a', 0, lease) FROM held}, 'COMMIT', "1\n2");
woken('the last event of a lease', "$two; $one; $lease", '', q{SELECT pgmq.advance('s', 'a', 0, event_id, lease) FROM held}, '1');
woken('the last event of a lease, in an open transaction', "$two; $one; $lease", q{BEGIN; SELECT pgmq.advance('s', 'a', 0, event_id, lease) FROM held}, 'COMMIT', '1');
woken('a shorter lease', "$two; $lease", '', q{SELECT pgmq.extend_lease('s', 'a', 0, lease, 0) FROM held}, "1\n2");
woken('a shorter lease that is over later', "$two; $lease", '', q{SELECT pgmq.extend_lease('s', 'a', 0, lease, 1) FROM held}, "1\n2");
woken('seek', "$two; $lease", '', q{SELECT pgmq.seek('s', 'a', 'earliest', force => true)}, $node->safe_psql('postgres', q{SELECT message FROM pgmq.fetch('s', 0, 0, 10)}));
woken('a rolled-back receive', $two, "BEGIN; $lease", 'ROLLBACK', "1\n2");
woken('a receive rolled back to a savepoint', $two, "BEGIN; SAVEPOINT a; $lease", 'ROLLBACK TO a', "1\n2");
woken('a rolled-back advance of a lease that is over', "$two; $lease; SELECT pgmq.extend_lease('s', 'a', 0, lease, 0) FROM held",
	q{BEGIN; SELECT pgmq.advance('s', 'a', 0, event_id, lease) FROM held}, 'ROLLBACK', "1\n2");
woken('a prepared receive rolled back', $two, "BEGIN; $lease; PREPARE TRANSACTION 'p'", q{ROLLBACK PREPARED 'p'}, "1\n2");
# A lease that is over
(my $short = $lease) =~ s/600, 2/1, 2/;
woken('a lease that is over', $two, $short, 'SELECT 1', "1\n2");
woken('a lease that is over before its commit', $two, 'BEGIN; ' . $lease =~ s/600, 2/0, 2/r, 'COMMIT', "1\n2");
woken('a lease of a transaction that is committed later', $two, "BEGIN; $short", 'COMMIT', "1\n2");

# ---- a subscription or a stream that goes away
foreach my $case ([ 'unsubscribe', q{SELECT pgmq.unsubscribe('s', 'a')}, qr/stream "s" has no subscription "a"/ ],
	[ 'drop_stream', q{SELECT pgmq.drop_stream('s')}, qr/There is no stream "s"/ ])
{
	fresh();
	my @waiters = map { start_waiter($node, $_, $_ eq 'receive' ? $receive : $wait) } qw(receive wait);
	$other->query_safe("BEGIN; $case->[1]; ROLLBACK");
	is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name IN ('receive', 'wait')}), '2', "$case->[0] rolled back: nothing has changed");
	$other->query_safe($case->[1]);
	like(ended($_), $case->[2], "$case->[0]: $_->{name}") foreach @waiters;
}
$node->safe_psql('postgres', q{SELECT pgmq.create_stream('s')});

# ---- what waiting costs
fresh();
my $spent = q{SELECT pg_snapshot_xmax(pg_current_snapshot()), pg_current_wal_insert_lsn()};
$node->safe_psql('postgres', 'VACUUM; CHECKPOINT');
my $before = $node->safe_psql('postgres', $spent);
my $waiter = start_waiter($node, 'idle', $receive);
is($node->safe_psql('postgres', q{SELECT backend_xid IS NULL, (SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND locktype <> 'virtualxid')
	FROM pg_stat_activity AS a WHERE application_name = 'idle'}), 't|0', 'receive_with_poll has no transaction id and no lock while it waits');
my $holder = start_waiter($node, 'snapshot', $wait =~ s/'a'/'b'/r);
is($node->safe_psql('postgres', q{SELECT backend_xid IS NULL AND backend_xmin IS NULL FROM pg_stat_activity WHERE application_name = 'snapshot'}),
	't', 'wait_stream has no snapshot either');
$node->safe_psql('postgres', q{SET pgmq.recheck_interval = '5ms'; CALL pgmq.wait_stream('s', 'a', 1000);
	SELECT pgmq.receive_with_poll('s', 'a', 1, 1, 1)});
is($node->safe_psql('postgres', $spent), $before, 'waiting and looking use no transaction id and no WAL');
$node->safe_psql('postgres', $one);
ended($_) foreach ($waiter, $holder);

# Transactions in this database, which a session reports when it ends or is idle
sub transactions
{
	return $node->safe_psql('postgres', q{SELECT pg_stat_force_next_flush(); SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()});
}
fresh();
$before = transactions();
$waiter = start_waiter($node, 'b', q{CALL pgmq.wait_stream('s', 'b', 600000)});
$other->query_safe(q{DO $$ BEGIN FOR i IN 1 .. 300 LOOP PERFORM pgmq.seek('s', 'a', 'earliest'); COMMIT; END LOOP; END $$});
my $active = q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'b' AND state = 'active'};
is($node->safe_psql('postgres', $active), '1', 'a change of another subscription ends no wait');
$node->safe_psql('postgres', $one);
is(ended($waiter), 't', 'an event does');
$other->quit;
my $after = transactions();
cmp_ok($after - $before, '<', 300 + 100, 'and is the only thing that causes a look');

# ---- an end of the session or of the statement frees the place
fresh();
$waiter = start_waiter($node, 'cancelled', $receive);
$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'cancelled'});
like(ended($waiter), qr/canceling statement/, 'a wait can be cancelled');
$waiter = start_waiter($node, 'terminated', $wait);
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'terminated'});
like(ended($waiter), qr/terminating connection/, 'or its session be ended');

# ---- a wait ends in time, whether there is nothing, or another session has it
foreach my $case ([ 'there is nothing', '' ], [ 'the events are leased', "$two; $lease" ])
{
	fresh();
	$node->safe_psql('postgres', $case->[1]) if $case->[1];
	my $asked = $node->safe_psql('postgres', 'SELECT clock_timestamp()');
	is($node->safe_psql('postgres', q{CALL pgmq.wait_stream('s', 'a', 300); SELECT count(*) FROM pgmq.receive_with_poll('s', 'a', 600, 10, 1)}), "f\n0",
		"$case->[0]: not true, and no rows");
	is($node->safe_psql('postgres', "SELECT clock_timestamp() - '$asked' >= interval '1.3 s'"), 't', "$case->[0]: but not before that");
	my (undef, undef, $error) = $node->psql('postgres', qq{SET statement_timeout = '200ms'; $wait});
	like($error, qr/canceling statement due to statement timeout/, "$case->[0]: statement_timeout counts, too");
}

# ---- at every isolation level
foreach my $level ('REPEATABLE READ', 'SERIALIZABLE')
{
	fresh();
	$waiter = start_waiter($node, 'level', "BEGIN ISOLATION LEVEL $level; SELECT count(*) FROM pgmq.p_s; $receive");
	$node->safe_psql('postgres', $one);
	is(ended($waiter), "2\n1", "$level: a wait sees what is published meanwhile");
}

# ---- more locks than a session remembers
$node->safe_psql('postgres', q{SELECT pgmq.create_stream('many' || i) FROM generate_series(1, 40) AS i; SELECT pgmq.subscribe('many40', 'a')});
$waiter = start_waiter($node, 'many', q{SELECT message FROM pgmq.receive_with_poll('many40', 'a', 600, 10, 600)});
$node->safe_psql('postgres', q{SELECT count(pgmq.publish('many' || i, to_jsonb(i))) FROM generate_series(1, 40) AS i});
is(ended($waiter), '40', 'a transaction that publishes to many streams');

# ---- maintenance locks the log, too
$node->safe_psql('postgres', q{
	SELECT pgmq.create_stream('made'), pgmq.subscribe('made', 'a');
	CREATE FUNCTION stop_here() RETURNS event_trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF EXISTS (SELECT FROM pg_catalog.pg_locks WHERE pid = pg_catalog.pg_backend_pid()
			AND relation = 'pgmq.s_made'::pg_catalog.regclass AND mode = 'ShareUpdateExclusiveLock')
		THEN
			PERFORM pg_catalog.pg_advisory_xact_lock(1);
		END IF;
	END $$;
	CREATE EVENT TRIGGER stop_here ON ddl_command_start WHEN TAG IN ('CREATE TABLE') EXECUTE FUNCTION stop_here()});
my $parts = $node->safe_psql('postgres', q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgmq.s_made'::regclass});
foreach my $end ('pg_cancel_backend', 'pg_advisory_unlock')
{
	my $holder = $node->background_psql('postgres');

	$holder->query_safe('SELECT pg_advisory_lock(1)');
	my $maintenance = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=maintenance', '-c',
		q{SET pgmq.maintenance_lock_timeout = '10min'; SET pgmq.maintenance_step_timeout = '10min'}, '-c', 'CALL pgmq.maintain()' ],
		'<', \'', '>', \my $out, '2>', \my $err);

	ok_until("$end: maintenance makes a part",
		sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted}) eq '1' });
	$node->safe_psql('postgres', q{SELECT pgmq.publish('made', '1')});
	$waiter = start_waiter($node, 'made', q{SELECT message FROM pgmq.receive_with_poll('made', 'a', 0, 10, 600)});
	if ($end eq 'pg_cancel_backend')
	{
		$node->safe_psql('postgres', q{SELECT pg_cancel_backend(pid) FROM pg_stat_activity WHERE application_name = 'maintenance'});
	}
	else
	{
		$holder->query_safe('SELECT pg_advisory_unlock(1)');
	}
	like(ended($waiter), qr/^1/, "$end: the end of its step ends the wait");
	$holder->quit;
	$maintenance->finish;
	$node->safe_psql('postgres', q{SELECT pgmq.seek('made', 'a', 'latest', force => true)});
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM pg_inherits WHERE inhparent = 'pgmq.s_made'::regclass}), $parts + 1, 'and the part was made');

$node->stop;
done_testing();

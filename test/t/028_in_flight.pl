# max_in_flight: never more messages leased at once, whatever ends the leases and whichever transactions commit; also after
# a restart or a crash; and who waits is woken when there is room again.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PgmqSql;
use PgmqWaiters;

my $node = PostgreSQL::Test::Cluster->new('in_flight');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
max_connections = 60
max_prepared_transactions = 2
pgmq.recheck_interval = '10min'
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', q{CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman});

# A queue of 3,000 messages in 1,000 groups
sub make_queue
{
	my ($create, $limit) = @_;

	$node->safe_psql('postgres', q{SELECT pgmq.drop_queue('q')}) if $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.meta});
	$node->safe_psql('postgres', "SELECT pgmq.$create; SELECT pgmq.create_fifo_index('q');" . join(';', (q{
		SELECT count(*) FROM pgmq.send_batch('q', array_fill('{"a": 1}'::jsonb, '{1000}'),
			ARRAY(SELECT jsonb_build_object('x-pgmq-group', i) FROM generate_series(1, 1000) AS i))}) x 3)
		. ";SELECT pgmq.set_policy('q', max_in_flight => $limit)");
	return;
}

# What is leased, by what has been committed
my $LEASED = q{SELECT count(*) FROM pgmq.q_q WHERE read_ct > 0 AND vt > clock_timestamp()
	AND coalesce(abs(pgmq_settled), 0) <> read_ct};

#################################################################### many consumers

my $LIMIT = 7;
# Only leases that go on for a while are re-timed.  If set_vt meets a lease that is over, the message is leased anew, whether
# there is room or not: see docs/policies.md, and test/sql/policy_in_flight.sql for what comes after that.
my %scripts = (
	ack => q{SELECT pgmq.delete('q', msg_id) FROM pgmq.read('q', 30, 2);},
	later => q{SELECT coalesce(max(msg_id), 0) AS id FROM pgmq.read('q', 30, 1) \gset
		SELECT pgmq.archive('q', :id);},
	expire => q{SELECT count(*) FROM pgmq.read('q', (1 * random())::int, 2);},
	undo => q{BEGIN; SELECT pgmq.delete('q', msg_id) FROM pgmq.read('q', 30, 3); ROLLBACK;},
	savepoint => q{BEGIN;
		SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM pgmq.q_q WHERE vt > now() ORDER BY random() LIMIT 2));
		SAVEPOINT s; SELECT pgmq.delete('q', msg_id) FROM pgmq.read('q', 30, 1); SELECT pgmq.read('q', 30, 2); ROLLBACK TO s;
		SELECT count(*) FROM pgmq.read_grouped('q', 2, 2); COMMIT;},
	retime => q{SELECT count(*) FROM pgmq.set_vt('q', ARRAY(SELECT msg_id FROM pgmq.q_q
		WHERE vt > clock_timestamp() + interval '10 s' AND read_ct > 0 ORDER BY random() LIMIT 2 FOR UPDATE SKIP LOCKED), (random() * 4)::int);},
	hold => q{SELECT count(*) FROM pgmq.read('q', 30, 2);},
	group => q{SELECT pgmq.delete('q', msg_id) FROM pgmq.read_grouped_rr_with_poll('q', 3, 2, 1);},
	pop => q{SELECT count(*) FROM pgmq.pop('q', 1);},
	condition => q{SELECT count(*) FROM pgmq.read('q', 30, 2, '{"a": 2}');},
	send => q{SELECT pgmq.send('q', '{"a": 1}');},
	take => q{SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM pgmq.q_q WHERE vt > now() LIMIT 3));});
while (my ($name, $text) = each %scripts)
{
	append_to_file($node->basedir . "/$name.sql", "$text\n");
}
foreach my $create (q{create('q')}, q{create_partitioned('q', '500')})
{
	make_queue($create, $LIMIT);
	my ($out, $err, $most, $samples, $ended) = ('', '', 0, 0, 1);
	my $monitor = $node->background_psql('postgres');
	my $deadline = time + $PostgreSQL::Test::Utils::timeout_default;
	# On a busy machine the monitor gets few samples in six seconds
	while ($ended && $samples <= 100 && time < $deadline)
	{
		my $load = IPC::Run::start([ 'pgbench', '-n', '-c', '20', '-T', 6, (map { ('-f', $node->basedir . "/$_.sql") } sort keys %scripts),
			'--max-tries=1000', $node->connstr('postgres') ], '>', \$out, '2>', \$err);
		while ($load->pumpable)
		{
			$load->pump_nb;
			my $leased = $monitor->query_safe($LEASED);
			$most = $leased if $leased > $most;
			$samples++;
		}
		$ended = $load->finish;
	}
	ok($ended, "$create: 20 consumers read") or diag($err);
	$monitor->quit;
	cmp_ok($most, '<=', $LIMIT, "$create: never more than $LIMIT are leased");
	cmp_ok($most, '>=', $LIMIT - 1, "$create: there were enough");
	cmp_ok($samples, '>', 100, "$create: enough samples");
	# Nothing is lost of the room.  No lease of the consumers may end meanwhile.
	sql(q{SELECT pgmq.set_vt('q', ARRAY(SELECT msg_id FROM pgmq.q_q WHERE vt > clock_timestamp() AND read_ct > 0), 600)});
	sql(q{SELECT pgmq.send_batch('q', array_fill('1'::jsonb, '{10}')); SELECT pgmq.read('q', 600, 100)});
	sql_is($LEASED, $LIMIT, "$create: all of the room is used");
	sql_is(q{SELECT count(*) FROM pgmq.read('q', 600, 1)}, '0', "$create: and not more");
}

###################################################### open and prepared transactions

my $READ = q{SELECT count(*) FROM pgmq.read('q', 600, 3)};

make_queue(q{create('q')}, 4);
sql_is("BEGIN; $READ; PREPARE TRANSACTION 'p'; $READ; $READ", "3\n1\n0", 'prepared leases count');
sql_is("ROLLBACK PREPARED 'p'; $READ; $READ", "3\n0", 'until they are rolled back');
$node->safe_psql('postgres', q{BEGIN; SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM pgmq.q_q WHERE vt > now())); PREPARE TRANSACTION 'p'});
sql_is("$READ", '0', 'what is acknowledged by a prepared transaction counts');
$node->restart;
sql_is("$READ", '0', 'also after a restart');
sql_is("COMMIT PREPARED 'p'; $READ; $READ", "3\n1", 'until that is committed');

$node->stop($_), $node->start, sql_is("$READ; SELECT pgmq.delete('q', (SELECT min(msg_id) FROM pgmq.q_q WHERE vt > now())); $READ", "0\nt\n1",
	"after a stop ($_) leases are counted from the table") foreach qw(fast immediate);

# A session is killed while its read is at work, before it has written a lease
$node->safe_psql('postgres', q{SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM pgmq.q_q WHERE vt > now()));
	CREATE FUNCTION wait_in_read() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN IF current_setting('application_name') = 'slow' THEN PERFORM pg_sleep(600); END IF; RETURN NULL; END $$;
	CREATE TRIGGER wait_in_read BEFORE UPDATE ON pgmq.q_q FOR EACH STATEMENT EXECUTE FUNCTION wait_in_read()});
my ($slow_out, $slow_err) = ('', '');
my $slow = IPC::Run::start([ 'psql', '-XAtq', '-d', $node->connstr('postgres') . ' application_name=slow', '-c', $READ ],
	'<', \'', '>', \$slow_out, '2>', \$slow_err);
until_true(sub { $node->safe_psql('postgres', q{SELECT count(*) FROM pg_stat_activity WHERE application_name = 'slow' AND wait_event = 'PgSleep'}) eq '1' }, 'it reads');
sql_is("$READ; $READ", "1\n0", 'a read at work has its places');
$node->safe_psql('postgres', q{SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity WHERE application_name = 'slow'});
eval { $slow->finish };
sql_is("$READ; $READ", "3\n0", 'which are free when it is killed');
$node->safe_psql('postgres', 'DROP TRIGGER wait_in_read ON pgmq.q_q');

# What an open transaction has acknowledged makes room for no other session
make_queue(q{create('q')}, 3);
my $open = $node->background_psql('postgres');
$open->query_safe(q{SELECT pgmq.read('q', 600, 3); BEGIN; SELECT pgmq.delete('q', ARRAY[1, 2, 3]); SELECT pgmq.read('q', 600, 1)});
sql_is(q{SELECT count(*) FROM pgmq.read('q', 600, 1)}, '0', 'nothing for others before the commit');
$open->query_safe('ROLLBACK');
$open->quit;

# A lease that ends before all others counts, also if it was prolonged or shortened since
make_queue(q{create('q')}, 2);
sql_is("SELECT 1 FROM pgmq.read('q', 600, 1); $READ; SELECT 1 FROM pgmq.set_vt('q', 1, 60); $READ; $READ", "1\n1\n1\n0\n0", 'a lease that was shortened');

################################################################# one active consumer

make_queue(q{create('q')}, 1);
sql_is("BEGIN; $READ; COMMIT; $READ; BEGIN; SELECT pgmq.delete('q', 1); $READ; ROLLBACK; $READ; SELECT pgmq.delete('q', 1); $READ",
	"1\n0\nt\n1\n0\nt\n1", 'one active consumer: in the place of what this transaction has acknowledged');
foreach my $i (2 .. 6)
{
	sql_is("SELECT msg_id FROM pgmq.next('q', 600, 5, ARRAY[$i], ARRAY[1]); $READ; SELECT msg_id FROM pgmq.next('q', 600, 5, ARRAY[$i], ARRAY[1])",
		$i + 1 . "\n0", "one active consumer: next gives the message after $i");
}

########################################################################## waiting

my %waits = (
	read => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000)},
	condition => q{SELECT count(*) FROM pgmq.read_with_poll('q', 600, 1, 600, 600000, '{"a": 1}')},
	grouped => q{SELECT count(*) FROM pgmq.read_grouped_with_poll('q', 600, 1, 600, 600000)},
	wait => q{CALL pgmq.wait('q', 600000)},
	wait_grouped => q{CALL pgmq.wait_grouped('q', 600000)});
my %ends = (
	'delete' => q{SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM held))},
	'delete one by one' => q{SELECT pgmq.delete('q', msg_id) FROM held},
	'archive' => q{SELECT pgmq.archive('q', ARRAY(SELECT msg_id FROM held))},
	'made visible' => q{SELECT pgmq.set_vt('q', ARRAY(SELECT msg_id FROM held), 0)},
	'nack' => q{SELECT pgmq.nack('q', msg_id, 1, NULL, 600) FROM held},
	'release' => q{SELECT pgmq.release('q', msg_id, 1, 600) FROM held},
	'raised' => q{SELECT pgmq.set_policy('q', max_in_flight => 30)},
	'reset' => q{SELECT pgmq.reset_policy('q')},
	'COMMIT PREPARED' => q{BEGIN; SELECT pgmq.delete('q', ARRAY(SELECT msg_id FROM held)); PREPARE TRANSACTION 'p'; COMMIT PREPARED 'p'},
	'lease' => '', 'rollback' => '', 'killed' => '');

foreach my $kind (sort keys %waits)
{
	foreach my $end (sort keys %ends)
	{
		make_queue(q{create('q')}, 3);
		my $holder = $node->background_psql('postgres');
		my $seconds = $end eq 'lease' ? 2 : 600;
		$holder->query_safe('BEGIN') if $end =~ /rollback|killed/;
		$holder->query_safe("SELECT pgmq.read('q', $seconds, 3)");
		$node->safe_psql('postgres', 'DROP TABLE IF EXISTS held; CREATE TABLE held AS SELECT msg_id FROM pgmq.q_q WHERE read_ct > 0');
		my @waiters = map { start_waiter($node, "${kind}_$_", $waits{$kind}, may_end => $end eq 'lease') } 1 .. 3;
		$node->safe_psql('postgres', $ends{$end}) if $ends{$end};
		$holder->query_safe('ROLLBACK') if $end eq 'rollback';
		$node->safe_psql('postgres', 'SELECT pg_terminate_backend(' . $holder->query_safe('SELECT pg_backend_pid()') . ', 60000)') if $end eq 'killed';
		is(join(' ', map { ended($_) } @waiters), join(' ', ($kind =~ /^wait/ ? 't' : '1') x 3), "$kind: all are woken: $end");
		eval { $holder->quit };
	}
}

#################################################################### a session that waits for room

# It knows when the first lease ends, and all else is announced.  So it does not count again and again.
make_queue(q{create_partitioned('q', '100')}, 2);
is($node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.read('q', 600, 5)}), 2, 'the limit is reached');
my $scans = sub {
	return $node->safe_psql('postgres', q{SELECT max(idx_scan) FROM pg_stat_all_indexes
		WHERE schemaname = 'pgmq' AND relname ~ '^q_q_p' AND indexrelname ~ '_vt_'});
};
my $before = $scans->();
is($node->safe_psql('postgres', q{CALL pgmq.wait('q', 2000)}), 'f', 'a session waits for room');
my $made = $scans->() - $before;
cmp_ok($made, '>', 0, 'it has counted');
cmp_ok($made, '<', 20, "$made times");

$node->stop;
done_testing();

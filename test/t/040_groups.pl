# Groups: the examples of the documentation; what dump, restore and crashes leave.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgmqSql qw(first_row_is);

my $node = PostgreSQL::Test::Cluster->new('groups');
$node->init;
$node->start;

# Every block of SQL in docs/groups.md is followed by what psql prints for it
sub examples
{
	my $text = slurp_file("$FindBin::RealBin/../../docs/groups.md");
	my @found;

	while ($text =~ /^```sql\n(.*?)^```\n\s*^```text\n(.*?)^```\n/gms)
	{
		push @found, [ $1, $2 ];
	}
	return @found;
}

sub without_trailing_space
{
	my ($text) = @_;
	$text =~ s/[ \t]+$//gm;
	$text =~ s/\n+\z/\n/;
	return $text;
}

$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');
my @examples = examples();
cmp_ok(scalar @examples, '>=', 7, 'the documentation has examples');
foreach my $example (@examples)
{
	my ($sql, $expected) = @$example;
	my $output = '';

	IPC::Run::run([ 'psql', '-X', '-q', '-d', $node->connstr('postgres') ],
		'<', \$sql, '>&', \$output);
	is(without_trailing_space($output), without_trailing_space($expected), "the example: $sql");
}

# What a grouped queue has and does, as text
sub contents
{
	my ($db) = @_;
	return $node->safe_psql($db, q{
		SELECT msg_id, headers, vt, enqueued_at, read_ct FROM pgmq.q_orders ORDER BY 1;
		SELECT grp, head, vt, enqueued_at FROM pgmq.g_orders ORDER BY 1, 2, 3;
		SELECT tgname FROM pg_trigger WHERE tgrelid = 'pgmq.q_orders'::regclass ORDER BY 1;
		SELECT indexdef FROM pg_indexes WHERE tablename IN ('q_orders', 'g_orders') ORDER BY 1;
		SELECT relname, relpersistence FROM pg_class WHERE relname LIKE 'g\_%' ORDER BY 1;
	});
}

# Consume everything by groups; the groups in the order in which their messages came
sub consume
{
	my ($db) = @_;
	return $node->safe_psql($db, q{
		CREATE TEMPORARY TABLE got (place serial, grp text, msg_id bigint);
		DO $$
		DECLARE
			ids bigint[];
		BEGIN
			LOOP
				WITH m AS (SELECT * FROM pgmq.read_grouped('orders', 60, 3)),
					g AS (INSERT INTO got (grp, msg_id) SELECT headers->>'x-pgmq-group', msg_id FROM m RETURNING msg_id)
				SELECT array_agg(msg_id) FROM g INTO ids;
				EXIT WHEN ids IS NULL;
				PERFORM pgmq.delete('orders', ids);
			END LOOP;
		END $$;
		SELECT grp, count(*), array_agg(msg_id ORDER BY place) = array_agg(msg_id ORDER BY msg_id) FROM got GROUP BY 1 ORDER BY 1;
	});
}

$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('orders'), pgmq.create_fifo_index('orders');
	SELECT pgmq.create_unlogged('scratch'), pgmq.create_fifo_index('scratch');
	SELECT pgmq.send_batch('orders', array_fill('1'::jsonb, '{200}'),
		ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 7) FROM generate_series(1, 200) AS i));
	SELECT pgmq.read_grouped_rr('orders', 3600, 14);
	SELECT pgmq.delete('orders', 1), pgmq.delete('orders', 8), pgmq.pop('orders', 2);
	SELECT pgmq.send_batch('scratch', array_fill('1'::jsonb, '{20}'));
});

# dump and restore, in both formats
my $before = contents('origin');
my $dir = $node->basedir;
command_ok([ 'pg_dump', '-Fp', '-f', "$dir/plain.sql", $node->connstr('origin') ], 'plain dump');
command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", $node->connstr('origin') ], 'custom dump');
$node->safe_psql('postgres', 'CREATE DATABASE plain');
$node->safe_psql('postgres', 'CREATE DATABASE custom');
command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/plain.sql", $node->connstr('plain') ], 'plain restore');
command_ok([ 'pg_restore', '-j', '2', '-d', $node->connstr('custom'), "$dir/custom" ], 'custom restore');
is(contents($_), $before, "$_: all is there again") foreach ('plain', 'custom');

# a crash: what was leased stays leased, an open transaction leaves nothing
my $session = $node->background_psql('origin');
$session->query_safe('BEGIN');
$session->query_safe(q{SELECT count(*) FROM pgmq.read_grouped('orders', 3600, 50)});
$session->query_safe(q{SELECT count(*) FROM pgmq.send_batch('orders', array_fill('1'::jsonb, '{5}'))});
$node->stop('immediate');
$node->start;
is(contents('origin'), $before, 'nothing of an open transaction is left after a crash');
is($node->safe_psql('origin', 'SELECT count(*) FROM pgmq.g_scratch'), '0', 'the notes of an unlogged queue are gone with it');
is($node->safe_psql('origin', q{SELECT pgmq.send('scratch', '1'); SELECT message FROM pgmq.read_grouped('scratch', 60, 5)}) =~ s/.*\n//r,
	'1', 'it goes on');

# groups with a leased first message stay blocked; with their leases given back all comes, in order
foreach my $db ('origin', 'plain', 'custom')
{
	my $first = consume($db);
	$node->safe_psql($db, q{SELECT pgmq.set_vt('orders', array_agg(msg_id), 0) FROM pgmq.q_orders});
	my $rest = consume($db);
	unlike("$first\n$rest", qr/\|f$/m, "$db: in order");
	is($node->safe_psql($db, 'SELECT count(*) FROM pgmq.q_orders'), '0', "$db: everything came");
	is($node->safe_psql($db, 'SELECT count(*) FROM pgmq.g_orders WHERE head > 0'), '0', "$db: and no note is left");
}

# What comes while a read is under way that looks more than once: the first look finds
# notes of very many empty groups, then there is one below the floors.  Meanwhile
# somebody sends to groups that the first look has found empty.
$node->safe_psql('postgres', 'CREATE DATABASE busy');
$node->safe_psql('busy', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('busy'), pgmq.create_fifo_index('busy');
});
foreach my $i (1 .. 20)
{
	$node->safe_psql('busy', q{
		SELECT pgmq.send('busy', '1');
		SELECT pgmq.delete('busy', msg_id) FROM pgmq.read_grouped('busy', 30, 1);
	});
}
$node->safe_psql('busy', q{
	INSERT INTO pgmq.g_busy (enqueued_at, vt, grp, head) SELECT now(), now(), 'g' || i, i FROM generate_series(1, 100000) AS i;
	INSERT INTO pgmq.g_busy (msg_id, enqueued_at, vt, grp, head) OVERRIDING SYSTEM VALUE SELECT -1, now(), now(), 'below', 1;
});
my ($in, $out, $err) = ('', '', '');
my $reader = IPC::Run::start([ 'psql', '-XqAt', '-d', $node->connstr('busy'), '-c',
	q{SET pgmq.rescan_interval = 0}, '-c', q{SELECT msg_id FROM pgmq.read_grouped('busy', 0, 1000)} ], \$in, \$out, \$err);
$node->poll_query_until('busy', q{SELECT EXISTS (SELECT FROM pg_locks WHERE relation = 'pgmq.g_busy'::regclass AND mode = 'RowExclusiveLock')});
$node->safe_psql('busy', join "\n", map { "SELECT pgmq.send('busy', '1', '{\"x-pgmq-group\": \"g$_\"}'::jsonb);" } 1 .. 100);
$reader->finish;
is($err, '', 'a read of very many notes');
is($node->safe_psql('busy', q{
	DO $$
	BEGIN
		FOR i IN 1 .. 10 LOOP
			PERFORM pgmq.delete('busy', msg_id) FROM pgmq.read_grouped_with_poll('busy', 0, 1000, 1, 10);
			EXIT WHEN NOT EXISTS (SELECT FROM pgmq.q_busy);
		END LOOP;
	END $$;
	SELECT count(*) FROM pgmq.q_busy;
}), '0', 'what was sent meanwhile is found');

# Who waits for groups that are not to be had writes nothing, and holds no lock on the queue
my $waiters = q{FROM pg_stat_activity AS a WHERE wait_event_type = 'Extension' AND query LIKE '%read_grouped%'};
my $waiter = $node->background_psql('postgres');
$node->safe_psql('postgres', q{
	SELECT pgmq.create('waited'), pgmq.create_fifo_index('waited');
	SELECT pgmq.send('waited', '1', jsonb_build_object('x-pgmq-group', i)) FROM generate_series(1, 50) AS i;
	SELECT pgmq.read('waited', 3600, 50);
});
$waiter->query_until(qr/waiting/, "\\echo waiting\nSELECT msg_id FROM pgmq.read_grouped_with_poll('waited', 60, 10, 600, 10);\n\\echo over\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT $waiters)");
first_row_is($node, "SELECT backend_xid, (SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND relation IN ('pgmq.q_waited'::regclass, 'pgmq.g_waited'::regclass)) $waiters",
	'|0', 'who waits for groups that others hold has no transaction id, and no locks');
$node->safe_psql('postgres', q{SELECT pgmq.set_vt('waited', 7, 0)});
like($waiter->query_until(qr/over/, ''), qr/^7$/m, 'and finds one that becomes free');
my $due = q{SELECT count(*) FROM pgmq.g_waited WHERE vt <= clock_timestamp()};
is($node->safe_psql('postgres', $due), '0', 'then the notes of all of them are put off');
$node->safe_psql('postgres', q{UPDATE pgmq.g_waited SET vt = clock_timestamp() WHERE head NOT IN (0, 7)});
is($node->safe_psql('postgres', "SELECT msg_id FROM pgmq.read_grouped_with_poll('waited', 60, 10, 1, 10); $due"), '0',
	'so they are at the end of a wait that finds nothing');
$waiter->quit;

# How far a look goes does not grow with what was consumed under a held snapshot, however
# many groups there are, without preloading
my $snapshot = $node->background_psql('postgres');
my $consumer = $node->background_psql('postgres');
my %visited;

sub visited
{
	$consumer->query_safe('SELECT pg_stat_force_next_flush()');
	return $consumer->query_safe(q{SELECT idx_tup_read FROM pg_stat_user_indexes WHERE indexrelname = 'q_kept_fifo_idx'});
}

$consumer->query_safe(q{
	SELECT pgmq.create('kept'), pgmq.create_fifo_index('kept');
	SELECT count(*) FROM pgmq.send_batch('kept', array_fill('1'::jsonb, '{20000}'),
		ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 1000) FROM generate_series(1, 20000) AS i));
	VACUUM ANALYZE pgmq.q_kept, pgmq.g_kept;
});
$snapshot->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM pgmq.meta');
foreach my $round (1 .. 18)
{
	my $before = visited();

	$consumer->query_safe(q{
		SELECT pgmq.delete('kept', ids) FROM (SELECT array_agg(msg_id) AS ids FROM pgmq.read_grouped_head('kept', 3600, 1000)) AS m});
	$visited{$round} = (visited() - $before) / 1000;
}
is($consumer->query_safe('SELECT count(*), min(msg_id) FROM pgmq.q_kept'), '2000|18001', 'messages of 1,000 groups were consumed');
cmp_ok($visited{2}, '>', 1, 'the entries that a look goes past are counted');
my $times = $visited{18} / $visited{2};
cmp_ok($times, '<', 2, sprintf('after 18 rounds under a held snapshot reads and deletes go past %.1f times as many entries as in the second', $times));

# A session that can't map where looks start does not keep it: then nobody uses it
my $cramped = $node->background_psql('postgres');
my $pid = $cramped->query_safe('SELECT pgmq.read(\'kept\', 0, 0); SELECT pg_backend_pid()');
my ($size) = slurp_file("/proc/$pid/status") =~ /^VmSize:\s+(\d+) kB/m;
system_or_bail('prlimit', '--pid', $pid, '--as=' . ($size + 3000) * 1024 . ':');
$cramped->query_safe(q{SELECT pgmq.send('kept', '1', '{"x-pgmq-group": 1}'::jsonb)});
$cramped->quit;
like(slurp_file($node->logfile), qr/could not allocate shared memory for the starts of message groups: could not map/, 'a session finds no room to map it');
my $last = visited();
is($consumer->query_safe(q{SELECT msg_id FROM pgmq.read_grouped_head('kept', 3600, 1)}), '18001', 'order is kept');
cmp_ok(visited() - $last, '>', 36, 'by a look that begins at the front of the group');
$_->quit foreach ($snapshot, $consumer);
$node->restart;					# from here on it is used again

# What a call costs does not grow with the number of groups that others hold, or that one call has handed out
SKIP:
{
	skip 'no account of CPU times here', 5 unless -r '/proc/self/schedstat';

	# Of the backend, for each of so many calls; the first plans
	sub cpu
	{
		my ($in, @calls) = @_;
		my $account = "SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)";

		$in->query_safe(shift @calls);
		my $before = $in->query_safe($account);
		$in->query_safe($_) foreach @calls;
		return ($in->query_safe($account) - $before) / @calls;
	}

	my (%delete, %look, %consume);
	$node->safe_psql('postgres', 'CREATE DATABASE costs');
	$node->safe_psql('costs', 'CREATE EXTENSION pgmq');
	foreach my $groups (100, 8000)
	{
		my $holder = $node->background_psql('costs');
		my $other = $node->background_psql('costs');

		$holder->query_safe(qq{
			SELECT pgmq.create('q$groups'), pgmq.create_fifo_index('q$groups');
			SELECT count(*) FROM pgmq.send_batch('q$groups', array_fill('1'::jsonb, '{@{[2 * $groups]}}'),
				ARRAY(SELECT jsonb_build_object('x-pgmq-group', i / 2) FROM generate_series(0, @{[2 * $groups - 1]}) AS i));
			VACUUM ANALYZE pgmq.q_q$groups, pgmq.g_q$groups;
			SELECT count(*) FROM pgmq.read_grouped('q$groups', 3600, @{[2 * $groups]});
			SELECT count(*) FROM pgmq.delete('q$groups', ARRAY(SELECT 2 * i - 1 FROM generate_series(1, 51) AS i));
		});
		$delete{$groups} = cpu($holder, map { "SELECT pgmq.delete('q$groups', 2 * $_)" } 1 .. 50);
		# What is held without a commit, and is looked at when there is nothing else
		$holder->query_safe("SELECT count(*) FROM pgmq.set_vt('q$groups', ARRAY(SELECT msg_id FROM pgmq.q_q$groups), 0); BEGIN;"
			. "SELECT count(*) FROM pgmq.read_grouped('q$groups', 3600, @{[2 * $groups]})");
		# It takes long to look at all of the notes, and is not done every time for that
		$look{$groups} = cpu($other, ("SELECT count(*) FROM pgmq.read_grouped('q$groups', 3600, 10)", 'SELECT pg_sleep(0.01)') x 10);
		$holder->quit;
		$other->quit;
	}
	# All of a group, one by one, in one transaction
	foreach my $messages (100, 3000)
	{
		my $session = $node->background_psql('costs');
		my $send = "SELECT count(*) FROM pgmq.send_batch('all', array_fill('1'::jsonb, '{$messages}'))";
		my $consume = "DO \$\$ BEGIN FOR i IN 1 .. $messages LOOP PERFORM pgmq.delete('all', msg_id) FROM pgmq.read_grouped('all', 60, 1); END LOOP; END \$\$";

		$session->query_safe("SELECT pgmq.create('all'), pgmq.create_fifo_index('all')");
		$consume{$messages} = cpu($session, "$send; $consume", "$send; $consume") / $messages;
		is($session->query_safe('SELECT count(*) FROM pgmq.q_all'), '0', "$messages messages were consumed one by one");
		$session->query_safe("SELECT pgmq.drop_queue('all')");
		$session->quit;
	}
	my $ratio = $delete{8000} / $delete{100};
	cmp_ok($ratio, '<', 4, sprintf('a delete costs %.1f times as much when 80 times as many groups were handed out with it', $ratio));
	$ratio = $look{8000} / $look{100};
	cmp_ok($ratio, '<', 20, sprintf('a read of nothing costs %.1f times as much when 80 times as many groups are held', $ratio));
	$ratio = $consume{3000} / $consume{100};
	cmp_ok($ratio, '<', 4, sprintf('each of 3,000 messages that are consumed in a transaction costs %.1f times as much as one of 100', $ratio));
}

done_testing();

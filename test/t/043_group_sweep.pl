# Message groups whose notes are lost: the sweep finds them.  Each part loses notes
# in one of the ways that a database has for it, and then all messages must be
# handed out by groups, in order.
use strict;
use warnings;

use FindBin;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $seconds = $ENV{PGMQ_TEST_SECONDS} // ($ENV{PGMQ_TEST_HALF} ? 4 : 8);
my $seed = $ENV{PGMQ_TEST_SEED} // 1;

my $node = PostgreSQL::Test::Cluster->new('sweep');
$node->init;
$node->append_conf('postgresql.conf', "max_prepared_transactions = 10\nwal_level = logical\nmax_wal_senders = 5\nmax_replication_slots = 5\n");
$node->start;

# Consume everything by groups; whether each group came in order, and how many messages there were
my $consume = q{
	CREATE TEMPORARY TABLE got (place serial, grp text, msg_id bigint);
	DO $$
	DECLARE
		ids bigint[];
		deadline timestamptz := clock_timestamp() + '30 s';
	BEGIN
		WHILE clock_timestamp() < deadline AND EXISTS (SELECT FROM pgmq.q_jobs) LOOP
			WITH m AS (SELECT * FROM pgmq.read_grouped('jobs', 60, 5)),
				g AS (INSERT INTO got (grp, msg_id) SELECT headers->>'x-pgmq-group', msg_id FROM m RETURNING msg_id)
			SELECT array_agg(msg_id) FROM g INTO ids;
			PERFORM pgmq.delete('jobs', ids);
			COMMIT;
		END LOOP;
	END $$;
	SELECT count(*), (SELECT count(*) FROM pgmq.q_jobs) AS left,
		(SELECT bool_and(sorted) FROM (SELECT array_agg(msg_id ORDER BY place) = array_agg(msg_id ORDER BY msg_id) AS sorted
			FROM got GROUP BY grp) AS groups) AS sorted FROM got;
};

sub make
{
	my ($db, @more) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, join ";\n", 'CREATE EXTENSION pgmq', "SELECT pgmq.create('jobs'), pgmq.create_fifo_index('jobs')", @more);
}

my $send = q{SELECT count(*) FROM pgmq.send_batch('jobs', array_fill('1'::jsonb, '{100}'),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 20) FROM generate_series(1, 100) AS i))};

# Statements that lose notes
my %losses = (
	'replica' => "SET session_replication_role = replica; $send; RESET session_replication_role; $send",
	'truncated' => "$send; TRUNCATE pgmq.g_jobs; $send",
	'deleted' => "$send; DELETE FROM pgmq.g_jobs; $send",
	'late' => "$send; UPDATE pgmq.g_jobs SET vt = clock_timestamp() + '1 day' WHERE head > 0; $send",
	'disabled' => "ALTER TABLE pgmq.q_jobs DISABLE TRIGGER USER; $send; ALTER TABLE pgmq.q_jobs ENABLE TRIGGER USER; $send",
	'copied' => "CREATE TABLE kept AS SELECT * FROM pgmq.q_jobs; $send; INSERT INTO kept SELECT * FROM pgmq.q_jobs; "
	  . "DELETE FROM pgmq.q_jobs; SET session_replication_role = replica; INSERT INTO pgmq.q_jobs OVERRIDING SYSTEM VALUE SELECT * FROM kept; RESET session_replication_role; $send",
	'reindexed' => "$send; REINDEX TABLE pgmq.q_jobs; REINDEX TABLE pgmq.g_jobs; $send",
	'rewritten' => "$send; VACUUM FULL pgmq.g_jobs; CLUSTER pgmq.g_jobs USING g_jobs_pkey; $send",
	'unindexed' => "$send; DO \$\$ DECLARE d text; BEGIN SELECT pg_get_indexdef('pgmq.q_jobs_fifo_idx'::regclass) INTO d; "
	  . "DROP INDEX pgmq.q_jobs_fifo_idx; PERFORM pgmq.send('jobs', '1', '{\"x-pgmq-group\": \"unseen\"}'::jsonb) FROM generate_series(1, 100); "
	  . "EXECUTE d; END \$\$",
);
foreach my $loss (sort keys %losses)
{
	make($loss);
	# More than one transaction: VACUUM wants one of its own
	$node->safe_psql($loss, $_) foreach $loss eq 'rewritten' ? split(/; /, $losses{$loss}) : ($losses{$loss});
	like($node->safe_psql($loss, $consume), qr/^200\|0\|t$/m, "$loss: all messages come, in order");
}

# What is dumped in parts, and restored in any order
make('origin', $send, $send);
my $dir = $node->basedir;
my %parts = (schema => ['-s'], data => ['-a'], unhindered => [ '-a', '--disable-triggers' ],
	map { $_ => ["--section=$_"] } ('pre-data', 'data', 'post-data'));
delete $parts{data};
$parts{rows} = ['-a'];
$parts{'section-data'} = ['--section=data'];
foreach my $part (keys %parts)
{
	command_ok([ 'pg_dump', '-f', "$dir/$part.sql", @{ $parts{$part} }, $node->connstr('origin') ], "dump: $part");
}
my @orders = ([qw(schema rows)], [qw(schema unhindered)], [qw(pre-data section-data post-data)], [qw(pre-data post-data section-data)]);
foreach my $order (@orders)
{
	my $db = join('_', 'restored', @$order) =~ s/-/_/gr;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	command_ok([ 'psql', '-X', '-q', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/$_.sql", $node->connstr($db) ], "$db: $_") foreach @$order;
	like($node->safe_psql($db, $consume), qr/^200\|0\|t$/m, "$db: all messages come, in order");
}

# Two consumers never have the same group, though the note that said that a message came late was lost
make('held', $send);
my @session = map { $node->background_psql('held') } 1 .. 3;
$session[0]->query_safe('BEGIN; CREATE TEMPORARY TABLE id AS SELECT nextval(pg_get_serial_sequence(\'pgmq.q_jobs\', \'msg_id\')) AS id');
$node->safe_psql('held', q{SELECT pgmq.purge_queue('jobs'); SELECT pgmq.send('jobs', '1', '{"x-pgmq-group": "a"}'::jsonb)});
is($session[1]->query_safe(q{SELECT count(*) FROM pgmq.read_grouped('jobs', 60, 1)}), '1', 'a message is held');
$session[0]->query_safe(q{INSERT INTO pgmq.q_jobs (msg_id, vt, enqueued_at, message, headers) OVERRIDING SYSTEM VALUE SELECT id, now(), now(), '1', '{"x-pgmq-group": "a"}' FROM id; COMMIT});
is($session[2]->query_safe(q{SELECT count(*) FROM pgmq.read_grouped('jobs', 60, 1)}), '0', 'one that came late in front of it waits');
$node->safe_psql('held', 'TRUNCATE pgmq.g_jobs');
is($session[2]->query_safe(q{SELECT count(*) FROM pgmq.read_grouped('jobs', 60, 1)}), '0', 'also when the notes are lost');
is($session[2]->query_safe(q{SELECT count(*) FROM pgmq.read_grouped('jobs', 60, 1)}), '0', 'and the sweep has been over them');
$_->quit foreach @session;

# What logical replication brings fires no triggers: the copy that a subscription begins with, and
# what is sent while a consumer reads
make('publisher', $send, 'CREATE PUBLICATION jobs FOR TABLE pgmq.q_jobs');
$node->safe_psql('publisher', q{SELECT pg_create_logical_replication_slot('jobs', 'pgoutput')});
make('subscriber', "SELECT pgmq.send('jobs', '1', '{\"x-pgmq-group\": \"own\"}'::jsonb)", "SELECT pgmq.pop('jobs')");
$node->safe_psql('subscriber', 'CREATE SUBSCRIPTION jobs CONNECTION ' . "'" . ($node->connstr('publisher') =~ s/'/''/gr) . "'"
	  . q{ PUBLICATION jobs WITH (create_slot = false, slot_name = 'jobs')});
$node->poll_query_until('subscriber', q{SELECT count(*) = 100 FROM pgmq.q_jobs}) or die 'no copy';
$node->safe_psql('publisher', $send);
my $all = $node->safe_psql('publisher', 'SELECT pg_current_wal_lsn()');
$node->poll_query_until('publisher', "SELECT confirmed_flush_lsn >= '$all' FROM pg_replication_slots WHERE slot_name = 'jobs'") or die 'no stream';
like($node->safe_psql('subscriber', $consume), qr/^200\|0\|t$/m, 'logical replication: all messages come, in order');
$node->safe_psql('subscriber', 'ALTER SUBSCRIPTION jobs DISABLE');
$node->safe_psql('subscriber', 'ALTER SUBSCRIPTION jobs SET (slot_name = NONE)');
$node->safe_psql('subscriber', 'DROP SUBSCRIPTION jobs');
$node->poll_query_until('publisher', q{SELECT NOT active FROM pg_replication_slots WHERE slot_name = 'jobs'}) or die 'the slot is in use';
$node->safe_psql('publisher', q{SELECT pg_drop_replication_slot('jobs')});

# Under load, with everything at once
my @restart = ('pg_ctl', '-D', $node->data_dir, '-l', $node->logfile, '-m', 'immediate', '-w', 'restart');
foreach my $what (qw(standard partitioned crashes))
{
	my $output = '';
	my $kind = $what eq 'crashes' ? 'standard' : $what;
	my @more = $what eq 'crashes' ? join(' ', @restart) : ();

	$node->safe_psql('postgres', "CREATE DATABASE $what");
	$node->safe_psql($what, 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman');
	IPC::Run::run([ '/usr/bin/python3', "$FindBin::RealBin/../faults/damage.py", $node->connstr($what), $seconds, $seed, $kind, @more ],
		'>&', \$output, IPC::Run::timeout($seconds + $PostgreSQL::Test::Utils::timeout_default));
	note($output);
	like($output, qr/^ok - damage/m, "$what: every message is delivered once, in order, whatever is done to notes and index") or diag($output);
}

$node->stop;
done_testing();

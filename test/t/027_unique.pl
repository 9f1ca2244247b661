# Many senders of few keys, with rollbacks, savepoints, prepared transactions, ended sessions and a crash, while
# consumers remove messages.  Then the history says whether a key ever had two messages at once.
#
# What a transaction did is in the table done, which it writes itself; the server knows when each was committed.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use IPC::Run;
use PgmqSql;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('unique');
$node->init;
$node->append_conf('postgresql.conf', q{
fsync = off
log_statement = none
track_commit_timestamp = on
max_prepared_transactions = 20
});
$node->start;
sql_on($node, 'postgres');

sql(q{
	CREATE EXTENSION pgmq;
	CREATE EXTENSION pg_partman;
	SELECT pgmq.create('work'), pgmq.create_partitioned('parts', '1000', '1000000'), pgmq.create('window');
	CREATE TABLE done (queue text, what text, key text, msg_id bigint, began timestamptz, at timestamptz);
	-- On a queue without a window: one message, or several
	CREATE FUNCTION send_one(queue text, key text, span interval) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
		sent record;
		at timestamptz;
	BEGIN
		SELECT * INTO sent FROM pgmq.send_unique(queue, to_jsonb(key), key, span);
		IF NOT sent.is_duplicate THEN
			EXECUTE format('SELECT enqueued_at FROM pgmq.%I WHERE msg_id = $1', 'q_' || queue) INTO STRICT at USING sent.msg_id;
		END IF;
		INSERT INTO done VALUES (queue, CASE WHEN sent.is_duplicate THEN 'duplicate' ELSE 'sent' END, key, sent.msg_id, began, at);
	END$$;
	CREATE FUNCTION send_many(queue text, keys text[], span interval) RETURNS void LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
	BEGIN
		INSERT INTO done
		SELECT queue, CASE WHEN s.is_duplicate THEN 'duplicate' ELSE 'sent' END, keys[s.n], s.msg_id, began
		FROM ROWS FROM (pgmq.send_unique_batch(queue, ARRAY(SELECT to_jsonb(k) FROM unnest(keys) WITH ORDINALITY AS u (k, n) ORDER BY n), keys, span))
			WITH ORDINALITY AS s (msg_id, is_duplicate, n);
	END$$;
	CREATE FUNCTION take(queue text, quantity int) RETURNS void LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO done SELECT queue, 'taken', p.message #>> '{}', p.msg_id FROM pgmq.pop(queue, quantity) AS p;
	END$$;
});

# What each kind of client repeats.  A key is one of five; the window is a third of a second.
my %scripts = (
	sender => q{
\set key random(1, 5)
\set queue random(1, 3)
SELECT (ARRAY['work', 'parts', 'window'])[:queue] AS queue, CASE WHEN :queue = 3 THEN '300 ms'::interval END AS span \gset
SELECT send_one(':queue', 'k:key', NULLIF(':span', '')::interval);
},
	careless => q{
\set key random(1, 5)
\set end random(1, 3)
BEGIN;
SELECT send_one('work', 'k:key', NULL), send_one('window', 'k:key', '300 ms');
\if :end = 1
COMMIT;
\elif :end = 2
ROLLBACK;
\else
SAVEPOINT s;
SELECT send_one('parts', 'k:key', NULL);
ROLLBACK TO s;
SELECT send_one('parts', 'k:key', NULL);
COMMIT;
\endif
},
	batcher => q{
\set shift random(1, 5)
\set both random(1, 2)
SELECT send_many((ARRAY['work', 'parts'])[:both], ARRAY(SELECT 'k' || 1 + (i * :shift + :shift) % 5 FROM generate_series(1, 4) AS i), NULL);
},
	preparer => q{
\set key random(1, 5)
\set n random(1, 1000000000)
\set end random(1, 2)
BEGIN;
SELECT send_one('work', 'k:key', NULL);
PREPARE TRANSACTION 'p:n';
\if :end = 1
COMMIT PREPARED 'p:n';
\else
ROLLBACK PREPARED 'p:n';
\endif
},
	consumer => q{
\set queue random(1, 3)
\set end random(1, 4)
BEGIN;
SELECT take((ARRAY['work', 'parts', 'window'])[:queue], 2);
\if :end = 1
ROLLBACK;
\else
COMMIT;
\endif
});
my %clients = (sender => 4, careless => 2, batcher => 2, preparer => 1, consumer => 3);
my $dir = PostgreSQL::Test::Utils::tempdir();

sub start_clients
{
	my ($seconds) = @_;

	return map {
		my $file = "$dir/$_.sql";
		append_to_file($file, $scripts{$_}) unless -e $file;
		{ kind => $_, err => "$dir/$_.err", run => IPC::Run::start([ 'pgbench', '-n', '-c', $clients{$_}, '-T', $seconds, '--max-tries=100',
			'-f', $file, '-d', $node->connstr('postgres') . ' application_name=clients' ], '>', '/dev/null', '2>', "$dir/$_.err") }
	} sort keys %clients;
}

sub finish
{
	foreach my $client (@_)
	{
		$client->{run}->finish;
		my @lines = split /\n/, slurp_file($client->{err});
		my @others = grep { /ERROR/ && !/could not serialize|deadlock/ } @lines;
		is_deeply(\@others, [], "$client->{kind}: no other errors");
		push @main::deadlocks, grep { /deadlock/ } @lines;
	}
	return;
}

my $rounds = $ENV{PGMQ_TEST_SECONDS} ? int($ENV{PGMQ_TEST_SECONDS} / 4) + 1 : 3;
our @deadlocks;
my $ended = 0;
foreach my $round (1 .. $rounds)
{
	my @running = start_clients(4);

	# Sessions are ended while they work, one after the other
	foreach (1 .. 4)
	{
		ok_until("a session of a sender is ended", sub {
			(sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'clients' ORDER BY query !~ 'send_', random() LIMIT 1}))[0] eq 't' });
		$ended++;
	}
	finish(@running);
	if ($round == 1)
	{
		$node->stop('immediate');
		$node->start;
	}
	my ($prepared) = sql('SELECT gid FROM pg_prepared_xacts');
	sql("ROLLBACK PREPARED '$_'") foreach split /\n/, $prepared;
	sql('CALL pgmq.maintain()');
}

# A message is in its queue from the commit that has sent it to the commit that has taken it.  The time of a commit is a
# moment before others see it.
sql(q{
	ANALYZE done;
	CREATE TABLE history AS
	SELECT s.queue, s.key, s.msg_id, s.at AS sent_at, pg_xact_commit_timestamp(s.xmin) AS sent, pg_xact_commit_timestamp(t.xmin) AS taken
	FROM done AS s LEFT JOIN done AS t ON t.queue = s.queue AND t.msg_id = s.msg_id AND t.what = 'taken' WHERE s.what = 'sent';
	ANALYZE history});
sql_is(q{SELECT count(*) FROM (
	SELECT taken, lead(sent) OVER (PARTITION BY queue, key ORDER BY sent) AS next FROM history WHERE queue <> 'window') AS h
	WHERE coalesce(taken, 'infinity') > next}, '0', 'no key had two messages at once');
sql_is(q{SELECT count(*) FROM (
	SELECT sent_at - lag(sent_at) OVER (PARTITION BY key ORDER BY msg_id) AS pause FROM history WHERE queue = 'window') AS h
	WHERE pause < '300 ms'}, '0', 'no key sent two messages in its window');
sql_is(q{SELECT count(*) FROM done AS d WHERE what = 'duplicate' AND NOT EXISTS (SELECT FROM done AS s
	WHERE s.queue = d.queue AND s.msg_id = d.msg_id AND s.key = d.key AND s.what = 'sent')}, '0',
	'each duplicate is of a message that was sent with the key');
sql_is(q{SELECT count(*) FROM done AS d JOIN history AS h USING (queue, msg_id) WHERE d.what = 'duplicate' AND d.queue <> 'window'
	AND h.taken < d.began - '1 second'::interval}, '0', 'and that had not left the queue');
sql_is(q{SELECT count(*) FROM done WHERE what <> 'duplicate' GROUP BY queue, what, msg_id HAVING count(*) > 1}, '',
	'nothing was sent or taken twice');
sql_is(q{SELECT count(*) FROM history WHERE taken IS NULL AND NOT (msg_id = ANY (ARRAY(SELECT msg_id FROM pgmq.q_work)
	|| ARRAY(SELECT msg_id FROM pgmq.q_parts) || ARRAY(SELECT msg_id FROM pgmq.q_window)))}, '0', 'nothing was lost');
is(scalar @deadlocks, 0, 'no call deadlocked with another') or diag(join("\n", @deadlocks));

# Did all of this happen?
my ($seen) = sql(q{SELECT queue || ' ' || what || ' ' || count(*) FROM done GROUP BY queue, what ORDER BY 1});
note($seen);
foreach my $queue (qw(work parts window))
{
	foreach my $what (qw(sent duplicate taken))
	{
		my ($count) = $seen =~ /^$queue $what (\d+)$/m;
		cmp_ok($count // 0, '>=', $queue eq 'window' ? 20 : 100, "$queue: enough $what");
	}
}
is($ended, 4 * $rounds, 'sessions were ended');
sql_is(q{SELECT count(DISTINCT key) FROM done WHERE what = 'sent' GROUP BY queue}, "5\n5\n5", 'of each key');

$node->stop;
done_testing();

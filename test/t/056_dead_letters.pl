# Dead messages: a move beside open commands on its target, any number of them before what is live, and clients that
# fail, roll back and crash: each message is in one place, and no delivery fails more often than max_reads.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('dead');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
log_statement = none
max_connections = 30
});
$node->start;
sql_on($node, 'postgres');
sub one { return (sql(@_))[0] }

sql('CREATE EXTENSION pgmq; CREATE ROLE stranger');

# ---- a read waits for no command on another queue, and loses nothing ----

my $other = $node->background_psql('postgres');
my @commands = (
	['LOCK TABLE pgmq.q_letters', '0 0'],
	['LOCK TABLE pgmq.a_moves', '0 1'],
	['REINDEX TABLE pgmq.q_letters', '0 0'],
	[q{SELECT pgmq.drop_queue('letters')}, '0 1'],
	['ALTER TABLE pgmq.q_letters RENAME TO q_renamed', '0 1'],
	['ALTER TABLE pgmq.q_letters OWNER TO stranger', '0 1']);
for my $case (@commands)
{
	my ($command, $after) = @$case;
	my $target = $command =~ /a_moves/ ? 'missing' : 'letters';

	sql(q{SELECT pgmq.create('moves'), pgmq.create('letters');
		SELECT pgmq.set_policy('moves', max_reads => 1, dead_letter_queue => 'letters');
		SELECT pgmq.send('moves', '1');
		SELECT count(*) FROM pgmq.read('moves', 0, 1)});
	sql(q{UPDATE pgmq.policy SET dead_letter_queue = 'missing'}) if $target eq 'missing';
	$other->query_safe("BEGIN; $command");
	sql_is(q{SET statement_timeout = '60s'; SELECT count(*) FROM pgmq.read('moves', 0, 1)}, '0', "a read beside $command");
	sql_is('SELECT count(*) FROM pgmq.q_moves', '1', 'leaves the message');
	$other->query_safe('ROLLBACK');
	$other->query_safe("BEGIN; $command");
	sql_is(q{SELECT count(*) FROM pgmq.read('moves', 0, 1)}, '0', 'and so again');
	$other->query_safe('COMMIT');
	sql_is(q{SELECT count(*) FROM pgmq.read('moves', 0, 1)}, '0', 'after the commit');
	sql_is(q{SELECT (SELECT count(*) FROM pgmq.q_moves) || ' ' || (SELECT count(*) FROM pgmq.a_moves)}, $after,
		'a read moves it');
	sql(q{DROP TABLE IF EXISTS pgmq.q_renamed;
		SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues()});
}
$other->quit;

# ---- any number of dead messages before the live ones ----

my $MANY = 300_000;
my $LIVE = 2_000;

sql(q{
CREATE TABLE call (n serial, got int, moved bigint);
CREATE PROCEDURE call(calls int) LANGUAGE plpgsql AS $$
DECLARE
	before bigint;
	found int;
BEGIN
	FOR i IN 1 .. calls LOOP
		SELECT count(*) INTO before FROM pgmq.q_letters;
		SELECT count(*) INTO found FROM pgmq.read('many', 3600, 1);
		INSERT INTO call (got, moved) SELECT found, count(*) - before FROM pgmq.q_letters;
		COMMIT;
		EXIT WHEN found > 0 AND calls = 10000;
	END LOOP;
END $$});

sql(q{
CREATE FUNCTION buffers() RETURNS int LANGUAGE plpgsql AS $$
DECLARE
	plan json;
BEGIN
	EXECUTE 'EXPLAIN (ANALYZE, BUFFERS, FORMAT json) SELECT * FROM pgmq.read(''many'', 3600, 1)' INTO plan;
	RETURN (plan -> 0 -> 'Plan' ->> 'Shared Hit Blocks')::int;
END $$});

for my $kind ('due', 'fresh')
{
	my $vt = $kind eq 'due' ? q{t + interval '1 hour'} : 't';

	sql(qq{TRUNCATE call RESTART IDENTITY;
		SELECT pgmq.create('many'), pgmq.create('letters');
		SELECT pgmq.set_policy('many', max_reads => 2, message_ttl => '1 day', dead_letter_queue => 'letters');
		INSERT INTO pgmq.q_many (read_ct, enqueued_at, vt, message)
			SELECT 2 * (i % 2), t, $vt, to_jsonb(i) FROM generate_series(1, $MANY) AS i,
				LATERAL (SELECT now() - interval '3 days' + i * interval '1 ms' AS t) AS x;
		SELECT count(*) FROM pgmq.send_batch('many', array_fill('"live"'::jsonb, '{$LIVE}'));
		VACUUM ANALYZE pgmq.q_many});
	sql('CALL call(10000)');
	my ($calls, $moved) = split /\|/, one('SELECT count(*), max(moved) FROM call');
	cmp_ok($calls, '<', 500, "$kind: reads skip what they do not move ($calls calls)");
	cmp_ok($moved, '<=', 100, "$kind: a read moves at most 100");

	# While most of them are still there, a read costs what it costs before nothing
	sql('CALL call(500)');
	is(one('SELECT sum(got) FROM call WHERE n > ' . $calls), '500', "$kind: each read finds a message");
	cmp_ok(one('SELECT max(moved) FROM call'), '<=', 100, "$kind: they go on moving, at most 100 in a call");
	my $hits = one(q{SELECT percentile_cont(0.5) WITHIN GROUP (ORDER BY buffers()) FROM generate_series(1, 101)});
	cmp_ok($hits, '<', 50, "$kind: a read stays flat ($hits buffers)");
	cmp_ok(one('SELECT count(*) FROM pgmq.q_many'), '>', $MANY / 2, "$kind: before the dead messages");

	# No message is lost on the way, and none is delivered
	is(one(qq{SELECT (SELECT count(*) FROM pgmq.q_many) + (SELECT count(*) FROM pgmq.q_letters)}), $MANY + $LIVE,
		"$kind: nothing is lost");
	is(one(q{SELECT count(*) FROM pgmq.q_many WHERE last_read_at IS NOT NULL AND message <> '"live"'}), '0',
		"$kind: nothing dead was delivered");
	sql(q{SELECT pgmq.drop_queue('many'), pgmq.drop_queue('letters')});
}

# ---- clients that fail, roll back and crash, beside moves that fail ----

my $SENT = 3_000;

sql(qq{
SELECT pgmq.create('work'), pgmq.create('letters');
SELECT pgmq.set_policy('work', max_reads => 3, dead_letter_queue => 'letters', retry_delay_max => '1 second');
SELECT count(*) FROM pgmq.send_batch('work', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, $SENT) AS i));
CREATE TABLE acked (key jsonb);
CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql AS \$\$
BEGIN
	IF random() < 0.1 THEN RAISE 'no room' USING ERRCODE = 'disk_full'; END IF;
	RETURN NEW;
END \$\$;
CREATE TRIGGER fail BEFORE INSERT ON pgmq.q_letters FOR EACH ROW EXECUTE FUNCTION fail();
CREATE PROCEDURE work() LANGUAGE plpgsql AS \$\$
DECLARE
	m pgmq.message_record;
	dice float := random();
BEGIN
	SET LOCAL client_min_messages = error;
	FOR m IN SELECT * FROM pgmq.read('work', 0, (1 + random() * 5)::int) LOOP
		IF dice < 0.2 AND pgmq.ack('work', m.msg_id, m.read_ct) THEN
			INSERT INTO acked VALUES (m.message);
		ELSIF dice < 0.5 THEN
			PERFORM pgmq.nack('work', m.msg_id, m.read_ct, 'failed', 0);
		END IF;
	END LOOP;
	IF random() < 0.1 THEN ROLLBACK; END IF;
END \$\$});
my $script = PostgreSQL::Test::Utils::tempdir() . '/work.sql';
append_to_file($script, "CALL work();\n");
my @clients = ('pgbench', '-n', '-c', '8', '-j', '2', '-f', $script, '-h', $node->host, '-p', $node->port);
my $clients = IPC::Run::start([@clients, '-T', '600', 'postgres'], '>', \my $out, '2>', \my $err);
ok_until('clients work', sub { one('SELECT count(*) > 50 FROM acked') eq 't' });
ok_until('and messages die', sub { one('SELECT count(*) > 50 FROM pgmq.q_letters') eq 't' });
$node->stop('immediate');
$clients->finish;
$node->start;
ok_until('all messages are acked or dead', sub {
	IPC::Run::run([@clients, '-t', '50', 'postgres'], '>', \my $said, '2>', \my $warned);
	return one('SELECT count(*) FROM pgmq.q_work') eq '0';
});
is(one(qq{SELECT count(*), count(DISTINCT key), max(read_ct)
	FROM (SELECT key, 0 AS read_ct FROM acked
		UNION ALL SELECT message, (headers -> 'x-dlq-read-ct')::int FROM pgmq.q_letters
		UNION ALL SELECT message, read_ct FROM pgmq.a_work
		UNION ALL SELECT message, read_ct FROM pgmq.q_work) AS m}), "$SENT|$SENT|3",
	'each is in one place, and none failed more than three times');

# ---- after a restart nothing is known: the first read looks at a part of the dead messages, and the next ones go on ----

sql(q{SELECT pgmq.create('many'); SELECT pgmq.set_policy('many', max_reads => 3, dead_letter_queue => 'letters');
	INSERT INTO pgmq.q_many (vt, read_ct, message) SELECT now() - interval '1 hour' + g * interval '1 us', 3, '1'
	  FROM generate_series(1, 60000) AS g;
	SELECT pgmq.send('many', '"behind"')});
$node->restart;
cmp_ok((split /\n/, one(q{BEGIN; SELECT count(*) FROM pgmq.read('many', 600, 1);
	SELECT pg_stat_get_xact_tuples_returned('pgmq.q_many_pkey'::regclass)}))[-1], '<', 30000, 'the first read is short');
ok_until('reads find what is behind', sub { one(q{SELECT message FROM pgmq.read('many', 600, 1)}) eq '"behind"' });

# ---- a program that ends empty reads with a rollback gets past dead messages, too ----

sql(q{
SELECT pgmq.create('undone'); SELECT pgmq.set_policy('undone', max_reads => 1);
INSERT INTO pgmq.q_undone (vt, read_ct, message) SELECT now() - interval '1 hour' + g * interval '1 us', 1, '1'
  FROM generate_series(1, 100000) AS g;
SELECT pgmq.send('undone', '"behind"');
SELECT pgmq.create('heads'), pgmq.create_fifo_index('heads'); SELECT pgmq.set_policy('heads', message_ttl => '1 hour');
SELECT count(*) FROM pgmq.send_batch('heads', array_fill('1'::jsonb, ARRAY[5000]),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', g) FROM generate_series(1, 5000) AS g));
UPDATE pgmq.q_heads SET enqueued_at = enqueued_at - interval '2 hours', vt = enqueued_at - interval '2 hours';
SELECT pgmq.send('heads', '"behind"', '{"x-pgmq-group": "live"}'::jsonb);
CREATE TABLE calls (n int);
CREATE PROCEDURE read_or_roll_back(call text) LANGUAGE plpgsql AS $$
DECLARE
	got jsonb;
	empty int := 0;
BEGIN
	FOR i IN 1 .. 2000 LOOP
		EXECUTE call INTO got;
		EXIT WHEN got IS NOT NULL;
		ROLLBACK;
		empty := empty + 1;
	END LOOP;
	INSERT INTO calls VALUES (empty);
	IF got IS DISTINCT FROM '"behind"' THEN RAISE 'got %', got; END IF;
END $$});
foreach my $read ([ 'read', 'undone' ], [ 'read_grouped_head', 'heads' ])
{
	my ($function, $queue) = @$read;
	my $why;

	is($node->psql('postgres', "CALL read_or_roll_back('SELECT message FROM pgmq.$function(''$queue'', 600, 1)')", stderr => \$why), 0,
		"$function: reads that are rolled back find what is behind") or diag($why);
	is(one("SELECT count(*) > 0 FROM calls; TRUNCATE calls"), 't', "$function: there were such reads");
	cmp_ok(one("SELECT count(*) FROM pgmq.q_$queue"), '>', 4900, "$function: and the dead messages are still there");
}

# ---- what becomes available late comes before all that is due was read, even if a dead message was passed ----

sql(q{
CREATE PROCEDURE read_until_late() LANGUAGE plpgsql AS $$
BEGIN
	FOR i IN 1 .. 4000 LOOP
		EXIT WHEN EXISTS (SELECT FROM pgmq.read('backlog', 600, 10) WHERE message = '"late"');
		COMMIT;
	END LOOP;
END $$});
my $late = $node->background_psql('postgres');
foreach my $way ('is sent', 'comes back')
{
	my $send = q{SELECT pgmq.send('backlog', '"late"', 1)};

	sql(q{SELECT pgmq.create('backlog'); SELECT pgmq.set_policy('backlog', max_reads => 1, dead_letter_queue => 'letters')});
	$late->query_safe($way eq 'is sent' ? "BEGIN; $send" : $send);
	sql(q{SELECT pgmq.send('backlog', '"dead"')});
	sql_is(q{SELECT message FROM pgmq.read('backlog', 0, 1);
		SELECT count(*) FROM pgmq.send_batch('backlog', array_fill('1'::jsonb, '{30000}'), 1)}, qq{"dead"\n30000}, "$way: a message is dead");
	ok_until("$way: messages are due", sub { one(q{SELECT count(*) = 30000 FROM pgmq.q_backlog WHERE vt < now() AND message = '1'}) eq 't' });
	$late->query_safe(q{BEGIN; SELECT pgmq.delete('backlog', (SELECT msg_id FROM pgmq.q_backlog WHERE message = '"late"'))}) if $way eq 'comes back';
	my @reads = map { join(' ', sql(q{SELECT count(*) FROM pgmq.read('backlog', 600, 10)})) } 1 .. 3;
	is("@reads", '10  10  10 ', "$way: reads go on, without a warning");
	sql_is(q{SELECT count(*) FROM pgmq.q_backlog WHERE message = '"dead"'}, '0', "$way: a dead message was passed")
	  || diag(one(q{SELECT * FROM pgmq.q_backlog WHERE message <> '1' OR read_ct > 0; SELECT * FROM pgmq.policy; SELECT clock_timestamp()}));
	$late->query_safe($way eq 'is sent' ? 'COMMIT' : 'ROLLBACK');
	sql('CALL read_until_late()');
	sql_is(q{SELECT count(*) FILTER (WHERE message = '"late"' AND read_ct = 1) FROM pgmq.q_backlog}, '1', "what $way late is read");
	cmp_ok(one('SELECT count(*) FROM pgmq.q_backlog WHERE read_ct = 0'), '>', 5000, 'while others were due');
	sql(q{SELECT pgmq.drop_queue('backlog')});
}
$late->quit;

done_testing();

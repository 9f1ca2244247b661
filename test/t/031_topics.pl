# Topics where a handful of bindings doesn't show it: our matcher against the regular expression
# on random patterns and keys, what a send among very many bindings costs, dump and restore, and
# sessions that hear of changes by replication.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use PgmqSql;

# PGMQ_SEED repeats a run
my $seed = $ENV{PGMQ_SEED} // time;
srand($seed);
note("PGMQ_SEED=$seed");

my $node = PostgreSQL::Test::Cluster->new('topics');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ], allows_streaming => 'logical');
$node->append_conf('postgresql.conf', "autovacuum = off\nlog_statement = none\n");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');

sub random_text
{
	my ($longest, @alphabet) = @_;

	return join('', map { $alphabet[ rand @alphabet ] } 1 .. int(rand($longest + 1)));
}

# A key as validate_routing_key wants it
sub random_key
{
	my ($longest, @alphabet) = @_;

	for (;;)
	{
		my $key = random_text($longest, @alphabet);

		return $key if $key ne '' && $key !~ /^\.|\.$|\.\./;
	}
}

sub distinct { my %seen; return grep { !$seen{$_}++ } @_; }
sub literals { return 'ARRAY[' . join(',', map { "E'" . s/\\/\\\\/gr . "'" } @_) . ']::text[]'; }

# ---- the matcher against compiled_regex ----

# Few characters, so that most patterns match something; any order of wildcards, as only rows
# written by hand have it; some characters that no key has.
foreach my $round ([ 9, 400, 60, split(//, 'ab..*#') ], [ 14, 300, 20, 'a', '-', '.', '*', '#', '*.', '.#', 'a.', '#b' ],
	[ 6, 200, 2, 'a', '.', '*', '#', '\\', '[', '+', 'ä', ' ' ])
{
	my ($longest, $count, $enough, @alphabet) = @$round;
	my @patterns = distinct(map { random_text($longest, @alphabet) } 1 .. $count);
	my @keys = distinct((map { random_key(12, qw(a b . -)) } 1 .. 1500), (map { random_key(60, qw(a a a b . -)) } 1 .. 100));
	my $result = $node->safe_psql('postgres', q{
		SET client_min_messages = warning;
		DO $$ BEGIN PERFORM pgmq.create('q'); END $$;
		CREATE TEMPORARY TABLE keys AS SELECT unnest(} . literals(@keys) . q{) AS k;
		INSERT INTO pgmq.topic_bindings (pattern, queue_name) SELECT unnest(} . literals(@patterns) . q{), 'q';
		CREATE TEMPORARY TABLE wanted (k text, pattern text);
		DO $$ DECLARE b record; BEGIN
			-- pattern by pattern, so that each expression is compiled once
			FOR b IN SELECT * FROM pgmq.topic_bindings LOOP
				INSERT INTO wanted SELECT k, b.pattern FROM keys WHERE k ~ b.compiled_regex;
			END LOOP;
		END $$;
		CREATE TEMPORARY TABLE found AS SELECT k, r.pattern FROM keys, LATERAL pgmq.test_routing(k) AS r;
		SELECT 'wanted', k, pattern FROM (TABLE wanted EXCEPT ALL TABLE found) AS missing LIMIT 10;
		SELECT 'not wanted', k, pattern FROM (TABLE found EXCEPT ALL TABLE wanted) AS surplus LIMIT 10;
		SELECT count(DISTINCT pattern), count(*) FROM wanted;
		DELETE FROM pgmq.topic_bindings});
	my ($matching, $matches) = $result =~ /\A(\d+)\|(\d+)\z/;

	ok(defined $matches, 'what the regular expressions match, and nothing else') or diag($result);
	cmp_ok($matching // 0, '>=', $enough, scalar(@patterns) . " patterns, $matching of which match something");
	cmp_ok($matches // 0, '>', 20 * $enough, scalar(@keys) . " keys, $matches matches");
}

# ---- sends, while bindings change in all ways ----

my @pool = distinct(map { random_text(7, split(//, 'ab..*#')) } 1 .. 150);
my @keys = map { random_key(8, qw(a b . -)) } 1 .. 300;
is($node->safe_psql('postgres', q{
	SET client_min_messages = warning;
	DO $$
	DECLARE
		pool text[] := } . literals(@pool) . q{;
		k text;
		wanted int;
		sent int;
		total bigint := 0;
		failures text := '';
	BEGIN
		PERFORM setseed(} . rand() . q{);
		FOR i IN 1 .. 5 LOOP PERFORM pgmq.create('s' || i); END LOOP;
		COMMIT;
		FOREACH k IN ARRAY } . literals(@keys) . q{ LOOP
			BEGIN
				CASE floor(random() * 6)
					WHEN 0, 1, 2 THEN
						INSERT INTO pgmq.topic_bindings (pattern, queue_name)
						SELECT pool[1 + floor(random() * array_length(pool, 1))], 's' || 1 + floor(random() * 5) FROM generate_series(1, 5)
						ON CONFLICT DO NOTHING;
					WHEN 3 THEN
						DELETE FROM pgmq.topic_bindings WHERE random() < 0.2;
					WHEN 4 THEN
						UPDATE pgmq.topic_bindings SET queue_name = 's' || 1 + floor(random() * 5)
						 WHERE pattern = (SELECT pattern FROM pgmq.topic_bindings GROUP BY 1 HAVING count(*) = 1 LIMIT 1);
					ELSE NULL;
				END CASE;
				SELECT count(DISTINCT queue_name) INTO wanted FROM pgmq.topic_bindings WHERE k ~ compiled_regex;
				sent := pgmq.send_topic(k, to_jsonb(k));
				total := total + sent;
				IF sent <> wanted THEN failures := failures || format(' %s: %s not %s', k, sent, wanted); END IF;
				IF random() < 0.3 THEN RAISE division_by_zero; END IF;
			EXCEPTION WHEN division_by_zero THEN
				total := total - sent;
				SELECT count(DISTINCT queue_name) INTO wanted FROM pgmq.topic_bindings WHERE k ~ compiled_regex;
				sent := pgmq.send_topic(k, to_jsonb(k));
				total := total + sent;
				IF sent <> wanted THEN failures := failures || format(' undone, %s: %s not %s', k, sent, wanted); END IF;
			END;
			IF random() < 0.1 THEN COMMIT; ELSIF random() < 0.1 THEN ROLLBACK; total := (SELECT sum(queue_length) FROM pgmq.metrics_all() WHERE queue_name LIKE 's_'); END IF;
		END LOOP;
		IF failures <> '' THEN RAISE 'wrong:%', failures; END IF;
		IF total < 100 THEN RAISE 'hardly anything was sent: %', total; END IF;
		IF total <> (SELECT sum(queue_length) FROM pgmq.metrics_all() WHERE queue_name LIKE 's_') THEN RAISE 'sent % messages', total; END IF;
	END $$;
	SELECT 'right'}), 'right', 'every send goes to the queues of that moment');

# ---- dump and restore ----

$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('Orders');
	SELECT pgmq.create('audit');
	SELECT pgmq.bind_topic('order.*', 'orders');
	SELECT pgmq.bind_topic('#', 'audit');
	INSERT INTO pgmq.topic_bindings (pattern, queue_name, bound_at) VALUES ('**[ä\\', 'audit', '2020-02-02 02:02:02+00');
	GRANT SELECT ON pgmq.topic_bindings TO PUBLIC});

sub bindings
{
	my ($db) = @_;

	return $node->safe_psql($db, q{
		SELECT * FROM pgmq.list_topic_bindings() ORDER BY 1, 2;
		SELECT relacl FROM pg_class WHERE oid = 'pgmq.topic_bindings'::regclass;
		SELECT tgname, tgenabled FROM pg_trigger WHERE tgrelid = 'pgmq.topic_bindings'::regclass AND NOT tgisinternal ORDER BY 1;
		SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename = 'topic_bindings' ORDER BY 1});
}

my $dir = PostgreSQL::Test::Utils::tempdir();
my $origin = bindings('origin');
like($origin, qr/^order\.\*\|Orders\|.*\|\^order\\\.\[\^\.\]\+\$$/m, 'there is something to dump');
$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(plain custom workers);
$node->command_ok([ 'pg_dump', '-f', "$dir/plain.sql", '-d', $node->connstr('origin') ], 'pg_dump, plain');
$node->command_ok(
	[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', "$dir/plain.out", '-f', "$dir/plain.sql", '-d', $node->connstr('plain') ], 'restored');
is(bindings('plain'), $origin, 'plain: the bindings are as they were');
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/custom", '-d', $node->connstr('origin') ], 'pg_dump, custom');
$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('custom'), "$dir/custom" ], 'restored by one');
is(bindings('custom'), $origin, 'custom: the bindings are as they were');

# By several workers: pg_dump doesn't record that the data of one table of an extension needs that of another. And
# under a session that has read the bindings.
sub restore_step
{
	my ($name, @options) = @_;

	$node->command_ok([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('workers'), @options, "$dir/custom" ], $name);
}
restore_step('restored without data', '--section=pre-data');
my $session = $node->background_psql('workers');
is($session->query_safe("SELECT pgmq.send_topic('order.new', '1')"), '0', 'there are no bindings yet');
# As if the list of queues came late: until the lock is released, the worker with the bindings waits as well
my $late = $node->background_psql('workers');
$late->query_safe('BEGIN; LOCK TABLE pgmq.meta IN SHARE MODE');
my $said = '';
my $restore = IPC::Run::start([ 'pg_restore', '--exit-on-error', '-d', $node->connstr('workers'), '-j4', '--section=data', '--section=post-data', "$dir/custom" ],
	'<', \undef, '>&', \$said);
ok_until('the bindings wait for the list of queues', sub {
	$restore->pump_nb if $restore->pumpable;
	return $said ne '' || $node->safe_psql('workers', q{SELECT count(*) FROM pg_locks WHERE relation = 'pgmq.meta'::regclass AND NOT granted}) eq '2';
});
$late->query_safe('COMMIT');
$late->quit;
ok($restore->finish, 'the data by four workers');
is($said, '', 'without an error');
is($session->query_safe("SELECT pgmq.send_topic('order.new', '1')"), '2', 'the session sees what was restored');
$session->quit;
is(bindings('workers'), $origin, 'workers: the bindings are as they were');
is($node->safe_psql('workers', 'TABLE pgmq.meta ORDER BY 1'), $node->safe_psql('origin', 'TABLE pgmq.meta ORDER BY 1'), 'workers: so is the list of queues');
is($node->safe_psql($_, "SELECT pgmq.send_topic('order.new', '1'), pgmq.send_topic('other', '1')"), '2|1', "$_: and lead where they led")
	foreach qw(plain custom workers);

# ---- changes that replication brings ----

$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->safe_psql('copy', "CREATE EXTENSION pgmq; SELECT pgmq.create('Orders'); SELECT pgmq.create('audit')");
$node->safe_psql($_, 'ALTER TABLE pgmq.topic_bindings REPLICA IDENTITY USING INDEX topic_bindings_unique_pattern_queue') foreach qw(origin copy);
my $replica = $node->background_psql('copy');
is($replica->query_safe("SELECT pgmq.send_topic('order.new', '1')"), '0', 'no bindings in the copy');

# Both are in one cluster, so that the slot has to be made before
my $connection = $node->connstr('origin') =~ s/'/''/gr;
$node->safe_psql('origin', q{
	CREATE PUBLICATION bindings FOR TABLE pgmq.topic_bindings;
	SELECT pg_create_logical_replication_slot('bindings', 'pgoutput')});
$node->safe_psql('copy', "CREATE SUBSCRIPTION bindings CONNECTION '$connection' PUBLICATION bindings WITH (create_slot = false)");

sub replica_sends_to
{
	my ($key, $wanted, $name) = @_;
	my $sent;

	# A send of its own each time; that is what is being tested
	for (1 .. 10 * $PostgreSQL::Test::Utils::timeout_default)
	{
		$sent = $replica->query_safe("SELECT pgmq.send_topic('$key', '1')");
		last if $sent eq $wanted;
		select(undef, undef, undef, 0.1);
	}
	is($sent, $wanted, $name);
}
replica_sends_to('order.new', 2, 'the first copy is seen');
$node->safe_psql('origin', "SELECT pgmq.bind_topic('order.new', 'audit'), pgmq.unbind_topic('#', 'audit'), pgmq.unbind_topic('order.*', 'orders')");
replica_sends_to('other', 0, 'what is removed is seen');
is($replica->query_safe("SELECT pgmq.send_topic('order.new', '1')"), '1', 'and what is added');
$node->safe_psql('origin', 'TRUNCATE pgmq.topic_bindings');
replica_sends_to('order.new', 0, 'TRUNCATE is seen');
$replica->quit;
$node->safe_psql('copy', 'DROP SUBSCRIPTION bindings');

# ---- very many bindings ----

$node->safe_psql('postgres', q{
	DELETE FROM pgmq.topic_bindings;
	SELECT pgmq.create('plain'), pgmq.create('topic');
	INSERT INTO pgmq.topic_bindings (pattern, queue_name)
	SELECT format(f, i), 'topic' FROM generate_series(1, 2500) AS i, unnest(ARRAY['exact.%s', 'prefix.%s.#', '*.%s.*', 'in*side%s#x']) AS f});
my $many = $node->background_psql('postgres');

# Buffers are those of a send to the queue, once the bindings were read
sub buffers
{
	my ($query) = @_;
	my $plan = $many->query_safe("EXPLAIN (ANALYZE, BUFFERS, COSTS OFF, TIMING OFF, SUMMARY OFF) $query");

	return $plan =~ /Buffers: shared hit=(\d+)/ ? $1 : undef;
}
my $plain = "pgmq.send('plain', '{}')";
my %topics = map { $_ => "pgmq.send_topic('$_', '{}')" } qw(exact.1700 prefix.42.b.c a.2500.c instant-side7.x);
$many->query_safe("SELECT $_ FROM generate_series(1, 3)") foreach $plain, values %topics;
my $plain_buffers = buffers("SELECT $plain");
foreach my $key (sort keys %topics)
{
	is($many->query_safe("SELECT $topics{$key}"), '1', "$key: one of 10,000 bindings");
	cmp_ok(buffers("SELECT $topics{$key}"), '<=', $plain_buffers + 5, "$key: reads no more pages than a plain send, $plain_buffers");
}

# CPU of the backend: wanted is at most 5 times that of a plain send. It is about once.
SKIP:
{
	skip 'no account of CPU times here', scalar keys %topics unless -r '/proc/self/schedstat';

	my $cpu = sub {
		my ($call) = @_;
		my $account = "SELECT split_part(pg_read_file('/proc/self/schedstat'), ' ', 1)";
		my $before = $many->query_safe($account);

		$many->query_safe("SELECT count(n) FROM (SELECT $call AS n FROM generate_series(1, 1000)) AS calls");
		return $many->query_safe($account) - $before;
	};
	foreach my $key (sort keys %topics)
	{
		my @ratios = sort { $a <=> $b } map { $cpu->($topics{$key}) / $cpu->($plain) } 1 .. 5;
		cmp_ok($ratios[2], '<', 5, "$key: costs " . sprintf('%.2f', $ratios[2]) . ' times a plain send');
	}
}

# A hundred thousand; nothing is left of those that were kept before
$node->safe_psql('postgres', q{
	INSERT INTO pgmq.topic_bindings (pattern, queue_name)
	SELECT 'more.' || md5(i::text) || CASE i % 3 WHEN 0 THEN '.*' WHEN 1 THEN '.#' ELSE '' END, 'topic' FROM generate_series(1, 90000) AS i});
is($many->query_safe("SELECT pgmq.send_topic('exact.77', '{}'), pgmq.send_topic('more.' || md5('90000') || '.x', '{}')"), '1|1', '100,000 bindings');
is($many->query_safe("SELECT count(*), sum(total_bytes) < 64 * 1024 * 1024 FROM pg_backend_memory_contexts WHERE name = 'pgmq topics'"),
	'1|t', 'are kept once, in bounded memory');
$many->query_safe("DELETE FROM pgmq.topic_bindings WHERE pattern LIKE 'more%'");
is($many->query_safe("SELECT pgmq.send_topic('exact.77', '{}'), pgmq.send_topic('more.' || md5('90000') || '.x', '{}')"), '1|0', 'and go again');
is($many->query_safe("SELECT count(*), sum(total_bytes) < 8 * 1024 * 1024 FROM pg_backend_memory_contexts WHERE name = 'pgmq topics'"),
	'1|t', 'with their memory');
$many->quit;

$node->stop;
done_testing();

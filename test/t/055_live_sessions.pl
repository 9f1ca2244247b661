# Sessions that are connected while the extension is updated: statements and functions at work, prepared statements,
# open transactions, and libraries of other versions.  They go on, or get an error that is over with the next attempt or
# says what to do.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use IPC::Run ();
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('live');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;

# Messages are sent and read in these databases as in any version: the oldest are read first, and hidden
sub old_database
{
	my ($db, $version) = @_;
	my $condition = at_least($version, '1.5.0') ? q{, conditional jsonb DEFAULT '{}'} : '';
	my $columns = join(', ', qw(msg_id read_ct enqueued_at), at_least($version, '1.10.0') ? 'last_read_at' : (), qw(vt message),
		at_least($version, '1.5.0') ? 'headers' : ());

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, old_installation($version) . old_queues($version) . qq{
		CREATE EXTENSION pgmq VERSION 'unpackaged';
		CREATE OR REPLACE FUNCTION pgmq.read(queue_name text, vt integer, qty integer$condition) RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS \$\$
		BEGIN
			RETURN QUERY EXECUTE format('UPDATE pgmq.%1\$I SET vt = clock_timestamp() + make_interval(secs => \$2), read_ct = read_ct + 1 WHERE msg_id IN
				(SELECT msg_id FROM pgmq.%1\$I WHERE vt <= clock_timestamp() ORDER BY msg_id LIMIT \$1 FOR UPDATE SKIP LOCKED) RETURNING $columns', 'q_' || queue_name)
				USING qty, vt;
		END \$\$;
		-- waits for as long as an update takes
		CREATE OR REPLACE FUNCTION pgmq.read_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100$condition)
		RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS \$\$
		DECLARE
			r pgmq.message_record;
		BEGIN
			PERFORM public.update_now();
			PERFORM pgmq.send(queue_name, '{"n": 8}');
			FOR r IN EXECUTE format('SELECT $columns FROM pgmq.%I WHERE msg_id = 8', 'q_' || queue_name) LOOP
				RETURN NEXT r;
			END LOOP;
		END \$\$;
		CREATE FUNCTION public.update_now() RETURNS void LANGUAGE plpgsql AS \$\$
		BEGIN
			IF (SELECT extversion FROM pg_extension WHERE extname = 'pgmq') <> '$NEW_VERSION' THEN
				EXECUTE format('COPY (SELECT) TO PROGRAM %L', '@{[$node->installed_command('psql')]} -Xq -h @{[$node->host]} -p @{[$node->port]}'
					' -v ON_ERROR_STOP=1 -d ' || current_database() || ' -c "SET lock_timeout = 20000" -c "ALTER EXTENSION pgmq UPDATE" 1>&2');
			END IF;
		END \$\$});
	$node->safe_psql($db, old_extension($version));
}

# What a session prints, with the SQLSTATEs of errors; n4 is the message {"n": 4}
sub session
{
	my ($db, $sql) = @_;
	my $out = '';

	IPC::Run::run([ 'psql', '-XAtq', '-v', 'VERBOSITY=verbose', '-d', $node->connstr($db), '-f', '-' ], '<', \$sql, '>', \$out, '2>&1');
	$out =~ s/^psql:.*?: ERROR:  (\w{5}): .*/error $1/mg;
	$out =~ s/^psql:.*?: NOTICE:  00000: //mg;
	$out =~ s/^(DETAIL|HINT|CONTEXT|LOCATION|QUERY|LINE|SQL statement|PL\/pgSQL|COPY| +\^).*\n//mg;
	$out =~ s/\{"n": (\d)\}/n$1/g;
	return join(' ', split(' ', $out));
}

###################################################### statements and functions at work

# What a later statement of the session does
my $AFTER = "SELECT 'after', message FROM pgmq.read('mixed', 60, 1);";
my %before = map { my ($name, $sql) = @$_; $name => $sql } (
	[ 'a function that returns messages', q{
		CREATE FUNCTION public.f() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS
			$$ DECLARE r pgmq.message_record; BEGIN PERFORM public.update_now(); FOR r IN SELECT * FROM pgmq.read('mixed', 60, 1) LOOP RETURN NEXT r; END LOOP; END $$;
		SELECT message FROM public.f();
		SELECT message FROM public.f()} ],
	[ 'another', q{
		CREATE FUNCTION public.f() RETURNS SETOF pgmq.message_record LANGUAGE plpgsql AS
			$$ BEGIN PERFORM public.update_now(); RETURN QUERY SELECT * FROM pgmq.read('mixed', 60, 1); END $$;
		SELECT message FROM public.f();
		SELECT message FROM public.f()} ],
	[ 'a function with messages in variables', q{
		DO $$ DECLARE r pgmq.message_record; a pgmq.message_record[]; i int; BEGIN
			r.msg_id := 7; r.message := '7'; a := ARRAY[r, r];
			PERFORM public.update_now();
			FOR i IN 1 .. 2 LOOP
				SELECT * INTO r FROM pgmq.read('mixed', 60, 1);
				a := a || r;
			END LOOP;
			RAISE NOTICE '% % % %', a[1].msg_id, a[2].message, a[3].message, a[4].message;
		END $$} ],
	[ 'an old function', q{SELECT message FROM pgmq.read_with_poll('mixed', 60, 1)} ],
	[ 'a procedure with transactions', q{
		CREATE PROCEDURE public.p() LANGUAGE plpgsql AS $$ DECLARE r pgmq.message_record; BEGIN
			FOR i IN 1 .. 4 LOOP
				FOR r IN SELECT * FROM pgmq.read('mixed', 60, 1) LOOP RAISE NOTICE '%', r.message; END LOOP;
				PERFORM pgmq.send('unlogged', to_jsonb(i));
				COMMIT;
				IF i = 2 THEN PERFORM public.update_now(); END IF;
			END LOOP;
		END $$;
		CALL public.p()} ],
	# Open cursors have looked up the function, but not called it.  The next statement looks it up again.
	[ 'cursors', q{
		BEGIN;
		DECLARE c CURSOR FOR SELECT message FROM pgmq.read('mixed', 60, 1);
		DECLARE d CURSOR FOR SELECT pgmq.metrics('mixed');
		SELECT public.update_now();
		SAVEPOINT s;
		FETCH c; ROLLBACK TO s;
		FETCH d; ROLLBACK TO s;
		SELECT message FROM pgmq.read('mixed', 60, 1);
		COMMIT} ],
	[ 'an old snapshot', q{
		BEGIN ISOLATION LEVEL REPEATABLE READ;
		SELECT count(*) FROM pg_class WHERE false;
		SELECT public.update_now();
		SELECT message FROM pgmq.read('mixed', 60, 1);
		SELECT pgmq.send('mixed', '1'), pgmq.archive('mixed', 1), queue_length > 0 FROM pgmq.metrics('mixed');
		SELECT count(*) > 3 FROM pgmq.metrics_all();
		COMMIT} ],
	[ 'prepared statements', q{
		SET plan_cache_mode = force_generic_plan;
		PREPARE g (text) AS SELECT message FROM pgmq.read($1, 60, 1);
		PREPARE s (text) AS SELECT * FROM pgmq.set_vt($1, 99, 60);
		PREPARE m (text) AS SELECT queue_length FROM pgmq.metrics($1);
		EXECUTE g ('unlogged'); EXECUTE s ('unlogged'); EXECUTE m ('unlogged');
		SET plan_cache_mode = force_custom_plan;
		PREPARE u (text) AS SELECT message FROM pgmq.read($1, 60, 1);
		EXECUTE u ('unlogged');
		SELECT public.update_now();
		EXECUTE u ('mixed');
		SET plan_cache_mode = force_generic_plan;
		EXECUTE g ('mixed');
		EXECUTE m ('mixed');
		EXECUTE s ('mixed')} ],
	[ 'values and views', q{
		CREATE TEMP VIEW v AS SELECT message FROM pgmq.read('mixed', 60, 1);
		CREATE TEMP TABLE t AS SELECT r FROM pgmq.read('mixed', 60, 1) AS r;
		SELECT public.update_now();
		SELECT * FROM v;
		INSERT INTO t SELECT r FROM pgmq.read('mixed', 60, 1) AS r;
		SELECT (r).message FROM t ORDER BY (r).msg_id} ]);
# Errors that are over with the next attempt: the type has got attributes since the function was called; the server
# takes our function for one in PL/pgSQL, or does not find the one of before
my $TYPE = 'error 42804';
my $TEXT = '(error (42601|XX000))';
# Up to 1.9, and later
my %after = (
	'a function that returns messages' => [ qr/^$TYPE n4 after\|n5$/, qr/^n4 n5 after\|n6$/ ],
	'another' => [ qr/^$TYPE n4 after\|n5$/, qr/^n4 n5 after\|n6$/ ],
	'a function with messages in variables' => [ (qr/^7 7 n4 n5 after\|n6$/) x 2 ],
	'an old function' => [ qr/^$TYPE after\|n4$/, qr/^n8 after\|n4$/ ],
	'a procedure with transactions' => [ (qr/^n4 n5 n6$/) x 2 ],
	'cursors' => [ (qr/^(n4|$TEXT) ($TEXT )?n4 after\|n5$/) x 2 ],
	'an old snapshot' => [ (qr/^0 n4 8\|t\|t t after\|n5$/) x 2 ],
	'prepared statements' => [ qr/^n4 n5 n4 n5 5 error 0A000 after\|n6$/, qr/^n4 n5 n4 n5 5 after\|n6$/ ],
	'values and views' => [ (qr/^n5 n4 n6$/) x 2 ]);

foreach my $version (qw(1.4.4 1.9.0 1.13.1))
{
	(my $template = "t_$version") =~ tr/./_/;
	my $i = 0;

	old_database($template, $version);
	foreach my $what (sort keys %before)
	{
		my $db = "${template}_" . ++$i;

		$node->safe_psql('postgres', "CREATE DATABASE $db TEMPLATE $template");
		like(session($db, "$before{$what}; $AFTER"), $after{$what}[at_least($version, '1.10.0') ? 1 : 0], "$version: $what");
		is($node->safe_psql($db, q{SELECT extversion FROM pg_extension WHERE extname = 'pgmq'}), $NEW_VERSION, "$version: $what: there was an update");
		$node->safe_psql('postgres', "DROP DATABASE $db");
	}
}

###################################################### load, over the extended protocol too

# Senders and readers go on while the extension is updated, and while their queues get policies.  They note what they have
# sent and what they have finished: each message is in one place.  From 2.0.0 on that is so for queues of all kinds: those
# of the old extension as an update to 2.0.0 leaves them, and those that 2.0.0 makes.  In 2.1.0 they have their policies
# before the update, and after it topics also go to a stream.
my $dir = PostgreSQL::Test::Utils::tempdir();
my $partman = -e `pg_config --sharedir` =~ s/\n//r . '/extension/pg_partman.control';
my %queues = ('1.11.1' => [ 'mixed' ], '2.0.0' => [ qw(orders mixed unlogged part timed aged groups), $partman ? qw(ids times) : () ],
	'2.1.0' => [ qw(orders mixed part aged groups) ]);
my %policies = (
	orders => q{max_reads => 2, dead_letter_queue => 'dead', retry_delay => '0.1 s'},
	mixed => q{priority => true, priority_max_wait => '1 s'},
	unlogged => q{max_in_flight => 100, dedup_window => '1 hour'},
	part => q{rate_limit => 100},
	timed => q{message_ttl => '1 hour', dead_letter_queue => 'dead'},
	aged => q{max_length => 50, overflow => 'drop_oldest', dead_letter_queue => 'dead'},
	groups => q{max_reads => 3, dead_letter_queue => 'dead'},
	ids => q{max_reads => 3, dead_letter_queue => 'dead', priority => true},
	times => q{max_length => 1000000, archive_retention => '1 day'});

foreach my $from (sort keys %queues)
{
	(my $db = "load_$from") =~ tr/./_/;
	my @names = @{ $queues{$from} };
	my $is_ours = at_least($from, '2.0.0');

	old_database($db, $is_ours ? '1.13.1' : $from);
	$node->safe_psql($db, "SET client_min_messages = warning; ALTER EXTENSION pgmq UPDATE TO '2.0.0'; SELECT pgmq.create('groups'); SELECT pgmq.create_fifo_index('groups');
		SELECT pgmq.enable_notify_insert('groups', 0), pgmq.bind_topic('logs.#', 'groups')") if $is_ours;
	$node->safe_psql($db, q{CREATE EXTENSION pg_partman; SELECT pgmq.create_partitioned('ids', '100', '100'), pgmq.create_partitioned('times', '1 day', '7 days');
		SELECT pgmq.create_fifo_index('ids')}) if $from eq '2.0.0' && $partman;
	my $set_policies = sub {
		my ($between) = @_;

		$node->safe_psql($db, q{SELECT pgmq.create('dead')});
		foreach my $queue (@names)
		{
			$node->safe_psql($db, "SELECT pgmq.set_policy('$queue', $policies{$queue})");
			$between->();
		}
	};
	my $has_policies = at_least($from, '2.1.0');
	if ($has_policies)
	{
		$node->safe_psql($db, "ALTER EXTENSION pgmq UPDATE TO '$from'");
		$set_policies->(sub { });
	}
	my $there = join(' UNION ALL ', map { my $q = $_; map { "SELECT '$q', msg_id FROM pgmq.${_}_$q" } qw(q a) } @names);
	$node->safe_psql($db, qq{CREATE TABLE stop AS SELECT false AS stop; CREATE TABLE gone (queue text, msg_id bigint, PRIMARY KEY (queue, msg_id));
		CREATE TABLE sent (LIKE gone INCLUDING ALL); INSERT INTO sent $there});

	# The end is an error
	my $some = "FROM (SELECT ('{" . join(',', @names) . "}'::text[])[:k] AS q) AS n";
	append_to_file("$dir/$db.sql", '\set k random(1, ' . @names . ')
\set c random(0, 1)' . qq{
SELECT 1 / (NOT stop)::int FROM stop;
INSERT INTO sent SELECT q, id $some, pgmq.send(q, '{"by": "load"}') AS id;
INSERT INTO sent SELECT q, id $some, pgmq.send_batch(q, '{1,2}', array_fill(jsonb_build_object('x-pgmq-group', CAST(:k AS int) % 3, 'x-pgmq-priority', CAST(:k AS int)), '{2}')) AS id;
INSERT INTO sent SELECT lower(queue_name), msg_id FROM pgmq.send_batch_topic('logs.x', '{1}') WHERE lower(queue_name) = ANY ('{@{[join(',', @names)]}}');
SELECT count(msg_id) $some, pgmq.read(q, 0, 2);
INSERT INTO gone SELECT q, id $some, pgmq.delete(q, ARRAY(SELECT msg_id FROM pgmq.read(q, 60, :c))) AS id;
INSERT INTO gone SELECT q, id $some, pgmq.delete(q, ARRAY(SELECT msg_id FROM pgmq.read_grouped(q, 60, :c))) AS id;
INSERT INTO gone SELECT q, msg_id $some, pgmq.pop(q, :c);
SELECT count(id) $some, pgmq.archive(q, ARRAY(SELECT msg_id FROM pgmq.read(q, 60, :c))) AS id;
SELECT queue_length $some, pgmq.metrics(q);
});
	my @loads;
	foreach my $mode (qw(simple extended prepared))
	{
		my $load = { mode => $mode, err => '', out => '' };

		$load->{harness} = IPC::Run::start([ $node->installed_command('pgbench'), '-n', '-M', $mode, '-c', 2, '-T', 600, '-f', "$dir/$db.sql",
			'-h', $node->host, '-p', $node->port, $db ], '<', \'', '>', \$load->{out}, '2>', \$load->{err});
		push @loads, $load;
	}
	my $go_on = sub {
		my $sent = $node->safe_psql($db, 'SELECT count(*) FROM sent');

		$node->poll_query_until($db, "SELECT count(*) > $sent + 50 FROM sent") or die join('', map { $_->{harness}->pump_nb if $_->{harness}->pumpable; $_->{err} } @loads);
	};
	$go_on->();
	$node->safe_psql($db, "SET client_min_messages = warning; SET lock_timeout = '60s'; ALTER EXTENSION pgmq UPDATE");
	is($node->safe_psql($db, "SELECT extversion FROM pg_extension WHERE extname = 'pgmq'"), $NEW_VERSION, "from $from: there was an update");
	$go_on->();
	$set_policies->($go_on) unless $has_policies;
	$node->safe_psql($db, "SELECT pgmq.create_stream('news'), pgmq.subscribe('news', 'all', 'earliest'), pgmq.bind_topic_stream('logs.#', 'news')") if $is_ours;
	$node->safe_psql($db, "SELECT pgmq.pause_queue('mixed')");
	$go_on->();
	$node->safe_psql($db, "SELECT pgmq.resume_queue('mixed')");
	my $moved = join(' ', sort grep { $policies{$_} =~ /max_reads|drop_oldest/ } @names);
	ok($node->poll_query_until($db, q{SELECT coalesce(string_agg(DISTINCT headers->>'x-dlq-origin-queue', ' ' ORDER BY headers->>'x-dlq-origin-queue'), '') FROM pgmq.q_dead}, $moved),
		"from $from: the policies work");
	ok($node->poll_query_until($db, q{SELECT coalesce(bool_and(pgmq.advance('news', 'all', shard, event_id, lease)), false) FROM pgmq.receive('news', 'all', 60, 1000)}),
		"from $from: what is sent to a topic reaches a stream") if $is_ours;
	$node->safe_psql($db, 'UPDATE stop SET stop = true');
	foreach my $load (@loads)
	{
		IPC::Run::finish($load->{harness});
		# In the microseconds between the start of a statement and the call, and while the server spreads the news.  From
		# 2.0.0 on the calls stay what they are.
		my $passing = $is_ours ? qr/^$/ : qr/syntax error at or near "pgmq_|cache lookup failed for function|type .* was altered concurrently|return row do not match/;
		my @errors = grep { !/$passing|division by zero/ } $load->{err} =~ /(?:ERROR|FATAL|PANIC|connection).*/g;
		is("@errors", '', "from $from, $load->{mode}: sessions go on during an update, and when policies are set");
	}
	my $all = "($there UNION ALL TABLE gone UNION ALL SELECT lower(headers->>'x-dlq-origin-queue'), (headers->'x-dlq-origin-msg-id')::bigint FROM pgmq.q_dead)";
	is($node->safe_psql($db, "TABLE sent EXCEPT ALL $all"), '', "from $from: nothing is lost");
	is($node->safe_psql($db, "$all EXCEPT ALL TABLE sent"), '', "from $from: nothing is there twice");
}
ok(slurp_file($node->logfile) !~ /terminated by signal|TRAP/, 'no server process has crashed');

###################################################### libraries of other versions

{
	# Other tests use the installed library, so this one has a copy
	chomp(my $libdir = `pg_config --pkglibdir`);
	my $library = "$dir/pgmq.so";

	# An older one: it has no function for one form of set_vt, and another layout of shared memory
	my $ours = slurp_file("$libdir/pgmq.so");
	(my $older = $ours) =~ s/pgmq_set_vt_array_at/pgmq_set_vt_array_xx/g;
	$older =~ s/pgmq-starts-v\d\0/pgmq-starts-v9\0/ or die 'no layout';
	$older =~ s/(?<=\0)\Q$NEW_VERSION\E\0/'1.9.9' . "\0" x (length($NEW_VERSION) - 4)/ge or die 'no version';
	# Never in place: processes have it mapped
	my $replace = sub {
		my ($content) = @_;

		append_to_file("$library.new", $content);
		chmod(0755, "$library.new");
		rename("$library.new", $library) or die "rename: $!";
	};
	old_database('libraries', '1.13.1');
	$replace->($older);
	my $old = $node->background_psql('libraries', on_error_stop => 0);
	$old->query_safe("LOAD '$library'");
	$replace->($ours);
	$node->safe_psql('libraries', "SET client_min_messages = warning; ALTER EXTENSION pgmq UPDATE;
		UPDATE pg_proc SET probin = '$library' WHERE probin = '\$libdir/pgmq';
		SELECT pgmq.create('new'); SELECT pgmq.create_fifo_index('new')");

	my $in_old = sub {
		my ($sql) = @_;
		my ($out, $failed) = $old->query($sql);

		my ($err) = ($old->{stderr} // '') =~ /ERROR:  (.*)/;
		$old->{stderr} = '';
		return $failed || defined $err ? 'error: ' . ($err // '') : $out;
	};
	is($in_old->(q{SELECT pgmq.send('new', '1', '{"x-pgmq-group": "a"}'::jsonb)}), '1', 'an older library: send');
	is($node->safe_psql('libraries', "SELECT msg_id FROM pgmq.read_grouped('new', 60, 1)"), '1', 'the current one reads by groups');
	is($in_old->(q{SELECT pgmq.send('new', '2', '{"x-pgmq-group": "b"}'::jsonb); SELECT msg_id FROM pgmq.read_grouped('new', 60, 1); SELECT pgmq.delete('new', 2)}), "2\n2\nt", 'so does the older one');
	like(slurp_file($node->logfile), qr/LOG:  pgmq: could not allocate shared memory for the starts.*: another version of the library has made it/, 'what they cannot share they do not use');
	like($in_old->(q{SELECT pgmq.set_vt('new', ARRAY[1], now())}), qr/^error: could not find function "pgmq_set_vt_array_at" in file/, 'a function that the older one does not have');
	is($in_old->(q{SELECT count(*) FROM pgmq.set_vt('new', 1, 0); SELECT queue_length FROM pgmq.metrics('new')}), "1\n1", 'and the session goes on');
	$node->safe_psql('libraries', 'ALTER TABLE pgmq.meta RENAME TO meat');
	like($in_old->('SELECT * FROM pgmq.list_queues()'), qr/^error: the library of pgmq has version 1\.9\.9, and the extension in this database has version \Q$NEW_VERSION\E/,
		'it says why it does not find an object');
	like(($node->psql('libraries', 'SELECT * FROM pgmq.list_queues()'))[2], qr/^psql:.*relation "pgmq\.meta" does not exist/, 'the current one has no reason to say so');
	$node->safe_psql('libraries', 'ALTER TABLE pgmq.meat RENAME TO meta');
	$old->quit;
	is($node->safe_psql('libraries', q{SELECT count(*) FROM pgmq.set_vt('new', ARRAY[1], now())}), '1', 'a new connection has the current one');

	# An older script with this library
	$node->safe_psql('postgres', 'CREATE DATABASE script');
	$node->safe_psql('script', q{
		CREATE EXTENSION pgmq;
		ALTER EXTENSION pgmq DROP TABLE pgmq.topic_bindings; DROP TABLE pgmq.topic_bindings;
		ALTER EXTENSION pgmq DROP FUNCTION pgmq.rescan(text); DROP FUNCTION pgmq.rescan(text);
		UPDATE pg_extension SET extversion = '1.99.0' WHERE extname = 'pgmq'});
	is($node->safe_psql('script', q{SELECT pgmq.create('q'); SELECT pgmq.send('q', '1'); SELECT msg_id FROM pgmq.read('q', 60, 1); SELECT pgmq.archive('q', 1); SELECT pgmq.drop_queue('q')}),
		"\n1\n1\nt\nt", 'an older script: calls');
	my (undef, undef, $err) = $node->psql('script', q{SELECT pgmq.send_topic('a', '1')});
	like($err, qr/has version \Q$NEW_VERSION\E, and the extension in this database has version 1\.99\.0\n.*DETAIL:  There is no relation "pgmq\.topic_bindings".*HINT:  .*ALTER EXTENSION pgmq UPDATE/s,
		'what is missing');
	# A newer script
	SKIP:
	{
		chomp(my $sharedir = `pg_config --sharedir`);
		my $newer = "$sharedir/extension/pgmq--$NEW_VERSION--future.sql";
		skip 'the directory of extensions cannot be written', 2 unless -w "$sharedir/extension";
		append_to_file($newer, "CREATE FUNCTION pgmq.future() RETURNS void LANGUAGE C AS 'MODULE_PATHNAME', 'pgmq_future';\n");
		(undef, undef, $err) = $node->psql('libraries', "ALTER EXTENSION pgmq UPDATE TO 'future'");
		unlink $newer;
		like($err, qr/could not find function "pgmq_future" in file/, 'a newer script needs a newer library');
		is($node->safe_psql('libraries', "SELECT extversion FROM pg_extension WHERE extname = 'pgmq'"), $NEW_VERSION, 'and is not installed');
	}
}

# What a function in C gets must never depend on the version of the script
is($node->safe_psql('load_1_11_1', q{SELECT prosrc FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang WHERE pronamespace = 'pgmq'::regnamespace AND lanname = 'c'
	GROUP BY prosrc HAVING count(DISTINCT (proargtypes::text, prorettype, proretset)) > 1}), '', 'each function in C has one form');

$node->stop;
done_testing();

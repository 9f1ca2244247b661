# What a session has set changes neither what the calls do nor how they do it: every
# call under one setting at a time, and under some together, gives what it gives under
# the defaults; and statements on a queue have the same plans under all of them.
use strict;
use warnings;

use File::Basename;
use lib dirname(__FILE__);
use PgmqVerbs;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('settings');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', qq(
fsync = off
autovacuum = off
max_worker_processes = 16
timezone = 'UTC'
allow_in_place_tablespaces = on
log_statement = none
));
$node->start;

# A setting as it is, or several; with (needs => 'name') only where the server has it
my @planner = (
	(map { "enable_$_ = off" }
		qw(indexscan indexonlyscan seqscan sort incremental_sort bitmapscan nestloop material memoize hashjoin mergejoin
		partition_pruning gathermerge hashagg tidscan parallel_append)),
	(map { "enable_$_ = on" } qw(partitionwise_join partitionwise_aggregate)),
	'plan_cache_mode = force_custom_plan', 'plan_cache_mode = force_generic_plan',
	'jit = on; SET jit_above_cost = 0; SET jit_inline_above_cost = 0; SET jit_optimize_above_cost = 0',
	'geqo_threshold = 2', 'from_collapse_limit = 1; SET join_collapse_limit = 1',
	'constraint_exclusion = on', 'constraint_exclusion = off',
	'random_page_cost = 1e9', 'seq_page_cost = 0; SET random_page_cost = 1e6',
	'cpu_tuple_cost = 1e8', 'cpu_index_tuple_cost = 1e8', 'cpu_operator_cost = 1e8', 'effective_cache_size = 1',
	'work_mem = 64; SET hash_mem_multiplier = 1', "cursor_tuple_fraction = 0",
	'max_parallel_workers_per_gather = 4; SET parallel_setup_cost = 0; SET parallel_tuple_cost = 0; SET min_parallel_table_scan_size = 0; SET min_parallel_index_scan_size = 0',
	'PARALLEL = on',
	'plan_cache_mode = force_custom_plan; SET enable_indexscan = off; SET enable_indexonlyscan = off; SET cpu_index_tuple_cost = 1e8; SET enable_nestloop = off');

my @others = (
	'standard_conforming_strings = off', 'standard_conforming_strings = off; SET backslash_quote = off',
	'standard_conforming_strings = off; SET backslash_quote = on; SET escape_string_warning = off',
	"search_path = ''", 'search_path = trap, pg_catalog, pgmq, public',
	'row_security = off', 'session_replication_role = local',
	"TimeZone = 'America/New_York'", "TimeZone = 'Asia/Kolkata'", "TimeZone = 'Antarctica/Troll'",
	"DateStyle = 'SQL, DMY'", "DateStyle = 'German'", "DateStyle = 'Postgres, MDY'", "DateStyle = 'ISO, YMD'",
	"DateStyle = 'SQL, DMY'; SET TimeZone = 'Asia/Kolkata'",
	(map { "IntervalStyle = $_" } qw(sql_standard iso_8601 postgres_verbose)),
	'bytea_output = escape', 'extra_float_digits = -15', 'transform_null_equals = on', 'array_nulls = off',
	'quote_all_identifiers = on', 'default_table_access_method = other_heap', 'default_tablespace = elsewhere; SET temp_tablespaces = elsewhere', 'default_tablespace = pg_default',
	'default_toast_compression = pglz', "default_transaction_isolation = 'repeatable read'",
	'default_transaction_isolation = serializable; SET default_transaction_deferrable = on', 'check_function_bodies = off',
	'xmlbinary = hex; SET xmloption = document', 'client_encoding = LATIN1', 'client_encoding = SQL_ASCII',
	'statement_timeout = 60000; SET lock_timeout = 60000; SET idle_in_transaction_session_timeout = 60000; SET deadlock_timeout = 60000',
	'track_counts = off; SET track_activities = off', 'track_functions = all; SET compute_query_id = on',
	'synchronous_commit = off', 'log_statement = all; SET log_min_duration_statement = 0; SET debug_print_plan = on',
	'client_min_messages = debug1', 'lc_messages = C; SET lc_numeric = C; SET lc_time = C; SET lc_monetary = C',
	'default_statistics_target = 1', 'maintenance_work_mem = 1024; SET temp_buffers = 100; SET wal_skip_threshold = 0',
	'synchronize_seqscans = off; SET gin_fuzzy_search_limit = 1',
	'transaction_timeout = 60000', "restrict_nonsystem_relation_kind = 'view, foreign-table'",
	'debug_discard_caches = 1',
	"standard_conforming_strings = off; SET DateStyle = 'SQL, DMY'; SET IntervalStyle = sql_standard; SET TimeZone = 'Asia/Kolkata'; SET quote_all_identifiers = on; SET search_path = trap, pg_catalog; SET transform_null_equals = on; SET bytea_output = escape");

# The name differs from version to version
my $parallel = $node->safe_psql('postgres',
	q{SELECT name || CASE name WHEN 'debug_parallel_query' THEN ' = on' ELSE ' = regress' END FROM pg_settings WHERE name IN ('debug_parallel_query', 'force_parallel_mode')});
s/^PARALLEL = on$/$parallel/ foreach @planner;

# Settings that this version, or this build, doesn't have
my %available;
sub available
{
	my ($settings) = @_;

	return $available{$settings} //= ($node->psql('postgres', "\\set ON_ERROR_STOP on\nSET $settings"))[0] == 0;
}

############################################################ what the calls do

# Functions, operators and tables of the same names, in front of the server's
$node->safe_psql('postgres', 'CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler');
$node->safe_psql('postgres', "CREATE TABLESPACE elsewhere LOCATION ''");
$node->safe_psql('postgres', 'CREATE DATABASE prepared');
$node->safe_psql('prepared', q{
	CREATE ACCESS METHOD other_heap TYPE TABLE HANDLER heap_tableam_handler;
	CREATE SCHEMA trap;
	CREATE FUNCTION trap.trap() RETURNS boolean LANGUAGE plpgsql AS $$ BEGIN RAISE 'trapped'; END $$;
	CREATE FUNCTION trap.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz FROM trap.trap()';
	CREATE FUNCTION trap.clock_timestamp() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz FROM trap.trap()';
	CREATE FUNCTION trap.count("any") RETURNS bigint LANGUAGE sql AS 'SELECT 1::bigint FROM trap.trap()' ;
} =~ s/\tCREATE FUNCTION trap.count.*\n//r . q{
	CREATE FUNCTION trap.lower(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text FROM trap.trap()';
	CREATE FUNCTION trap.quote_ident(text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text FROM trap.trap()';
	CREATE FUNCTION trap.format(text, text) RETURNS text LANGUAGE sql AS 'SELECT NULL::text FROM trap.trap()';
	CREATE FUNCTION trap.eq(bigint, bigint) RETURNS boolean LANGUAGE sql AS 'SELECT trap.trap()';
	CREATE FUNCTION trap.eq(timestamptz, timestamptz) RETURNS boolean LANGUAGE sql AS 'SELECT trap.trap()';
	CREATE FUNCTION trap.eq(text, text) RETURNS boolean LANGUAGE sql AS 'SELECT trap.trap()';
	CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = bigint, RIGHTARG = bigint);
	CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = timestamptz, RIGHTARG = timestamptz);
	CREATE OPERATOR trap.= (FUNCTION = trap.eq, LEFTARG = text, RIGHTARG = text);
	CREATE OPERATOR trap.<= (FUNCTION = trap.eq, LEFTARG = timestamptz, RIGHTARG = timestamptz);
	CREATE OPERATOR trap.<> (FUNCTION = trap.eq, LEFTARG = timestamptz, RIGHTARG = timestamptz);
	CREATE TABLE trap.meta (queue_name text);
	CREATE TABLE trap.q_v (msg_id bigint);
});
$node->safe_psql('prepared', 'CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
$node->safe_psql('prepared', PgmqVerbs::setup(1));

# In the text of the verbs themselves nothing may depend on the search path
my @verbs = PgmqVerbs::verbs(1);
# pg_partman's own code is what it is
my $partman_code = qr/create_partitioned|convert_archive|'v[qc]'|set_retention/;

# Partitions are made by texts; the rest of the settings doesn't touch them
my $partitions = qr/'v[pdqc]'|partman/;
my $texts = qr/trap|Style|TimeZone|conforming|quote_all|array|default_t[^r]|null|discard/;

# What the verbs give under some settings, one line each
sub outcome
{
	my ($settings) = @_;
	my $all = $settings eq '' || $settings =~ $texts;
	my $calls = join '', map { "\\echo $_:\n$verbs[$_];\n" }
	  grep { ($all || $verbs[$_] !~ $partitions) && ($settings !~ /trap/ || $verbs[$_] !~ $partman_code) } 0 .. $#verbs;
	my ($out, $err);

	# The other strategy takes three times as long for this
	$node->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE prepared STRATEGY file_copy');
	$calls .= "CALL pgmq.maintain();\nSELECT replace(partition, '\"', '') FROM pgmq.list_partitions('vp') ORDER BY 1;\n" if $all;
	$node->psql('copy', "SET client_min_messages = error;\n" . ($settings ? "SET $settings;\n" : '') . $calls,
		stdout => \$out, stderr => \$err, on_error_stop => 0);
	$node->safe_psql('postgres', 'DROP DATABASE copy');
	$err =~ s/^psql:<stdin>:\d+: //mg;
	$err = '' if $settings =~ /client_min_messages/;
	return $out . "\nerrors:\n" . $err;
}

# The lines that are not the same, after the number of the verb that they belong to
sub difference
{
	my ($expected, $got) = @_;
	my %count;
	my $verb = 0;
	my @lines;

	for my $line (split /\n/, $expected) { $verb = $line if $line =~ /^\d+:$/; $count{"$verb $line"}++; }
	for my $line (split /\n/, $got)
	{
		$verb = $line if $line =~ /^\d+:$/;
		push @lines, "got $verb $line" if --$count{"$verb $line"} < 0;
	}
	push @lines, map { "missing $_" } grep { $count{$_} > 0 } sort keys %count;
	return join "\n", @lines;
}

my $expected = outcome('');
my $expected_trapped = outcome("application_name = 'trap'");
my $expected_few = outcome("application_name = ''");
unlike("$expected$expected_trapped$expected_few", qr/ERROR/, 'no call fails');
for my $settings (@others, grep { /plan_cache_mode|jit|parallel_query|parallel_mode/ } @planner)
{
	next unless available($settings);
	is( difference($settings =~ /trap/ ? $expected_trapped : $settings =~ $texts ? $expected : $expected_few, outcome($settings)),
		'', "the calls under $settings");
}

############################################################# how they do it

# A long queue, in which message 1 lies behind all others
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');
$node->safe_psql('postgres', q{
	SELECT pgmq.create('long');
	SELECT count(*) FROM pgmq.send_batch('long', array_fill('{"k": 0}'::jsonb, '{20000}'));
	SELECT pgmq.set_vt('long', 1::bigint, 0);
	VACUUM (ANALYZE) pgmq.q_long;
	CREATE TABLE touched (n serial, msg_id bigint);
	CREATE FUNCTION touch() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.touched (msg_id) VALUES (OLD.msg_id);
		RETURN CASE TG_OP WHEN 'UPDATE' THEN NEW ELSE OLD END;
	END $$;
	CREATE TRIGGER touch BEFORE UPDATE OR DELETE ON pgmq.q_long FOR EACH ROW EXECUTE FUNCTION touch();
});

# In which order rows are touched, and how often the table was scanned from one end to the other
sub work
{
	my ($settings) = @_;

	return $node->safe_psql('postgres', "SET $settings;\n" . q{
		BEGIN;
		DO $$ BEGIN
			PERFORM pgmq.set_vt('long', '{7,1,5,3}'::bigint[], 0);
			PERFORM pgmq.set_vt('long', '{9,1}'::bigint[], now());
			PERFORM pgmq.read('long', 0, 3);
			PERFORM pgmq.read('long', 60, 5, '{"k": 0}');
			PERFORM pgmq.pop('long', 2);
			PERFORM pgmq.archive('long', '{22,1,21}'::bigint[]);
			PERFORM pgmq.delete('long', '{32,3,31}'::bigint[]);
			PERFORM pgmq.send_batch('long', '{1,2,3}'::jsonb[]);
		END $$;
		SELECT string_agg(msg_id::text, ' ' ORDER BY n) FROM touched;
		SELECT coalesce(seq_scan, 0) FROM pg_stat_xact_user_tables WHERE relid = 'pgmq.q_long'::regclass;
		ROLLBACK});
}

my $in_order = work("application_name = ''");
like($in_order, qr/^1 3 5 7 1 9 .* 1 21 22 3 31 32\n0$/, 'rows are locked in the order of their ids, and the queue is not scanned');
for my $settings (@planner)
{
	next unless available($settings);
	is(work($settings), $in_order, "the same rows in the same order, no scan: $settings");
}

# What a session sets after it has made its plans does not change them either
my $session = $node->background_psql('postgres');
$session->query_safe($_)
  for "SET client_min_messages = error", 'BEGIN', "SELECT count(*) FROM pgmq.set_vt('long', '{7,1}'::bigint[], 0)", 'ROLLBACK';
for my $settings (@planner)
{
	next unless available($settings);
	$session->query_safe($_)
	  for 'BEGIN', (map { "SET LOCAL $_" } split /; SET /, $settings), "SELECT count(*) FROM pgmq.set_vt('long', '{7,1}'::bigint[], 0)";
	is($session->query_safe("SELECT string_agg(msg_id::text, ' ' ORDER BY n) FROM touched"), '1 7', "a plan that was made before: $settings");
	$session->query_safe('ROLLBACK');
}
$session->quit;

# Two sessions that lock the same rows, one with custom plans and one without: no deadlock, for the second waits at the first row
my ($auto, $custom) = map { $node->background_psql('postgres') } 1 .. 2;
$custom->query_safe('SET plan_cache_mode = force_custom_plan');
$auto->query_safe($_) for 'BEGIN', "SELECT count(*) FROM pgmq.set_vt('long', 1::bigint, 0)";
$custom->query_until(qr/begun/, q{
	\echo begun
	BEGIN; SELECT count(*) FROM pgmq.set_vt('long', '{2,1}'::bigint[], 0);
});
$node->poll_query_until('postgres', "SELECT count(*) > 0 FROM pg_stat_activity WHERE query ~ 'set_vt' AND wait_event_type = 'Lock'");
is($auto->query_safe("SET LOCAL lock_timeout = 1; SELECT count(*) FROM pgmq.set_vt('long', 2::bigint, 0)"), '1', 'a batch that waits for a row holds none behind it');
$auto->query_safe('COMMIT');
$custom->query_safe('ROLLBACK');
$_->quit foreach $auto, $custom;

# Without shared memory for statistics of its own, a session still notifies
$node->safe_psql('postgres', "SELECT pgmq.create('n'); SELECT pgmq.enable_notify_insert('n', 0)");
my ($out) = $node->safe_psql('postgres', q{SET track_counts = off; LISTEN "pgmq.q_n.INSERT"; SELECT count(*) FROM pgmq.send('n', '1')});
like($out, qr/Asynchronous notification "pgmq.q_n.INSERT"/, 'notifications without counting');

$node->stop;
done_testing();

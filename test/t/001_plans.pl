# The plans of a queue: made once per session, good for an empty queue and for a
# long one, whatever the statistics say.
#
# The evidence comes from outside the extension: auto_explain shows the plans
# that really ran inside the calls, the server's counters show scans, and
# pg_stat_statements counts what was planned.
use strict;
use warnings;

use JSON::PP;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('plans');
$node->init;
$node->append_conf('postgresql.conf', qq(
shared_preload_libraries = 'pg_stat_statements'
pg_stat_statements.track = all
pg_stat_statements.track_planning = on
log_statement = none
# A vacuum of its own would refresh the statistics that must stay wrong here
autovacuum = off
# Compiling is for its own part, below
jit = off
));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_stat_statements');

# What a long queue costs at most, in pages, for a call on ten rows or fewer.
# The table has some thousands of pages, so one scan of it is far beyond.
my $MAX_PAGES = 300;

# Every call that has a statement of its own, by a name for the messages.  IDS
# stands for three msg_ids, ID for one.  The condition is one that most messages
# meet: a read walks past those that don't, and no plan can change that.
my @calls = (
	[ 'read',             "SELECT count(*) FROM pgmq.read('QUEUE', 60, 10)" ],
	[ 'read, condition',  "SELECT count(*) FROM pgmq.read('QUEUE', 60, 10, '{\"k\": 0}')" ],
	[ 'pop',              "SELECT count(*) FROM pgmq.pop('QUEUE', 10)" ],
	[ 'set_vt',           "SELECT count(*) FROM pgmq.set_vt('QUEUE', ID, 0)" ],
	[ 'set_vt, time',     "SELECT count(*) FROM pgmq.set_vt('QUEUE', ID, now())" ],
	[ 'set_vt, array',    "SELECT count(*) FROM pgmq.set_vt('QUEUE', IDS, 0)" ],
	[ 'set_vt, array and time', "SELECT count(*) FROM pgmq.set_vt('QUEUE', IDS, now())" ],
	[ 'delete',           "SELECT pgmq.delete('QUEUE', ID)" ],
	[ 'delete, array',    "SELECT count(*) FROM pgmq.delete('QUEUE', IDS)" ],
	[ 'archive',          "SELECT pgmq.archive('QUEUE', ID)" ],
	[ 'archive, array',   "SELECT count(*) FROM pgmq.archive('QUEUE', IDS)" ],
	[ 'send',             "SELECT count(*) FROM pgmq.send('QUEUE', '{\"n\": 1}')" ],
	[ 'send, delay',      "SELECT count(*) FROM pgmq.send('QUEUE', '{\"n\": 1}', 1)" ],
	[ 'send, time',       "SELECT count(*) FROM pgmq.send('QUEUE', '{\"n\": 1}', now())" ],
	[ 'send_batch',       "SELECT count(*) FROM pgmq.send_batch('QUEUE', '{1,2,3}'::jsonb[])" ],
	[ 'send_batch, delay', "SELECT count(*) FROM pgmq.send_batch('QUEUE', '{1,2,3}'::jsonb[], 1)" ],
	[ 'send_batch, time', "SELECT count(*) FROM pgmq.send_batch('QUEUE', '{1,2,3}'::jsonb[], now())" ]);

# The ids that the next call may use: none is used twice
my $next_id = 1000;

sub call_sql
{
	my ($call, $queue) = @_;
	my $sql = $call->[1];
	my $id = $next_id += 10;
	my $ids = join ',', $id + 5, $id + 1, $id + 3;

	$sql =~ s/QUEUE/$queue/;
	$sql =~ s/IDS/ARRAY[$ids]::bigint[]/;
	$sql =~ s/\bID\b/$id/;
	return $sql;
}

# A session whose every statement, nested ones too, leaves its plan in the log
sub explained_session
{
	my $session = $node->background_psql('postgres');

	$session->query_safe($_)
	  for "LOAD 'auto_explain'",
	  'SET auto_explain.log_nested_statements = on',
	  'SET auto_explain.log_analyze = on',
	  'SET auto_explain.log_buffers = on',
	  'SET auto_explain.log_timing = off',
	  'SET auto_explain.log_format = json',
	  'SET auto_explain.log_min_duration = 0';
	return $session;
}

# explained(session, sql): the plans of all statements that ran for it
sub explained
{
	my ($session, $sql) = @_;
	my $offset = -s $node->logfile;
	my $marker = "explained $next_id " . rand();
	my $log;
	my @plans;

	$session->query_safe($sql);
	# The log is written by another process: what follows this line is not ours
	$session->query_safe("DO \$\$ BEGIN RAISE LOG '$marker'; END \$\$");
	$node->wait_for_log(quotemeta $marker, $offset);
	$log = slurp_file($node->logfile, $offset);
	$log =~ s/\Q$marker\E.*//s;
	while ($log =~ /duration: [\d.]+ ms  plan:\n((?:\t.*\n)+)/g)
	{
		(my $json = $1) =~ s/^\t//mg;
		push @plans, decode_json($json);
	}
	return @plans;
}

# The nodes of a plan, as a flat list
sub nodes
{
	my ($plan) = @_;

	return ($plan, map { nodes($_) } @{ $plan->{Plans} || [] });
}

# What a plan does that no plan of a queue may do
sub bad_nodes
{
	my ($explained) = @_;

	return grep { /Seq Scan|Sort|Bitmap|Hash Join|Hash$|Merge Join|Materialize/ }
	  map { $_->{'Node Type'} } nodes($explained->{Plan});
}

sub pages
{
	my ($explained) = @_;

	return $explained->{Plan}{'Shared Hit Blocks'} + $explained->{Plan}{'Shared Read Blocks'};
}

# Run every call and look at the statements on the queue that it ran: one, but a
# read has one for what is due and one for what is fresh, and may look twice
sub check_calls
{
	my ($session, $queue, $when, %expect) = @_;

	foreach my $call (@calls)
	{
		my @inner = grep { $_->{'Query Text'} =~ /pgmq\.q_$queue\b/ }
		  explained($session, call_sql($call, $queue));
		my $pages = 0;
		my $most = $call->[0] =~ /^(read|pop)/ ? 4 : 1;

		ok(@inner >= 1 && @inner <= $most, "$when: $call->[0] is at most $most statements")
		  or diag(scalar(@inner));
		$pages += pages($_) foreach @inner;
		is(join(', ', map { bad_nodes($_) } @inner), '', "$when: $call->[0] neither scans nor sorts")
		  or diag(encode_json(\@inner));
		cmp_ok($pages, '<=', $MAX_PAGES, "$when: $call->[0] touches few pages")
		  if $expect{few_pages};
		ok((!grep { defined $_->{JIT} } @inner), "$when: $call->[0] is not compiled")
		  if $expect{no_jit};
	}
}

# Sequential scans of the queue and its archive so far.  The session hands its
# counters in first.
sub seq_scans
{
	my ($session, $queue) = @_;

	$session->query_safe('SELECT pg_stat_force_next_flush()');
	return $node->safe_psql('postgres',
		"SELECT sum(seq_scan), sum(seq_tup_read) FROM pg_stat_user_tables
		  WHERE schemaname = 'pgmq' AND relname IN ('q_$queue', 'a_$queue')");
}

# (plans, calls) of the statements inside the functions, on one queue
sub planned
{
	my ($queue) = @_;

	return split /\|/, $node->safe_psql('postgres',
		"SELECT coalesce(sum(plans), 0), coalesce(sum(calls), 0), count(*) FROM pg_stat_statements
		  WHERE NOT toplevel AND query ~ '^(INSERT|UPDATE|DELETE|WITH).*pgmq\\.q_$queue\\M'");
}

############################################# from an empty queue to a long one

$node->safe_psql('postgres', "SELECT pgmq.create('flood')");
$node->safe_psql('postgres', 'VACUUM (ANALYZE) pgmq.q_flood, pgmq.a_flood');
is( $node->safe_psql('postgres', "SELECT relpages, reltuples FROM pg_class WHERE oid = 'pgmq.q_flood'::regclass"),
	'0|0', 'to the server the queue is empty');

my $session = explained_session();
my $scans = seq_scans($session, 'flood');

check_calls($session, 'flood', 'empty');
is(seq_scans($session, 'flood'), $scans, 'the server counted no sequential scan of the empty queue');
# A read of nothing due has no plan for that yet: have one while the queue is short
$session->query_safe($_)
  for "SELECT pgmq.send_batch('flood', '{1,2,3,4}')",
  map { ("SELECT pgmq.set_vt('flood', ARRAY(SELECT msg_id FROM pgmq.q_flood), 0)", $_) }
  "SELECT pgmq.read('flood', 0, 10)", "SELECT pgmq.read('flood', 0, 10, '[]')", "SELECT pgmq.pop('flood')";
$scans = seq_scans($session, 'flood');

my ($plans_before, $calls_before) = planned('flood');

$session->query_safe('SET auto_explain.log_min_duration = -1');
is( $session->query_safe(q{
	SELECT count(DISTINCT id)
	  FROM generate_series(1, 30) AS batch,
	       pgmq.send_batch('flood', ARRAY(SELECT jsonb_build_object('n', batch + i, 'k', 0)
	                                        FROM generate_series(1, 10000) AS i)) AS id}),
	'300000', '300,000 messages sent');
$session->query_safe('SET auto_explain.log_min_duration = 0');
cmp_ok($node->safe_psql('postgres', "SELECT pg_relation_size('pgmq.q_flood') / current_setting('block_size')::int"),
	'>', 10 * $MAX_PAGES, 'a scan of the queue would be seen');

check_calls($session, 'flood', 'long', few_pages => 1);
is(seq_scans($session, 'flood'), $scans, 'the server counted no sequential scan');

my ($plans_after, $calls_after) = planned('flood');
is($plans_after, $plans_before, 'the plans are those of the empty queue');
cmp_ok($calls_after, '>=', $calls_before + @calls + 29, 'and were used');
isnt($node->safe_psql('postgres',
		"SELECT sum(idx_scan) FROM pg_stat_user_indexes WHERE relname = 'q_flood'"),
	'0', 'the server counted index scans');

# New statistics mean new plans, which must be as good
$node->safe_psql('postgres', 'ANALYZE pgmq.q_flood, pgmq.a_flood');
check_calls($session, 'flood', 'long and analyzed', few_pages => 1);

# The statistics of one page, and then a long queue
$next_id = 1_000_000;
$node->safe_psql('postgres', q{
	SELECT pgmq.purge_queue('flood');
	SELECT pgmq.send_batch('flood', array_fill('{"k": 0}'::jsonb, '{30}'))});
$node->safe_psql('postgres', 'VACUUM (ANALYZE) pgmq.q_flood, pgmq.a_flood');
$scans = seq_scans($session, 'flood');
check_calls($session, 'flood', 'one page');
$node->safe_psql('postgres', q{
	SELECT count(*) FROM generate_series(1, 10) AS batch,
		pgmq.send_batch('flood', array_fill(jsonb_build_object('n', batch, 'k', 0), '{10000}'))});
$next_id = $node->safe_psql('postgres', 'SELECT max(msg_id) - 50000 FROM pgmq.q_flood');
check_calls($session, 'flood', 'one page, then long', few_pages => 1);
is(seq_scans($session, 'flood'), $scans, 'the server counted no sequential scan after one page');
$session->quit;

###################################################### a warm session plans nothing

$node->safe_psql('postgres', q{
	SELECT pgmq.create('warm');
	SELECT pgmq.send_batch('warm', array_fill('{"k": 0}'::jsonb, '{5000}'))});
$next_id = 1000;
$session = $node->background_psql('postgres');
$session->query_safe(call_sql($_, 'warm')) for @calls;
# what is due and what is fresh have a statement each
$session->query_safe($_)
  for map { ("SELECT pgmq.set_vt('warm', ARRAY(SELECT msg_id FROM pgmq.q_warm LIMIT 5), 0)", $_) }
  "SELECT pgmq.read('warm', 60, 10)", "SELECT pgmq.read('warm', 60, 10, '{\"k\": 0}')", "SELECT pgmq.pop('warm', 10)";
my ($plans, $calls, $statements) = planned('warm');
is($statements, @calls + 3, 'each call has its own statement, those that read have two');
foreach my $round (1 .. 3)
{
	$session->query_safe(call_sql($_, 'warm')) for @calls;
}
my ($plans_then, $calls_then, $statements_then) = planned('warm');
is("$plans_then $statements_then", "$plans $statements", 'three rounds of every call: nothing is planned');
cmp_ok($calls_then, '>=', $calls + 3 * @calls, 'and all are executed');

# Other search paths, roles' settings and prepared statements are no reason to
# plan either; nor is a second session's work.
$session->query_safe($_)
  for 'SET work_mem = 1234', 'SET enable_indexscan = on',
  "PREPARE p AS SELECT pgmq.send('warm', '{}')", 'EXECUTE p', 'EXECUTE p';
is(join(' ', (planned('warm'))[0]), $plans, 'nor by way of a prepared statement');

# The counter does count: a second session plans for itself
my $other = $node->background_psql('postgres');
$other->query_safe("SELECT pgmq.send('warm', '{}')");
is((planned('warm'))[0], $plans + 1, 'a new session plans its own');
$other->quit;
$session->quit;

############################################################## what users hang on

# A statement in a trigger is planned as anywhere else: nothing is switched off
# while it is.
$node->safe_psql('postgres', q{
	SELECT pgmq.create('hooked');
	CREATE TABLE witness (id serial, op text, seqscan text, bitmapscan text, sort text, jit text);
	CREATE TABLE small AS SELECT i AS n FROM generate_series(1, 20) AS i;
	CREATE INDEX ON small (n);
	ANALYZE small;
	CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM n FROM public.small WHERE n = 3 ORDER BY n;
		INSERT INTO public.witness (op, seqscan, bitmapscan, sort, jit) VALUES (TG_OP,
			current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
			current_setting('enable_sort'), current_setting('jit'));
		RETURN NULL;
	END $$;
	CREATE TRIGGER look AFTER INSERT OR UPDATE OR DELETE ON pgmq.q_hooked
		FOR EACH ROW EXECUTE FUNCTION look();
});
$session = explained_session();
# compiling is allowed, only never worth it here
$session->query_safe('SET jit = on');
my @hooked = map { explained($session, $_) }
  "SELECT pgmq.send('hooked', '{}')", "SELECT pgmq.read('hooked', 0, 1)",
  "SELECT pgmq.pop('hooked')";
is($node->safe_psql('postgres',
		'SELECT string_agg(op || seqscan || bitmapscan || sort || jit, $$,$$ ORDER BY id) FROM witness'),
	'INSERTonononon,UPDATEonononon,DELETEonononon', 'a trigger sees the settings of its session');
is_deeply(
	[ map { join ',', map { $_->{'Node Type'} } nodes($_->{Plan}) }
	  grep { $_->{'Query Text'} =~ /public\.small/ } @hooked ],
	[ ('Seq Scan') x 3 ],
	'a statement in a trigger is planned with all that the planner has');

# Nor may an error in the midst of planning leave anything switched off
$session->query_safe('ALTER TABLE pgmq.q_hooked RENAME COLUMN headers TO tails');
my $settings = "SELECT current_setting('enable_seqscan'), current_setting('enable_bitmapscan'),
	current_setting('enable_sort'), current_setting('jit')";
$session->query_safe(q{
	DO $$ BEGIN
		PERFORM pgmq.send('hooked', '{}');
		RAISE 'not reached';
	EXCEPTION WHEN undefined_column THEN NULL; END $$});
is($session->query_safe($settings), 'on|on|on|on', 'a statement that cannot be planned leaves no switch off');
$session->query_safe('ALTER TABLE pgmq.q_hooked RENAME COLUMN tails TO headers');
$session->query_safe("SELECT pgmq.send('hooked', '{}')");
is($session->query_safe($settings), 'on|on|on|on', 'nor does one that can again');
# what the session itself has switched off stays off
$session->query_safe('SET enable_sort = off');
$session->query_safe("SELECT pgmq.set_vt('hooked', 1, 5)");
is($session->query_safe($settings), 'on|on|off|on', "a session's own switch stays as it is");
$session->quit;

########################################################################## compiling

SKIP:
{
	skip 'this server cannot compile', 1
	  unless $node->safe_psql('postgres', 'SET jit = on; SELECT pg_jit_available()') eq 't';
	$session = explained_session();
	$session->query_safe($_) for 'SET jit = on', 'SET jit_above_cost = 0';

	my ($control) = explained($session, 'SELECT count(*) FROM pgmq.q_flood WHERE read_ct = 1');
	ok(defined $control->{JIT}, 'any other statement is compiled');
	check_calls($session, 'flood', 'jit_above_cost = 0', few_pages => 1, no_jit => 1);
	$session->quit;
}

$node->stop;
done_testing();

# The tables of docs/privileges.md, tried: each task works with what its row grants, and not without
# any single one of these grants.  And refused calls wait for no lock.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('rights');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE tester;
	CREATE ROLE maker;
	CREATE EXTENSION pgmq;
	GRANT USAGE, CREATE ON SCHEMA pgmq TO maker;
	GRANT SELECT, INSERT ON pgmq.meta TO maker;
	GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.notify_insert_throttle TO maker;
	SET ROLE maker;
	SELECT pgmq.create('jobs');
	SELECT pgmq.send_batch('jobs', '{1,2,3}'::jsonb[]);
	SELECT pgmq.create_stream('events');
	SELECT pgmq.publish('events', '1');
	SELECT pgmq.subscribe('events', 'theirs', 'earliest');
	RESET ROLE;
	SELECT pgmq.bind_topic('a.b', 'jobs');
});

# outcome(setup, call): what a call does as the role tester after some statements; nothing of it stays
$node->safe_psql('postgres', q{
	CREATE FUNCTION public.outcome(setup text[], call text) RETURNS text LANGUAGE plpgsql AS $$
	DECLARE
		statement text;
	BEGIN
		FOREACH statement IN ARRAY setup LOOP
			EXECUTE statement;
		END LOOP;
		SET LOCAL ROLE tester;
		EXECUTE call;
		RAISE EXCEPTION 'undo' USING ERRCODE = 'PQ000';
	EXCEPTION
		WHEN SQLSTATE 'PQ000' THEN RETURN 'ok';
		WHEN insufficient_privilege THEN RETURN '42501';
		WHEN OTHERS THEN RETURN SQLSTATE || ' ' || SQLERRM;
	END $$;
});

sub outcome
{
	my ($setup, $call) = @_;

	return outcome_outside($setup, $call) if $call =~ /^CALL pgmq.wait/;
	my $quoted = join(', ', map { "\$s\$$_\$s\$" } @$setup);

	return $node->safe_psql('postgres', "SET client_min_messages = error; SELECT public.outcome(ARRAY[$quoted]::text[], \$c\$$call\$c\$)");
}

# The same of a call that is no part of a transaction
sub outcome_outside
{
	my ($setup, $call) = @_;
	my $stderr;

	$node->safe_psql('postgres', join('; ', @$setup));
	$node->psql('postgres', "SET ROLE tester;\n$call", stderr => \$stderr, extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	$node->safe_psql('postgres', 'DROP OWNED BY tester; UPDATE pgmq.subscription SET role = session_user');
	return $stderr =~ /ERROR:  (\w{5}): (.*)/ ? ($1 eq '42501' ? $1 : "$1 $2") : 'ok';
}

# How each function of the tables is called
my %calls = (
	send => [ "SELECT pgmq.send('jobs', '1'::jsonb)", "SELECT pgmq.send('jobs', '1'::jsonb, 60)" ],
	send_batch => [ "SELECT pgmq.send_batch('jobs', '{1,2}'::jsonb[])" ],
	send_unique => [ "SELECT pgmq.send_unique('jobs', '1', 'key')", "SELECT pgmq.send_unique('jobs', '1', 'first')" ],
	send_unique_batch => [ "SELECT pgmq.send_unique_batch('jobs', '{1,2}', '{first,key}')" ],
	read => [ "SELECT pgmq.read('jobs', 0, 1)", "SELECT pgmq.read('jobs', 0, 1, '1')" ],
	read_where => [ "SELECT pgmq.read_where('jobs', 0, 1)", "SELECT pgmq.read_where('jobs', 0, 1, '1', '2')" ],
	read_with_poll => [ "SELECT pgmq.read_with_poll('jobs', 0, 1, 0)" ],
	read_grouped => [ "SELECT pgmq.read_grouped('jobs', 0, 1)", "SELECT pgmq.read_grouped_with_poll('jobs', 0, 1, 0)" ],
	read_grouped_rr => [ "SELECT pgmq.read_grouped_rr('jobs', 0, 1)", "SELECT pgmq.read_grouped_rr_with_poll('jobs', 0, 1, 0)" ],
	read_grouped_head => [ "SELECT pgmq.read_grouped_head('jobs', 0, 1)" ],
	read_grouped_with_poll => [ "SELECT pgmq.read_grouped_with_poll('jobs', 0, 1, 0)" ],
	read_grouped_rr_with_poll => [ "SELECT pgmq.read_grouped_rr_with_poll('jobs', 0, 1, 0)" ],
	read_grouped_head_with_poll => [ "SELECT pgmq.read_grouped_head_with_poll('jobs', 0, 1, 0)" ],
	set_vt => [ "SELECT pgmq.set_vt('jobs', 1, 0)", "SELECT pgmq.set_vt('jobs', '{1}'::bigint[], now())" ],
	nack => [ "SELECT pgmq.nack('jobs', 1, 1, 'e')" ],
	nack_batch => [ "SELECT pgmq.nack_batch('jobs', '{1}', '{1}', 'e')" ],
	release => [ "SELECT pgmq.release('jobs', 1, 1)" ],
	release_batch => [ "SELECT pgmq.release_batch('jobs', '{1}', '{1}')" ],
	touch => [ "SELECT pgmq.touch('jobs', 1, 1, 9)" ],
	touch_batch => [ "SELECT pgmq.touch_batch('jobs', '{1}', '{1}', 9)" ],
	ack => [ "SELECT pgmq.ack('jobs', 1, 1)" ],
	ack_batch => [ "SELECT pgmq.ack_batch('jobs', '{1}', '{1}')" ],
	ack_archive => [ "SELECT pgmq.ack_archive('jobs', 1, 1)" ],
	ack_archive_batch => [ "SELECT pgmq.ack_archive_batch('jobs', '{1}', '{1}')" ],
	dead_letter => [ "SELECT pgmq.dead_letter('jobs', 1, 1)" ],
	next => [ "SELECT pgmq.next('jobs', 0, 1, '{1}', '{1}')" ],
	peek => [ "SELECT pgmq.peek('jobs')", "SELECT pgmq.peek('jobs', 1, '1', '{1}')" ],
	wait => [ "CALL pgmq.wait('jobs', 0)" ],
	wait_any => [ "CALL pgmq.wait_any('{jobs}', 0)" ],
	wait_grouped => [ "CALL pgmq.wait_grouped('jobs', 0)" ],
	rescan => [ "SELECT pgmq.rescan('jobs')" ],
	delete => [ "SELECT pgmq.delete('jobs', 1)", "SELECT pgmq.delete('jobs', '{1}'::bigint[])" ],
	pop => [ "SELECT pgmq.pop('jobs')", "SELECT pgmq.pop('jobs', 2)" ],
	'archive(text, bigint)' => [ "SELECT pgmq.archive('jobs', 1)" ],
	'archive(text, bigint[])' => [ "SELECT pgmq.archive('jobs', '{1}'::bigint[])" ],
	redrive => [ "SELECT pgmq.redrive('jobs')", "SELECT pgmq.redrive('jobs', msg_ids => '{1}')" ],
	purge_queue => [ "SELECT pgmq.purge_queue('jobs')" ],
	DELETE => [ 'DELETE FROM pgmq.a_jobs WHERE archived_at < now()' ],
	metrics => [ "SELECT pgmq.metrics('jobs')" ],
	metrics_all => [ 'SELECT pgmq.metrics_all()' ],
	queue_status => [ "SELECT pgmq.queue_status('jobs')" ],
	list_queues => [ 'SELECT pgmq.list_queues()' ],
	send_topic => [ "SELECT pgmq.send_topic('a.b', '1'::jsonb)" ],
	send_batch_topic => [ "SELECT pgmq.send_batch_topic('a.b', '{1,2}'::jsonb[])" ],
	test_routing => [ "SELECT pgmq.test_routing('a.b')" ],
	list_topic_bindings => [ 'SELECT pgmq.list_topic_bindings()', "SELECT pgmq.list_topic_bindings('jobs')" ],
	bind_topic => [ "SELECT pgmq.bind_topic('a.c', 'jobs')" ],
	unbind_topic => [ "SELECT pgmq.unbind_topic('a.b', 'jobs')" ],
	create => [ "SELECT pgmq.create('new')" ],
	create_non_partitioned => [ "SELECT pgmq.create_non_partitioned('new')" ],
	create_unlogged => [ "SELECT pgmq.create_unlogged('new')" ],
	drop_queue => [ "SELECT pgmq.drop_queue('jobs')" ],
	create_fifo_index => [ "SELECT pgmq.create_fifo_index('jobs')" ],
	create_fifo_indexes_all => [ 'SELECT pgmq.create_fifo_indexes_all()' ],
	enable_notify_insert => [ "SELECT pgmq.enable_notify_insert('jobs')" ],
	update_notify_insert => [ "SELECT pgmq.update_notify_insert('jobs', 5)" ],
	disable_notify_insert => [ "SELECT pgmq.disable_notify_insert('jobs')" ],
	list_notify_insert_throttles => [ 'SELECT pgmq.list_notify_insert_throttles()' ],
	set_policy => [ "SELECT pgmq.set_policy('jobs', retry_delay => '1 s')" ],
	reset_policy => [ "SELECT pgmq.reset_policy('jobs')" ],
	list_policies => [ 'SELECT pgmq.list_policies()' ],
	pause_queue => [ "SELECT pgmq.pause_queue('jobs')" ],
	resume_queue => [ "SELECT pgmq.resume_queue('jobs')" ],
	format_table_name => [ "SELECT pgmq.format_table_name('jobs', 'q')" ],
	validate_queue_name => [ "SELECT pgmq.validate_queue_name('jobs')" ],
	validate_routing_key => [ "SELECT pgmq.validate_routing_key('a.b')" ],
	validate_topic_pattern => [ "SELECT pgmq.validate_topic_pattern('a.*')" ],
	acquire_queue_lock => [ "SELECT pgmq.acquire_queue_lock('jobs')" ],
	detach_archive => [ "SELECT pgmq.detach_archive('jobs')" ],
	create_first_names => [ "SELECT pgmq.create_first_names('public')" ]);

# The same of the table about streams
my %stream_calls = (
	publish => [ "SELECT pgmq.publish('events', '1')" ],
	publish_batch => [ "SELECT pgmq.publish_batch('events', '{1,2}')" ],
	subscribe => [ "SELECT pgmq.subscribe('events', 'new')", "SELECT pgmq.subscribe('events', 'theirs')" ],
	fetch => [ "SELECT pgmq.fetch('events', 0, 0, 10)" ],
	receive => [ "SELECT pgmq.receive('events', 'theirs', 60, 10)" ],
	receive_with_poll => [ "SELECT pgmq.receive_with_poll('events', 'theirs', 60, 10, 0)" ],
	wait_stream => [ "CALL pgmq.wait_stream('events', 'theirs', 1)" ],
	advance => [ "SELECT pgmq.advance('events', 'theirs', 0, 1, 1)" ],
	extend_lease => [ "SELECT pgmq.extend_lease('events', 'theirs', 0, 1, 60)" ],
	return_lease => [ "SELECT pgmq.return_lease('events', 'theirs', 0, 1)" ],
	seek => [ "SELECT pgmq.seek('events', 'theirs', 'latest')" ],
	unsubscribe => [ "SELECT pgmq.unsubscribe('events', 'theirs')" ],
	list_streams => [ 'SELECT pgmq.list_streams()' ],
	list_subscriptions => [ 'SELECT pgmq.list_subscriptions()', "SELECT pgmq.list_subscriptions('events')" ],
	stream_lag => [ 'SELECT pgmq.stream_lag()', "SELECT pgmq.stream_lag('events')" ],
	create_stream => [ "SELECT pgmq.create_stream('new')", "SELECT pgmq.create_stream('new', 3, '1 day', '1 hour')" ],
	set_stream_retention => [ "SELECT pgmq.set_stream_retention('events', '1 hour')" ],
	bind_topic_stream => [ "SELECT pgmq.bind_topic_stream('a.c', 'events')" ],
	unbind_topic_stream => [ "SELECT pgmq.unbind_topic_stream('a.c', 'events')" ],
	drop_stream => [ "SELECT pgmq.drop_stream('events')" ]);

# What must be there for the call to do something
my %before = (update_notify_insert => [ "SELECT pgmq.enable_notify_insert('jobs')" ],
	disable_notify_insert => [ "SELECT pgmq.enable_notify_insert('jobs')" ]);

# grants(cell, object): the statements that a cell of the table stands for
sub grants
{
	my ($cell, $object) = @_;

	return () if $cell eq '';
	return ("ALTER TABLE $object OWNER TO tester") if $cell eq 'owner';
	return ("UPDATE pgmq.subscription SET role = 'tester'") if $cell eq 'the subscription';
	return map { "GRANT $_ ON $object TO tester" } split(/, /, $cell);
}

# other_grants(cell): the same of the last column: "SELECT, INSERT on `x`; SELECT on `y`"
sub other_grants
{
	my ($cell) = @_;
	my @grants;

	return grants($cell) if $cell eq 'the subscription';
	$cell =~ s/the schema that gets the functions/`SCHEMA public`/;
	foreach my $part (split(/; /, $cell))
	{
		my ($privileges, $object) = $part =~ /^([A-Z, ]+) on `([^`]+)`$/ or die "cannot read \"$part\"";

		$object =~ s/<queue>/jobs/;
		push @grants, grants($privileges, $object);
	}
	return @grants;
}

# read_table(kind, name, prefixes): the table with the columns of this kind, of a queue or a stream; a row in a hash
sub read_table
{
	my ($kind, $name, @prefixes) = @_;
	my ($text) = slurp_file("$FindBin::RealBin/../../docs/privileges.md") =~ /^\| task \| schema `pgmq` \| `pgmq.$prefixes[0]_<$kind>`(.*?)\n\n/ms
	  or die 'there is no table';
	my @rows;

	foreach my $line (grep { /^\| / } split(/\n/, $text))
	{
		my (undef, @cells) = map { s/^\s+|\s+$//gr } split(/\|/, $line, -1);
		my ($task, $schema, $first, $second, $other) = @cells;

		next if $task eq '' || $task =~ /^`pgmq\./;
		push @rows, {
			functions => [ $task =~ /`([^`]+)`/g ],
			grants => [ grants($schema, 'SCHEMA pgmq'), grants($first, "pgmq.$prefixes[0]_$name"),
				grants($second, "pgmq.$prefixes[1]_$name"), other_grants($other) ] };
	}
	return @rows;
}

# A role that has everything but the ownership of the queue
my @everything = ('GRANT ALL ON SCHEMA pgmq TO tester', 'GRANT ALL ON ALL TABLES IN SCHEMA pgmq TO tester',
	'GRANT ALL ON ALL SEQUENCES IN SCHEMA pgmq TO tester');

# The owner of a table has rights on it that nobody granted: only the ownership counts there
sub check_row
{
	my ($row, $calls) = @_;
	my @grants = @{ $row->{grants} };

	foreach my $function (@{ $row->{functions} })
	{
		ok($calls->{$function}, "there is a call of $function") or next;
		foreach my $call (@{ $calls->{$function} })
		{
			my @setup = @{ $before{$function} // [] };

			is(outcome([ @setup, @grants ], $call), 'ok', "all grants: $call");
			foreach my $missing (@grants)
			{
				is(outcome([ @setup, grep { $_ ne $missing } @grants ], $call), '42501', "without $missing: $call");
			}
			is(outcome([ @setup, @everything ], $call), '42501', "without ownership: $call")
			  if grep { /OWNER TO|SET role/ } @grants;
		}
		delete $calls->{$function};
	}
}

my @functions_of_streams = sort map { @{ $_->{functions} } } read_table('stream', 'events', 's', 'p');
foreach my $table ([ \%calls, 20, 'queue', 'jobs', 'q', 'a' ], [ \%stream_calls, 6, 'stream', 'events', 's', 'p' ])
{
	my ($calls, $least, @of) = @$table;
	my @rows = read_table(@of);

	cmp_ok(scalar @rows, '>', $least, "the table of the docs for a $of[0] was read");
	check_row($_, $calls) foreach @rows;
	is(join(', ', sort keys %$calls), '', 'every call is in the table');
}
is($node->safe_psql('postgres', q{SELECT string_agg(proname, ', ' ORDER BY proname COLLATE "C") FROM (SELECT DISTINCT proname FROM pg_proc
	WHERE pronamespace = 'pgmq'::regnamespace AND proname !~ '^_' AND ('stream_name' = ANY (proargnames) OR proname = 'list_streams')) AS p}),
	join(', ', @functions_of_streams), 'each function of streams is in the table');

################################################# maintenance without partitions needs no right to make tables

$node->safe_psql('postgres', q{
	SET ROLE maker;
	SELECT pgmq.create('kept'), pgmq.set_policy('kept', archive_retention => '1 minute');
	INSERT INTO pgmq.a_kept (msg_id, archived_at, vt) VALUES (1, now() - interval '1 hour', now());
	RESET ROLE;
	REVOKE CREATE ON SCHEMA pgmq FROM maker;
	REVOKE INSERT ON pgmq.meta FROM maker});
is($node->safe_psql('postgres', 'SET ROLE maker; CALL pgmq.maintain(); SELECT count(*) FROM pgmq.a_kept'), '0', 'maintain with USAGE and SELECT on pgmq.meta');
$node->safe_psql('postgres', q{GRANT CREATE ON SCHEMA pgmq TO maker; GRANT INSERT ON pgmq.meta TO maker; SELECT pgmq.drop_queue('kept')});

################################################# refused calls don't wait

my $holder = $node->background_psql('postgres');
$holder->query_safe("BEGIN; SELECT pgmq.acquire_queue_lock('jobs'); SELECT pgmq.acquire_queue_lock('new')");
$holder->query_safe('LOCK TABLE pgmq.q_jobs, pgmq.a_jobs, pgmq.s_events, pgmq.p_events IN ACCESS EXCLUSIVE MODE');
$holder->query_safe("SELECT pgmq.acquire_queue_lock('events')");
foreach my $call ("SELECT pgmq.create('new')", "SELECT pgmq.create('jobs')", "SELECT pgmq.create_unlogged('new')",
	"SELECT pgmq.create_partitioned('new')", "SELECT pgmq.drop_queue('jobs')",
	"SELECT pgmq.create_fifo_index('jobs')", 'SELECT pgmq.create_fifo_indexes_all()',
	"SELECT pgmq.enable_notify_insert('jobs')", "SELECT pgmq.update_notify_insert('jobs', 1)",
	"SELECT pgmq.disable_notify_insert('jobs')", "SELECT pgmq.set_retention('jobs', '0', true)",
	"SELECT pgmq.convert_archive_partitioned('jobs')", "SELECT pgmq.purge_queue('jobs')",
	"SELECT pgmq.create_stream('new')", "SELECT pgmq.create_stream('events')", "SELECT pgmq.drop_stream('events')",
	"SELECT pgmq.publish('events', '1')", "SELECT pgmq.publish_batch('events', '{1}')", "SELECT pgmq.subscribe('events', 'new')",
	"SELECT pgmq.fetch('events', 0, 0, 1)", "SELECT pgmq.receive('events', 'theirs', 0, 1)",
	"SELECT pgmq.receive_with_poll('events', 'theirs', 0, 1, 1)", "SELECT pgmq.advance('events', 'theirs', 0, 1, 1)",
	"SELECT pgmq.extend_lease('events', 'theirs', 0, 1, 1)", "SELECT pgmq.return_lease('events', 'theirs', 0, 1)",
	"SELECT pgmq.bind_topic_stream('a.c', 'events')", "SELECT pgmq.unbind_topic_stream('a.c', 'events')",
	"SELECT pgmq.set_stream_retention('events', '1 s')", "SELECT pgmq.seek('events', 'theirs', 'latest')", "SELECT pgmq.unsubscribe('events', 'theirs')",
	'SELECT pgmq.stream_lag()', "SELECT pgmq.stream_lag('events')", 'SELECT pgmq.list_subscriptions()', 'SELECT pgmq.list_streams()',
	"UPDATE pgmq.partition_config SET drop_unread = true", "DELETE FROM pgmq.meta WHERE queue_name = 'jobs'")
{
	is(outcome([ "SET LOCAL lock_timeout = '50ms'", 'GRANT USAGE ON SCHEMA pgmq TO tester',
				'GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.meta, pgmq.partition_config TO tester',
				"INSERT INTO pgmq.partition_config VALUES ('jobs', NULL, false, false) ON CONFLICT DO NOTHING" ], $call),
		'42501', "refused without a lock: $call");
}

################################################# a lock of an owner's delays nobody who looks at all queues

$node->safe_psql('postgres', "SELECT pgmq.create('free')");
my ($out, $err);
$node->psql('postgres', 'SELECT queue_name FROM pgmq.metrics_all()', stdout => \$out, stderr => \$err);
is($out, 'free', 'metrics_all goes past a locked queue');
like($err, qr/WARNING: +queue "jobs" is skipped: canceling statement due to lock timeout/, 'and says so');
$node->psql('postgres', "SET lock_timeout = '10ms'; SELECT queue_name FROM pgmq.metrics_all()", stdout => \$out, stderr => \$err);
is($out, 'free', 'also with a lock_timeout of the caller');
is($node->safe_psql('postgres', 'SHOW lock_timeout; SELECT count(*) FROM pgmq.metrics_all(); SHOW lock_timeout'), "0\n1\n0", 'the setting stays as it was');
$node->psql('postgres', 'SELECT queue FROM pgmq.list_partitions()', stderr => \$err);
unlike($err, qr/ERROR/, 'list_partitions ends, too');
$node->psql('postgres', "SET statement_timeout = '300ms'; SELECT pgmq.metrics_all()", stderr => \$err);
like($err, qr/ERROR: +canceling statement due to statement timeout/, 'a cancellation ends the call');
$holder->query_safe('COMMIT');
$holder->quit;

$node->stop;
done_testing();

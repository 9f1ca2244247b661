# ALTER EXTENSION pgmq UPDATE from every version of the PL/pgSQL extension: nothing is lost, the queues work on, and the
# catalogs are those of a fresh installation.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('takeover');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN; CREATE ROLE app LOGIN');

sub as
{
	my ($role, $db, $sql) = @_;

	return $node->safe_psql($db, $sql, extra_params => [ '-U', $role, '-v', 'ON_ERROR_STOP=1' ]);
}

# old_database(name, role, version): a database of the role with an extension of that version and queues
sub old_database
{
	my ($db, $role, $version) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER $role");
	as($role, $db, old_installation($version) . old_queues($version) . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
	$node->safe_psql($db, old_extension($version));
}

# Whatever a user would miss.  Columns that an update adds are NULL.
my $CONTENTS = q{
	SELECT format('SELECT %L, jsonb_agg(jsonb_strip_nulls(to_jsonb(t)) ORDER BY msg_id) FROM pgmq.%I AS t', relname, relname)
	  FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') AND relname ~ '^[qa]_' ORDER BY relname
	\gexec
	SELECT relname, relowner::regrole, relkind, relpersistence, relacl FROM pg_class
	 WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^(archived_at|[qa]_)' ORDER BY 1;
	SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2;
	SELECT pg_get_triggerdef(oid), tgenabled FROM pg_trigger WHERE tgname LIKE 'trigger_notify%' ORDER BY tgrelid::regclass::text;
	SELECT * FROM pgmq.meta ORDER BY queue_name};

sub contents
{
	my ($db, $version) = @_;
	my $sql = $CONTENTS;

	$sql .= '; SELECT * FROM pgmq.notify_insert_throttle ORDER BY queue_name' if at_least($version, '1.8.0');
	$sql .= '; SELECT pattern, queue_name, bound_at FROM pgmq.topic_bindings ORDER BY 1, 2' if at_least($version, '1.10.1');
	return $node->safe_psql($db, $sql);
}

###################################################### fresh and updated

my %fresh;
foreach my $role (qw(postgres boss))
{
	$node->safe_psql('postgres', "CREATE DATABASE fresh_$role OWNER $role");
	as($role, "fresh_$role", 'CREATE EXTENSION pgmq');
	$fresh{$role} = catalogs($node, "fresh_$role");
}

# The differences that are left, each with its reason
sub expected_differences
{
	my ($version) = @_;
	my @expected;

	# The column is not written anew; sends match the pattern itself
	push @expected, qr/^column\|pgmq\.topic_bindings\|4\|compiled_regex\|/ if at_least($version, '1.10.1');
	# Views and clients know the attributes by their places, so a new one comes last
	push @expected, qr/^type\|pgmq\.message_record\|/ unless at_least($version, '1.10.0');
	return @expected;
}

sub differences
{
	my ($db, $role, $version) = @_;
	my %lines = map { $_ => 1 } split /\n/, $fresh{$role};
	my @expected = expected_differences($version);
	my @others = grep { !delete $lines{$_} } split /\n/, catalogs($node, $db);

	return grep { my $line = $_; $line =~ s/^[-+]//; !grep { $line =~ $_ } @expected }
		((map { "-$_" } sort keys %lines), (map { "+$_" } @others));
}

###################################################### the upgrade of queues

sub upgrade_queues
{
	my ($db, $role, $version) = @_;
	my $left = 'SELECT * FROM pgmq.queues_to_upgrade';
	my $sequence = $node->safe_psql($db, q{SELECT relpersistence = 'u' FROM pg_class WHERE relname = 'q_unlogged_msg_id_seq'});

	like($node->safe_psql($db, $left), qr/^unlogged\|f\|t\|f\|f\|$sequence\|f\|f\|f$/m, "$version: queues are left");
	as($role, $db, 'CALL pgmq.upgrade_queues()');
	is($node->safe_psql($db, $left), '', "$version: and none after their upgrade");
	is($node->safe_psql($db, 'SELECT count(*) > 3 FROM pgmq.list_queues() AS l, pgmq.create(l.queue_name) WHERE NOT l.is_partitioned'), 't', "$version: create finds them");
}

###################################################### what works afterwards

sub check_queue
{
	my ($db, $queue, $headers, $by_id, $when) = @_;
	my @steps = (
		# the ids go on
		["SELECT pgmq.send('$queue', '{\"n\": 8}', '{\"x-pgmq-group\": \"h\"}'::jsonb)", 8],
		["SELECT array_agg(m) FROM pgmq.send_batch('$queue', '{1,2}'::jsonb[], 3600) AS m", '{9,10}'],
		# what is leased, delayed or archived is not read
		["SELECT msg_id, read_ct, last_read_at IS NOT NULL, vt > now(), headers FROM pgmq.read('$queue', 60, 2)",
			"4|1|t|t|\n5|1|t|t|" . ($headers ? '{"x-pgmq-group": "g"}' : '')],
		["SELECT msg_id, vt > last_read_at, message FROM pgmq.set_vt('$queue', 4, 0)", '4|t|{"n": 4}'],
		# what has been visible for longest; without an index on vt the first
		["SELECT msg_id, message FROM pgmq.pop('$queue')", $by_id ? '4|{"n": 4}' : '6|{"n": 6}'],
		["SELECT pgmq.delete('$queue', 1), pgmq.archive('$queue', 2)", 't|t'],
		["SELECT msg_id, message FROM pgmq.a_$queue ORDER BY 1", qq(2|{"n": 2}\n3|{"n": 3})],
		# 5 is leased, and 9 and 10 are delayed
		["SELECT msg_id FROM pgmq.read_grouped('$queue', 60, 5)", $by_id ? '8' : "4\n8"],
		["SELECT queue_length, queue_visible_length, total_messages FROM pgmq.metrics('$queue')", $by_id ? '5|1|10' : '5|0|10'],
		["SELECT pgmq.purge_queue('$queue')", 5],
		["SELECT pgmq.drop_queue('$queue')", 't']);

	is($node->safe_psql($db, join('; ', map { $_->[0] } @steps)), join("\n", map { $_->[1] } @steps), "$when: queue $queue");
}

my $i = 0;
foreach my $version (@OLD_VERSIONS)
{
	my $role = $i++ % 2 ? 'boss' : 'postgres';
	(my $db = "v$version") =~ tr/./_/;
	old_database($db, $role, $version);
	# What users have built on it
	as($role, $db, q{
		CREATE VIEW public.numbers AS SELECT queue_name, queue_length FROM pgmq.metrics_all();
		CREATE FUNCTION public.sending() RETURNS bigint LANGUAGE sql AS $$ SELECT pgmq.send('orders', '{"by": "sql"}') $$;
		CREATE FUNCTION public.sending_too() RETURNS bigint LANGUAGE plpgsql AS
			$$ BEGIN RETURN (SELECT s FROM pgmq.send('orders', '{"by": "plpgsql"}') AS s); END $$;
		CREATE TABLE public.kept (message pgmq.message_record);
		INSERT INTO public.kept SELECT jsonb_populate_record(NULL::pgmq.message_record, '{"msg_id": 5, "vt": "2024-01-01Z", "message": 7}');
		GRANT SELECT ON pgmq.q_orders TO app});
	my $before = contents($db, $version);
	like($before, qr/q_timed_p0.*"n": 6/s, "$version: there is something to take over");

	# Whatever a setting says of how the server spells names
	as($role, $db, 'SET quote_all_identifiers = ' . ($i % 3 ? 'off' : 'on') . '; ALTER EXTENSION pgmq UPDATE');
	is(contents($db, $version), $before, "$version: messages, leases, archives, ids, bindings, settings and rights are as they were");
	my @differences = differences($db, $role, $version);
	is("@differences", '', "$version, $role: the catalogs are those of a fresh installation")
		or diag(join("\n", @differences));

	is($node->safe_psql($db, 'SELECT count(*), sum(queue_length) FROM public.numbers WHERE queue_name <> $$Mixed$$'),
		at_least($version, '1.10.0') ? '6|30' : '5|25', "$version: a view over metrics");
	is($node->safe_psql($db, q{SELECT (message).msg_id, (message).vt = '2024-01-01Z', (message).message, (message).headers IS NULL,
		(message).last_read_at IS NULL FROM public.kept}), '5|t|7|t|t', "$version: values of an old type");
	# In half of the versions queues stay as they are
	my $upgraded = $i % 4 < 2;
	upgrade_queues($db, $role, $version) if $upgraded;
	foreach my $queue (qw(mixed unlogged part timed), at_least($version, '1.10.0') ? 'aged' : ())
	{
		check_queue($db, $queue, at_least($version, '1.5.0'), !$upgraded && $queue eq 'part', $version);
	}
	is($node->safe_psql($db, 'SELECT public.sending(), public.sending_too()'), '8|9', "$version: functions of users");
	is($node->safe_psql($db, 'SELECT queue_name FROM pgmq.list_queues()'), 'orders', "$version: the others are gone");

	# Notifications: the old trigger, and a new one
	if (at_least($version, '1.7.0'))
	{
		my $listen = q{LISTEN "pgmq.q_orders.INSERT"; SELECT pgmq.send('orders', '1') > 0;};
		like($node->safe_psql($db, $listen), qr/Asynchronous notification "pgmq.q_orders.INSERT"/, "$version: the old trigger notifies")
			if at_least($version, '1.8.0');
		like($node->safe_psql($db, "SELECT pgmq.enable_notify_insert('orders', 0);" . $listen), qr/Asynchronous notification/,
			"$version: so does a new one");
		is($node->safe_psql($db, "SELECT pgmq.disable_notify_insert('orders'); SELECT count(*) FROM pg_trigger WHERE tgname ~ 'notify_queue'"),
			"\n0", "$version: and it can be switched off");
	}
	# The group index
	is($node->safe_psql($db, q{
		SELECT pgmq.send('orders', '1', '{"x-pgmq-group": "new"}'::jsonb) > 0;
		SELECT pgmq.create_fifo_index('orders');
		SELECT amname FROM pg_class AS c JOIN pg_am AS a ON a.oid = relam WHERE relname = 'q_orders_fifo_idx';
		SELECT count(*) > 0 FROM pgmq.read_grouped_rr('orders', 1, 5)}), "t\n\nbtree\nt", "$version: a group index");
	$node->safe_psql('postgres', "DROP DATABASE $db");
}

###################################################### the old index on vt serves until there is the new one

old_database('many', 'postgres', '1.13.1');
$node->safe_psql('many', q{
	INSERT INTO pgmq.q_mixed (vt, message) SELECT clock_timestamp() - interval '1 minute', '{}' FROM generate_series(1, 20000);
	VACUUM ANALYZE pgmq.q_mixed;
	INSERT INTO pgmq.q_part (vt, message) SELECT clock_timestamp() - interval '1 minute', '{}' FROM generate_series(1, 15000);
	VACUUM ANALYZE pgmq.q_part;
	ALTER EXTENSION pgmq UPDATE});
# The first read learns that nothing is fresh
$node->safe_psql('many', q{SELECT pgmq.read('mixed', 60, 10)});
like($node->safe_psql('many', q{
	BEGIN;
	SELECT count(*) FROM pgmq.read('mixed', 60, 10);
	SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0) FROM pg_stat_xact_user_tables WHERE relname = 'q_mixed';
	COMMIT}), qr/^10\n\d{2,3}$/, 'a read does not scan the queue');
# An old partitioned queue has no index on vt.  It is read by msg_id, as before the update.
foreach my $call ("read('part', 60, 10)", "pop('part', 10)")
{
	like($node->safe_psql('many', qq{
		BEGIN;
		SELECT count(*) FROM pgmq.$call;
		SELECT sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)) FROM pg_stat_xact_user_tables WHERE relname ~ '^q_part';
		COMMIT}), qr/^10\n\d{2,3}$/, "nor does $call");
}

$node->stop;
done_testing();

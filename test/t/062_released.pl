# The same with what was really released: version 1.11.1 of the PL/pgSQL extension, which is fetched from npm and is no
# part of this project.  Without it, or where extensions cannot be put beside ours, there is nothing to test.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

chomp(my $sharedir = `pg_config --sharedir`);
plan skip_all => 'there is no pg_partman' unless -e "$sharedir/extension/pg_partman.control";
my $why_not = why_not_released();
plan skip_all => $why_not if $why_not;
my $script = released_script();

my $node = PostgreSQL::Test::Cluster->new('released');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;

my $QUEUES = q{
	SELECT pgmq.create('Orders');
	SELECT pgmq.create('orders');
	SELECT pgmq.create_unlogged('scratch');
	SELECT pgmq.create('told');
	SELECT pgmq.create('converted');
	SELECT pgmq.create_partitioned('part', '10', '100');
	SELECT pgmq.create_partitioned('timed', '1 day', '7 days');
	SELECT pgmq.create_fifo_index('orders');
	SELECT pgmq.enable_notify_insert('told', 0);
	SELECT pgmq.bind_topic('logs.*', 'told'), pgmq.bind_topic('#', 'part');
	SELECT pgmq.send_batch(q, ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 25) AS i),
		ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 3) FROM generate_series(1, 25) AS i))
	  FROM unnest('{orders,scratch,told,converted,part,timed}'::text[]) AS q;
	SELECT pgmq.send(q, '"later"', 3600) FROM unnest('{orders,scratch,told,converted,part,timed}'::text[]) AS q;
	SELECT pgmq.read(q, 3600, 2) FROM unnest('{orders,scratch,told,converted,part,timed}'::text[]) AS q;
	SELECT pgmq.archive(q, 3) FROM unnest('{orders,scratch,told,converted,part,timed}'::text[]) AS q;
	SELECT pgmq.convert_archive_partitioned('converted', '10', '100');
	CREATE VIEW public.orders AS SELECT msg_id, vt, message FROM pgmq.read('orders', 0, 3);
	CREATE VIEW public.lengths AS SELECT queue_name, queue_length FROM pgmq.metrics_all()};
my @QUEUES = qw(orders scratch told converted part timed);

sub contents
{
	my ($db) = @_;

	return $node->safe_psql($db, join('; ', map { "SELECT to_jsonb(q) FROM pgmq.q_$_ AS q ORDER BY msg_id; SELECT to_jsonb(a) FROM pgmq.a_$_ AS a ORDER BY msg_id" } @QUEUES)
		. '; SELECT * FROM pgmq.meta ORDER BY 1; SELECT * FROM pgmq.topic_bindings ORDER BY 1; SELECT * FROM pgmq.notify_insert_throttle');
}

sub check_queues
{
	my ($db, $how) = @_;

	# Its conversion has left what was in the archive in another table
	foreach my $queue (@QUEUES)
	{
		is($node->safe_psql($db, qq{
			SELECT msg_id, read_ct FROM pgmq.read('$queue', 60, 2);
			SELECT pgmq.send('$queue', '"new"', '{"x-pgmq-group": "n"}'::jsonb);
			SELECT msg_id FROM pgmq.pop('$queue', 2);
			SELECT pgmq.archive('$queue', 4), pgmq.delete('$queue', 5), vt > now() FROM pgmq.set_vt('$queue', 8, 60);
			SELECT array_agg(msg_id) FROM pgmq.read_grouped_head('$queue', 60, 3);
			SELECT queue_length, total_messages FROM pgmq.metrics('$queue');
			SELECT count(*) FROM pgmq.a_$queue}),
			"4|1\n5|1\n27\n6\n7\nt|t|t\n{9,27}\n22|27\n" . ($queue eq 'converted' ? 1 : 2), "$how: $queue");
	}
	is($node->safe_psql($db, q{SELECT count(*) FROM public.lengths; SELECT count(*) FROM public.orders}), "7\n3", "$how: views");
	is($node->safe_psql($db, q{SELECT pgmq.send_topic('logs.x', '"topic"')}), '2', "$how: topics");
	like($node->safe_psql($db, q{LISTEN "pgmq.q_told.INSERT"; SELECT pgmq.send('told', '1') > 0}),
		qr/Asynchronous notification "pgmq.q_told.INSERT"/, "$how: notifications");
	# create_partitioned completes one queue, upgrade_queues all
	$node->safe_psql($db, $db eq 'extension' ? 'CALL pgmq.upgrade_queues()' :
		q{SELECT pgmq.create_partitioned('part', '10', '100'), pgmq.create_partitioned('timed', '1 day', '7 days')});
	is($node->safe_psql($db, 'SELECT queue_name FROM pgmq.queues_to_upgrade WHERE is_partitioned'), '', "$how: partitioned queues are upgraded");
	is($node->safe_psql($db, q{SELECT queue_name, retention_interval, drop_unread, drop_consumed FROM pgmq.partition_config ORDER BY 1;
		SELECT retention FROM part_config WHERE parent_table ~ 'q_'}),
		"part|100|f|f\ntimed|7 days|f|f\n\n", "$how: their retention keeps unread messages");
	is($node->safe_psql($db, q{
		SELECT count(*) FROM pg_index WHERE indrelid IN ('pgmq.q_part'::regclass, 'pgmq.q_timed'::regclass) AND indisvalid;
		SELECT count(*) FROM pgmq.read('timed', 0, 1)}), "5\n1", "$how: indexes");
	# From then on partitions with messages in them are kept
	is($node->safe_psql($db, q{CALL pgmq.maintain(); SELECT count(*) FROM generate_series(1, 100) AS i, pgmq.send('part', to_jsonb(i));
		CALL pgmq.maintain(); SELECT sum(messages) FROM pgmq.list_partitions('part') WHERE partition ~ 'q_part'}),
		"100\n123", "$how: maintain");
	is($node->safe_psql($db, 'SELECT bool_and(pgmq.drop_queue(q)) FROM unnest($$' . '{' . join(',', @QUEUES) . '}$$::text[]) AS q;
		SELECT count(*) FROM pgmq.list_queues(); SELECT relname FROM pg_class WHERE relnamespace = $$pgmq$$::regnamespace AND relname ~ $$^([qag]_|template)$$
		 UNION ALL SELECT parent_table FROM part_config'), "t\n0", "$how: queues are dropped, and nothing is left");
}

# As an extension, and by SQL only
foreach my $db (qw(extension sql_only))
{
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION pg_partman');
	(my $plain = $script) =~ s/^\\.*$//mg;
	$node->safe_psql($db, $db eq 'extension' ? "CREATE EXTENSION pgmq VERSION '1.11.1'" : $plain);
	$node->safe_psql($db, $QUEUES);
	my $before = contents($db);

	$node->safe_psql($db, ($db eq 'extension' ? '' : "CREATE EXTENSION pgmq VERSION 'unpackaged'; ") . 'ALTER EXTENSION pgmq UPDATE');
	is(contents($db), $before, "$db: everything is as it was");
	check_queues($db, $db);
}

# And back, by what docs/migrating.md says
my @blocks = slurp_file("$FindBin::RealBin/../../docs/migrating.md") =~ /^```sql\n(.*?)^```/msg;
my ($back) = grep { /^BEGIN;\nLOCK/ } @blocks;
my ($privileges) = grep { /REVOKE ALL ON ROUTINE/ } @blocks;
my ($not_ready) = grep { /not_ready/ } @blocks;
$back =~ s/^CREATE EXTENSION pgmq;/CREATE EXTENSION pgmq VERSION '1.11.1';/m or die 'no CREATE EXTENSION';
$node->safe_psql('postgres', 'CREATE DATABASE back; CREATE ROLE sender');
$node->safe_psql('back', "CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq VERSION '1.11.1'; $QUEUES; DROP VIEW public.orders, public.lengths;
	CREATE FUNCTION public.create_small(name text) RETURNS void BEGIN ATOMIC SELECT pgmq.create_partitioned(name, '10'::text, '100'::text); END;
	ALTER EXTENSION pgmq UPDATE; SELECT pgmq.create('ours'); SELECT pgmq.create_fifo_indexes_all(); SELECT pgmq.enable_notify_insert('ours', 100);
	SELECT pgmq.create_partitioned('part', '10', '100'); SELECT pgmq.read(q, 3600, 2) FROM unnest('{orders,scratch,told,converted,part,timed}'::text[]) AS q;
	SELECT pgmq.send('ours', '1'), pgmq.send('ours', '2'); SELECT pgmq.send_topic('logs.y', '3');
	SELECT pgmq.create_first_names('public');
	REVOKE ALL ON FUNCTION pgmq.purge_queue(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pgmq.purge_queue(text) TO sender; GRANT SELECT ON pgmq.meta TO sender;
	REVOKE ALL ON FUNCTION pgmq.rescan(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pgmq.rescan(text) TO sender");
is($node->safe_psql('back', qq{INSERT INTO pgmq.q_part (msg_id, vt, message) OVERRIDING SYSTEM VALUE VALUES (1000, now(), '1'); $not_ready;
	DELETE FROM pgmq.q_part WHERE msg_id = 1000; $not_ready}), 'pgmq.q_part_default', 'back: a default partition with rows is not ready, and there is nothing else');
push @QUEUES, 'ours';
my $columns = 'msg_id, read_ct, enqueued_at, last_read_at, vt, message, headers';
my $rows = join('; ', map { "SELECT $columns FROM pgmq.q_$_ ORDER BY msg_id; SELECT $columns FROM pgmq.a_$_ ORDER BY msg_id" } @QUEUES)
	. '; SELECT * FROM pgmq.meta ORDER BY 1; SELECT * FROM pgmq.topic_bindings ORDER BY 1; SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle ORDER BY 1';
my $kept = $node->safe_psql('back', $rows);
my $granted = $node->safe_psql('back', $privileges);
my $connected = $node->background_psql('back');
$connected->query_safe(q{PREPARE call AS SELECT count(*) FROM pgmq.pop('ours', 0); EXECUTE call; SELECT count(*) FROM pgmq_read('ours', 0, 0)});
$back =~ s/^COMMIT;/$granted\nCOMMIT;/m or die 'no COMMIT';
$node->safe_psql('back', $back);
is($node->safe_psql('back', $rows), $kept, 'back: everything is as it was');
like($connected->query_safe(q{EXECUTE call; SELECT count(*) FROM pgmq_read('ours', 0, 0)}), qr/^0\s+0\s*$/, 'back: a session that is connected goes on');
$connected->quit;
foreach my $queue (@QUEUES)
{
	my $next = { ours => 3, part => 28, told => 28 }->{$queue} // 27;
	is($node->safe_psql('back', qq{
		SELECT pgmq.send('$queue', '"back"', '{"x-pgmq-group": "b"}'::jsonb);
		SELECT count(*) FROM pgmq.read('$queue', 60, 2);
		SELECT count(*) FROM pgmq.pop('$queue');
		SELECT pgmq.archive('$queue', (SELECT min(msg_id) FROM pgmq.q_$queue));
		SELECT total_messages FROM pgmq.metrics('$queue')}), "$next\n2\n1\nt\n$next", "back: $queue");
}
is($node->safe_psql('back', q{SELECT pgmq.send_topic('logs.x', '"topic"')}), '2', 'back: topics');
# The old extension is silent for 100 ms after it has told of a message, which the loop above may just have sent
my ($told, $deadline) = ('', time + $PostgreSQL::Test::Utils::timeout_default);
$told = $node->safe_psql('back', q{LISTEN "pgmq.q_ours.INSERT"; SELECT pgmq.send('ours', '1') > 0})
	until $told =~ /Asynchronous notification/ || time > $deadline;
like($told, qr/Asynchronous notification/, 'back: notifications');
is($node->safe_psql('back', q{SELECT has_function_privilege('sender', 'pgmq.purge_queue(text)', 'EXECUTE'), has_table_privilege('sender', 'pgmq.meta', 'SELECT'),
	has_function_privilege('pg_monitor', 'pgmq.purge_queue(text)', 'EXECUTE')}), 't|t|f', 'back: privileges');
is($node->safe_psql('back', q{SELECT pgmq_send('ours', '"first"') > 3; SELECT message FROM pgmq_read('ours', 60, 1000) WHERE message = '"first"';
	SELECT public.create_small('small'); SELECT is_partitioned FROM pgmq.meta WHERE queue_name = 'small'; SELECT pgmq.drop_queue('small')}),
	qq{t\n"first"\n\nt\nt}, 'back: the first names, and what the update has kept');
is($node->safe_psql('back', q{SET timezone = 'UTC'; SELECT count(*) FROM pgmq.q_part_default; UPDATE part_config SET premake = premake + 2;
	SELECT run_maintenance(); SELECT (SELECT count(*) FROM pg_inherits WHERE inhparent = q::regclass) > n
	  FROM (VALUES ('pgmq.q_part', 8), ('pgmq.a_timed', 8)) AS v (q, n)}), "0\n\nt\nt", 'back: pg_partman makes partitions');

# What is left, compared with a database that had 1.11.1 only
my $OBJECTS = q{
	SELECT format('function %s in %s', p.oid::regprocedure, lanname) FROM pg_proc AS p JOIN pg_language AS l ON l.oid = prolang WHERE pronamespace = 'pgmq'::regnamespace
	UNION ALL SELECT format('relation %s of kind %s%s', oid::regclass, relkind, relpersistence) FROM pg_class
	 WHERE relnamespace = 'pgmq'::regnamespace AND relkind NOT IN ('i', 'I') AND NOT relispartition
	UNION ALL SELECT 'index ' || pg_get_indexdef(i.oid) FROM pg_class AS i WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('i', 'I') AND NOT relispartition
	   AND NOT EXISTS (SELECT FROM pg_index AS x JOIN pg_class AS c ON c.oid = indrelid WHERE indexrelid = i.oid AND c.relispartition)
	UNION ALL SELECT 'trigger ' || pg_get_triggerdef(t.oid) FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = tgrelid
	 WHERE relnamespace = 'pgmq'::regnamespace AND NOT tgisinternal
	UNION ALL SELECT format('default %s %s %s', defaclrole::regrole, defaclobjtype, defaclacl) FROM pg_default_acl ORDER BY 1};
$node->safe_psql('postgres', 'CREATE DATABASE never');
$node->safe_psql('never', "CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq VERSION '1.11.1'; $QUEUES; SELECT pgmq.create('ours'); SELECT pgmq.enable_notify_insert('ours', 100)");
my %never = map { $_ => 1 } split /\n/, $node->safe_psql('never', $OBJECTS);
is(join("\n", grep { !$never{$_} } split /\n/, $node->safe_psql('back', $OBJECTS)),
	join("\n", 'function pgmq._before_2_create_partitioned(text,text,text) in sql',
		map { "index CREATE INDEX q_$_ USING btree (vt, msg_id) WHERE (vt <> enqueued_at)" } 'ours_vt_idx ON pgmq.q_ours', 'part_vt_idx ON ONLY pgmq.q_part'),
	 'back: nothing of ours is left but what the docs say');
# and there again
is($node->safe_psql('back', q{ALTER EXTENSION pgmq UPDATE; SELECT count(*) FROM pgmq.read('told', 60, 1);
	SELECT public.create_small('small'); SELECT is_partitioned FROM pgmq.meta WHERE queue_name = 'small'}), qq{1\n\nt}, 'back, and there again');

# Fresh and updated
$node->safe_psql('postgres', 'CREATE DATABASE fresh');
$node->safe_psql('fresh', 'CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq');
my %fresh = map { $_ => 1 } split /\n/, catalogs($node, 'fresh');
is(join("\n", grep { !$fresh{$_} && !/^column.*compiled_regex/ } split /\n/, catalogs($node, $_)), '', "$_: the catalogs are those of a fresh installation")
	foreach qw(extension sql_only);

$node->stop;
done_testing();

# Partitioned queues: what create_partitioned makes with pg_partman, and what
# drop_queue takes away again, on whatever version of pg_partman is there and
# in whatever schema.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('partitioned');
# Names here are not ASCII
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "fsync = off\ntimezone = 'UTC'");
$node->start;

sub sql
{
	my ($db, $query) = @_;
	my ($rc, $out, $err) = $node->psql($db, $query);

	$err =~ s/^psql:<stdin>:\d+: //mg;
	chomp($out, $err);
	return ($out, $err);
}

sub sql_is
{
	my ($query, $expected, $name) = @_;
	my ($out, $err) = sql('postgres', $query);

	is($out, $expected, $name) or diag($err);
}

sub error_like
{
	my ($query, $expected, $name) = @_;
	my ($out, $err) = sql('postgres', "\\set VERBOSITY verbose\n$query");

	like($err, $expected, $name);
}

sub ident
{
	my ($name) = @_;

	$name =~ s/"/""/g;
	return qq("$name");
}

# Without pg_partman
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');
error_like("SELECT pgmq.create_partitioned('orders')", qr/ERROR:  P0001: pg_partman is required for partitioned queues/,
	'without pg_partman there is an error');
error_like('SELECT pgmq._ensure_pg_partman_installed()', qr/ERROR:  P0001: pg_partman is required/, 'and from the check');
sql_is('SELECT pgmq._get_pg_partman_schema() IS NULL, pgmq._get_pg_partman_major_version() IS NULL', 't|t', 'and nothing known');
sql_is("SELECT pgmq.list_queues()", '', 'no queue was made');

$node->safe_psql('postgres', 'CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
my $major = $node->safe_psql('postgres', "SELECT split_part(extversion, '.', 1) FROM pg_extension WHERE extname = 'pg_partman'");
note('pg_partman ' . $node->safe_psql('postgres', "SELECT extversion FROM pg_extension WHERE extname = 'pg_partman'"));
sql_is('SELECT pgmq._get_pg_partman_schema(), pgmq._get_pg_partman_major_version()', "partman|$major", 'pg_partman is found');
sql_is('SELECT pgmq._ensure_pg_partman_installed()', '', 'and the check is content');

# By id
sql_is("SELECT pgmq.create_partitioned('Orders', '10', '100', 2)", '', 'a queue by id');
my $COLUMNS = q{SELECT string_agg(attname || ' ' || format_type(atttypid, atttypmod) || CASE WHEN attnotnull THEN ' not null' ELSE '' END
	|| CASE attidentity WHEN 'd' THEN ' identity' ELSE '' END, ', ' ORDER BY attnum) FROM pg_attribute WHERE attnum > 0 AND attrelid = };
sql_is("$COLUMNS 'pgmq.q_orders'::regclass",
	'msg_id bigint not null identity, read_ct integer not null, enqueued_at timestamp with time zone not null, '
	  . 'last_read_at timestamp with time zone, vt timestamp with time zone not null, message jsonb, headers jsonb',
	'its columns, and an id that may be given');
sql_is("$COLUMNS 'pgmq.a_orders'::regclass",
	'msg_id bigint not null, read_ct integer not null, enqueued_at timestamp with time zone not null, '
	  . 'last_read_at timestamp with time zone, archived_at timestamp with time zone not null, '
	  . 'vt timestamp with time zone not null, message jsonb, headers jsonb', 'those of its archive');
my $INDEXES = q{SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' AND tablename };
sql_is("$INDEXES IN ('q_orders', 'a_orders') ORDER BY 1",
	"CREATE INDEX \"archived_at_idx_Orders\" ON ONLY pgmq.a_orders USING btree (archived_at)\n"
	  . "CREATE INDEX q_orders_vt_idx ON ONLY pgmq.q_orders USING btree (vt, msg_id) WHERE (vt <> enqueued_at)\n"
	  . "CREATE UNIQUE INDEX a_orders_msg_id_idx ON ONLY pgmq.a_orders USING btree (msg_id)\n"
	  . 'CREATE UNIQUE INDEX q_orders_part_idx ON ONLY pgmq.q_orders USING btree (msg_id)', 'the indexes of the parents');
my $PARTITIONS = q{SELECT c.relname, pg_get_expr(c.relpartbound, c.oid) FROM pg_inherits JOIN pg_class c ON c.oid = inhrelid WHERE inhparent = };
sql_is("$PARTITIONS 'pgmq.q_orders'::regclass ORDER BY 1",
	"q_orders_default|DEFAULT\nq_orders_p0|FOR VALUES FROM ('0') TO ('10')\n"
	  . "q_orders_p10|FOR VALUES FROM ('10') TO ('20')\nq_orders_p20|FOR VALUES FROM ('20') TO ('30')", 'the partitions');
my $BY_ID = "SELECT count(*), sum((indexdef LIKE '%UNIQUE%(msg_id)')::int), "
  . "sum((indexdef LIKE '%(vt, msg_id) WHERE (vt <> enqueued_at)')::int) FROM pg_indexes WHERE tablename ~ '^q_orders_'";
sql_is($BY_ID, '8|4|4', 'every partition has both indexes, the default one too');
sql_is(q{SELECT parent_table, control, partition_interval, premake, partition_type, retention, retention_keep_table, retention_keep_index,
	automatic_maintenance FROM partman.part_config ORDER BY 1},
	join("\n", map { join('|', "pgmq.$_->[0]", 'msg_id', 10, 2, $major >= 5 ? 'range' : 'native', $_->[1], 'f', 't', 'on') }
		  [ 'a_orders', 100 ], [ 'q_orders', '' ]),
	'pg_partman drops from the archive only');
sql_is('SELECT * FROM pgmq.partition_config', 'orders|100|f|f|', 'the retention of the queue is ours');
sql_is("SELECT queue_name, is_partitioned, is_unlogged FROM pgmq.list_queues()", 'Orders|t|f', 'list_queues shows its kind');
sql_is("SELECT * FROM pgmq.send_batch('orders', array_fill('{}'::jsonb, '{12}'))", join("\n", 1 .. 12), 'it takes messages');
sql_is("SELECT tableoid::regclass, count(*) FROM pgmq.q_orders GROUP BY 1 ORDER BY 1", "pgmq.q_orders_p0|9\npgmq.q_orders_p10|3",
	'which go to their partitions');

# Again, and as another kind
my ($out, $err) = sql('postgres', "SELECT pgmq.create_partitioned('ORDERS', '20', '1000', 5, true, true)");
unlike($err, qr/ERROR|stays/, 'to create it again is harmless');
sql_is('SELECT * FROM pgmq.partition_config', 'orders|100|f|f|', 'and changes nothing');
sql_is("SELECT count(*) FROM pgmq.q_orders", 12, 'nor the messages');
($out, $err) = sql('postgres', "SELECT pgmq.create('orders')");
like($err, qr/^NOTICE:  queue "orders" exists and stays partitioned$/m, 'create says that it stays partitioned');
($out, $err) = sql('postgres', "SELECT pgmq.create_unlogged('orders')");
like($err, qr/^NOTICE:  queue "orders" exists and stays partitioned$/m, 'create_unlogged as well');
$node->safe_psql('postgres', "SELECT pgmq.create('plain'); SELECT pgmq.create_unlogged('light')");
($out, $err) = sql('postgres', "SELECT pgmq.create_partitioned('plain')");
like($err, qr/^NOTICE:  queue "plain" exists and stays logged, not partitioned$/m, 'create_partitioned says that a queue is not');
($out, $err) = sql('postgres', "SELECT pgmq.create_partitioned('light')");
like($err, qr/^NOTICE:  queue "light" exists and stays unlogged, not partitioned$/m, 'whatever it is');
sql_is("SELECT count(*) FROM partman.part_config WHERE parent_table ~ 'plain|light'", 0, 'and leaves it to itself');

# By time
sql_is("SELECT pgmq.create_partitioned('events', '1 hour', '7 days', 3, drop_unread => true)", '', 'a queue by time');
sql_is("$INDEXES IN ('q_events', 'a_events') ORDER BY 1",
	"CREATE INDEX archived_at_idx_events ON ONLY pgmq.a_events USING btree (archived_at)\n"
	  . "CREATE INDEX q_events_part_idx ON ONLY pgmq.q_events USING btree (enqueued_at)\n"
	  . "CREATE INDEX q_events_vt_idx ON ONLY pgmq.q_events USING btree (vt, msg_id) WHERE (vt <> enqueued_at)\n"
	  . "CREATE UNIQUE INDEX a_events_msg_id_idx ON ONLY pgmq.a_events USING btree (msg_id, archived_at)\n"
	  . 'CREATE UNIQUE INDEX q_events_msg_id_idx ON ONLY pgmq.q_events USING btree (msg_id, enqueued_at)', 'with an index on msg_id');
sql_is(q{SELECT parent_table, control, partition_interval, retention, infinite_time_partitions FROM partman.part_config WHERE parent_table ~ 'events' ORDER BY 1},
	"pgmq.a_events|archived_at|01:00:00|7 days|t\npgmq.q_events|enqueued_at|01:00:00|7 days|t", 'drop_unread leaves the retention to pg_partman');
sql_is("SELECT pgmq.send('events', '1')", 1, 'it takes a message');
sql_is("SELECT count(*) FROM ONLY pgmq.q_events_default", 0, 'in a partition of the hour');

# What can't be asked for
error_like("SELECT pgmq.create_partitioned('bad', premake => 0)", qr/ERROR:  P0001: premake must be at least 1, got 0/, 'premake 0');
error_like("SELECT pgmq.create_partitioned('bad', premake => NULL)", qr/ERROR:  P0001: premake must be at least 1, got <NULL>/, 'premake NULL');
error_like("SELECT pgmq.create_partitioned('bad', '0')", qr/ERROR:  22023: partition_interval must be greater than 0, got 0/, 'no interval');
error_like("SELECT pgmq.create_partitioned('bad', '-1 day')", qr/ERROR:  22023: partition_interval must be greater than 0, got -1 day/, 'backwards');
error_like("SELECT pgmq.create_partitioned('bad', NULL)", qr/ERROR:  22004: partition_interval must not be NULL/, 'NULL');
error_like("SELECT pgmq.create_partitioned('bad', 'often')", qr/ERROR:  22007: invalid input syntax for type interval: "often"/, 'no interval at all');
error_like("SELECT pgmq.create_partitioned('bad', '10', '7 days')", qr/ERROR:  22P02: invalid input syntax for type bigint: "7 days"/, 'ids kept for days');
error_like("SELECT pgmq.create_partitioned('bad', '10', '-1')", qr/ERROR:  22023: retention_interval must be at least 0, got -1/, 'kept for less than nothing');
error_like("SELECT pgmq.create_partitioned('dot.ted')", qr/ERROR:  0A000: queue "dot.ted" cannot be partitioned\nDETAIL:  pg_partman does not support table names with a dot/,
	'a dot, which pg_partman cannot');
error_like("SELECT pgmq.create_partitioned('" . ('x' x 48) . "')", qr/ERROR:  P0001: queue name is too long/, 'too long');
sql_is("SELECT count(*) FROM pg_class WHERE relname ~ '^(template_pgmq_)?[qa]_(bad|dot|xx)'", 0, 'none of them left anything');

# Queues that would get into each other's way
error_like("SELECT pgmq.create('orders_default')", qr/ERROR:  42809: relation pgmq.q_orders_default is a partition of another queue/, 'a default partition is no queue');
error_like("SELECT pgmq.create_partitioned('orders_p10')", qr/ERROR:  42809: relation pgmq.q_orders_p10 is a partition of another queue/, 'nor is another one');
error_like("SELECT pgmq.drop_queue('orders_p10')", qr/ERROR:  42809: relation pgmq.q_orders_p10 is a partition of another queue/, 'and none to drop');
$node->safe_psql('postgres', "SELECT pgmq.create('jobs_default'), pgmq.create('tasks_p0'), pgmq.send('jobs_default', '1')");
error_like("SELECT pgmq.create_partitioned('jobs')", qr/ERROR:  42P07: relation "q_jobs_default" exists and belongs to another queue/, 'no queue becomes a default partition');
error_like("SELECT pgmq.create_partitioned('tasks')", qr/ERROR:  42P07: pg_partman could not make all partitions of pgmq.q_tasks/, 'nor another one');
sql_is("SELECT count(*) FROM pg_class WHERE relname IN ('q_jobs', 'q_tasks', 'a_jobs', 'a_tasks')", 0, 'nothing is left');
sql_is("SELECT message FROM pgmq.read('jobs_default', 30, 1)", 1, 'and the other queue is as it was');
# Two long names, of which pg_partman would make one: the partition is missing, and the error says so
my $long = 'y' x 46;
sql_is("SELECT pgmq.create_partitioned('${long}a', '1 hour')", '', 'a name of 47 bytes');
error_like("SELECT pgmq.create_partitioned('${long}b', '1 hour')", qr/ERROR:  42P07: pg_partman could not make all partitions/,
	'another that pg_partman cannot tell from it by time');
sql_is("SELECT pgmq.create_partitioned('${long}b', '1000')", '', 'but by id');
$node->safe_psql('postgres', "SELECT pgmq.drop_queue('${long}a'), pgmq.drop_queue('${long}b')");

# A rolled-back create leaves nothing, and two at a time make one
$node->safe_psql('postgres', "BEGIN; SELECT pgmq.create_partitioned('gone'); SELECT pgmq.send('gone', '1'); ROLLBACK");
sql_is("SELECT count(*) FROM pg_class WHERE relname ~ 'gone'", 0, 'rolled back: no table');
sql_is("SELECT (SELECT count(*) FROM partman.part_config WHERE parent_table ~ 'gone') + (SELECT count(*) FROM pgmq.partition_config WHERE queue_name = 'gone')",
	0, 'no configuration');
my @creators = map { $node->background_psql('postgres') } 1, 2;
$creators[0]->query_safe("BEGIN; SELECT pgmq.create_partitioned('both')");
my $second = $node->connstr('postgres');
my $pid = fork;
if ($pid == 0)
{
	exec('psql', '-XAtq', '-d', $second, '-c', "SELECT pgmq.create_partitioned('both')", '-o', '/dev/null') or die;
}
$node->poll_query_until('postgres', "SELECT count(*) = 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock'") or die 'nobody waits';
$creators[0]->query_safe('COMMIT');
waitpid($pid, 0);
is($?, 0, 'a second create waits for the first, and is harmless');
$_->quit foreach @creators;
sql_is("SELECT count(*) FROM partman.part_config WHERE parent_table ~ '_both\$'", 2, 'configured once');
sql_is("SELECT count(*) FROM pgmq.list_queues() WHERE queue_name = 'both'", 1, 'listed once');

# Names
my $clean = q{SELECT (SELECT count(*) FROM partman.part_config) + (SELECT count(*) FROM pgmq.partition_config)
	+ (SELECT count(*) FROM pg_class WHERE relnamespace IN ('partman'::regnamespace, 'pgmq'::regnamespace) AND relname ~ '^(template_pgmq_)?[qa]_'
	   AND relname !~ '^[qa]_(plain|light|jobs_default|tasks_p0|other_old)')};
$node->safe_psql('postgres', "SELECT pgmq.drop_queue(q) FROM unnest('{orders,events,both}'::text[]) AS q");
sql_is($clean, 0, 'drop_queue leaves neither tables nor templates nor configuration');
foreach my $name ('my-queue', 'sp ace', 'Capitals', 'q"uo"te', '50%', '%s', 'back\slash', '1', 'select', 'p_p1_p2', 'ends_p', 'x' x 47,
	'größe', 'ü' x 18)
{
	(my $literal = $name) =~ s/'/''/g;
	foreach my $interval ('10', '1 day', '1 minute')
	{
		($out, $err) = sql('postgres', qq{
			SELECT pgmq.create_partitioned('$literal', '$interval', '1000');
			SELECT pgmq.send('$literal', '1'), pgmq.archive('$literal', 1);
			SELECT pgmq.drop_queue('$literal')});
		is("$out$err", "\n1|t\nt", "$name by $interval: create, send, archive, drop");
	}
}
sql_is($clean, 0, 'nothing is left of any of them');
# Version 4 counts characters, and the server bytes
($out, $err) = sql('postgres', "\\set VERBOSITY verbose\nSELECT pgmq.create_partitioned('" . ('ü' x 23) . "', '1 minute')");
like($err, $major >= 5 ? qr/^$/ : qr/ERROR:  0A000: queue "(?:ü)+" cannot be partitioned by time/, 'a long name that is not ASCII');
sql_is("SELECT pgmq.create_partitioned('" . ('ü' x 22) . "', '10'), pgmq.drop_queue('" . ('ü' x 22) . "')", '|t', 'it goes by id');
sql('postgres', "SELECT pgmq.drop_queue('" . ('ü' x 23) . "')");

# What is left of a conversion by the published extension goes with the queue; an archive of another queue does not
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('conv'), pgmq.create_partitioned('other'), pgmq.create('other_old');
	CREATE TABLE pgmq.a_conv_old (LIKE pgmq.a_conv INCLUDING ALL)});
sql_is("SELECT pgmq.drop_queue('conv'), to_regclass('pgmq.a_conv_old') IS NULL", 't|t', 'a converted archive is dropped');
sql_is("SELECT pgmq.drop_queue('other'), to_regclass('pgmq.a_other_old') IS NULL", 't|f', 'not the archive of another queue');

# A template of the owner's own stays
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('mine');
	CREATE TABLE my_template (LIKE pgmq.q_mine);
	UPDATE partman.part_config SET template_table = 'public.my_template' WHERE parent_table = 'pgmq.q_mine'});
sql_is("SELECT pgmq.drop_queue('mine'), to_regclass('my_template') IS NULL", 't|f', 'a template of the owner stays');
sql_is($clean, 0, 'that of pg_partman does not');

# The table dropped by hand, and pg_partman gone
$node->safe_psql('postgres', "SELECT pgmq.create_partitioned('byhand'); DROP TABLE pgmq.q_byhand");
sql_is("SELECT pgmq.drop_queue('byhand')", 't', 'dropped by hand before');
sql_is($clean, 0, 'nothing is left');
$node->safe_psql('postgres', "SELECT pgmq.create_partitioned('last'); DROP EXTENSION pg_partman");
$node->safe_psql('postgres', 'CREATE EXTENSION pg_partman SCHEMA partman');
error_like("SELECT pgmq.create_partitioned('last')", qr/ERROR:  55000: pg_partman has no record of pgmq.q_last, which has partitions/, 'what pg_partman has forgotten is said');
sql_is("SELECT pgmq.send('last', '1'), pgmq.purge_queue('last')", '1|1', 'the queue works all the same');
$node->safe_psql('postgres', 'DROP EXTENSION pg_partman');
sql_is("SELECT pgmq.drop_queue('last')", 't', 'without pg_partman a queue can be dropped');
sql_is("SELECT count(*) FROM pg_class WHERE relname ~ '^(template_pgmq_)?[qa]_last'", 0, 'and nothing is left');

# In another schema, whatever its name
foreach my $schema ('public', 'Part Man')
{
	my $quoted = ident($schema);

	$node->safe_psql('postgres', "CREATE SCHEMA IF NOT EXISTS $quoted; CREATE EXTENSION pg_partman SCHEMA $quoted");
	sql_is('SELECT pgmq._get_pg_partman_schema()', $schema eq 'public' ? 'public' : $quoted, "in $schema: found");
	foreach my $interval ('10', '1 day')
	{
		($out, $err) = sql('postgres', "SELECT pgmq.create_partitioned('elsewhere', '$interval', '1000'), pgmq.drop_queue('elsewhere')");
		is("$out$err", '|t', "in $schema: create and drop by $interval");
	}
	sql_is("SELECT (SELECT count(*) FROM $quoted.part_config) + (SELECT count(*) FROM pg_class WHERE relname ~ 'elsewhere')", 0, "in $schema: nothing is left");
	$node->safe_psql('postgres', 'DROP EXTENSION pg_partman');
}

$node->stop;
done_testing();

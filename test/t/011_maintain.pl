# pgmq.maintain(): partitions in time, a default partition that empties again,
# retention that keeps messages, partitions dropped as soon as they are
# consumed; beside senders, readers and another session that does the same.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('maintain');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "fsync = off\ntimezone = 'UTC'\nautovacuum = off\nmax_prepared_transactions = 2");
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');

sub maintain_is
{
	my ($expected, $name) = @_;
	my ($out, $err) = sql('CALL pgmq.maintain()');

	like("$out$err", $expected, $name);
}

sub bounds
{
	my ($queue) = @_;

	return "SELECT string_agg(coalesce(lower_bound || '-' || upper_bound, 'default') || ':' || messages, ' ' ORDER BY lower_bound::bigint) FROM pgmq.list_partitions('$queue')";
}

# Nothing to do
maintain_is(qr/^$/, 'without queues there is nothing to do');

# Overrun: more messages than partitions
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('over', '10', NULL, 2);
	SELECT pgmq.send_batch('over', ARRAY(SELECT jsonb_build_object('n', i) FROM generate_series(1, 75) AS i),
		ARRAY(SELECT jsonb_build_object('h', i) FROM generate_series(1, 75) AS i));
	SELECT pgmq.read('over', 3600, 40);
	CREATE TABLE before AS SELECT * FROM pgmq.q_over;
	CREATE TABLE fired (what text);
	CREATE FUNCTION fire() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN INSERT INTO fired VALUES (TG_OP); RETURN NEW; END';
	CREATE TRIGGER fire BEFORE INSERT OR DELETE ON pgmq.q_over FOR EACH ROW EXECUTE FUNCTION fire()});
sql_is(bounds('over'), '0-10:9 10-20:10 20-30:10 default:46', 'messages lie in the default partition');
$node->safe_psql('postgres', 'ANALYZE pgmq.q_over');
sql_is("SELECT default_partition_length FROM pgmq.metrics('over')", 46, 'which metrics shows after an analyze');
my ($out, $err) = sql("SELECT partman.run_maintenance('pgmq.q_over')");
like($err, qr/would be violated by some row/, 'pg_partman cannot go on from there');
maintain_is(qr/^$/, 'maintain() can');
sql_is(bounds('over'), '0-10:9 10-20:10 20-30:10 30-40:10 40-50:10 50-60:10 60-70:10 70-80:6 80-90:0 90-100:0 default:0',
	'they are in partitions of their own, and more are ahead');
sql_is('SELECT count(*) FROM (TABLE before EXCEPT TABLE pgmq.q_over) AS x UNION ALL SELECT count(*) FROM pgmq.q_over', "0\n75",
	'with every column as it was');
sql_is('SELECT count(*) FROM fired', 0, 'no trigger fired');
sql_is('SELECT tgenabled, count(*) FROM pg_trigger WHERE tgname = \'fire\' GROUP BY 1', 'O|12', 'all of them are there and enabled');
sql_is("SELECT array_agg(msg_id) FROM pgmq.read('over', 60, 3)", '{41,42,43}', 'leases are still what they were');
($out, $err) = sql("SELECT partman.run_maintenance('pgmq.q_over')");
is($err, '', 'and pg_partman can go on');
$node->safe_psql('postgres', 'DROP TRIGGER fire ON pgmq.q_over');

# A queue that is consumed has no row that pg_partman could go by
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('ahead', '10', NULL, 2);
	SELECT pgmq.send_batch('ahead', array_fill('{}'::jsonb, '{25}')), pgmq.purge_queue('ahead')});
maintain_is(qr/^$/, 'an empty queue is maintained');
sql_is(bounds('ahead'), '0-10:0 10-20:0 20-30:0 30-40:0 40-50:0 default:0', 'partitions are made ahead of the ids');

# A foreign key on the default partition: a move would leave it wrong
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('referenced', '10', NULL, 2);
	SELECT pgmq.send_batch('referenced', array_fill('{}'::jsonb, '{40}'));
	CREATE TABLE refers (msg_id bigint REFERENCES pgmq.q_referenced_default); INSERT INTO refers VALUES (35)});
maintain_is(qr/WARNING:  maintenance of queue "referenced" failed \(default partition\): could not move rows of pgmq.q_referenced_default.*The foreign key "refers_msg_id_fkey" refers/s,
	'rows that a foreign key refers to stay');
sql_is(bounds('referenced'), '0-10:9 10-20:10 20-30:10 default:11', 'all of them');
$node->safe_psql('postgres', 'DROP TABLE refers');
maintain_is(qr/^$/, 'until the foreign key is gone');
$node->safe_psql('postgres', "SELECT pgmq.drop_queue('referenced')");

# Many messages in the default partition: it becomes a partition itself
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('big', '20000', '50000', 2, drop_unread => true);
	SELECT setval('pgmq.q_big_msg_id_seq', 100005);
	SELECT pgmq.send_batch('big', array_fill('{}'::jsonb, '{30000}'))});
$node->safe_psql('postgres', "SELECT pgmq.read('big', 3600, 100)");
my $table = $node->safe_psql('postgres', "SELECT 'pgmq.q_big_default'::regclass::oid");
$node->safe_psql('postgres', 'CREATE DOMAIN pgmq.q_big_default_2 AS integer');
# A dump that has a snapshot, and no lock yet, would take a new table of this name for this one, and find it empty
my $dumper = $node->background_psql('postgres');
$dumper->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $exported = $dumper->query_safe('SELECT pg_export_snapshot()');
maintain_is(qr/^$/, 'a big default partition is maintained');
$node->command_fails_like([ 'pg_dump', "--snapshot=$exported", '-f', '/dev/null', '-t', 'pgmq.q_big_default', '-d', $node->connstr('postgres') ],
	qr/relation "pgmq\.q_big_default" does not exist/, 'a dump that would lack its messages fails');
$dumper->quit;
sql_is(bounds('big'), '100000-140000:30000 140000-160000:0 160000-180000:0 default:0', 'it became a partition as wide as it must be');
sql_is("SELECT relname, relispartition FROM pg_class WHERE oid = $table", 'q_big_p100000|t', 'by another name, with nothing moved');
sql_is("SELECT count(*) FROM pg_indexes WHERE tablename = 'q_big_default_3'", 2, 'the new default partition has its indexes, and a name that is free');
sql_is("SELECT msg_id FROM pgmq.read('big', 60, 1)", 100106, 'leases are still what they were');
($out, $err) = sql("SELECT partman.run_maintenance('pgmq.q_big')");
is($err, '', 'pg_partman can go on');
sql_is("SELECT pgmq.send('big', '1'), pgmq.delete('big', 100106)", '130006|t', 'as can everybody');

sql_is("SELECT retention IS NULL FROM partman.part_config WHERE parent_table = 'pgmq.q_big'", 't',
	'which would drop such a partition too early: that is ours now');

# The archive overruns as well
$node->safe_psql('postgres', q{
	SELECT pgmq.archive('big', ARRAY(SELECT generate_series(100006, 127000)::bigint))});
maintain_is(qr/^$/, 'its archive, too');
sql_is("SELECT count(*) FROM pgmq.a_big", 26994, 'with all that was archived');

# By time
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('hours', '1 hour', '1 day', 2);
	INSERT INTO pgmq.q_hours (enqueued_at, vt, message)
	SELECT now() + i * interval '1 hour', now(), to_jsonb(i) FROM generate_series(-40, 9) AS i});
maintain_is(qr/^$/, 'a queue by time is maintained');
sql_is(q{SELECT count(*) FILTER (WHERE messages = 1), sum(messages), min(upper_bound::timestamptz - lower_bound::timestamptz),
	max(upper_bound::timestamptz - lower_bound::timestamptz), count(*) FILTER (WHERE lower_bound IS NULL AND messages = 0) FROM pgmq.list_partitions('hours')},
	'50|50|01:00:00|01:00:00|1', 'every hour has its partition');
sql_is(q{SELECT bool_and(held_back), sum(messages) BETWEEN 15 AND 16 FROM pgmq.list_partitions('hours') WHERE past_retention}, 't|t',
	'those past retention are held back by their messages');
$node->safe_psql('postgres', q{DELETE FROM pgmq.q_hours WHERE message::int < -30 AND message::int <> -35});
maintain_is(qr/^$/, 'consumed some');
sql_is("SELECT count(*) FROM pgmq.list_partitions('hours') WHERE lower_bound::timestamptz < now()", 32, 'their partitions are gone, nine of them');
sql_is("SELECT count(*) FROM pgmq.q_hours WHERE message::int = -35", 1, 'the unread message is not');

# Retention by id: held back by messages, dropped without
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('keep', '10', '20', 2);
	SELECT pgmq.send_batch('keep', array_fill('{}'::jsonb, '{59}'));
	CALL pgmq.maintain()});
sql_is("SELECT string_agg(lower_bound || ':' || messages, ' ') FROM pgmq.list_partitions('keep') WHERE held_back", '0:9 10:10 20:10',
	'partitions past retention are held back');
$node->safe_psql('postgres', "SELECT pgmq.delete('keep', ARRAY(SELECT generate_series(1, 35)::bigint EXCEPT SELECT 15)); CALL pgmq.maintain()");
sql_is(bounds('keep'), '10-20:1 30-40:4 40-50:10 50-60:10 60-70:0 70-80:0 default:0', 'consumed ones are dropped, however old');
sql_is("SELECT count(*) FROM pgmq.q_keep", 25, 'and no message with them');
# pg_partman by itself drops nothing either
$node->safe_psql('postgres', 'SELECT partman.run_maintenance()');
sql_is("SELECT count(*) FROM pgmq.q_keep", 25, 'pg_partman has not been told to');
# The archive is what retention is about
$node->safe_psql('postgres', "SELECT pgmq.archive('keep', ARRAY(SELECT generate_series(15, 59)::bigint)); CALL pgmq.maintain()");
sql_is("SELECT min(msg_id), max(msg_id) FROM pgmq.a_keep", '36|59', 'the archive keeps what is not past retention');

# A queue that was created to drop what is unread
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('lossy', '10', '20', 2, drop_unread => true);
	SELECT pgmq.send_batch('lossy', array_fill('{}'::jsonb, '{59}'));
	CALL pgmq.maintain()});
sql_is(bounds('lossy'), '30-40:10 40-50:10 50-60:10 60-70:0 70-80:0 default:0', 'drop_unread drops them');
sql_is("SELECT count(*) FROM pgmq.list_partitions('lossy') WHERE held_back", 0, 'nothing is held back');
# A message that blocks its group is dropped: the next one waits no longer
$node->safe_psql('postgres', q{
	SELECT pgmq.create_fifo_index('lossy');
	SELECT pgmq.send('lossy', '"blocks"', '{"x-pgmq-group": "g"}', 3600);
	SELECT pgmq.send_batch('lossy', array_fill('"next"'::jsonb, '{40}'), array_fill('{"x-pgmq-group": "g"}'::jsonb, '{40}'))});
my $next = q{SELECT min(msg_id), min(message::text) FROM pgmq.read_grouped('lossy', 0, 100) WHERE headers->>'x-pgmq-group' = 'g'};
sql_is($next, '|', 'a delayed message blocks its group');
$node->safe_psql('postgres', "CALL pgmq.maintain()");
sql_is("SELECT min(msg_id) FROM pgmq.q_lossy", 80, 'with its partition it is dropped');
sql_is($next, '80|"next"', 'and its group goes on');

# A group goes on when the message that held it back has gone with its partition
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('lossy groups', '10', '20', 2, drop_unread => true);
	SELECT pgmq.create_fifo_index('lossy groups');
	SELECT pgmq.send('lossy groups', '{}', '{"x-pgmq-group": "late"}', 3600);
	SELECT pgmq.send_batch('lossy groups', array_fill('{}'::jsonb, '{58}'));
	SELECT pgmq.send('lossy groups', '{}', '{"x-pgmq-group": "late"}'::jsonb)});
sql_is(q{SELECT msg_id FROM pgmq.read_grouped_head('lossy groups', 0, 10)}, '2', 'a delayed message holds its group back');
$node->safe_psql('postgres', 'CALL pgmq.maintain()');
sql_is(q{SELECT array_agg(msg_id) FROM pgmq.read_grouped_head('lossy groups', 0, 10)}, '{40,60}', 'without it the group goes on');
$node->safe_psql('postgres', q{SELECT pgmq.drop_queue('lossy groups')});

# Consumed partitions go at once when the owner wants it, whoever holds back vacuum
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('quick', '20000', NULL, 2, drop_consumed => true);
	SELECT pgmq.send_batch('quick', array_fill('{}'::jsonb, '{59000}'))});
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN ISOLATION LEVEL REPEATABLE READ');
my $snapshot = $holder->query_safe('SELECT pg_export_snapshot()');
$node->safe_psql('postgres', "SELECT count(*) FROM pgmq.pop('quick', 21000); CALL pgmq.maintain()");
sql_is(bounds('quick'), '20000-40000:18999 40000-60000:19001 60000-80000:0 80000-100000:0 default:0', 'drop_consumed: dropped at once');
$node->safe_psql('postgres', "SELECT count(*) FROM pgmq.pop('quick', 100000); CALL pgmq.maintain()");
sql_is(bounds('quick'), '40000-60000:0 60000-80000:0 80000-100000:0 default:0', 'the current one stays');
# A dump that has a snapshot from before, and no lock yet, would lack messages in a partition that was truncated
is($holder->query_safe('SELECT count(*) FROM pgmq.q_quick'), '19001', 'and is not truncated');
$node->command_fails_like([ 'pg_dump', "--snapshot=$snapshot", '-f', '/dev/null', '-d', $node->connstr('postgres') ],
	qr/relation "pgmq\.q_quick_p\d+" does not exist/, 'a dump that would lack messages fails');
$holder->query_safe('COMMIT');
sql_is("SELECT pgmq.send('quick', '1')", 59001, 'ids go on');

# The owner changes his mind
$node->safe_psql('postgres', "SELECT pgmq.set_retention('keep', '0', drop_unread => true); SELECT pgmq.send('keep', '1')");
sql_is(q{SELECT retention_interval, drop_unread, drop_consumed FROM pgmq.partition_config WHERE queue_name = 'keep'
	UNION ALL SELECT string_agg(retention, ','), NULL, NULL FROM partman.part_config WHERE parent_table ~ '_keep'}, "0|t|f\n0,0||", 'set_retention');
$node->safe_psql('postgres', "SELECT pgmq.set_retention('keep', NULL)");
sql_is("SELECT count(*) FROM partman.part_config WHERE parent_table ~ '_keep' AND retention IS NULL", 2, 'for ever');
($out, $err) = sql("SELECT pgmq.set_retention('keep', '-1')");
like($err, qr/ERROR:  retention_interval must be at least 0, got -1/, 'less than nothing');
($out, $err) = sql("SELECT pgmq.create('std'); SELECT pgmq.set_retention('std', '1')");
like($err, qr/ERROR:  queue "std" is not partitioned/, 'of a queue that is not partitioned');

# What the published extension has made: its retention comes over
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('adopted', '10', '20');
	DELETE FROM pgmq.partition_config WHERE queue_name = 'adopted';
	UPDATE partman.part_config SET retention = '30' WHERE parent_table = 'pgmq.q_adopted';
	SELECT pgmq.create_partitioned('adopted')});
sql_is(q{SELECT c.retention_interval, p.retention FROM pgmq.partition_config AS c, partman.part_config AS p
	WHERE c.queue_name = 'adopted' AND p.parent_table = 'pgmq.q_adopted'}, '30|', 'an adopted queue keeps its messages');

# The same if maintenance comes first, and makes a partition of the default one
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('early', '20000', '50000', 2);
	DELETE FROM pgmq.partition_config WHERE queue_name = 'early';
	UPDATE partman.part_config SET retention = '50000' WHERE parent_table = 'pgmq.q_early';
	SELECT setval('pgmq.q_early_msg_id_seq', 100005);
	SELECT pgmq.send_batch('early', array_fill('{}'::jsonb, '{30000}'));
	CALL pgmq.maintain()});
sql_is(q{SELECT c.retention_interval, c.drop_unread, p.retention FROM pgmq.partition_config AS c, partman.part_config AS p
	WHERE c.queue_name = 'early' AND p.parent_table = 'pgmq.q_early'}, '50000|f|', 'such a queue keeps its messages, too');

# Senders in flight: nothing is dropped under them, and nobody waits for long
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('flight', '10', '10', 2);
	SELECT pgmq.send_batch('flight', array_fill('{}'::jsonb, '{8}')), pgmq.purge_queue('flight')});
my $sender = $node->background_psql('postgres');
$sender->query_safe("BEGIN; SELECT pgmq.send('flight', '\"late\"')");
$node->safe_psql('postgres', "SELECT setval('pgmq.q_flight_msg_id_seq', 45)");
($out, $err) = sql("SET pgmq.maintenance_lock_timeout = '10ms'; CALL pgmq.maintain()");
like($err, qr/NOTICE:  queue "flight" is busy, its maintenance is left to the next call/, 'maintain() leaves a busy queue alone');
unlike($err, qr/WARNING|ERROR/, 'and nothing fails');
$sender->query_safe('COMMIT');
maintain_is(qr/^$/, 'the next call does it');
sql_is("SELECT message FROM pgmq.q_flight", '"late"', 'the message that was under way is kept');
sql_is("SELECT string_agg(lower_bound, ' ' ORDER BY lower_bound::int) FROM pgmq.list_partitions('flight') WHERE upper_bound IS NOT NULL", '0 40 50 60',
	'with its partition, and the empty ones are gone');
sql_is("SELECT pgmq.delete('flight', 9)", 't', 'consumed at last');
# a prepared transaction is in flight as well
$node->safe_psql('postgres', "BEGIN; INSERT INTO pgmq.q_flight (msg_id, vt) VALUES (5, now()); PREPARE TRANSACTION 'late'");
($out, $err) = sql("SET pgmq.maintenance_lock_timeout = '10ms'; CALL pgmq.maintain()");
like($err, qr/NOTICE:  queue "flight" is busy/, 'prepared transactions count');
$node->safe_psql('postgres', "COMMIT PREPARED 'late'; CALL pgmq.maintain()");
sql_is("SELECT msg_id FROM pgmq.q_flight", 5, 'and keep their messages');

# A failing queue does not stop the others
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('aa_bad', '10', '10', 2), pgmq.create_partitioned('zz_good', '10', '10', 2);
	SELECT setval('pgmq.q_aa_bad_msg_id_seq', 100), setval('pgmq.q_zz_good_msg_id_seq', 100);
	CREATE TABLE pgmq.q_aa_bad_p100 ()});
maintain_is(qr/^(?:psql:<stdin>:1: )?WARNING:  maintenance of queue "aa_bad" failed \(new partitions\): could not make a partition of pgmq.q_aa_bad for 100\nDETAIL:  Another relation has its name/,
	'a failure is a warning');
sql_is("SELECT string_agg(lower_bound, ' ' ORDER BY lower_bound::int) FROM pgmq.list_partitions('zz_good')", '100 110 120', 'the others are maintained');
$node->safe_psql('postgres', "DROP TABLE pgmq.q_aa_bad_p100; CALL pgmq.maintain()");

# In a transaction block, in a function, and in two sessions at a time
$node->safe_psql('postgres', "SELECT setval('pgmq.q_zz_good_msg_id_seq', 200); BEGIN; CALL pgmq.maintain(); ROLLBACK");
sql_is("SELECT string_agg(lower_bound, ' ' ORDER BY lower_bound::int) FROM pgmq.list_partitions('zz_good')", '100 110 120', 'rolled back, nothing has happened');
$node->safe_psql('postgres', "DO 'BEGIN CALL pgmq.maintain(); END'");
sql_is("SELECT string_agg(lower_bound, ' ' ORDER BY lower_bound::int) FROM pgmq.list_partitions('zz_good')", '200 210 220', 'called from a block');
$node->safe_psql('postgres', "SELECT setval('pgmq.q_zz_good_msg_id_seq', 300), setval('pgmq.q_aa_bad_msg_id_seq', 300)");
my $other = $node->background_psql('postgres');
$other->query_safe('BEGIN; CALL pgmq.maintain()');
maintain_is(qr/^$/, 'what another session is at is left to it');
$other->query_safe('COMMIT');
sql_is("SELECT string_agg(lower_bound, ' ' ORDER BY lower_bound::int) FROM pgmq.list_partitions('zz_good')", '300 310 320', 'done once');
sql_is("SELECT current_setting('search_path'), current_setting('lock_timeout')", '"$user", public|0', 'settings are as they were');
$node->safe_psql('postgres', "SET search_path = partman; CALL pgmq.maintain(); DO 'BEGIN IF current_setting(''search_path'') <> ''partman'' THEN RAISE ''search_path''; END IF; END'");

# Somebody else's queue is none of a caller's business; a superuser's maintenance does not run code of an owner as superuser
$node->safe_psql('postgres', q{
	CREATE ROLE owner LOGIN; CREATE ROLE stranger LOGIN;
	GRANT ALL ON SCHEMA pgmq, partman TO owner; GRANT ALL ON ALL TABLES IN SCHEMA pgmq, partman TO owner;
	GRANT USAGE ON SCHEMA pgmq TO stranger; GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO stranger;
	SET ROLE owner;
	SELECT pgmq.create_partitioned('owned', '10', '10', 2);
	SELECT setval('pgmq.q_owned_msg_id_seq', 100)});
($out, $err) = sql("SET ROLE stranger; CALL pgmq.maintain()");
like($err, qr/WARNING:  maintenance of queue "owned" failed: permission denied to maintain pgmq.q_owned/, 'a stranger may not maintain it');
$node->safe_psql('postgres', 'CALL pgmq.maintain()');
sql_is("SELECT DISTINCT pg_get_userbyid(relowner) FROM pg_class WHERE relname ~ '^[qa]_owned'", 'owner', 'new partitions belong to the owner');
sql_is("SELECT count(*) FROM pgmq.list_partitions('owned')", 4, 'and were made');
sql_is("SET ROLE owner; SELECT pgmq.drop_queue('owned')", 't', 'who can drop the queue');

# Under load: overruns, consumed partitions dropped; every message is handed out once
$node->safe_psql('postgres', q{
	SELECT pgmq.create_partitioned('load', '500', NULL, 1, drop_consumed => true);
	CREATE TABLE consumed (msg_id bigint PRIMARY KEY)});
my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/send.sql", "SELECT pgmq.send_batch('load', array_fill('{}'::jsonb, '{20}'));\n");
append_to_file("$dir/consume.sql", q{
	WITH taken AS (SELECT msg_id FROM pgmq.read('load', 600, 15)),
		 noted AS (INSERT INTO consumed SELECT msg_id FROM taken RETURNING msg_id)
	SELECT count(pgmq.delete('load', msg_id)) FROM noted;
});
my ($pgbench_out, $pgbench_err) = ('', '');
my $load = IPC::Run::start(
	[ 'pgbench', '-n', '-d', $node->connstr('postgres'), '-c', 4, '-j', 2, '-t', 100, '-f', "$dir/send.sql\@2", '-f', "$dir/consume.sql\@3" ],
	'>', \$pgbench_out, '2>', \$pgbench_err);
my $calls = 0;
my $warnings = '';
while ($load->pumpable)
{
	($out, $err) = sql('CALL pgmq.maintain()');
	$warnings .= "$err\n" if $err =~ /WARNING|ERROR/;
	$calls++;
	$load->pump_nb;
}
ok($load->finish, 'pgbench: no message was handed out twice') or diag($pgbench_err);
is($warnings, '', "$calls calls of maintain() beside it without a failure");
cmp_ok($calls, '>', 1, 'there were some');
$node->safe_psql('postgres', "CALL pgmq.maintain(); INSERT INTO consumed SELECT msg_id FROM pgmq.pop('load', 1000000)");
sql_is("SELECT count(*) = max(msg_id), min(msg_id), max(msg_id) = (SELECT last_value FROM pgmq.q_load_msg_id_seq) FROM consumed", 't|1|t', 'none is missing');
$node->safe_psql('postgres', 'CALL pgmq.maintain()');
sql_is("SELECT count(*) FROM pgmq.list_partitions('load')", 3, 'and their partitions are gone');

# Without pg_partman
$node->safe_psql('postgres', "SELECT pgmq.send_batch('over', array_fill('{}'::jsonb, '{100}')); DROP EXTENSION pg_partman");
maintain_is(qr/WARNING:  pg_partman is not installed, no partitions are made for partitioned queues/, 'without pg_partman it says so');
sql_is("SELECT count(*) FROM pgmq.q_over", 175, 'and the queue goes on');

# A queue dropped while maintain() is at work, and restarts
$node->safe_psql('postgres', "SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues()");
maintain_is(qr/^$/, 'nothing is left to do');

$node->stop;
done_testing();

# convert_archive_partitioned: what was archived stays in the archive, archive()
# goes on, and nothing is left when the queue is dropped.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('convert');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', "fsync = off\ntimezone = 'UTC'\nmax_prepared_transactions = 2");
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');

# The texts that programs know, their "s" included
said("SELECT pgmq.convert_archive_partitioned('nope')", qr/^NOTICE:  Table a_nopes does not exists$/, 'no such archive');
$node->safe_psql('postgres', "SELECT pgmq.create('early')");
said("SELECT pgmq.convert_archive_partitioned('early')", qr/^ERROR:  pg_partman is required for partitioned queues/, 'without pg_partman');
$node->safe_psql('postgres', 'CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');
$node->safe_psql('postgres', "SELECT pgmq.create_partitioned('parted')");
said("SELECT pgmq.convert_archive_partitioned('Parted')", qr/^NOTICE:  Table a_parteds is already partitioned$/, 'partitioned already');

# By id and by time, under names that need quotes and of the greatest length
foreach my $name ('my-queue', 'Capitals', 'q"uote 50%', 'x' x 47, 'y' x 40 . 'größ')
{
	foreach my $interval ('10', '1 day')
	{
		my $lower = lc $name;
		(my $table = 'pgmq."a_' . ($lower =~ s/"/""/gr) . '"');
		my $what = "$name by $interval";

		$node->safe_psql('postgres', qq{
			SELECT pgmq.create('$name');
			SELECT pgmq.send_batch('$name', array_fill('{"b": 1}'::jsonb, '{100}'), array_fill('{"h": 2}'::jsonb, '{100}'));
			SELECT pgmq.archive('$name', ARRAY(SELECT generate_series(1, 45)::bigint));
			DROP TABLE IF EXISTS before; CREATE TABLE before AS SELECT * FROM $table});
		my ($out, $err) = sql("SELECT pgmq.convert_archive_partitioned('$name', '$interval', '1000', 3)");
		is($err, '', "$what: converted");
		sql_is("SELECT relkind FROM pg_class WHERE oid = '$table'::regclass", 'p', "$what: the archive is partitioned");
		sql_is("SELECT (SELECT count(*) FROM (TABLE before EXCEPT TABLE $table) AS x), (SELECT count(*) FROM $table)", '0|45', "$what: with what was in it");
		sql_is("SELECT count(*) FROM pgmq.archive('$name', ARRAY(SELECT generate_series(46, 100)::bigint))", 55, "$what: archive() goes on");
		sql_is("SELECT count(DISTINCT msg_id) FROM $table", 100, "$what: and goes there");
		sql_is(qq{SELECT premake, (SELECT count(*) FROM pg_indexes WHERE tablename = 'a_$lower' AND indexname IN ('archived_at_idx_$name', 'a_${lower}_msg_id_idx'))
			FROM partman.part_config WHERE parent_table = 'pgmq.a_$lower'}, '3|2', "$what: leading_partition and indexes");
		($out, $err) = sql(qq{
			CALL pgmq.maintain(); SELECT partman.run_maintenance('pgmq.a_$lower');
			SELECT count(DISTINCT msg_id) FROM $table;
			SELECT is_partitioned FROM pgmq.list_queues() WHERE queue_name = '$name';
			SELECT pgmq.drop_queue('$name')});
		is("$out$err", "\n100\nf\nt", "$what: maintained, by pg_partman too, with nothing lost, and dropped");
	}
}
sql_is(q{SELECT (SELECT count(*) FROM partman.part_config WHERE parent_table !~ 'parted') + (SELECT count(*) FROM pgmq.partition_config WHERE queue_name <> 'parted')
	+ (SELECT count(*) FROM pg_class WHERE relnamespace IN ('partman'::regnamespace, 'pgmq'::regnamespace)
	   AND relname ~ '^(template_pgmq_)?[qa]_' AND relname !~ '[qa]_(parted|early)')}, 0, 'nothing is left of any of them');

# Retention by the bounds that the first partition has got
$node->safe_psql('postgres', q{
	SELECT pgmq.create('ret');
	SELECT pgmq.send_batch('ret', array_fill('{}'::jsonb, '{500}'));
	SELECT pgmq.archive('ret', ARRAY(SELECT generate_series(1, 500)::bigint));
	SELECT pgmq.convert_archive_partitioned('ret', '10', '100', 2);
	CALL pgmq.maintain(); SELECT partman.run_maintenance('pgmq.a_ret')});
sql_is('SELECT count(*) FROM pgmq.a_ret', 500, 'no row goes before its time');
$node->safe_psql('postgres', q{
	SELECT pgmq.send_batch('ret', array_fill('{}'::jsonb, '{112}'));
	SELECT pgmq.archive('ret', ARRAY(SELECT generate_series(501, 612)::bigint));
	CALL pgmq.maintain()});
sql_is('SELECT min(msg_id), count(*) FROM pgmq.a_ret', '510|103', 'and then it goes');

# Rights come along, triggers do not, and that is said
$node->safe_psql('postgres', q{
	CREATE ROLE keeper; CREATE ROLE worker;
	GRANT ALL ON SCHEMA pgmq, partman TO keeper; GRANT ALL ON ALL TABLES IN SCHEMA pgmq, partman TO keeper;
	SELECT pgmq.create('mine');
	ALTER TABLE pgmq.a_mine OWNER TO keeper; ALTER TABLE pgmq.q_mine OWNER TO keeper;
	GRANT SELECT, INSERT ON pgmq.a_mine TO worker WITH GRANT OPTION; GRANT SELECT ON pgmq.a_mine TO PUBLIC;
	CREATE FUNCTION noop() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
	CREATE TRIGGER noop BEFORE INSERT ON pgmq.a_mine FOR EACH ROW EXECUTE FUNCTION noop()});
my $acl = "SELECT pg_get_userbyid(relowner), array(SELECT unnest(relacl)::text ORDER BY 1) FROM pg_class WHERE oid = 'pgmq.a_mine'::regclass";
my $before = $node->safe_psql('postgres', $acl);
said("SELECT pgmq.convert_archive_partitioned('mine')", qr/^WARNING:  triggers of the archive are not on the partitioned archive/, 'triggers');
sql_is($acl, $before, 'owner and rights are the same');

# What can't be
said("SELECT pgmq.convert_archive_partitioned('early', '0')", qr/^ERROR:  partition_interval must be greater than 0, got 0/, 'no interval');
said("SELECT pgmq.convert_archive_partitioned('early', '10', '-1')", qr/^ERROR:  retention_interval must be at least 0/, 'no retention');
said("SELECT pgmq.convert_archive_partitioned('early', leading_partition => 0)", qr/^ERROR:  leading_partition must be at least 1, got 0/, 'no partition');
$node->safe_psql('postgres', "SELECT pgmq.create('dot.ted')");
said("SELECT pgmq.convert_archive_partitioned('dot.ted')", qr/^ERROR:  queue "dot.ted" cannot be partitioned/, 'a dot');
$node->safe_psql('postgres', "SELECT pgmq.create('early_default')");
said("SELECT pgmq.convert_archive_partitioned('early')", qr/^ERROR:  relation "a_early_default" exists and belongs to another queue/, 'in the way of another');
$node->safe_psql('postgres', "SELECT pgmq.drop_queue('early_default')");
sql_is("BEGIN; SELECT pgmq.convert_archive_partitioned('early'); ROLLBACK; SELECT relkind FROM pg_class WHERE oid = 'pgmq.a_early'::regclass", "\nr", 'rolled back');

# Somebody who archives and does not commit: an error, after which all is as it was
my $archiver = $node->background_psql('postgres');
$node->safe_psql('postgres', "SELECT pgmq.send_batch('early', array_fill('{}'::jsonb, '{3}'))");
$archiver->query_safe("BEGIN; SELECT pgmq.archive('early', 1)");
said("SET pgmq.maintenance_lock_timeout = '5ms'; SELECT pgmq.convert_archive_partitioned('early')",
	qr/^ERROR:  could not lock table pgmq.a_early: it is in constant use/, 'an archive in use');
sql_is("SELECT pgmq.archive('early', 2)", 't', 'others were not kept waiting');
$archiver->query_safe('COMMIT');
sql_is("SELECT pgmq.convert_archive_partitioned('early', '10'); SELECT count(*) FROM pgmq.a_early", "\n2", 'now it goes');

# A large archive is put aside, and comes back with the next maintenance
$node->safe_psql('postgres', q{
	SELECT pgmq.create('large'), pgmq.create('large_old');
	SELECT setval('pgmq.q_large_msg_id_seq', 60000);
	INSERT INTO pgmq.a_large (msg_id, vt, message) SELECT i, now(), to_jsonb(repeat('x', 1000)) FROM generate_series(1, 40000) AS i;
	SELECT pgmq.send_batch('large', array_fill('{}'::jsonb, '{100}'))});
said("SELECT pgmq.convert_archive_partitioned('large', '1000', '1000000')",
	qr/^NOTICE:  existing archive rows remain in pgmq.a_large_old1 until pgmq.maintain\(\) runs$/, 'a large archive');
sql_is("SELECT count(*) FROM pgmq.archive('large', ARRAY(SELECT generate_series(60001, 60050)::bigint))", 50, 'archive() goes on');
my ($out, $err) = sql('CALL pgmq.maintain()');
is($err, '', 'maintain()');
sql_is("SELECT count(*), count(DISTINCT msg_id) FROM pgmq.a_large", '40050|40050', 'attaches it, with what came meanwhile');
sql_is("SELECT count(*) FROM pgmq.a_large_default", 0, 'the default partition is empty');
sql_is("SELECT count(*) FROM pg_constraint WHERE conname = 'pgmq_converted'", 0, 'nothing is left of it');
sql_is("SELECT count(*) FROM pgmq.archive('large', ARRAY(SELECT generate_series(60051, 60100)::bigint))", 50, 'and archive() goes on');
$node->safe_psql('postgres', q{
	INSERT INTO pgmq.a_large_old (msg_id, vt, message) SELECT i, now(), to_jsonb(repeat('x', 1000)) FROM generate_series(1, 40000) AS i;
	SELECT pgmq.convert_archive_partitioned('large_old', '1 day', '30 days'); SELECT pgmq.drop_queue('large')});
sql_is("SELECT pgmq.drop_queue('large_old')", 't', 'dropped before it came back');
sql_is("SELECT count(*) FROM pg_class WHERE relname ~ '[qa]_large'", 0, 'with everything');

# Dump and restore of partitioned queues and archives
$node->safe_psql('postgres', 'CREATE DATABASE origin');
$node->safe_psql('origin', q{
	CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman;
	SELECT pgmq.create_partitioned('Ids', '10', '50', 2, drop_consumed => true), pgmq.create_partitioned('times', '1 day', '7 days');
	SELECT pgmq.create('std');
	SELECT pgmq.send_batch(q, array_fill('{"a": 1}'::jsonb, '{45}')) FROM unnest('{ids,times,std}'::text[]) AS q;
	SELECT pgmq.read(q, 3600, 10) FROM unnest('{ids,times,std}'::text[]) AS q;
	SELECT pgmq.archive(q, ARRAY(SELECT generate_series(1, 25)::bigint)) FROM unnest('{ids,times,std}'::text[]) AS q;
	SELECT pgmq.convert_archive_partitioned('std', '10', '50');
	CALL pgmq.maintain()});
my $contents = q{
	SELECT * FROM pgmq.q_ids ORDER BY 1; SELECT * FROM pgmq.a_ids ORDER BY 1; SELECT * FROM pgmq.q_times ORDER BY 1; SELECT * FROM pgmq.a_times ORDER BY 1;
	SELECT * FROM pgmq.a_std ORDER BY 1; SELECT * FROM pgmq.meta ORDER BY 1; SELECT * FROM pgmq.partition_config ORDER BY 1;
	SELECT parent_table, control, partition_interval, premake, retention, template_table FROM partman.part_config ORDER BY 1;
	SELECT queue, partition, lower_bound, upper_bound, messages FROM pgmq.list_partitions();
	SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' ORDER BY 1;
	SELECT last_value FROM pgmq.q_ids_msg_id_seq};
my $origin = $node->safe_psql('origin', $contents);
my $dir = PostgreSQL::Test::Utils::tempdir();
$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/dump", '-d', $node->connstr('origin') ], 'pg_dump');
$node->safe_psql('postgres', 'CREATE DATABASE copy');
$node->command_ok([ 'pg_restore', '-j2', '--exit-on-error', '-d', $node->connstr('copy'), "$dir/dump" ], 'restored without an error');
is($node->safe_psql('copy', $contents), $origin, 'everything is as it was');
is($node->safe_psql('copy', q{
	SELECT pgmq.send_batch('ids', array_fill('{}'::jsonb, '{40}')) LIMIT 1;
	CALL pgmq.maintain();
	SELECT count(*) FROM pgmq.q_ids_default;
	SELECT pgmq.drop_queue(queue_name) FROM pgmq.list_queues();
	SELECT count(*) FROM partman.part_config}), "46\n0\nt\nt\nt\n0", 'the copy is maintained and dropped as any');

$node->stop;
done_testing();

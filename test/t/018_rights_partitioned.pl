# The rights of partitioned queues: a maker of partitioned queues decides about its own ones only, and
# a bad one costs the others nothing.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('rights_partitioned');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', q{
	CREATE SCHEMA partman;
	CREATE EXTENSION pg_partman SCHEMA partman;
	CREATE EXTENSION pgmq;
	CREATE ROLE maker;
	CREATE ROLE other_maker;
	CREATE ROLE watcher;
	GRANT USAGE, CREATE ON SCHEMA pgmq, partman TO maker, other_maker;
	GRANT SELECT, INSERT, DELETE ON pgmq.meta TO maker, other_maker;
	GRANT SELECT, INSERT, UPDATE, DELETE ON pgmq.partition_config TO maker, other_maker;
	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA partman TO maker, other_maker;
	GRANT USAGE ON SCHEMA pgmq, partman TO watcher;
});

# run(role, sql): (what it returned, what it said, with SQLSTATEs)
sub run
{
	my ($role, $sql) = @_;
	my ($stdout, $stderr);

	$node->psql('postgres', "SET ROLE $role;\n$sql", stdout => \$stdout, stderr => \$stderr,
		extra_params => [ '-v', 'VERBOSITY=verbose' ]);
	return ($stdout, $stderr);
}

sub refused
{
	my ($role, $sql, $name) = @_;
	my (undef, $stderr) = run($role, $sql);

	like($stderr, qr/ERROR:  42501: /, $name);
}

sub gives
{
	my ($role, $sql, $expected, $name) = @_;
	my ($stdout, $stderr) = run($role, $sql);

	is($stdout, $expected, $name) or diag($stderr);
	return $stderr;
}

my $counted = 'SELECT count(*) FROM pgmq.q_al';

gives('other_maker', q{
	SELECT pgmq.create_partitioned('al', '10', NULL, 2);
	SELECT pgmq.create('precious');
	SELECT count(*) FROM pgmq.send_batch('al', array_fill('1'::jsonb, '{35}'))}, "\n\n35", 'another maker has a queue');

######################################################## somebody else's retention

refused('maker', "SELECT pgmq.set_retention('al', '0', true)", 'set_retention is for the owner');
refused('maker', "SELECT pgmq.convert_archive_partitioned('precious')", 'convert_archive_partitioned is for the owner');
refused('maker', "UPDATE pgmq.partition_config SET $_ WHERE queue_name = 'al'", "so is the row in partition_config: $_")
  foreach "converted_archive = 'q_precious'", "retention_interval = '0', drop_unread = true", 'drop_consumed = true';
refused('maker', 'DELETE FROM pgmq.partition_config', 'it cannot be deleted either');
refused('maker', 'DELETE FROM pgmq.meta', 'nor can the one in meta');
run('other_maker', 'CALL pgmq.maintain()');
gives('other_maker', $counted, '35', 'maintenance drops nothing of it');
gives('other_maker', "SELECT pgmq.set_retention('al', '1000'); SELECT retention_interval FROM pgmq.partition_config", "\n1000", 'the owner may');

######################################################## settings that were there before the queue

gives('maker', "INSERT INTO pgmq.partition_config VALUES ('later', '0', true, true, 'q_precious')", '', 'a row of no queue can be written');
gives('other_maker', "SELECT pgmq.create_partitioned('later', '10', '100', 2);
	SELECT retention_interval, drop_unread, drop_consumed, converted_archive FROM pgmq.partition_config WHERE queue_name = 'later'",
	"\n100|f|f|", 'a new queue takes nothing from it');
gives('other_maker', "SELECT pgmq.set_retention('later', '50', true);
	SELECT pgmq.create_partitioned('later', '10', '100', 2);
	SELECT retention_interval, drop_unread FROM pgmq.partition_config WHERE queue_name = 'later'", "\n\n50|t", 'one that exists keeps its own');
gives('other_maker', "UPDATE pgmq.partition_config SET converted_archive = 'q_precious' WHERE queue_name = 'later';
	SELECT pgmq.drop_queue('later'), to_regclass('pgmq.q_precious')", 't|pgmq.q_precious', 'drop_queue drops no other queue');

######################################################## list_partitions

# What runs a maker's code leaves its mark
$node->safe_psql('postgres', 'CREATE TABLE ran (who text); GRANT INSERT ON ran TO PUBLIC');
my $stderr = gives('maker', q{
	SELECT pgmq.create_partitioned('bad', '10', NULL, 2);
	UPDATE pgmq.partition_config SET retention_interval = 'garbage' WHERE queue_name = 'bad';
	SELECT pgmq.create_partitioned('policed', '10', NULL, 2);
	CREATE FUNCTION pgmq.mark() RETURNS boolean LANGUAGE plpgsql AS 'BEGIN INSERT INTO public.ran VALUES (current_user); RETURN true; END';
	CREATE FUNCTION pgmq.mark_id() RETURNS bigint LANGUAGE plpgsql IMMUTABLE AS 'BEGIN PERFORM pgmq.mark(); RETURN 1; END';
	ALTER TABLE pgmq.q_policed_p0 ENABLE ROW LEVEL SECURITY;
	CREATE POLICY p ON pgmq.q_policed_p0 USING (pgmq.mark());
	CREATE INDEX ON pgmq.q_policed_p0 ((msg_id + pgmq.mark_id()))}, "\n", 'a maker has a bad queue');
is($stderr, '', 'without an error');
$node->safe_psql('postgres', 'TRUNCATE ran');
my $superuser = $node->safe_psql('postgres', 'SELECT current_user');
$stderr = gives($superuser, "SELECT DISTINCT queue, messages IS NULL FROM pgmq.list_partitions() ORDER BY 1", "al|f\npoliced|f", 'list_partitions shows the others');
like($stderr, qr/WARNING:  22P02: queue "bad" is skipped/, 'and warns of the bad one');
like((run($superuser, "SELECT * FROM pgmq.list_partitions('bad')"))[1], qr/ERROR:  22P02/, 'of which it fails by itself');
gives($superuser, 'SELECT sum(messages) FROM pgmq.list_partitions(\'al\')', '35', 'messages are counted');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ran'), '0', "no code of the queue's owner has run");
refused('watcher', 'SELECT * FROM pgmq.list_partitions()', 'a role without rights sees nothing');
$node->safe_psql('postgres', 'GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO watcher; GRANT SELECT ON ALL SEQUENCES IN SCHEMA pgmq TO watcher;
	GRANT SELECT ON partman.part_config TO watcher');
gives('watcher', "SELECT messages IS NULL, held_back IS NULL, count(*) FROM pgmq.list_partitions('policed') GROUP BY 1, 2 ORDER BY 3 LIMIT 1",
	't|t|1', 'where policies apply the number is unknown');
$node->safe_psql('postgres', 'REVOKE SELECT ON pgmq.q_al_p10 FROM watcher');
refused('watcher', "SELECT * FROM pgmq.list_partitions('al')", 'it needs every partition');
is($node->safe_psql('postgres', 'SELECT count(*) FROM ran'), '0', "still no code of the queue's owner has run");

# A partition that the owner has locked
my $holder = $node->background_psql('postgres');
$holder->query_safe('BEGIN; LOCK TABLE ONLY pgmq.q_policed_p10 IN ACCESS EXCLUSIVE MODE');
$stderr = gives($superuser, 'SELECT DISTINCT queue FROM pgmq.list_partitions()', 'al', 'a locked partition holds nobody up');
like($stderr, qr/WARNING:  55P03: queue "policed" is skipped/, 'its queue is skipped');
$stderr = gives($superuser, 'SELECT queue_name, queue_length FROM pgmq.metrics_all() ORDER BY 1', "al|35\nbad|0\nprecious|0", 'metrics_all counts the others, too');
like($stderr, qr/WARNING:  55P03: queue "policed" is skipped/, 'and skips it');
$holder->query_safe('COMMIT');
$holder->quit;

$node->stop;
done_testing();

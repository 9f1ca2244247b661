# The second table of docs/privileges.md, about partitioned queues, tried: each task works with what its row
# grants, and some call of its row fails without any single one of these grants.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('partitioned_grants');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nlog_min_messages = error");
$node->start;
$node->safe_psql('postgres', q{
	CREATE ROLE tester;
	CREATE SCHEMA partman;
	CREATE EXTENSION pg_partman SCHEMA partman;
	CREATE EXTENSION pgmq;
	SELECT pgmq.create_partitioned('parted', '10', NULL, 2), pgmq.create('plain');
	SELECT count(*) FROM pgmq.send_batch('parted', array_fill('1'::jsonb, '{60}'));
	-- a default partition that becomes one that is wider than others, whose retention is taken over
	SELECT pgmq.create_partitioned('wide', '10040', '20000', 2, drop_unread => true);
	DELETE FROM pgmq.partition_config WHERE queue_name = 'wide';
	SELECT setval('pgmq.q_wide_msg_id_seq', 100400);
	INSERT INTO pgmq.q_wide (vt) SELECT now() FROM generate_series(1, 20000);
	-- what REVOKE takes back is what a test before has given
	CREATE PROCEDURE public.own(role text) LANGUAGE plpgsql AS $$
	DECLARE tab regclass;
	BEGIN
		FOR tab IN SELECT oid FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') AND relname ~ '^[qa]_' LOOP
			EXECUTE format('ALTER TABLE %s OWNER TO %I', tab, role);
		END LOOP;
	END $$;
	CREATE PROCEDURE public.grant_select() LANGUAGE plpgsql AS $$
	DECLARE tab regclass;
	BEGIN
		FOR tab IN SELECT oid FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relname ~ '^q_parted(_p.*|_default)?$' AND relkind IN ('r', 'p') LOOP
			EXECUTE format('GRANT SELECT ON %s TO tester', tab);
		END LOOP;
	END $$;
});

# complaints(calls, setup): what the calls say as the role tester after these statements; nothing of it stays
sub complaints
{
	my ($calls, @setup) = @_;
	my $stderr;

	$node->psql('postgres', join(";\n", 'BEGIN', @setup, 'SET LOCAL ROLE tester', @$calls, 'ROLLBACK') . ';',
		stderr => \$stderr, on_error_stop => 0);
	return join("\n", grep { /WARNING|ERROR/ && !/current transaction is aborted/ } split(/\n/, $stderr));
}

my $partman = 'GRANT USAGE ON SCHEMA partman TO tester';
my @schema = ('GRANT USAGE ON SCHEMA pgmq TO tester', 'GRANT CREATE ON SCHEMA pgmq TO tester');
my $owner = q{CALL public.own('tester')};

# What the row says; the calls; the grants, each by itself
my @tasks = (
	[ q{`create_partitioned` | USAGE, CREATE | | SELECT, INSERT on `pgmq.meta`; USAGE on pg_partman's schema},
		[ q{SELECT pgmq.create_partitioned('new', '10', '20', 2)} ],
		@schema, $partman, (map { "GRANT $_ ON pgmq.meta TO tester" } qw(SELECT INSERT)) ],
	[ q{`convert_archive_partitioned` | USAGE, CREATE | owner | SELECT on `pgmq.meta`; USAGE on pg_partman's schema},
		[ q{SELECT pgmq.convert_archive_partitioned('plain', '10', '20', 2)} ],
		@schema, $owner, $partman, 'GRANT SELECT ON pgmq.meta TO tester' ],
	[ q{`set_retention` | USAGE | owner | USAGE on pg_partman's schema},
		[ q{SELECT pgmq.set_retention('parted', '30')} ], $schema[0], $owner, $partman ],
	[ q{`maintain` | USAGE | owner | SELECT on `pgmq.meta`. [The owner needs grants, too](#what-does-the-owner-need-for-maintain)},
		[ q{CALL pgmq.maintain()} ], @schema, $owner, $partman, 'GRANT SELECT ON pgmq.meta TO tester' ],
	[ q{`list_partitions` | USAGE | SELECT on the table and its partitions | SELECT on `pgmq.meta`; for partitions by `msg_id`: SELECT on `pgmq.q_<queue>_msg_id_seq`},
		[ q{SELECT pgmq.list_partitions('parted')} ], $schema[0], 'CALL public.grant_select()', 'GRANT SELECT ON pgmq.meta TO tester',
		'GRANT SELECT ON pgmq.q_parted_msg_id_seq TO tester' ],
	[ q{`drop_queue` of a partitioned queue | USAGE | owner | USAGE on pg_partman's schema},
		[ q{SELECT pgmq.drop_queue('parted')} ], $schema[0], $owner, $partman ]);

my $docs = slurp_file("$FindBin::RealBin/../../docs/privileges.md");
my ($table) = $docs =~ /^\| task \| schema `pgmq` \| tables of the queue \| other \|\n[|-]+\n(.*?)\n\n/ms;
is($table, join("\n", map { "| $_->[0] |" } @tasks), 'the table says what is tried here');

foreach my $task (@tasks)
{
	my ($row, $calls, @grants) = @$task;
	my ($name) = $row =~ /^([^|]+) \|/;

	is(complaints($calls, @grants), '', "all grants: $name");
	foreach my $missing (@grants)
	{
		like(complaints($calls, grep { $_ ne $missing } @grants), qr/permission denied|must be (member|owner) of|partitions of another role/, "without: $missing: $name");
	}
}

$node->stop;
done_testing();

# A queue that is not upgraded yet is correct in every respect: the regression tests give the same results on queues in
# the shapes of the PL/pgSQL extension.  An event trigger changes each queue as soon as it is made:
#  - the index on vt is the old one; a partitioned queue has none
#  - a partitioned queue has no primary key; by time it has no index on msg_id either
#  - the group index is a GIN index, so grouped reads do without notes
#  - the trigger for notifications is a constraint trigger for each row
# Tests of what is in the catalogs are left out: they show the difference.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my @tests = qw(message_read message_finish message_send message_metrics message_poll message_hooks groups group_waiting
	groups_rolled_back groups_overlooked groups_spilled position_rollback position_rights waiting topics queue_all base_strangers);
push @tests, qw(queue_subpartitions upkeep_last_ids) if -e `pg_config --sharedir` =~ s/\n//r . '/extension/pg_partman.control';

# Where a test looks at notes or at an index: lines as in a diff
my %expected = (
	message_hooks => [ '- t', '+ f' ],				# the notes are made again by a second create_fifo_index()
	groups => [ '-     0', '+     5' ],				# notes of what is gone stay
	group_waiting => [ '- t', '+ f' ]);				# and no notes are added

my $node = PostgreSQL::Test::Cluster->new('shapes');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nmax_prepared_transactions = 5");
$node->start;

my $AS_BEFORE = q{
CREATE FUNCTION public.as_before() RETURNS event_trigger LANGUAGE plpgsql SET search_path = pg_catalog AS $$
DECLARE
	made record;
BEGIN
	FOR made IN
		SELECT i.relname AS name, t.oid::regclass AS queue, t.relname AS table, t.relkind AS kind
		  FROM pg_event_trigger_ddl_commands() AS d
		  JOIN pg_class AS i ON i.oid = d.objid JOIN pg_index AS x ON x.indexrelid = i.oid
		  JOIN pg_class AS t ON t.oid = x.indrelid JOIN pg_am AS a ON a.oid = i.relam
		 WHERE d.classid = 'pg_class'::regclass AND t.relnamespace = 'pgmq'::regnamespace
		   AND t.relname ~ '^q_' AND NOT t.relispartition AND a.amname = 'btree'
		   AND (i.relname = t.relname || '_vt_idx' AND x.indpred IS NOT NULL OR i.relname = t.relname || '_fifo_idx')
	LOOP
		EXECUTE format('DROP INDEX pgmq.%I', made.name);
		IF made.name ~ '_fifo_idx$' THEN
			EXECUTE format('CREATE INDEX %I ON %s USING gin (headers)', made.name, made.queue);
		ELSIF made.kind = 'r' THEN
			EXECUTE format('CREATE INDEX %I ON %s (vt)', made.name, made.queue);
		ELSIF EXISTS (SELECT FROM pg_constraint WHERE conrelid = made.queue AND conname = made.table || '_part_idx') THEN
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', made.queue, made.table || '_part_idx');
			EXECUTE format('CREATE INDEX %I ON %s (msg_id)', made.table || '_part_idx', made.queue);
		ELSIF EXISTS (SELECT FROM pg_constraint WHERE conrelid = made.queue AND conname = made.table || '_msg_id_idx') THEN
			EXECUTE format('ALTER TABLE %s DROP CONSTRAINT %I', made.queue, made.table || '_msg_id_idx');
		END IF;
	END LOOP;
	FOR made IN
		SELECT t.tgrelid::regclass AS queue, pg_get_triggerdef(t.oid) AS definition
		  FROM pg_event_trigger_ddl_commands() AS d JOIN pg_trigger AS t ON t.oid = d.objid
		 WHERE d.classid = 'pg_trigger'::regclass AND t.tgname = 'trigger_notify_queue_insert_listeners' AND t.tgtype = 4
	LOOP
		EXECUTE format('DROP TRIGGER trigger_notify_queue_insert_listeners ON %s', made.queue);
		EXECUTE replace(replace(made.definition, 'CREATE TRIGGER', 'CREATE CONSTRAINT TRIGGER'),
			'FOR EACH STATEMENT', 'DEFERRABLE FOR EACH ROW');
	END LOOP;
END $$;
CREATE EVENT TRIGGER as_before ON ddl_command_end WHEN TAG IN ('CREATE INDEX', 'CREATE TRIGGER')
	EXECUTE FUNCTION public.as_before()};

# The settings of pg_regress
$ENV{PGTZ} = 'PST8PDT';
$ENV{PGDATESTYLE} = 'Postgres, MDY';
$ENV{PGOPTIONS} = '-c intervalstyle=postgres_verbose';

foreach my $test (@tests)
{
	my $db = 'contrib_regression';
	my $file = "$FindBin::RealBin/../../expected/$test.out";
	my $output;

	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $db");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql('postgres', "ALTER DATABASE $db SET lc_messages TO 'C'");
	$node->safe_psql($db, "CREATE EXTENSION pgmq; $AS_BEFORE");
	# It does what it says
	is($node->safe_psql($db, q{
		SELECT pgmq.create('shape'), pgmq.create_fifo_index('shape'), pgmq.enable_notify_insert('shape');
		SELECT needs_vt_index, needs_group_index, needs_statement_trigger FROM pgmq.queues_to_upgrade;
		SELECT pgmq.drop_queue('shape')}), "||\nt|t|t\nt", 'queues are made as before') if $test eq $tests[0];
	IPC::Run::run([ 'psql', '-X', '-a', '-q', '-d', $node->connstr($db), '-v', 'HIDE_TABLEAM=on', '-v', 'HIDE_TOAST_COMPRESSION=on' ],
		'<', "$FindBin::RealBin/../sql/$test.sql", '>', \$output, '2>&1');
	append_to_file("${\ $node->basedir}/$test.out", $output);
	my ($diff) = run_command([ 'diff', '-U0', $file, "${\ $node->basedir}/$test.out" ]);
	my @lines = grep { /^[-+]/ && !/^(---|\+\+\+) / } split /\n/, $diff;
	is_deeply(\@lines, $expected{$test} // [], "on queues as before: $test");
}

$node->stop;
done_testing();

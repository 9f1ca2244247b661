# A queue that is not upgraded yet is correct in every respect: the regression and isolation tests give the same results
# on queues in the shapes of the PL/pgSQL extension.  An event trigger changes each queue as soon as it is made:
#  - the index on vt is the old one; a partitioned queue has none
#  - a partitioned queue has no primary key; by time it has no index on msg_id either
#  - the group index is a GIN index, so grouped reads do without notes
#  - the trigger for notifications is a constraint trigger for each row
# Regression tests of what is in the catalogs are left out: they show the difference.  Of the isolation tests only those
# below are left out.
use strict;
use warnings;

use File::Basename;
use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use IPC::Run ();

my @tests = qw(message_read message_finish message_send message_metrics message_poll message_hooks groups group_waiting
	groups_rolled_back groups_overlooked groups_spilled position_rollback position_rights waiting topics queue_all base_strangers);
my $has_partman = -e `pg_config --sharedir` =~ s/\n//r . '/extension/pg_partman.control';
push @tests, qw(queue_subpartitions upkeep_last_ids) if $has_partman;

# Where a test looks at notes or at an index: lines as in a diff
my %expected = (
	message_hooks => [ '- t', '+ f' ],				# the notes are made again by a second create_fifo_index()
	groups => [ '-     0', '+     5' ],				# notes of what is gone stay
	group_waiting => [ '- t', '+ f' ]);				# and no notes are added

# Isolation tests that are left out: the reason, and the permutations; without permutations, the whole test
my $UNCOMMITTED = 'without an index of ours, messages that are not committed hold nothing back';
my %left_out = (
	group_by_hand => [ 'changes notes, which are not used' ],
	group_late_commit => [ $UNCOMMITTED,
		's_begin s_send t_send r_read t_other r_read s_commit r_wait',
		's_begin s_send t_send r_read s_rollback r_wait',
		's_begin s_savepoint s_send t_send r_read s_back r_wait s_send s_commit r_read',
		's_begin s_send s_read t_send r_read s_rollback r_wait' ],
	group_late_id => [ "$UNCOMMITTED, and two workers can hold messages of one group",
		'c_hold s_begin s_fifo t_send r_read c_free r_fifo x_read s_rollback x_wait',
		'c_hold s_fifo t_send r_begin r_read c_free x_read r_commit x_read r_fifo x_read' ],
	group_locks => [ 'an empty look is a SELECT and keeps its lock; create_fifo_index() makes the index of ours and keeps its lock',
		'a_read a_locks p_purge a_read', 'a_again a_locks p_purge a_read' ],
	notify_senders => [ 'enable_notify_insert() replaces the old trigger, so senders and it wait for each other',
		'update enable a1 b1 a3 b3 commit1 end a2 b2 commit2', 'a1 b1 update enable end a3 commit1 a2 commit2' ],
	notify_settings => [ 'the event trigger waits for who has looked at the queue, because it drops a trigger',
		'begin2 look2 enable1 commit1 enable2 end2 list2 triggers2' ],
	upkeep_partition_moves => [ 'a read locks all partitions, so a new one waits for its transaction',
		'r_send2 r_begin r_read m_add m_send1 r_read r_commit r_send8 r_read' ]);

# Where they differ
my %expected_isolation = (
	group_own_deletes => [ ('-    ', '+ 4 5') x 3 ],	# behind a message that is not committed
	group_removers => [ '-   ', '+  4' ],			# the same
	# A read moves the dead messages of all groups, not only of those that have their turn, so the other groups wait for
	# its transaction.  And it goes past the message that is not committed; then it has left nothing to the next read.
	policy_dead_groups => [
		'-     6', '-(1 row)', '+(0 rows)', '-(0 rows)', '+     6', '+(1 row)',
		'-     6', '-(1 row)', '+(0 rows)', '-{5} ', '+    ', '-(1 row)', '+     6', '+(2 rows)', '-{5,1,2,3}', '+{1,2,3,5}',
		'-dead   ', '--------', '-{1,2,3}', '+dead     ', '+---------', '+{1,2,3,5}',
		'-queued ', '--------', '-{4,5,6}', '+queued', '+------', '+{4,6} ',
		'+     4', '-(1 row)', '+(2 rows)', '-dead', '-----', '-{5} ', '+dead     ', '+---------', '+{1,2,3,5}',
		'-     4', '-(1 row)', '+(0 rows)', '-{5,1,2,3}', '+{1,2,3,5}' ],
	# A read locks all partitions before it looks, so it needs to leave none to the next read
	queue_reindex => [ ('-(1 row)', '+    20', '+(2 rows)', '-    20', '-(1 row)', '+(0 rows)') x 3 ]);

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

# make_database NAME: as pg_regress does, with queues as before
sub make_database
{
	my ($db) = @_;

	$node->safe_psql('postgres', "DROP DATABASE IF EXISTS $db WITH (FORCE)");
	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql('postgres', "ALTER DATABASE $db SET lc_messages TO 'C'");
	$node->safe_psql($db, "CREATE EXTENSION pgmq; $AS_BEFORE");
}

# is_as_expected NAME EXPECTED OUTPUT LINES: the output differs by these lines only
sub is_as_expected
{
	my ($name, $expected, $output, $lines) = @_;
	my @files = map { "${\ $node->basedir}/$name.$_" } qw(expected out);

	append_to_file($files[0], $expected);
	append_to_file($files[1], $output);
	my ($diff) = run_command([ 'diff', '-U0', @files ]);
	my @differences = grep { /^[-+]/ && !/^(---|\+\+\+) / } split /\n/, $diff;
	return is_deeply(\@differences, $lines // [], "on queues as before: $name");
}

make_database('contrib_regression');
# It does what it says
is($node->safe_psql('contrib_regression', q{
	SELECT pgmq.create('shape'), pgmq.create_fifo_index('shape'), pgmq.enable_notify_insert('shape');
	SELECT needs_vt_index, needs_group_index, needs_statement_trigger FROM pgmq.queues_to_upgrade;
	SELECT pgmq.drop_queue('shape')}), "||\nt|t|t\nt", 'queues are made as before');

foreach my $test (@tests)
{
	my $output;

	make_database('contrib_regression');
	IPC::Run::run([ 'psql', '-X', '-a', '-q', '-d', $node->connstr('contrib_regression'),
		'-v', 'HIDE_TABLEAM=on', '-v', 'HIDE_TOAST_COMPRESSION=on' ],
		'<', "$FindBin::RealBin/../sql/$test.sql", '>', \$output, '2>&1');
	is_as_expected($test, slurp_file("$FindBin::RealBin/../../expected/$test.out"), $output, $expected{$test});
}

# blocks OUTPUT WITHOUT: the parts of an output by permutations, without some of them
sub blocks
{
	my ($output, $without) = @_;
	my @blocks = grep { !/^starting permutation: (.*)/ || !$without->{$1} } split /^(?=starting permutation: )/m, $output;

	return join '', map { s/\n+\z/\n\n/r } @blocks;
}

my $tester = dirname($ENV{PG_REGRESS}) . '/../isolation/isolationtester';
my $made = 0;
foreach my $file (sort glob "$FindBin::RealBin/../specs/*.spec")
{
	my $test = basename($file, '.spec');
	my $spec = slurp_file($file);
	my ($reason, @permutations) = @{ $left_out{$test} // [] };
	my $output;

	note("$test: left out, $reason") if $reason;
	next if $reason && !@permutations;
	next if $spec =~ /CREATE EXTENSION pg_partman/ && !$has_partman;
	foreach (@permutations)
	{
		$spec =~ s/^permutation \Q$_\E\n//m or die "$test has no permutation $_";
	}
	make_database('isolation_regression') if !$made;
	IPC::Run::run([ $tester, $node->connstr('isolation_regression') ], '<', \$spec, '>', \$output, '2>&1');
	# Steps of permutations that are left out
	$output =~ s/^unused step name: .*\n//mg;
	my $expected = blocks(slurp_file("$FindBin::RealBin/../../expected/$test.out"), { map { $_ => 1 } @permutations });
	# What a test that failed has left behind is in the way of others
	$made = is_as_expected($test, $expected, blocks($output, {}), $expected_isolation{$test});
}

$node->stop;
done_testing();

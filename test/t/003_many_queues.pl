# A session that touches thousands of queues keeps the plans of a bounded number
# of them: its memory for plans stops growing.  PGMQ_MANY_QUEUES=10000 makes as many queues.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $QUEUES = $ENV{PGMQ_MANY_QUEUES} // 4_000;
my $HALF = $QUEUES / 2;
my $KEPT = 256;    # the default of pgmq.plan_cache_size

my $node = PostgreSQL::Test::Cluster->new('many');
$node->init;
$node->append_conf('postgresql.conf', qq(
log_statement = none
log_min_duration_statement = -1
autovacuum = off
# a hundred queues are made in one transaction, each with some ten relations
max_locks_per_transaction = 256
max_wal_size = 4GB
checkpoint_timeout = 1h
));
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');

# Two sessions make the queues, half each
my @makers = map {
	my $half = $_;
	my %maker = (out => '', err => '');
	$maker{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1', '-d', $node->connstr('postgres'), '-c', qq{
			DO \$\$ BEGIN
				FOR i IN 1 .. $QUEUES / 2 LOOP
					PERFORM pgmq.create('n' || 2 * i - $half);
					IF i % 100 = 0 THEN COMMIT; END IF;
				END LOOP;
			END \$\$} ],
		'<', \undef, '>', \$maker{out}, '2>', \$maker{err});
	\%maker;
} 0, 1;
foreach my $maker (@makers)
{
	$maker->{run}->finish;
	is($maker->{err}, '', 'half of the queues are made');
}
is($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.list_queues()'), $QUEUES, 'all queues are there');

my $session = $node->background_psql('postgres');

# through_queues(session, from, to, declarations, statements): run the statements
# for each queue i.  A transaction a hundred queues: it holds locks on all of them.
sub through_queues
{
	my ($by, $from, $to, $declarations, $statements) = @_;

	$by->query_safe(qq{
		DO \$\$
		DECLARE
			$declarations
		BEGIN
			FOR i IN $from .. $to LOOP
				$statements
				IF i % 100 = 0 THEN COMMIT; END IF;
			END LOOP;
		END \$\$});
}

# touch(from, to): one message through each of these queues
sub touch
{
	my ($from, $to) = @_;

	through_queues($session, $from, $to, 'id bigint; got bigint;', q{
				SELECT s INTO STRICT id FROM pgmq.send('n' || i, '{}') AS s;
				SELECT msg_id INTO STRICT got FROM pgmq.read('n' || i, 30, 1);
				IF got <> id OR NOT pgmq.delete('n' || i, id) THEN
					RAISE 'queue % does not work', i;
				END IF;});
}

# What a session holds, in contexts and bytes: for plans; in what the server keeps
# of every relation that a session has ever used; and else.
sub memory
{
	my ($of) = @_;
	my %memory;

	foreach my $row (split /\n/, $of->query_safe(q{
		SELECT CASE WHEN name LIKE 'CachedPlan%' OR name IN ('SPI Plan', 'pgmq plans') THEN 'plans'
		            WHEN name IN ('CacheMemoryContext', 'index info', 'Relcache by OID', 'smgr relation table', 'MdSmgr',
		                          'Sequence values', 'PgStat Pending', 'PgStat Shared Ref', 'PgStat Shared Ref Hash',
		                          'LOCALLOCK hash')
		            THEN 'relations'
		            -- from 18 on this very query keeps the path of each context
		            WHEN name IN ('ExprContext', 'tuplestore tuples', 'pg_get_backend_memory_contexts') THEN 'the look itself'
		            ELSE 'else' END,
		       count(*), sum(total_bytes)
		  FROM pg_backend_memory_contexts GROUP BY 1}))
	{
		my ($what, $contexts, $bytes) = split /\|/, $row;
		$memory{$what} = { contexts => $contexts, bytes => $bytes };
	}
	return \%memory;
}

sub report
{
	my ($what, $memory) = @_;

	note(sprintf('%s: plans %d kB in %d contexts, relations %d kB, else %d kB', $what,
			$memory->{plans}{bytes} / 1024, $memory->{plans}{contexts},
			$memory->{relations}{bytes} / 1024, $memory->{else}{bytes} / 1024));
}

my %at;
my $before = 0;
foreach my $queues (100, 1_000, $HALF, $QUEUES)
{
	touch($before + 1, $queues);
	$before = $queues;
	$at{$queues} = memory($session);
	report("$queues queues", $at{$queues});
}

# Full after 256 queues, the cache takes what it takes, plus or minus what
# allocation in blocks makes of different names.
cmp_ok($at{1_000}{plans}{contexts}, '>', 2 * $at{100}{plans}{contexts}, 'the cache fills at first');
foreach my $queues ($HALF, $QUEUES)
{
	cmp_ok($at{$queues}{plans}{contexts}, '<=', $at{1_000}{plans}{contexts} + 20,
		"$queues queues: no more plans than after 1,000");
	cmp_ok($at{$queues}{plans}{bytes}, '<=', 1.02 * $at{1_000}{plans}{bytes},
		"$queues queues: no more memory in plans than after 1,000");
	# The server's own bookkeeping may take a few bytes a queue (18 does); anything
	# that we kept of a queue would take its name's 64 at least
	cmp_ok($at{$queues}{else}{bytes}, '<=', 1.05 * $at{1_000}{else}{bytes} + 32 * ($queues - 1_000),
		"$queues queues: no more memory elsewhere than after 1,000");
}
cmp_ok($at{$QUEUES}{plans}{bytes} / $KEPT, '<', 200 * 1024, 'the plans of a queue for three verbs take less than 200 kB');

# What the server keeps of relations is not more than for anybody who uses them
my $plain = $node->background_psql('postgres');
through_queues($plain, 1, 1_000, 'q text;', q{
				q := 'pgmq.q_n' || i;
				EXECUTE 'INSERT INTO ' || q || ' (vt, message) VALUES (clock_timestamp(), ''{}'')';
				EXECUTE 'UPDATE ' || q || ' SET read_ct = 1, vt = clock_timestamp() WHERE msg_id =
					(SELECT msg_id FROM ' || q || ' ORDER BY msg_id LIMIT 1 FOR UPDATE SKIP LOCKED)';
				EXECUTE 'DELETE FROM ' || q || ' WHERE read_ct = 1';});
my $plain_memory = memory($plain);
report('plain SQL, 1000 queues', $plain_memory);
cmp_ok($at{1_000}{relations}{bytes}, '<=', 1.1 * $plain_memory->{relations}{bytes},
	'the server keeps no more of a queue than after plain SQL');
$plain->quit;

# Evicted plans are made again, and a queue in steady use keeps its own: the one
# that was used longest ago goes.
touch(1, 100);
cmp_ok(memory($session)->{plans}{bytes}, '<=', 1.02 * $at{1_000}{plans}{bytes}, 'queues that come back take the place of others');

# A smaller bound is kept from the next new queue on
$session->query_safe('SET pgmq.plan_cache_size = 10');
touch(101, 200);
my $small = memory($session);
report('10 kept', $small);
cmp_ok($small->{plans}{contexts}, '<', $at{100}{plans}{contexts} / 5, 'a smaller pgmq.plan_cache_size lets plans go');
cmp_ok($small->{plans}{bytes}, '<', $at{1_000}{plans}{bytes} / 10, 'and their memory');
$session->query_safe('SET pgmq.plan_cache_size = 1');
touch(1, 300);
cmp_ok(memory($session)->{plans}{contexts}, '<', $small->{plans}{contexts}, 'one queue at a time works too');
$session->quit;

$node->stop('immediate');
done_testing();

# priority: no reader gets a message while one of a higher level, which it can see and lock, is left.  Sixteen readers
# pop, read and roll back, while senders commit late or not at all.  Their history is checked.  With priority_max_wait no
# reader gets a message that has not waited that long while one that has is left.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use IPC::Run ();
use lib $FindBin::RealBin;
use PgmqSql;

my ($READERS, $SENDERS, $SECONDS) = (16, 4, 8);
my $MAX_WAIT = 30_000;		# microseconds
my $node = PostgreSQL::Test::Cluster->new('priority');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
synchronous_commit = off
max_connections = 60
pgmq.rescan_interval = '10min'
shared_preload_libraries = 'pgmq'
});
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', q{CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman});

#################################################################### the history

# A message became visible after "earliest", and was there for all to see from "since" on; a delayed one is due a second later.  A call lasted from "began" to "returned", its transaction to
# "ended"; "kept" says that what it took was gone or leased then, else it was available again.  (No reader leases for no time:
# a reader that has an older snapshot may lock such a message, which it then does not take.)
my $NOW = q{(extract(epoch FROM clock_timestamp()) * 1000000)::bigint};
my $HISTORY = q{
	DROP TABLE IF EXISTS sent, took;
	CREATE UNLOGGED TABLE sent (msg_id bigint, level int, late boolean, earliest bigint, since bigint);
	CREATE UNLOGGED TABLE took (kind text, began bigint, returned bigint, ended bigint, kept boolean, msg_ids bigint[])};

# Most are of low levels, so that there is a choice; some commit later than others that were sent after them
append_to_file($node->basedir . '/send.sql', qq{
\\set level random(0, 9)
\\set late random(1, 3)
\\set fails random(1, 10)
\\set delay random(0, 1)
SELECT $NOW + :delay * 1000000 AS earliest \\gset
BEGIN;
SELECT string_agg(msg_id::text, ',') AS ids FROM pgmq.send_batch('q', array_fill('1'::jsonb, '{8}'),
	array_fill('{"x-pgmq-priority": :level}'::jsonb, '{8}'), :delay) AS msg_id \\gset
\\if :late = 1
\\sleep 20 ms
\\endif
\\if :fails = 1
ROLLBACK;
\\else
COMMIT;
INSERT INTO sent SELECT unnest('{:ids}'::bigint[]), :level, :late = 1, :earliest, $NOW + :delay * 1000000;
\\endif
\\sleep 5 ms
});

# read_script(kind, call): a reader, which rolls back a third of its calls
sub read_script
{
	my ($kind, $call) = @_;

	append_to_file($node->basedir . "/$kind.sql", qq{
\\set fails random(1, 3)
SELECT $NOW AS began \\gset
BEGIN;
SELECT coalesce(string_agg(msg_id::text, ','), '') AS ids, $NOW AS returned FROM $call \\gset
\\if :fails = 1
\\sleep 3 ms
ROLLBACK;
\\else
COMMIT;
\\endif
INSERT INTO took SELECT '$kind', :began, :returned, $NOW, :fails <> 1, '{:ids}' WHERE '{:ids}' <> '{}';
});
	return;
}

read_script('pop', q{pgmq.pop('q', 1)});
read_script('read', q{pgmq.read('q', 600, 2)});
read_script('poll', q{pgmq.read_with_poll('q', 600, 1, 1)});
read_script('next', q{pgmq.next('q', 600, 3, ARRAY[]::bigint[], ARRAY[]::integer[])});

# A call has taken something of a low level, while something of a higher one had been there since before it began,
# was not yet taken, and was in no other call's hands until this one had returned
my $TAKEN = q{
	CREATE TEMP TABLE taken AS SELECT t.*, t.ctid AS call, s.msg_id, s.level, s.earliest, s.since
		FROM took AS t, unnest(t.msg_ids) AS id JOIN sent AS s ON s.msg_id = id;
	CREATE INDEX ON taken (msg_id);
	ANALYZE taken};
# free(which): with the lowest level of those of which that is true
sub free
{
	my ($which) = @_;

	return qq{
	FROM (SELECT call, began, returned, min(level) AS level FROM taken WHERE $which GROUP BY 1, 2, 3) AS r
	JOIN sent AS m ON m.since < r.began
		AND NOT EXISTS (SELECT FROM taken AS c WHERE c.msg_id = m.msg_id AND c.began < r.returned AND (c.kept OR c.ended > r.began))};
}

sub run_history
{
	my ($create, $policy) = @_;
	my @clients;

	$node->safe_psql('postgres', q{SELECT pgmq.drop_queue('q')}) if $node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.meta});
	$node->safe_psql('postgres', "$HISTORY; SELECT pgmq.$create; SELECT pgmq.set_policy('q', $policy)");
	foreach my $run ([ 'send', $SENDERS ], map { [ $_, $READERS / 4 ] } qw(pop read poll next))
	{
		my ($script, $clients) = @$run;
		my $out = '';

		push @clients, [ IPC::Run::start([ 'pgbench', '-n', '-c', $clients, '-T', $SECONDS, '-f', $node->basedir . "/$script.sql",
			$node->connstr('postgres') ], '<', \undef, '>', \$out, '2>', \$out), \$out ];
	}
	foreach my $client (@clients)
	{
		ok($client->[0]->finish, "$create: pgbench ran") or diag ${ $client->[1] };
	}
	return;
}

foreach my $create (q{create('q')}, q{create_unlogged('q')}, q{create_partitioned('q', '500')})
{
	my $FREE = free('true');

	run_history($create, 'priority => true');
	my @found = split /\|/, $node->safe_psql('postgres', qq{
		$TAKEN;
		SELECT count(*) $FREE AND m.level > r.level;
		SELECT count(*), count(DISTINCT r.call) $FREE AND m.level < r.level;
		SELECT count(*) FILTER (WHERE late) FROM sent;
		SELECT count(*) FILTER (WHERE NOT kept) FROM took}) =~ s/\n/|/gr;
	my ($wrong, $choices, $choosers, $late, $again) = @found;

	is($wrong, 0, "$create: nothing was taken while something of a higher level was free");
	note "$create: $choosers calls had a choice, $choices in all; $late messages were late; $again calls gave back";
	cmp_ok($choosers, '>', 100, "$create: enough calls had a choice");
	cmp_ok($late, '>', 50, "$create: enough messages were late");
	cmp_ok($again, '>', 50, "$create: enough calls gave back what they had");
}

my $create = q{create_partitioned('q', '500')};
my ($early, $wrong, $new, $old) = (0) x 4;
my $max_wait = $MAX_WAIT;
# On a slow machine a round has few calls of each kind, and all messages have waited too long
for (my $round = 0; $round < 10 && ($new <= 100 || $old <= 100); $round++)
{
	my ($NEW, $OLD) = map { free($_) } "earliest + $max_wait > returned", "since + $max_wait < began";

	run_history($create, "priority => true, priority_max_wait => '$max_wait us'");
	my @found = split /\|/, $node->safe_psql('postgres', qq{
		$TAKEN;
		SELECT count(*) $NEW AND m.since + $max_wait < r.began;
		SELECT count(*) $NEW AND m.level > r.level;
		SELECT count(DISTINCT r.call) $NEW AND m.level < r.level AND m.earliest + $max_wait > r.returned;
		SELECT count(DISTINCT r.call) $OLD AND m.level > r.level AND m.earliest + $max_wait > r.returned}) =~ s/\n/|/gr;
	$early += $found[0];
	$wrong += $found[1];
	$new += $found[2];
	$old += $found[3];
	$max_wait *= 2 if $found[2] < 20 && $found[3] > $found[2];
}

is($early, 0, "$create: nothing was taken while something that had waited too long was free");
is($wrong, 0, "$create: nothing else was taken while something of a higher level was free");
note "$create: $new calls had a choice of levels; $old took something that had waited, not something of a higher level";
cmp_ok($new, '>', 100, "$create: enough calls had a choice of levels");
cmp_ok($old, '>', 100, "$create: enough calls took what had waited");

done_testing();

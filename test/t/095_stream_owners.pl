# A hostile owner of a stream: whatever code it puts on its tables, it gets the rights of no role that looks at all streams,
# and on the positions none but its own.  And what it breaks or locks keeps no role from seeing the other streams.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql;

my $node = PostgreSQL::Test::Cluster->new('owners');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off\nmax_prepared_transactions = 5");
$node->start;
sql_on($node, 'postgres');
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE ROLE maker; CREATE ROLE other_maker; CREATE ROLE publisher; CREATE ROLE consumer; CREATE ROLE monitor;
	GRANT USAGE ON SCHEMA pgmq TO PUBLIC;
	GRANT CREATE ON SCHEMA pgmq TO maker, other_maker;
	GRANT SELECT, INSERT ON pgmq.meta TO maker, other_maker;
	GRANT SELECT ON pgmq.stream, pgmq.subscription TO monitor;
	CREATE SCHEMA evil AUTHORIZATION maker; GRANT USAGE ON SCHEMA evil TO PUBLIC;
	CREATE TABLE public.witness (ran_as text, path text, what text); GRANT ALL ON public.witness TO PUBLIC;
	SET ROLE maker;
	CREATE FUNCTION evil.spring(what text) RETURNS boolean LANGUAGE plpgsql AS $$
	BEGIN
		INSERT INTO public.witness VALUES (current_user, pg_catalog.current_setting('search_path'), what);
		RETURN true;
	END $$;
	CREATE FUNCTION evil.expression(anyelement) RETURNS anyelement LANGUAGE plpgsql IMMUTABLE AS $$
		BEGIN PERFORM evil.spring('expression'); RETURN $1; END $$;
	CREATE FUNCTION evil.trg() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		PERFORM evil.spring(TG_NAME);
		IF TG_OP = 'DELETE' THEN RETURN OLD; END IF;
		RETURN NEW;
	END $$;
	SELECT pgmq.create_stream('mine', 2);
	SELECT pgmq.publish('mine', '1', 'a'), pgmq.publish('mine', '2', 'b'), pgmq.publish('mine', '3', 'c');
	GRANT INSERT ON pgmq.s_mine TO publisher; GRANT SELECT ON pgmq.s_mine TO consumer;
	SET ROLE consumer; SELECT pgmq.subscribe('mine', 'sub', 'earliest');
	SET ROLE other_maker; SELECT pgmq.create_stream('fine'); SELECT pgmq.subscribe('fine', 'sub')});

# ---- code on the positions, and code on the log and its parts
my %on_positions = (
	'trigger' => 'CREATE TRIGGER evil BEFORE INSERT OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION evil.trg()',
	'statement trigger' => 'CREATE TRIGGER evil AFTER INSERT OR DELETE ON %s FOR EACH STATEMENT EXECUTE FUNCTION evil.trg()',
	'always trigger' => 'CREATE TRIGGER evil BEFORE INSERT ON %1$s FOR EACH ROW EXECUTE FUNCTION evil.trg(); ALTER TABLE %1$s ENABLE ALWAYS TRIGGER evil',
	'check' => 'ALTER TABLE %s ADD CONSTRAINT evil CHECK (evil.expression(passed_id) IS NOT NULL) NOT VALID',
	'generated' => 'ALTER TABLE %s ADD COLUMN evil bigint GENERATED ALWAYS AS (evil.expression(passed_id)) STORED',
	'default' => 'ALTER TABLE %s ADD COLUMN evil boolean DEFAULT evil.spring(\'default\')',
	'index' => 'CREATE INDEX evil ON %s (evil.expression(passed_id))',
	'predicate' => 'CREATE INDEX evil ON %s (passed_id) WHERE evil.expression(passed_id) > 0',
	'constant' => 'CREATE INDEX evil ON %s ((passed_id * evil.expression(1::bigint)))',
	'forced policy' => 'ALTER TABLE %1$s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY; CREATE POLICY evil ON %1$s USING (evil.spring(\'policy\'))',
	'rule' => 'CREATE RULE evil AS ON INSERT TO %s DO ALSO SELECT evil.spring(\'rule\')',
	'statistics' => 'CREATE STATISTICS pgmq.evil ON (evil.expression(passed_id)), shard FROM %s');
my %on_log = map { $_ => $on_positions{$_} =~ s/passed_id/event_id/gr } 'trigger', 'check', 'default', 'index', 'predicate', 'constant', 'forced policy', 'statistics';

# What each role calls: with search_path and temporary objects of its own
my @positions_calls = (
	[ consumer => q{SELECT count(*) FROM pgmq.receive('mine', 'sub', 60, 1)} ],
	[ consumer => q{SELECT pgmq.advance('mine', 'sub', shard, event_id, lease) FROM pgmq.receive('mine', 'sub', 60, 1)} ],
	[ consumer => q{SELECT pgmq.extend_lease('mine', 'sub', shard, lease, 5), pgmq.return_lease('mine', 'sub', shard, lease) FROM pgmq.receive('mine', 'sub', 60, 1)} ],
	[ consumer => q{SELECT pgmq.seek('mine', 'sub', 'earliest', force => true)} ],
	[ consumer => q{SELECT pgmq.subscribe('mine', 'more')} ],
	[ consumer => q{SELECT pgmq.unsubscribe('mine', 'more')} ],
	[ postgres => q{SELECT count(*) FROM pgmq.receive('mine', 'sub', 0, 1)} ],
	[ postgres => q{SELECT pgmq.seek('mine', 'sub', 'earliest', force => true)} ]);
my @looks = map { my $role = $_; map { [ $role => $_ ] } 'SELECT count(*) FROM pgmq.stream_lag()', "SELECT count(*) FROM pgmq.stream_lag('mine')",
	'SELECT count(*) FROM pgmq.list_streams()', 'SELECT count(*) FROM pgmq.list_subscriptions()' } 'monitor', 'postgres';

sub call_all
{
	my ($what, @calls) = @_;

	foreach my $call (@calls)
	{
		my (undef, $err) = sql("SET search_path = public, pgmq; CREATE TEMP TABLE witness (x int); $call->[1]", role => $call->[0]);
		# A policy hides all; nothing fails by an internal error
		ok($err !~ /XX000|internal|server closed/, "$what: $call->[0]: $call->[1]") or diag($err);
	}
}

sub ran_as { return $node->safe_psql('postgres', q{SELECT coalesce(string_agg(DISTINCT ran_as, ' ' ORDER BY ran_as), '') FROM public.witness}); }

sub with_code
{
	my ($table, $ddl, $then) = @_;

	$node->safe_psql('postgres', 'SET ROLE maker; ' . sprintf($ddl, $table));
	$node->safe_psql('postgres', 'TRUNCATE public.witness');
	$then->();
	$node->safe_psql('postgres', qq{SET ROLE maker;
		DROP TRIGGER IF EXISTS evil ON $table; DROP RULE IF EXISTS evil ON $table; DROP POLICY IF EXISTS evil ON $table;
		ALTER TABLE $table DISABLE ROW LEVEL SECURITY, NO FORCE ROW LEVEL SECURITY;
		ALTER TABLE $table DROP CONSTRAINT IF EXISTS evil, DROP COLUMN IF EXISTS evil; DROP INDEX IF EXISTS pgmq.evil; DROP STATISTICS IF EXISTS pgmq.evil});
}

foreach my $kind (sort keys %on_positions)
{
	with_code('pgmq.p_mine', $on_positions{$kind}, sub {
		call_all("$kind on the positions", @looks);
		is(ran_as(), '', "$kind on the positions: no code runs in what only looks");
		call_all("$kind on the positions", @positions_calls);
		is(ran_as(), $kind eq 'statistics' ? '' : 'maker', "$kind on the positions: code runs as the owner");
		is($node->safe_psql('postgres', q{SELECT DISTINCT path FROM public.witness}) =~ s/^pg_catalog, pg_temp$//r, '', "$kind on the positions: by a fixed path"); });
}
foreach my $kind (sort keys %on_log)
{
	with_code('pgmq.s_mine', $on_log{$kind}, sub {
		call_all("$kind on the log", @looks);
		is(ran_as(), '', "$kind on the log: no code runs in what only looks");
		# As on any other table
		call_all("$kind on the log", [ publisher => q{SELECT pgmq.publish('mine', '1')} ], [ consumer => q{SELECT pgmq.receive('mine', 'sub', 0, 1)} ]);
		ok(ran_as() =~ /^(consumer ?)?(publisher)?$/, "$kind on the log: code runs as the caller") or diag(ran_as()); });
}

# A deferred trigger would run with the rights of the caller, when it commits
$node->safe_psql('postgres', q{TRUNCATE public.witness; SET ROLE maker;
	CREATE CONSTRAINT TRIGGER evil AFTER INSERT ON pgmq.p_mine DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION evil.trg()});
said(q{SELECT pgmq.seek('mine', 'sub', 'earliest', force => true)}, qr/ERROR:.*within security-restricted operation/, 'a deferred trigger is refused', role => 'consumer');
is(ran_as(), '', 'and does not run');
# A rule that does something else
$node->safe_psql('postgres', q{SET ROLE maker; DROP TRIGGER evil ON pgmq.p_mine; CREATE RULE evil AS ON INSERT TO pgmq.p_mine DO INSTEAD NOTHING});
said(q{SELECT pgmq.seek('mine', 'sub', 'earliest', force => true)}, qr/ERROR:  could not write the position/, 'a rule in place of the INSERT is noticed', role => 'consumer');
$node->safe_psql('postgres', q{SET ROLE maker; DROP RULE evil ON pgmq.p_mine});

# ---- states that our own calls would never write
$node->safe_psql('postgres', q{SET ROLE maker; SELECT pgmq.seek('mine', 'sub', 'earliest', force => true)});
foreach my $change (q{attempts = '{9223372036854775807, 9223372036854775807}'}, q{attempts = '{10, -9223372036854775808}'}, q{attempts = '{{1, 2}, {3, NULL}}'},
	q{attempts = '{}'}, q{attempts = array_fill(5::bigint, '{100001}')}, 'passed_id = -9223372036854775808', 'passed_id = 9223372036854775807',
	"lease = -1, leased_until = '-infinity', leased_id = -9223372036854775808", "lease = 1, leased_until = 'infinity', leased_id = 9223372036854775807",
	'lease = 1, leased_id = NULL', 'state = 9223372036854775807', 'state = -9223372036854775808', "subscription = 'other'", 'shard = shard + 77')
{
	my ($out, $err) = sql(qq{BEGIN; SET LOCAL ROLE maker; UPDATE pgmq.p_mine SET $change WHERE subscription = 'sub'; SET LOCAL ROLE consumer;
		SAVEPOINT s; SELECT attempt > 0 FROM pgmq.receive('mine', 'sub', 10, 1); ROLLBACK TO s; SELECT pgmq.advance('mine', 'sub', 0, 1, 1);
		ROLLBACK TO s; SET LOCAL ROLE monitor; SELECT behind >= 0 AND seconds_behind >= 0 FROM pgmq.stream_lag(); ROLLBACK});
	ok("$out $err" !~ /XX000|server closed|^f$/, "a state with $change") or diag("$out $err");
}

# ---- one bad stream does not hide the others
my $watched = q{SELECT DISTINCT stream FROM pgmq.stream_lag()};
sql_is($watched, "fine\nmine", 'all streams', role => 'monitor');
foreach my $damage ('ALTER TABLE pgmq.s_mine DROP CONSTRAINT s_mine_pkey', 'ALTER TABLE pgmq.p_mine DROP CONSTRAINT p_mine_pkey',
	'ALTER TABLE pgmq.p_mine RENAME COLUMN lease TO lent', 'ALTER TABLE pgmq.s_mine RENAME COLUMN shard TO shared', 'ALTER TABLE pgmq.s_mine ALTER published_at TYPE timestamp',
	'DROP TABLE pgmq.p_mine', 'ALTER TABLE pgmq.s_mine ALTER event_id DROP IDENTITY', 'ALTER TABLE pgmq.s_mine ALTER event_id RESTART WITH 1',
	'ALTER TABLE pgmq.s_mine RENAME TO s_old; CREATE VIEW pgmq.s_mine AS SELECT evil.expression(1::bigint) AS event_id, 0 AS shard, now() AS published_at',
	'ALTER TABLE pgmq.p_mine RENAME TO p_old; CREATE VIEW pgmq.p_mine AS SELECT * FROM pgmq.p_old WHERE evil.spring(subscription)',
	'ALTER TABLE pgmq.s_mine RENAME TO s_old; CREATE TABLE pgmq.s_mine (event_id bigint)',
	'CREATE TABLE pgmq.sub PARTITION OF pgmq.s_mine FOR VALUES FROM (-5) TO (-1) PARTITION BY RANGE (event_id)')
{
	# The same session: what it has kept of the stream is of no use any more
	my ($out, $err) = sql(qq{SELECT count(*) FROM pgmq.stream_lag(); BEGIN; SET LOCAL ROLE maker; $damage; SET LOCAL ROLE monitor; $watched; ROLLBACK});
	is($out =~ s/^\d+\n//r =~ s/^mine$//mr =~ s/^\n|\n$//gr, 'fine', "other streams are shown after: $damage") or diag($err);
	ok($out =~ /mine/ || $err =~ /WARNING:  stream "mine" is skipped/, 'and the bad one is named, or shown') or diag($err);
}
is(ran_as(), '', 'no code ran');
my $holder = $node->background_psql('postgres');
$holder->query_safe('SET ROLE maker; BEGIN; LOCK TABLE pgmq.s_mine, pgmq.p_mine IN ACCESS EXCLUSIVE MODE');
sql_is($watched, 'fine', 'a stream that its owner has locked is skipped', role => 'monitor');
said($watched, qr/WARNING:  stream "mine" is skipped: canceling statement due to lock timeout/, 'with a warning', role => 'monitor');
said(q{SET lock_timeout = '10ms'; SELECT pgmq.stream_lag('mine')}, qr/ERROR:  canceling statement due to lock timeout/, 'one that was named is not', role => 'monitor');
said(q{SET statement_timeout = '300ms'; SELECT pgmq.stream_lag()}, qr/ERROR:  canceling statement due to statement timeout/, 'a cancel ends the call', role => 'monitor');
$holder->query_safe('COMMIT');
$holder->quit;

# ---- names that another role has taken before
foreach my $taken ('CREATE TABLE pgmq.s_late (event_id bigint)', 'CREATE TABLE pgmq.p_late (subscription text)', 'CREATE TABLE pgmq.s_late_default (a int)',
	'CREATE TABLE pgmq.s_late_p1 (a int)', 'CREATE VIEW pgmq.p_late AS SELECT evil.spring(1::text)', 'CREATE TYPE pgmq.s_late AS (x int)')
{
	said(qq{BEGIN; SET LOCAL ROLE maker; $taken; RESET ROLE; SELECT pgmq.create_stream('late')}, qr/ERROR:  (relation|type) ".*" already exists/, "nothing is adopted: $taken");
}
# The sequence of the identity takes another name
sql_is(q{BEGIN; SET LOCAL ROLE maker; CREATE SEQUENCE pgmq.s_late_event_id_seq; SET LOCAL ROLE other_maker; SELECT pgmq.create_stream('late');
	SELECT pgmq.publish('late', '1'); SET LOCAL ROLE maker; SELECT last_value, is_called FROM pgmq.s_late_event_id_seq}, "\n1\n1|f", 'a sequence of another role is not used');
said(q{SELECT pgmq.create('fine')}, qr/ERROR:  a stream "fine" exists/, 'the name of a stream is taken for queues', role => 'maker');
said(q{SELECT pgmq.drop_stream('fine')}, qr/ERROR:  must be owner of/, 'another maker cannot drop it', role => 'maker');

# A table of another role in place of the positions: the code there is that role's
$node->safe_psql('postgres', q{TRUNCATE public.witness; GRANT maker TO other_maker;
	SET ROLE other_maker; DROP TABLE pgmq.p_fine; SET ROLE maker;
	CREATE TABLE pgmq.p_fine (LIKE pgmq.p_mine INCLUDING ALL); INSERT INTO pgmq.p_fine VALUES ('sub', 0, 1, 0);
	CREATE TRIGGER evil BEFORE INSERT ON pgmq.p_fine FOR EACH ROW EXECUTE FUNCTION evil.trg()});
sql(q{SELECT pgmq.seek('fine', 'sub', 'earliest')}, role => 'other_maker');
sql(q{SELECT pgmq.seek('fine', 'sub', 'earliest')});
is(ran_as(), 'maker', 'positions of another role: its code runs with its rights');
$node->stop;
done_testing();

# The chain of updates from 2.0.0, the first version: the server runs the script of 2.0.0 and one script after the other,
# for CREATE EXTENSION as well.  So a database comes to the newest version in one of these ways:
#  - it has the newest version from the beginning
#  - it has had 2.0.0 and each version since, or goes to the newest in one step
#  - it has had a version of the PL/pgSQL extension
# Then its catalogs are the same, nothing is lost, and the calls give the same.  The chain ends with a version that only
# this test has, so that there is always one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;
use PgmqVerbs;

chomp(my $sharedir = `pg_config --sharedir`);
my $partman = -e "$sharedir/extension/pg_partman.control";
my $step = "$sharedir/extension/pgmq--$NEW_VERSION--next.sql";
my $writes = -w "$sharedir/extension";

plan skip_all => 'the directory of extensions cannot be written' unless $writes || $NEW_VERSION ne '2.0.0';
append_to_file($step, q{
CREATE FUNCTION pgmq._next() RETURNS integer LANGUAGE sql AS 'SELECT 1';
COMMENT ON FUNCTION pgmq._next() IS 'Of the last step';
}) if $writes;
END { unlink $step if $writes; }

my $node = PostgreSQL::Test::Cluster->new('chain');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;

my $newest = $writes ? 'next' : $NEW_VERSION;
my $path = $node->safe_psql('postgres', "SELECT path FROM pg_extension_update_paths('pgmq') WHERE source = '2.0.0' AND target = '$newest'");
my (undef, @later) = split /--/, $path;
note($path);
is($later[-1], $newest, 'a chain leads from 2.0.0 to the newest version');

sub database
{
	my ($db, $sql) = @_;

	$node->safe_psql('postgres', "CREATE DATABASE $db");
	$node->safe_psql($db, 'CREATE EXTENSION pg_partman') if $partman;
	$node->safe_psql($db, $sql);
}

my $VIEWS = q{
	CREATE VIEW public.messages AS SELECT msg_id, vt, message FROM pgmq.read('v', 0, 1);
	CREATE VIEW public.lengths AS SELECT queue_name, queue_length FROM pgmq.metrics_all()};
my $SETUP = PgmqVerbs::setup($partman) . '; RESET client_min_messages';
# Without the tables that 2.1.0 and 2.2.0 bring
my $ROWS = q{
	SELECT format('SELECT %L, jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t)) FROM pgmq.%I AS t', relname, relname)
	  FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') AND NOT relispartition AND relname NOT IN ('policy', 'stream', 'subscription', 'topic_stream_bindings') ORDER BY relname
	\gexec
	SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2;
	SELECT relname, relacl FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relacl::text ~ 'app' ORDER BY 1;
	SELECT oid::regprocedure, proacl FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace AND proacl::text ~ 'app'};
my $RIGHTS = q{
	GRANT SELECT ON pgmq.meta TO app; REVOKE EXECUTE ON FUNCTION pgmq.purge_queue(text) FROM PUBLIC;
	GRANT EXECUTE ON FUNCTION pgmq.purge_queue(text) TO app};
$node->safe_psql('postgres', 'CREATE ROLE app');

# What the calls give in the newest version
database('fresh', "CREATE EXTENSION pgmq VERSION '$newest'; $RIGHTS");
my $fresh = catalogs($node, 'fresh');
$node->safe_psql('fresh', $SETUP);
my @calls = (PgmqVerbs::verbs($partman), PgmqVerbs::calls());

# answers(session, calls): what each of them gives
sub answers
{
	my ($in, @these) = @_;
	my $answers = $in->query_safe("SET client_min_messages = error;\n" . join(";\n\\echo ---\n", @these) . ';');
	my @answers = map { s/^\n|\n$//gr } split /^---$/m, $answers, -1;

	die scalar(@answers) . " answers to " . scalar(@these) . " calls: $answers" if @answers != @these;
	return @answers;
}

my $session = $node->background_psql('fresh');
my @wanted = answers($session, @calls);
$session->quit;

# make_calls(database, session, first, last): those that give something else.  A function of a later version is not there yet.
sub make_calls
{
	my ($db, $in, $first, $last) = @_;
	my %functions = map { $_ => 1 } split /\n/, $node->safe_psql($db, "SELECT proname FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace");
	my @these = grep { $calls[$_] =~ /pgmq\.(\w+)\(/ && $functions{$1} } $first .. $last;
	my @answers = answers($in, @calls[@these]);

	return join "\n", map { "$calls[$these[$_]]: $answers[$_]" } grep { $answers[$_] ne $wanted[$these[$_]] } 0 .. $#these;
}

# The new library with the first script, until somebody updates the extension
database('before', "CREATE EXTENSION pgmq VERSION '2.0.0'; $SETUP");
$session = $node->background_psql('before');
is(make_calls('before', $session, 0, $#calls), '', 'the calls with the script of 2.0.0');
$session->quit;

# From 2.0.0, in a session that is connected all the time
foreach my $steps ([@later], [$newest])
{
	my $how = @$steps > 1 ? 'step by step' : 'in one step';
	my $db = @$steps > 1 ? 'steps' : 'once';

	database($db, "CREATE EXTENSION pgmq VERSION '2.0.0'; $SETUP; $VIEWS; $RIGHTS");
	$session = $node->background_psql($db);
	# Up to the first one that 2.0.0 does not have, on which those after it may depend
	my %old = map { $_ => 1 } split /\n/, $node->safe_psql($db, "SELECT proname FROM pg_proc WHERE pronamespace = 'pgmq'::regnamespace");
	my ($half) = grep { $calls[$_] =~ /pgmq\.(\w+)\(/ && !$old{$1} } 0 .. $#calls;
	cmp_ok($half, '>', 40, "$how: calls of both versions");
	is(make_calls($db, $session, 0, $half - 1), '', "$how: calls before");
	my $before = $node->safe_psql($db, $ROWS);
	like($before, qr/app=X/, "$how: there are rights");
	$node->safe_psql($db, "ALTER EXTENSION pgmq UPDATE TO '$_'") foreach @$steps;
	is($node->safe_psql($db, $ROWS), $before, "$how: nothing is lost");
	is(make_calls($db, $session, $half, $#calls), '', "$how: calls after, in the same session");
	is($node->safe_psql($db, 'SELECT count(*) > 3 FROM public.lengths; SELECT count(*) FROM public.messages'), "t\n1", "$how: views");
	$session->quit;
	$node->safe_psql($db, 'DROP VIEW public.lengths, public.messages');
	is(differences(catalogs($node, $db)), '', "$how: the catalogs are those of a fresh installation");
	last if @later == 1;
}

# Lines that are in one of both only
sub differences
{
	my ($catalogs) = @_;
	my %lines = map { $_ => 1 } split /\n/, $fresh;
	my @others = grep { !delete $lines{$_} } split /\n/, $catalogs;

	return join "\n", (map { "-$_" } sort keys %lines), (map { "+$_" } @others);
}

# From the PL/pgSQL extension: all the way, and with a stop at 2.0.0
foreach my $stop (0, 1)
{
	my ($db, $how) = $stop ? ('stopped', 'with a stop at 2.0.0') : ('taken', 'all the way');

	database($db, old_installation('1.13.1') . old_queues('1.13.1') . "$RIGHTS; CREATE EXTENSION pgmq VERSION 'unpackaged'");
	$node->safe_psql($db, old_extension('1.13.1'));
	$node->safe_psql($db, "ALTER EXTENSION pgmq UPDATE TO '2.0.0'; CALL pgmq.upgrade_queues()") if $stop;
	my $before = $node->safe_psql($db, $ROWS);
	$node->safe_psql($db, "ALTER EXTENSION pgmq UPDATE TO '$newest'");
	is($node->safe_psql($db, $ROWS), $before, "from 1.13.1, $how: nothing is lost") if $stop;
	$node->safe_psql($db, 'CALL pgmq.upgrade_queues()');
	is($node->safe_psql($db, 'SELECT * FROM pgmq.queues_to_upgrade'), '', "from 1.13.1, $how: all queues are upgraded");
	# The generated column is not written anew; see 060_takeover.pl
	is(join("\n", grep { !/^[-+]column.*compiled_regex/ } split /\n/, differences(catalogs($node, $db))), '',
		"from 1.13.1, $how: the catalogs are those of a fresh installation");
	is($node->safe_psql($db, 'SELECT count(*) FROM pgmq.list_queues() AS l, pgmq.drop_queue(l.queue_name)') > 4, 1, "from 1.13.1, $how: queues");
	$node->safe_psql($db, $SETUP);
	$session = $node->background_psql($db);
	is(make_calls($db, $session, 0, $#calls), '', "from 1.13.1, $how: calls");
	$session->quit;
}

$node->stop;
done_testing();

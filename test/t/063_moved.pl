# Messages go to another database and back, by what docs/migrating.md says: from tables of versions of the PL/pgSQL
# extension to ours, and between ours and what was really released, where that can be fetched.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my @blocks = slurp_file("$FindBin::RealBin/../../docs/migrating.md") =~ /^```sql\n(.*?)^```/msg;
my ($copy) = grep { /gexec.*qecho|qecho.*gexec/s } @blocks;
my ($what_happens) = grep { /replaced AS/ } @blocks;
ok($copy && $what_happens, 'the page has the script and the query');

my $dir = PostgreSQL::Test::Utils::tempdir();
append_to_file("$dir/copy-queues.sql", $copy);

my $node = PostgreSQL::Test::Cluster->new('moved');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\nautovacuum = off");
$node->start;

# Returns what the second command has complained of
sub move
{
	my ($from, $to) = @_;
	my $errors;

	run_log([ 'psql', '-X', '-q', '-f', "$dir/copy-queues.sql", $node->connstr($from) ], '>', "$dir/queues.sql")
	  or die "$from is not read";
	IPC::Run::run([ 'psql', '-X', '-q', '-1', '-v', 'ON_ERROR_STOP=1', '-f', "$dir/queues.sql", $node->connstr($to) ],
		'>', \my $out, '2>', \$errors);
	return $errors =~ s/^.*NOTICE: .*\n//mgr;
}

my $COLUMNS = "to_jsonb(t) - '{headers,last_read_at,pgmq_releases,pgmq_settled}'::text[] || jsonb_build_object('headers', to_jsonb(t) -> 'headers', 'last', to_jsonb(t) -> 'last_read_at')";

sub contents
{
	my ($db, @queues) = @_;

	return $node->safe_psql($db, join('; ', map {
			my $sequence = $node->safe_psql($db, "SELECT pg_get_serial_sequence('pgmq.\"q_$_\"', 'msg_id')");
			qq{SELECT $COLUMNS FROM pgmq."q_$_" AS t ORDER BY msg_id; SELECT $COLUMNS FROM pgmq."a_$_" AS t ORDER BY msg_id;}
			. qq{SELECT last_value, is_called FROM $sequence;}
			. qq{SELECT relpersistence FROM pg_class WHERE oid = 'pgmq."q_$_"'::regclass} } @queues));
}

################################################################# from what versions have left to ours

# Its messages 1 and 2 are hidden for hours, 3 is archived, 7 was deleted
foreach my $version (qw(1.4.4 1.9.0 1.10.1 1.13.1))
{
	my @queues = qw(orders mixed unlogged part timed);

	$node->safe_psql('postgres', qq{CREATE DATABASE "old $version"; CREATE DATABASE "new $version"});
	$node->safe_psql("old $version", old_installation($version) . old_queues($version));
	$node->safe_psql("new $version", "CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq;
		SELECT pgmq.create_partitioned('part', '10000', '100000'), pgmq.create_partitioned('timed', '1 day', '7 days')");
	is(move("old $version", "new $version"), '', "from $version: the messages are moved");
	is(contents("new $version", @queues), contents("old $version", @queues), "from $version: they are the same, and so are the next ids");
	foreach my $queue (@queues)
	{
		is($node->safe_psql("new $version", qq{
			SELECT pgmq.send('$queue', '"next"');
			SELECT string_agg(msg_id || ' ' || read_ct, ',' ORDER BY msg_id) FROM pgmq.read('$queue', 60, 9);
			SELECT count(*) FROM pgmq.archive('$queue', '{4,3}'::bigint[])}), "8\n4 1,5 1,6 1,8 1\n1", "from $version: $queue");
	}
	is($node->safe_psql("new $version", q{
		SELECT pattern, lower(queue_name) FROM pgmq.topic_bindings ORDER BY 1; SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles() ORDER BY 1;
		SELECT i.indexdef ~ 'x-pgmq-group' FROM pg_indexes AS i WHERE indexname = 'q_orders_fifo_idx'}),
		join("\n", (at_least($version, '1.10.1') ? ('#|mixed', '#.x|mixed', 'logs.*|orders') : ()),
			(at_least($version, '1.8.0') ? ('orders|0', 'part|250') : ()), (at_least($version, '1.9.0') ? 't' : ())),
		"from $version: bindings, notifications, the index for groups");

	# Once more: the ids are there already, and nothing is changed
	my $before = contents("new $version", @queues);
	like(move("old $version", "new $version"), qr/ERROR:  duplicate key/, "from $version: not twice");
	is(contents("new $version", @queues), $before, "from $version: nothing was changed");
}

# Into a queue that has higher ids: its next ids stay higher.  In one that has lower ids, they continue after those that have come
$node->safe_psql('postgres', 'CREATE DATABASE used');
$node->safe_psql('used', q{CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq; SELECT pgmq.create_partitioned('part', '10000', '100000'), pgmq.create_partitioned('timed', '1 day', '7 days');
	SELECT pgmq.create('orders'), pgmq.create('unlogged'); SELECT setval('pgmq.q_orders_msg_id_seq', 1000);
	SELECT pgmq.send('orders', '1'), pgmq.send('unlogged', '1'); SELECT pgmq.delete('unlogged', 1)});
is(move('old 1.13.1', 'used'), '', 'into queues that were used: the messages are moved');
is($node->safe_psql('used', q{SELECT pgmq.rescan('orders'); SELECT string_agg(msg_id::text, ',' ORDER BY msg_id) FROM pgmq.read('orders', 0, 9);
	SELECT pgmq.send('orders', '2'), pgmq.send('unlogged', '2'), pgmq.send('mixed', '2')}), "\n4,5,6,1001\n1002|8|8",
	'and no id is given out twice');

# What the page says before an update
foreach my $version (qw(1.4.4 1.9.0 1.13.1))
{
	$node->safe_psql('postgres', qq{CREATE DATABASE "before $version"});
	$node->safe_psql("before $version", old_installation($version) . old_queues($version)
		. "CREATE EXTENSION pgmq VERSION 'unpackaged'; " . old_extension($version) . q{
		CREATE TABLE public.typed OF pgmq.message_record;
		CREATE VIEW public.reader AS SELECT msg_id FROM pgmq.} . ($version eq '1.9.0' ? 'read_grouped' : 'read') . q{('orders', 0, 1)});
	my $expected = join("\n",
		"extension of version $version|is updated by its owner OWNER, or by a superuser",
		($version eq '1.13.1' ? () : (map { "table pgmq.${_}|gets columns, and is locked until the update commits. It belongs to OWNER" }
			qw(a_mixed a_orders a_part a_timed a_unlogged q_mixed q_orders q_part q_timed q_unlogged))),
		(map { "table pgmq.${_}|is read as before, until CALL pgmq.upgrade_queues() makes an index on vt" } qw(q_part q_timed)),
		'table typed|may make the update fail. Separate it from its type before: ALTER TABLE ... NOT OF',
		($version eq '1.13.1' ? () : 'rule _RETURN on view reader|keeps the old function, under the name pgmq._before_2_' . ($version eq '1.9.0' ? 'read_grouped' : 'read')));
	my $owner = $node->safe_psql('postgres', 'SELECT current_user');
	$expected =~ s/OWNER/$owner/g;
	is(join("\n", sort split /\n/, $node->safe_psql("before $version", $what_happens)), join("\n", sort split /\n/, $expected),
		"the query before an update of $version");
}

################################################################# between ours and what was really released

chomp(my $sharedir = `pg_config --sharedir`);
# Under a name of its own: 062_released.pl may run at the same time
my $installed = "$sharedir/extension/pgmq--1.11.1moved.sql";
END { unlink $installed if $installed }

SKIP:
{
	skip 'version 1.11.1 cannot be installed', 1 unless -w "$sharedir/extension";
	skip 'version 1.11.1 cannot be fetched', 1
	  if system("cd $dir && npm_config_cache=$dir/cache npm_config_update_notifier=false npm_config_fetch_retries=0 "
		. 'npm pack --silent @electric-sql/pglite-pgmq@0.0.6 >npm.log 2>&1 && tar xzf *.tgz && tar xzf package/dist/pgmq.tar.gz') != 0;
	append_to_file($installed, slurp_file("$dir/share/postgresql/extension/pgmq--1.11.1.sql"));

	$node->safe_psql('postgres', "CREATE DATABASE $_") foreach qw(here managed again);
	my $partitioned = q{SELECT pgmq.create_partitioned('part', '10', '1000'), pgmq.create_partitioned('timed', '1 day', '7 days')};
	$node->safe_psql($_, 'CREATE EXTENSION pg_partman; CREATE EXTENSION pgmq' . ($_ eq 'managed' ? " VERSION '1.11.1moved'" : '') . "; $partitioned")
	  foreach qw(here managed again);
	# Names and bodies that need care, groups of which one is leased, one id that was burnt
	$node->safe_psql('here', q{
		SELECT pgmq.create('Two "words": \ 50%'), pgmq.create_unlogged('fast'), pgmq.create('empty');
		SELECT pgmq.send_batch(q, ARRAY(SELECT jsonb_build_object('n', i, E'a\tb', E'\\\\.\n"ü') FROM generate_series(1, 30) AS i),
			ARRAY(SELECT jsonb_build_object('x-pgmq-group', i % 3) FROM generate_series(1, 30) AS i))
		  FROM unnest('{"two \"words\": \\\\ 50%",fast,part,timed}'::text[]) AS q;
		SELECT pgmq.create_fifo_index('fast'), pgmq.create_fifo_index('part');
		SELECT pgmq.archive(q, '{7,5,6}'::bigint[]), pgmq.send(q, NULL), pgmq.send(q, '"late"', 3600) FROM unnest('{fast,part,timed}'::text[]) AS q;
		SELECT pgmq.read_grouped('fast', 3600, 1), pgmq.read_grouped('part', 3600, 1);
		BEGIN; SELECT pgmq.send('fast', '"burnt"'); ROLLBACK;
		SELECT pgmq.enable_notify_insert('fast', 7), pgmq.bind_topic('a.*', 'fast'), pgmq.bind_topic('#', 'Two "words": \ 50%');
		SELECT pgmq.set_policy('fast', max_in_flight => 1000), pgmq.set_policy('part', max_in_flight => 1000)});
	my @queues = ('two ""words"": \ 50%', 'fast', 'empty', 'part', 'timed');
	my $settings = q{SELECT queue_name, is_partitioned, is_unlogged FROM pgmq.meta ORDER BY 1; SELECT pattern, queue_name FROM pgmq.topic_bindings ORDER BY 1;
		SELECT queue_name, throttle_interval_ms FROM pgmq.notify_insert_throttle};
	my ($contents, $set) = (contents('here', @queues), $node->safe_psql('here', $settings));

	foreach my $step ([ 'here', 'managed' ], [ 'managed', 'again' ])
	{
		my ($from, $to) = @$step;

		is(move($from, $to), '', "from $from to $to: the messages are moved");
		is(contents($to, @queues), $contents, "from $from to $to: they are the same");
		is($node->safe_psql($to, $settings), $set, "from $from to $to: and so are the settings");
	}
	# In use, on both sides: the leased group stays leased, the others go on in order
	foreach my $db (qw(managed again))
	{
		is($node->safe_psql($db, q{
			SELECT pgmq.send('fast', '"new"'), pgmq.send('part', '"new"');
			SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.read_grouped('fast', 60, 12);
			SELECT array_agg(msg_id ORDER BY msg_id) FROM pgmq.read_grouped('part', 60, 12);
			SELECT count(*) FROM pgmq.read('timed', 60, 100);
			SELECT pgmq.send_topic('a.x', '1')}),
			"34|33\n{2,3,8,9,11,12,14,17,20,23,26,29}\n{2,3,8,9,11,12,14,17,20,23,26,29}\n28\n2", "$db: in use");
	}
	is($node->safe_psql('again', q{CALL pgmq.maintain(); SELECT sum(messages) FROM pgmq.list_partitions('part') WHERE partition ~ 'q_part'; SELECT count(*) FROM pgmq.q_part_default}),
		"30\n0", 'again: maintenance moves the messages to their partitions');
}

$node->stop;
done_testing();

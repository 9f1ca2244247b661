# A restored database has the catalogs of a fresh one, object by object, also if it had been updated from the PL/pgSQL
# extension before it was dumped.  Tables of queues are restored as they were.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use OldPgmq;

my $node = PostgreSQL::Test::Cluster->new('restored');
$node->init;
$node->append_conf('postgresql.conf', 'fsync = off');
$node->start;
$node->safe_psql('postgres', 'CREATE ROLE boss LOGIN; CREATE ROLE app LOGIN');
my $dir = PostgreSQL::Test::Utils::tempdir();

sub as
{
	my ($role, $db, $sql) = @_;

	return $node->safe_psql($db, $sql, extra_params => [ '-U', $role, '-v', 'ON_ERROR_STOP=1' ]);
}

# Restored by the role that owned it, an extension is that of a fresh installation by that role.  Restored by a superuser,
# it is that of a fresh installation by the superuser, but for what is in the dump in its own right:
my @EXPECTED = (
	[ qr/^[-+]schema\|/, 'the schema keeps its owner' ],
	[ qr/^\+default\|boss\|/, 'that role keeps its default privileges' ],
	[ qr/^[-+]policy\|/, 'policies are on the tables of queues' ]);

# Lines that are in one of both only, but for those that are expected
sub differences
{
	my ($fresh, $copy, @expected) = @_;
	my %lines = map { $_ => 1 } split /\n/, $fresh;
	my @others = grep { !delete $lines{$_} } split /\n/, $copy;

	return join "\n", grep { my $line = $_; !grep { $line =~ $_->[0] } @expected }
		((map { "-$_" } sort keys %lines), (map { "+$_" } @others));
}

my %fresh;
my $ROWS = q{
	SELECT format('SELECT %L, jsonb_agg(to_jsonb(t) ORDER BY to_jsonb(t)) FROM pgmq.%I AS t', relname, relname)
	  FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname
	\gexec
	SELECT schemaname, sequencename, last_value FROM pg_sequences ORDER BY 1, 2};

# check_copies(database, the role that owns the extension, catalogs of a fresh installation, what it is)
sub check_copies
{
	my ($db, $role, $fresh, $how) = @_;
	my ($rows, $queues) = ($node->safe_psql($db, $ROWS), queue_catalogs($node, $db));

	like($rows, qr/"n": 6/, "$how: there is something to dump");
	like($queues, qr/^index.*^sequence/ms, "$how: there are queues");
	$node->command_ok([ 'pg_dump', '-f', "$dir/$db.sql", '-d', $node->connstr($db) ], "$how: plain dump");
	$node->command_ok([ 'pg_dump', '-Fc', '-f', "$dir/$db", '-d', $node->connstr($db) ], "$how: custom dump");
	my @ways = (
		[ 'plain', $role, [ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-U', $role, '-o', '/dev/null', '-f', "$dir/$db.sql" ] ],
		[ 'custom', $role, [ 'pg_restore', '-j4', '--exit-on-error', "--role=$role", "$dir/$db" ] ],
		$role eq 'postgres' ? () : [ 'super', 'postgres', [ 'pg_restore', '-j4', '--exit-on-error', "$dir/$db" ] ]);

	foreach (@ways)
	{
		my ($way, $by, $command) = @$_;
		my $copy = "${db}_$way";

		$node->safe_psql('postgres', "CREATE DATABASE $copy OWNER $role");
		$node->command_ok([ @$command, '-d', $node->connstr($copy) ], "$how, $way: restored by $by");
		is($by eq $role ? differences($fresh, catalogs($node, $copy)) : differences($fresh{$by}, catalogs($node, $copy), @EXPECTED), '', "$how, $way: the catalogs are those of a fresh installation");
		is(queue_catalogs($node, $copy), $queues, "$how, $way: the tables of queues are as they were");
		is($node->safe_psql($copy, $ROWS), $rows, "$how, $way: so are the rows");
		if ($by eq $role)
		{
			# The owner goes on
			is(as($role, $copy, q{SELECT pgmq.create('more'), pgmq.bind_topic('more', 'more'), pgmq.drop_queue('more'), pgmq.send('orders', '1')}), '||t|8',
				"$how, $way: the owner creates queues");
		}
		else
		{
			# docs/operations.md
			my ($out, $err);
			$node->psql($copy, q{SELECT pgmq.create('more')}, stderr => \$err, extra_params => [ '-U', $role ]);
			like($err, qr/permission denied for table meta/, "$how, $way: the former owner may not create queues");
			like(slurp_file("$FindBin::RealBin/../../docs/operations.md"), qr/pg_restore --role/, 'which is documented');
		}
		$node->safe_psql('postgres', "DROP DATABASE $copy");
	}
}

###################################################### fresh

foreach my $role (qw(postgres boss))
{
	$node->safe_psql('postgres', "CREATE DATABASE fresh_$role OWNER $role");
	as($role, "fresh_$role", 'CREATE EXTENSION pgmq');
	$fresh{$role} = catalogs($node, "fresh_$role");
}
# With queues, grants, policies and comments of users
as('boss', 'fresh_boss', q{
	SELECT pgmq.create('Orders'), pgmq.create_unlogged('scratch'), pgmq.create('idle');
	SELECT pgmq.create_fifo_index('orders'), pgmq.enable_notify_insert('orders', 100), pgmq.bind_topic('a.*', 'orders');
	SELECT pgmq.send('orders', jsonb_build_object('n', i), '{"x-pgmq-group": "g"}'::jsonb) FROM generate_series(1, 7) AS i;
	SELECT pgmq.archive('orders', 2);
	GRANT USAGE ON SCHEMA pgmq TO app; GRANT SELECT, INSERT ON pgmq.q_orders TO app; GRANT UPDATE (vt) ON pgmq.q_scratch TO app;
	COMMENT ON TABLE pgmq.q_orders IS 'Orders'; COMMENT ON COLUMN pgmq.q_orders.vt IS 'Visible from';
	ALTER TABLE pgmq.q_idle SET (fillfactor = 50); ALTER TABLE pgmq.q_scratch ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY;
	CREATE POLICY mine ON pgmq.q_scratch FOR SELECT TO app USING (msg_id > 3) });
check_copies('fresh_boss', 'boss', catalogs($node, 'fresh_boss'), 'fresh');

# Privileges on functions and tables of the extension
$node->safe_psql('fresh_postgres', q{
	SELECT pgmq.create('orders'), pgmq.enable_notify_insert('orders');
	SELECT pgmq.send('orders', jsonb_build_object('n', i)) FROM generate_series(1, 7) AS i;
	REVOKE EXECUTE ON FUNCTION pgmq.purge_queue(text) FROM PUBLIC; GRANT EXECUTE ON FUNCTION pgmq.purge_queue(text) TO app;
	GRANT SELECT, INSERT ON pgmq.meta TO app; REVOKE SELECT ON pgmq.topic_bindings FROM pg_monitor});
my $granted = catalogs($node, 'fresh_postgres');
like($granted, qr/^table\|pgmq.meta\|.*app=ar/m, 'there are grants');
isnt($granted, $fresh{postgres}, 'which is a difference');
check_copies('fresh_postgres', 'postgres', $granted, 'with grants');

###################################################### updated

foreach (['1.4.4', 'boss'], ['1.9.0', 'postgres'], ['1.13.1', 'boss'])
{
	my ($version, $role) = @$_;
	(my $db = "v$version") =~ tr/./_/;

	$node->safe_psql('postgres', "CREATE DATABASE $db OWNER $role");
	as($role, $db, old_installation($version) . old_queues($version) . "CREATE EXTENSION pgmq VERSION 'unpackaged'");
	$node->safe_psql($db, old_extension($version));
	as($role, $db, q{ALTER EXTENSION pgmq UPDATE; GRANT SELECT ON pgmq.q_orders TO app});
	check_copies($db, $role, $fresh{$role}, $version);
}

$node->stop;
done_testing();

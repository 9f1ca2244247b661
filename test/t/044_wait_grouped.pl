# wait_grouped: it waits for what a read by groups can return, holds nothing meanwhile, and
# is told when a group goes on.
use strict;
use warnings;

use FindBin;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use lib $FindBin::RealBin;
use PgmqSql qw(first_row_is);

my $node = PostgreSQL::Test::Cluster->new('waitgrouped');
$node->init;
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');

my $waiting = q{FROM pg_stat_activity AS a WHERE wait_event_type = 'Extension' AND query LIKE 'CALL pgmq.wait_grouped%'};

# Whether a consumer that waits is woken by this, and not before
sub woken_by
{
	my ($name, $sql) = @_;
	my $waiter = $node->background_psql('postgres');

	$waiter->query_until(qr/waiting/, "\\echo waiting\nCALL pgmq.wait_grouped('jobs', 600000);\n\\echo over\n");
	ok($node->poll_query_until('postgres', "SELECT EXISTS (SELECT $waiting)"), "$name: it waits");
	# What is sent behind a message that is held is nothing for it
	$node->safe_psql('postgres', q{SELECT pgmq.send('jobs', '1', '{"x-pgmq-group": "a"}'::jsonb)});
	ok($node->poll_query_until('postgres', "SELECT EXISTS (SELECT $waiting)"), "$name: it goes on waiting");
	first_row_is($node, "SELECT backend_xid, backend_xmin, (SELECT count(*) FROM pg_locks AS l WHERE l.pid = a.pid AND relation IS NOT NULL) $waiting",
		'||0', "$name: without a snapshot, a transaction id, or a lock on a table");
	$node->safe_psql('postgres', $sql);
	like($waiter->query_until(qr/over/, ''), qr/^t$/m, "$name: it is told");
	$waiter->quit;
}

foreach my $index ('', q{SELECT pgmq.create_fifo_index('jobs')})
{
	my $how = $index ? 'with the index' : 'without';

	$node->safe_psql('postgres', "SELECT pgmq.drop_queue('jobs')") if $index;
	$node->safe_psql('postgres', join ';', q{SELECT pgmq.create('jobs')}, $index,
		q{SELECT pgmq.send_batch('jobs', array_fill('1'::jsonb, '{3}'), array_fill('{"x-pgmq-group": "a"}'::jsonb, '{3}'))},
		q{SELECT pgmq.read_grouped('jobs', 3600, 1)});
	woken_by("$how: a delete", q{SELECT pgmq.delete('jobs', 1)});
	$node->safe_psql('postgres', q{SELECT pgmq.read_grouped('jobs', 3600, 1)});
	woken_by("$how: an archive", q{SELECT pgmq.archive('jobs', 2)});
	$node->safe_psql('postgres', q{SELECT pgmq.read_grouped('jobs', 3600, 1)});
	woken_by("$how: a set_vt", q{SELECT pgmq.set_vt('jobs', 3, 0)});
	$node->safe_psql('postgres', q{SELECT pgmq.read_grouped('jobs', 3600, 1)});
	woken_by("$how: another group", q{SELECT pgmq.send('jobs', '1', '{"x-pgmq-group": "b"}'::jsonb)});
}

# A consumer that waits looks again when the transaction that held the group has been rolled back
$node->safe_psql('postgres', q{SELECT pgmq.purge_queue('jobs'); SELECT pgmq.send('jobs', '1', '{"x-pgmq-group": "a"}'::jsonb)});
my $holder = $node->background_psql('postgres');
$holder->query_safe(q{BEGIN; SELECT pgmq.read_grouped('jobs', 3600, 1)});
my $waiter = $node->background_psql('postgres');
$waiter->query_until(qr/waiting/, "\\echo waiting\nCALL pgmq.wait_grouped('jobs', 600000);\n\\echo over\n");
$node->poll_query_until('postgres', "SELECT EXISTS (SELECT $waiting)");
$holder->query_safe('ROLLBACK');
like($waiter->query_until(qr/over/, ''), qr/^t$/m, 'a rollback');
$_->quit foreach ($holder, $waiter);

$node->stop;
done_testing();

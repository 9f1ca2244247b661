# Faults inside a call about a stream: an allocation that fails, a cancel, the end of the session, as in 006_faults.pl.  After
# each of them the stream is as it was, nobody holds it up, the same session can use it, and no memory stays.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../faults";
use Faults;
use Tries;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('streamfaults');
$node->init;
$node->append_conf('postgresql.conf', qq(
log_statement = none
log_min_messages = log
fsync = off
autovacuum = off
jit = off
));
$node->start;
tries_in($node);
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq;' . fault_functions() . slurp_file("$FindBin::RealBin/../faults/streams.sql"));

# A transaction for each, because what is published is received later only
my $begin = join "\n", map { "SELECT test.$_() AS void \\gset" } qw(clear fill lease);
my $made = qq{$begin
SELECT pgmq.create_stream('made', 3) AS void, pgmq.subscribe('made', 'a') AS void, pgmq.bind_topic_stream('#', 'made') AS void \\gset
SELECT pgmq.publish('made', '1') AS void \\gset};
my $lease = q{FROM test.lease};

my %calls = (
	publish => q{pgmq.publish('work', '7', 'x', '{"h": 1}')},
	publish_batch => q{count(*) FROM pgmq.publish_batch('work', '{7,8,9}', '{x,y,z}')},
	send_topic => q{pgmq.send_topic('bound.x', '7')},
	receive => q{count(*) FROM pgmq.receive('work', 'a', 7200, 2)},
	receive_nothing => q{count(*) FROM pgmq.receive('work', 'empty', 60, 2)},
	receive_with_poll => q{count(*) FROM pgmq.receive_with_poll('work', 'a', 7200, 2, 1)},
	fetch => q{count(*) FROM pgmq.fetch('work', 0, 0, 10)},
	advance => qq{pgmq.advance('work', 'a', shard, leased_id - 2, lease) $lease},
	advance_to_end => qq{pgmq.advance('work', 'a', shard, leased_id, lease) $lease},
	extend_lease => qq{pgmq.extend_lease('work', 'a', shard, lease, 7200) $lease},
	return_lease => qq{pgmq.return_lease('work', 'a', shard, lease) $lease},
	seek => q{pgmq.seek('work', 'a', 'latest', force => true)},
	subscribe => q{pgmq.subscribe('work', 'b', 'earliest')},
	unsubscribe => q{pgmq.unsubscribe('work', 'a')},
	stream_lag => q{count(*) FROM pgmq.stream_lag('work')},
	set_stream_retention => q{pgmq.set_stream_retention('work', '1 day', '1 hour')},
	bind_topic_stream => q{pgmq.bind_topic_stream('other.*', 'work')},
	unbind_topic_stream => q{pgmq.unbind_topic_stream('bound.*', 'work')});
# So many of each are enough for one run; each run takes others
$_ = [ $begin, $_, 'test.work()', '', 20 ] foreach values %calls;
$calls{create_stream} = [ $begin, q{pgmq.create_stream('made', 3)}, 'test.made()', '', 20 ];
$calls{drop_stream} = [ $made, q{pgmq.drop_stream('made')}, 'test.made()', '', 20 ];

my $usable = [ q{SELECT pgmq.publish('work', '"probe"') AS probe \gset}, 'test.usable(:probe)' ];
my $jumps = $node->safe_psql('postgres', 'SELECT version()') =~ /x86_64|aarch64/;

try_states('out of memory', 'alloc', $OUT_OF_MEMORY, undef, $usable, %calls);
# Plans are made, hash tables, shared memory is attached
my @new = $ALL ? keys %calls : qw(publish receive);
try_states('out of memory, new session', 'alloc', $OUT_OF_MEMORY, 'new', $usable, map { $_ => $calls{$_} } @new);
SKIP:
{
	skip 'cancels need a processor whose jumps fault.c knows', 1 unless $jumps;

	try_states('cancel', 'cancel', $CANCELED, undef, $usable, %calls);
	# A session that waits
	$calls{receive_with_poll} = [ $begin, q{count(*) FROM pgmq.receive_with_poll('work', 'empty', 60, 2, 1)}, 'test.work()' ];
	try_states('cancel, while it waits', 'cancel', $CANCELED, undef, $usable, wait => $calls{receive_with_poll});
	try_ends(2, $usable, %calls);
}

# Maintenance goes on from what was left, and comes to the same
my $old = 'SELECT test.make_old() AS void \gset';
foreach my $fault ($jumps ? qw(alloc cancel) : 'alloc')
{
	try_states("maintenance, $fault", $fault, $fault eq 'cancel' ? $CANCELED : $OUT_OF_MEMORY, undef, [ '', "''" ],
		maintain => [ $old, 'test.maintain()', 'test.maintained()', $old, 20 ]);
}

$node->stop;
done_testing();

# A full disk: where the tables are, where the log is, and where shared memory is.
# A send fails plainly or is there; what was acknowledged is there once, and with room
# again everything goes on.  No room for the log stops the server, as it is
# meant to: what was acknowledged before is there after the restart.
#
# The disk is a library that is preloaded into the server (test/faults/nospace.c).
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../faults";
use Faults;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $switches = PostgreSQL::Test::Utils::tempdir();
my $library = build_library('nospace');
my $node = PostgreSQL::Test::Cluster->new('full');
$node->init(extra => [ '--wal-segsize=1' ]);
$node->append_conf('postgresql.conf', qq(
log_statement = none
restart_after_crash = on
autovacuum = off
dynamic_shared_memory_type = posix
wal_recycle = off
min_wal_size = 2MB
max_wal_size = 1GB
));

sub full { append_to_file("$switches/$_[0]", '') }
sub room { unlink "$switches/$_[0]" or die "$switches/$_[0]: $!" }

sub start_server
{
	local $ENV{LD_PRELOAD} = $library;
	local $ENV{NOSPACE_SWITCHES} = $switches;

	$node->start;
}

# run(script): psql goes on after errors; (standard output, errors), or both in one
sub run
{
	my ($stdout, $stderr) = ('', '');

	# psql ends when the server does, and may do so before all of the script was taken or its complaints were read
	eval { $node->psql('postgres', $_[0], stdout => \$stdout, stderr => \$stderr, on_error_stop => 0); 1 } or $stderr .= $@;
	return wantarray ? ($stdout, $stderr) : $stdout . $stderr;
}

# No room for shared memory, from the first read on: reads do without.  (Before 17
# only groups have a segment of their own, and the disk is not asked for others.)
start_server();
$node->safe_psql('postgres', q{CREATE EXTENSION pgmq; SELECT pgmq.create('work'); SELECT pgmq.send_batch('work', '{1,2,3}')});
$node->safe_psql('postgres', q{
	SELECT pgmq.create('ordered'), pgmq.create_fifo_index('ordered')});
full('shm');
my ($out, $err) = run(q{SELECT msg_id FROM pgmq.read('work', 3600, 1); SELECT msg_id FROM pgmq.pop('work', 1); SELECT pgmq.rescan('work')});
is($err, '', 'no room for shared memory: no error');
is($out, "1\n2\n", 'no room for shared memory: messages are handed out');
my $ordered = q{SELECT msg_id FROM pgmq.read_grouped('ordered', 3600, 1)};
($out, $err) = run(q{SELECT pgmq.send('ordered', '1', jsonb_build_object('x-pgmq-group', g)) FROM unnest('{a,a,b}'::text[]) AS g;} . $ordered);
is("$out$err", "1\n2\n3\n1", 'no room for shared memory: groups are read');
room('shm');
($out, $err) = run("$ordered; $ordered; SELECT pgmq.delete('ordered', 1); $ordered");
is("$out$err", "3\nt\n2", 'room again: they go on in order');
like(slurp_file($node->logfile), qr/LOG:  pgmq: could not allocate shared memory for the starts of message groups: could not resize shared memory segment .* No space left/,
	'no room for shared memory: the log says what is the matter');
($out, $err) = run(q{SELECT msg_id FROM pgmq.read('work', 3600, 10); SELECT pgmq.send('work', '4'); SELECT msg_id FROM pgmq.pop('work', 10)});
is($err, '', 'room again: no error from what was half made');
is($out, "3\n4\n4", 'room again: nothing is handed out twice, nothing lost');
# A transaction goes on, with what it did before
($out, $err) = run(q{
	BEGIN; SELECT pgmq.send('work', '5'); SELECT msg_id FROM pgmq.read('work', 3600, 1); COMMIT;
	SELECT message FROM pgmq.q_work WHERE msg_id = 5});
is("$out$err", "5\n5\n5", 'first read of a session in a transaction: the transaction goes on');

# The same, but the server has its registry of segments, and gets as far as ours
$node->safe_psql('postgres', fault_functions() . "SELECT pgmq.send_batch('work', '{6,7,8,9}')");
$node->stop;
start_server();
$node->safe_psql('postgres', 'SELECT fault_segment()');
full('shm');
is(scalar run(q{SELECT msg_id FROM pgmq.read('work', 3600, 1)}), '6', 'no room for a segment: it is read');
is(scalar run(q{SELECT msg_id FROM pgmq.read('work', 3600, 1)}), '7', 'no room for a segment: by others, too');
room('shm');
foreach my $expected (8, 9)
{
	($out, $err) = run(q{SELECT msg_id FROM pgmq.read('work', 3600, 1)});
	is("$out$err", $expected, 'room for a segment again: no error from what was half made');
}
like(slurp_file($node->logfile), qr/LOG:  pgmq: could not allocate shared memory for queue positions: could not resize shared memory segment .* No space left/,
	'no room for a segment: the log says what is the matter')
  if $node->safe_psql('postgres', 'SHOW server_version_num') >= 170000;

# No room for tables: sends fail at some time; those that did not are there
my $script = join '', map {
	"SELECT pgmq.send('work', to_jsonb(repeat('x', 1000) || $_));\n" . ($_ % 3 ? '' : "SELECT pgmq.send_batch('work', ARRAY[to_jsonb(repeat('y', 3000)), '$_']);\n")
} 1 .. 60;
# Bodies that the server can't make smaller
$node->safe_psql('postgres', 'DELETE FROM pgmq.q_work; ALTER TABLE pgmq.q_work ALTER message SET STORAGE PLAIN');
full('data');
($out, $err) = run($script);
my @acknowledged = $out =~ /^(\d+)$/mg;
like($err, qr/ERROR:  could not extend file .*: No space left on device/, 'no room for tables: sends fail');
unlike($err, qr/ERROR:  (?!could not extend file)|PANIC|FATAL/, 'no room for tables: in no other way');
cmp_ok(scalar(@acknowledged), '>', 3, 'no room for tables: some find room');
is($node->safe_psql('postgres', 'SELECT msg_id FROM pgmq.q_work ORDER BY msg_id'), join("\n", @acknowledged),
	'no room for tables: what was acknowledged is there, once, and nothing else');
# reading writes new versions, which may find no room either; deleting needs none
($out, $err) = run("SELECT pgmq.delete('work', $acknowledged[0]); SELECT count(*) FROM pgmq.archive('work', ARRAY[$acknowledged[1]])");
like($out, qr/^t/, 'no room for tables: a message can be deleted');
my @archived = $out =~ /^t\n1/ ? $acknowledged[1] : ();
my ($leased) = run("SELECT msg_id FROM pgmq.read('work', 3600, 1000)");
room('data');
my @left = @acknowledged[ 1 + @archived .. $#acknowledged ];
is(scalar run("SELECT msg_id FROM pgmq.read('work', 3600, 1000) ORDER BY 1"), $leased eq '' ? join("\n", @left) : '',
	'room again: all of it is read, if it was not before');
($out, $err) = run($script);
is($err, '', 'room again: all is sent');
is($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_work'), @left + 100, 'room again: all is there');

# No room for the log: the server stops and starts again.  It has made a few
# segments ahead, so it takes some time.
$node->safe_psql('postgres', 'DELETE FROM pgmq.q_work');
full('wal');
($out, $err) = run($script x 100);
@acknowledged = $out =~ /^(\d+)$/mg;
like($err, qr/PANIC|server closed the connection|terminating connection|connection to server was lost|Broken pipe/, 'no room for the log: the server stops');
like(slurp_file($node->logfile), qr/PANIC:  could not write to file "pg_wal\/xlogtemp.*No space left on device/, 'no room for the log: that is why');
cmp_ok(scalar(@acknowledged), '>', 10, 'no room for the log: there was some');
room('wal');
# If the recovery found no room either, the server has stopped for good
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
until (slurp_file($node->logfile) =~ /PANIC: .*(database system is ready|database system is shut down)/s || time() > $deadline)
{
	select(undef, undef, undef, 0.05);
}
if (slurp_file($node->logfile) =~ /PANIC: .*database system is shut down/s)
{
	$node->{_pid} = undef;
	start_server();
}
ok($node->poll_query_until('postgres', 'SELECT true'), 'room again: the server starts');
is($node->safe_psql('postgres', q{
	SELECT string_agg(msg_id::text, ' ' ORDER BY msg_id) FROM pgmq.q_work WHERE msg_id <= } . $acknowledged[-1]), "@acknowledged",
	'room again: all that was acknowledged is there');
($out, $err) = run($script);
is($err, '', 'room again: all is sent');
is($node->safe_psql('postgres', q{SELECT count(*) = (SELECT count(*) FROM pgmq.read('work', 60, 100000)) FROM pgmq.q_work}), 't',
	'room again: all is read');

# scripts/test takes a PANIC in a server's log for a bug; this one was asked for, once
$node->stop;
my $log = slurp_file($node->logfile);
is(scalar(() = $log =~ /PANIC:  |terminated by signal/g), 2, 'no room for the log: one PANIC, and its end');
rename $node->logfile, $node->logfile . '.asked-for';
done_testing();

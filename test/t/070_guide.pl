# docs/guide.md: its SQL prints what the page says, and its worker keeps its promises while workers are killed
# and the server crashes: each result is there exactly once, and what never works is given up after five failures.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DocExamples;
use POSIX ':sys_wait_h';
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;
use PgmqSql qw($DEADLINE ok_until);
use Time::HiRes qw(usleep);

my $WORKERS = 3;
my $MESSAGES = 200;

my $node = PostgreSQL::Test::Cluster->new('guide');
$node->init;
$node->append_conf('postgresql.conf', "log_min_messages = warning");
$node->start;

DocExamples::run($node, 'guide');

###################################################### sending from programs

{
	my $page = DocExamples::page('guide');
	my ($python) = grep { /Jsonb/ } $page =~ /^```python\n(.*?)^```\n/msg;
	my ($js) = $page =~ /^```js\n(.*?)^```\n/ms;
	my $eve = q{SELECT count(*) FROM pgmq.q_orders WHERE message = '{"customer": "eve", "prices": [1, 2]}'};
	delete local $ENV{NODE_EXTRA_CA_CERTS};		# of this machine, perhaps not in a chroot: node complains
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'guide',
		PGUSER => $node->safe_psql('guide', 'SELECT current_user'));

	command_ok([ '/usr/bin/python3', '-c', $python ], 'psycopg sends');
	is($node->safe_psql('guide', $eve), '1', 'and the message is there');
	command_ok([ 'node', '-e', "const { Client } = require('pg')\n"
			. "async function main() { const client = new Client(); await client.connect()\n$js\nawait client.end() }\nmain()" ],
		'node-postgres sends');
	is($node->safe_psql('guide', $eve), '2', 'and the message is there');
}

###################################################### the worker

sub sql { return $node->safe_psql('work', $_[0]); }

my $page = DocExamples::page('guide');
my ($worker) = grep { /TakenOver/ } $page =~ /^```python\n(.*?)^```\n/msg;
my ($table) = $page =~ /^(CREATE TABLE results .*;)$/m;
my ($policy) = $page =~ /^(SELECT pgmq\.set_policy\(.*max_reads.*;)$/m;

ok($worker && $table && $policy, 'the page has a worker, the table for its results and a policy');

# The page's code, but for the times and for what is work.  The work leaves a line for each try: that is the
# effect outside of the database, which may happen more than once.
$worker =~ s/^VISIBILITY_TIMEOUT = 60 /VISIBILITY_TIMEOUT = 2 /m or die;
$policy =~ s/retry_delay => '5 minutes'/retry_delay => '1 second'/ or die;
like($policy, qr/max_reads => 5\b/, 'five failures');
$worker =~ s/^def handle\(order, extend\):\n.*?(?=^def )/<<'WORK' . "\n\n"/mse or die;
import os
import random
import signal

TRIES_FILE = os.environ["TRIES_FILE"]


def tell(text):
    with open(TRIES_FILE, "ab", buffering=0) as file:
        file.write((text + "\n").encode())


def gone(n):
    with psycopg.connect(autocommit=True) as conn:
        return conn.execute("SELECT count(*) = 0 FROM pgmq.q_orders WHERE (message->>'n')::int = %s", [n]).fetchone()[0]


def handle(order, extend):
    n, kind = order["n"], order["kind"]
    tell("try %d" % n)
    with open(TRIES_FILE) as file:
        first = file.read().split("\n").count("try %d" % n) == 1
    if kind == "fails" or kind == "fails once" and first:
        raise RuntimeError("does not work")
    if kind == "kills":
        os.kill(os.getpid(), signal.SIGKILL)
    if kind == "bad result":
        return "not a number"
    if kind == "overtaken" and not first:
        while "taken over %d" % n not in open(TRIES_FILE).read():
            time.sleep(0.02)
    if kind == "slow" and first:
        while not gone(n):
            time.sleep(0.02)
        try:
            extend()
            tell("extended %d" % n)
        except TakenOver:
            tell("taken over %d" % n)
    if kind == "overtaken" and first:
        while open(TRIES_FILE).read().split("\n").count("try %d" % n) < 2:
            time.sleep(0.02)
        try:
            extend()
            tell("extended %d" % n)
        except TakenOver:
            tell("taken over %d" % n)
    if kind == "plain":
        time.sleep(random.random() * 0.02)
        extend()
    return sum(order["prices"])
WORK

my $dir = PostgreSQL::Test::Utils::tempdir();
my $file = "$dir/worker.py";
my $tries = "$dir/tries";
PostgreSQL::Test::Utils::append_to_file($file, $worker);
PostgreSQL::Test::Utils::append_to_file($tries, '');
$node->safe_psql('postgres', 'CREATE DATABASE work');
sql("CREATE EXTENSION pgmq; SELECT pgmq.create('orders'); $table $policy");

my %workers;
my $user = $node->safe_psql('work', 'SELECT current_user');

sub start_worker
{
	my $pid = fork();

	die "fork: $!" unless defined $pid;
	if ($pid == 0)
	{
		open(STDOUT, '>>', "$dir/out") or POSIX::_exit(1);
		open(STDERR, '>>', "$dir/err") or POSIX::_exit(1);
		%ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'work', PGUSER => $user, TRIES_FILE => $tries,
			PYTHONDONTWRITEBYTECODE => 1);
		exec('/usr/bin/python3', $file) or POSIX::_exit(1);
	}
	$workers{$pid} = 1;
	return;
}

# keep_workers: as many as there should be; they end by a signal only
sub keep_workers
{
	while ((my $pid = waitpid(-1, WNOHANG)) > 0)
	{
		next unless delete $workers{$pid};
		die "a worker ended with status $?: " . slurp_file("$dir/err") unless ($? & 127) == 9;
	}
	start_worker() while keys %workers < $WORKERS;
	return;
}

sub end_workers
{
	my ($signal) = @_;

	kill($signal, $_), waitpid($_, 0) foreach keys %workers;
	%workers = ();
	return;
}

sub send_some
{
	my ($from, $to, $kind) = @_;

	sql(qq{SELECT count(*) FROM pgmq.send_batch('orders', ARRAY(
		SELECT jsonb_build_object('n', n, 'kind', '$kind', 'prices', jsonb_build_array(n, 1)) FROM generate_series($from, $to) AS n))});
	return;
}

sub left { return sql('SELECT count(*) FROM pgmq.q_orders'); }

# Messages 1 to $MESSAGES can be done; the five behind them can't
send_some(1, $MESSAGES - 10, 'plain');
send_some($MESSAGES - 9, $MESSAGES, 'fails once');
send_some($MESSAGES + 1, $MESSAGES + 2, 'fails');
send_some($MESSAGES + 3, $MESSAGES + 3, 'kills');
send_some($MESSAGES + 4, $MESSAGES + 5, 'bad result');

# A worker is killed whenever some more tries have begun, however long that takes: on a slow machine, too, some work is
# done between two kills
my ($killed, $crashes, $enough) = (0, 0, 0);
my $end = time + $DEADLINE;
until (left() eq '0' || time > $end)
{
	keep_workers();
	usleep(rand(100_000));
	if (left() < $MESSAGES * (3 - $crashes) / 4 && $crashes < 3)
	{
		$crashes++;
		$node->stop('immediate');
		$node->start;
	}
	elsif (-s $tries >= $enough)
	{
		my @pids = keys %workers;

		$killed += kill('KILL', $pids[ rand(@pids) ]);
		$enough = (-s $tries) + rand(2 * 8 * length("try 100\n"));
	}
}
is(left(), '0', 'the queue is empty in the end');
is($crashes, 3, 'the server has crashed three times');
note("$killed workers killed");
end_workers('KILL');

my $expected = $MESSAGES + 5;
is( sql(q{SELECT count(*) FROM (SELECT msg_id FROM results GROUP BY 1 HAVING count(*) > 1) AS twice}),
	'0', 'no result is there twice');
is( sql(qq{SELECT count(*) FROM generate_series(1, $expected) AS n
	 WHERE (SELECT count(*) FROM results WHERE msg_id = n) + (SELECT count(*) FROM pgmq.a_orders WHERE msg_id = n) <> 1}),
	'0', 'each message has its result, or was given up');
is(sql('SELECT count(*) FROM results WHERE total <> msg_id + 1'), '0', 'each result is right');
is( sql("SELECT string_agg(msg_id::text, ' ' ORDER BY msg_id) FROM pgmq.a_orders WHERE msg_id > $MESSAGES"),
	join(' ', $MESSAGES + 1 .. $MESSAGES + 5), 'what never works was given up');
is(sql('SELECT count(*) FROM pgmq.a_orders WHERE read_ct <> 5'), '0', 'after five deliveries');

# What happened outside: at least once if there is a result, at most five times in any case
my %times;
$times{$_}++ foreach slurp_file($tries) =~ /^try (\d+)$/mg;
is( scalar(grep { !$times{$_} } split /\n/, sql('SELECT msg_id FROM results')),
	0, 'the work for each result was done');
is(scalar(grep { $times{$_} > 5 } keys %times), 0, 'and no work more than five times');
note(scalar(grep { $times{$_} > 1 } keys %times) . ' messages were worked on more than once');

# The visibility timeout ends while a worker is busy.  "slow": the second worker is done when the first one is.
# "overtaken": the first one is done while the second is at it, and its token is stale.
sql('TRUNCATE pgmq.q_orders, pgmq.a_orders, results');
unlink $tries;
PostgreSQL::Test::Utils::append_to_file($tries, '');
send_some(1001, 1001, 'slow');
send_some(1002, 1002, 'overtaken');
keep_workers();
ok_until('both are done', sub { left() eq '0' });
ok_until('the slow worker learns that its message was taken over', sub { slurp_file($tries) =~ /^taken over 1001$/m });
ok_until('and so does the overtaken one', sub { slurp_file($tries) =~ /^taken over 1002$/m });

# A worker that is at ease reads the next one: then the others have written what they would write
send_some(1003, 1002 + $WORKERS * 3, 'plain');
ok_until('the workers go on', sub { left() eq '0' });
is(sql('SELECT count(*) FROM results WHERE total IN (1002, 1003)'), '2', 'each of the two has one result');
end_workers('TERM');

# From here on with the grants of the page
my ($grants) = grep { /GRANT INSERT ON results/ } $page =~ /^```sql\n(.*?)^```/msg;
$grants =~ s/^CREATE ROLE worker;$/ALTER ROLE worker LOGIN;/m or die;
sql($grants);
$user = 'worker';

# The page's growing pauses, here much shorter, and its dead-letter queue
my ($pauses) = $page =~ /^(SELECT pgmq\.set_policy\(.*retry_backoff.*;)$/m;
my ($give_up) = $page =~ /^(SELECT pgmq\.set_policy\(.*orders_failed.*;)$/m;
ok($pauses && $give_up, 'the page has growing pauses and a dead-letter queue');
$pauses =~ s/'20 seconds'/'0.05 seconds'/ or die;
unlink $tries;
PostgreSQL::Test::Utils::append_to_file($tries, '');
sql("SELECT pgmq.create('orders_failed'); TRUNCATE pgmq.a_orders; $pauses $give_up");
send_some(2001, 2001, 'fails');
send_some(2002, 2002, 'fails once');
keep_workers();
ok_until('growing pauses: both messages leave the queue', sub { left() eq '0' });
is(sql(q{SELECT string_agg(message->>'n', ' ') FROM pgmq.q_orders_failed}), '2001', 'the failed one is in the dead-letter queue');
is(scalar(() = slurp_file($tries) =~ /^try 2001$/mg), 5, 'after five tries');
is(sql('SELECT count(*) FROM pgmq.a_orders'), '0', 'and not in the archive');
end_workers('TERM');

# The two changes for groups that the page names.  A group goes on when its message is done, also after a failed try.
$worker =~ s/pgmq\.read\('orders', %s, 1\)/pgmq.read_grouped_head('orders', %s, 1)/ or die;
$worker =~ s/CALL pgmq\.wait\(/CALL pgmq.wait_grouped(/ or die;
$worker =~ s/^VISIBILITY_TIMEOUT = 2 /VISIBILITY_TIMEOUT = 600 /m or die;
like($page, qr/`pgmq\.read_grouped_head\('orders', %s, 1\)`.*?`CALL pgmq\.wait_grouped`/s, 'the page names these changes');
unlink $file, $tries;
PostgreSQL::Test::Utils::append_to_file($file, $worker);
PostgreSQL::Test::Utils::append_to_file($tries, '');
sql(q{SELECT pgmq.create_fifo_index('orders')});
sql(q{SELECT count(*) FROM pgmq.send_batch('orders', ARRAY(
	SELECT jsonb_build_object('n', n, 'kind', CASE WHEN n IN (9, 10) THEN 'fails once' ELSE 'plain' END, 'prices', '[1]'::jsonb)
	  FROM generate_series(1, 60) AS n),
	ARRAY(SELECT jsonb_build_object('x-pgmq-group', n % 3) FROM generate_series(1, 60) AS n))});
keep_workers();
ok_until('groups: all messages are done', sub { left() eq '0' });
my %last;
is_deeply([ grep { my $group = $_ % 3; my $late = $_ < ($last{$group} // 0); $last{$group} = $_; $late } slurp_file($tries) =~ /^try (\d+)$/mg ],
	[], 'groups: in their order');
end_workers('TERM');
is(slurp_file("$dir/err"), '', 'no worker complains');

$node->stop;
done_testing();

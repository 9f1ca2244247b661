# The workers of docs/policies.md, each with its real client.  They do the work once, prolong their leases, keep the
# errors of what has failed, and give back what they have not begun when they are told to stop.  What a killed worker
# had is done by the next one.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use DocExamples;
use IPC::Run ();
use PgmqSql qw(ok_until);
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('token_workers');
$node->init;
$node->start;

sub sql { return $node->safe_psql('postgres', $_[0]); }

sql(q{
	CREATE EXTENSION pgmq;
	CREATE TABLE sales (msg_id bigint PRIMARY KEY, item text);
	SELECT pgmq.create('orders');
	SELECT pgmq.set_policy('orders', retry_delay => '1 hour');
	CREATE FUNCTION wait_to_touch() RETURNS trigger LANGUAGE plpgsql AS $$
	BEGIN
		IF current_query() ~ '^SELECT pgmq.touch_batch' THEN
			PERFORM pg_advisory_xact_lock_shared(1);
		END IF;
		RETURN NULL;
	END $$;
	CREATE TRIGGER wait_to_touch BEFORE UPDATE ON pgmq.q_orders EXECUTE FUNCTION wait_to_touch()});

my $page = DocExamples::page('policies');

# program(language, begin): the worker with leases of two seconds.  Its work takes as long as the message says, which
# is until there is a row in pace with this number: it looks there on a connection of its own.
sql('CREATE TABLE pace (n int)');
sub program
{
	my ($language) = @_;
	my @found = $page =~ /^```\Q$language\E\n(.*?touch_batch.*?)^```/msg;
	my $code = $found[0] // '';

	is(scalar(@found), 1, "$language: there is a worker");
	cmp_ok(scalar(() = $code =~ /\S.*\n/g), '<=', 32, "$language: and it is short");
	$code =~ s/LEASE = 30/LEASE = 2/ or die 'no lease';
	$code =~ s/^def work\(order\):\n\K/    with psycopg.connect(autocommit=True) as conn:
        while not conn.execute("SELECT EXISTS (SELECT FROM pace WHERE n >= %s)", [order.get("pace", 0)]).fetchone()[0]:
            stopped.wait(0.02)
/m;
	$code =~ s/^async function work\(order\) \{\n\K/  const paced = new Client()
  await paced.connect()
  while (!(await paced.query('SELECT FROM pace WHERE n >= \$1', [order.pace ?? 0])).rowCount) await new Promise(done => setTimeout(done, 20))
  await paced.end()
/m;
	return $code;
}

sub start_worker
{
	my ($command, $code) = @_;
	my $worker = { out => '', err => '', file => PostgreSQL::Test::Utils::tempdir() . '/worker' };
	# certificates of this machine, which are perhaps not in a chroot: node complains
	delete local $ENV{NODE_EXTRA_CA_CERTS};
	local %ENV = (%ENV, PGHOST => $node->host, PGPORT => $node->port, PGDATABASE => 'postgres', PGUSER => sql('SELECT current_user'));

	PostgreSQL::Test::Utils::append_to_file($worker->{file}, $code);
	$worker->{run} = IPC::Run::start([ $command, $worker->{file} ], '<', \undef, '>', \$worker->{out}, '2>', \$worker->{err});
	return $worker;
}

sub sales { return sql(q{SELECT coalesce(string_agg(item, ' ' ORDER BY msg_id), '') FROM sales}) }
sub orders { return sql(q{SELECT coalesce(string_agg(concat_ws(' ', message->>'item', read_ct, headers->>'x-pgmq-error', CASE WHEN vt > now() THEN 'hidden' END), ', ' ORDER BY msg_id), '') FROM pgmq.q_orders}) }
sub touches { return sql(qq{SELECT coalesce(string_agg($_[0], ' '), '') FROM pg_stat_activity WHERE query ~ '^SELECT pgmq.touch_batch'}) }
sub lease_of { return sql(qq{SELECT vt FROM pgmq.q_orders WHERE message->>'item' = '$_[0]' AND read_ct = 1}) }

# It has got its signal.  A second one would end an interpreter that is about to exit and has given its handlers back.
sub has_stopped
{
	my ($worker, $name) = @_;

	ok_until("$name: it stops", sub { $worker->{run}->pump_nb if $worker->{run}->pumpable; return !$worker->{run}->pumpable });
	ok($worker->{run}->finish, "$name: it ends well") or diag('exit codes ' . join(' ', $worker->{run}->full_results) . "; $worker->{err}");
	is($worker->{err}, '', "$name: no complaints");
}

foreach my $kind ([ 'psycopg', 'python', '/usr/bin/python3', "'item'" ], [ 'node-postgres', 'js', 'node', q{Cannot read properties of undefined (reading 'trim')} ])
{
	my ($name, $language, $command, $error) = @$kind;
	my $code = program($language);
	my $worker = start_worker($command, $code);

	sql(q{SELECT pgmq.purge_queue('orders'); TRUNCATE sales, pace; INSERT INTO pace VALUES (0)});
	sql(q{SELECT pgmq.send_batch('orders', '{"{\"item\": \"tea\"}","{\"none\": 1}","{\"item\": \"milk\"}"}'::jsonb[])});
	ok_until("$name: two messages are done", sub { sales() eq 'tea milk' });
	ok_until("$name: and the error of the third is kept, for a later retry", sub { orders() eq "1 $error hidden" });
	is(sql(q{SELECT vt > now() + '50 minutes'::interval FROM pgmq.q_orders}), 't', "$name: which the policy delays");

	# Nor does a touch that was running end this delay.  It stops before it has locked a message
	sql(q{SELECT pgmq.purge_queue('orders')});
	sql(q{SELECT pgmq.send('orders', '{"none": 1, "pace": 1}')});
	ok_until("$name: it has a message", sub { orders() eq '1 hidden' });
	my $holder = $node->background_psql('postgres');
	$holder->query_safe('SELECT pg_advisory_lock(1)');
	ok_until("$name: a touch runs", sub { touches('wait_event_type') eq 'Lock' });
	sql('INSERT INTO pace VALUES (1)');
	ok_until("$name: the work is over", sub { sql(q{SELECT count(*) FROM pg_stat_activity WHERE query ~ 'FROM pace' AND pid <> pg_backend_pid()}) eq '0' });
	$holder->quit;
	ok_until("$name: the error is kept", sub { orders() eq "1 $error hidden" });
	ok_until("$name: and the touch has ended", sub { touches('state') ne 'active' });
	is(sql(q{SELECT vt > now() + '50 minutes'::interval FROM pgmq.q_orders}), 't', "$name: the delay is that of the policy");
	sql('DELETE FROM pace WHERE n = 1');

	# Longer than the lease: it is prolonged, also that of a message that waits for its turn
	sql(q{SELECT pgmq.purge_queue('orders'); TRUNCATE sales});
	sql(q{SELECT pgmq.send_batch('orders', '{"{\"item\": \"slow\", \"pace\": 1}","{\"item\": \"next\", \"pace\": 2}"}'::jsonb[])});
	ok_until("$name: it works", sub { orders() eq 'slow 1 hidden, next 1 hidden' });
	foreach my $item ('slow', 'next')
	{
		my $first = lease_of($item);

		ok_until("$name: the lease of $item is over, and prolonged", sub { sql("SELECT clock_timestamp() > '$first'") eq 't' && lease_of($item) gt $first });
	}
	is(sql(q{SELECT count(*) FROM pgmq.read('orders', 60, 10)}), '0', "$name: another worker gets none");
	sql('INSERT INTO pace VALUES (1)');
	ok_until("$name: it is done", sub { sales() eq 'slow' });

	# Killed: what it had is done by another one when the lease is over, and it is a second delivery
	is(orders(), 'next 1 hidden', "$name: it works on the other message");
	$worker->{run}->kill_kill(grace => 0);
	ok_until("$name: killed, it prolongs nothing", sub { orders() eq 'next 1' });
	$worker = start_worker($command, $code);
	ok_until("$name: the message goes to the next worker", sub { orders() eq 'next 2 hidden' });

	# A message that another worker has by now is not finished twice
	sql(q{UPDATE pgmq.q_orders SET read_ct = 3, vt = now() + '1 hour'::interval; INSERT INTO pace VALUES (2)});
	sql(q{SELECT pgmq.send('orders', '{"item": "other", "pace": 2}')});
	ok_until("$name: the worker goes on", sub { sales() =~ /other/ });
	is(sales() . ': ' . orders(), 'slow other: next 3 hidden', "$name: but it does not finish what another one has");

	# Told to stop: it finishes what it works on, and gives the rest back
	sql(q{SELECT pgmq.purge_queue('orders'); TRUNCATE sales});
	sql(q{SELECT pgmq.send_batch('orders', '{"{\"item\": \"last\", \"pace\": 3}","{\"item\": \"left\"}","{\"item\": \"over\"}"}'::jsonb[])});
	ok_until("$name: it has all", sub { orders() eq 'last 1 hidden, left 1 hidden, over 1 hidden' });
	$worker->{run}->signal('TERM');
	sql('INSERT INTO pace VALUES (3)');
	has_stopped($worker, $name);
	is(sales(), 'last', "$name: the last one is done");
	is(orders(), 'left 1, over 1', "$name: the others are free at once");
}

$node->stop;
done_testing();

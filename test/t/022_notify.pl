# What listeners get: every commit is announced, once in an interval, whatever
# senders, the announcer and the server do meanwhile; and the examples of
# docs/waiting.md, each with its client.
use strict;
use warnings;

use File::Basename;
use IPC::Run;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use FindBin;
use lib $FindBin::RealBin;
use PgmqSql qw(ok_until);
use Time::HiRes qw(usleep);

my $HOUR = 3600 * 1000;

my $node = PostgreSQL::Test::Cluster->new('notify');
$node->init(extra => [ '--encoding=UTF8', '--locale=C.UTF-8' ]);
$node->append_conf('postgresql.conf', q{
restart_after_crash = on
wal_level = replica
max_wal_senders = 2
synchronous_commit = local
});
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq');

sub sql { return $node->safe_psql('postgres', $_[0]); }

# A session that listens: {count}{channel}, as far as it has looked
sub listener
{
	my ($db, @channels) = @_;
	my $self = { session => $node->background_psql($db), count => {}, payloads => 0 };

	$self->{session}->query_safe(qq{LISTEN "$_"}) for @channels, 'marker';
	return $self;
}

sub look
{
	my ($listener) = @_;
	my $out = $listener->{session}->query_safe('SELECT 1');

	$listener->{count}{$1}++ while $out =~ /^Asynchronous notification "(.*?)" (?=received|with)/mg;
	$listener->{payloads}++ while $out =~ /" with payload/g;
}

# How many have been sent to a channel up to now.  The server delivers them in
# order, so when a marker has come all have.
sub count_now
{
	my ($listener, $channel) = @_;
	my $markers = $listener->{count}{marker} // 0;
	my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;

	$node->safe_psql($listener->{db} // 'postgres', 'NOTIFY marker');
	while (($listener->{count}{marker} // 0) == $markers && time() < $deadline)
	{
		look($listener);
		usleep(10_000);
	}
	return $listener->{count}{$channel} // 0;
}

sub wait_for
{
	my ($listener, $channel, $count, $what) = @_;

	ok_until($what, sub { look($listener); return ($listener->{count}{$channel} // 0) >= $count });
	is($listener->{count}{$channel}, $count, "$what: and no more");
}

my $ANNOUNCERS = q{SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmq announcer'};

# queue(name, interval): a new queue that notifies, and its channel
sub queue
{
	my ($queue, $interval) = @_;

	sql("SET client_min_messages = error; SELECT pgmq.create('$queue'); SELECT pgmq.enable_notify_insert('$queue', $interval)");
	return "pgmq.q_$queue.INSERT";
}

###################################################### no throttle: each transaction once

{
	my $channel = queue('each', 0);
	my $l = listener('postgres', $channel);

	$node->psql('postgres', join('', ("SELECT pgmq.send('each', '1');\n") x 300));
	is(count_now($l, $channel), 300, '300 transactions are 300 notifications');
	sql("BEGIN; SELECT pgmq.send('each', '1'); SELECT pgmq.send_batch('each', '{1,2}'); SAVEPOINT s; SELECT pgmq.send('each', '1'); COMMIT");
	is(count_now($l, $channel), 301, 'a transaction is announced once');
	sql("SELECT pgmq.send_batch('each', array_fill('1'::jsonb, '{500}'))");
	is(count_now($l, $channel), 302, 'and so is a batch');
	sql("BEGIN; SELECT pgmq.send('each', '1'); ROLLBACK; BEGIN; SAVEPOINT s; SELECT pgmq.send('each', '1'); ROLLBACK TO s; COMMIT");
	sql("INSERT INTO pgmq.q_each (vt, message) SELECT now(), '1' WHERE false");
	sql("SELECT pgmq.read('each', 0, 1); SELECT pgmq.set_vt('each', 1, 0); SELECT pgmq.delete('each', 1)");
	is(count_now($l, $channel), 302, 'nothing that is rolled back, inserts nothing, or does something else');
	is($l->{payloads}, 0, 'there is no payload');
	is(sql($ANNOUNCERS), '0', 'no background worker is needed for this');
	$l->{session}->quit;
}

###################################################### a throttle

{
	my $channel = queue('Slow', $HOUR);
	my $l = listener('postgres', $channel);

	my $open = $node->background_psql('postgres');
	$open->query_safe("BEGIN; SELECT pgmq.send('slow', '1')");
	is(count_now($l, $channel), 0, 'nothing is announced before the commit');
	sql("SELECT pgmq.send('slow', '2')");
	is(count_now($l, $channel), 1, 'the first to commit is announced at once, whoever sent before and is open');
	$open->query_safe("ROLLBACK; BEGIN; SELECT pgmq.send('slow', '3')");
	$node->psql('postgres', join('', ("SELECT pgmq.send('slow', '1');\n") x 50));
	is(count_now($l, $channel), 1, 'the others in the interval are not');
	is(sql(q{SELECT backend_type, datname, usename, state, backend_xmin, backend_xid FROM pg_stat_activity WHERE backend_type LIKE 'pgmq%'}),
		'pgmq announcer|postgres|postgres|idle||', 'a background worker sees to them; it holds no snapshot');
	is(sql("SELECT queue_name FROM pgmq.list_notify_insert_throttles() WHERE last_notified_at > now() - interval '1 h'"),
		"Slow\neach", 'the list shows that listeners were told');
	sql("SELECT pgmq.update_notify_insert('slow', $HOUR)");
	wait_for($l, $channel, 2, 'with a new setting the interval is over, and what waited is announced');
	$open->query_safe('COMMIT');
	is(count_now($l, $channel), 2, 'that is the beginning of an interval');
	sql("SELECT pgmq.enable_notify_insert('slow', $HOUR)");
	wait_for($l, $channel, 3, 'to enable again does the same');

	# The announcer goes when it must, and announces before that
	sql("SELECT pgmq.send('slow', '1')");
	sql(q{SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'pgmq announcer'});
	wait_for($l, $channel, 4, 'a terminated announcer announces what waits');
	ok_until('and goes', sub { sql($ANNOUNCERS) eq '0' });
	sql("SELECT pgmq.send('slow', '1')");
	ok_until('the next silent sender has another one come', sub { sql($ANNOUNCERS) eq '1' });
	is(count_now($l, $channel), 4, 'and stays silent');

	# One that fails is started again, and knows what is to be done
	my $pid = sql(q{SELECT pid FROM pg_stat_activity WHERE backend_type = 'pgmq announcer'});
	sql("SELECT pg_cancel_backend($pid)");
	ok_until('an announcer that was cancelled is started again',
		sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmq announcer' AND pid <> $pid") eq '1' });
	is(count_now($l, $channel), 4, 'it keeps to the interval');
	sql("SELECT pgmq.update_notify_insert('slow', 0)");
	wait_for($l, $channel, 5, 'and announces what its predecessor did not');

	# Disabled: what had been sent before is not forgotten
	sql("SELECT pgmq.update_notify_insert('slow', 500); SELECT pgmq.send('slow', '1')");
	sql("BEGIN; SELECT pgmq.send('slow', '1'); COMMIT; SELECT pgmq.disable_notify_insert('slow'); SELECT pgmq.send('slow', '1')");
	wait_for($l, $channel, 7, 'what was sent before notifications were disabled is announced');
	ok_until('an announcer without work goes by itself', sub { sql($ANNOUNCERS) eq '0' });
	is(count_now($l, $channel), 7, 'and nothing after that');
	$l->{session}->quit;
	$open->quit;
}

###################################################### a commit that takes long

# A silent sender that hangs in its commit can't be seen yet, so what is announced meanwhile
# does not stand for it.  It waits for a standby that never comes.
{
	my $channel = queue('late', $HOUR);
	my $l = listener('postgres', $channel);
	my $standby = sub { sql("ALTER SYSTEM SET synchronous_standby_names = '$_[0]'"); sql('SELECT pg_reload_conf()') };

	sql("SELECT pgmq.send('late', '1')");
	$standby->('nobody');
	my $late = $node->background_psql('postgres');
	ok_until('a session that waits for standbys',
		sub { $late->query_safe('SHOW synchronous_standby_names') =~ /nobody/ });
	sql('CHECKPOINT');			# by the process that tells sessions whether there are any
	$late->query_until(qr/begun/, "\\echo begun\nSET synchronous_commit = on;\nSELECT pgmq.send('late', '\"late\"');\n");
	ok_until('hangs in its commit', sub { sql("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'") eq '1' });
	sql("SELECT pgmq.update_notify_insert('late', $HOUR)");
	is(count_now($l, $channel), 1, 'what has not been committed is not announced');
	sql("SELECT pgmq.send('late', '1')") for 1 .. 2;
	is(count_now($l, $channel), 2, 'others are announced');
	sql("SELECT pgmq.update_notify_insert('late', $HOUR)");
	wait_for($l, $channel, 3, 'by the announcer, too, which waits for no standby');
	$standby->('');
	ok_until('the session commits', sub { sql(q{SELECT count(*) FROM pgmq.q_late WHERE message = '"late"'}) eq '1' });
	sql("SELECT pgmq.update_notify_insert('late', $HOUR)");
	wait_for($l, $channel, 4, 'then its message is announced');
	$late->quit;
	$l->{session}->quit;
}

###################################################### nobody is left unannounced

# A consumer that looks only when it is told must get every message: from senders
# that commit at once, late, and not at all, to several queues, with a short interval.
{
	my $script = PostgreSQL::Test::Utils::tempdir() . '/consumer.py';
	my ($queues, $senders, $sends) = (3, 6, 60);

	queue("burst$_", 40) for 1 .. $queues;
	append_to_file($script, <<'PYTHON');
import random, sys, threading, time
import psycopg

dsn, queues, senders, sends, limit = sys.argv[1], *map(int, sys.argv[2:])
names = ["burst%d" % (i + 1) for i in range(queues)]
sent, got = [], []

def sender(number):
    dice = random.Random(number)
    mine = []
    with psycopg.connect(dsn, autocommit=True) as conn:
        for i in range(sends):
            body = '"%d/%d"' % (number, i)
            outcome = dice.random()
            order = dice.sample(names, dice.randint(1, queues))     # any order: nobody waits
            conn.execute("BEGIN")
            for name in order:
                conn.execute("SELECT pgmq.send(%s, %s)", (name, body))
            if outcome < 0.1:
                time.sleep(0.06)
            if outcome < 0.9:
                conn.execute("COMMIT")
                mine += [(name, body) for name in order]
            else:
                conn.execute("ROLLBACK")
    sent.extend(mine)

with psycopg.connect(dsn, autocommit=True) as conn:
    for name in names:
        conn.execute('LISTEN "pgmq.q_%s.INSERT"' % name)
    threads = [threading.Thread(target=sender, args=(n,)) for n in range(senders)]
    for thread in threads:
        thread.start()
    stop = threading.Timer(limit, conn.cancel)
    done = threading.Thread(target=lambda: ([t.join() for t in threads], finished.set()))
    finished = threading.Event()
    done.start()
    deadline = time.monotonic() + limit
    notifications = 0
    import select
    told = []
    conn.add_notify_handler(told.append)
    while time.monotonic() < deadline and not (finished.is_set() and len(got) >= len(sent)):
        if not told:
            select.select([conn], [], [], 0.2)
            conn.pgconn.consume_input()
            while (n := conn.pgconn.notifies()) is not None:
                told.append(n)
        while told:
            channel = told.pop(0)
            channel = getattr(channel, "channel", None) or channel.relname.decode()
            notifications += 1
            name = channel.split("_")[1].split(".")[0]
            while True:
                rows = conn.execute("SELECT message FROM pgmq.pop(%s, 100)", (name,)).fetchall()
                got += [(name, '"%s"' % row[0]) for row in rows]
                if not rows:
                    break
print("%d notifications for %d messages" % (notifications, len(sent)))
print("same" if sorted(sent) == sorted(got) else "missing: %s" % (set(sent) - set(got)))
PYTHON
	my $out = '';
	my $err = '';
	IPC::Run::run([ '/usr/bin/python3', $script, $node->connstr('postgres'), $queues, $senders, $sends,
			$PostgreSQL::Test::Utils::timeout_default ], '>', \$out, '2>', \$err);
	like($out, qr/^same$/m, 'who reads only when told gets every message') or diag("$out$err");
	note($out);
}

###################################################### more queues than there are slots

{
	my $n = 80;
	sql("SET client_min_messages = error; SELECT pgmq.create('m' || i), pgmq.enable_notify_insert('m' || i, 50) FROM generate_series(1, $n) AS i");
	my $l = listener('postgres', map { "pgmq.q_m$_.INSERT" } 1 .. $n);
	my $all = "SELECT pgmq.send('m' || i, '1') FROM generate_series(1, $n) AS i";
	my $told = sub { my ($times) = @_; look($l); return !grep { ($l->{count}{"pgmq.q_m$_.INSERT"} // 0) < $times } 1 .. $n };

	sql($all);
	ok_until("$n queues in one transaction: all are announced", sub { $told->(1) });
	sql($all);
	ok_until('and all again', sub { $told->(2) });
	$l->{session}->quit;
	sql("SELECT pgmq.drop_queue('m' || i) FROM generate_series(1, $n) AS i");
}

###################################################### names and partitions

{
	my $mixed = queue('Größe "q"', 0);
	queue('Parts', 0);
	sql(q{DROP TABLE pgmq.q_parts;
		CREATE TABLE pgmq.q_parts (LIKE pgmq.a_parts INCLUDING DEFAULTS) PARTITION BY RANGE (msg_id);
		ALTER TABLE pgmq.q_parts DROP archived_at;
		ALTER TABLE pgmq.q_parts ALTER msg_id ADD GENERATED BY DEFAULT AS IDENTITY;
		CREATE TABLE pgmq.q_parts_p0 PARTITION OF pgmq.q_parts FOR VALUES FROM (1) TO (3);
		CREATE TABLE pgmq.q_parts_p1 PARTITION OF pgmq.q_parts FOR VALUES FROM (3) TO (9);
		SELECT pgmq.enable_notify_insert('PARTS', 0)});
	(my $quoted = $mixed) =~ s/"/""/g;
	my $l = listener('postgres', $quoted, 'pgmq.q_Parts.INSERT', 'pgmq.q_parts.INSERT');

	sql(q{SELECT pgmq.send('GRÖßE "Q"', '1')});
	$l->{session}->query_safe('SELECT 1');
	is(sql(q{SELECT count(*) FROM pgmq.list_notify_insert_throttles() WHERE queue_name = 'Größe "q"' AND last_notified_at > to_timestamp(0)}),
		'1', 'a name in mixed case, with a space, quotes and letters that are not ASCII');
	sql("SELECT pgmq.send('parts', '1')");
	is(count_now($l, 'pgmq.q_Parts.INSERT'), 1, 'a partitioned queue');
	sql("SELECT pgmq.send_batch('parts', '{1,2,3}')");
	is(count_now($l, 'pgmq.q_Parts.INSERT'), 2, 'several partitions in one statement');

	# as an older version has it: a row trigger, cloned to the partitions, with and without the name
	sql(q{DROP TRIGGER trigger_notify_queue_insert_listeners ON pgmq.q_parts;
		CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_parts
		DEFERRABLE FOR EACH ROW EXECUTE PROCEDURE pgmq.notify_queue_listeners('Parts');
		SELECT pgmq.send('parts', '1')});
	is(count_now($l, 'pgmq.q_Parts.INSERT'), 3, 'the trigger of an older version, on a partition');
	sql(q{DROP TRIGGER trigger_notify_queue_insert_listeners ON pgmq.q_parts;
		CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_parts
		DEFERRABLE FOR EACH ROW EXECUTE PROCEDURE pgmq.notify_queue_listeners();
		UPDATE pgmq.notify_insert_throttle SET throttle_interval_ms = 1 WHERE queue_name = 'Parts';
		SELECT pgmq.send('parts', '1')});
	is(count_now($l, 'pgmq.q_parts.INSERT'), 1, 'and one without the name goes by that of the table');
	$l->{session}->quit;
}

###################################################### more channels than slots

{
	# Without preloading PostgreSQL 15 has room for 32.  Queues that nobody sends to any more must not keep it from others.
	sql(qq{SET client_min_messages = error;
		SELECT count(*) FROM (SELECT pgmq.create('many' || i), pgmq.enable_notify_insert('many' || i, $HOUR)
			FROM generate_series(1, 64) i OFFSET 0) made});
	sql("SELECT pgmq.send('many' || i, '1') FROM generate_series(1, 64) i");
	my $channel = queue('after_many', $HOUR);
	my $l = listener('postgres', $channel);
	sql("SELECT pgmq.send('after_many', '1')") for 1 .. 3;
	is(count_now($l, $channel), 1, 'after many others, a queue has its throttle');
	sql("SELECT pgmq.update_notify_insert('after_many', 0)");
	wait_for($l, $channel, 2, 'and an announcer');
	$l->{session}->quit;
}

###################################################### databases come and go

{
	my $db_up = sub {
		my ($db) = @_;
		sql("CREATE DATABASE $db");
		$node->safe_psql($db, "CREATE EXTENSION pgmq; SELECT pgmq.create('x'); SELECT pgmq.enable_notify_insert('x', $HOUR);");
		$node->safe_psql($db, "SELECT pgmq.send('x', '1')") for 1 .. 2;
		ok_until("$db: the announcer has come",
			sub { sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'pgmq announcer' AND datname = '$db'") eq '1' });
	};

	$db_up->('gone');
	sql('DROP DATABASE gone');
	pass('a database can be dropped although its announcer has an hour to wait');
	$db_up->('forced');
	sql('DROP DATABASE forced WITH (FORCE)');
	pass('or at once');
	$db_up->('copied');
	sql('CREATE DATABASE copy TEMPLATE copied');
	$node->safe_psql('copied', "SELECT pgmq.send('x', '1')");
	sql('ALTER DATABASE copied RENAME TO renamed');
	pass('or copied, or renamed');
	is($node->safe_psql('copy', 'SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles()'),
		"x|$HOUR", 'the copy has the settings');
	# A listener that ends while the server writes to it is the test's own doing
	unlike(slurp_file($node->logfile), qr/FATAL:(?!  connection to client lost)/, 'all this without noise in the log');
}

###################################################### dump and restore, crashes

{
	my $file = PostgreSQL::Test::Utils::tempdir() . '/dump.sql';
	$node->command_ok([ 'pg_dump', '-f', $file, '-d', $node->connstr('renamed') ], 'dumped');
	sql('CREATE DATABASE restored');
	$node->command_ok(
		[ 'psql', '-Xq', '-v', 'ON_ERROR_STOP=1', '-o', "$file.out", '-f', $file, '-d', $node->connstr('restored') ], 'restored');
	my $l = listener('restored', 'pgmq.q_x.INSERT');
	$l->{db} = 'restored';
	$node->safe_psql('restored', "SELECT pgmq.send('x', '1')") for 1 .. 3;
	is(count_now($l, 'pgmq.q_x.INSERT'), 1, 'the restored queue notifies, with its throttle');
	$l->{session}->quit;

	my $before = sql('SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles()');
	$node->stop('immediate');
	$node->start;
	is(sql('SELECT queue_name, throttle_interval_ms FROM pgmq.list_notify_insert_throttles()'), $before,
		'a crash leaves the settings');
	$l = listener('restored', 'pgmq.q_x.INSERT');
	$l->{db} = 'restored';
	$node->safe_psql('restored', "SELECT pgmq.send('x', '1')") for 1 .. 3;
	is(count_now($l, 'pgmq.q_x.INSERT'), 1, 'and notifications go on');
	# A backend dies hard: the server starts anew, with other shared memory, and the announcer too
	my $victim = $node->background_psql('postgres', on_error_stop => 0);
	my $pid = $victim->query_safe('SELECT pg_backend_pid()');
	$victim->{run}{IN} = undef;
	kill 'KILL', $pid;
	ok_until('the server starts anew', sub { slurp_file($node->logfile) =~ /all server processes terminated; reinitializing/ });
	$node->poll_query_until('postgres', 'SELECT true');
	$l = listener('restored', 'pgmq.q_x.INSERT');
	$l->{db} = 'restored';
	$node->safe_psql('restored', "SELECT pgmq.send('x', '1')") for 1 .. 3;
	is(count_now($l, 'pgmq.q_x.INSERT'), 1, 'and notifications go on, with the throttle');
	$node->safe_psql('restored', "SELECT pgmq.update_notify_insert('x', 0)");
	wait_for($l, 'pgmq.q_x.INSERT', 2, 'and with an announcer');
	$l->{session}->quit;
}

###################################################### where nothing can be left to an announcer

{
	$node->append_conf('postgresql.conf', "max_worker_processes = 0\n");
	$node->restart;
	my $channel = queue('alone', $HOUR);
	my $l = listener('postgres', $channel);
	$node->psql('postgres', join('', ("SELECT pgmq.send('alone', '1');\n") x 5));
	is(count_now($l, $channel), 5, 'without a background worker every commit is announced');
	like(slurp_file($node->logfile), qr/LOG:  pgmq cannot start a background worker, so it does not throttle notifications/,
		'the log says so');
	$l->{session}->quit;

	$node->append_conf('postgresql.conf', "max_worker_processes = 8\nshared_preload_libraries = 'pgmq'\n");
	$node->restart;
	$l = listener('postgres', $channel);
	$node->psql('postgres', join('', ("SELECT pgmq.send('alone', '1');\n") x 5));
	is(count_now($l, $channel), 1, 'preloaded: one is announced');
	sql("SELECT pgmq.update_notify_insert('alone', 0)");
	wait_for($l, $channel, 2, 'preloaded: and then the others');
	$l->{session}->quit;
}

###################################################### the examples

# example(language): the block of docs/waiting.md that listens, with such a time limit that
# only a notification can end a wait
sub example
{
	my ($language) = @_;
	my $page = slurp_file(dirname(__FILE__) . '/../../docs/waiting.md');
	my @found = grep { /LISTEN/ } $page =~ /^```\Q$language\E\n(.*?)^```/msg;

	is(scalar(@found), 1, "$language: there is an example");
	$found[0] =~ s/\b30 \* 1000\b/$HOUR/;
	$found[0] =~ s/\[\], 30\)/[], 3600)/;
	return $found[0];
}

queue('orders', 0);
{
	my $session = $node->background_psql('postgres');
	my ($listen, @rest) = split /(?<=;)\n/, example('sql');
	$session->query_safe($listen);
	is($session->query_safe(shift @rest), '', 'psql: nothing is there');
	sql(q{SELECT pgmq.send('orders', '"for psql"')});
	ok_until('psql: the notification is shown', sub { $session->query_safe($rest[0]) =~ /^Asynchronous notification "pgmq.q_orders.INSERT" received from server process with PID \d+\.$/m });
	$session->quit;
	sql("SELECT pgmq.purge_queue('orders')");
}
foreach ([ 'python', [ '/usr/bin/python3' ], 'consumer.py' ], [ 'js', ['node'], 'consumer.js' ])
{
	my ($language, $command, $name) = @$_;
	my $file = PostgreSQL::Test::Utils::tempdir() . "/$name";
	my ($out, $err) = ('', '');

	append_to_file($file, example($language));
	local $ENV{PGHOST} = $node->host;
	local $ENV{PGPORT} = $node->port;
	local $ENV{PGDATABASE} = 'postgres';
	local $ENV{PGUSER} = sql('SELECT current_user');
	delete local $ENV{NODE_EXTRA_CA_CERTS};		# of this machine, perhaps not in a chroot: node complains
	my $client = IPC::Run::start([ @$command, $file ], '<', \undef, '>', \$out, '2>', \$err);
	# It reads once, finds nothing, and waits
	$node->poll_query_until('postgres',
		q{SELECT count(*) = 1 FROM pg_stat_activity WHERE query LIKE 'SELECT msg_id, message FROM pgmq.read%' AND state = 'idle'})
	  or diag($err);
	foreach my $n (1 .. 3)
	{
		sql(qq{SELECT pgmq.send('orders', '"$n for $language"')});
		ok_until("$language: message $n is handed out when it comes",
			sub { $client->pump_nb; return $out =~ /^$n for $language$/m });
	}
	ok_until("$language: and deleted", sub { sql('SELECT count(*) FROM pgmq.q_orders') eq '0' });
	$client->kill_kill;
	is($err, '', "$language: no complaints");
}

$node->stop;
done_testing();

# Crashes under load: what a client was told is true afterwards, no lease is
# broken, and an unlogged queue is empty, usable and goes on counting.
#
# Clients are psql scripts that write down what they were told, each answer after
# its transaction has committed, and before every commit that removes messages
# what it is about to remove: of that, a crash may leave either outcome.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('crash');
$node->init;
$node->append_conf('postgresql.conf', qq(
log_statement = none
autovacuum_naptime = 1s
));
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('work');
	SELECT pgmq.create('kept');
	SELECT pgmq.send_unique('kept', '1', 'key', '1 day');
	SELECT pgmq.create_unlogged('fast')});

my $dir = PostgreSQL::Test::Utils::tempdir();

# Seconds of a lease, and what the script of each kind of client repeats.  KEY differs
# from one repetition and client to the next.
my $LEASE = 2;
my %repeat = (
	# one message at a time
	sender => q{
SELECT pgmq.send('work', '{"key": KEY}') AS id \gset
\echo sent :id KEY
},
	# many, some of them rolled back, some in a longer transaction
	batcher => q{
SELECT array_agg(s) AS ids FROM pgmq.send_batch('work', '{KEY,KEY,KEY,KEY,KEY}'::jsonb[]) AS s \gset
\echo sent_batch :ids KEY
BEGIN;
SELECT pgmq.send('work', '"rolled back"') AS none \gset
ROLLBACK;
BEGIN;
SELECT pgmq.send('work', 'KEY') AS one \gset
SELECT pgmq.send('work', 'KEY', 1) AS two \gset
COMMIT;
\echo sent_batch {:one,:two} KEY
},
	# reads one, deletes it
	deleter => q{
SELECT coalesce(string_agg(msg_id || '/' || READ || '/' || VT, ' '), 'nothing') AS got,
       coalesce(max(msg_id), 0) AS id FROM pgmq.read('work', LEASE, 1) \gset
\echo read :got
\echo removing {:id}
SELECT pgmq.delete('work', :id) AS done \gset
\echo deleted :done {:id}
},
	# reads several and archives some; the others come back when their lease ends
	archiver => q{
SELECT coalesce(string_agg(msg_id || '/' || READ || '/' || VT, ' '), 'nothing') AS got,
       coalesce(array_agg(msg_id) FILTER (WHERE msg_id % 3 > 0), '{}') AS ids FROM pgmq.read('work', LEASE, 10) \gset
\echo read :got
\echo removing :ids
SELECT coalesce(array_agg(a), '{}') AS done FROM pgmq.archive('work', :'ids'::bigint[]) AS a \gset
\echo archived :done
},
	# the same in one transaction, which is given up every other time
	transactor => q{
BEGIN;
SELECT coalesce(string_agg(msg_id || '/' || READ || '/' || VT, ' '), 'nothing') AS got,
       coalesce(array_agg(msg_id), '{}') AS ids FROM pgmq.read('work', LEASE, 3) \gset
ROLLBACK;
BEGIN;
SELECT coalesce(string_agg(msg_id || '/' || READ || '/' || VT, ' '), 'nothing') AS got,
       coalesce(array_agg(msg_id), '{}') AS ids FROM pgmq.read('work', LEASE, 3) \gset
SELECT coalesce(array_agg(a), '{}') AS done FROM pgmq.archive('work', :'ids'::bigint[]) AS a \gset
\echo removing :ids
COMMIT;
\echo read :got
\echo archived :done
},
	# One client alone sends to the unlogged queue.  A commit that has written
	# nothing but unlogged rows does not wait for the log, and so not for another
	# session's step of the sequence either.
	fast => q{
SELECT pgmq.send('fast', 'KEY') AS id \gset
\echo fast :id
SELECT max(s) AS id FROM pgmq.send_batch('fast', '{KEY,KEY,KEY}'::jsonb[]) AS s \gset
\echo fast :id
},
	fast_archiver => q{
SELECT coalesce(array_agg(msg_id), '{}') AS ids FROM pgmq.read('fast', 30, 5) \gset
SELECT coalesce(max(a), 0) AS id FROM pgmq.archive('fast', :'ids'::bigint[]) AS a \gset
\echo fast :id
});

# Repetitions in a script; it then starts over, until the crash
my $REPETITIONS = 5_000;
my $next_key = 1;
my @clients;

# start_client(kind): a psql that works until the server goes
sub start_client
{
	my ($kind) = @_;
	my $client = { kind => $kind, log => "$dir/$kind.$next_key.log", err => '' };
	my $text = $repeat{$kind};
	my %column = (READ => 'last_read_at', VT => 'vt');
	my $script = "$dir/$kind.$next_key.sql";

	$text =~ s/\b(READ|VT)\b/(extract(epoch FROM $column{$1}) * 1000000)::bigint/g;
	$text =~ s/\bLEASE\b/$LEASE/g;
	open(my $fh, '>', $script) or die "$script: $!";
	foreach my $key ($next_key .. $next_key + $REPETITIONS - 1)
	{
		(my $block = $text) =~ s/\bKEY\b/$key/g;
		print $fh $block;
	}
	print $fh "\\i $script\n";
	close $fh;
	$next_key += $REPETITIONS;
	$client->{run} = IPC::Run::start(
		[ $node->installed_command('psql'), '-XAtq', '-v', 'ON_ERROR_STOP=1',
			'-d', $node->connstr('postgres'), '-f', $script ],
		'<', \undef, '>', $client->{log}, '2>', \$client->{err},
		IPC::Run::timeout($PostgreSQL::Test::Utils::timeout_default));
	push @clients, $client;
	return $client;
}

# What the clients were told, of all runs so far
my %told = (
	sent => {},        # msg_id => key
	archived => {},    # msg_id => 1
	deleted => {},
	unknown => {},     # somebody was removing it when the server went
	reads => {},       # msg_id => [[time of the read, end of the lease], ...]
	fast => 0);        # highest id of the unlogged queue

sub read_log
{
	my ($client) = @_;
	my @removing;
	my @lines = split /\n/, slurp_file($client->{log});

	# A server that is told to go at once sends what it has, and that may be a result without the word that
	# the query is done.  psql shows such a result, where \gset would have taken it, and ends.  The client has
	# been told nothing: it does not know whether there was a commit.
	pop @lines if @lines && $lines[-1] !~ /^(sent|sent_batch|removing|archived|deleted|read|fast)\b/;
	foreach my $line (@lines)
	{
		my ($what, @words) = split / /, $line;

		if ($what eq 'sent') { $told{sent}{ $words[0] } = $words[1]; }
		elsif ($what eq 'sent_batch') { $told{sent}{$_} = $words[1] for $words[0] =~ /\d+/g; }
		elsif ($what eq 'removing') { @removing = $line =~ /\d+/g; }
		elsif ($what eq 'archived') { $told{archived}{$_} = 1 for $line =~ /\d+/g; @removing = (); }
		elsif ($what eq 'deleted')
		{
			$told{deleted}{$_} = 1 for $words[0] eq 't' ? $words[1] =~ /\d+/g : ();
			@removing = ();
		}
		elsif ($what eq 'read')
		{
			next if $words[0] eq 'nothing';
			foreach my $word (@words)
			{
				my ($id, $read, $vt) = split m{/}, $word;
				push @{ $told{reads}{$id} }, [ $read, $vt ];
			}
		}
		elsif ($what eq 'fast') { $told{fast} = $words[0] if $words[0] > $told{fast}; }
		else { die "$client->{log}: $line"; }
	}
	$told{unknown}{$_} = 1 for @removing;
}

# Everything that the clients were told must be so
sub check
{
	my ($when) = @_;
	my (%queue, %archive, %vt);
	my (@lost, @undead, @changed, @broken, @forgotten);
	my $again = 0;

	foreach my $row (split /\n/, $node->safe_psql('postgres',
			q{SELECT msg_id, regexp_replace(message::text, '\D', '', 'g'), (extract(epoch FROM vt) * 1000000)::bigint
			    FROM pgmq.q_work}))
	{
		my ($id, $key, $vt) = split /\|/, $row;
		$queue{$id} = $key;
		$vt{$id} = $vt;
	}
	foreach my $row (split /\n/, $node->safe_psql('postgres',
			q{SELECT msg_id, regexp_replace(message::text, '\D', '', 'g') FROM pgmq.a_work}))
	{
		my ($id, $key) = split /\|/, $row;
		$archive{$id} = $key;
	}

	foreach my $id (keys %{ $told{sent} })
	{
		my $key = $queue{$id} // $archive{$id};

		if (defined $key) { push @changed, $id if $key != $told{sent}{$id}; }
		else { push @lost, $id unless $told{deleted}{$id} || $told{unknown}{$id}; }
	}
	push @undead, grep { exists $queue{$_} || !exists $archive{$_} } keys %{ $told{archived} };
	push @undead, grep { exists $queue{$_} || exists $archive{$_} } keys %{ $told{deleted} };
	push @undead, grep { exists $queue{$_} } keys %archive;
	foreach my $id (keys %{ $told{reads} })
	{
		my $lease_end = 0;

		foreach my $read (sort { $a->[0] <=> $b->[0] } @{ $told{reads}{$id} })
		{
			push @broken, $id if $read->[0] < $lease_end;
			$lease_end = $read->[1];
		}
		push @forgotten, $id if exists $vt{$id} && $vt{$id} < $lease_end;
		$again += @{ $told{reads}{$id} } > 1;
	}
	is("@lost", '', "$when: no message is lost");
	is("@changed", '', "$when: every message is what was sent");
	is("@undead", '', "$when: what was archived or deleted is so");
	is("@broken", '', "$when: no message was handed out twice within its lease");
	is("@forgotten", '', "$when: no lease is forgotten");
	is($node->safe_psql('postgres',
			q{SELECT count(*) FROM (SELECT message FROM pgmq.q_work UNION ALL SELECT message FROM pgmq.a_work) AS m
			   WHERE message = '"rolled back"'}),
		'0', "$when: nothing that was rolled back is there");
	# Without these the above would prove little
	cmp_ok($again, '>', 20, "$when: messages were handed out again after their lease");
	note(sprintf('%s: %d sent, %d archived, %d deleted, %d read, %d of them again, %d unknown', $when,
			(map { scalar keys %{ $told{$_} } } qw(sent archived deleted reads)), $again, scalar keys %{ $told{unknown} }));
	cmp_ok(scalar(keys %{ $told{$_} }), '>', 500, "$when: clients were at work: $_") for qw(sent archived deleted reads);
}

sub check_unlogged
{
	my ($when) = @_;
	my $archived = $node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.a_fast');

	is($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_fast'), '0', "$when: the unlogged queue is empty");
	cmp_ok($archived, '>', 100, "$when: its archive is not");
	my $first = $node->safe_psql('postgres', "SELECT pgmq.send('fast', '0')");
	cmp_ok($first, '>', $told{fast}, "$when: its ids go on");
	$told{fast} = $first;
	is($node->safe_psql('postgres', "SELECT msg_id, message FROM pgmq.read('fast', 10, 1)"), "$first|0",
		"$when: it can be read");
	is($node->safe_psql('postgres', "SELECT is_duplicate FROM pgmq.send_unique('fast', '0', 'key', '1 day')"), 'f', "$when: its keys are gone");
	is($node->safe_psql('postgres', "SELECT * FROM pgmq.send_unique('kept', '0', 'key', '1 day')"), '1|t',
		"$when: those of another queue are not");
	$node->safe_psql('postgres', "SELECT pgmq.send_batch('fast', array_fill('0'::jsonb, '{98}'))");
	is($node->safe_psql('postgres',
			"SELECT count(*) FROM pgmq.archive('fast', ARRAY(SELECT msg_id FROM pgmq.q_fast))"),
		'100', "$when: its archive takes the new messages");
	is($node->safe_psql('postgres', 'SELECT count(*), count(DISTINCT msg_id) FROM pgmq.a_fast'),
		join('|', ($archived + 100) x 2), "$when: nothing in the archive was replaced");
	is($node->safe_psql('postgres', "SELECT is_unlogged FROM pgmq.list_queues() WHERE queue_name = 'fast'"), 't',
		"$when: it is still unlogged");
}

# crash(round): work until there has been enough of everything, then the server goes
sub crash
{
	my ($round) = @_;
	my ($archived, $last) = split /\|/, $node->safe_psql('postgres',
		'SELECT (SELECT count(*) FROM pgmq.a_work), last_value FROM pgmq.q_work_msg_id_seq');

	@clients = ();
	start_client($_) for qw(sender sender batcher deleter deleter archiver archiver transactor fast fast_archiver);
	ok($node->poll_query_until('postgres', qq{
			SELECT (SELECT count(*) FROM pgmq.a_work) > $archived + 2000
			   AND (SELECT count(*) FROM pgmq.a_work WHERE read_ct > 1) > 100 * $round
			   AND (SELECT last_value FROM pgmq.q_work_msg_id_seq) > $last + 5000
			   AND (SELECT count(*) FROM pgmq.a_fast) > 200 * $round
			   AND (SELECT count(*) FROM pgmq.q_fast) > 10}), "crash $round: the load is on");
	$node->stop('immediate');
	foreach my $client (@clients)
	{
		$client->{run}->finish;
		ok( $client->{err} =~ /server closed the connection|connection to server was lost/ && $client->{err} !~ /ERROR:/,
			"crash $round: a $client->{kind} worked without error until the server went")
		  or diag($client->{err});
		read_log($client);
	}
	$node->start;
	like(slurp_file($node->logfile), qr/database system was not properly shut down/, "crash $round: it was one")
	  if $round == 1;
	check("after crash $round");
	check_unlogged("after crash $round");
}

crash(1);
crash(2);

# What is left is handed out, each message when its lease is over, and not before:
# the reads go on until the queue is empty, and are held against all that went before.
cmp_ok($node->safe_psql('postgres', 'SELECT count(*) FROM pgmq.q_work'), '>', 0, 'there are messages left');
my $drain = $node->background_psql('postgres');
$drain->query_safe('CREATE TEMPORARY TABLE got (LIKE pgmq.message_record)');
my $deadline = time() + $PostgreSQL::Test::Utils::timeout_default;
my $left;
do
{
	$drain->query_safe(q{INSERT INTO got SELECT * FROM pgmq.read_with_poll('work', 60, 5000, 1)});
	$drain->query_safe(q{SELECT count(*) FROM pgmq.archive('work', ARRAY(SELECT msg_id FROM got))});
	$left = $drain->query_safe('SELECT count(*) FROM pgmq.q_work');
} while ($left > 0 && time() < $deadline);
is($left, '0', 'all that was left could be read');
foreach my $row (split /\n/, $drain->query_safe(q{
	SELECT msg_id, (extract(epoch FROM last_read_at) * 1000000)::bigint, (extract(epoch FROM vt) * 1000000)::bigint FROM got}))
{
	my ($id, $read, $vt) = split /\|/, $row;
	push @{ $told{reads}{$id} }, [ $read, $vt ];
	$told{archived}{$id} = 1;
}
$drain->quit;
check('drained');

$node->stop;
done_testing();

# A standby shows queues and refuses to change them; what its sessions do there
# moves nothing that outlives a promotion, after which every message is handed
# out, once.  And a subscriber of a queue's table gets what is sent.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $primary = PostgreSQL::Test::Cluster->new('primary');
$primary->init(allows_streaming => 'logical');
$primary->append_conf('postgresql.conf', qq(
log_statement = none
# what was written around the functions is not looked for: lost here is lost
pgmq.rescan_interval = 1d
max_prepared_transactions = 5
));
$primary->start;
$primary->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('work');
	SELECT pgmq.create_unlogged('scratch');
	SELECT pgmq.send_batch('work', array_fill('"old"'::jsonb, '{20}'));
	SELECT pgmq.read('work', 3600, 5);
	SELECT pgmq.archive('work', 1)});
$primary->backup('copy');
my $standby = PostgreSQL::Test::Cluster->new('standby');
$standby->init_from_backup($primary, 'copy', has_streaming => 1);
$standby->start;

sub replayed { $primary->wait_for_catchup($standby) }

# What can be seen there
$primary->safe_psql('postgres', q{SELECT pgmq.create('later'); SELECT pgmq.send('work', '"seen"')});
replayed();
is($standby->safe_psql('postgres', 'SELECT queue_name, is_unlogged FROM pgmq.list_queues()'),
	"later|f\nscratch|t\nwork|f", 'standby: queues are listed');
# The sequence is logged ahead: a standby may believe that a few more were sent
is($standby->safe_psql('postgres', q{SELECT queue_length, queue_visible_length, total_messages BETWEEN 21 AND 21 + 32 FROM pgmq.metrics('work')}),
	'20|16|t', 'standby: metrics');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pgmq.peek('work', NULL)}), '20', 'standby: peek');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pgmq.peek('work', 5, '{}', ARRAY(SELECT msg_id FROM pgmq.q_work ORDER BY 1 LIMIT 3))}), '3', 'standby: peek at some');
is($standby->safe_psql('postgres', q{SELECT queue, ready, delayed + in_flight, paused, archived IS NOT NULL FROM pgmq.queue_status() ORDER BY 1}),
	"later|0|0|f|t\nwork|16|4|f|t", 'standby: the state of queues');

# What is refused, with the server's own error; and again, when the session has seen it all
my %refused = (
	send => q{pgmq.send('work', '1')},
	send_batch => q{pgmq.send_batch('work', '{1,2}')},
	read => q{pgmq.read('work', 30, 1)},
	read_with_poll => q{pgmq.read_with_poll('work', 30, 1, 5)},
	read_where => q{pgmq.read('work', 30, 1, '{"a": 1}')},
	pop => q{pgmq.pop('work')},
	delete => q{pgmq.delete('work', 6)},
	archive => q{pgmq.archive('work', 6)},
	archive_array => q{pgmq.archive('work', '{6,7}'::bigint[])},
	set_vt => q{pgmq.set_vt('work', 6, 30)},
	ack => q{pgmq.ack('work', 6, 1)},
	ack_archive => q{pgmq.ack_archive('work', 6, 1)},
	nack => q{pgmq.nack('work', 6, 1)},
	release => q{pgmq.release_batch('work', '{6}', '{1}')},
	touch => q{pgmq.touch('work', 6, 1, 30)},
	next => q{pgmq.next('work', 30, 1, '{6}', '{1}')},
	dead_letter => q{pgmq.dead_letter('work', 6, 1)},
	create => q{pgmq.create('more')},
	drop_queue => q{pgmq.drop_queue('later')},
	purge_queue => q{pgmq.purge_queue('work')});
foreach my $name (sort keys %refused)
{
	my ($stdout, $stderr);

	$standby->psql('postgres', "\\set VERBOSITY verbose\n" . "SELECT $refused{$name};\n" x 2, stdout => \$stdout, stderr => \$stderr, on_error_stop => 0);
	my @states = $stderr =~ /ERROR:  (\w+): cannot /g;
	is("$stdout@states", '25006 25006', "standby: $name is refused") or diag($stderr);
}
my ($out, $err);
$standby->psql('postgres', "\\set VERBOSITY verbose\nSELECT * FROM pgmq.metrics('scratch')", stderr => \$err, on_error_stop => 0);
like($err, qr/ERROR:  0A000: cannot access temporary or unlogged relations during recovery/, 'standby: an unlogged queue says why it cannot be seen');

# Sessions that ask the standby for messages, while their senders are still at
# work on the primary.  Were a floor or mark kept there, messages that are
# committed later would lie in front of it for ever.
my $reader = $standby->background_psql('postgres', on_error_stop => 0);
my $late = $primary->background_psql('postgres');
$late->query_safe(q{BEGIN; SELECT pgmq.send('work', '"late"')});
$late->query_safe(q{SELECT pgmq.send('work', '"late, delayed"', 0)});
$primary->safe_psql('postgres', q{
	BEGIN; SELECT pgmq.send('work', '"prepared"'); PREPARE TRANSACTION 'p'});
$primary->safe_psql('postgres', q{SELECT pgmq.send_batch('work', array_fill('"after"'::jsonb, '{40}'))});
# leases that run out later: nothing of them is due now
$primary->safe_psql('postgres', q{
	SELECT pgmq.set_vt('work', ARRAY(SELECT msg_id FROM pgmq.q_work WHERE vt = enqueued_at AND message <> '"after"'), 3600)});
replayed();
# more than once, with time between, so that a candidate would count
foreach my $try (1 .. 6)
{
	$reader->query(q{SELECT count(*) FROM pgmq.read('work', 0, 30)});
	$reader->query(q{SELECT count(*) FROM pgmq.pop('work', 100)});
	$reader->query(q{SELECT pgmq.rescan('work')}) if $try == 1;
	$reader->query(q{SELECT pg_sleep(0.06)});
}
$late->query_safe('COMMIT');
$primary->safe_psql('postgres', q{COMMIT PREPARED 'p'});
# messages come back while nobody on the standby can know of it
$primary->safe_psql('postgres', q{SELECT pgmq.set_vt('work', ARRAY(SELECT msg_id FROM pgmq.q_work WHERE message IN ('"old"', '"seen"')), 0)});
replayed();

# Promotion: the same sessions go on
my $there = $primary->safe_psql('postgres', 'SELECT msg_id, read_ct, vt, message FROM pgmq.q_work ORDER BY msg_id');
$primary->stop('immediate');
$standby->promote;
is($standby->safe_psql('postgres', 'SELECT msg_id, read_ct, vt, message FROM pgmq.q_work ORDER BY msg_id'), $there,
	'promoted: all messages and leases are there');
$reader->query('CREATE TEMP TABLE got (msg_id bigint, message jsonb)');
$reader->query(q{INSERT INTO got SELECT msg_id, message FROM pgmq.read('work', 3600, 3)}) foreach 1 .. 40;
is($reader->query(q{SELECT message, count(*), count(DISTINCT msg_id) FROM got GROUP BY 1 ORDER BY 1}),
	$standby->safe_psql('postgres', q{SELECT message, count(*), count(*) FROM pgmq.q_work GROUP BY 1 ORDER BY 1}),
	'promoted: a session from before reads every message, once');
is($standby->safe_psql('postgres', q{SELECT count(*) FROM pgmq.read('work', 3600, 1000)}), '0', 'promoted: there are no others');
my $highest = $standby->safe_psql('postgres', 'SELECT greatest((SELECT max(msg_id) FROM pgmq.q_work), (SELECT max(msg_id) FROM pgmq.a_work))');
cmp_ok($standby->safe_psql('postgres', q{SELECT pgmq.send('work', '"new"')}), '>', $highest, 'promoted: ids go on');
is($standby->safe_psql('postgres', q{SELECT message FROM pgmq.pop('work')}), '"new"', 'promoted: it can be read');
is($standby->safe_psql('postgres', q{SELECT pgmq.send('scratch', '1') > 0, (SELECT count(*) FROM pgmq.q_scratch)}), 't|0',
	'promoted: the unlogged queue can be used');
$reader->quit;
$late->quit;

# Logical replication: a copy of a queue's table, from which nothing is read
my $copy = PostgreSQL::Test::Cluster->new('copy');
$copy->init;
$copy->start;
$copy->safe_psql('postgres', q{CREATE EXTENSION pgmq; SELECT pgmq.create('work')});
$standby->safe_psql('postgres', 'CREATE PUBLICATION messages FOR TABLE pgmq.q_work');
$copy->safe_psql('postgres', q{CREATE SUBSCRIPTION messages CONNECTION $conn$} . $standby->connstr('postgres') . q{$conn$ PUBLICATION messages});
$copy->wait_for_subscription_sync($standby, 'messages');
$standby->safe_psql('postgres', q{
	SELECT pgmq.send('work', '"published"');
	SELECT pgmq.set_vt('work', ARRAY(SELECT msg_id FROM pgmq.q_work WHERE msg_id < 10), 7200);
	SELECT pgmq.delete('work', 10)});
$standby->wait_for_catchup('messages');
is($copy->safe_psql('postgres', 'SELECT msg_id, read_ct, enqueued_at, vt, message FROM pgmq.q_work ORDER BY msg_id'),
	$standby->safe_psql('postgres', 'SELECT msg_id, read_ct, enqueued_at, vt, message FROM pgmq.q_work ORDER BY msg_id'),
	'logical replication: sends, leases and deletes arrive');
$copy->safe_psql('postgres', 'DROP SUBSCRIPTION messages');
is($copy->safe_psql('postgres', q{SELECT message FROM pgmq.read('work', 3600, 1)}), '"published"',
	'logical replication: the copy can be read, when it goes on alone');

$copy->stop;
$standby->stop;
done_testing();

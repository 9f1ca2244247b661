# docs/from-a-job-table.md: its SQL prints what the page says.  Its moves wait for workers and senders of the old table
# that are at work, no job is lost or there twice, and a move that does not get its lock changes nothing.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;
use DocExamples;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('job_tables');
$node->init;
$node->start;

DocExamples::run($node, 'from-a-job-table');

# A database for each table, with what the page begins with: the table, the queue, and the move
my %move;
foreach my $section (split /^(?=## )/m, DocExamples::page('from-a-job-table'))
{
	my ($word) = $section =~ /^## .*(status|NOTIFY|priorities)\n/ or next;
	my ($table, $queue, $move) = $section =~ /^```sql\n(.*?)^```\n/msg;

	$node->safe_psql('postgres', qq{CREATE DATABASE "$word"});
	$node->safe_psql($word, "CREATE EXTENSION pgmq; $table $queue");
	$move{$word} = $move;
}
is_deeply([ sort keys %move ], [ 'NOTIFY', 'priorities', 'status' ], 'the page has three tables');

# session: it runs SQL that has to wait for a lock
sub session
{
	my ($word, $sql) = @_;
	my $session = $node->background_psql($word, on_error_stop => 0);
	my $pid = $session->query_safe('SELECT pg_backend_pid()');

	$session->query_until(qr/start/, "\\echo start\n$sql\n");
	ok( $node->poll_query_until('postgres', "SELECT wait_event_type = 'Lock' FROM pg_stat_activity WHERE pid = $pid"),
		"$word: a session waits");
	return $session;
}

# race: a worker or a sender is at work, the move waits for it, and another statement waits for the move.  Returns what
# that has printed.
sub race
{
	my ($word, $before, $behind) = @_;
	my $busy = $node->background_psql($word);
	my $output;

	$busy->query_safe("BEGIN; $before");
	$node->psql($word, "SET lock_timeout = '10ms'; $move{$word}", on_error_stop => 0, stderr => \$output);
	like($output, qr/lock timeout/, "$word: a move does not get its lock");
	is($node->safe_psql($word, 'SELECT sum(ready + delayed) FROM pgmq.queue_status()'), '0', "$word: and moves nothing");

	my $mover = session($word, $move{$word});
	my $last = session($word, $behind);
	$busy->query_safe('COMMIT');
	$busy->quit;
	$mover->query('SELECT 1');
	is($mover->{stderr}, '', "$word: the move has no error");
	$mover->quit;
	$output = $last->query('SELECT 1') . $last->{stderr};
	$last->quit;
	return $output;
}

like( race( 'status', q{INSERT INTO email_jobs (payload) VALUES ('{"to": "new"}')}, q{INSERT INTO email_jobs (payload) VALUES ('{}');}),
	qr/"email_jobs" does not exist/, 'status: a sender that comes later fails');
is( $node->safe_psql('status', q{SELECT string_agg(message->>'to', ' ' ORDER BY msg_id) FROM pgmq.q_emails}),
	'eve kim new', 'status: all open jobs were moved');
is($node->safe_psql('status', q{SELECT string_agg(status, ' ') FROM email_jobs_done}), 'done', 'status: only those that are done stayed');
is( $node->safe_psql('status', q{SELECT pgmq.redrive('emails_dead'); SELECT message FROM pgmq.q_emails ORDER BY msg_id DESC LIMIT 1}),
	qq{1\n{"to": "bob"}}, 'status: the failed job can be sent back');

race( 'NOTIFY', q{
	UPDATE events SET processed_at = now() WHERE id = (SELECT id FROM events WHERE processed_at IS NULL ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED);
	INSERT INTO events (kind, payload) VALUES ('new', '1')}, q{INSERT INTO events (kind, payload) VALUES ('late', '2');});
is( $node->safe_psql('NOTIFY', q{SELECT string_agg(headers->>'kind', ' ' ORDER BY msg_id) FROM pgmq.q_events}),
	'order new late', 'NOTIFY: what the old worker has left was moved, and what is inserted later is sent');
is( $node->safe_psql('NOTIFY', q{SELECT count(*), count(*) FILTER (WHERE processed_at IS NULL) FROM events}),
	'2|0', 'NOTIFY: the old worker finds nothing more');

my $take = q{SELECT id FROM tasks WHERE done_at IS NULL AND try_count < max_tries AND run_at <= now()
	ORDER BY priority DESC, id LIMIT 1 FOR UPDATE SKIP LOCKED};
like( race('priorities', "UPDATE tasks SET done_at = now() WHERE id = ($take)", "$take;"),
	qr/"tasks" does not exist/, 'priorities: a worker that comes later fails');
is( $node->safe_psql('priorities', q{
	SELECT string_agg(message->>'customer', ' ') FROM pgmq.q_reports;
	SELECT string_agg(message->>'file', ' ') FROM pgmq.q_images WHERE vt > now();
	SELECT string_agg(customer, ' ' ORDER BY customer) FROM old_report_tasks}),
	"ada\ntea.png\nbob eve", 'priorities: the job of the old worker stayed, and the other open ones were moved');

$node->stop;
done_testing();

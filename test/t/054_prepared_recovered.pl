# Prepared transactions that outlive a crash: no floor passes what they have sent or taken.
# Nothing is found by looking below the floors here, for a day.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('prepared_recovered');
$node->init;
$node->append_conf('postgresql.conf', q{
autovacuum = off
max_prepared_transactions = 5
pgmq.rescan_interval = '1d'
});
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	SELECT pgmq.create('work');
	CREATE PROCEDURE forth(span interval) LANGUAGE plpgsql AS $$
	DECLARE
		began timestamptz := clock_timestamp();
		i int := 0;
	BEGIN
		WHILE i < 60 OR clock_timestamp() < began + span LOOP
			PERFORM pgmq.send('work', '"passing"'); COMMIT;
			PERFORM pgmq.pop('work', 1); COMMIT;
			i := i + 1;
		END LOOP;
	END $$;
	CALL forth('300 milliseconds');
	SELECT pgmq.send('work', '"taken"');
	BEGIN; SELECT message FROM pgmq.pop('work'); PREPARE TRANSACTION 'taker';
	BEGIN; SELECT pgmq.send('work', '"sent"'); PREPARE TRANSACTION 'sender';
	BEGIN; SELECT pgmq.send('work', '"deferred"', 1); PREPARE TRANSACTION 'deferrer'});
$node->stop('immediate');
$node->start;
# longer than the delay
$node->safe_psql('postgres', q{CALL forth('1500 milliseconds')});
is($node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.read('work', 0, 10) WHERE message <> '"passing"'}), '0', 'while they are open they keep what they have');
# A session without the library tells nobody that it has ended one, so the next look at intervals finds what came of it
foreach my $end ([ 'COMMIT PREPARED', 'sender', 'sent' ], [ 'ROLLBACK PREPARED', 'taker', 'taken' ], [ 'COMMIT PREPARED', 'deferrer', 'deferred' ])
{
	my ($how, $transaction, $message) = @$end;

	$node->safe_psql('postgres', "$how '$transaction'");
	ok($node->poll_query_until('postgres', qq{SELECT count(*) = 1 FROM pgmq.read('work', 3600, 10) WHERE message = '"$message"'}),
		"what was $message is handed out");
}
is($node->safe_psql('postgres', q{SELECT count(*) FROM pgmq.read('work', 3600, 10) WHERE message <> '"passing"'}), '0', 'once');

$node->stop;
done_testing();

# Columns of a queue's tables with other types than the extension gave them: their owner may do
# that.  Every function that takes a queue is called for each column and some types.  It may
# fail, but not by an internal error, and the server goes on.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

# PGMQ_TEST_TYPES=all takes minutes
my @types = qw(bytea text integer numeric date);
push @types, qw(smallint jsonb jsonb[] timestamp name point record_of_one) if ($ENV{PGMQ_TEST_TYPES} // '') eq 'all';
# Types that a call may not read as its own: a length that reaches far behind the value, for instance
my %value = (
	bytea => q('\xffffff2fffffff7fffffff7fffffff7f'::bytea),
	text => q('/' || %1$s::text),
	jsonb => q(to_jsonb(%1$s)),
	'jsonb[]' => q(ARRAY[to_jsonb(%1$s)]),
	point => q('(1,2)'::point),
	record_of_one => q(ROW('x')::record_of_one));

my $node = PostgreSQL::Test::Cluster->new('altered');
$node->init;
$node->start;
$node->safe_psql('postgres', q{
	CREATE EXTENSION pgmq;
	CREATE TYPE record_of_one AS (x text);
	CREATE ROLE altering;
	GRANT USAGE, CREATE ON SCHEMA pgmq, public TO altering;
	GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA pgmq TO altering;
	CREATE TABLE called (change text, call text, result text);
	GRANT ALL ON called TO altering;
});

# A value for an argument of each type; NULL for those that are not here
my $call_all = q{
	CREATE FUNCTION argument(arg text, type oid) RETURNS text LANGUAGE sql AS $$
	SELECT CASE WHEN arg = 'stream_name' THEN quote_literal('sx') WHEN arg = 'start' THEN quote_literal('earliest') WHEN arg IN ('start_id', 'start_time') THEN NULL
		WHEN arg = 'shard' THEN '0' WHEN type = 'timestamptz'::regtype THEN 'pg_catalog.now()' WHEN arg IN ('max_poll_seconds', 'delay') THEN '0'
		WHEN arg = 'dead_letter_queue' THEN quote_literal('dx') WHEN arg = 'overflow' THEN quote_literal('reject')
		ELSE (SELECT value FROM (VALUES ('text'::regtype, quote_literal('x')), ('jsonb', quote_literal('{"a": 1}')), ('integer', '1'), ('bigint', '1'),
			('bigint[]', quote_literal('{1,2,3}')), ('integer[]', quote_literal('{1,1,1}')), ('jsonb[]', quote_literal('{1,2,3}')),
			('text[]', quote_literal('{x,y,z}')), ('boolean', 'true'), ('interval', quote_literal('1 day'))) AS v (of, value) WHERE v.of = type) END $$;
	-- Each function, with all its arguments and without those that have a default.  One that waits by default, for events that
	-- are leased, is called without waiting only.
	CREATE TABLE calls AS SELECT DISTINCT format('SELECT count(*) FROM pgmq.%I(%s)', proname, string_agg(coalesce(argument(a.arg, a.type), 'NULL')
			|| '::' || a.type::regtype, ', ' ORDER BY a.at) FILTER (WHERE a.at <= pronargs - left_out)) AS call
		FROM pg_proc AS p, unnest(p.proargnames, p.proargtypes::oid[]) WITH ORDINALITY AS a (arg, type, at), unnest(ARRAY[0, CASE WHEN proname <> 'receive_with_poll' THEN nullif(pronargdefaults, 0) END]) AS left_out
		WHERE pronamespace = 'pgmq'::regnamespace AND prokind = 'f' AND prorettype <> 'trigger'::regtype AND left_out IS NOT NULL AND a.type IS NOT NULL
			AND proargnames[1] ~ 'queue|stream_name' AND proargtypes[0] = 'text'::regtype AND proname !~ '^(create|drop_queue|purge|detach|_)'
		GROUP BY p.oid, left_out;
	CREATE PROCEDURE call_all(change text) LANGUAGE plpgsql AS $$
	DECLARE call text; found text[] := '{}';
	BEGIN
		BEGIN
			EXECUTE change;
			FOR call IN SELECT c.call FROM calls AS c ORDER BY 1 LOOP
				BEGIN
					EXECUTE call;
					found := found || ARRAY[call, 'ok'];
					RAISE EXCEPTION USING ERRCODE = 'UNDOO';
				EXCEPTION WHEN SQLSTATE 'UNDOO' THEN NULL;
				WHEN OTHERS THEN found := found || ARRAY[call, SQLSTATE || ' ' || SQLERRM];
				END;
			END LOOP;
			RAISE EXCEPTION USING ERRCODE = 'UNDOO';
		EXCEPTION WHEN SQLSTATE 'UNDOO' THEN NULL;
		WHEN OTHERS THEN found := ARRAY[NULL, SQLSTATE || ' ' || SQLERRM];
		END;
		FOR i IN 1 .. cardinality(found) / 2 LOOP
			INSERT INTO called VALUES (change, found[2 * i - 1], found[2 * i]);
		END LOOP;
	END $$;
};
$node->safe_psql('postgres', "SET ROLE altering; $call_all");
$node->safe_psql('postgres', q{
	SET ROLE altering;
	SELECT pgmq.create('x'), pgmq.create('dx');
	SELECT pgmq.create_fifo_index('x');
	SELECT pgmq.set_policy('x', max_reads => 9, dead_letter_queue => 'dx', message_ttl => '1 day', priority => true);
	SELECT pgmq.send_unique('x', '1', 'k' || i, '1 hour') FROM generate_series(1, 3) AS i;
	SELECT pgmq.send_batch('x', '{1,2,3}'::jsonb[], '{"{}","{\"x-pgmq-group\": \"g\"}","{}"}'::jsonb[]);
	SELECT pgmq.send_batch('dx', '{1,2,3}'::jsonb[], array_fill('{"x-dlq-origin-queue": "x"}'::jsonb, '{3}'));
	SELECT pgmq.archive('x', msg_id) FROM pgmq.read('x', 0, 1);
	SELECT pgmq.archive('dx', msg_id) FROM pgmq.read('dx', 0, 1);
	SELECT pgmq.nack('x', msg_id, read_ct, 'why') FROM pgmq.read('x', 60, 1);
	SELECT pgmq.create_stream('sx', 2);
	SELECT pgmq.publish('sx', '1', key) FROM unnest('{a,b,c,d,e,f}'::text[]) AS key;
	SELECT pgmq.subscribe('sx', 'x', 'earliest'), pgmq.subscribe('sx', 'last');
	SELECT pgmq.receive('sx', 'x', 3600, 9), pgmq.receive('sx', 'x', 0, 9);
	-- The arguments are those of a lease
	UPDATE pgmq.p_sx SET lease = 1, leased_until = 'infinity', leased_id = 6 WHERE subscription = 'x' AND shard = 0;
});

my @tables = split /\n/, $node->safe_psql('postgres', q{SELECT relname FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace
	AND relkind IN ('r', 'p') AND relname ~ '^([aqgk]_d?x|[sp]_sx)$' ORDER BY 1});
cmp_ok(scalar(@tables), '>=', 7, "tables: @tables");
my $unaltered = $node->safe_psql('postgres', q{SET ROLE altering; CALL call_all('SELECT'); SELECT count(*) FROM called WHERE result = 'ok'});
cmp_ok($unaltered, '>=', 50, 'calls do something while nothing is altered');

foreach my $table (@tables)
{
	my $sql = "SET ROLE altering;\n";

	foreach my $column (split /\n/, $node->safe_psql('postgres', qq{SELECT attname FROM pg_attribute
		WHERE attrelid = 'pgmq.$table'::regclass AND attnum > 0 AND NOT attisdropped AND attgenerated = '' ORDER BY attnum}))
	{
		foreach my $type (@types)
		{
			my $value = sprintf($value{$type} // '%1$s::text::' . $type, $column);
			my $alter = "ALTER TABLE pgmq.$table ALTER $column";

			foreach my $using ($value, "NULL")
			{
				$sql .= 'CALL call_all($$' . "$alter DROP IDENTITY IF EXISTS, ALTER $column DROP DEFAULT; "
					. ($using eq 'NULL' ? "$alter DROP NOT NULL; " : '') . "$alter TYPE $type USING $using\$\$);\n";
			}
		}
	}
	my ($status, $out, $err) = $node->psql('postgres', $sql);
	is($status, 0, "$table: the server goes on") or diag($err);
	last if $status;
}

is($node->safe_psql('postgres', q{SELECT change, call, result FROM called WHERE result ~ '^XX' ORDER BY 1, 2 LIMIT 20}), '', 'no internal error');
cmp_ok($node->safe_psql('postgres', 'SELECT count(DISTINCT change) FROM called WHERE call IS NOT NULL'), '>=', 20 * @tables, 'columns were altered');
note($node->safe_psql('postgres', q{SELECT left(result, 60), count(*) FROM called GROUP BY 1 ORDER BY 2 DESC LIMIT 25}));
note($node->safe_psql('postgres', q{SELECT change, result FROM called WHERE call IS NULL LIMIT 25}));
$node->stop;
done_testing();

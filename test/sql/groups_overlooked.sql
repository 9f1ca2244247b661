-- Groups that no note tells of are found in each partition, whatever lies in the others
SET client_min_messages = warning;
CREATE SCHEMA partman;
CREATE EXTENSION pg_partman SCHEMA partman;
CREATE FUNCTION overlooked(groups text[]) RETURNS text LANGUAGE plpgsql AS $$
DECLARE
    until timestamptz := clock_timestamp() + interval '60 s';
    found text[] := '{}';
BEGIN
    PERFORM pgmq.create_partitioned('overlooked', '10', '100000', 5);
    PERFORM pgmq.create_fifo_index('overlooked');
    FOR i IN 1 .. cardinality(groups) LOOP
        PERFORM setval('pgmq.q_overlooked_msg_id_seq', 10 * (i - 1) + 1, false);
        PERFORM pgmq.send('overlooked', '1', jsonb_build_object('x-pgmq-group', g))
           FROM regexp_split_to_table(groups[i], '') AS g;
    END LOOP;
    TRUNCATE pgmq.g_overlooked;
    WHILE cardinality(found) < length(array_to_string(groups, '')) AND clock_timestamp() < until LOOP
        found := found || ARRAY(SELECT headers->>'x-pgmq-group' FROM pgmq.read_grouped('overlooked', 3600, 50));
    END LOOP;
    PERFORM pgmq.drop_queue('overlooked');
    RETURN (SELECT string_agg(f, '' ORDER BY f) FROM unnest(found) AS f);
END $$;
SELECT overlooked('{b,a}'), overlooked('{a,b}'), overlooked('{ac,b}'), overlooked('{bd,ac}'), overlooked('{z,y,x,w,v}'), overlooked('{mz,ak,bn}');
DROP FUNCTION overlooked;
DROP EXTENSION pg_partman;
DROP SCHEMA partman;

-- What a rolled-back read has taken is the next to be handed out, also where
-- there is more behind it: a rollback asks for a sweep, one to a savepoint too.
\set VERBOSITY terse
SET pgmq.rescan_interval = '1d';
SELECT pgmq.create('back');
SELECT count(*) FROM pgmq.send_batch('back', array_fill('"delayed"'::jsonb, ARRAY[3]),
	clock_timestamp() + interval '10 milliseconds');
SELECT count(*) FROM pgmq.send_batch('back', array_fill('"fresh"'::jsonb, ARRAY[1000]));
DO $$
BEGIN
	WHILE EXISTS (SELECT FROM pgmq.q_back WHERE message = '"delayed"' AND vt > clock_timestamp()) LOOP
		PERFORM pg_sleep(0.001);
	END LOOP;
END $$;

-- Every round reads past what it gives back; the ids are those of its first read
CREATE PROCEDURE rounds(n int) LANGUAGE plpgsql AS $$
DECLARE
	same int := 0;
	first bigint;
	again bigint;
BEGIN
	FOR i IN 1..n LOOP
		BEGIN
			first := msg_id FROM pgmq.read('back', 30, 1);
			PERFORM FROM generate_series(1, 10) AS j, pgmq.read('back', 30, sign(j)::int);
			RAISE division_by_zero;
		EXCEPTION WHEN division_by_zero THEN NULL;
		END;
		again := msg_id FROM pgmq.pop('back', 1);
		same := same + (again = first)::int;
		COMMIT;
		first := msg_id FROM pgmq.read('back', 30, 1);
		PERFORM FROM generate_series(1, 10) AS j, pgmq.read('back', 30, sign(j)::int);
		ROLLBACK;
		again := msg_id FROM pgmq.pop('back', 1);
		same := same + (again = first)::int;
		COMMIT;
	END LOOP;
	RAISE NOTICE 'the same % times', same;
END $$;
CALL rounds(30);
SELECT count(*) FROM pgmq.q_back WHERE message = '"delayed"';
SELECT count(*) FROM pgmq.q_back;

DROP PROCEDURE rounds;
SELECT pgmq.drop_queue('back');

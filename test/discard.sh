# The same calls with and without every cache thrown away whenever that may
# happen: cached relations, plans, catalog rows.  Only a server with assertions
# can do that (scripts/test --cassert), and slowly: so no whole suite.

calls_of_queues() {
	cat <<-'SQL'
	SELECT pgmq.create('q');
	SELECT pgmq.send('q', '{"n": 1}'), pgmq.send('q', '{"n": 2}', 3600);
	SELECT pgmq.send_batch('q', '{3,4,5,6}'::jsonb[], '{"{}","{}","{}","{}"}'::jsonb[]);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 0, 2);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 3600, 2);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 3600, 9, '{"n": 2}');
	SELECT msg_id, read_ct, message FROM pgmq.read_with_poll('q', 3600, 1, 1);
	BEGIN; SELECT msg_id FROM pgmq.pop('q'); SAVEPOINT s; SELECT msg_id FROM pgmq.pop('q'); ROLLBACK TO s; ROLLBACK;
	SELECT msg_id, message FROM pgmq.pop('q');
	SELECT msg_id FROM pgmq.set_vt('q', 2, 0);
	SELECT pgmq.archive('q', ARRAY[1, 2]), pgmq.delete('q', 3);
	SELECT pgmq.archive('q', 4), pgmq.delete('q', ARRAY[4, 5]);
	SELECT queue_length, total_messages FROM pgmq.metrics('q');
	SELECT pgmq.create('r'), pgmq.bind_topic('t.#', 'q'), pgmq.bind_topic('t.*', 'r'), pgmq.bind_topic('t.a', 'r');
	SELECT pgmq.send_topic('t.a', '1'), pgmq.send_topic('t.a.b', '2'), pgmq.send_topic('u', '3');
	SELECT * FROM pgmq.send_batch_topic('t.a', '{1,2}'::jsonb[]);
	BEGIN; SELECT pgmq.unbind_topic('t.#', 'q'); SELECT pgmq.send_topic('t.a', '4'); SAVEPOINT s; SELECT pgmq.bind_topic('#', 'q'); SELECT pgmq.send_topic('t.a', '5'); ROLLBACK TO s; SELECT pgmq.send_topic('t.a', '6'); ROLLBACK;
	SELECT pgmq.drop_queue('r'), pgmq.send_topic('t.a', '7'), pattern, queue_name FROM pgmq.test_routing('t.a');
	SELECT pgmq.enable_notify_insert('q', 0); LISTEN "pgmq.q_q.INSERT";
	SELECT pgmq.send('q', '1') > 0; SELECT last_notified_at > to_timestamp(0) FROM pgmq.list_notify_insert_throttles();
	BEGIN; SELECT pgmq.update_notify_insert('q', 3600000); SAVEPOINT s; SELECT pgmq.send('q', '2') > 0; ROLLBACK TO s; SELECT pgmq.send_batch('q', '{3,4}'::jsonb[]) > 0; COMMIT;
	SELECT pgmq.send('q', '5') > 0; SELECT pgmq.disable_notify_insert('q'); UNLISTEN *;
	SELECT pgmq.rescan('q'), pgmq.purge_queue('q'), pgmq.drop_queue('q');
	SELECT pgmq.read('q', 1, 1);
	SQL
}

calls_of_groups() {
	cat <<-'SQL'
	SELECT pgmq.create('g'), pgmq.create_fifo_index('g');
	SELECT pgmq.send_batch('g', '{1,2,3,4,5,6}'::jsonb[], ARRAY(SELECT jsonb_build_object('x-pgmq-group', x) FROM unnest('{a,b,a,b,c,a}'::text[]) AS x));
	SELECT msg_id, read_ct FROM pgmq.read_grouped('g', 0, 4);
	SELECT msg_id, read_ct FROM pgmq.read_grouped_rr('g', 0, 4);
	SELECT msg_id, read_ct FROM pgmq.read_grouped_head('g', 3600, 2);
	SELECT msg_id, read_ct FROM pgmq.read_grouped('g', 3600, 9);
	SELECT msg_id, read_ct FROM pgmq.read_grouped_with_poll('g', 3600, 1, 1);
	SELECT pgmq.delete('g', 1); SELECT msg_id FROM pgmq.read_grouped_rr_with_poll('g', 3600, 1, 1);
	SELECT msg_id FROM pgmq.set_vt('g', ARRAY[2, 3], 0); SELECT msg_id FROM pgmq.read_grouped_head_with_poll('g', 3600, 9, 1);
	BEGIN; SELECT pgmq.archive('g', ARRAY[2, 3]); SAVEPOINT s; SELECT msg_id FROM pgmq.read_grouped('g', 3600, 9); ROLLBACK TO s;
	SELECT pgmq.send('g', '7', '{"x-pgmq-group": "b"}'::jsonb); SELECT msg_id FROM pgmq.read_grouped('g', 3600, 1); ROLLBACK;
	UPDATE pgmq.q_g SET headers = '{"x-pgmq-group": "d"}' WHERE msg_id = 6; SELECT msg_id FROM pgmq.read_grouped('g', 3600, 9);
	SELECT msg_id FROM pgmq.pop('g'); SELECT msg_id FROM pgmq.read('g', 3600, 1);
	SELECT pgmq.set_vt('g', array_agg(msg_id), 0) IS NOT NULL FROM pgmq.q_g; SELECT msg_id FROM pgmq.read_grouped('g', 3600, 9);
	DROP INDEX pgmq.q_g_fifo_idx; SELECT pgmq.send('g', '8', '{"x-pgmq-group": "e"}'::jsonb); SELECT msg_id FROM pgmq.read_grouped('g', 3600, 9);
	SELECT pgmq.create_fifo_indexes_all(); SELECT pgmq.send('g', '9'); SELECT message FROM pgmq.read_grouped('g', 3600, 9);
	SELECT pgmq.purge_queue('g'); SELECT msg_id FROM pgmq.read_grouped('g', 3600, 9); SELECT pgmq.drop_queue('g');
	SQL
}

calls_that_wait() {
	cat <<-'SQL'
	SELECT pgmq.create('w'), pgmq.create('v');
	CALL pgmq.wait('w', 20); CALL pgmq.wait_any('{w,v}', 20);
	SELECT pgmq.send('w', '1'); CALL pgmq.wait('w', 60000); CALL pgmq.wait_any('{w,v}', 60000);
	SELECT msg_id FROM pgmq.read_with_poll('w', 3600, 1, 60); SELECT msg_id FROM pgmq.read_with_poll('w', 3600, 1, 0);
	CALL pgmq.wait('w', 20); SELECT msg_id FROM pgmq.set_vt('w', 1, 0); CALL pgmq.wait('w', 60000);
	BEGIN; SELECT msg_id FROM pgmq.pop('w'); ROLLBACK; CALL pgmq.wait('w', 60000);
	SELECT pgmq.send('v', '1', 1); CALL pgmq.wait('v', 60000); SELECT msg_id FROM pgmq.pop('v');
	SELECT pgmq.drop_queue('v'); CALL pgmq.wait_any('{w,v}', 20); SELECT pgmq.drop_queue('w');
	SQL
}

# pg_partman's functions are slow beyond patience that way (a maintain() that makes two partitions: more than half an
# hour).  They make partitions with all caches, and are called without in a maintain() that has one to drop.  Each
# partition costs every call seconds, so there are few, and the steps of maintain() have all the time that they need.
calls_of_partitions() {
	cat <<-'SQL'
	SET client_min_messages = warning;
	SET pgmq.maintenance_step_timeout = '1h';
	SET debug_discard_caches = 0;
	SELECT pgmq.create_partitioned('p', '10', '10', 1, false, true), pgmq.create_fifo_index('p');
	SET debug_discard_caches = :discard;
	SELECT count(*) FROM pgmq.send_batch('p', array_fill('1'::jsonb, '{25}'), array_fill('{"x-pgmq-group": "a"}'::jsonb, '{25}'));
	SELECT msg_id FROM pgmq.read('p', 0, 2); SELECT msg_id FROM pgmq.read_grouped('p', 0, 2);
	SELECT pgmq.archive('p', ARRAY[11, 20]), pgmq.delete('p', ARRAY[12, 24, 99]); SELECT msg_id FROM pgmq.set_vt('p', 21, 3600);
	BEGIN; SELECT msg_id FROM pgmq.pop('p', 3); SAVEPOINT s; SELECT pgmq.send('p', '2'); ROLLBACK TO s; COMMIT;
	SELECT partition, lower_bound, upper_bound, messages, past_retention, held_back FROM pgmq.list_partitions('p');
	SET debug_discard_caches = 0; CALL pgmq.maintain();
	SELECT count(*) FROM pgmq.delete('p', ARRAY(SELECT generate_series(1, 10)));
	SET debug_discard_caches = :discard; CALL pgmq.maintain();
	SELECT partition, lower_bound, upper_bound, messages, past_retention, held_back FROM pgmq.list_partitions('p');
	SELECT pgmq.set_retention('p', '10', false, false);
	SELECT msg_id FROM pgmq.read_grouped('p', 3600, 3); SELECT count(*) FROM pgmq.read('p', 3600, 100); SELECT queue_length FROM pgmq.metrics('p');
	SET debug_discard_caches = 0;
	SELECT pgmq.create_partitioned('t', '1 day', '2 days', 1);
	SELECT pgmq.create('c'), pgmq.send('c', '1'), pgmq.archive('c', 1); SELECT pgmq.convert_archive_partitioned('c', '10', '20', 1);
	SET debug_discard_caches = :discard;
	SELECT pgmq.send('t', '1'); SELECT msg_id FROM pgmq.read('t', 0, 1); SELECT pgmq.archive('t', 1); SELECT msg_id FROM pgmq.pop('t');
	SELECT pgmq.send('c', '1'); SELECT pgmq.archive('c', 2); SELECT msg_id FROM pgmq.a_c ORDER BY 1;
	SET debug_discard_caches = 0;
	SELECT pgmq.drop_queue('t'), pgmq.drop_queue('c'), pgmq.drop_queue('p');
	SQL
}

# compare PART LEAST-LINES: the calls of a part with and without
compare() {
	local part=$1 least=$2 setting
	for setting in 0 1; do
		"calls_$part" | PGOPTIONS="-c debug_discard_caches=$setting" psql -X -At -v "discard=$setting" >"$WORK/discard.$setting" 2>&1
		# When notifications come is not the same either time
		sed -i '/^Asynchronous notification/d' "$WORK/discard.$setting"
	done
	if diff "$WORK/discard.0" "$WORK/discard.1" && ! grep -v 'relation "pgmq.q_[a-z]" does not exist' "$WORK/discard.0" | grep '^ERROR' &&
		[ "$(wc -l <"$WORK/discard.0")" -ge "$least" ]; then
		echo "ok - discard: calls $part give the same answers when nothing stays cached"
	else
		cat "$WORK/discard.0"
		echo "not ok - discard: calls $part give the same answers when nothing stays cached"
	fi
}

start_server discard
psql -qX -c 'CREATE EXTENSION pgmq; CREATE EXTENSION pg_partman'
compare of_queues 25
compare of_groups 50
compare that_wait 20
compare of_partitions 25
stop_server discard

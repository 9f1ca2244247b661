# The same calls with and without every cache thrown away whenever that may
# happen: cached relations, plans, catalog rows.  Only a server with assertions
# can do that (scripts/test --cassert), and slowly: so no whole suite.

calls() {
	cat <<-'SQL'
	SELECT pgmq.create('q');
	SELECT pgmq.send('q', '{"n": 1}'), pgmq.send('q', '{"n": 2}', 3600);
	SELECT pgmq.send_batch('q', '{3,4,5,6}'::jsonb[], '{"{}","{}","{}","{}"}'::jsonb[]);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 0, 2);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 30, 2);
	SELECT msg_id, read_ct, message FROM pgmq.read('q', 30, 9, '{"n": 2}');
	SELECT msg_id, read_ct, message FROM pgmq.read_with_poll('q', 30, 1, 1);
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

start_server discard
psql -qX -c 'CREATE EXTENSION pgmq'
calls | psql -X -At >"$WORK/discard.kept" 2>&1
calls | PGOPTIONS='-c debug_discard_caches=1' psql -X -At >"$WORK/discard.thrown" 2>&1
stop_server discard
# When notifications come is not the same either time
sed -i '/^Asynchronous notification/d' "$WORK/discard.kept" "$WORK/discard.thrown"
diff "$WORK/discard.kept" "$WORK/discard.thrown"
if [ $? -eq 0 ] && [ "$(wc -l <"$WORK/discard.kept")" -gt 25 ]; then
	echo "ok - discard: the same answers when nothing stays cached"
else
	echo "not ok - discard: the same answers when nothing stays cached"
fi

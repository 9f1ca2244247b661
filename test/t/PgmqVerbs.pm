# Every call of the extension, for tests that run all of them in some surrounding.
#
# A verb is a query with one text column whose rows are the same whenever it is run
# on the same queues: no ids that were just drawn, no times.  They are run in this
# order, each once, after setup().
package PgmqVerbs;

use strict;
use warnings;

sub message { return "SELECT msg_id || ' ' || read_ct || ' ' || message FROM pgmq.$_[0]"; }
sub number { return "SELECT count(*)::text FROM pgmq.$_[0]"; }
sub event { return "SELECT concat_ws(' ', shard, message, key, attempt) FROM pgmq.$_[0]"; }
sub nothing { return "SELECT 'done' FROM pgmq.$_[0]"; }

# setup(partman): the queues; partitioned ones where there is pg_partman
sub setup
{
	my ($partman) = @_;
	my $sql = q{
		SET client_min_messages = error;
		SELECT pgmq.create('v');
		SELECT pgmq.create('vn');
		SELECT pgmq.enable_notify_insert('vn', 0);
		SELECT pgmq.create('vg');
		SELECT pgmq.create_fifo_index('vg');
		SELECT pgmq.create('t1');
		SELECT pgmq.create('t2');
		SELECT pgmq.bind_topic('a.*', 't1');
		SELECT pgmq.bind_topic('#', 't2');
		SELECT pgmq.enable_notify_insert('t2', 0);
		SELECT pgmq.send_batch('v', ARRAY(SELECT jsonb_build_object('n', i, 'k', i % 3) FROM generate_series(1, 60) AS i));
		SELECT pgmq.send_batch('vn', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 10) AS i));
		SELECT pgmq.send_batch('vg', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 40) AS i),
			ARRAY(SELECT jsonb_build_object('x-pgmq-group', 'g' || i % 4) FROM generate_series(1, 40) AS i));
		SELECT pgmq.send_topic('a.b', '1');
	};

	$sql .= q{
		SELECT pgmq.create_partitioned('vp', '10', '1000');
		SELECT pgmq.create_partitioned('vd', '1 day', '100 days');
		SELECT pgmq.send_batch('vp', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 35) AS i));
		SELECT pgmq.send_batch('vd', ARRAY(SELECT to_jsonb(i) FROM generate_series(1, 35) AS i));
	} if $partman;
	return $sql;
}

sub verbs
{
	my ($partman) = @_;
	my @verbs = (
		number(q{send('v', '{"s": 1}')}),
		number(q{send('v', '{"s": 2}', '{"h": 1}'::jsonb)}),
		number(q{send('v', '{"s": 3}', 3600)}),
		number(q{send('v', '{"s": 4}', pg_catalog.now() + '1 hour')}),
		number(q{send('v', '{"s": 5}', '{"h": 1}', 3600)}),
		number(q{send('v', '{"s": 6}', '{"h": 1}', pg_catalog.now() + '1 hour')}),
		number(q{send_batch('v', '{1,2,3}'::jsonb[])}),
		number(q{send_batch('v', '{1,2}'::jsonb[], '{3,4}'::jsonb[])}),
		number(q{send_batch('v', '{1,2,3}'::jsonb[], 3600)}),
		number(q{send_batch('v', '{1,2,3}'::jsonb[], pg_catalog.now() + '1 hour')}),
		number(q{send_batch('v', '{1,2}'::jsonb[], '{3,4}'::jsonb[], 3600)}),
		number(q{send_batch('v', '{1,2}'::jsonb[], '{3,4}'::jsonb[], pg_catalog.now() + '1 hour')}),
		number(q{_send_batch('v', '{1,2}'::jsonb[], '{3,4}'::jsonb[], pg_catalog.now())}),
		nothing(q{_validate_batch_params('{1,2}'::jsonb[], '{3,4}'::jsonb[])}),
		number(q{send('vn', '1')}),
		number(q{send_batch('vn', '{1,2,3}'::jsonb[])}),
		"SELECT pgmq.send_topic('a.c', '1')::text",
		"SELECT pgmq.send_topic('x', '1', 0)::text",
		"SELECT pgmq.send_topic('a.c', '1', '{}', 3600)::text",
		(map { "SELECT queue_name FROM pgmq.send_batch_topic('a.c', '{1,2}'::jsonb[]$_) ORDER BY 1" }
			'', q{, '{3,4}'::jsonb[]}, ', 3600', ", pg_catalog.now() + '1 hour'", q{, '{3,4}'::jsonb[], 3600},
			q{, '{3,4}'::jsonb[], pg_catalog.now() + '1 hour'}),
		message(q{read('v', 3600, 3)}),
		message(q{read('v', 0, 2)}),
		message(q{read('v', 3600, 2, '{"k": 1}')}),
		message(q{read_with_poll('v', 3600, 2, 1, 10)}),
		message(q{read_with_poll('v', 3600, 1, 1, 10, '{"k": 2}')}),
		message(q{pop('v')}),
		message(q{pop('v', 3)}),
		message(q{set_vt('v', 1::bigint, 0)}),
		message(q{set_vt('v', '{3,2,20}'::bigint[], 0)}),
		message(q{set_vt('v', 21::bigint, pg_catalog.now() - '1 hour'::interval)}),
		message(q{set_vt('v', '{23,22}'::bigint[], pg_catalog.now() + '1 hour'::interval)}),
		message(q{read('v', 3600, 6)}),
		"SELECT pgmq.delete('v', 1::bigint)::text",
		"SELECT d::text FROM pgmq.delete('v', '{3,2,999999}'::bigint[]) AS d",
		"SELECT pgmq.archive('v', 20::bigint)::text",
		"SELECT a::text FROM pgmq.archive('v', '{22,21,999999}'::bigint[]) AS a",
		"SELECT pgmq.delete('v', 1::bigint)::text",
		nothing(q{rescan('v')}),
		message(q{read('v', 3600, 5)}),
		"SELECT queue_name || ' ' || queue_length FROM pgmq.metrics('v')",
		"SELECT queue_name || ' ' || queue_length || ' ' || queue_visible_length FROM pgmq.metrics_all() WHERE queue_name <> 'side' ORDER BY 1",
		"SELECT concat_ws(' ', queue, ready, delayed, in_flight, paused, dead, stuck) FROM pgmq.queue_status('v')",
		"SELECT concat_ws(' ', queue, ready, delayed, in_flight, paused, dead, stuck) FROM pgmq.queue_status() WHERE queue <> 'side' ORDER BY 1",
		"SELECT queue_name || ' ' || is_partitioned || ' ' || is_unlogged FROM pgmq.list_queues() WHERE queue_name <> 'side' ORDER BY 1",
		# groups
		number(q{send('vg', '50', '{"x-pgmq-group": "g1"}'::jsonb)}),
		message(q{read_grouped('vg', 3600, 3)}),
		message(q{read_grouped_rr('vg', 3600, 3)}),
		message(q{read_grouped_head('vg', 3600, 3)}),
		message(q{set_vt('vg', '{1,2,3,4,5,6,7,8,9,10,11,12}'::bigint[], 0)}),
		message(q{read_grouped_with_poll('vg', 3600, 2, 1, 10)}),
		message(q{read_grouped_rr_with_poll('vg', 3600, 2, 1, 10)}),
		message(q{read_grouped_head_with_poll('vg', 3600, 2, 1, 10)}),
		"SELECT pgmq.delete('vg', 4::bigint)::text",
		"SELECT a::text FROM pgmq.archive('vg', '{1,5,2}'::bigint[]) AS a",
		message(q{read_grouped('vg', 3600, 5)}),
		message(q{pop('vg', 2)}),
		message(q{read('vg', 0, 1)}),
		# notifications and topics
		nothing(q{update_notify_insert('vn', 100000)}),
		number(q{send('vn', '1')}),
		"SELECT queue_name || ' ' || throttle_interval_ms FROM pgmq.list_notify_insert_throttles() WHERE queue_name <> 'side' ORDER BY 1",
		nothing(q{disable_notify_insert('vn')}),
		nothing(q{enable_notify_insert('vn', 1)}),
		nothing(q{enable_notify_insert('v')}),
		number(q{send('v', '1')}),
		nothing(q{bind_topic('b.#', 'v')}),
		"SELECT pattern || ' ' || queue_name FROM pgmq.test_routing('b.c') ORDER BY 1",
		"SELECT pgmq.send_topic('b.c', '1')::text",
		"SELECT pattern || ' ' || queue_name || ' ' || compiled_regex FROM pgmq.list_topic_bindings() ORDER BY 1",
		"SELECT pattern || ' ' || queue_name FROM pgmq.list_topic_bindings('v') ORDER BY 1",
		"SELECT pgmq.unbind_topic('b.#', 'v')::text",
		"SELECT pgmq.send_topic('b.c', '1')::text",
		"SELECT pgmq.validate_routing_key('a.b')::text",
		"SELECT pgmq.validate_topic_pattern('a.*')::text",
		# queues
		nothing(q{validate_queue_name('a name')}),
		"SELECT pgmq.format_table_name('Name', 'q')",
		nothing(q{acquire_queue_lock('v')}),
		nothing(q{create('new1')}),
		number(q{send('new1', '1')}),
		nothing(q{create_non_partitioned('new2')}),
		nothing(q{create_unlogged('New 3"x')}),
		number(q{send('new 3"x', '1')}),
		"SELECT pgmq._groups_healed('vg')::text",
		nothing(q{create_fifo_index('new1')}),
		nothing(q{_create_fifo_index_if_not_exists('new1')}),
		message(q{read_grouped('new1', 3600, 5)}),
		nothing(q{create_fifo_indexes_all()}),
		message(q{read_grouped('new2', 3600, 5)}),
		"SELECT pgmq.purge_queue('new1')::text",
		message(q{read_grouped('new1', 3600, 5)}),
		"SELECT coalesce(pgmq._belongs_to_pgmq('q_v')::text, 'null')",
		"SELECT pgmq._dead_reason(3, 1, '2020-01-01', NULL, 2, NULL, '2020-01-02')",
		# What 2.0.0 lacks changes messages of this queue only.  So all other calls give the same with and without it.
		nothing(q{create('vt')}),
		number(q{send_batch('vt', ARRAY(SELECT jsonb_build_object('n', i, 'k', i % 3) FROM generate_series(1, 30) AS i),
			ARRAY(SELECT jsonb_build_object('h', i % 2) FROM generate_series(1, 30) AS i))}),
		message(q{read('vt', 3600, 12)}),
		"SELECT concat_ws(' ', pgmq.ack('vt', 1, 1), pgmq.ack('vt', 2, 2), pgmq.ack_archive('vt', 3, 1))",
		"SELECT concat_ws(' ', pgmq.touch('vt', 2, 1, 3600), pgmq.nack('vt', 4, 1, 'why', 3600), pgmq.release('vt', 5, 1, 3600))",
		"SELECT pgmq.dead_letter('vt', 6, 1, 'reason')::text",
		"SELECT a::text FROM pgmq.ack_batch('vt', '{7,6,8}', '{1,1,1}') AS a",
		"SELECT a::text FROM pgmq.ack_archive_batch('vt', '{9,9}', '{1,1}') AS a",
		"SELECT n::text FROM pgmq.nack_batch('vt', '{10,11}', '{2,1}', 'why', 3600) AS n",
		"SELECT r::text FROM pgmq.release_batch('vt', '{12}', '{1}') AS r",
		"SELECT t::text FROM pgmq.touch_batch('vt', '{10,11}', '{1,1}', 3600) AS t",
		message(q{next('vt', 3600, 3, '{10}', '{1}')}),
		"SELECT is_duplicate::text FROM pgmq.send_unique('vt', '1', 'verb', '1 hour')",
		"SELECT is_duplicate::text FROM pgmq.send_unique('vt', '2', 'verb')",
		"SELECT is_duplicate::text FROM pgmq.send_unique_batch('vt', '{1,2,3}', '{verb,verb 2,verb 2}', NULL, '{1,2,3}', 3600)",
		"SELECT pgmq.redrive('vt')::text",
		"SELECT pgmq.redrive('vt', 'vn', 2, '{16,17,18}')::text",
		message(q{read_where('vt', 3600, 1)}),
		message(q{read_where('vt', 3600, 2, '{"k": 1}')}),
		message(q{read_where('vt', 3600, 2, '{}', '{"h": 1}')}),
		message(q{read_where('vt', 3600, 2, '{"k": 1}', '{"h": 1}')}),
		message(q{peek('vt', 5)}),
		message(q{peek('vt', msg_ids => '{14,11}')}),
		"SELECT pgmq.drop_queue('vt')::text",
		# policies
		nothing(q{set_policy('v', retry_delay => '1 minute', retry_backoff => 1.5)}),
		"SELECT queue_name || ' ' || (retry_delay = '1 minute') || ' ' || (retry_backoff = 1.5) FROM pgmq.list_policies() ORDER BY 1",
		# In one statement: it is left out where there is no such function
		"SELECT pgmq.pause_queue('v')::text || (SELECT count(*) FROM pgmq.pop('v'))",
		nothing(q{pause_queue('v', pg_catalog.now() - '1 day'::interval)}),
		nothing(q{resume_queue('v')}),
		nothing(q{reset_policy('v', '{retry_delay}'::text[])}),
		nothing(q{reset_policy('v')}),
		"SELECT count(*)::text FROM pgmq.list_policies() WHERE queue_name = 'v'",
		"SELECT pgmq._extension_exists('pgmq')::text",
		"SELECT pgmq._get_partition_col('1 day')",
		"SELECT count(*)::text FROM pgmq._queues_to_upgrade()",
		nothing(q{detach_archive('new1')}),
		nothing(q{create_first_names('public')}),
		"SELECT pgmq.drop_first_names('public')::text",
		"SELECT pgmq.drop_queue('new1')::text",
		"SELECT pgmq.drop_queue('new2', false)::text",
		"SELECT pgmq.drop_queue('new 3\"x')::text",
		"SELECT pgmq.drop_queue('new1')::text");

	push @verbs, (
		nothing(q{_ensure_pg_partman_installed()}),
		"SELECT (pgmq._get_pg_partman_major_version() > 0)::text",
		"SELECT btrim(pgmq._get_pg_partman_schema(), '\"')",
		map({ (
			number(qq{send('$_', '50')}),
			number(qq{send_batch('$_', '{1,2,3}'::jsonb[])}),
			message(qq{read('$_', 3600, 12)}),
			message(qq{set_vt('$_', '{11,3,2}'::bigint[], 0)}),
			message(qq{read('$_', 3600, 2)}),
			"SELECT pgmq.delete('$_', 2::bigint)::text",
			"SELECT d::text FROM pgmq.delete('$_', '{11,3}'::bigint[]) AS d",
			"SELECT a::text FROM pgmq.archive('$_', '{14,4,25}'::bigint[]) AS a",
			message(qq{pop('$_', 2)}),
			nothing(qq{set_retention('$_', NULL)}),
			number(qq{list_partitions('$_')}) =~ s/^SELECT count\(\*\)::text/SELECT (count(*) > 2)::text/r,
			nothing(qq{create_fifo_index('$_')}),
			message(qq{read_grouped('$_', 3600, 2)}),
			nothing(qq{rescan('$_')}) ) } 'vp', 'vd'),
		nothing(q{set_retention('vp', '100')}),
		nothing(q{set_retention('vd', '10 days')}),
		nothing(q{create_partitioned('vq', '5', '50', 2)}),
		number(q{send_batch('vq', array_fill('1'::jsonb, '{30}'))}),
		"SELECT (pgmq.purge_queue('vq') = 30)::text",
		"SELECT pgmq.drop_queue('vq')::text",
		nothing(q{create('vc')}),
		number(q{send_batch('vc', array_fill('1'::jsonb, '{30}'))}),
		"SELECT count(*)::text FROM pgmq.archive('vc', ARRAY(SELECT msg_id FROM pgmq.q_vc)) AS a",
		nothing(q{convert_archive_partitioned('vc', '10', '100', 2)}),
		number(q{send('vc', '1')}),
		"SELECT pgmq.drop_queue('vc', false)::text") if $partman;
	# Streams: all of it, because it is left out where there are none
	push @verbs, (
		nothing(q{create_stream('vs', 2, '1 day')}),
		"SELECT pgmq.subscribe('vs', 'last')::text",
		number(q{publish('vs', '1', 'a')}),
		number(q{publish('vs', '2', 'b', '{"h": 1}')}),
		number(q{publish_batch('vs', '{3,4,5,6}', '{a,b,a,b}', '{1,2,3,4}')}),
		"SELECT concat_ws(' ', stream_name, shards, retention = '1 day'::interval) FROM pgmq.list_streams()",
		"SELECT pgmq.subscribe('vs', 'all', 'earliest')::text",
		"SELECT subscription FROM pgmq.list_subscriptions('vs') ORDER BY 1",
		event(q{fetch('vs', 0, 0, 100)}),
		event(q{fetch('vs', 1, 0, 2)}),
		event(q{receive('vs', 'all', 0, 2)}),
		event(q{receive_with_poll('vs', 'all', 0, 1, 1)}),
		"SELECT pgmq.advance('vs', 'all', shard, event_id, lease)::text FROM pgmq.receive('vs', 'all', 3600, 2)",
		"SELECT pgmq.extend_lease('vs', 'all', shard, lease, 7200)::text FROM pgmq.receive('vs', 'all', 3600, 1)",
		"SELECT pgmq.return_lease('vs', 'last', shard, lease)::text FROM pgmq.receive('vs', 'last', 3600, 1)",
		event(q{receive('vs', 'last', 3600, 10)}),
		"SELECT concat_ws(' ', subscription, shard, behind, leased_until IS NOT NULL, held_up_by) FROM pgmq.stream_lag('vs') ORDER BY 1",
		nothing(q{seek('vs', 'last', 'latest', force => true)}),
		event(q{receive('vs', 'last', 3600, 10)}),
		nothing(q{bind_topic_stream('vs.*', 'vs')}),
		q{SELECT sent::text FROM pgmq.list_streams(), pgmq.send_topic('vs.a', '7', '{"x-pgmq-group": "a"}', 0) AS sent},
		q{SELECT queue_name FROM pgmq.list_streams(), pgmq.send_batch_topic('vs.a', '{8,9}', ARRAY['{"x-pgmq-group": "a"}', '{"x-pgmq-group": "a"}']::jsonb[]) ORDER BY 1},
		event(q{receive('vs', 'last', 3600, 10)}),
		"SELECT pgmq.unbind_topic_stream('vs.*', 'vs')::text",
		nothing(q{set_stream_retention('vs', '2 days', '1 hour')}),
		"SELECT pgmq.unsubscribe('vs', 'last')::text",
		"SELECT pgmq.drop_stream('vs')::text");
	push @verbs, q{SELECT replace(p, '"', '') FROM pgmq.prepare_downgrade() AS p WHERE p ~ '[qgk]_v'};
	return @verbs;
}

# The procedures: they end transactions, so they have no rows
sub calls
{
	return (q{CALL pgmq.wait('v', 1)}, q{CALL pgmq.wait_any('{v,vn}', 1)}, q{CALL pgmq.wait_grouped('vg', 1)}, q{CALL pgmq.maintain()},
		q{CALL pgmq.upgrade_queues()},
		q{SELECT pgmq.create_stream('vw'); SELECT pgmq.subscribe('vw', 'w'); CALL pgmq.wait_stream('vw', 'w', 1); SELECT pgmq.drop_stream('vw')});
}

1;

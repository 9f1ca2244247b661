# Databases as versions of the PL/pgSQL extension have left them, from one description: which functions there were
# since when, and what tables looked like.  Bodies of functions do nothing, but for the few that tests call.
package OldPgmq;

use strict;
use warnings;

use Exporter 'import';
use Fcntl ':flock';
use File::Copy ();
use PostgreSQL::Test::Utils;
our @EXPORT = qw(@OLD_VERSIONS $NEW_VERSION at_least old_installation old_queues old_extension catalogs queue_catalogs why_not_released released_script);

our @OLD_VERSIONS = qw(1.4.4 1.4.5 1.5.0 1.5.1 1.5.2 1.6.0 1.6.1 1.7.0 1.7.1 1.8.0 1.8.1 1.9.0
	1.10.0 1.10.1 1.11.0 1.11.1 1.11.2 1.12.0 1.13.0 1.13.1);
# Ours: what an update leads to
our ($NEW_VERSION) = slurp_file('pgmq.control') =~ /^default_version = '(.*)'/m or die 'no default_version';

sub at_least
{
	my ($version, $least) = map { sprintf('%03d%03d%03d', split /\./) } @_;

	return $version ge $least;
}

# Forms that the published interface of 1.13.1 has no more: (signature, since, until)
my @GONE = (
	["create_partitioned(queue_name text, partition_interval text DEFAULT '10000', retention_interval text DEFAULT '100000') -> void", '1.4.4', '1.13.0'],
	['drop_queue(queue_name text, partitioned boolean DEFAULT false) -> boolean', '1.4.4', '1.5.0'],
	['enable_notify_insert(queue_name text) -> void', '1.7.0', '1.8.0'],
	['pop(queue_name text) -> SETOF pgmq.message_record', '1.4.4', '1.7.0'],
	['read(queue_name text, vt integer, qty integer) -> SETOF pgmq.message_record', '1.4.4', '1.5.0'],
	['read_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100) -> SETOF pgmq.message_record', '1.4.4', '1.5.0'],
	["read_grouped(queue_name text, vt integer, qty integer, conditional jsonb DEFAULT '{}') -> SETOF pgmq.message_record", '1.9.0', '1.10.0'],
	["read_grouped_rr(queue_name text, vt integer, qty integer, conditional jsonb DEFAULT '{}') -> SETOF pgmq.message_record", '1.9.0', '1.10.0'],
	["read_grouped_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100, conditional jsonb DEFAULT '{}') -> SETOF pgmq.message_record", '1.9.0', '1.10.0'],
	["read_grouped_rr_with_poll(queue_name text, vt integer, qty integer, max_poll_seconds integer DEFAULT 5, poll_interval_ms integer DEFAULT 100, conditional jsonb DEFAULT '{}') -> SETOF pgmq.message_record", '1.9.0', '1.10.0'],
	['send(queue_name text, msg jsonb, delay integer DEFAULT 0) -> SETOF bigint', '1.4.4', '1.5.0'],
	['send_batch(queue_name text, msgs jsonb[], delay integer DEFAULT 0) -> SETOF bigint', '1.4.4', '1.5.0']);

# Since when there are those of 1.13.1; all others are older than 1.4.4.  The first match counts.
my @SINCE = (
	[qr/^create_partitioned\(/, '1.13.0'],
	[qr/^read_grouped_head_with_poll/, '1.12.0'],
	[qr/^read_grouped_head/, '1.11.1'],
	[qr/^(list_notify_insert_throttles|update_notify_insert|_validate_batch_params|_send_batch)\(/, '1.11.0'],
	[qr/topic|routing/, '1.10.1'],
	[qr/^set_vt\(.*vt timestamp/, '1.10.0'],
	[qr/^read_grouped/, '1.10.0'],
	[qr/fifo_index/, '1.9.0'],
	[qr/^(set_vt\(.*msg_ids|enable_notify_insert)/, '1.8.0'],
	[qr/^(notify_queue_listeners|disable_notify_insert|pop)\(/, '1.7.0'],
	[qr/^acquire_queue_lock/, '1.6.0'],
	[qr/^_extension_exists/, '1.5.1'],
	[qr/^(send|send_batch|read|read_with_poll|drop_queue)\(/, '1.5.0']);

sub functions
{
	my ($version) = @_;
	my @found = map { $_->[0] } grep { at_least($version, $_->[1]) && !at_least($version, $_->[2]) } @GONE;

	open(my $file, '<', 'test/signatures.txt') or die "test/signatures.txt: $!";
	while (my $signature = <$file>)
	{
		chomp $signature;
		my ($since) = map { $_->[1] } grep { $signature =~ $_->[0] } @SINCE;
		push @found, $signature if at_least($version, $since // '1.4.4');
	}
	return @found;
}

# The few that do something
my %BODIES = (
	'send(queue_name text, msg jsonb)' =>
		q{BEGIN RETURN QUERY EXECUTE format('INSERT INTO pgmq.%I (vt, message) VALUES (clock_timestamp(), $1) RETURNING msg_id', 'q_' || lower(queue_name)) USING msg; END},
	'send(queue_name text, msg jsonb, delay integer DEFAULT 0)' =>
		q{BEGIN RETURN QUERY EXECUTE format('INSERT INTO pgmq.%I (vt, message) VALUES (clock_timestamp() + make_interval(secs => $2), $1) RETURNING msg_id', 'q_' || lower(queue_name)) USING msg, delay; END},
	'notify_queue_listeners()' =>
		q{BEGIN PERFORM pg_notify('pgmq.' || TG_TABLE_NAME || '.' || TG_OP, NULL); RETURN NEW; END});

sub body
{
	my ($declared, $result) = @_;

	return $BODIES{$declared} if $BODIES{$declared};
	return 'BEGIN RETURN; END' if $result =~ /^(SETOF|TABLE|void)/;
	return 'BEGIN RETURN NULL; END';
}

# What the SQL of the version makes, without an extension
sub old_installation
{
	my ($version) = @_;
	my $last_read = at_least($version, '1.10.0') ? 'last_read_at timestamptz, ' : '';
	my $headers = at_least($version, '1.5.0') ? ', headers jsonb' : '';
	my $visible = at_least($version, '1.5.0') ? ', queue_visible_length bigint' : '';
	my $default = at_least($version, '1.13.0') ? ', default_partition_length bigint' : '';
	my $sql = qq{
		CREATE SCHEMA IF NOT EXISTS pgmq;
		CREATE TABLE pgmq.meta (queue_name varchar UNIQUE NOT NULL, is_partitioned boolean NOT NULL,
			is_unlogged boolean NOT NULL, created_at timestamptz DEFAULT now() NOT NULL);
		GRANT USAGE ON SCHEMA pgmq TO pg_monitor;
		GRANT SELECT ON ALL TABLES IN SCHEMA pgmq TO pg_monitor;
		ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq GRANT SELECT ON TABLES TO pg_monitor;
		ALTER DEFAULT PRIVILEGES IN SCHEMA pgmq GRANT SELECT ON SEQUENCES TO pg_monitor;
		CREATE TYPE pgmq.message_record AS (msg_id bigint, read_ct integer, enqueued_at timestamptz,
			${last_read}vt timestamptz, message jsonb$headers);
		CREATE TYPE pgmq.queue_record AS (queue_name varchar, is_partitioned boolean, is_unlogged boolean,
			created_at timestamptz);
		CREATE TYPE pgmq.metrics_result AS (queue_name text, queue_length bigint, newest_msg_age_sec int,
			oldest_msg_age_sec int, total_messages bigint, scrape_time timestamptz$visible$default);
	};

	$sql .= q{
		CREATE UNLOGGED TABLE pgmq.notify_insert_throttle (
			queue_name varchar UNIQUE NOT NULL CONSTRAINT notify_insert_throttle_meta_queue_name_fk
				REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
			throttle_interval_ms integer NOT NULL DEFAULT 0,
			last_notified_at timestamptz NOT NULL DEFAULT to_timestamp(0));
		CREATE INDEX idx_notify_throttle_active ON pgmq.notify_insert_throttle (queue_name, last_notified_at)
			WHERE throttle_interval_ms > 0;
	} if at_least($version, '1.8.0');
	$sql .= q{
		CREATE TABLE pgmq.topic_bindings (
			pattern text NOT NULL,
			queue_name text NOT NULL CONSTRAINT topic_bindings_meta_queue_name_fk
				REFERENCES pgmq.meta (queue_name) ON DELETE CASCADE,
			bound_at timestamptz DEFAULT now() NOT NULL,
			compiled_regex text GENERATED ALWAYS AS
				('^' || replace(replace(replace(pattern, '.', '\.'), '*', '[^.]+'), '#', '.*') || '$') STORED,
			CONSTRAINT topic_bindings_unique_pattern_queue UNIQUE (pattern, queue_name));
		CREATE INDEX idx_topic_bindings_covering ON pgmq.topic_bindings (pattern) INCLUDE (queue_name, compiled_regex);
	} if at_least($version, '1.10.1');

	foreach my $signature (functions($version))
	{
		my ($declared, $result) = $signature =~ /^(.*\)) -> (.*)$/;
		my $volatility = $result =~ /^TABLE.*(regex|last_notified)/ ? 'STABLE' : $declared =~ /^validate_(routing|topic)/ ? 'IMMUTABLE' : '';

		# Where a column has the name of a parameter, PL/pgSQL is out
		if ($result =~ /^TABLE\(pattern/)
		{
			(my $nothing = $result) =~ s/^TABLE\((.*)\)$/join(', ', map { 'NULL::' . (split ' ', $_, 2)[1] } split(', ', $1))/e;
			$sql .= "CREATE FUNCTION pgmq.$declared RETURNS $result LANGUAGE sql STABLE AS 'SELECT $nothing WHERE false';\n";
			next;
		}
		$sql .= "CREATE FUNCTION pgmq.$declared RETURNS $result LANGUAGE plpgsql $volatility AS \$body\$"
			. body($declared, $result) . "\$body\$;\n";
	}
	return $sql;
}

# The tables of a queue, in the order of columns that the version made, or that a chain of updates has left
sub queue_columns
{
	my ($version, $kind, $upgraded) = @_;
	my $archived = $kind eq 'a' ? 'archived_at timestamptz DEFAULT now() NOT NULL,' : '';
	my $last_read = at_least($version, '1.10.0') ? 'last_read_at timestamptz' : '';
	my $headers = at_least($version, '1.5.0') ? ', headers jsonb' : '';
	my $front = $last_read && !$upgraded ? "$last_read," : '';
	my $back = $last_read && $upgraded ? ", $last_read" : '';

	return "read_ct int DEFAULT 0 NOT NULL, enqueued_at timestamptz DEFAULT now() NOT NULL, $front $archived"
		. " vt timestamptz NOT NULL, message jsonb$headers$back";
}

sub old_queue
{
	my ($version, $name, %is) = @_;
	my $lower = lc $name;
	my $q = queue_columns($version, 'q', $is{upgraded});
	my $a = queue_columns($version, 'a', $is{upgraded});
	my $sql = "INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('$name', "
		. ($is{partitioned} ? 'true' : 'false') . ', ' . ($is{unlogged} ? 'true' : 'false') . ");\n";

	if ($is{partitioned})
	{
		my $by = $is{partitioned};
		my $by_in_archive = $by eq 'msg_id' ? 'msg_id' : 'archived_at';
		my ($from, $until) = $by eq 'msg_id' ? ('0', '10000') : ("'2020-01-01'", "'2100-01-01'");

		return $sql . qq{
			CREATE TABLE pgmq.q_$lower (msg_id bigint GENERATED BY DEFAULT AS IDENTITY, $q) PARTITION BY RANGE ($by);
			CREATE TABLE pgmq.a_$lower (msg_id bigint, $a) PARTITION BY RANGE ($by_in_archive);
			CREATE TABLE pgmq.q_${lower}_p0 PARTITION OF pgmq.q_$lower FOR VALUES FROM ($from) TO ($until);
			CREATE TABLE pgmq.q_${lower}_default PARTITION OF pgmq.q_$lower DEFAULT;
			CREATE TABLE pgmq.a_${lower}_p0 PARTITION OF pgmq.a_$lower FOR VALUES FROM ($from) TO ($until);
			CREATE TABLE pgmq.a_${lower}_default PARTITION OF pgmq.a_$lower DEFAULT;
			CREATE INDEX q_${lower}_part_idx ON pgmq.q_$lower ($by);
			CREATE INDEX archived_at_idx_$lower ON pgmq.a_$lower (archived_at);
		};
	}
	my $unlogged = $is{unlogged} ? 'UNLOGGED' : '';
	$sql .= qq{
		CREATE $unlogged TABLE pgmq.q_$lower (msg_id bigint PRIMARY KEY GENERATED ALWAYS AS IDENTITY, $q);
		CREATE TABLE pgmq.a_$lower (msg_id bigint PRIMARY KEY, $a);
		CREATE INDEX q_${lower}_vt_idx ON pgmq.q_$lower (vt ASC);
		CREATE INDEX "archived_at_idx_$name" ON pgmq.a_$lower (archived_at);
	};
	$sql .= "CREATE INDEX q_${lower}_fifo_idx ON pgmq.q_$lower USING GIN (headers);\n" if $is{groups};
	return $sql;
}

# One queue of each kind, the same messages in each: one was read and is leased, one is delayed, one was archived, three
# are new, and two ids were used up
sub old_queues
{
	my ($version) = @_;
	my @names = qw(orders mixed unlogged part timed);
	my $sql = old_queue($version, 'orders', groups => at_least($version, '1.9.0'))
		. old_queue($version, 'Mixed')
		. "INSERT INTO pgmq.meta (queue_name, is_partitioned, is_unlogged) VALUES ('mixed', false, false);\n"
		. old_queue($version, 'unlogged', unlogged => 1)
		. old_queue($version, 'part', partitioned => 'msg_id')
		. old_queue($version, 'timed', partitioned => 'enqueued_at');

	if (at_least($version, '1.10.0'))
	{
		$sql .= old_queue($version, 'aged', upgraded => 1);
		push @names, 'aged';
	}
	foreach my $name (@names)
	{
		$sql .= qq{
			INSERT INTO pgmq.q_$name (vt, message) SELECT clock_timestamp(), jsonb_build_object('n', i) FROM generate_series(1, 7) AS i;
			DELETE FROM pgmq.q_$name WHERE msg_id = 7;
			UPDATE pgmq.q_$name SET read_ct = 3, vt = now() + interval '1 hour' WHERE msg_id = 1;
			UPDATE pgmq.q_$name SET vt = now() + interval '2 hours' WHERE msg_id = 2;
			WITH gone AS (DELETE FROM pgmq.q_$name WHERE msg_id = 3 RETURNING *)
			INSERT INTO pgmq.a_$name (msg_id, read_ct, enqueued_at, vt, message) SELECT msg_id, 1, enqueued_at, vt, message FROM gone;
		};
		$sql .= qq{UPDATE pgmq.q_$name SET headers = '{"x-pgmq-group": "g"}' WHERE msg_id > 4;\n} if at_least($version, '1.5.0');
		$sql .= qq{UPDATE pgmq.q_$name SET last_read_at = '2024-01-01' WHERE msg_id = 1;\n} if at_least($version, '1.10.0');
	}
	# The forms of triggers
	my $argument = at_least($version, '1.13.1') ? "'orders'" : '';
	$sql .= qq{
		CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_orders
			DEFERRABLE FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners($argument);
	} if at_least($version, '1.7.0');
	$sql .= q{
		CREATE CONSTRAINT TRIGGER trigger_notify_queue_insert_listeners AFTER INSERT ON pgmq.q_part
			DEFERRABLE FOR EACH ROW EXECUTE FUNCTION pgmq.notify_queue_listeners('part');
	} if at_least($version, '1.13.1');
	$sql .= "INSERT INTO pgmq.notify_insert_throttle VALUES ('orders', 0), ('part', 250);\n" if at_least($version, '1.8.0');
	$sql .= "INSERT INTO pgmq.topic_bindings (pattern, queue_name) VALUES ('logs.*', 'orders'), ('#', 'mixed'), ('#.x', 'Mixed');\n"
		if at_least($version, '1.10.1');
	return $sql;
}

# Statements of a superuser that make an extension of this version of an installation that "unpackaged" has adopted
sub old_extension
{
	my ($version) = @_;
	my $sql = "UPDATE pg_extension SET extversion = '$version' WHERE extname = 'pgmq';\n";
	my @tables = ('meta');

	push @tables, 'notify_insert_throttle' if at_least($version, '1.8.0');
	push @tables, 'topic_bindings' if at_least($version, '1.10.1');
	my $oids = join(', ', map { "'pgmq.$_'::regclass" } @tables);
	my $conditions = join(', ', map { "''" } @tables);
	$sql .= "UPDATE pg_extension SET extconfig = ARRAY[$oids]::oid[], extcondition = ARRAY[$conditions]::text[] WHERE extname = 'pgmq';\n"
		if at_least($version, '1.6.0');
	unless (at_least($version, '1.6.0'))
	{
		foreach my $name (qw(orders mixed unlogged part timed))
		{
			$sql .= "ALTER EXTENSION pgmq ADD TABLE pgmq.q_$name; ALTER EXTENSION pgmq ADD TABLE pgmq.a_$name;\n";
		}
		$sql .= "ALTER EXTENSION pgmq ADD SEQUENCE pgmq.q_part_msg_id_seq;\n";
	}
	return $sql;
}

# Version 1.11.1 as it was really released: fetched from npm, no part of this project, and put beside ours while tests
# want it.  Tests that run at the same time share it: each holds a lock, and the last one removes it.
my ($released, $installed, $lock);

# why_not_released(): fetches it and puts it there; if that cannot be done, says why
sub why_not_released
{
	chomp(my $directory = `pg_config --sharedir`);
	my $dir = PostgreSQL::Test::Utils::tempdir();

	$installed = "$directory/extension/pgmq--1.11.1.sql";
	return 'the directory of extensions cannot be written' unless -w "$directory/extension";
	return 'version 1.11.1 cannot be fetched'
		if system("cd $dir && npm_config_cache=$dir/cache npm_config_update_notifier=false npm_config_fetch_retries=0 "
			. 'npm pack --silent @electric-sql/pglite-pgmq@0.0.6 >npm.log 2>&1 && tar xzf *.tgz && tar xzf package/dist/pgmq.tar.gz') != 0;
	$released = "$dir/share/postgresql/extension/pgmq--1.11.1.sql";
	open($lock, '<', "$directory/extension/pgmq.control") or die "pgmq.control: $!";
	flock($lock, LOCK_SH) or die "flock: $!";
	unless (-e $installed)
	{
		File::Copy::copy($released, "$installed.$$") or die "copy: $!";
		rename("$installed.$$", $installed) or die "rename: $!";
	}
	return;
}

sub released_script { return slurp_file($released); }

END
{
	unlink $installed if $lock && flock($lock, LOCK_EX | LOCK_NB);
}

# All that there is in the catalogs about the extension, one object a line; queues are left out
sub catalogs
{
	my ($node, $db) = @_;

	return $node->safe_psql($db, q{
		SET search_path = pg_catalog;
		CREATE FUNCTION pg_temp.sorted(acl aclitem[]) RETURNS text LANGUAGE sql AS
			'SELECT string_agg(a::text, chr(44) ORDER BY a::text) FROM unnest($1) AS a';
		SELECT 'function', p.oid::regprocedure, p.proowner::regrole, pg_temp.sorted(p.proacl), obj_description(p.oid, 'pg_proc'),
		       replace(pg_get_functiondef(p.oid), E'\n', ' ')
		  FROM pg_proc AS p WHERE pronamespace = 'pgmq'::regnamespace ORDER BY p.oid::regprocedure::text;
		SELECT 'type', t.oid::regtype, t.typowner::regrole, t.typacl, obj_description(t.oid, 'pg_type'),
		       (SELECT string_agg(format('%s %s', attname, format_type(atttypid, atttypmod)), ', ' ORDER BY attnum)
		          FROM pg_attribute WHERE attrelid = t.typrelid AND attnum > 0 AND NOT attisdropped)
		  FROM pg_type AS t JOIN pg_class AS c ON c.oid = t.typrelid
		 WHERE t.typnamespace = 'pgmq'::regnamespace AND c.relkind = 'c' ORDER BY t.typname;
		CREATE TEMP VIEW own AS SELECT c.* FROM pg_class AS c
		 WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' AND relname !~ '^[qagsp]_';
		SELECT 'table', oid::regclass, relowner::regrole, relpersistence, pg_temp.sorted(relacl), relreplident, relrowsecurity, reloptions,
		       obj_description(oid, 'pg_class') FROM own AS c ORDER BY relname;
		SELECT 'column', c.oid::regclass, a.attnum, a.attname, format_type(atttypid, atttypmod), attnotnull, attidentity,
		       attgenerated, attacl, col_description(c.oid, a.attnum), pg_get_expr(adbin, adrelid)
		  FROM own AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		  LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = a.attnum ORDER BY relname, attnum;
		SELECT 'constraint', c.oid::regclass, conname, pg_get_constraintdef(o.oid), convalidated
		  FROM own AS c JOIN pg_constraint AS o ON o.conrelid = c.oid ORDER BY relname, conname;
		SELECT 'index', pg_get_indexdef(indexrelid), indisvalid, indisreplident
		  FROM own AS c JOIN pg_index AS i ON i.indrelid = c.oid ORDER BY indexrelid::regclass::text;
		SELECT 'trigger', pg_get_triggerdef(t.oid), tgenabled
		  FROM own AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND NOT tgisinternal ORDER BY relname, tgname;
		SELECT 'policy', p.* FROM pg_policies AS p WHERE schemaname = 'pgmq';
		SELECT 'schema', nspowner::regrole, pg_temp.sorted(nspacl) FROM pg_namespace WHERE nspname = 'pgmq';
		SELECT 'default', defaclrole::regrole, defaclobjtype, pg_temp.sorted(defaclacl) FROM pg_default_acl
		 WHERE defaclnamespace = 'pgmq'::regnamespace ORDER BY 2, 3;
		SELECT 'extension', extowner::regrole, extversion,
		       (SELECT array_agg(format('%s %s', c::regclass, w) ORDER BY c::regclass::text) FROM unnest(extconfig, extcondition) AS u (c, w))
		  FROM pg_extension WHERE extname = 'pgmq';
		SELECT 'member', pg_describe_object(classid, objid, objsubid) FROM pg_depend
		 WHERE refclassid = 'pg_extension'::regclass AND deptype = 'e'
		   AND refobjid = (SELECT oid FROM pg_extension WHERE extname = 'pgmq') ORDER BY 2});
}

# The same about the tables of queues
sub queue_catalogs
{
	my ($node, $db) = @_;

	return $node->safe_psql($db, q{
		SET search_path = pg_catalog;
		CREATE FUNCTION pg_temp.sorted(acl aclitem[]) RETURNS text LANGUAGE sql AS
			'SELECT string_agg(a::text, chr(44) ORDER BY a::text) FROM unnest($1) AS a';
		CREATE TEMP VIEW queues AS SELECT c.* FROM pg_class AS c
		 WHERE relnamespace = 'pgmq'::regnamespace AND relkind IN ('r', 'p', 'S') AND relname ~ '^[qag]_';
		SELECT 'table', oid::regclass, relkind, relowner::regrole, relpersistence, pg_temp.sorted(relacl), relreplident, relrowsecurity,
		       relforcerowsecurity, reloptions, pg_get_partkeydef(oid), pg_get_expr(relpartbound, oid), obj_description(oid, 'pg_class')
		  FROM queues ORDER BY relname;
		SELECT 'column', c.oid::regclass, row_number() OVER (PARTITION BY c.oid ORDER BY a.attnum), a.attname, format_type(atttypid, atttypmod),
		       attnotnull, attidentity, attacl, col_description(c.oid, a.attnum), pg_get_expr(adbin, adrelid)
		  FROM queues AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
		  LEFT JOIN pg_attrdef ON adrelid = c.oid AND adnum = a.attnum WHERE c.relkind <> 'S' ORDER BY relname, a.attnum;
		SELECT 'constraint', c.oid::regclass, conname, pg_get_constraintdef(o.oid), convalidated
		  FROM queues AS c JOIN pg_constraint AS o ON o.conrelid = c.oid ORDER BY relname, conname;
		SELECT 'index', pg_get_indexdef(indexrelid), indisvalid, indisprimary, indisreplident, inhparent::regclass
		  FROM queues AS c JOIN pg_index AS i ON i.indrelid = c.oid LEFT JOIN pg_inherits ON inhrelid = indexrelid ORDER BY indexrelid::regclass::text;
		SELECT 'trigger', pg_get_triggerdef(t.oid), tgenabled, tgparentid <> 0
		  FROM queues AS c JOIN pg_trigger AS t ON t.tgrelid = c.oid AND NOT tgisinternal ORDER BY relname, tgname;
		SELECT 'policy', p.* FROM pg_policies AS p WHERE schemaname = 'pgmq' ORDER BY tablename, policyname;
		SELECT 'sequence', seqrelid::regclass, format_type(seqtypid, NULL), seqstart, seqincrement, seqcache, seqcycle, refobjid::regclass, deptype
		  FROM queues AS c JOIN pg_sequence ON seqrelid = c.oid
		  LEFT JOIN pg_depend ON classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i') AND refclassid = classid ORDER BY relname});
}

1;

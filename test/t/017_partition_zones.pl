# Partitions by time do not depend on the time zone of any session: not on that of the session that makes the
# queue, nor on that of the one that maintains it, nor on daylight saving time.
use strict;
use warnings;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('zones');
$node->init;
$node->append_conf('postgresql.conf', "fsync = off\ntimezone = 'UTC'");
$node->start;
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq; CREATE SCHEMA partman; CREATE EXTENSION pg_partman SCHEMA partman');

sub sql_is
{
	my ($query, $expected, $name) = @_;
	my ($rc, $out, $err) = $node->psql('postgres', $query);

	chomp($out, $err);
	is("$out$err", $expected, $name);
}

my $BOUNDS = q{SELECT md5(string_agg(pg_get_expr(c.relpartbound, c.oid) || replace(c.relname, 'q_', ''), ' ' ORDER BY c.relname)) FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid WHERE inhparent = };

# The same queue in many zones, made and maintained under any of them
my @zones = ('UTC', 'Asia/Kathmandu', 'America/New_York', 'Europe/Berlin', 'Australia/Lord_Howe', 'Pacific/Kiritimati', 'Africa/Casablanca');
foreach my $interval ('1 day', '1 hour', '1 month', '1 year')
{
	foreach my $zone (@zones)
	{
		(my $other = $zones[rand @zones]) =~ s/'//g;
		$node->safe_psql('postgres', qq{
			SET timezone = '$zone'; SET datestyle = 'German, DMY'; SET intervalstyle = 'sql_standard';
			SELECT pgmq.create_partitioned('tz', '$interval', '7 years', 4);
			SET timezone = '$other';
			UPDATE partman.part_config SET premake = 8;
			CALL pgmq.maintain()});
		sql_is(q{SELECT count(*) FROM pgmq.list_partitions('tz')}, 4 + 1 + 8 + 1, "$interval, created under $zone, maintained under $other: all partitions are made");
		sql_is(q{SELECT partition_interval = '} . $interval . q{'::interval::text FROM partman.part_config WHERE parent_table = 'pgmq.q_tz'}, 't', "$interval under $zone: recorded as pg_partman has it");
		sql_is(qq{SELECT count(*) FROM pgmq.list_partitions('tz') WHERE lower_bound::timestamptz <> date_trunc('} . ($interval =~ s/1 //r) . qq{', lower_bound::timestamptz)}, 0, "$interval under $zone: the bounds are UTC's");
		sql_is(q{SELECT pgmq.drop_queue('tz')}, 't', "$interval under $zone: dropped");
	}
}

# A queue whose partitions were made in another zone, as earlier versions did
foreach my $case ([ 'Asia/Kathmandu', '1 day', 'YYYY_MM_DD', 'YYYYMMDD' ], [ 'Europe/Berlin', '1 hour', 'YYYY_MM_DD_HH24MI', 'YYYYMMDD_HH24MISS' ], [ 'America/New_York', '1 day', 'YYYY_MM_DD', 'YYYYMMDD' ])
{
	my ($zone, $interval, $old_format, $new_format) = @$case;
	my $format = $node->safe_psql('postgres', q{SELECT split_part(extversion, '.', 1)::int >= 5 FROM pg_extension WHERE extname = 'pg_partman'}) eq 't' ? $new_format : $old_format;

	$node->safe_psql('postgres', qq{
		SELECT pgmq.create_partitioned('old', '$interval', NULL, 4);
		SET timezone = '$zone';
		DO \$\$
		DECLARE
			p regclass; i int; l timestamptz := date_trunc('} . ($interval =~ s/1 //r) . qq{', now()) - 2 * interval '$interval'; t text; template text;
		BEGIN
			FOREACH t IN ARRAY ARRAY['q_old', 'a_old'] LOOP
				FOR p IN SELECT inhrelid FROM pg_inherits AS h JOIN pg_class AS c ON c.oid = h.inhrelid WHERE inhparent = ('pgmq.' || t)::regclass AND relname !~ 'default' LOOP
					EXECUTE format('DROP TABLE %s', p);
				END LOOP;
				FOR i IN 0..4 LOOP
					EXECUTE format('CREATE TABLE pgmq.%I PARTITION OF pgmq.%I FOR VALUES FROM (%L) TO (%L)', t || '_p' || to_char(l + i * interval '$interval', '$format'), t,
						l + i * interval '$interval', l + (i + 1) * interval '$interval');
				END LOOP;
			END LOOP;
		END \$\$;
		INSERT INTO pgmq.q_old (enqueued_at, vt, message) SELECT now() + i * interval '$interval', now(), to_jsonb(i) FROM generate_series(-6, 9) AS i});
	foreach my $session ('UTC', $zone, 'UTC', 'Pacific/Kiritimati')
	{
		sql_is("SET timezone = '$session'; CALL pgmq.maintain()", '', "old partitions of $zone by $interval, under $session: maintained without a word");
	}
	sql_is('SELECT (SELECT count(*) FROM pgmq.q_old_default), (SELECT count(*) FROM pgmq.q_old)', '0|16', "$zone, $interval: every message has its partition");
	sql_is(q{SELECT count(*) > 0 FROM pgmq.list_partitions('old') WHERE lower_bound::timestamptz > now() + } . "3 * interval '$interval'", 't', "$zone, $interval: partitions ahead are made");
	sql_is(q{SELECT pgmq.drop_queue('old')}, 't', "$zone, $interval: dropped");
}

# The doubled hour at the end of daylight saving time, hour by hour
foreach my $zone ('Europe/Berlin', 'America/New_York', 'UTC')
{
	$node->safe_psql('postgres', qq{
		SET timezone = '$zone';
		SELECT pgmq.create_partitioned('dst', '1 hour', NULL, 2);
		INSERT INTO pgmq.q_dst (enqueued_at, vt, message) SELECT timestamptz '2024-10-26 20:30+00' + i * interval '1 hour', now(), '1' FROM generate_series(0, 9) AS i;
		INSERT INTO pgmq.q_dst (enqueued_at, vt, message) SELECT timestamptz '2024-11-03 02:30+00' + i * interval '1 hour', now(), '1' FROM generate_series(0, 9) AS i;
		INSERT INTO pgmq.q_dst (enqueued_at, vt, message) VALUES ('infinity', now(), '1'), ('-infinity', now(), '1')});
	sql_is("SET timezone = '$zone'; CALL pgmq.maintain(); SELECT count(*) FROM pgmq.q_dst_default; SELECT count(*) FROM pgmq.list_partitions('dst') WHERE messages = 1", "2\n20",
		"$zone: each hour has one partition, and what is at infinity stays");
	sql_is(q{SELECT pgmq.drop_queue('dst')}, 't', "$zone: dropped");
}

# An archive that is converted, by time
foreach my $zone ('Asia/Kathmandu', 'UTC')
{
	sql_is(qq{SET timezone = '$zone'; SELECT pgmq.create('arch'); SELECT pgmq.send('arch', '1'); SELECT pgmq.archive('arch', currval('pgmq.q_arch_msg_id_seq'));
		SELECT pgmq.convert_archive_partitioned('arch', '1 day', '30 days', 3); SET timezone = 'America/New_York'; CALL pgmq.maintain();
		SELECT count(*) FROM pgmq.a_arch; SELECT pgmq.drop_queue('arch')}, "\n1\nt\n\n1\nt", "an archive converted under $zone");
}

$node->stop;
done_testing();

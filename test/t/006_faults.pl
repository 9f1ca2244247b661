# Faults inside a call: an allocation that fails, a cancel at a
# CHECK_FOR_INTERRUPTS, the end of the session.  After each of them nothing is
# lost, leased or there twice, and the same session can use the queue.
#
# Each call is made with the first opportunity failing, then with the second, and
# so on until it comes through.  There are many: for some calls, and in a session
# where everything is new to the server, it is one for each place in the code near
# our functions, and some of the others: so many as PGMQ_TEST_FAULTS says, or all.
use strict;
use warnings;

use FindBin;
use lib "$FindBin::RealBin/../faults";
use Faults;
use Tries;
use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

my $node = PostgreSQL::Test::Cluster->new('faults');
$node->init;
$node->append_conf('postgresql.conf', qq(
log_statement = none
log_min_messages = log
fsync = off
autovacuum = off
));
$node->start;
tries_in($node);
$node->safe_psql('postgres', 'CREATE EXTENSION pgmq;' . fault_functions() .
	slurp_file("$FindBin::RealBin/../faults/work.sql"));

# The calls: what they do to the messages that they give, and how they are made.
# :id is a leased message.
my $read = 'coalesce(array_agg(msg_id), :none) AS ids';
my %call = (
	send => [ send => q{array[pgmq.send('work', '{"n": 1}', '{"h": 2}'::jsonb)]} ],
	send_delayed => [ send => q{array[pgmq.send('work', '{"n": 1}', 3600)]} ],
	send_batch => [ send => q{array(SELECT pgmq.send_batch('work', '{1,2,3}'::jsonb[], now() + '1 hour'))} ],
	read => [ lease => "$read FROM pgmq.read('work', 3600, 2)" ],
	read_floors => [ lease => "$read FROM pgmq.read('work', 3600, 2)", 20 ],
	read_where => [ lease => qq{$read FROM pgmq.read('work', 3600, 2, '{"kind": "fresh"}')} ],
	read_all => [ lease => "$read FROM pgmq.read('work', 3600, 1000)" ],
	read_with_poll => [ lease => "$read FROM pgmq.read_with_poll('work', 3600, 2, 5, 1)" ],
	read_empty => [ lease => "$read FROM pgmq.read('empty', 3600, 2)" ],
	pop => [ remove => "$read FROM pgmq.pop('work', 2)" ],
	delete => [ remove => q{CASE WHEN pgmq.delete('work', :id) THEN ARRAY[:id::bigint] ELSE :none END} ],
	delete_array => [ remove => q{array(SELECT pgmq.delete('work', ARRAY[:id::bigint, :id + 1000000]))} ],
	archive => [ archive => q{CASE WHEN pgmq.archive('work', :id) THEN ARRAY[:id::bigint] ELSE :none END} ],
	archive_array => [ archive => q{array(SELECT pgmq.archive('work', ARRAY[:id::bigint, :id + 1000000]))} ],
	# for cancels only
	send_many => [ send => q{array(SELECT pgmq.send_batch('work', array_fill('1'::jsonb, ARRAY[1000]), now() + '1 hour'))} ],
	poll_empty => [ lease => "$read FROM pgmq.read_with_poll('empty', 3600, 2, 1, 1)" ],
	set_vt => [ lease => "$read FROM pgmq.set_vt('work', :id, 7200)" ],
	set_vt_array => [ lease => "$read FROM pgmq.set_vt('work', ARRAY[:id::bigint, :id + 1000000], now() + '2 hours')" ]);

foreach (values %call)
{
	$_->[1] .= ' AS ids' unless $_->[1] =~ /AS ids/;
}

# One try, in psql's words, "new" for one in a new session.  Prints "TRY <call> <n> <fault came> <failed> <SQLSTATE> <what is wrong>".
sub try_script
{
	my ($fault, $name, $n, $new) = @_;
	my ($kind, $sql, $handed) = @{ $call{$name} };
	my $connect = $new ? '\\c' : '';
	my $echo = $new ? "\\echo BEFORE :before" : '';
	# Trying everything takes longest
	my $try_all = $ALL || $new || $n % 5 == 0 ? 'true' : 'false';
	my $vacuum = $n % 50 == 0 ? 'VACUUM pgmq.q_work, pgmq.a_work;' : '';

	$handed //= 1;
	return qq{
$vacuum
SELECT test.begin($handed) AS void \\gset
SELECT test.note() AS before, (SELECT min(msg_id) FROM test.now WHERE place = 'queue' AND NOT visible) AS id \\gset
\\set ids {}
$echo
$connect
SELECT fault_$fault($n) AS void \\gset
SELECT $sql \\gset
\\set failed :ERROR
\\set state :SQLSTATE
SELECT fault_disarm() AS fired \\gset
SELECT 'TRY $name $n', :'fired', :'failed', :'state', test.settle('$kind', :'before', :'ids', :'failed', $try_all);
};
}

# How often a call gives a fault the opportunity, and which of these are the first of
# their place: near our functions, and all
sub count_script
{
	my ($fault, $name, $new) = @_;
	my ($kind, $sql, $handed) = @{ $call{$name} };
	my $connect = $new ? '\c' : '';

	$handed //= 1;
	return qq{
SELECT test.begin($handed) AS void \\gset
SELECT test.note() AS before, (SELECT min(msg_id) FROM test.now WHERE place = 'queue' AND NOT visible) AS id \\gset
$connect
SELECT fault_$fault(0) AS void \\gset
SELECT $sql \\gset
SELECT 'COUNT $name', fault_seen(), array_to_string(fault_sites(true), ' '), array_to_string(fault_sites(false), ' ');
};
}

# count_opportunities(fault, cold, names): a hash of [how many, near, all]
sub count_opportunities
{
	my ($fault, $cold, @names) = @_;
	my %count;
	my ($stderr, @lines) = run_script(join '', map {
			# once before, in the same session, when that is to be warm
			($cold ? '' : count_script($fault, $_)) . count_script($fault, $_, $cold)
	} @names);

	foreach (@lines)
	{
		my ($what, $seen, $near, $all) = split /\|/;
		next unless $what && $what =~ /^COUNT (\w+)/;
		$count{$1} = [ $seen, [ sort { $a <=> $b } split / /, $near ], [ sort { $a <=> $b } split / /, $all // '' ] ];
	}
	is($stderr, '', "opportunities are counted: $fault" . ($cold ? ', new session' : ''));
	return %count;
}

# try_all(what, fault, state, new, chosen): chosen is a hash of lists of n
sub try_all
{
	my ($what, $fault, $state, $new, %chosen) = @_;
	my $expected = 0;
	my @script;

	foreach my $name (sort keys %chosen)
	{
		push @script, map { try_script($fault, $name, $_, $new) } @{ $chosen{$name} };
		$expected += @{ $chosen{$name} };
	}
	my $settle = sub { "SELECT test.settle('none', \$before\$$_[0]\$before\$, '{}', true, true)" };
	my ($tries, $failed) = check_tries($what, $state, run_tries($settle, @script));
	is($tries, $expected, "$what: all was tried");
	cmp_ok($failed, '>', $expected * 0.8, "$what: calls failed");
}

my @names = sort grep { !/^(send_many|poll_empty)$/ } keys %call;
my @thorough = $ALL ? @names : qw(send read);
my @new = $ALL ? @names : qw(send read);
my %count;
my %chosen;

# Allocations of a session that has done all this before
%count = count_opportunities('alloc', undef, @names);
%chosen = map { $_ => [ choose($count{$_}) ] } @names;
# a few more, in case that the calls differ
$chosen{$_} = [ 1 .. $count{$_}[0] + 5 ] foreach @thorough;
try_all('out of memory', 'alloc', $OUT_OF_MEMORY, undef, %chosen);

# New sessions: plans are made, hash tables, shared memory is attached
%count = count_opportunities('alloc', 'new', @new);
foreach (@new)
{
	note("$_: $count{$_}[0] allocations in " . @{ $count{$_}[2] } . ' places, ' . @{ $count{$_}[1] } . ' near');
	cmp_ok(scalar @{ $count{$_}[1] }, '>', 5, "new session, $_: our functions allocate");
}
try_all('out of memory, new session', 'alloc', $OUT_OF_MEMORY, 'new', map { $_ => [ choose($count{$_}) ] } @new);

# Cancels
my $jumps = $node->safe_psql('postgres', 'SELECT version()') =~ /x86_64|aarch64/;
SKIP:
{
	skip 'cancels need a processor whose jumps fault.c knows', 1 unless $jumps;

	%count = count_opportunities('cancel', undef, @names, 'send_many');
	note("$_: $count{$_}[0] interrupt checks in " . @{ $count{$_}[2] } . ' places') foreach sort keys %count;
	cmp_ok($count{$_}[0], '>', 2, "$_ checks for interrupts") foreach qw(send read pop archive);
	$chosen{$_} = [ choose_checks($count{$_}[0], @{ $count{$_}[1] }) ] foreach keys %count;
	# It looks again until it is cancelled; the first two looks, and some later ones
	$chosen{poll_empty} = [ 1 .. 30, sample($ALL ? 200 : 10, 31 .. 500) ];
	try_all('cancel', 'cancel', $CANCELED, undef, %chosen);

	%count = count_opportunities('cancel', 'new', @new);
	try_all('cancel, new session', 'cancel', $CANCELED, 'new', map { $_ => [ 1 .. $count{$_}[0] ] } @new);
}

# Queues that are made, emptied and dropped: all of it or nothing
my $gone = "SELECT pgmq.drop_queue('adm') AS void \\gset";
my $full = "$gone\nSELECT pgmq.create('adm') AS void, pgmq.send('adm', '1') AS void \\gset";
my $about = "test.about('adm')";

foreach my $fault ($jumps ? qw(alloc cancel) : 'alloc')
{
	try_states("queues, $fault", $fault, $fault eq 'cancel' ? $CANCELED : $OUT_OF_MEMORY, $ALL, [ '', "''" ],
		create => [ $gone, "pgmq.create('adm')", $about ],
		drop_queue => [ $full, "pgmq.drop_queue('adm')", $about ],
		purge_queue => [ $full, "pgmq.purge_queue('adm')", $about ],
		rescan => [ $full, "pgmq.rescan('adm')", $about ]);
}

# The session is ended in the midst of a call
SKIP:
{
	skip 'the end of a session needs a processor whose jumps fault.c knows', 1 unless $jumps;

	my ($tries, $ended) = (0, 0);
	my @wrong;
	%count = count_opportunities('terminate', 'new', qw(send_batch read));
	foreach my $name (sort keys %count)
	{
		my $sql = $call{$name}[1];
		foreach my $n (sample($ALL ? 1000 : 12, 1 .. $count{$name}[0]))
		{
			my ($stdout, $stderr) = ('', '');
			my $before = $node->safe_psql('postgres', 'SELECT test.begin(2); SELECT test.note()');

			(my $text = $sql) =~ s/:none/'{}'/;
			$node->psql('postgres', "SELECT fault_terminate($n); SELECT $text", stdout => \$stdout, stderr => \$stderr);
			my ($after, $wrong) = $node->safe_psql('postgres', 'SELECT test.note(); SELECT test.usable()') =~ /(.*)\n?(.*)/;
			$tries++;
			# What is due by the clock is no part of each call: one may be over before its Nth opportunity
			next if $stderr eq '' && $n > $count{$name}[0] * 0.8;
			$ended++;
			push @wrong, "$name $n: $stderr" unless $stderr =~ /FATAL:  terminating connection due to administrator command/;
			push @wrong, "$name $n: $wrong" if $wrong;
			push @wrong, "$name $n: $before became $after" if substr($before, 1) ne $after && $before ne "\n$after";
		}
	}
	is(join("\n", @wrong), '', 'the session ends: nothing changed, and others can use the queue');
	cmp_ok($tries, '>', 10, 'sessions were to end');
	cmp_ok($ended, '>', $tries * 0.8, 'almost all ended');
}

$node->stop;
done_testing();

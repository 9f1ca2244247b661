# Calls that are made again and again, each time with another fault (see fault.c), as scripts for psql; and what must be so
# after each of them.
package Tries;

use strict;
use warnings;

use Exporter 'import';
use List::Util qw(min uniq);
use PostgreSQL::Test::Utils;
use Test::More;

our @EXPORT = qw($ALL $CANCELED $OUT_OF_MEMORY $SAMPLE check_tries choose choose_checks run_script run_tries sample tries_in try_ends try_states);

# So many as PGMQ_TEST_FAULTS says of the places that are not near our functions, or all
our $ALL = ($ENV{PGMQ_TEST_FAULTS} // '') eq 'all';
our $SAMPLE = $ALL ? 0 : $ENV{PGMQ_TEST_FAULTS} || 12;

# The server has no SQLSTATE for some lack of memory
# A setting whose check gets no memory has an invalid value, says the server (22023), and a regular expression is invalid (2201B)
our $OUT_OF_MEMORY = qr/53200|XX000|22023|2201B/;
our $CANCELED = qr/57014/;

my $node;

# tries_in(node): the server
sub tries_in
{
	($node) = @_;
	my $seed = $ENV{PGMQ_TEST_SEED} // time();

	srand($seed);
	note("PGMQ_TEST_SEED=$seed");
	return;
}

# run_script(text): the lines that it prints
sub run_script
{
	my ($script) = @_;
	my ($stdout, $stderr) = ('', '');
	my $file = PostgreSQL::Test::Utils::tempdir() . '/script.sql';

	append_to_file($file, "\\set none '''{}''::bigint[]'\n$script");
	$node->psql('postgres', undef, stdout => \$stdout, stderr => \$stderr, on_error_stop => 0,
		extra_params => [ '-f', $file ], timeout => 10 * $PostgreSQL::Test::Utils::timeout_default);
	unlink $file;
	return ($stderr, split /\n/, $stdout);
}

# check_tries(what, state, stderr, lines): every try has come out right; how often the fault came
sub check_tries
{
	my ($what, $state, $stderr, @lines) = @_;
	my ($tries, $failed, $through) = (0, 0, 0);
	my @wrong;

	foreach my $line (@lines)
	{
		my ($try, $fired, $error, $sqlstate, $wrong) = split /\|/, $line, 5;

		next unless $try && $try =~ /^TRY/;
		$tries++;
		$failed++ if $error eq 'true';
		$through++ if $fired eq 't' && $error eq 'false';
		push @wrong, $line
		  if $wrong ne '' || ($error eq 'true' && ($sqlstate !~ $state || $fired ne 't'));
	}
	my %errors;
	$errors{$_}++ for $stderr =~ /(?:ERROR|FATAL|PANIC|error|WARNING):  ?(.*)/g;
	is(join("\n", @wrong[ 0 .. ($#wrong > 9 ? 9 : $#wrong) ]), '', "$what: nothing changed, or all that was to be, and the session works");
	my $no_memory = qr/out of memory|invalid regular expression: out of memory|failed to initialize hash table .*|invalid value for parameter "DateStyle": .*/;
	is(join(', ', grep { !/^((?:maintenance of stream "\w+" failed \([a-z ]+\): )?$no_memory|AbortSubTransaction while in START state|canceling statement due to user request)$/ } sort keys %errors),
		'', "$what: no other error");
	note("$what: $tries tries, $failed failed, $through came through in spite of the fault");
	return ($tries, $failed, $failed + $through);
}

# run_tries(settle, tries): as run_script, for scripts that print a line each.  In a
# session that does a thing for the first time the server itself ends the session for
# some lack of memory; then settle makes the SQL that tells in another one what is wrong,
# of what the script has printed behind BEFORE and the name of the call, and the rest goes on.
sub run_tries
{
	my ($settle, @tries) = @_;
	my ($stderr, @lines) = ('');

	while (@tries)
	{
		my ($errors, @out) = run_script(join '', @tries);
		my @done = grep { /^TRY/ } @out;

		push @lines, @done;
		splice @tries, 0, scalar @done;
		my $lost = $errors =~ /FATAL:  out of memory/ && $errors =~ s/^.*connection to server was lost\n?//m;

		$stderr .= $errors;
		last unless $lost;
		my ($before) = reverse grep { s/^BEFORE // } @out;
		my ($name, $n) = shift(@tries) =~ /'TRY (\w+) (\d+)'/;
		my $wrong = $node->safe_psql('postgres', $settle->($before, $name));
		note("$name $n: the server ended the session");
		push @lines, "TRY $name $n|t|true|53200|$wrong";
	}
	return ($stderr, @lines);
}

sub sample
{
	my ($count, @from) = @_;
	my @picked;

	push @picked, splice(@from, int(rand(@from)), 1) while @from && @picked < $count;
	return sort { $a <=> $b } @picked;
}

# choose(count): one for each place near our functions, and some of the others
sub choose
{
	my ($seen, $near, $all) = @{ $_[0] };
	my %is_near = map { $_ => 1 } @$near;

	return $ALL ? @$all : (@$near, sample($SAMPLE, grep { !$is_near{$_} } @$all));
}

# choose_checks(seen, places): of the interrupt checks each; or if there are many, each place and some more
sub choose_checks
{
	my ($seen, @places) = @_;
	my $last = min($seen, 6000);

	return $last <= 60 ? (1 .. $last) : uniq(@places, sample($ALL ? 1000 : 20, 1 .. $last));
}

# try_states(what, fault, state, new, usable, calls): of each call, [how to begin, the call, what there is]; the last is SQL that
# gives a text, which is the same before and after a call that failed.  "usable" is a statement for afterwards, and SQL
# that then gives what is wrong besides.  Each is tried in the session that has begun, or with "new" in a new one.
# A fourth element is how to begin again, where to look has changed something, and a fifth says how many tries are enough.
sub try_states
{
	my ($what, $fault, $state, $new, $usable, %calls) = @_;
	my ($again, $is_usable) = @$usable;
	my (%count, %after, @script);
	my ($stderr, @lines) = run_script(join '', map { (make_try($fault, 0, $new, $calls{$_}) . qq{
SELECT 'COUNT $_', fault_seen(), array_to_string(fault_sites(true), ' '), array_to_string(fault_sites(false), ' '), $calls{$_}[2];
}) x 2 } sort keys %calls);

	is($stderr, '', "$what: opportunities are counted");
	foreach (@lines)
	{
		next unless /^COUNT (\w+)\|(\d+)\|([\d ]*)\|([\d ]*)\|(.*)/;
		my ($name, $seen, $near, $all) = ($1, $2, $3, $4);

		$after{$name} = $5;
		$count{$name} = [ $fault eq 'cancel' ? choose_checks($seen, split / /, $near) : choose([ $seen, [ split / /, $near ], [ split / /, $all ] ]) ];
		$count{$name} = [ sample($calls{$name}[4], @{ $count{$name} }) ] if $calls{$name}[4] && !$ALL;
		note("$what: $name: $seen opportunities, " . @{ $count{$name} } . ' tries');
	}
	foreach my $name (sort keys %calls)
	{
		my $about = $calls{$name}[2];

		push @script, map { ($_ % 50 ? '' : "VACUUM;\n") . make_try($fault, $_, $new, $calls{$name}) . qq{
SELECT fault_disarm() AS fired \\gset
SELECT coalesce(nullif($about, CASE WHEN :'failed' THEN :'before' ELSE \$a\$$after{$name}\$a\$ END), '') AS wrong \\gset
$again
SELECT 'TRY $name $_', :'fired', :'failed', :'state', concat(:'wrong', $is_usable);
} } @{ $count{$name} };
	}
	my $settle = sub { "SELECT nullif($calls{$_[1]}[2], \$a\$$_[0]\$a\$)" };
	my ($tries, undef, $came) = check_tries($what, $state, run_tries($settle, @script));
	is($tries, scalar @script, "$what: all was tried");
	# The server checks for interrupts also in work for caches, which is no part of each call: one may be over before its last checks
	cmp_ok($came, '>', @script * ($fault eq 'cancel' ? 0.6 : 0.8), "$what: the faults came");
	return;
}

# make_try(fault, n, new, call): in psql's words; n = 0 counts
sub make_try
{
	my ($fault, $n, $new, $of_call) = @_;
	my ($begin, $call, $about, $prepare) = @$of_call;

	return join "\n", 'SET client_min_messages = warning;', $begin, "SELECT $about AS before \\gset", '\echo BEFORE :before', $prepare // '',
		$new ? '\c' : (), "SELECT fault_$fault($n) AS void \\gset", "SELECT $call AS void \\gset",
		'\set failed :ERROR', '\set state :SQLSTATE', '';
}

# try_ends(tries, usable, calls): in so many tries each the session ends in the midst of the call
sub try_ends
{
	my ($most, $usable, %calls) = @_;
	my ($tries, $ended) = (0, 0);
	my @wrong;

	foreach my $name (sort keys %calls)
	{
		my $about = $calls{$name}[2];
		my ($stderr, @lines) = run_script(make_try('terminate', 0, 'new', $calls{$name}) . "SELECT fault_seen(), $about;\n");
		my ($seen, $after) = split /\|/, $lines[-1], 2;

		foreach my $n (sample($ALL ? 1000 : $most, 1 .. $seen))
		{
			my ($end, @begun) = run_script(make_try('terminate', $n, 'new', $calls{$name}));
			my ($before) = map { /^BEFORE (.*)/ } @begun;
			my $died = $end =~ /FATAL:  terminating connection due to administrator command/;
			my ($errors, $is, $wrong) = run_script("SELECT $about;\n$usable->[0]\nSELECT $usable->[1];\n");

			$tries++;
			$ended++ if $died;
			push @wrong, "$name $n: $end" if $end ne '' && !$died;
			push @wrong, "$name $n: $errors$wrong" if "$errors$wrong" ne '';
			push @wrong, "$name $n: $before became $is" if $is ne ($died ? $before : $after);
		}
	}
	is(join("\n", @wrong), '', 'the session ends: nothing changed, and others can go on');
	# What is due by the clock is no part of each call: one may be over before its Nth opportunity
	cmp_ok($ended, '>', $tries * 0.8, "almost all of $tries ended");
	return;
}

1;

# The examples of a page of docs/: each block of SQL prints what the block of text behind it says, and nothing if
# there is none.  They run in their order, in a database of their own with the extension.
package DocExamples;

use strict;
use warnings;

use File::Basename;
use IPC::Run;
use PostgreSQL::Test::Utils;
use Test::More;

sub page
{
	my ($name) = @_;
	return slurp_file(dirname(__FILE__) . "/../../docs/$name.md");
}

# The lease of a stream is a random number
my $LEASE = qr/\b\d{10,16}\b/;

# What differs from run to run: times and leases, with the width of their columns, and trailing blanks
sub comparable
{
	my ($text) = @_;
	my $times = $text =~ s/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d/TIME/g;

	if ($text =~ s/$LEASE/LEASE/g || $times)
	{
		$text =~ s/ +/ /g;
		$text =~ s/-{2,}/-/g;
	}
	$text =~ s/[ \t]+$//gm;
	$text =~ s/\n+\z/\n/;
	return $text;
}

sub run
{
	my ($node, $name, @setup) = @_;
	my $text = page($name);
	my ($count, %lease) = (0);

	$node->safe_psql('postgres', qq{CREATE DATABASE "$name"});
	$node->safe_psql($name, 'CREATE EXTENSION pgmq');
	$node->safe_psql($name, $_) foreach @setup;
	while ($text =~ /^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/gms)
	{
		my ($sql, $expected, $output) = ($1, $2 // '', '');

		# A lease of the page stands for the one that a call has returned instead
		$sql =~ s/$LEASE/$lease{$&} \/\/ $&/ge;
		IPC::Run::run([ 'psql', '-X', '-q', '-v', 'SHOW_CONTEXT=never', '-d', $node->connstr($name) ], '<', \$sql, '>&', \$output);
		@lease{ $expected =~ /$LEASE/g } = $output =~ /$LEASE/g;
		is(comparable($output), comparable($expected), "$name: $sql");
		$count++;
	}
	cmp_ok($count, '>', 0, "$name has examples");
	return;
}

1;

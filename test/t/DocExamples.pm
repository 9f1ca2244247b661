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

# What differs from run to run: times, with the width of their columns, and trailing blanks
sub comparable
{
	my ($text) = @_;

	if ($text =~ s/\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?[+-]\d\d/TIME/g)
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
	my $count = 0;

	$node->safe_psql('postgres', qq{CREATE DATABASE "$name"});
	$node->safe_psql($name, 'CREATE EXTENSION pgmq');
	$node->safe_psql($name, $_) foreach @setup;
	while ($text =~ /^```sql\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?/gms)
	{
		my ($sql, $expected, $output) = ($1, $2 // '', '');

		IPC::Run::run([ 'psql', '-X', '-q', '-v', 'SHOW_CONTEXT=never', '-d', $node->connstr($name) ], '<', \$sql, '>&', \$output);
		is(comparable($output), comparable($expected), "$name: $sql");
		$count++;
	}
	cmp_ok($count, '>', 0, "$name has examples");
	return;
}

1;

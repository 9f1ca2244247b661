# What many tests do with SQL: run it, compare what comes back, and wait until something is true.
#
# sql_on(node, database) says where.  Then sql(), sql_is() and said() go there, or to another database
# (db => name), or run as a role (role => name).
package PgmqSql;

use strict;
use warnings;

use Exporter 'import';
use Test::More;
use Time::HiRes qw(usleep);

our @EXPORT = qw($DEADLINE sql_on sql sql_is said until_true ok_until first_row_is);

# No test takes part of that on purpose; in seconds
our $DEADLINE = 300;

my ($Node, $Database);

sub sql_on { ($Node, $Database) = @_; return; }

# Output and messages, these without where psql found them
sub sql
{
	my ($query, %on) = @_;
	my ($rc, $out, $err) = $Node->psql($on{db} // $Database, ($on{role} ? "SET ROLE $on{role};\n" : '') . $query);

	$err =~ s/^psql:<stdin>:\d+: //mg;
	chomp($out, $err);
	return ($out, $err);
}

sub sql_is
{
	my ($query, $expected, $name, %on) = @_;
	my ($out, $err) = sql($query, %on);

	return is($out, $expected, $name) || diag($err);
}

# said(query, pattern, name): what the server said, a notice or an error
sub said
{
	my ($query, $expected, $name, %on) = @_;
	my ($out, $err) = sql($query, %on);

	return like($err, $expected, $name);
}

# until_true(code, name): whether it became true in time
sub until_true
{
	my ($code, $name) = @_;
	my $end = time + $DEADLINE;

	while (time < $end)
	{
		return 1 if $code->();
		usleep(10_000);
	}
	diag("not in $DEADLINE seconds: $name");
	return 0;
}

# The same as a test
sub ok_until
{
	my ($name, $code) = @_;

	return ok(until_true($code, $name), $name);
}

# first_row_is(node, query, row, name): a query of what sleeps finds nothing while that looks around.  The first row it finds counts.
sub first_row_is
{
	my ($node, $query, $row, $name) = @_;
	my $found = '';

	until_true(sub { ($found = $node->safe_psql('postgres', $query)) ne '' }, $name);
	return is($found, $row, $name);
}

1;

# Builds what the fault tests load into the server, for the server that is tested.
package Faults;

use strict;
use warnings;

use Exporter 'import';
use FindBin;
use PostgreSQL::Test::Utils;

our @EXPORT = qw(build_library fault_functions);

# build_library(name): the path of NAME.so, made from NAME.c beside this file
sub build_library
{
	my ($name) = @_;
	my $source = "$FindBin::RealBin/../faults/$name.c";
	my $library = PostgreSQL::Test::Utils::tempdir() . "/$name.so";
	chomp(my $include = `pg_config --includedir-server`);

	system_or_bail($ENV{CC} || 'cc', qw(-Wall -Wextra -Werror -Wno-unused-parameter -Wno-sign-compare -Wno-clobbered -O2 -fPIC -shared -D_GNU_SOURCE),
		"-I$include", "-I$FindBin::RealBin/../../src", '-o', $library, $source, '-ldl');
	chmod 0755, $library;
	return $library;
}

# The functions of fault.c, as SQL
sub fault_functions
{
	my $library = build_library('fault');
	my %functions = (
		'fault_alloc(bigint)' => 'void',
		'fault_cancel(bigint)' => 'void',
		'fault_terminate(bigint)' => 'void',
		'fault_pause(bigint)' => 'void',
		'fault_pause_alloc(bigint)' => 'void',
		'fault_disarm()' => 'boolean',
		'fault_seen()' => 'bigint',
		'fault_segment()' => 'void',
		'fault_sites(boolean)' => 'bigint[]');

	return join '', map { "CREATE FUNCTION $_ RETURNS $functions{$_} AS '$library' LANGUAGE c;\n" } sort keys %functions;
}

1;

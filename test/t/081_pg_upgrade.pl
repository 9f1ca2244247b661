# pg_upgrade in link mode from the oldest server to the newest, by way of those between.  Each server is stopped in the
# middle of the work of senders and readers, and the next one goes on.
#
# No Debian release has two servers, so scripts/test brings those of other releases along.
use strict;
use warnings;

use FindBin;
use lib $FindBin::RealBin;

use PostgreSQL::Test::Cluster;
use PostgreSQL::Test::Utils;
use Test::More;

use LoadedQueues;
use OldPgmq;

my @olds = map { [ split /=/ ] } split(/ /, $ENV{PGMQ_OLD_SERVERS} // '');
plan skip_all => 'there is one server version only' unless @olds;
chomp(my $newest = `pg_config --version`);

# The directory of the log goes with the chroot
local $SIG{__DIE__} = sub { diag(@_) unless $^S };
my $dir = PostgreSQL::Test::Utils::tempdir();

# Initialised alike, so that they fit each other
sub make_node
{
	my ($version, $path) = @_;
	my $node = PostgreSQL::Test::Cluster->new("v$version", $path ? (install_path => $path) : ());

	$node->init(force_initdb => 1, extra => [ '--data-checksums', '--encoding=UTF8', '--locale=C.UTF-8' ]);
	$node->append_conf('postgresql.conf', "log_statement = none\nfsync = off\nshared_preload_libraries = 'pgmq'\n");
	return $node;
}

# Later minor releases note a version for each column.  A server of an earlier minor release refuses any table with such a
# note, if it has nothing to do with queues, too.
sub forget_versions
{
	my ($node) = @_;

	foreach my $db (split /\n/, $node->safe_psql('postgres', 'SELECT datname FROM pg_database WHERE datallowconn'))
	{
		$node->safe_psql($db, q{UPDATE pg_attribute SET attoptions = nullif(ARRAY(SELECT o FROM unnest(attoptions) AS o WHERE o !~ '^pg_attver='), '{}')
			WHERE array_to_string(attoptions, ' ') ~ 'pg_attver='});
	}
}

my ($version, $path) = @{ shift @olds };
my $node = make_node($version, $path);
$node->start;
loaded_queues($node);

foreach my $next (@olds, [ 'new', undef ])
{
	my ($next_version, $next_path) = @$next;
	my $how = "$version to $next_version";

	# As if the server was stopped in an hour of work
	my @load = map { start_sql($node, 'origin', "CALL load.$_()") } qw(send read);
	wait_for_work($node, work_done($node));
	my @before = work_done($node);
	my $new = make_node($next_version, $next_path);
	my ($old_bin, $new_bin) = map { $_->config_data('--bindir') } $node, $new;

	forget_versions($node) if slurp_file("$new_bin/postgres") !~ /pg_attver/;
	$node->stop('fast');
	$_->{harness}->finish foreach @load;

	{
		local $ENV{PATH} = "$new_bin:$ENV{PATH}";
		chdir $dir or die;
		command_ok([ "$new_bin/pg_upgrade", '--link', '-d', $node->data_dir, '-D', $new->data_dir, '-b', $old_bin, '-B', $new_bin,
				'-s', $new->host, '-p', $node->port, '-P', $new->port ], "$how: pg_upgrade")
		  or diag(map { "== $_\n" . slurp_file($_) } glob($new->data_dir . '/pg_upgrade_output.d/*/*.txt'), glob($new->data_dir . '/pg_upgrade_output.d/*/log/*.log'));
	}
	$new->start(fail_ok => 1) or die slurp_file($new->logfile);

	# Fresh and upgraded
	$new->safe_psql('postgres', 'CREATE DATABASE fresh');
	$new->safe_psql('fresh', 'CREATE EXTENSION pgmq');
	my $fresh = catalogs($new, 'fresh');
	$new->safe_psql('postgres', 'DROP DATABASE fresh');
	if ($next_version ne 'new')
	{
		# All is looked at in a copy, and the work goes on in the original
		$new->safe_psql('postgres', 'CREATE DATABASE copy TEMPLATE origin');
		check_copy($new, 'copy', $how, sent => $before[0], fresh => $fresh);
		$new->safe_psql('postgres', 'DROP DATABASE copy');
	}
	else
	{
		check_copy($new, 'origin', $how, sent => $before[0], fresh => $fresh);
	}
	($node, $version) = ($new, $next_version);
}

note(join(', ', map { "$_: $SEEN{$_}" } sort keys %SEEN));
cmp_ok($SEEN{$_}, '>', 10, "enough $_") foreach qw(sent visible leased heads);
$node->stop;
done_testing();

# Other Debian releases in chroots, for the PostgreSQL versions that this one
# does not have.  Sourced after lib.sh.  Needs root and debootstrap.
#
# A chroot is made once and kept in $PGMQ_CHROOTS; remove it to have it made
# again.  What a suite needs beyond the packages it was made with is installed
# into it when the suite runs: scripts/test calls ensure_packages inside as well.

PGMQ_CHROOTS=${PGMQ_CHROOTS:-$PGMQ_CACHE}

# The Debian release that has this version.  15 is the one the scripts are written for, not made here.
suite_of() {
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo forky ;;
		*) return 1 ;;
	esac
}

# The server that this machine's own packages come from
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(CODENAME)' 'Created-By: Packages' |
		awk '$2 == "main" && $3 !~ /-/ { print $1; exit }'
}

# Older debootstraps don't know the newest releases by name; the script for sid does for all of them.  What it
# mounts is in a mount namespace of its own and can't outlive it.
#
# All that the suites need comes with it, so that they need not ask the archive again.  Nothing waits for the disk, for
# it has its name only when it is complete; and nobody reads manuals
# there, or links with the libraries of LLVM, which are a sixth of it.
bootstrap() {
	mkdir -p "$3/etc/dpkg/dpkg.cfg.d"
	printf '%s\n' force-unsafe-io 'path-exclude=/usr/share/man/*' 'path-exclude=/usr/share/doc/*' \
		'path-exclude=/usr/lib/llvm-*/lib/*.a' \
		>"$3/etc/dpkg/dpkg.cfg.d/pgmq"
	unshare --mount debootstrap --variant=minbase \
		--include="postgresql-$1,postgresql-server-dev-$1,postgresql-$1-partman,postgresql-$1-cron,pgbouncer,libipc-run-perl,python3-psycopg,gcc,make,git,perl,nodejs,node-pg" \
		"$2" "$3" "$4" /usr/share/debootstrap/scripts/sid
}

# make_chroot VERSION: sets CHROOT; the caller holds the lock.  It gets its name when it is complete.
make_chroot() {
	local version=$1 suite started=$SECONDS log=$WORK/debootstrap-$1.log from
	suite=$(suite_of "$version") || die "PostgreSQL $version is in no Debian release that we know"
	[ ! -f "$CHROOT/.ready" ] || return 0
	ensure_packages debootstrap
	from=$(mirror)
	[ -n "$from" ] || die "no archive of Debian is among apt's sources: cannot make a chroot of $suite"
	say "making a chroot of Debian $suite for PostgreSQL $version"
	rm -rf "$CHROOT" "$CHROOT.new"
	bootstrap "$version" "$suite" "$CHROOT.new" "$from" >"$log" 2>&1 ||
		{ tail -20 "$log" >&2; rm -rf "$CHROOT.new"; die "debootstrap of $suite failed"; }
	touch "$CHROOT.new/.ready"
	mv "$CHROOT.new" "$CHROOT"
	say "made in $((SECONDS - started)) s"
}

# prepare_chroot VERSION: sets CHROOT, and makes it if nobody else is doing so
prepare_chroot() {
	[ "$(id -u)" -eq 0 ] || die "PostgreSQL $1 needs a chroot of Debian $(suite_of "$1"), and that needs root"
	CHROOT=$PGMQ_CHROOTS/pg$1
	mkdir -p "$PGMQ_CHROOTS"
	lock_file "$CHROOT.lock"
	make_chroot "$1"
	unlock_file
}

# What the machine needs to reach its packages may have changed since the chroot was made: names, archive, proxies.
refresh_chroot() {
	cp -L /etc/resolv.conf /etc/hosts "$CHROOT/etc/"
	echo "deb $(mirror) $(suite_of "$1") main" >"$CHROOT/etc/apt/sources.list"
	apt-config dump | grep -E '^Acquire::(http|https|Check|Retries|ForceIPv)' >"$CHROOT/etc/apt/apt.conf.d/90machine" || true
}

# Runs that were killed leave their directory behind.  Who uses one holds a lock on it.
remove_stale_runs() {
	local dir fd
	for dir in "$CHROOT"/srv/pgmq.*; do
		[ -d "$dir" ] || continue
		exec {fd}<"$dir"
		! flock -n "$fd" || rm -rf "$dir"
		exec {fd}<&-
	done
}

# older_servers VERSION DIRECTORY: pg_upgrade runs an older server beside the new one, and no Debian release has two.  So
# DIRECTORY gets what the servers of older releases consist of: for each a directory of its own, with mount points that
# DIRECTORY/mounts lists, and in lib/ the libraries that the release of VERSION does not have.
older_servers() {
	local version=$1 dir=$2 old root part name path there
	mkdir -m 755 "$dir" "$dir/lib"
	: >"$dir/mounts"
	there=$(chroot "$CHROOT" ldconfig -p | awk '{ print $1 }')
	# The newer one's libraries serve older servers, too
	for old in 17 15; do
		[ "$old" -lt "$version" ] || continue
		root=$PGMQ_CHROOTS/pg$old
		[ "$(suite_of "$old")" != "$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" ] || root=
		[ -x "$root/usr/lib/postgresql/$old/bin/postgres" ] || continue
		for part in lib share include; do
			mkdir -p "$dir/$old/usr/$part/postgresql/$old"
			echo "$root/usr/$part/postgresql/$old $dir/$old/usr/$part/postgresql/$old" >>"$dir/mounts"
		done
		while read -r name path; do
			[[ $name == lib* ]] && ! grep -qxF "$name" <<<"$there" && [ ! -e "$dir/lib/$name" ] || continue
			cp -L "$root$path" "$dir/lib/$name"
		done < <(chroot "${root:-/}" sh -c "ldd /usr/lib/postgresql/$old/bin/* 2>&1" | awk '$2 == "=>" { print $1, $3 }')
	done
	chmod -R a+rX "$dir"
}

# in_chroot VERSION COMMAND...: run it in a copy of the tree, which is its working directory.  With OLD_SERVERS there
# are the servers of older releases, too, and that is where.
#
#   Mounts, shared
# memory and processes are in namespaces of their own and go with it, also when it is killed.
in_chroot() {
	local version=$1 dir run_fd status=0 old; shift
	# First its own, while another run makes that of an older server
	prepare_chroot "$version"
	if [ -n "${OLD_SERVERS:-}" ]; then
		for old in 15 17; do
			[ "$old" -lt "$version" ] || continue
			if [ "$(suite_of "$old")" = "$(. /etc/os-release; echo "${VERSION_CODENAME:-}")" ]; then
				ensure_packages "postgresql-$old" "postgresql-server-dev-$old" "postgresql-$old-partman"
			elif [ "$old" -ne 15 ]; then
				prepare_chroot "$old"
			fi
		done
	fi
	CHROOT=$PGMQ_CHROOTS/pg$version
	lock_file "$CHROOT.lock"
	refresh_chroot "$version"
	remove_stale_runs
	dir=$(mktemp -d "$CHROOT/srv/pgmq.XXXXXX")
	exec {run_fd}<"$dir"
	flock "$run_fd"
	unlock_file

	chmod 755 "$dir"
	mkdir -m 755 "$dir/tree"
	mkdir -m 1777 "$dir/tmp"
	copy_tree "$dir/tree"
	[ -z "${OLD_SERVERS:-}" ] || older_servers "$version" "$dir/servers"
	unshare --mount --ipc --pid --fork --kill-child bash -c '
		mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev/shm" && mount -t tmpfs tmpfs "$1/run" || exit
		root=$1 dir=$2; shift 2
		if [ -d "$root$dir/servers" ]; then
			while read -r from to; do mount --bind "$from" "$to" && mount -o remount,bind,ro "$to" || exit; done <"$root$dir/servers/mounts"
		fi
		exec chroot "$root" env -C "$dir/tree" -u PGMQ_CACHE -u PGMQ_CHROOTS TMPDIR="$dir/tmp" ${OLD_SERVERS:+"OLD_SERVERS=$dir/servers"} "$@"' \
		- "$CHROOT" "${dir#"$CHROOT"}" PGVER="$version" "$@" || status=$?
	rm -rf "$dir"
	exec {run_fd}<&-
	return $status
}

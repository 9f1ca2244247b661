# Other Debian releases in chroots, for the PostgreSQL versions that this one
# does not have.  Sourced after lib.sh.  Needs root and debootstrap.
#
# A chroot is made once and kept in $PGMQ_CHROOTS; remove it to have it made
# again.  Debian 12's debootstrap knows forky under the name "testing".

PGMQ_CHROOTS=${PGMQ_CHROOTS:-/var/cache/pgmq}

suite_of() {
	case $1 in
		15) echo bookworm ;;
		17) echo trixie ;;
		18) echo testing ;;
		*) return 1 ;;
	esac
}

# The server that this machine's own packages come from
mirror() {
	apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(CODENAME)' 'Created-By: Packages' |
		awk '$2 == "main" && $3 !~ /-/ { print $1; exit }'
}

# make_chroot VERSION: sets CHROOT
make_chroot() {
	local version=$1 suite started=$SECONDS log
	suite=$(suite_of "$version") || die "PostgreSQL $version is in no Debian release that we know"
	CHROOT=$PGMQ_CHROOTS/pg$version
	[ ! -f "$CHROOT/.ready" ] || return 0
	[ "$(id -u)" -eq 0 ] || die "PostgreSQL $version needs a chroot of Debian $suite, and that needs root"
	ensure_packages debootstrap
	mkdir -p "$PGMQ_CHROOTS"
	say "making a chroot of Debian $suite for PostgreSQL $version"
	rm -rf "$CHROOT" "$CHROOT.new"
	log=$WORK/debootstrap-$version.log
	debootstrap --variant=minbase \
		--include="postgresql-$version,postgresql-server-dev-$version,libipc-run-perl,python3-psycopg,gcc,make,git,perl" \
		"$suite" "$CHROOT.new" "$(mirror)" >"$log" 2>&1 ||
		{ tail -20 "$log" >&2; die "debootstrap of $suite failed"; }
	touch "$CHROOT.new/.ready"
	mv "$CHROOT.new" "$CHROOT"
	say "made in $((SECONDS - started)) s"
}

# in_chroot VERSION COMMAND...: run it in a copy of the tree, which is its working directory.
# The mounts are in a mount namespace of their own and go with it.
in_chroot() {
	local version=$1 tree; shift
	make_chroot "$version"
	tree=$(mktemp -d "$CHROOT/srv/pgmq.XXXXXX")
	chmod 755 "$tree"
	copy_tree "$tree"
	local status=0
	unshare --mount bash -c '
		mount -t proc proc "$1/proc" && mount -t tmpfs tmpfs "$1/dev/shm" && mount -t tmpfs tmpfs "$1/run" || exit
		root=$1 dir=$2; shift 2
		exec chroot "$root" env -C "$dir" -u TMPDIR "$@"' \
		- "$CHROOT" "${tree#"$CHROOT"}" PGVER="$version" "$@" || status=$?
	rm -rf "$tree"
	return $status
}

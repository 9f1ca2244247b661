# A PostgreSQL that checks itself, for --cassert and --valgrind: Debian's source
# package, built with assertions, memory context checking and valgrind's client
# requests (which do nothing when the server doesn't run under valgrind).
# Sourced after lib.sh.
#
# It is built once and kept in $PGMQ_CACHE; remove it there to have it built again.

# sources_list: deb-src lines for the archives of this Debian that the machine uses
sources_list() {
	local keyring=/usr/share/keyrings/debian-archive-keyring.gpg options='' codename
	[ ! -f "$keyring" ] || options="[signed-by=$keyring]"
	codename=$(. /etc/os-release; echo "$VERSION_CODENAME")
	apt-get indextargets --format '$(REPO_URI) $(COMPONENT) $(CODENAME)' 'Created-By: Packages' |
		awk -v codename="$codename" -v options="$options" \
			'$2 == "main" && ($3 == codename || index($3, codename "-") == 1) { print "deb-src", options, $1, $3, $2 }'
}

# fetch_source DIRECTORY: the newest source of PostgreSQL $PGVER that can be had, unpacked in DIRECTORY/src.
# With a list of sources of its own, so that the machine's is not touched.  Without Debian's patches: one of them
# puts the libraries into the system's own directories, whatever the prefix.
fetch_source() {
	local dir=$1 version apt
	mkdir -p "$dir/lists/partial" "$dir/cache/archives/partial"
	sources_list >"$dir/sources.list"
	[ -s "$dir/sources.list" ] || { say "no archive of Debian is among apt's sources"; return 1; }
	apt=(-q -o "Dir::Etc::sourcelist=$dir/sources.list" -o Dir::Etc::sourceparts=/dev/null
		-o "Dir::State::lists=$dir/lists" -o "Dir::Cache=$dir/cache" -o APT::Sandbox::User=root)
	apt-get "${apt[@]}" update || return
	# A mirror may list a version that it doesn't have
	for version in $(apt-cache "${apt[@]}" showsrc "postgresql-$PGVER" | sed -n 's/^Version: //p' | sort -Vru); do
		(cd "$dir" && apt-get "${apt[@]}" source --download-only "postgresql-$PGVER=$version") || continue
		dpkg-source --no-check --skip-patches -x "$dir/postgresql-${PGVER}_${version#*:}.dsc" "$dir/src" && return
	done
	return 1
}

# build_checked DIRECTORY PREFIX: it is installed below DIRECTORY/stage first, so that nothing of it can land
# in the system's own directories, and moved to PREFIX when nothing else is there.
build_checked() {
	local dir=$1 prefix=$2 options=() stray
	fetch_source "$dir" || return
	[ "$PGVER" -lt 16 ] || options+=(--without-icu)
	cd "$dir/src" &&
		./configure --prefix="$prefix" --enable-cassert --enable-debug --enable-tap-tests --without-readline \
			"${options[@]}" CFLAGS='-Og -g -fno-omit-frame-pointer' CPPFLAGS=-DUSE_VALGRIND &&
		make -s -j"$(nproc)" && make -s -C contrib -j"$(nproc)" &&
		make -s install DESTDIR="$dir/stage" && make -s -C contrib install DESTDIR="$dir/stage" || return
	stray=$(find "$dir/stage" -type f ! -path "$dir/stage$prefix/*" | head -5)
	[ -z "$stray" ] || { say "not below the prefix: $stray"; return 1; }
	cp src/tools/valgrind.supp "$dir/stage$prefix/" && mv "$dir/stage$prefix" "$prefix"
}

# make_checked_server: sets CHECKED, its prefix
make_checked_server() {
	local started=$SECONDS
	CHECKED=$PGMQ_CACHE/checked$PGVER
	ensure_packages dpkg-dev gcc make perl libipc-run-perl bison flex zlib1g-dev valgrind
	mkdir -p "$PGMQ_CACHE"
	lock_file "$CHECKED.lock"
	if [ ! -f "$CHECKED/.ready" ]; then
		say "building PostgreSQL $PGVER with assertions"
		rm -rf "$CHECKED" "$CHECKED.build"
		mkdir -p "$CHECKED.build"
		(build_checked "$CHECKED.build" "$CHECKED") >"$WORK/checked.log" 2>&1 ||
			{ tail -30 "$WORK/checked.log" >&2; rm -rf "$CHECKED.build"; die "cannot build PostgreSQL $PGVER from Debian's source"; }
		rm -rf "$CHECKED.build"
		touch "$CHECKED/.ready"
		say "built in $((SECONDS - started)) s"
	fi
	unlock_file
	export CHECKED
}

# What the scripts share: packages, a private installation, a private server.
# Sourced by bash scripts that have set -euo pipefail and TOP, the top of the tree.
#
# Nothing here touches the system's PostgreSQL.  The server is run from a private
# copy of the installation: PostgreSQL finds its share and library directories
# relative to its own binary, so a copied bin/ beside linked rest is enough to
# install the extension where nobody else sees it.  No root is needed for that.

PGVER=${PGVER:-15}
# Where there are servers of other Debian releases, each of them is below a directory of its own
SYSTEM_ROOT=${SYSTEM_ROOT:-}
SYSTEM_BIN=$SYSTEM_ROOT/usr/lib/postgresql/$PGVER/bin

# What takes long to make is made once and kept here: chroots of other Debian
# releases, servers that check themselves.
if [ "$(id -u)" -eq 0 ]; then
	PGMQ_CACHE=${PGMQ_CACHE:-/var/cache/pgmq}
else
	PGMQ_CACHE=${PGMQ_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/pgmq}
fi

# What no server may ever write into its log: a failed assertion, undefined behaviour, a crash that nobody
# asked for (tests kill with 3 and 9), an access that valgrind objects to.
SERVER_ALARMS='TRAP: |runtime error: |PANIC: |terminated by signal ([4-8]|11):|VALGRINDERROR-BEGIN'

say() { printf '%s\n' "$*" >&2; }
die() { say "error: $*"; exit 1; }

# lock_file NAME: wait until nobody else has it; let go with unlock_file.  One at a time.
lock_file() {
	exec {LOCK_FD}>"$1"
	flock -n "$LOCK_FD" || { say "waiting for another run: $1"; flock "$LOCK_FD"; }
}

unlock_file() {
	exec {LOCK_FD}>&-
}

# ensure_packages NAME...: install what is missing of these Debian packages, in a chroot its own.  One run
# at a time: the lock is a directory that every Debian has, because apt itself doesn't wait for all of its locks.
ensure_packages() {
	local p missing=() as_root=()
	for p in "$@"; do
		dpkg-query -W -f '${db:Status-Status}' "$p" 2>/dev/null | grep -qx installed || missing+=("$p")
	done
	[ ${#missing[@]} -eq 0 ] && return
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || die "please install as root: ${missing[*]}"
		as_root=(sudo)
	fi
	say "installing: ${missing[*]}"
	# Debian's server package makes a cluster of its own when it is new; nothing here uses it
	# A mirror that lags behind has lists that have expired; they are signed all the same
	# Once in a run is enough.  What is installed need not survive a crash of the machine: no waiting for the disk
	{ { [ -f "$WORK/apt.updated" ] ||
		"${as_root[@]}" flock /var/lib/apt apt-get update -q -o Acquire::Check-Valid-Until=false; } &&
	  touch "$WORK/apt.updated" &&
	  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive flock /var/lib/apt apt-get install -y -q \
		-o DPkg::Lock::Timeout=300 -o DPkg::Options::=--force-unsafe-io --no-install-recommends "${missing[@]}"
	} >"$WORK/apt.log" 2>&1 || { tail -20 "$WORK/apt.log" >&2; die "cannot install ${missing[*]}"; }
}

# ensure_node_pg: Debian's node-pg, for whatever node there is; sets NODE_PATH.  Where node is not
# Debian's own the package cannot be installed, so it is unpacked in $WORK with what it loads.
ensure_node_pg() {
	local debs=$WORK/node-debs deb
	command -v node >/dev/null || ensure_packages nodejs node-pg
	export NODE_PATH=/usr/share/nodejs
	! node -e 'require("pg")' 2>/dev/null || return 0
	(ensure_packages node-pg) 2>/dev/null || true
	! node -e 'require("pg")' 2>/dev/null || return 0
	mkdir "$debs"
	(
		cd "$debs"
		[ -f "$WORK/apt.updated" ] || apt-get update -q || true
		apt-get download -q node-pg $(apt-cache depends --recurse --no-recommends --no-suggests --no-conflicts \
			--no-breaks --no-replaces --no-enhances node-split2 node-xtend | grep '^node-[a-z]' | sort -u)
		for deb in ./*.deb; do dpkg -x "$deb" root; done
	) >"$WORK/node-pg.log" 2>&1 || { tail -20 "$WORK/node-pg.log" >&2; die "cannot get node-pg"; }
	export NODE_PATH=$debs/root/usr/share/nodejs
	node -e 'require("pg")' || die "node-pg does not load"
}

# make_work_dir NAME: a temporary directory in WORK, removed at exit with all that runs in it
make_work_dir() {
	WORK=$(mktemp -d "${TMPDIR:-/tmp}/pgmq-$1.XXXXXX")
	chmod 755 "$WORK"
	trap cleanup EXIT
	trap 'exit 130' INT
	trap 'exit 143' TERM HUP
}

cleanup() {
	local status=$? pidfile job
	trap - EXIT
	# what runs in the background is a process group each, see run_versions
	for job in $(jobs -p); do kill -TERM -- "-$job" 2>/dev/null || kill -TERM "$job" 2>/dev/null || true; done
	wait
	for pidfile in "$WORK"/*/postmaster.pid "$WORK"/build/tmp_check/*/pgdata/postmaster.pid; do
		[ -f "$pidfile" ] && kill -QUIT "$(head -1 "$pidfile")" 2>/dev/null
	done
	if [ -n "${KEEP_WORK:-}" ]; then say "kept: $WORK"; else rm -rf "$WORK"; fi
	exit $status
}

# as_postgres COMMAND...: the server refuses to run as root
as_postgres() {
	if [ "$(id -u)" -eq 0 ]; then
		setpriv --reuid=postgres --regid=postgres --init-groups env HOME="$WORK" "$@"
	else
		"$@"
	fi
}

# make_private_install: a copy of the installation below $WORK/root, its programs in BIN
make_private_install() {
	if [ -n "${CHECKED:-}" ]; then
		copy_checked_server
	else
		copy_installation
	fi
	PG_CONFIG=$BIN/pg_config
	export PATH=$BIN:$PATH
}

copy_installation() {
	local root=$WORK/root share=/usr/share/postgresql/$PGVER lib=/usr/lib/postgresql/$PGVER/lib f
	local system_share=$SYSTEM_ROOT$share system_lib=$SYSTEM_ROOT$lib
	[ -x "$SYSTEM_BIN/postgres" ] || die "no PostgreSQL $PGVER in $SYSTEM_BIN"
	BIN=$root${SYSTEM_BIN#"$SYSTEM_ROOT"}
	mkdir -p "$BIN" "$root$share/extension" "$root$lib/bitcode" "$root/usr/include"
	cp "$SYSTEM_BIN"/* "$BIN/"
	# pg_config is a wrapper in some packages' bin directories; this one is the real one
	for f in "$system_share"/*; do [ "$(basename "$f")" = extension ] || ln -s "$f" "$root$share/"; done
	ln -s "$system_share"/extension/* "$root$share/extension/"
	for f in "$system_lib"/*; do [ "$(basename "$f")" = bitcode ] || ln -s "$f" "$root$lib/"; done
	ln -s "$SYSTEM_ROOT"/usr/include/* "$root/usr/include/"
	ln -s /usr/share/locale "$root/usr/share/locale"
	# An installed pgmq of the system's must not be written through its links
	rm -f "$root$lib/pgmq.so" "$root$share"/extension/pgmq*
}

# make_old_servers: the same of the servers of older releases in OLD_SERVERS, each with a library of this tree, for the
# test of pg_upgrade; it finds them in PGMQ_OLD_SERVERS, as VERSION=DIRECTORY, the oldest first
make_old_servers() {
	local old found=''
	export LD_LIBRARY_PATH=$OLD_SERVERS/lib${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
	for old in "$OLD_SERVERS"/*/usr; do
		[ -d "$old" ] || continue
		old=$(basename "$(dirname "$old")")
		mkdir -m 755 "$WORK/old$old"
		(
			WORK=$WORK/old$old PGVER=$old SYSTEM_ROOT=$OLD_SERVERS/$old
			SYSTEM_BIN=$SYSTEM_ROOT/usr/lib/postgresql/$old/bin
			unset CHECKED BUILT
			make_private_install
			build_extension COPT=-O0 CLANG=:
		) || die "cannot make a server $old"
		found+="${found:+ }$old=$WORK/old$old/root/usr/lib/postgresql/$old"
	done
	export PGMQ_OLD_SERVERS=$found
}

# copy_checked_server: the same of the server that checks itself (checked.sh), which finds all its directories
# from where its programs are.  With VALGRIND_LOGS every server runs under valgrind and logs there.
copy_checked_server() {
	local f
	BIN=$WORK/root/bin
	cp -a "$CHECKED" "$WORK/root"
	# The other extensions are as Debian built them, which fits
	for f in "/usr/share/postgresql/$PGVER/extension"/pg_{partman,cron}*; do
		ln -s "$f" "$("$BIN/pg_config" --sharedir)/extension/"
	done
	for f in "/usr/lib/postgresql/$PGVER/lib"/pg_{partman,cron}*.so; do
		ln -s "$f" "$("$BIN/pg_config" --pkglibdir)/"
	done
	[ -n "${VALGRIND_LOGS:-}" ] || return 0
	mv "$BIN/postgres" "$BIN/postgres.real"
	cat >"$BIN/postgres" <<-WRAPPER
		#!/bin/sh
		# initdb and pg_ctl ask other things of it than to be a server
		case "\$1" in
			-V | --version | -C | --boot | --check | --single) exec "$BIN/postgres.real" "\$@" ;;
		esac
		exec valgrind --quiet --leak-check=no --gen-suppressions=all --trace-children=yes --num-callers=25 \\
			--suppressions="$CHECKED/valgrind.supp" --error-markers=VALGRINDERROR-BEGIN,VALGRINDERROR-END \\
			--log-file="$VALGRIND_LOGS/%p.log" "$BIN/postgres.real" "\$@"
	WRAPPER
	chmod 755 "$BIN/postgres"
}

# copy_tree DIRECTORY: the sources as they are, without what a build left behind.  Git
# says what they are, where it can: a copy without .git, or of another owner, is taken whole.
copy_tree() {
	if git -C "$TOP" ls-files -z --cached --others --exclude-standard >"$WORK/files" 2>/dev/null && [ -s "$WORK/files" ]; then
		# a file that was deleted is in the list, too
		(cd "$TOP" && xargs -0 sh -c 'for f; do [ ! -e "$f" ] || printf "%s\0" "$f"; done' - <"$WORK/files") >"$WORK/files.there"
	else
		(cd "$TOP" && find . -path ./.git -prune -o -type f ! -name '*.o' ! -name '*.so' ! -name '*.bc' -print0) >"$WORK/files.there"
	fi
	tar cf - -C "$TOP" --null -T "$WORK/files.there" | tar xf - -C "$1"
	[ -f "$1/Makefile" ] || die "cannot copy the tree"
}

# build_extension MAKE-ARGUMENT...: build a copy of the tree in $WORK/build and install it privately.  BUILT is where
# that was done before with the same flags: then only what has changed since is compiled.
build_extension() {
	local make=(make -C "$WORK/build" -s PG_CONFIG="$PG_CONFIG" with_llvm=no)
	mkdir -p "$WORK/build"
	copy_tree "$WORK/build"
	if [ -n "${BUILT:-}" ]; then
		cp -p "$BUILT/pgmq.so" "$WORK/build/"
		(cd "$BUILT" && cp -p --parents src/*.o src/*/*.o "$WORK/build/")
	fi
	"${make[@]}" -j"$(nproc)" "$@" >"$WORK/build.log" 2>&1 && "${make[@]}" install >>"$WORK/build.log" 2>&1 ||
		{ cat "$WORK/build.log" >&2; die "the build failed"; }
	# A test puts scripts of the PL/pgSQL extension beside ours
	[ "$(id -u)" -ne 0 ] || chown -R postgres: "$WORK/build" "$("$PG_CONFIG" --sharedir)/extension"
}

# make_template: the tests of test/t copy it for each of their servers.  From 17 on they do so by themselves;
# before, it is their initdb that does.
make_template() {
	local initdb=$BIN/initdb template=$WORK/template
	mkdir "$template"
	[ "$(id -u)" -ne 0 ] || chown postgres: "$template"
	as_postgres env -u LC_ALL -u LANGUAGE LC_MESSAGES=C "$initdb" -D "$template" -A trust --no-sync >"$template.initdb" 2>&1 ||
		{ cat "$template.initdb" >&2; die "initdb failed"; }
	if [ "$PGVER" -ge 17 ]; then
		export INITDB_TEMPLATE=$template
		return 0
	fi
	mv "$initdb" "$initdb.real"
	cat >"$initdb" <<-WRAPPER
		#!/bin/sh
		[ "\$#:\$1 \$3 \$4 \$5" != "5:-D -A trust -N" ] || exec cp -a "$template" "\$2"
		exec "$initdb.real" "\$@"
	WRAPPER
	chmod 755 "$initdb"
}

# start_server NAME [SETTING=VALUE...]: a fresh cluster on a socket in $WORK/NAME.sock; sets PGHOST, PGPORT, PGUSER
start_server() {
	local name=$1 setting; shift
	mkdir -p "$WORK/$name" "$WORK/$name.sock"
	[ "$(id -u)" -ne 0 ] || chown postgres: "$WORK/$name" "$WORK/$name.sock"
	as_postgres "$BIN/initdb" -D "$WORK/$name" -U postgres -A trust -E UTF8 --locale=C.UTF-8 --no-sync >"$WORK/$name.initdb" 2>&1 ||
		{ cat "$WORK/$name.initdb" >&2; die "initdb failed"; }
	{
		echo "listen_addresses = ''"
		echo "unix_socket_directories = '$WORK/$name.sock'"
		echo "max_connections = 400"
		echo "max_prepared_transactions = 50"
		for setting in "$@"; do echo "$setting"; done
	} | as_postgres tee -a "$WORK/$name/postgresql.conf" >/dev/null
	as_postgres "$BIN/pg_ctl" -D "$WORK/$name" -l "$WORK/$name/log" -w -s start ||
		{ cat "$WORK/$name/log" >&2; die "the server does not start"; }
	export PGHOST=$WORK/$name.sock PGPORT=5432 PGUSER=postgres PGDATABASE=postgres
}

# stop_server NAME
stop_server() {
	as_postgres "$BIN/pg_ctl" -D "$WORK/$1" -m fast -w -s stop
}

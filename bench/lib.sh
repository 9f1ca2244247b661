# What the benchmarks share.  Sourced after scripts/lib.sh.

# fetch_peer: the published PL/pgSQL extension's script in $WORK/peer.sql, or nothing
PEER_VERSION=1.11.1
fetch_peer() {
	local dir=$WORK/npm
	command -v npm >/dev/null || ensure_packages npm
	mkdir "$dir"
	(
		cd "$dir"
		npm_config_cache=$dir/cache npm_config_update_notifier=false \
			npm pack --silent @electric-sql/pglite-pgmq@0.0.6 >/dev/null
		tar xzf ./*.tgz
		tar xzf package/dist/pgmq.tar.gz
	) >"$WORK/npm.log" 2>&1 || return 1
	# It is meant to be run without CREATE EXTENSION, too; what guards against psql has to go.
	grep -v '^\\' "$dir/share/postgresql/extension/pgmq--$PEER_VERSION.sql" >"$WORK/peer.sql"
}

# bench_prepare BENCHMARK-ARGUMENT...: packages, the peer (in PEER) unless --no-peer, the build
bench_prepare() {
	make_work_dir bench
	ensure_packages "postgresql-$PGVER" "postgresql-server-dev-$PGVER" \
		python3-psycopg gcc make git
	PEER=()
	if [[ " $* " != *" --no-peer "* ]]; then
		say "fetching the peer"
		if fetch_peer; then
			PEER=(--peer "$WORK/peer.sql")
		else
			tail -5 "$WORK/npm.log" >&2
			say "cannot fetch it: its columns stay empty"
		fi
	fi
	say "building"
	make_private_install
	build_extension
}

# bench_before BENCHMARK-ARGUMENT...: with --before COMMIT that version on a server of its own, with the settings in
# SETTINGS; sets BEFORE.  The server is found by cleanup() where a link leads to it.
bench_before() {
	local commit='' top=$TOP
	while [ $# -gt 0 ]; do
		[ "$1" != --before ] || commit=${2:?}
		shift
	done
	[ -n "$commit" ] || return 0
	say "building $commit"
	mkdir -p "$WORK/before/tree"
	ln -s before/bench "$WORK/before-bench"
	git -C "$top" archive "$commit" | tar x -C "$WORK/before/tree"
	(
		TOP=$WORK/before/tree WORK=$WORK/before
		git init -q "$TOP" && git -C "$TOP" add -A
		make_private_install
		build_extension
		start_server bench "${SETTINGS[@]}"
	)
	BEFORE=(--before-host "$WORK/before/bench.sock")
}

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

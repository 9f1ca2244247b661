# clang's warnings and clang-tidy's checks (.clang-tidy says which), and the language of the pages for users.  Run by
# scripts/test.  Prints a line for each file.
ensure_packages clang clang-tidy

FLAGS=(-I"$WORK/build/src" -isystem "$("$PG_CONFIG" --includedir-server)" -D_GNU_SOURCE -O2 -fno-strict-aliasing -fwrapv
	-fvisibility=hidden -Wall -Wextra -Wno-unused-parameter -Wno-sign-compare -Wdeclaration-after-statement
	-Wmissing-prototypes -Wpointer-arith
	-Wno-ignored-attributes)			# gnu_printf, which the server was configured for

lint() {
	local what=$1 file=$2 out=$WORK/lint.$1.$(basename "$2"); shift 2
	if (cd "$WORK/build" && "$@") >"$out" 2>&1; then
		echo "ok - lint: $what $file"
	else
		cat "$out"
		echo "not ok - lint: $what $file"
	fi
}

# While a session holds a spinlock others spin: a few assignments, nothing that can fail or asks the system,
# no loop but one over the slots of a bucket or the ten ranks, and no way out but the release.  A function lock_slot() returns with one.
SPINLOCKS='/SpinLockAcquire\(|= \*?(slots_lock|lock_slot)\(/ { held = 1 }
held && !/^\treturn slot;/ && (/ereport|elog|alloc|ticks\(|GetCurrent|CHECK_FOR_INTERRUPTS|LWLock|SetLatch|return|PG_TRY|(while|do) *[({]?$|while \(/ ||
	(/for \(/ && !/SLOTS_PER_BUCKET|RANKS/)) { print FILENAME ":" FNR ": under a spinlock:" $0; bad = 1 }
/SpinLockRelease\(|slots_unlock\(|^}/ { held = 0 }
END { exit bad }'

# What readers trip over in the pages, the comments, the errors and the comments of SQL objects, and links that lead
# nowhere; test/language.py lists the files that are not clean yet
files=$(cd "$WORK/build" && ls README.md CHANGELOG.md docs/*.md sql/*.sql sql/2.[12].0/*.sql src/*.[ch] src/*/*.[ch])
(cd "$WORK/build" && python3 test/language.py $files) >"$WORK/language" 2>&1 || [ -s "$WORK/language" ] || echo failed >"$WORK/language"
no_findings_in() { ! grep "^$1:" "$WORK/language"; }
only_findings() { ! grep -vE '^[^: ]+:[0-9]+: ' "$WORK/language"; }
for file in $files; do
	lint language "$file" no_findings_in "$file"
done
lint language "all files" only_findings

# It must be able to fail, for each kind of file
notices() {
	printf '%s\n' "$2" >"$WORK/bad$1" && ! python3 test/language.py "$WORK/bad$1"
}
lint "language check notices" page notices .md 'Who waits keeps what he writes.'
lint "language check notices" comment notices .c '/* Whoever has the lock */'
lint "language check notices" error notices .c '	ereport(ERROR, (errmsg("the lock was not to be had")));'
lint "language check notices" "comment on an object" notices .sql "COMMENT ON TABLE t IS 'Notify nobody';"

# One file at a time on each processor
for file in $(cd "$WORK/build" && ls src/*.c src/*/*.c); do
	while [ "$(jobs -pr | wc -l)" -ge "$(nproc)" ]; do wait -n; done
	{
		lint clang "$file" clang "${FLAGS[@]}" -Werror -fsyntax-only "$file"
		lint spinlocks "$file" awk "$SPINLOCKS" "$file"
		lint clang-tidy "$file" clang-tidy --quiet "$file" -- "${FLAGS[@]}"
	} &
done
wait

# They run as a superuser where a plain role owns the tables and perhaps the schema: a write would fire its
# triggers, and what exists already may be its own
refuse_writes() {
	! grep -nE '^[[:space:]]*(INSERT|UPDATE|DELETE|COPY|TRUNCATE|MERGE|CALL|DO)\b|OR REPLACE|IF NOT EXISTS' "$1"
}
for file in $(cd "$WORK/build" && ls sql/*.sql); do
	lint "no writes" "$file" refuse_writes "$file"
done

# Those that update have to look at what there is, or replace it, and ask the catalogs first
refuse_row_work() {
	! grep -nE '^[[:space:]]*(INSERT|UPDATE|DELETE|COPY|TRUNCATE|MERGE|CALL)\b|(FROM|JOIN|CLUSTER|REINDEX|VACUUM) (ONLY )?pgmq\.[a-z_]' "$1"
}
for file in $(cd "$WORK/build" && ls sql/*/*.sql); do
	lint "no work on rows" "$file" refuse_row_work "$file"
done

# Those from one release to the next make new objects only
refuse_replacing() {
	! grep -nE 'OR REPLACE|IF NOT EXISTS' "$1"
}
for file in $(cd "$WORK/build" && ls sql/[0-9]*/*.sql); do
	lint "nothing replaced" "$file" refuse_replacing "$file"
done

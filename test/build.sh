# The build as people who make packages use it, and what it makes.  Run by
# scripts/test, which has built and installed: $WORK/build, $BIN, $PG_CONFIG.
# Prints a line for each claim.

result() { if [ "$1" -eq 0 ]; then echo "ok - build: $2"; else echo "not ok - build: $2"; fi; }

# make_in DIRECTORY MAKE-ARGUMENT...: as the owner of the tree
make_in() {
	local dir=$1; shift
	as_postgres make -s -C "$dir" PG_CONFIG="$PG_CONFIG" with_llvm=no "$@"
}

others=$(cd "$TOP" && grep -l PG_VERSION_NUM $(find src -name '*.[ch]') sql/*.sql sql/*/*.sql test/sql/* | grep -v '^src/compat.h$')
[ -z "$others" ] || echo "# $others"
[ -z "$others" ]
result $? "no file but compat.h asks for the server's version"

(cd "$TOP" && python3 test/includes.py src) >"$WORK/includes" || { sed 's/^/# /' "$WORK/includes"; false; }
result $? "a file includes its own folder, and the headers of folders above it"

misnamed=$(cd "$TOP" && ls test/sql/*.sql test/specs/*.spec |
	grep -vE "/($(find src -mindepth 1 -maxdepth 1 -type d -printf '%f\n' | paste -sd '|'))[^/]*$")
[ -z "$misnamed" ] || printf '# %s\n' $misnamed
[ -z "$misnamed" ]
result $? "the name of a test begins with a folder of src/"

unexplained=$(cd "$TOP" && for digits in $(ls test/t/*.pl | sed 's|.*/\(..\).*|\1|' | sort -u); do
	grep -q "^| $digits |" docs/testing.md || echo "# test/t/$digits*"
done)
[ -z "$unexplained" ] || printf '%s\n' "$unexplained"
[ -z "$unexplained" ]
result $? "docs/testing.md explains the first digits of each TAP test"

# A header that goes with a file of the same name, or with its folder, has no line of its own
unlisted=$(cd "$TOP" && for file in src/*.[ch] src/*/*.[ch]; do
	name=${file##*/} folder=${file%/*}
	[ "$name" = "${name%.h}" ] || { [ ! -f "${file%.h}.c" ] && [ "$name" != "${folder##*/}.h" ]; } || continue
	grep -qE "^\| [^|]* \| .$name. \|" docs/internals.md || echo "# $file"
done)
[ -z "$unlisted" ] || printf '%s\n' "$unlisted"
[ -z "$unlisted" ]
result $? "docs/internals.md lists every file of src/"

# What is longer has more than one idea
long=$(cd "$TOP" && awk 'FNR == 1 { start = 0 }
	FNR == 701 { print "# " FILENAME ": more than 700 lines" }
	/^\{$/ { start = FNR; name = before }
	/^\}/ { if (start && FNR - start + 1 > 60) print "# " FILENAME ": " name ": more than 60 lines"; start = 0 }
	{ before = $0 }' $(find src -name '*.[ch]'))
[ -z "$long" ] || printf '%s\n' "$long"
[ -z "$long" ]
result $? "no file has more than 700 lines, and no function more than 60"

others=$(cd "$TOP" && grep -lE 'Register(Sub)?XactCallback' src/*.c src/*/*.c | grep -v '^src/xact.c$')
[ -z "$others" ] || echo "# $others"
[ -z "$others" ]
result $? "no file but xact.c registers callbacks of transactions"

# frozen DIRECTORY: whether each script of a version that CHANGELOG.md gives a date is what was released
frozen() {
	local version script scripts
	for version in $(sed -n 's/^## \[\([0-9.]*\)\] - [0-9].*/\1/p' "$1/CHANGELOG.md"); do
		scripts=$(cd "$1" && find sql -name "pgmq--$version.sql" -o -name "pgmq--*--$version.sql")
		[ -n "$scripts" ] || { echo "# no script leads to version $version"; return 1; }
		for script in $scripts; do
			grep -q "  $script\$" "$1/test/released.sha256" || { echo "# $script is not in test/released.sha256"; return 1; }
		done
	done
	[ ! -s "$1/test/released.sha256" ] || (cd "$1" && sha256sum --quiet -c test/released.sha256) 2>&1 | sed 's/^/# /;$q1'
}

frozen "$TOP"
result $? "the scripts of released versions are what was released"

# The same in a directory of its own.  2.0.0 is released: without its sum, with it, and after a change
mkdir -p "$WORK/frozen/sql" "$WORK/frozen/test"
echo '## [2.0.0] - 2030-01-01' >"$WORK/frozen/CHANGELOG.md"
echo 'SELECT 1;' >"$WORK/frozen/sql/pgmq--2.0.0.sql"
: >"$WORK/frozen/test/released.sha256"
status=0
! frozen "$WORK/frozen" >/dev/null || status=1
(cd "$WORK/frozen" && sha256sum sql/pgmq--2.0.0.sql >test/released.sha256)
frozen "$WORK/frozen" || status=1
echo 'SELECT 2;' >"$WORK/frozen/sql/pgmq--2.0.0.sql"
! frozen "$WORK/frozen" >/dev/null || status=1
# 2.1.0 is released: without a script, and with one that has no sum; before that its script may change
echo 'SELECT 1;' >"$WORK/frozen/sql/pgmq--2.0.0.sql"
sed -i '1i ## [2.1.0] - 2030-02-02' "$WORK/frozen/CHANGELOG.md"
! frozen "$WORK/frozen" >/dev/null || status=1
echo 'SELECT 1;' >"$WORK/frozen/sql/pgmq--2.0.0--2.1.0.sql"
! frozen "$WORK/frozen" >/dev/null || status=1
sed -i '1s/ - .*/ - unreleased/' "$WORK/frozen/CHANGELOG.md"
frozen "$WORK/frozen" || status=1
result "$status" "a change of a released script is noticed"

# A version stands in three places
versions=$(cd "$TOP" && {
	sed -n "s/^default_version = '\(.*\)'/\1/p" pgmq.control
	sed -n 's/^#define PGMQ_VERSION "\(.*\)"/\1/p' src/pgmq.h
	sed -n 's/^## \[\([0-9.]*\)\].*/\1/p;T;q' CHANGELOG.md
} | sort | uniq -c | awk '{ print $1 }')
[ "$versions" = 3 ]
result $? "the control file, the library and the changelog name one version"

# compiles_for VERSION-NUMBER: whether compat.h takes a server of this version; what it says is in $WORK/compat.out
compiles_for() {
	printf '#include "postgres.h"\n#undef PG_VERSION_NUM\n#define PG_VERSION_NUM %s\n#include "compat.h"\n' "$1" >"$WORK/compat.c"
	gcc -fsyntax-only -I"$WORK/build/src" -I"$("$PG_CONFIG" --includedir-server)" "$WORK/compat.c" >"$WORK/compat.out" 2>&1
}

compiles_for "$(sed -n 's/^#define PG_VERSION_NUM //p' "$("$PG_CONFIG" --includedir-server)/pg_config.h")"
result $? "this version is taken"
for version in 140019 150000 150009 160005 170001 190000; do
	! compiles_for "$version" && grep -q '#error "' "$WORK/compat.out"
	result $? "version $version is refused: $(sed -n 's/.*#error "\(.*\)"$/\1/p' "$WORK/compat.out" | head -1)"
done

# What is exported: what SQL names, and what the server asks of a module
exported() { nm -D --defined-only "$1" | awk '{ print $3 }' | LC_ALL=C sort; }
{
	printf '%s\n' Pg_magic_func _PG_init
	sed -n "s/.*'MODULE_PATHNAME', *'\([a-z0-9_]*\)'.*/\1\npg_finfo_\1/p" "$TOP"/sql/pgmq--*.sql "$TOP"/sql/*/*.sql
	# and main functions of background workers
	sed -n 's/^extern PGDLLEXPORT void \([a-z0-9_]*\)(Datum .*/\1/p' "$TOP"/src/*.[ch] "$TOP"/src/*/*.[ch]
} | LC_ALL=C sort -u >"$WORK/symbols"
exported "$WORK/build/pgmq.so" | diff "$WORK/symbols" -
result $? "nothing is exported but what SQL needs"

# A tree that can't be written, and a build beside it
mkdir -p "$WORK/vpath/tree" "$WORK/vpath/build"
copy_tree "$WORK/vpath/tree"
[ "$(id -u)" -ne 0 ] || chown -R postgres: "$WORK/vpath/build"
chmod -R a-w "$WORK/vpath/tree"
# What the compiler warns of, the build before has shown
make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" -j"$(nproc)" COPT=-O0
result $? "VPATH: builds beside a tree that is read only"
exported "$WORK/vpath/build/pgmq.so" | diff "$WORK/symbols" -
result $? "VPATH: the same library"

# Static variables outlive transactions: docs/internals.md says what resets each of them.  The objects know them all,
# also those inside functions; what is constant lies in other sections.
while read -r object; do
	objdump -t "$object" | sed -nE "s/.* O (\.data|\.data\.rel(\.local)?|\.bss|\*COM\*)\t[0-9a-f]+ (\.hidden )?([A-Za-z0-9_]+).*/$(basename "$object" .o).c \4/p"
done < <(find "$WORK/vpath/build/src" -name '*.o') | LC_ALL=C sort -u >"$WORK/variables"
sed -n '/^### Static variables/,/^## /s/^| `\([a-z]*\.c\)` | \([^|]*\)|.*/\1 \2/p' "$TOP/docs/internals.md" |
	while read -r file names; do
		tr -d '`' <<<"$names" | sed -E "s/, */\n/g" | sed "s/^/$file /; s/ *$//"
	done | LC_ALL=C sort -u >"$WORK/listed"
# Newer servers do some things themselves, so a few of those listed are not there
if [ "$PGVER" != 15 ]; then
	LC_ALL=C comm -12 "$WORK/listed" "$WORK/variables" >"$WORK/listed.there"
	mv "$WORK/listed.there" "$WORK/listed"
fi
diff "$WORK/listed" "$WORK/variables"
result $? "docs/internals.md lists every variable that outlives a call, and what resets it"

# The Makefile puts some scripts together
built=$(make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" list-built)
installed() { (cd "$1" && find . ! -type d | LC_ALL=C sort); }
make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" install DESTDIR="$WORK/vpath/build/stage"
{
	echo ".$("$PG_CONFIG" --pkglibdir)/pgmq.so"
	for file in pgmq.control $(cd "$TOP/sql" && ls pgmq--*.sql) $built; do
		echo ".$("$PG_CONFIG" --sharedir)/extension/$file"
	done
} | LC_ALL=C sort >"$WORK/files"
installed "$WORK/vpath/build/stage" | diff "$WORK/files" -
result $? "make install DESTDIR: the library, the control file and the scripts"
make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" uninstall DESTDIR="$WORK/vpath/build/stage"
left=$(installed "$WORK/vpath/build/stage")
[ -z "$left" ]
result $? "make uninstall leaves nothing"
rm -rf "$WORK/vpath/build/stage"

# One test of each kind is enough here: the suites run all of them
start_server running
make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" installcheck \
	REGRESS=message_send ISOLATION=message_recheck PROVE_TESTS=test/t/005_dump.pl >"$WORK/vpath.log" 2>&1
status=$?
[ "$status" -eq 0 ] || sed 's/^/# /' "$WORK/vpath.log"
result "$status" "VPATH: make installcheck against a running server"
stop_server running

make_in "$WORK/vpath/build" -f "$WORK/vpath/tree/Makefile" clean
left=$(installed "$WORK/vpath/build")
[ -z "$left" ] || printf '# %s\n' $left
[ -z "$left" ]
result $? "make clean leaves nothing"
chmod -R u+w "$WORK/vpath/tree"

# What the stress test and the fuzzer are to notice.  Each break must apply to the code as it is, and compile.
breaks_apply() {
	local patch dir=$WORK/breaks status=0
	for patch in "$TOP"/test/*/breaks/*.patch; do
		rm -rf "$dir"
		mkdir "$dir"
		cp -r "$TOP/src" "$dir/src"
		(
			cd "$dir" && git apply -C1 "$patch" &&
				gcc -fsyntax-only -Wall -Werror -Isrc -I"$("$PG_CONFIG" --includedir-server)" \
					$(sed -n 's|^+++ b/\(src/.*\.c\)$|\1|p' "$patch")
		) >"$WORK/breaks.log" 2>&1 || { status=1; echo "# ${patch##*/}"; sed 's/^/# /' "$WORK/breaks.log"; }
	done
	return "$status"
}
status=0
breaks_apply || status=$?
result "$status" "the breaks of the stress test and of the fuzzer apply"

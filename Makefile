# Where the sources are; with VPATH builds not where the objects go.
srcdir := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

EXTENSION = pgmq
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/pgmq.control)
MODULE_big = pgmq
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c)))
DATA = $(sort $(wildcard $(srcdir)/sql/pgmq--*.sql))
PRIVATE_HEADERS = $(sort $(wildcard $(srcdir)/src/*.h))

# pg_regress and the isolation tester share expected/ and test/; PGXS would give
# the latter another output directory.
REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --load-extension=pgmq
ISOLATION = $(sort $(patsubst $(srcdir)/test/specs/%.spec,%,$(wildcard $(srcdir)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test --outputdir=. --load-extension=pgmq
TAP_TESTS = 1
PROVE_TESTS = $(sort $(wildcard $(srcdir)/test/t/*.pl))

# make COPT='-Wall -Wextra -Werror ...' is what scripts/test builds with.
PG_CPPFLAGS = -I$(srcdir)/src -Wno-unused-parameter -Wno-sign-compare
EXTRA_CLEAN = results output_iso regression.diffs regression.out tmp_check log

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
include $(PGXS)

$(OBJS): $(PRIVATE_HEADERS)

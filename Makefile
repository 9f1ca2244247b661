# Where the sources are; with VPATH builds not where the objects go.
srcdir := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

EXTENSION = pgmq
EXTVERSION = $(shell sed -n "s/^default_version = '\(.*\)'/\1/p" $(srcdir)/pgmq.control)
MODULE_big = pgmq
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c)))
# PGXS puts $(srcdir) in front of these itself
DATA = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/pgmq--*.sql)))
PRIVATE_HEADERS = $(sort $(wildcard $(srcdir)/src/*.h $(srcdir)/src/*/*.h))

# pg_regress and the isolation tester share expected/ and test/; PGXS would give
# the latter another output directory.
REGRESS = $(sort $(patsubst $(srcdir)/test/sql/%.sql,%,$(wildcard $(srcdir)/test/sql/*.sql)))
REGRESS_OPTS = --inputdir=$(srcdir)/test --load-extension=pgmq
ISOLATION = $(sort $(patsubst $(srcdir)/test/specs/%.spec,%,$(wildcard $(srcdir)/test/specs/*.spec)))
ISOLATION_OPTS = --inputdir=$(srcdir)/test --outputdir=. --load-extension=pgmq
TAP_TESTS = 1
# prove runs in $(srcdir)
PROVE_TESTS = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/test/t/*.pl)))

# make COPT='-Wall -Wextra -Werror ...' is what scripts/test builds with.
PG_CPPFLAGS = -I$(srcdir)/src -Wno-unused-parameter -Wno-sign-compare
# Only what SQL calls is exported: PGDLLEXPORT says what that is.  The default from 16 on.
PG_CFLAGS = -fvisibility=hidden
EXTRA_CLEAN = results output_iso regression.diffs regression.out tmp_check log

PG_CONFIG ?= pg_config
PGXS := $(shell $(PG_CONFIG) --pgxs)
ifneq ($(abspath $(srcdir)),$(CURDIR))
REGRESS_PREP = link-expected
EXTRA_CLEAN += expected
endif
include $(PGXS)

# With VPATH builds there are none yet
OBJECT_DIRS = $(patsubst %/,$(CURDIR)/%,$(sort $(dir $(OBJS))))
$(OBJS): $(PRIVATE_HEADERS) | $(OBJECT_DIRS)

$(OBJECT_DIRS):
	mkdir -p $@

# With VPATH builds: pg_regress looks for expected/ where it runs.
.PHONY: link-expected
link-expected:
	ln -sfn $(abspath $(srcdir))/expected expected

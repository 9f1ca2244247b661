# Where the sources are; with VPATH builds not where the objects go.
srcdir := $(patsubst %/,%,$(dir $(firstword $(MAKEFILE_LIST))))

EXTENSION = pgmq
MODULE_big = pgmq
OBJS = $(patsubst $(srcdir)/%.c,%.o,$(sort $(wildcard $(srcdir)/src/*.c $(srcdir)/src/*/*.c)))
# PGXS puts $(srcdir) in front of these itself
DATA = $(sort $(patsubst $(srcdir)/%,%,$(wildcard $(srcdir)/sql/pgmq--*.sql)))
# What takes over the PL/pgSQL extension.  Each of its versions leads to one that it never has, so that
# scripts it has left in the directory are no part of our path; from there one script leads to 2.0.0, and those
# of later versions go on.
TAKEN_OVER = 1.4.4 1.4.5 1.5.0 1.5.1 1.5.2 1.6.0 1.6.1 1.7.0 1.7.1 1.8.0 1.8.1 1.9.0 \
	1.10.0 1.10.1 1.11.0 1.11.1 1.11.2 1.12.0 1.13.0 1.13.1 unpackaged
DATA_built = pgmq--unpackaged.sql pgmq--takeover--2.0.0.sql $(TAKEN_OVER:%=pgmq--%--takeover.sql) pgmq--2.0.0--2.1.0.sql \
	pgmq--2.1.0--2.2.0.sql
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

pgmq--unpackaged.sql: $(srcdir)/sql/takeover/unpackaged.sql
	cp $< $@

$(TAKEN_OVER:%=pgmq--%--takeover.sql): $(srcdir)/sql/takeover/step.sql
	cp $< $@

pgmq--takeover--2.0.0.sql: $(addprefix $(srcdir)/sql/, takeover/begin.sql takeover/replace.sed pgmq--2.0.0.sql takeover/end.sql)
	cat $(srcdir)/sql/takeover/begin.sql >$@
	sed -E -f $(srcdir)/sql/takeover/replace.sed $(srcdir)/sql/pgmq--2.0.0.sql >>$@
	cat $(srcdir)/sql/takeover/end.sql >>$@

# The versions that are being made: one file for each part, until the release
pgmq--2.0.0--2.1.0.sql: $(sort $(wildcard $(srcdir)/sql/2.1.0/*.sql))
	cat $^ >$@

pgmq--2.1.0--2.2.0.sql: $(sort $(wildcard $(srcdir)/sql/2.2.0/*.sql))
	cat $^ >$@

.PHONY: list-built
list-built:
	@echo $(DATA_built)

# With VPATH builds: pg_regress looks for expected/ where it runs.
.PHONY: link-expected
link-expected:
	ln -sfn $(abspath $(srcdir))/expected expected

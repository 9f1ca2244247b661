# The script of a fresh installation for a database that has the objects of an older version
/^\\echo/d
# begin.sql has seen to the types
/^CREATE TYPE/,/^\);/d
# Whatever exists has been checked in begin.sql.  The server refuses what is not a member of the extension.
s/^CREATE TABLE /&IF NOT EXISTS /
# Indexes are work for as_owner() in end.sql
/^CREATE INDEX .*;$/d
/^CREATE INDEX /,/;$/d
/^ALTER TABLE .* REPLICA IDENTITY /d
s/^CREATE (FUNCTION|PROCEDURE) /CREATE OR REPLACE \1 /
# A function that was replaced keeps its owner, which may be a plain role
s/^COMMENT ON (FUNCTION|PROCEDURE) (.*) IS$/ALTER \1 \2 OWNER TO CURRENT_USER;\n&/
# Tables that were there before keep their owner, and end.sql sets that of new ones
/^ALTER TABLE .* OWNER TO @extowner@;/d
/^ALTER DEFAULT PRIVILEGES /d
# What pg_monitor may do stays as it is
/^GRANT .* TO pg_monitor;$/d

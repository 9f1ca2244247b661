-- The published interface against the catalog, both ways.
\set VERBOSITY terse
\set ECHO errors
CREATE TEMPORARY TABLE published (signature text);
\getenv abs_srcdir PG_ABS_SRCDIR
\set signatures :abs_srcdir '/signatures.txt'
COPY published FROM :'signatures';
\set ECHO all
CREATE TEMPORARY VIEW installed AS
SELECT p.oid, p.proname, p.prokind,
       p.proname || '(' || pg_get_function_arguments(p.oid) || ') -> ' || coalesce(pg_get_function_result(p.oid), 'procedure') AS signature
  FROM pg_proc p JOIN pg_depend d ON d.objid = p.oid AND d.classid = 'pg_proc'::regclass
  JOIN pg_extension e ON e.oid = d.refobjid AND d.refclassid = 'pg_extension'::regclass
 WHERE e.extname = 'pgmq';
-- published functions that have further arguments here; all of those have defaults
CREATE TEMPORARY TABLE longer AS
SELECT p.signature AS published, i.signature AS installed
  FROM published p JOIN installed i ON i.signature LIKE replace(replace(replace(p.signature, '_', '\_'), '%', '\%'), ') -> ', ', % DEFAULT %) -> ');
SELECT * FROM longer ORDER BY 1;
-- published, but not there yet
SELECT signature FROM published EXCEPT (SELECT signature FROM installed UNION SELECT published FROM longer) ORDER BY 1;
-- there under a published name, but not published: must be none
SELECT signature FROM installed
 WHERE proname IN (SELECT split_part(signature, '(', 1) FROM published)
EXCEPT (SELECT signature FROM published UNION SELECT installed FROM longer) ORDER BY 1;
-- what we add, under names of its own
\pset format unaligned
SELECT signature FROM installed
 WHERE proname NOT IN (SELECT split_part(signature, '(', 1) FROM published) ORDER BY 1;
\pset format aligned
-- volatility, strictness, security, parallel safety, cost and rows as published; procedures have no cost
SELECT i.signature, p.provolatile, p.proisstrict, p.prosecdef, p.proparallel, p.procost, p.prorows, p.proconfig
  FROM installed i JOIN pg_proc p USING (oid)
 WHERE p.prokind = 'f' AND (p.provolatile <> 'v' OR p.proisstrict OR p.prosecdef OR p.proparallel <> 'u' OR p.procost <> 100
    OR p.prorows <> CASE WHEN p.proretset THEN 1000 ELSE 0 END OR p.proconfig IS NOT NULL)
 ORDER BY 1;
-- every function says what it is for
SELECT signature FROM installed WHERE obj_description(oid, 'pg_proc') IS NULL;
-- the types
SELECT c.relname, string_agg(a.attname || ' ' || format_type(a.atttypid, a.atttypmod), ', ' ORDER BY a.attnum)
  FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
 WHERE c.relnamespace = 'pgmq'::regnamespace AND c.relkind = 'c' GROUP BY 1 ORDER BY 1;
-- the fixed tables
SELECT a.attrelid::regclass, a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull, pg_get_expr(d.adbin, d.adrelid) AS default
  FROM pg_attribute a LEFT JOIN pg_attrdef d ON (d.adrelid, d.adnum) = (a.attrelid, a.attnum)
 WHERE a.attrelid IN ('pgmq.meta'::regclass, 'pgmq.notify_insert_throttle'::regclass, 'pgmq.topic_bindings'::regclass, 'pgmq.policy'::regclass, 'pgmq.stream'::regclass, 'pgmq.subscription'::regclass) AND a.attnum > 0 AND NOT a.attisdropped
 ORDER BY a.attrelid::regclass::text, a.attnum;
SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
 WHERE conrelid IN ('pgmq.meta'::regclass, 'pgmq.notify_insert_throttle'::regclass, 'pgmq.topic_bindings'::regclass, 'pgmq.policy'::regclass, 'pgmq.stream'::regclass, 'pgmq.subscription'::regclass) AND contype <> 'n' ORDER BY 1;
SELECT indexdef FROM pg_indexes WHERE schemaname = 'pgmq' ORDER BY indexname;
SELECT relname, relpersistence FROM pg_class WHERE relnamespace = 'pgmq'::regnamespace AND relkind = 'r' ORDER BY 1;
SELECT extname, extconfig::regclass[] FROM pg_extension WHERE extname = 'pgmq';

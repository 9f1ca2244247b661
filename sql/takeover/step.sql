\echo Use "ALTER EXTENSION pgmq UPDATE" to load this file. \quit

-- All versions that can be taken over go on with one script: pgmq--takeover--2.0.0.sql

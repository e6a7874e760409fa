-- Tables with their sequential scans, dead rows and the age of their statistics, and what index is invalid.
SELECT t.relid::regclass::text AS relation, t.n_live_tup AS live_rows, t.n_dead_tup AS dead_rows, t.seq_scan, t.seq_tup_read,
       t.idx_scan, t.n_mod_since_analyze AS modified_since_analyze, pg_relation_size(t.relid) AS bytes,
       round((100.0 * t.n_dead_tup / nullif(t.n_live_tup + t.n_dead_tup, 0))::numeric, 1) AS dead_percent,
       greatest(t.last_analyze, t.last_autoanalyze) AS analyzed_at, greatest(t.last_vacuum, t.last_autovacuum) AS vacuumed_at,
       c.reltuples::bigint AS planner_rows,
       (SELECT string_agg(x.relname, ', ' ORDER BY x.relname) FROM pg_index i JOIN pg_class x ON x.oid = i.indexrelid
        WHERE i.indrelid = t.relid AND NOT i.indisvalid) AS invalid_indexes, clock_timestamp() AS at
FROM pg_stat_user_tables t JOIN pg_class c ON c.oid = t.relid
ORDER BY t.seq_tup_read DESC NULLS LAST LIMIT 40

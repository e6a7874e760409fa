-- The largest relations of this database. A relation that is locked exclusively keeps its estimate (relpages,
-- which is 0 until the first VACUUM or ANALYZE), so that this never waits.
WITH r AS (
  SELECT c.oid, c.relkind, c.relpages::bigint * current_setting('block_size')::int AS estimated_bytes,
         EXISTS (SELECT FROM pg_locks l WHERE l.relation = c.oid AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 AND l.mode = 'AccessExclusiveLock') AS locked
  FROM pg_class c WHERE c.relkind IN ('r', 'i', 't', 'm') AND c.relpersistence <> 't'),
sized AS (SELECT r.*, CASE WHEN locked THEN estimated_bytes ELSE pg_relation_size(oid) END AS bytes FROM r)
SELECT coalesce(n.nspname || '.' || p.relname, '?')::text AS relation, z.relkind::text AS kind, z.bytes::bigint AS bytes, z.locked,
       s.n_live_tup AS live_rows, s.n_dead_tup AS dead_rows,
       round(100.0 * s.n_dead_tup / nullif(s.n_live_tup + s.n_dead_tup, 0), 1)::float8 AS dead_percent,
       s.last_autovacuum, s.last_vacuum, p.reloptions::text AS options
FROM sized z JOIN pg_class p ON p.oid = z.oid JOIN pg_namespace n ON n.oid = p.relnamespace LEFT JOIN pg_stat_all_tables s ON s.relid = z.oid
ORDER BY z.bytes DESC NULLS LAST LIMIT 30

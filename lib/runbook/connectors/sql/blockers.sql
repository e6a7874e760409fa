-- Who waits for whom. pg_blocking_pids() is asked for waiting rows only (it briefly takes every lock partition);
-- pid 0 stands for a prepared transaction, which has no session.
WITH w AS MATERIALIZED (
  SELECT pid, pg_blocking_pids(pid) AS blocked_by FROM pg_stat_activity WHERE wait_event_type = 'Lock' LIMIT 500),
waits AS MATERIALIZED (SELECT pid, locktype, mode, relation, database FROM pg_locks WHERE NOT granted),
involved AS (SELECT pid FROM w UNION SELECT unnest(blocked_by) FROM w)
SELECT i.pid, coalesce(w.blocked_by, '{}') AS blocked_by, coalesce(a.backend_type, 'prepared transaction') AS backend_type,
       coalesce(nullif(a.application_name, ''), '(unset)') AS application_name, a.usename::text AS role,
       a.datname::text AS database, a.state, a.backend_start, a.state_change, a.query_start,
       round(extract(epoch FROM clock_timestamp() - a.xact_start)::numeric, 3) AS transaction_seconds,
       round(extract(epoch FROM clock_timestamp() - a.state_change)::numeric, 3) AS state_seconds,
       round(extract(epoch FROM clock_timestamp() - a.query_start)::numeric, 3) AS query_seconds,
       left(a.query, 300) AS query, l.locktype, l.mode,
       CASE WHEN l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            THEN l.relation::regclass::text ELSE l.relation::text END AS relation,
       a.backend_type = 'autovacuum worker' AND a.query LIKE '%to prevent wraparound%' AS wraparound,
       coalesce(r.rolsuper, false) AS superuser, coalesce(r.rolreplication, false) AS replication
FROM involved i
LEFT JOIN w USING (pid)
LEFT JOIN pg_stat_activity a ON a.pid = i.pid AND i.pid <> 0
LEFT JOIN LATERAL (SELECT * FROM waits WHERE waits.pid = i.pid LIMIT 1) l ON true
LEFT JOIN pg_roles r ON r.oid = a.usesysid
ORDER BY i.pid

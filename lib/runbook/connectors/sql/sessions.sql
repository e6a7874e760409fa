-- Every client session but this one, with the identity that an action needs (pid, backend_start, state_change).
SELECT a.pid, coalesce(nullif(a.application_name, ''), '(unset)') AS application_name,
       coalesce(a.usename::text, '(none)') AS role, coalesce(a.datname::text, '(none)') AS database,
       coalesce(host(a.client_addr), 'local') AS client, a.client_port, coalesce(a.state, '(unknown)') AS state,
       a.wait_event_type, a.wait_event, a.backend_start, a.state_change, a.query_start, a.xact_start,
       round(extract(epoch FROM clock_timestamp() - a.backend_start)::numeric, 3) AS session_seconds,
       round(extract(epoch FROM clock_timestamp() - a.state_change)::numeric, 3) AS state_seconds,
       round(extract(epoch FROM clock_timestamp() - a.xact_start)::numeric, 3) AS transaction_seconds,
       round(extract(epoch FROM clock_timestamp() - a.query_start)::numeric, 3) AS query_seconds,
       to_jsonb(a) ->> 'query_id' AS query_id, left(a.query, 300) AS query,
       coalesce(r.rolsuper, false) AS superuser, coalesce(r.rolreplication, false) AS replication
FROM pg_stat_activity a LEFT JOIN pg_roles r ON r.oid = a.usesysid
WHERE a.backend_type = 'client backend' AND a.pid <> pg_backend_pid()
ORDER BY a.backend_start, a.pid

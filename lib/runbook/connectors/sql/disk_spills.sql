-- Temporary files of sorts and hashes that live now, by the session that wrote them (its pid is in their names).
SELECT t.pid, count(*)::int AS files, sum(t.size)::bigint AS bytes, a.application_name, a.usename::text AS role, a.datname::text AS database,
       a.state, round(extract(epoch FROM clock_timestamp() - a.query_start)::numeric, 1)::float8 AS query_seconds, a.backend_start,
       to_jsonb(a)->>'query_id' AS query_id, left(a.query, 300) AS query
FROM (SELECT substring(name FROM '^pgsql_tmp([0-9]+)')::int AS pid, size FROM pg_ls_tmpdir()) t
LEFT JOIN pg_stat_activity a ON a.pid = t.pid
GROUP BY t.pid, a.application_name, a.usename, a.datname, a.state, a.query_start, a.backend_start, to_jsonb(a)->>'query_id', a.query
ORDER BY bytes DESC LIMIT 20

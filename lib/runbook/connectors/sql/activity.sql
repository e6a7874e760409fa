-- What running sessions do, lock waiters apart (they look active and are not slow). Taken with every sample.
SELECT a.wait_event_type, a.wait_event, to_jsonb(a) ->> 'query_id' AS query_id, left(a.query, 300) AS query,
       count(*) AS sessions, max(round(extract(epoch FROM clock_timestamp() - a.query_start)::numeric, 3)) AS longest_seconds
FROM pg_stat_activity a
WHERE a.state = 'active' AND a.backend_type = 'client backend' AND a.wait_event_type IS DISTINCT FROM 'Lock'
  AND a.pid <> pg_backend_pid() AND a.application_name NOT LIKE 'runbook:%'
GROUP BY 1, 2, 3, 4 ORDER BY 5 DESC LIMIT 500

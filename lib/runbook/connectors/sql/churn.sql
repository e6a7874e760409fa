-- Counters to be taken twice. Those of sessions, and the time in statements (waits for locks included), exist from version
-- 14 on; before that they are null.
SELECT sum((to_jsonb(d) ->> 'sessions')::bigint)::bigint AS sessions,
       sum((to_jsonb(d) ->> 'sessions_abandoned')::bigint)::bigint AS abandoned,
       sum((to_jsonb(d) ->> 'sessions_fatal')::bigint)::bigint AS fatal,
       sum((to_jsonb(d) ->> 'sessions_killed')::bigint)::bigint AS killed,
       round(sum((to_jsonb(d) ->> 'active_time')::numeric), 1) AS active_milliseconds,
       sum(xact_commit)::bigint AS commits, sum(xact_rollback)::bigint AS rollbacks, sum(deadlocks)::bigint AS deadlocks,
       (SELECT max(backend_start) FROM pg_stat_activity
        WHERE backend_type = 'client backend' AND application_name NOT LIKE 'runbook:%') AS newest_session,
       (SELECT stats_reset FROM pg_stat_database WHERE datname = current_database()) AS stats_reset,
       clock_timestamp() AS at
FROM pg_stat_database d

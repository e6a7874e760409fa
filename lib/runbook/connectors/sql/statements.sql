-- Running totals by statement, to be taken twice: only what is added between two looks says anything of now. The view has
-- no percentiles. Texts are normalised by the server ($1, $2); the newest counters of every version are read as JSON.
SELECT to_jsonb(s) ->> 'queryid' AS query_id, to_jsonb(s) ->> 'dbid' AS database_id, to_jsonb(s) ->> 'userid' AS role_id,
       to_jsonb(s) ->> 'toplevel' AS toplevel, s.calls, round(s.total_exec_time::numeric, 3) AS total_milliseconds, s.rows,
       s.shared_blks_hit + s.shared_blks_read AS blocks, s.shared_blks_read AS blocks_read, s.temp_blks_written,
       left(regexp_replace(s.query, '\s+', ' ', 'g'), 200) AS query, clock_timestamp() AS at
FROM pg_stat_statements s
WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = current_database())
ORDER BY s.total_exec_time DESC LIMIT 1000

-- Checkpoints up to version 16 (null from 17 on: see checkpointer), and what vacuums run.
SELECT (to_jsonb(b) ->> 'checkpoints_timed')::bigint AS timed, (to_jsonb(b) ->> 'checkpoints_req')::bigint AS requested,
       (to_jsonb(b) ->> 'buffers_backend')::bigint AS buffers_backend,
       (SELECT count(*) FROM pg_stat_progress_vacuum) AS vacuums,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_wal_size') AS max_wal_megabytes, clock_timestamp() AS at
FROM pg_stat_bgwriter b

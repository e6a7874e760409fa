-- Checkpoints, of both kinds and in both places (pg_stat_checkpointer from version 17 on), and what vacuums run.
SELECT coalesce(to_jsonb(b) ->> 'checkpoints_timed', c.timed)::bigint AS timed,
       coalesce(to_jsonb(b) ->> 'checkpoints_req', c.requested)::bigint AS requested,
       coalesce(to_jsonb(b) ->> 'buffers_backend', NULL)::bigint AS buffers_backend,
       (SELECT count(*) FROM pg_stat_progress_vacuum) AS vacuums,
       (SELECT setting::bigint FROM pg_settings WHERE name = 'max_wal_size') AS max_wal_megabytes, clock_timestamp() AS at
FROM pg_stat_bgwriter b
CROSS JOIN LATERAL (
  SELECT substring(x.doc::text FROM '<num_timed>(\d+)</num_timed>') AS timed,
         substring(x.doc::text FROM '<num_requested>(\d+)</num_requested>') AS requested
  FROM (SELECT CASE WHEN to_regclass('pg_catalog.pg_stat_checkpointer') IS NOT NULL
                    THEN query_to_xml('SELECT num_timed, num_requested FROM pg_catalog.pg_stat_checkpointer', false, true, '')
               END AS doc) x) c

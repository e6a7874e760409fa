-- The server's own space on disk: WAL, archiver, temporary files, and the limits that hold for them.
WITH w AS (SELECT count(*) FILTER (WHERE name ~ '^[0-9A-F]{24}$')::int AS wal_segments, coalesce(sum(size), 0)::bigint AS wal_bytes
           FROM pg_ls_waldir())
SELECT w.wal_segments, w.wal_bytes,
       pg_size_bytes(current_setting('max_wal_size')) AS max_wal_size_bytes,
       pg_size_bytes(current_setting('wal_keep_size')) AS wal_keep_bytes,
       current_setting('max_slot_wal_keep_size') AS max_slot_wal_keep_size, current_setting('temp_file_limit') AS temp_file_limit,
       CASE WHEN current_setting('archive_mode') = 'off' THEN 0
            ELSE (SELECT count(*) FROM pg_ls_archive_statusdir() WHERE name LIKE '%.ready')::int END AS wal_ready,
       current_setting('archive_mode') AS archive_mode, a.failed_count, a.last_failed_wal, a.last_failed_time, a.last_archived_time,
       current_setting('archive_mode') <> 'off' AND a.failed_count > 0
         AND coalesce(a.last_failed_time > coalesce(a.last_archived_time, '-infinity'), false) AS archiver_failing,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, '0/0') AS wal_position,
       current_setting('data_directory') AS data_directory,
       (SELECT pid FROM pg_stat_activity WHERE backend_type = 'checkpointer' LIMIT 1) AS checkpointer_pid, clock_timestamp() AS at
FROM pg_stat_archiver a CROSS JOIN w

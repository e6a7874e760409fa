-- How far each standby is behind; on a standby itself, how old what it shows is (null = not a standby).
SELECT r.application_name, r.state, r.sync_state, round(extract(epoch FROM r.replay_lag)::numeric, 3) AS replay_seconds,
       pg_wal_lsn_diff(r.sent_lsn, r.replay_lsn) AS bytes_behind, NULL::numeric AS own_seconds
FROM pg_stat_replication r
UNION ALL
SELECT '(this server)', CASE WHEN pg_is_in_recovery() THEN 'standby' ELSE 'primary' END, NULL, NULL, NULL,
       CASE WHEN pg_is_in_recovery() AND pg_last_wal_receive_lsn() IS DISTINCT FROM pg_last_wal_replay_lsn()
            THEN round(extract(epoch FROM clock_timestamp() - pg_last_xact_replay_timestamp())::numeric, 3)
            WHEN pg_is_in_recovery() THEN 0 END

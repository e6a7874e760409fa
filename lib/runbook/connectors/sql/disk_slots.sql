-- WAL that replication slots keep, the most first. A slot without a restart_lsn keeps none.
SELECT s.slot_name::text AS slot_name, s.slot_type, s.plugin::text AS plugin, s.active, s.active_pid, s.database::text AS database, s.wal_status, s.safe_wal_size,
       pg_wal_lsn_diff(CASE WHEN pg_is_in_recovery() THEN pg_last_wal_replay_lsn() ELSE pg_current_wal_lsn() END, s.restart_lsn) AS retained_bytes,
       pg_wal_lsn_diff(s.restart_lsn, '0/0') AS position, age(s.xmin) AS xmin_age, age(s.catalog_xmin) AS catalog_xmin_age,
       to_jsonb(s)->>'inactive_since' AS inactive_since, to_jsonb(s)->>'invalidation_reason' AS invalidation_reason,
       coalesce((to_jsonb(s)->>'temporary')::boolean, false) AS temporary
FROM pg_replication_slots s ORDER BY retained_bytes DESC NULLS LAST

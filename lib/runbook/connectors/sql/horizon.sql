-- Who keeps dead rows from being removed: the oldest snapshots, slots and prepared transactions.
SELECT * FROM (
  SELECT 'session' AS holder, a.pid::text AS name, coalesce(nullif(a.application_name, ''), '(unset)') AS application_name,
         a.state, age(a.backend_xmin) AS xmin_age, round(extract(epoch FROM clock_timestamp() - a.xact_start)::numeric) AS seconds
  FROM pg_stat_activity a WHERE a.backend_xmin IS NOT NULL AND a.pid <> pg_backend_pid()
  UNION ALL
  SELECT 'slot', s.slot_name::text, NULL, CASE WHEN s.active THEN 'active' ELSE 'inactive' END,
         greatest(age(s.xmin), age(s.catalog_xmin)), NULL FROM pg_replication_slots s WHERE s.xmin IS NOT NULL OR s.catalog_xmin IS NOT NULL
  UNION ALL
  SELECT 'prepared transaction', p.gid, NULL, NULL, age(p.transaction),
         round(extract(epoch FROM clock_timestamp() - p.prepared)::numeric) FROM pg_prepared_xacts p
) h ORDER BY xmin_age DESC NULLS LAST LIMIT 20

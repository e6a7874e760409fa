-- Slots against the limit that ordinary roles meet. Walsenders do not count. hidden_rows > 0: the reading is unknown;
-- untracked > 0: sessions with track_activities off, whose state nobody can see.
WITH s AS (
  SELECT current_setting('max_connections')::int AS max_connections,
         current_setting('superuser_reserved_connections')::int AS superuser_reserved,
         coalesce(nullif(current_setting('reserved_connections', true), ''), '0')::int AS reserved,
         current_setting('max_wal_senders')::int AS max_wal_senders),
a AS (
  SELECT count(*) FILTER (WHERE c) AS clients,
         count(*) FILTER (WHERE backend_type = 'walsender') AS walsenders,
         count(*) FILTER (WHERE c AND state = 'active' AND wait_event_type IS DISTINCT FROM 'Lock') AS active,
         count(*) FILTER (WHERE c AND wait_event_type = 'Lock') AS lock_waiting,
         count(*) FILTER (WHERE c AND state = 'idle') AS idle,
         count(*) FILTER (WHERE c AND state LIKE 'idle in transaction%') AS idle_in_transaction,
         count(*) FILTER (WHERE c AND state = 'starting') AS starting,
         count(*) FILTER (WHERE c AND application_name LIKE 'runbook:%') AS own,
         count(*) FILTER (WHERE c AND state = 'disabled') AS untracked,
         count(*) FILTER (WHERE pid > 0 AND backend_type IS NULL) AS hidden_rows
  FROM (SELECT *, backend_type = 'client backend' AS c FROM pg_stat_activity) x)
SELECT s.*, a.*, s.max_connections - s.superuser_reserved - s.reserved AS usable,
       (SELECT coalesce(sum(numbackends), 0) FROM pg_stat_database)::int AS backends,
       (SELECT count(*) FROM pg_prepared_xacts) AS prepared_transactions,
       clock_timestamp() AS at
FROM s, a

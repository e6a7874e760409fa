-- Databases by size; temp_bytes counts what sorts and hashes have spilled since the counters were reset.
SELECT d.datname::text AS database, pg_database_size(d.oid) AS bytes, s.temp_files, s.temp_bytes, s.stats_reset
FROM pg_database d LEFT JOIN pg_stat_database s ON s.datid = d.oid WHERE d.datallowconn ORDER BY bytes DESC LIMIT 100

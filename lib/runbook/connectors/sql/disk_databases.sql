-- Databases by size, null for one that this role may not enter; temp_bytes counts what sorts and hashes have spilled since
-- the counters were reset.
SELECT d.datname::text AS database,
       CASE WHEN has_database_privilege(d.oid, 'CONNECT') OR pg_has_role(current_user, 'pg_read_all_stats', 'USAGE')
            THEN pg_database_size(d.oid) END AS bytes,
       s.temp_files, s.temp_bytes, s.stats_reset
FROM pg_database d LEFT JOIN pg_stat_database s ON s.datid = d.oid
WHERE d.datallowconn ORDER BY bytes DESC NULLS LAST LIMIT 100

-- Limits below max_connections. Superusers are exempt from both; -1 is no limit; a database's 0 closes it on purpose.
SELECT 'role' AS kind, r.rolname::text AS name, r.rolconnlimit AS connection_limit, count(a.pid) AS used
FROM pg_roles r LEFT JOIN pg_stat_activity a ON a.usesysid = r.oid AND a.backend_type = 'client backend'
WHERE r.rolconnlimit >= 0 AND NOT r.rolsuper AND r.rolcanlogin GROUP BY 2, 3
UNION ALL
SELECT 'database', d.datname::text, d.datconnlimit, count(a.pid)
FROM pg_database d LEFT JOIN pg_stat_activity a ON a.datid = d.oid AND a.backend_type = 'client backend'
WHERE d.datconnlimit <> -1 AND d.datallowconn GROUP BY 2, 3
ORDER BY 4 DESC, 1, 2

-- What this role can see and do. Without pg_read_all_stats every count of other people's sessions is unknown, not 0.
SELECT current_user AS role, current_database() AS database,
       current_setting('server_version_num')::int AS version_num, current_setting('server_version') AS version,
       pg_is_in_recovery() AS standby,
       r.rolsuper AS superuser, r.rolcreaterole AS createrole, r.rolcreatedb AS createdb, r.rolreplication AS replication,
       pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_all,
       pg_has_role(current_user, 'pg_read_all_settings', 'USAGE') AS reads_settings,
       pg_has_role(current_user, 'pg_signal_backend', 'USAGE') AS may_signal,
       pg_has_role(current_user, 'pg_execute_server_program', 'USAGE')
         OR pg_has_role(current_user, 'pg_write_server_files', 'USAGE') AS may_touch_host,
       (SELECT setting FROM pg_settings WHERE name = 'data_directory') AS data_directory,
       inet_client_port() AS own_client_port, pg_backend_pid() AS own_pid,
       (SELECT count(*) FROM pg_stat_activity WHERE pid > 0 AND backend_type IS NULL) AS hidden_rows
FROM pg_roles r WHERE r.rolname = current_user

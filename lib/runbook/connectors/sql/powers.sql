-- What a role could change: more than a diagnosing role needs is a risk on a bad night.
SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') AND n.nspname !~ '^pg_toast'
          AND (has_table_privilege(c.oid, 'INSERT') OR has_table_privilege(c.oid, 'UPDATE')
               OR has_table_privilege(c.oid, 'DELETE') OR has_table_privilege(c.oid, 'TRUNCATE'))) AS writable_tables,
       has_database_privilege(current_database(), 'CREATE') AS may_create_schemas,
       EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_stat_statements') AS has_statements,
       CASE WHEN to_regrole('pg_use_reserved_connections') IS NOT NULL
            THEN pg_has_role(current_user, to_regrole('pg_use_reserved_connections')::oid, 'USAGE') END AS uses_reserve

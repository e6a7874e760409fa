-- Prepared transactions and the relations that they lock. The join goes over the transaction id's own lock: the one
-- printed in the manual ('-1/' || transaction) matches only after a restart.
SELECT p.gid, p.owner::text AS owner, p.database::text AS database, p.transaction::text AS xid, p.prepared,
       round(extract(epoch FROM clock_timestamp() - p.prepared)::numeric, 3) AS age_seconds, age(p.transaction) AS xid_age,
       array_agg(DISTINCT CASE WHEN l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
                 THEN l.relation::regclass::text ELSE l.relation::text END) FILTER (WHERE l.relation IS NOT NULL) AS relations,
       array_agg(DISTINCT l.mode) FILTER (WHERE l.relation IS NOT NULL) AS modes
FROM pg_prepared_xacts p
LEFT JOIN pg_locks x ON x.pid IS NULL AND x.locktype = 'transactionid' AND x.transactionid = p.transaction
LEFT JOIN pg_locks l ON l.pid IS NULL AND l.virtualtransaction = x.virtualtransaction
GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY p.prepared LIMIT 50

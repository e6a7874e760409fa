-- What was planned, approved, done and found afterwards: appended to, never changed. Each entry is sealed over the seal of
-- the one before it, with a key that is not in this database, so that any edit shows.

CREATE TABLE action_log (
    -- Without gaps: an entry that is missing shows.
    seq    bigint PRIMARY KEY,
    at     timestamptz NOT NULL,
    -- A run and one of its actions: 20261123T072513042-k3f9qa7m:P01.terminate
    action text NOT NULL,
    event  text NOT NULL CHECK (event IN ('planned', 'approved', 'applying', 'applied', 'verified', 'undoing', 'undone',
                                          'refused', 'failed')),
    actor  text NOT NULL,
    -- The whole entry, as it was sealed.
    body   text NOT NULL,
    seal   text NOT NULL UNIQUE
);
CREATE INDEX action_log_by_action ON action_log (action, seq);
CREATE INDEX action_log_applied ON action_log (at) WHERE event = 'applying';

CREATE FUNCTION action_log_stays() RETURNS trigger LANGUAGE plpgsql AS
$$ BEGIN RAISE EXCEPTION 'action_log is appended to, never changed'; END $$;
CREATE TRIGGER action_log_stays BEFORE UPDATE OR DELETE ON action_log FOR EACH ROW EXECUTE FUNCTION action_log_stays();
CREATE TRIGGER action_log_stays_whole BEFORE TRUNCATE ON action_log FOR EACH STATEMENT EXECUTE FUNCTION action_log_stays();

-- What a person ordered without a proposal of the run is kept where everything else about actions is.

ALTER TABLE action_log DROP CONSTRAINT action_log_event_check;
ALTER TABLE action_log ADD CONSTRAINT action_log_event_check
    CHECK (event IN ('ordered', 'planned', 'approved', 'applying', 'applied', 'verified', 'undoing', 'undone', 'refused',
                     'failed'));
CREATE INDEX action_log_ordered ON action_log (split_part(action, ':', 1), seq) WHERE event = 'ordered';

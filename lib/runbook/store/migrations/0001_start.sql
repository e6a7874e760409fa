-- Incidents, alerts and runs. Every statement of ours runs with search_path = runbook.

CREATE TABLE incidents (
    id          text PRIMARY KEY,
    -- What its alerts have in common: runbook (or alert name) and service.
    key         text NOT NULL,
    runbook     text,
    service     text NOT NULL DEFAULT '',
    title       text NOT NULL,
    severity    text NOT NULL DEFAULT '',
    opened_at   timestamptz NOT NULL DEFAULT now(),
    resolved_at timestamptz
);
-- At most one open incident of a key: firing joins it, or opens the next one.
CREATE UNIQUE INDEX incidents_open ON incidents (key) WHERE resolved_at IS NULL;
CREATE INDEX incidents_opened ON incidents (opened_at DESC);

CREATE TABLE alerts (
    id               text PRIMARY KEY,
    source           text NOT NULL,
    fingerprint      text NOT NULL,
    starts_at        timestamptz NOT NULL,
    status           text NOT NULL CHECK (status IN ('firing', 'resolved')),
    name             text NOT NULL,
    severity         text NOT NULL DEFAULT '',
    service          text NOT NULL DEFAULT '',
    labels           jsonb NOT NULL DEFAULT '{}',
    annotations      jsonb NOT NULL DEFAULT '{}',
    -- As received, redacted.
    raw              jsonb NOT NULL,
    notes            jsonb NOT NULL DEFAULT '[]',
    fate             text NOT NULL CHECK (fate IN ('queued', 'resolved', 'unrouted')),
    runbook          text,
    run_id           text,
    incident_id      text REFERENCES incidents,
    received_at      timestamptz NOT NULL DEFAULT now(),
    -- A repeat of the same message is counted, not kept again.
    received         integer NOT NULL DEFAULT 1,
    last_received_at timestamptz NOT NULL DEFAULT now(),
    -- Of a firing alert: when the message came that it is over.
    resolved_at      timestamptz,
    UNIQUE (fingerprint, starts_at, status)
);
CREATE INDEX alerts_by_fate ON alerts (fate, received_at DESC);
CREATE INDEX alerts_by_time ON alerts (received_at DESC);
CREATE INDEX alerts_firing_of_incident ON alerts (incident_id) WHERE status = 'firing' AND resolved_at IS NULL;

CREATE TABLE runs (
    id            text PRIMARY KEY,
    -- Runbook, fingerprint and startsAt: the same firing never runs twice.
    run_key       text NOT NULL UNIQUE,
    runbook       text NOT NULL,
    parameters    jsonb NOT NULL DEFAULT '{}',
    -- The alert as the run is told of it, with notes on labels that did not fit.
    alert         jsonb,
    alert_id      text REFERENCES alerts,
    incident_id   text REFERENCES incidents,
    state         text NOT NULL CHECK
                  (state IN ('queued', 'running', 'succeeded', 'failed', 'interrupted', 'cancelled')),
    error         jsonb,
    queued_at     timestamptz NOT NULL DEFAULT now(),
    -- When a job was last put into the queue for it.
    deferred_at   timestamptz NOT NULL DEFAULT now(),
    started_at    timestamptz,
    finished_at   timestamptz,
    -- Who runs it, until when we believe that, and the number that its last word must carry.
    worker        text,
    lease_until   timestamptz,
    fencing_token bigint NOT NULL DEFAULT 0,
    attempts      integer NOT NULL DEFAULT 0,
    progress      jsonb,
    title         text NOT NULL DEFAULT '',
    severity      text NOT NULL DEFAULT '',
    service       text NOT NULL DEFAULT '',
    outcome       text,
    -- Outcome, top causes, counts; the whole document lies in the archive.
    summary       jsonb NOT NULL DEFAULT '{}',
    -- Where the archive keeps its files, once they are there.
    report        text,
    announced_at  timestamptz,
    search        tsvector NOT NULL DEFAULT ''
);
CREATE INDEX runs_by_time ON runs (queued_at DESC);
CREATE INDEX runs_by_finish ON runs (finished_at DESC) WHERE finished_at IS NOT NULL;
CREATE INDEX runs_leased ON runs (lease_until) WHERE state = 'running';
CREATE INDEX runs_queued ON runs (deferred_at) WHERE state = 'queued';
CREATE INDEX runs_unannounced ON runs (finished_at) WHERE finished_at IS NOT NULL AND announced_at IS NULL;
CREATE INDEX runs_search ON runs USING gin (search);

-- The joined store of the audit logs of many servers, schema 2. They also bring schema 1 up to date.
--
-- One row for each record of each log. `record` is the canonical content that the hash chain covers; the columns after it say the same
-- to people, and `scopeward audit verify --from` compares them with it.
CREATE TABLE IF NOT EXISTS scopeward_audit (
    log_id           uuid        NOT NULL,
    sequence         bigint      NOT NULL CHECK (sequence > 0),
    prev_hash        bytea       NOT NULL CHECK (octet_length(prev_hash) = 32),
    hash             bytea       NOT NULL CHECK (octet_length(hash) = 32),
    record           bytea       NOT NULL,
    event_time       timestamptz NOT NULL,
    kind             text        NOT NULL,
    decision_id      text,
    correlation_id   text,
    caller           text,
    client_id        text,
    client_name      text,
    audiences        text[]      NOT NULL,
    requested_scopes text[],
    granted_scopes   text[]      NOT NULL,
    added_scopes     text[]      NOT NULL,
    added_origins    text[]      NOT NULL,
    added_rules      text[]      NOT NULL,
    refused_scopes   text[]      NOT NULL,
    reason           text,
    policy_digest    text,
    missing_events   bigint,
    forwarded_time   timestamptz NOT NULL DEFAULT now(),
    PRIMARY KEY (log_id, sequence)
);
-- Since schema 2: what the client presented at the token endpoint, and the scopes that the grant had. `scopeward audit forward-schema
-- --audit-forward` also fills them in for records that were there before.
ALTER TABLE scopeward_audit
    ADD COLUMN IF NOT EXISTS token_grant text,
    ADD COLUMN IF NOT EXISTS token_granted_scopes text[];
CREATE INDEX IF NOT EXISTS scopeward_audit_by_time ON scopeward_audit (event_time, log_id, sequence);
CREATE INDEX IF NOT EXISTS scopeward_audit_by_client ON scopeward_audit (client_id, event_time) WHERE client_id IS NOT NULL;

CREATE TABLE IF NOT EXISTS scopeward_audit_schema (version integer NOT NULL PRIMARY KEY);
INSERT INTO scopeward_audit_schema (version) VALUES (2) ON CONFLICT DO NOTHING;

-- Who got what without asking: a row for each scope.
CREATE OR REPLACE VIEW scopeward_unasked_scopes AS
    SELECT event_time, log_id, sequence, decision_id, caller, client_id, client_name, audiences, scope, origin, nullif(rule, '') AS rule
    FROM scopeward_audit,
         LATERAL unnest(added_scopes, added_origins, added_rules) AS added (scope, origin, rule);

CREATE OR REPLACE VIEW scopeward_unasked_per_client AS
    SELECT client_id, client_name, scope, count(*) AS times, min(event_time) AS first_time, max(event_time) AS last_time
    FROM scopeward_unasked_scopes
    GROUP BY client_id, client_name, scope;

CREATE OR REPLACE VIEW scopeward_unasked_per_rule AS
    SELECT origin, rule, scope, count(*) AS times, count(DISTINCT client_id) AS clients, max(event_time) AS last_time
    FROM scopeward_unasked_scopes
    GROUP BY origin, rule, scope;

CREATE OR REPLACE VIEW scopeward_unasked_per_day AS
    SELECT date_trunc('day', event_time AT TIME ZONE 'UTC')::date AS day, scope, count(*) AS times, count(DISTINCT client_id) AS clients
    FROM scopeward_unasked_scopes
    GROUP BY day, scope;

-- What was denied at the token endpoint: by what, and of what it asked more than it had.
CREATE OR REPLACE VIEW scopeward_token_denials AS
    SELECT event_time, log_id, sequence, decision_id, caller, client_id, client_name, audiences, token_grant, token_granted_scopes,
           requested_scopes, refused_scopes, reason
    FROM scopeward_audit
    WHERE kind = 'DENIAL' AND token_grant IS NOT NULL;

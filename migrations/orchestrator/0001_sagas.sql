-- Live sagas only, one row each. No index on a column that changes and room in every page: updates stay heap-only.
-- The state is json, not jsonb: it is written and read as a whole at every transition, and to take it apart and to put it
-- together again costs more than all else that the statement does. It can be searched all the same.
-- queued lists the commands that the saga knows to be queued, one object each: part, participant, sent_at. NULL is none. So
-- whoever takes a partition over knows whom to ask about them without reading states, and their due times, which have
-- passed, stay out of next_due.
CREATE TABLE saga (
  id                 uuid        PRIMARY KEY,
  version            bigint      NOT NULL,
  home_partition     integer     NOT NULL,
  definition         text        NOT NULL,
  definition_version integer     NOT NULL,
  definition_hash    text        NOT NULL,
  status             text        NOT NULL,
  waiting_kind       text        NOT NULL,
  waiting_on         text,
  waiting_since      timestamptz NOT NULL,
  attempt            integer,
  next_due           timestamptz,
  last_error         text,
  business_key       text,
  correlation_id     text        NOT NULL,
  start_hash         bytea       NOT NULL,
  started_at         timestamptz NOT NULL,
  -- No other live saga of its definition may have its business key: the definition demands it.
  unique_key         boolean     NOT NULL DEFAULT false,
  queued             json,
  state              json        NOT NULL
) WITH (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.02);

-- What a statement has changed must be what was planned, or a rival was first: nothing is written, and the batch is run
-- again. An error within the statement, so that a statement alone is a transaction.
CREATE FUNCTION rows_as_planned(doing text, planned bigint, done bigint) RETURNS void LANGUAGE plpgsql AS $$
BEGIN
  IF done <> planned THEN
    RAISE 'a rival was first: % came to % rows, not to %', doing, done, planned USING ERRCODE = 'serialization_failure';
  END IF;
END
$$;

-- Never updated, so it costs the updates nothing.
CREATE INDEX saga_business_key ON saga (business_key) WHERE business_key IS NOT NULL;

-- The guard of definitions with `businessKey: unique`: sagas with different ids have different home partitions, so no
-- process sees both. None of its columns is ever updated. One expression, so that no plan takes the index above for it, where
-- many sagas of other definitions may have the key; names have no slash.
CREATE UNIQUE INDEX saga_unique_key ON saga ((definition || '/' || business_key)) WHERE unique_key;

-- Sagas that have ended. Ids are UUIDv7: a range of ids is a range of time. Partitions are made by the orchestrator,
-- ahead of time; there is no DEFAULT partition, which would have to be scanned whenever one is added.
CREATE TABLE saga_history (
  id                 uuid        NOT NULL,
  definition         text        NOT NULL,
  definition_version integer     NOT NULL,
  definition_hash    text        NOT NULL,
  status             text        NOT NULL,
  business_key       text,
  correlation_id     text        NOT NULL,
  start_hash         bytea       NOT NULL,
  started_at         timestamptz NOT NULL,
  ended_at           timestamptz NOT NULL,
  state              json        NOT NULL,
  PRIMARY KEY (id)
) PARTITION BY RANGE (id);

CREATE INDEX saga_history_business_key ON saga_history (business_key) WHERE business_key IS NOT NULL;

-- A third of what the default costs, where the server was built with it.
DO $$
BEGIN
  ALTER TABLE saga ALTER COLUMN state SET COMPRESSION lz4;
  ALTER TABLE saga_history ALTER COLUMN state SET COMPRESSION lz4;
EXCEPTION WHEN feature_not_supported THEN
  RAISE NOTICE 'this server has no lz4: states are compressed by pglz';
END
$$;

-- Definitions are never deleted: instances are pinned to them by hash.
CREATE TABLE definition (
  hash          text        PRIMARY KEY,
  name          text        NOT NULL,
  version       integer     NOT NULL,
  document      jsonb       NOT NULL,
  registered_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  -- New sagas take the highest version that is not withdrawn; those that are under way keep theirs.
  withdrawn_at  timestamptz,
  withdrawn_by  text,
  withdrawn_for text,
  CONSTRAINT definition_name_version UNIQUE (name, version),
  CONSTRAINT definition_withdrawn CHECK (num_nulls(withdrawn_at, withdrawn_by, withdrawn_for) IN (0, 3))
);

-- One row, raised by whatever changes which definitions new sagas take. A start reads it along with its rows, and the
-- statement that writes the start compares it: so the version is one answer for all processes.
CREATE TABLE definition_generation (
  singleton  boolean PRIMARY KEY DEFAULT true,
  generation bigint  NOT NULL DEFAULT 0,
  CONSTRAINT definition_generation_single CHECK (singleton)
);
INSERT INTO definition_generation DEFAULT VALUES;

-- Where participants are reached, as the process that started last with a configuration of them says. A process that is
-- not configured with a participant of a registered definition finds it here.
CREATE TABLE participant (
  name           text PRIMARY KEY,
  topic          text NOT NULL,
  consumer_group text NOT NULL
);

-- Who withdrew or restored which version, when and why.
CREATE TABLE definition_action (
  id             uuid        PRIMARY KEY,
  name           text        NOT NULL,
  version        integer     NOT NULL,
  action         text        NOT NULL,
  actor          text        NOT NULL,
  reason         text        NOT NULL,
  decided_at     timestamptz NOT NULL DEFAULT clock_timestamp(),
  correlation_id text        NOT NULL,
  CONSTRAINT definition_action_known CHECK (action IN ('withdrawn', 'restored'))
);

CREATE INDEX definition_action_name ON definition_action (name);

-- Who asked for what, when, why, and what became of it.
CREATE TABLE operator_action (
  id             uuid        PRIMARY KEY,
  saga_id        uuid        NOT NULL,
  action         text        NOT NULL,
  -- Of an action on one step, with what the operator gave along: a corrected input or a result.
  step           text,
  given          jsonb,
  actor          text        NOT NULL,
  reason         text        NOT NULL,
  if_version     bigint,
  decided_at     timestamptz NOT NULL,
  decision       text        NOT NULL,
  code           text,
  message        text,
  -- What could have been asked for instead of a refused one.
  legal          text[],
  status_before  text,
  status_after   text,
  correlation_id text        NOT NULL
);

CREATE INDEX operator_action_saga ON operator_action (saga_id);

-- Business keys of definitions with `businessKey: unique` that POST /sagas has accepted a start for. The saga's own row is the
-- guard once it is live; until then a second request must see the first.
CREATE TABLE business_key_claim (
  definition   text        NOT NULL,
  business_key text        NOT NULL,
  saga_id      uuid        NOT NULL,
  claimed_at   timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (definition, business_key)
);

CREATE INDEX business_key_claim_saga ON business_key_claim (saga_id);
CREATE INDEX business_key_claim_age ON business_key_claim (claimed_at);

-- What POST /sagas answered to a key, for 24 hours.
CREATE TABLE saga_start_idempotency (
  key        text        PRIMARY KEY,
  body_hash  bytea       NOT NULL,
  saga_id    uuid        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

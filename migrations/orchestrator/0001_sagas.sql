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
  CONSTRAINT definition_name_version UNIQUE (name, version)
);

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

-- What POST /sagas answered to a key, for 24 hours.
CREATE TABLE saga_start_idempotency (
  key        text        PRIMARY KEY,
  body_hash  bytea       NOT NULL,
  saga_id    uuid        NOT NULL,
  created_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

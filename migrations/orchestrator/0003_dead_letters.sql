-- What people decided about dead letters: who, when and why. The letters stand in Kafka, where nothing can be changed or
-- removed; one without a row here is open.
CREATE TABLE dead_letter (
  topic              text        NOT NULL,
  partition          integer     NOT NULL,
  letter_offset      bigint      NOT NULL,
  -- The letter's own time: the same place in a topic that was made anew holds another letter.
  written_at         timestamptz NOT NULL,
  decision           text        NOT NULL,
  actor              text        NOT NULL,
  reason             text        NOT NULL,
  decided_at         timestamptz NOT NULL DEFAULT clock_timestamp(),
  saga_id            uuid,
  -- Of a replay: whether the record was put right, and where it stands now.
  corrected          boolean     NOT NULL DEFAULT false,
  replayed_partition integer,
  replayed_offset    bigint,
  correlation_id     text        NOT NULL,
  PRIMARY KEY (topic, partition, letter_offset, written_at),
  CONSTRAINT dead_letter_decision_known CHECK (decision IN ('replayed', 'discarded'))
);

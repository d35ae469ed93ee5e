-- The participant's barrier: what became of a saga step's command (F) and of its compensation (C), with the reply.
-- Ids are UUIDv7, so a range of ids is a range of time: partitions are made ahead, and there is no DEFAULT one, because
-- a row in it would block the partition that it belongs into.
CREATE TABLE inbox (
    saga_id    uuid        NOT NULL,
    step       text        NOT NULL,
    direction  "char"      NOT NULL,
    mark       "char"      NOT NULL,
    -- json, not jsonb: an answer that is repeated must be the same, to the byte.
    reply      json,
    handled_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (saga_id, step, direction),
    CONSTRAINT inbox_direction_known CHECK (direction IN ('F', 'C')),
    -- Pending, done, failed (X), refused.
    CONSTRAINT inbox_mark_known CHECK (mark IN ('P', 'D', 'X', 'R'))
) PARTITION BY RANGE (saga_id);

-- One row. No saga that began before `own_ms` (milliseconds since the Unix epoch) may have an effect here, since what
-- is known of it may be forgotten; `seen_ms` is the highest floor that a command carried.
CREATE TABLE saga_floor (
    singleton boolean PRIMARY KEY DEFAULT true,
    own_ms    bigint  NOT NULL DEFAULT 0,
    seen_ms   bigint  NOT NULL DEFAULT 0,
    CONSTRAINT saga_floor_single CHECK (singleton)
);
INSERT INTO saga_floor DEFAULT VALUES;

-- One row: what began before these times (milliseconds since the Unix epoch) is refused, or forgotten. Both only rise.
--
-- Raised in two steps, so that nobody who still goes by the old value can be overlooked: `starts_from_ms` first, and
-- `floor_ms` only once every transaction that may have read the former value is over.
CREATE TABLE floor (
  singleton      boolean PRIMARY KEY DEFAULT true,
  -- No saga whose id is older is started any more.
  starts_from_ms bigint  NOT NULL DEFAULT 0,
  -- No live saga is older, and none will be: history below it may be dropped, and commands carry it.
  floor_ms       bigint  NOT NULL DEFAULT 0,
  CONSTRAINT floor_single CHECK (singleton),
  CONSTRAINT floor_below_starts CHECK (floor_ms <= starts_from_ms)
);
INSERT INTO floor DEFAULT VALUES;

-- What is forgotten by age is found by age.
CREATE INDEX saga_start_idempotency_age ON saga_start_idempotency (created_at);

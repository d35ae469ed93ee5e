-- Messages that follow from work which no message started, such as an HTTP request. One row a batch, never one a
-- message: a row a message costs a third of the throughput.
CREATE TABLE outbox (
    id            bigint      GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
    created_at    timestamptz NOT NULL DEFAULT now(),
    -- Whoever published the batch last may still be at it until then; afterwards any sweep sends it again.
    claimed_until timestamptz NOT NULL,
    record_count  integer     NOT NULL,
    -- JSON text of the records. Not jsonb: nothing searches in it, and payloads may hold what jsonb refuses.
    records       bytea       NOT NULL
)
-- Rows live for milliseconds; dead ones must go before the table's pages are no longer in memory.
WITH (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 1000, fillfactor = 70);

-- A failure is an answer too: a key that was told that nothing was done must never do anything.
ALTER TABLE gateway_ledger
    -- Of what failed: rules count the calls of an order, whoever made them.
    ADD COLUMN order_id uuid,
    DROP CONSTRAINT gateway_ledger_decision_whole,
    ADD CONSTRAINT gateway_ledger_decision_whole CHECK (
        (decision = 'approved' AND reference IS NOT NULL)
        OR (decision = 'declined' AND reference IS NULL AND code IS NOT NULL AND message IS NOT NULL)
        OR (decision = 'failed' AND reference IS NULL AND code IS NULL AND message IS NOT NULL
            AND order_id IS NOT NULL)
    );

CREATE INDEX gateway_ledger_failed ON gateway_ledger (order_id, operation) WHERE decision = 'failed';

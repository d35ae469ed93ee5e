-- One payment an order. Its history is bounded and read with it, so it stands in the row.
CREATE TABLE payment (
    order_id uuid PRIMARY KEY,
    customer_id uuid NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    status text NOT NULL,
    -- The command whose call is open or was the last: <saga>/<step>/<direction>.
    caller text NOT NULL,
    -- Whose payment it is: no other saga charges or refunds the order, so every caller is of this one.
    saga_id uuid NOT NULL GENERATED ALWAYS AS (split_part(caller, '/', 1)::uuid) STORED,
    charge_reference text,
    refund_reference text,
    fault_code text,
    fault_message text,
    history jsonb NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT payment_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT payment_status_known CHECK (
        status IN (
            'charging', 'charged', 'declined', 'charge_failed',
            'refunding', 'refunded', 'refund_failed'
        )
    )
) WITH (fillfactor = 50);

-- The simulated gateway's own memory: what it answered to a key is what it answers again. It stands for a database of
-- another company, so nothing refers to it and it is never written in a transaction of ours.
CREATE TABLE gateway_ledger (
    key text PRIMARY KEY,
    operation text NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    decision text NOT NULL,
    reference text,
    code text,
    message text,
    decided_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT gateway_ledger_operation_known CHECK (operation IN ('charge', 'refund')),
    CONSTRAINT gateway_ledger_decision_whole CHECK (
        (decision = 'approved' AND reference IS NOT NULL)
        OR (decision = 'declined' AND code IS NOT NULL AND message IS NOT NULL)
    )
);

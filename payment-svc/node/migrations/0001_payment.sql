-- A schema of its own, so that it may share a database with other services of the team.
CREATE SCHEMA IF NOT EXISTS payment_node;

-- The barrier: one row a saga step, and in it all that decides whether a command may still have an effect. One row
-- for both directions, so that locking it makes everything about the step wait for everything else about it.
CREATE TABLE payment_node.barrier (
    saga_id              uuid NOT NULL,
    step                 text NOT NULL,
    -- NULL: nothing counts yet. 'pending': the gateway is being asked, or was asked and the answer is not known.
    forward              text CHECK (forward IN ('pending', 'done', 'failed', 'refused')),
    compensation         text CHECK (compensation IN ('pending', 'done')),
    -- json, not jsonb: an answer that is repeated must be the same, to the byte.
    forward_reply        json,
    compensation_reply   json,
    -- What the gateway is asked while it is pending, with the key: whoever finds the row can repeat the call.
    forward_call         json,
    compensation_call    json,
    -- The last part of the next key. Only a definite "not done" that is not saved raises it.
    forward_calls        integer NOT NULL DEFAULT 1,
    compensation_calls   integer NOT NULL DEFAULT 1,
    PRIMARY KEY (saga_id, step)
);

-- One row. What began before own_ms (milliseconds since 1970) is forgotten here and may have no effect any more.
CREATE TABLE payment_node.saga_floor (
    singleton boolean PRIMARY KEY DEFAULT true CHECK (singleton),
    own_ms    bigint  NOT NULL DEFAULT 0
);
INSERT INTO payment_node.saga_floor DEFAULT VALUES;

-- The business: one payment an order.
CREATE TABLE payment_node.payment (
    order_id     uuid PRIMARY KEY,
    customer_id  uuid   NOT NULL,
    amount_minor bigint NOT NULL CHECK (amount_minor > 0),
    currency     text   NOT NULL,
    status       text   NOT NULL CHECK (
        status IN ('charging', 'charged', 'declined', 'charge_failed', 'refunding', 'refunded', 'refund_failed')
    ),
    charge_reference text,
    refund_reference text
);

-- The simulated gateway's own memory. It stands for the database of another company: nothing refers to it, and it is
-- never written in a transaction of ours.
CREATE TABLE payment_node.gateway_ledger (
    key          text   PRIMARY KEY,
    operation    text   NOT NULL,
    amount_minor bigint NOT NULL,
    currency     text   NOT NULL,
    answer       json   NOT NULL
);

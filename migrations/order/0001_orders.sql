-- Orders, the keys of their requests, and their own story. The barrier (inbox) and the outbox are brought by the
-- messaging library.

-- One row an order. It is written once and changed once, when its saga ends it; the room left on each page keeps the
-- new version on the old one's page. Items stand in the row: they are never looked at alone and never change.
CREATE TABLE orders (
    id uuid PRIMARY KEY,
    customer_id uuid NOT NULL,
    status text NOT NULL,
    definition text NOT NULL,
    items jsonb NOT NULL,
    amount_minor bigint NOT NULL,
    currency text NOT NULL,
    home_partition integer NOT NULL,
    correlation_id text NOT NULL,
    created_at timestamptz NOT NULL,
    ended_at timestamptz,
    reason jsonb,
    CONSTRAINT orders_status_known CHECK (status IN ('PENDING', 'CONFIRMED', 'CANCELLED')),
    CONSTRAINT orders_amount_positive CHECK (amount_minor > 0),
    CONSTRAINT orders_end_complete CHECK ((status = 'PENDING') = (ended_at IS NULL)),
    CONSTRAINT orders_reason_of_cancelled CHECK ((status = 'CANCELLED') = (reason IS NOT NULL))
) WITH (fillfactor = 70);

-- Listings: ids are UUIDv7, so an order by id is an order by time. The index on the status costs the one update its
-- heap-only path; without it, the few pending orders would be searched for among all that ever were.
CREATE INDEX orders_by_customer ON orders (customer_id, id);
CREATE INDEX orders_by_status ON orders (status, id);

-- What happened to an order here; each happens at most once. What its saga did is the orchestrator's to tell.
CREATE TABLE order_event (
    order_id uuid NOT NULL,
    kind text NOT NULL,
    at timestamptz NOT NULL,
    detail jsonb NOT NULL,
    PRIMARY KEY (order_id, kind),
    CONSTRAINT order_event_kind_known
        CHECK (kind IN ('created', 'cancel_requested', 'confirmed', 'cancelled'))
);

-- Which order a request with an Idempotency-Key made. Not what was answered: a repetition gets the order as it is now.
CREATE TABLE idempotency (
    customer_id uuid NOT NULL,
    key text NOT NULL,
    request_hash bytea NOT NULL,
    order_id uuid NOT NULL,
    created_at timestamptz NOT NULL,
    PRIMARY KEY (customer_id, key)
);

CREATE INDEX idempotency_by_age ON idempotency (created_at);

-- What can be sold. Every order touches its products' rows, so no index stands on a column that changes and half of each
-- page is left free: updates stay heap-only.
CREATE TABLE stock (
    product_id uuid PRIMARY KEY,
    name text,
    available bigint NOT NULL,
    reserved bigint NOT NULL DEFAULT 0,
    sold bigint NOT NULL DEFAULT 0,
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    CONSTRAINT stock_available_not_negative CHECK (available >= 0),
    CONSTRAINT stock_reserved_not_negative CHECK (reserved >= 0),
    CONSTRAINT stock_sold_not_negative CHECK (sold >= 0)
) WITH (fillfactor = 50);

-- What an order holds of each product, and what became of it. Read by order, in key order. There is no foreign key: the
-- product's row is read and locked before a reservation is written, products are never removed, and a check for each row
-- would cost as much as the row. All rows of an order are of one saga, the one that holds the order: it alone completes
-- and releases them.
CREATE TABLE reservation (
    order_id uuid NOT NULL,
    product_id uuid NOT NULL,
    saga_id uuid NOT NULL,
    quantity bigint NOT NULL,
    state text NOT NULL,
    created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
    PRIMARY KEY (order_id, product_id),
    CONSTRAINT reservation_quantity_positive CHECK (quantity > 0),
    CONSTRAINT reservation_state_known CHECK (state IN ('reserved', 'released', 'sold'))
) WITH (fillfactor = 50);

-- A hundred sagas from the order to its confirmation: five transactions in the services, four in the orchestrator, a
-- hundred rows each. `:base` is the first of a hundred ids that nobody else has.

-- order-svc takes the orders in: the rows, and the barrier's record of the starter's step.
BEGIN;
INSERT INTO orders SELECT n, n % 1000, 1050, 0 FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
INSERT INTO order_inbox SELECT n, 0, 1, repeat('r', 60) FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- orchestrator: started, reserve sent.
BEGIN;
INSERT INTO saga SELECT n, 1, now(), decode(repeat('ab', 400), 'hex') FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- inventory-svc: reserve.
BEGIN;
UPDATE stock s SET available = available - u.pieces, reserved = reserved + u.pieces
  FROM (SELECT (n * 7919 % 1000)::int AS product, count(*) AS pieces FROM generate_series(:base::bigint, :base::bigint + 99) AS n
        GROUP BY 1 ORDER BY 1) AS u WHERE s.product = u.product;
INSERT INTO reservation SELECT n, (n * 7919 % 1000)::int, 1, 0 FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
INSERT INTO inventory_inbox SELECT n, 1, 1, repeat('r', 60) FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- orchestrator: reserved, charge sent.
BEGIN;
UPDATE saga SET version = version + 1, due = now(), state = decode(repeat('ac', 400), 'hex')
  WHERE id BETWEEN :base::bigint AND :base::bigint + 99;
COMMIT;

-- payment-svc: charge.
BEGIN;
INSERT INTO payment SELECT n, 1050, 1 FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
INSERT INTO payment_inbox SELECT n, 2, 1, repeat('r', 60) FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- orchestrator: charged, complete and confirm sent.
BEGIN;
UPDATE saga SET version = version + 1, due = now(), state = decode(repeat('ad', 400), 'hex')
  WHERE id BETWEEN :base::bigint AND :base::bigint + 99;
COMMIT;

-- inventory-svc: complete.
BEGIN;
UPDATE stock s SET reserved = reserved - u.pieces, sold = sold + u.pieces
  FROM (SELECT (n * 7919 % 1000)::int AS product, count(*) AS pieces FROM generate_series(:base::bigint, :base::bigint + 99) AS n
        GROUP BY 1 ORDER BY 1) AS u WHERE s.product = u.product;
UPDATE reservation SET state = 1 WHERE saga BETWEEN :base::bigint AND :base::bigint + 99;
INSERT INTO inventory_inbox SELECT n, 3, 1, repeat('r', 60) FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- order-svc: confirm.
BEGIN;
UPDATE orders SET status = 1 WHERE id BETWEEN :base::bigint AND :base::bigint + 99;
INSERT INTO order_inbox SELECT n, 4, 1, repeat('r', 60) FROM generate_series(:base::bigint, :base::bigint + 99) AS n;
COMMIT;

-- orchestrator: both answers at once; ended.
BEGIN;
WITH ended AS (DELETE FROM saga WHERE id BETWEEN :base::bigint AND :base::bigint + 99 RETURNING id, state)
INSERT INTO saga_history SELECT id, now(), state FROM ended;
COMMIT;

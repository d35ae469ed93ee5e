-- The least that the sagas need: what each database must remember, in the narrowest form that it can take. Not the
-- product's tables, so that the floor stays where it is while the product changes.

CREATE TABLE orders (id bigint PRIMARY KEY, customer bigint NOT NULL, amount bigint NOT NULL, status smallint NOT NULL)
  WITH (fillfactor = 70);
-- A record of the barrier: the answer to a command that comes again.
CREATE TABLE order_inbox (saga bigint, step smallint, mark smallint NOT NULL, reply text, PRIMARY KEY (saga, step));

CREATE TABLE stock (product int PRIMARY KEY, available bigint NOT NULL, reserved bigint NOT NULL, sold bigint NOT NULL)
  WITH (fillfactor = 50);
INSERT INTO stock SELECT n, 1000000000000, 0, 0 FROM generate_series(0, 999) AS n;
CREATE TABLE reservation (saga bigint PRIMARY KEY, product int NOT NULL, pieces int NOT NULL, state smallint NOT NULL)
  WITH (fillfactor = 70);
CREATE TABLE inventory_inbox (saga bigint, step smallint, mark smallint NOT NULL, reply text, PRIMARY KEY (saga, step));

CREATE TABLE payment (saga bigint PRIMARY KEY, amount bigint NOT NULL, status smallint NOT NULL);
CREATE TABLE payment_inbox (saga bigint, step smallint, mark smallint NOT NULL, reply text, PRIMARY KEY (saga, step));

CREATE TABLE saga (id bigint PRIMARY KEY, version int NOT NULL, due timestamptz, state bytea NOT NULL) WITH (fillfactor = 50);
CREATE TABLE saga_history (id bigint PRIMARY KEY, ended_at timestamptz NOT NULL, state bytea NOT NULL);

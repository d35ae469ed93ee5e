//! Reads and writes the rows of a batch of commands: every shared row once, in key order, so that two batches cannot
//! deadlock.

use crate::domain::{
    Changes, Quantities, Reservation, ReservationChange, ReservationKey, ReservationState,
    StockBatch, StockChange,
};
use saga_contracts::saga_of_order;
use sqlx::PgConnection;
use uuid::Uuid;

/// Locks and reads the reservations of these orders and the stock of these products and of those reservations.
pub async fn lock(
    tx: &mut PgConnection,
    mut orders: Vec<Uuid>,
    mut products: Vec<Uuid>,
) -> Result<StockBatch, sqlx::Error> {
    orders.sort_unstable();
    orders.dedup();
    lock_new_orders(tx, &orders).await?;
    let reservations = lock_reservations(tx, &orders).await?;
    products.extend(reservations.iter().map(|(key, _)| key.product_id));
    products.sort_unstable();
    products.dedup();
    Ok(StockBatch::new(
        lock_stock(tx, &products).await?,
        reservations,
    ))
}

/// Serializes batches that share orders whose id does not name their saga, so that each batch sees who holds them. Two
/// sagas that reserve different products of one order at the same time have no row in common that would serialize them.
async fn lock_new_orders(tx: &mut PgConnection, orders: &[Uuid]) -> Result<(), sqlx::Error> {
    let open: Vec<Uuid> = orders
        .iter()
        .copied()
        .filter(|order| saga_of_order(*order).is_none())
        .collect();
    if open.is_empty() {
        return Ok(());
    }
    sqlx::query(
        "SELECT pg_advisory_xact_lock(key) FROM (SELECT DISTINCT hashtextextended(id::text, 0) AS key \
         FROM unnest($1::uuid[]) AS id ORDER BY key) AS keys",
    )
    .bind(&open)
    .execute(tx)
    .await?;
    Ok(())
}

async fn lock_reservations(
    tx: &mut PgConnection,
    orders: &[Uuid],
) -> Result<Vec<(ReservationKey, Reservation)>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, Uuid, i64, String)> = sqlx::query_as(
        "SELECT order_id, product_id, saga_id, quantity, state FROM reservation \
         WHERE order_id = ANY($1) ORDER BY order_id, product_id FOR NO KEY UPDATE",
    )
    .bind(orders)
    .fetch_all(tx)
    .await?;
    rows.into_iter()
        .map(|(order_id, product_id, saga_id, quantity, state)| {
            let state = decode_state(&state)?;
            let key = ReservationKey {
                order_id,
                product_id,
            };
            let reservation = Reservation {
                saga_id,
                quantity,
                state,
            };
            Ok((key, reservation))
        })
        .collect()
}

async fn lock_stock(
    tx: &mut PgConnection,
    products: &[Uuid],
) -> Result<Vec<(Uuid, Quantities)>, sqlx::Error> {
    let rows: Vec<(Uuid, i64, i64, i64)> = sqlx::query_as(
        "SELECT product_id, available, reserved, sold FROM stock \
         WHERE product_id = ANY($1) ORDER BY product_id FOR NO KEY UPDATE",
    )
    .bind(products)
    .fetch_all(tx)
    .await?;
    Ok(rows
        .into_iter()
        .map(|(product, available, reserved, sold)| {
            (
                product,
                Quantities {
                    available,
                    reserved,
                    sold,
                },
            )
        })
        .collect())
}

pub(super) fn decode_state(text: &str) -> Result<ReservationState, sqlx::Error> {
    ReservationState::parse(text)
        .ok_or_else(|| sqlx::Error::Decode(format!("reservation state '{text}'").into()))
}

/// Writes a batch's changes. If a row that was read under lock cannot be written, the transaction does not hold the
/// expected locks and must not commit.
pub async fn write(tx: &mut PgConnection, changes: &Changes) -> Result<(), sqlx::Error> {
    write_stock(tx, &changes.stock).await?;
    let (new, turned): (Vec<_>, Vec<_>) = changes
        .reservations
        .iter()
        .copied()
        .partition(|change| change.before.is_none());
    insert_reservations(tx, &new).await?;
    turn_reservations(tx, &turned).await
}

async fn write_stock(tx: &mut PgConnection, changes: &[StockChange]) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let column = |of: fn(&Quantities) -> i64| changes.iter().map(|c| of(&c.delta)).collect();
    let products: Vec<Uuid> = changes.iter().map(|change| change.product_id).collect();
    let (available, reserved, sold): (Vec<i64>, Vec<i64>, Vec<i64>) = (
        column(|d| d.available),
        column(|d| d.reserved),
        column(|d| d.sold),
    );
    let written = sqlx::query(
        "UPDATE stock s SET available = s.available + u.available, \
         reserved = s.reserved + u.reserved, sold = s.sold + u.sold, \
         updated_at = clock_timestamp() \
         FROM unnest($1::uuid[], $2::bigint[], $3::bigint[], $4::bigint[]) \
         AS u(product_id, available, reserved, sold) WHERE s.product_id = ANY(ARRAY[u.product_id])",
    )
    .bind(&products)
    .bind(&available)
    .bind(&reserved)
    .bind(&sold)
    .execute(tx)
    .await?;
    count("stock", written.rows_affected(), changes.len())
}

async fn insert_reservations(
    tx: &mut PgConnection,
    changes: &[ReservationChange],
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = Columns::of(changes);
    let written = sqlx::query(
        "INSERT INTO reservation (order_id, product_id, saga_id, quantity, state) \
         SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::bigint[], $5::text[]) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&rows.orders)
    .bind(&rows.products)
    .bind(&rows.sagas)
    .bind(&rows.quantities)
    .bind(&rows.states)
    .execute(tx)
    .await?;
    count("new reservation", written.rows_affected(), changes.len())
}

async fn turn_reservations(
    tx: &mut PgConnection,
    changes: &[ReservationChange],
) -> Result<(), sqlx::Error> {
    if changes.is_empty() {
        return Ok(());
    }
    let rows = Columns::of(changes);
    let before: Vec<&str> = changes
        .iter()
        .filter_map(|c| c.before.map(ReservationState::as_str))
        .collect();
    let written = sqlx::query(
        "UPDATE reservation r SET quantity = u.quantity, state = u.state, \
         updated_at = clock_timestamp() \
         FROM unnest($1::uuid[], $2::uuid[], $3::bigint[], $4::text[], $5::text[]) \
         AS u(order_id, product_id, quantity, state, before) \
         WHERE r.order_id = ANY(ARRAY[u.order_id]) AND r.product_id = u.product_id AND r.state = u.before",
    )
    .bind(&rows.orders)
    .bind(&rows.products)
    .bind(&rows.quantities)
    .bind(&rows.states)
    .bind(&before)
    .execute(tx)
    .await?;
    count("reservation", written.rows_affected(), changes.len())
}

struct Columns {
    orders: Vec<Uuid>,
    products: Vec<Uuid>,
    sagas: Vec<Uuid>,
    quantities: Vec<i64>,
    states: Vec<&'static str>,
}

impl Columns {
    fn of(changes: &[ReservationChange]) -> Self {
        Self {
            orders: changes.iter().map(|change| change.key.order_id).collect(),
            products: changes.iter().map(|change| change.key.product_id).collect(),
            sagas: changes.iter().map(|change| change.now.saga_id).collect(),
            quantities: changes.iter().map(|change| change.now.quantity).collect(),
            states: changes
                .iter()
                .map(|change| change.now.state.as_str())
                .collect(),
        }
    }
}

/// Checks the number of written rows. A mismatch is not a data error: the batch rolls back, is loaded again and runs
/// again.
fn count(what: &str, written: u64, expected: usize) -> Result<(), sqlx::Error> {
    if usize::try_from(written).is_ok_and(|written| written == expected) {
        Ok(())
    } else {
        Err(sqlx::Error::Protocol(format!(
            "{written} of {expected} {what} rows written"
        )))
    }
}

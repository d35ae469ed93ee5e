//! Reads inventory-svc's database.

use super::Snapshot;
use std::collections::BTreeMap;
use uuid::Uuid;

/// A product's row, and the sums of its reservations.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Product {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
    /// Pieces that were put in, less those that were taken out manually.
    pub received: i64,
    pub reservations_held: i64,
    pub reservations_sold: i64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reservation {
    /// Id of the saga that made the reservation.
    pub saga: Uuid,
    pub product: Uuid,
    pub quantity: i64,
    /// `reserved`, `released`, `sold`.
    pub state: String,
}

#[derive(Clone, Debug, Default)]
pub struct Stock {
    pub products: BTreeMap<Uuid, Product>,
    /// Reservations by order.
    pub reservations: BTreeMap<Uuid, Vec<Reservation>>,
}

pub async fn read(snapshot: &mut Snapshot<'_>, since: Uuid) -> Result<Stock, sqlx::Error> {
    // FULL JOIN includes the reservations of a product that has no row.
    let rows: Vec<(Uuid, i64, i64, i64, i64, i64, i64)> = sqlx::query_as(
        "SELECT COALESCE(s.product_id, r.product_id), COALESCE(s.available, 0), COALESCE(s.reserved, 0),
           COALESCE(s.sold, 0), COALESCE(s.received, 0), COALESCE(r.held, 0)::bigint, COALESCE(r.sold, 0)::bigint
         FROM stock s FULL JOIN (
           SELECT product_id, SUM(quantity) FILTER (WHERE state = 'reserved') AS held,
             SUM(quantity) FILTER (WHERE state = 'sold') AS sold
           FROM reservation GROUP BY product_id) r ON r.product_id = s.product_id",
    )
    .fetch_all(&mut **snapshot)
    .await?;
    let mut stock = Stock::default();
    for (id, available, reserved, sold, received, reservations_held, reservations_sold) in rows {
        let product = Product {
            available,
            reserved,
            sold,
            received,
            reservations_held,
            reservations_sold,
        };
        stock.products.insert(id, product);
    }
    let rows: Vec<(Uuid, Uuid, Uuid, i64, String)> = sqlx::query_as(
        "SELECT order_id, saga_id, product_id, quantity, state FROM reservation WHERE order_id >= $1",
    )
    .bind(since)
    .fetch_all(&mut **snapshot)
    .await?;
    for (order, saga, product, quantity, state) in rows {
        let reservation = Reservation {
            saga,
            product,
            quantity,
            state,
        };
        stock
            .reservations
            .entry(order)
            .or_default()
            .push(reservation);
    }
    Ok(stock)
}

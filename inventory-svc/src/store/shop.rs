//! The statements of the HTTP API.

use super::batch::decode_state;
use crate::domain::{Quantities, Reservation, ReservationKey};
use chrono::{DateTime, Utc};
use sqlx::{PgConnection, PgPool};
use uuid::Uuid;

/// A product's row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Product {
    pub product_id: Uuid,
    pub name: Option<String>,
    pub quantities: Quantities,
    pub updated_at: DateTime<Utc>,
}

type ProductRow = (Uuid, Option<String>, i64, i64, i64, DateTime<Utc>);

impl From<ProductRow> for Product {
    fn from((product_id, name, available, reserved, sold, updated_at): ProductRow) -> Self {
        Self {
            product_id,
            name,
            quantities: Quantities {
                available,
                reserved,
                sold,
            },
            updated_at,
        }
    }
}

/// A page of products, in id order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProductPage {
    pub products: Vec<Product>,
    /// The last product of the page, if more products follow.
    pub next: Option<Uuid>,
}

pub async fn find_product(pool: &PgPool, product: Uuid) -> Result<Option<Product>, sqlx::Error> {
    let row: Option<ProductRow> = sqlx::query_as(
        "SELECT product_id, name, available, reserved, sold, updated_at \
         FROM stock WHERE product_id = $1",
    )
    .bind(product)
    .fetch_optional(pool)
    .await?;
    Ok(row.map(Product::from))
}

/// Returns at most `limit` products after `after`.
pub async fn list_products(
    pool: &PgPool,
    after: Option<Uuid>,
    limit: u32,
) -> Result<ProductPage, sqlx::Error> {
    // One product more than requested, to know if there is a next page.
    let query = match after {
        None => sqlx::query_as(
            "SELECT product_id, name, available, reserved, sold, updated_at FROM stock \
             ORDER BY product_id LIMIT $1",
        )
        .bind(i64::from(limit) + 1),
        Some(after) => sqlx::query_as(
            "SELECT product_id, name, available, reserved, sold, updated_at FROM stock \
             WHERE product_id > $2 ORDER BY product_id LIMIT $1",
        )
        .bind(i64::from(limit) + 1)
        .bind(after),
    };
    let rows: Vec<ProductRow> = query.fetch_all(pool).await?;
    let mut products: Vec<Product> = rows.into_iter().map(Product::from).collect();
    let more = products.len() > limit as usize;
    products.truncate(limit as usize);
    let next = products
        .last()
        .filter(|_| more)
        .map(|product| product.product_id);
    Ok(ProductPage { products, next })
}

/// The result of a restock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Restock {
    pub product: Product,
    pub created: bool,
}

/// Sets the available quantity. Reserved and sold quantities do not change, and the difference counts as received.
/// Creates the product if it does not exist. Without a name the current name is kept.
pub async fn restock(
    tx: &mut PgConnection,
    product: Uuid,
    available: i64,
    name: Option<&str>,
) -> Result<Restock, sqlx::Error> {
    // `xmax = 0` means that the row was inserted: an inserted row, unlike an updated one, has no deleting transaction.
    let row: (Uuid, Option<String>, i64, i64, i64, DateTime<Utc>, bool) = sqlx::query_as(
        "INSERT INTO stock AS s (product_id, available, name, received) VALUES ($1, $2, $3, $2) \
         ON CONFLICT (product_id) DO UPDATE SET available = EXCLUDED.available, \
         received = s.received + EXCLUDED.available - s.available, \
         name = COALESCE(EXCLUDED.name, s.name), updated_at = clock_timestamp() \
         RETURNING product_id, name, available, reserved, sold, updated_at, xmax = 0",
    )
    .bind(product)
    .bind(available)
    .bind(name)
    .fetch_one(tx)
    .await?;
    let (product_id, name, available, reserved, sold, updated_at, created) = row;
    let product = Product::from((product_id, name, available, reserved, sold, updated_at));
    Ok(Restock { product, created })
}

/// Returns the current and former reservations of an order, by product.
pub async fn reservations_of(
    pool: &PgPool,
    order_id: Uuid,
) -> Result<Vec<(ReservationKey, Reservation, DateTime<Utc>)>, sqlx::Error> {
    let rows: Vec<(Uuid, Uuid, i64, String, DateTime<Utc>)> = sqlx::query_as(
        "SELECT product_id, saga_id, quantity, state, updated_at FROM reservation \
         WHERE order_id = $1 ORDER BY product_id",
    )
    .bind(order_id)
    .fetch_all(pool)
    .await?;
    rows.into_iter()
        .map(|(product_id, saga_id, quantity, state, at)| {
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
            Ok((key, reservation, at))
        })
        .collect()
}

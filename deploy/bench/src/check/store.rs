//! Reads the rows that a scenario's orders have left in the four databases.

use crate::{scenario::Shop, system::System};
use anyhow::Result;
use saga_harness::system::Service;
use sqlx::PgConnection;
use std::collections::BTreeMap;
use uuid::Uuid;

/// The contents of the databases that belong to a scenario.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Books {
    pub groups: Vec<Group>,
    pub stock: Stock,
    /// Pieces, by the status of their reservation.
    pub reserved: BTreeMap<String, i64>,
    /// Minor units, by the status of their payment.
    pub payments: BTreeMap<String, i64>,
    /// Sagas in progress, outbox rows and open intents. All are gone when the system is quiet.
    pub unsettled: i64,
}

/// Orders with the same definition, status and reason in the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    pub definition: String,
    pub status: String,
    pub reason: String,
    pub orders: i64,
    pub amount_minor: i64,
    pub pieces: i64,
}

saga_postgres::from_row!(Group: definition, status, reason, orders, amount_minor, pieces);

/// The stock of a scenario's products, in pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stock {
    pub received: i64,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

saga_postgres::from_row!(Stock: received, available, reserved, sold);

impl Group {
    pub fn end(&self) -> (&str, &str, &str) {
        (&self.definition, &self.status, &self.reason)
    }
}

impl Books {
    pub async fn read(system: &System, shop: &Shop) -> Result<Self> {
        let mut orders = system.database_of(Service::Order).await?;
        let mut inventory = system.database_of(Service::Inventory).await?;
        let mut payments = system.database_of(Service::Payment).await?;
        let mut sagas = system.database_of(Service::Orchestrator).await?;
        let products = [shop.products.as_slice(), &shop.sold_out].concat();
        Ok(Self {
            groups: groups(&mut orders, shop).await?,
            stock: stock(&mut inventory, &products).await?,
            reserved: sums(&mut inventory, RESERVED, &products).await?,
            payments: sums(&mut payments, PAID, &shop.customers).await?,
            unsettled: count(&mut sagas, "SELECT count(*) FROM saga").await?
                + count(&mut orders, "SELECT count(*) FROM outbox").await?
                + count(&mut payments, "SELECT count(*) FROM intent").await?,
        })
    }
}

async fn groups(connection: &mut PgConnection, shop: &Shop) -> Result<Vec<Group>, sqlx::Error> {
    sqlx::query_as(
        "SELECT definition, status, COALESCE(reason->>'code', '') AS reason, count(*) AS orders,
                sum(amount_minor)::bigint AS amount_minor, sum(pieces)::bigint AS pieces
         FROM orders, LATERAL (SELECT sum((item->>'quantity')::bigint) AS pieces
                               FROM jsonb_array_elements(items) AS item) AS counted
         WHERE customer_id = ANY($1) GROUP BY 1, 2, 3 ORDER BY 1, 2, 3",
    )
    .bind(&shop.customers)
    .fetch_all(connection)
    .await
}

async fn stock(connection: &mut PgConnection, products: &[Uuid]) -> Result<Stock, sqlx::Error> {
    sqlx::query_as(
        "SELECT COALESCE(sum(received), 0)::bigint AS received, COALESCE(sum(available), 0)::bigint AS available,
                COALESCE(sum(reserved), 0)::bigint AS reserved, COALESCE(sum(sold), 0)::bigint AS sold
         FROM stock WHERE product_id = ANY($1)",
    )
    .bind(products)
    .fetch_one(connection)
    .await
}

const RESERVED: &str =
    "SELECT state, sum(quantity)::bigint FROM reservation WHERE product_id = ANY($1) GROUP BY 1";
const PAID: &str =
    "SELECT status, sum(amount_minor)::bigint FROM payment WHERE customer_id = ANY($1) GROUP BY 1";

async fn sums(
    connection: &mut PgConnection,
    question: &'static str,
    ids: &[Uuid],
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(question)
        .bind(ids)
        .fetch_all(connection)
        .await?;
    Ok(rows.into_iter().collect())
}

async fn count(connection: &mut PgConnection, question: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(question).fetch_one(connection).await
}

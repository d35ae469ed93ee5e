//! What a scenario's orders have left in the four databases.

use super::Books;
use crate::{
    scenario::Shop,
    system::{System, database},
};
use anyhow::Result;
use saga_e2e::system::Service;
use sqlx::PgConnection;
use std::collections::BTreeMap;

/// Orders that stand alike in the database.
#[derive(Clone, Debug, PartialEq, Eq, sqlx::FromRow)]
pub struct Group {
    pub definition: String,
    pub status: String,
    pub reason: String,
    pub orders: i64,
    pub amount_minor: i64,
    pub pieces: i64,
}

/// Pieces of a scenario's products.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, sqlx::FromRow)]
pub struct Stock {
    pub received: i64,
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

impl Books {
    pub(super) async fn read(system: &System, shop: &Shop) -> Result<Self> {
        let mut orders = system.connect(&database(Service::Order)).await?;
        let mut inventory = system.connect(&database(Service::Inventory)).await?;
        let mut payments = system.connect(&database(Service::Payment)).await?;
        let mut sagas = system.connect(&database(Service::Orchestrator)).await?;
        Ok(Self {
            groups: groups(&mut orders, shop).await?,
            stock: stock(&mut inventory, shop).await?,
            reserved: reservations(&mut inventory, shop).await?,
            payments: amounts(&mut payments, shop).await?,
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

async fn stock(connection: &mut PgConnection, shop: &Shop) -> Result<Stock, sqlx::Error> {
    let products = [shop.products.as_slice(), &shop.sold_out].concat();
    sqlx::query_as(
        "SELECT COALESCE(sum(received), 0)::bigint AS received, COALESCE(sum(available), 0)::bigint AS available,
                COALESCE(sum(reserved), 0)::bigint AS reserved, COALESCE(sum(sold), 0)::bigint AS sold
         FROM stock WHERE product_id = ANY($1)",
    )
    .bind(products)
    .fetch_one(connection)
    .await
}

async fn reservations(
    connection: &mut PgConnection,
    shop: &Shop,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let products = [shop.products.as_slice(), &shop.sold_out].concat();
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT state, sum(quantity)::bigint FROM reservation WHERE product_id = ANY($1) GROUP BY 1",
    )
    .bind(products)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

async fn amounts(
    connection: &mut PgConnection,
    shop: &Shop,
) -> Result<BTreeMap<String, i64>, sqlx::Error> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "SELECT status, sum(amount_minor)::bigint FROM payment WHERE customer_id = ANY($1) GROUP BY 1",
    )
    .bind(&shop.customers)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().collect())
}

async fn count(connection: &mut PgConnection, question: &'static str) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(question).fetch_one(connection).await
}

//! The tables of the inventory database. The caller owns the transaction.

mod batch;
mod shop;

pub use batch::{lock, write};
pub use shop::{
    Product, ProductPage, Restock, find_product, list_products, reservations_of, restock,
};

/// Brings the database up to date; embedded, forward only.
pub static MIGRATIONS: sqlx::migrate::Migrator = sqlx::migrate!("../migrations/inventory");

//! The part of every process that talks to Postgres: configuration, pools, migrations, the database's clock, the limit on
//! silent connections, and rows decoded into structs.

pub mod clock;
mod config;
pub mod migrations;
mod pool;
mod row;
pub mod silence;
mod unavailable;

pub use config::PostgresConfig;
pub use pool::{ConnectError, Pools, health, pools, reporting_pool, store_pool};
pub use unavailable::is_unavailable;

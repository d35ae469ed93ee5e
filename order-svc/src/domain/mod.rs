//! What an order is, free of HTTP, SQL and Kafka.

pub mod decide;
pub mod json;
pub mod limits;
pub mod money;
pub mod order;
pub mod request;

//! The rules of orders, without HTTP, SQL or Kafka.

pub mod decide;
pub mod limits;
pub mod order;

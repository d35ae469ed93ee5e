//! Tests order-svc on a real Postgres: its statements, its transactions and its HTTP answers. Kafka is replaced by a
//! recorder; the whole system has its own tests.

mod cancelling;
mod harness;
mod idempotency;
mod participant;
mod partitions;
mod placing;
mod plans;
mod reading;
mod running;
mod waiting;

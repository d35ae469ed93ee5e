//! Accepts orders: many requests, one transaction, one outbox row.
//!
//! ```text
//! requests ──▶ batcher ──▶ keys ─▶ orders + created events + barrier records + outbox row ─▶ COMMIT ──▶ 201s
//!                          │                                                                  └──▶ relay ─▶ Kafka
//!                          └─ taken: the order that it made, or 422
//! ```

pub mod batch;
pub mod start;
pub mod upkeep;
pub mod waiting;

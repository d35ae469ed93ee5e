//! The orchestrator: drives every instance of every saga definition.
//!
//! ```text
//!                 ┌───────────────────────── orchestrator ─────────────────────────┐
//!  saga.inputs ──▶│ engine ──▶ store (saga, saga_history)                          │──▶ <participant>.commands
//!       ▲         │   │  ▲                                                         │──▶ saga.events
//!       └─────────│ timers  registry ◀── definitions/*.yaml      http ◀── people   │
//!                 └────────────────────────────────────────────────────────────────┘
//! ```
//!
//! [`engine`] decides and batches, [`store`] is the only SQL, [`registry`] holds definitions, [`http`] is the API,
//! [`dead_letters`] is for what could not be processed.

pub mod config;
pub mod dead_letters;
pub mod engine;
pub mod http;
pub mod kafka;
pub mod registry;
mod service;
pub mod store;
pub mod telemetry;
pub mod upkeep;
pub mod validate;

pub use service::Orchestrator;

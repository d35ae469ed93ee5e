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
//! [`engine`] decides and batches, [`store`] holds all the SQL, [`registry`] holds definitions, [`http`] is the API,
//! and [`dead_letters`] lists, replays and discards records that could not be processed.

pub mod config;
pub mod dead_letters;
pub mod engine;
pub mod http;
pub mod kafka;
pub mod registry;
mod service;
pub mod store;
pub mod telemetry;
mod topics;
pub mod upkeep;
pub mod validate;

pub use service::Orchestrator;

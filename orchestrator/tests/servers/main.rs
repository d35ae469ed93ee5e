//! The orchestrator on real servers: its store on Postgres (conflicts of concurrent processes, counts, plans of the
//! statements), and the whole service on Kafka and Postgres with the tests' own participants.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the answer"
)]

mod clocks;
mod contract;
mod database;
mod fixture;
mod intake;
mod listing;
mod loss;
mod plans;
mod restore;
mod retention;
mod rivals;
mod service;
mod system;
mod tables;

//! The orchestrator on real servers: its store on Postgres (what rivals do to each other, what is counted, which plans
//! the statements get), and the whole service on Kafka and Postgres with participants of the tests' own.

#![expect(
    clippy::unwrap_used,
    reason = "helpers of tests, where a panic is the answer"
)]

mod contract;
mod fixture;
mod intake;
mod listing;
mod loss;
mod plans;
mod retention;
mod rivals;
mod service;
mod system;
mod tables;

//! The load generator: orders over HTTP, and the ends of their sagas.
//!
//! ```text
//!  schedule ─▶ client ──POST /orders──▶ order-svc        saga.events ─▶ watch
//!                 │ intended, accepted                                    │ ended
//!                 └──────────────────▶ flight ◀───────────────────────────┘
//!                                        ├─▶ tally: latencies, ends by kind, throughput by second
//!                                        └─▶ trace: every end, for a soak
//! ```

mod answer;
mod client;
mod flight;
mod intake;
mod latency;
mod schedule;
mod tally;
mod trace;
mod watch;

pub use client::{Client, Load};
pub use flight::Flight;
pub use intake::{Intake, Taken};
pub use latency::{Latency, Percentiles};
pub use schedule::Schedule;
#[cfg(test)]
pub use tally::Outcome;
pub use tally::{NotAccepted, Orders, Second, Tally};
pub use trace::{Stall, Trace};
pub use watch::{Events, Watch};

//! The load generator: orders over HTTP, and the ends of their sagas.
//!
//! ```text
//!  schedule ─▶ client ──POST /orders──▶ order-svc        saga.events ─▶ watch
//!                 │ intended, accepted                                    │ ended
//!                 └────────────────▶ in_flight ◀──────────────────────────┘
//!                                        ├─▶ tally: latencies, ends by kind, throughput by second
//!                                        └─▶ trace: every end, for a soak
//! ```

mod answer;
mod client;
mod in_flight;
mod intake;
mod latency;
mod schedule;
mod tally;
mod trace;
mod watch;

pub use client::{Client, Offer};
pub use in_flight::InFlight;
pub use intake::{Intake, IntakeResult};
pub use latency::{Latency, Percentiles};
pub use tally::{NotAccepted, Orders, Tally, count_second};
pub use trace::{Stall, Trace};
pub use watch::Watch;

//! The independent checker of the reference application. It finds effects that were lost, repeated, or left behind, and
//! does not rely on the services' code.
//!
//! It reads the four databases and every topic of the reference application with SQL and decoding of its own, and uses
//! none of the services' crates. It reports every inconsistency by name: an order without a saga, a second charge, a
//! reservation that outlived its saga, a gap in a saga's events. [`Check`] lists all of them.
//!
//! ```text
//!  orchestrator's offsets ─▶ saga ∪ saga_history ─▶ orders + outbox ─▶ stock ─▶ payments ─▶ topics      one look
//!                                                                                              │
//!                                              checks/ (pure) ◀────────────────────────────────┘
//!                                                 │ suspects
//!       look again; the saga has not moved ───────┴──▶ discrepancies
//! ```
//!
//! **A live system changes all the time**, and data that is merely in flight must not be reported. Two rules ensure
//! this. First, causes are read before effects. A saga that was read as ended had ended before anything else was read,
//! so its effects must exist; an input below the offsets that were read first was handled before the sagas were read.
//! Each database is read in one snapshot, so that sums within it are exact. Second, the system is looked at again: a
//! finding is a discrepancy only if both looks have it, and its saga has not changed in between.
//!
//! **Retention** is not a discrepancy: rows older than a table's oldest partition, and records older than a topic's
//! first record, are not reported as missing.
//!
//! Memory use grows with the number of sagas, by about a kilobyte each; [`Settings::since`] limits it.

mod audit;
mod checks;
mod error;
mod finding;
mod journal;
mod look;
mod report;
mod settings;
mod sources;
mod store;
mod topics;

pub use audit::audit;
pub use error::AuditError;
pub use finding::{Check, Finding};
pub use journal::{Accepted, Journal, JournalEntry};
pub use look::Look;
pub use report::{Amounts, Figures, Parked, Report};
pub use settings::Settings;
pub use sources::Sources;

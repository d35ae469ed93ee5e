//! Dead letters, for people: what stands in the dead-letter topics, and what is decided about it.
//!
//! ```text
//!  <topic>.dlq ──Scan──▶ Desk: list, find ──▶ HTTP, sagactl
//!       │                  │ replay ─▶ the record, to where it came from
//!       │                  │ discard
//!       │                  ▼
//!       │           dead_letter (who, when, why)
//!       └──────▶ Census: open letters by topic and reason, for the alarm
//! ```
//!
//! Letters cannot be removed from Kafka; a letter is *open* until it has a row in the table. Replaying one twice does
//! nothing the second time, and says so: the row is written first, in a transaction that ends behind the record's
//! acknowledgment. A crash between the two leaves the letter open and its record in the log; replaying it again is a
//! duplicate that its consumer knows by its id.

pub mod census;
pub mod desk;

pub use desk::{Desk, Filter, Found, LetterError, Page, Verdict, Wish};

//! Dead letters: lists the records of the dead-letter topics, and carries out what people decide about them.
//!
//! ```text
//!  <topic>.dlq ──TopicReader──▶ DeadLetters: list, find ──▶ HTTP, sagactl
//!       │                  │ replay ─▶ the record, to where it came from
//!       │                  │ discard
//!       │                  ▼
//!       │           dead_letter (who, when, why)
//!       └──────▶ OpenLetterGauge: open letters by topic and reason, for the alarm
//! ```
//!
//! Letters cannot be removed from Kafka. A letter is *open* until it has a row in the table `dead_letter`. A second
//! replay of a letter does nothing, and its answer says so: the row is written first, in a transaction that commits
//! after the record's acknowledgment. A crash between acknowledgment and commit leaves the letter open and its record
//! in the log; a second replay is then a duplicate, which the consumer recognizes by its id.

mod correction;
pub mod open_count;
pub mod service;

pub use service::{
    DeadLetters, DecisionOutcome, Filter, LetterDecisionRequest, LetterError, LetterWithDecision,
    Page,
};

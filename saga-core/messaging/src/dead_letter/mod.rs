//! Keeps a record that cannot be processed where a person can see, correct and replay it.
//!
//! ```text
//!  <topic> ──▶ consumer ──▶ its work
//!     ▲           └─ cannot be processed ─▶ <topic>.dlq: the record as it was + dead-letter-* headers
//!     │                                        │
//!     └──────────── replay, perhaps corrected ─┘   (or discard: a person has looked, and it is not needed)
//! ```
//!
//! The record is written to `<topic>.dlq` with its key, value and headers unchanged. A replay therefore produces it
//! again, without the `dead-letter-*` headers, to the topic and partition that it came from. Nothing in the letter
//! depends on the time of writing: a record that is dead-lettered again after a crash yields the same letter.
//!
//! A letter always fits. A record may be far larger than its topic's limit, because that limit applies to compressed
//! batches, and a letter that no broker accepts would stop the partition. A record that does not fit is cut, and a
//! header of the letter says so.

mod letter;
mod read;
pub mod reason;

pub use letter::{DETAIL_LIMIT_BYTES, LETTER_LIMIT_BYTES, dead_letter};
pub use read::{Correction, DeadLetter, LetterId, LetterIdError, NotReplayable, Source};

/// Prefix of all headers that a dead letter adds to its record's headers.
const PREFIX: &str = "dead-letter-";

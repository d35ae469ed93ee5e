//! A record that cannot be processed is kept where it can be seen, corrected and replayed.
//!
//! ```text
//!  <topic> ──▶ consumer ──▶ its work
//!     ▲           └─ cannot be processed ─▶ <topic>.dlq: the record as it was + dead-letter-* headers
//!     │                                        │
//!     └──────────── replay, perhaps corrected ─┘   (or discard: somebody has looked, and it is not needed)
//! ```
//!
//! It goes to `<topic>.dlq` with its key, value and headers as they were, so that replaying it is producing it again
//! without the `dead-letter-*` headers, to the topic and partition that it came from. Nothing in the letter depends on
//! when it was written: a record that is dead-lettered again after a crash yields the same letter.
//!
//! A letter always fits: a record may be far larger than its topic's limit suggests (that limit is about what is
//! compressed), and a letter that no broker takes would stop the partition. What does not fit is cut off, and the letter
//! says so.

mod letter;
mod read;
pub mod reason;

pub use letter::{DETAIL_LIMIT_BYTES, LETTER_LIMIT_BYTES, dead_letter};
pub use read::{Correction, DeadLetter, LetterId, LetterIdError, NotReplayable, Source};

const SUFFIX: &str = ".dlq";

/// All headers of a dead letter that its record did not have begin with this.
const PREFIX: &str = "dead-letter-";

/// The dead-letter topic of `topic`; a dead letter that cannot be processed stays in its own.
pub fn topic_of(topic: &str) -> String {
    let base = topic.strip_suffix(SUFFIX).unwrap_or(topic);
    format!("{base}{SUFFIX}")
}

/// Whether `topic` holds dead letters.
pub fn is_topic(topic: &str) -> bool {
    topic.ends_with(SUFFIX)
}

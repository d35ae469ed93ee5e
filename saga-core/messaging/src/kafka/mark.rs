//! The metadata of a consumer group's offset commits: the database that the group belongs to, and its age.
//!
//! The text consists of words `key=value`, separated by spaces: `db=6b0c7a5e-… tick=17 topic=iOPCk0_ERyCo9dq3mpWXSg`.
//! Only `db` is required. Unknown words are ignored, so that another participant's program may add words of its own.

use std::{fmt, str::FromStr};
use uuid::Uuid;

/// The metadata of an offset commit about the database behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mark {
    pub database: Uuid,
    /// The database's count of seconds in which it handled records ([`crate::database`]).
    pub tick: i64,
    /// The id of the topic that the offset belongs to; empty if it is unknown.
    pub topic_id: String,
}

impl fmt::Display for Mark {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "db={} tick={}", self.database, self.tick)?;
        if !self.topic_id.is_empty() {
            write!(f, " topic={}", self.topic_id)?;
        }
        Ok(())
    }
}

/// The error for metadata that names no database.
#[derive(Debug, PartialEq, Eq)]
pub struct Unmarked;

impl FromStr for Mark {
    type Err = Unmarked;

    fn from_str(metadata: &str) -> Result<Self, Unmarked> {
        let word = |key: &str| {
            let mut words = metadata.split_ascii_whitespace();
            words.find_map(|word| word.strip_prefix(key))
        };
        let database = word("db=").and_then(|id| id.parse().ok());
        Ok(Self {
            database: database.ok_or(Unmarked)?,
            tick: word("tick=")
                .and_then(|tick| tick.parse().ok())
                .unwrap_or(0),
            topic_id: word("topic=").unwrap_or_default().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(metadata: &str, expected: Option<&Mark>) {
        let found: Result<Mark, Unmarked> = metadata.parse();
        assert_eq!(found.as_ref().ok(), expected, "{metadata}");
    }

    #[test]
    fn a_mark_is_read_as_it_was_written_and_foreign_metadata_is_none() {
        let mark = Mark {
            database: Uuid::from_u128(7),
            tick: 17,
            topic_id: "iOPCk0_ERyCo9dq3mpWXSg".to_owned(),
        };
        check(&mark.to_string(), Some(&mark));
        check(&format!("host=a {mark} more=1"), Some(&mark));
        let short = Mark {
            tick: 0,
            topic_id: String::new(),
            ..mark
        };
        check(&format!("db={}", short.database), Some(&short));
        check("", None);
        check("db=", None);
        check("AQAAAZ", None);
    }
}

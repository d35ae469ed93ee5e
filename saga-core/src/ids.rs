//! Identifiers and instants. The caller passes both in: this crate reads no clock and no random source.

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// An instant in UTC. Stores and messages keep it to the millisecond.
pub type Timestamp = DateTime<Utc>;

/// Identifies one saga instance: a UUIDv7, so a range of ids is a range of time.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SagaId(pub Uuid);

impl SagaId {
    /// Returns the milliseconds since the Unix epoch that a UUIDv7 carries, and `None` for any other version.
    pub fn created_at_ms(self) -> Option<i64> {
        (self.0.get_version_num() == 7).then(|| {
            let bytes = self.0.as_bytes();
            bytes[..6]
                .iter()
                .fold(0_i64, |ms, byte| (ms << 8) | i64::from(*byte))
        })
    }
}

impl fmt::Display for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for SagaId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for SagaId {
    type Err = uuid::Error;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse().map(Self)
    }
}

impl From<Uuid> for SagaId {
    fn from(id: Uuid) -> Self {
        Self(id)
    }
}

//! How long ended sagas are kept: a number of days, or `off`.

use chrono::TimeDelta;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer,
    de::{Error, Visitor},
};
use std::fmt;

const OFF: &str = "off";
/// The largest number of days: a hundred years.
const DAYS_MAX: u32 = 36_525;

/// The value of `retention_days`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RetentionDays {
    /// A number of days, at least one.
    Days(u32),
    /// Keeps everything: history and the participants' inboxes grow without bound.
    Off,
}

impl RetentionDays {
    /// Returns the retention time, or `None` if everything is kept.
    pub fn time(self) -> Option<TimeDelta> {
        match self {
            Self::Days(days) => Some(TimeDelta::days(i64::from(days))),
            Self::Off => None,
        }
    }

    fn checked<E: Error>(days: u64) -> Result<Self, E> {
        match u32::try_from(days) {
            Ok(days @ 1..=DAYS_MAX) => Ok(Self::Days(days)),
            Ok(_) | Err(_) => Err(E::custom(format!(
                "{days} is not from 1 to {DAYS_MAX}; to forget nothing, say \"{OFF}\""
            ))),
        }
    }
}

impl Serialize for RetentionDays {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Days(days) => serializer.serialize_u32(*days),
            Self::Off => serializer.serialize_str(OFF),
        }
    }
}

impl<'de> Deserialize<'de> for RetentionDays {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DaysOrOff)
    }
}

struct DaysOrOff;

impl Visitor<'_> for DaysOrOff {
    type Value = RetentionDays;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a number of days, or \"{OFF}\"")
    }

    fn visit_i64<E: Error>(self, days: i64) -> Result<RetentionDays, E> {
        RetentionDays::checked(u64::try_from(days).unwrap_or_default())
    }

    fn visit_u64<E: Error>(self, days: u64) -> Result<RetentionDays, E> {
        RetentionDays::checked(days)
    }

    /// Reads `off`, or a number given as text: environment variables have no number type.
    fn visit_str<E: Error>(self, text: &str) -> Result<RetentionDays, E> {
        if text == OFF {
            return Ok(RetentionDays::Off);
        }
        let days = text.parse().map_err(|_| {
            E::custom(format!(
                "'{text}' is neither a number of days nor \"{OFF}\""
            ))
        })?;
        RetentionDays::checked(days)
    }
}

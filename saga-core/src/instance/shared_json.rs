use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::Error};
use serde_json::value::{RawValue, to_raw_value};
use std::{
    fmt,
    ops::Deref,
    sync::{Arc, OnceLock},
};

/// A part of a saga that never changes again. A saga is copied and written as a whole at each of its transitions. Its
/// copies share such a part, and it is serialized to JSON once.
pub struct SharedJson<T>(Arc<Part<T>>);

struct Part<T> {
    value: T,
    json: OnceLock<Box<RawValue>>,
}

impl<T> From<T> for SharedJson<T> {
    fn from(value: T) -> Self {
        Self(Arc::new(Part {
            value,
            json: OnceLock::new(),
        }))
    }
}

impl<T> Deref for SharedJson<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0.value
    }
}

impl<T> Clone for SharedJson<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T: PartialEq> PartialEq for SharedJson<T> {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0) || **self == **other
    }
}

impl<T: fmt::Debug> fmt::Debug for SharedJson<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

impl<T: Serialize> Serialize for SharedJson<T> {
    /// Serializes to JSON only.
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let json = if let Some(json) = self.0.json.get() {
            json
        } else {
            let json = to_raw_value(&self.0.value).map_err(S::Error::custom)?;
            self.0.json.get_or_init(|| json)
        };
        json.serialize(serializer)
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for SharedJson<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        T::deserialize(deserializer).map(Self::from)
    }
}

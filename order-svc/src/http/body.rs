//! Reads JSON bodies as strictly as the API documents them.

use crate::domain::order::parse_id;
use saga_service::http::{Problem, parse_json};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error, IgnoredAny, MapAccess, Visitor, value::MapAccessDeserializer},
};
use std::{fmt, marker::PhantomData};
use uuid::Uuid;

/// Parses a body. Answers 400 if the body is not a JSON object, even if a field before the syntax error is wrong, too.
pub fn parse_object<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    parse_json(body).map_err(|problem| match &*problem.errors {
        [error] if error.field.is_empty() => Problem::bad_request(problem.detail),
        _ => match serde_json::from_slice::<IgnoredAny>(body) {
            Ok(_) => problem,
            Err(error) => Problem::bad_request(format!("the body is not valid JSON: {error}")),
        },
    })
}

/// Deserializes the id of a customer or a product.
pub fn id<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Uuid, D::Error> {
    let text = String::deserialize(deserializer)?;
    parse_id(&text).ok_or_else(|| D::Error::custom("must be a UUID with hyphens, and not nil"))
}

/// Deserializes a field that may be left out, but not be `null`.
pub fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// A struct that is read from an object only. `serde` alone would also read a list as the members, in their order.
#[derive(Debug)]
pub struct Object<T>(pub T);

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Object<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members<T>(PhantomData<T>);

        impl<'de, T: Deserialize<'de>> Visitor<'de> for Members<T> {
            type Value = T;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
                T::deserialize(MapAccessDeserializer::new(map))
            }
        }
        deserializer.deserialize_map(Members(PhantomData)).map(Self)
    }
}

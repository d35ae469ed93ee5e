//! Reading a JSON body so that every wrong field is named, none is overlooked, and numbers keep their digits.
//!
//! `serde` alone stops at the first mistake, takes the last of two equal keys, and reads numbers through floats.
//! Here an object is read as its raw members first; each is then looked at by itself.

use super::limits::MAX_FIELD_ERRORS;
use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;
use std::fmt;
use uuid::Uuid;

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wrong {
    /// JSON pointer, such as `/items/0/quantity`.
    pub field: String,
    pub message: String,
}

/// The mistakes found so far.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mistakes(Vec<Wrong>);

impl Mistakes {
    pub fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        if self.0.len() < MAX_FIELD_ERRORS {
            self.0.push(Wrong {
                field: field.into(),
                message: message.to_string(),
            });
        }
    }

    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn into_inner(self) -> Vec<Wrong> {
        self.0
    }
}

/// An object's members in the order written, values untouched.
pub struct Object<'a>(Vec<(String, &'a RawValue)>);

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Vec<(String, &'de RawValue)>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(members)
            }
        }
        deserializer.deserialize_map(Members).map(Self)
    }
}

impl<'a> Object<'a> {
    /// Reads a whole body; the error is in words for its sender.
    pub fn from_body(body: &'a [u8]) -> Result<Self, String> {
        let text =
            std::str::from_utf8(body).map_err(|error| format!("the body is not UTF-8: {error}"))?;
        serde_json::from_str(text)
            .map_err(|error| format!("the body is not a JSON object: {error}"))
    }

    /// Reads one value as an object.
    pub fn from_value(value: &'a RawValue) -> Option<Self> {
        serde_json::from_str(value.get()).ok()
    }

    /// Names members that are unknown or there twice.
    pub fn check_members(&self, pointer: &str, known: &[&str], mistakes: &mut Mistakes) {
        for (n, (name, _)) in self.0.iter().enumerate() {
            let field = format!("{pointer}/{}", escape(name));
            if !known.contains(&name.as_str()) {
                mistakes.add(
                    field,
                    format_args!("is unknown; known are {}", known.join(", ")),
                );
            } else if self.0[..n].iter().any(|(earlier, _)| earlier == name) {
                mistakes.add(field, "is there twice");
            }
        }
    }

    pub fn has(&self, name: &str) -> bool {
        self.get(name).is_some()
    }

    pub fn get(&self, name: &str) -> Option<&'a RawValue> {
        self.0
            .iter()
            .find(|(member, _)| member == name)
            .map(|(_, value)| *value)
    }

    /// A member that must be there.
    pub fn require(
        &self,
        pointer: &str,
        name: &str,
        mistakes: &mut Mistakes,
    ) -> Option<&'a RawValue> {
        let value = self.get(name);
        if value.is_none() {
            mistakes.add(format!("{pointer}/{name}"), "is missing");
        }
        value
    }

    pub fn require_uuid(&self, pointer: &str, name: &str, mistakes: &mut Mistakes) -> Option<Uuid> {
        let value = self.require(pointer, name, mistakes)?;
        let id = string(value).and_then(|text| parse_uuid(&text));
        if id.is_none() {
            mistakes.add(format!("{pointer}/{name}"), "must be a UUID, as a string");
        }
        id
    }
}

/// A string's text, unescaped.
pub fn string(value: &RawValue) -> Option<String> {
    serde_json::from_str(value.get()).ok()
}

/// The elements of an array.
pub fn array(value: &RawValue) -> Option<Vec<&RawValue>> {
    serde_json::from_str(value.get()).ok()
}

/// Only the usual form with hyphens: one id, one spelling. The nil id is nobody's.
pub fn parse_uuid(text: &str) -> Option<Uuid> {
    const HYPHENATED_CHARS: usize = 36;
    (text.len() == HYPHENATED_CHARS)
        .then(|| text.parse::<Uuid>().ok())
        .flatten()
        .filter(|id| !id.is_nil())
}

/// A member's name inside a JSON pointer (RFC 6901), shortened if it is absurd.
fn escape(name: &str) -> String {
    const MAX_CHARS: usize = 64;
    let shown: String = name
        .chars()
        .take(MAX_CHARS)
        .filter(|c| !c.is_control())
        .collect();
    shown.replace('~', "~0").replace('/', "~1")
}

//! The one reader of JSON that comes from outside: records, bodies of requests, arguments and files.
//!
//! A JSON document may hold an integer of any length. For an integer of more than 64 bits the parser silently takes the
//! nearest floating-point number. In an order that is another customer or another amount. Such a document is refused.

use serde::de::DeserializeOwned;
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use thiserror::Error;

/// Says why a document cannot be read.
#[derive(Debug, Error)]
pub enum JsonError {
    #[error(transparent)]
    Malformed(serde_json::Error),
    #[error(transparent)]
    OutOfRange(OutOfRange),
}

/// An integer that cannot be held exactly.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error(
    "{}the integer {number} has more than 64 bits and would become another one; send it as a string",
    place(pointer)
)]
pub struct OutOfRange {
    /// JSON pointer (RFC 6901), empty for the whole document.
    pub pointer: String,
    /// The first digits of the integer.
    pub number: String,
}

impl OutOfRange {
    /// Returns the message without the place, for callers that give the place in another way.
    pub fn why(&self) -> String {
        let nowhere = Self {
            pointer: String::new(),
            number: self.number.clone(),
        };
        nowhere.to_string()
    }
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        String::new()
    } else {
        format!("at {pointer}: ")
    }
}

/// Reads a whole document.
pub fn from_slice<T: DeserializeOwned>(document: &[u8]) -> Result<T, JsonError> {
    let value = serde_json::from_slice(document).map_err(JsonError::Malformed)?;
    match out_of_range(document) {
        None => Ok(value),
        Some(found) => Err(JsonError::OutOfRange(found)),
    }
}

/// Names the kind of value that a valid JSON document holds instead of an object; `None` if it holds an object.
pub fn instead_of_object(document: &[u8]) -> Option<&'static str> {
    match document.trim_ascii_start().first()? {
        b'{' => None,
        b'[' => Some("a list"),
        b'"' => Some("a string; if there is JSON in it, it was encoded twice"),
        b't' | b'f' => Some("a truth value"),
        b'n' => Some("null"),
        _ => Some("a number"),
    }
}

/// The number of digits from which an integer may be too large for 64 bits. A shorter integer always fits.
const DIGITS_IN_DOUBT: usize = 19;
/// The number of digits that an error quotes.
const QUOTED_DIGITS: usize = 40;

/// Returns the first integer in a valid JSON document that fits neither `i64` nor `u64`. A number with a fraction or an
/// exponent is a floating-point number for every parser, and may be rounded.
pub fn out_of_range(document: &[u8]) -> Option<OutOfRange> {
    let number = find(document)?;
    Some(OutOfRange {
        pointer: std::str::from_utf8(document)
            .ok()
            .and_then(pointer_to_it)
            .unwrap_or_default(),
        number,
    })
}

/// Returns a key as a part of a JSON pointer (RFC 6901).
pub fn pointer_part(key: &str) -> String {
    format!("/{}", key.replace('~', "~0").replace('/', "~1"))
}

/// Returns the pointer of the first such integer. It parses every level again, which only refused documents cost.
fn pointer_to_it(document: &str) -> Option<String> {
    let document = document.trim();
    let below = |key: &str, value: &RawValue| {
        pointer_to_it(value.get()).map(|rest| pointer_part(key) + &rest)
    };
    match document.as_bytes().first()? {
        b'{' => {
            let members: BTreeMap<String, &RawValue> = serde_json::from_str(document).ok()?;
            members.iter().find_map(|(key, value)| below(key, value))
        }
        b'[' => {
            let items: Vec<&RawValue> = serde_json::from_str(document).ok()?;
            let mut items = items.iter().enumerate();
            items.find_map(|(index, item)| below(&index.to_string(), item))
        }
        _ => find(document.as_bytes()).map(|_number| String::new()),
    }
}

fn find(document: &[u8]) -> Option<String> {
    let mut bytes = document;
    while let Some((first, rest)) = bytes.split_first() {
        bytes = match first {
            b'"' => behind_string(rest),
            b'-' | b'0'..=b'9' => {
                let (number, behind) = bytes.split_at(number_length(bytes));
                if !fits(number) {
                    let quoted = &number[..number.len().min(QUOTED_DIGITS)];
                    return Some(String::from_utf8_lossy(quoted).into_owned());
                }
                behind
            }
            _ => rest,
        };
    }
    None
}

fn behind_string(mut bytes: &[u8]) -> &[u8] {
    loop {
        bytes = match bytes {
            [b'"', rest @ ..] => return rest,
            [b'\\', _, rest @ ..] | [_, rest @ ..] => rest,
            [] => return bytes,
        };
    }
}

fn number_length(bytes: &[u8]) -> usize {
    bytes
        .iter()
        .take_while(|byte| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9'))
        .count()
}

fn fits(number: &[u8]) -> bool {
    if number.len() < DIGITS_IN_DOUBT
        || number.iter().any(|byte| matches!(byte, b'.' | b'e' | b'E'))
    {
        return true;
    }
    let text = str::from_utf8(number).unwrap_or_default();
    text.parse::<i64>().is_ok() || text.parse::<u64>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(document: &str, expected: Option<&str>) {
        assert!(serde_json::from_str::<serde_json::Value>(document).is_ok());
        assert_eq!(find(document.as_bytes()).as_deref(), expected, "{document}");
    }

    #[test]
    fn integers_that_fit_64_bits_are_kept_and_others_are_named() {
        for kept in [
            "0",
            "-1",
            "18446744073709551615",
            "-9223372036854775808",
            r#"{"a": [1, 2.5, 1e3, 12345678901234567890123.0, 1e300]}"#,
            r#"{"18446744073709551616": "18446744073709551616 \" -99999999999999999999"}"#,
            r#""\\""#,
        ] {
            check(kept, None);
        }
        check("18446744073709551616", Some("18446744073709551616"));
        check(
            r#"{"a": "x\\", "b": [-9223372036854775809]}"#,
            Some("-9223372036854775809"),
        );
        check(&"9".repeat(100), Some(&"9".repeat(QUOTED_DIGITS)));
    }

    #[test]
    fn a_value_that_is_no_object_is_named() {
        for (document, instead) in [
            (" {\"a\": 1}", None),
            ("\n[{}]", Some("a list")),
            (
                r#""{\"a\": 1}""#,
                Some("a string; if there is JSON in it, it was encoded twice"),
            ),
            ("true", Some("a truth value")),
            ("null", Some("null")),
            ("-42", Some("a number")),
        ] {
            assert_eq!(
                instead_of_object(document.as_bytes()),
                instead,
                "{document}"
            );
        }
    }

    #[test]
    fn the_pointer_leads_to_the_number() {
        for (document, pointer) in [
            ("18446744073709551616", ""),
            (r#" {"parcel": 123456789012345678901234} "#, "/parcel"),
            (
                r#"{"a": [1, {"b/c~": [-99999999999999999999]}]}"#,
                "/a/1/b~1c~0/0",
            ),
            (
                r#"{"18446744073709551616": {"": 18446744073709551616}}"#,
                "/18446744073709551616/",
            ),
        ] {
            let error = from_slice::<serde_json::Value>(document.as_bytes()).unwrap_err();
            let JsonError::OutOfRange(found) = error else {
                panic!("{document}: {error}");
            };
            assert_eq!(found.pointer, pointer, "{document}");
        }
        let twice = br#"{"a": 123456789012345678901234, "a": 1}"#;
        assert!(from_slice::<serde_json::Value>(twice).is_err());
        assert!(matches!(
            from_slice::<serde_json::Value>(b"{"),
            Err(JsonError::Malformed(_))
        ));
    }
}

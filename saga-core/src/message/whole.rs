//! Reads whole numbers in every notation that JSON allows.
//!
//! JSON has one kind of number: `100`, `100.0` and `1e2` are the same number, and JSON Schema calls each of them an
//! `integer`. Clients write different notations; a reader must accept all of them.

use serde::{Deserialize, Deserializer, de::Error};
use serde_json::{Number, Value};

/// The largest whole number that is read exactly even with a fraction or an exponent: fifteen digits, which floating
/// point keeps of any decimal ([`f64::DIGITS`]). A larger number may differ from the number that was sent: fast parsers
/// are off by one even below 2^53.
pub const WHOLE_MAX: i64 = 1_000_000_000_000_000;

/// Returns the value of a whole number; `None` if the number is not whole, or its exact value is lost.
pub fn whole(number: &Number) -> Option<i64> {
    number.as_i64().or_else(|| {
        let float = number.as_f64()?;
        let is_whole = float.fract() == 0.0 && float.abs() <= WHOLE_MAX as f64;
        is_whole.then_some(float as i64)
    })
}

/// Deserializes a field that is an integer, for `#[serde(deserialize_with)]`.
pub fn whole_number<'de, D: Deserializer<'de>>(deserializer: D) -> Result<i64, D::Error> {
    let number = Number::deserialize(deserializer)?;
    whole(&number).ok_or_else(|| D::Error::custom(format!("{number} {}", reason(&number))))
}

/// Returns why the number is not read.
fn reason(number: &Number) -> String {
    let Some(float) = number.as_f64().filter(|float| float.fract() == 0.0) else {
        return "is not a whole number".to_owned();
    };
    // Floating point holds the smallest integer, and one more than the largest. An integer of 64 bits is not here.
    if float >= i64::MAX as f64 {
        format!("is too large, the limit is {}", i64::MAX)
    } else if float <= i64::MIN as f64 {
        format!("is too small, the limit is {}", i64::MIN)
    } else {
        "has more than 15 digits, so write it without a fraction and an exponent".to_owned()
    }
}

/// Writes every whole number in `value` as an integer, which fields of an integer type are read from. Returns false if
/// nothing had to be changed.
pub fn write_whole(value: &mut Value) -> bool {
    match value {
        Value::Number(number) => match whole(number) {
            Some(integer) if number.is_f64() => {
                *number = integer.into();
                true
            }
            Some(_) | None => false,
        },
        // `any` would stop at the first change, so this is a fold.
        Value::Array(items) => items
            .iter_mut()
            .fold(false, |written, item| write_whole(item) | written),
        Value::Object(fields) => fields
            .values_mut()
            .fold(false, |written, field| write_whole(field) | written),
        Value::Null | Value::Bool(_) | Value::String(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn check(text: &str, expected: Option<i64>) {
        let number: Number = serde_json::from_str(text).expect("a number");
        assert_eq!(whole(&number), expected, "{text}");
    }

    #[test]
    fn a_whole_number_is_one_however_it_is_written() {
        for text in ["100", "100.0", "1e2", "1E+2", "10.00e1", "1000e-1"] {
            check(text, Some(100));
        }
        check("-0.0", Some(0));
        check("-3.0", Some(-3));
        check("999999999999999.00", Some(WHOLE_MAX - 1));
        check("1e15", Some(WHOLE_MAX));
        check("9223372036854775807", Some(i64::MAX));
    }

    #[test]
    fn fractions_and_possibly_rounded_numbers_are_none() {
        for text in [
            "100.5",
            "1e-1",
            "1000000000000001.0",
            "9007199254740991.0",
            "9007199254740993.0",
            "1e300",
            "18446744073709551615",
        ] {
            check(text, None);
        }
    }

    #[test]
    fn a_number_that_is_not_read_says_why() {
        #[derive(Debug, Deserialize)]
        struct Amount {
            #[serde(deserialize_with = "whole_number")]
            _minor: i64,
        }
        let largest = "is too large, the limit is 9223372036854775807";
        let smallest = "is too small, the limit is -9223372036854775808";
        for (text, reason) in [
            ("100.5", "is not a whole number"),
            ("9223372036854775808", largest),
            ("18446744073709551615", largest),
            ("99999999999999999999", largest),
            ("1e300", largest),
            ("-9223372036854775809", smallest),
            ("-1e300", smallest),
            ("1000000000000001.0", "has more than 15 digits"),
            ("-1e16", "has more than 15 digits"),
        ] {
            let read = serde_json::from_str::<Amount>(&format!("{{\"_minor\": {text}}}"));
            let error = read.unwrap_err().to_string();
            assert!(error.contains(reason), "{text}: {error}");
        }
    }

    #[test]
    fn integers_are_written_at_every_position() {
        let mut value = json!({"a": [1.0, 2.5, {"b": 1e2}], "c": "1.0", "d": 7});
        assert!(write_whole(&mut value));
        assert_eq!(
            value,
            json!({"a": [1, 2.5, {"b": 100}], "c": "1.0", "d": 7})
        );
        assert!(!write_whole(&mut value));
    }
}

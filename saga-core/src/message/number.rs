//! Integers that cannot be kept as they are.
//!
//! A JSON document may hold an integer of any length; beyond 64 bits the parser takes the nearest floating-point number
//! instead, without a word. In an order that is another customer or another amount.

/// Digits of the shortest integers that may be too large for 64 bits; those that are shorter always fit.
const DIGITS_IN_DOUBT: usize = 19;
/// Of a number, so much is quoted.
const QUOTED_DIGITS: usize = 40;

/// The first integer in a valid JSON document that fits neither `i64` nor `u64`. Numbers with a fraction or an exponent
/// are floating-point for everybody, and may be rounded.
pub(super) fn out_of_range(document: &[u8]) -> Option<String> {
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
        assert_eq!(
            out_of_range(document.as_bytes()).as_deref(),
            expected,
            "{document}"
        );
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
}

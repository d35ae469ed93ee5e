//! Parses the headers `Idempotency-Key` and `Prefer: wait`.

use super::answer::invalid_parameter;
use crate::domain::limits::{MAX_IDEMPOTENCY_KEY_CHARS, MAX_WAIT_SECONDS};
use axum::http::HeaderMap;
use saga_service::http::Problem;

pub const IDEMPOTENCY_KEY: &str = "idempotency-key";
pub const PREFERENCE_APPLIED: &str = "preference-applied";

/// Returns the request's key: 1 to 255 printable ASCII characters.
pub fn idempotency_key(headers: &HeaderMap) -> Result<Option<String>, Problem> {
    let mut values = headers.get_all(IDEMPOTENCY_KEY).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    let wrong = |message: String| Err(invalid_parameter("Idempotency-Key", message));
    if values.next().is_some() {
        return wrong("is there twice".to_owned());
    }
    match value.to_str() {
        Ok(key)
            if (1..=MAX_IDEMPOTENCY_KEY_CHARS).contains(&key.len())
                && key.bytes().all(|byte| matches!(byte, b' '..=b'~')) =>
        {
            Ok(Some(key.to_owned()))
        }
        Ok(_) | Err(_) => wrong(format!(
            "must have 1 to {MAX_IDEMPOTENCY_KEY_CHARS} printable ASCII characters"
        )),
    }
}

/// Returns the seconds that the request asks to wait, at most [`MAX_WAIT_SECONDS`]. A preference that cannot be parsed
/// is not an error (RFC 7240, section 2); the first of several waits counts.
pub fn wait_seconds(headers: &HeaderMap) -> Option<u64> {
    let preference = headers
        .get_all("prefer")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split([',', ';']))
        .filter_map(|preference| preference.split_once('='))
        .find(|(name, _)| name.trim().eq_ignore_ascii_case("wait"))?
        .1;
    let seconds: u64 = preference.trim().trim_matches('"').parse().ok()?;
    Some(seconds.min(MAX_WAIT_SECONDS)).filter(|seconds| *seconds > 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn prefer(values: &[&'static str]) -> Option<u64> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append("prefer", HeaderValue::from_static(value));
        }
        wait_seconds(&headers)
    }

    #[test]
    fn a_wait_is_understood_or_ignored() {
        assert_eq!(prefer(&[]), None);
        assert_eq!(prefer(&["wait=10"]), Some(10));
        assert_eq!(prefer(&["respond-async, Wait = 5"]), Some(5));
        assert_eq!(prefer(&["return=minimal", "wait=7", "wait=9"]), Some(7));
        assert_eq!(prefer(&["wait=\"3\""]), Some(3));
        assert_eq!(prefer(&["wait=3600"]), Some(MAX_WAIT_SECONDS));
        for ignored in [
            "wait",
            "wait=",
            "wait=-1",
            "wait=soon",
            "wait=0",
            "waiting=5",
        ] {
            assert_eq!(prefer(&[ignored]), None, "{ignored}");
        }
    }

    #[test]
    fn a_key_is_printable_and_bounded() {
        let key = |value: &[u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(
                IDEMPOTENCY_KEY,
                HeaderValue::from_bytes(value).expect("header"),
            );
            idempotency_key(&headers)
        };
        assert_eq!(idempotency_key(&HeaderMap::new()).expect("none"), None);
        assert_eq!(key(b"once").expect("key").as_deref(), Some("once"));
        assert!(key(&[b'x'; MAX_IDEMPOTENCY_KEY_CHARS]).is_ok());
        for wrong in [
            &b""[..],
            b"a\tb",
            b"\xff",
            &[b'x'; MAX_IDEMPOTENCY_KEY_CHARS + 1],
        ] {
            assert!(key(wrong).is_err(), "{wrong:?}");
        }
        let mut twice = HeaderMap::new();
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("a"));
        twice.append(IDEMPOTENCY_KEY, HeaderValue::from_static("b"));
        assert!(idempotency_key(&twice).is_err());
    }
}

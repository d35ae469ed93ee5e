//! The request's context: its correlation id and trace. They are taken from the request or made, and passed on to every
//! message that follows from it.

use axum::{
    extract::FromRequestParts,
    http::{HeaderMap, HeaderName, HeaderValue, request::Parts},
};
use std::convert::Infallible;
use uuid::Uuid;

pub const CORRELATION_ID: HeaderName = HeaderName::from_static("x-correlation-id");
pub const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// The maximum length of a correlation id. Longer ids are a mistake, and would be copied into the headers of every
/// message.
const CORRELATION_ID_LIMIT_BYTES: usize = 128;

/// Extractor of the request's correlation id and trace, for every message that follows from the request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestContext {
    pub correlation_id: String,
    /// The W3C trace context: the caller's trace with a new span, or a new trace.
    pub traceparent: String,
}

impl RequestContext {
    /// Reads the context from `headers`. Invalid headers are treated as absent.
    pub fn of(headers: &HeaderMap) -> Self {
        let correlation_id = single(headers, &CORRELATION_ID).and_then(correlation_id);
        let traceparent = single(headers, &TRACEPARENT).and_then(continued);
        Self {
            correlation_id: correlation_id.unwrap_or_else(|| Uuid::new_v4().to_string()),
            traceparent: traceparent
                .unwrap_or_else(|| format!("00-{}-{}-01", Uuid::new_v4().simple(), new_span())),
        }
    }

    pub(super) fn correlation_header(&self) -> Option<HeaderValue> {
        HeaderValue::from_str(&self.correlation_id).ok()
    }
}

/// Returns the header's value if the header is there exactly once: two headers of one name contradict each other.
fn single<'a>(headers: &'a HeaderMap, name: &HeaderName) -> Option<&'a str> {
    let mut values = headers.get_all(name).iter();
    let value = values.next()?;
    if values.next().is_some() {
        return None;
    }
    value.to_str().ok()
}

fn correlation_id(text: &str) -> Option<String> {
    let fits = (1..=CORRELATION_ID_LIMIT_BYTES).contains(&text.len())
        && text.bytes().all(|byte| byte.is_ascii_graphic());
    fits.then(|| text.to_owned())
}

/// Returns `00-<trace>-<parent>-<flags>` with a new span instead of the parent. A later version may append parts, which
/// are dropped, because the answer has version 00. Returns `None` if `text` is not a valid trace context.
fn continued(text: &str) -> Option<String> {
    let mut parts = text.split('-');
    let version = hex(parts.next()?, 2)?;
    let trace = hex(parts.next()?, 32)?;
    let parent = hex(parts.next()?, 16)?;
    let flags = u8::from_str_radix(hex(parts.next()?, 2)?, 16).ok()?;
    let nothing_follows = parts.next().is_none();
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    if version == "ff" || (version == "00" && !nothing_follows) || zero(trace) || zero(parent) {
        return None;
    }
    // Only the flag "sampled" is defined in version 00.
    Some(format!("00-{trace}-{}-{:02x}", new_span(), flags & 1))
}

fn hex(text: &str, length: usize) -> Option<&str> {
    let lower_case_hex = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f');
    (text.len() == length && text.bytes().all(lower_case_hex)).then_some(text)
}

fn new_span() -> String {
    let (high, low) = Uuid::new_v4().as_u64_pair();
    format!("{:016x}", high ^ low)
}

impl<S: Send + Sync> FromRequestParts<S> for RequestContext {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        // The shell has inserted the context. A router that is tested without the shell has none.
        let made = parts.extensions.get::<Self>().cloned();
        Ok(made.unwrap_or_else(|| Self::of(&parts.headers)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(name: &'static str, values: &[&str]) -> RequestContext {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(
                name,
                HeaderValue::from_bytes(value.as_bytes()).expect("header"),
            );
        }
        RequestContext::of(&headers)
    }

    #[test]
    fn a_usable_correlation_id_is_kept() {
        let long = "x".repeat(128);
        let too_long = "x".repeat(129);
        let check = |values: &[&str], kept: bool| {
            let id = context("x-correlation-id", values).correlation_id;
            assert_eq!(values.contains(&id.as_str()), kept, "{values:?}");
            assert!(!id.is_empty());
        };
        check(&["order-17/a"], true);
        check(&[&long], true);
        check(&[&too_long], false);
        check(&[""], false);
        check(&["two words"], false);
        check(&["ümlaut"], false);
        check(&["a", "b"], false);
        check(&[], false);
    }

    #[test]
    fn a_valid_trace_is_continued_with_a_span_of_our_own() {
        const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
        let check = |header: &str, flags: Option<&str>| {
            let made = context("traceparent", &[header]).traceparent;
            let parts: Vec<&str> = made.split('-').collect();
            assert_eq!(parts.len(), 4, "{made}");
            assert_eq!(parts[0], "00");
            assert_ne!(parts[2], "00f067aa0ba902b7", "the span is new");
            assert_eq!((parts[1].len(), parts[2].len()), (32, 16), "{made}");
            assert_eq!(parts[1] == TRACE, flags.is_some(), "{header} became {made}");
            assert_eq!(parts[3], flags.unwrap_or("01"));
        };
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01"), Some("01"));
        check(&format!("00-{TRACE}-00f067aa0ba902b7-00"), Some("00"));
        check(&format!("cc-{TRACE}-00f067aa0ba902b7-03-more"), Some("01"));
        check(&format!("00-{TRACE}-00f067aa0ba902b7-01-more"), None);
        check(&format!("ff-{TRACE}-00f067aa0ba902b7-01"), None);
        check(&format!("00-{TRACE}-0000000000000000-01"), None);
        check(&format!("00-{}-00f067aa0ba902b7-01", "0".repeat(32)), None);
        check(
            &format!("00-{}-00f067aa0ba902b7-01", TRACE.to_uppercase()),
            None,
        );
        check("nonsense", None);
        check("", None);
    }
}

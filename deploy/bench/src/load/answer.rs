//! Parses answers to `POST /orders`, as far as the bench needs them.

use super::in_flight::Answer;
use anyhow::{Context, Result, bail};
use std::time::Duration;
use uuid::Uuid;

/// The most headers of an answer. order-svc sends fewer than ten.
const HEADERS_MAX: usize = 32;
const CREATED: u16 = 201;
const UNAVAILABLE: u16 = 503;

/// A complete answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Parsed {
    pub answer: Answer,
    /// The length of the answer with its body, in bytes.
    pub length: usize,
    /// `true` if the server closes the connection after this answer.
    pub last: bool,
    /// The time after which a client that was turned away should try again.
    pub retry_after: Option<Duration>,
}

/// Parses an answer from the beginning of `bytes`. Returns `None` while the answer is incomplete.
pub fn parse(bytes: &[u8]) -> Result<Option<Parsed>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS_MAX];
    let mut response = httparse::Response::new(&mut headers);
    let httparse::Status::Complete(head) = response.parse(bytes)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = response
            .headers
            .iter()
            .find(|header| header.name.eq_ignore_ascii_case(name));
        found.and_then(|header| std::str::from_utf8(header.value).ok())
    };
    // A body of unknown length would have to be read until the connection ends.
    let Some(body) = header("content-length").and_then(|text| text.parse::<usize>().ok()) else {
        bail!("an answer without a content-length");
    };
    let length = head + body;
    if bytes.len() < length {
        return Ok(None);
    }
    let answer = match response.code {
        Some(CREATED) => Answer::Accepted(order_id(header("location"))?),
        Some(UNAVAILABLE) => Answer::PushedBack,
        Some(_) | None => Answer::Refused,
    };
    let retry_after = header("retry-after").and_then(|text| text.parse().ok());
    let last = header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"));
    Ok(Some(Parsed {
        answer,
        length,
        last,
        retry_after: retry_after.map(Duration::from_secs),
    }))
}

/// Parses `/orders/<id>`, which is cheaper than reading the body. An order and its saga have the same id.
fn order_id(location: Option<&str>) -> Result<Uuid> {
    let id = location
        .and_then(|path| path.strip_prefix("/orders/"))
        .and_then(|id| id.parse().ok());
    id.with_context(|| format!("a 201 whose location names no order: {location:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(7);

    fn created() -> String {
        format!(
            "HTTP/1.1 201 Created\r\ncontent-type: application/json\r\nlocation: /orders/{ID}\r\n\
             content-length: 4\r\n\r\n{{\"\"}}"
        )
    }

    #[test]
    fn an_accepted_order_is_known_by_its_location() {
        let text = created();
        let parsed = parse(text.as_bytes())
            .expect("an answer")
            .expect("all of it");
        assert_eq!(parsed.answer, Answer::Accepted(ID));
        assert_eq!((parsed.length, parsed.last), (text.len(), false));
    }

    #[test]
    fn part_of_an_answer_is_waited_for_wherever_it_is_cut() {
        let text = created();
        for cut in 0..text.len() {
            let (part, _) = text.as_bytes().split_at(cut);
            assert_eq!(
                parse(part).expect("the beginning of an answer"),
                None,
                "{cut}"
            );
        }
    }

    #[test]
    fn bytes_after_an_answer_are_not_consumed() {
        let text = created();
        let both = text.repeat(2);
        let parsed = parse(both.as_bytes())
            .expect("an answer")
            .expect("all of it");
        assert_eq!(parsed.length, text.len());
    }

    #[test]
    fn a_busy_service_pushes_back_and_any_other_status_refuses() {
        let check = |status: &str, expected: Answer, last: bool| {
            let close = if last { "connection: close\r\n" } else { "" };
            let text = format!("HTTP/1.1 {status}\r\n{close}content-length: 0\r\n\r\n");
            let parsed = parse(text.as_bytes())
                .expect("an answer")
                .expect("all of it");
            assert_eq!((parsed.answer, parsed.last), (expected, last), "{status}");
        };
        check("503 Service Unavailable", Answer::PushedBack, false);
        check("422 Unprocessable Content", Answer::Refused, false);
        check("500 Internal Server Error", Answer::Refused, true);
    }

    #[test]
    fn a_rejection_carries_its_retry_after() {
        let check = |header: &str, seconds: Option<u64>| {
            let text = format!("HTTP/1.1 503 x\r\n{header}content-length: 0\r\n\r\n");
            let parsed = parse(text.as_bytes())
                .expect("an answer")
                .expect("all of it");
            assert_eq!(parsed.retry_after, seconds.map(Duration::from_secs));
        };
        check("", None);
        check("retry-after: 2\r\n", Some(2));
        // No service here sends a date.
        check("retry-after: Sat, 28 Nov 2026 00:00:00 GMT\r\n", None);
    }

    #[test]
    fn an_answer_that_cannot_be_understood_is_an_error() {
        assert!(parse(b"SSH-2.0-OpenSSH\r\n\r\n").is_err());
        assert!(parse(b"HTTP/1.1 201 Created\r\n\r\n").is_err());
        assert!(
            parse(b"HTTP/1.1 201 Created\r\nlocation: /x\r\ncontent-length: 0\r\n\r\n").is_err()
        );
    }
}

//! Answers that several endpoints give.

use crate::domain::json::{Mistakes, parse_uuid};
use axum::{
    extract::rejection::BytesRejection,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use saga_service::http::{FieldError, Problem};
use uuid::Uuid;

/// Problem types of this service's own, beside the shell's.
mod slug {
    pub const TOO_LARGE: &str = "body-too-large";
    pub const BUSY: &str = "too-busy";
}

/// The body was read, but these fields are wrong.
pub fn invalid_fields(mistakes: Mistakes) -> Problem {
    let errors = mistakes.into_inner().into_iter();
    Problem::invalid(
        errors
            .map(|wrong| FieldError::new(wrong.field, wrong.message))
            .collect(),
    )
}

/// A parameter or header is wrong.
pub fn invalid_parameter(field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid_parameter(FieldError::new(field, message))
}

pub fn unknown_order(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no order {id}")).with_type("unknown-order")
}

/// Come again later.
pub fn busy(detail: &str, retry_after_seconds: u64) -> Problem {
    Problem::unavailable(detail, retry_after_seconds).with_type(slug::BUSY)
}

/// An order's id from the path.
pub fn order_id(text: &str) -> Result<Uuid, Problem> {
    parse_uuid(text).ok_or_else(|| invalid_parameter("id", "must be a UUID"))
}

/// The body, if it is JSON by its headers and not too large; an empty one needs no header.
pub fn json_body(
    headers: &HeaderMap,
    body: Result<Bytes, BytesRejection>,
) -> Result<Bytes, Problem> {
    let body = body.map_err(|rejection| match rejection.into_response().status() {
        status @ StatusCode::PAYLOAD_TOO_LARGE => {
            Problem::new(status, "the body is larger than this service takes")
                .with_type(slug::TOO_LARGE)
        }
        _ => Problem::bad_request("the body broke off"),
    })?;
    let media_type = headers.get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    // Without the header any website could have a visitor's browser send a body here, and no preflight would ask.
    let taken = media_type.map_or(body.is_empty(), is_json);
    if taken {
        Ok(body)
    } else {
        Err(Problem::unsupported_media_type(
            "content-type must be application/json",
        ))
    }
}

fn is_json(media_type: &[u8]) -> bool {
    let essence = media_type
        .split(|byte| *byte == b';')
        .next()
        .unwrap_or_default();
    essence
        .trim_ascii()
        .eq_ignore_ascii_case(b"application/json")
}

/// A JSON text as it stands.
pub fn json_text(status: StatusCode, body: String) -> Response {
    let content_type = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    (status, [content_type], body).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_json_is_taken() {
        for (media_type, taken) in [
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("text/plain", false),
            ("application/jsonp", false),
            ("application/x-www-form-urlencoded", false),
        ] {
            let mut headers = HeaderMap::new();
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type));
            assert_eq!(
                json_body(&headers, Ok(Bytes::new())).is_ok(),
                taken,
                "{media_type}"
            );
        }
        assert!(json_body(&HeaderMap::new(), Ok(Bytes::new())).is_ok());
        assert!(json_body(&HeaderMap::new(), Ok(Bytes::from("{}"))).is_err());
    }
}

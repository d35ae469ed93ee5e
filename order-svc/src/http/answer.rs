//! Answers that several endpoints use.

use crate::domain::order::parse_id;
use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use saga_service::http::{FieldError, Problem};
use uuid::Uuid;

/// Returns a 400 for a wrong parameter or header.
pub fn invalid_parameter(field: &str, message: impl Into<String>) -> Problem {
    Problem::invalid_parameter(FieldError::new(field, message))
}

pub fn unknown_order(id: Uuid) -> Problem {
    Problem::not_found(format!("there is no order {id}")).with_type("unknown-order")
}

/// Returns a 503 that asks the client to retry later.
pub fn busy(detail: &str, retry_after_seconds: u64) -> Problem {
    Problem::unavailable(detail, retry_after_seconds).with_type("too-busy")
}

/// Parses an order's id from the path.
pub fn order_id(text: &str) -> Result<Uuid, Problem> {
    parse_id(text).ok_or_else(|| invalid_parameter("id", "must be a UUID"))
}

/// Returns a response with `body` as its JSON text.
pub fn json_text(status: StatusCode, body: String) -> Response {
    let content_type = (
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    );
    (status, [content_type], body).into_response()
}

//! RFC 9457 problem details, the format of every HTTP error.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;

/// One field that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// JSON pointer or parameter name, such as `/items/0/quantity`.
    pub field: String,
    pub message: String,
}

impl FieldError {
    pub fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            field: field.into(),
            message: message.into(),
        }
    }
}

/// A problem, sent as `application/problem+json`. The type is kept small because it is the error type of many results.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Problem {
    /// `about:blank` or a stable slug such as `/problems/invalid-request`.
    #[serde(rename = "type")]
    pub kind: String,
    pub title: String,
    pub status: u16,
    pub detail: String,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub errors: Box<[FieldError]>,
    /// The actions that the resource's state allows, if the request was refused because of that state.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    pub legal: Box<[String]>,
    /// The seconds after which to retry. Also sent as the `Retry-After` header.
    #[serde(rename = "retryAfterSeconds", skip_serializing_if = "Option::is_none")]
    pub retry_after_seconds: Option<u32>,
}

pub const CONTENT_TYPE: &str = "application/problem+json";

/// The maximum length of a message. Longer messages quote huge input and help nobody.
const DETAIL_LIMIT_CHARS: usize = 500;

/// The usual time in which a database or a broker restarts.
const UNAVAILABLE_RETRY_SECONDS: u64 = 1;

impl Problem {
    /// Builds a problem without a type of its own.
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self {
            kind: "about:blank".to_owned(),
            title: status.canonical_reason().unwrap_or("Error").to_owned(),
            status: status.as_u16(),
            detail: shorten(detail.into()),
            errors: Box::default(),
            legal: Box::default(),
            retry_after_seconds: None,
        }
    }

    /// Sets the problem's type: `with_type("idempotency-key-reused")` gives `/problems/idempotency-key-reused`.
    #[must_use]
    pub fn with_type(mut self, slug: &str) -> Self {
        self.kind = format!("/problems/{slug}");
        self
    }

    #[must_use]
    pub fn with_title(mut self, title: impl Into<String>) -> Self {
        self.title = title.into();
        self
    }

    #[must_use]
    pub fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors.into();
        for error in &mut self.errors {
            error.message = shorten(std::mem::take(&mut error.message));
        }
        self
    }

    #[must_use]
    pub fn with_legal(mut self, legal: Vec<String>) -> Self {
        self.legal = legal.into();
        self
    }

    /// 400: the request cannot be read.
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail).with_type("malformed-request")
    }

    /// 400: a parameter or a header is wrong.
    pub fn invalid_parameter(error: FieldError) -> Self {
        let detail = match error.field.as_str() {
            "" => error.message.clone(),
            field => format!("{field}: {}", error.message),
        };
        Self::bad_request(detail)
            .with_type("invalid-request")
            .with_errors(vec![error])
    }

    /// 401: the token is missing or wrong.
    pub fn unauthorized(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, detail).with_type("unauthorized")
    }

    /// 403
    pub fn forbidden(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::FORBIDDEN, detail).with_type("forbidden")
    }

    /// 404: the resource does not exist.
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail).with_type("not-found")
    }

    /// 409: the resource's state does not allow the request.
    pub fn conflict(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::CONFLICT, detail).with_type("conflict")
    }

    /// 413
    pub fn too_large(limit_bytes: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the request's body may have at most {limit_bytes} bytes"),
        )
        .with_type("body-too-large")
    }

    /// 415
    pub fn unsupported_media_type(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, detail).with_type("unsupported-media-type")
    }

    /// 422: the request can be read, but a field is wrong.
    pub fn unprocessable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail).with_type("invalid-request")
    }

    /// 422 that names every field that is wrong.
    pub fn invalid(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|error| match error.field.as_str() {
                "" => error.message.clone(),
                field => format!("{field}: {}", error.message),
            })
            .collect::<Vec<_>>()
            .join("; ");
        Self::unprocessable(detail).with_errors(errors)
    }

    /// 500: an internal error. Its cause is logged and not sent to the client.
    pub fn internal() -> Self {
        Self::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "something went wrong here; the log has more under this answer's x-correlation-id",
        )
        .with_type("internal-error")
    }

    /// 503: try again later.
    pub fn unavailable(detail: impl Into<String>, retry_after_seconds: u64) -> Self {
        let mut problem =
            Self::new(StatusCode::SERVICE_UNAVAILABLE, detail).with_type("unavailable");
        problem.retry_after_seconds = Some(retry_after_seconds.try_into().unwrap_or(u32::MAX));
        problem
    }

    /// 503: the database or the broker is unavailable. `source` is logged and not sent to the client.
    pub fn dependency_unavailable(what: &str, source: &(dyn std::error::Error + 'static)) -> Self {
        tracing::error!(error = source, "{what}");
        Self::unavailable(format!("{what}; try again"), UNAVAILABLE_RETRY_SECONDS)
    }
}

fn shorten(text: String) -> String {
    match text.char_indices().nth(DETAIL_LIMIT_CHARS) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text,
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let body = serde_json::to_vec(&self).unwrap_or_default();
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(CONTENT_TYPE));
        if let Some(seconds) = self.retry_after_seconds {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}

//! Errors of the API, all as RFC 9457 problem details.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use saga_service::http::{FieldError, Problem};
use tracing::error;

/// What a handler answers instead.
#[derive(Debug)]
pub struct ApiError(pub Problem);

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// `code` in snake case, as in audit rows, becomes the problem's type.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Problem::new(status, detail).with_type(&code.replace('_', "-")))
    }

    /// What the saga's state does not allow, with what it does.
    pub fn refused(code: &str, message: String, legal: Vec<String>) -> Self {
        let Self(problem) = Self::new(StatusCode::CONFLICT, code, message);
        Self(problem.with_legal(legal))
    }

    /// One field of the request is wrong.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self(Problem::invalid(vec![FieldError::new(field, message)]))
    }

    /// One parameter of the query is wrong.
    pub fn parameter(name: &str, message: impl Into<String>) -> Self {
        Self(Problem::invalid_parameter(FieldError::new(name, message)))
    }

    pub fn no_saga(id: uuid::Uuid) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "unknown_saga",
            format!("no saga {id} is known"),
        )
    }

    /// Something that the request needs is away.
    pub fn unavailable(what: &str, source: &(dyn std::error::Error + 'static)) -> Self {
        error!(error = source, "{what}");
        Self::busy(what, 1)
    }

    pub fn busy(detail: &str, retry_after_seconds: u64) -> Self {
        Self(Problem::unavailable(detail, retry_after_seconds))
    }
}

impl From<Problem> for ApiError {
    fn from(problem: Problem) -> Self {
        Self(problem)
    }
}

impl From<sqlx::Error> for ApiError {
    fn from(source: sqlx::Error) -> Self {
        Self::unavailable("the database cannot be asked now", &source)
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        self.0.into_response()
    }
}

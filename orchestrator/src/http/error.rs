//! Errors of the API, all as RFC 9457 problem details.

use axum::{
    http::StatusCode,
    response::{IntoResponse, Response},
};
use saga_service::http::{FieldError, Problem};
use tracing::error;

/// The error response of a handler.
#[derive(Debug)]
pub struct ApiError(pub Problem);

pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// Makes an error from a code. The code is in snake case, as in audit rows, and becomes the problem's type.
    pub fn new(status: StatusCode, code: &str, detail: impl Into<String>) -> Self {
        Self(Problem::new(status, detail).with_type(&code.replace('_', "-")))
    }

    /// Makes the error for an action that the saga's state does not allow, with the actions that are legal.
    pub fn refused(code: &str, message: String, legal: Vec<String>) -> Self {
        let Self(problem) = Self::new(StatusCode::CONFLICT, code, message);
        Self(problem.with_legal(legal))
    }

    /// Makes the error for a wrong field of the request.
    pub fn field(field: &str, message: impl Into<String>) -> Self {
        Self(Problem::invalid(vec![FieldError::new(field, message)]))
    }

    /// Makes the error for a wrong parameter of the query.
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

    /// Logs that a dependency of the request is unavailable, and makes the error for it.
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

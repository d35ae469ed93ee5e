//! Runs a handler with a time limit and catches its panics.

use super::HandlerError;
use futures_util::FutureExt;
use saga_messaging::consumer::BatchError;
use std::{any::Any, future::Future, panic::AssertUnwindSafe, time::Duration};
use thiserror::Error;
use tokio::time::timeout;

/// The way in which a handler failed to answer.
#[derive(Debug, Error)]
pub(super) enum HandlerFault {
    #[error("the handler is broken: {0}")]
    Broken(String),
    #[error("the handler panicked: {0}")]
    Panicked(String),
    #[error("the handler took longer than {limit_ms} ms")]
    OverTime { limit_ms: u64 },
}

impl HandlerFault {
    /// Returns the fault code of the `error` reply.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Broken(_) => "handler_broken",
            Self::Panicked(_) => "handler_panicked",
            Self::OverTime { .. } => "handler_timeout",
        }
    }
}

/// The reason why a batch failed.
#[derive(Debug, Error)]
pub(super) enum FoldError {
    #[error(transparent)]
    Batch(#[from] BatchError),
    #[error(transparent)]
    Handler(#[from] HandlerFault),
}

/// SQLSTATE of a statement that was ended by its time limit.
const QUERY_CANCELED: &str = "57014";

pub(super) async fn guarded<T>(
    limit: Duration,
    work: impl Future<Output = Result<T, HandlerError>>,
) -> Result<T, FoldError> {
    let over_time = || HandlerFault::OverTime {
        limit_ms: limit.as_millis() as u64,
    };
    match timeout(limit, AssertUnwindSafe(work).catch_unwind()).await {
        Ok(Ok(Ok(value))) => Ok(value),
        Ok(Ok(Err(HandlerError::Broken(why)))) => Err(HandlerFault::Broken(why).into()),
        Ok(Ok(Err(HandlerError::Transaction(error)))) => Err(error.into()),
        Ok(Ok(Err(HandlerError::Database(error)))) => {
            let code = error
                .as_database_error()
                .and_then(sqlx::error::DatabaseError::code);
            if code.as_deref() == Some(QUERY_CANCELED) {
                Err(over_time().into())
            } else {
                Err(BatchError::from(error).into())
            }
        }
        Ok(Err(panic)) => Err(HandlerFault::Panicked(panic_message(&*panic)).into()),
        Err(_) => Err(over_time().into()),
    }
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    panic
        .downcast_ref::<&str>()
        .map(|text| (*text).to_owned())
        .or_else(|| panic.downcast_ref::<String>().cloned())
        .unwrap_or_else(|| "no message".to_owned())
}

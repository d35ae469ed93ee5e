//! The traits behind a participant's handlers. Authors use the router or [`batch`](crate::batch); these traits are
//! generic over the connection, so that the simulator can drive the same library.

use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use saga_messaging::consumer::BatchError;
use serde::Serialize;
use serde_json::{Value, json};
use thiserror::Error;

/// The result of a command that was not refused.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// The command succeeded with this result, which is saved and replied.
    Success(Value),
    /// The command needs an external call. An intent is written, and [`ExternalCalls`](crate::calls::ExternalCalls) is
    /// called after the commit. The handler's writes, such as a note that the call is in flight, are committed with the
    /// intent.
    CallOutside,
}

impl Answer {
    /// Returns a success with `result`, which becomes the reply's payload. The unit `()` becomes an empty object.
    pub fn success(result: impl Serialize) -> Result<Self, Failure> {
        match serde_json::to_value(result) {
            Ok(Value::Null) => Ok(Self::Success(json!({}))),
            Ok(result) => Ok(Self::Success(result)),
            Err(error) => {
                Err(HandlerError::Broken(format!("a reply cannot be written: {error}")).into())
            }
        }
    }
}

/// The reason why a command is not done. No write of the handler for this command remains.
#[derive(Debug, Error)]
pub enum Failure {
    /// The command is refused for a business reason, and the saga compensates. The refusal is saved: the same command
    /// gets it again.
    #[error("{}: {}", .0.code, .0.message)]
    Business(Fault),
    /// The command failed for a technical reason. Nothing is saved, and the step's policy retries the command.
    #[error("{}: {}", .0.code, .0.message)]
    Technical(Fault),
    /// The handler could not decide.
    #[error(transparent)]
    Handler(#[from] HandlerError),
}

impl Failure {
    /// Returns a refusal for a business reason: a code for programs, a message for people.
    pub fn business(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Business(Fault::new(code, message))
    }

    /// Returns a technical failure, which the step's policy retries.
    pub fn technical(code: impl Into<String>, message: impl Into<String>) -> Self {
        Self::Technical(Fault::new(code, message))
    }
}

/// A database error is retried or dead-lettered by its SQLSTATE, so a handler uses `?` on its statements.
impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Handler(error.into())
    }
}

/// The reason why a handler could not decide about its commands.
#[derive(Debug, Error)]
pub enum HandlerError {
    #[error("the handler's database work failed")]
    Database(#[from] sqlx::Error),
    /// A database error like [`HandlerError::Database`], for which the decision to retry or to reject has been made.
    #[error(transparent)]
    Transaction(#[from] BatchError),
    /// The handler has a bug; the command is answered `error`.
    #[error("{0}")]
    Broken(String),
}

/// A participant that handles one command at a time, in the batch's transaction. `C` is the handler's connection.
#[async_trait]
pub trait RawCommandHandler<C: Send + 'static>: Send + Sync + 'static {
    /// Handles `command`, whose `direction` is `Forward` or `Compensation`.
    async fn handle(&self, tx: &mut C, command: &Command) -> Result<Answer, Failure>;
}

/// A participant that handles a whole batch: it locks once in key order, decides in memory in log order, and writes net
/// changes. `C` is the handler's connection.
#[async_trait]
pub trait RawBatchHandler<C: Send + 'static>: Send + Sync + 'static {
    /// The shared rows of the batch and the changes decided so far.
    type Rows: Send;

    /// Returns the size of the largest batch that this handler can take; `None` leaves it to the consumer's settings.
    fn batch_limit(&self) -> Option<usize> {
        None
    }

    /// Locks and reads, in key order, every shared row that any of these commands may need.
    async fn load(&self, tx: &mut C, commands: &[&Command]) -> Result<Self::Rows, HandlerError>;

    /// Decides one command. Commands that the barrier answers never reach the handler.
    async fn handle(
        &self,
        tx: &mut C,
        rows: &mut Self::Rows,
        command: &Command,
    ) -> Result<Answer, Failure>;

    /// Writes the net changes and checks the number of rows written.
    async fn store(&self, tx: &mut C, rows: Self::Rows) -> Result<(), HandlerError>;
}

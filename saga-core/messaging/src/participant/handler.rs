//! What a participant's author writes.

use crate::rule::BatchError;
use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use serde_json::Value;
use sqlx::PgConnection;
use thiserror::Error;

/// What a handler answers.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Done, with the reply's type (`inventory.reserved`) and result. Saved.
    Success { reply_type: String, result: Value },
    /// A business answer. What the handler wrote for this command must be undone: [`CommandHandler`]s get that from
    /// the library (a savepoint), [`BatchHandler`]s must not have changed their rows.
    Failure { reply_type: String, fault: Fault },
    /// A technical answer: nothing is saved, the step's policy retries. As with a failure, nothing may stay written.
    Error { fault: Fault },
    /// The outside world must be asked: an intent is written, and [`ExternalCalls::call`](super::ExternalCalls::call)
    /// is made after the commit. What the handler wrote (the call is under way) is committed with the intent.
    CallOutside,
}

#[derive(Debug, Error)]
pub enum HandlerError {
    #[error("the handler's database work failed")]
    Database(#[from] sqlx::Error),
    /// As [`HandlerError::Database`], where it is judged already what to do about it.
    #[error(transparent)]
    Transaction(#[from] BatchError),
    /// A bug in the handler; the command is answered `error`.
    #[error("{0}")]
    Broken(String),
}

/// A participant that handles one command at a time, in the batch's transaction.
///
/// `C` is what it writes with: a Postgres connection, which is what an implementation that does not name it gets. A
/// simulation has its own.
#[async_trait]
pub trait CommandHandler<C: Send + 'static = PgConnection>: Send + Sync + 'static {
    /// `command.direction` is `Forward` or `Compensation`.
    async fn handle(&self, tx: &mut C, command: &Command) -> Result<Answer, HandlerError>;
}

/// A participant that takes a whole batch: lock once in key order, decide in memory in log order, write net changes. `C` as in [`CommandHandler`].
#[async_trait]
pub trait BatchHandler<C: Send + 'static = PgConnection>: Send + Sync + 'static {
    /// The shared rows of the batch and the changes decided so far.
    type Rows: Send;

    /// The largest batch this handler can take; `None` leaves it to the rule's settings.
    fn batch_limit(&self) -> Option<usize> {
        None
    }

    /// Locks and reads, in key order, every shared row that any of these commands may need.
    async fn load(&self, tx: &mut C, commands: &[&Command]) -> Result<Self::Rows, HandlerError>;

    /// Decides one command. Commands that the barrier answers never get here.
    async fn handle(
        &self,
        tx: &mut C,
        rows: &mut Self::Rows,
        command: &Command,
    ) -> Result<Answer, HandlerError>;

    /// Writes the net changes, counting rows.
    async fn store(&self, tx: &mut C, rows: Self::Rows) -> Result<(), HandlerError>;
}

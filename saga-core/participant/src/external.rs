//! Calls to external systems, such as a payment gateway.
//!
//! A call is never made inside a transaction. A handler that returns [`CallOutside`](crate::CallOutside) has an
//! *intent* written with its own rows; the library makes the call after the commit, and a second transaction, the
//! *settlement*, writes the outcome and the reply. The key of a call stays the same until its outcome is known, also
//! when another process takes the intent over.
//!
//! ```text
//!  command ─▶ handler: CallOutside + intent ─▶ COMMIT ─▶ call(key) ─▶ settle + barrier + reply ─▶ COMMIT
//!                                                          ▲ no answer: again, with the same key
//! ```
//!
//! [`ExternalCalls`] is the interface; a participant gets its calls by
//! [`Participant::calls`](crate::Participant::calls).

use crate::{Command, HandlerError, batch::Commands};
use async_trait::async_trait;
use saga_core::message::{self, Fault};
use serde::Serialize;
use serde_json::Value;
use sqlx::PgConnection;
use std::{num::NonZeroU32, time::Duration};
use tracing::error;

/// The outcome of an external call.
#[derive(Clone, Debug, PartialEq)]
pub enum CallOutcome {
    /// The call was done. The result is saved and replied.
    Success(Value),
    /// A definite refusal for a business reason. It is saved if the command says so.
    Failure(Fault),
    /// The call was definitely not done *under this key*, for a technical reason. Nothing is saved, and the next
    /// attempt has a new key. A call's own failure says nothing about an earlier call with the same key, or about one
    /// still in flight: unless the external system vouches for the key, return [`CallOutcome::Indeterminate`].
    Error(Fault),
    /// No answer, or an answer that does not show the outcome. The call is repeated with the same key until the outcome
    /// is known.
    Indeterminate { why: String },
}

impl CallOutcome {
    /// Returns a success with `result`, which becomes the reply's payload. A result that cannot be written makes the
    /// outcome indeterminate: the effect has happened.
    pub fn success(result: impl Serialize) -> Self {
        match serde_json::to_value(result) {
            Ok(result) => Self::Success(result),
            Err(error) => Self::Indeterminate {
                why: format!("the result cannot be written: {error}"),
            },
        }
    }
}

/// A call with its definite outcome. `P` is the payload's type, as in [`Command`].
#[derive(Clone, Debug)]
pub struct Settlement<P> {
    /// The command that the call was made for, with the latest attempt that asked for it.
    pub command: Command<P>,
    pub key: String,
    /// The outcome, which is never [`CallOutcome::Indeterminate`].
    pub outcome: CallOutcome,
}

/// Limits of the calls of one process.
#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Most calls in flight at once, in this process.
    pub concurrency: usize,
    /// Most calls that begin in a second, in this process; `None` sets no limit.
    pub per_second: Option<NonZeroU32>,
    pub timeout: Duration,
    /// After this long without a settlement, another instance may take an intent over. It must be longer than
    /// `timeout`: a call that is taken over too early is made twice, with the same key.
    pub lease: Duration,
    /// Time between two attempts of an indeterminate call.
    pub retry_delay: Duration,
    /// How long the external system recognizes a key, from its first call on.
    pub key_lifetime: Duration,
}

/// Jobs that are queued in memory for each call that can be in flight. The number is large enough that no call waits
/// for a batch, and small enough that a command that is picked up is called before its timeout. Commands beyond these
/// stay in the topic, where waiting costs no attempt.
const JOBS_A_CALL: usize = 4;

impl CallLimits {
    /// Returns how many commands may be picked up and wait for their call: at most as many as are called within a
    /// second.
    pub fn waiting(&self) -> usize {
        let waiting = self.concurrency.max(1) * JOBS_A_CALL;
        let in_a_second = self.per_second.map(|rate| rate.get() as usize);
        in_a_second.map_or(waiting, |called| waiting.min(called))
    }
}

/// Calls to external systems.
#[async_trait]
pub trait ExternalCalls: Send + Sync + 'static {
    /// The payloads of the commands that need calls, usually an enum.
    type Command: Send + Sync + 'static;

    /// Returns the commands that need calls.
    fn commands() -> Commands<Self::Command>;

    fn limits(&self) -> CallLimits;

    /// Makes the call, outside any transaction. The same key must never have two effects.
    async fn call(&self, key: &str, command: Command<Self::Command>) -> CallOutcome;

    /// Writes the effects of definite outcomes on the participant's own rows, in the settlement's transaction. Shared
    /// rows must be locked in the same order in which the handler locks them.
    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: Vec<Settlement<Self::Command>>,
    ) -> Result<(), HandlerError>;
}

/// A call with its definite outcome, and the command as it was received.
#[derive(Clone, Debug)]
pub struct RawSettlement {
    pub command: message::Command,
    pub key: String,
    pub outcome: CallOutcome,
}

/// The interface behind [`ExternalCalls`]. `C` is the handler's connection.
#[async_trait]
pub trait RawCalls<C: Send + 'static>: Send + Sync + 'static {
    fn limits(&self) -> CallLimits;

    /// Makes the call, outside any transaction. The same key must never have two effects.
    async fn call(&self, key: &str, command: &message::Command) -> CallOutcome;

    /// Writes the effects of definite outcomes on the participant's own rows, in the settlement's transaction.
    async fn settle(&self, tx: &mut C, settled: &[RawSettlement]) -> Result<(), HandlerError>;
}

/// Makes [`RawCalls`] of [`ExternalCalls`].
pub struct Calls<E: ExternalCalls> {
    calls: E,
    commands: Commands<E::Command>,
}

impl<E: ExternalCalls> Calls<E> {
    pub fn new(calls: E) -> Self {
        Self {
            calls,
            commands: E::commands(),
        }
    }
}

#[async_trait]
impl<E: ExternalCalls> RawCalls<PgConnection> for Calls<E> {
    fn limits(&self) -> CallLimits {
        self.calls.limits()
    }

    async fn call(&self, key: &str, command: &message::Command) -> CallOutcome {
        match self.commands.read(command) {
            Ok(command) => self.calls.call(key, command).await,
            Err(failure) => CallOutcome::Indeterminate {
                why: failure.to_string(),
            },
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: &[RawSettlement],
    ) -> Result<(), HandlerError> {
        let readable = settled
            .iter()
            .filter_map(|one| match self.commands.read(&one.command) {
                Ok(command) => Some(Settlement {
                    command,
                    key: one.key.clone(),
                    outcome: one.outcome.clone(),
                }),
                // Its call was never made, so only an older version of this program has seen its outcome.
                Err(failure) => {
                    error!(
                        saga.id = %one.command.saga_id,
                        saga.step = one.command.step,
                        correlation.id = one.command.trace.correlation_id,
                        error = %failure,
                        "the command of a settled call cannot be read"
                    );
                    None
                }
            });
        self.calls.settle(tx, readable.collect()).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_wait_than_are_called_soon() {
        let waiting = |concurrency, per_second| {
            let limits = CallLimits {
                concurrency,
                per_second: NonZeroU32::new(per_second),
                timeout: Duration::from_secs(1),
                lease: Duration::from_secs(2),
                retry_delay: Duration::from_secs(1),
                key_lifetime: Duration::from_hours(1),
            };
            limits.waiting()
        };
        assert_eq!(waiting(64, 0), 256);
        assert_eq!(waiting(64, 100), 100);
        assert_eq!(waiting(2, 100), 8);
    }
}

//! The outside world of a participant, such as a payment gateway.

use super::HandlerError;
use async_trait::async_trait;
use saga_core::message::{Command, Fault};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sqlx::PgConnection;
use std::{num::NonZeroU32, time::Duration};

/// What an external call came to.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum CallOutcome {
    Success {
        reply_type: String,
        result: Value,
    },
    /// A definite business answer. Saved if the command says so.
    Failure {
        reply_type: String,
        fault: Fault,
    },
    /// Definitely not done *under this key*, for a technical reason: not saved; the next attempt has a new key. A call
    /// that failed by itself tells nothing of an earlier one, or one still under way, with the same key: unless the
    /// outside answers for the key, that is [`CallOutcome::Indeterminate`].
    Error {
        fault: Fault,
    },
    /// No answer, or one that does not tell: the same key is repeated until it tells.
    Indeterminate {
        why: String,
    },
}

/// A call that has its definite outcome.
#[derive(Clone, Debug)]
pub struct Settlement {
    /// The command that was called for; its attempt is the latest that asked.
    pub command: Command,
    pub key: String,
    /// Never [`CallOutcome::Indeterminate`].
    pub outcome: CallOutcome,
}

#[derive(Clone, Copy, Debug)]
pub struct CallLimits {
    /// Calls under way at once, in this process.
    pub concurrency: usize,
    /// Calls that begin in a second, in this process; `None` for as many as there are.
    pub per_second: Option<NonZeroU32>,
    pub timeout: Duration,
    /// After this long without a settlement another instance may take an intent over. Longer than `timeout`: a call
    /// that is taken over too early is made twice, with the same key.
    pub lease: Duration,
    /// Between two tries of an indeterminate call.
    pub retry_delay: Duration,
    /// How long the outside recognizes a key, from its first call on.
    pub key_lifetime: Duration,
}

/// Jobs that wait in memory for each call that can be under way: enough that no call waits for a batch, and few enough
/// that a command which is picked up is called before its timeout. Those behind them stay queued in the log, where
/// waiting spends no attempt.
const JOBS_A_CALL: usize = 4;

impl CallLimits {
    /// Commands that are picked up and wait for their call, at most: no more than are called within a second.
    pub fn waiting(&self) -> usize {
        let waiting = self.concurrency.max(1) * JOBS_A_CALL;
        let in_a_second = self.per_second.map(|rate| rate.get() as usize);
        in_a_second.map_or(waiting, |called| waiting.min(called))
    }
}

/// `C` is what a handler writes with, a Postgres connection; a simulation has its own.
#[async_trait]
pub trait ExternalCalls<C: Send + 'static = PgConnection>: Send + Sync + 'static {
    fn limits(&self) -> CallLimits;

    /// Makes the call, outside any transaction. The same key must never have two effects.
    async fn call(&self, key: &str, command: &Command) -> CallOutcome;

    /// Writes what definite outcomes mean for the participant's own rows, in the settlement's transaction. Shared rows
    /// must be locked in the same order as the handler locks them.
    async fn settle(&self, tx: &mut C, settled: &[Settlement]) -> Result<(), HandlerError>;
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

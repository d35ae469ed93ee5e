//! Settles the outcomes of external calls in a transaction.

use super::{CallResult, PendingReplies, PublishedIntent};
use crate::{
    CallOutcome, RawBatchHandler, RawSettlement,
    barrier::RowKey,
    core::{Calls, Core},
    fold::{Fold, check_result, outcome_unknown, saves_failure},
    guard::{FoldError, guarded},
    intent::{Intent, IntentState},
    reply::{self, PreparedReply},
    storage::{ParticipantStore, ParticipantTx},
};
use metrics::counter;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    message::{Command, Fault},
};
use saga_messaging::{consumer::BatchError, crash_point::CrashPoint};
use tracing::{error, info, warn};

/// How the commands that waited for a call are handled.
#[derive(Clone, Copy)]
enum Waiting {
    Run,
    /// They are answered `error` because their handler cannot be run. They may be sent again.
    AnswerError,
}

/// The result of a settlement.
#[derive(Default)]
pub(super) struct Settlement {
    pub answered: PendingReplies,
    /// The acknowledged intents were closed in the same transaction.
    pub closed: bool,
}

pub(super) async fn settle<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    finished: &[CallResult],
    closing: &[PublishedIntent],
) -> Result<Settlement, BatchError> {
    let Some(calls) = core.calls.as_ref() else {
        return Ok(Settlement::default());
    };
    let settled = match settle_together(core, calls, finished, closing).await {
        Ok(answered) => Settlement {
            answered,
            closed: true,
        },
        Err(BatchError::Data(_)) => Settlement {
            answered: one_by_one(core, calls, finished).await?,
            closed: false,
        },
        Err(error @ BatchError::Retry(_)) => return Err(error),
    };
    calls.let_go(finished.iter().map(|finished| &finished.job));
    Ok(settled)
}

async fn settle_together<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[CallResult],
    closing: &[PublishedIntent],
) -> Result<PendingReplies, BatchError> {
    let done = Box::pin(transact(core, calls, finished, closing, Waiting::Run)).await;
    match done {
        Ok(answered) => Ok(answered),
        Err(error) => Err(core.judge(error).await),
    }
}

/// Settles the outcomes one by one, because the batch has one that cannot be settled. If an outcome fails alone, the
/// commands that wait for it may be to blame, so they are answered `error`. If it still fails, the outcome itself is to
/// blame: it cannot be discarded, but the same key yields it again, so the call is repeated later.
async fn one_by_one<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[CallResult],
) -> Result<PendingReplies, BatchError> {
    let mut all = PendingReplies::default();
    for one in finished {
        let mut answered = settle_together(core, calls, std::slice::from_ref(one), &[]).await;
        if let Err(BatchError::Data(why)) = &answered {
            error!(
                saga.id = %one.job.key.saga_id,
                saga.step = one.job.key.step,
                correlation.id = one.job.command.trace.correlation_id,
                error = %why,
                "an external call cannot be settled with the commands that wait for it"
            );
            answered = alone(core, calls, one).await;
        }
        let answered = match answered {
            Ok(answered) => answered,
            Err(BatchError::Data(why)) => {
                leave(one, &*why);
                continue;
            }
            Err(error @ BatchError::Retry(_)) => return Err(error),
        };
        all.records.extend(answered.records);
        all.intents.extend(answered.intents);
    }
    Ok(all)
}

/// Logs an outcome about which nothing can be written, perhaps because its rows cannot be read. Other outcomes must not
/// wait for it. The sweep claims the intent again when its lease is over, and by then a person may have looked.
fn leave(one: &CallResult, why: &(dyn std::error::Error + Send + Sync)) {
    counter!("saga_settlements_left_total").increment(1);
    error!(
        saga.id = %one.job.key.saga_id,
        saga.step = one.job.key.step,
        correlation.id = one.job.command.trace.correlation_id,
        error = %why,
        "an external call cannot be settled at all, leaving it to the sweep"
    );
}

async fn alone<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    one: &CallResult,
) -> Result<PendingReplies, BatchError> {
    let only = std::slice::from_ref(one);
    let error = match Box::pin(transact(core, calls, only, &[], Waiting::AnswerError)).await {
        Ok(answered) => return Ok(answered),
        Err(error) => core.judge(error).await,
    };
    let BatchError::Data(why) = error else {
        return Err(error);
    };
    error!(
        saga.id = %one.job.key.saga_id,
        saga.step = one.job.key.step,
        correlation.id = one.job.command.trace.correlation_id,
        error = %why,
        "the outcome of an external call cannot be written, repeating the call later"
    );
    let again = CallResult {
        job: one.job.clone(),
        outcome: CallOutcome::Indeterminate {
            why: why.to_string(),
        },
    };
    let only = std::slice::from_ref(&again);
    match Box::pin(transact(core, calls, only, &[], Waiting::AnswerError)).await {
        Ok(answered) => Ok(answered),
        Err(error) => Err(core.judge(error).await),
    }
}

/// Closes intents whose replies are acknowledged, in a separate transaction.
pub(super) async fn close<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    acked: &[PublishedIntent],
) -> Result<(), BatchError> {
    let ids = ids(acked.iter().map(|told| &told.key));
    let mut tx = core.store.open(core.config.handler_timeout).await?;
    tx.lock_intents(&ids).await?;
    tx.close_intents(acked).await?;
    CrashPoint::CallBeforeClose.pass();
    tx.commit().await?;
    CrashPoint::CallAfterClose.pass();
    Ok(())
}

fn ids<'a>(keys: impl Iterator<Item = &'a RowKey>) -> Vec<SagaId> {
    let mut ids: Vec<SagaId> = keys.map(|key| key.saga_id).collect();
    ids.sort_unstable();
    ids.dedup();
    ids
}

async fn transact<S: ParticipantStore, H: RawBatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[CallResult],
    closing: &[PublishedIntent],
    waiting: Waiting,
) -> Result<PendingReplies, FoldError> {
    let mut tx = core.store.open(core.config.handler_timeout).await?;
    let keys = finished.iter().map(|finished| &finished.job.key);
    let ids = ids(keys.chain(closing.iter().map(|told| &told.key)));
    let (mut fold, terms) = Fold::begin(core, &mut tx, &ids).await?;
    if !closing.is_empty() {
        tx.close_intents(closing).await?;
    }
    let mut settlement = Transaction {
        core,
        calls,
        now: terms.now,
        answered: PendingReplies::default(),
    };
    settlement.outcomes(&mut tx, &mut fold, finished).await?;
    let mut decided = Vec::with_capacity(finished.len());
    for one in finished {
        decided.extend(settlement.decide(&mut fold, one)?);
    }
    settlement
        .answer(&mut tx, &mut fold, decided, waiting)
        .await?;
    let jobs = fold.finish(&mut tx).await?;
    CrashPoint::CallBeforeSettle.pass();
    tx.commit().await?;
    CrashPoint::CallAfterSettle.pass();
    calls.enqueue(jobs);
    Ok(settlement.answered)
}

struct Transaction<'a, H, S: ParticipantStore> {
    core: &'a Core<H, S>,
    calls: &'a Calls<S::Connection>,
    now: Timestamp,
    answered: PendingReplies,
}

impl<S: ParticipantStore, H: RawBatchHandler<S::Connection>> Transaction<'_, H, S> {
    /// Writes the participant's own rows for all definite outcomes at once.
    async fn outcomes(
        &self,
        tx: &mut S::Tx,
        fold: &mut Fold<'_, H, S>,
        finished: &[CallResult],
    ) -> Result<(), FoldError> {
        let settlements: Vec<RawSettlement> = finished
            .iter()
            .filter(|one| !matches!(one.outcome, CallOutcome::Indeterminate { .. }))
            .filter_map(|one| {
                let intent = fold.intents.get(&one.job.key)?;
                one.is_for(intent).then(|| RawSettlement {
                    command: intent.command.clone(),
                    key: one.job.idempotency_key(),
                    outcome: one.outcome.clone(),
                })
            })
            .collect();
        if settlements.is_empty() {
            return Ok(());
        }
        let limit = self.core.config.handler_timeout;
        guarded(
            limit,
            self.calls.outside.settle(tx.connection(), &settlements),
        )
        .await
    }

    /// Decides the barrier's row for one outcome. Returns `None` if there is nothing to answer.
    fn decide<'f>(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &'f CallResult,
    ) -> Result<Option<Decided<'f>>, FoldError> {
        let key = &one.job.key;
        let Some(intent) = fold.intents.get(key).filter(|intent| one.is_for(intent)) else {
            // Another instance settled the call, with the same key and so with the same outcome.
            info!(
                saga.id = %key.saga_id,
                saga.step = key.step,
                correlation.id = one.job.command.trace.correlation_id,
                "an external call was settled by another instance"
            );
            return Ok(None);
        };
        let intent = intent.clone();
        let own = self.own_reply(fold, one, &intent)?;
        Ok(own.map(|(reply, state)| Decided {
            key,
            state,
            waited: intent.resolve.into_iter().chain(intent.cancel).collect(),
            replies: vec![reply],
        }))
    }

    /// Runs the commands that waited, all at once so that shared rows are locked once, and collects all replies.
    async fn answer(
        &mut self,
        tx: &mut S::Tx,
        fold: &mut Fold<'_, H, S>,
        mut decided: Vec<Decided<'_>>,
        waiting: Waiting,
    ) -> Result<(), FoldError> {
        let (mut owners, mut commands) = (Vec::new(), Vec::new());
        for (owner, one) in decided.iter_mut().enumerate() {
            let fault = match (one.state, waiting) {
                (IntentState::Expired, _) => outcome_unknown(),
                (_, Waiting::AnswerError) => Fault::new(
                    "settlement_failed",
                    "it could not be carried out with the settlement of its step's call",
                ),
                (_, Waiting::Run) => {
                    owners.extend(one.waited.iter().map(|_| owner));
                    commands.append(&mut one.waited);
                    continue;
                }
            };
            let error = |command| PreparedReply::error(command, &fault, self.now);
            one.replies.extend(one.waited.iter().map(error));
        }
        let replies = fold.run(tx, &commands).await?;
        for (owner, reply) in owners.into_iter().zip(replies) {
            decided[owner].replies.extend(reply);
        }
        for one in decided {
            self.close_intent(fold, one);
        }
        Ok(())
    }

    /// Applies the outcome to the barrier's row. Returns the reply and the intent's new state, or `None` if the call
    /// stays open.
    fn own_reply(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &CallResult,
        intent: &Intent,
    ) -> Result<Option<(PreparedReply, IntentState)>, FoldError> {
        let (key, command) = (&one.job.key, &intent.command);
        let count = |outcome| self.core.count(&command.command_type, outcome);
        let released = |fold: &mut Fold<'_, H, S>, reply| {
            fold.barrier.clear(key);
            Ok(Some((reply, IntentState::Released)))
        };
        match &one.outcome {
            CallOutcome::Success(result) => {
                count("success");
                let reply_type = self.core.config.success_reply(&command.command_type);
                let saved = reply::success(reply_type, result.clone());
                check_result(&saved)?;
                let reply = fold.save(command, one.direction(), Mark::Done, saved);
                Ok(Some((reply, IntentState::Settled)))
            }
            CallOutcome::Failure(fault) => {
                count("failure");
                let saved = reply::failure(self.core.config.failure_reply.clone(), fault);
                if saves_failure(command) {
                    let reply = fold.save(command, one.direction(), Mark::Failed, saved);
                    return Ok(Some((reply, IntentState::Settled)));
                }
                let reply = PreparedReply::new(command, one.direction(), saved, self.now);
                released(fold, reply)
            }
            CallOutcome::Error(fault) => {
                count("error");
                released(fold, PreparedReply::error(command, fault, self.now))
            }
            CallOutcome::Indeterminate { why } => Ok(self.undecided(fold, one, intent, why)),
        }
    }

    fn undecided(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &CallResult,
        intent: &Intent,
        why: &str,
    ) -> Option<(PreparedReply, IntentState)> {
        let (key, limits) = (&one.job.key, self.calls.limits);
        self.core
            .count(&intent.command.command_type, "indeterminate");
        if self.now >= intent.opened_at + limits.key_lifetime {
            error!(
                saga.id = %key.saga_id,
                saga.step = key.step,
                correlation.id = intent.command.trace.correlation_id,
                "the outcome of an external call cannot be learned any more: {why}"
            );
            let reply = PreparedReply::error(&intent.command, &outcome_unknown(), self.now);
            return Some((reply, IntentState::Expired));
        }
        warn!(
            saga.id = %key.saga_id,
            saga.step = key.step,
            correlation.id = intent.command.trace.correlation_id,
            retry_in_ms = limits.retry_delay.as_millis() as u64,
            "the outcome of an external call is not known, repeating it: {why}"
        );
        if let Some(intent) = fold.intents.get_mut(key) {
            intent.lease_until = self.now + limits.retry_delay;
        }
        None
    }

    fn close_intent(&mut self, fold: &mut Fold<'_, H, S>, decided: Decided<'_>) {
        // A released intent becomes final if a command that waited has left a refusal in the barrier.
        let row_stands = fold.barrier.get(decided.key).is_some();
        let Some(intent) = fold.intents.get_mut(decided.key) else {
            return;
        };
        let released = decided.state == IntentState::Released;
        if released {
            intent.generation += 1;
        }
        intent.state = if released && row_stands {
            IntentState::Settled
        } else {
            decided.state
        };
        intent.lease_until = self.now + self.calls.limits.lease;
        let source = &self.core.config.source;
        let records = decided.replies.iter().map(|reply| reply.encode(source));
        self.answered.records.extend(records);
        self.answered
            .intents
            .push(PublishedIntent::of(decided.key, intent));
        intent.replies = Some(decided.replies);
    }
}

/// An intent with its new state and its replies.
struct Decided<'f> {
    key: &'f RowKey,
    state: IntentState,
    waited: Vec<Command>,
    replies: Vec<PreparedReply>,
}

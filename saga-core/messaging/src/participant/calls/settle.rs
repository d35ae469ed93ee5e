//! The settlement's transaction.

use super::{Answered, Finished, OpenCalls, open::Told};
use crate::{
    crash_point::CrashPoint,
    participant::{
        BatchHandler, CallOutcome, Settlement,
        barrier::RowKey,
        core::{Calls, Core},
        fold::{Fold, check_result, outcome_unknown, saves_failure},
        guard::{FoldError, guarded},
        intent::{Intent, IntentState},
        reply::{self, PreparedReply},
        storage::{ParticipantStore, ParticipantTx},
    },
    rule::BatchError,
};
use metrics::counter;
use saga_core::{
    barrier::Mark,
    ids::{SagaId, Timestamp},
    message::{Command, Fault},
};
use tracing::{error, info, warn};

/// What becomes of the commands that waited.
#[derive(Clone, Copy)]
enum Waiting {
    Run,
    /// Their handler cannot be run: they are answered `error`, and may come again.
    AnswerError,
}

pub(super) async fn settle<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    open: &mut OpenCalls<H, S>,
    finished: &[Finished],
) -> Result<Answered, BatchError> {
    let Some(calls) = open.core.calls.as_ref() else {
        return Ok(Answered::default());
    };
    let core = &*open.core;
    let mut closing = open.closing();
    let answered = match settle_together(core, calls, finished, &closing).await {
        Ok(answered) => answered,
        Err(BatchError::Data(_)) => {
            closing.clear();
            one_by_one(core, calls, finished).await?
        }
        Err(error @ BatchError::Retry(_)) => return Err(error),
    };
    calls.let_go(finished.iter().map(|finished| &finished.job));
    if !closing.is_empty() {
        open.acked.clear();
    }
    Ok(answered)
}

async fn settle_together<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[Finished],
    closing: &[Told],
) -> Result<Answered, BatchError> {
    let done = Box::pin(transact(core, calls, finished, closing, Waiting::Run)).await;
    match done {
        Ok(answered) => Ok(answered),
        Err(error) => Err(core.judge(error).await),
    }
}

/// Something in the batch cannot be settled. Alone, what waits for it may be to blame; then the outcome itself, which
/// cannot be thrown away: the same key brings it again.
async fn one_by_one<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[Finished],
) -> Result<Answered, BatchError> {
    let mut all = Answered::default();
    for one in finished {
        let mut answered = settle_together(core, calls, std::slice::from_ref(one), &[]).await;
        if let Err(BatchError::Data(why)) = &answered {
            error!(
                saga.id = %one.job.key.saga_id,
                saga.step = one.job.key.step,
                correlation.id = one.job.command.trace.correlation_id,
                error = %why,
                "an external call cannot be settled with what waits for it"
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

/// Nothing about it can be written, perhaps because its rows cannot be read. Others must not wait for that: the sweep
/// has it again when its lease is over, and by then a person may have looked.
fn leave(one: &Finished, why: &(dyn std::error::Error + Send + Sync)) {
    counter!("saga_settlements_left_total").increment(1);
    error!(
        saga.id = %one.job.key.saga_id,
        saga.step = one.job.key.step,
        correlation.id = one.job.command.trace.correlation_id,
        error = %why,
        "an external call cannot be settled at all, leaving it to the sweep"
    );
}

async fn alone<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    one: &Finished,
) -> Result<Answered, BatchError> {
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
    let again = Finished {
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

/// Closes intents whose replies are acknowledged, in a transaction of its own.
pub(super) async fn close<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    core: &Core<H, S>,
    acked: &[Told],
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

async fn transact<S: ParticipantStore, H: BatchHandler<S::Connection>>(
    core: &Core<H, S>,
    calls: &Calls<S::Connection>,
    finished: &[Finished],
    closing: &[Told],
    waiting: Waiting,
) -> Result<Answered, FoldError> {
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
        answered: Answered::default(),
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
    answered: Answered,
}

impl<S: ParticipantStore, H: BatchHandler<S::Connection>> Transaction<'_, H, S> {
    /// The participant's own rows, for all definite outcomes at once.
    async fn outcomes(
        &self,
        tx: &mut S::Tx,
        fold: &mut Fold<'_, H, S>,
        finished: &[Finished],
    ) -> Result<(), FoldError> {
        let settlements: Vec<Settlement> = finished
            .iter()
            .filter(|one| !matches!(one.outcome, CallOutcome::Indeterminate { .. }))
            .filter_map(|one| {
                let intent = fold.intents.get(&one.job.key)?;
                one.is_for(intent).then(|| Settlement {
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

    /// The barrier's row of one outcome; `None`: there is nothing to answer.
    fn decide<'f>(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &'f Finished,
    ) -> Result<Option<Decided<'f>>, FoldError> {
        let key = &one.job.key;
        let Some(intent) = fold.intents.get(key).filter(|intent| one.is_for(intent)) else {
            // Somebody else settled it: with the same key, and so with the same outcome.
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

    /// The commands that waited, all at once so that shared rows are locked once, and the replies of everything.
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

    /// What the outcome makes of the row and of the intent; `None`: it stays open.
    fn own_reply(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &Finished,
        intent: &Intent,
    ) -> Result<Option<(PreparedReply, IntentState)>, FoldError> {
        let (key, command) = (&one.job.key, &intent.command);
        let count = |outcome| self.core.count(&command.command_type, outcome);
        let released = |fold: &mut Fold<'_, H, S>, reply| {
            fold.barrier.clear(key);
            Ok(Some((reply, IntentState::Released)))
        };
        match &one.outcome {
            CallOutcome::Success { reply_type, result } => {
                count("success");
                let saved = reply::success(reply_type.clone(), result.clone());
                check_result(&saved)?;
                let reply = fold.save(command, one.direction(), Mark::Done, saved);
                Ok(Some((reply, IntentState::Settled)))
            }
            CallOutcome::Failure { reply_type, fault } => {
                count("failure");
                let saved = reply::failure(reply_type.clone(), fault);
                if saves_failure(command) {
                    let reply = fold.save(command, one.direction(), Mark::Failed, saved);
                    return Ok(Some((reply, IntentState::Settled)));
                }
                let reply = PreparedReply::new(command, one.direction(), saved, self.now);
                released(fold, reply)
            }
            CallOutcome::Error { fault } => {
                count("error");
                released(fold, PreparedReply::error(command, fault, self.now))
            }
            CallOutcome::Indeterminate { why } => Ok(self.undecided(fold, one, intent, why)),
        }
    }

    fn undecided(
        &self,
        fold: &mut Fold<'_, H, S>,
        one: &Finished,
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
        // A refusal, by a command that waited, makes a released intent final.
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
        self.answered.intents.push(Told::of(decided.key, intent));
        intent.replies = Some(decided.replies);
    }
}

/// An intent that gets its answers.
struct Decided<'f> {
    key: &'f RowKey,
    state: IntentState,
    waited: Vec<Command>,
    replies: Vec<PreparedReply>,
}

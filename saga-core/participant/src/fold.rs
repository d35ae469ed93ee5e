//! Handles the commands of a batch one after the other, over the barrier's rows in memory.
//!
//! The command processor folds a batch of records; a settlement folds the commands that waited for it. All rows are
//! read first and written last, with all decisions in memory. So any mix of duplicates, compensations and resolves of
//! one step in one batch ends as if each command had had its own transaction.

use super::{
    Answer, Failure, RawBatchHandler,
    barrier::{Barrier, BarrierRow, RowKey},
    calls::Job,
    core::Core,
    guard::{FoldError, HandlerFault, guarded},
    intake,
    intent::{Intent, IntentState, Intents, latest},
    reply::{self, PreparedReply, SavedReply},
    storage::{BarrierSnapshot, ParticipantStore, ParticipantTx, TxContext},
};
use metrics::{counter, histogram};
use saga_core::{
    barrier::{Admission, Mark, admit},
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Fault, Outcome},
    mutant::{self, Mutant},
};
use saga_messaging::consumer::BatchError;
use serde_json::{Value, json};
use std::{collections::HashSet, time::Duration};
use thiserror::Error;
use tokio::time::Instant;
use tracing::{Instrument, debug, error, info_span};

/// Largest result. With its headers it fits a Kafka record of the default size, in every record that it is copied into.
const RESULT_LIMIT_BYTES: usize = 512 * 1024;

/// A concurrent transaction wrote a row between this transaction's read and its write.
#[derive(Debug, Error)]
#[error("a rival was first with {missing} of the barrier's rows")]
struct Rival {
    missing: u64,
}

/// The result of the handler for one command.
enum Decided {
    Success(Value),
    Failure(Fault),
    Error(Fault),
    CallOutside,
}

pub(super) struct Fold<'a, H, S: ParticipantStore> {
    core: &'a Core<H, S>,
    now: Timestamp,
    pub barrier: Barrier,
    pub intents: Intents,
    jobs: Vec<Job>,
}

impl<'a, S: ParticipantStore, H: RawBatchHandler<S::Connection>> Fold<'a, H, S> {
    /// Reads the barrier's rows of these sagas (`ids` sorted) and the transaction's context. If the participant has
    /// external calls, their intents are locked first: the transaction that holds an intent decides its pending row.
    pub async fn begin(
        core: &'a Core<H, S>,
        tx: &mut S::Tx,
        ids: &[SagaId],
    ) -> Result<(Self, TxContext), FoldError> {
        let intents = match &core.calls {
            Some(_) => tx.lock_intents(ids).await?,
            None => Vec::new(),
        };
        let BarrierSnapshot { terms, rows } = tx.read_barrier(ids).await?;
        let fold = Self {
            core,
            now: terms.now,
            barrier: Barrier::new(rows),
            intents: Intents::new(intents),
            jobs: Vec::new(),
        };
        Ok((fold, terms))
    }

    /// Decides the commands in their order. The reply is `None` if the command is answered when its external call is
    /// settled.
    pub async fn run(
        &mut self,
        tx: &mut S::Tx,
        commands: &[Command],
    ) -> Result<Vec<Option<PreparedReply>>, FoldError> {
        let candidates = self.candidates(commands);
        let (handler, limit) = (&self.core.handler, self.core.config.handler_timeout);
        let mut rows = if candidates.is_empty() {
            None
        } else {
            Some(guarded(limit, handler.load(tx.connection(), &candidates)).await?)
        };
        let mut replies = Vec::with_capacity(commands.len());
        for command in commands {
            replies.push(self.decide(tx, rows.as_mut(), command).await?);
        }
        if let Some(rows) = rows {
            guarded(limit, handler.store(tx.connection(), rows)).await?;
        }
        Ok(replies)
    }

    /// Writes the changed rows. Returns the jobs to be called after the commit.
    pub async fn finish(self, tx: &mut S::Tx) -> Result<Vec<Job>, FoldError> {
        let (written, gone) = self.intents.changes();
        if !written.is_empty() {
            tx.write_intents(&written).await?;
        }
        if !gone.is_empty() {
            tx.remove_intents(&gone).await?;
        }
        let changes = self.barrier.changes();
        if !changes.deletes.is_empty() {
            let done = tx.release_barrier(&changes.deletes).await?;
            expect(done, changes.deletes.len())?;
        }
        if !changes.updates.is_empty() {
            let done = tx.settle_barrier(&changes.updates).await?;
            expect(done, changes.updates.len())?;
        }
        if !changes.inserts.is_empty() {
            let done = tx.insert_barrier(&changes.inserts).await?;
            expect(done, changes.inserts.len())?;
        }
        Ok(self.jobs)
    }

    /// Returns every command that may reach the handler. The barrier may still answer some of them.
    fn candidates<'c>(&self, commands: &'c [Command]) -> Vec<&'c Command> {
        let mut begun: HashSet<RowKey> = HashSet::new();
        commands
            .iter()
            .filter(|command| {
                let (forward, compensation) = self.barrier.marks(command);
                match command.direction {
                    Direction::Forward => {
                        begun.insert(RowKey::of(command, Direction::Forward));
                        forward.is_none()
                            && (compensation.is_none()
                                || mutant::on(Mutant::ForgetRefusalByCompensation))
                    }
                    Direction::Compensation => {
                        let key = RowKey::of(command, Direction::Forward);
                        compensation.is_none()
                            && (forward == Some(Mark::Done)
                                || (forward.is_none() && begun.contains(&key)))
                    }
                    Direction::Resolve => false,
                }
            })
            .collect()
    }

    async fn decide(
        &mut self,
        tx: &mut S::Tx,
        rows: Option<&mut H::Rows>,
        command: &Command,
    ) -> Result<Option<PreparedReply>, FoldError> {
        let (forward, compensation) = self.barrier.marks(command);
        let admission = admit(forward, compensation, command.direction);
        self.note(command, admission);
        let forward_key = RowKey::of(command, Direction::Forward);
        Ok(match admission {
            Admission::Run => return self.handle(tx, rows, command).await,
            Admission::AnswerOnSettlement => self.wait(command, forward),
            Admission::SavedForward => self.saved(command, &forward_key),
            Admission::SavedCompensation => {
                self.saved(command, &RowKey::of(command, Direction::Compensation))
            }
            Admission::RefuseAndCompensateEmpty => {
                if !mutant::on(Mutant::ForgetRefusalByCompensation) {
                    self.refuse(forward_key);
                }
                Some(self.compensate_empty(command))
            }
            Admission::CompensateEmpty => Some(self.compensate_empty(command)),
            Admission::RefuseAndAnswerNotDone => {
                if !mutant::on(Mutant::ForgetRefusalByResolve) {
                    self.refuse(forward_key);
                }
                Some(PreparedReply::not_done(command, self.now))
            }
            Admission::AnswerNotDone => Some(PreparedReply::not_done(command, self.now)),
        })
    }

    fn note(&self, command: &Command, admission: Admission) {
        let name = match admission {
            Admission::Run => "run",
            Admission::SavedForward => "saved_forward",
            Admission::SavedCompensation => "saved_compensation",
            Admission::RefuseAndCompensateEmpty => "refuse_and_compensate_empty",
            Admission::CompensateEmpty => "compensate_empty",
            Admission::RefuseAndAnswerNotDone => "refuse_and_answer_not_done",
            Admission::AnswerNotDone => "answer_not_done",
            Admission::AnswerOnSettlement => "answer_on_settlement",
        };
        counter!(
            "saga_barrier_total",
            "participant" => self.core.config.name.clone(),
            "admission" => name
        )
        .increment(1);
        debug!(
            saga.id = %command.saga_id,
            saga.step = command.step,
            correlation.id = command.trace.correlation_id,
            saga.attempt = command.attempt,
            admission = name,
            "{} arrived",
            command.command_type
        );
    }

    async fn handle(
        &mut self,
        tx: &mut S::Tx,
        rows: Option<&mut H::Rows>,
        command: &Command,
    ) -> Result<Option<PreparedReply>, FoldError> {
        let Some(rows) = rows else {
            let why = "a command runs for which no rows were loaded".to_owned();
            return Err(HandlerFault::Broken(why).into());
        };
        let span = info_span!(
            "command",
            saga.id = %command.saga_id,
            saga.step = command.step,
            correlation.id = command.trace.correlation_id,
        );
        let limit = self.core.config.handler_timeout;
        let began = Instant::now();
        let handler = &self.core.handler;
        let work = async {
            match handler.handle(tx.connection(), rows, command).await {
                Ok(Answer::Success(result)) => Ok(Decided::Success(result)),
                Ok(Answer::CallOutside) => Ok(Decided::CallOutside),
                Err(Failure::Business(fault)) => Ok(Decided::Failure(fault)),
                Err(Failure::Technical(fault)) => Ok(Decided::Error(fault)),
                Err(Failure::Handler(error)) => Err(error),
            }
        };
        let decided = guarded(limit, work.instrument(span)).await?;
        histogram!(
            "saga_command_handling_seconds",
            "participant" => self.core.config.name.clone(),
            "command" => self.core.labels.of(&command.command_type)
        )
        .record(began.elapsed());
        self.apply(command, decided)
    }

    fn apply(
        &mut self,
        command: &Command,
        decided: Decided,
    ) -> Result<Option<PreparedReply>, FoldError> {
        let direction = command.direction;
        let config = &self.core.config;
        Ok(match decided {
            Decided::Success(result) => {
                let saved = reply::success(config.success_reply(&command.command_type), result);
                check_result(&saved)?;
                self.core.count(&command.command_type, "success");
                Some(self.save(command, direction, Mark::Done, saved))
            }
            Decided::Failure(fault) => {
                self.core.count(&command.command_type, "failure");
                let saved = reply::failure(config.failure_reply.clone(), &fault);
                check_result(&saved)?;
                Some(if saves_failure(command) {
                    self.save(command, direction, Mark::Failed, saved)
                } else {
                    PreparedReply::new(command, direction, saved, self.now)
                })
            }
            Decided::Error(fault) => {
                self.core.count(&command.command_type, "error");
                if mutant::on(Mutant::SaveErrors) {
                    let mut saved =
                        reply::failure(format!("{}.error", command.command_type), &fault);
                    saved.outcome = Outcome::Error;
                    return Ok(Some(self.save(command, direction, Mark::Failed, saved)));
                }
                Some(PreparedReply::error(command, &fault, self.now))
            }
            Decided::CallOutside => {
                self.core.count(&command.command_type, "called_outside");
                self.open(command)?;
                None
            }
        })
    }

    /// Sets the command's row and returns the reply that the row now holds.
    pub fn save(
        &mut self,
        command: &Command,
        direction: Direction,
        mark: Mark,
        saved: SavedReply,
    ) -> PreparedReply {
        let reply = PreparedReply::new(command, direction, saved.clone(), self.now);
        let entry = BarrierRow {
            mark,
            reply: Some(saved),
            handled_at: self.now,
        };
        let key = RowKey::of(command, direction);
        self.intents.forget_released(&key);
        self.barrier.set(key, entry);
        reply
    }

    fn saved(&self, command: &Command, key: &RowKey) -> Option<PreparedReply> {
        if mutant::on(Mutant::ForgetSavedReply) {
            return None;
        }
        let entry = self.barrier.get(key)?;
        Some(PreparedReply::saved(
            command,
            key.direction,
            entry.reply.clone(),
            entry.handled_at,
        ))
    }

    fn refuse(&mut self, key: RowKey) {
        self.intents.forget_released(&key);
        let entry = BarrierRow {
            mark: Mark::Refused,
            reply: None,
            handled_at: self.now,
        };
        self.barrier.set(key, entry);
    }

    /// Saves the success of a compensation that has nothing to undo. Its reply looks like that of any other
    /// compensation, because to the saga there is no difference.
    fn compensate_empty(&mut self, command: &Command) -> PreparedReply {
        let reply_type = self.core.config.success_reply(&command.command_type);
        let saved = reply::success(reply_type, json!({}));
        self.save(command, Direction::Compensation, Mark::Done, saved)
    }

    /// Marks the command's row as pending and opens an intent. The call is made after the commit.
    fn open(&mut self, command: &Command) -> Result<(), FoldError> {
        let Some(calls) = &self.core.calls else {
            let why = "it calls outside, but the participant has no external calls".to_owned();
            return Err(HandlerFault::Broken(why).into());
        };
        let key = RowKey::of(command, command.direction);
        let generation = self.intents.get(&key).map_or(1, |intent| intent.generation);
        // A job that does not fit into the queue gets a lease of zero, so that it can be claimed at once.
        let fits = self.jobs.len() < calls.room();
        let lease = if fits {
            calls.limits.lease
        } else {
            Duration::ZERO
        };
        let intent = Intent {
            generation,
            state: IntentState::Open,
            lease_until: self.now + lease,
            opened_at: self.now,
            command: command.clone(),
            cancel: None,
            resolve: None,
            replies: None,
        };
        if fits {
            self.jobs.push(Job::new(key.clone(), &intent));
        }
        self.intents.set(key.clone(), intent);
        let entry = BarrierRow {
            mark: Mark::Pending,
            reply: None,
            handled_at: self.now,
        };
        self.barrier.set(key, entry);
        Ok(())
    }

    /// Adds the command to the open call's intent. Returns an error at once if the call will never be settled.
    fn wait(&mut self, command: &Command, forward: Option<Mark>) -> Option<PreparedReply> {
        let direction = match (command.direction, forward) {
            (Direction::Compensation, Some(Mark::Done)) => Direction::Compensation,
            (Direction::Forward | Direction::Compensation | Direction::Resolve, _) => {
                Direction::Forward
            }
        };
        let Some(intent) = self.intents.get_mut(&RowKey::of(command, direction)) else {
            error!(
                saga.id = %command.saga_id,
                saga.step = command.step,
                correlation.id = command.trace.correlation_id,
                "the barrier says that a call is open, but its intent is not there"
            );
            let fault = Fault::new("intent_missing", "an external call's intent is not there");
            return Some(PreparedReply::error(command, &fault, self.now));
        };
        if intent.state == IntentState::Expired {
            return Some(PreparedReply::error(command, &outcome_unknown(), self.now));
        }
        if command.direction == direction {
            intent.asked_again(command);
        } else {
            match command.direction {
                Direction::Compensation => latest(&mut intent.cancel, command),
                Direction::Resolve | Direction::Forward => latest(&mut intent.resolve, command),
            }
        }
        None
    }
}

/// Returns `true` if the command's failure is final. A compensation's failure never is, whatever the command says: it
/// parks the saga and is tried again.
pub(super) fn saves_failure(command: &Command) -> bool {
    command.save_failure && command.direction == Direction::Forward
}

/// Returns the fault for a call whose outcome can no longer be learned.
pub(super) fn outcome_unknown() -> Fault {
    Fault::new(
        "outcome_unknown",
        "the outcome of an external call could not be learned in its key's lifetime: a person has to look",
    )
}

pub(super) fn check_result(saved: &SavedReply) -> Result<(), HandlerFault> {
    let bytes = saved.payload.to_string().len();
    if bytes > RESULT_LIMIT_BYTES {
        return Err(HandlerFault::Broken(format!(
            "its result has {bytes} bytes, at most {RESULT_LIMIT_BYTES} are possible"
        )));
    }
    intake::check_result(&saved.payload)
        .map_err(|why| HandlerFault::Broken(format!("its result cannot be passed on: {why}")))
}

fn expect(done: u64, sent: usize) -> Result<(), BatchError> {
    let missing = (sent as u64).saturating_sub(done);
    if missing == 0 {
        Ok(())
    } else {
        Err(BatchError::Retry(Box::new(Rival { missing })))
    }
}

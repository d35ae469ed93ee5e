//! Decides one batch of inputs, without I/O.
//!
//! [`fold`] gets the rows that were loaded for a batch, and returns everything that results from the batch: the rows to
//! write, the commands and events to publish, the records to dead-letter, and the changes for the timers.
//!
//! An input whose position (partition, offset and record time) is in its saga's log is a *redelivery*: the events of
//! that input are sent again, and so are, once per saga and batch, the commands that are in flight now. For any other
//! input of a known saga, its content decides whether it applies (`saga_core::transition`). An input that does not
//! apply is a plain duplicate and sends nothing, so that duplicates do not cause further duplicates.

use super::{
    decode::{ReceivedInput, Rejected},
    fold_error::FoldError,
    outcome::{BatchOutcome, Context, Disposition, kind_of, start_hash},
    saga::{SagaFold, StoredAs},
    saga_store::{ActionRow, BusinessKeyOf, Loaded, Plan},
};
use crate::registry::Choice;
use saga_core::{
    definition::{BusinessKey, SagaDefinition},
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, Position},
    message::{Input, OperatorAction, Reply, StartSaga, TimerDue},
    mutant::{self, Mutant},
    transition,
};
use saga_messaging::dead_letter::reason;
use std::{
    collections::{BTreeMap, HashSet},
    sync::Arc,
};
use uuid::Uuid;

/// The time in milliseconds by which an id may be ahead of the database's clock: 24 hours. Participants allow the same.
const AHEAD_LIMIT_MS: i64 = 24 * 3_600 * 1_000;

/// Applies the inputs of a batch to the loaded rows, one by one and in log order. Fails if the batch cannot be decided
/// as a whole. There are four cases, one for each kind of input:
///
/// - A *start* creates its saga and sends the first commands. Its record is dead-lettered if the saga exists with other
///   content, if the id is outside of the accepted window, if the definition is unknown or withdrawn, if the input does
///   not fit the definition's schema, or if another saga holds the business key.
/// - A *reply* applies a participant's answer to its saga. A reply to an unknown saga is ignored.
/// - A *timer* that fell due is applied in the same way, and is no longer outstanding.
/// - An *operator's action* is decided once per action id and always audited. An action is refused if its saga is
///   unknown, has ended, or is at another version than the action expects.
pub fn fold(
    context: Context<'_>,
    inputs: Vec<ReceivedInput>,
    loaded: Loaded,
) -> Result<BatchOutcome, FoldError> {
    let mut batch = BatchFold::new(context, loaded)?;
    for received in inputs {
        let ReceivedInput {
            index,
            position,
            again,
            input,
        } = received;
        let kind = kind_of(&input);
        let disposition = match input {
            Input::Start(start) => batch.start(index, position, again, &start)?,
            Input::Reply(reply) => batch.reply(position, reply),
            Input::Timer(timer) => batch.timer(position, timer),
            Input::Operator(action) => batch.action(position, action),
        };
        *batch
            .outcome
            .dispositions
            .entry((kind, disposition))
            .or_default() += 1;
    }
    Ok(batch.finish())
}

/// The reason and the detail of a dead letter.
type Refusal = (&'static str, String);
/// The definition that a new saga takes, or why its start is dead-lettered.
type Admission = Result<Arc<SagaDefinition>, Refusal>;

struct BatchFold<'a> {
    context: Context<'a>,
    now: Timestamp,
    /// The later of the store's `starts_from` and the floor that commands carry. No saga that is older is started.
    starts_from: Option<Timestamp>,
    decided: HashSet<Uuid>,
    /// The sagas that hold a unique business key, by that key.
    holders: BTreeMap<BusinessKeyOf, SagaId>,
    sagas: BTreeMap<SagaId, SagaFold>,
    outcome: BatchOutcome,
}

impl<'a> BatchFold<'a> {
    fn new(context: Context<'a>, loaded: Loaded) -> Result<Self, FoldError> {
        let Loaded {
            now,
            starts_from,
            generation: _,
            holders,
            live,
            ended,
            decided,
        } = loaded;
        let live = live.into_iter().map(|row| {
            let stored_as = StoredAs::Live {
                version: row.version,
            };
            (stored_as, row.instance, row.start_hash)
        });
        let ended = ended
            .into_iter()
            .map(|row| (StoredAs::History, row.instance, row.start_hash));
        let mut sagas = BTreeMap::new();
        for (stored_as, instance, start_hash) in live.chain(ended) {
            let hash = &instance.definition_hash;
            let definition = context
                .registry
                .by_hash(hash)
                .ok_or_else(|| FoldError::MissingDefinition(hash.clone()))?;
            sagas.insert(
                instance.id,
                SagaFold::new(stored_as, instance, definition, start_hash),
            );
        }
        Ok(Self {
            context,
            now,
            starts_from: starts_from.max(context.command_context.floor),
            decided,
            holders,
            sagas,
            outcome: BatchOutcome {
                plan: Plan {
                    generation: context.current.generation,
                    ..Plan::default()
                },
                ..BatchOutcome::default()
            },
        })
    }

    /// `again` says that the start was sent again together with a cancel, so its saga may have been under way before.
    fn start(
        &mut self,
        index: usize,
        position: Position,
        again: bool,
        start: &StartSaga,
    ) -> Result<Disposition, FoldError> {
        let hash = start_hash(start);
        if let Some(saga) = self.sagas.get_mut(&start.saga_id) {
            if saga.start_hash == hash {
                return Ok(saga.on_not_applied(&self.context, position));
            }
            let detail = format!("saga {} was started with other content", start.saga_id);
            return Ok(self.reject(index, (reason::ID_CONFLICT, detail)));
        }
        let definition = match self.admit(start, again)? {
            Ok(definition) => definition,
            Err(refusal) => return Ok(self.reject(index, refusal)),
        };
        let begin = if again {
            transition::recover
        } else {
            transition::start
        };
        let made = begin(
            &definition,
            start,
            position.partition,
            self.now,
            position,
            self.context.command_context,
        );
        let mut saga = SagaFold::new(StoredAs::New, made.saga.clone(), definition, hash);
        saga.apply(&self.context, made, self.now);
        self.sagas.insert(start.saga_id, saga);
        self.outcome.transitions += 1;
        Ok(Disposition::Applied)
    }

    /// Checks whether a new saga may start, and claims its business key. Returns the definition that the saga takes, or
    /// why the start is dead-lettered.
    fn admit(&mut self, start: &StartSaga, again: bool) -> Result<Admission, FoldError> {
        if let Err(refusal) = self.check_id(start.saga_id) {
            return Ok(Err(refusal));
        }
        let definition = match self.context.current.choose(&start.definition) {
            Some(Choice::Runs(definition)) => Arc::clone(definition),
            // A saga that was under way and whose state is lost continues, even if its definition is withdrawn.
            Some(Choice::Withdrawn {
                last: Some(definition),
                ..
            }) if again => Arc::clone(definition),
            Some(Choice::Withdrawn { why, .. }) => {
                return Ok(Err((reason::DEFINITION_WITHDRAWN, why.clone())));
            }
            Some(Choice::Unreadable(why)) => return Err(FoldError::Unreadable(why.clone())),
            None => {
                let detail = format!("no definition '{}' is registered", start.definition);
                return Ok(Err((reason::UNKNOWN_DEFINITION, detail)));
            }
        };
        if let Err(misfit) = definition.check_input(&start.input) {
            return Ok(Err((reason::BAD_PAYLOAD, misfit.to_string())));
        }
        if let Some(detail) = self.claim_key(&definition, start)? {
            return Ok(Err((reason::BUSINESS_KEY_TAKEN, detail)));
        }
        Ok(Ok(definition))
    }

    /// Claims the saga's business key if its definition demands that live sagas have unique keys. Returns the reason
    /// for rejecting the start if another saga holds the key. Fails if that saga ends in this batch.
    fn claim_key(
        &mut self,
        definition: &SagaDefinition,
        start: &StartSaga,
    ) -> Result<Option<String>, FoldError> {
        let (BusinessKey::Unique, Some(key)) = (definition.business_key, &start.business_key)
        else {
            return Ok(None);
        };
        let key = (start.definition.clone(), key.clone());
        let Some(holder) = self.holders.get(&key) else {
            self.holders.insert(key, start.saga_id);
            return Ok(None);
        };
        let ends = |saga: &SagaFold| saga.instance.status.is_ended();
        if self.sagas.get(holder).is_some_and(ends) {
            return Err(FoldError::KeyNotFreeYet(*holder));
        }
        let (name, key) = key;
        Ok(Some(format!(
            "saga {holder} of '{name}' is live with the business key '{key}'"
        )))
    }

    /// Checks that an id is a UUIDv7, is at most a day ahead of the database's clock, and is not of a time that
    /// retention has forgotten.
    ///
    /// The distance between an id and its record's time does not matter, and neither does the time by which an id is
    /// behind the clock. An accepted start stays in its starter's outbox while Kafka is unavailable or refuses the
    /// starter's clock, and must not be rejected because of that. Every saga above the floor is remembered, so a start
    /// that is not new is always recognized. (Sending the start with the time of its acceptance would not help: the
    /// topic's retention uses the same time and would delete the record unread.) Ids ahead of the clock are limited
    /// because history has partitions only for a limited time ahead.
    fn check_id(&self, id: SagaId) -> Result<(), Refusal> {
        let Some(created_ms) = id.created_at_ms() else {
            return Err((reason::ID_OUT_OF_WINDOW, format!("{id} is not a UUIDv7")));
        };
        let ahead_ms = created_ms - self.now.timestamp_millis();
        if ahead_ms > AHEAD_LIMIT_MS {
            let detail = format!(
                "{id} says that it was made {} s ahead of the database's clock: the clock of whoever made it is wrong, \
                 or the database's",
                ahead_ms / 1_000
            );
            return Err((reason::ID_OUT_OF_WINDOW, detail));
        }
        match self.starts_from {
            Some(_) if mutant::on(Mutant::IgnoreFloorOfStarts) => Ok(()),
            Some(from) if created_ms < from.timestamp_millis() => Err((
                reason::BELOW_FLOOR,
                format!(
                    "{id} is older than what is remembered (since {from}): it may have run already"
                ),
            )),
            Some(_) | None => Ok(()),
        }
    }

    fn reject(&mut self, index: usize, (reason, detail): Refusal) -> Disposition {
        self.outcome.rejected.push(Rejected {
            index,
            reason,
            detail,
        });
        Disposition::DeadLettered
    }

    fn reply(&mut self, position: Position, reply: Reply) -> Disposition {
        let Some(saga) = self.sagas.get_mut(&reply.saga_id) else {
            return Disposition::Stale;
        };
        if mutant::on(Mutant::ForgetLaterInBatch) && saga.changed {
            return Disposition::Stale;
        }
        let time = saga.step_time(&reply, self.now);
        let (disposition, _) = saga.decide(&self.context, self.now, position, Input::Reply(reply));
        if disposition == Disposition::Applied {
            self.outcome.transitions += 1;
            self.outcome.step_times.extend(time);
        }
        disposition
    }

    fn timer(&mut self, position: Position, timer: TimerDue) -> Disposition {
        let Some(saga) = self.sagas.get_mut(&timer.saga_id) else {
            return Disposition::Stale;
        };
        saga.handled.push((timer.kind, timer.part.clone()));
        let (disposition, _) = saga.decide(&self.context, self.now, position, Input::Timer(timer));
        self.outcome.transitions += u64::from(disposition == Disposition::Applied);
        disposition
    }

    /// Decides an operator's action once per action id, however often the action arrives. Always writes an audit row,
    /// even if the saga is unknown.
    fn action(&mut self, position: Position, action: OperatorAction) -> Disposition {
        let first = self.decided.insert(action.action_id);
        let Some(saga) = self.sagas.get_mut(&action.saga_id) else {
            if first {
                let message = format!("no saga {} is known", action.saga_id);
                let verdict = refused("unknown_saga", message, Vec::new());
                self.audit(action, verdict, None, None);
            }
            return Disposition::Stale;
        };
        if !first {
            return saga.on_not_applied(&self.context, position);
        }
        let before = saga.instance.status.as_str();
        if saga.instance.status.is_ended() {
            let verdict = transition::verdict_after_end(&saga.instance.status);
            self.audit(action, verdict, Some(before), Some(before));
            return Disposition::Stale;
        }
        if let Some(expected) = action.if_version
            && expected != saga.instance.sequence
        {
            let message = format!(
                "the saga is at version {}, not at {expected}",
                saga.instance.sequence
            );
            let verdict = refused("version_changed", message, saga.legal());
            self.audit(action, verdict, Some(before), Some(before));
            return Disposition::Stale;
        }
        let input = Input::Operator(action.clone());
        let (disposition, verdict) = saga.decide(&self.context, self.now, position, input);
        let after = saga.instance.status.as_str();
        if let Some(verdict) = verdict {
            self.audit(action, verdict, Some(before), Some(after));
        }
        self.outcome.transitions += u64::from(disposition == Disposition::Applied);
        disposition
    }

    fn audit(
        &mut self,
        action: OperatorAction,
        verdict: ActionVerdict,
        status_before: Option<&'static str>,
        status_after: Option<&'static str>,
    ) {
        self.outcome.plan.actions.push(ActionRow {
            action,
            verdict,
            decided_at: self.now,
            status_before,
            status_after,
        });
    }

    fn finish(mut self) -> BatchOutcome {
        let mut events = Vec::new();
        for (_, mut saga) in std::mem::take(&mut self.sagas) {
            saga.resend_in_flight(&self.context);
            saga.finish(&mut self.outcome, &mut events);
        }
        self.outcome.outputs.append(&mut events);
        let plan = &mut self.outcome.plan;
        plan.actions.sort_by_key(|row| row.action.action_id);
        plan.settled.sort_by_key(|row| row.action_id);
        self.outcome
    }
}

fn refused(code: &str, message: String, legal: Vec<String>) -> ActionVerdict {
    ActionVerdict::Refused {
        code: code.to_owned(),
        message,
        legal,
    }
}

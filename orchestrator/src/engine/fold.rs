//! The decisions of one batch, without I/O: every input of every saga, folded in log order onto what was loaded.
//!
//! An input whose partition and offset stand in the saga's log is a *redelivery*: its events are sent again, and once a
//! saga a batch the commands now in flight. Content decides whether any other one applies (`saga_core::transition`); one
//! that does not is a plain duplicate and yields nothing, so that duplicates cannot breed others.

use super::{
    decode::{Arrived, Rejected},
    saga_store::{ActionRow, Loaded, Plan},
    settings::EngineSettings,
    work::{Stood, Work},
};
use crate::registry::Registry;
use saga_core::{
    definition::DefinitionHash,
    ids::{SagaId, Timestamp},
    instance::{ActionVerdict, ArmedTimer, Position},
    message::{
        Direction, DuePart, Input, OperatorAction, OutgoingRecord, Reply, StartSaga, TimerDue,
        TimerKind,
    },
    mutant::{self, Mutant},
    transition::{self, EventBody, Outbound, SagaEvent},
};
use saga_messaging::dead_letter::reason;
use sha2::{Digest, Sha256};
use std::collections::{BTreeMap, HashSet};
use thiserror::Error;
use uuid::Uuid;

/// How far an id may lie ahead of the database's clock: participants allow as much.
const AHEAD_LIMIT_MS: i64 = 24 * 3_600 * 1_000;

/// A saga is pinned to a definition that nobody holds.
#[derive(Debug, Error)]
#[error("no definition with hash {} is registered", .0.0)]
pub struct MissingDefinition(pub DefinitionHash);

/// What the decisions depend on, beside the inputs and the rows.
#[derive(Clone, Copy)]
pub struct Context<'a> {
    pub registry: &'a Registry,
    pub settings: &'a EngineSettings,
    pub outbound: &'a Outbound,
    /// Offsets of `saga.inputs` known to be committed, by partition: log entries below them may be dropped.
    pub committed: &'a BTreeMap<i32, i64>,
}

/// What became of an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Fate {
    Applied,
    Redelivered,
    Duplicate,
    /// Its step has moved on, or its saga is over or unknown.
    Stale,
    DeadLettered,
}

impl Fate {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Redelivered => "redelivered",
            Self::Duplicate => "duplicate",
            Self::Stale => "stale",
            Self::DeadLettered => "dead_lettered",
        }
    }
}

/// The word for an input in metrics.
pub fn kind_of(input: &Input) -> &'static str {
    match input {
        Input::Start(_) => "start",
        Input::Reply(_) => "reply",
        Input::Timer(_) => "timer",
        Input::Operator(_) => "action",
    }
}

/// How long a step's command took from being sent to its answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepTime {
    pub definition: String,
    pub step: String,
    pub direction: Direction,
    pub milliseconds: i64,
}

/// What the timers must know of a saga that a batch touched.
#[derive(Clone, Debug)]
pub struct Touched {
    pub id: SagaId,
    pub home_partition: i32,
    /// Empty once it has ended.
    pub timers: Vec<ArmedTimer>,
    /// Commands of the batch: where they stand is known once they are acknowledged.
    pub sent: Vec<DuePart>,
    /// Timers that the batch decided: they are no longer outstanding.
    pub handled: Vec<(TimerKind, Option<DuePart>)>,
    pub ended: bool,
}

/// Everything a batch comes to.
#[derive(Debug, Default)]
pub struct Folded {
    pub plan: Plan,
    /// Commands first, then events; those of one saga in order.
    pub outputs: Vec<OutgoingRecord>,
    pub rejected: Vec<Rejected>,
    pub touched: Vec<Touched>,
    pub fates: BTreeMap<(&'static str, Fate), u64>,
    pub step_times: Vec<StepTime>,
    pub transitions: u64,
}

/// Folds a batch.
pub fn fold(
    context: Context<'_>,
    arrived: Vec<Arrived>,
    loaded: Loaded,
) -> Result<Folded, MissingDefinition> {
    let mut folding = Folding::new(context, loaded)?;
    for input in arrived {
        folding.take(input);
    }
    Ok(folding.finish())
}

/// SHA-256 of what makes two starts the same.
pub fn start_hash(start: &StartSaga) -> Vec<u8> {
    let mut hash = Sha256::new();
    let parts = [
        start.definition.as_str(),
        start.start_type.as_str(),
        start.business_key.as_deref().unwrap_or_default(),
        &start.input.to_string(),
    ];
    for part in parts {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part.as_bytes());
    }
    hash.finalize().to_vec()
}

struct Folding<'a> {
    context: Context<'a>,
    now: Timestamp,
    /// The later of what the store says and the floor that commands carry: no saga that is older is started.
    starts_from: Option<Timestamp>,
    decided: HashSet<Uuid>,
    sagas: BTreeMap<SagaId, Work>,
    folded: Folded,
}

impl<'a> Folding<'a> {
    fn new(context: Context<'a>, loaded: Loaded) -> Result<Self, MissingDefinition> {
        let Loaded {
            now,
            starts_from,
            live,
            ended,
            decided,
        } = loaded;
        let live = live.into_iter().map(|row| {
            let stood = Stood::Live {
                version: row.version,
            };
            (stood, row.instance, row.start_hash)
        });
        let ended = ended
            .into_iter()
            .map(|row| (Stood::History, row.instance, row.start_hash));
        let mut sagas = BTreeMap::new();
        for (stood, instance, start_hash) in live.chain(ended) {
            let hash = &instance.definition_hash;
            let definition = context
                .registry
                .by_hash(hash)
                .ok_or_else(|| MissingDefinition(hash.clone()))?;
            sagas.insert(
                instance.id,
                Work::new(stood, instance, definition, start_hash),
            );
        }
        Ok(Self {
            context,
            now,
            starts_from: starts_from.max(context.outbound.floor),
            decided,
            sagas,
            folded: Folded::default(),
        })
    }

    fn take(&mut self, arrived: Arrived) {
        let kind = kind_of(&arrived.input);
        let Arrived {
            index,
            position,
            record_at_ms,
            input,
        } = arrived;
        let fate = match input {
            Input::Start(start) => self.start(index, position, record_at_ms, &start),
            Input::Reply(reply) => self.reply(position, reply),
            Input::Timer(timer) => self.timer(position, timer),
            Input::Operator(action) => self.action(position, action),
        };
        *self.folded.fates.entry((kind, fate)).or_default() += 1;
    }

    fn start(
        &mut self,
        index: usize,
        position: Position,
        record_at_ms: i64,
        start: &StartSaga,
    ) -> Fate {
        let hash = start_hash(start);
        if let Some(work) = self.sagas.get_mut(&start.saga_id) {
            if work.start_hash == hash {
                return work.again(&self.context, position);
            }
            let detail = format!("saga {} was started with other content", start.saga_id);
            return self.reject(index, reason::ID_CONFLICT, detail);
        }
        if let Err((reason, detail)) = self.check_id(start.saga_id, record_at_ms) {
            return self.reject(index, reason, detail);
        }
        let Some(definition) = self.context.registry.latest(&start.definition) else {
            let detail = format!("no definition '{}' is registered", start.definition);
            return self.reject(index, reason::UNKNOWN_DEFINITION, detail);
        };
        let outbound = self.context.outbound;
        let made = transition::start(
            &definition,
            start,
            position.partition,
            self.now,
            position,
            outbound,
        );
        let mut work = Work::new(Stood::Nowhere, made.saga.clone(), definition, hash);
        work.apply(&self.context, made, self.now);
        self.sagas.insert(start.saga_id, work);
        self.folded.transitions += 1;
        Fate::Applied
    }

    /// Ids are UUIDv7, not ahead of their record's time, and not of a time that retention has forgotten.
    ///
    /// How far behind its record's time an id is does not matter: a start that was accepted stands in its starter's
    /// outbox for as long as Kafka is away, and is not refused for that. All that is above the floor is remembered, so
    /// a start that is not new is always known again. (To send it with the time of its acceptance would be no way out:
    /// the topic's retention goes by the same time, and would delete it unread.)
    fn check_id(&self, id: SagaId, record_at_ms: i64) -> Result<(), (&'static str, String)> {
        let settings = self.context.settings;
        let Some(created_ms) = id.created_at_ms() else {
            return Err((reason::ID_OUT_OF_WINDOW, format!("{id} is not a UUIDv7")));
        };
        let record_ms = if record_at_ms > 0 {
            record_at_ms
        } else {
            self.now.timestamp_millis()
        };
        // A record's time is its producer's, whose clock may be anything; history only reaches so far ahead of ours.
        let latest = record_ms
            .saturating_add(settings.id_window_after_ms)
            .min(self.now.timestamp_millis() + AHEAD_LIMIT_MS);
        if created_ms > latest {
            let detail = format!(
                "{id} says that it was made {} s after its record",
                (created_ms - record_ms) / 1_000
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

    fn reject(&mut self, index: usize, reason: &'static str, detail: String) -> Fate {
        self.folded.rejected.push(Rejected {
            index,
            reason,
            detail,
        });
        Fate::DeadLettered
    }

    fn reply(&mut self, position: Position, reply: Reply) -> Fate {
        let Some(work) = self.sagas.get_mut(&reply.saga_id) else {
            return Fate::Stale;
        };
        if mutant::on(Mutant::ForgetLaterInBatch) && work.changed {
            return Fate::Stale;
        }
        let time = work.step_time(&reply, self.now);
        let body = EventBody::CommandReplied(reply);
        let (fate, _) = work.decide(
            &self.context,
            SagaEvent {
                at: self.now,
                position,
                body,
            },
        );
        if fate == Fate::Applied {
            self.folded.transitions += 1;
            self.folded.step_times.extend(time);
        }
        fate
    }

    fn timer(&mut self, position: Position, timer: TimerDue) -> Fate {
        let Some(work) = self.sagas.get_mut(&timer.saga_id) else {
            return Fate::Stale;
        };
        work.handled.push((timer.kind, timer.part.clone()));
        let body = EventBody::TimerFired(timer);
        let (fate, _) = work.decide(
            &self.context,
            SagaEvent {
                at: self.now,
                position,
                body,
            },
        );
        self.folded.transitions += u64::from(fate == Fate::Applied);
        fate
    }

    /// Decided once, whatever arrives how often, and always with an audit row, also when there is no saga to ask.
    fn action(&mut self, position: Position, action: OperatorAction) -> Fate {
        let first = self.decided.insert(action.action_id);
        let Some(work) = self.sagas.get_mut(&action.saga_id) else {
            if first {
                let message = format!("no saga {} is known", action.saga_id);
                let verdict = refused("unknown_saga", message, Vec::new());
                self.audit(action, verdict, None, None);
            }
            return Fate::Stale;
        };
        if !first {
            return work.again(&self.context, position);
        }
        let before = work.instance.status.as_str();
        if work.instance.status.is_ended() {
            let verdict = transition::verdict_after_end(&work.instance.status);
            self.audit(action, verdict, Some(before), Some(before));
            return Fate::Stale;
        }
        if let Some(expected) = action.if_version
            && expected != work.instance.sequence
        {
            let message = format!(
                "the saga is at version {}, not at {expected}",
                work.instance.sequence
            );
            let verdict = refused("version_changed", message, work.legal());
            self.audit(action, verdict, Some(before), Some(before));
            return Fate::Stale;
        }
        let body = EventBody::ActionAsked(action.clone());
        let event = SagaEvent {
            at: self.now,
            position,
            body,
        };
        let (fate, verdict) = work.decide(&self.context, event);
        let after = work.instance.status.as_str();
        if let Some(verdict) = verdict {
            self.audit(action, verdict, Some(before), Some(after));
        }
        self.folded.transitions += u64::from(fate == Fate::Applied);
        fate
    }

    fn audit(
        &mut self,
        action: OperatorAction,
        verdict: ActionVerdict,
        status_before: Option<&'static str>,
        status_after: Option<&'static str>,
    ) {
        self.folded.plan.actions.push(ActionRow {
            action,
            verdict,
            decided_at: self.now,
            status_before,
            status_after,
        });
    }

    fn finish(mut self) -> Folded {
        let mut events = Vec::new();
        for (id, mut work) in std::mem::take(&mut self.sagas) {
            work.send_in_flight(&self.context);
            self.folded.outputs.append(&mut work.commands);
            events.append(&mut work.events);
            if work.concerns_timers() {
                self.folded.touched.push(work.touched(id));
            }
            self.folded.plan.settled.append(&mut work.settled);
            work.plan(&mut self.folded.plan);
        }
        self.folded.outputs.append(&mut events);
        self.folded
            .plan
            .actions
            .sort_by_key(|row| row.action.action_id);
        self.folded.plan.settled.sort_by_key(|row| row.action_id);
        self.folded
    }
}

fn refused(code: &str, message: String, legal: Vec<String>) -> ActionVerdict {
    ActionVerdict::Refused {
        code: code.to_owned(),
        message,
        legal,
    }
}

//! The business logic of the participants: effects in a ledger, and an external gateway that recognizes its keys.

use super::{
    faults::Site,
    process::Process,
    store::SimConnection,
    workload::{Behavior, CALLER, Workload},
    world::{World, lock, number_of},
};
use crate::store::Effect;
use async_trait::async_trait;
use chrono::TimeDelta;
use saga_core::message::{Command, Direction, Fault};
use saga_participant::{
    Answer, Failure, HandlerError,
    external::{CallLimits, CallOutcome},
    internal::{RawBatchHandler, RawCalls, RawCommandHandler, RawSettlement},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::time::sleep;

/// The number of rows that commands of different sagas share.
const SHARED_ROWS: u64 = 3;
/// The slowest call. It is shorter than the limit of a call: a call that always exceeded the limit would never be
/// settled.
const SLOWEST_CALL: Duration = Duration::from_millis(700);
/// The most refusals of the gateway for one step.
const MOST_REFUSALS: u32 = 2;

/// A handler that behaves as the workload defines.
pub struct Handler {
    pub workload: Arc<Workload>,
    pub process: Process,
}

impl Handler {
    async fn decide(&self, command: &Command) -> Result<Answer, Failure> {
        let behavior = self.workload.behavior(command);
        if command.attempt <= behavior.slow_until {
            sleep(behavior.slow).await;
        }
        if !self.workload.is_calm(command.saga_id) && self.process.strikes(Site::HandlerErrs) {
            return Err(Failure::technical("broken", "by chance"));
        }
        answer(&self.process.world, command, behavior)
    }
}

/// Returns success, or the failure that the behavior defines.
fn answer(world: &World, command: &Command, behavior: Behavior) -> Result<Answer, Failure> {
    let why = "as the workload says";
    let began_ms = command.saga_id.created_at_ms().unwrap_or_default();
    let age_ms = world.now(TimeDelta::zero()).timestamp_millis() - began_ms;
    let is_unavailable = age_ms < behavior.errors_for.as_millis() as i64;
    if is_unavailable || command.attempt <= behavior.errors_until {
        return Err(Failure::technical("broken", why));
    }
    if behavior.fails || command.attempt <= behavior.breaks_until {
        return Err(Failure::business("declined", why));
    }
    Answer::success(json!({"of": command.step}))
}

/// Handles one command at a time. Payments call the gateway.
#[async_trait]
impl RawCommandHandler<SimConnection> for Handler {
    async fn handle(&self, tx: &mut SimConnection, command: &Command) -> Result<Answer, Failure> {
        if command.command_type.starts_with(CALLER) {
            return Ok(Answer::CallOutside);
        }
        // The effect is written first, so that the savepoint must undo it after a failure or an error.
        tx.record(command.saga_id, &command.step, command.direction);
        self.decide(command).await
    }
}

/// Handles a whole batch in the same way: shared rows are locked once, in key order.
pub struct InBatches(pub Handler);

#[async_trait]
impl RawBatchHandler<SimConnection> for InBatches {
    type Rows = Vec<(Command, Direction)>;

    async fn load(
        &self,
        tx: &mut SimConnection,
        commands: &[&Command],
    ) -> Result<Self::Rows, HandlerError> {
        let shared: BTreeSet<u64> = commands
            .iter()
            .map(|command| number_of(command.saga_id) % SHARED_ROWS)
            .collect();
        for row in shared {
            tx.lock_shared(row).await?;
        }
        Ok(Vec::new())
    }

    async fn handle(
        &self,
        _: &mut SimConnection,
        rows: &mut Self::Rows,
        command: &Command,
    ) -> Result<Answer, Failure> {
        let answer = self.0.decide(command).await;
        if answer.is_ok() {
            rows.push((command.clone(), command.direction));
        }
        answer
    }

    async fn store(&self, tx: &mut SimConnection, rows: Self::Rows) -> Result<(), HandlerError> {
        for (command, direction) in rows {
            tx.record(command.saga_id, &command.step, direction);
        }
        Ok(())
    }
}

/// The payment gateway. It outlives every process, and remembers every key that it was called with.
#[derive(Default)]
pub struct Gateway {
    answers: Mutex<BTreeMap<String, CallOutcome>>,
    refusals: Mutex<BTreeMap<String, u32>>,
}

impl Gateway {
    /// Returns the result of the key. The call has its effect only the first time.
    fn execute(
        &self,
        world: &World,
        who: &str,
        key: &str,
        command: &Command,
        behavior: Behavior,
    ) -> CallOutcome {
        if let Some(answered) = lock(&self.answers).get(key) {
            return answered.clone();
        }
        let outcome = if self.refuses(world, who, command) {
            CallOutcome::Error(Fault::new("gateway", "it refused for a technical reason"))
        } else {
            match answer(world, command, behavior) {
                Ok(Answer::Success(result)) => CallOutcome::Success(result),
                Err(Failure::Business(fault)) => CallOutcome::Failure(fault),
                Err(Failure::Technical(fault)) => CallOutcome::Error(fault),
                Ok(Answer::CallOutside) | Err(Failure::Handler(_)) => CallOutcome::Indeterminate {
                    why: "never".to_owned(),
                },
            }
        };
        if let CallOutcome::Success(_) = outcome {
            let (saga, step) = (number_of(command.saga_id), &command.step);
            world.note(
                who,
                format_args!(
                    "EFFECT outside saga {saga} {step} {} by {key}",
                    command.direction
                ),
            );
            world.history().effects.push(Effect {
                saga: command.saga_id,
                step: step.clone(),
                direction: command.direction,
                at: world.elapsed(),
            });
        }
        lock(&self.answers).insert(key.to_owned(), outcome.clone());
        outcome
    }

    fn refuses(&self, world: &World, who: &str, command: &Command) -> bool {
        let of = format!("{}/{}/{}", command.saga_id, command.step, command.direction);
        let mut refusals = lock(&self.refusals);
        let count = refusals.entry(of).or_default();
        let refuses = *count < MOST_REFUSALS && world.strikes(Site::GatewayRefuses, who);
        *count += u32::from(refuses);
        refuses
    }
}

/// A payment process's client of the gateway.
pub struct Calls {
    pub gateway: Arc<Gateway>,
    pub workload: Arc<Workload>,
    pub process: Process,
}

#[async_trait]
impl RawCalls<SimConnection> for Calls {
    fn limits(&self) -> CallLimits {
        CallLimits {
            concurrency: 4,
            per_second: None,
            timeout: Duration::from_secs(1),
            lease: Duration::from_secs(3),
            retry_delay: Duration::from_millis(200),
            key_lifetime: Duration::from_hours(24),
        }
    }

    async fn call(&self, key: &str, command: &Command) -> CallOutcome {
        let process = &self.process;
        process.gate(Site::CrashBeforeProduce).await;
        process.latency().await;
        let behavior = self.workload.behavior(command);
        if command.attempt <= behavior.slow_until {
            sleep(behavior.slow.min(SLOWEST_CALL)).await;
        }
        if process.strikes(Site::GatewaySlow) {
            let wait = process
                .world
                .milliseconds(100, 3_000, "slow gateway", process.name());
            sleep(wait).await;
        }
        let world = &process.world;
        let outcome = self
            .gateway
            .execute(world, process.name(), key, command, behavior);
        if process.strikes(Site::GatewayAnswerLost) {
            return CallOutcome::Indeterminate {
                why: "the answer was lost".to_owned(),
            };
        }
        process.gate(Site::CrashAfterProduce).await;
        outcome
    }

    /// Writes the participant's own row of each payment, in addition to the gateway's.
    async fn settle(
        &self,
        tx: &mut SimConnection,
        settled: &[RawSettlement],
    ) -> Result<(), HandlerError> {
        for one in settled {
            if let CallOutcome::Success(_) = one.outcome {
                let command = &one.command;
                let row = format!("{}/row", command.step);
                tx.record(command.saga_id, &row, command.direction);
            }
        }
        Ok(())
    }
}

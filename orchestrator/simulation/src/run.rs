//! One run: a time with failures, a time without, and then experiments with the system at rest.
//!
//! ```text
//!  trouble ──▶ calm: everything must end ──▶ rest ──▶ copies breed nothing ──▶ a replay of everything changes nothing
//!                                                     ──▶ what is forgotten stays without effect ──▶ batching is free
//! ```

use super::{
    checker::{self, Violation, instant},
    cluster::Cluster,
    faults::FaultKey,
    intake::{self, Order},
    nemesis, replay,
    workload::Workload,
    world::{Plan, World},
};
use saga_core::{
    definition::StepKind,
    ids::SagaId,
    instance::{Delivery, SagaInstance, SagaStatus, StepState},
    message::{ActionKind, Direction},
};
use std::{sync::Arc, time::Duration};
use tokio::{
    task::JoinHandle,
    time::{Instant, sleep},
};

/// The time after the last fault within which every saga must have ended.
const PATIENCE: Duration = Duration::from_mins(30);
/// The time after that within which the system must come to rest.
const REST_PATIENCE: Duration = Duration::from_mins(3);
/// The time within which owners take over, rescan and sweep.
const RECOVERY: Duration = Duration::from_secs(50);
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// Seconds between two rounds of an operator over the parked sagas.
pub const OPERATOR_INTERVAL: u64 = 10;
/// In one of this many rounds, the operator decides an unknown outcome manually instead of retrying.
const PATIENT_LOOKS: u64 = 3;
/// More attempts than a patient operator lets pass.
const MANY_ATTEMPTS: u32 = 60;

/// The result of a run.
#[derive(Debug)]
pub struct Outcome {
    pub violation: Option<Violation>,
    pub injected: Vec<FaultKey>,
    /// The number of accepted sagas.
    pub sagas: usize,
    pub events: u64,
    /// Hash of the whole trace, which is equal for equal runs.
    pub hash: u64,
    /// Lines of the trace; empty unless requested.
    pub trace: Vec<String>,
    pub simulated: Duration,
}

/// Runs a plan to its end, or to the first violation that ends it early.
pub fn run(plan: &Plan) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => unreachable!("a runtime without I/O needs nothing that could fail: {error}"),
    };
    runtime.block_on(async {
        let world = World::new(plan);
        let cluster = Cluster::new(&world, Workload::new(plan.seed));
        let violation = Box::pin(play(&cluster)).await;
        world.broker.close();
        let trace = std::mem::take(&mut *world.trace());
        Outcome {
            violation,
            injected: world.faults().injected().to_vec(),
            sagas: world.history().accepted.len(),
            events: trace.count(),
            hash: trace.hash(),
            trace: trace.into_lines(),
            simulated: world.elapsed(),
        }
    })
}

async fn play(cluster: &Arc<Cluster>) -> Option<Violation> {
    let clients = begin(cluster);
    trouble(cluster).await;
    cluster.calm_down();
    if let Err(violation) = everything_ends(cluster, &clients).await {
        return Some(violation);
    }
    if let Err(violation) = replay::rest(cluster, REST_PATIENCE).await {
        return Some(violation);
    }
    close(cluster);
    if let Some(violation) = checker::at_end(&cluster.world.history()) {
        return Some(violation);
    }
    let questions = Box::pin(replay::questions(cluster)).await;
    questions
        .err()
        .or_else(|| checker::observed(&cluster.world.history()))
}

fn begin(cluster: &Arc<Cluster>) -> Vec<JoinHandle<()>> {
    cluster.start();
    tokio::spawn(nemesis::haunt(Arc::clone(cluster)));
    let world = &cluster.world;
    (1..=cluster.workload.sagas)
        .map(|number| {
            let who = format!("client-{number}");
            let wait = world.milliseconds(0, 30_000, "arrives", &who);
            let cluster = Arc::clone(cluster);
            tokio::spawn(async move {
                sleep(wait).await;
                let order = Order::new(&cluster.world, &cluster.workload, number);
                let saga = order.saga;
                intake::place(Arc::clone(&cluster), order).await;
                nemesis::change_of_mind(&cluster, saga, number).await;
            })
        })
        .collect()
}

async fn trouble(cluster: &Cluster) {
    let time = cluster
        .world
        .milliseconds(20_000, 90_000, "trouble", "world");
    let until = Instant::now() + time;
    while Instant::now() < until {
        sleep(LOOK_INTERVAL).await;
        instant::always(cluster);
    }
}

/// Checks liveness: when nothing fails any more, every order is accepted and every saga ends.
async fn everything_ends(cluster: &Cluster, clients: &[JoinHandle<()>]) -> Result<(), Violation> {
    let began = Instant::now();
    for second in 0.. {
        sleep(LOOK_INTERVAL).await;
        instant::always(cluster);
        if began.elapsed() > RECOVERY {
            instant::when_well(cluster);
        }
        let accepted = clients.iter().all(JoinHandle::is_finished);
        if accepted && cluster.sagas.tables().live.is_empty() && all_ended(cluster) {
            return Ok(());
        }
        if began.elapsed() > PATIENCE || !cluster.world.history().observed.is_empty() {
            break;
        }
        if second % OPERATOR_INTERVAL == 0 {
            look_after_parked(cluster, second);
        }
    }
    close(cluster);
    let history = cluster.world.history();
    let found = checker::on_the_way(&history).or_else(|| checker::at_end(&history));
    Err(found.unwrap_or_else(|| Violation {
        check: "every_saga_ends",
        detail: "a client still waits for an answer".to_owned(),
    }))
}

fn all_ended(cluster: &Cluster) -> bool {
    let accepted: Vec<SagaId> = cluster.world.history().accepted.keys().copied().collect();
    let tables = cluster.sagas.tables();
    accepted
        .iter()
        .all(|saga| tables.history.contains_key(saga))
}

pub fn look_after_parked(cluster: &Cluster, second: u64) {
    let parked: Vec<SagaInstance> = {
        let tables = cluster.sagas.tables();
        let parked = tables
            .live
            .values()
            .map(|live| &live.row.instance)
            .filter(|instance| matches!(instance.status, SagaStatus::Parked { .. }));
        parked.cloned().collect()
    };
    let decides = second.is_multiple_of(PATIENT_LOOKS * OPERATOR_INTERVAL);
    for (index, instance) in (0..).zip(parked) {
        let kind = (decides || is_asked_for_often(&instance))
            .then(|| decided_by_hand(cluster, &instance))
            .flatten()
            .or_else(|| corrected(&instance))
            .unwrap_or_else(ActionKind::retry);
        let number = 1_000_000_000 + second * 1_000 + index;
        nemesis::act(cluster, instance.id, kind, number);
    }
}

/// Returns the retry of a command that was too large to be sent, with another payload.
fn corrected(instance: &SagaInstance) -> Option<ActionKind> {
    let (step, reason) = instance.status.parked()?;
    (reason.code == "payload_too_large").then(|| ActionKind::Retry {
        step: Some(step.to_owned()),
        input: Some(nemesis::by_hand()),
    })
}

/// Returns true if an outcome was asked for so often that an operator decides at once. Otherwise retries with the period
/// of the decisions would miss every one of them.
fn is_asked_for_often(instance: &SagaInstance) -> bool {
    instance.steps.iter().any(|step| {
        matches!(&step.state, StepState::Resolving(delivery) if delivery.attempt() >= MANY_ATTEMPTS)
    })
}

/// Returns the action of an operator who has found out the outcome that a step's participant does not tell.
fn decided_by_hand(cluster: &Cluster, instance: &SagaInstance) -> Option<ActionKind> {
    let history = cluster.world.history();
    let definition = &history.accepted.get(&instance.id)?.definition;
    let (step, _) = definition
        .steps
        .iter()
        .zip(&instance.steps)
        .find(|(_, step)| matches!(step.state, StepState::Resolving(Delivery::UsedUp { .. })))?;
    let is_done = history.effects.iter().any(|effect| {
        effect.saga == instance.id
            && effect.step == step.name
            && effect.direction == Direction::Forward
    });
    let name = step.name.clone();
    Some(match (is_done, step.kind) {
        (true, _) => ActionKind::Complete {
            step: name,
            result: nemesis::by_hand(),
        },
        (false, StepKind::Pivot) => ActionKind::NotDone { step: name },
        (false, StepKind::Compensatable | StepKind::Retriable) => ActionKind::Skip {
            step: name,
            compensation: false,
        },
    })
}

/// Copies the final sagas into the history, for the checks.
pub fn close(cluster: &Cluster) {
    let tables = cluster.sagas.tables();
    let mut history = cluster.world.history();
    let live = tables.live.iter();
    history.live = live
        .map(|(saga, live)| (*saga, live.row.instance.clone()))
        .collect();
    let ended = tables.history.iter();
    history.ended = ended
        .map(|(saga, row)| (*saga, row.instance.clone()))
        .collect();
}

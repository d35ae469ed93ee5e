//! One run: a time with failures, a time without, and then experiments with the system at rest.
//!
//! ```text
//!  trouble ──▶ calm: everything must end ──▶ rest ──▶ copies breed nothing ──▶ a replay of everything changes nothing
//!                                                     ──▶ what is forgotten stays without effect ──▶ batching is free
//! ```

use super::{
    checker::{self, Violation, instant},
    client,
    cluster::Cluster,
    faults::FaultKey,
    intake::Order,
    nemesis, operator, replay,
    workload::Workload,
    world::{Plan, World},
};
use saga_core::ids::SagaId;
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
    cluster.note_final_sagas();
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
                client::place(Arc::clone(&cluster), order).await;
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
        if second % operator::ROUND_INTERVAL_SECS == 0 {
            operator::look_after_parked(cluster, second);
        }
    }
    cluster.note_final_sagas();
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

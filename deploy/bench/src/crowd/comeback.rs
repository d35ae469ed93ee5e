//! The participant comes back, and the crowd drains.

use super::{
    gather::Crowd,
    options::Pace,
    order::{Order, by_second},
    others::Others,
    store,
};
use crate::{
    kafka,
    load::Percentiles,
    measure::{Cost, Memory},
    progress,
    stage::{Bench, Offer, Plan},
    system::{Instance, database},
};
use anyhow::Result;
use saga_contracts::topic::PAYMENT_COMMANDS;
use saga_e2e::system::Service;
use serde::Serialize;
use std::time::{Duration, Instant};

/// Events of completed sagas. What the crowd's are; the others are compensated.
const COMPLETED: &str = "saga.completed";
/// No saga has ended for so long: the crowd does not drain.
const STANDSTILL: Duration = Duration::from_mins(2);

/// How it drained.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Comeback {
    /// From its start until `/health/ready` said so.
    pub ready_ms: u64,
    /// From its start until the last saga of the crowd had ended.
    pub drained_seconds: f64,
    pub sagas_a_second: f64,
    pub ended: u64,
    pub ended_by_second: Vec<u64>,
    pub order: Order,
    /// Of other sagas, one stage after the other.
    pub meanwhile: Vec<Meanwhile>,
    /// Of the crowd, as the gateway has them.
    pub charges: i64,
    /// Records of `payment.commands`, from before the crowd until now.
    pub commands: i64,
    /// Sagas that sent some command more than once, because its answer was late.
    pub repeated: i64,
    /// A saga, whether of the crowd or another.
    pub cost: Cost,
}

/// Other sagas for a while.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Meanwhile {
    pub sent: u64,
    pub turned_away: u64,
    pub ended: u64,
    pub latency: Percentiles,
}

/// What had been counted before the crowd gathered.
#[derive(Clone, Copy, Debug)]
pub struct Counted {
    pub charges: i64,
    pub commands: i64,
}

impl Counted {
    pub async fn now(bench: &Bench<'_>) -> Result<Self> {
        let brokers = bench.system.brokers.clone();
        let ends =
            tokio::task::spawn_blocking(move || kafka::ends(&kafka::consumer(&brokers)?)).await??;
        let payments = bench.system.url_of(&database(Service::Payment));
        Ok(Self {
            charges: store::charges(&payments).await?,
            commands: ends.get(PAYMENT_COMMANDS).copied().unwrap_or(0),
        })
    }
}

pub async fn measure(
    bench: &mut Bench<'_>,
    others: &mut Others,
    pace: &Pace,
    crowd: &Crowd,
    counted: Counted,
) -> Result<Comeback> {
    let mut database = bench
        .system
        .connect(&database(Service::Orchestrator))
        .await?;
    let began_ms = store::now_ms(&mut database).await?;
    let completed = completed(bench);
    let starting = Instant::now();
    let payment = Instance::first(Service::Payment);
    bench.system.start_instances([payment]).await?;
    let ready = starting.elapsed();
    bench.probe = bench.system.probe().await?;
    let before = bench.probe.snapshot().await?;
    let meanwhile = drain(bench, others, pace, crowd, completed).await?;
    let after = bench.probe.snapshot().await?;
    let ends = store::ends(&mut database, crowd.span).await?;
    let now = Counted::now(bench).await?;
    let last_ms = ends.iter().copied().max().unwrap_or(began_ms);
    let drained_seconds = (last_ms - began_ms).max(1) as f64 / 1e3;
    let others_ended: u64 = meanwhile.iter().map(|one| one.ended).sum();
    let all_ended = ends.len() as u64 + others_ended;
    Ok(Comeback {
        ready_ms: ready.as_millis() as u64,
        drained_seconds,
        sagas_a_second: ends.len() as f64 / drained_seconds,
        ended: ends.len() as u64,
        ended_by_second: by_second(&ends, began_ms),
        order: Order::of(&ends),
        meanwhile,
        charges: now.charges - counted.charges,
        commands: now.commands - counted.commands,
        repeated: store::repeated(&mut database, crowd.span).await?,
        cost: Cost::between(&before, &after, &Memory::default(), all_ended),
    })
}

/// Others come in all the while, a stage after the other, until the last of the crowd was seen to end.
async fn drain(
    bench: &mut Bench<'_>,
    others: &mut Others,
    pace: &Pace,
    crowd: &Crowd,
    completed_before: u64,
) -> Result<Vec<Meanwhile>> {
    let mut meanwhile = Vec::new();
    let (mut seen, mut moved) = (0, Instant::now());
    loop {
        let plan = Plan {
            name: format!("meanwhile, {}/s", pace.trickle),
            offer: Offer::Rate {
                per_second: pace.trickle as f64,
            },
            warm_up: Duration::ZERO,
            measured: pace.measured,
        };
        let stage = others.stage(bench, plan).await?;
        meanwhile.push(Meanwhile {
            sent: stage.tally.sent,
            turned_away: stage.tally.not_accepted.pushed_back,
            ended: stage.tally.ended_in_window,
            latency: stage.tally.accepted_to_ended.percentiles(),
        });
        let now = completed(bench) - completed_before;
        progress::say(&format!("  {now} of {} have ended", crowd.accepted));
        if now >= crowd.accepted {
            return Ok(meanwhile);
        }
        if now > seen {
            (seen, moved) = (now, Instant::now());
        }
        if moved.elapsed() > STANDSTILL {
            return Ok(meanwhile);
        }
    }
}

fn completed(bench: &Bench<'_>) -> u64 {
    bench.watch.events().get(COMPLETED).copied().unwrap_or(0)
}

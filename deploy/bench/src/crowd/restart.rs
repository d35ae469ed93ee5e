//! How long sagas stand still when an orchestrator is started again, and when another one takes over from it.
//!
//! Meanwhile a few orders a second come in. Both are measured from the moment that it is gone until, in each partition, a
//! saga has ended that began since; who owned a partition all the time has that at once. Times are the database's.

use super::{others::Others, store};
use crate::{progress, stage::Bench, system::Instance, system::database};
use anyhow::{Result, bail};
use saga_e2e::system::Service;
use serde::Serialize;
use std::time::{Duration, Instant};
use tokio::time::sleep;

const POLL: Duration = Duration::from_millis(100);
/// A takeover takes seconds; one that takes longer than this is told as a mistake.
const LIMIT: Duration = Duration::from_mins(5);
/// Of the group, which waits for whoever still holds a partition.
const GROUPED_LIMIT: Duration = Duration::from_mins(2);
/// Between the group's agreement and the death of one of them.
const CALM: Duration = Duration::from_secs(3);

/// Both, one after the other.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(
    clippy::struct_field_names,
    reason = "a figure's unit stands in its name"
)]
pub struct Restarts {
    /// From the signal until the process had ended.
    pub stopped_ms: u64,
    /// From its start until `/health/ready` said so.
    pub ready_ms: u64,
    /// From its start until each partition had ended a saga that began since; `None` if one had not by the limit.
    pub moving_ms: Option<u64>,
    /// From its start until a second one owned partitions. `None`, like the next, with a single partition.
    pub shared_ms: Option<u64>,
    /// From its death by SIGKILL until each partition had ended a saga that began since.
    pub taken_over_ms: Option<u64>,
}

pub async fn measure(bench: &mut Bench<'_>, others: &mut Others, when: &str) -> Result<Restarts> {
    let first = Instance::first(Service::Orchestrator);
    let second = Instance { number: 1, ..first };
    let trickle = others.trickle(bench);
    let stopping = Instant::now();
    bench.system.stop_instance(first)?;
    let stopped = stopping.elapsed();
    let mut database = bench
        .system
        .connect(&database(Service::Orchestrator))
        .await?;
    let began_ms = store::now_ms(&mut database).await?;
    let starting = Instant::now();
    bench.system.start_instances([first]).await?;
    let ready = starting.elapsed();
    let moving = moves(bench, &mut database, began_ms).await?;
    let (mut shared, mut taken_over) = (None, None);
    if bench.servers.partitions > 1 {
        let starting = Instant::now();
        bench.system.start_instances([second]).await?;
        shared = Some(grouped(bench, [first, second], starting).await?);
        sleep(CALM).await;
        bench.system.kill_instance(second)?;
        let died_ms = store::now_ms(&mut database).await?;
        taken_over = moves(bench, &mut database, died_ms).await?;
    }
    others.end(trickle).await?;
    // The processes are others now.
    bench.probe = bench.system.probe().await?;
    let late = [("start", moving), ("takeover", taken_over)];
    let late = late
        .iter()
        .filter(|(what, took)| took.is_none() && (*what == "start" || shared.is_some()));
    others.mistakes.extend(late.map(|(what, _)| {
        format!("{when}: after a {what}, sagas of some partition did not move within {LIMIT:?}")
    }));
    let ms = |took: Duration| took.as_millis() as u64;
    let found = Restarts {
        stopped_ms: ms(stopped),
        ready_ms: ms(ready),
        moving_ms: moving,
        shared_ms: shared.map(ms),
        taken_over_ms: taken_over,
    };
    progress::say(&format!("  {when}: {}", found.told()));
    Ok(found)
}

impl Restarts {
    fn told(&self) -> String {
        let seconds = |ms: Option<u64>| {
            ms.map_or_else(|| "–".to_owned(), |ms| format!("{:.1} s", ms as f64 / 1e3))
        };
        format!(
            "stopped in {}, ready in {}, sagas move after {}; a second one shares after {}, is taken over after {}",
            seconds(Some(self.stopped_ms)),
            seconds(Some(self.ready_ms)),
            seconds(self.moving_ms),
            seconds(self.shared_ms),
            seconds(self.taken_over_ms),
        )
    }
}

/// Milliseconds from `since_ms` until each partition has ended a saga that began since.
async fn moves(
    bench: &mut Bench<'_>,
    database: &mut sqlx::PgConnection,
    since_ms: i64,
) -> Result<Option<u64>> {
    let began = Instant::now();
    while began.elapsed() < LIMIT {
        let ends = store::first_ends(database, since_ms).await?;
        if ends.len() >= bench.servers.partitions as usize {
            let last = ends.into_values().max().unwrap_or(since_ms);
            return Ok(Some((last - since_ms).max(0).cast_unsigned()));
        }
        bench.system.check_running()?;
        progress::update(&format!("  {} partitions move", ends.len()));
        sleep(POLL).await;
    }
    Ok(None)
}

/// How long it took from `starting` until both own partitions, and all of them.
async fn grouped(
    bench: &mut Bench<'_>,
    instances: [Instance; 2],
    starting: Instant,
) -> Result<Duration> {
    loop {
        let mut owned = Vec::new();
        for instance in instances {
            owned.push(bench.system.partitions_owned(instance).await.unwrap_or(0));
        }
        if owned.iter().all(|count| *count > 0)
            && owned.iter().sum::<i32>() == bench.servers.partitions
        {
            return Ok(starting.elapsed());
        }
        if starting.elapsed() > GROUPED_LIMIT {
            bail!("the orchestrators do not share their partitions: they have {owned:?}");
        }
        bench.system.check_running()?;
        sleep(POLL).await;
    }
}

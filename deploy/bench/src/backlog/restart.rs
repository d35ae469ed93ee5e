//! Measures how long sagas make no progress when an orchestrator is restarted, and when another one takes over from it.
//!
//! A few orders a second are sent meanwhile. A restart is measured from the orchestrator's start, and a takeover from
//! its death, until each partition has ended a saga that began since. A partition whose owner did not change has that
//! at once. These times are by the database's clock.

use super::store;
use crate::{bench::Bench, groups, load::Offer, progress, system::Instance, workload::Workload};
use anyhow::Result;
use saga_harness::system::Service;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Orders a second during the restarts.
const TRICKLE: f64 = 20.0;
const POLL: Duration = Duration::from_millis(100);
/// A takeover takes seconds. One that takes longer than this is reported as a mistake.
const LIMIT: Duration = Duration::from_mins(5);
/// The pause between the end of the rebalance and the death of one orchestrator.
const CALM: Duration = Duration::from_secs(3);

/// The times of a restart and of a takeover, measured one after the other.
#[derive(Clone, Copy, Debug, PartialEq)]
#[expect(
    clippy::struct_field_names,
    reason = "a figure's unit is part of its name"
)]
pub struct Restarts {
    /// Time from the signal until the process had ended.
    pub stopped_ms: u64,
    /// Time from the orchestrator's start until `/health/ready` reported that it is ready.
    pub ready_ms: u64,
    /// Time from the orchestrator's start until each partition had ended a saga that began since; `None` if one had not
    /// by the limit.
    pub moving_ms: Option<u64>,
    /// Time from the start of a second orchestrator until the broker had assigned partitions to it. With a single partition, this and
    /// `taken_over_ms` are `None`.
    pub shared_ms: Option<u64>,
    /// Time from the second orchestrator's death by SIGKILL until each partition had ended a saga that began since.
    pub taken_over_ms: Option<u64>,
}

pub async fn measure(bench: &mut Bench<'_>, others: &mut Workload, when: &str) -> Result<Restarts> {
    let first = Instance::first(Service::Orchestrator);
    let second = Instance { number: 1, ..first };
    let per_second = TRICKLE;
    let sending = bench.begin(&others.shop, Offer::Rate { per_second });
    let stopping = Instant::now();
    bench.system.stop_instance(first)?;
    let stopped = stopping.elapsed();
    let mut database = bench.system.database_of(Service::Orchestrator).await?;
    let began_ms = store::now_ms(&mut database).await?;
    let ready = bench.start([first]).await?;
    let moving = moves(bench, &mut database, began_ms).await?;
    let (mut shared, mut taken_over) = (None, None);
    if bench.servers.partitions > 1 {
        let starting = Instant::now();
        bench.start([second]).await?;
        let partitions = bench.servers.partitions;
        groups::shared(&bench.system.brokers, &[first.service], 2, partitions).await?;
        shared = Some(starting.elapsed());
        sleep(CALM).await;
        bench.system.kill_instance(second)?;
        let died_ms = store::now_ms(&mut database).await?;
        taken_over = moves(bench, &mut database, died_ms).await?;
    }
    others.finish("restarts", bench, sending).await?;
    // The second orchestrator's process must not be watched any longer.
    bench.start([]).await?;
    let late = [
        ("start", moving.is_none()),
        ("takeover", shared.is_some() && taken_over.is_none()),
    ];
    let late = late.into_iter().filter(|(_, is_late)| *is_late);
    let late = late.map(|(what, _)| {
        format!("after a {what}, sagas of some partition did not move within {LIMIT:?}")
    });
    others.broken(when, late.collect());
    let ms = |took: Duration| took.as_millis() as u64;
    Ok(Restarts {
        stopped_ms: ms(stopped),
        ready_ms: ms(ready),
        moving_ms: moving,
        shared_ms: shared.map(ms),
        taken_over_ms: taken_over,
    })
}

/// Returns the milliseconds from `since_ms` until each partition has ended a saga that began since.
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

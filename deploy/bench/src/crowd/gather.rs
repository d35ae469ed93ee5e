//! The crowd gathers: orders are sent as fast as they are taken in, until all of their sagas wait for the dead participant.

use super::{
    options::Pace,
    store::{self, Span, Waiting},
};
use crate::{
    load::{Intake, NotAccepted, Taken},
    measure::{Cost, Memory},
    progress,
    scenario::Shop,
    stage::Bench,
    system::database,
};
use anyhow::{Context, Result, bail};
use saga_e2e::{chaos::random::Random, system::Service};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::time::sleep;

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// The whole crowd is counted each time.
const COUNT_PERIOD: Duration = Duration::from_secs(2);
/// No saga has come to wait for so long: something is wrong.
const STANDSTILL: Duration = Duration::from_mins(2);

/// How the crowd came together.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gathering {
    pub accepted: u64,
    pub not_accepted: NotAccepted,
    /// Until the last order was accepted.
    pub accepted_seconds: f64,
    /// Until the last saga waited.
    pub waiting_seconds: f64,
    pub sagas_a_second: f64,
    pub accepted_by_second: Vec<u64>,
    pub live_table_bytes: i64,
    pub live_table_bytes_a_saga: f64,
    pub cost: Cost,
}

/// A crowd that waits.
pub struct Crowd {
    pub span: Span,
    /// Answered with 201, and those whose answer got lost.
    pub accepted: u64,
    pub unknown: u64,
}

pub async fn gather(
    bench: &mut Bench<'_>,
    pace: &Pace,
    shop: &Arc<Shop>,
) -> Result<(Crowd, Gathering)> {
    let mut database = bench
        .system
        .connect(&database(Service::Orchestrator))
        .await?;
    let from_ms = store::now_ms(&mut database).await?;
    let began = Instant::now();
    let before = bench.probe.snapshot().await?;
    let (taken, memory) = take_in(bench, pace, shop).await?;
    let accepted_seconds = began.elapsed().as_secs_f64();
    let span = Span::new(from_ms, store::now_ms(&mut database).await?);
    wait_until_all_wait(bench, &mut database, span, taken.accepted).await?;
    let waiting_seconds = began.elapsed().as_secs_f64();
    let after = bench.probe.snapshot().await?;
    let live_table_bytes = store::live_bytes(&mut database).await?;
    let gathering = Gathering {
        accepted: taken.accepted,
        not_accepted: taken.not_accepted,
        accepted_seconds,
        waiting_seconds,
        sagas_a_second: taken.accepted as f64 / waiting_seconds,
        accepted_by_second: taken.seconds,
        live_table_bytes,
        live_table_bytes_a_saga: live_table_bytes as f64 / taken.accepted.max(1) as f64,
        cost: Cost::between(&before, &after, &memory, taken.accepted),
    };
    let crowd = Crowd {
        span,
        accepted: taken.accepted,
        unknown: taken.not_accepted.unknown,
    };
    Ok((crowd, gathering))
}

async fn take_in(bench: &mut Bench<'_>, pace: &Pace, shop: &Arc<Shop>) -> Result<(Taken, Memory)> {
    let accepted = Arc::new(AtomicU64::new(0));
    let intake = Intake {
        address: bench.system.address(Service::Order),
        shop: Arc::clone(shop),
        random: Random::new(bench.seed, "crowd"),
        customers: pace.customers,
        orders: pace.sagas,
        accepted: Arc::clone(&accepted),
    };
    let sending = tokio::task::spawn_blocking(move || intake.run());
    let mut memory = Memory::default();
    while !sending.is_finished() {
        memory.rise_to(bench.probe.memory());
        bench.system.check_running()?;
        let so_far = accepted.load(Ordering::Relaxed);
        progress::update(&format!("  gathering, {so_far} accepted"));
        sleep(SAMPLE_PERIOD).await;
    }
    let taken = sending.await.context("the load generator")??;
    Ok((taken, memory))
}

async fn wait_until_all_wait(
    bench: &mut Bench<'_>,
    database: &mut sqlx::PgConnection,
    span: Span,
    accepted: u64,
) -> Result<()> {
    let (mut most, mut moved) = (0, Instant::now());
    loop {
        let Waiting { on_payment, .. } = store::waiting(database, span).await?;
        if on_payment.cast_unsigned() >= accepted {
            return Ok(());
        }
        if on_payment > most {
            (most, moved) = (on_payment, Instant::now());
        }
        if moved.elapsed() > STANDSTILL {
            bail!("only {on_payment} of {accepted} sagas have come to wait for payment-svc");
        }
        bench.system.check_running()?;
        progress::update(&format!("  gathering, {on_payment} wait"));
        sleep(COUNT_PERIOD).await;
    }
}

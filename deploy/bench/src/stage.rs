//! One stage: a load, and what the system makes of it.
//!
//! ```text
//!  ├── warm-up ──┼──────── window ────────┼── drain ──┤
//!                └ snapshot, memory a second, snapshot
//! ```
//!
//! Latencies are of orders that were meant to be sent within the window, however late they ended; throughput and cost are
//! of the window.

use crate::{
    load::{Client, Events, Flight, Load, Schedule, Tally, Watch},
    measure::{Cost, Machine, Memory, Probe, Snapshot},
    progress,
    report::Servers,
    scenario::Shop,
    system::System,
};
use anyhow::{Context, Result};
use saga_e2e::{chaos::random::Random, system::Service};
use std::{
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::time::{sleep, sleep_until};

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// After the last order was sent, all sagas must end within this: far above what a backlog takes.
const DRAIN_LIMIT: Duration = Duration::from_mins(3);
const DRAIN_POLL: Duration = Duration::from_millis(5);

/// How orders are offered.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    Rate { per_second: f64 },
    InFlight(u64),
}

#[derive(Clone, Debug)]
pub struct Plan {
    pub name: String,
    pub offer: Offer,
    pub warm_up: Duration,
    pub measured: Duration,
}

/// What a stage came to.
#[derive(Clone, Debug)]
pub struct Stage {
    pub plan: Plan,
    pub tally: Tally,
    pub cost: Cost,
    /// From the last order sent until the last saga ended; `None` if some had not by the limit.
    pub drained: Option<Duration>,
    /// Of the whole stage.
    pub events: Events,
}

impl Stage {
    pub fn sagas_a_second(&self) -> f64 {
        self.tally.ended_in_window as f64 / self.plan.measured.as_secs_f64()
    }
}

/// What all stages share.
pub struct Bench<'a> {
    pub system: &'a mut System,
    pub machine: Machine,
    pub servers: Servers,
    pub flight: Arc<Flight>,
    pub watch: Watch,
    pub probe: Probe,
    pub seed: u64,
    /// Each stage has arrivals and orders of its own.
    pub stages: u64,
}

impl Bench<'_> {
    pub async fn stage(&mut self, shop: &Arc<Shop>, plan: Plan) -> Result<Stage> {
        let events_before = self.watch.events();
        let began_us = self.flight.now_us();
        let window_us = began_us + us(plan.warm_up);
        let until_us = window_us + us(plan.measured);
        self.flight.begin(began_us, window_us..until_us);
        let sending = self.send(shop, &plan, began_us, until_us);
        let (before, memory, after) = self.follow(&plan, window_us, until_us).await?;
        sending.await.context("the load generator")??;
        let drained = self.drain().await?;
        let tally = self.flight.tally();
        let cost = Cost::between(&before, &after, &memory, tally.ended_in_window);
        let stage = Stage {
            plan,
            tally,
            cost,
            drained,
            events: difference(&self.watch.events(), &events_before),
        };
        progress::say(&told(&stage));
        Ok(stage)
    }

    fn send(
        &mut self,
        shop: &Arc<Shop>,
        plan: &Plan,
        began_us: u64,
        until_us: u64,
    ) -> tokio::task::JoinHandle<Result<()>> {
        self.stages += 1;
        let seed = self.seed.wrapping_add(self.stages);
        let load = match plan.offer {
            Offer::Rate { per_second } => Load::Open(Schedule::poisson(per_second, seed)),
            Offer::InFlight(in_flight) => Load::Closed { in_flight },
        };
        let client = Client {
            address: self.system.address(Service::Order),
            flight: Arc::clone(&self.flight),
            shop: Arc::clone(shop),
            random: Random::new(seed, "orders"),
        };
        tokio::task::spawn_blocking(move || client.run(load, began_us, until_us))
    }

    async fn follow(
        &mut self,
        plan: &Plan,
        window_us: u64,
        until_us: u64,
    ) -> Result<(Snapshot, Memory, Snapshot)> {
        progress::update(&format!("  {}: warming up", plan.name));
        sleep_until(self.flight.instant(window_us).into()).await;
        let before = self.probe.snapshot().await?;
        let end = self.flight.instant(until_us);
        let mut memory = Memory::default();
        while Instant::now() < end {
            memory.rise_to(self.probe.memory());
            self.system.check_running()?;
            let left = end.saturating_duration_since(Instant::now());
            progress::update(&format!(
                "  {}: {} s to go, {} in flight",
                plan.name,
                left.as_secs(),
                self.flight.open()
            ));
            sleep(SAMPLE_PERIOD.min(left)).await;
        }
        Ok((before, memory, self.probe.snapshot().await?))
    }

    async fn drain(&mut self) -> Result<Option<Duration>> {
        let began = Instant::now();
        while self.flight.open() > 0 {
            if began.elapsed() > DRAIN_LIMIT {
                return Ok(None);
            }
            self.system.check_running()?;
            progress::update(&format!("  draining, {} in flight", self.flight.open()));
            sleep(DRAIN_POLL).await;
        }
        Ok(Some(began.elapsed()))
    }
}

fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

fn difference(now: &Events, before: &Events) -> Events {
    now.iter()
        .map(|(kind, count)| (kind.clone(), count - before.get(kind).copied().unwrap_or(0)))
        .filter(|(_, count)| *count > 0)
        .collect()
}

fn told(stage: &Stage) -> String {
    let latency = stage.tally.accepted_to_ended.percentiles();
    let ms = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |ms| format!("{ms:.1}"));
    let whole = |value: Option<f64>| value.map_or_else(|| "–".to_owned(), |us| format!("{us:.0}"));
    format!(
        "  {:<16} {:>8.0} sagas/s  p50 {:>7} ms  p99 {:>7} ms  {:>7} µs CPU a saga  others {:.2} cores",
        stage.plan.name,
        stage.sagas_a_second(),
        ms(latency.p50_ms),
        ms(latency.p99_ms),
        whole(stage.cost.system_cpu_us_a_saga),
        stage.cost.others_cores + stage.cost.stolen_cores,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_events_of_the_stage_are_its_own() {
        let events = |counts: &[(&str, u64)]| -> Events {
            counts
                .iter()
                .map(|(kind, count)| ((*kind).to_owned(), *count))
                .collect()
        };
        let before = events(&[("saga.started", 5), ("saga.parked", 1)]);
        let now = events(&[
            ("saga.started", 8),
            ("saga.parked", 1),
            ("saga.completed", 3),
        ]);
        let expected = events(&[("saga.started", 3), ("saga.completed", 3)]);
        assert_eq!(difference(&now, &before), expected);
    }
}

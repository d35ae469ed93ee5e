//! The system and everything else that the stages of a study share, and the runner of a stage.

use crate::{
    check,
    load::{Client, InFlight, Offer, Tally, Watch},
    measure::{Cost, Machine, Memory, Probe, Snapshot, describe_postgres},
    progress,
    scenario::Shop,
    stage::{Plan, Stage},
    system::{Instance, Servers, System},
};
use anyhow::{Context, Result};
use saga_harness::system::Service;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    task::JoinHandle,
    time::{sleep, sleep_until},
};

const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
/// All sagas must end within this time after the last order was sent: far more than a backlog takes.
const DRAIN_LIMIT: Duration = Duration::from_mins(3);
const DRAIN_POLL: Duration = Duration::from_millis(5);

pub struct Bench<'a> {
    pub system: &'a mut System,
    pub machine: Machine,
    pub servers: Servers,
    pub flight: Arc<InFlight>,
    pub watch: Watch,
    pub probe: Probe,
    pub seed: u64,
    /// The number of stages so far. It is added to the seed, so that each stage has its own arrivals and orders.
    stages: u64,
}

/// A load that is being sent.
pub struct Sending {
    client: JoinHandle<Result<()>>,
    until: Until,
}

/// The time at which the last order is sent, by the flight's clock. A load ends when this is dropped.
struct Until(Arc<AtomicU64>);

impl Drop for Until {
    fn drop(&mut self) {
        self.0.store(0, Ordering::Relaxed);
    }
}

impl<'a> Bench<'a> {
    /// Creates the bench of a system whose services run.
    pub async fn new(
        system: &'a mut System,
        machine: Machine,
        partitions: i32,
        seed: u64,
    ) -> Result<Self> {
        let (postgres, settings) = describe_postgres(&system.url_of("postgres")).await?;
        let servers = Servers {
            postgres,
            postgres_settings: settings.into_iter().collect(),
            kafka: system.kafka_version(),
            partitions,
        };
        let flight = Arc::new(InFlight::new());
        Ok(Self {
            machine,
            servers,
            watch: Watch::start(&system.brokers, Arc::clone(&flight))?,
            flight,
            probe: system.probe().await?,
            system,
            seed,
            stages: 0,
        })
    }

    /// Starts instances, and returns how long it took until they were ready. The probe is renewed, since it watches
    /// processes.
    pub async fn start(
        &mut self,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<Duration> {
        let began = Instant::now();
        self.system.start_instances(instances).await?;
        let ready = began.elapsed();
        self.probe = self.system.probe().await?;
        Ok(ready)
    }

    /// Measures a stage.
    pub async fn stage(&mut self, shop: &Arc<Shop>, plan: Plan) -> Result<Stage> {
        let began_us = self.flight.now_us();
        let window_us = began_us + us(plan.warm_up);
        let until_us = window_us + us(plan.measured);
        let sending = self.send(shop, plan.offer, began_us, window_us..until_us);
        progress::update(&format!("  {}: warming up", plan.name));
        sleep_until(self.flight.instant(window_us).into()).await;
        let (before, memory, after) = self.follow(&plan.name, until_us).await?;
        let (tally, drained) = self.finish(sending).await?;
        let cost = Cost::between(&before, &after, &memory, tally.ended_in_window);
        let stage = Stage::new(plan, tally, cost, drained);
        progress::say(&line(&stage));
        Ok(stage)
    }

    /// Measures the system without a load. The cost is that of the whole time.
    pub async fn idle(&mut self, lasts: Duration) -> Result<Cost> {
        let until_us = self.flight.now_us() + us(lasts);
        let (before, memory, after) = self.follow("idle", until_us).await?;
        Ok(Cost::between(&before, &after, &memory, 1))
    }

    /// Sends orders until [`finish`](Self::finish). They are measured by nobody else.
    pub fn begin(&mut self, shop: &Arc<Shop>, offer: Offer) -> Sending {
        let began_us = self.flight.now_us();
        self.send(shop, offer, began_us, began_us..u64::MAX)
    }

    fn send(
        &mut self,
        shop: &Arc<Shop>,
        offer: Offer,
        began_us: u64,
        window: std::ops::Range<u64>,
    ) -> Sending {
        self.stages += 1;
        let seed = self.seed.wrapping_add(self.stages);
        let until_us = Arc::new(AtomicU64::new(window.end));
        self.flight.begin(began_us, window);
        let client = Client {
            address: self.system.address(Service::Order),
            flight: Arc::clone(&self.flight),
            shop: Arc::clone(shop),
            seed,
            until_us: Arc::clone(&until_us),
        };
        Sending {
            client: tokio::task::spawn_blocking(move || client.run(offer, began_us)),
            until: Until(until_us),
        }
    }

    /// Ends a load, and waits until its sagas have ended. Returns how long that took after the last order was sent;
    /// `None` if some sagas had not ended by the limit.
    pub async fn finish(&mut self, sending: Sending) -> Result<(Tally, Option<Duration>)> {
        let now_us = self.flight.now_us();
        sending.until.0.fetch_min(now_us, Ordering::Relaxed);
        sending.client.await.context("the load generator")??;
        let began = Instant::now();
        while self.flight.open() > 0 {
            if began.elapsed() > DRAIN_LIMIT {
                return Ok((self.flight.tally(), None));
            }
            self.system.check_running()?;
            progress::update(&format!("  draining, {} in flight", self.flight.open()));
            sleep(DRAIN_POLL).await;
        }
        Ok((self.flight.tally(), Some(began.elapsed())))
    }

    async fn follow(&mut self, name: &str, until_us: u64) -> Result<(Snapshot, Memory, Snapshot)> {
        let before = self.probe.snapshot().await?;
        let end = self.flight.instant(until_us);
        let mut memory = Memory::default();
        while Instant::now() < end {
            memory.rise_to(self.probe.memory());
            self.system.check_running()?;
            let left = end.saturating_duration_since(Instant::now());
            progress::update(&format!(
                "  {name}: {} s to go, {} in flight",
                left.as_secs(),
                self.flight.open()
            ));
            sleep(SAMPLE_PERIOD.min(left)).await;
        }
        Ok((before, memory, self.probe.snapshot().await?))
    }

    /// Runs the independent checker, and returns what it found. It reads everything, so it is only for runs of seconds.
    pub async fn audit(&self) -> Result<Vec<String>> {
        progress::update("  auditing");
        let found = self.system.audit().await?.into_iter();
        Ok(found.map(|what| format!("audit: {what}")).collect())
    }

    /// Checks the plans of all statements that the private Postgres has logged.
    pub fn check_plans(&self) -> Result<Vec<String>> {
        let Some(log) = self.system.postgres_log() else {
            return Ok(Vec::new());
        };
        let found = check::plans::check(log)?.into_iter();
        Ok(found.map(|what| format!("plans: {what}")).collect())
    }
}

fn us(duration: Duration) -> u64 {
    duration.as_micros() as u64
}

/// Returns the progress line of a stage that has ended.
fn line(stage: &Stage) -> String {
    let latency = stage.accepted_to_ended;
    let number = |value: Option<f64>, digits: usize| {
        value.map_or_else(|| "–".to_owned(), |value| format!("{value:.digits$}"))
    };
    format!(
        "  {:<16} {:>8.0} sagas/s  p50 {:>7} ms  p99 {:>7} ms  {:>7} µs CPU a saga  others {:.2} cores",
        stage.name,
        stage.sagas_a_second,
        number(latency.p50_ms, 1),
        number(latency.p99_ms, 1),
        number(stage.cost.system_cpu_us_a_saga, 0),
        stage.cost.other_cores(),
    )
}

//! Chaos on real processes, a real Kafka and a real Postgres: clients place orders, faults from a seed are injected,
//! and an audit then checks the result without relying on any of the system's own code.
//!
//! ```text
//!  seed ─▶ plan ─▶ saboteur ──kill, freeze, cut, restart, poison, replay…──▶ cluster ◀── clients ─▶ journal
//!                     │                                                        │                      │
//!                  trouble ─▶ watch (standstills, takeovers)                   ▼                      ▼
//!                                    └──────────────▶ figures ◀──────────── saga-audit (databases and topics)
//! ```
//!
//! The same seed and settings give the same faults at the same times and the same orders. The effects on a real system
//! differ from run to run, as in production.

mod clients;
mod cluster;
mod faults;
mod figures;
mod member;
mod observe;
mod options;
mod plan;
mod records;
mod store;

pub use options::Options;

use anyhow::{Context, Result};
use clients::Clients;
use cluster::Cluster;
use faults::Saboteur;
use figures::{Figures, Needless, Requests, Takeovers};
use observe::{Trouble, Watch};
use saga_audit::{Journal, Settings};
use saga_harness::Service;
use saga_harness::random::Random;
use std::{
    collections::BTreeMap,
    io::{self, Write},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    time::Duration,
};
use tokio::time::{Instant, sleep};

const PROGRESS_PERIOD: Duration = Duration::from_secs(10);
const DRAIN_POLL: Duration = Duration::from_millis(500);
/// The minimum time between two audits of the live system: each audit reads every topic from its beginning.
const AUDIT_PERIOD: Duration = Duration::from_secs(45);
const AUDIT_SHARE: u32 = 8;

/// Runs chaos and returns whether every promise was kept.
pub async fn run(options: &Options) -> Result<bool> {
    let seed = options.seed.unwrap_or_else(drawn);
    let plan = plan::plan(seed, options.length(), &options.kinds());
    if options.plan {
        for planned in &plan {
            let (at, lasts) = (planned.at.as_secs_f32(), planned.lasts.as_secs_f32());
            say(&format!("{at:8.1} s  {:?} for {lasts:.1} s", planned.fault));
        }
        return Ok(true);
    }
    let directory = directory(options, seed)?;
    say(&options.command(seed));
    say(&format!("logs and journal: {}", directory.display()));
    let run = Run::start(options, seed, directory).await?;
    let figures = run.go(plan).await?;
    say(&format!("{figures}"));
    let json = serde_json::to_string_pretty(&figures)?;
    std::fs::write(run.cluster.directory.join("report.json"), &json)?;
    if let Some(path) = &options.json {
        std::fs::write(path, &json).with_context(|| format!("writing {}", path.display()))?;
    }
    let broken = figures.broken();
    if broken.is_empty() {
        say("every promise was kept");
    } else {
        say(&format!("BROKEN: {}", broken.join("; ")));
    }
    Ok(broken.is_empty())
}

fn drawn() -> u64 {
    // Short enough to type.
    uuid::Uuid::new_v4().as_u64_pair().0 % 1_000_000
}

fn directory(options: &Options, seed: u64) -> Result<PathBuf> {
    let directory = options.directory.clone().unwrap_or_else(|| {
        let name = format!("saga-chaos-{seed}-{}", std::process::id());
        std::env::temp_dir().join(name)
    });
    std::fs::create_dir_all(&directory)?;
    let directory = directory.canonicalize()?;
    cluster::end_with_us(&directory);
    Ok(directory)
}

/// Prints progress and figures to standard error. Standard output is not used.
fn say(text: &str) {
    // A closed standard error is no reason to end the run.
    drop(writeln!(io::stderr(), "{text}"));
}

struct Run {
    options: Options,
    seed: u64,
    cluster: Arc<Cluster>,
    clients: Arc<Clients>,
    trouble: Arc<Trouble>,
    watch: Arc<Watch>,
    live: Arc<Mutex<LiveAudits>>,
}

/// The results of the audits that run between the faults.
#[derive(Debug, Default)]
struct LiveAudits {
    count: u64,
    could_not_look: u64,
    discrepancies: Vec<String>,
}

impl Run {
    async fn start(options: &Options, seed: u64, directory: PathBuf) -> Result<Self> {
        let began = Instant::now();
        let journal = directory.join("journal.jsonl");
        let trouble = Trouble::new(&directory.join("faults.log"))?;
        let cluster =
            Cluster::start(directory, options.binaries.clone(), options.partitions).await?;
        let cluster = Arc::new(cluster);
        let mut random = Random::new(seed, "products");
        let clients = Clients::new(Arc::clone(&cluster), &journal, &mut random).await?;
        say(&format!(
            "ready after {:.1} s",
            began.elapsed().as_secs_f32()
        ));
        Ok(Self {
            options: options.clone(),
            seed,
            cluster,
            clients,
            trouble: Arc::new(trouble),
            watch: Arc::default(),
            live: Arc::default(),
        })
    }

    async fn go(&self, plan: Vec<plan::Planned>) -> Result<Figures> {
        let began = Instant::now();
        let mut helpers = self.helpers(began);
        let mut ordering = self.ordering();
        let saboteur = Saboteur::new(Arc::clone(&self.cluster), Arc::clone(&self.trouble));
        tokio::select! {
            () = saboteur.run(plan, began) => {}
            Some(ended) = helpers.join_next() => ended??,
        }
        tokio::time::sleep_until(began + self.options.length()).await;
        self.cluster.heal()?;
        self.clients.close();
        while ordering.join_next().await.is_some() {}
        let calm = Instant::now();
        let settled = self.clients.settled(self.options.drain_limit()).await;
        let drained = self.drain(calm).await;
        helpers.shutdown().await;
        self.figures(drained, settled).await
    }

    /// Starts the tasks that run beside the faults. None of them ends by itself.
    fn helpers(&self, began: Instant) -> tokio::task::JoinSet<Result<()>> {
        let mut helpers = tokio::task::JoinSet::new();
        let cluster = Arc::clone(&self.cluster);
        helpers.spawn(async move { cluster.supervise().await });
        let (watch, trouble) = (Arc::clone(&self.watch), Arc::clone(&self.trouble));
        let url = self.cluster.database_url(Service::Orchestrator);
        helpers.spawn(async move {
            watch.run(url, &trouble).await;
            Ok(())
        });
        let (cluster, clients) = (Arc::clone(&self.cluster), Arc::clone(&self.clients));
        let live = Arc::clone(&self.live);
        helpers.spawn(async move { audit_live(&cluster, &clients, &live).await });
        let (clients, trouble) = (Arc::clone(&self.clients), Arc::clone(&self.trouble));
        let (watch, live) = (Arc::clone(&self.watch), Arc::clone(&self.live));
        helpers.spawn(async move {
            loop {
                sleep(PROGRESS_PERIOD).await;
                progress(began, &clients, &trouble, &watch, &live);
            }
        });
        helpers
    }

    fn ordering(&self) -> tokio::task::JoinSet<()> {
        let mut ordering = tokio::task::JoinSet::new();
        let clients = self.options.clients.max(1);
        let period = Duration::from_secs_f64(clients as f64 / self.options.rate.max(0.01));
        for number in 0..clients {
            let random = Random::new(self.seed, &format!("client {number}"));
            ordering.spawn(Arc::clone(&self.clients).order(random, period));
        }
        ordering
    }

    /// Waits until no order and no saga is in flight. Returns the time since `calm`, or `None` after the drain limit.
    async fn drain(&self, calm: Instant) -> Option<Duration> {
        while calm.elapsed() < self.options.drain_limit() {
            if self.is_drained().await.unwrap_or(false) {
                return Some(calm.elapsed());
            }
            sleep(DRAIN_POLL).await;
        }
        None
    }

    async fn is_drained(&self) -> Result<bool> {
        let orders = self.cluster.database_url(Service::Order);
        if store::outbox_rows(&orders).await? > 0 {
            return Ok(false);
        }
        let url = self.cluster.database_url(Service::Orchestrator);
        let live = store::Watcher::new(url).live().await?;
        let mut pending = store::pending_orders(&orders).await?;
        pending.retain(|order| !live.iter().any(|saga| saga.id == *order));
        Ok(pending.is_empty() && live.iter().all(|saga| saga.status == "parked"))
    }

    async fn figures(&self, drained: Option<Duration>, settled: bool) -> Result<Figures> {
        let journal = self.clients.journal();
        let settings = Settings {
            drained: true,
            ..Settings::default()
        };
        let audit = saga_audit::audit(&self.cluster.sources(), &journal, &settings).await?;
        let orders = store::orders(&self.cluster.database_url(Service::Order)).await?;
        let brokers = self.cluster.kafka.brokers();
        let events = records::event_times(&brokers).await?;
        let takeovers =
            observe::takeovers(&self.trouble.takeovers(), &events, self.options.partitions);
        let tally = &self.clients.tally;
        let load = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
        let (kinds, needless) = self.ends(&orders);
        let mut statuses = BTreeMap::new();
        for order in &orders {
            *statuses.entry(order.status.clone()).or_default() += 1;
        }
        let live = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        let faults = self.trouble.injected().into_iter();
        Ok(Figures {
            seed: self.seed,
            command: self.options.command(self.seed),
            minutes: self.options.minutes,
            faults: faults.map(|(kind, n)| (kind.to_string(), n)).collect(),
            faults_failed: self.trouble.failed(),
            requests: Requests {
                sent: load(&tally.sent),
                accepted: load(&tally.accepted),
                unclear: load(&tally.unclear),
                asked_again: load(&tally.asked_again),
                cancels: load(&tally.cancels),
            },
            orders: statuses,
            kinds,
            needless,
            contradictions: self.clients.contradictions(),
            live_audits: live.count,
            live_audits_away: live.could_not_look,
            live_discrepancies: live.discrepancies.clone(),
            standstill: self.watch.longest(),
            takeovers: Takeovers::of(takeovers),
            drained_after_ms: drained.map(|time| time.as_millis() as u64),
            clients_settled: settled,
            ended_by_themselves: self.cluster.ended_by_themselves(),
            audit,
        })
    }

    /// Counts how each kind of order ended, and collects the orders whose end their kind does not allow.
    fn ends(
        &self,
        orders: &[store::PlacedOrder],
    ) -> (BTreeMap<String, BTreeMap<String, u64>>, Vec<Needless>) {
        let expected = self.clients.expected();
        let mut kinds: BTreeMap<String, BTreeMap<String, u64>> = BTreeMap::new();
        let mut needless = Vec::new();
        for order in orders {
            let Some(expectation) = expected.get(&order.customer_id) else {
                continue;
            };
            let kind = expectation.kind.name().to_owned();
            let end = match &order.reason {
                Some(reason) => format!("{} {reason}", order.status),
                None => order.status.clone(),
            };
            *kinds
                .entry(kind.clone())
                .or_default()
                .entry(end)
                .or_default() += 1;
            let reason = order.reason.as_deref();
            let asked_for = expectation.cancelled && reason == Some("cancelled");
            let pending = order.status == "PENDING";
            if !pending && !asked_for && !expectation.kind.allows(&order.status, reason) {
                needless.push(Needless {
                    order: order.id,
                    kind,
                    status: order.status.clone(),
                    reason: order.reason.clone(),
                });
            }
        }
        (kinds, needless)
    }
}

/// Audits the live system repeatedly. An audit must not report anything that is merely in flight or unavailable.
async fn audit_live(cluster: &Cluster, clients: &Clients, live: &Mutex<LiveAudits>) -> Result<()> {
    let settings = Settings {
        // This audit does not look for sagas that wait for something that a fault makes unavailable.
        overdue: Duration::from_mins(10),
        ..Settings::default()
    };
    loop {
        let began = Instant::now();
        // Clients write an order to the journal after it was acknowledged, so every order in the journal exists.
        let journal = Journal {
            accepted: clients.journal().accepted,
            ..Journal::default()
        };
        // An audit that cannot reach a database or the broker fails. This is no finding.
        let report = saga_audit::audit(&cluster.sources(), &journal, &settings).await;
        {
            let mut live = live.lock().unwrap_or_else(PoisonError::into_inner);
            match report {
                Ok(report) => {
                    live.count += 1;
                    let found = report.discrepancies.iter();
                    live.discrepancies
                        .extend(found.map(|finding| format!("seen live: {finding}")));
                }
                Err(_) => live.could_not_look += 1,
            }
        }
        sleep(AUDIT_PERIOD.max(began.elapsed() * AUDIT_SHARE)).await;
    }
}

fn progress(
    began: Instant,
    clients: &Clients,
    trouble: &Trouble,
    watch: &Watch,
    live: &Mutex<LiveAudits>,
) {
    let faults: u64 = trouble.injected().values().sum();
    let found = {
        let live = live.lock().unwrap_or_else(PoisonError::into_inner);
        live.discrepancies.len()
    };
    let active = trouble.active();
    say(&format!(
        "{:5.0} s  {} accepted, {} live, {faults} faults, {found} found; now: {}",
        began.elapsed().as_secs_f32(),
        clients.tally.accepted.load(Ordering::Relaxed),
        watch.live(),
        if active.is_empty() {
            "calm".to_owned()
        } else {
            active.join(", ")
        }
    ));
}

//! How each fault is done, and undone.

use super::{
    cluster::Cluster,
    member::{self, Member},
    observe::Trouble,
    plan::{COPIES, Copy, Fault, Kind, Planned},
    proxy::Weather,
    records, store,
};
use crate::Service;
use anyhow::{Context, Result};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, RwLock},
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

/// A storm of terminated sessions ends all of them this often.
const STORM_PERIOD: Duration = Duration::from_millis(300);
/// Longer than a session: who has just joined or left has done so, on a broker that is well.
const SETTLING: Duration = Duration::from_secs(8);
/// A broker that was away reads its groups again, and members of before must expire.
const REGROUPING: Duration = Duration::from_mins(1);
/// The third copy of a service, whose joining and leaving moves partitions.
const GUEST: usize = COPIES;

/// Does what was planned, each fault at its time, whatever the others do.
pub struct Saboteur {
    cluster: Arc<Cluster>,
    trouble: Arc<Trouble>,
    /// Two faults of one thing come one after the other.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Held by all faults together, or by a takeover alone. Those who want it alone are not overtaken.
    calm: RwLock<()>,
}

impl Saboteur {
    pub fn new(cluster: Arc<Cluster>, trouble: Arc<Trouble>) -> Arc<Self> {
        Arc::new(Self {
            cluster,
            trouble,
            locks: Mutex::default(),
            calm: RwLock::new(()),
        })
    }

    /// Returns when the last fault was undone.
    pub async fn run(self: Arc<Self>, plan: Vec<Planned>, began: Instant) {
        let faults = TaskTracker::new();
        for planned in plan {
            tokio::time::sleep_until(began + planned.at).await;
            let saboteur = Arc::clone(&self);
            faults.spawn(async move { saboteur.one(planned).await });
        }
        faults.close();
        faults.wait().await;
    }

    async fn one(&self, planned: Planned) {
        if planned.kind == Kind::Takeover {
            return self.takeover(planned).await;
        }
        let _among_others = self.calm.read().await;
        let lock = self.lock(target(&planned.fault)).await;
        let _alone = lock.lock().await;
        let incident = self.trouble.begin(planned);
        let outcome = self.inflict(planned).await;
        self.trouble.end(incident, &outcome);
    }

    /// How long the other copy needs can only be measured when nothing else is wrong, and nothing is being made good: what
    /// is taken over from has something, and who takes over is a member. How long a group needs to find itself again after
    /// its broker was away is seen as a standstill.
    async fn takeover(&self, planned: Planned) {
        let _alone = self.calm.write().await;
        let running = async {
            for copy in Copy::all() {
                self.cluster.ready(copy).await?;
            }
            anyhow::Ok(())
        };
        let mut outcome = running.await;
        sleep(SETTLING).await;
        if outcome.is_ok() {
            outcome = self.cluster.grouped(REGROUPING).await;
        }
        let incident = self.trouble.begin(planned);
        let outcome = match outcome {
            Ok(()) => self.inflict(planned).await,
            Err(error) => Err(error),
        };
        self.trouble.end(incident, &outcome);
    }

    async fn lock(&self, target: String) -> Arc<Mutex<()>> {
        Arc::clone(self.locks.lock().await.entry(target).or_default())
    }

    async fn inflict(&self, planned: Planned) -> Result<()> {
        let cluster = &self.cluster;
        let lasts = planned.lasts;
        match planned.fault {
            Fault::Kill(copy) => {
                cluster.member(copy).kill()?;
                sleep(lasts).await;
                cluster.member(copy).start()?;
                cluster.ready(copy).await
            }
            Fault::Freeze(copy) => {
                cluster.member(copy).freeze()?;
                sleep(lasts).await;
                cluster.member(copy).thaw()
            }
            Fault::Rebalance(service) => self.rebalance(service, lasts).await,
            Fault::RollingRestart => self.rolling_restart().await,
            Fault::BrokerRestart => {
                cluster.kafka.stop().await;
                sleep(lasts).await;
                Ok(cluster.kafka.start_again().await?)
            }
            Fault::BrokerKill => {
                cluster.kafka.kill().await;
                sleep(lasts).await;
                Ok(cluster.kafka.start_again().await?)
            }
            Fault::BrokerPause => {
                cluster.kafka.pause().await;
                sleep(lasts).await;
                cluster.kafka.resume().await;
                Ok(())
            }
            Fault::PostgresRestart => self.restart_postgres(lasts).await,
            Fault::PostgresPause => {
                cluster.postgres.pause();
                sleep(lasts).await;
                cluster.postgres.resume();
                Ok(())
            }
            Fault::TerminateBackends => self.storm(lasts).await,
            Fault::Cut { link, silent } => {
                let weather = if silent {
                    Weather::Silent
                } else {
                    Weather::Cut
                };
                self.weather(link, weather, lasts).await
            }
            Fault::Latency { link, delay } => self.weather(link, Weather::Slow(delay), lasts).await,
            Fault::Poison { form } => records::poison(&cluster.kafka.brokers(), form).await,
            Fault::Replay { topic, place } => {
                records::replay(&cluster.kafka.brokers(), topic, place).await
            }
        }
    }

    async fn weather(
        &self,
        link: super::plan::Link,
        weather: Weather,
        lasts: Duration,
    ) -> Result<()> {
        self.cluster.set(link, weather);
        sleep(lasts).await;
        self.cluster.set(link, Weather::Fair);
        Ok(())
    }

    async fn rebalance(&self, service: Service, lasts: Duration) -> Result<()> {
        let guest = Copy {
            service,
            number: GUEST,
        };
        let guest = Member::new(self.cluster.launch(guest)?);
        guest.start()?;
        sleep(lasts).await;
        drained(guest.stop().await?, "the guest")
    }

    async fn rolling_restart(&self) -> Result<()> {
        for copy in Copy::all() {
            // Not while something else keeps it down or frozen.
            let lock = self.lock(copy.to_string()).await;
            let _alone = lock.lock().await;
            let member = self.cluster.member(copy);
            let in_time = member.stop().await?;
            member.start()?;
            self.cluster.ready(copy).await?;
            drained(in_time, &copy.to_string())?;
        }
        Ok(())
    }

    async fn restart_postgres(&self, lasts: Duration) -> Result<()> {
        let postgres = &self.cluster.postgres;
        member::quit(postgres.pid().context("Postgres does not run")?)?;
        // Waits for its end; a slower shutdown than the one that was asked for is not begun.
        postgres.stop().await;
        sleep(lasts).await;
        Ok(postgres.start_again().await?)
    }

    async fn storm(&self, lasts: Duration) -> Result<()> {
        let began = Instant::now();
        let url = self.cluster.postgres.superuser_url("postgres");
        loop {
            store::terminate_backends(&url).await?;
            if began.elapsed() >= lasts {
                return Ok(());
            }
            sleep(STORM_PERIOD).await;
        }
    }
}

fn drained(in_time: bool, who: &str) -> Result<()> {
    anyhow::ensure!(in_time, "{who} did not drain in time and was killed");
    Ok(())
}

/// What a fault is done to.
fn target(fault: &Fault) -> String {
    match fault {
        Fault::Kill(copy) | Fault::Freeze(copy) => copy.to_string(),
        Fault::Rebalance(service) => format!("guest of {}", service.name()),
        Fault::RollingRestart => "rolling restart".to_owned(),
        // The last two write into Kafka.
        Fault::BrokerRestart
        | Fault::BrokerKill
        | Fault::BrokerPause
        | Fault::Poison { .. }
        | Fault::Replay { .. } => "kafka".to_owned(),
        Fault::PostgresRestart | Fault::PostgresPause | Fault::TerminateBackends => {
            "postgres".to_owned()
        }
        Fault::Cut { link, .. } | Fault::Latency { link, .. } => link.to_string(),
    }
}

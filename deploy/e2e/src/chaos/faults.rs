//! Injects each kind of fault, and undoes it.

use super::{
    cluster::Cluster,
    member::{self, Member},
    observe::Trouble,
    plan::{COPIES, Copy, Fault, Kind, Planned},
    records, store,
};
use anyhow::{Context, Result};
use saga_harness::Service;
use saga_test_support::proxy::Weather;
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::{
    sync::{Mutex, RwLock},
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

/// A storm of terminated sessions ends all sessions this often.
const STORM_PERIOD: Duration = Duration::from_millis(300);
/// Longer than a Kafka session. On a healthy broker, a member that has just joined or left a group has completed that
/// by then.
const SETTLING: Duration = Duration::from_secs(8);
/// After an outage the broker loads its groups again, and the members from before the outage must expire.
const REGROUPING: Duration = Duration::from_mins(1);
/// The number of a service's third copy. Partitions move when it joins and leaves.
const GUEST: usize = COPIES;

/// Injects the planned faults, each at its time, regardless of the other faults.
pub struct Saboteur {
    cluster: Arc<Cluster>,
    trouble: Arc<Trouble>,
    /// One lock for each target. Two faults of the same target run one after the other.
    locks: Mutex<BTreeMap<String, Arc<Mutex<()>>>>,
    /// Held shared by all other faults, or exclusively by a takeover. The lock is fair: later faults do not overtake a
    /// waiting takeover.
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

    /// Returns when the last fault has been undone.
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

    /// Kills an orchestrator while no other fault is active and all recovery has finished. Only then can the time be
    /// measured that the other copy needs: the killed copy must own partitions, and the other copy must be a member of
    /// the group. The time that a group needs to reform after a broker outage is measured as a standstill.
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
            Fault::Silence { link } => {
                cluster.forget_connections(link);
                sleep(lasts).await;
                Ok(())
            }
            Fault::Latency { link, delay } => self.weather(link, Weather::Slow(delay), lasts).await,
            Fault::Poison { form } => records::poison(&cluster.kafka.brokers(), form).await,
            Fault::Replay { topic, place } => {
                records::replay(&cluster.kafka.brokers(), topic, place).await
            }
            Fault::ParticipantErrs => {
                let payments = cluster.database_url(Service::Payment);
                store::break_gateway(&payments).await?;
                sleep(lasts).await;
                store::mend_gateway(&payments).await
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
            // Waits until no other fault keeps the copy down or frozen.
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
        // Waits for the end of Postgres. Does not request a slower shutdown than the immediate one above.
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

/// Returns the name of the fault's target.
fn target(fault: &Fault) -> String {
    match fault {
        Fault::Kill(copy) | Fault::Freeze(copy) => copy.to_string(),
        Fault::Rebalance(service) => format!("guest of {}", service.name()),
        Fault::RollingRestart => "rolling restart".to_owned(),
        // Poison and Replay write to Kafka.
        Fault::BrokerRestart
        | Fault::BrokerKill
        | Fault::BrokerPause
        | Fault::Poison { .. }
        | Fault::Replay { .. } => "kafka".to_owned(),
        // `ParticipantErrs` changes the database, and must be able to undo the change there.
        Fault::PostgresRestart
        | Fault::PostgresPause
        | Fault::TerminateBackends
        | Fault::ParticipantErrs => "postgres".to_owned(),
        Fault::Cut { link, .. } | Fault::Silence { link } | Fault::Latency { link, .. } => {
            link.to_string()
        }
    }
}

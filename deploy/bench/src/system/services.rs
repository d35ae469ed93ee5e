//! The four services as processes.

use super::{System, database};
use anyhow::{Context, Result, bail};
use saga_e2e::{process::Process, serve::SERVICE_VARIABLE, system::Service};
use saga_servers::free_port;
use saga_service::config::environment_prefix;
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use uuid::Uuid;

const READY_LIMIT: Duration = Duration::from_mins(1);
const READY_POLL: Duration = Duration::from_millis(50);
const METRICS_LIMIT: Duration = Duration::from_secs(2);

/// One of the processes of a service, which share its partitions and its database.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Instance {
    pub service: Service,
    pub number: usize,
}

impl Instance {
    pub fn first(service: Service) -> Self {
        Self { service, number: 0 }
    }

    /// The first one bears the service's name.
    pub fn name(self) -> String {
        match self.number {
            0 => self.service.name().to_owned(),
            number => format!("{}-{}", self.service.name(), number + 1),
        }
    }
}

impl System {
    /// One copy of each.
    pub async fn start_services(&mut self) -> Result<()> {
        self.start_instances(Service::ALL.map(Instance::first))
            .await
    }

    /// Until they are ready. One that was started before keeps its port.
    pub async fn start_instances(
        &mut self,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<()> {
        let instances: Vec<Instance> = instances.into_iter().collect();
        // All of them first: one must know where another will listen.
        for instance in instances
            .iter()
            .copied()
            .chain(Service::ALL.map(Instance::first))
        {
            self.ports.entry(instance).or_insert_with(free_port);
        }
        for instance in &instances {
            let mut process = self.process(*instance)?;
            process.spawn()?;
            self.processes.insert(*instance, process);
        }
        for instance in instances {
            self.ready(instance).await?;
        }
        Ok(())
    }

    /// Configured as a user would: addresses, a name by which Kafka tells one instance from another, and nothing else that
    /// is not the default. Further variables come from our own environment.
    fn process(&self, instance: Instance) -> Result<Process> {
        let service = instance.service;
        let prefix = environment_prefix(service.name());
        let set = |key: &str, value: String| (format!("{prefix}__{key}"), value);
        let mut environment: BTreeMap<String, String> = [
            (SERVICE_VARIABLE.to_owned(), service.name().to_owned()),
            set("POSTGRES__URL", self.url_of(&database(service))),
            set("KAFKA__BROKERS", self.brokers.clone()),
            set("KAFKA__EXTRA__CLIENT.ID", instance.name()),
            set("HTTP__LISTEN", self.address_of(instance).to_string()),
        ]
        .into();
        match service {
            Service::Order => {
                let url = self.url(Service::Orchestrator, "");
                environment.extend([set("ORCHESTRATOR_URL", url)]);
            }
            Service::Orchestrator | Service::Inventory | Service::Payment => {}
        }
        Ok(Process {
            binary: std::env::current_exe().context("this program")?,
            environment,
            log: self.logs.join(format!("{}.log", instance.name())),
            child: None,
        })
    }

    async fn ready(&mut self, instance: Instance) -> Result<()> {
        let url = format!("http://{}/health/ready", self.address_of(instance));
        let began = Instant::now();
        loop {
            let answer = self.http.get(&url).send().await;
            if answer.is_ok_and(|answer| answer.status().is_success()) {
                return Ok(());
            }
            self.check_running()?;
            if began.elapsed() > READY_LIMIT {
                bail!(
                    "{} is not ready; see {}",
                    instance.name(),
                    self.logs.display()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
    }

    /// Home partitions that an orchestrator says are its own.
    pub async fn partitions_owned(&self, instance: Instance) -> Result<i32> {
        let url = format!("http://{}/metrics", self.address_of(instance));
        let answer = self.http.get(&url).timeout(METRICS_LIMIT).send().await?;
        let text = answer.error_for_status()?.text().await?;
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("saga_partitions_owned "));
        // There is no such line before the first partition came.
        Ok(line.map_or(Ok(0), str::parse)?)
    }

    /// A service that has ended makes every figure worthless.
    pub fn check_running(&mut self) -> Result<()> {
        for process in self.processes.values_mut() {
            if let Some(ended) = process.ended() {
                bail!("{ended}");
            }
        }
        Ok(())
    }

    /// It drains. One that does not run is none.
    pub fn stop_instance(&mut self, instance: Instance) -> Result<()> {
        match self.processes.remove(&instance) {
            Some(mut process) => process.stop(),
            None => Ok(()),
        }
    }

    /// By SIGKILL.
    pub fn kill_instance(&mut self, instance: Instance) -> Result<()> {
        match self.processes.remove(&instance) {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    pub fn stop_services(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        // Whoever takes orders in goes first.
        for mut process in std::mem::take(&mut self.processes).into_values() {
            let stopped = process.stop();
            outcome = outcome.and(stopped);
        }
        outcome
    }

    /// Puts products on the shelf.
    pub async fn restock(&self, products: &[Uuid], pieces: u64) -> Result<()> {
        for product in products {
            let url = self.url(Service::Inventory, &format!("/stock/{product}"));
            let put = self.http.put(&url).json(&json!({"available": pieces}));
            put.send().await?.error_for_status().context("restocking")?;
        }
        Ok(())
    }
}

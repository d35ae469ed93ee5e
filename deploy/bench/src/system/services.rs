//! The four services as processes.

use super::{System, instance::Instance, settings::database};
use anyhow::{Context, Result, bail};
use saga_harness::{process::Process, serve::SERVICE_VARIABLE, system::Service};
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

impl System {
    /// Starts the instances and waits until they are ready. An instance that was started before keeps its port.
    pub async fn start_instances(
        &mut self,
        instances: impl IntoIterator<Item = Instance>,
    ) -> Result<()> {
        let instances: Vec<Instance> = instances.into_iter().collect();
        // All ports are chosen first, because an instance must know where another will listen.
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

    /// Configures the instance as a user would: addresses, the client id by which Kafka distinguishes instances, and
    /// otherwise only defaults. Further variables come from the bench's own environment.
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

    /// Fails if a service has ended, which would make every figure worthless.
    pub fn check_running(&mut self) -> Result<()> {
        for process in self.processes.values_mut() {
            if let Some(ended) = process.ended() {
                bail!("{ended}");
            }
        }
        Ok(())
    }

    /// Stops an instance, which drains first. Does nothing if it does not run.
    pub fn stop_instance(&mut self, instance: Instance) -> Result<()> {
        match self.processes.remove(&instance) {
            Some(mut process) => process.stop(),
            None => Ok(()),
        }
    }

    /// Kills an instance by SIGKILL.
    pub fn kill_instance(&mut self, instance: Instance) -> Result<()> {
        match self.processes.remove(&instance) {
            Some(mut process) => process.kill(),
            None => Ok(()),
        }
    }

    pub fn stop_services(&mut self) -> Result<()> {
        let mut outcome = Ok(());
        // The map is ordered by service: order-svc, which accepts the orders, is stopped first.
        for mut process in std::mem::take(&mut self.processes).into_values() {
            let stopped = process.stop();
            outcome = outcome.and(stopped);
        }
        outcome
    }

    /// Sets the available pieces of products.
    pub async fn restock(&self, products: &[Uuid], pieces: u64) -> Result<()> {
        for product in products {
            let url = self.url(Service::Inventory, &format!("/stock/{product}"));
            let put = self.http.put(&url).json(&json!({"available": pieces}));
            put.send().await?.error_for_status().context("restocking")?;
        }
        Ok(())
    }
}

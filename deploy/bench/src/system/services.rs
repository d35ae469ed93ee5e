//! The four services as processes.

use super::{System, database};
use anyhow::{Context, Result, bail};
use saga_e2e::{process::Process, serve::SERVICE_VARIABLE, system::Service};
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
    pub async fn start_services(&mut self) -> Result<()> {
        for service in Service::ALL {
            let mut process = self.process(service)?;
            process.spawn()?;
            self.processes.insert(service, process);
        }
        for service in Service::ALL {
            self.ready(service).await?;
        }
        Ok(())
    }

    /// Configured as a user would: addresses, and nothing else that is not the default. Further variables come from our
    /// own environment.
    fn process(&self, service: Service) -> Result<Process> {
        let prefix = environment_prefix(service.name());
        let set = |key: &str, value: String| (format!("{prefix}__{key}"), value);
        let mut environment: BTreeMap<String, String> = [
            (SERVICE_VARIABLE.to_owned(), service.name().to_owned()),
            set("POSTGRES__URL", self.url_of(&database(service))),
            set("KAFKA__BROKERS", self.brokers.clone()),
            set("HTTP__LISTEN", self.address(service).to_string()),
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
            log: self.logs.join(format!("{}.log", service.name())),
            child: None,
        })
    }

    async fn ready(&mut self, service: Service) -> Result<()> {
        let url = self.url(service, "/health/ready");
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
                    service.name(),
                    self.logs.display()
                );
            }
            tokio::time::sleep(READY_POLL).await;
        }
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

    pub(super) fn stop_services(&mut self) -> Result<()> {
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

//! A saga keeps the version of the definition that it started with.

use crate::{alone, e2e};
use saga_harness::{Service, system::SHIPPING_TOPIC};
use serde_json::json;

/// Returns a definition of one step whose participant does not run, so that its sagas wait.
fn definition(version: u32, command: &str) -> String {
    format!(
        "name: pinned\nversion: {version}\ndeadline: 1h\nsteps:\n  - name: ship\n    kind: compensatable\n    \
         participant: shipping\n    command: {command}\n    compensation:\n      command: shipping.recall\n"
    )
}

e2e! {
async fn a_changed_definition_leaves_running_sagas_alone() {
    let (system, _guard) = alone().await;
    let file = system.definitions().join("pinned.yaml");
    std::fs::write(&file, definition(1, "shipping.first"))?;
    system.stop(Service::Orchestrator)?;
    system.restart(Service::Orchestrator).await?;
    let old = start(system).await?;
    std::fs::write(&file, definition(2, "shipping.second"))?;
    system.stop(Service::Orchestrator)?;
    system.restart(Service::Orchestrator).await?;
    let new = start(system).await?;
    for (saga, version, command) in [(old, 1, "shipping.first"), (new, 2, "shipping.second")] {
        let state = system.saga_is(saga, "running").await?;
        assert_eq!(state["definitionVersion"], version);
        let records = saga_harness::topics::of_saga(&system.env.brokers(), SHIPPING_TOPIC, saga)?;
        assert_eq!(records[0].header("ce_type")?, Some(command));
    }
    // The same version with different content ends the start with an error.
    std::fs::write(&file, definition(2, "shipping.third"))?;
    system.stop(Service::Orchestrator)?;
    assert!(system.restart(Service::Orchestrator).await.is_err());
    std::fs::remove_file(&file)?;
    system.kill(Service::Orchestrator)?;
    system.restart(Service::Orchestrator).await?;
    Ok(())
}
}

async fn start(system: &saga_harness::System) -> anyhow::Result<uuid::Uuid> {
    let response = system
        .http
        .post(system.url(Service::Orchestrator, "/sagas"))
        .json(&json!({"definition": "pinned", "businessKey": "p-1", "input": {"parcel": 7}}))
        .send()
        .await?;
    anyhow::ensure!(response.status() == 202, "{}", response.text().await?);
    let body: serde_json::Value = response.json().await?;
    let id = body["id"].as_str().unwrap_or_default().parse()?;
    system.saga_is(id, "running").await?;
    Ok(id)
}

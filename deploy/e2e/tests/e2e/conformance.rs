//! Our own participants, and the one in Node, keep the contract that we ask of others.

use crate::{
    e2e,
    node::participant::{NodeParticipant, directory},
};
use anyhow::{Result, ensure};
use inventory_svc::InventoryService;
use order_svc::OrderService;
use payment_svc::PaymentService;
use saga_contracts::topic;
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Outcome},
};
use saga_e2e::system::PATIENCE;
use saga_messaging::kafka::KafkaConfig;
use saga_service::{Service, clock};
use saga_testkit::{
    conformance::{Described, Description, KafkaWire, Kit, Patience, Report, shipped},
    environment::{TestEnv, until},
    participant::{Conversation, command},
    service::Running,
};
use serde_json::json;

/// Two, so that a reply can go to the wrong one.
const PARTITIONS: i32 = 2;

e2e! {
/// On servers of their own, without an orchestrator: the kit is the orchestrator.
async fn every_participant_keeps_the_contract() {
    let env = TestEnv::exclusive().await;
    for name in topic::ALL {
        env.create_topics(&[(name, PARTITIONS), (&topic::dead_letters(name), 1)]).await;
    }
    let orders = started::<OrderService>(&env, "orders", "").await?;
    conforms(&env, &shipped_for("order", &orders)?, &[]).await?;
    orders.stop().await?;

    let inventory = started::<InventoryService>(&env, "inventory", "").await?;
    conforms(&env, &shipped_for("inventory", &inventory)?, &[NO_ERROR, NO_STARTED]).await?;
    inventory.stop().await?;

    let rules = "gateway.rules = [{ amount_minor = 1302, effect = \"error\", times = 1 }]";
    let payments = started::<PaymentService>(&env, "payments", rules).await?;
    let mut description = shipped_for("payment", &payments)?;
    description.set("erring_amount", "1302");
    conforms(&env, &description, &[NO_STARTED]).await?;
    payments.stop().await?;

    let database = env.create_database("payment_node").await;
    let mut node = NodeParticipant::new(&env.brokers(), &database)?;
    node.start()?;
    let mut description = Description::parse(&std::fs::read_to_string(directory().join("conformance.yaml"))?)?;
    description.set("database", &database);
    description.set("erring_amount", "1302");
    let mut outcome = conforms(&env, &description, &[NO_STARTED]).await;
    if outcome.is_ok() {
        outcome = what_is_forgotten_does_not_run_again(&env, &node).await;
    }
    let stopped = node.stop();
    outcome.map_err(|error| error.context(node.tail()))?;
    stopped
}
}

/// The kit cannot try it: it would have to make a participant forget what others still need.
async fn what_is_forgotten_does_not_run_again(env: &TestEnv, node: &NodeParticipant) -> Result<()> {
    let mut log = Conversation::open(&env.brokers(), topic::PAYMENT_COMMANDS).await?;
    let charge = |floor: Option<Timestamp>| {
        let id = clock::new_id();
        let payload =
            json!({"orderId": id, "customerId": id, "amountMinor": 500, "currency": "EUR"});
        let charge = command(SagaId(id), "payment.charge", Direction::Forward, payload);
        Command { floor, ..charge }
    };
    let old = charge(None);
    ensure!(log.ask(&old).await?.outcome == Outcome::Success);
    // Later than the old saga's millisecond.
    let floor = until("the clock ticks", PATIENCE, async || {
        let now = clock::now();
        (old.saga_id.created_at_ms() < Some(now.timestamp_millis())).then_some(now)
    })
    .await;
    ensure!(log.ask(&charge(Some(floor))).await?.outcome == Outcome::Success);
    until("the old saga is forgotten", PATIENCE, async || {
        let known = node.remembers(old.saga_id.0).await?;
        ensure!(!known, "it is not");
        anyhow::Ok(())
    })
    .await;
    let charges = node.charges().await?;
    let late = log.ask(&old).await?;
    ensure!(
        late.outcome == Outcome::Error && late.fault().code == "below_floor",
        "{late:?}"
    );
    ensure!(node.charges().await? == charges);
    Ok(())
}

/// Cases that a description may leave out.
const NO_STARTED: &str = "the starter's step can be compensated";
const NO_ERROR: &str = "an error is not saved";

async fn started<S: Service>(env: &TestEnv, database: &str, extra: &str) -> Result<Running> {
    let url = env.create_database(database).await;
    let brokers = env.brokers();
    let running = Running::start::<S>(&format!(
        "postgres.url = \"{url}\"\nkafka.brokers = \"{brokers}\"\nlog.format = \"human\"\n{extra}"
    ))
    .await?;
    let http = saga_testkit::http_client();
    until("it is ready", PATIENCE, async || {
        let ready = http.get(running.url("/health/ready")).send().await?;
        ready.error_for_status().map(drop)
    })
    .await;
    Ok(running)
}

fn shipped_for(name: &str, running: &Running) -> Result<Description> {
    let mut description = Description::parse(shipped(name).unwrap_or_default())?;
    description.set("http", &running.url(""));
    Ok(description)
}

/// Nothing fails, and nothing is left out that is not expected to be.
async fn conforms(env: &TestEnv, description: &Description, left_out: &[&str]) -> Result<()> {
    let kafka = KafkaConfig::plaintext(env.brokers());
    let mut wire = KafkaWire::open(kafka, &description.topic, topic::SAGA_INPUTS).await?;
    let world = Described::new(description)?;
    let kit = Kit {
        description,
        wire: &mut wire,
        world: &world,
        patience: Patience::default(),
    };
    let report: Report = kit.run(|_| {}).await?;
    let failed: Vec<_> = report.failed().collect();
    ensure!(
        failed.is_empty(),
        "{}: {failed:#?}",
        description.participant
    );
    for result in report.skipped() {
        let compensates = description.commands.iter().any(|command| {
            command.command_type == result.command && command.compensation.is_some()
        });
        let needs_one = result.why().contains("has no compensation");
        ensure!(
            (needs_one && !compensates) || left_out.contains(&result.case.as_str()),
            "{}: {} was not tried: {}",
            description.participant,
            result.case,
            result.why()
        );
    }
    ensure!(
        report.passed_count() > 20,
        "{} cases passed",
        report.passed_count()
    );
    Ok(())
}

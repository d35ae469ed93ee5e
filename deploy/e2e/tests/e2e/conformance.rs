//! Our own participants, including the one in Node, fulfill the contract that every participant must fulfill.

use crate::{
    e2e,
    node::participant::{NodeParticipant, directory},
};
use anyhow::{Result, ensure};
use inventory_svc::InventoryService;
use order_svc::OrderService;
use payment_svc::PaymentService;
use saga_conformance::{Described, Description, KafkaWire, Kit, Patience, Report, shipped};
use saga_contracts::topic;
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{Command, Direction, Outcome},
};
use saga_harness::system::PATIENCE;
use saga_messaging::kafka::KafkaConfig;
use saga_service::{Service, clock};
use saga_test_support::{
    environment::{TestEnv, until},
    participant::{Conversation, command},
    service::Running,
};
use serde_json::json;
use std::time::Duration;
use uuid::{Builder, Uuid};

/// Two partitions, so that a reply can go to the wrong one.
const PARTITIONS: i32 = 2;

e2e! {
/// Runs on private servers and without an orchestrator: the conformance kit takes the orchestrator's place.
async fn every_participant_keeps_the_contract() {
    let env = TestEnv::exclusive().await;
    for name in topic::ALL {
        env.create_topics(&[(name, PARTITIONS), (&topic::dead_letters_of(name), 1)]).await;
    }
    let orders = started::<OrderService>(&env, &env.create_database("orders").await, "").await?;
    conforms(&env, &shipped_for("order", &orders)?, &NO_WHOLE).await?;
    orders.stop().await?;

    let inventory = started::<InventoryService>(&env, &env.create_database("inventory").await, "").await?;
    let left_out = [&[NO_ERROR, NO_STARTED][..], &NO_WHOLE].concat();
    conforms(&env, &shipped_for("inventory", &inventory)?, &left_out).await?;
    inventory.stop().await?;

    let rules = "gateway.rules = [{ amount_minor = 1302, effect = \"error\", times = 1 }]";
    let database = env.create_database("payments").await;
    let payments = started::<PaymentService>(&env, &database, rules).await?;
    let mut description = shipped_for("payment", &payments)?;
    description.set("erring_amount", "1302");
    conforms(&env, &description, &[NO_STARTED]).await?;
    payments.stop().await?;

    // The Node participant uses the database that payment-svc has just left.
    let mut node = NodeParticipant::new(&env.brokers(), &database)?;
    node.start()?;
    let mut description = Description::parse(&std::fs::read_to_string(directory().join("conformance.yaml"))?)?;
    description.set("database", &database);
    description.set("erring_amount", "1302");
    let mut outcome = conforms(&env, &description, &[NO_STARTED]).await;
    if outcome.is_ok() {
        outcome = a_forgotten_command_does_not_run_again(&env, &node).await;
    }
    let stopped = node.stop();
    outcome.map_err(|error| error.context(node.tail()))?;
    stopped
}
}

/// Checks that a command of a forgotten saga does not run again. The kit cannot test this: it would have to make a
/// participant forget sagas that others still need.
async fn a_forgotten_command_does_not_run_again(
    env: &TestEnv,
    node: &NodeParticipant,
) -> Result<()> {
    let mut log = Conversation::open(&env.brokers(), topic::PAYMENT_COMMANDS).await?;
    let now = clock::now();
    let charge = |id: Uuid, floor: Option<Timestamp>| {
        let payload =
            json!({"orderId": id, "customerId": id, "amountMinor": 500, "currency": "EUR"});
        let charge = command(SagaId(id), "payment.charge", Direction::Forward, payload);
        Command { floor, ..charge }
    };
    // The old saga began days ago, so its partition is not the one of today's sagas.
    let long_ago = (now - Duration::from_hours(5 * 24)).timestamp_millis();
    let id = Builder::from_unix_timestamp_millis(long_ago.cast_unsigned(), &[7; 10]);
    let old = charge(id.into_uuid(), None);
    ensure!(log.ask(&old).await?.outcome == Outcome::Success);
    ensure!(log.ask(&charge(clock::new_id(), Some(now))).await?.outcome == Outcome::Success);
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

/// The cases that a description may leave out.
const NO_STARTED: &str = "the starter's step can be compensated";
const NO_ERROR: &str = "an error is not saved";
/// The cases that a description leaves out if its commands have no number.
const NO_WHOLE: [&str; 3] = [
    "a whole number is one however it is written",
    "a number that is not whole is refused",
    "a whole number that floating-point does not hold is refused",
];

/// The commands that have a number, so that these cases must be tried with them.
const WITH_NUMBERS: [&str; 2] = ["inventory.reserve", "payment.charge"];

async fn started<S: Service>(env: &TestEnv, url: &str, extra: &str) -> Result<Running> {
    let brokers = env.brokers();
    let running = Running::start::<S>(&format!(
        "postgres.url = \"{url}\"\nkafka.brokers = \"{brokers}\"\nlog.format = \"human\"\n{extra}"
    ))
    .await?;
    let http = saga_test_support::http_client();
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

/// Runs the kit, and checks that no case fails and that only the expected cases are left out.
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
        let has_number = WITH_NUMBERS.contains(&result.command.as_str())
            && NO_WHOLE.contains(&result.case.as_str());
        ensure!(
            !has_number
                && ((needs_one && !compensates) || left_out.contains(&result.case.as_str())),
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

//! Tests the whole service on a real Kafka. The command topic and the group have fixed names, so there is only one
//! test.

use crate::fixture::{code_of_reply, release, reserve};
use anyhow::{Context, Result, ensure};
use inventory_svc::InventoryService;
use saga_contracts::topic;
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, Outcome, Reply},
};
use saga_service::clock;
use saga_test_support::{
    environment::{TestEnv, until},
    participant::Conversation,
    service::{Running, adopts_group, identity, refuses_another_database},
};
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_mins(1);
const PARTITIONS: i32 = 2;

fn overrides(database: &str, brokers: &str) -> String {
    format!(
        "postgres.url = \"{database}\"\nkafka.brokers = \"{brokers}\"\nlog.format = \"human\"\n"
    )
}

async fn start(database: &str, brokers: &str) -> Result<Running> {
    Running::start::<InventoryService>(&overrides(database, brokers)).await
}

/// Sends the commands, waits for as many replies, and returns the replies by saga.
async fn ask_all(log: &mut Conversation, commands: &[Command]) -> Result<BTreeMap<SagaId, Reply>> {
    log.send(commands).await?;
    let mut replies = BTreeMap::new();
    while replies.len() < commands.len() {
        let reply = log
            .reply()
            .await
            .with_context(|| format!("{} of {} replies", replies.len(), commands.len()))?;
        replies.insert(reply.saga_id, reply);
    }
    Ok(replies)
}

fn new_saga(command: Command) -> Command {
    Command {
        saga_id: SagaId(clock::new_id()),
        ..command
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_service_answers_commands_and_two_of_it_sell_the_last_item_once() -> Result<()> {
    let env = TestEnv::shared().await;
    let database = env.create_database("inventory_service").await;
    let topics = [topic::INVENTORY_COMMANDS, topic::SAGA_INPUTS];
    env.create_topics(&topics.map(|name| (name, PARTITIONS)))
        .await;
    env.create_topics(&[(&topic::dead_letters_of(topic::INVENTORY_COMMANDS), 1)])
        .await;
    let brokers = env.brokers();
    let first = start(&database, &brokers).await?;
    let http = saga_test_support::http_client();
    until("the service is healthy", PATIENCE, async || {
        http.get(first.url("/health"))
            .send()
            .await?
            .error_for_status()
            .map(drop)
    })
    .await;

    let mut log = Conversation::open(&brokers, topic::INVENTORY_COMMANDS).await?;
    one_saga(&first, &http, &mut log).await?;
    let second = start(&database, &brokers).await?;
    // A service with an empty database would refuse half of all orders.
    let empty = env.create_database("inventory_stranger").await;
    let stranger = overrides(&empty, &brokers);
    refuses_another_database::<InventoryService>(&stranger, topic::INVENTORY_GROUP, &database)
        .await?;
    last_item(&first, &http, &mut log).await?;
    second.stop().await?;
    first.stop().await?;
    moved(&database, &empty, &brokers, &mut log).await
}

/// Gives the group to another database on purpose. From then on the former one is refused.
async fn moved(former: &str, new: &str, brokers: &str, log: &mut Conversation) -> Result<()> {
    let said = adopts_group::<InventoryService>(&overrides(new, brokers)).await?;
    for database in [former, new] {
        let id = identity(database).await?;
        ensure!(said.contains(&id), "{id} is not in: {said}");
    }
    let running = start(new, brokers).await?;
    let http = saga_test_support::http_client();
    one_saga(&running, &http, log).await?;
    let former_one = overrides(former, brokers);
    refuses_another_database::<InventoryService>(&former_one, topic::INVENTORY_GROUP, new).await?;
    running.stop().await
}

async fn restock(running: &Running, http: &reqwest::Client, available: u32) -> Result<Uuid> {
    let product = Uuid::new_v4();
    let url = running.url(&format!("/stock/{product}"));
    http.put(url)
        .json(&json!({"available": available}))
        .send()
        .await?
        .error_for_status()?;
    Ok(product)
}

async fn stock(running: &Running, http: &reqwest::Client, product: Uuid) -> Result<Value> {
    let url = running.url(&format!("/stock/{product}"));
    let stock: Value = http
        .get(url)
        .send()
        .await?
        .error_for_status()?
        .json()
        .await?;
    Ok(json!([
        stock["available"],
        stock["reserved"],
        stock["sold"]
    ]))
}

/// Sends a reservation, a duplicate, the compensation, a late duplicate, and a resolve of an action that never ran.
async fn one_saga(running: &Running, http: &reqwest::Client, log: &mut Conversation) -> Result<()> {
    let (product, order) = (restock(running, http, 3).await?, Uuid::new_v4());
    let action = new_saga(reserve(order, &[(product, 2)]));
    let reserved = log.ask(&action).await?;
    assert_eq!(reserved.reply_type, "inventory.reserved");
    assert_eq!(
        log.ask(&Command {
            attempt: 2,
            ..action.clone()
        })
        .await?
        .id(),
        reserved.id()
    );
    assert_eq!(stock(running, http, product).await?, json!([1, 2, 0]));
    let compensation = Command {
        saga_id: action.saga_id,
        direction: Direction::Compensation,
        ..release(order)
    };
    assert_eq!(
        log.ask(&compensation).await?.reply_type,
        "inventory.released"
    );
    assert_eq!(stock(running, http, product).await?, json!([3, 0, 0]));
    assert_eq!(log.ask(&action).await?.id(), reserved.id());
    assert_eq!(stock(running, http, product).await?, json!([3, 0, 0]));

    let never = new_saga(reserve(Uuid::new_v4(), &[(product, 2)]));
    let resolve = Command {
        direction: Direction::Resolve,
        command_type: format!("{}{}", never.command_type, Command::RESOLVE_SUFFIX),
        ..never.clone()
    };
    assert_eq!(log.ask(&resolve).await?.outcome, Outcome::NotDone);
    assert_eq!(log.ask(&never).await?.outcome, Outcome::NotDone);
    assert_eq!(stock(running, http, product).await?, json!([3, 0, 0]));
    Ok(())
}

async fn last_item(
    running: &Running,
    http: &reqwest::Client,
    log: &mut Conversation,
) -> Result<()> {
    let product = restock(running, http, 1).await?;
    let buyers: Vec<Command> = (0..200)
        .map(|_| new_saga(reserve(Uuid::new_v4(), &[(product, 1)])))
        .collect();
    let replies = ask_all(log, &buyers).await?;
    let count = |code| {
        replies
            .values()
            .filter(|reply| code_of_reply(reply) == code)
            .count()
    };
    assert_eq!((count("ok"), count("out_of_stock")), (1, 199));
    assert_eq!(stock(running, http, product).await?, json!([0, 1, 0]));
    Ok(())
}

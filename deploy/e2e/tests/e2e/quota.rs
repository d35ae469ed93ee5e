//! Services whose Kafka client is over its quota are slow, and nothing else.

use crate::{alone, e2e};
use anyhow::Result;
use futures_util::future::{join_all, try_join_all};
use saga_contracts::topic;
use saga_core::message::Command;
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE, topics};
use saga_test_support::{environment::until, quota::limit_producer};
use std::collections::{BTreeMap, BTreeSet};
use uuid::Uuid;

/// The client id of every service.
const CLIENT: &str = "saga";
/// The orders together write some 500 kB. Kafka allows eleven seconds' worth at once.
const BYTES_A_SECOND: f64 = 25_000.0;
const ORDERS: usize = 40;

e2e! {
async fn a_quota_delays_sagas_and_neither_compensates_them_nor_sends_commands_again() {
    let (system, _guard) = alone().await;
    let brokers = system.env.brokers();
    let product = system.stock_product(1_000).await?;
    limit_producer(&brokers, CLIENT, Some(BYTES_A_SECOND)).await?;
    let request = OrderRequest::one(product, 1, 5.0);
    let placed = join_all((0..ORDERS).map(|_| system.place(&request))).await;
    until("a service says that it is throttled", PATIENCE, || throttled(system)).await;
    let placed: Vec<Order> = placed.into_iter().collect::<Result<_>>()?;
    let orders = try_join_all(placed.iter().map(|order| system.ended(order.id))).await;
    // Other tests use these brokers, too.
    limit_producer(&brokers, CLIENT, None).await?;
    for order in orders? {
        assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
        system.saga_is(order.saga, "completed").await?;
    }
    let sagas = placed.iter().map(|order| order.saga).collect();
    let sent = commands_of(&brokers, &sagas)?;
    let again: Vec<_> = sent.iter().filter(|(_, times)| **times > 1).collect();
    assert!(again.is_empty(), "sent again: {again:?}");
    assert_eq!(sent.len(), 4 * ORDERS);
    Ok(())
}
}

/// Returns how often each command of these sagas is in the topics, by its id.
fn commands_of(brokers: &str, sagas: &BTreeSet<Uuid>) -> Result<BTreeMap<String, usize>> {
    let mut sent = BTreeMap::new();
    for topic in [
        topic::ORDER_COMMANDS,
        topic::INVENTORY_COMMANDS,
        topic::PAYMENT_COMMANDS,
    ] {
        for record in topics::read_all(brokers, topic)? {
            // Other tests leave records that no command can be read from.
            let Ok(command) = Command::decode(&record) else {
                continue;
            };
            if sagas.contains(&command.saga_id.0) {
                *sent.entry(command.id()).or_default() += 1;
            }
        }
    }
    Ok(sent)
}

async fn throttled(system: &System) -> Result<()> {
    for service in Service::ALL {
        let url = system.url(service, "/metrics");
        let metrics = system.http.get(url).send().await?.text().await?;
        let delays = metrics
            .lines()
            .filter_map(|line| line.strip_prefix("saga_log_throttled_seconds{"))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok());
        if delays.fold(0.0, f64::max) > 0.0 {
            return Ok(());
        }
    }
    Err(anyhow::anyhow!("no service says so"))
}

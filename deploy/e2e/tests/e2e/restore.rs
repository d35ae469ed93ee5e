//! Databases that are restored from a backup while Kafka and the other services' databases are not, and topics that are
//! deleted while the databases are not.

use crate::{alone, e2e};
use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use saga_audit::Check;
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE};
use saga_test_support::{environment::until, service::ticks};
use std::{collections::BTreeSet, time::Instant};
use uuid::Uuid;

const STOCK: u64 = 1_000;
/// The number of orders that are confirmed in each phase; one more is declined.
const ORDERS: usize = 5;
/// A price above the gateway's limit.
const DECLINED: f64 = 1_500.0;

/// Returns orders that have ended, the last of them compensated.
async fn ended(system: &System, product: Uuid) -> Result<Vec<Order>> {
    let requests = (0..=ORDERS).map(|number| {
        let price = if number < ORDERS { 5.0 } else { DECLINED };
        OrderRequest::one(product, 1, price)
    });
    let placing = requests.map(|request| async move { system.place_and_wait(&request).await });
    let orders = try_join_all(placing).await?;
    for (number, order) in orders.iter().enumerate() {
        let (status, saga) = if number < ORDERS {
            ("CONFIRMED", "completed")
        } else {
            ("CANCELLED", "compensated")
        };
        ensure!(order.status() == status, "{}", order.body);
        system.saga_is(order.saga, saga).await?;
    }
    Ok(orders)
}

/// Lets orders end before and after a backup of the service's database, and restores it. Returns the orders before and
/// after.
async fn restored(
    system: &System,
    service: Service,
    product: Uuid,
) -> Result<(Vec<Order>, Vec<Order>)> {
    let postgres = system.env.postgres();
    let database = &system.databases[&service];
    let before = ended(system, product).await?;
    system.stop(service)?;
    let backup = system.env.create_database("backup").await;
    postgres.replace_by_copy(&backup, database).await;
    system.restart(service).await?;
    let then = ticks(&backup).await?;
    let mut after = ended(system, product).await?;
    // Offsets that are committed after a tick show that the backup is older.
    let ticked = async || ticks(database).await.is_ok_and(|now| now > then);
    until("it ticks", PATIENCE, ticked).await;
    after.extend(ended(system, product).await?);
    system.stop(service)?;
    postgres.replace_by_copy(database, &backup).await;
    system.restart(service).await?;
    let log = system.tail(service)?;
    ensure!(
        log.contains("it was restored from a backup"),
        "{}: {log}",
        service.name()
    );
    Ok((before, after))
}

/// Audits until nothing is found about these orders but the given checks. Returns the sagas that the audit then names.
async fn audited(system: &System, orders: &[Order], expected: &[Check]) -> Result<BTreeSet<Uuid>> {
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id).collect();
    let begun = Instant::now();
    loop {
        let mut found = system.audited(&ids).await?;
        let sagas = found.iter().filter_map(|finding| finding.saga).collect();
        found.retain(|finding| !expected.contains(&finding.check));
        if found.is_empty() {
            return Ok(sagas);
        }
        ensure!(begun.elapsed() < PATIENCE, "{found:#?}");
    }
}

e2e! {
async fn a_service_that_is_restored_from_a_backup_does_again_what_the_backup_lacks() {
    let (system, _guard) = alone().await;
    for service in [Service::Inventory, Service::Payment, Service::Orchestrator] {
        let product = system.stock_product(STOCK).await?;
        let (mut orders, after) = restored(system, service, product).await?;
        orders.extend(after);
        orders.extend(ended(system, product).await?);
        // Inputs that are processed again make events again, with the same ids and other times.
        let again = [Check::EventDiffers];
        let expected = if service == Service::Orchestrator { &again[..] } else { &[] };
        audited(system, &orders, expected).await?;
        let sold = 4 * ORDERS as i64;
        let stock = system.stock(product).await?;
        assert_eq!(stock, (STOCK as i64 - sold, 0, sold), "{}", service.name());
        for order in &orders {
            let paid = match order.status() {
                "CONFIRMED" => "charged",
                _ => "declined",
            };
            assert_eq!(system.payment_status(order.id).await?, paid, "{}", service.name());
        }
    }
    Ok(())
}
}

e2e! {
/// Orders come over HTTP, so a backup lacks the later ones for good.
async fn an_order_svc_that_is_restored_from_a_backup_lacks_later_orders_and_the_audit_names_them() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(STOCK).await?;
    let (before, after) = restored(system, Service::Order, product).await?;
    let later = ended(system, product).await?;
    let orders = [before, after.clone(), later].concat();
    let lost = |order: &&Order| order.status() == "CONFIRMED";
    let lost: BTreeSet<Uuid> = after.iter().filter(lost).map(|order| order.saga).collect();
    let named = audited(system, &orders, &[Check::EffectWithoutOrder]).await?;
    assert_eq!(named, lost);
    let sold = 4 * ORDERS as i64;
    assert_eq!(system.stock(product).await?, (STOCK as i64 - sold, 0, sold));
    Ok(())
}
}

e2e! {
async fn orders_in_flight_end_though_all_topics_are_deleted() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(STOCK).await?;
    let mut orders = ended(system, product).await?;
    system.stop(Service::Payment)?;
    let request = OrderRequest::one(product, 1, 5.0);
    for _ in 0..ORDERS {
        let order = system.place(&request).await?;
        until("its stock is reserved", PATIENCE, || async {
            let saga = system.saga(order.saga).await?;
            ensure!(saga["waitingOn"]["participant"] == "payment", "{saga:#}");
            anyhow::Ok(())
        })
        .await;
        orders.push(order);
    }
    for service in [Service::Order, Service::Orchestrator, Service::Inventory] {
        system.stop(service)?;
    }
    system.recreate_topics().await;
    for service in Service::ALL {
        system.spawn(service)?;
    }
    for service in Service::ALL {
        system.ready(service).await?;
    }
    for order in &orders[ORDERS + 1..] {
        assert_eq!(system.ended(order.id).await?.status(), "CONFIRMED");
    }
    orders.extend(ended(system, product).await?);
    audited(system, &orders, &[Check::TerminalEventMissing, Check::EventGap]).await?;
    let sold = 3 * ORDERS as i64;
    assert_eq!(system.stock(product).await?, (STOCK as i64 - sold, 0, sold));
    Ok(())
}
}

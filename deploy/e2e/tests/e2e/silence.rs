//! Connections to Postgres become silent in all four services at once.

use crate::{alone, e2e};
use anyhow::{Context, Result, ensure};
use futures_util::future::{join_all, try_join_all};
use saga_contracts::topic;
use saga_harness::{OrderRequest, Service, System};
use saga_postgres::silence::SILENCE_LIMIT;
use saga_test_support::{
    environment::until,
    proxy::{Proxy, Weather},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Mutex,
    time::Duration,
};
use tokio::time::{Instant, sleep};
use uuid::Uuid;

/// Everything must work again within this time.
const RECOVERY: Duration = SILENCE_LIMIT.saturating_add(Duration::from_secs(5));
/// The number of clients. They place orders all the time, so that every service has work in progress.
const CLIENTS: usize = 8;
const PAUSE: Duration = Duration::from_millis(20);
/// The words of `/health` about work that is stuck.
const WAITS: &str = "has been waiting to be finished";
/// Work that has waited for longer waits for a silent database.
const STUCK_SECONDS: f64 = 1.0;

e2e! {
async fn services_whose_connections_went_silent_say_so_and_go_on() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(1_000_000).await?;
    let proxies = behind_proxies(system, product).await?;
    let forgetting = async {
        sleep(Duration::from_secs(2)).await;
        for proxy in proxies.values() {
            proxy.forget();
        }
        let forgotten = Instant::now();
        until("a service says that its work waits", RECOVERY, || says_so(system)).await;
        forgotten
    };
    let (forgotten, accepted) = order_until(system, product, forgetting).await;
    let left = RECOVERY.saturating_sub(forgotten.elapsed());
    until("orders are taken and confirmed again", left, || async {
        let request = OrderRequest::one(product, 1, 5.0).header("prefer", "wait=4");
        let order = system.place(&request).await?;
        ensure!(order.status() == "CONFIRMED", "{}", order.body);
        anyhow::Ok(())
    })
    .await;
    let ends = try_join_all(accepted.iter().map(|id| system.ended(*id))).await?;
    assert!(ends.iter().all(|order| order.status() == "CONFIRMED"));
    well_again(system).await
}
}

e2e! {
/// New connections are silent, too: on one of those, a handler's statement would be tried again after 5 s.
async fn each_service_whose_database_is_silent_says_so() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(1_000_000).await?;
    let proxies = behind_proxies(system, product).await?;
    let telling = async {
        proxies[&Service::Payment].set(Weather::Silent);
        // Whoever sends work to a service still does when it goes silent, so that each service has work in hand.
        for service in [Service::Inventory, Service::Orchestrator, Service::Order] {
            proxies[&service].set(Weather::Silent);
            until("its work stands", RECOVERY, || stands(system, service)).await;
        }
        let silent = Mutex::new(Service::ALL.into_iter().collect());
        until("all say so", RECOVERY, || say_so(system, &silent)).await;
        for proxy in proxies.values() {
            proxy.set(Weather::Fair);
        }
    };
    let ((), accepted) = order_until(system, product, telling).await;
    let ends = try_join_all(accepted.iter().map(|id| system.ended(*id))).await?;
    assert!(ends.iter().all(|order| order.status() == "CONFIRMED"));
    well_again(system).await
}
}

/// Restarts all services with a proxy in front of each database, and waits until they confirm an order.
async fn behind_proxies(system: &System, product: Uuid) -> Result<BTreeMap<Service, Proxy>> {
    let mut proxies = BTreeMap::new();
    for service in Service::ALL {
        let (proxy, url) = Proxy::before(&system.databases[&service]).await?;
        system.configure(service, "POSTGRES__URL", Some(&url));
        system.stop(service)?;
        system.restart(service).await?;
        proxies.insert(service, proxy);
    }
    let first = system.place(&OrderRequest::one(product, 1, 5.0)).await?;
    assert_eq!(system.ended(first.id).await?.status(), "CONFIRMED");
    Ok(proxies)
}

/// Waits until all services are healthy, and restarts them without proxies.
async fn well_again(system: &System) -> Result<()> {
    for service in Service::ALL {
        until("it is healthy again", RECOVERY, || healthy(system, service)).await;
        let url = system.databases[&service].clone();
        system.configure(service, "POSTGRES__URL", Some(&url));
        system.stop(service)?;
        system.restart(service).await?;
    }
    Ok(())
}

/// Places orders until `end` completes. Returns the result of `end` and the ids of the accepted orders.
async fn order_until<T>(
    system: &System,
    product: Uuid,
    end: impl Future<Output = T>,
) -> (T, Vec<Uuid>) {
    let stop = tokio_util::sync::CancellationToken::new();
    let clients = (0..CLIENTS).map(|_| async {
        let mut accepted = Vec::new();
        while !stop.is_cancelled() {
            let request = OrderRequest::one(product, 1, 5.0);
            // Refused and hanging requests are expected here.
            tokio::select! {
                placed = system.place(&request) => {
                    accepted.extend(placed.ok().map(|order| order.id));
                    sleep(PAUSE).await;
                }
                () = stop.cancelled() => {}
            }
        }
        accepted
    });
    let ending = async {
        let result = end.await;
        stop.cancel();
        result
    };
    let (result, accepted) = tokio::join!(ending, join_all(clients));
    (result, accepted.concat())
}

/// Succeeds if at least one service reports that its current work is stuck.
async fn says_so(system: &System) -> Result<()> {
    let mut said = Vec::new();
    for service in Service::ALL {
        let answer = system
            .http
            .get(system.url(service, "/health"))
            .send()
            .await?;
        let body = answer.text().await?;
        if body.contains(WAITS) {
            return Ok(());
        }
        said.push(body);
    }
    Err(anyhow::anyhow!("{}", said.join("\n")))
}

/// Succeeds if some work of the service waits for longer than any work does whose database answers.
async fn stands(system: &System, service: Service) -> Result<()> {
    let url = system.url(service, "/metrics");
    let metrics = system.http.get(url).send().await?.text().await?;
    let waiting = metrics.lines().filter_map(|line| {
        let value = line.strip_prefix("saga_work_waiting_seconds{")?;
        value.rsplit(' ').next()?.parse().ok()
    });
    let longest = waiting.fold(0.0, f64::max);
    ensure!(longest > STUCK_SECONDS, "{}: {longest} s", service.name());
    Ok(())
}

/// Returns work of the service that goes on by itself, so that it stands while the database is silent.
fn work_of(service: Service) -> &'static str {
    match service {
        Service::Order => "outbox",
        Service::Orchestrator => "timers",
        Service::Inventory => topic::INVENTORY_COMMANDS,
        Service::Payment => topic::PAYMENT_COMMANDS,
    }
}

/// Removes the services whose `/health` says that their work stands. Succeeds once all have said so.
async fn say_so(system: &System, silent: &Mutex<BTreeSet<Service>>) -> Result<()> {
    let asking = Service::ALL.map(|service| async move {
        let url = system.url(service, "/health");
        let answer = system.http.get(url).send().await?;
        let status = answer.status();
        let body = answer.text().await?;
        let stands = format!(r#""name":"work on {}","status":"down""#, work_of(service));
        if status == 503 && body.contains(&stands) && body.contains(WAITS) {
            silent.lock().expect("lock").remove(&service);
        }
        anyhow::Ok(())
    });
    try_join_all(asking).await?;
    let silent = silent.lock().expect("lock");
    ensure!(silent.is_empty(), "{silent:?} have not said so");
    Ok(())
}

async fn healthy(system: &System, service: Service) -> Result<()> {
    let answer = system
        .http
        .get(system.url(service, "/health"))
        .send()
        .await?;
    let status = answer.status();
    let body = answer.text().await?;
    ensure!(status.is_success(), "{}: {body}", service.name());
    body.contains("work on").then_some(()).context(body)
}

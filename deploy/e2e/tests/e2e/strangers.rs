//! Whoever does not belong to the system is refused by all four services: processes with another database, and pages of
//! other sites.

use crate::{alone, e2e, shared};
use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use reqwest::Method;
use saga_harness::{Order, OrderRequest, Service, System};
use saga_test_support::service::identity;
use serde_json::Value;
use uuid::Uuid;

/// The number of orders that are placed while a stranger comes.
const ORDERS: usize = 10;

async fn confirmed(system: &System, product: Uuid) -> Result<Vec<Order>> {
    let placing = (0..ORDERS).map(|_| async {
        let order = OrderRequest::one(product, 1, 5.0);
        system.place_and_wait(&order).await
    });
    let orders = try_join_all(placing).await?;
    for order in &orders {
        ensure!(order.status() == "CONFIRMED", "{}", order.body);
    }
    Ok(orders)
}

e2e! {
async fn a_second_database_behind_a_service_is_refused_and_everything_adds_up() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(1_000).await?;
    let mut orders = Vec::new();
    for service in Service::ALL {
        let database = system.env.create_database("stranger").await;
        let (stranger, placed) =
            tokio::join!(system.run_stranger(service, &database), confirmed(system, product));
        let (status, log) = stranger?;
        ensure!(status.code() == Some(1), "{}: {status}\n{log}", service.name());
        for id in [identity(&database).await?, identity(&system.databases[&service]).await?] {
            ensure!(log.contains(&id), "{id} is not in\n{log}");
        }
        ensure!(log.contains("adopt-group"), "{log}");
        orders.extend(placed?);
    }
    // Nothing was left behind for orders that come later, either.
    orders.extend(confirmed(system, product).await?);
    let sold = orders.len() as i64;
    assert_eq!(system.stock(product).await?, (1_000 - sold, 0, sold));
    for order in &orders {
        system.saga_is(order.saga, "completed").await?;
    }
    let ids: Vec<Uuid> = orders.iter().map(|order| order.id).collect();
    assert_eq!(system.audited(&ids).await?, []);
    Ok(())
}
}

e2e! {
async fn a_page_of_somebody_else_reads_and_changes_nothing_of_any_service() {
    let (system, _guard) = shared().await;
    let order = system.place(&OrderRequest::one(system.stock_product(1).await?, 1, 5.0)).await?;
    for (service, path) in [
        (Service::Order, format!("/orders/{}/cancel", order.id)),
        (Service::Orchestrator, format!("/sagas/{}/abandon", order.saga)),
        (Service::Inventory, format!("/stock/{}", Uuid::new_v4())),
        (Service::Payment, format!("/payments/{}", order.id)),
    ] {
        let name = service.name();
        let ask = async |method: Method, header: &str, value: &str| -> Result<(u16, String)> {
            let request = system.http.request(method, system.url(service, &path));
            let answer = request.header(header, value).send().await?;
            let status = answer.status().as_u16();
            let body: Value = answer.json().await?;
            Ok((status, body["type"].as_str().unwrap_or_default().to_owned()))
        };
        let misdirected = (421, "/problems/misdirected-request".to_owned());
        assert_eq!(ask(Method::GET, "host", "evil.example:3001").await?, misdirected, "{name}");
        assert_eq!(ask(Method::POST, "host", "evil.example:3001").await?, misdirected, "{name}");
        let foreign = (403, "/problems/foreign-origin".to_owned());
        for method in [Method::POST, Method::PUT] {
            assert_eq!(ask(method, "origin", "http://evil.example").await?, foreign, "{name}");
        }
    }
    assert_eq!(system.ended(order.id).await?.status(), "CONFIRMED");
    Ok(())
}
}

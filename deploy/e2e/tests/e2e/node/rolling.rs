//! payment-svc and the Node participant in one consumer group: each takes over from the other while orders are in
//! flight.

use super::{beside, kept, participant::NodeParticipant, putting_back};
use crate::{PAYMENT_FIRST, alone, e2e};
use anyhow::{Result, ensure};
use futures_util::future::try_join_all;
use saga_audit::{Journal, Settings, Sources};
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE};
use saga_service::clock;
use std::time::Instant;
use uuid::Uuid;

/// The number of orders in flight at each change. Some are charged by then, and some are not.
const ORDERS: usize = 20;
/// The number of kinds of orders that [`place`] places.
const KINDS: usize = 4;
/// More than the gateway's limit, so that some sagas compensate.
const TOO_MUCH: f64 = 1_000.50;

#[derive(Clone, Copy)]
struct Products {
    stocked: Uuid,
    sold_out: Uuid,
}

e2e! {
async fn payment_svc_and_a_participant_in_node_take_over_from_each_other() {
    let (system, _guard) = alone().await;
    let mut node = beside(system)?;
    let outcome = putting_back(system, rolled(system, &mut node)).await;
    outcome.map_err(|error| error.context(node.tail()))
}
}

/// Runs payment-svc alone, both, Node alone, both, and payment-svc alone. In the first round each is stopped, in the
/// second round each is killed.
async fn rolled(system: &System, node: &mut NodeParticipant) -> Result<()> {
    let began = clock::now();
    let products = Products {
        stocked: system.stock_product(100_000).await?,
        sold_out: system.stock_product(0).await?,
    };
    let (charges, net) = (node.charges().await?, node.net_charged().await?);
    let mut placed = Vec::new();
    for killed in [false, true] {
        placed.extend(place(system, products, ORDERS).await?);
        node.start()?;
        placed.extend(joins(system, node, products).await?);
        placed.extend(place(system, products, ORDERS).await?);
        if killed {
            system.kill(Service::Payment)?;
        } else {
            system.stop(Service::Payment)?;
        }
        placed.extend(place(system, products, ORDERS).await?);
        system.restart(Service::Payment).await?;
        placed.extend(place(system, products, ORDERS).await?);
        if killed {
            node.kill()?;
        } else {
            node.stop()?;
        }
    }
    let ids: Vec<Uuid> = placed.iter().map(|order| order.id).collect();
    let ended: Vec<Order> = try_join_all(ids.iter().map(|id| system.ended(*id))).await?;
    let confirmed = ended.iter().filter(|order| order.status() == "CONFIRMED");
    let confirmed_minor: i64 = ended.iter().map(kept).sum();
    ensure!(confirmed.count() * 2 == placed.len(), "a half is confirmed");
    let taken = node.charges().await? - charges;
    ensure!(
        taken * 4 == placed.len() as i64 * 3,
        "{taken} of {} are charged",
        placed.len()
    );
    let left = node.net_charged().await? - net;
    ensure!(
        left == confirmed_minor,
        "charged and kept: {left}, confirmed: {confirmed_minor}"
    );
    audited(system, began).await
}

/// Places orders until this run of the Node process has answered some, and therefore is a member of the group. Returns
/// the orders.
async fn joins(system: &System, node: &NodeParticipant, products: Products) -> Result<Vec<Order>> {
    let deadline = Instant::now() + PATIENCE;
    let mut placed = Vec::new();
    loop {
        let said = node.tail();
        let of_this_run = said.rsplit("\"stopped\"").next().unwrap_or_default();
        if of_this_run.contains("answered success") {
            return Ok(placed);
        }
        ensure!(Instant::now() < deadline, "it has answered nothing");
        let more = place(system, products, KINDS).await?;
        // Waits until each batch has ended, so that the Node participant need not catch up.
        try_join_all(more.iter().map(|order| system.ended(order.id))).await?;
        placed.extend(more);
    }
}

/// Places orders, a quarter of each kind: declined, confirmed by either definition, and charged before the product
/// turns out to be sold out.
async fn place(system: &System, products: Products, count: usize) -> Result<Vec<Order>> {
    let Products { stocked, sold_out } = products;
    let requests: Vec<OrderRequest> = (0..count)
        .map(|index| match index % KINDS {
            0 => OrderRequest::one(stocked, 1, TOO_MUCH),
            1 => OrderRequest::one(stocked, 1, 7.0),
            2 => OrderRequest::one(stocked, 1, 7.0).definition(PAYMENT_FIRST),
            _ => OrderRequest::one(sold_out, 1, 7.0).definition(PAYMENT_FIRST),
        })
        .collect();
    try_join_all(requests.iter().map(|request| system.place(request))).await
}

/// Checks with the audit that nothing was lost and nothing is left over.
async fn audited(system: &System, began: saga_core::ids::Timestamp) -> Result<()> {
    let url = |service| system.databases[&service].clone();
    let sources = Sources {
        orchestrator: url(Service::Orchestrator),
        order: url(Service::Order),
        inventory: url(Service::Inventory),
        payment: url(Service::Payment),
        brokers: system.env.brokers(),
        kafka: Vec::new(),
        orchestrator_group: Sources::DEFAULT_GROUP.to_owned(),
    };
    let settings = Settings {
        since: Some(began),
        ..Settings::default()
    };
    let report = saga_audit::audit(&sources, &Journal::default(), &settings).await?;
    ensure!(report.discrepancies.is_empty(), "{report}");
    Ok(())
}

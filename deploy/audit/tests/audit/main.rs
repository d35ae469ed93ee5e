//! Every check fails on what it is for: a system that adds up is broken in one place at a time, on a real Postgres and a
//! real Kafka, and exactly that is reported.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod world;

use saga_audit::{Check, Finding, Settings, audit};
use std::{collections::BTreeSet, time::Duration};
use world::World;

fn settings() -> Settings {
    Settings {
        // Nothing moves here, so the second look may follow at once.
        interval: Duration::ZERO,
        ..Settings::default()
    }
}

type Identity = (Check, Option<uuid::Uuid>, String);

fn identities(findings: &[Finding]) -> BTreeSet<Identity> {
    let identity = |finding: &Finding| (finding.check, finding.saga, finding.subject.clone());
    findings.iter().map(identity).collect()
}

/// One test: it takes a while to make a world, and what stands in a topic cannot be taken back.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_finds_what_it_is_for_and_nothing_else() {
    let world = World::new().await;
    let clean = audit(&world.sources, &world.journal, &settings())
        .await
        .unwrap();
    assert_eq!(clean.discrepancies, [], "a world that adds up");
    assert_eq!(clean.looks, 1);
    assert_eq!(clean.parked.len(), 1);
    let mut covered = BTreeSet::new();
    let mut known = BTreeSet::new();
    for case in cases::all() {
        let (journal, settings) = case.arrange(&world, settings()).await;
        let report = audit(&world.sources, &journal, &settings).await.unwrap();
        let found = identities(&report.discrepancies);
        let new: BTreeSet<Check> = found.difference(&known).map(|(check, ..)| *check).collect();
        let expected: BTreeSet<Check> = case.finds.iter().copied().collect();
        assert_eq!(new, expected, "{}: {:#?}", case.name, report.discrepancies);
        covered.extend(expected);
        case.undo(&world).await;
        if case.stays() {
            known.extend(found);
        }
    }
    let after = audit(&world.sources, &world.journal, &settings()).await;
    assert_eq!(identities(&after.unwrap().discrepancies), known);
    let missing: Vec<&Check> = cases::EVERY_CHECK
        .iter()
        .filter(|check| !covered.contains(check))
        .collect();
    assert!(missing.is_empty(), "no case for {missing:?}");
}

/// What is on its way is not missing: a start that the orchestrator has not read, an end whose event is not sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_in_flight_is_not_reported() {
    let world = World::new().await;
    let start = world.order_only().await;
    world.start_in_front_of_the_orchestrator(start).await;
    let outbox = world.order_only().await;
    world.start_in_the_outbox(outbox).await;
    world.ended_without_its_event().await;
    let report = audit(&world.sources, &world.journal, &settings())
        .await
        .unwrap();
    assert_eq!(report.discrepancies, []);
}

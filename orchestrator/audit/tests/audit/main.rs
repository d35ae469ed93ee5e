//! Every check fails on its discrepancy: a consistent system is broken in one place at a time, on a real Postgres and a
//! real Kafka, and exactly that is reported.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

mod cases;
mod world;

use saga_audit::{Check, Finding, Settings, audit};
use std::{collections::BTreeSet, time::Duration};
use world::World;

fn settings() -> Settings {
    Settings {
        // Nothing changes here, so the second look may follow at once.
        interval: Duration::ZERO,
        ..Settings::default()
    }
}

type Identity = (Check, Option<uuid::Uuid>, String);

fn identities(findings: &[Finding]) -> BTreeSet<Identity> {
    let identity = |finding: &Finding| (finding.check, finding.saga, finding.subject.clone());
    findings.iter().map(identity).collect()
}

/// One test covers all checks: the setup is slow, and records in a topic cannot be removed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_check_finds_only_its_own_discrepancy() {
    let world = World::new().await;
    let clean = audit(&world.sources, &world.journal, &settings())
        .await
        .unwrap();
    assert_eq!(clean.discrepancies, [], "a world that adds up");
    assert_eq!(clean.looks, 1);
    assert_eq!(clean.parked.len(), 1);
    assert!(
        clean.to_string().contains("way out: see what it did"),
        "{clean}"
    );
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

/// Data in flight is not reported: a start that is not consumed yet, an end whose event is not sent yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn data_in_flight_is_not_reported() {
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

/// Nobody should have to know the checks to act on a report, whether a person or a program reads it.
#[test]
fn every_finding_names_its_way_out_in_one_sentence() {
    for check in cases::EVERY_CHECK {
        let finding = Finding::of_saga(check, uuid::Uuid::max(), "it does not add up");
        let way_out = check.way_out();
        assert!((20..=130).contains(&way_out.len()), "{way_out}");
        assert!(
            !way_out.contains(". ") && !way_out.ends_with('.'),
            "{way_out}"
        );
        let text = finding.to_string();
        assert!(text.ends_with(&format!("; way out: {way_out}")), "{text}");
        assert_eq!(serde_json::to_value(&finding).unwrap()["wayOut"], way_out);
    }
}

//! The messages between the services: headers, correlation, bad records.

use crate::{e2e, shared};
use anyhow::ensure;
use saga_contracts::topic;
use saga_core::message::{IncomingRecord, OutgoingRecord};
use saga_harness::{OrderRequest, system::PATIENCE, topics};
use saga_test_support::environment::until;

e2e! {
async fn correlation_and_trace_travel_through_every_message() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(10).await?;
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let request = OrderRequest::one(product, 1, 5.0)
        .header("x-correlation-id", "my-correlation")
        .header("traceparent", &format!("00-{trace}-00f067aa0ba902b7-01"));
    let response = system.post_order(&request).await?;
    assert_eq!(response.headers()["x-correlation-id"], "my-correlation");
    let body: serde_json::Value = response.json().await?;
    let id: uuid::Uuid = body["id"].as_str().unwrap_or_default().parse()?;
    system.saga_is(id, "completed").await?;
    let brokers = system.env.brokers();
    for name in topic::ALL {
        let records = topics::of_saga(&brokers, name, id)?;
        ensure!(!records.is_empty(), "nothing of {id} in {name}");
        for record in records {
            assert_eq!(record.header("correlation-id")?, Some("my-correlation"), "{name}");
            let traceparent = record.header("traceparent")?.unwrap_or_default();
            assert!(traceparent.contains(trace), "{name}: {traceparent}");
            assert_eq!(record.header("ce_specversion")?, Some("1.0"));
            for header in ["ce_id", "ce_type", "ce_source", "ce_time"] {
                ensure!(record.header(header)?.is_some(), "{name}: no {header}");
            }
        }
    }
    Ok(())
}
}

e2e! {
async fn lifecycle_events_have_a_gapless_sequence() {
    let (system, _guard) = shared().await;
    let product = system.stock_product(0).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    system.saga_is(order.saga, "compensated").await?;
    let events = until("the last event", PATIENCE, || async {
        let events = topics::of_saga(&system.env.brokers(), topic::SAGA_EVENTS, order.saga)?;
        let last = events.last().and_then(|e| e.header("ce_type").ok().flatten().map(str::to_owned));
        ensure!(last.as_deref() == Some("saga.compensated"), "{last:?}");
        Ok(events)
    })
    .await;
    for (n, event) in events.iter().enumerate() {
        assert_eq!(event.parsed::<usize>("saga-sequence")?, n + 1);
    }
    Ok(())
}
}

e2e! {
async fn a_bad_record_goes_to_the_dead_letters_and_its_partition_flows() {
    let (system, _guard) = shared().await;
    let brokers = system.env.brokers();
    let marker = uuid::Uuid::new_v4().to_string();
    for name in [
        topic::SAGA_INPUTS,
        topic::ORDER_COMMANDS,
        topic::INVENTORY_COMMANDS,
        topic::PAYMENT_COMMANDS,
    ] {
        let bad: Vec<OutgoingRecord> = (0..2)
            .map(|partition| OutgoingRecord {
                topic: name.to_owned(),
                partition: Some(partition),
                key: marker.clone().into_bytes(),
                headers: [("ce_type", "nonsense")].into(),
                payload: b"{ this is not JSON \xff".to_vec(),
            })
            .collect();
        topics::publish(&brokers, &bad).await?;
    }
    let product = system.stock_product(10).await?;
    let order = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    assert_eq!(order.status(), "CONFIRMED");
    for name in [
        topic::SAGA_INPUTS,
        topic::ORDER_COMMANDS,
        topic::INVENTORY_COMMANDS,
        topic::PAYMENT_COMMANDS,
    ] {
        let letters: Vec<IncomingRecord> = until("both dead letters", PATIENCE, || async {
            let letters = topics::read_all(&brokers, &topic::dead_letters_of(name))?
                .into_iter()
                .filter(|letter| letter.key.as_deref() == Some(marker.as_bytes()))
                .collect::<Vec<_>>();
            ensure!(letters.len() >= 2, "{} in {name}", letters.len());
            Ok(letters)
        })
        .await;
        for letter in &letters {
            assert_eq!(letter.header("dead-letter-topic")?, Some(name));
            ensure!(letter.header("dead-letter-reason")?.is_some());
            assert_eq!(letter.payload.as_deref(), Some(&b"{ this is not JSON \xff"[..]));
        }
    }
    Ok(())
}
}

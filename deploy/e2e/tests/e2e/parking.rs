//! A gateway that misbehaves: a repeated call with the same key settles a timeout, and a compensation without attempts
//! left parks the saga for a person.

use crate::{alone, e2e};
use saga_harness::{OrderRequest, Service, definition::edited};
use serde_json::json;

/// Returns the shipped definition with only two attempts for a refund.
fn impatient() -> String {
    let shipped =
        include_str!("../../../../orchestrator/definitions/place-order-payment-first.yaml");
    let refund = "      command: payment.refund\n";
    let retried = format!("{refund}      retry: {{ attempts: 2, firstDelay: 100ms }}\n");
    let (name, impatient) = ("place-order-payment-first", "place-order-impatient");
    edited(shipped, &[(name, impatient), (refund, &retried)])
}

e2e! {
async fn a_gateway_that_times_out_charges_once() {
    let (system, _guard) = alone().await;
    let product = system.stock_product(10).await?;
    let mut request = OrderRequest::one(product, 1, 5.0);
    let customer = uuid::Uuid::new_v4();
    request.body["customerId"] = json!(customer);
    let rules = format!("[{{customer_id=\"{customer}\", operation=\"charge\", effect=\"time_out\", times=1}}]");
    system.stop(Service::Payment)?;
    system.configure(Service::Payment, "GATEWAY__RULES", Some(&rules));
    system.restart(Service::Payment).await?;
    let order = system.place_and_wait(&request).await?;
    assert_eq!(order.status(), "CONFIRMED", "{}", order.body);
    assert_eq!(system.payment_status(order.id).await?, "charged");
    system.stop(Service::Payment)?;
    system.configure(Service::Payment, "GATEWAY__RULES", None);
    system.restart(Service::Payment).await?;
    Ok(())
}
}

e2e! {
async fn a_refund_that_keeps_failing_parks_and_a_person_can_retry_it() {
    let (system, _guard) = alone().await;
    let file = system.definitions().join("impatient.yaml");
    std::fs::write(&file, impatient())?;
    system.stop(Service::Orchestrator)?;
    system.restart(Service::Orchestrator).await?;
    let product = system.stock_product(0).await?;
    let mut request = OrderRequest::one(product, 1, 5.0).definition("place-order-impatient");
    let customer = uuid::Uuid::new_v4();
    request.body["customerId"] = json!(customer);
    let rules = format!("[{{customer_id=\"{customer}\", operation=\"refund\", effect=\"error\", times=1000}}]");
    system.stop(Service::Payment)?;
    system.configure(Service::Payment, "GATEWAY__RULES", Some(&rules));
    system.restart(Service::Payment).await?;
    let order = system.place(&request).await?;
    let saga = system.saga_is(order.saga, "parked").await?;
    assert!(saga["waitingOn"]["text"].to_string().contains("needs a person"), "{saga:#}");

    system.stop(Service::Payment)?;
    system.configure(Service::Payment, "GATEWAY__RULES", None);
    system.restart(Service::Payment).await?;
    let retry = system.url(Service::Orchestrator, &format!("/sagas/{}/retry", order.saga));
    let answer =
        system.http.post(retry).json(&json!({"reason": "the gateway is back"})).send().await?;
    assert!(answer.status().is_success(), "{}", answer.text().await?);
    system.saga_is(order.saga, "compensated").await?;
    let order = system.ended(order.id).await?;
    assert_eq!((order.status(), order.reason()), ("CANCELLED", "out_of_stock"));
    assert_eq!(system.payment_status(order.id).await?, "refunded");
    std::fs::remove_file(&file)?;
    Ok(())
}
}

//! Sagas as sentences: every path of both shipped definitions, and operators' actions on them.

mod operator;
mod payment_first;
mod place_order;
mod waiting;

use orchestrator::registry::SHIPPED;
use saga_core::definition::SagaDefinition;
use saga_testkit::definition;
use serde_json::{Value, json};

/// Returns the shipped definition that reserves stock before it charges.
fn place_order() -> SagaDefinition {
    let [(file, yaml), _] = SHIPPED;
    definition(file, yaml)
}

/// Returns the shipped definition that charges before it sells the stock.
fn place_order_payment_first() -> SagaDefinition {
    let [_, (file, yaml)] = SHIPPED;
    definition(file, yaml)
}

fn order() -> Value {
    json!({
        "orderId": "o-1", "customerId": "c-1", "amountMinor": 2500, "currency": "EUR",
        "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
    })
}

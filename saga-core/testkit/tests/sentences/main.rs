//! Sagas as sentences: every path of both shipped definitions, and the paths only other definitions have.

mod operator;
mod parallel;
mod payment_first;
mod place_order;
mod waiting;

use serde_json::{Value, json};

fn order() -> Value {
    json!({
        "orderId": "o-1", "customerId": "c-1", "amountMinor": 2500, "currency": "EUR",
        "items": [{"productId": "p-1", "quantity": 2, "unitPriceMinor": 1250}],
    })
}

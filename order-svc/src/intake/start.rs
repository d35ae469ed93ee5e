//! Builds the message that starts an order's saga.

use crate::domain::order::Order;
use saga_contracts::{
    message_type,
    payload::{OrderCreated, OrderItem},
    topic,
};
use saga_core::{
    ids::SagaId,
    message::{OutgoingRecord, StartSaga, Trace},
};

/// The `ce_source` of every message of this service.
pub const SOURCE: &str = "/order-svc";

/// Returns the start message, addressed to the order's home partition.
pub fn record(order: &Order, traceparent: &str) -> OutgoingRecord {
    let created = OrderCreated {
        order_id: order.id,
        customer_id: order.customer_id,
        items: order
            .items
            .iter()
            .map(|line| OrderItem {
                product_id: line.product_id,
                quantity: line.quantity,
                unit_price_minor: line.unit_price_minor,
            })
            .collect(),
        amount_minor: order.amount_minor,
        currency: order.currency.code().to_owned(),
    };
    let start = StartSaga {
        saga_id: SagaId(order.id),
        start_type: message_type::ORDER_CREATED.to_owned(),
        definition: order.definition.clone(),
        business_key: Some(order.id.to_string()),
        input: serde_json::to_value(created).unwrap_or_default(),
        trace: trace(&order.correlation_id, traceparent),
    };
    start.encode(
        topic::SAGA_INPUTS,
        order.home_partition,
        SOURCE,
        order.created_at,
    )
}

/// Returns the trace that every message about an order carries.
pub fn trace(correlation_id: &str, traceparent: &str) -> Trace {
    Trace {
        correlation_id: correlation_id.to_owned(),
        traceparent: (!traceparent.is_empty()).then(|| traceparent.to_owned()),
    }
}

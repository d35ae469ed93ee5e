//! The order in the API's format: money in major units with the currency's digits, and in minor units for programs.

use crate::domain::order::{CancelReason, Order, OrderLine};
use chrono::{DateTime, SecondsFormat, Utc};
use saga_contracts::money::CurrencyUnit;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use uuid::Uuid;

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = Order)]
pub struct OrderView<'a> {
    /// The order's id, a UUIDv7: ids sort by time.
    id: Uuid,
    /// The id of the order's saga, which is the order's id.
    saga_id: Uuid,
    customer_id: Uuid,
    #[schema(value_type = String, pattern = "PENDING|CONFIRMED|CANCELLED", example = "PENDING")]
    status: &'static str,
    /// The saga definition that drives the order.
    definition: &'a str,
    items: Vec<LineView>,
    /// The total in major units.
    #[schema(value_type = f64, example = 21.00)]
    amount: Box<RawValue>,
    /// The total in minor units.
    amount_minor: i64,
    /// The ISO 4217 code of the currency.
    currency: &'static str,
    #[schema(value_type = String, format = DateTime)]
    created_at: String,
    /// The time at which the order was confirmed or cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    ended_at: Option<String>,
    /// The reason why the order was cancelled.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a CancelReason>,
}

#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
#[schema(as = OrderItem)]
pub struct LineView {
    product_id: Uuid,
    quantity: u32,
    /// The price per piece. Left out if the line was ordered by its total and that total is not a multiple of the
    /// quantity.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<f64>, example = 10.50)]
    price: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    price_minor: Option<i64>,
    /// The amount of the whole line.
    #[schema(value_type = f64, example = 21.00)]
    amount: Box<RawValue>,
    amount_minor: i64,
}

impl<'a> OrderView<'a> {
    pub fn of(order: &'a Order) -> Self {
        Self {
            id: order.id,
            saga_id: order.id,
            customer_id: order.customer_id,
            status: order.status.as_str(),
            definition: &order.definition,
            items: order
                .items
                .iter()
                .map(|line| LineView::of(line, order.currency))
                .collect(),
            amount: order.currency.to_json(order.amount_minor),
            amount_minor: order.amount_minor,
            currency: order.currency.code(),
            created_at: time(order.created_at),
            ended_at: order.ended_at.map(time),
            reason: order.reason.as_ref(),
        }
    }
}

impl LineView {
    fn of(line: &OrderLine, currency: CurrencyUnit) -> Self {
        let price_minor = line.exact_unit_price_minor();
        Self {
            product_id: line.product_id,
            quantity: line.quantity,
            price: price_minor.map(|minor| currency.to_json(minor)),
            price_minor,
            amount: currency.to_json(line.amount_minor),
            amount_minor: line.amount_minor,
        }
    }
}

/// Returns the JSON text of one order. The same order always gives the same bytes.
pub fn body(order: &Order) -> String {
    serde_json::to_string(&OrderView::of(order)).unwrap_or_else(|_| "null".to_owned())
}

/// Formats a time to the millisecond.
pub fn time(at: DateTime<Utc>) -> String {
    at.to_rfc3339_opts(SecondsFormat::Millis, true)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::order::OrderStatus;

    #[test]
    fn an_order_shows_its_digits() {
        let currency = CurrencyUnit::from_code("EUR").expect("currency");
        let line = |quantity, unit_price_minor, amount_minor| OrderLine {
            product_id: Uuid::from_u128(3),
            quantity,
            unit_price_minor,
            amount_minor,
        };
        let order = Order {
            id: Uuid::from_u128(1),
            customer_id: Uuid::from_u128(2),
            status: OrderStatus::Pending,
            definition: "place-order".to_owned(),
            items: vec![line(2, 550, 1100), line(3, 333, 1000)],
            amount_minor: 2100,
            currency,
            home_partition: 0,
            correlation_id: "c".to_owned(),
            created_at: DateTime::from_timestamp_millis(1_700_000_000_120).expect("time"),
            ended_at: None,
            reason: None,
        };
        let text = body(&order);
        for part in [
            r#""amount":21.00,"amountMinor":2100,"currency":"EUR""#,
            r#""quantity":2,"price":5.50,"priceMinor":550,"amount":11.00,"amountMinor":1100}"#,
            r#""quantity":3,"amount":10.00,"amountMinor":1000}"#,
            r#""createdAt":"2023-11-14T22:13:20.120Z""#,
        ] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
    }
}

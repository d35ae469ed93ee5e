//! Payloads of commands and replies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    pub product_id: Uuid,
    pub quantity: u32,
    /// Per unit, minor units of the order's currency.
    pub unit_price_minor: i64,
}

/// `order.created`: the saga's input, and by default the payload of its commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub items: Vec<OrderItem>,
    /// Total, minor units.
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
}

/// `inventory.reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveStock {
    pub order_id: Uuid,
    pub items: Vec<StockItem>,
    /// Sell at once instead of reserving: the reservation is the pivot, nothing completes it later.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

/// What inventory needs of an order's line; other keys are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockItem {
    pub product_id: Uuid,
    pub quantity: u32,
}

/// `inventory.release`, `inventory.complete`, `payment.refund`, `order.confirm`: the order is all they need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderRef {
    pub order_id: Uuid,
}

/// `inventory.reserved`, `inventory.released`, `inventory.completed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockMoved {
    pub order_id: Uuid,
    /// Empty if there was nothing to move.
    pub items: Vec<StockItem>,
}

/// `payment.charge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargePayment {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
}

/// `payment.success`, `payment.refunded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentMoved {
    pub order_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    /// The gateway's own reference.
    pub gateway_reference: String,
}

/// `order.cancel`: what the saga says made it turn round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    pub order_id: Uuid,
    #[serde(default)]
    pub cause: Option<CancelCause>,
}

/// `$.cause` of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelCause {
    #[serde(default)]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

/// `order.confirmed`, `order.cancelled`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderDecided {
    pub order_id: Uuid,
    /// `CONFIRMED` or `CANCELLED`.
    pub status: String,
}

/// Payload of every `failure` and `error` reply.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct FaultPayload {
    /// For programs, such as `out_of_stock`.
    pub code: String,
    /// For people.
    pub message: String,
}

//! The payloads of the reference application's commands and replies.

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use uuid::Uuid;

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderItem {
    pub product_id: Uuid,
    pub quantity: u32,
    /// Price of one unit, in minor units of the order's currency.
    pub unit_price_minor: i64,
}

/// Payload of `order.created`: the saga's input, and by default the payload of its commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderCreated {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub items: Vec<OrderItem>,
    /// Total price, in minor units.
    pub amount_minor: i64,
    /// ISO 4217 code.
    pub currency: String,
}

/// Payload of `inventory.reserve`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ReserveStock {
    pub order_id: Uuid,
    pub items: Vec<StockItem>,
    /// True to sell at once instead of reserving: the reservation is the pivot, and no later command completes it.
    #[serde(default, rename = "final")]
    pub is_final: bool,
}

/// The part of an order's line that inventory needs; other keys are ignored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockItem {
    pub product_id: Uuid,
    pub quantity: u32,
}

/// Payload of `inventory.release`, `inventory.complete`, `payment.refund` and `order.confirm`, which need only the
/// order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct OrderRef {
    pub order_id: Uuid,
}

/// Payload of `inventory.reserved`, `inventory.released` and `inventory.completed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockMoved {
    pub order_id: Uuid,
    /// Empty if nothing was moved.
    pub items: Vec<StockItem>,
}

/// Payload of `payment.charge`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ChargePayment {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
}

/// Payload of `payment.success` and `payment.refunded`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentMoved {
    pub order_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    /// The gateway's own reference.
    pub gateway_reference: String,
}

/// Payload of `order.cancel`, with the saga's cause for compensating.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    pub order_id: Uuid,
    #[serde(default)]
    pub cause: Option<CancelCause>,
}

/// The `$.cause` of a saga.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct CancelCause {
    #[serde(default)]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

/// Payload of `order.confirmed` and `order.cancelled`.
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
    /// A code for programs, such as `out_of_stock`.
    pub code: String,
    /// A message for people.
    pub message: String,
}

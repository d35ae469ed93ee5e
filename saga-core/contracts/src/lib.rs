//! The reference application's contract: topics, message types and payloads that order-svc, inventory-svc and
//! payment-svc exchange with the orchestrator. JSON keys are camelCase; money is integer minor units.

pub mod asyncapi;
pub mod money;
pub mod payload;
pub mod topic;

use uuid::Uuid;

/// Returns the id of the saga that an order belongs to. order-svc gives an order and its saga the same id, a UUIDv7.
/// Therefore the order's id names its saga before any participant has seen the order, and a command of another saga is
/// refused even if it comes before the order's own saga, or after the order has ended. Returns `None` if the id is not
/// order-svc's; then the first saga that does something for the order holds it.
pub fn saga_of_order(order_id: Uuid) -> Option<Uuid> {
    (order_id.get_version_num() == 7).then_some(order_id)
}

/// The `ce_type` of every message of the reference application.
pub mod message_type {
    pub const ORDER_CREATED: &str = "order.created";
    pub const INVENTORY_RESERVE: &str = "inventory.reserve";
    pub const INVENTORY_RESERVED: &str = "inventory.reserved";
    pub const INVENTORY_FAILED: &str = "inventory.failed";
    pub const INVENTORY_RELEASE: &str = "inventory.release";
    pub const INVENTORY_RELEASED: &str = "inventory.released";
    pub const INVENTORY_COMPLETE: &str = "inventory.complete";
    pub const INVENTORY_COMPLETED: &str = "inventory.completed";
    pub const PAYMENT_CHARGE: &str = "payment.charge";
    pub const PAYMENT_SUCCESS: &str = "payment.success";
    pub const PAYMENT_FAILED: &str = "payment.failed";
    pub const PAYMENT_REFUND: &str = "payment.refund";
    pub const PAYMENT_REFUNDED: &str = "payment.refunded";
    pub const ORDER_CONFIRM: &str = "order.confirm";
    pub const ORDER_CONFIRMED: &str = "order.confirmed";
    pub const ORDER_CANCEL: &str = "order.cancel";
    pub const ORDER_CANCELLED: &str = "order.cancelled";
    pub const ORDER_REFUSED: &str = "order.refused";
}

/// The names of the shipped definitions.
pub mod definition {
    pub const PLACE_ORDER: &str = "place-order";
    pub const PLACE_ORDER_PAYMENT_FIRST: &str = "place-order-payment-first";
    /// The first step of both definitions: the order's row, which order-svc has written before the saga starts.
    pub const STARTER_STEP: &str = "create-order";
}

/// The fault codes that participants answer with and that orders are cancelled with.
pub mod fault_code {
    /// A product has fewer pieces available than the order wants. Reply: `inventory.failed`.
    pub const OUT_OF_STOCK: &str = "out_of_stock";
    /// The product does not exist. Reply: `inventory.failed`.
    pub const UNKNOWN_PRODUCT: &str = "unknown_product";
    /// The order holds the product already, by another command. Reply: `inventory.failed`.
    pub const ALREADY_RESERVED: &str = "already_reserved";
    /// Nothing is reserved that could be completed. Reply: `inventory.failed`.
    pub const NOT_RESERVED: &str = "not_reserved";

    /// The gateway declined the payment. Reply: `payment.failed`.
    pub const PAYMENT_DECLINED: &str = "payment_declined";
    /// The order was charged already, by another command. Reply: `payment.failed`.
    pub const ALREADY_CHARGED: &str = "already_charged";
    /// The idempotency key was used for another payment before, which is the caller's mistake. Reply: `payment.failed`.
    pub const IDEMPOTENCY_CONFLICT: &str = "idempotency_conflict";
    /// The gateway broke and has not carried out the call. Reply: an error.
    pub const GATEWAY_ERROR: &str = "gateway_error";
    /// Another command has an open call for the same order; the condition passes. Reply: an error.
    pub const PAYMENT_BUSY: &str = "payment_busy";

    /// The order has ended the other way. Reply: `order.refused`.
    pub const ORDER_ENDED: &str = "order_ended";
    /// The order is unknown. Reply: `order.refused` to a cancellation, an error to a confirmation: the order's row may
    /// still appear.
    pub const UNKNOWN_ORDER: &str = "unknown_order";
    /// The code of orders that are cancelled by a saga without a cause.
    pub const CANCELLED: &str = "cancelled";

    /// Another saga holds the order. Reply: `inventory.failed`, `payment.failed` or `order.refused`.
    pub const ORDER_OF_ANOTHER_SAGA: &str = "order_of_another_saga";

    /// The payload does not fit the command. Reply: a failure, because a retry cannot help.
    pub const INVALID_PAYLOAD: &str = "invalid_payload";
}

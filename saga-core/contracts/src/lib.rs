//! The reference application's contract: topics, message types and payloads that order-svc, inventory-svc and
//! payment-svc exchange with the orchestrator. JSON keys are camelCase; money is integer minor units.

pub mod asyncapi;
pub mod payload;
pub mod topic;

/// `ce_type` of every message of the reference application.
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

/// Names of the shipped definitions.
pub mod definition {
    pub const PLACE_ORDER: &str = "place-order";
    pub const PLACE_ORDER_PAYMENT_FIRST: &str = "place-order-payment-first";
    /// Both begin with the order row, which order-svc has written already.
    pub const STARTER_STEP: &str = "create-order";
}

/// Fault codes that participants answer and orders are cancelled with.
pub mod fault_code {
    /// A product has fewer pieces available than are wanted. `inventory.failed`.
    pub const OUT_OF_STOCK: &str = "out_of_stock";
    /// `inventory.failed`.
    pub const UNKNOWN_PRODUCT: &str = "unknown_product";
    /// The order holds the product already, by another command. `inventory.failed`.
    pub const ALREADY_RESERVED: &str = "already_reserved";
    /// There is nothing reserved that could be completed. `inventory.failed`.
    pub const NOT_RESERVED: &str = "not_reserved";

    /// The gateway said no. `payment.failed`.
    pub const PAYMENT_DECLINED: &str = "payment_declined";
    /// The order was charged already, by another command. `payment.failed`.
    pub const ALREADY_CHARGED: &str = "already_charged";
    /// A key of the gateway's was used for another payment before: a fault of the caller's. `payment.failed`.
    pub const IDEMPOTENCY_CONFLICT: &str = "idempotency_conflict";
    /// The gateway broke, and has not done what was asked. An error.
    pub const GATEWAY_ERROR: &str = "gateway_error";
    /// A call for the same order is open, by another command; it passes. An error.
    pub const PAYMENT_BUSY: &str = "payment_busy";

    /// The order has ended the other way. `order.refused`.
    pub const ORDER_ENDED: &str = "order_ended";
    /// `order.refused` for a cancellation, an error for a confirmation: the order's row may still appear.
    pub const UNKNOWN_ORDER: &str = "unknown_order";
    /// Orders whose saga was compensated without saying why are cancelled with it.
    pub const CANCELLED: &str = "cancelled";

    /// The payload is not what the command needs. A failure: it will not get better.
    pub const INVALID_PAYLOAD: &str = "invalid_payload";
    /// This version does not know the command's type, a newer one may. An error: trying again may help.
    pub const UNKNOWN_COMMAND: &str = "unknown_command";
}

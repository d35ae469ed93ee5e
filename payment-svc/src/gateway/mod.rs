//! The interface of a payment gateway: two operations, each with an idempotency key.
//!
//! The key makes a call repeatable. A gateway that gets a key again returns its first answer and does nothing. A lost
//! answer is therefore fetched by *calling again*, never by looking the payment up: a look-up that finds nothing may
//! have overtaken the call.

mod ledger;
mod rule;
mod rules;
mod simulated;

pub use ledger::Ledger;
pub use rule::{Effect, Rule};
pub use rules::{GatewayConfig, RuleError, Rules};
pub use simulated::SimulatedGateway;

use crate::domain::Operation;
use async_trait::async_trait;
use uuid::Uuid;

/// A request to a gateway.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    pub operation: Operation,
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    /// The ISO 4217 code of the currency.
    pub currency: String,
    /// The products that are paid for, if the command names them.
    pub product_ids: Vec<Uuid>,
    /// The gateway's reference of the charge to refund.
    pub charge_reference: Option<String>,
}

/// A gateway's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAnswer {
    Approved {
        reference: String,
    },
    /// The gateway definitely declined.
    Declined {
        code: String,
        message: String,
    },
    /// The call failed. Nothing was done, and nothing will be done with this key. The next attempt uses another key.
    Failed {
        message: String,
    },
    /// The outcome is unknown: the same key must be used again.
    Indeterminate {
        why: String,
    },
}

/// A payment gateway. The same key never moves money twice.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    async fn call(&self, key: &str, request: &GatewayRequest) -> GatewayAnswer;
}

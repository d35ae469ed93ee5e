//! What this service knows of a payment gateway: two operations, each with an idempotency key.
//!
//! The key is what makes a call repeatable. A gateway that gets a key again answers what it answered first and does
//! nothing, so an answer that was lost is asked for by *calling again*, never by looking the payment up: a look-up that
//! finds nothing may have overtaken the call.

mod ledger;
mod rule_list;
mod rules;
mod simulated;

pub use ledger::Ledger;
pub use rules::{Effect, GatewayConfig, Rule, RuleError, Rules};
pub use simulated::SimulatedGateway;

use crate::domain::Operation;
use async_trait::async_trait;
use uuid::Uuid;

/// What a gateway is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GatewayRequest {
    pub operation: Operation,
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    /// ISO 4217.
    pub currency: String,
    /// What is paid for, as far as the command says.
    pub product_ids: Vec<Uuid>,
    /// The charge that a refund gives back.
    pub charge_reference: Option<String>,
}

/// What a gateway answers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GatewayAnswer {
    Approved {
        reference: String,
    },
    /// A definite no.
    Declined {
        code: String,
        message: String,
    },
    /// Broken, and definitely nothing was done nor will be with this key: another attempt takes another key.
    Failed {
        message: String,
    },
    /// It may have been done or not: the same key must be asked again.
    Indeterminate {
        why: String,
    },
}

/// A payment gateway. The same key never moves money twice.
#[async_trait]
pub trait Gateway: Send + Sync + 'static {
    async fn call(&self, key: &str, request: &GatewayRequest) -> GatewayAnswer;
}

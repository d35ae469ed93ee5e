//! The simulated gateway that is shipped: it approves charges up to its limit, unless a rule says otherwise.
//!
//! Its ledger of keys is durable. A key that is repeated after a crash of either side gets its first answer, and money
//! never moves twice.

use super::{
    Gateway, GatewayAnswer, GatewayConfig, GatewayRequest,
    ledger::{Ledger, LedgerDecision, LedgerEntry},
    rule::Effect,
    rules::{Rules, Treatment},
};
use async_trait::async_trait;
use saga_contracts::fault_code::{IDEMPOTENCY_CONFLICT, PAYMENT_DECLINED};
use uuid::Uuid;

/// A gateway with rules and a durable ledger.
pub struct SimulatedGateway {
    rules: Rules,
    ledger: Ledger,
}

impl SimulatedGateway {
    pub fn new(config: GatewayConfig, ledger: Ledger) -> Self {
        Self {
            rules: Rules::new(config),
            ledger,
        }
    }
}

#[async_trait]
impl Gateway for SimulatedGateway {
    async fn call(&self, key: &str, request: &GatewayRequest) -> GatewayAnswer {
        let unclear = || GatewayAnswer::Indeterminate {
            why: "the gateway does not answer".to_owned(),
        };
        let mut failed = 0;
        if self.rules.counts(request) {
            let known = self.ledger.failures(request.order_id, request.operation);
            let Some(known) = known.await else {
                return unclear();
            };
            failed = known;
        }
        let treatment = self.rules.treat(request, failed);
        if !treatment.delay.is_zero() {
            tokio::time::sleep(treatment.delay).await;
        }
        let decision = decide(&treatment, self.rules.over_limit(request), key, request);
        let entry = LedgerEntry {
            key: key.to_owned(),
            operation: request.operation,
            amount_minor: request.amount_minor,
            currency: request.currency.clone(),
            decision,
        };
        let Some(first) = self.ledger.record(entry).await else {
            return unclear();
        };
        if treatment.effect == Some(Effect::TimeOut) {
            let why = "the gateway did not answer in time".to_owned();
            return GatewayAnswer::Indeterminate { why };
        }
        answer(&first, key, request)
    }
}

fn decide(
    treatment: &Treatment,
    over_limit: Option<String>,
    key: &str,
    request: &GatewayRequest,
) -> LedgerDecision {
    if treatment.effect == Some(Effect::Error) {
        // A failure is stored like every answer: an earlier call with this key may still be in flight, and a caller
        // that received the failure uses another key.
        let message = treatment.message.clone();
        return LedgerDecision::Failed {
            order_id: request.order_id,
            message: message.unwrap_or_else(|| "the gateway is broken".to_owned()),
        };
    }
    let declined = |message| LedgerDecision::Declined {
        code: PAYMENT_DECLINED.to_owned(),
        message,
    };
    if treatment.effect == Some(Effect::Decline) {
        let message = treatment.message.clone();
        return declined(message.unwrap_or_else(|| "the gateway declined".to_owned()));
    }
    match over_limit {
        Some(why) => declined(why),
        // The reference is a function of the key, so that repeated calls return the same payment.
        None => LedgerDecision::Approved {
            reference: format!(
                "sim-{}",
                Uuid::new_v5(&Uuid::NAMESPACE_OID, key.as_bytes()).simple()
            ),
        },
    }
}

/// Returns the first answer, if the key was used for the same operation, amount and currency.
fn answer(first: &LedgerEntry, key: &str, request: &GatewayRequest) -> GatewayAnswer {
    let same = first.operation == request.operation
        && first.amount_minor == request.amount_minor
        && first.currency == request.currency;
    if !same {
        let message = format!("key {key} was used for another payment");
        return GatewayAnswer::Declined {
            code: IDEMPOTENCY_CONFLICT.to_owned(),
            message,
        };
    }
    match &first.decision {
        LedgerDecision::Approved { reference } => GatewayAnswer::Approved {
            reference: reference.clone(),
        },
        LedgerDecision::Declined { code, message } => GatewayAnswer::Declined {
            code: code.clone(),
            message: message.clone(),
        },
        LedgerDecision::Failed { message, .. } => GatewayAnswer::Failed {
            message: message.clone(),
        },
    }
}

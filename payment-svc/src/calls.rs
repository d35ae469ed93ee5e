//! The calls to the gateway and what they mean for the payments' rows.

use crate::{
    domain::{Book, Operation, Payment},
    gateway::{Gateway, GatewayAnswer, GatewayRequest},
    handler::Wish,
    store,
};
use async_trait::async_trait;
use saga_contracts::{
    fault_code::GATEWAY_ERROR,
    message_type::{PAYMENT_FAILED, PAYMENT_REFUNDED, PAYMENT_SUCCESS},
    payload::{ChargePayment, PaymentMoved},
};
use saga_core::message::{Command, Fault};
use saga_messaging::participant::{
    CallLimits, CallOutcome, ExternalCalls, HandlerError, Settlement,
};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use tracing::info;
use uuid::Uuid;

/// See the module.
pub struct GatewayCalls {
    gateway: Arc<dyn Gateway>,
    pool: PgPool,
    limits: CallLimits,
}

impl GatewayCalls {
    pub fn new(gateway: Arc<dyn Gateway>, pool: PgPool, limits: CallLimits) -> Self {
        Self {
            gateway,
            pool,
            limits,
        }
    }

    /// `Err`: nothing was asked, but an earlier call with the same key may have been.
    async fn request(&self, command: &Command) -> Result<GatewayRequest, String> {
        match Wish::of(command) {
            Ok(Wish::Charge(charge)) => Ok(charge_request(charge, &command.payload)),
            Ok(Wish::Refund(order_id)) => {
                let payment = store::find(&self.pool, order_id)
                    .await
                    .map_err(|error| format!("the payment cannot be read: {error}"))?
                    .ok_or_else(|| format!("order {order_id} has no payment"))?;
                Ok(refund_request(payment))
            }
            Err(_) => Err("the command cannot be read".to_owned()),
        }
    }
}

fn charge_request(charge: ChargePayment, payload: &Value) -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Charge,
        order_id: charge.order_id,
        customer_id: charge.customer_id,
        amount_minor: charge.amount_minor,
        currency: charge.currency,
        product_ids: product_ids(payload),
        charge_reference: None,
    }
}

fn refund_request(payment: Payment) -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Refund,
        order_id: payment.order_id,
        customer_id: payment.customer_id,
        amount_minor: payment.amount_minor,
        currency: payment.currency,
        product_ids: Vec::new(),
        charge_reference: payment.charge_reference,
    }
}

/// The order's products, if the definition passes its lines along.
fn product_ids(payload: &Value) -> Vec<Uuid> {
    let lines = payload["items"].as_array();
    lines
        .into_iter()
        .flatten()
        .filter_map(|line| line["productId"].as_str()?.parse().ok())
        .collect()
}

fn outcome(request: &GatewayRequest, answer: GatewayAnswer) -> CallOutcome {
    match answer {
        GatewayAnswer::Approved { reference } => approved(request, reference),
        GatewayAnswer::Declined { code, message } => CallOutcome::Failure {
            reply_type: PAYMENT_FAILED.to_owned(),
            fault: Fault::new(code, message),
        },
        GatewayAnswer::Failed { message } => CallOutcome::Error {
            fault: Fault::new(GATEWAY_ERROR, message),
        },
        GatewayAnswer::Indeterminate { why } => CallOutcome::Indeterminate { why },
    }
}

fn approved(request: &GatewayRequest, reference: String) -> CallOutcome {
    let reply_type = match request.operation {
        Operation::Charge => PAYMENT_SUCCESS,
        Operation::Refund => PAYMENT_REFUNDED,
    };
    let moved = PaymentMoved {
        order_id: request.order_id,
        amount_minor: request.amount_minor,
        currency: request.currency.clone(),
        gateway_reference: reference,
    };
    match serde_json::to_value(moved) {
        Ok(result) => CallOutcome::Success {
            reply_type: reply_type.to_owned(),
            result,
        },
        Err(error) => CallOutcome::Indeterminate {
            why: error.to_string(),
        },
    }
}

#[async_trait]
impl ExternalCalls for GatewayCalls {
    fn limits(&self) -> CallLimits {
        self.limits
    }

    async fn call(&self, key: &str, command: &Command) -> CallOutcome {
        match self.request(command).await {
            Ok(request) => outcome(&request, self.gateway.call(key, &request).await),
            Err(why) => CallOutcome::Indeterminate { why },
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: &[Settlement],
    ) -> Result<(), HandlerError> {
        let wishes: Vec<(Wish, &Settlement)> = settled
            .iter()
            .filter_map(|settlement| Some((Wish::of(&settlement.command).ok()?, settlement)))
            .collect();
        let mut book =
            store::lock(tx, wishes.iter().map(|(wish, _)| wish.order_id()).collect()).await?;
        for (wish, settlement) in &wishes {
            apply(&mut book, wish, settlement);
        }
        Ok(store::write(tx, book).await?)
    }
}

fn apply(book: &mut Book, wish: &Wish, settlement: &Settlement) {
    let (order_id, now) = (wish.order_id(), saga_service::clock::now());
    let operation = match wish {
        Wish::Charge(_) => Operation::Charge,
        Wish::Refund(_) => Operation::Refund,
    };
    match &settlement.outcome {
        CallOutcome::Success { result, .. } => {
            let reference = result["gatewayReference"].as_str().unwrap_or_default();
            book.succeeded(order_id, operation, reference, now);
        }
        CallOutcome::Failure { fault, .. } => {
            log_fault(settlement, order_id, "declined", fault);
            book.not_done(
                order_id,
                operation,
                false,
                (&fault.code, &fault.message),
                now,
            );
        }
        CallOutcome::Error { fault } => {
            log_fault(settlement, order_id, "failed", fault);
            book.not_done(
                order_id,
                operation,
                true,
                (&fault.code, &fault.message),
                now,
            );
        }
        // Not settled.
        CallOutcome::Indeterminate { .. } => {}
    }
}

fn log_fault(settlement: &Settlement, order_id: Uuid, what: &str, fault: &Fault) {
    let command = &settlement.command;
    info!(
        saga.id = %command.saga_id,
        order.id = %order_id,
        correlation.id = command.trace.correlation_id,
        fault.code = fault.code,
        "{} {what}: {}",
        command.command_type,
        fault.message
    );
}

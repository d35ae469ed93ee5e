//! Calls the gateway, and writes the outcomes to the payments' rows.

use crate::{
    domain::{Operation, Payment, PaymentBatch},
    gateway::{Gateway, GatewayAnswer, GatewayRequest},
    handler::{ChargeOrder, PaymentCommand},
    store,
};
use async_trait::async_trait;
use saga_contracts::{fault_code::GATEWAY_ERROR, payload::PaymentMoved};
use saga_participant::{
    Command, Fault, HandlerError,
    batch::Commands,
    external::{CallLimits, CallOutcome, ExternalCalls, Settlement},
};
use serde_json::Value;
use sqlx::{PgConnection, PgPool};
use std::sync::Arc;
use tracing::info;
use uuid::Uuid;

/// The external calls of payment commands, made through a [`Gateway`].
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

    /// Builds the gateway's request. `Err` means that the gateway was not called this time; an earlier call with the
    /// same key may have been made.
    async fn request(&self, command: PaymentCommand) -> Result<GatewayRequest, String> {
        match command {
            PaymentCommand::Charge(order) => Ok(charge_request(order)),
            PaymentCommand::Refund(order) => {
                let order_id = order.order_id;
                let payment = store::find(&self.pool, order_id)
                    .await
                    .map_err(|error| format!("the payment cannot be read: {error}"))?
                    .ok_or_else(|| format!("order {order_id} has no payment"))?;
                Ok(refund_request(payment))
            }
        }
    }
}

fn charge_request(ChargeOrder { charge, items }: ChargeOrder) -> GatewayRequest {
    GatewayRequest {
        operation: Operation::Charge,
        order_id: charge.order_id,
        customer_id: charge.customer_id,
        amount_minor: charge.amount_minor,
        currency: charge.currency,
        product_ids: product_ids(&items),
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

/// Returns the products of the order's lines.
fn product_ids(items: &Value) -> Vec<Uuid> {
    let lines = items.as_array();
    lines
        .into_iter()
        .flatten()
        .filter_map(|line| line["productId"].as_str()?.parse().ok())
        .collect()
}

fn outcome(request: &GatewayRequest, answer: GatewayAnswer) -> CallOutcome {
    match answer {
        GatewayAnswer::Approved { reference } => approved(request, reference),
        GatewayAnswer::Declined { code, message } => {
            CallOutcome::Failure(Fault::new(code, message))
        }
        GatewayAnswer::Failed { message } => CallOutcome::Error(Fault::new(GATEWAY_ERROR, message)),
        GatewayAnswer::Indeterminate { why } => CallOutcome::Indeterminate { why },
    }
}

fn approved(request: &GatewayRequest, reference: String) -> CallOutcome {
    CallOutcome::success(PaymentMoved {
        order_id: request.order_id,
        amount_minor: request.amount_minor,
        currency: request.currency.clone(),
        gateway_reference: reference,
    })
}

#[async_trait]
impl ExternalCalls for GatewayCalls {
    type Command = PaymentCommand;

    fn commands() -> Commands<PaymentCommand> {
        PaymentCommand::commands()
    }

    fn limits(&self) -> CallLimits {
        self.limits
    }

    async fn call(&self, key: &str, command: Command<PaymentCommand>) -> CallOutcome {
        match self.request(command.payload).await {
            Ok(request) => outcome(&request, self.gateway.call(key, &request).await),
            Err(why) => CallOutcome::Indeterminate { why },
        }
    }

    async fn settle(
        &self,
        tx: &mut PgConnection,
        settled: Vec<Settlement<PaymentCommand>>,
    ) -> Result<(), HandlerError> {
        let orders = settled.iter().map(|one| one.command.payload.order_id());
        let mut payments = store::lock(tx, orders.collect()).await?;
        for settlement in &settled {
            apply(&mut payments, settlement);
        }
        Ok(store::write(tx, payments).await?)
    }
}

fn apply(payments: &mut PaymentBatch, settlement: &Settlement<PaymentCommand>) {
    let now = saga_service::clock::now();
    let command = &settlement.command.payload;
    let order_id = command.order_id();
    let operation = match command {
        PaymentCommand::Charge(_) => Operation::Charge,
        PaymentCommand::Refund(_) => Operation::Refund,
    };
    match &settlement.outcome {
        CallOutcome::Success(result) => {
            let reference = result["gatewayReference"].as_str().unwrap_or_default();
            payments.succeeded(order_id, operation, reference, now);
        }
        CallOutcome::Failure(fault) => {
            log_fault(settlement, order_id, "declined", fault);
            payments.not_done(
                order_id,
                operation,
                false,
                (&fault.code, &fault.message),
                now,
            );
        }
        CallOutcome::Error(fault) => {
            log_fault(settlement, order_id, "failed", fault);
            payments.not_done(
                order_id,
                operation,
                true,
                (&fault.code, &fault.message),
                now,
            );
        }
        // An unknown outcome is not settled.
        CallOutcome::Indeterminate { .. } => {}
    }
}

fn log_fault(settlement: &Settlement<PaymentCommand>, order_id: Uuid, what: &str, fault: &Fault) {
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

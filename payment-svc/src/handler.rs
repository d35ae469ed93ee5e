//! Handles a batch of payment commands: records in each payment's row that the gateway will be called, and requests the
//! call. [`crate::calls`] makes the call after the commit.

use crate::{
    domain::{Caller, PaymentBatch, RefundDecision, Refusal},
    store,
};
use async_trait::async_trait;
use saga_contracts::{
    message_type::{PAYMENT_CHARGE, PAYMENT_REFUND, PAYMENT_REFUNDED, PAYMENT_SUCCESS},
    payload::{ChargePayment, OrderRef},
};
use saga_participant::{
    Answer, Command, Failure, HandlerError,
    batch::{BatchHandler, Commands},
};
use serde::Deserialize;
use serde_json::Value;
use sqlx::PgConnection;
use tracing::{debug, info};
use uuid::Uuid;

/// Handles `payment.charge` and `payment.refund`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaymentHandler;

/// The payload of a command.
pub enum PaymentCommand {
    Charge(ChargeOrder),
    Refund(OrderRef),
}

/// The payload of `payment.charge`, with the order's lines if the saga definition passes them along.
#[derive(Clone, Debug, Deserialize)]
pub struct ChargeOrder {
    #[serde(flatten)]
    pub charge: ChargePayment,
    #[serde(default)]
    pub items: Value,
}

impl PaymentCommand {
    pub(crate) fn commands() -> Commands<Self> {
        Commands::new()
            .on(PAYMENT_CHARGE, PAYMENT_SUCCESS, Self::Charge)
            .on(PAYMENT_REFUND, PAYMENT_REFUNDED, Self::Refund)
    }

    pub(crate) fn order_id(&self) -> Uuid {
        match self {
            Self::Charge(order) => order.charge.order_id,
            Self::Refund(order) => order.order_id,
        }
    }
}

#[async_trait]
impl BatchHandler for PaymentHandler {
    type Command = PaymentCommand;
    type Rows = PaymentBatch;

    fn commands() -> Commands<PaymentCommand> {
        PaymentCommand::commands()
    }

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[Command<PaymentCommand>],
    ) -> Result<PaymentBatch, HandlerError> {
        let orders = commands.iter().map(|command| command.payload.order_id());
        Ok(store::lock(tx, orders.collect()).await?)
    }

    fn handle(
        &self,
        payments: &mut PaymentBatch,
        command: Command<PaymentCommand>,
    ) -> Result<Answer, Failure> {
        let now = saga_service::clock::now();
        // The command's identity holds the payment's call while it is open.
        let caller = Caller {
            saga_id: command.saga_id.0,
            command: command.key(),
        };
        let decided = match &command.payload {
            PaymentCommand::Charge(order) => payments
                .charge(&order.charge, &caller, now)
                .map(|()| RefundDecision::CallGateway),
            PaymentCommand::Refund(order) => payments.refund(order.order_id, &caller, now),
        };
        match decided {
            Ok(RefundDecision::CallGateway) => {
                debug!(
                    saga.id = %command.saga_id,
                    order.id = %command.payload.order_id(),
                    correlation.id = command.trace.correlation_id,
                    "{} goes to the gateway",
                    command.command_type
                );
                Ok(Answer::CallOutside)
            }
            Ok(RefundDecision::Answer(moved)) => Answer::success(moved),
            Err(refusal) => Err(refuse(&command, &refusal)),
        }
    }

    async fn store(
        &self,
        tx: &mut PgConnection,
        payments: PaymentBatch,
    ) -> Result<(), HandlerError> {
        Ok(store::write(tx, payments).await?)
    }
}

fn refuse(command: &Command<PaymentCommand>, refusal: &Refusal) -> Failure {
    info!(
        saga.id = %command.saga_id,
        order.id = %command.payload.order_id(),
        correlation.id = command.trace.correlation_id,
        fault.code = refusal.code(),
        "{} refused: {refusal}",
        command.command_type
    );
    match refusal {
        // Retried: the refusal ends when the other command's call is settled.
        Refusal::Busy(_) => Failure::technical(refusal.code(), refusal.to_string()),
        Refusal::InvalidPayload(_)
        | Refusal::OrderOfAnotherSaga { .. }
        | Refusal::AlreadyCharged { .. } => Failure::business(refusal.code(), refusal.to_string()),
    }
}

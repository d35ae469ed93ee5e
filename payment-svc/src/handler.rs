//! The batch of payment commands: note in the payment's row what the gateway will be asked, and ask for the call. The
//! call itself is made after the commit, by [`crate::calls`].

use crate::{
    domain::{Book, RefundDecision, Refusal},
    store,
};
use async_trait::async_trait;
use saga_contracts::{
    fault_code,
    message_type::{PAYMENT_CHARGE, PAYMENT_FAILED, PAYMENT_REFUND, PAYMENT_REFUNDED},
    payload::{ChargePayment, OrderRef},
};
use saga_core::message::{Command, Fault};
use saga_messaging::participant::{Answer, BatchHandler, HandlerError, read_payload};
use sqlx::PgConnection;
use tracing::{debug, info};
use uuid::Uuid;

/// Handles `payment.charge` and `payment.refund`.
#[derive(Clone, Copy, Debug, Default)]
pub struct PaymentHandler;

/// What is asked, read from the payload.
pub(crate) enum Wish {
    Charge(ChargePayment),
    Refund(Uuid),
}

/// Why a command cannot even be decided.
pub(crate) enum Unreadable {
    UnknownType,
    Payload(String),
}

impl Wish {
    pub(crate) fn of(command: &Command) -> Result<Self, Unreadable> {
        let read = match command.command_type.as_str() {
            PAYMENT_CHARGE => read_payload(command).map(Self::Charge),
            PAYMENT_REFUND => {
                read_payload::<OrderRef>(command).map(|order| Self::Refund(order.order_id))
            }
            _ => return Err(Unreadable::UnknownType),
        };
        read.map_err(Unreadable::Payload)
    }

    pub(crate) fn order_id(&self) -> Uuid {
        match self {
            Self::Charge(charge) => charge.order_id,
            Self::Refund(order_id) => *order_id,
        }
    }
}

/// Who holds a payment while its call is open: the command, without its attempt.
fn caller(command: &Command) -> String {
    format!("{}/{}/{}", command.saga_id, command.step, command.direction)
}

#[async_trait]
impl BatchHandler for PaymentHandler {
    type Rows = Book;

    async fn load(
        &self,
        tx: &mut PgConnection,
        commands: &[&Command],
    ) -> Result<Book, HandlerError> {
        let wishes = commands.iter().filter_map(|command| Wish::of(command).ok());
        Ok(store::lock(tx, wishes.map(|wish| wish.order_id()).collect()).await?)
    }

    async fn handle(
        &self,
        _tx: &mut PgConnection,
        book: &mut Book,
        command: &Command,
    ) -> Result<Answer, HandlerError> {
        let wish = match Wish::of(command) {
            Ok(wish) => wish,
            Err(Unreadable::Payload(why)) => {
                return Ok(refuse(command, None, &Refusal::InvalidPayload(why)));
            }
            Err(Unreadable::UnknownType) => {
                let message = format!("payment does not know '{}'", command.command_type);
                return Ok(Answer::Error {
                    fault: Fault::new(fault_code::UNKNOWN_COMMAND, message),
                });
            }
        };
        let (order_id, caller, now) =
            (wish.order_id(), caller(command), saga_service::clock::now());
        let decided = match wish {
            Wish::Charge(charge) => book
                .charge(&charge, &caller, now)
                .map(|()| RefundDecision::CallGateway),
            Wish::Refund(order_id) => book.refund(order_id, &caller, now),
        };
        match decided {
            Ok(RefundDecision::CallGateway) => Ok(call_outside(command, order_id)),
            Ok(RefundDecision::Answer(moved)) => Ok(Answer::Success {
                reply_type: PAYMENT_REFUNDED.to_owned(),
                result: serde_json::to_value(moved).map_err(|error| {
                    HandlerError::Broken(format!("a reply cannot be written: {error}"))
                })?,
            }),
            Err(refusal) => Ok(refuse(command, Some(order_id), &refusal)),
        }
    }

    async fn store(&self, tx: &mut PgConnection, book: Book) -> Result<(), HandlerError> {
        Ok(store::write(tx, book).await?)
    }
}

fn call_outside(command: &Command, order_id: Uuid) -> Answer {
    debug!(
        saga.id = %command.saga_id,
        order.id = %order_id,
        correlation.id = command.trace.correlation_id,
        "{} goes to the gateway",
        command.command_type
    );
    Answer::CallOutside
}

fn refuse(command: &Command, order_id: Option<Uuid>, refusal: &Refusal) -> Answer {
    info!(
        saga.id = %command.saga_id,
        order.id = order_id.map(tracing::field::display),
        correlation.id = command.trace.correlation_id,
        fault.code = refusal.code(),
        "{} refused: {refusal}",
        command.command_type
    );
    let fault = Fault::new(refusal.code(), refusal.to_string());
    match refusal {
        // It passes when the other command's call is settled.
        Refusal::Busy(_) => Answer::Error { fault },
        Refusal::InvalidPayload(_) | Refusal::AlreadyCharged { .. } => Answer::Failure {
            reply_type: PAYMENT_FAILED.to_owned(),
            fault,
        },
    }
}

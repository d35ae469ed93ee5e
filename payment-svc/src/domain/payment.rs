//! The payment of one order, and its state machine.
//!
//! ```text
//!            ┌─▶ declined ─┐
//!  charging ─┼─▶ charge_failed ─▶ charging (the next attempt)
//!            └─▶ charged ─▶ refunding ─┬─▶ refunded
//!                               ▲      └─▶ refund_failed
//!                               └────────────────┘
//! ```
//!
//! In each of these states, a payment is held by the saga that has made it. An order without a payment is held by the
//! saga that the order's id names. No other saga charges the order or refunds it. This also applies to compensations:
//! the barrier answers the compensation of a saga whose charge was refused, so a refund that gets here has a charge.
//! Answering such a refund as if there were nothing to refund would end its saga and leave the charge in place.

use saga_contracts::{
    fault_code,
    money::CurrencyUnit,
    payload::{ChargePayment, PaymentMoved},
    saga_of_order,
};
use saga_core::message::WHOLE_MAX;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

/// The operation that the gateway is called for.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum Operation {
    Charge,
    Refund,
}

impl Operation {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charge => "charge",
            Self::Refund => "refund",
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum PaymentStatus {
    /// The gateway is being called.
    Charging,
    Charged,
    /// The gateway declined.
    Declined,
    /// The gateway failed, and nothing was charged: the saga tries again or gives up.
    ChargeFailed,
    Refunding,
    Refunded,
    /// The gateway failed or declined; the money is still charged.
    RefundFailed,
}

impl PaymentStatus {
    const ALL: [Self; 7] = [
        Self::Charging,
        Self::Charged,
        Self::Declined,
        Self::ChargeFailed,
        Self::Refunding,
        Self::Refunded,
        Self::RefundFailed,
    ];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Charging => "charging",
            Self::Charged => "charged",
            Self::Declined => "declined",
            Self::ChargeFailed => "charge_failed",
            Self::Refunding => "refunding",
            Self::Refunded => "refunded",
            Self::RefundFailed => "refund_failed",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

/// The command that asks for a charge or refund, without its attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    pub saga_id: Uuid,
    /// The command's name: `<saga>/<step>/<direction>`.
    pub command: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub order_id: Uuid,
    /// The saga that holds the payment.
    pub saga_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    pub status: PaymentStatus,
    /// The command whose call is open, or was the last.
    pub caller: String,
    pub charge_reference: Option<String>,
    pub refund_reference: Option<String>,
    pub fault_code: Option<String>,
    pub fault_message: Option<String>,
}

/// The reason why a command makes no call. `Busy` is technical and retried; all others are business failures.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{0}")]
    InvalidPayload(String),
    #[error("order {order_id} is held by saga {holder}")]
    OrderOfAnotherSaga { order_id: Uuid, holder: Uuid },
    #[error("order {order_id} was charged already, its payment is {}", status.as_str())]
    AlreadyCharged {
        order_id: Uuid,
        status: PaymentStatus,
    },
    #[error("a call for order {0} is open for another command")]
    Busy(Uuid),
}

impl Refusal {
    pub fn code(&self) -> &'static str {
        match self {
            Self::InvalidPayload(_) => fault_code::INVALID_PAYLOAD,
            Self::OrderOfAnotherSaga { .. } => fault_code::ORDER_OF_ANOTHER_SAGA,
            Self::AlreadyCharged { .. } => fault_code::ALREADY_CHARGED,
            Self::Busy(_) => fault_code::PAYMENT_BUSY,
        }
    }
}

/// The decision on a refund.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundDecision {
    /// Nothing was charged, or it was refunded before: the command is answered with this.
    Answer(PaymentMoved),
    CallGateway,
}

/// Checks that the gateway can be called for this charge.
pub fn check_charge(command: &ChargePayment) -> Result<(), Refusal> {
    // Readers that parse numbers as floating-point, such as a participant in another language, would round larger
    // numbers.
    if !(1..=WHOLE_MAX).contains(&command.amount_minor) {
        let message = format!(
            "amountMinor: {} is not an amount from 1 to {WHOLE_MAX}",
            command.amount_minor
        );
        return Err(Refusal::InvalidPayload(message));
    }
    if CurrencyUnit::from_code(&command.currency).is_err() {
        let message = "currency: not a currency of ISO 4217".to_owned();
        return Err(Refusal::InvalidPayload(message));
    }
    Ok(())
}

/// Checks that this saga may charge or refund the order. `payment` is the order's row.
pub fn check_holder(
    payment: Option<&Payment>,
    order_id: Uuid,
    saga_id: Uuid,
) -> Result<(), Refusal> {
    let holder = payment
        .map(|payment| payment.saga_id)
        .or_else(|| saga_of_order(order_id));
    match holder {
        Some(holder) if holder != saga_id => Err(Refusal::OrderOfAnotherSaga { order_id, holder }),
        Some(_) | None => Ok(()),
    }
}

impl Payment {
    /// Returns the payment with its charge in flight. `before` is the current row.
    pub fn charging(
        before: Option<&Self>,
        command: &ChargePayment,
        caller: &Caller,
    ) -> Result<Self, Refusal> {
        check_charge(command)?;
        let order_id = command.order_id;
        check_holder(before, order_id, caller.saga_id)?;
        if let Some(payment) = before {
            match payment.status {
                PaymentStatus::Declined | PaymentStatus::ChargeFailed => {}
                // The definite failure of the earlier attempt was not saved; this is the next attempt.
                PaymentStatus::Charging if payment.caller == caller.command => {}
                PaymentStatus::Charging => return Err(Refusal::Busy(order_id)),
                status @ (PaymentStatus::Charged
                | PaymentStatus::Refunding
                | PaymentStatus::Refunded
                | PaymentStatus::RefundFailed) => {
                    return Err(Refusal::AlreadyCharged { order_id, status });
                }
            }
        }
        Ok(Self {
            order_id,
            saga_id: caller.saga_id,
            customer_id: command.customer_id,
            amount_minor: command.amount_minor,
            currency: command.currency.clone(),
            status: PaymentStatus::Charging,
            caller: caller.command.clone(),
            charge_reference: None,
            refund_reference: None,
            fault_code: None,
            fault_message: None,
        })
    }

    /// Decides on a refund of this payment.
    pub fn refund(&self, caller: &Caller) -> Result<RefundDecision, Refusal> {
        check_holder(Some(self), self.order_id, caller.saga_id)?;
        match self.status {
            PaymentStatus::Declined | PaymentStatus::ChargeFailed => Ok(RefundDecision::Answer(
                nothing_refunded(self.order_id, &self.currency),
            )),
            PaymentStatus::Refunded => Ok(RefundDecision::Answer(self.moved(Operation::Refund))),
            PaymentStatus::Charged | PaymentStatus::RefundFailed => Ok(RefundDecision::CallGateway),
            PaymentStatus::Refunding if self.caller == caller.command => {
                Ok(RefundDecision::CallGateway)
            }
            PaymentStatus::Refunding | PaymentStatus::Charging => Err(Refusal::Busy(self.order_id)),
        }
    }

    /// Returns the result for the saga's reply.
    pub fn moved(&self, operation: Operation) -> PaymentMoved {
        let reference = match operation {
            Operation::Charge => &self.charge_reference,
            Operation::Refund => &self.refund_reference,
        };
        PaymentMoved {
            order_id: self.order_id,
            amount_minor: self.amount_minor,
            currency: self.currency.clone(),
            gateway_reference: reference.clone().unwrap_or_default(),
        }
    }
}

/// Returns the result of a refund if nothing was charged.
pub fn nothing_refunded(order_id: Uuid, currency: &str) -> PaymentMoved {
    PaymentMoved {
        order_id,
        amount_minor: 0,
        currency: currency.to_owned(),
        gateway_reference: String::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn command(amount_minor: i64, currency: &str) -> ChargePayment {
        ChargePayment {
            order_id: Uuid::from_u128(1),
            customer_id: Uuid::from_u128(2),
            amount_minor,
            currency: currency.to_owned(),
        }
    }

    fn caller(saga: u128, command: &str) -> Caller {
        Caller {
            saga_id: Uuid::from_u128(saga),
            command: command.to_owned(),
        }
    }

    fn payment(status: PaymentStatus) -> Payment {
        let first = caller(9, "first");
        let payment = Payment::charging(None, &command(1_050, "EUR"), &first).expect("valid");
        Payment { status, ..payment }
    }

    #[test]
    fn bad_amounts_and_currencies_are_refused() {
        for (amount, currency) in [
            (0, "EUR"),
            (-1, "EUR"),
            (WHOLE_MAX + 1, "EUR"),
            (1, "eur"),
            (1, "XXX"),
            (1, ""),
        ] {
            let refusal = Payment::charging(None, &command(amount, currency), &caller(9, "first"));
            assert_eq!(
                refusal.map_err(|why| why.code()),
                Err("invalid_payload"),
                "{currency}"
            );
        }
    }

    #[test]
    fn an_order_is_charged_again_only_after_it_was_not() {
        let check = |status, name, expected: Result<(), &str>| {
            let (before, caller) = (payment(status), caller(9, name));
            let outcome = Payment::charging(Some(&before), &command(1, "EUR"), &caller);
            assert_eq!(
                outcome.map(drop).map_err(|why| why.code()),
                expected,
                "{status:?}"
            );
        };
        check(PaymentStatus::Declined, "second", Ok(()));
        check(PaymentStatus::ChargeFailed, "second", Ok(()));
        check(PaymentStatus::Charging, "first", Ok(()));
        check(PaymentStatus::Charging, "second", Err("payment_busy"));
        check(PaymentStatus::Charged, "first", Err("already_charged"));
        check(PaymentStatus::Refunding, "first", Err("already_charged"));
        check(PaymentStatus::Refunded, "first", Err("already_charged"));
        check(PaymentStatus::RefundFailed, "first", Err("already_charged"));
    }

    #[test]
    fn only_charged_payments_are_refunded() {
        let check = |status, name, expected: Result<Option<i64>, &str>| {
            let outcome = payment(status)
                .refund(&caller(9, name))
                .map_err(|why| why.code());
            let amount = outcome.map(|decision| match decision {
                RefundDecision::Answer(moved) => Some(moved.amount_minor),
                RefundDecision::CallGateway => None,
            });
            assert_eq!(amount, expected, "{status:?}");
        };
        check(PaymentStatus::Declined, "first", Ok(Some(0)));
        check(PaymentStatus::ChargeFailed, "first", Ok(Some(0)));
        check(PaymentStatus::Refunded, "first", Ok(Some(1_050)));
        check(PaymentStatus::Charged, "second", Ok(None));
        check(PaymentStatus::RefundFailed, "second", Ok(None));
        check(PaymentStatus::Refunding, "first", Ok(None));
        check(PaymentStatus::Refunding, "second", Err("payment_busy"));
        check(PaymentStatus::Charging, "second", Err("payment_busy"));
    }

    #[test]
    fn a_payment_is_its_sagas_in_every_state() {
        for status in PaymentStatus::ALL {
            let (before, other) = (payment(status), caller(8, "other"));
            let refused = Refusal::OrderOfAnotherSaga {
                order_id: before.order_id,
                holder: before.saga_id,
            };
            let charged = Payment::charging(Some(&before), &command(1, "EUR"), &other);
            assert_eq!(charged.as_ref(), Err(&refused), "{status:?}");
            assert_eq!(before.refund(&other), Err(refused), "{status:?}");
        }
    }

    /// The order may have been cancelled before its own saga reached the charge.
    #[test]
    fn an_order_of_order_svc_is_charged_by_its_saga_alone() {
        let order_id = Uuid::from_u128(7 << 76 | 9);
        let charge = ChargePayment {
            order_id,
            ..command(100, "EUR")
        };
        let refused = Refusal::OrderOfAnotherSaga {
            order_id,
            holder: order_id,
        };
        let by_another = Payment::charging(None, &charge, &caller(8, "charge"));
        assert_eq!(by_another, Err(refused));
        let own = Caller {
            saga_id: order_id,
            command: "charge".to_owned(),
        };
        let payment = Payment::charging(None, &charge, &own).expect("its own saga");
        assert_eq!(payment.saga_id, order_id);
    }
}

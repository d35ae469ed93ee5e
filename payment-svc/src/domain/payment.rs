//! One order's payment and the rules of its life.
//!
//! ```text
//!            ┌─▶ declined ─┐
//!  charging ─┼─▶ charge_failed ─▶ charging (the next attempt)
//!            └─▶ charged ─▶ refunding ─┬─▶ refunded
//!                               ▲      └─▶ refund_failed
//!                               └────────────────┘
//! ```

use super::money::digits_of;
use saga_contracts::{
    fault_code,
    payload::{ChargePayment, PaymentMoved},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

/// What the gateway is asked to do.
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
    /// The gateway is being asked.
    Charging,
    Charged,
    /// The gateway said no.
    Declined,
    /// The gateway broke, and nothing was charged: the saga tries again or gives up.
    ChargeFailed,
    Refunding,
    Refunded,
    /// The gateway broke or said no; the money is still charged.
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

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payment {
    pub order_id: Uuid,
    pub customer_id: Uuid,
    pub amount_minor: i64,
    pub currency: String,
    pub status: PaymentStatus,
    /// The command whose call is open or was the last.
    pub caller: String,
    pub charge_reference: Option<String>,
    pub refund_reference: Option<String>,
    pub fault_code: Option<String>,
    pub fault_message: Option<String>,
}

/// Why a command gets no call. All but `Busy` are business answers; that one is technical and tried again.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("{0}")]
    InvalidPayload(String),
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
            Self::AlreadyCharged { .. } => fault_code::ALREADY_CHARGED,
            Self::Busy(_) => fault_code::PAYMENT_BUSY,
        }
    }
}

/// What a refund comes to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RefundDecision {
    /// Nothing was charged, or it was refunded before: this is the answer.
    Answer(PaymentMoved),
    CallGateway,
}

/// Whether the gateway can be asked for this at all.
pub fn check_charge(command: &ChargePayment) -> Result<(), Refusal> {
    if command.amount_minor <= 0 {
        let message = format!(
            "amountMinor: {} is not a positive amount",
            command.amount_minor
        );
        return Err(Refusal::InvalidPayload(message));
    }
    if digits_of(&command.currency).is_none() {
        let message = "currency: not a currency of ISO 4217".to_owned();
        return Err(Refusal::InvalidPayload(message));
    }
    Ok(())
}

impl Payment {
    /// The payment while its charge is under way. `before` is the row as it is.
    pub fn charging(
        before: Option<&Self>,
        command: &ChargePayment,
        caller: &str,
    ) -> Result<Self, Refusal> {
        check_charge(command)?;
        let order_id = command.order_id;
        if let Some(payment) = before {
            match payment.status {
                PaymentStatus::Declined | PaymentStatus::ChargeFailed => {}
                // Its definite failure was not saved and this is the next attempt.
                PaymentStatus::Charging if payment.caller == caller => {}
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
            customer_id: command.customer_id,
            amount_minor: command.amount_minor,
            currency: command.currency.clone(),
            status: PaymentStatus::Charging,
            caller: caller.to_owned(),
            charge_reference: None,
            refund_reference: None,
            fault_code: None,
            fault_message: None,
        })
    }

    /// What a refund of this payment comes to.
    pub fn refund(&self, caller: &str) -> Result<RefundDecision, Refusal> {
        match self.status {
            PaymentStatus::Declined | PaymentStatus::ChargeFailed => Ok(RefundDecision::Answer(
                nothing_refunded(self.order_id, &self.currency),
            )),
            PaymentStatus::Refunded => Ok(RefundDecision::Answer(self.moved(Operation::Refund))),
            PaymentStatus::Charged | PaymentStatus::RefundFailed => Ok(RefundDecision::CallGateway),
            PaymentStatus::Refunding if self.caller == caller => Ok(RefundDecision::CallGateway),
            PaymentStatus::Refunding | PaymentStatus::Charging => Err(Refusal::Busy(self.order_id)),
        }
    }

    /// The result that a saga gets.
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

/// The answer to a refund of what was never charged.
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

    fn payment(status: PaymentStatus) -> Payment {
        let payment = Payment::charging(None, &command(1_050, "EUR"), "first").expect("valid");
        Payment { status, ..payment }
    }

    #[test]
    fn bad_amounts_and_currencies_are_refused() {
        for (amount, currency) in [(0, "EUR"), (-1, "EUR"), (1, "eur"), (1, "XXX"), (1, "")] {
            let refusal = Payment::charging(None, &command(amount, currency), "first");
            assert_eq!(
                refusal.map_err(|why| why.code()),
                Err("invalid_payload"),
                "{currency}"
            );
        }
    }

    #[test]
    fn an_order_is_charged_again_only_after_it_was_not() {
        let check = |status, caller, expected: Result<(), &str>| {
            let outcome = Payment::charging(Some(&payment(status)), &command(1, "EUR"), caller);
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
    fn only_what_is_charged_is_refunded() {
        let check = |status, caller, expected: Result<Option<i64>, &str>| {
            let outcome = payment(status).refund(caller).map_err(|why| why.code());
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
}

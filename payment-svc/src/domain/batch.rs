//! The payments of a batch, as the batch's decisions change them. The batch writes one row per payment.

use super::payment::{
    Caller, Operation, Payment, PaymentStatus, RefundDecision, Refusal, check_holder,
    nothing_refunded,
};
use chrono::{DateTime, Utc};
use saga_contracts::payload::ChargePayment;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use utoipa::ToSchema;
use uuid::Uuid;

/// An entry of a payment's history.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub at: DateTime<Utc>,
    pub operation: Operation,
    pub outcome: EntryOutcome,
    /// The gateway's reference of the charge or refund.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reference: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum EntryOutcome {
    /// The gateway will be called.
    Requested,
    Succeeded,
    /// The gateway declined.
    Declined,
    /// The gateway failed, and nothing was done.
    Failed,
}

/// A payment's row after the batch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PaymentChange {
    pub payment: Payment,
    pub is_new: bool,
    /// The entries to append to the row's history.
    pub entries: Vec<Entry>,
}

#[derive(Debug)]
struct Row {
    was_there: bool,
    now: Option<Payment>,
    entries: Vec<Entry>,
}

/// The locked payments of a batch, and the batch's decisions on them.
#[derive(Debug, Default)]
pub struct PaymentBatch {
    rows: BTreeMap<Uuid, Row>,
}

impl PaymentBatch {
    pub fn new(payments: impl IntoIterator<Item = Payment>) -> Self {
        let row = |payment| Row {
            was_there: true,
            now: Some(payment),
            entries: Vec::new(),
        };
        Self {
            rows: payments
                .into_iter()
                .map(|payment| (payment.order_id, row(payment)))
                .collect(),
        }
    }

    pub fn payment(&self, order_id: Uuid) -> Option<&Payment> {
        self.rows.get(&order_id).and_then(|row| row.now.as_ref())
    }

    /// Records that the gateway will be called to charge the order.
    pub fn charge(
        &mut self,
        command: &ChargePayment,
        caller: &Caller,
        at: DateTime<Utc>,
    ) -> Result<(), Refusal> {
        let payment = Payment::charging(self.payment(command.order_id), command, caller)?;
        self.put(
            payment,
            entry(at, Operation::Charge, EntryOutcome::Requested),
        );
        Ok(())
    }

    /// Records that the gateway will be called to refund the order, if the order was charged.
    pub fn refund(
        &mut self,
        order_id: Uuid,
        caller: &Caller,
        at: DateTime<Utc>,
    ) -> Result<RefundDecision, Refusal> {
        let Some(payment) = self.payment(order_id) else {
            check_holder(None, order_id, caller.saga_id)?;
            return Ok(RefundDecision::Answer(nothing_refunded(order_id, "")));
        };
        let decision = payment.refund(caller)?;
        if decision == RefundDecision::CallGateway {
            let payment = Payment {
                status: PaymentStatus::Refunding,
                caller: caller.command.clone(),
                fault_code: None,
                fault_message: None,
                ..payment.clone()
            };
            self.put(
                payment,
                entry(at, Operation::Refund, EntryOutcome::Requested),
            );
        }
        Ok(decision)
    }

    /// Records that the gateway carried out the operation.
    pub fn succeeded(
        &mut self,
        order_id: Uuid,
        operation: Operation,
        reference: &str,
        at: DateTime<Utc>,
    ) {
        let Some(mut payment) = self.payment(order_id).cloned() else {
            return;
        };
        match operation {
            Operation::Charge => {
                payment.status = PaymentStatus::Charged;
                payment.charge_reference = Some(reference.to_owned());
            }
            Operation::Refund => {
                payment.status = PaymentStatus::Refunded;
                payment.refund_reference = Some(reference.to_owned());
            }
        }
        payment.fault_code = None;
        payment.fault_message = None;
        let mut entry = entry(at, operation, EntryOutcome::Succeeded);
        entry.reference = Some(reference.to_owned());
        self.put(payment, entry);
    }

    /// Records that the gateway did not carry out the operation: it declined, or (`broke`) it definitely failed.
    pub fn not_done(
        &mut self,
        order_id: Uuid,
        operation: Operation,
        broke: bool,
        fault: (&str, &str),
        at: DateTime<Utc>,
    ) {
        let Some(mut payment) = self.payment(order_id).cloned() else {
            return;
        };
        payment.status = match (operation, broke) {
            (Operation::Charge, false) => PaymentStatus::Declined,
            (Operation::Charge, true) => PaymentStatus::ChargeFailed,
            (Operation::Refund, _) => PaymentStatus::RefundFailed,
        };
        let (code, message) = (Some(fault.0.to_owned()), Some(fault.1.to_owned()));
        payment.fault_code.clone_from(&code);
        payment.fault_message.clone_from(&message);
        let outcome = if broke {
            EntryOutcome::Failed
        } else {
            EntryOutcome::Declined
        };
        self.put(
            payment,
            Entry {
                code,
                message,
                ..entry(at, operation, outcome)
            },
        );
    }

    /// Returns the rows to write, in key order.
    pub fn changes(self) -> Vec<PaymentChange> {
        self.rows
            .into_values()
            .filter(|row| !row.entries.is_empty())
            .filter_map(|row| {
                let Row {
                    was_there,
                    now,
                    entries,
                } = row;
                now.map(|payment| PaymentChange {
                    payment,
                    is_new: !was_there,
                    entries,
                })
            })
            .collect()
    }

    fn put(&mut self, payment: Payment, entry: Entry) {
        let row = self.rows.entry(payment.order_id).or_insert(Row {
            was_there: false,
            now: None,
            entries: Vec::new(),
        });
        row.now = Some(payment);
        row.entries.push(entry);
    }
}

fn entry(at: DateTime<Utc>, operation: Operation, outcome: EntryOutcome) -> Entry {
    Entry {
        at,
        operation,
        outcome,
        reference: None,
        code: None,
        message: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: Uuid = Uuid::from_u128(1);
    const AT: DateTime<Utc> = DateTime::<Utc>::UNIX_EPOCH;

    fn caller(command: &str) -> Caller {
        Caller {
            saga_id: Uuid::from_u128(9),
            command: command.to_owned(),
        }
    }

    fn charge() -> ChargePayment {
        ChargePayment {
            order_id: ORDER,
            customer_id: Uuid::from_u128(2),
            amount_minor: 1_050,
            currency: "EUR".to_owned(),
        }
    }

    fn status(book: &PaymentBatch) -> Option<PaymentStatus> {
        book.payment(ORDER).map(|payment| payment.status)
    }

    #[test]
    fn a_charge_and_its_refund_leave_their_trace() {
        let mut book = PaymentBatch::default();
        book.charge(&charge(), &caller("saga/charge/forward"), AT)
            .expect("valid");
        assert_eq!(status(&book), Some(PaymentStatus::Charging));
        book.succeeded(ORDER, Operation::Charge, "ref-1", AT);
        assert_eq!(status(&book), Some(PaymentStatus::Charged));
        let decision = book
            .refund(ORDER, &caller("saga/charge/compensation"), AT)
            .expect("charged");
        assert_eq!(decision, RefundDecision::CallGateway);
        book.not_done(
            ORDER,
            Operation::Refund,
            true,
            ("gateway_error", "broken"),
            AT,
        );
        assert_eq!(status(&book), Some(PaymentStatus::RefundFailed));
        book.refund(ORDER, &caller("saga/charge/compensation"), AT)
            .expect("still charged");
        book.succeeded(ORDER, Operation::Refund, "ref-2", AT);
        let changes = book.changes();
        assert_eq!(changes.len(), 1);
        let PaymentChange {
            payment,
            is_new,
            entries,
        } = &changes[0];
        assert!(*is_new && payment.fault_code.is_none());
        assert_eq!(payment.status, PaymentStatus::Refunded);
        assert_eq!(payment.moved(Operation::Refund).gateway_reference, "ref-2");
        let trace: Vec<_> = entries
            .iter()
            .map(|entry| (entry.operation, entry.outcome))
            .collect();
        let (asked, done) = (EntryOutcome::Requested, EntryOutcome::Succeeded);
        assert_eq!(
            trace,
            [
                (Operation::Charge, asked),
                (Operation::Charge, done),
                (Operation::Refund, asked),
                (Operation::Refund, EntryOutcome::Failed),
                (Operation::Refund, asked),
                (Operation::Refund, done),
            ]
        );
    }

    #[test]
    fn a_declined_charge_has_nothing_to_refund() {
        let mut book = PaymentBatch::default();
        book.charge(&charge(), &caller("a"), AT).expect("valid");
        book.not_done(
            ORDER,
            Operation::Charge,
            false,
            ("payment_declined", "no"),
            AT,
        );
        assert_eq!(status(&book), Some(PaymentStatus::Declined));
        let RefundDecision::Answer(moved) =
            book.refund(ORDER, &caller("b"), AT).expect("an answer")
        else {
            panic!("nothing was charged");
        };
        assert_eq!(
            (moved.amount_minor, moved.gateway_reference.as_str()),
            (0, "")
        );
    }

    #[test]
    fn a_payment_that_was_only_read_is_not_written() {
        let mut book = PaymentBatch::default();
        book.charge(&charge(), &caller("a"), AT).expect("valid");
        let payment = book.payment(ORDER).expect("there").clone();
        let mut read = PaymentBatch::new([payment]);
        assert_eq!(
            read.refund(ORDER, &caller("b"), AT),
            Err(Refusal::Busy(ORDER))
        );
        assert_eq!(read.changes(), []);
        let unknown = PaymentBatch::default()
            .refund(ORDER, &caller("b"), AT)
            .expect("an answer");
        assert_eq!(unknown, RefundDecision::Answer(nothing_refunded(ORDER, "")));
    }
}

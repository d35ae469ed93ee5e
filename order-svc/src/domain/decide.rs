//! What `order.confirm` and `order.cancel` do to an order: `PENDING` → `CONFIRMED` | `CANCELLED`, once.
//!
//! The saga decides which of the two, so asking for the other one afterwards is a broken contract. It is answered
//! with a failure, which parks a saga at a retriable step or a compensation, where a person sees both sides; the
//! order keeps the end that its customer may have been told.

use super::order::{CancelReason, OrderStatus};
use saga_contracts::{fault_code, payload::CancelCause};
use saga_core::message::Fault;

/// What a command wants of an order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Confirmed,
    Cancelled(CancelReason),
}

/// What happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The order ends so.
    End(Wanted),
    /// It has ended so already.
    Already(OrderStatus),
    /// A business answer: trying again cannot help.
    Refuse(Fault),
    /// A technical answer: trying again may.
    Retry(Fault),
}

pub fn decide(status: Option<OrderStatus>, wanted: Wanted) -> Decision {
    match (status, wanted) {
        (Some(OrderStatus::Pending), wanted) => Decision::End(wanted),
        (Some(status @ OrderStatus::Confirmed), Wanted::Confirmed)
        | (Some(status @ OrderStatus::Cancelled), Wanted::Cancelled(_)) => {
            Decision::Already(status)
        }
        (Some(status @ OrderStatus::Cancelled), Wanted::Confirmed) => {
            Decision::Refuse(ended(status, "confirmed"))
        }
        (Some(status @ OrderStatus::Confirmed), Wanted::Cancelled(_)) => {
            Decision::Refuse(ended(status, "cancelled"))
        }
        // The order was committed before its saga's start was sent, so it is missing only in a database that was
        // put back to an earlier state or is not reached yet: its row may return.
        (None, Wanted::Confirmed) => Decision::Retry(unknown()),
        // A compensation that errs is tried many times before it parks; this one is for a person at once, since
        // there is nothing here that a retry could cancel.
        (None, Wanted::Cancelled(_)) => Decision::Refuse(unknown()),
    }
}

fn ended(status: OrderStatus, wanted: &str) -> Fault {
    Fault::new(
        fault_code::ORDER_ENDED,
        format!("the order is {status} and cannot be {wanted} any more"),
    )
}

fn unknown() -> Fault {
    Fault::new(fault_code::UNKNOWN_ORDER, "there is no such order")
}

/// The reason that a cancelled order shows.
pub fn reason_of(cause: Option<CancelCause>) -> CancelReason {
    match cause {
        Some(cause) => CancelReason {
            code: cause.code,
            message: cause.message,
            step: cause.step,
        },
        None => CancelReason {
            code: fault_code::CANCELLED.to_owned(),
            message: "the saga was compensated without naming a cause".to_owned(),
            step: None,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cancelled() -> Wanted {
        Wanted::Cancelled(reason_of(None))
    }

    fn refused(decision: &Decision) -> &str {
        match decision {
            Decision::Refuse(fault) => &fault.code,
            Decision::End(_) | Decision::Already(_) | Decision::Retry(_) => "",
        }
    }

    #[test]
    fn a_pending_order_ends_as_wanted() {
        for wanted in [Wanted::Confirmed, cancelled()] {
            let decision = decide(Some(OrderStatus::Pending), wanted.clone());
            assert_eq!(decision, Decision::End(wanted));
        }
    }

    #[test]
    fn an_end_is_final() {
        let decision = decide(Some(OrderStatus::Cancelled), Wanted::Confirmed);
        assert_eq!(refused(&decision), fault_code::ORDER_ENDED);
        let decision = decide(Some(OrderStatus::Confirmed), cancelled());
        assert_eq!(refused(&decision), fault_code::ORDER_ENDED);
    }

    #[test]
    fn the_same_end_twice_is_one() {
        assert_eq!(
            decide(Some(OrderStatus::Confirmed), Wanted::Confirmed),
            Decision::Already(OrderStatus::Confirmed)
        );
        assert_eq!(
            decide(Some(OrderStatus::Cancelled), cancelled()),
            Decision::Already(OrderStatus::Cancelled)
        );
    }

    #[test]
    fn an_unknown_order_is_retried_when_confirmed_and_refused_when_cancelled() {
        assert!(matches!(
            decide(None, Wanted::Confirmed),
            Decision::Retry(_)
        ));
        assert_eq!(
            refused(&decide(None, cancelled())),
            fault_code::UNKNOWN_ORDER
        );
    }

    #[test]
    fn the_reason_is_the_sagas_cause() {
        let cause = CancelCause {
            step: Some("charge".to_owned()),
            code: "payment_declined".to_owned(),
            message: "above the limit".to_owned(),
        };
        let reason = reason_of(Some(cause));
        assert_eq!(reason.code, "payment_declined");
        assert_eq!(reason.step.as_deref(), Some("charge"));
    }
}

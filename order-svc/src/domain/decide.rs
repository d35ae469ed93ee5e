//! Decides how `order.confirm` and `order.cancel` change an order: `PENDING` → `CONFIRMED` | `CANCELLED`, once.
//!
//! The saga decides which of the two. A command for the other one after that breaks the contract and is answered with a
//! failure. The failure parks the saga at a retriable step or a compensation, where a person sees both sides. The order
//! keeps its state, because the customer may already have been informed.
//!
//! An order belongs to the saga that has the order's id. No other saga can end the order.

use super::order::{CancelReason, OrderStatus};
use saga_contracts::{fault_code, payload::CancelCause};
use saga_core::message::Fault;
use uuid::Uuid;

/// The end that a command asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Wanted {
    Confirmed,
    Cancelled(CancelReason),
}

/// The result of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The order ends as the command asks.
    End(Wanted),
    /// The order already has this state.
    Already(OrderStatus),
    /// A business failure: a retry cannot help.
    Refuse(Fault),
    /// A technical error: a retry may help.
    Retry(Fault),
}

/// The order that a command names, and the saga that sent the command.
#[derive(Clone, Copy, Debug)]
pub struct Asking {
    pub order_id: Uuid,
    pub saga_id: Uuid,
}

pub fn decide(asking: Asking, status: Option<OrderStatus>, wanted: Wanted) -> Decision {
    if status.is_some() && asking.saga_id != asking.order_id {
        return Decision::Refuse(held(asking));
    }
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
        // The order was committed before its saga's start was sent. It is missing only in a database that was restored
        // to an earlier state or that is still catching up, so its row may appear later.
        (None, Wanted::Confirmed) => Decision::Retry(unknown()),
        // A compensation that answers with an error is retried many times before it parks. A failure parks at once,
        // because there is no order that a retry could cancel.
        (None, Wanted::Cancelled(_)) => Decision::Refuse(unknown()),
    }
}

fn held(asking: Asking) -> Fault {
    let Asking { order_id, saga_id } = asking;
    Fault::new(
        fault_code::ORDER_OF_ANOTHER_SAGA,
        format!("order {order_id} is held by the saga of the same id, not by saga {saga_id}"),
    )
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

/// Returns the reason that a cancelled order shows.
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

    const OWN: Asking = Asking {
        order_id: Uuid::from_u128(7),
        saga_id: Uuid::from_u128(7),
    };

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
            let decision = decide(OWN, Some(OrderStatus::Pending), wanted.clone());
            assert_eq!(decision, Decision::End(wanted));
        }
    }

    #[test]
    fn an_end_is_final() {
        let decision = decide(OWN, Some(OrderStatus::Cancelled), Wanted::Confirmed);
        assert_eq!(refused(&decision), fault_code::ORDER_ENDED);
        let decision = decide(OWN, Some(OrderStatus::Confirmed), cancelled());
        assert_eq!(refused(&decision), fault_code::ORDER_ENDED);
    }

    /// Regression: a second saga confirmed a pending order that belonged to another saga.
    #[test]
    fn another_saga_ends_nothing() {
        let other = Asking {
            saga_id: Uuid::from_u128(8),
            ..OWN
        };
        for status in OrderStatus::ALL {
            for wanted in [Wanted::Confirmed, cancelled()] {
                let decision = decide(other, Some(status), wanted);
                assert_eq!(refused(&decision), fault_code::ORDER_OF_ANOTHER_SAGA);
            }
        }
        assert!(matches!(
            decide(other, None, Wanted::Confirmed),
            Decision::Retry(_)
        ));
    }

    #[test]
    fn the_same_end_twice_is_one() {
        assert_eq!(
            decide(OWN, Some(OrderStatus::Confirmed), Wanted::Confirmed),
            Decision::Already(OrderStatus::Confirmed)
        );
        assert_eq!(
            decide(OWN, Some(OrderStatus::Cancelled), cancelled()),
            Decision::Already(OrderStatus::Cancelled)
        );
    }

    #[test]
    fn an_unknown_order_is_retried_when_confirmed_and_refused_when_cancelled() {
        assert!(matches!(
            decide(OWN, None, Wanted::Confirmed),
            Decision::Retry(_)
        ));
        assert_eq!(
            refused(&decide(OWN, None, cancelled())),
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

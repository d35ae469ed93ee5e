//! Names of the checks, and their findings.

use serde::Serialize;
use std::fmt;
use uuid::Uuid;

/// The name of a check, which says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// An order that the client's journal has as accepted does not exist.
    AcceptedOrderMissing,
    /// A customer has several orders although, by the journal, the client requested only one.
    OrderPlacedTwice,
    /// An order has neither a live saga nor an ended one, and its start is not in flight.
    OrderWithoutSaga,
    /// The saga has ended, and the order's status differs from the saga's.
    OrderContradictsSaga,
    /// Stock or money was moved for an order that does not exist.
    EffectWithoutOrder,
    /// Stock or money of an order was moved by another saga than the order's.
    EffectOfAnotherSaga,
    /// A saga is parked without a reason.
    ParkedWithoutReason,
    /// The next step of a saga is long overdue, or its participant has not consumed a command for that long.
    SagaStandsStill,
    /// A saga is live although all should have ended.
    NotEnded,
    /// A saga is both live and ended.
    LiveAndHistoryOverlap,
    StockNegative,
    /// The reserved pieces differ from the sum of the reservations.
    StockReservedMismatch,
    /// The sold pieces differ from the sum of the sold reservations.
    StockSoldMismatch,
    /// The available, reserved and sold pieces differ from the pieces that were put in.
    StockTotalMismatch,
    /// Pieces are still reserved for an order whose saga has ended.
    ReservationOutlivesSaga,
    /// A confirmed order has not received its items, or an order that was not confirmed has kept some.
    SoldMismatch,
    /// The charges less the refunds differ from the order's amount.
    MoneyMismatch,
    /// An order was charged more than once.
    ChargedTwice,
    /// The payment's row contradicts the gateway.
    PaymentContradictsGateway,
    /// An external call is open although its saga has ended.
    CallOutlivesSaga,
    /// A step was done after its compensation.
    EffectAfterCompensation,
    /// The saga was compensated, and one of its steps was not.
    EffectNotCompensated,
    /// The saga was completed, and one of its steps was compensated.
    CompensatedThoughCompleted,
    /// A participant answered both that a step is done and that it never will be.
    ReplyContradicts,
    /// A saga has ended and its last event is not in the topic.
    TerminalEventMissing,
    /// A saga has several events that end it.
    TerminalEventTwice,
    /// The last event contradicts the saga's row.
    TerminalEventContradicts,
    /// An event occurs with two contents.
    EventDiffers,
    /// A sequence number of a saga's events is missing.
    EventGap,
    /// Events exist of a saga that has no row.
    EventWithoutSaga,
}

impl Check {
    /// Returns the name as it is in reports, such as `order_without_saga`.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }

    /// Returns what a person has to do about such a finding, in one sentence.
    pub fn way_out(self) -> &'static str {
        match self {
            Self::AcceptedOrderMissing => {
                "place the order again for its customer: order-svc's database has lost it"
            }
            Self::OrderPlacedTwice => {
                "ask the customer, and cancel or refund the order that is too many"
            }
            Self::OrderWithoutSaga => {
                "if the order is PENDING, POST /orders/ID/cancel takes its saga up again; if not, compare its payment and \
                 stock by hand"
            }
            Self::OrderContradictsSaga => {
                "see what was done (sagactl saga show ID), and set the order right in order-svc's database"
            }
            Self::EffectWithoutOrder => {
                "look for the order in a backup of order-svc's database; without it, refund the money and put the pieces back"
            }
            Self::EffectOfAnotherSaga => {
                "look at both sagas (sagactl saga show ID), and undo by hand what the other one did to the order"
            }
            Self::ParkedWithoutReason => {
                "see what it did (sagactl saga show ID), then sagactl saga retry, complete, skip or abandon it"
            }
            Self::SagaStandsStill | Self::NotEnded => {
                "see whom it waits for (sagactl saga show ID), and start that service or look at its /health"
            }
            Self::LiveAndHistoryOverlap => {
                "stop the orchestrator, and delete the row that saga.events contradicts from its database"
            }
            Self::StockNegative
            | Self::StockReservedMismatch
            | Self::StockSoldMismatch
            | Self::StockTotalMismatch => {
                "count the pieces, and set the product's row in inventory-svc's database right"
            }
            Self::ReservationOutlivesSaga | Self::SoldMismatch => {
                "deliver or put back the pieces, and set the order's reservations in inventory-svc's database right"
            }
            Self::MoneyMismatch | Self::ChargedTwice => {
                "charge or refund the difference at the payment provider"
            }
            Self::PaymentContradictsGateway => {
                "set the payment's row in payment-svc's database to what the payment provider shows"
            }
            Self::CallOutlivesSaga => {
                "see in the participant's log why its gateway does not answer; it settles the call by itself"
            }
            Self::EffectAfterCompensation
            | Self::EffectNotCompensated
            | Self::CompensatedThoughCompleted
            | Self::ReplyContradicts => {
                "look at the step in the participant's database, and undo or redo it by hand"
            }
            Self::TerminalEventMissing | Self::EventGap | Self::EventDiffers => {
                "nothing after a restore or a deleted topic; else have readers of saga.events ask GET /sagas/ID/events"
            }
            Self::TerminalEventTwice | Self::TerminalEventContradicts => {
                "have readers of saga.events take the saga's row instead (sagactl saga show ID)"
            }
            Self::EventWithoutSaga => {
                "the orchestrator's database was lost or restored: POST /orders/ID/cancel if the order is PENDING"
            }
        }
    }
}

/// One discrepancy, or a suspicion that a second look must confirm.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    pub check: Check,
    /// The saga's id, which is also the order's; `None` for findings about a product or a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<Uuid>,
    /// A product, a step or a number that distinguishes the finding from others of the same check.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    pub detail: String,
    /// The action that a person has to take about the finding.
    pub way_out: &'static str,
}

impl Finding {
    pub fn of_saga(check: Check, saga: Uuid, detail: impl Into<String>) -> Self {
        Self {
            check,
            saga: Some(saga),
            subject: String::new(),
            detail: detail.into(),
            way_out: check.way_out(),
        }
    }

    pub fn of_subject(check: Check, subject: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self {
            check,
            saga: None,
            subject: subject.to_string(),
            detail: detail.into(),
            way_out: check.way_out(),
        }
    }

    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = subject.to_string();
        self
    }

    /// Returns the finding without its figures, which may differ between two looks.
    pub(crate) fn identity(&self) -> (Check, Option<Uuid>, String) {
        (self.check, self.saga, self.subject.clone())
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.check.name())?;
        if let Some(saga) = self.saga {
            write!(f, " saga {saga}")?;
        }
        if !self.subject.is_empty() {
            write!(f, " {}", self.subject)?;
        }
        write!(f, ": {}; way out: {}", self.detail, self.way_out)
    }
}

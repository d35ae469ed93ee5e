//! What may be wrong, by name.

use serde::Serialize;
use std::fmt;
use uuid::Uuid;

/// Every check has a name that says what was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Check {
    /// The client's journal has an order as accepted that is not there.
    AcceptedOrderMissing,
    /// One key, or one request by the journal, made several orders.
    OrderPlacedTwice,
    /// An order has neither a live saga nor an ended one, and no start on its way.
    OrderWithoutSaga,
    /// The saga has ended and the order stands elsewhere.
    OrderContradictsSaga,
    /// Stock or money was moved for an order that is not there.
    EffectWithoutOrder,
    /// A saga is parked and does not say why.
    ParkedWithoutReason,
    /// The next step of a saga is long overdue, or its participant has not come to it for as long.
    SagaStandsStill,
    /// Still under way when everything should have ended.
    NotEnded,
    /// One saga both live and ended.
    LiveAndHistoryOverlap,
    StockNegative,
    /// What is reserved is not what the reservations add up to.
    StockReservedMismatch,
    /// What is sold is not what the reservations add up to.
    StockSoldMismatch,
    /// Available, reserved and sold are not what was put in.
    StockTotalMismatch,
    /// Pieces are still held for an order whose saga has ended.
    ReservationOutlivesSaga,
    /// A confirmed order has not got its items, or one that was not confirmed has kept some.
    SoldMismatch,
    /// Charged less refunded is not what the order owes.
    MoneyMismatch,
    /// An order was charged more than once.
    ChargedTwice,
    /// The payment's row says something else than the gateway.
    PaymentContradictsGateway,
    /// An external call is open though its saga has ended.
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
    /// Several ends of one saga.
    TerminalEventTwice,
    /// The last event says something else than the saga's row.
    TerminalEventContradicts,
    /// One event with two contents.
    EventDiffers,
    /// A number of a saga's events is missing.
    EventGap,
    /// Events of a saga that has no row.
    EventWithoutSaga,
}

impl Check {
    /// As in reports: `order_without_saga`.
    pub fn name(self) -> String {
        serde_json::to_value(self)
            .ok()
            .and_then(|value| value.as_str().map(str::to_owned))
            .unwrap_or_default()
    }
}

/// One discrepancy, or the suspicion of one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    pub check: Check,
    /// The saga, which is the order's id too; `None` for what concerns a product or a topic.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub saga: Option<Uuid>,
    /// What else tells it from others of the same check: a product, a step, a number.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub subject: String,
    pub detail: String,
}

impl Finding {
    pub fn of_saga(check: Check, saga: Uuid, detail: impl Into<String>) -> Self {
        Self {
            check,
            saga: Some(saga),
            subject: String::new(),
            detail: detail.into(),
        }
    }

    pub fn of_subject(check: Check, subject: impl fmt::Display, detail: impl Into<String>) -> Self {
        Self {
            check,
            saga: None,
            subject: subject.to_string(),
            detail: detail.into(),
        }
    }

    #[must_use]
    pub fn about(mut self, subject: impl fmt::Display) -> Self {
        self.subject = subject.to_string();
        self
    }

    /// The same thing seen again, whatever its figures are now.
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
        write!(f, ": {}", self.detail)
    }
}

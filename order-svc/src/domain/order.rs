//! An order, its lines and its status.

use chrono::{DateTime, Utc};
use saga_contracts::money::CurrencyUnit;
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::{Uuid, fmt::Hyphenated};

/// Parses the id of an order, a customer or a product. Only the form with hyphens is accepted, so that each id has one
/// spelling. The nil id is refused.
pub fn parse_id(text: &str) -> Option<Uuid> {
    let id: Hyphenated = text.parse().ok()?;
    Some(id.into_uuid()).filter(|id| !id.is_nil())
}

/// The status of an order. `Confirmed` and `Cancelled` never change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum OrderStatus {
    Pending,
    Confirmed,
    Cancelled,
}

impl OrderStatus {
    pub const ALL: [Self; 3] = [Self::Pending, Self::Confirmed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "PENDING",
            Self::Confirmed => "CONFIRMED",
            Self::Cancelled => "CANCELLED",
        }
    }
}

impl fmt::Display for OrderStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for OrderStatus {
    type Err = String;
    fn from_str(text: &str) -> Result<Self, String> {
        Self::ALL
            .into_iter()
            .find(|status| status.as_str() == text)
            .ok_or_else(|| "must be PENDING, CONFIRMED or CANCELLED".to_owned())
    }
}

/// One line of an order. `amount_minor` is charged for the line. `unit_price_minor` is exact, unless the line was
/// ordered by a total that its quantity does not divide; then it is rounded down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    pub product_id: Uuid,
    pub quantity: u32,
    pub unit_price_minor: i64,
    pub amount_minor: i64,
}

impl OrderLine {
    /// Returns the price of one piece if the line's amount is a multiple of it.
    pub fn exact_unit_price_minor(&self) -> Option<i64> {
        let product = self
            .unit_price_minor
            .checked_mul(i64::from(self.quantity))?;
        (product == self.amount_minor).then_some(self.unit_price_minor)
    }
}

/// The reason why an order was cancelled, as its saga reported it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CancelReason {
    /// The code for programs, such as `payment_declined`.
    pub code: String,
    /// The text for people.
    pub message: String,
    /// The name of the failed step, if a step failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// An order. Its id is also its saga's id, so that one id finds both.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// A UUIDv7, so ids sort by time.
    pub id: Uuid,
    pub customer_id: Uuid,
    pub status: OrderStatus,
    pub definition: String,
    pub items: Vec<OrderLine>,
    pub amount_minor: i64,
    pub currency: CurrencyUnit,
    /// The partition of `saga.inputs` on which everything about the order's saga is decided.
    pub home_partition: i32,
    pub correlation_id: String,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub reason: Option<CancelReason>,
}

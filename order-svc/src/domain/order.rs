//! An order, its lines and its end.

use super::money::CurrencyUnit;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr};
use uuid::Uuid;

/// Where an order stands. `Confirmed` and `Cancelled` never change.
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

/// One line. `amount_minor` is what is charged for it; `unit_price_minor` is exact unless the line came as a total
/// that does not divide by its quantity, in which case it is rounded down.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct OrderLine {
    pub product_id: Uuid,
    pub quantity: u32,
    pub unit_price_minor: i64,
    pub amount_minor: i64,
}

impl OrderLine {
    /// The price of one piece, if the line's amount is a multiple of it.
    pub fn exact_unit_price_minor(&self) -> Option<i64> {
        let product = self
            .unit_price_minor
            .checked_mul(i64::from(self.quantity))?;
        (product == self.amount_minor).then_some(self.unit_price_minor)
    }
}

/// Why an order was cancelled, as its saga said.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, utoipa::ToSchema)]
pub struct CancelReason {
    /// For programs, such as `payment_declined`.
    pub code: String,
    /// For people.
    pub message: String,
    /// The step that failed, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
}

/// An order. Its id is also the id of its saga: one thing to remember, one thing to search for.
#[derive(Clone, Debug, PartialEq)]
pub struct Order {
    /// UUIDv7, so ids sort by time.
    pub id: Uuid,
    pub customer_id: Uuid,
    pub status: OrderStatus,
    pub definition: String,
    pub items: Vec<OrderLine>,
    pub amount_minor: i64,
    pub currency: CurrencyUnit,
    /// Partition of `saga.inputs` on which everything about the order's saga is decided.
    pub home_partition: i32,
    pub correlation_id: String,
    pub created_at: DateTime<Utc>,
    pub ended_at: Option<DateTime<Utc>>,
    pub reason: Option<CancelReason>,
}

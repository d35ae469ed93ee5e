//! The payment in the API's format.

use crate::{
    domain::{Entry, PaymentStatus},
    store::PaymentRecord,
};
use chrono::{DateTime, Utc};
use saga_contracts::money;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// The payment of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentView {
    order_id: Uuid,
    /// The saga that holds the payment. No other saga charges the order or refunds it.
    saga_id: Uuid,
    customer_id: Uuid,
    status: PaymentStatus,
    /// The amount in major units, with the currency's digits.
    #[schema(example = "10.50")]
    amount: String,
    #[schema(example = 1050)]
    amount_minor: i64,
    /// The ISO 4217 code of the currency.
    #[schema(example = "EUR")]
    currency: String,
    /// The gateway's reference of the charge.
    #[serde(skip_serializing_if = "Option::is_none")]
    gateway_reference: Option<String>,
    /// The gateway's reference of the refund.
    #[serde(skip_serializing_if = "Option::is_none")]
    refund_reference: Option<String>,
    /// The reason why the last call did not carry out its operation.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<Reason>,
    /// The payment's history, oldest first: the first entry and up to 49 of the latest.
    history: Vec<Entry>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
}

/// A code for programs, a message for people.
#[derive(Debug, Serialize, ToSchema)]
struct Reason {
    code: String,
    message: String,
}

impl From<PaymentRecord> for PaymentView {
    fn from(record: PaymentRecord) -> Self {
        let PaymentRecord {
            payment,
            history,
            created_at,
            updated_at,
        } = record;
        let reason = payment.fault_code.map(|code| Reason {
            code,
            message: payment.fault_message.unwrap_or_default(),
        });
        Self {
            order_id: payment.order_id,
            saga_id: payment.saga_id,
            customer_id: payment.customer_id,
            status: payment.status,
            amount: money::format(payment.amount_minor, &payment.currency),
            amount_minor: payment.amount_minor,
            currency: payment.currency,
            gateway_reference: payment.charge_reference,
            refund_reference: payment.refund_reference,
            reason,
            history,
            created_at,
            updated_at,
        }
    }
}

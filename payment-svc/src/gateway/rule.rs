//! A rule of the simulated gateway: the requests that it matches, and its effect.

use super::GatewayRequest;
use crate::domain::Operation;
use saga_contracts::money::CurrencyUnit;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// The gateway definitely declines.
    Decline,
    /// The gateway answers after `delay_ms`.
    Delay,
    /// The gateway carries out the operation, but the answer is lost.
    TimeOut,
    /// The gateway definitely fails.
    Error,
}

/// A rule matches if every field that it sets matches.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<Uuid>,
    /// A product of the order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// The exact amount, minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor_from: Option<i64>,
    /// The upper bound of the amount, inclusive, minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor_to: Option<i64>,
    pub effect: Effect,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// The number of calls of an order and operation that the rule applies to; all calls if absent. Failed calls are
    /// counted over all processes. Other calls are counted by each process, because a call whose answer was lost is
    /// repeated until there is an answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// The message of a decline or an error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl Rule {
    pub(super) fn check(&self) -> Result<(), &'static str> {
        match (self.effect, self.delay_ms) {
            (Effect::Delay, None | Some(0)) => return Err("effect = \"delay\" needs delay_ms"),
            (Effect::Delay, Some(_))
            | (Effect::Decline | Effect::TimeOut | Effect::Error, None) => {}
            (Effect::Decline | Effect::TimeOut | Effect::Error, Some(_)) => {
                return Err("delay_ms belongs to effect = \"delay\"");
            }
        }
        if let (Some(from), Some(to)) = (self.amount_minor_from, self.amount_minor_to)
            && from > to
        {
            return Err("amount_minor_from is greater than amount_minor_to");
        }
        let ranged = self.amount_minor_from.is_some() || self.amount_minor_to.is_some();
        if self.amount_minor.is_some() && ranged {
            return Err("amount_minor excludes amount_minor_from and amount_minor_to");
        }
        if self.times == Some(0) {
            return Err("times = 0 makes the rule useless");
        }
        if self
            .currency
            .as_deref()
            .is_some_and(|currency| CurrencyUnit::from_code(currency).is_err())
        {
            return Err("currency is not in ISO 4217");
        }
        Ok(())
    }

    pub(super) fn matches(&self, request: &GatewayRequest) -> bool {
        fn allows<T>(wanted: Option<&T>, test: impl FnOnce(&T) -> bool) -> bool {
            wanted.is_none_or(test)
        }
        allows(self.operation.as_ref(), |operation| {
            *operation == request.operation
        }) && allows(self.customer_id.as_ref(), |customer| {
            *customer == request.customer_id
        }) && allows(self.product_id.as_ref(), |product| {
            request.product_ids.contains(product)
        }) && allows(self.currency.as_ref(), |currency| {
            *currency == request.currency
        }) && allows(self.amount_minor.as_ref(), |exact| {
            *exact == request.amount_minor
        }) && allows(self.amount_minor_from.as_ref(), |from| {
            *from <= request.amount_minor
        }) && allows(self.amount_minor_to.as_ref(), |to| {
            request.amount_minor <= *to
        })
    }
}

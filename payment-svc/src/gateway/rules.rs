//! How the simulated gateway is told to misbehave.

use super::{GatewayRequest, rule_list};
use crate::domain::{MajorAmount, Operation, digits_of};
use serde::{Deserialize, Serialize};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use thiserror::Error;
use uuid::Uuid;

/// The `gateway` section of the configuration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GatewayConfig {
    /// A larger charge is declined; the same number in every currency.
    pub limit: MajorAmount,
    /// The first rule that matches decides, except that after a delay the next ones are looked at too.
    #[serde(default, deserialize_with = "rule_list::deserialize")]
    pub rules: Vec<Rule>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Effect {
    /// A definite no.
    Decline,
    /// The answer takes `delay_ms`.
    Delay,
    /// It is done, but the answer is lost.
    TimeOut,
    /// It definitely fails.
    Error,
}

/// A rule matches if everything that it names is so.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub operation: Option<Operation>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub customer_id: Option<Uuid>,
    /// One of the order's products.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub product_id: Option<Uuid>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub currency: Option<String>,
    /// Exactly so many minor units.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor: Option<i64>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor_from: Option<i64>,
    /// Included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount_minor_to: Option<i64>,
    pub effect: Effect,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delay_ms: Option<u64>,
    /// Only the first so many calls of an order and operation; all of them if absent. Calls that failed are counted
    /// whichever process made them, others by each for itself: whose answer was lost is asked again until there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub times: Option<u32>,
    /// What a decline or an error says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// A rule that cannot work; it says which, and names the keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("gateway.rules[{index}]: {why}")]
pub struct RuleError {
    index: usize,
    why: &'static str,
}

impl Rule {
    fn check(&self) -> Result<(), &'static str> {
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
            .is_some_and(|currency| digits_of(currency).is_none())
        {
            return Err("currency is not in ISO 4217");
        }
        Ok(())
    }

    fn matches(&self, request: &GatewayRequest) -> bool {
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

impl GatewayConfig {
    pub fn check(&self) -> Result<(), RuleError> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|why| RuleError { index, why })?;
        }
        Ok(())
    }
}

/// What the rules want done to a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    pub delay: Duration,
    pub effect: Option<Effect>,
    pub message: Option<String>,
}

/// Calls that rules with `times` have seen are counted for this many orders at most. Beyond it the count starts anew: a
/// simulation that runs for months must not grow.
const COUNTED_MAX: usize = 100_000;

type Counted = (usize, Operation, Uuid);

/// The rules, with a count of the calls that they have met.
#[derive(Debug)]
pub struct Rules {
    config: GatewayConfig,
    calls: Mutex<HashMap<Counted, u32>>,
}

impl Rules {
    pub fn new(config: GatewayConfig) -> Self {
        Self {
            config,
            calls: Mutex::default(),
        }
    }

    /// Why the request would be declined by the limit.
    pub fn over_limit(&self, request: &GatewayRequest) -> Option<String> {
        let digits = digits_of(&request.currency).unwrap_or(2);
        let limit = self.config.limit;
        let over =
            request.operation == Operation::Charge && request.amount_minor > limit.minor(digits);
        over.then(|| {
            format!(
                "the amount is above the limit of {limit} {}",
                request.currency
            )
        })
    }

    /// Whether it matters how often the order was seen.
    pub fn counts(&self, request: &GatewayRequest) -> bool {
        let rules = self.config.rules.iter();
        rules
            .filter(|rule| rule.times.is_some())
            .any(|rule| rule.matches(request))
    }

    /// Counts the call. `failed` calls of the order are known to have failed.
    pub fn treat(&self, request: &GatewayRequest, failed: u32) -> Treatment {
        let mut treatment = Treatment::default();
        for (index, rule) in self.config.rules.iter().enumerate() {
            if !rule.matches(request) || !self.is_due(index, rule, request, failed) {
                continue;
            }
            if rule.effect == Effect::Delay {
                treatment.delay += Duration::from_millis(rule.delay_ms.unwrap_or_default());
                continue;
            }
            treatment.effect = Some(rule.effect);
            treatment.message.clone_from(&rule.message);
            break;
        }
        treatment
    }

    fn is_due(&self, index: usize, rule: &Rule, request: &GatewayRequest, failed: u32) -> bool {
        let Some(times) = rule.times else { return true };
        let mut calls = self.calls.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (index, request.operation, request.order_id);
        if calls.len() >= COUNTED_MAX && !calls.contains_key(&key) {
            calls.clear();
        }
        let seen = calls.entry(key).or_insert(0);
        let due = (*seen).max(failed) < times;
        *seen = seen.saturating_add(1);
        due
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn request(operation: Operation, amount_minor: i64) -> GatewayRequest {
        GatewayRequest {
            operation,
            order_id: Uuid::from_u128(1),
            customer_id: Uuid::from_u128(2),
            amount_minor,
            currency: "EUR".to_owned(),
            product_ids: vec![Uuid::from_u128(3)],
            charge_reference: None,
        }
    }

    fn rule(extra: serde_json::Value) -> Rule {
        serde_json::from_value(extra).expect("a rule")
    }

    pub fn rules(rules: &serde_json::Value) -> Rules {
        let config = serde_json::json!({"limit": "1000.00", "rules": rules});
        let config: GatewayConfig = serde_json::from_value(config).expect("a configuration");
        config.check().expect("rules that work");
        Rules::new(config)
    }

    #[test]
    fn a_rule_matches_if_everything_it_names_is_so() {
        let check = |fields: serde_json::Value, expected| {
            let mut fields = fields;
            fields["effect"] = "decline".into();
            let matched = rule(fields.clone()).matches(&request(Operation::Charge, 1_050));
            assert_eq!(matched, expected, "{fields}");
        };
        let (customer, product) = (Uuid::from_u128(2), Uuid::from_u128(3));
        check(serde_json::json!({}), true);
        check(serde_json::json!({"operation": "charge"}), true);
        check(serde_json::json!({"operation": "refund"}), false);
        check(
            serde_json::json!({"customer_id": customer, "product_id": product}),
            true,
        );
        check(
            serde_json::json!({"customer_id": customer, "product_id": customer}),
            false,
        );
        check(
            serde_json::json!({"amount_minor": 1_050, "currency": "EUR"}),
            true,
        );
        check(
            serde_json::json!({"amount_minor": 1_050, "currency": "USD"}),
            false,
        );
        check(
            serde_json::json!({"amount_minor_from": 1_050, "amount_minor_to": 1_050}),
            true,
        );
        check(serde_json::json!({"amount_minor_from": 1_051}), false);
        check(serde_json::json!({"amount_minor_to": 1_049}), false);
    }

    #[test]
    fn a_rule_that_cannot_work_names_its_keys() {
        let check = |fields: serde_json::Value, expected: &str| {
            let config = GatewayConfig {
                limit: MajorAmount::parse("1").expect("an amount"),
                rules: vec![rule(fields)],
            };
            let message = config.check().expect_err("a bad rule").to_string();
            assert!(message.starts_with("gateway.rules[0]: "), "{message}");
            assert!(message.contains(expected), "{message}");
        };
        check(serde_json::json!({"effect": "delay"}), "delay_ms");
        check(
            serde_json::json!({"effect": "error", "delay_ms": 1}),
            "delay_ms",
        );
        check(serde_json::json!({"effect": "error", "times": 0}), "times");
        check(
            serde_json::json!({"effect": "error", "currency": "EURO"}),
            "currency",
        );
        let range =
            serde_json::json!({"effect": "error", "amount_minor_from": 2, "amount_minor_to": 1});
        check(range, "amount_minor_to");
        let both =
            serde_json::json!({"effect": "error", "amount_minor_from": 2, "amount_minor": 1});
        check(both, "excludes");
    }

    #[test]
    fn times_counts_the_calls_of_one_order_and_operation() {
        let rules = rules(&serde_json::json!([{"effect": "error", "times": 2}]));
        let charge = request(Operation::Charge, 1);
        let effects = |request| [(); 3].map(|()| rules.treat(request, 0).effect);
        assert_eq!(
            effects(&charge),
            [Some(Effect::Error), Some(Effect::Error), None]
        );
        assert_eq!(
            rules.treat(&request(Operation::Refund, 1), 0).effect,
            Some(Effect::Error)
        );
        let other = GatewayRequest {
            order_id: Uuid::from_u128(9),
            ..charge
        };
        assert_eq!(rules.treat(&other, 0).effect, Some(Effect::Error));
        // Another process has seen it twice.
        let third = GatewayRequest {
            order_id: Uuid::from_u128(10),
            ..other
        };
        assert_eq!(rules.treat(&third, 2).effect, None);
    }

    #[test]
    fn delays_add_up_until_a_rule_decides() {
        let rules = rules(&serde_json::json!([
            {"effect": "delay", "delay_ms": 20},
            {"effect": "delay", "delay_ms": 30},
            {"effect": "decline", "message": "not today"},
            {"effect": "error"},
        ]));
        let expected = Treatment {
            delay: Duration::from_millis(50),
            effect: Some(Effect::Decline),
            message: Some("not today".to_owned()),
        };
        assert_eq!(rules.treat(&request(Operation::Charge, 1), 0), expected);
    }

    #[test]
    fn the_limit_is_for_charges_and_in_the_currency_s_own_digits() {
        let rules = rules(&serde_json::json!([]));
        let over = |operation, amount, currency: &str| {
            let request = GatewayRequest {
                currency: currency.to_owned(),
                ..request(operation, amount)
            };
            rules.over_limit(&request).is_some()
        };
        assert!(!over(Operation::Charge, 100_000, "EUR"));
        assert!(over(Operation::Charge, 100_001, "EUR"));
        assert!(over(Operation::Charge, 1_001, "JPY"));
        assert!(!over(Operation::Charge, 1_000_000, "KWD"));
        assert!(!over(Operation::Refund, 100_001, "EUR"));
    }
}

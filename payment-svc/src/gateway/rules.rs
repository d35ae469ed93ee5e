//! The rules by which the simulated gateway fails.

use super::{
    GatewayRequest,
    rule::{Effect, Rule},
};
use crate::domain::Operation;
use saga_contracts::money::MajorAmount;
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
    /// The limit. A larger charge is declined; the number is the same in every currency.
    pub limit: MajorAmount,
    /// The rules. The first rule that matches decides, except that after a delay the next rules are evaluated too.
    #[serde(default)]
    pub rules: Vec<Rule>,
}

/// The error for an invalid rule. It has the rule's index and names the keys.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("gateway.rules[{index}]: {why}")]
pub struct RuleError {
    index: usize,
    why: &'static str,
}

impl GatewayConfig {
    pub fn check(&self) -> Result<(), RuleError> {
        for (index, rule) in self.rules.iter().enumerate() {
            rule.check().map_err(|why| RuleError { index, why })?;
        }
        Ok(())
    }
}

/// The effect of the rules on a call.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Treatment {
    pub delay: Duration,
    pub effect: Option<Effect>,
    pub message: Option<String>,
}

/// The maximum number of entries in the count of calls. Beyond this number the count starts again, so that a simulation
/// that runs for months does not grow.
const COUNTED_MAX: usize = 100_000;

type Counted = (usize, Operation, Uuid);

/// The rules, with a count of the calls that they matched.
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

    /// Returns the reason if the request is above the limit.
    pub fn over_limit(&self, request: &GatewayRequest) -> Option<String> {
        let limit = self.config.limit;
        let over = request.operation == Operation::Charge
            && request.amount_minor > limit.minor(&request.currency);
        over.then(|| {
            format!(
                "the amount is above the limit of {limit} {}",
                request.currency
            )
        })
    }

    /// Returns true if a rule with `times` matches, so that the number of earlier calls matters.
    pub fn counts(&self, request: &GatewayRequest) -> bool {
        let rules = self.config.rules.iter();
        rules
            .filter(|rule| rule.times.is_some())
            .any(|rule| rule.matches(request))
    }

    /// Counts the call and returns the rules' effect on it. `failed` is the number of the order's calls that are known
    /// to have failed.
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
        // Another process has counted two calls.
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

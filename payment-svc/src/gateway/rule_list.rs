//! Deserializes a list of rules that may also be one text, because an environment variable cannot hold a list of
//! tables.

use super::rule::Rule;
use serde::{
    Deserialize, Deserializer,
    de::{Error, SeqAccess, Visitor},
};
use std::fmt;

/// The TOML document of a configuration file, with the list under this key.
#[derive(Deserialize)]
struct Document {
    rules: Vec<Rule>,
}

struct Rules;

impl<'de> Visitor<'de> for Rules {
    type Value = Vec<Rule>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rules")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Vec<Rule>, A::Error> {
        let mut rules = Vec::new();
        while let Some(rule) = items.next_element()? {
            rules.push(rule);
        }
        Ok(rules)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<Rule>, E> {
        if text.trim().is_empty() {
            return Ok(Vec::new());
        }
        toml::from_str::<Document>(&format!("rules = {text}"))
            .map(|document| document.rules)
            .map_err(|error| E::custom(format!("not a TOML list of rules: {}", error.message())))
    }
}

pub(super) fn deserialize<'de, D: Deserializer<'de>>(
    deserializer: D,
) -> Result<Vec<Rule>, D::Error> {
    deserializer.deserialize_any(Rules)
}

#[cfg(test)]
mod tests {
    use crate::gateway::{Effect, GatewayConfig};
    use serde_json::json;

    #[test]
    fn rules_are_read_from_a_list_or_its_text() {
        let text = r#"[{effect = "time_out", times = 1}, {effect = "decline"}]"#;
        let list = json!([{"effect": "time_out", "times": 1}, {"effect": "decline"}]);
        for rules in [json!(text), list] {
            let config: GatewayConfig =
                serde_json::from_value(json!({"limit": "1", "rules": rules})).expect("rules");
            let effects: Vec<Effect> = config.rules.iter().map(|rule| rule.effect).collect();
            assert_eq!(effects, [Effect::TimeOut, Effect::Decline]);
            assert_eq!(config.rules[0].times, Some(1));
        }
        let none: GatewayConfig =
            serde_json::from_value(json!({"limit": "1", "rules": ""})).expect("no rules");
        assert!(none.rules.is_empty());
    }

    #[test]
    fn a_text_that_is_no_list_of_rules_is_refused() {
        for text in [
            "[",
            "1",
            "[{effect = \"explode\"}]",
            "[{colour = \"red\", effect = \"error\"}]",
        ] {
            let config = json!({"limit": "1", "rules": text});
            assert!(
                serde_json::from_value::<GatewayConfig>(config).is_err(),
                "{text}"
            );
        }
    }
}

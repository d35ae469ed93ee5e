//! The values of `$name` in a description: given values, ids that are new in every scene, and captured values.

use serde_json::Value;
use std::collections::BTreeMap;
use thiserror::Error;

/// Minimum length of a text that is hidden. A shorter text is no id, and may occur anywhere by chance.
const HIDDEN_MIN_CHARS: usize = 8;

/// A `$name` without a value.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("${0} is not set; write $$ for a dollar sign that begins no name")]
pub struct Unset(pub String);

/// Values by name.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Names(BTreeMap<String, Value>);

impl Names {
    pub fn set(&mut self, name: impl Into<String>, value: impl Into<Value>) {
        self.0.insert(name.into(), value.into());
    }

    /// Returns `template` with every name replaced. A text that is only a name becomes the name's value, whatever its
    /// type.
    pub fn fill(&self, template: &Value) -> Result<Value, Unset> {
        Ok(match template {
            Value::String(text) => match whole_name(text) {
                Some(name) => self.value(name)?.clone(),
                None => Value::from(self.fill_text(text)?),
            },
            Value::Array(items) => items
                .iter()
                .map(|item| self.fill(item))
                .collect::<Result<_, _>>()?,
            Value::Object(fields) => fields
                .iter()
                .map(|(key, field)| Ok((key.clone(), self.fill(field)?)))
                .collect::<Result<_, Unset>>()?,
            Value::Null | Value::Bool(_) | Value::Number(_) => template.clone(),
        })
    }

    /// Returns `text` with every name replaced by its value, and every `$$` by a dollar sign.
    pub fn fill_text(&self, text: &str) -> Result<String, Unset> {
        let mut pieces = text.split('$');
        let mut filled = pieces.next().unwrap_or_default().to_owned();
        while let Some(piece) = pieces.next() {
            if piece.is_empty()
                && let Some(behind_dollar_sign) = pieces.next()
            {
                filled.push('$');
                filled.push_str(behind_dollar_sign);
                continue;
            }
            let end = piece.find(|c| !is_name_character(c)).unwrap_or(piece.len());
            let (name, rest) = piece.split_at(end);
            match self.value(name)? {
                Value::String(value) => filled.push_str(value),
                other @ (Value::Null
                | Value::Bool(_)
                | Value::Number(_)
                | Value::Array(_)
                | Value::Object(_)) => filled.push_str(&other.to_string()),
            }
            filled.push_str(rest);
        }
        Ok(filled)
    }

    /// Returns `seen` with every value of a name replaced by the name, so that two scenes can be compared.
    pub fn hide(&self, seen: &Value) -> Value {
        match seen {
            Value::String(text) => {
                let hidden = self.0.iter().fold(text.clone(), |text, (name, value)| {
                    match value
                        .as_str()
                        .filter(|value| value.len() >= HIDDEN_MIN_CHARS)
                    {
                        Some(value) => text.replace(value, &format!("${name}")),
                        None => text,
                    }
                });
                Value::from(hidden)
            }
            Value::Array(items) => items.iter().map(|item| self.hide(item)).collect(),
            Value::Object(fields) => fields
                .iter()
                .map(|(key, field)| (key.clone(), self.hide(field)))
                .collect(),
            Value::Null | Value::Bool(_) | Value::Number(_) => seen.clone(),
        }
    }

    fn value(&self, name: &str) -> Result<&Value, Unset> {
        self.0.get(name).ok_or_else(|| Unset(name.to_owned()))
    }
}

fn is_name_character(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

fn whole_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix('$')?;
    (!name.is_empty() && name.chars().all(is_name_character)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn names() -> Names {
        let mut names = Names::default();
        names.set("order", "o-1");
        names.set("amount", 1302);
        names.set("http", "http://127.0.0.1:1");
        names
    }

    #[test]
    fn a_name_alone_keeps_its_type_and_one_in_a_text_becomes_text() {
        let template = json!({"id": "$order", "lines": ["$amount"], "url": "$http/orders/$order?x=$amount", "n": 1});
        let expected = json!({"id": "o-1", "lines": [1302], "url": "http://127.0.0.1:1/orders/o-1?x=1302", "n": 1});
        assert_eq!(names().fill(&template), Ok(expected));
    }

    #[test]
    fn two_dollar_signs_are_one_that_begins_no_name() {
        let template = json!(["$$5 off", "$$HOME", "a$$", "$$$order", "$order$$x"]);
        let expected = json!(["$5 off", "$HOME", "a$", "$o-1", "o-1$x"]);
        assert_eq!(names().fill(&template), Ok(expected));
    }

    #[test]
    fn ids_are_hidden_at_every_position() {
        let mut names = names();
        names.set("saga", "0123456789");
        let seen = json!({"id": "0123456789", "key": "x/0123456789/1", "order": "o-1", "n": 7});
        let expected = json!({"id": "$saga", "key": "x/$saga/1", "order": "o-1", "n": 7});
        assert_eq!(names.hide(&seen), expected);
    }

    #[test]
    fn a_name_that_is_not_set_is_named() {
        assert_eq!(
            names().fill(&json!(["$order", "$customer"])),
            Err(Unset("customer".to_owned()))
        );
        assert_eq!(names().fill_text("a $b"), Err(Unset("b".to_owned())));
    }
}

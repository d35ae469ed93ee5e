//! The layers, merged into one tree whose values remember where they came from.

use super::{ConfigError, Layer};
use std::{collections::BTreeMap, ffi::OsString};

#[derive(Clone, Debug)]
pub(super) struct Node {
    pub layer: Layer,
    pub value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    /// From the environment: has no type of its own.
    Text(String),
    Boolean(bool),
    Integer(i64),
    Float(f64),
    String(String),
    Array(Vec<Node>),
    Table(BTreeMap<String, Node>),
}

/// Between the parts of a variable's name.
const SEPARATOR: &str = "__";

impl Node {
    pub fn empty(layer: Layer) -> Self {
        Self {
            layer,
            value: Value::Table(BTreeMap::new()),
        }
    }

    fn of(value: toml::Value, layer: &Layer) -> Self {
        let value = match value {
            toml::Value::String(text) => Value::String(text),
            toml::Value::Integer(number) => Value::Integer(number),
            toml::Value::Float(number) => Value::Float(number),
            toml::Value::Boolean(boolean) => Value::Boolean(boolean),
            toml::Value::Datetime(time) => Value::String(time.to_string()),
            toml::Value::Array(items) => Value::Array(
                items
                    .into_iter()
                    .map(|item| Self::of(item, layer))
                    .collect(),
            ),
            toml::Value::Table(table) => Value::Table(
                table
                    .into_iter()
                    .map(|(key, value)| (key, Self::of(value, layer)))
                    .collect(),
            ),
        };
        Self {
            layer: layer.clone(),
            value,
        }
    }

    /// `above` wins; tables are merged key by key, lists are replaced whole.
    pub fn merge(&mut self, above: Self) {
        match (&mut self.value, above.value) {
            (Value::Table(below), Value::Table(entries)) => {
                for (key, node) in entries {
                    match below.get_mut(&key) {
                        Some(existing) => existing.merge(node),
                        None => {
                            below.insert(key, node);
                        }
                    }
                }
            }
            (_, value) => {
                *self = Self {
                    layer: above.layer,
                    value,
                }
            }
        }
    }

    /// Puts the variable `<prefix>__A__B` to the key `a.b`.
    pub fn merge_variable(
        &mut self,
        prefix: &str,
        name: &str,
        text: String,
    ) -> Result<(), ConfigError> {
        let layer = Layer::Environment(name.to_owned());
        let malformed = || {
            ConfigError(format!(
                "{layer} names no key: expected {prefix}__KEY or {prefix}__SECTION__KEY"
            ))
        };
        let path = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix(SEPARATOR))
            .ok_or_else(malformed)?
            .to_lowercase();
        let keys: Vec<&str> = path.split(SEPARATOR).collect();
        if keys.iter().any(|key| key.is_empty()) {
            return Err(malformed());
        }
        let mut node = self;
        for (depth, key) in keys.iter().enumerate() {
            let Value::Table(entries) = &mut node.value else {
                let parent = keys
                    .iter()
                    .take(depth)
                    .copied()
                    .collect::<Vec<_>>()
                    .join(".");
                return Err(ConfigError(format!(
                    "{layer} sets {}, but {parent} is a value and not a section (set by {})",
                    keys.join("."),
                    node.layer
                )));
            };
            node = entries
                .entry((*key).to_owned())
                .or_insert_with(|| Self::empty(layer.clone()));
        }
        if let Value::Table(entries) = &node.value
            && !entries.is_empty()
        {
            return Err(ConfigError(format!(
                "{layer} sets {}, which is a section: name one of its keys, as in {name}__{}",
                keys.join("."),
                entries
                    .keys()
                    .next()
                    .map_or_else(String::new, |key| key.to_uppercase())
            )));
        }
        node.value = typed_like(&node.value, text, &layer);
        node.layer = layer;
        Ok(())
    }
}

/// The text as the type that the key has in a lower layer. Where that does not fit, or nothing is below, it stays text
/// and the field decides; this serves fields that ask the deserializer what there is (flattened and untagged), and lists
/// whose items are more than words, which are written as in TOML.
fn typed_like(below: &Value, text: String, layer: &Layer) -> Value {
    let typed = match below {
        Value::Boolean(_) => text.parse().ok().map(Value::Boolean),
        Value::Integer(_) => text.parse().ok().map(Value::Integer),
        Value::Float(_) => text.parse().ok().map(Value::Float),
        Value::Array(_) => list(&text, layer),
        Value::Text(_) | Value::String(_) | Value::Table(_) => None,
    };
    typed.unwrap_or(Value::Text(text))
}

/// `[{effect = "error"}]`
fn list(text: &str, layer: &Layer) -> Option<Value> {
    let document = text
        .trim_start()
        .starts_with('[')
        .then(|| format!("list = {text}"))?;
    let mut table: toml::Table = toml::from_str(&document).ok()?;
    Some(Node::of(table.remove("list")?, layer).value)
}

/// A TOML text as a tree. The message has the place but not the line: it may hold a secret.
pub(super) fn parse(text: &str, layer: &Layer) -> Result<Node, ConfigError> {
    let table: toml::Table = toml::from_str(text).map_err(|error: toml::de::Error| {
        let line = error.span().map_or_else(String::new, |span| {
            let before = text.get(..span.start).unwrap_or_default();
            format!(", line {}", before.matches('\n').count() + 1)
        });
        ConfigError(format!(
            "{layer} is not valid TOML{line}: {}",
            error.message()
        ))
    })?;
    Ok(Node::of(toml::Value::Table(table), layer))
}

/// The variables of a service in the order of their names.
pub(super) fn variables(
    prefix: &str,
    environment: &[(OsString, OsString)],
) -> Result<BTreeMap<String, String>, ConfigError> {
    let start = format!("{prefix}{SEPARATOR}");
    let ours = environment.iter().filter_map(|(name, value)| {
        let name = name.to_str().filter(|name| name.starts_with(&start))?;
        let value = value.to_str().map(str::to_owned).ok_or_else(|| {
            ConfigError(format!(
                "{} is not UTF-8",
                Layer::Environment(name.to_owned())
            ))
        });
        Some(value.map(|value| (name.to_owned(), value)))
    });
    ours.collect()
}

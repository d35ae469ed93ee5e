//! Deserializes the merged layers.
//!
//! A variable has no type. Its text is tried as text first, so that a password `111111` stays one. If its field refuses
//! the text, the text is tried as a number, a truth value or a list.

use super::{
    error::ConfigError,
    layers::{Layers, at},
};
use serde::{Serialize, de::DeserializeOwned};
use serde_path_to_error::{Segment, Track};
use toml::Value;

/// The reason why a configuration was refused.
struct Refusal {
    path: Vec<String>,
    reason: Reason,
}

enum Reason {
    Missing,
    /// The key is unknown; the text says which keys are known.
    Unknown(String),
    Invalid(String),
}

pub(super) fn deserialize<T: DeserializeOwned + Serialize>(
    layers: &Layers,
    prefix: &str,
) -> Result<T, ConfigError> {
    let config = try_readings(layers).and_then(|config| {
        check_removed(layers, &config)?;
        Ok(config)
    });
    config.map_err(|refusal| refusal.explain(layers, prefix))
}

/// Checks that a variable without a value neither names an unknown key nor brings back the default of a type, such as a
/// connection without TLS.
fn check_removed<T: DeserializeOwned + Serialize>(
    layers: &Layers,
    config: &T,
) -> Result<(), Refusal> {
    let shown = Value::try_from(config).ok();
    for path in layers.removed() {
        let with_text = layers.with(path, Value::from(""));
        if let Err(refusal) = try_readings::<T>(&with_text)
            && refusal.path == *path
        {
            let has_value = shown
                .as_ref()
                .is_some_and(|shown| at(shown, path).is_some());
            if has_value || matches!(refusal.reason, Reason::Unknown(_)) {
                return Err(refusal);
            }
        }
    }
    Ok(())
}

/// Deserializes the layers. A value that is refused is replaced by its other readings, until one of them is accepted.
fn try_readings<T: DeserializeOwned + Serialize>(layers: &Layers) -> Result<T, Refusal> {
    let refusal = match read(layers.root()) {
        Ok(config) => return Ok(config),
        Err(refusal) => refusal,
    };
    for value in layers.readings(&refusal.path) {
        match try_readings(&layers.with(&refusal.path, value)) {
            Err(next) if next.path == refusal.path => {}
            result => return result,
        }
    }
    Err(refusal)
}

fn read<T: DeserializeOwned + Serialize>(root: &Value) -> Result<T, Refusal> {
    let mut track = Track::new();
    let mut ignored = None;
    let tracked = serde_path_to_error::Deserializer::new(root.clone(), &mut track);
    let result = serde_ignored::deserialize(tracked, |path| {
        // The path of a section that may be left out has a question mark.
        ignored.get_or_insert_with(|| path.to_string().replace(".?", ""));
    });
    match (result, ignored) {
        (Ok(config), None) => match list_for_section(root, &config) {
            None => Ok(config),
            Some(path) => Err(Refusal {
                path,
                reason: Reason::Invalid(
                    "a list is given, but this is a section with keys".to_owned(),
                ),
            }),
        },
        (Ok(_), Some(key)) => Err(Refusal {
            path: key.split('.').map(str::to_owned).collect(),
            reason: Reason::Unknown(String::new()),
        }),
        (Err(error), _) => Err(Refusal::of(error.message(), &track.path())),
    }
}

/// Returns the first section that is given as a list. Serde would read the list's elements as the section's keys, in the
/// order of their declaration.
fn list_for_section<T: Serialize>(root: &Value, config: &T) -> Option<Vec<String>> {
    fn find(given: &Value, read: &Value) -> Option<Vec<String>> {
        match (given, read) {
            (Value::Array(_), Value::Table(_)) => Some(Vec::new()),
            (Value::Table(given), Value::Table(read)) => given.iter().find_map(|(key, given)| {
                let mut path = find(given, read.get(key)?)?;
                path.insert(0, key.clone());
                Some(path)
            }),
            (Value::Array(given), Value::Array(read)) => {
                let mut pairs = given.iter().zip(read).enumerate();
                pairs.find_map(|(index, (given, read))| {
                    let mut path = find(given, read)?;
                    path.insert(0, index.to_string());
                    Some(path)
                })
            }
            _ => None,
        }
    }
    find(root, &Value::try_from(config).ok()?)
}

impl Refusal {
    fn of(message: &str, path: &serde_path_to_error::Path) -> Self {
        let keys = path.iter().filter_map(|segment| match segment {
            Segment::Seq { index } => Some(index.to_string()),
            Segment::Map { key } => Some(key.clone()),
            Segment::Enum { variant } => Some(variant.clone()),
            Segment::Unknown => None,
        });
        let mut path: Vec<String> = keys.collect();
        let missing = message.strip_prefix("missing field `");
        let reason = if let Some(key) = missing.and_then(|rest| rest.strip_suffix('`')) {
            path.push(key.to_owned());
            Reason::Missing
        } else if message.starts_with("unknown field `") {
            let known = message.split_once("`, ").map(|(_, known)| known);
            Reason::Unknown(known.map_or_else(String::new, |known| format!("; {known}")))
        } else {
            Reason::Invalid(message.to_owned())
        };
        Self { path, reason }
    }

    /// Returns the message for the person who has to correct the configuration.
    fn explain(&self, layers: &Layers, prefix: &str) -> ConfigError {
        let key = self.path.join(".");
        let origin = layers.layer(&self.path);
        let origin = origin.map_or_else(String::new, |layer| format!(" (from {layer})"));
        ConfigError(match &self.reason {
            Reason::Missing => match layers.removed_by(&self.path) {
                Some(layer) => format!("{key} is not set: {layer} is empty"),
                None => format!(
                    "{key} is not set: give it in a configuration file, or as {prefix}__{}",
                    self.path.join("__").to_uppercase()
                ),
            },
            Reason::Unknown(known) => format!("{key} is not a known key{origin}{known}"),
            Reason::Invalid(message) => format!("{key}: {message}{origin}"),
        })
    }
}

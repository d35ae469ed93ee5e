//! Merges the layers into one TOML table, and remembers the layer that set each key.

use super::error::ConfigError;
use std::{collections::BTreeMap, ffi::OsString, fmt, path::PathBuf};
use toml::{Table, Value};

/// A source of values.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Layer {
    /// The service's embedded defaults.
    Defaults,
    File(PathBuf),
    /// The variable's name.
    Environment(String),
    /// Set by the command line, the standalone mode or a test.
    Overrides,
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Defaults => f.write_str("the embedded defaults"),
            Self::File(path) => write!(f, "the file {}", path.display()),
            Self::Environment(name) => write!(f, "the environment variable {name}"),
            Self::Overrides => f.write_str("the command line"),
        }
    }
}

/// The separator between the parts of a variable's name.
const SEPARATOR: &str = "__";

/// The merged layers. A path has the keys and indexes that lead to a value, outermost first.
#[derive(Clone)]
pub(super) struct Layers {
    root: Value,
    set_by: BTreeMap<Vec<String>, Layer>,
}

impl Layers {
    pub fn new() -> Self {
        Self {
            root: Value::Table(Table::new()),
            set_by: BTreeMap::new(),
        }
    }

    pub fn root(&self) -> &Value {
        &self.root
    }

    /// Merges a TOML text, which wins: tables are merged key by key, lists are replaced whole. The error names the
    /// line's number but does not quote the line, which may hold a secret.
    pub fn merge(&mut self, text: &str, layer: &Layer) -> Result<(), ConfigError> {
        let table: Table = toml::from_str(text).map_err(|error: toml::de::Error| {
            let line = error.span().map_or_else(String::new, |span| {
                let before = text.get(..span.start).unwrap_or_default();
                format!(", line {}", before.matches('\n').count() + 1)
            });
            let message = error.message();
            ConfigError(format!("{layer} is not valid TOML{line}: {message}"))
        })?;
        self.put(&mut Vec::new(), Value::Table(table), layer);
        Ok(())
    }

    fn put(&mut self, path: &mut Vec<String>, value: Value, layer: &Layer) {
        self.set_by.insert(path.clone(), layer.clone());
        let Value::Table(table) = value else {
            self.set(path, value);
            return;
        };
        if self.get(path).is_none_or(|below| !below.is_table()) {
            self.set(path, Value::Table(Table::new()));
        }
        for (key, value) in table {
            path.push(key);
            self.put(path, value, layer);
            path.pop();
        }
    }

    /// Sets the key `a.b` to the text of the variable `<prefix>__A__B`. A container's environment sets a variable
    /// without a value to the empty string: such a variable removes the key.
    pub fn put_variable(
        &mut self,
        prefix: &str,
        name: &str,
        text: String,
    ) -> Result<(), ConfigError> {
        let layer = Layer::Environment(name.to_owned());
        let keys = name
            .strip_prefix(prefix)
            .and_then(|rest| rest.strip_prefix(SEPARATOR))
            .unwrap_or_default()
            .to_lowercase();
        let path: Vec<String> = keys.split(SEPARATOR).map(str::to_owned).collect();
        if path.iter().any(String::is_empty) {
            return Err(ConfigError(format!(
                "{layer} names no key: expected {prefix}__KEY or {prefix}__SECTION__KEY"
            )));
        }
        let key = path.join(".");
        for length in 1..path.len() {
            let parent = &path[..length];
            match self.get(parent) {
                Some(value) if !value.is_table() => {
                    let set_by = self.layer(parent).unwrap_or(&layer);
                    return Err(ConfigError(format!(
                        "{layer} sets {key}, but {} is a value and not a section (set by {set_by})",
                        parent.join(".")
                    )));
                }
                Some(_) => {}
                None => self.set(parent, Value::Table(Table::new())),
            }
        }
        let section = self.get(&path).and_then(Value::as_table);
        if let Some(first) = section.and_then(|section| section.keys().next()) {
            return Err(ConfigError(format!(
                "{layer} sets {key}, which is a section: name one of its keys, as in {name}__{}",
                first.to_uppercase()
            )));
        }
        if text.is_empty() {
            self.remove(&path);
        } else {
            self.set(&path, Value::String(text));
        }
        self.set_by.insert(path, layer);
        Ok(())
    }

    /// Returns the layer that set the value at `path`, or the list or section that holds it.
    pub fn layer(&self, path: &[String]) -> Option<&Layer> {
        let mut lengths = (1..=path.len()).rev();
        lengths.find_map(|length| self.set_by.get(&path[..length]))
    }

    /// Returns the variable without a value that removed `path`.
    pub fn removed_by(&self, path: &[String]) -> Option<&Layer> {
        let removed = self.get(path).is_none();
        self.set_by.get(path).filter(|_| removed)
    }

    /// Returns the paths that variables without a value removed.
    pub fn removed(&self) -> impl Iterator<Item = &Vec<String>> {
        let paths = self.set_by.keys();
        paths.filter(|path| self.removed_by(path).is_some())
    }

    /// Returns the other values that the text of a variable may mean, in the order in which to try them.
    pub fn readings(&self, path: &[String]) -> Vec<Value> {
        if !matches!(self.layer(path), Some(Layer::Environment(_))) {
            return Vec::new();
        }
        let value = self.get(path);
        let text = match value {
            Some(value) => value.as_str(),
            None => self.removed_by(path).map(|_| ""),
        };
        let Some(text) = text.map(str::trim) else {
            return Vec::new();
        };
        let empty = value.is_none().then(|| Value::from(""));
        let scalar = text.parse::<i64>().map(Value::from);
        let scalar = scalar.or_else(|_| text.parse::<f64>().map(Value::from));
        let scalar = scalar.or_else(|_| text.parse::<bool>().map(Value::from));
        empty
            .into_iter()
            .chain(scalar)
            .chain([list(text)])
            .collect()
    }

    /// Returns a copy with another value at `path`.
    pub fn with(&self, path: &[String], value: Value) -> Self {
        let mut changed = self.clone();
        changed.set(path, value);
        changed
    }

    fn get(&self, path: &[String]) -> Option<&Value> {
        at(&self.root, path)
    }

    fn set(&mut self, path: &[String], value: Value) {
        let place = path.iter().try_fold(&mut self.root, |value, key| {
            if value.is_array() {
                value.get_mut(key.parse::<usize>().ok()?)
            } else {
                let entry = value.as_table_mut()?.entry(key.as_str());
                Some(entry.or_insert_with(|| Value::from("")))
            }
        });
        if let Some(place) = place {
            *place = value;
        }
    }

    fn remove(&mut self, path: &[String]) {
        if let Some((key, parent)) = path.split_last()
            && let Some(Value::Table(mut table)) = self.get(parent).cloned()
        {
            table.remove(key);
            self.set(parent, Value::Table(table));
        }
    }
}

/// Returns the value at `path` below `root`.
pub(super) fn at<'a>(root: &'a Value, path: &[String]) -> Option<&'a Value> {
    path.iter().try_fold(root, |value, key| {
        match (value.as_array(), key.parse::<usize>()) {
            (Some(items), Ok(index)) => items.get(index),
            (Some(_) | None, _) => value.get(key),
        }
    })
}

/// Returns the list that a text means: a TOML list, such as `[{effect = "error"}]`, or words separated by commas.
fn list(text: &str) -> Value {
    if text.starts_with('[')
        && let Ok(mut table) = toml::from_str::<Table>(&format!("list = {text}"))
        && let Some(list) = table.remove("list")
    {
        return list;
    }
    let words = text.split(',').map(str::trim);
    Value::Array(
        words
            .filter(|word| !word.is_empty())
            .map(Value::from)
            .collect(),
    )
}

/// Returns the variables of a service, sorted by name.
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

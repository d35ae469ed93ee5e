//! Layered configuration: defaults in an embedded file, then files, then the environment, then the command line.
//!
//! ```text
//!  S::DEFAULTS ─▶ <data-dir>/config/<name>.toml ─▶ --config FILE ─▶ <NAME>__SECTION__KEY ─▶ overrides
//!        └──────────────── one tree, every value remembers its layer ────────────────┘
//!                                            │
//!                                 S::Config ─▶ ServiceConfig::check
//! ```
//!
//! The tree deserializes with a deserializer of its own (see [`de`]), for two reasons: an environment variable has no
//! type, so the field that it fills decides how it is read; and every refusal can name the key *and* the layer that
//! it came from, which is what the person who has to correct it needs.

mod de;
mod layer;
mod tree;

use serde::{Deserialize, Serialize};
use std::{ffi::OsString, fmt, fs, path::Path};
use thiserror::Error;

pub use layer::Layer;

#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("{0}")]
pub struct ConfigError(pub String);

impl ConfigError {
    pub fn new(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

/// A value that is never printed or logged; serializes as `***`.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("***")
    }
}

impl Serialize for Secret {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str("***")
    }
}

/// Loads `S`'s configuration: `S::DEFAULTS`, then `file`, then variables `<NAME>__SECTION__KEY` (such as
/// `ORDER_SVC__POSTGRES__URL`), then `overrides` (a TOML text; the standalone mode and tests use it).
pub fn load<S: crate::Service>(
    file: Option<&Path>,
    overrides: Option<&str>,
) -> Result<S::Config, ConfigError> {
    load_from::<S>(&Sources {
        files: file.into_iter().collect(),
        environment: std::env::vars_os().collect(),
        overrides,
    })
}

/// Where configuration comes from, weakest first.
#[derive(Default)]
pub struct Sources<'a> {
    pub files: Vec<&'a Path>,
    /// All variables; those without the service's prefix are left alone.
    pub environment: Vec<(OsString, OsString)>,
    /// TOML.
    pub overrides: Option<&'a str>,
}

/// As [`load`], from given sources.
pub fn load_from<S: crate::Service>(sources: &Sources<'_>) -> Result<S::Config, ConfigError> {
    let prefix = environment_prefix(S::NAME);
    let mut tree = tree::Node::empty(Layer::Defaults);
    tree.merge(tree::parse(S::DEFAULTS, &Layer::Defaults)?);
    for path in &sources.files {
        let layer = Layer::File(path.to_path_buf());
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{layer} cannot be read: {error}")))?;
        tree.merge(tree::parse(&text, &layer)?);
    }
    for (name, value) in tree::variables(&prefix, &sources.environment)? {
        tree.merge_variable(&prefix, &name, value)?;
    }
    if let Some(text) = sources.overrides {
        tree.merge(tree::parse(text, &Layer::Overrides)?);
    }
    let config = de::deserialize::<S::Config>(&tree)
        .map_err(|refusal| ConfigError(refusal.explain(&prefix)))?;
    crate::ServiceConfig::check(&config)?;
    Ok(config)
}

/// `ORDER_SVC` of `order-svc`: what its environment variables begin with.
pub fn environment_prefix(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// `config` as TOML, for `--print-config`; secrets are masked by their types.
pub fn to_toml<C: Serialize>(config: &C) -> Result<String, ConfigError> {
    let value = toml::Table::try_from(config)
        .map_err(|error| ConfigError(format!("the configuration cannot be shown: {error}")))?;
    toml::to_string(&value)
        .map_err(|error| ConfigError(format!("the configuration cannot be shown: {error}")))
}

/// Serializes a URL with its password masked.
pub fn masked_url<S: serde::Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mask_url(url.expose()))
}

/// `postgres://role:***@host/db` of `postgres://role:secret@host/db?password=secret`.
pub fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (base, query) = match rest.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (rest, None),
    };
    let base = match base.rsplit_once('@') {
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => base.to_owned(),
        },
        None => base.to_owned(),
    };
    let query = query.map_or_else(String::new, |query| {
        let masked: Vec<String> = query.split('&').map(mask_parameter).collect();
        format!("?{}", masked.join("&"))
    });
    format!("{scheme}://{base}{query}")
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("password") => format!("{name}=***"),
        Some(_) | None => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests;

//! Layered configuration: defaults in an embedded file, then files, then the environment, then the command line.
//!
//! ```text
//!  S::DEFAULTS ─▶ <data-dir>/config/<name>.toml ─▶ --config FILE ─▶ <NAME>__SECTION__KEY ─▶ overrides
//!        └─────────────── one table that knows the layer of each key ────────────────┘
//!                                            │
//!                                 S::Config ─▶ ServiceConfig::check
//! ```
//!
//! An environment variable has no type, so the type of its field decides how the text is parsed (see [`read`]). Every
//! refusal names the key *and* the layer that the value came from, so that the reader knows where to correct it. The
//! crate `config` keeps neither promise: it turns `3.7` into the integer 4 and `true` into 1.

mod error;
mod layers;
mod read;

pub use error::ConfigError;

use layers::{Layer, Layers};
use serde::Serialize;
use std::{ffi::OsString, fs, path::Path};

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

/// The sources of a configuration, the weakest first.
#[derive(Default)]
pub struct Sources<'a> {
    pub files: Vec<&'a Path>,
    /// All environment variables. Variables without the service's prefix are ignored.
    pub environment: Vec<(OsString, OsString)>,
    /// A TOML text.
    pub overrides: Option<&'a str>,
}

/// Loads `S`'s configuration like [`load`], but from the given sources.
pub fn load_from<S: crate::Service>(sources: &Sources<'_>) -> Result<S::Config, ConfigError> {
    let prefix = environment_prefix(S::NAME);
    let mut layers = Layers::new();
    layers.merge(S::DEFAULTS, &Layer::Defaults)?;
    for path in &sources.files {
        let layer = Layer::File(path.to_path_buf());
        let text = fs::read_to_string(path)
            .map_err(|error| ConfigError(format!("{layer} cannot be read: {error}")))?;
        layers.merge(&text, &layer)?;
    }
    for (name, text) in layers::variables(&prefix, &sources.environment)? {
        layers.put_variable(&prefix, &name, text)?;
    }
    if let Some(text) = sources.overrides {
        layers.merge(text, &Layer::Overrides)?;
    }
    let config: S::Config = read::deserialize(&layers, &prefix)?;
    crate::ServiceConfig::http(&config).check()?;
    crate::ServiceConfig::check(&config)?;
    Ok(config)
}

/// Returns the prefix of a service's environment variables: `ORDER_SVC` for `order-svc`.
pub fn environment_prefix(name: &str) -> String {
    name.to_uppercase().replace('-', "_")
}

/// Returns `config` as TOML, for `--print-config`. Secrets are masked by their types.
pub fn to_toml<C: Serialize>(config: &C) -> Result<String, ConfigError> {
    let value = toml::Table::try_from(config)
        .map_err(|error| ConfigError(format!("the configuration cannot be shown: {error}")))?;
    toml::to_string(&value)
        .map_err(|error| ConfigError(format!("the configuration cannot be shown: {error}")))
}

#[cfg(test)]
mod tests;

//! Where a value came from.

use std::{fmt, path::PathBuf};

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Layer {
    /// The service's embedded defaults.
    Defaults,
    File(PathBuf),
    /// The variable's name.
    Environment(String),
    /// The command line, the standalone mode or a test.
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

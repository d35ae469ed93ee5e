//! The error of a definition that is refused.

use std::fmt;
use thiserror::Error;

/// Says why a definition is refused (file, line and step), and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub struct DefinitionError {
    pub file: String,
    /// Counted from 1; `None` if the error has no place in the text.
    pub line: Option<usize>,
    pub step: Option<String>,
    pub message: String,
}

impl fmt::Display for DefinitionError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.file)?;
        if let Some(line) = self.line {
            write!(f, ":{line}")?;
        }
        if let Some(step) = &self.step {
            write!(f, ": step '{step}'")?;
        }
        write!(f, ": {}", self.message)
    }
}

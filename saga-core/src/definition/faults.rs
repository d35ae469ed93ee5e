//! The list of faults that were found in one definition file.

use super::error::DefinitionError;

/// The faults found so far in one file.
#[derive(Debug)]
pub(super) struct Faults {
    file: String,
    found: Vec<DefinitionError>,
}

impl Faults {
    /// Returns an empty list of faults.
    pub fn new(file: String) -> Self {
        Self {
            file,
            found: Vec::new(),
        }
    }

    /// Adds a fault, with its line in the file and its step where they are known.
    pub fn add(&mut self, line: Option<usize>, step: Option<&str>, message: impl Into<String>) {
        self.found.push(DefinitionError {
            file: self.file.clone(),
            line,
            step: step.map(str::to_owned),
            message: message.into(),
        });
    }

    /// Returns the faults as an error, ordered by line, if there are any.
    pub fn into_result(mut self) -> Result<(), Vec<DefinitionError>> {
        if self.found.is_empty() {
            return Ok(());
        }
        self.found.sort_by_key(|fault| fault.line);
        Err(self.found)
    }
}

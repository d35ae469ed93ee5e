//! A command to send, and a reply that was received.

use saga_core::message::{Direction, IncomingRecord, header};
use serde_json::Value;
use std::fmt;

/// The step that a case uses.
pub const STEP: &str = "conformance-step";
/// Number of characters of a payload that are shown to people.
const SHOWN_CHARS: usize = 300;

/// The input of a command, as one of the description's examples or as a value.
#[derive(Clone, Debug)]
pub enum Input {
    Succeeds,
    Fails,
    Errors,
    CompensationFails,
    This(Value),
}

/// A command to send.
#[derive(Clone, Debug)]
pub struct Ask {
    pub direction: Direction,
    pub attempt: u32,
    pub input: Input,
    pub save_failure: bool,
    pub step: String,
    /// The type to send instead of the description's.
    pub command_type: Option<String>,
    /// The partition to ask replies for, instead of the saga's home partition.
    pub reply_partition: Option<i32>,
    /// Headers that differ: another value, or `None` to leave the header out.
    pub headers: Vec<(&'static str, Option<String>)>,
    /// The bytes to send instead of the input, or `Some(None)` to send no value at all.
    pub value: Option<Option<Vec<u8>>>,
}

impl Ask {
    fn new(direction: Direction, attempt: u32) -> Self {
        Self {
            direction,
            attempt,
            input: Input::Succeeds,
            save_failure: true,
            step: STEP.to_owned(),
            command_type: None,
            reply_partition: None,
            headers: Vec::new(),
            value: None,
        }
    }

    pub fn action(attempt: u32) -> Self {
        Self::new(Direction::Forward, attempt)
    }

    pub fn compensation(attempt: u32) -> Self {
        Self::new(Direction::Compensation, attempt)
    }

    pub fn resolve(attempt: u32) -> Self {
        Self::new(Direction::Resolve, attempt)
    }

    #[must_use]
    pub fn with(mut self, input: Input) -> Self {
        self.input = input;
        self
    }

    /// Sends the command like one of a retriable step: its failure is not final.
    #[must_use]
    pub fn unsaved(mut self) -> Self {
        self.save_failure = false;
        self
    }

    #[must_use]
    pub fn in_step(mut self, step: &str) -> Self {
        step.clone_into(&mut self.step);
        self
    }

    #[must_use]
    pub fn of_type(mut self, command_type: impl Into<String>) -> Self {
        self.command_type = Some(command_type.into());
        self
    }

    #[must_use]
    pub fn header(mut self, name: &'static str, value: Option<&str>) -> Self {
        self.headers.push((name, value.map(str::to_owned)));
        self
    }

    #[must_use]
    pub fn value(mut self, value: Option<&[u8]>) -> Self {
        self.value = Some(value.map(<[u8]>::to_vec));
        self
    }
}

/// A reply that was received. It is read as leniently as possible, because the cases judge what is wrong with it.
#[derive(Clone, Debug, PartialEq)]
pub struct Heard(pub IncomingRecord);

impl Heard {
    pub fn header(&self, name: &str) -> Option<String> {
        let value = self.0.headers.get(name)?;
        Some(String::from_utf8_lossy(value).into_owned())
    }

    pub fn outcome(&self) -> String {
        self.header(header::OUTCOME).unwrap_or_default()
    }

    pub fn payload(&self) -> Value {
        let bytes = self.0.payload.as_deref().unwrap_or_default();
        serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::from(String::from_utf8_lossy(bytes)))
    }
}

impl fmt::Display for Heard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let header = |name| self.header(name).unwrap_or_else(|| "-".to_owned());
        write!(
            f,
            "{} {} {} attempt {} {}",
            header(header::OUTCOME),
            header(header::CE_TYPE),
            header(header::DIRECTION),
            header(header::ATTEMPT),
            shown(&self.payload().to_string())
        )
    }
}

pub fn shown(text: &str) -> String {
    let mut cut: String = text.chars().take(SHOWN_CHARS).collect();
    if cut.len() < text.len() {
        cut.push('…');
    }
    cut
}

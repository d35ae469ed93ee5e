//! The output of commands: text for people, one JSON document for programs.

use crate::failure::Failure;
use clap::ValueEnum;
use serde::{
    Deserialize, Deserializer, Serialize, Serializer, de::DeserializeOwned, de::Error as _,
};
use serde_json::Value;
use std::{
    fmt::{self, Display},
    io::{self, Write},
};

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    #[default]
    Human,
    Json,
}

/// Writes answers to the standard output, and everything else to the standard error.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    format: Format,
}

impl Output {
    pub fn new(format: Format) -> Self {
        Self { format }
    }

    pub fn format(self) -> Format {
        self.format
    }

    /// Prints the answer of a command.
    pub fn show(self, answer: &(impl Serialize + Display)) {
        let text = match self.format {
            Format::Human => answer.to_string(),
            Format::Json => json(answer),
        };
        write(&mut io::stdout(), text.trim_end());
    }

    /// Prints progress and remarks for people. With JSON output, only the answer is printed.
    pub fn note(self, text: &str) {
        if self.format == Format::Human {
            write(&mut io::stderr(), text);
        }
    }

    /// Prints a failure, and with JSON output also a problem document as the answer.
    pub fn fail(self, failure: &Failure) {
        write(&mut io::stderr(), &format!("sagactl: {failure}"));
        if self.format == Format::Json {
            write(&mut io::stdout(), &json(&failure.problem()));
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| "null".to_owned())
}

/// Writes a line. A reader that closed the pipe (`sagactl … | head`) is not a failure.
fn write(to: &mut impl Write, text: &str) {
    let _reader_gone = writeln!(to, "{text}");
}

/// An answer of the API. Programs get the unchanged JSON, people the fields that sagactl knows.
#[derive(Clone, Debug, PartialEq)]
pub struct Document<T> {
    pub raw: Value,
    pub known: T,
}

impl<'de, T: DeserializeOwned> Deserialize<'de> for Document<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw = Value::deserialize(deserializer)?;
        let known = T::deserialize(&raw).map_err(D::Error::custom)?;
        Ok(Self { raw, known })
    }
}

impl<T> Serialize for Document<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw.serialize(serializer)
    }
}

impl<T: Display> Display for Document<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.known.fmt(f)
    }
}

/// Writes rows in columns as wide as their widest cell. The last column is not padded.
pub fn table(f: &mut fmt::Formatter<'_>, rows: &[Vec<String>]) -> fmt::Result {
    let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
    let width = |column: usize| {
        let cells = rows.iter().filter_map(|row| row.get(column));
        cells
            .map(|cell| cell.chars().count())
            .max()
            .unwrap_or_default()
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    for row in rows {
        let cells = row.iter().zip(&widths);
        let line: Vec<String> = cells
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        writeln!(f, "{}", line.join("  ").trim_end())?;
    }
    Ok(())
}

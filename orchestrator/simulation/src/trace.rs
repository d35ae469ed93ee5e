//! The trace: all events of a run in order. It is always hashed, to compare runs, and kept as text on request.

use super::random::mix;
use std::{fmt, time::Duration};

/// The trace of a run: a hash, a count, and on request the lines.
#[derive(Debug, Default)]
pub struct Trace {
    hash: u64,
    count: u64,
    lines: Option<Vec<String>>,
}

struct Hasher<'a>(&'a mut u64);

impl fmt::Write for Hasher<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for chunk in text.as_bytes().chunks(8) {
            let mut word = [0; 8];
            word[..chunk.len()].copy_from_slice(chunk);
            *self.0 = mix(*self.0 ^ u64::from_le_bytes(word));
        }
        Ok(())
    }
}

impl Trace {
    pub fn kept() -> Self {
        Self {
            lines: Some(Vec::new()),
            ..Self::default()
        }
    }

    pub fn note(&mut self, at: Duration, who: &str, what: fmt::Arguments<'_>) {
        self.count += 1;
        self.hash = mix(self.hash ^ at.as_millis() as u64);
        // Writing to a hash cannot fail.
        let written = fmt::write(&mut Hasher(&mut self.hash), format_args!("{who} {what}"));
        debug_assert!(written.is_ok());
        if let Some(lines) = &mut self.lines {
            lines.push(format!("{:>11.3} {who}: {what}", at.as_secs_f64()));
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash
    }

    pub fn count(&self) -> u64 {
        self.count
    }

    pub fn into_lines(self) -> Vec<String> {
        self.lines.unwrap_or_default()
    }
}

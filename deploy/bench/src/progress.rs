//! Progress messages for the person who waits, on standard error.

use std::io::{self, IsTerminal, Write};

/// Prints a line that stays.
pub fn say(text: &str) {
    update("");
    // A closed standard error is no reason to end.
    drop(writeln!(io::stderr(), "{text}"));
}

/// Prints a line that the next one replaces. Prints nothing if standard error is not a terminal.
pub fn update(text: &str) {
    if io::stderr().is_terminal() {
        drop(write!(io::stderr(), "\r\x1b[K{text}"));
    }
}

//! What a person who waits is shown, on standard error.

use std::io::{self, IsTerminal, Write};

/// A line that stays.
pub fn say(text: &str) {
    let clear = if io::stderr().is_terminal() {
        "\r\x1b[K"
    } else {
        ""
    };
    // A reader that has gone away is no reason to end.
    drop(writeln!(io::stderr(), "{clear}{text}"));
}

/// A line that the next one replaces; nothing where there is no terminal.
pub fn update(text: &str) {
    if io::stderr().is_terminal() {
        drop(write!(io::stderr(), "\r\x1b[K{text}"));
    }
}

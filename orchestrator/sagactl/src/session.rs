//! The session that a command runs in, and its conclusion.

use crate::{client::Client, output::Output};

/// The client and the output, which every subject uses.
#[derive(Debug)]
pub struct Session {
    pub client: Client,
    pub output: Output,
}

/// The result of a command that was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Conclusion {
    Good,
    /// The command found, and has printed, something that is wrong.
    Negative,
}

//! Reads what a command carries.

use saga_core::message::Command;
use serde::Deserialize;

/// Of what is said about a payload that cannot be read: it may quote a part of it.
const MESSAGE_MAX_CHARS: usize = 300;

/// The payload of `command`, or what is wrong with it, for a [`Fault`](saga_core::message::Fault).
pub fn read_payload<'a, T: Deserialize<'a>>(command: &'a Command) -> Result<T, String> {
    T::deserialize(&command.payload)
        .map_err(|error| error.to_string().chars().take(MESSAGE_MAX_CHARS).collect())
}

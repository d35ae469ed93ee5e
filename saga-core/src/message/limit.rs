/// Bytes of a record that are reserved for its headers and framing.
const OVERHEAD_BYTES: usize = 8 * 1024;

/// The largest payload that the broker accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PayloadLimit {
    bytes: usize,
}

impl PayloadLimit {
    pub const NONE: Self = Self::of_bytes(usize::MAX);

    pub const fn of_bytes(bytes: usize) -> Self {
        Self { bytes }
    }

    /// Returns the limit of a broker that accepts records of up to this size.
    pub const fn of_message(message_limit_bytes: usize) -> Self {
        Self::of_bytes(message_limit_bytes.saturating_sub(OVERHEAD_BYTES))
    }

    pub const fn fits(self, payload_bytes: usize) -> bool {
        payload_bytes <= self.bytes
    }
}

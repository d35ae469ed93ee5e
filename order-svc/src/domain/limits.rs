//! Every limit a caller can reach, in one place. They are part of the API's documentation.

/// Lines of one order. Each is a row to lock for inventory-svc, and all of them travel in one message.
pub const MAX_ITEMS: usize = 100;
/// Pieces of one product in one order.
pub const MAX_QUANTITY: u32 = 1_000_000;
/// An order's total, minor units: far from where 64-bit sums overflow, far above any real order.
pub const MAX_TOTAL_MINOR: i64 = 1_000_000_000_000;
/// Characters of an amount as it is written.
pub const MAX_AMOUNT_CHARS: usize = 32;
/// Characters of an `Idempotency-Key`.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;
/// Hours for which an `Idempotency-Key` is remembered.
pub const IDEMPOTENCY_HOURS: i64 = 24;
/// Longest `Prefer: wait`, seconds; a longer wish is shortened to it.
pub const MAX_WAIT_SECONDS: u64 = 30;
/// Characters of the reason of a cancellation.
pub const MAX_REASON_CHARS: usize = 500;
/// Orders of one page.
pub const MAX_PAGE: u32 = 100;
/// Orders of a page if nothing is said.
pub const DEFAULT_PAGE: u32 = 20;
/// Wrong fields that one answer names; more would only make the answer long.
pub const MAX_FIELD_ERRORS: usize = 20;

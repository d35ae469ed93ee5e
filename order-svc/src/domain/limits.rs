//! All limits of the API, in one place. They are part of the API's documentation.

/// The maximum number of lines in an order. Each line is a row to lock for inventory-svc, and all lines are sent in one
/// message.
pub const MAX_ITEMS: usize = 100;
/// The maximum quantity of one product in an order.
pub const MAX_QUANTITY: u32 = 1_000_000;
/// The maximum total of an order, minor units.
pub const MAX_TOTAL_MINOR: i64 = saga_contracts::money::MAX_AMOUNT_MINOR;
/// The maximum length of an `Idempotency-Key`, characters.
pub const MAX_IDEMPOTENCY_KEY_CHARS: usize = 255;
/// The time for which an `Idempotency-Key` is stored, hours.
pub const IDEMPOTENCY_HOURS: i64 = 24;
/// The maximum of `Prefer: wait`, seconds; longer waits are cut to this.
pub const MAX_WAIT_SECONDS: u64 = 30;
/// The maximum length of a cancellation's reason, characters.
pub const MAX_REASON_CHARS: usize = 500;
/// The maximum number of orders on a page.
pub const MAX_PAGE: u32 = 100;
/// The number of orders on a page if the request gives no limit.
pub const DEFAULT_PAGE: u32 = 20;
/// The maximum number of wrong fields that an answer names. More would only make the answer long.
pub const MAX_FIELD_ERRORS: usize = 20;

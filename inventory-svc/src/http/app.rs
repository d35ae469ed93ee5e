//! The state of the HTTP API.

use sqlx::PgPool;

/// The state that the endpoints share.
pub struct App {
    /// The pool with fixed plans, for single rows.
    pub pool: PgPool,
    /// The pool with the planner's default settings, for listings.
    pub reporting: PgPool,
}

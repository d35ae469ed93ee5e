//! The HTTP API: one file an endpoint.

mod get_payment;
mod list_payments;
mod view;

use sqlx::PgPool;
use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// What the endpoints share.
pub struct App {
    /// Certain plans, for single rows.
    pub pool: PgPool,
    /// Free plans, for listings.
    pub reporting: PgPool,
}

/// All endpoints with their OpenAPI.
pub fn router(app: Arc<App>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_payments::list_payments))
        .routes(routes!(get_payment::get_payment))
        .with_state(app)
}

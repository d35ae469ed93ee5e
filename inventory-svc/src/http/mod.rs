//! The HTTP API: one file an endpoint.

mod get_reservations;
mod get_stock;
mod list_stock;
mod put_stock;
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
        .routes(routes!(list_stock::list_stock))
        .routes(routes!(get_stock::get_stock, put_stock::put_stock))
        .routes(routes!(get_reservations::get_reservations))
        .with_state(app)
}

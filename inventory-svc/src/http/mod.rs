//! The HTTP API: one file per endpoint.

mod app;
mod get_reservations;
mod get_stock;
mod list_stock;
mod put_stock;
mod view;

pub use app::App;

use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Returns all endpoints with their OpenAPI document.
pub fn router(app: Arc<App>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_stock::list_stock))
        .routes(routes!(get_stock::get_stock, put_stock::put_stock))
        .routes(routes!(get_reservations::get_reservations))
        .with_state(app)
}

//! The HTTP API: one file per endpoint, with its errors and its tests.

pub mod answer;
mod app;
pub mod body;
pub mod cancel_order;
pub mod cursor;
pub mod get_order;
pub mod headers;
pub mod list_orders;
pub mod order_events;
pub mod order_request;
pub mod place_order;

pub use app::App;

use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Returns all endpoints with their OpenAPI document.
pub fn router(app: Arc<App>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(place_order::place_order, list_orders::list_orders))
        .routes(routes!(get_order::get_order))
        .routes(routes!(order_events::order_events))
        .routes(routes!(cancel_order::cancel_order))
        .with_state(app)
}

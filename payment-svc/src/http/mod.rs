//! The HTTP API: one file per endpoint.

mod app;
mod get_payment;
mod list_payments;
mod view;

pub use app::App;

use std::sync::Arc;
use utoipa_axum::{router::OpenApiRouter, routes};

/// Returns all endpoints with their OpenAPI document.
pub fn router(app: Arc<App>) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(list_payments::list_payments))
        .routes(routes!(get_payment::get_payment))
        .with_state(app)
}

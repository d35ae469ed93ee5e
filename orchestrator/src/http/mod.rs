//! The orchestrator's HTTP API.
//!
//! Each endpoint, or family of endpoints, has a file. The JSON types are in [`model`], the errors in [`error`]. The
//! page's content comes from the functions that answer the API.

pub mod action;
pub mod dead_letters;
pub mod definitions;
pub mod error;
mod events;
pub mod intake;
pub mod live;
pub mod model;
pub mod overview;
pub mod page;
pub mod sagas;
pub mod start_batcher;
mod state;
pub mod view;

pub use state::{ApiState, OverviewCache};

use axum::middleware::from_fn_with_state;
use saga_service::http::{AccessGuard, require_token};
use utoipa_axum::{router::OpenApiRouter, routes};

/// Returns all routes of the API. `guard` checks the requests that change something; reads are not checked.
pub fn routes(state: ApiState, guard: AccessGuard) -> OpenApiRouter {
    OpenApiRouter::new()
        .routes(routes!(intake::start))
        .routes(routes!(sagas::list))
        .routes(routes!(sagas::get))
        .routes(routes!(sagas::events))
        .routes(routes!(sagas::actions))
        .routes(routes!(action::retry))
        .routes(routes!(action::cancel))
        .routes(routes!(action::compensate))
        .routes(routes!(action::complete))
        .routes(routes!(action::not_done))
        .routes(routes!(action::skip))
        .routes(routes!(action::abandon))
        .routes(routes!(definitions::list))
        .routes(routes!(definitions::get))
        .routes(routes!(definitions::actions))
        .routes(routes!(definitions::withdraw))
        .routes(routes!(definitions::restore))
        .routes(routes!(events::events))
        .routes(routes!(overview::get))
        .routes(routes!(dead_letters::list))
        .routes(routes!(dead_letters::get))
        .routes(routes!(dead_letters::decide::replay))
        .routes(routes!(dead_letters::decide::discard))
        .with_state(state)
        .layer(from_fn_with_state(guard, require_token))
}

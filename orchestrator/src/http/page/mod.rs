//! The page at `/`: shows live what the system is doing, and has a form that places orders.
//!
//! ```text
//!  GET /               page.html ◀── overview.html, sagas.html       whole, also without a script
//!  GET /page/overview  overview.html   ┐ fragments that the script swaps in
//!  GET /page/sagas     sagas.html      ┘ when something has happened
//!  GET /page.css, /page.js             embedded in the binary
//! ```
//!
//! Lists, counts and sentences come from the functions that answer the API; the page has no queries of its own. The
//! script reads single sagas and events from the API itself, and orders and stock from the services that own them.
//! Nothing is loaded from other hosts, and a strict content security policy enforces this.

mod assets;
mod config;
mod render;

pub use config::PageConfig;

use super::{
    ApiState,
    error::ApiResult,
    model::{ListQuery, SagaPage},
    overview,
    sagas::page as list,
};
use askama::Template;
use axum::{
    extract::State,
    http::{HeaderMap, HeaderName, HeaderValue, header},
    response::{Html, IntoResponse, Response},
    routing::get,
};
use render::{OverviewFragment, Page, SagasFragment};
use saga_service::http::{Problem, ValidQuery};
use serde::Deserialize;
use std::sync::Arc;
use utoipa_axum::router::OpenApiRouter;

/// The number of sagas on the page: about a screen. `GET /sagas` pages through all of them.
const LIST_LIMIT: i64 = 20;

/// The state that the page's handlers need.
#[derive(Clone)]
struct PageState {
    api: ApiState,
    config: Arc<PageConfig>,
    policy: HeaderValue,
}

/// Returns the page's routes, which are not part of the API's documentation.
pub fn router(api: ApiState, config: &PageConfig) -> OpenApiRouter {
    let state = PageState {
        api,
        policy: config.policy(),
        config: Arc::new(config.clone()),
    };
    OpenApiRouter::new()
        .route("/", get(page))
        .route("/page/overview", get(overview_fragment))
        .route("/page/sagas", get(sagas_fragment))
        .with_state(state)
        .merge(assets::router())
}

/// Query of the page and of its list.
#[derive(Debug, Default, Deserialize)]
struct PageQuery {
    /// Status as in `GET /sagas`; an empty one matches all.
    #[serde(default)]
    status: String,
}

impl PageQuery {
    fn list(&self) -> ListQuery {
        ListQuery {
            status: Some(self.status.clone()).filter(|status| !status.is_empty()),
            limit: Some(LIST_LIMIT),
            ..ListQuery::default()
        }
    }
}

/// Returns the page, also while the database is unavailable: the page then shows the problem, and its script retries.
async fn page(
    State(state): State<PageState>,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> Result<Response, Problem> {
    let overview = overview::load(&state.api)
        .await
        .map_err(|error| error.0.detail);
    let sagas = list(&state.api, query.list())
        .await
        .map_err(|error| error.0.detail);
    let page = Page::new(
        &state.config,
        &query.status,
        OverviewFragment::of(overview),
        SagasFragment::of(sagas, &query.status),
    );
    let html = render(&page)?;
    Ok((security(&state.policy), html).into_response())
}

async fn overview_fragment(State(state): State<PageState>) -> ApiResult<Response> {
    let overview = overview::load(&state.api).await?;
    fragment(&state, &OverviewFragment::of(Ok(overview)))
}

async fn sagas_fragment(
    State(state): State<PageState>,
    ValidQuery(query): ValidQuery<PageQuery>,
) -> ApiResult<Response> {
    let sagas: SagaPage = list(&state.api, query.list()).await?;
    fragment(&state, &SagasFragment::of(Ok(sagas), &query.status))
}

fn fragment(state: &PageState, template: &impl Template) -> ApiResult<Response> {
    let html = render(template)?;
    Ok((security(&state.policy), html).into_response())
}

fn render(template: &impl Template) -> Result<Html<String>, Problem> {
    template.render().map(Html).map_err(|error| {
        tracing::error!(
            error = &error as &dyn std::error::Error,
            "the page could not be rendered"
        );
        Problem::internal()
    })
}

/// Returns the security headers. The content is current only for a moment, so it must not be cached.
fn security(policy: &HeaderValue) -> HeaderMap {
    let fixed = |name: HeaderName, value: &'static str| (name, HeaderValue::from_static(value));
    HeaderMap::from_iter([
        (header::CONTENT_SECURITY_POLICY, policy.clone()),
        fixed(header::CACHE_CONTROL, "no-store"),
        fixed(header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        fixed(header::REFERRER_POLICY, "no-referrer"),
    ])
}

//! `GET /stock?limit=&cursor=`

use super::{app::App, view::Stock};
use crate::store;
use axum::{Json, extract::State};
use saga_service::http::{Problem, ValidQuery, page_limit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The number of products on a page if the request gives no limit, and the maximum.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The number of products on the page: 1 to 200, 50 if not given.
    limit: Option<u32>,
    /// The `nextCursor` of the previous page.
    cursor: Option<Uuid>,
}

/// A page of products, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockPage {
    items: Vec<Stock>,
    /// The cursor of the next page; left out on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Uuid>,
}

/// Lists the stock of all products.
#[utoipa::path(
    get,
    path = "/stock",
    tag = "stock",
    params(Paging),
    responses(
        (status = 200, description = "A page", body = StockPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_stock(
    State(app): State<Arc<App>>,
    ValidQuery(paging): ValidQuery<Paging>,
) -> Result<Json<StockPage>, Problem> {
    let limit = page_limit(paging.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let page = store::list_products(&app.reporting, paging.cursor, limit)
        .await
        .map_err(|error| {
            Problem::dependency_unavailable("the stock could not be listed", &error)
        })?;
    Ok(Json(StockPage {
        items: page.products.into_iter().map(Stock::from).collect(),
        next_cursor: page.next,
    }))
}

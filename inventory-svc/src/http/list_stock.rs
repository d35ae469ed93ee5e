//! `GET /stock?limit=&cursor=`

use super::{App, view::Stock};
use crate::store;
use axum::{Json, extract::State};
use saga_service::http::{Problem, ValidQuery, page_limit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Products of a page, if the caller does not say how many, and at most.
const LIMIT_DEFAULT: u32 = 50;
const LIMIT_MAX: u32 = 200;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// 1 to 200, 50 if not given.
    limit: Option<u32>,
    /// `nextCursor` of the page before.
    cursor: Option<Uuid>,
}

/// A page of products, in the order of their ids.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StockPage {
    items: Vec<Stock>,
    /// For the next page; left out on the last one.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Uuid>,
}

/// The stock of all products.
#[utoipa::path(
    get,
    path = "/stock",
    tag = "stock",
    params(Paging),
    responses(
        (status = 200, description = "A page", body = StockPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is away", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_stock(
    State(app): State<Arc<App>>,
    ValidQuery(paging): ValidQuery<Paging>,
) -> Result<Json<StockPage>, Problem> {
    let limit = page_limit(paging.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let page = store::list_products(&app.reporting, paging.cursor, limit)
        .await
        .map_err(|error| Problem::away("the stock could not be listed", &error))?;
    Ok(Json(StockPage {
        items: page.products.into_iter().map(Stock::from).collect(),
        next_cursor: page.next,
    }))
}

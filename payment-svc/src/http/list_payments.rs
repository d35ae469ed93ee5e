//! `GET /payments?limit=&cursor=`

use super::{app::App, view::PaymentView};
use crate::store;
use axum::{Json, extract::State};
use saga_service::http::{Problem, ValidQuery, page_limit};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// The number of payments on a page if the request gives no limit, and the maximum.
const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 100;

#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Paging {
    /// The number of payments on the page: 1 to 100, 20 if not given.
    limit: Option<u32>,
    /// The `nextCursor` of the previous page.
    cursor: Option<Uuid>,
}

/// A page of payments, the newest orders first.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPage {
    items: Vec<PaymentView>,
    /// The cursor of the next page; left out on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    next_cursor: Option<Uuid>,
}

/// Lists payments, the newest orders first.
#[utoipa::path(
    get,
    path = "/payments",
    tag = "payments",
    params(Paging),
    responses(
        (status = 200, description = "A page", body = PaymentPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list_payments(
    State(app): State<Arc<App>>,
    ValidQuery(paging): ValidQuery<Paging>,
) -> Result<Json<PaymentPage>, Problem> {
    let limit = page_limit(paging.limit, LIMIT_DEFAULT, LIMIT_MAX)?;
    let page = store::list_records(&app.reporting, paging.cursor, limit)
        .await
        .map_err(|error| {
            Problem::dependency_unavailable("the payments could not be listed", &error)
        })?;
    Ok(Json(PaymentPage {
        items: page.payments.into_iter().map(PaymentView::from).collect(),
        next_cursor: page.next,
    }))
}

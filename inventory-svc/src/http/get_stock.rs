//! `GET /stock/{productId}`

use super::{app::App, view::Stock};
use crate::store;
use axum::{Json, extract::State};
use saga_service::http::{Problem, ValidPath};
use std::sync::Arc;
use uuid::Uuid;

/// Returns the stock of one product.
#[utoipa::path(
    get,
    path = "/stock/{productId}",
    tag = "stock",
    params(("productId" = Uuid, Path, description = "The product's id")),
    responses(
        (status = 200, description = "Its stock", body = Stock),
        (status = 400, description = "The id is not a UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such product", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_stock(
    State(app): State<Arc<App>>,
    ValidPath(product): ValidPath<Uuid>,
) -> Result<Json<Stock>, Problem> {
    let found = store::find_product(&app.pool, product)
        .await
        .map_err(|error| Problem::dependency_unavailable("the stock could not be read", &error))?;
    match found {
        Some(product) => Ok(Json(Stock::from(product))),
        None => Err(Problem::not_found(format!("there is no product {product}"))),
    }
}

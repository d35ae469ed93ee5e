//! `GET /orders/{id}`

use super::{answer, app::App};
use crate::{store, view};
use axum::{
    extract::{Path, State},
    http::StatusCode,
    response::Response,
};
use saga_service::http::Problem;
use std::sync::Arc;

/// Returns one order.
#[utoipa::path(
    get,
    path = "/orders/{id}",
    tag = "orders",
    params(("id" = uuid::Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, description = "The order", body = view::OrderView),
        (status = 400, description = "The id is no UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "There is no such order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_order(
    State(app): State<Arc<App>>,
    Path(id): Path<String>,
) -> Result<Response, Problem> {
    let id = answer::order_id(&id)?;
    let find = async {
        let mut connection = app.pool.acquire().await?;
        store::order::find(&mut connection, id).await
    };
    let order = find
        .await
        .map_err(|error: sqlx::Error| {
            Problem::dependency_unavailable("the order could not be read", &error)
        })?
        .ok_or_else(|| answer::unknown_order(id))?;
    Ok(answer::json_text(StatusCode::OK, view::body(&order)))
}

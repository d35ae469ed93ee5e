//! `GET /payments/{orderId}`

use super::{app::App, view::PaymentView};
use crate::store;
use axum::{Json, extract::State};
use saga_service::http::{Problem, ValidPath};
use std::sync::Arc;
use uuid::Uuid;

/// Returns the payment of an order, with its history.
#[utoipa::path(
    get,
    path = "/payments/{orderId}",
    tag = "payments",
    params(("orderId" = Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, description = "Its payment", body = PaymentView),
        (status = 400, description = "The id is not a UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "The order has no payment, at least not yet", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_payment(
    State(app): State<Arc<App>>,
    ValidPath(order): ValidPath<Uuid>,
) -> Result<Json<PaymentView>, Problem> {
    let found = store::find_record(&app.pool, order)
        .await
        .map_err(|error| {
            Problem::dependency_unavailable("the payment could not be read", &error)
        })?;
    match found {
        Some(record) => Ok(Json(PaymentView::from(record))),
        None => Err(Problem::not_found(format!(
            "there is no payment of an order {order}"
        ))),
    }
}

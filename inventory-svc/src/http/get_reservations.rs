//! `GET /reservations/{orderId}`

use super::app::App;
use crate::{
    domain::{Reservation, ReservationKey, ReservationState},
    store,
};
use axum::{Json, extract::State};
use chrono::{DateTime, Utc};
use saga_service::http::{Problem, ValidPath};
use serde::Serialize;
use std::sync::Arc;
use utoipa::ToSchema;
use uuid::Uuid;

/// The current and former reservations of an order.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservations {
    order_id: Uuid,
    /// The saga that holds the order. No other saga completes or releases its reservations.
    saga_id: Uuid,
    items: Vec<ReservedItem>,
}

/// The reserved pieces of one product.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
struct ReservedItem {
    product_id: Uuid,
    quantity: i64,
    state: ReservationState,
    updated_at: DateTime<Utc>,
}

impl From<(ReservationKey, Reservation, DateTime<Utc>)> for ReservedItem {
    fn from((key, row, updated_at): (ReservationKey, Reservation, DateTime<Utc>)) -> Self {
        Self {
            product_id: key.product_id,
            quantity: row.quantity,
            state: row.state,
            updated_at,
        }
    }
}

/// Returns the reservations of an order, including released and sold ones.
#[utoipa::path(
    get,
    path = "/reservations/{orderId}",
    tag = "stock",
    params(("orderId" = Uuid, Path, description = "The order's id")),
    responses(
        (status = 200, description = "By product", body = Reservations),
        (status = 400, description = "The id is not a UUID", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "Nothing was ever reserved for this order", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get_reservations(
    State(app): State<Arc<App>>,
    ValidPath(order_id): ValidPath<Uuid>,
) -> Result<Json<Reservations>, Problem> {
    let rows = store::reservations_of(&app.pool, order_id)
        .await
        .map_err(|error| {
            Problem::dependency_unavailable("the reservations could not be read", &error)
        })?;
    let Some((_, Reservation { saga_id, .. }, _)) = rows.first().copied() else {
        let detail = format!("nothing was reserved for an order {order_id}");
        return Err(Problem::not_found(detail));
    };
    let items = rows.into_iter().map(ReservedItem::from).collect();
    Ok(Json(Reservations {
        order_id,
        saga_id,
        items,
    }))
}

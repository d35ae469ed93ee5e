//! `PUT /stock/{productId}`
//!
//! A restock sets the available quantity, so that a repeated request does no harm. Reserved and sold quantities do not
//! change. The total is the sum of available, reserved and sold.

use super::{app::App, view::Stock};
use crate::store;
use axum::{Json, extract::State, http::StatusCode};
use saga_core::message::whole_number;
use saga_service::http::{FieldError, Problem, RequestContext, ValidJson, ValidPath};
use serde::Deserialize;
use std::sync::Arc;
use tracing::info;
use utoipa::ToSchema;
use uuid::Uuid;

/// The maximum quantity of one product. A larger one is a mistake.
const AVAILABLE_MAX: i64 = 1_000_000_000;
const NAME_MAX_CHARS: usize = 200;

/// The quantity that is available from now on.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RestockRequest {
    /// The available quantity: 0 to 1,000,000,000 pieces.
    #[schema(minimum = 0, maximum = 1_000_000_000)]
    #[serde(deserialize_with = "whole_number")]
    available: i64,
    /// The name for people, at most 200 characters. If it is left out, the current name is kept.
    #[schema(min_length = 1, max_length = 200)]
    name: Option<String>,
}

impl RestockRequest {
    fn check(&self) -> Result<(), Problem> {
        let mut errors = Vec::new();
        if !(0..=AVAILABLE_MAX).contains(&self.available) {
            let message = format!("must be from 0 to {AVAILABLE_MAX}");
            errors.push(FieldError::new("/available", message));
        }
        if let Some(name) = &self.name {
            if name.trim().is_empty() || name.chars().count() > NAME_MAX_CHARS {
                let message = format!("must have from 1 to {NAME_MAX_CHARS} characters");
                errors.push(FieldError::new("/name", message));
            }
            if name.chars().any(char::is_control) {
                errors.push(FieldError::new("/name", "must not have control characters"));
            }
        }
        if errors.is_empty() {
            Ok(())
        } else {
            Err(Problem::invalid(errors))
        }
    }
}

/// Sets the available quantity of a product. Creates the product if it does not exist.
#[utoipa::path(
    put,
    path = "/stock/{productId}",
    tag = "stock",
    params(("productId" = Uuid, Path, description = "The product's id")),
    request_body = RestockRequest,
    responses(
        (status = 200, description = "The product's stock now", body = Stock),
        (status = 201, description = "The product was made", body = Stock),
        (status = 400, description = "The id or the body cannot be read", body = Problem, content_type = "application/problem+json"),
        (status = 413, description = "The body is too large", body = Problem, content_type = "application/problem+json"),
        (status = 415, description = "The body is not JSON", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "The database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn put_stock(
    State(app): State<Arc<App>>,
    context: RequestContext,
    ValidPath(product): ValidPath<Uuid>,
    ValidJson(request): ValidJson<RestockRequest>,
) -> Result<(StatusCode, Json<Stock>), Problem> {
    request.check()?;
    let restock = async {
        let mut connection = app.pool.acquire().await?;
        let name = request.name.as_deref().map(str::trim);
        store::restock(&mut connection, product, request.available, name).await
    };
    let restock = restock
        .await
        .map_err(|error| Problem::dependency_unavailable("the stock could not be set", &error))?;
    info!(
        product.id = %product,
        correlation.id = context.correlation_id,
        available = request.available,
        "restocked"
    );
    let status = if restock.created {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    Ok((status, Json(Stock::from(restock.product))))
}

//! Stock as the API shows it.

use crate::store::Product;
use chrono::{DateTime, Utc};
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

/// A product's stock, in pieces.
#[derive(Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Stock {
    pub product_id: Uuid,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Can be ordered.
    pub available: i64,
    /// Held for orders that are under way.
    pub reserved: i64,
    /// Gone for good.
    pub sold: i64,
    pub updated_at: DateTime<Utc>,
}

impl From<Product> for Stock {
    fn from(product: Product) -> Self {
        Self {
            product_id: product.product_id,
            name: product.name,
            available: product.quantities.available,
            reserved: product.quantities.reserved,
            sold: product.quantities.sold,
            updated_at: product.updated_at,
        }
    }
}

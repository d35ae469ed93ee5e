//! The stock in the API's format.

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
    /// The pieces that can be ordered.
    pub available: i64,
    /// The pieces reserved for orders that have not ended.
    pub reserved: i64,
    /// The pieces sold.
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

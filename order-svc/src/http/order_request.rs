//! The body of `POST /orders`: the long form with items, or the short form with one product.
//!
//! The documented types are the parsed types. A field of the wrong shape is refused by the parser, which names the
//! first one. The rules are checked afterwards, so that the answer names every rule that the order breaks.

use super::body::{self, Object};
use crate::domain::{
    limits::{MAX_FIELD_ERRORS, MAX_ITEMS, MAX_QUANTITY, MAX_TOTAL_MINOR},
    order::OrderLine,
};
use saga_contracts::money::CurrencyUnit;
use saga_core::message::whole_number;
use saga_service::http::{FieldError, Problem};
use serde::{Deserialize, de::IgnoredAny};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::{collections::HashSet, fmt};
use utoipa::ToSchema;
use uuid::Uuid;

/// An order in either of two forms. They do not mix, and unknown fields are refused.
#[derive(Debug, ToSchema)]
#[serde(untagged)]
pub enum PlaceOrder {
    /// Up to 100 products, each once, with a price per piece.
    Items(OrderOfItems),
    /// One product, with the total of the order.
    OneProduct(OrderOfOneProduct),
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderOfItems {
    #[serde(deserialize_with = "body::id")]
    customer_id: Uuid,
    #[schema(value_type = Vec<NewItem>, min_items = 1, max_items = 100)]
    items: Vec<Object<NewItem>>,
    /// The ISO 4217 code of the currency; the service's default if left out.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "body::not_null")]
    currency: Option<String>,
    /// The saga definition that drives the order; the service's default if left out.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "body::not_null")]
    definition: Option<String>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NewItem {
    #[serde(deserialize_with = "body::id")]
    product_id: Uuid,
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole_number")]
    quantity: i64,
    /// The price per piece, major units, with at most the currency's digits after the point and no exponent.
    #[schema(value_type = f64, exclusive_minimum = 0, example = 10.50)]
    price: Box<RawValue>,
}

#[derive(Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OrderOfOneProduct {
    #[serde(deserialize_with = "body::id")]
    customer_id: Uuid,
    #[serde(deserialize_with = "body::id")]
    product_id: Uuid,
    #[schema(value_type = u32, minimum = 1, maximum = 1_000_000)]
    #[serde(deserialize_with = "whole_number")]
    quantity: i64,
    /// The order's total, major units. The total is charged even if it is not a multiple of the quantity.
    #[schema(value_type = f64, exclusive_minimum = 0, example = 31.50)]
    amount: Box<RawValue>,
    /// The ISO 4217 code of the currency; the service's default if left out.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "body::not_null")]
    currency: Option<String>,
    /// The saga definition that drives the order; the service's default if left out.
    #[schema(nullable = false)]
    #[serde(default, deserialize_with = "body::not_null")]
    definition: Option<String>,
}

/// The fields that tell the two forms apart.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Form {
    items: Option<IgnoredAny>,
    product_id: Option<IgnoredAny>,
    amount: Option<IgnoredAny>,
}

/// The defaults of a request, and the definitions that it may name.
#[derive(Clone, Debug)]
pub struct RequestRules {
    pub currency: CurrencyUnit,
    pub definition: String,
    /// The saga definitions that a request may name.
    pub definitions: Vec<String>,
}

/// An order request whose fields have all been checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderRequest {
    pub customer_id: Uuid,
    pub items: Vec<OrderLine>,
    pub amount_minor: i64,
    pub currency: CurrencyUnit,
    pub definition: String,
}

impl PlaceOrder {
    /// Parses the form that the body has. As an untagged enum, `serde` would round the amounts and name no field.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        let form: Form = serde_json::from_slice(body).unwrap_or_default();
        let is_short = form.product_id.is_some() || form.amount.is_some();
        if is_short && form.items.is_none() {
            body::parse_object(body).map(Self::OneProduct)
        } else {
            body::parse_object(body).map(Self::Items)
        }
    }

    /// Checks the rules. The problem names every field that breaks one.
    pub fn check(&self, rules: &RequestRules) -> Result<OrderRequest, Problem> {
        let mut mistakes = Mistakes::default();
        let (customer_id, currency, definition) = match self {
            Self::Items(order) => (order.customer_id, &order.currency, &order.definition),
            Self::OneProduct(order) => (order.customer_id, &order.currency, &order.definition),
        };
        if let Some(name) = definition
            && !rules.definitions.contains(name)
        {
            let known = rules.definitions.join(", ");
            mistakes.add("/definition", format_args!("must be one of {known}"));
        }
        let currency = match currency {
            Some(code) => mistakes.check("/currency", CurrencyUnit::from_code(code)),
            None => Some(rules.currency),
        };
        let order = currency.map(|currency| {
            let items = self.lines(currency, &mut mistakes);
            OrderRequest {
                customer_id,
                amount_minor: total(&items, &mut mistakes),
                items,
                currency,
                definition: definition.as_ref().unwrap_or(&rules.definition).clone(),
            }
        });
        match order {
            Some(order) if mistakes.0.is_empty() => Ok(order),
            Some(_) | None => Err(Problem::invalid(mistakes.0)),
        }
    }

    /// Returns the lines without those that break a rule.
    fn lines(&self, currency: CurrencyUnit, mistakes: &mut Mistakes) -> Vec<OrderLine> {
        match self {
            Self::OneProduct(order) => order.line(currency, mistakes).into_iter().collect(),
            Self::Items(OrderOfItems { items, .. }) if (1..=MAX_ITEMS).contains(&items.len()) => {
                let mut seen = HashSet::with_capacity(items.len());
                let mut lines = Vec::with_capacity(items.len());
                for (n, Object(item)) in items.iter().enumerate() {
                    let pointer = format!("/items/{n}");
                    // A repeated product may be two prices for one product, or a line sent twice by mistake. Merging
                    // the lines would hide both.
                    if !seen.insert(item.product_id) {
                        mistakes.add(format!("{pointer}/productId"), "is in the order already");
                    }
                    lines.extend(item.line(&pointer, currency, mistakes));
                }
                lines
            }
            Self::Items(_) => {
                mistakes.add(
                    "/items",
                    format_args!("must have 1 to {MAX_ITEMS} elements"),
                );
                Vec::new()
            }
        }
    }
}

impl NewItem {
    fn line(
        &self,
        pointer: &str,
        currency: CurrencyUnit,
        mistakes: &mut Mistakes,
    ) -> Option<OrderLine> {
        let quantity = mistakes.check(format!("{pointer}/quantity"), quantity(self.quantity));
        let price = currency.parse(self.price.get());
        let price = mistakes.check(format!("{pointer}/price"), price);
        let (quantity, unit_price_minor) = (quantity?, price?);
        Some(OrderLine {
            product_id: self.product_id,
            quantity,
            unit_price_minor,
            // The product is at most 10^12 times 10^6, which fits into 64 bits.
            amount_minor: unit_price_minor * i64::from(quantity),
        })
    }
}

impl OrderOfOneProduct {
    fn line(&self, currency: CurrencyUnit, mistakes: &mut Mistakes) -> Option<OrderLine> {
        let quantity = mistakes.check("/quantity", quantity(self.quantity));
        let amount = mistakes.check("/amount", currency.parse(self.amount.get()));
        let (quantity, amount_minor) = (quantity?, amount?);
        Some(OrderLine {
            product_id: self.product_id,
            quantity,
            unit_price_minor: amount_minor / i64::from(quantity),
            amount_minor,
        })
    }
}

impl OrderRequest {
    /// Returns a hash of the request's content, which does not depend on spaces, on the order of members or on the form
    /// of numbers. Two requests with the same `Idempotency-Key` must have the same hash.
    pub fn hash(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        hash.update(self.customer_id.as_bytes());
        hash.update(self.currency.code());
        hash.update(self.definition.as_bytes());
        for item in &self.items {
            hash.update(item.product_id.as_bytes());
            hash.update(item.quantity.to_be_bytes());
            hash.update(item.unit_price_minor.to_be_bytes());
            hash.update(item.amount_minor.to_be_bytes());
        }
        hash.finalize().into()
    }
}

/// The rules that a request breaks, at most [`MAX_FIELD_ERRORS`].
#[derive(Default)]
struct Mistakes(Vec<FieldError>);

impl Mistakes {
    fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        if self.0.len() < MAX_FIELD_ERRORS {
            self.0.push(FieldError::new(field, message.to_string()));
        }
    }

    /// Returns the value of a field. Adds a mistake if the value breaks a rule.
    fn check<T, E: fmt::Display>(
        &mut self,
        field: impl Into<String>,
        value: Result<T, E>,
    ) -> Option<T> {
        value.map_err(|error| self.add(field, error)).ok()
    }
}

fn quantity(number: i64) -> Result<u32, String> {
    u32::try_from(number)
        .ok()
        .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity))
        .ok_or_else(|| format!("must be a whole number from 1 to {MAX_QUANTITY}"))
}

/// Returns the sum of the lines. Adds a mistake if it is above [`MAX_TOTAL_MINOR`].
fn total(items: &[OrderLine], mistakes: &mut Mistakes) -> i64 {
    // A hundred lines of 10^18 each do not overflow 128 bits.
    let sum: i128 = items.iter().map(|item| i128::from(item.amount_minor)).sum();
    let total = i64::try_from(sum).unwrap_or(i64::MAX);
    if total > MAX_TOTAL_MINOR {
        mistakes.add(
            "/items",
            format_args!("the order's total is above {MAX_TOTAL_MINOR} minor units"),
        );
    }
    total
}

#[cfg(test)]
mod tests;

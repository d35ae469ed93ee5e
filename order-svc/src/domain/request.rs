//! An order as it is asked for: the long form with items, the short form with one product.

use super::{
    json::{Mistakes, Object, array, string},
    limits::{MAX_ITEMS, MAX_QUANTITY, MAX_TOTAL_MINOR},
    money::CurrencyUnit,
    order::OrderLine,
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};
use std::collections::HashSet;
use uuid::Uuid;

/// What a request may leave out, and what it may ask for.
#[derive(Clone, Debug)]
pub struct RequestRules {
    pub currency: CurrencyUnit,
    pub definition: String,
    /// Definitions that may be asked for.
    pub definitions: Vec<String>,
}

/// An order that may be accepted: every field was checked.
#[derive(Clone, Debug, PartialEq)]
pub struct OrderRequest {
    pub customer_id: Uuid,
    pub items: Vec<OrderLine>,
    pub amount_minor: i64,
    pub currency: CurrencyUnit,
    pub definition: String,
}

/// Why a body is no order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Not a JSON object at all.
    Unreadable(String),
    /// Readable, but these fields are wrong.
    Invalid(Mistakes),
}

const LONG_FORM: [&str; 4] = ["customerId", "items", "currency", "definition"];
const SHORT_FORM: [&str; 6] = [
    "customerId",
    "productId",
    "quantity",
    "amount",
    "currency",
    "definition",
];
const ITEM: [&str; 3] = ["productId", "quantity", "price"];

impl OrderRequest {
    pub fn parse(body: &[u8], rules: &RequestRules) -> Result<Self, RequestError> {
        let object = Object::from_body(body).map_err(RequestError::Unreadable)?;
        let mut mistakes = Mistakes::default();
        let long = object.has("items") || !(object.has("productId") || object.has("amount"));
        check_form(&object, long, &mut mistakes);
        let customer_id = object.require_uuid("", "customerId", &mut mistakes);
        let definition = read_definition(&object, rules, &mut mistakes);
        let lines = read_currency(&object, rules, &mut mistakes).and_then(|currency| {
            let items = if long {
                read_items(&object, currency, &mut mistakes)
            } else {
                read_short_form(&object, currency, &mut mistakes).map(|line| vec![line])
            };
            let items = items?;
            let amount_minor = total(&items, &mut mistakes)?;
            Some((currency, items, amount_minor))
        });
        match (customer_id, definition, lines) {
            (Some(customer_id), Some(definition), Some((currency, items, amount_minor)))
                if mistakes.is_empty() =>
            {
                Ok(Self {
                    customer_id,
                    items,
                    amount_minor,
                    currency,
                    definition,
                })
            }
            _ => Err(RequestError::Invalid(mistakes)),
        }
    }

    /// Hash of what the request means, whatever its spaces, order of members and form of numbers: two requests with
    /// one `Idempotency-Key` must agree in it.
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

fn check_form(object: &Object<'_>, long: bool, mistakes: &mut Mistakes) {
    if !long {
        return object.check_members("", &SHORT_FORM, mistakes);
    }
    for name in ["productId", "quantity", "amount"] {
        if object.has("items") && object.has(name) {
            mistakes.add(
                format!("/{name}"),
                "belongs to the one-product form and cannot stand beside items",
            );
        }
    }
    if mistakes.is_empty() {
        object.check_members("", &LONG_FORM, mistakes);
    }
}

fn read_definition(
    object: &Object<'_>,
    rules: &RequestRules,
    mistakes: &mut Mistakes,
) -> Option<String> {
    let Some(value) = object.get("definition") else {
        return Some(rules.definition.clone());
    };
    let found = string(value).filter(|name| rules.definitions.contains(name));
    if found.is_none() {
        let known = rules.definitions.join(", ");
        mistakes.add("/definition", format_args!("must be one of {known}"));
    }
    found
}

fn read_currency(
    object: &Object<'_>,
    rules: &RequestRules,
    mistakes: &mut Mistakes,
) -> Option<CurrencyUnit> {
    let Some(value) = object.get("currency") else {
        return Some(rules.currency);
    };
    let code = string(value).unwrap_or_default();
    CurrencyUnit::from_code(&code)
        .inspect_err(|error| mistakes.add("/currency", error))
        .ok()
}

fn read_items(
    object: &Object<'_>,
    currency: CurrencyUnit,
    mistakes: &mut Mistakes,
) -> Option<Vec<OrderLine>> {
    let value = object.require("", "items", mistakes)?;
    let Some(elements) = array(value) else {
        mistakes.add("/items", "must be an array");
        return None;
    };
    if elements.is_empty() || elements.len() > MAX_ITEMS {
        mistakes.add(
            "/items",
            format_args!("must have 1 to {MAX_ITEMS} elements"),
        );
        return None;
    }
    let mut seen = HashSet::with_capacity(elements.len());
    let mut items = Vec::with_capacity(elements.len());
    for (n, element) in elements.iter().enumerate() {
        let pointer = format!("/items/{n}");
        let Some(line) = read_item(element, &pointer, currency, mistakes) else {
            continue;
        };
        // Two prices for one product, or a line sent twice by mistake: merging would hide either.
        if !seen.insert(line.product_id) {
            mistakes.add(format!("{pointer}/productId"), "is in the order already");
        }
        items.push(line);
    }
    (items.len() == elements.len()).then_some(items)
}

fn read_item(
    element: &RawValue,
    pointer: &str,
    currency: CurrencyUnit,
    mistakes: &mut Mistakes,
) -> Option<OrderLine> {
    let Some(object) = Object::from_value(element) else {
        mistakes.add(pointer, "must be an object");
        return None;
    };
    object.check_members(pointer, &ITEM, mistakes);
    let product_id = object.require_uuid(pointer, "productId", mistakes);
    let quantity = read_quantity(&object, pointer, mistakes);
    let unit_price_minor = read_amount(&object, pointer, "price", currency, mistakes);
    let (product_id, quantity, unit_price_minor) = (product_id?, quantity?, unit_price_minor?);
    // At most 10^12 times 10^6, which 64 bits hold.
    let amount_minor = unit_price_minor * i64::from(quantity);
    Some(OrderLine {
        product_id,
        quantity,
        unit_price_minor,
        amount_minor,
    })
}

fn read_short_form(
    object: &Object<'_>,
    currency: CurrencyUnit,
    mistakes: &mut Mistakes,
) -> Option<OrderLine> {
    let product_id = object.require_uuid("", "productId", mistakes);
    let quantity = read_quantity(object, "", mistakes);
    let amount_minor = read_amount(object, "", "amount", currency, mistakes);
    let (product_id, quantity, amount_minor) = (product_id?, quantity?, amount_minor?);
    Some(OrderLine {
        product_id,
        quantity,
        unit_price_minor: amount_minor / i64::from(quantity),
        amount_minor,
    })
}

fn read_quantity(object: &Object<'_>, pointer: &str, mistakes: &mut Mistakes) -> Option<u32> {
    let value = object.require(pointer, "quantity", mistakes)?;
    let quantity = serde_json::from_str::<u32>(value.get())
        .ok()
        .filter(|quantity| (1..=MAX_QUANTITY).contains(quantity));
    if quantity.is_none() {
        mistakes.add(
            format!("{pointer}/quantity"),
            format_args!("must be a whole number from 1 to {MAX_QUANTITY}"),
        );
    }
    quantity
}

fn read_amount(
    object: &Object<'_>,
    pointer: &str,
    name: &str,
    currency: CurrencyUnit,
    mistakes: &mut Mistakes,
) -> Option<i64> {
    let value = object.require(pointer, name, mistakes)?;
    currency
        .parse(value.get())
        .inspect_err(|error| mistakes.add(format!("{pointer}/{name}"), error))
        .ok()
}

/// The sum of the lines, at most [`MAX_TOTAL_MINOR`]. A hundred lines of 10^18 each do not overflow 128 bits.
fn total(items: &[OrderLine], mistakes: &mut Mistakes) -> Option<i64> {
    let sum: i128 = items.iter().map(|item| i128::from(item.amount_minor)).sum();
    let total = i64::try_from(sum)
        .ok()
        .filter(|total| *total <= MAX_TOTAL_MINOR);
    if total.is_none() {
        mistakes.add(
            "/items",
            format_args!("the order's total is above {MAX_TOTAL_MINOR} minor units"),
        );
    }
    total
}

#[cfg(test)]
mod tests;

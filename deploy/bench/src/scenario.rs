//! Which orders are sent, and how each must end.

use clap::ValueEnum;
use saga_harness::random::Random;
use serde::Serialize;
use std::fmt::Write;
use uuid::Uuid;

/// The kind of orders that one measurement sends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, ValueEnum)]
#[serde(rename_all = "kebab-case")]
pub enum Scenario {
    /// Every order is confirmed: one product of a thousand, stock first
    Confirm,
    /// Every payment is declined: the stock is put back, the order is cancelled
    Decline,
    /// Nothing is in stock: the order is cancelled
    OutOfStock,
    /// Every order is confirmed: payment first
    PaymentFirst,
    /// Like confirm, but all orders are for one product
    HotProduct,
    /// Like confirm, but with ten products in each order
    TenItems,
    /// A mix: most orders are confirmed, some are declined, out of stock, or refunded
    MixedShop,
}

impl Scenario {
    pub fn name(self) -> &'static str {
        match self {
            Self::Confirm => "confirm",
            Self::Decline => "decline",
            Self::OutOfStock => "out-of-stock",
            Self::PaymentFirst => "payment-first",
            Self::HotProduct => "hot-product",
            Self::TenItems => "ten-items",
            Self::MixedShop => "mixed-shop",
        }
    }

    /// The kinds of orders that the scenario sends, each with its weight.
    pub fn kinds(self) -> &'static [(u64, Kind)] {
        match self {
            Self::Confirm | Self::HotProduct | Self::TenItems => &[(1, Kind::Confirmed)],
            Self::Decline => &[(1, Kind::Declined)],
            Self::OutOfStock => &[(1, Kind::OutOfStock)],
            Self::PaymentFirst => &[(1, Kind::PaidFirst)],
            Self::MixedShop => &[
                (70, Kind::Confirmed),
                (10, Kind::Declined),
                (5, Kind::OutOfStock),
                (10, Kind::PaidFirst),
                (5, Kind::Refunded),
            ],
        }
    }

    fn products(self) -> usize {
        if self == Self::HotProduct { 1 } else { 1_000 }
    }

    fn items(self) -> usize {
        if self == Self::TenItems { 10 } else { 1 }
    }
}

/// The kind of an order, named for how it must end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    Confirmed,
    Declined,
    OutOfStock,
    /// Confirmed, by the definition that charges first.
    PaidFirst,
    /// Out of stock, by the definition that charges first.
    Refunded,
}

/// The definition, the status and the reason's code in an order's database row when the order has ended as it must.
pub type End = (&'static str, &'static str, &'static str);

impl Kind {
    pub const ALL: [Self; 5] = [
        Self::Confirmed,
        Self::Declined,
        Self::OutOfStock,
        Self::PaidFirst,
        Self::Refunded,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Declined => "declined",
            Self::OutOfStock => "out of stock",
            Self::PaidFirst => "paid first",
            Self::Refunded => "refunded",
        }
    }

    pub fn end(self) -> End {
        match self {
            Self::Confirmed => (STOCK_FIRST, "CONFIRMED", ""),
            Self::Declined => (STOCK_FIRST, "CANCELLED", "payment_declined"),
            Self::OutOfStock => (STOCK_FIRST, "CANCELLED", "out_of_stock"),
            Self::PaidFirst => (PAYMENT_FIRST, "CONFIRMED", ""),
            Self::Refunded => (PAYMENT_FIRST, "CANCELLED", "out_of_stock"),
        }
    }

    /// Returns `true` if the saga of such an order completes, and `false` if it is compensated.
    pub fn completes(self) -> bool {
        matches!(self, Self::Confirmed | Self::PaidFirst)
    }

    /// Returns `true` if the products of such an order are in stock.
    pub fn in_stock(self) -> bool {
        matches!(self, Self::Confirmed | Self::Declined | Self::PaidFirst)
    }
}

const STOCK_FIRST: &str = "place-order";
const PAYMENT_FIRST: &str = "place-order-payment-first";
const CUSTOMERS: usize = 1_000;
/// Pieces of each product in stock: the most that inventory-svc accepts, and more than any run sells.
pub const PIECES: u64 = 1_000_000_000;
/// The most pieces of one order line.
const QUANTITY_MAX: u64 = 3;
/// The price of one piece: all lines of an order stay below the simulated gateway's limit of 1000.00.
const PRICE: &str = "10.50";
/// The price of one piece that makes every order exceed that limit.
const PRICE_DECLINED: &str = "1500.00";

/// A scenario's own customers and products. Every row that refers to them belongs to the scenario.
#[derive(Clone, Debug)]
pub struct Shop {
    scenario: Scenario,
    pub customers: Vec<Uuid>,
    pub products: Vec<Uuid>,
    pub sold_out: Vec<Uuid>,
}

impl Shop {
    pub fn new(scenario: Scenario) -> Self {
        let ids = |count: usize| (0..count).map(|_| Uuid::new_v4()).collect();
        Self {
            scenario,
            customers: ids(CUSTOMERS),
            products: ids(scenario.products()),
            sold_out: ids(scenario.products()),
        }
    }

    pub fn scenario(&self) -> Scenario {
        self.scenario
    }

    /// Draws the next order: its kind, and the body of the request.
    pub fn order(&self, random: &mut Random) -> (Kind, String) {
        let kinds = self.scenario.kinds();
        let kind = random.weighted(kinds).unwrap_or(kinds[0].1);
        (kind, self.body(kind, random))
    }

    fn body(&self, kind: Kind, random: &mut Random) -> String {
        let products = if kind.in_stock() {
            &self.products
        } else {
            &self.sold_out
        };
        let price = if kind == Kind::Declined {
            PRICE_DECLINED
        } else {
            PRICE
        };
        let customer = random.pick(&self.customers);
        let (definition, _, _) = kind.end();
        let mut body =
            format!(r#"{{"customerId":"{customer}","definition":"{definition}","items":["#);
        // Consecutive products: each occurs once in an order, without remembering which were drawn.
        let first = random.below(products.len() as u64) as usize;
        for item in 0..self.scenario.items() {
            let separator = if item == 0 { "" } else { "," };
            let product = products[(first + item) % products.len()];
            let quantity = 1 + random.below(QUANTITY_MAX);
            write!(
                body,
                r#"{separator}{{"productId":"{product}","quantity":{quantity},"price":{price}}}"#
            )
            .expect("a String takes any text");
        }
        body.push_str("]}");
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use std::collections::{BTreeMap, BTreeSet};

    fn orders(scenario: Scenario, count: usize) -> (Shop, Vec<(Kind, Value)>) {
        let shop = Shop::new(scenario);
        let mut random = Random::new(3, "orders");
        let orders = (0..count)
            .map(|_| shop.order(&mut random))
            .map(|(kind, body)| (kind, serde_json::from_str(&body).expect("JSON")))
            .collect();
        (shop, orders)
    }

    #[test]
    fn every_scenario_places_only_its_own_kinds_of_orders() {
        for scenario in Scenario::value_variants().iter().copied() {
            let allowed: Vec<Kind> = scenario.kinds().iter().map(|(_, kind)| *kind).collect();
            let (_, orders) = orders(scenario, 200);
            assert!(orders.iter().all(|(kind, _)| allowed.contains(kind)));
        }
    }

    #[test]
    fn a_mixed_shop_orders_by_weight() {
        let (_, orders) = orders(Scenario::MixedShop, 10_000);
        let mut counts: BTreeMap<Kind, u64> = BTreeMap::new();
        for (kind, _) in &orders {
            *counts.entry(*kind).or_default() += 1;
        }
        for (weight, kind) in Scenario::MixedShop.kinds() {
            assert!(counts[kind].abs_diff(weight * 100) < 200, "{counts:?}");
        }
    }

    #[test]
    fn an_order_names_each_product_once_and_the_definition_it_is_to_be_driven_by() {
        let (shop, orders) = orders(Scenario::TenItems, 100);
        for (kind, body) in orders {
            let items = body["items"].as_array().expect("items");
            let products: BTreeSet<&str> = items
                .iter()
                .filter_map(|item| item["productId"].as_str())
                .collect();
            assert_eq!((items.len(), products.len()), (10, 10));
            assert_eq!(body["definition"], kind.end().0);
            assert!(
                shop.products
                    .iter()
                    .any(|id| products.contains(id.to_string().as_str()))
            );
        }
    }

    #[test]
    fn only_orders_of_the_declined_kind_exceed_the_gateway_limit() {
        const LIMIT: f64 = 1_000.0;
        for scenario in Scenario::value_variants().iter().copied() {
            for (kind, body) in orders(scenario, 300).1 {
                let items = body["items"].as_array().expect("items");
                let total: f64 = items
                    .iter()
                    .map(|item| {
                        item["price"].as_f64().unwrap() * item["quantity"].as_f64().unwrap()
                    })
                    .sum();
                assert_eq!(
                    total > LIMIT,
                    kind == Kind::Declined,
                    "{scenario:?}: {body}"
                );
            }
        }
    }

    #[test]
    fn all_orders_of_the_hot_product_are_for_one() {
        let (shop, orders) = orders(Scenario::HotProduct, 50);
        let hot = shop.products[0].to_string();
        assert!(
            orders
                .iter()
                .all(|(_, body)| body["items"][0]["productId"] == hot.as_str())
        );
    }

    #[test]
    fn every_kind_of_order_ends_in_a_distinct_database_state() {
        let ends: BTreeSet<End> = Kind::ALL.into_iter().map(Kind::end).collect();
        assert_eq!(ends.len(), Kind::ALL.len());
    }
}

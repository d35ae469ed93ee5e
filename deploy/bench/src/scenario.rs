//! What is ordered, and how each order must end.

use clap::ValueEnum;
use saga_e2e::chaos::random::Random;
use serde::Serialize;
use std::fmt::Write;
use uuid::Uuid;

/// What is ordered in one measurement.
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
    /// As confirm, and all orders are for one product
    HotProduct,
    /// As confirm, with ten products in each order
    TenItems,
    /// All of it: most orders are confirmed, some are declined, out of stock, or refunded
    MixedShop,
}

impl Scenario {
    pub const ALL: [Self; 7] = [
        Self::Confirm,
        Self::Decline,
        Self::OutOfStock,
        Self::PaymentFirst,
        Self::HotProduct,
        Self::TenItems,
        Self::MixedShop,
    ];

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

    /// What is ordered, by weight.
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
        match self {
            Self::HotProduct => 1,
            Self::Confirm
            | Self::Decline
            | Self::OutOfStock
            | Self::PaymentFirst
            | Self::TenItems
            | Self::MixedShop => 1_000,
        }
    }

    fn items(self) -> usize {
        match self {
            Self::TenItems => 10,
            Self::Confirm
            | Self::Decline
            | Self::OutOfStock
            | Self::PaymentFirst
            | Self::HotProduct
            | Self::MixedShop => 1,
        }
    }
}

/// An order by how it must end.
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

/// How an order stands in the database when it has ended as it must.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct End {
    pub definition: &'static str,
    pub status: &'static str,
    pub reason: &'static str,
}

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
        let (definition, status, reason) = match self {
            Self::Confirmed => (STOCK_FIRST, "CONFIRMED", ""),
            Self::Declined => (STOCK_FIRST, "CANCELLED", "payment_declined"),
            Self::OutOfStock => (STOCK_FIRST, "CANCELLED", "out_of_stock"),
            Self::PaidFirst => (PAYMENT_FIRST, "CONFIRMED", ""),
            Self::Refunded => (PAYMENT_FIRST, "CANCELLED", "out_of_stock"),
        };
        End {
            definition,
            status,
            reason,
        }
    }

    /// Whether its saga completes; else it is compensated.
    pub fn completes(self) -> bool {
        match self {
            Self::Confirmed | Self::PaidFirst => true,
            Self::Declined | Self::OutOfStock | Self::Refunded => false,
        }
    }

    fn in_stock(self) -> bool {
        match self {
            Self::Confirmed | Self::Declined | Self::PaidFirst => true,
            Self::OutOfStock | Self::Refunded => false,
        }
    }
}

const STOCK_FIRST: &str = "place-order";
const PAYMENT_FIRST: &str = "place-order-payment-first";
const CUSTOMERS: usize = 1_000;
/// Of each product: what inventory-svc takes at most, and no run sells.
pub const PIECES: u64 = 1_000_000_000;
/// Pieces of one line, at most.
const QUANTITY_MAX: u64 = 3;
/// Of one piece: all lines of an order stay below the simulated gateway's limit of 1000.00.
const PRICE: &str = "10.50";
/// Of one piece: every order is above it.
const PRICE_DECLINED: &str = "1500.00";

/// A scenario's own customers and products: whatever belongs to them belongs to it.
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

    /// What the next customer wants, and the body that asks for it.
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
        let definition = kind.end().definition;
        let mut body =
            format!(r#"{{"customerId":"{customer}","definition":"{definition}","items":["#);
        // Neighbors on the shelf: each product once, without remembering which were drawn.
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
    fn every_scenario_orders_only_what_it_is_named_for() {
        for scenario in Scenario::ALL {
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
            assert_eq!(body["definition"], kind.end().definition);
            assert!(
                shop.products
                    .iter()
                    .any(|id| products.contains(id.to_string().as_str()))
            );
        }
    }

    #[test]
    fn the_gateway_declines_what_is_to_be_declined_and_nothing_else() {
        const LIMIT: f64 = 1_000.0;
        for scenario in Scenario::ALL {
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
    fn ends_are_told_apart_by_what_stands_in_the_database() {
        let ends: BTreeSet<End> = Kind::ALL.into_iter().map(Kind::end).collect();
        assert_eq!(ends.len(), Kind::ALL.len());
    }
}

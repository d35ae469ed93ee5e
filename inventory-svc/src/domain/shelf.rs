//! The stock of a batch's products and the reservations of its orders, as they stand while the batch is decided.
//!
//! ```text
//!            reserve                     complete
//!  available ───────▶ reserved ───────────────────────▶ sold
//!      ▲  └─────────────┼──── reserve, final ────────────▲│
//!      └──── release ───┴──────── release ────────────────┘
//! ```
//!
//! A decision changes nothing unless all of it can be done: an order that is refused leaves its items to the orders
//! behind it. What is written in the end is the difference to what was read, one row a product.

use saga_contracts::{
    fault_code,
    payload::{ReserveStock, StockItem},
};
use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

/// Lines of one order. An order that is larger is a mistake of its sender: it would lock that many rows.
const ITEMS_MAX: usize = 1_000;

/// Pieces of one product.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantities {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationState {
    /// Held for the order.
    Reserved,
    /// Given back.
    Released,
    /// Gone for good, unless a final sale is compensated.
    Sold,
}

impl ReservationState {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Reserved => "reserved",
            Self::Released => "released",
            Self::Sold => "sold",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        [Self::Reserved, Self::Released, Self::Sold]
            .into_iter()
            .find(|state| state.as_str() == text)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reservation {
    pub quantity: i64,
    pub state: ReservationState,
}

/// Rows are locked and written in this order: order first, then product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationKey {
    pub order_id: Uuid,
    pub product_id: Uuid,
}

/// Why a command is refused: a business answer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Refusal {
    #[error("there is no product {0}")]
    UnknownProduct(Uuid),
    #[error("product {product_id}: {wanted} wanted, {available} available")]
    OutOfStock {
        product_id: Uuid,
        wanted: i64,
        available: i64,
    },
    #[error("order {order_id} holds product {product_id} already")]
    AlreadyReserved { order_id: Uuid, product_id: Uuid },
    #[error("order {0} has nothing reserved")]
    NotReserved(Uuid),
    #[error("{0}")]
    InvalidPayload(String),
}

impl Refusal {
    /// The fault's code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProduct(_) => fault_code::UNKNOWN_PRODUCT,
            Self::OutOfStock { .. } => fault_code::OUT_OF_STOCK,
            Self::AlreadyReserved { .. } => fault_code::ALREADY_RESERVED,
            Self::NotReserved(_) => fault_code::NOT_RESERVED,
            Self::InvalidPayload(_) => fault_code::INVALID_PAYLOAD,
        }
    }
}

/// A row as it was read and as it stands now.
#[derive(Clone, Copy, Debug)]
struct Tracked<T> {
    before: T,
    now: T,
}

/// What a product's row gains or loses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockChange {
    pub product_id: Uuid,
    pub delta: Quantities,
}

/// What becomes of a reservation's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReservationChange {
    pub key: ReservationKey,
    pub before: Option<ReservationState>,
    pub now: Reservation,
}

/// The net changes of a batch, in key order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    pub stock: Vec<StockChange>,
    pub reservations: Vec<ReservationChange>,
}

/// See the module.
#[derive(Debug, Default)]
pub struct Shelf {
    stock: BTreeMap<Uuid, Tracked<Quantities>>,
    reservations: BTreeMap<ReservationKey, Tracked<Option<Reservation>>>,
}

impl Shelf {
    pub fn new(
        stock: impl IntoIterator<Item = (Uuid, Quantities)>,
        reservations: impl IntoIterator<Item = (ReservationKey, Reservation)>,
    ) -> Self {
        let stock = stock
            .into_iter()
            .map(|(product, quantities)| {
                (
                    product,
                    Tracked {
                        before: quantities,
                        now: quantities,
                    },
                )
            })
            .collect();
        let reservations = reservations
            .into_iter()
            .map(|(key, row)| {
                (
                    key,
                    Tracked {
                        before: Some(row),
                        now: Some(row),
                    },
                )
            })
            .collect();
        Self {
            stock,
            reservations,
        }
    }

    /// All of the order's items or none of them.
    pub fn reserve(&mut self, command: &ReserveStock) -> Result<Vec<StockItem>, Refusal> {
        let wanted = by_product(&command.items)?;
        for (product_id, quantity) in &wanted {
            self.check(command.order_id, *product_id, *quantity)?;
        }
        let state = if command.is_final {
            ReservationState::Sold
        } else {
            ReservationState::Reserved
        };
        for (product_id, quantity) in &wanted {
            let key = ReservationKey {
                order_id: command.order_id,
                product_id: *product_id,
            };
            self.stock_of(*product_id).available -= quantity;
            self.add(*product_id, state, *quantity);
            self.reservations
                .entry(key)
                .or_insert(Tracked {
                    before: None,
                    now: None,
                })
                .now = Some(Reservation {
                quantity: *quantity,
                state,
            });
        }
        Ok(wanted
            .into_iter()
            .map(|(product_id, quantity)| item(product_id, quantity))
            .collect())
    }

    /// Gives back whatever the order holds, also what was sold to it at once. Nothing held is nothing to give back.
    pub fn release(&mut self, order_id: Uuid) -> Vec<StockItem> {
        let mut moved = self.turn(
            order_id,
            ReservationState::Reserved,
            ReservationState::Released,
        );
        moved.extend(self.turn(order_id, ReservationState::Sold, ReservationState::Released));
        moved
    }

    /// Sells what the order has reserved. What was sold at once stays sold; an order that holds nothing cannot be
    /// completed, which a person must look at.
    pub fn complete(&mut self, order_id: Uuid) -> Result<Vec<StockItem>, Refusal> {
        let sold_before = self.held(order_id, ReservationState::Sold);
        let moved = self.turn(order_id, ReservationState::Reserved, ReservationState::Sold);
        if moved.is_empty() && sold_before.is_empty() {
            return Err(Refusal::NotReserved(order_id));
        }
        Ok(moved)
    }

    /// The difference to what was read.
    pub fn changes(&self) -> Changes {
        let stock = self.stock.iter().filter(|(_, row)| row.before != row.now);
        let reservations = self
            .reservations
            .iter()
            .filter(|(_, row)| row.before != row.now);
        Changes {
            stock: stock
                .map(|(product_id, row)| StockChange {
                    product_id: *product_id,
                    delta: Quantities {
                        available: row.now.available - row.before.available,
                        reserved: row.now.reserved - row.before.reserved,
                        sold: row.now.sold - row.before.sold,
                    },
                })
                .collect(),
            reservations: reservations
                .filter_map(|(key, row)| {
                    let before = row.before.map(|reservation| reservation.state);
                    row.now.map(|now| ReservationChange {
                        key: *key,
                        before,
                        now,
                    })
                })
                .collect(),
        }
    }

    fn check(&self, order_id: Uuid, product_id: Uuid, wanted: i64) -> Result<(), Refusal> {
        let Some(stock) = self.stock.get(&product_id) else {
            return Err(Refusal::UnknownProduct(product_id));
        };
        let held = self.reservations.get(&ReservationKey {
            order_id,
            product_id,
        });
        match held
            .and_then(|row| row.now)
            .map(|reservation| reservation.state)
        {
            Some(ReservationState::Reserved | ReservationState::Sold) => {
                return Err(Refusal::AlreadyReserved {
                    order_id,
                    product_id,
                });
            }
            Some(ReservationState::Released) | None => {}
        }
        let available = stock.now.available;
        if available < wanted {
            return Err(Refusal::OutOfStock {
                product_id,
                wanted,
                available,
            });
        }
        Ok(())
    }

    fn held(&self, order_id: Uuid, state: ReservationState) -> Vec<(ReservationKey, Reservation)> {
        let range = ReservationKey {
            order_id,
            product_id: Uuid::nil(),
        }..=ReservationKey {
            order_id,
            product_id: Uuid::max(),
        };
        self.reservations
            .range(range)
            .filter_map(|(key, row)| row.now.map(|reservation| (*key, reservation)))
            .filter(|(_, reservation)| reservation.state == state)
            .collect()
    }

    fn turn(
        &mut self,
        order_id: Uuid,
        from: ReservationState,
        to: ReservationState,
    ) -> Vec<StockItem> {
        let held = self.held(order_id, from);
        for (key, reservation) in &held {
            self.add(key.product_id, from, -reservation.quantity);
            self.add(key.product_id, to, reservation.quantity);
            if let Some(row) = self.reservations.get_mut(key) {
                row.now = Some(Reservation {
                    state: to,
                    ..*reservation
                });
            }
        }
        held.into_iter()
            .map(|(key, reservation)| item(key.product_id, reservation.quantity))
            .collect()
    }

    /// The counter that pieces in this state are part of.
    fn add(&mut self, product_id: Uuid, state: ReservationState, pieces: i64) {
        let stock = self.stock_of(product_id);
        match state {
            ReservationState::Reserved => stock.reserved += pieces,
            ReservationState::Released => stock.available += pieces,
            ReservationState::Sold => stock.sold += pieces,
        }
    }

    /// Every reservation refers to a product, and products of reservations are loaded with them. A row that is not
    /// there begins at zero, and writing its change fails.
    fn stock_of(&mut self, product_id: Uuid) -> &mut Quantities {
        let nothing = Quantities::default();
        &mut self
            .stock
            .entry(product_id)
            .or_insert(Tracked {
                before: nothing,
                now: nothing,
            })
            .now
    }
}

/// Several lines of one product are one wish.
fn by_product(items: &[StockItem]) -> Result<BTreeMap<Uuid, i64>, Refusal> {
    if items.is_empty() || items.len() > ITEMS_MAX {
        let message = format!("items: {} lines, 1 to {ITEMS_MAX} are allowed", items.len());
        return Err(Refusal::InvalidPayload(message));
    }
    let mut wanted = BTreeMap::new();
    for line in items {
        if line.quantity == 0 {
            let message = format!("items: the quantity of product {} is 0", line.product_id);
            return Err(Refusal::InvalidPayload(message));
        }
        *wanted.entry(line.product_id).or_insert(0) += i64::from(line.quantity);
    }
    if let Some((product, _)) = wanted.iter().find(|(_, sum)| **sum > i64::from(u32::MAX)) {
        let message = format!("items: the lines of product {product} add up to too much");
        return Err(Refusal::InvalidPayload(message));
    }
    Ok(wanted)
}

/// Quantities are sums that were checked to fit; the database holds none that is larger.
fn item(product_id: Uuid, quantity: i64) -> StockItem {
    StockItem {
        product_id,
        quantity: u32::try_from(quantity).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
#[path = "shelf_tests.rs"]
mod tests;

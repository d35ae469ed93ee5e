//! The stock of a batch's products and the reservations of its orders, as the batch's decisions change them.
//!
//! ```text
//!            reserve                     complete
//!  available ───────▶ reserved ───────────────────────▶ sold
//!      ▲  └─────────────┼──── reserve, final ────────────▲│
//!      └──── release ───┴──────── release ────────────────┘
//! ```
//!
//! A decision changes nothing unless all of it can be done: a refused order leaves its items to later orders. The batch
//! writes the difference to the rows that were read, one row per product.
//!
//! An order is held by one saga: the saga that has reserved for the order, or else the saga that the order's id names.
//! No other saga reserves, completes or releases anything of the order. This also applies to compensations: the barrier
//! answers the compensation of a saga whose action was refused, so a release that gets here has a reservation.
//! Answering such a release as if there were nothing to release would end its saga and leave the reservation in place.

use saga_contracts::{
    fault_code,
    payload::{ReserveStock, StockItem},
    saga_of_order,
};
use serde::Serialize;
use std::collections::BTreeMap;
use thiserror::Error;
use utoipa::ToSchema;
use uuid::Uuid;

/// The maximum number of lines in an order. A larger order is a mistake of its sender: it would lock that many rows.
const ITEMS_MAX: usize = 1_000;

/// The pieces of one product in each state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Quantities {
    pub available: i64,
    pub reserved: i64,
    pub sold: i64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReservationState {
    /// Reserved for the order.
    Reserved,
    /// Released, so available again.
    Released,
    /// Sold for good, unless a final sale is compensated.
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
    /// The saga that holds the order.
    pub saga_id: Uuid,
    pub quantity: i64,
    pub state: ReservationState,
}

/// The key of a reservation. Rows are locked and written in this order: order first, then product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ReservationKey {
    pub order_id: Uuid,
    pub product_id: Uuid,
}

/// The reason why a command is refused. A refusal is a business failure.
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
    #[error("order {order_id} is held by saga {holder}")]
    OrderOfAnotherSaga { order_id: Uuid, holder: Uuid },
    #[error("order {0} has nothing reserved")]
    NotReserved(Uuid),
    #[error("{0}")]
    InvalidPayload(String),
}

impl Refusal {
    /// Returns the fault's code, for programs.
    pub fn code(&self) -> &'static str {
        match self {
            Self::UnknownProduct(_) => fault_code::UNKNOWN_PRODUCT,
            Self::OutOfStock { .. } => fault_code::OUT_OF_STOCK,
            Self::AlreadyReserved { .. } => fault_code::ALREADY_RESERVED,
            Self::OrderOfAnotherSaga { .. } => fault_code::ORDER_OF_ANOTHER_SAGA,
            Self::NotReserved(_) => fault_code::NOT_RESERVED,
            Self::InvalidPayload(_) => fault_code::INVALID_PAYLOAD,
        }
    }
}

/// A row as it was read, and with the batch's changes so far.
#[derive(Clone, Copy, Debug)]
struct Tracked<T> {
    before: T,
    now: T,
}

/// The change of a product's row.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StockChange {
    pub product_id: Uuid,
    pub delta: Quantities,
}

/// The change of a reservation's row.
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

/// The locked rows of a batch, and the batch's decisions on them.
#[derive(Debug, Default)]
pub struct StockBatch {
    stock: BTreeMap<Uuid, Tracked<Quantities>>,
    reservations: BTreeMap<ReservationKey, Tracked<Option<Reservation>>>,
}

impl StockBatch {
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

    /// Reserves all of the order's items or none.
    pub fn reserve(
        &mut self,
        saga_id: Uuid,
        command: &ReserveStock,
    ) -> Result<Vec<StockItem>, Refusal> {
        let wanted = by_product(&command.items)?;
        self.check_holder(saga_id, command.order_id)?;
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
                saga_id,
                quantity: *quantity,
                state,
            });
        }
        Ok(wanted
            .into_iter()
            .map(|(product_id, quantity)| item(product_id, quantity))
            .collect())
    }

    /// Releases everything that the order holds, including items of a final sale. An order that holds nothing releases
    /// nothing.
    pub fn release(&mut self, saga_id: Uuid, order_id: Uuid) -> Result<Vec<StockItem>, Refusal> {
        self.check_holder(saga_id, order_id)?;
        let mut moved = self.turn(
            order_id,
            ReservationState::Reserved,
            ReservationState::Released,
        );
        moved.extend(self.turn(order_id, ReservationState::Sold, ReservationState::Released));
        Ok(moved)
    }

    /// Sells the items that the order has reserved. Items of a final sale stay sold. An order that holds nothing is
    /// refused, because a person must look at it.
    pub fn complete(&mut self, saga_id: Uuid, order_id: Uuid) -> Result<Vec<StockItem>, Refusal> {
        self.check_holder(saga_id, order_id)?;
        let sold_before = self.held(order_id, ReservationState::Sold);
        let moved = self.turn(order_id, ReservationState::Reserved, ReservationState::Sold);
        if moved.is_empty() && sold_before.is_empty() {
            return Err(Refusal::NotReserved(order_id));
        }
        Ok(moved)
    }

    /// Returns the difference to the rows that were read.
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

    fn check_holder(&self, saga_id: Uuid, order_id: Uuid) -> Result<(), Refusal> {
        let holder = self
            .of_order(order_id)
            .map(|(_, reservation)| reservation.saga_id)
            .next()
            .or_else(|| saga_of_order(order_id));
        match holder {
            Some(holder) if holder != saga_id => {
                Err(Refusal::OrderOfAnotherSaga { order_id, holder })
            }
            Some(_) | None => Ok(()),
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
        self.of_order(order_id)
            .filter(|(_, reservation)| reservation.state == state)
            .collect()
    }

    fn of_order(&self, order_id: Uuid) -> impl Iterator<Item = (ReservationKey, Reservation)> {
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

    /// Adds pieces to the counter of this state.
    fn add(&mut self, product_id: Uuid, state: ReservationState, pieces: i64) {
        let stock = self.stock_of(product_id);
        match state {
            ReservationState::Reserved => stock.reserved += pieces,
            ReservationState::Released => stock.available += pieces,
            ReservationState::Sold => stock.sold += pieces,
        }
    }

    /// Returns the quantities of a product. Every reservation refers to a product, and the products of reservations are
    /// loaded with them. A row that is missing begins at zero, and writing its change fails.
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

/// Sums up the quantities by product: several lines of one product count as one.
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

/// Builds an item. The quantity fits, because the sums were checked and the database holds no larger quantity.
fn item(product_id: Uuid, quantity: i64) -> StockItem {
    StockItem {
        product_id,
        quantity: u32::try_from(quantity).unwrap_or(u32::MAX),
    }
}

#[cfg(test)]
#[path = "stock_tests.rs"]
mod tests;

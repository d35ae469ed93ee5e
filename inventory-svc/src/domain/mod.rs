//! The rules of stock, decided in memory: no I/O and no clock.

mod stock;

pub use stock::{
    Changes, Quantities, Refusal, Reservation, ReservationChange, ReservationKey, ReservationState,
    StockBatch, StockChange,
};

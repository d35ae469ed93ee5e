//! What may be done with stock, decided in memory: no I/O and no clock.

mod shelf;

pub use shelf::{
    Changes, Quantities, Refusal, Reservation, ReservationChange, ReservationKey, ReservationState,
    Shelf, StockChange,
};

//! What may become of a payment, decided in memory: no I/O, and time is an input.

mod book;
mod money;
mod payment;

pub use book::{Book, Entry, EntryOutcome, PaymentChange};
pub use money::{MajorAmount, decimal, digits_of};
pub use payment::{Operation, Payment, PaymentStatus, RefundDecision, Refusal, check_charge};

//! The rules of payments, decided in memory: no I/O, and time is an input.

mod batch;
mod payment;

pub use batch::{Entry, EntryOutcome, PaymentBatch, PaymentChange};
pub use payment::{
    Caller, Operation, Payment, PaymentStatus, RefundDecision, Refusal, check_charge,
};

//! Names the topics and consumer groups of the reference application's participants, and re-exports the protocol's.

pub use saga_core::message::topic::{
    ORCHESTRATOR_GROUP, SAGA_EVENTS, SAGA_INPUTS, dead_letters_of,
};

pub const ORDER_COMMANDS: &str = "order.commands";
pub const INVENTORY_COMMANDS: &str = "inventory.commands";
pub const PAYMENT_COMMANDS: &str = "payment.commands";

/// All topics that the system needs, without the dead-letter topics.
pub const ALL: [&str; 5] = [
    SAGA_INPUTS,
    SAGA_EVENTS,
    ORDER_COMMANDS,
    INVENTORY_COMMANDS,
    PAYMENT_COMMANDS,
];

pub const ORDER_GROUP: &str = "order-svc";
pub const INVENTORY_GROUP: &str = "inventory-svc";
pub const PAYMENT_GROUP: &str = "payment-svc";

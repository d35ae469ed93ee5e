//! Topic names and the consumer groups of the participants. `<topic>.dlq` holds a topic's dead letters.

/// Everything that can move a saga.
pub const SAGA_INPUTS: &str = "saga.inputs";
/// Every state change of every saga.
pub const SAGA_EVENTS: &str = "saga.events";
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

pub const ORCHESTRATOR_GROUP: &str = "orchestrator";
pub const ORDER_GROUP: &str = "order-svc";
pub const INVENTORY_GROUP: &str = "inventory-svc";
pub const PAYMENT_GROUP: &str = "payment-svc";

/// The dead-letter topic of a topic.
pub fn dead_letters(topic: &str) -> String {
    format!("{topic}.dlq")
}

//! Makes the AsyncAPI 3.0 document of every topic from the types of this crate and of saga-core
//! (<https://www.asyncapi.com/docs/reference/specification/v3.0.0>). The document is committed as `asyncapi.json`
//! beside this crate's manifest; a test checks that the file matches the types.

use crate::{message_type as name, payload, topic};
use saga_core::{
    instance::LifecycleMessage,
    message::{OperatorAction, TimerDue},
};
use serde_json::{Map, Value, json};
use utoipa::ToSchema;

/// One kind of message: its type, its topic, its payload's schema and its purpose.
struct Message {
    name: &'static str,
    topic: &'static str,
    role: Role,
    schema: String,
    summary: &'static str,
}

#[derive(Clone, Copy)]
enum Role {
    Start,
    Command,
    Reply,
    Internal,
    Event,
}

/// Collects payload schemas by name.
#[derive(Default)]
struct Schemas(Map<String, Value>);

impl Schemas {
    fn add<T: ToSchema>(&mut self) -> String {
        let mut all = Vec::new();
        T::schemas(&mut all);
        all.push((T::name().into_owned(), T::schema()));
        for (name, schema) in all {
            self.0
                .insert(name, serde_json::to_value(schema).unwrap_or_default());
        }
        T::name().into_owned()
    }
}

/// Returns the whole document.
pub fn document() -> Value {
    let mut schemas = Schemas::default();
    let messages = messages(&mut schemas);
    let mut channels: Map<String, Value> = Map::new();
    for name in topic::ALL {
        let of_topic: Map<String, Value> = messages
            .iter()
            .filter(|message| message.topic == name)
            .map(|m| {
                (
                    m.name.to_owned(),
                    reference(&format!("components/messages/{}", m.name)),
                )
            })
            .collect();
        channels.insert(name.to_owned(), channel(name, &of_topic));
    }
    for name in topic::ALL {
        if name != topic::SAGA_EVENTS {
            let dead = topic::dead_letters_of(name);
            let letter = reference("components/messages/deadLetter");
            let message = Map::from_iter([("deadLetter".to_owned(), letter)]);
            let described = channel(&dead, &message);
            channels.insert(dead, described);
        }
    }
    let mut components: Map<String, Value> = messages
        .iter()
        .map(|message| (message.name.to_owned(), describe(message)))
        .collect();
    components.insert("deadLetter".to_owned(), dead_letter());
    json!({
        "asyncapi": "3.0.0",
        "info": {
            "title": "Saga orchestrator: topics",
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Commands, replies, inputs and lifecycle events. Keys are the saga id as text; values are \
                JSON; headers are the CloudEvents 1.0 Kafka binding (binary mode) plus the saga headers.",
            "license": {"name": "Apache-2.0"},
        },
        "defaultContentType": "application/json",
        "channels": channels,
        "operations": operations(&messages),
        "components": {"messages": components, "schemas": schemas.0},
    })
}

fn reference(path: &str) -> Value {
    json!({"$ref": format!("#/{path}")})
}

fn channel(address: &str, messages: &Map<String, Value>) -> Value {
    json!({"address": address, "messages": messages, "bindings": {"kafka": {"topic": address}}})
}

/// Returns the operations from a participant's point of view: it receives commands and sends replies.
fn operations(messages: &[Message]) -> Map<String, Value> {
    messages
        .iter()
        .map(|message| {
            let action = match message.role {
                Role::Command | Role::Event => "receive",
                Role::Start | Role::Reply | Role::Internal => "send",
            };
            let channel = format!("channels/{}", message.topic.replace('/', "~1"));
            let operation = json!({
                "action": action,
                "channel": reference(&channel),
                "messages": [reference(&format!("{channel}/messages/{}", message.name))],
            });
            (format!("{action}.{}", message.name), operation)
        })
        .collect()
}

fn describe(message: &Message) -> Value {
    json!({
        "name": message.name,
        "summary": message.summary,
        "contentType": "application/json",
        "headers": headers(message.role),
        "payload": reference(&format!("components/schemas/{}", message.schema)),
        "bindings": {"kafka": {"key": {"type": "string", "format": "uuid", "description": "The saga id."}}},
    })
}

/// Returns the headers of a message by its role. All values are text.
fn headers(role: Role) -> Value {
    let mut required = vec![
        "ce_specversion",
        "ce_id",
        "ce_type",
        "ce_source",
        "ce_time",
        "saga-id",
    ];
    required.extend_from_slice(match role {
        Role::Start => &["saga-definition"],
        Role::Command => &[
            "saga-step",
            "saga-direction",
            "saga-attempt",
            "save-failure",
            "reply-topic",
            "reply-partition",
        ],
        Role::Reply => &[
            "saga-step",
            "saga-direction",
            "saga-attempt",
            "saga-outcome",
        ],
        Role::Internal => &[],
        Role::Event => &["saga-sequence", "saga-definition"],
    });
    let optional: &[&str] = match role {
        Role::Start => &[
            "saga-business-key",
            "saga-start",
            "correlation-id",
            "traceparent",
            "content-type",
        ],
        Role::Command => &[
            "saga-floor",
            "correlation-id",
            "traceparent",
            "content-type",
        ],
        Role::Reply | Role::Internal | Role::Event => {
            &["correlation-id", "traceparent", "content-type"]
        }
    };
    let mut properties: Map<String, Value> = required
        .iter()
        .chain(optional)
        .map(|name| ((*name).to_owned(), json!({"type": "string"})))
        .collect();
    for (name, values) in [
        (
            "saga-direction",
            json!(["forward", "compensation", "resolve"]),
        ),
        (
            "saga-outcome",
            json!(["success", "failure", "error", "not_done"]),
        ),
        ("save-failure", json!(["true", "false"])),
        ("saga-start", json!(["again"])),
    ] {
        if let Some(property) = properties.get_mut(name) {
            property["enum"] = values;
        }
    }
    json!({"type": "object", "required": required, "properties": properties})
}

fn dead_letter() -> Value {
    let names = [
        "reason",
        "detail",
        "topic",
        "partition",
        "offset",
        "time",
        "cut",
    ];
    let properties: Map<String, Value> = names
        .iter()
        .map(|name| (format!("dead-letter-{name}"), json!({"type": "string"})))
        .collect();
    json!({
        "name": "deadLetter",
        "summary": "A record that could not be processed, with its own key, value and headers, and why.",
        "headers": {"type": "object", "properties": properties},
        "payload": {"description": "The value as it was."},
    })
}

fn messages(schemas: &mut Schemas) -> Vec<Message> {
    let order_created = schemas.add::<payload::OrderCreated>();
    let mut all = vec![Message {
        name: name::ORDER_CREATED,
        topic: topic::SAGA_INPUTS,
        role: Role::Start,
        schema: order_created,
        summary: "Starts the saga of an order.",
    }];
    all.extend(inventory(schemas));
    all.extend(payment(schemas));
    all.extend(order(schemas));
    all.extend(orchestrator(schemas));
    all
}

fn orchestrator(schemas: &mut Schemas) -> Vec<Message> {
    let internal = |name, schema, summary| Message {
        name,
        topic: topic::SAGA_INPUTS,
        role: Role::Internal,
        schema,
        summary,
    };
    vec![
        internal(
            "saga.timer.due",
            schemas.add::<TimerDue>(),
            "A timeout, a backoff or a deadline fell due; produced by the orchestrator for itself.",
        ),
        internal(
            "saga.operator.action",
            schemas.add::<OperatorAction>(),
            "A person, or a service on a person's behalf, asks for something.",
        ),
        Message {
            name: "saga.event",
            topic: topic::SAGA_EVENTS,
            role: Role::Event,
            schema: schemas.add::<LifecycleMessage>(),
            summary: "One state change of a saga; ce_type is `saga.` and the payload's `type`.",
        },
    ]
}

fn command(
    name: &'static str,
    topic: &'static str,
    schema: String,
    summary: &'static str,
) -> Message {
    Message {
        name,
        topic,
        role: Role::Command,
        schema,
        summary,
    }
}

fn reply(name: &'static str, schema: String, summary: &'static str) -> Message {
    Message {
        name,
        topic: topic::SAGA_INPUTS,
        role: Role::Reply,
        schema,
        summary,
    }
}

fn inventory(schemas: &mut Schemas) -> Vec<Message> {
    let to = topic::INVENTORY_COMMANDS;
    let order = schemas.add::<payload::OrderRef>();
    let moved = schemas.add::<payload::StockMoved>();
    let fault = schemas.add::<payload::FaultPayload>();
    let reserve = schemas.add::<payload::ReserveStock>();
    vec![
        command(
            name::INVENTORY_RESERVE,
            to,
            reserve,
            "Reserve all items, or none.",
        ),
        command(
            name::INVENTORY_RELEASE,
            to,
            order.clone(),
            "Give the reservation back.",
        ),
        command(
            name::INVENTORY_COMPLETE,
            to,
            order,
            "The reserved items are sold.",
        ),
        reply(
            name::INVENTORY_RESERVED,
            moved.clone(),
            "All items are reserved.",
        ),
        reply(
            name::INVENTORY_FAILED,
            fault,
            "Out of stock, or an unknown product.",
        ),
        reply(
            name::INVENTORY_RELEASED,
            moved.clone(),
            "The items are available again.",
        ),
        reply(name::INVENTORY_COMPLETED, moved, "The items are sold."),
    ]
}

fn payment(schemas: &mut Schemas) -> Vec<Message> {
    let to = topic::PAYMENT_COMMANDS;
    let order = schemas.add::<payload::OrderRef>();
    let moved = schemas.add::<payload::PaymentMoved>();
    let fault = schemas.add::<payload::FaultPayload>();
    let charge = schemas.add::<payload::ChargePayment>();
    vec![
        command(name::PAYMENT_CHARGE, to, charge, "Charge the customer."),
        command(name::PAYMENT_REFUND, to, order, "Give the charge back."),
        reply(
            name::PAYMENT_SUCCESS,
            moved.clone(),
            "The customer is charged.",
        ),
        reply(name::PAYMENT_FAILED, fault, "The gateway declined."),
        reply(name::PAYMENT_REFUNDED, moved, "The charge is given back."),
    ]
}

fn order(schemas: &mut Schemas) -> Vec<Message> {
    let to = topic::ORDER_COMMANDS;
    let order = schemas.add::<payload::OrderRef>();
    let cancel = schemas.add::<payload::CancelOrder>();
    let decided = schemas.add::<payload::OrderDecided>();
    let fault = schemas.add::<payload::FaultPayload>();
    vec![
        command(name::ORDER_CONFIRM, to, order, "The order is confirmed."),
        command(
            name::ORDER_CANCEL,
            to,
            cancel,
            "The order is cancelled, with the cause.",
        ),
        reply(
            name::ORDER_CONFIRMED,
            decided.clone(),
            "The order is CONFIRMED.",
        ),
        reply(name::ORDER_CANCELLED, decided, "The order is CANCELLED."),
        reply(
            name::ORDER_REFUSED,
            fault,
            "The order has ended the other way, or there is none.",
        ),
    ]
}

#[cfg(test)]
mod tests {
    use super::document;

    /// Set `UPDATE_ASYNCAPI=1` to rewrite the file.
    #[test]
    fn the_committed_document_matches_the_types() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/asyncapi.json");
        let generated = format!("{:#}\n", document());
        if std::env::var_os("UPDATE_ASYNCAPI").is_some() {
            std::fs::write(path, &generated).expect("write");
        }
        let committed = std::fs::read_to_string(path).expect("asyncapi.json");
        assert!(
            committed == generated,
            "run with UPDATE_ASYNCAPI=1 and commit asyncapi.json"
        );
    }
}

//! The shipped definitions in a hurry: the same steps, kinds, order, participants, commands, inputs and numbers of
//! attempts; only a name of their own, and shorter times.

use saga_core::definition::SagaDefinition;
use saga_testkit::saga_test::{place_order, place_order_payment_first, shipped};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// Far above what an answer takes here while hundreds of sagas run, so that only a scripted silence runs into it; short
/// enough that ten silent attempts are over in half a minute.
const TIMEOUT: &str = "3s";
const FIRST_DELAY: &str = "20ms";
const MAX_DELAY: &str = "100ms";
/// What stands for a time in a definition's document, of a command and of its retries.
const TIMES: [&str; 3] = ["timeoutMs", "firstDelayMs", "maxDelayMs"];

/// A definition, and the file that the orchestrator reads it from.
pub struct Hurried {
    pub definition: Arc<SagaDefinition>,
    pub file: String,
    pub yaml: String,
}

pub fn hurried() -> Vec<Hurried> {
    [place_order(), place_order_payment_first()]
        .iter()
        .map(hurry)
        .collect()
}

fn hurry(original: &SagaDefinition) -> Hurried {
    let document = &original.document;
    let name = format!("hurried-{}", original.name);
    let steps: Vec<Value> = elements(&document["steps"]).iter().map(step).collect();
    // JSON is YAML, too.
    let yaml = json!({
        "name": name,
        "version": document["version"],
        "deadline": format!("{}ms", document["deadlineMs"]),
        "steps": steps,
    })
    .to_string();
    let file = format!("{name}.yaml");
    let definition = shipped(&file, &yaml);
    assert_eq!(
        timeless(&definition.document),
        timeless(document),
        "the definition of the sweep is the shipped one, but for its times"
    );
    Hurried {
        definition: Arc::new(definition),
        file,
        yaml,
    }
}

/// As an author writes it.
fn step(document: &Value) -> Value {
    let mut step = Map::new();
    for key in ["name", "kind", "participant"] {
        step.insert(key.to_owned(), document[key].clone());
    }
    if !elements(&document["after"]).is_empty() {
        step.insert("after".to_owned(), document["after"].clone());
    }
    if let Some(action) = document.get("action") {
        step.append(&mut command(action));
    }
    if let Some(compensation) = document.get("compensation") {
        step.insert(
            "compensation".to_owned(),
            Value::Object(command(compensation)),
        );
    }
    Value::Object(step)
}

fn command(document: &Value) -> Map<String, Value> {
    let retry = &document["retry"];
    let written = json!({
        "command": document["command"],
        "input": document["input"],
        "timeout": TIMEOUT,
        "retry": {
            "attempts": retry["attempts"],
            "firstDelay": FIRST_DELAY,
            "factor": retry["factor"],
            "maxDelay": MAX_DELAY,
            "jitter": retry["jitter"],
        },
    });
    let Value::Object(written) = written else {
        unreachable!("it was just written as an object")
    };
    written
}

/// The document without its name and its times.
fn timeless(document: &Value) -> Value {
    match document {
        Value::Object(entries) => entries
            .iter()
            .filter(|(key, _)| !TIMES.contains(&key.as_str()))
            .map(|(key, value)| (key.clone(), timeless(value)))
            .collect::<Map<_, _>>()
            .into(),
        Value::Array(items) => items.iter().map(timeless).collect(),
        Value::String(text) => text.strip_prefix("hurried-").unwrap_or(text).into(),
        Value::Null | Value::Bool(_) | Value::Number(_) => document.clone(),
    }
}

fn elements(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}

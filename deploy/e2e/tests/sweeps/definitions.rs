//! The shipped definitions with shorter times, under different names. Steps, kinds, order, participants, commands,
//! inputs and numbers of attempts are unchanged.

use orchestrator::registry::SHIPPED;
use saga_core::definition::SagaDefinition;
use saga_testkit::definition;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// The reply timeout. It is far above the time that a reply takes while hundreds of sagas run, so that only a scripted
/// silence exceeds it. It is short enough for ten silent attempts to end within half a minute.
const TIMEOUT: &str = "3s";
const FIRST_DELAY: &str = "20ms";
const MAX_DELAY: &str = "100ms";
/// The keys of the times in a definition's document, for a command and for its retries.
const TIMES: [&str; 3] = ["timeoutMs", "firstDelayMs", "maxDelayMs"];

/// A definition with short times, and the file that the orchestrator reads it from.
pub struct Hurried {
    pub definition: Arc<SagaDefinition>,
    pub file: String,
    pub yaml: String,
}

pub fn hurried() -> Vec<Hurried> {
    shipped().iter().map(hurry).collect()
}

pub fn shipped() -> [SagaDefinition; 2] {
    SHIPPED.map(|(file, yaml)| definition(file, yaml))
}

fn hurry(original: &SagaDefinition) -> Hurried {
    let document = &original.document;
    let name = format!("hurried-{}", original.name);
    let steps: Vec<Value> = elements(&document["steps"]).iter().map(step).collect();
    // JSON is valid YAML.
    let yaml = json!({
        "name": name,
        "version": document["version"],
        "deadline": format!("{}ms", document["deadlineMs"]),
        "businessKey": document["businessKey"],
        "input": document["input"],
        "steps": steps,
    })
    .to_string();
    let file = format!("{name}.yaml");
    let definition = definition(&file, &yaml);
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

/// Returns the step as an author writes it in YAML.
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

/// Returns the document without the prefix of its name and without its times.
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

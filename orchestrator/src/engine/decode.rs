//! From records to inputs, with everything checked that would otherwise fail inside the transaction.

use saga_core::{
    ids::SagaId,
    instance::Position,
    message::{Fault, IncomingRecord, Input, Outcome},
};
use saga_messaging::dead_letter::reason;
use serde_json::{Value, json};

/// An input that can be decided.
#[derive(Clone, Debug)]
pub struct Arrived {
    /// Of its record in the batch.
    pub index: usize,
    pub position: Position,
    /// The record's time, 0 if the broker keeps none.
    pub record_at_ms: i64,
    pub input: Input,
}

impl Arrived {
    pub fn saga_id(&self) -> SagaId {
        self.input.saga_id()
    }
}

/// A record for the dead-letter topic, with the reason that programs filter by and one for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub index: usize,
    pub reason: &'static str,
    pub detail: String,
}

/// Longest text that a saga's row and its events carry for one fault, actor, reason or key, in characters. Larger
/// ones come from foreign participants and would be repeated in every event.
pub const MAX_TEXT_CHARS: usize = 2_000;
/// Longest code, key, name or correlation id, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// Deepest nesting of an input or a result. The saga's row nests it deeper, and what is deeper than the parser's limit
/// of 128 could be written but never read again; a definition nests it deeper too, and participants take 64 levels.
pub const MAX_DEPTH: usize = 48;

/// Decodes every record, in order.
pub fn decode(records: &[IncomingRecord]) -> (Vec<Arrived>, Vec<Rejected>) {
    let mut arrived = Vec::with_capacity(records.len());
    let mut rejected = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match decode_one(record) {
            Ok(input) => arrived.push(Arrived {
                index,
                position: Position {
                    partition: record.partition,
                    offset: record.offset,
                },
                record_at_ms: record.timestamp_ms,
                input,
            }),
            Err((reason, detail)) => rejected.push(Rejected {
                index,
                reason,
                detail,
            }),
        }
    }
    (arrived, rejected)
}

fn decode_one(record: &IncomingRecord) -> Result<Input, (&'static str, String)> {
    let mut input = Input::decode(record).map_err(|error| (error.reason(), error.to_string()))?;
    tidy(&mut input)?;
    Ok(input)
}

/// Bounds what the row would carry along, and refuses what `jsonb` and `text` cannot hold.
fn tidy(input: &mut Input) -> Result<(), (&'static str, String)> {
    match input {
        Input::Start(start) => {
            if start
                .business_key
                .as_ref()
                .is_some_and(|key| key.chars().count() > MAX_NAME_CHARS)
            {
                let detail = format!("the business key is longer than {MAX_NAME_CHARS} characters");
                return Err((reason::BAD_HEADER, detail));
            }
            if start.trace.correlation_id.is_empty() {
                start.trace.correlation_id = start.saga_id.to_string();
            }
            clamp(&mut start.trace.correlation_id, MAX_NAME_CHARS);
            let texts = [
                start.business_key.as_deref(),
                Some(start.trace.correlation_id.as_str()),
                start.trace.traceparent.as_deref(),
            ];
            refuse_nul(texts.into_iter().flatten().any(text_has_nul))?;
            check_value(&start.input)
        }
        Input::Reply(reply) => {
            match reply.outcome {
                Outcome::Failure | Outcome::Error => {
                    let Fault {
                        mut code,
                        mut message,
                    } = reply.fault();
                    clamp(&mut code, MAX_NAME_CHARS);
                    clamp(&mut message, MAX_TEXT_CHARS);
                    reply.payload = json!({"code": code, "message": message});
                }
                Outcome::Success | Outcome::NotDone => {}
            }
            check_value(&reply.payload)
        }
        Input::Timer(_) => Ok(()),
        Input::Operator(action) => {
            clamp(&mut action.actor, MAX_NAME_CHARS);
            clamp(&mut action.reason, MAX_TEXT_CHARS);
            clamp(&mut action.trace.correlation_id, MAX_NAME_CHARS);
            let texts = [
                Some(action.actor.as_str()),
                Some(action.reason.as_str()),
                Some(action.trace.correlation_id.as_str()),
                action.kind.step(),
            ];
            refuse_nul(texts.into_iter().flatten().any(text_has_nul))?;
            if action.kind.step().is_some_and(is_longer_than_a_name) {
                let detail = format!("the step's name is longer than {MAX_NAME_CHARS} characters");
                return Err(("bad_payload", detail));
            }
            action.kind.given().map_or(Ok(()), check_value)
        }
    }
}

fn is_longer_than_a_name(text: &str) -> bool {
    text.chars().count() > MAX_NAME_CHARS
}

fn clamp(text: &mut String, limit_chars: usize) {
    if text.len() > limit_chars && text.chars().count() > limit_chars {
        *text = text.chars().take(limit_chars).collect();
    }
}

fn refuse_nul(found: bool) -> Result<(), (&'static str, String)> {
    if found {
        return Err((
            reason::NUL_CHARACTER,
            "a text contains U+0000, which no table can hold".to_owned(),
        ));
    }
    Ok(())
}

fn text_has_nul(text: &str) -> bool {
    text.contains('\0')
}

/// Whether a row can hold a value, and give it back.
pub fn check_value(value: &Value) -> Result<(), (&'static str, String)> {
    refuse_nul(has_nul(value))?;
    if depth(value) > MAX_DEPTH {
        return Err((
            reason::TOO_DEEP,
            format!("a value is nested deeper than {MAX_DEPTH} levels"),
        ));
    }
    Ok(())
}

/// Whether any string or key in a value contains U+0000. The parser's limit bounds how deep this goes.
fn has_nul(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
        Value::String(text) => text_has_nul(text),
        Value::Array(items) => items.iter().any(has_nul),
        Value::Object(fields) => fields
            .iter()
            .any(|(key, value)| text_has_nul(key) || has_nul(value)),
    }
}

fn depth(value: &Value) -> usize {
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 0,
        Value::Array(items) => 1 + items.iter().map(depth).max().unwrap_or_default(),
        Value::Object(fields) => 1 + fields.values().map(depth).max().unwrap_or_default(),
    }
}

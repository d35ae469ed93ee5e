//! Decodes records into inputs, and checks everything that would otherwise fail inside the transaction.

use saga_core::{
    ids::SagaId,
    instance::Position,
    message::{Fault, IncomingRecord, Input, Outcome, StartSaga, header},
};
use saga_messaging::dead_letter::reason;
use serde_json::{Value, json};

/// An input that was decoded and checked.
#[derive(Clone, Debug)]
pub struct ReceivedInput {
    /// The index of the input's record in the batch.
    pub index: usize,
    pub position: Position,
    /// True for a start that was sent again (header `saga-start`).
    pub again: bool,
    pub input: Input,
}

impl ReceivedInput {
    pub fn saga_id(&self) -> SagaId {
        self.input.saga_id()
    }
}

/// A record for the dead-letter topic, with a reason that programs filter by and a detail that people read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rejected {
    pub index: usize,
    pub reason: &'static str,
    pub detail: String,
}

/// The longest text of a fault or of an action's reason that a saga's row and its events carry, in characters. Longer
/// texts come from foreign participants, and would be repeated in every event.
pub const MAX_TEXT_CHARS: usize = 2_000;
/// The longest code, key, name or correlation id, in characters.
pub const MAX_NAME_CHARS: usize = 200;
/// The deepest nesting of an input or a result, in levels. A saga's row nests the value deeper, and a row that is
/// deeper than the parser's limit of 128 could be written but never read again. A definition nests values deeper too,
/// and participants accept 64 levels.
pub const MAX_DEPTH: usize = 48;

/// Decodes every record, in order. Returns the inputs, and the records to dead-letter.
pub fn decode(records: &[IncomingRecord]) -> (Vec<ReceivedInput>, Vec<Rejected>) {
    let mut arrived = Vec::with_capacity(records.len());
    let mut rejected = Vec::new();
    for (index, record) in records.iter().enumerate() {
        match decode_one(record) {
            Ok(input) => arrived.push(ReceivedInput {
                index,
                position: Position {
                    partition: record.partition,
                    offset: record.offset,
                    at_ms: record.timestamp_ms,
                },
                again: is_again(record),
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

/// Returns whether a start was sent again. Every other value of the header is ignored: a newer starter may send values
/// that this release does not know.
fn is_again(record: &IncomingRecord) -> bool {
    matches!(record.header(header::START), Ok(Some(StartSaga::AGAIN)))
}

fn decode_one(record: &IncomingRecord) -> Result<Input, (&'static str, String)> {
    let mut input = Input::decode(record).map_err(|error| (error.reason(), error.to_string()))?;
    tidy(&mut input)?;
    Ok(input)
}

/// Truncates texts that the saga's row would carry, and rejects values that `jsonb` and `text` cannot hold.
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

/// Checks that a row can hold a value and that the value can be read again.
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

/// Returns whether any string or key in a value contains U+0000. The parser's limit bounds the depth of the recursion.
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

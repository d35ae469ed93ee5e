//! Checks that run before a transaction begins, so that no record can make a transaction fail.

use super::{ParticipantConfig, storage::TxContext};
use saga_core::{
    message::{Command, Fault, IncomingRecord},
    mutant::{self, Mutant},
};
use saga_messaging::dead_letter::reason;
use serde_json::Value;
use tracing::warn;

/// Deepest nesting of a payload. A deeper document is no real payload, and costs stack wherever it is read.
const DEPTH_LIMIT: usize = 64;
/// Deepest nesting of a result. The limit is lower because the orchestrator nests a result into its stored state and
/// into other commands.
const RESULT_DEPTH_LIMIT: usize = 48;
/// Longest step name; it fits an index row, with room to spare.
const STEP_LIMIT_BYTES: usize = 200;
/// Longest command type. A reply's type is derived from it, and must leave room for the result.
const TYPE_LIMIT_BYTES: usize = 1_024;
/// Furthest time, in milliseconds, that a saga's id may lie ahead of the database's clock: clocks disagree by minutes
/// at most, and partitions reach further than this.
const AHEAD_LIMIT_MS: i64 = 24 * 60 * 60 * 1_000;

/// The refusal of a record that has no effect. The record is dead-lettered, and answered `error` if the command that
/// asked is known.
#[derive(Debug)]
pub(super) struct Refusal {
    pub reason: &'static str,
    pub detail: String,
    pub asked: Option<Box<Command>>,
}

impl Refusal {
    fn new(reason: &'static str, detail: impl Into<String>) -> Self {
        Self {
            reason,
            detail: detail.into(),
            asked: None,
        }
    }

    fn asked_by(mut self, command: Command) -> Self {
        self.asked = Some(Box::new(command));
        self
    }

    pub fn fault(&self) -> Fault {
        Fault::new(self.reason, self.detail.clone())
    }
}

/// Decodes a command and makes all checks that need no database.
pub(super) fn read(
    record: &IncomingRecord,
    config: &ParticipantConfig,
) -> Result<Command, Refusal> {
    let command =
        Command::decode(record).map_err(|error| Refusal::new(error.reason(), error.to_string()))?;
    if let Some(detail) = bad_header(&command, config) {
        return Err(Refusal::new(reason::BAD_HEADER, detail));
    }
    if let Err((reason, detail)) = check_value(&command.payload, 0) {
        return Err(Refusal::new(reason, detail).asked_by(command));
    }
    Ok(command)
}

fn bad_header(command: &Command, config: &ParticipantConfig) -> Option<String> {
    if command.saga_id.created_at_ms().is_none() {
        return Some("saga-id is not a UUIDv7".to_owned());
    }
    if command.step.len() > STEP_LIMIT_BYTES {
        return Some(format!("saga-step is longer than {STEP_LIMIT_BYTES} bytes"));
    }
    let texts = [
        ("saga-step", &command.step),
        ("ce_type", &command.command_type),
        ("correlation-id", &command.trace.correlation_id),
    ];
    if let Some((name, _)) = texts.iter().find(|(_, text)| text.contains('\0')) {
        return Some(format!("{name} contains NUL"));
    }
    if command.command_type.len() > TYPE_LIMIT_BYTES {
        return Some(format!("ce_type is longer than {TYPE_LIMIT_BYTES} bytes"));
    }
    if command.reply_to.partition < 0 {
        return Some("reply-partition is negative".to_owned());
    }
    let topic = &command.reply_to.topic;
    (!config.reply_topics.contains(topic))
        .then(|| format!("reply-topic '{topic}' is not one that this participant answers to"))
}

/// Checks that the orchestrator accepts the result. If the participant sent a result that the orchestrator refuses, the
/// work would be done and its saga would never learn of it.
pub(super) fn check_result(value: &Value) -> Result<(), String> {
    check_value(value, DEPTH_LIMIT - RESULT_DEPTH_LIMIT).map_err(|(_, detail)| detail)
}

fn check_value(value: &Value, depth: usize) -> Result<(), (&'static str, String)> {
    if depth > DEPTH_LIMIT {
        let detail = format!("the value is nested deeper than {DEPTH_LIMIT}");
        return Err((reason::TOO_DEEP, detail));
    }
    let nul = |text: &str| {
        if text.contains('\0') {
            let detail = "a string contains NUL, which no database here keeps";
            Err((reason::NUL_CHARACTER, detail.to_owned()))
        } else {
            Ok(())
        }
    };
    match value {
        Value::Null | Value::Bool(_) | Value::Number(_) => Ok(()),
        Value::String(text) => nul(text),
        Value::Array(items) => items
            .iter()
            .try_for_each(|item| check_value(item, depth + 1)),
        Value::Object(fields) => fields.iter().try_for_each(|(name, field)| {
            nul(name)?;
            check_value(field, depth + 1)
        }),
    }
}

/// Returns the floor that a command carries, in milliseconds. A valid floor lies below every live saga, and so below
/// the command's own saga. A floor above the command's saga is ignored, because it would make the participant forget
/// rows that are still needed.
pub(super) fn floor_of(command: &Command) -> Option<i64> {
    let floor_ms = command.floor?.timestamp_millis();
    let began_ms = command.saga_id.created_at_ms().unwrap_or_default();
    if floor_ms > began_ms {
        warn!(
            saga.id = %command.saga_id,
            saga.step = command.step,
            correlation.id = command.trace.correlation_id,
            floor_ms,
            "a command carries a floor above its own saga, which is ignored"
        );
        return None;
    }
    Some(floor_ms)
}

/// Makes the checks that need the transaction's context: refuses sagas that may be forgotten and sagas from the future.
pub(super) fn admit_age(command: &Command, terms: &TxContext) -> Result<(), Refusal> {
    let began_ms = command.saga_id.created_at_ms().unwrap_or_default();
    if began_ms < terms.own_floor_ms && !mutant::on(Mutant::IgnoreFloorOfCommands) {
        let detail = format!(
            "the saga began at {began_ms} ms, and what began before {} ms may be forgotten here",
            terms.own_floor_ms
        );
        return Err(Refusal::new(reason::BELOW_FLOOR, detail));
    }
    if began_ms > terms.now.timestamp_millis() + AHEAD_LIMIT_MS {
        return Err(Refusal::new(
            reason::ID_OUT_OF_WINDOW,
            format!("the saga's id says that it begins at {began_ms} ms, which is in the future"),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn payloads_that_no_database_keeps_are_found() {
        assert!(check_value(&json!({"a": ["b", {"c": "\0"}]}), 0).is_err());
        assert!(check_value(&json!({"\0": 1}), 0).is_err());
        assert!(check_value(&json!({"a": ["b", 1.5, null]}), 0).is_ok());
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |depth| (0..depth).fold(json!(1), |inner, _| json!([inner]));
        assert!(check_value(&nested(DEPTH_LIMIT), 0).is_ok());
        assert!(check_value(&nested(DEPTH_LIMIT + 1), 0).is_err());
        assert!(check_result(&nested(RESULT_DEPTH_LIMIT)).is_ok());
        assert!(check_result(&nested(RESULT_DEPTH_LIMIT + 1)).is_err());
    }
}

//! What is checked before a transaction begins, so that no record can make one fail.

use super::{ParticipantConfig, storage::Terms};
use crate::dead_letter::reason;
use saga_core::{
    message::{Command, Fault, IncomingRecord},
    mutant::{self, Mutant},
};
use serde_json::Value;
use tracing::warn;

/// Deeper documents are nobody's payload, and cost stack wherever they are read.
const DEPTH_LIMIT: usize = 64;
/// The orchestrator takes less of a result: it nests it into what it keeps, and into other commands.
const RESULT_DEPTH_LIMIT: usize = 48;
/// Fits an index row, with room to spare.
const STEP_LIMIT_BYTES: usize = 200;
/// A reply's type is made of it, and must leave room for the result.
const TYPE_LIMIT_BYTES: usize = 1_024;
/// How far ahead of the database's clock a saga's id may lie: clocks disagree by minutes at most, and partitions reach
/// further than this.
const AHEAD_LIMIT_MS: i64 = 24 * 60 * 60 * 1_000;

/// A record that has no effect: dead-lettered, and answered `error` if it is known who asked.
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

/// Reads a command and checks what needs no database.
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

/// What the orchestrator would refuse must not be answered: the work would be done, and its saga would never learn it.
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

/// The floor that a command carries, in milliseconds. It lies below every live saga, so below the command's own: one that
/// does not would have us forget what is still needed, and is not believed.
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

/// What a transaction's terms add: no saga that may be forgotten, none from the future.
pub(super) fn admit_age(command: &Command, terms: &Terms) -> Result<(), Refusal> {
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
            format!("the saga's id says that it begins at {began_ms} ms, which is to come"),
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

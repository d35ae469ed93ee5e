//! Names the topics and the consumer group that every participant and every tool must know, and dead-letter topics.

/// Carries everything that can move a saga: starts, replies, due timers and operators' actions.
pub const SAGA_INPUTS: &str = "saga.inputs";
/// Carries every state change of every saga.
pub const SAGA_EVENTS: &str = "saga.events";
/// The consumer group of the orchestrator.
pub const ORCHESTRATOR_GROUP: &str = "orchestrator";

const DEAD_LETTERS: &str = ".dlq";

/// Returns the topic that holds the dead letters of `topic`. A dead letter that cannot be processed stays in its own
/// topic.
pub fn dead_letters_of(topic: &str) -> String {
    let base = topic.strip_suffix(DEAD_LETTERS).unwrap_or(topic);
    format!("{base}{DEAD_LETTERS}")
}

/// Returns true if `topic` holds dead letters.
pub fn holds_dead_letters(topic: &str) -> bool {
    topic.ends_with(DEAD_LETTERS)
}

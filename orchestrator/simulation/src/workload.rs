//! The sagas of a run: shipped and random definitions, orders, and the participants' behavior.

use super::{random::digest, world::number_of};
use saga_core::{
    definition::{SagaDefinition, StepKind},
    ids::SagaId,
    message::{Command, Direction},
};
use std::{fmt::Write, sync::Arc, time::Duration};

/// Names of the participants. The last one calls an external gateway.
pub const PARTICIPANTS: [&str; 3] = ["order", "inventory", "payment"];
/// The participant of [`PARTICIPANTS`] that calls the gateway.
pub const CALLER: &str = "payment";

/// The largest payload of a command that the broker accepts. Only the inputs of large orders exceed it.
pub const COMMAND_LIMIT_BYTES: usize = 1_000;

/// The definitions of a run.
#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    pub definitions: Vec<Arc<SagaDefinition>>,
    pub sagas: u64,
    /// Percentage of sagas that meet no failures and no errors.
    calm_percent: u64,
}

/// A participant's behavior on a command. It is the same for each process and each delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behavior {
    /// Every attempt gives a business failure.
    pub fails: bool,
    /// Attempts up to this one give a technical error.
    pub errors_until: u32,
    /// Every attempt gives a technical error until the saga has this age, as if a dependency were unavailable.
    pub errors_for: Duration,
    /// Attempts up to this one give a failure where none is allowed.
    pub breaks_until: u32,
    /// Attempts up to this one take `slow` longer.
    pub slow_until: u32,
    pub slow: Duration,
}

/// A participant's way of never telling the outcome of a pivot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reticence {
    /// The participant does not answer.
    Mute,
    /// The participant answers every command with an `error`.
    Errs,
    /// The participant answers a resolve command with a `failure`, which is not a valid answer to it.
    Fails,
}

/// The longest deadline of a saga whose pivot's outcome may be withheld, if its definition does not limit the attempts
/// to ask for the outcome. A longer deadline would be beyond the end of the run.
const RETICENT_DEADLINE_MS: u64 = 60_000;

impl Workload {
    pub fn new(seed: u64) -> Self {
        let mut definitions = shipped();
        for number in 0..2 {
            definitions.push(Arc::new(random(seed, number)));
        }
        Self {
            seed,
            definitions,
            sagas: 3 + choice(seed, "sagas", 10),
            calm_percent: [30, 60, 100][choice(seed, "calm", 3) as usize],
        }
    }

    /// Returns the definition of the saga with this number.
    pub fn definition(&self, number: u64) -> &Arc<SagaDefinition> {
        let index = digest(self.seed, [b"definition".as_slice(), &number.to_be_bytes()]);
        &self.definitions[index as usize % self.definitions.len()]
    }

    /// Returns true if participants answer this saga without failures and errors.
    pub fn is_calm(&self, saga: SagaId) -> bool {
        digest(self.seed, [b"calm".as_slice(), saga.0.as_bytes()]) % 100 < self.calm_percent
    }

    /// Returns true if this saga's input is larger than the payload of a command may be. The commands of the random
    /// definitions carry the whole input.
    pub fn is_large(&self, saga: SagaId) -> bool {
        let roll = digest(self.seed, [b"large".as_slice(), saga.0.as_bytes()]) % 100;
        let definition = self.definition(number_of(saga));
        definition.name.starts_with("random") && !self.is_calm(saga) && roll < 10
    }

    /// Returns the reticence of this saga's participants about this step.
    pub fn reticence(&self, saga: SagaId, step: &str) -> Option<Reticence> {
        let definition = self.definition(number_of(saga));
        let pivot = &definition.steps[definition.pivot()?];
        let is_bounded =
            pivot.resolve_attempts.is_some() || definition.deadline_ms <= RETICENT_DEADLINE_MS;
        if pivot.name != step || !is_bounded || self.is_calm(saga) {
            return None;
        }
        match digest(self.seed, [b"reticence".as_slice(), saga.0.as_bytes()]) % 60 {
            0..3 => Some(Reticence::Mute),
            3..6 => Some(Reticence::Errs),
            6..9 => Some(Reticence::Fails),
            _ => None,
        }
    }

    pub fn behavior(&self, command: &Command) -> Behavior {
        if self.is_calm(command.saga_id) {
            return Behavior::default();
        }
        let roll = |what: &str, limit: u64| {
            let direction = command.direction.as_str();
            let parts = [
                what.as_bytes(),
                command.saga_id.0.as_bytes(),
                command.step.as_bytes(),
                direction.as_bytes(),
            ];
            digest(self.seed, parts) % limit
        };
        let saved = command.save_failure && command.direction == Direction::Forward;
        let until = |what, chance| {
            if roll(what, 100) < chance {
                roll("until", 6) as u32 + 1
            } else {
                0
            }
        };
        Behavior {
            fails: saved && roll("fails", 100) < 15,
            errors_until: until("errors", 25),
            errors_for: if roll("away", 100) < 8 {
                Duration::from_secs([3, 15, 60][roll("away for", 3) as usize])
            } else {
                Duration::ZERO
            },
            breaks_until: if saved { 0 } else { until("breaks", 10) },
            slow_until: until("slow", 15),
            slow: Duration::from_millis([20, 200, 1_000, 4_000][roll("slowness", 4) as usize]),
        }
    }
}

fn choice(seed: u64, what: &str, limit: u64) -> u64 {
    digest(seed, [b"workload".as_slice(), what.as_bytes()]) % limit
}

fn shipped() -> Vec<Arc<SagaDefinition>> {
    let sources = orchestrator::registry::read(true, None).unwrap_or_default();
    sources
        .into_iter()
        .map(|source| Arc::new(source.definition))
        .collect()
}

/// Makes a random definition: compensatable steps in a random order without cycles, perhaps with a first step of the
/// starter; perhaps a pivot after all of them; perhaps parallel retriable steps after the pivot.
fn random(seed: u64, number: u64) -> SagaDefinition {
    let roll = |what: &str, limit: u64| {
        let parts = [
            b"definition".as_slice(),
            what.as_bytes(),
            &number.to_be_bytes(),
        ];
        digest(seed, parts) % limit
    };
    let compensatable = 1 + roll("compensatable", 3);
    let has_pivot = roll("pivot", 3) > 0;
    let retriable = if has_pivot { roll("retriable", 3) } else { 0 };
    let mut yaml = format!(
        "name: random-{number}\nversion: 1\ndeadline: {}s\nsteps:\n",
        [20, 60, 600, 3_600][roll("deadline", 4) as usize]
    );
    let resolve = match roll("resolve", 3) {
        0 => None,
        _ => Some(1 + roll("askings", 6)),
    };
    let mut names: Vec<String> = Vec::new();
    for index in 0..compensatable {
        let name = format!("c{index}");
        let starter = index == 0 && roll("starter", 3) == 0;
        let after: Vec<String> = names
            .iter()
            .filter(|earlier| roll(&format!("{name} after {earlier}"), 2) == 0)
            .cloned()
            .collect();
        step(
            &mut yaml,
            &roll,
            &name,
            StepKind::Compensatable,
            starter,
            &after,
        );
        names.push(name);
    }
    if has_pivot {
        step(&mut yaml, &roll, "p", StepKind::Pivot, false, &names);
        if let Some(attempts) = resolve {
            yaml.truncate(yaml.trim_end_matches("}\n").len());
            writeln!(yaml, ", resolve: {{attempts: {attempts}}}}}").expect("text takes all");
        }
    }
    for index in 0..retriable {
        let name = format!("r{index}");
        let after = if index == 1 && roll("row", 2) == 0 {
            "r0"
        } else {
            "p"
        };
        step(
            &mut yaml,
            &roll,
            &name,
            StepKind::Retriable,
            false,
            &[after.to_owned()],
        );
    }
    match SagaDefinition::parse("random.yaml", &yaml) {
        Ok(definition) => definition,
        Err(errors) => unreachable!("a random definition is not valid: {errors:?}\n{yaml}"),
    }
}

fn step(
    yaml: &mut String,
    roll: &impl Fn(&str, u64) -> u64,
    name: &str,
    kind: StepKind,
    starter: bool,
    after: &[String],
) {
    let participant = if starter {
        "order"
    } else {
        PARTICIPANTS[roll(&format!("{name} participant"), 3) as usize]
    };
    let word = match kind {
        StepKind::Compensatable => "compensatable",
        StepKind::Pivot => "pivot",
        StepKind::Retriable => "retriable",
    };
    let policy = |what: &str| {
        // An interrupted call is taken up again after its lease. A step that could not wait so long would be given up
        // only for that reason.
        let (timeout, attempts) = if participant == CALLER {
            ("5s".to_owned(), 6)
        } else {
            let timeout = [400, 1_000, 3_000][roll(&format!("{name} {what} timeout"), 3) as usize];
            (
                format!("{timeout}ms"),
                1 + roll(&format!("{name} {what} attempts"), 4),
            )
        };
        format!(
            "timeout: {timeout}, retry: {{attempts: {attempts}, firstDelay: 100ms, factor: 2, maxDelay: 2s, jitter: 0.2}}"
        )
    };
    let mut line = format!(
        "  - {{name: {name}, kind: {word}, participant: {participant}, after: [{}]",
        after.join(", ")
    );
    let mut add = |text: String| {
        // Writing to a string cannot fail.
        let written = write!(line, "{text}");
        debug_assert!(written.is_ok());
    };
    if !starter {
        add(format!(
            ", command: {participant}.{name}, {}",
            policy("action")
        ));
    }
    if kind == StepKind::Compensatable {
        add(format!(
            ", compensation: {{command: {participant}.un{name}, {}}}",
            policy("compensation")
        ));
    }
    yaml.push_str(&line);
    yaml.push_str("}\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn random_definitions_are_valid_and_of_every_kind() {
        let all: Vec<SagaDefinition> = (0..200).map(|seed| random(seed, 0)).collect();
        assert!(all.iter().any(|one| one.pivot().is_none()));
        assert!(all.iter().any(|one| one.steps[0].action.is_none()));
        let parallel = |one: &SagaDefinition| {
            one.steps
                .iter()
                .skip(1)
                .any(|step| step.after.is_empty() || step.after.len() > 1)
        };
        assert!(all.iter().any(parallel));
        assert!(all.iter().any(|one| {
            one.steps
                .iter()
                .any(|step| step.kind == StepKind::Retriable)
        }));
    }
}

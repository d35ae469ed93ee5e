//! What the sagas of a run are: definitions, the shipped ones and random ones, orders, and how participants take them.

use super::random::digest;
use saga_core::{
    definition::{SagaDefinition, StepKind},
    ids::SagaId,
    message::{Command, Direction},
};
use std::{fmt::Write, sync::Arc, time::Duration};

/// Everyone who is sent commands. The last one calls the outside.
pub const PARTICIPANTS: [&str; 3] = ["order", "inventory", "payment"];
/// See [`PARTICIPANTS`].
pub const CALLER: &str = "payment";

/// The definitions of a run.
#[derive(Clone, Debug)]
pub struct Workload {
    pub seed: u64,
    pub definitions: Vec<Arc<SagaDefinition>>,
    pub sagas: u64,
    /// Of a hundred sagas, so many meet nothing but success.
    calm_percent: u64,
}

/// How a participant takes a command, whoever handles it and however often.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Behavior {
    /// A business failure, always.
    pub fails: bool,
    /// A technical error, up to this attempt.
    pub errors_until: u32,
    /// A technical error whatever the attempt, until the saga is so old: what it needs is away.
    pub errors_for: Duration,
    /// A failure where none is allowed, up to this attempt.
    pub breaks_until: u32,
    /// It takes so long, up to this attempt.
    pub slow_until: u32,
    pub slow: Duration,
}

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

    /// Of a saga with this number.
    pub fn definition(&self, number: u64) -> &Arc<SagaDefinition> {
        let index = digest(self.seed, [b"definition".as_slice(), &number.to_be_bytes()]);
        &self.definitions[index as usize % self.definitions.len()]
    }

    /// Whether everybody is well as far as this saga goes.
    pub fn is_calm(&self, saga: SagaId) -> bool {
        digest(self.seed, [b"calm".as_slice(), saga.0.as_bytes()]) % 100 < self.calm_percent
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

/// Some compensatable steps in any order that has no cycle, perhaps begun by the starter; perhaps a pivot behind all
/// of them; perhaps retriable steps side by side behind that.
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
        // A call that was interrupted is taken up again after its lease: a step that cannot wait so long would be
        // given up for no better reason.
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

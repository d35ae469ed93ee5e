//! Checks everything that can be checked before the first saga runs. Finds all faults, not only the first.

use super::{
    document::{self, CommandDocument, CommandPlaces, Document, Places, StepDocument, StepPlaces},
    duration::MAX_DURATION_MS,
    error::DefinitionError,
    faults::Faults,
    input::{FoundPath, InputMapping},
    model::{CommandSpec, SagaDefinition, Step, StepKind},
    order::{self, Before},
    path::Reference,
    schema::InputSchema,
};
use crate::{message::Command, retry::RetryPolicy};
use std::collections::HashSet;

/// The limit keeps a saga's row, and the messages that one input causes, small.
pub const MAX_STEPS: usize = 64;
const MAX_NAME_LENGTH: usize = 64;
const MAX_COMMAND_LENGTH: usize = 128;
const MAX_ATTEMPTS: u32 = 1000;

/// Checks a document and makes a definition from it.
pub(super) fn check(
    document: Document,
    places: &Places,
    mut faults: Faults,
) -> Result<SagaDefinition, Vec<DefinitionError>> {
    check_head(&document, places, &mut faults);
    check_names(&document, places, &mut faults);
    for (step, place) in document.steps.iter().zip(&places.steps) {
        check_step(step, place, &mut faults);
    }
    let input_schema = compile_schema(&document, places, &mut faults);
    // Resolving the order takes time that grows with the cube of the number of steps.
    let before = (document.steps.len() <= MAX_STEPS)
        .then(|| order::resolve(&document, places, &mut faults))
        .flatten();
    let mut steps = Vec::new();
    if let Some(before) = before {
        check_kinds(&document, &before, places, &mut faults);
        for (index, own) in before.iter().enumerate() {
            let step = &document.steps[index];
            let place = &places.steps[index];
            check_starter(step, own, place, &mut faults);
            let scope = Scope {
                document: &document,
                step,
                ancestors: &own.ancestors,
                places,
            };
            steps.push(Step {
                name: step.name.clone(),
                kind: step.kind,
                participant: step.participant.clone(),
                participant_line: place.participant,
                action: scope.command(step.action.as_ref(), place.action, false, &mut faults),
                compensation: scope.command(
                    step.compensation.as_ref(),
                    place.compensation,
                    true,
                    &mut faults,
                ),
                resolve_attempts: step.resolve_attempts,
                after: own.after.clone(),
                ancestors: own.ancestors.clone(),
            });
        }
    }
    faults.into_result()?;
    let canonical = document::canonical(&document);
    Ok(SagaDefinition {
        name: document.name,
        version: document.version,
        hash: document::hash(&canonical),
        deadline_ms: document.deadline_ms,
        input_schema,
        business_key: document.business_key,
        steps,
        document: canonical,
    })
}

fn check_head(document: &Document, places: &Places, faults: &mut Faults) {
    if !is_name(&document.name) {
        faults.add(places.name, None, name_hint("name", &document.name));
    }
    if document.version == 0 || i32::try_from(document.version).is_err() {
        faults.add(places.version, None, "version must be from 1 to 2147483647");
    }
    check_positive(
        "deadline",
        document.deadline_ms,
        places.deadline,
        None,
        faults,
    );
    if document.steps.is_empty() {
        faults.add(places.name, None, "a saga needs at least one step");
    }
    if document.steps.len() > MAX_STEPS {
        faults.add(
            places.steps.get(MAX_STEPS).and_then(|place| place.step),
            None,
            format!("{} steps are more than {MAX_STEPS}", document.steps.len()),
        );
    }
}

fn compile_schema(
    document: &Document,
    places: &Places,
    faults: &mut Faults,
) -> Option<InputSchema> {
    let schema = &document.input.as_ref()?.schema;
    match InputSchema::compile(schema) {
        Ok(schema) => Some(schema),
        Err(bad) => {
            let keys = bad.pointer.split('/').skip(1);
            let line = keys.fold(places.schema, |line, key| places.line_of(key, line));
            let place = if bad.pointer.is_empty() {
                String::new()
            } else {
                format!("{}: ", bad.pointer)
            };
            faults.add(line, None, format!("input: schema: {place}{}", bad.why));
            None
        }
    }
}

fn check_names(document: &Document, places: &Places, faults: &mut Faults) {
    let mut seen = HashSet::new();
    for (step, place) in document.steps.iter().zip(&places.steps) {
        if !is_name(&step.name) {
            faults.add(place.step, Some(&step.name), name_hint("name", &step.name));
        }
        if !is_name(&step.participant) {
            faults.add(
                place.participant,
                Some(&step.name),
                name_hint("participant", &step.participant),
            );
        }
        if !seen.insert(step.name.as_str()) {
            faults.add(
                place.step,
                Some(&step.name),
                "another step has this name already",
            );
        }
    }
}

fn check_step(step: &StepDocument, place: &StepPlaces, faults: &mut Faults) {
    let commands = [
        (step.action.as_ref(), place.action, "command"),
        (
            step.compensation.as_ref(),
            place.compensation,
            "compensation",
        ),
    ];
    for (command, place, what) in commands {
        if let Some(command) = command {
            check_command(command, place, what, &step.name, faults);
        }
    }
    if let Some(attempts) = step.resolve_attempts {
        let mut fault =
            |message| faults.add(place.resolve.or(place.step), Some(&step.name), message);
        if step.kind != StepKind::Pivot {
            fault("resolve: only a pivot's outcome is asked for; leave it out".to_owned());
        }
        if !(1..=MAX_ATTEMPTS).contains(&attempts) {
            fault(format!(
                "resolve: attempts must be from 1 to {MAX_ATTEMPTS}"
            ));
        }
    }
    let line = place.compensation.command.or(place.step);
    let mut fault = |message: &str| faults.add(line, Some(&step.name), message);
    match (step.kind, &step.compensation) {
        (StepKind::Compensatable, None) => fault("a compensatable step needs a compensation"),
        (StepKind::Pivot, Some(_)) => {
            fault("the pivot is never compensated: after it the saga only goes forward");
        }
        (StepKind::Retriable, Some(_)) => {
            fault("a retriable step is never compensated: it is retried until it succeeds");
        }
        (StepKind::Compensatable, Some(_)) | (StepKind::Pivot | StepKind::Retriable, None) => {}
    }
}

fn check_command(
    command: &CommandDocument,
    place: CommandPlaces,
    what: &str,
    step: &str,
    faults: &mut Faults,
) {
    let text = &command.command;
    let good = |letter: char| letter.is_ascii_alphanumeric() || matches!(letter, '.' | '-' | '_');
    if text.is_empty() || text.len() > MAX_COMMAND_LENGTH || !text.chars().all(good) {
        faults.add(
            place.command,
            Some(step),
            format!("{what}: '{text}' is not a command type; write it as inventory.reserve"),
        );
    }
    if text.ends_with(Command::RESOLVE_SUFFIX) {
        faults.add(
            place.command,
            Some(step),
            format!("{what}: '{text}' ends in .resolve, which the orchestrator adds itself"),
        );
    }
    check_positive(
        "timeout",
        command.timeout_ms,
        place.timeout,
        Some(step),
        faults,
    );
    check_retry(command.retry, place.retry, step, faults);
}

fn check_retry(retry: RetryPolicy, line: Option<usize>, step: &str, faults: &mut Faults) {
    let mut fault = |message: String| faults.add(line, Some(step), message);
    if !(1..=MAX_ATTEMPTS).contains(&retry.attempts) {
        fault(format!("retry: attempts must be from 1 to {MAX_ATTEMPTS}"));
    }
    if !(1.0..=1000.0).contains(&retry.factor) {
        fault("retry: factor must be from 1 to 1000".to_owned());
    }
    if !(0.0..=1.0).contains(&retry.jitter) {
        fault("retry: jitter must be from 0 to 1, a share of the delay".to_owned());
    }
    if retry.max_delay_ms < retry.first_delay_ms {
        fault("retry: maxDelay is shorter than firstDelay".to_owned());
    }
    check_positive(
        "retry: firstDelay",
        retry.first_delay_ms,
        line,
        Some(step),
        faults,
    );
    check_positive(
        "retry: maxDelay",
        retry.max_delay_ms,
        line,
        Some(step),
        faults,
    );
}

fn check_positive(
    what: &str,
    duration_ms: u64,
    line: Option<usize>,
    step: Option<&str>,
    faults: &mut Faults,
) {
    if !(1..=MAX_DURATION_MS).contains(&duration_ms) {
        faults.add(
            line,
            step,
            format!("{what} must be longer than 0 and at most a year"),
        );
    }
}

fn check_starter(step: &StepDocument, before: &Before, place: &StepPlaces, faults: &mut Faults) {
    if step.action.is_some() {
        return;
    }
    if step.kind != StepKind::Compensatable {
        faults.add(
            place.step,
            Some(&step.name),
            "has no command, so the starter has done it: only a compensatable step can be",
        );
    }
    if !before.after.is_empty() {
        faults.add(
            place.step,
            Some(&step.name),
            "has no command, so the starter has done it before the saga began: it cannot come after another step \
             (add a command, or `after: []`)",
        );
    }
}

fn check_kinds(document: &Document, before: &[Before], places: &Places, faults: &mut Faults) {
    let pivots: Vec<usize> = (0..document.steps.len())
        .filter(|index| document.steps[*index].kind == StepKind::Pivot)
        .collect();
    for second in pivots.iter().skip(1) {
        faults.add(
            places.steps[*second].step,
            Some(&document.steps[*second].name),
            format!(
                "a saga has one pivot, and '{}' is it already",
                document.steps[pivots[0]].name
            ),
        );
    }
    for (index, step) in document.steps.iter().enumerate() {
        let message = match (step.kind, pivots.first()) {
            (StepKind::Compensatable, Some(pivot)) if !before[*pivot].ancestors.contains(&index) => {
                format!(
                    "is compensatable, so the pivot '{}' must come after it",
                    document.steps[*pivot].name
                )
            }
            (StepKind::Retriable, Some(pivot)) if !before[index].ancestors.contains(pivot) => {
                format!(
                    "is retriable, so it must come after the pivot '{}'",
                    document.steps[*pivot].name
                )
            }
            (StepKind::Retriable, None) => {
                "is retriable, which needs a pivot before it; without one every step is compensatable"
                    .to_owned()
            }
            (StepKind::Compensatable | StepKind::Pivot | StepKind::Retriable, _) => continue,
        };
        faults.add(places.steps[index].step, Some(&step.name), message);
    }
}

/// The steps whose results the templates of one step may use.
struct Scope<'a> {
    document: &'a Document,
    step: &'a StepDocument,
    ancestors: &'a [usize],
    places: &'a Places,
}

impl Scope<'_> {
    fn command(
        &self,
        command: Option<&CommandDocument>,
        place: CommandPlaces,
        is_compensation: bool,
        faults: &mut Faults,
    ) -> Option<CommandSpec> {
        let command = command?;
        let mut found = Vec::new();
        let input = match InputMapping::read(command.input.as_ref(), &mut found) {
            Ok(input) => input,
            Err(bad) => {
                for path in bad {
                    let line = self.places.line_of(&path.text, place.input);
                    faults.add(line, Some(&self.step.name), path.why);
                }
                return None;
            }
        };
        for path in &found {
            self.check_references(path, place, is_compensation, faults);
        }
        Some(CommandSpec {
            command_type: command.command.clone(),
            input,
            timeout_ms: command.timeout_ms,
            retry: command.retry,
        })
    }

    fn check_references(
        &self,
        path: &FoundPath,
        place: CommandPlaces,
        is_compensation: bool,
        faults: &mut Faults,
    ) {
        for reference in &path.references {
            let name = match reference {
                Reference::Input | Reference::Cause => continue,
                Reference::Step(name) => name,
            };
            let index = self
                .document
                .steps
                .iter()
                .position(|step| step.name == *name);
            let message = match index {
                None => format!("'{}': there is no step '{name}'", path.text),
                Some(index) if self.ancestors.contains(&index) => continue,
                Some(_) if *name == self.step.name && is_compensation => continue,
                Some(_) if *name == self.step.name => {
                    format!("'{}': a step cannot read its own result", path.text)
                }
                Some(_) => format!(
                    "'{}': '{name}' does not come before this step, so its result may not be there",
                    path.text
                ),
            };
            let line = self.places.line_of(&path.text, place.input);
            faults.add(line, Some(&self.step.name), message);
        }
    }
}

fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text.len() <= MAX_NAME_LENGTH
        && text.chars().all(|letter| {
            letter.is_ascii_lowercase() || letter.is_ascii_digit() || matches!(letter, '-' | '_')
        })
}

fn name_hint(what: &str, text: &str) -> String {
    format!("{what} '{text}' must be 1 to {MAX_NAME_LENGTH} of a-z, 0-9, - and _")
}

//! Reads the YAML that people write, and records the line of each part.

use super::{
    document::{
        CommandDocument, CommandPlaces, Document, InputDocument, Places, StepDocument, StepPlaces,
    },
    duration,
    error::DefinitionError,
    faults::Faults,
    model::{BusinessKey, StepKind},
};
use crate::{retry::RetryPolicy, yaml};
use serde::Deserialize;
use serde_json::Value;
use serde_saphyr::Spanned;

const DEFAULT_TIMEOUT_MS: u64 = 10_000;

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct DefinitionYaml {
    name: Spanned<String>,
    version: Spanned<u32>,
    deadline: Spanned<String>,
    #[serde(default)]
    input: Option<InputYaml>,
    #[serde(default)]
    business_key: BusinessKey,
    steps: Vec<Spanned<StepYaml>>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct InputYaml {
    schema: Spanned<Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct StepYaml {
    name: String,
    kind: StepKind,
    participant: Spanned<String>,
    #[serde(default)]
    command: Option<Spanned<String>>,
    #[serde(default)]
    input: Option<Spanned<Value>>,
    #[serde(default)]
    timeout: Option<Spanned<String>>,
    #[serde(default)]
    retry: Option<Spanned<RetryYaml>>,
    #[serde(default)]
    after: Option<Vec<Spanned<String>>>,
    #[serde(default)]
    resolve: Option<Spanned<ResolveYaml>>,
    #[serde(default)]
    compensation: Option<CompensationYaml>,
}

/// Configures how a pivot's outcome is asked for.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ResolveYaml {
    attempts: u32,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct CompensationYaml {
    command: Spanned<String>,
    #[serde(default)]
    input: Option<Spanned<Value>>,
    #[serde(default)]
    timeout: Option<Spanned<String>>,
    #[serde(default)]
    retry: Option<Spanned<RetryYaml>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RetryYaml {
    #[serde(default)]
    attempts: Option<u32>,
    #[serde(default)]
    first_delay: Option<Spanned<String>>,
    #[serde(default)]
    factor: Option<f64>,
    #[serde(default)]
    max_delay: Option<Spanned<String>>,
    #[serde(default)]
    jitter: Option<f64>,
}

/// Reads the text of a file. If a single value is wrong, the fault is collected and a default takes the value's place
/// in the document, so that the other checks can go on.
pub(super) fn read(
    file: &str,
    text: &str,
) -> Result<(Document, Places, Faults), Vec<DefinitionError>> {
    let parsed: DefinitionYaml = yaml::from_str(text).map_err(|error| {
        vec![DefinitionError {
            file: file.to_owned(),
            line: error.line,
            step: error.line.and_then(|line| step_at(text, line)),
            message: error.message,
        }]
    })?;
    let mut faults = Faults::new(file.to_owned());
    let mut places = Places {
        name: line(&parsed.name),
        version: line(&parsed.version),
        deadline: line(&parsed.deadline),
        schema: parsed.input.as_ref().and_then(|input| line(&input.schema)),
        steps: Vec::with_capacity(parsed.steps.len()),
        text: text.to_owned(),
    };
    let deadline_ms = milliseconds(Some(&parsed.deadline), 1, None, &mut faults);
    let mut steps: Vec<StepDocument> = Vec::with_capacity(parsed.steps.len());
    for step in parsed.steps {
        let before = steps.last().map(|step| step.name.clone());
        let (document, place) = read_step(step, before, &mut faults);
        steps.push(document);
        places.steps.push(place);
    }
    let document = Document {
        name: parsed.name.value,
        version: parsed.version.value,
        deadline_ms,
        input: parsed.input.map(|input| InputDocument {
            schema: input.schema.value,
        }),
        business_key: parsed.business_key,
        steps,
    };
    Ok((document, places, faults))
}

fn read_step(
    spanned: Spanned<StepYaml>,
    before: Option<String>,
    faults: &mut Faults,
) -> (StepDocument, StepPlaces) {
    let step_line = line(&spanned);
    let step = spanned.value;
    let mut places = StepPlaces {
        step: step_line,
        participant: line(&step.participant),
        resolve: step.resolve.as_ref().and_then(line),
        ..StepPlaces::default()
    };
    if step.command.is_none()
        && (step.input.is_some() || step.timeout.is_some() || step.retry.is_some())
    {
        faults.add(
            step_line,
            Some(&step.name),
            "has no command, so input, timeout and retry mean nothing; add a command, or move them into the compensation",
        );
    }
    let action = step.command.map(|command| CommandYaml {
        command,
        input: step.input,
        timeout: step.timeout,
        retry: step.retry,
    });
    let (action, action_places) = match action {
        Some(action) => {
            let (document, place) =
                read_command(action, RetryPolicy::default(), &step.name, faults);
            (Some(document), place)
        }
        None => (None, CommandPlaces::default()),
    };
    places.action = action_places;
    let compensation = step.compensation.map(|yaml| {
        let yaml = CommandYaml {
            command: yaml.command,
            input: yaml.input,
            timeout: yaml.timeout,
            retry: yaml.retry,
        };
        let (document, place) = read_command(yaml, RetryPolicy::COMPENSATION, &step.name, faults);
        places.compensation = place;
        document
    });
    let after = if let Some(names) = step.after {
        places.after = names.iter().map(line).collect();
        names.into_iter().map(|name| name.value).collect()
    } else {
        places.after = before.iter().map(|_| step_line).collect();
        before.into_iter().collect()
    };
    let document = StepDocument {
        name: step.name,
        kind: step.kind,
        participant: step.participant.value,
        action,
        after,
        compensation,
        resolve_attempts: step.resolve.map(|resolve| resolve.value.attempts),
    };
    (document, places)
}

struct CommandYaml {
    command: Spanned<String>,
    input: Option<Spanned<Value>>,
    timeout: Option<Spanned<String>>,
    retry: Option<Spanned<RetryYaml>>,
}

fn read_command(
    yaml: CommandYaml,
    policy: RetryPolicy,
    step: &str,
    faults: &mut Faults,
) -> (CommandDocument, CommandPlaces) {
    let places = CommandPlaces {
        command: line(&yaml.command),
        input: yaml.input.as_ref().and_then(line),
        timeout: yaml.timeout.as_ref().and_then(line),
        retry: yaml.retry.as_ref().and_then(line),
    };
    let document = CommandDocument {
        command: yaml.command.value,
        input: yaml.input.map(|input| input.value),
        timeout_ms: milliseconds(
            yaml.timeout.as_ref(),
            DEFAULT_TIMEOUT_MS,
            Some(step),
            faults,
        ),
        retry: match yaml.retry {
            Some(retry) => read_retry(&retry.value, policy, step, faults),
            None => policy,
        },
    };
    (document, places)
}

fn read_retry(
    yaml: &RetryYaml,
    default: RetryPolicy,
    step: &str,
    faults: &mut Faults,
) -> RetryPolicy {
    let mut duration = |text: &Option<Spanned<String>>, otherwise| {
        milliseconds(text.as_ref(), otherwise, Some(step), faults)
    };
    RetryPolicy {
        attempts: yaml.attempts.unwrap_or(default.attempts),
        first_delay_ms: duration(&yaml.first_delay, default.first_delay_ms),
        factor: yaml.factor.unwrap_or(default.factor),
        max_delay_ms: duration(&yaml.max_delay, default.max_delay_ms),
        jitter: yaml.jitter.unwrap_or(default.jitter),
    }
}

fn milliseconds(
    text: Option<&Spanned<String>>,
    default: u64,
    step: Option<&str>,
    faults: &mut Faults,
) -> u64 {
    let Some(text) = text else { return default };
    duration::parse(&text.value).unwrap_or_else(|message| {
        faults.add(line(text), step, message);
        default
    })
}

fn line<T>(spanned: &Spanned<T>) -> Option<usize> {
    let line = spanned.referenced.line() as usize;
    (line > 0).then_some(line)
}

/// Returns the name of the step that a line belongs to, for errors that stop the reader before any step is known.
fn step_at(yaml: &str, line: usize) -> Option<String> {
    yaml.lines()
        .take(line)
        .filter_map(|text| text.trim_start().strip_prefix("- name:"))
        .last()
        .map(|name| name.trim().trim_matches(['"', '\'']).to_owned())
}

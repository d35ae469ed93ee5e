//! `sagactl conformance`: checks whether a participant keeps the contract. No orchestrator is needed: the kit takes its
//! place.

use crate::{
    failure::Failure,
    output::Output,
    session::{Conclusion, Session},
};
use clap::Args;
use saga_conformance::{
    CaseOutcome, CaseResult, Described, Description, KafkaWire, Kit, Patience, Report, shipped,
};
use saga_core::json;
use saga_messaging::kafka::KafkaConfig;
use serde::Serialize;
use serde_json::Value;
use std::{fmt, path::PathBuf, time::Duration};

/// The participant to check, and how to reach it.
#[derive(Debug, Args)]
pub struct ConformanceArguments {
    /// Name of the participant. `order`, `inventory` and `payment` need nothing else, others a description or one
    /// command.
    #[arg(long)]
    participant: String,
    /// Kafka brokers, as host:port,…
    #[arg(long, env = "SAGACTL_BROKERS", default_value = "127.0.0.1:9092")]
    brokers: String,
    /// Further properties of the Kafka client, such as security.protocol=ssl.
    #[arg(long = "kafka", value_name = "KEY=VALUE", value_parser = pair)]
    kafka: Vec<(String, String)>,
    /// Facts about the participant: command types, inputs that succeed, fail and err, how to observe effects.
    #[arg(long, value_name = "FILE")]
    description: Option<PathBuf>,
    /// Command topic of the participant, instead of the description's.
    #[arg(long)]
    topic: Option<String>,
    /// Consumer group of the participant, instead of the description's.
    #[arg(long)]
    group: Option<String>,
    /// Topic that the participant replies to.
    #[arg(long, default_value = "saga.inputs")]
    reply_topic: String,
    /// One command type, instead of a description; needs --input.
    #[arg(
        long,
        value_name = "TYPE",
        requires = "input",
        conflicts_with = "description"
    )]
    command: Option<String>,
    /// Input of --command that succeeds, as JSON; `$new` in it becomes a new UUID for every saga, `$saga` the saga's id
    #[arg(long, value_name = "FILE", requires = "command")]
    input: Option<PathBuf>,
    /// A variable of the description, such as http=http://127.0.0.1:3003.
    #[arg(long, value_name = "NAME=VALUE", value_parser = pair)]
    set: Vec<(String, String)>,
    /// Longest wait for an answer.
    #[arg(long, value_name = "SECONDS", default_value_t = 10)]
    patience: u64,
    /// Also print the messages that were sent, expected and received in the cases that passed.
    #[arg(long)]
    verbose: bool,
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=')
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .ok_or_else(|| "this is not NAME=VALUE".to_owned())
}

pub async fn run(
    arguments: ConformanceArguments,
    session: &Session,
) -> Result<Conclusion, Failure> {
    let description = describe(&arguments)?;
    let report = try_it(&arguments, &description, session.output)
        .await
        .map_err(|error| Failure::Usage(chain(&*error)))?;
    let conforms = report.conforms();
    session.output.show(&Answer {
        conforms,
        report,
        verbose: arguments.verbose,
    });
    Ok(if conforms {
        Conclusion::Good
    } else {
        Conclusion::Negative
    })
}

/// Joins the messages of an error and its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(next) = cause {
        text.push_str(": ");
        text.push_str(&next.to_string());
        cause = next.source();
    }
    text
}

async fn try_it(
    arguments: &ConformanceArguments,
    description: &Description,
    output: Output,
) -> Result<Report, Box<dyn std::error::Error>> {
    let mut kafka = KafkaConfig::plaintext(arguments.brokers.as_str());
    kafka.extra.extend(arguments.kafka.iter().cloned());
    kafka.validate()?;
    let mut wire = KafkaWire::open(kafka, &description.topic, &arguments.reply_topic).await?;
    let world = Described::new(description)?;
    let kit = Kit {
        description,
        wire: &mut wire,
        world: &world,
        patience: Patience {
            answer: Duration::from_secs(arguments.patience),
            ..Patience::default()
        },
    };
    let report = kit
        .run(|result| output.note(&Line(result).to_string()))
        .await?;
    Ok(report)
}

/// Returns the description, overridden by the options of the command line.
fn describe(arguments: &ConformanceArguments) -> Result<Description, Failure> {
    let read = |path: &PathBuf| {
        std::fs::read_to_string(path)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))
    };
    let name = arguments.participant.as_str();
    let mut description = match (&arguments.command, &arguments.input, &arguments.description) {
        (Some(command), Some(input), _) => {
            let text = read(input)?;
            let input: Value = json::from_slice(text.as_bytes())
                .map_err(|error| Failure::Usage(format!("{}: {error}", input.display())))?;
            Description::of_command(name, &format!("{name}.commands"), command, input)
        }
        (_, _, Some(file)) => parse(&file.display().to_string(), &read(file)?)?,
        (_, _, None) => match shipped(name) {
            Some(text) => parse(name, text)?,
            None => {
                return Err(Failure::Usage(format!(
                    "nothing is known of participant '{name}': give --description FILE, or --command and --input"
                )));
            }
        },
    };
    if let Some(topic) = &arguments.topic {
        description.topic.clone_from(topic);
    }
    if arguments.group.is_some() {
        description.group.clone_from(&arguments.group);
    }
    for (variable, text) in &arguments.set {
        description.set(variable, text);
    }
    Ok(description)
}

fn parse(file: &str, text: &str) -> Result<Description, Failure> {
    Description::parse(text).map_err(|error| Failure::Usage(format!("{file}: {error}")))
}

/// The line that is printed as soon as a case has its result.
struct Line<'a>(&'a CaseResult);

impl fmt::Display for Line<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let CaseResult { command, case, .. } = self.0;
        match &self.0.outcome {
            CaseOutcome::Passed => write!(f, "passed   {command}: {case}"),
            CaseOutcome::Failed { .. } => write!(f, "FAILED   {command}: {case}"),
            CaseOutcome::Skipped { why } => write!(f, "skipped  {command}: {case} ({why})"),
        }
    }
}

/// The report, as it is printed at the end.
#[derive(Serialize)]
struct Answer {
    conforms: bool,
    #[serde(flatten)]
    report: Report,
    #[serde(skip)]
    verbose: bool,
}

impl fmt::Display for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        for result in &report.results {
            let failed = matches!(result.outcome, CaseOutcome::Failed { .. });
            if failed || self.verbose {
                details(f, result)?;
            }
        }
        writeln!(
            f,
            "{}, on {}: {} passed, {} failed, {} skipped",
            report.participant,
            report.topic,
            report.passed_count(),
            report.failed().count(),
            report.skipped().count()
        )
    }
}

fn details(f: &mut fmt::Formatter<'_>, result: &CaseResult) -> fmt::Result {
    writeln!(f, "{}", Line(result))?;
    writeln!(f, "  why      {}", result.why_it_matters)?;
    for exchange in &result.exchanges {
        writeln!(f, "  sent     {}", exchange.sent)?;
        writeln!(f, "  expected {}", exchange.expected)?;
        writeln!(f, "  got      {}", exchange.got)?;
    }
    writeln!(f)
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct CommandLine {
        #[command(flatten)]
        arguments: ConformanceArguments,
    }

    fn described(line: &[&str]) -> Result<Description, Failure> {
        let line =
            CommandLine::try_parse_from([&["sagactl"], line].concat()).expect("valid arguments");
        describe(&line.arguments)
    }

    #[test]
    fn our_own_participants_need_only_their_name() {
        for name in ["order", "inventory", "payment"] {
            let description = described(&["--participant", name]).expect(name);
            assert_eq!(description.topic, format!("{name}.commands"));
        }
    }

    #[test]
    fn the_command_line_overrides_the_description() {
        let description = described(&[
            "--participant",
            "payment",
            "--topic",
            "pay.commands",
            "--group",
            "payers",
            "--set",
            "erring_amount=1302",
        ])
        .expect("a description");
        assert_eq!(description.topic, "pay.commands");
        assert_eq!(description.group.as_deref(), Some("payers"));
        assert_eq!(description.variables["erring_amount"], 1302);
    }

    #[test]
    fn a_stranger_needs_a_description_or_a_command() {
        let failure = described(&["--participant", "shipping"]).expect_err("nothing is known");
        assert_eq!(failure.exit_status(), crate::failure::UNUSABLE);
        assert!(failure.to_string().contains("--description"), "{failure}");
        let input = std::env::temp_dir().join(format!("conformance-{}.json", std::process::id()));
        std::fs::write(&input, r#"{"parcel": 7}"#).expect("a file");
        let path = input.to_string_lossy().into_owned();
        let line = [
            "--participant",
            "shipping",
            "--command",
            "shipping.book",
            "--input",
            &path,
        ];
        let description = described(&line).expect("a description");
        std::fs::remove_file(&input).expect("removed");
        assert_eq!(description.topic, "shipping.commands");
        assert_eq!(description.commands[0].command_type, "shipping.book");
    }
}

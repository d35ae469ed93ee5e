//! Creates and checks topics.

use super::{
    KafkaConfig, QUERY_TIMEOUT,
    admission::Admission,
    blocking,
    context::Context,
    error::{classify, explain},
    record::RECORD_LIMIT_BYTES,
};
use crate::log::LogError;
use futures_util::{FutureExt, future::BoxFuture};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::{Client, ClientContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{FutureProducer, Producer},
};
use saga_core::message::topic;
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thiserror::Error;
use tokio::time::{Instant, sleep};
use tracing::warn;

/// Longest time to create a topic. This elects leaders, which may take long on a busy cluster.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);
/// Time between two checks whether a created topic has its leaders.
const CREATE_POLL: Duration = Duration::from_millis(50);

/// Clock skew that topics must tolerate.
const CLOCK_SKEW_MS: i64 = 5 * 60 * 1_000;

/// Topic properties that limit how far a record's time may be from the broker's.
const TIMESTAMP_BOUNDS: [&str; 2] = [
    "message.timestamp.before.max.ms",
    "message.timestamp.after.max.ms",
];

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    /// Replication factor; `-1` is the broker's default.
    pub replication: i32,
    /// Retention in milliseconds; `None` is the broker's default.
    pub retention_ms: Option<i64>,
    /// Further topic properties.
    pub properties: BTreeMap<String, String>,
}

impl TopicSpec {
    pub fn new(name: impl Into<String>, partitions: i32) -> Self {
        Self {
            name: name.into(),
            partitions,
            replication: -1,
            retention_ms: None,
            properties: BTreeMap::new(),
        }
    }

    /// Returns the specification of the dead-letter topic of `topic`.
    pub fn dead_letters_of(topic: &str) -> Self {
        let mut spec = Self::new(topic::dead_letters_of(topic), 1);
        spec.properties.insert(
            "max.message.bytes".to_owned(),
            RECORD_LIMIT_BYTES.to_string(),
        );
        spec
    }

    #[must_use]
    pub fn retention_ms(mut self, retention_ms: i64) -> Self {
        self.retention_ms = Some(retention_ms);
        self
    }
}

/// Requirements that a topic must meet for the system's guarantees to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRequirement {
    pub name: String,
    /// Fewest partitions.
    pub partitions: i32,
    /// Shortest retention: longer than the longest outage to survive.
    pub retention: Duration,
    /// Longest retention, if there is one: a record that outlives what it refers to is useless.
    pub retention_at_most: Option<Duration>,
    /// Allows a limit by size in production, too. The length of an outage cannot be compared with a size, so such a
    /// topic always causes a warning.
    pub size_limited: bool,
    /// The topic belongs to another system, and is checked only if it exists.
    pub optional: bool,
    /// Requires replication 3, `min.insync.replicas` 2, and no unclean leader election.
    pub production: bool,
}

impl TopicRequirement {
    pub fn new(name: impl Into<String>, retention: Duration) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
            retention,
            retention_at_most: None,
            size_limited: false,
            optional: false,
            production: false,
        }
    }

    /// Returns the requirement for another system's topic, whose owner decides how long it keeps its records.
    pub fn optional(name: impl Into<String>) -> Self {
        Self {
            optional: true,
            size_limited: true,
            ..Self::new(name, Duration::ZERO)
        }
    }
}

/// A topic that does not meet a requirement. It is printed at startup, so its text says what to change.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum TopicProblem {
    #[error("topic '{topic}' does not exist: create it")]
    Missing { topic: String },
    #[error("topic '{topic}' has {found} partitions, at least {expected} are needed")]
    Partitions {
        topic: String,
        found: i32,
        expected: i32,
    },
    #[error("topic '{topic}' has {property} = {found}, but needs {expected}")]
    Property {
        topic: String,
        property: &'static str,
        found: String,
        expected: String,
    },
    #[error("topic '{topic}' has {found} replicas, production needs {expected}")]
    Replicas {
        topic: String,
        found: usize,
        expected: usize,
    },
}

/// The reason why topics were not approved.
#[derive(Debug, Error)]
pub enum TopicCheckError {
    #[error("the topics could not be checked")]
    Log(#[from] LogError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<TopicProblem>),
}

/// Creates the missing topics and waits until they can be used; existing topics are left unchanged.
pub async fn ensure_topics(config: &KafkaConfig, specs: &[TopicSpec]) -> Result<(), LogError> {
    let inquiry = Inquiry::connect(config)?;
    // This query reports why the client is not let in; the admin client would only time out.
    inquiry.topics().await?;
    let admin = admin(config)?;
    let retention: Vec<_> = specs
        .iter()
        .map(|spec| spec.retention_ms.map(|ms| ms.to_string()))
        .collect();
    // The client library crashes if a topic is named twice in one request.
    let mut named = BTreeSet::new();
    let new: Vec<_> = specs
        .iter()
        .zip(&retention)
        .filter(|(spec, _)| named.insert(&spec.name))
        .map(|(spec, retention)| {
            let mut topic = NewTopic::new(
                &spec.name,
                spec.partitions,
                TopicReplication::Fixed(spec.replication),
            )
            .set("cleanup.policy", "delete");
            if let Some(retention) = retention {
                topic = topic.set("retention.ms", retention);
            }
            for (key, value) in &spec.properties {
                topic = topic.set(key, value);
            }
            topic
        })
        .collect();
    let options = AdminOptions::new()
        .request_timeout(Some(CREATE_TIMEOUT))
        .operation_timeout(Some(CREATE_TIMEOUT));
    let results = admin
        .create_topics(&new, &options)
        .await
        .map_err(|error| classify(error, "the cluster"))?;
    for result in results {
        match result {
            Ok(_) | Err((_, RDKafkaErrorCode::TopicAlreadyExists)) => {}
            Err((topic, code)) => return Err(classify(KafkaError::AdminOp(code), &topic)),
        }
    }
    wait_until_usable(&inquiry, specs).await
}

async fn wait_until_usable(inquiry: &Inquiry, specs: &[TopicSpec]) -> Result<(), LogError> {
    let deadline = Instant::now() + CREATE_TIMEOUT;
    loop {
        let topics = inquiry.topics().await?;
        let waiting = specs.iter().find(|spec| {
            topics
                .get(&spec.name)
                .is_none_or(|topic| !topic.has_leaders)
        });
        let Some(waiting) = waiting else {
            return Ok(());
        };
        if Instant::now() >= deadline {
            let text = format!(
                "topic '{}' was created, but has no leaders yet",
                waiting.name
            );
            return Err(LogError::Unavailable(text.into()));
        }
        sleep(CREATE_POLL).await;
    }
}

/// Checks that topics exist and do not lose records that are still needed.
pub async fn check_topics(
    config: &KafkaConfig,
    requirements: &[TopicRequirement],
) -> Result<(), TopicCheckError> {
    let topics = Inquiry::connect(config)?.topics().await?;
    let mut problems = Vec::new();
    let mut present = Vec::new();
    for requirement in requirements {
        match topics.get(&requirement.name) {
            None if requirement.optional => {}
            None => problems.push(TopicProblem::Missing {
                topic: requirement.name.clone(),
            }),
            Some(topic) => {
                problems.extend(shape_problems(requirement, topic));
                present.push(requirement);
            }
        }
    }
    let resources: Vec<_> = present
        .iter()
        .map(|requirement| ResourceSpecifier::Topic(&requirement.name))
        .collect();
    let options = AdminOptions::new().request_timeout(Some(QUERY_TIMEOUT));
    let described = if resources.is_empty() {
        Vec::new()
    } else {
        admin(config)?
            .describe_configs(&resources, &options)
            .await
            .map_err(|error| classify(error, "the topics' configuration"))?
    };
    for (requirement, resource) in present.iter().zip(described) {
        let resource =
            resource.map_err(|code| classify(KafkaError::AdminOp(code), &requirement.name))?;
        let value = |name: &str| {
            let entry = resource.get(name).and_then(|entry| entry.value.as_deref());
            entry.unwrap_or_default().to_owned()
        };
        problems.extend(property_problems(requirement, &value));
        warn_of_size_limit(requirement, &value("retention.bytes"));
    }
    if problems.is_empty() {
        Ok(())
    } else {
        Err(TopicCheckError::Problems(problems))
    }
}

fn shape_problems(requirement: &TopicRequirement, topic: &Described) -> Vec<TopicProblem> {
    const REPLICAS: usize = 3;
    let mut problems = Vec::new();
    if topic.partitions < requirement.partitions {
        problems.push(TopicProblem::Partitions {
            topic: requirement.name.clone(),
            found: topic.partitions,
            expected: requirement.partitions,
        });
    }
    if requirement.production && topic.replicas < REPLICAS {
        problems.push(TopicProblem::Replicas {
            topic: requirement.name.clone(),
            found: topic.replicas,
            expected: REPLICAS,
        });
    }
    problems
}

/// Logs a limit by size that is allowed.
fn warn_of_size_limit(requirement: &TopicRequirement, retention_bytes: &str) {
    if !requirement.optional && !is_unlimited(retention_bytes) {
        warn!(
            messaging.kafka.topic = requirement.name,
            retention_bytes,
            "the topic is limited by size: under load it keeps its records for less time than retention.ms says. Alarm on \
             saga_records_lost_total"
        );
    }
}

/// Returns `true` if there is no limit; a broker that does not know the property has none.
fn is_unlimited(retention_bytes: &str) -> bool {
    retention_bytes.is_empty() || retention_bytes == "-1"
}

fn is_at_least(found: &str, least: i64) -> bool {
    found.parse::<i64>().is_ok_and(|found| found >= least)
}

fn property_problems(
    requirement: &TopicRequirement,
    value: &dyn Fn(&str) -> String,
) -> Vec<TopicProblem> {
    let mut problems = Vec::new();
    let mut check = |property: &'static str, fits: &dyn Fn(&str) -> bool, expected: String| {
        let found = value(property);
        if !fits(&found) {
            problems.push(TopicProblem::Property {
                topic: requirement.name.clone(),
                property,
                found,
                expected,
            });
        }
    };
    check(
        "cleanup.policy",
        &|found| found == "delete",
        "delete".to_owned(),
    );
    let needed = requirement.retention.as_millis() as i64;
    // -1 keeps records forever.
    let long_enough = |found: &str| found == "-1" || is_at_least(found, needed);
    check("retention.ms", &long_enough, format!("{needed} or more"));
    if requirement.production && !requirement.size_limited {
        check(
            "retention.bytes",
            &is_unlimited,
            "-1, no limit by size: full, it loses records however short an outage is (size_limited_topics = true allows it)"
                .to_owned(),
        );
    }
    if let Some(most) = requirement
        .retention_at_most
        .map(|most| most.as_millis() as i64)
    {
        check(
            "retention.ms",
            &|found| found.parse::<i64>().is_ok_and(|ms| ms != -1 && ms <= most),
            format!("{most} or less, so that no record outlives what is remembered of its saga"),
        );
    }
    // Clocks differ by seconds, and a record that is refused for its time is resent endlessly.
    for bound in TIMESTAMP_BOUNDS {
        check(
            bound,
            &|found| found.is_empty() || is_at_least(found, CLOCK_SKEW_MS),
            format!("{CLOCK_SKEW_MS} or more, so that no record is refused for its sender's clock"),
        );
    }
    // A dead letter adds headers to a record that may be as large as its topic allows, or larger before compression. A
    // dead letter that no broker accepts would stop its partition.
    if topic::holds_dead_letters(&requirement.name) {
        check(
            "max.message.bytes",
            &|found| is_at_least(found, RECORD_LIMIT_BYTES as i64),
            format!("{RECORD_LIMIT_BYTES} or more, to take any dead letter"),
        );
    }
    if requirement.production {
        let two = |found: &str| is_at_least(found, 2);
        check("min.insync.replicas", &two, "2 or more".to_owned());
        let is_clean = |found: &str| found == "false";
        check(
            "unclean.leader.election.enable",
            &is_clean,
            "false".to_owned(),
        );
    }
    problems
}

/// Asks the cluster for its metadata to check that it is available. A service that has a [`super::KafkaWriter`] uses
/// the writer's `health`, which is cheaper.
pub async fn health(config: &KafkaConfig) -> Result<(), LogError> {
    let Inquiry {
        producer,
        admission,
    } = Inquiry::connect(config)?;
    blocking(move || ask(producer.client(), &admission)).await
}

/// Returns [`health`] in the form that a service's health endpoint needs.
pub fn health_check(config: KafkaConfig) -> impl Fn() -> BoxFuture<'static, Result<(), String>> {
    move || {
        let config = config.clone();
        async move { health(&config).await.map_err(|error| error.to_string()) }.boxed()
    }
}

pub(super) fn ask<C: ClientContext>(
    client: &Client<C>,
    admission: &Admission,
) -> Result<(), LogError> {
    metadata(client, admission).map(|_| ())
}

/// A client for metadata queries. It is a producer, because only a producer processes its events by itself, and only
/// those events say why the client is not let in.
struct Inquiry {
    producer: FutureProducer<Context>,
    admission: Admission,
}

impl Inquiry {
    fn connect(config: &KafkaConfig) -> Result<Self, LogError> {
        let mut client = config.client()?;
        config.tune(&mut client);
        let context = Context::default();
        let admission = context.admission().clone();
        let producer = client
            .create_with_context(context)
            .map_err(|error| classify(error, "the cluster"))?;
        Ok(Self {
            producer,
            admission,
        })
    }

    async fn topics(&self) -> Result<BTreeMap<String, Described>, LogError> {
        let (producer, admission) = (self.producer.clone(), self.admission.clone());
        blocking(move || described(producer.client(), &admission)).await
    }
}

fn metadata<C: ClientContext>(
    client: &Client<C>,
    admission: &Admission,
) -> Result<Metadata, LogError> {
    client
        .fetch_metadata(None, QUERY_TIMEOUT)
        .map_err(|error| explain(error, "the cluster", admission))
}

fn admin(config: &KafkaConfig) -> Result<AdminClient<Context>, LogError> {
    let mut client = config.client()?;
    config.tune(&mut client);
    client
        .create_with_context(Context::default())
        .map_err(|error| classify(error, "the cluster"))
}

struct Described {
    partitions: i32,
    replicas: usize,
    has_leaders: bool,
}

fn described<C: ClientContext>(
    client: &Client<C>,
    admission: &Admission,
) -> Result<BTreeMap<String, Described>, LogError> {
    let metadata = metadata(client, admission)?;
    let topics = metadata.topics().iter().map(|topic| {
        let partitions = topic.partitions();
        let replicas = partitions
            .iter()
            .map(|partition| partition.replicas().len());
        let described = Described {
            partitions: partitions.len() as i32,
            replicas: replicas.min().unwrap_or(0),
            has_leaders: !partitions.is_empty()
                && partitions.iter().all(|partition| partition.leader() >= 0),
        };
        (topic.name().to_owned(), described)
    });
    Ok(topics.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(production: bool, properties: &[(&str, &str)], expected: &[&str]) {
        check_topic("saga.inputs", production, properties, expected);
    }

    fn check_topic(topic: &str, production: bool, properties: &[(&str, &str)], expected: &[&str]) {
        let requirement = TopicRequirement {
            production,
            ..TopicRequirement::new(topic, Duration::from_mins(1))
        };
        let value = |name: &str| {
            let found = properties.iter().find(|(key, _)| *key == name);
            found.map_or_else(String::new, |(_, value)| (*value).to_owned())
        };
        let problems = property_problems(&requirement, &value);
        let found: Vec<_> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found.len(), expected.len(), "{found:?}");
        for (text, part) in found.iter().zip(expected) {
            assert!(text.contains(part), "{text}");
        }
    }

    #[test]
    fn a_topic_that_loses_records_is_a_problem() {
        let good = [("cleanup.policy", "delete"), ("retention.ms", "60000")];
        check(false, &good, &[]);
        check(
            false,
            &[("cleanup.policy", "delete"), ("retention.ms", "-1")],
            &[],
        );
        check(
            false,
            &[("cleanup.policy", "compact"), ("retention.ms", "59999")],
            &["cleanup.policy = compact", "needs 60000 or more"],
        );
        check(
            true,
            &good,
            &["min.insync.replicas", "unclean.leader.election.enable"],
        );
    }

    #[test]
    fn a_limit_by_size_is_a_problem_in_production_unless_it_is_allowed() {
        const SIZE_LIMIT: &str = "retention.bytes = 1073741824, but needs -1, no limit by size";
        let limited = [
            ("cleanup.policy", "delete"),
            ("retention.ms", "-1"),
            ("retention.bytes", "1073741824"),
            ("min.insync.replicas", "2"),
            ("unclean.leader.election.enable", "false"),
        ];
        check(true, &limited, &[SIZE_LIMIT]);
        check(false, &limited, &[]);
        let mut unlimited = limited;
        unlimited[2].1 = "-1";
        check(true, &unlimited, &[]);
        let allowed = TopicRequirement {
            size_limited: true,
            production: true,
            ..TopicRequirement::new("saga.inputs", Duration::from_mins(1))
        };
        let value = |name: &str| {
            let found = limited.iter().find(|(key, _)| *key == name);
            found.map_or_else(String::new, |(_, value)| (*value).to_owned())
        };
        assert_eq!(property_problems(&allowed, &value), []);
    }

    #[test]
    fn a_topic_that_refuses_records_for_a_clock_that_is_a_little_wrong_is_a_problem() {
        let bound = |property, ms| {
            [
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                (property, ms),
            ]
        };
        let before = "message.timestamp.before.max.ms";
        check(false, &bound(before, "9223372036854775807"), &[]);
        check(false, &bound(before, "299999"), &[before]);
        let after = "message.timestamp.after.max.ms";
        check(false, &bound(after, "3600000"), &[]);
        check(false, &bound(after, "1000"), &[after]);
    }

    #[test]
    fn a_topic_that_keeps_records_for_too_long_is_a_problem() {
        let requirement = TopicRequirement {
            retention_at_most: Some(Duration::from_mins(2)),
            ..TopicRequirement::new("saga.inputs", Duration::from_mins(1))
        };
        for (retention_ms, fits) in [
            ("60000", true),
            ("120000", true),
            ("120001", false),
            ("-1", false),
        ] {
            let value = |name: &str| match name {
                "cleanup.policy" => "delete".to_owned(),
                "retention.ms" => retention_ms.to_owned(),
                _ => String::new(),
            };
            let problems = property_problems(&requirement, &value);
            assert_eq!(problems.is_empty(), fits, "{retention_ms}: {problems:?}");
            if !fits {
                assert!(
                    problems[0].to_string().contains("120000 or less"),
                    "{problems:?}"
                );
            }
        }
    }

    #[test]
    fn a_dead_letter_topic_that_cannot_take_any_letter_is_a_problem() {
        let properties = |bytes| {
            [
                ("cleanup.policy", "delete"),
                ("retention.ms", "-1"),
                ("max.message.bytes", bytes),
            ]
        };
        check_topic("saga.inputs", false, &properties("1048588"), &[]);
        check_topic("saga.inputs.dlq", false, &properties("2097152"), &[]);
        check_topic(
            "saga.inputs.dlq",
            false,
            &properties("1048588"),
            &["'saga.inputs.dlq' has max.message.bytes = 1048588, but needs 2097152 or more"],
        );
    }
}

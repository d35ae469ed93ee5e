//! Creates and checks topics.

use super::{
    KafkaConfig, QUERY_TIMEOUT, RECORD_LIMIT_BYTES, blocking,
    context::{Admission, Context},
    error::{classify, explain},
};
use crate::{dead_letter, log::LogError};
use rdkafka::{
    admin::{AdminClient, AdminOptions, NewTopic, ResourceSpecifier, TopicReplication},
    client::{Client, ClientContext},
    error::{KafkaError, RDKafkaErrorCode},
    metadata::Metadata,
    producer::{FutureProducer, Producer},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use thiserror::Error;
use tokio::time::{Instant, sleep};

/// Creating a topic elects leaders, which a busy cluster may take its time for.
const CREATE_TIMEOUT: Duration = Duration::from_secs(15);
/// Between two looks whether a created topic has its leaders.
const CREATE_POLL: Duration = Duration::from_millis(50);

/// A topic to create.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicSpec {
    pub name: String,
    pub partitions: i32,
    /// `-1`: the broker's default.
    pub replication: i32,
    /// `None`: the broker's default.
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

    /// The dead-letter topic of `topic`.
    pub fn dead_letters_of(topic: &str) -> Self {
        let mut spec = Self::new(dead_letter::topic_of(topic), 1);
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

/// What a topic must be like for the promises to hold.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicRequirement {
    pub name: String,
    /// At least this many.
    pub partitions: i32,
    /// Longer than the longest outage to survive.
    pub retention: Duration,
    /// And no longer than this: a record that outlives what it refers to is of no use to anybody.
    pub retention_at_most: Option<Duration>,
    /// Somebody else's topic, which is checked if it is there.
    pub optional: bool,
    /// Replication 3, `min.insync.replicas` 2, no unclean election.
    pub production: bool,
}

impl TopicRequirement {
    pub fn new(name: impl Into<String>, retention: Duration) -> Self {
        Self {
            name: name.into(),
            partitions: 1,
            retention,
            retention_at_most: None,
            optional: false,
            production: false,
        }
    }

    /// Somebody else's, who decides how long it keeps its records.
    pub fn optional(name: impl Into<String>) -> Self {
        Self {
            optional: true,
            ..Self::new(name, Duration::ZERO)
        }
    }
}

/// A topic that is not as it must be. Printed at the start, so each says what to change.
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

/// Why topics could not be approved.
#[derive(Debug, Error)]
pub enum TopicCheckError {
    #[error("the topics could not be checked")]
    Log(#[from] LogError),
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "))]
    Problems(Vec<TopicProblem>),
}

/// Creates the topics that are missing and waits until they can be used; leaves the others as they are.
pub async fn ensure_topics(config: &KafkaConfig, specs: &[TopicSpec]) -> Result<(), LogError> {
    let inquiry = Inquiry::connect(config)?;
    // Says why, where the client for changes would only wait.
    inquiry.topics().await?;
    let admin = admin(config)?;
    let retention: Vec<_> = specs
        .iter()
        .map(|spec| spec.retention_ms.map(|ms| ms.to_string()))
        .collect();
    // The client library does not survive a topic that is named twice in one request.
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

/// Checks that topics exist and lose nothing that is still needed.
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
    // -1 keeps records for ever.
    let long_enough = |found: &str| {
        found
            .parse::<i64>()
            .is_ok_and(|ms| ms == -1 || ms >= needed)
    };
    check("retention.ms", &long_enough, format!("{needed} or more"));
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
    // A letter carries headers of its own beside a record that may be as large as its topic allows, or larger if that
    // compressed it. One that no broker takes would stop its partition.
    if dead_letter::is_topic(&requirement.name) {
        check(
            "max.message.bytes",
            &|found| {
                found
                    .parse()
                    .is_ok_and(|bytes: usize| bytes >= RECORD_LIMIT_BYTES)
            },
            format!("{RECORD_LIMIT_BYTES} or more, to take any dead letter"),
        );
    }
    if requirement.production {
        check(
            "min.insync.replicas",
            &|found| found.parse::<i32>().is_ok_and(|count| count >= 2),
            "2 or more".to_owned(),
        );
        check(
            "unclean.leader.election.enable",
            &|found| found == "false",
            "false".to_owned(),
        );
    }
    problems
}

/// Asks the cluster whether it is there. For a service that has a [`super::KafkaWriter`], its `health` is cheaper.
pub async fn health(config: &KafkaConfig) -> Result<(), LogError> {
    let Inquiry {
        producer,
        admission,
    } = Inquiry::connect(config)?;
    blocking(move || ask(producer.client(), &admission)).await
}

pub(super) fn ask<C: ClientContext>(
    client: &Client<C>,
    admission: &Admission,
) -> Result<(), LogError> {
    metadata(client, admission).map(|_| ())
}

/// A client for questions. A producer, since it alone looks at its events by itself, and only they say why it is not let
/// in.
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
                _ => retention_ms.to_owned(),
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

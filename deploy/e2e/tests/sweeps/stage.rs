//! The stage of the sweep: the real orchestrator, the scripted participants, and the relay between them.

use super::{
    definitions::Hurried,
    participants::{self, Participant},
    relay::{self, Passing, REPLIES, Relay},
    script::{Case, Starts},
    slate::Slate,
    stories::Stories,
};
use anyhow::{Context, Result, bail, ensure};
use saga_contracts::topic::{self, ORCHESTRATOR_GROUP, SAGA_EVENTS, SAGA_INPUTS};
use saga_core::{
    ids::SagaId,
    instance::ActionVerdict,
    message::{ActionKind, IncomingRecord, OutgoingRecord, StartSaga, Trace},
};
use saga_harness::{Service, System, system::PATIENCE, topics};
use saga_messaging::{
    consumer::{self, ConsumerSettings},
    kafka::{
        GroupOffsets, KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions, Tail, home_partition,
    },
    log::{LogError, LogWriter},
};
use saga_service::clock;
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use tokio::{sync::Semaphore, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The number of partitions of every topic here. It is the same for all, so that the relay can keep a record's
/// partition.
const PARTITIONS: i32 = 2;
/// The number of concurrent requests for actions. It is below the number of the orchestrator's connections for
/// requests, so that no request is rejected because the orchestrator is busy.
const ASKING: usize = 8;
/// The timeout for getting a connection: hundreds of sagas that start at once occupy the connections of a busy machine
/// for longer than the default.
const PATIENCE_FOR_CONNECTIONS_MS: &str = "25000";

pub struct Stage {
    pub system: &'static System,
    pub relay: Arc<Relay>,
    pub stories: Arc<Stories>,
    participants: Vec<Participant>,
    writer: KafkaWriter,
    /// Limits the concurrent requests for actions.
    asking: Semaphore,
    stop: CancellationToken,
    relaying: JoinHandle<Result<(), LogError>>,
    reading: JoinHandle<()>,
}

impl Stage {
    /// Starts the orchestrator with these definitions, and scripted participants in place of the services.
    pub async fn set(system: &'static System, definitions: &[Hurried]) -> Result<Self> {
        let steps = definitions.iter().flat_map(|of| &of.definition.steps);
        let names: BTreeSet<&str> = steps.map(|step| step.participant.as_str()).collect();
        create_topics(system, &names).await;
        for service in [Service::Order, Service::Inventory, Service::Payment] {
            system.stop(service)?;
        }
        let kafka = KafkaConfig::plaintext(system.env.brokers());
        let writer = KafkaWriter::connect(&kafka)?;
        let (relay, stop) = (
            Arc::new(Relay::new(writer.clone())),
            CancellationToken::new(),
        );
        let mut participants = Vec::new();
        for name in &names {
            let database = system.env.create_database(&format!("sweep_{name}")).await;
            let stop = stop.clone();
            let started = Participant::start(name, &database, kafka.clone(), &relay, stop);
            participants.push(started.await?);
        }
        let stories = Arc::new(Stories::default());
        let reading =
            tokio::spawn(Arc::clone(&stories).read(Tail::open(&kafka, SAGA_EVENTS).await?));
        let mut passed: Vec<String> = names
            .iter()
            .map(|name| relay::commands_topic(name))
            .collect();
        passed.push(REPLIES.to_owned());
        let passed: Vec<&str> = passed.iter().map(String::as_str).collect();
        let reader =
            KafkaReader::subscribe(&kafka, relay::GROUP, &passed, ReaderOptions::default())?;
        let relaying = tokio::spawn(consumer::run(
            reader,
            writer.clone(),
            Passing(Arc::clone(&relay)),
            ConsumerSettings::default(),
            stop.clone(),
        ));
        let stage = Self {
            system,
            relay,
            stories,
            participants,
            writer,
            asking: Semaphore::new(ASKING),
            stop,
            relaying,
            reading,
        };
        stage.restart_orchestrator(definitions).await?;
        Ok(stage)
    }

    async fn restart_orchestrator(&self, definitions: &[Hurried]) -> Result<()> {
        for hurried in definitions {
            std::fs::write(self.system.definitions().join(&hurried.file), &hurried.yaml)?;
        }
        for participant in &self.participants {
            let key = |end| format!("PARTICIPANTS__{}__{end}", participant.name.to_uppercase());
            let topic = relay::commands_topic(&participant.name);
            let orchestrator = Service::Orchestrator;
            self.system
                .configure(orchestrator, &key("TOPIC"), Some(&topic));
            self.system
                .configure(orchestrator, &key("GROUP"), Some(relay::GROUP));
        }
        let (key, patience) = ("POSTGRES__CONNECT_TIMEOUT_MS", PATIENCE_FOR_CONNECTIONS_MS);
        self.system
            .configure(Service::Orchestrator, key, Some(patience));
        self.system.stop(Service::Orchestrator)?;
        self.system.restart(Service::Orchestrator).await
    }

    /// Starts a saga for each case, all at once.
    pub async fn start(&self, cases: &[Case]) -> Result<Vec<SagaId>> {
        let sagas: Vec<SagaId> = cases.iter().map(|_| SagaId(clock::new_id())).collect();
        let mut of_definition: BTreeMap<&str, Vec<(&Case, SagaId)>> = BTreeMap::new();
        for (case, saga) in cases.iter().zip(&sagas) {
            self.stories.expect(*saga);
            self.relay.expect(*saga, Arc::new(case.script.clone()));
            let of = of_definition.entry(&case.definition.name).or_default();
            of.push((case, *saga));
        }
        for started in of_definition.values() {
            let definition = &started[0].0.definition;
            let sagas: Vec<SagaId> = started.iter().map(|(_, saga)| *saga).collect();
            let name = &definition.steps[0].participant;
            let mut participants = self.participants.iter();
            let starter = participants
                .find(|participant| participant.name == *name)
                .context("the starter's participant")?;
            starter.start_sagas(definition, &sagas).await?;
        }
        let starts: Vec<OutgoingRecord> = cases
            .iter()
            .zip(&sagas)
            .flat_map(|(case, saga)| {
                let times = if case.script.starts == Starts::Twice {
                    2
                } else {
                    1
                };
                std::iter::repeat_n(start_record(case, *saga), times)
            })
            .collect();
        self.writer.publish(&starts).await?;
        Ok(sagas)
    }

    /// Ends the case's script: sends the messages that were kept back, and the second start if the script has one.
    pub async fn end(&self, case: &Case, saga: SagaId) -> Result<()> {
        if case.script.starts == Starts::AgainAtTheEnd {
            self.writer.publish(&[start_record(case, saga)]).await?;
        }
        Ok(self.relay.end(saga).await?)
    }

    /// Asks the orchestrator for an action over HTTP, and waits for its verdict.
    pub async fn ask(&self, saga: SagaId, kind: &ActionKind) -> Result<ActionVerdict> {
        let mut body = serde_json::to_value(kind)?;
        let asked = body.as_object_mut().context("an action is an object")?;
        asked.remove("action");
        asked.insert("reason".to_owned(), json!("the sweep says so"));
        let name = kind.name().as_str().replace('_', "-");
        let path = format!("/sagas/{saga}/{name}");
        let url = self.system.url(Service::Orchestrator, &path);
        let _turn = self.asking.acquire().await?;
        let response = self.system.http.post(url).json(&body).send().await?;
        let status = response.status().as_u16();
        let answer: Value = response.json().await?;
        match status {
            202 if answer["decision"] == "undecided" => self.decided(saga, &answer["id"]).await,
            202 => verdict(&answer),
            409 => refused(&answer),
            _ => bail!("{path} answered {status}: {answer}"),
        }
    }

    /// Waits for the verdict of an action that the request did not wait long enough for.
    async fn decided(&self, saga: SagaId, action: &Value) -> Result<ActionVerdict> {
        let path = format!("/sagas/{saga}/actions");
        let found = until("the action is decided", PATIENCE, async || {
            let listed = self.system.get(Service::Orchestrator, &path).await?;
            let mut actions = listed["actions"].as_array().into_iter().flatten();
            let found = actions.find(|listed| listed["id"] == *action).cloned();
            found.with_context(|| format!("{action} is not in {listed}"))
        })
        .await;
        verdict(&found)
    }

    /// Waits until nothing is in flight anywhere: every message is consumed, every call that a message caused is
    /// settled, and no further messages follow.
    pub async fn quiet(&self) -> Result<()> {
        let kafka = KafkaConfig::plaintext(self.system.env.brokers());
        let mut consumers = vec![(
            GroupOffsets::connect(&kafka, ORCHESTRATOR_GROUP)?,
            SAGA_INPUTS.to_owned(),
        )];
        let relaying = GroupOffsets::connect(&kafka, relay::GROUP)?;
        consumers.push((relaying.clone(), REPLIES.to_owned()));
        for Participant { name, .. } in &self.participants {
            consumers.push((relaying.clone(), relay::commands_topic(name)));
            let group = GroupOffsets::connect(&kafka, &participants::group(name))?;
            consumers.push((group, relay::delivered_topic(name)));
        }
        let last = tokio::sync::Mutex::new(None);
        until("nothing is under way", PATIENCE, async || {
            let ends = caught_up(&consumers).await?;
            // The order matters: a participant commits the offset of a command only after it has stored the call as
            // pending.
            for participant in &self.participants {
                participant.has_settled().await?;
            }
            let before = last.lock().await.replace(ends.clone());
            ensure!(before == Some(ends), "something moves still");
            anyhow::Ok(())
        })
        .await;
        Ok(())
    }

    /// Sends every message again that has ever been sent.
    pub async fn replay(&self) -> Result<usize> {
        let brokers = self.system.env.brokers();
        let names = self
            .participants
            .iter()
            .map(|participant| &participant.name);
        let mut everything = topics::read_all(&brokers, SAGA_INPUTS)?;
        for topic in names.map(|name| relay::delivered_topic(name)) {
            everything.extend(topics::read_all(&brokers, &topic)?);
        }
        topics::replay(&brokers, &everything).await?;
        Ok(everything.len())
    }

    pub async fn slate(&self) -> Result<Slate> {
        Slate::read(&self.participants).await
    }

    /// Checks that no saga is live, that the history has these ends, and that there are no dead letters.
    pub async fn check_nothing_is_left(&self, ended: &BTreeMap<Uuid, &str>) -> Result<()> {
        let database = &self.system.databases[&Service::Orchestrator];
        let pool = sqlx::PgPool::connect(database).await?;
        let live: Vec<Uuid> = sqlx::query_scalar("SELECT id FROM saga")
            .fetch_all(&pool)
            .await?;
        ensure!(live.is_empty(), "sagas are live still: {live:?}");
        let history: Vec<(Uuid, String)> = sqlx::query_as("SELECT id, status FROM saga_history")
            .fetch_all(&pool)
            .await?;
        let history: BTreeMap<Uuid, &str> = history
            .iter()
            .map(|(id, end)| (*id, end.as_str()))
            .collect();
        let others: Vec<&Uuid> = ended
            .iter()
            .filter(|(saga, end)| history.get(saga) != Some(end))
            .map(|(saga, _)| saga)
            .collect();
        ensure!(
            others.is_empty() && history.len() == ended.len(),
            "the history tells of {} sagas of {}, and other ends of {others:?}",
            history.len(),
            ended.len()
        );
        let brokers = self.system.env.brokers();
        let mut consumed = vec![SAGA_INPUTS.to_owned()];
        consumed.extend(
            self.participants
                .iter()
                .map(|of| relay::delivered_topic(&of.name)),
        );
        for topic in consumed {
            let letters: Vec<IncomingRecord> =
                topics::read_all(&brokers, &topic::dead_letters_of(&topic))?;
            ensure!(letters.is_empty(), "dead letters of {topic}: {letters:?}");
        }
        Ok(())
    }

    pub async fn strike(self) -> Result<()> {
        self.stop.cancel();
        self.reading.abort();
        self.relaying.await??;
        for participant in self.participants {
            participant.ended().await?;
        }
        Ok(())
    }
}

async fn create_topics(system: &System, participants: &BTreeSet<&str>) {
    let mut topics = vec![(REPLIES.to_owned(), PARTITIONS)];
    for name in participants {
        let delivered = relay::delivered_topic(name);
        topics.push((relay::commands_topic(name), PARTITIONS));
        topics.push((topic::dead_letters_of(&delivered), 1));
        topics.push((delivered, PARTITIONS));
    }
    let topics: Vec<(&str, i32)> = topics.iter().map(|(name, n)| (name.as_str(), *n)).collect();
    system.env.create_topics(&topics).await;
}

/// Returns the input of all sagas.
pub fn order() -> Value {
    let id = Uuid::from_u128(1);
    json!({
        "orderId": id, "customerId": id, "amountMinor": 2500, "currency": "EUR",
        "items": [{"productId": id, "quantity": 2, "unitPriceMinor": 1250}],
    })
}

fn start_record(case: &Case, saga: SagaId) -> OutgoingRecord {
    let start = StartSaga {
        saga_id: saga,
        start_type: "sweep.started".to_owned(),
        definition: case.definition.name.clone(),
        business_key: None,
        input: order(),
        trace: Trace {
            correlation_id: case.name.clone(),
            traceparent: None,
        },
    };
    let home = home_partition(&saga.to_string(), PARTITIONS);
    start.encode(SAGA_INPUTS, home, "/sweep", clock::now())
}

/// Returns the end offsets of all partitions. Fails if a consumer has not committed up to the end.
async fn caught_up(consumers: &[(GroupOffsets, String)]) -> Result<Vec<i64>> {
    let mut ends = Vec::new();
    for (group, topic) in consumers {
        let committed = group.committed(topic).await?;
        for (partition, committed) in committed {
            let (_, end) = group.watermarks(topic, partition).await?;
            ensure!(
                committed == end,
                "{topic}/{partition}: {committed} of {end}"
            );
            ends.push(end);
        }
    }
    Ok(ends)
}

fn verdict(action: &Value) -> Result<ActionVerdict> {
    match action["decision"].as_str() {
        Some("accepted") => Ok(ActionVerdict::ACCEPTED),
        Some("pending") => Ok(ActionVerdict::Pending),
        Some("refused") => Ok(ActionVerdict::Refused {
            code: text(&action["code"]),
            message: text(&action["message"]),
            legal: serde_json::from_value(action["legal"].clone()).unwrap_or_default(),
        }),
        Some(_) | None => bail!("no verdict: {action}"),
    }
}

fn refused(problem: &Value) -> Result<ActionVerdict> {
    let slug = text(&problem["type"]);
    let code = slug
        .strip_prefix("/problems/")
        .context("a problem's type")?;
    Ok(ActionVerdict::Refused {
        code: code.replace('-', "_"),
        message: text(&problem["detail"]),
        legal: serde_json::from_value(problem["legal"].clone()).unwrap_or_default(),
    })
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

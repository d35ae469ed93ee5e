//! A running orchestrator, and participants with scripted answers.

use orchestrator::{Orchestrator, config::Config};
use saga_core::message::{Command as SagaCommand, Direction, Fault, Outcome, Reply};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, PollResult},
};
use saga_service::{Service, config, lifecycle::Shutdown};
use saga_test_support::{
    environment::{TestEnv, until},
    service::ticks,
};
use serde_json::{Value, json};
use std::{path::PathBuf, process::Stdio, time::Duration};
use tokio::{
    net::TcpListener,
    process::{Child, Command},
    sync::{Mutex, MutexGuard},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;

pub const PATIENCE: Duration = Duration::from_secs(40);

/// A definition whose pivot parks once it has been asked for twice in vain.
pub const UNSURE: &str = "name: unsure
version: 1
deadline: 1h
steps:
  - name: pack
    kind: compensatable
    participant: packer
    command: parcel.pack
    compensation:
      command: parcel.unpack
  - name: send
    kind: pivot
    participant: sender
    command: parcel.send
    retry: {attempts: 1, firstDelay: 100ms}
    resolve: {attempts: 2}
";

/// A definition of two steps with short timeouts: `pack` can be compensated, `send` is the pivot.
const DEFINITION: &str = "name: parcel
version: 1
deadline: 1h
input:
  schema: {type: object, properties: {parcel: {type: integer, minimum: 1}}}
steps:
  - name: pack
    kind: compensatable
    participant: packer
    command: parcel.pack
    timeout: 1s
    compensation:
      command: parcel.unpack
      timeout: 1s
      retry: {attempts: 1}
  - name: send
    kind: pivot
    participant: sender
    command: parcel.send
    timeout: 1s
";

/// The database and definitions of one test, and its running orchestrators.
pub struct System {
    env: &'static TestEnv,
    database: String,
    definitions: PathBuf,
    /// Configuration beyond the common one, as TOML.
    more: String,
    /// The running orchestrators. Requests go to the first.
    running: Vec<Running>,
    _alone: MutexGuard<'static, ()>,
}

/// Serializes the tests. Topics have fixed names, so only one test at a time can use the broker.
static ALONE: Mutex<()> = Mutex::const_new(());

async fn create_topics(env: &TestEnv) {
    env.create_topics(&[
        ("saga.inputs", 2),
        ("saga.inputs.dlq", 1),
        ("saga.events", 2),
        ("order.commands", 1),
        ("inventory.commands", 1),
        ("payment.commands", 1),
        ("packer.commands", 2),
        ("sender.commands", 2),
    ])
    .await;
}

struct Running {
    url: String,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl System {
    /// Starts an orchestrator with a database of its own. Records of other tests in the topics are about unknown sagas.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// Starts an orchestrator with additional configuration.
    pub async fn start_with(more: &str) -> Self {
        let alone = ALONE.lock().await;
        let env = TestEnv::shared().await;
        create_topics(env).await;
        let database = env.create_database("orchestrator").await;
        let definitions = std::env::temp_dir().join(env.unique("definitions"));
        std::fs::create_dir_all(&definitions).unwrap();
        std::fs::write(definitions.join("parcel.yaml"), DEFINITION).unwrap();
        let mut system = Self {
            env,
            database,
            definitions,
            more: more.to_owned(),
            running: Vec::new(),
            _alone: alone,
        };
        system.adopt_group().await;
        system.start_orchestrator().await;
        system
    }

    /// Adds a definition, configuration and a topic for orchestrators that are started later. Running ones do not have
    /// them.
    pub async fn bring(&mut self, file: &str, definition: &str, more: &str, topic: &str) {
        self.env.create_topics(&[(topic, 2)]).await;
        std::fs::write(self.definitions.join(file), definition).unwrap();
        self.more.push_str(more);
    }

    fn configuration(&self) -> Config {
        let overrides = format!(
            "definitions_dir = '{}'\n[log]\nfilter = 'error'\n[postgres]\nurl = '{}'\n\
             [kafka]\nbrokers = '{}'\n\
             [participants.packer]\ntopic = 'packer.commands'\ngroup = 'packer'\n\
             [participants.sender]\ntopic = 'sender.commands'\ngroup = 'sender'\n{}",
            self.definitions.display(),
            self.database,
            self.env.brokers(),
            self.more
        );
        config::load::<Orchestrator>(None, Some(&overrides)).unwrap()
    }

    /// Adopts the consumer group, which belongs to the previous test's database. That test's members may have to
    /// expire.
    async fn adopt_group(&self) {
        let config = self.configuration();
        Orchestrator::migrate(&config).await.unwrap();
        until("the group is adopted", PATIENCE, async || {
            let adopted = Orchestrator::adopt(&config, true).await;
            adopted.expect("the orchestrator is in a group")
        })
        .await;
    }

    pub async fn start_orchestrator(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let config = self.configuration();
        saga_service::telemetry::init(&config.log).unwrap();
        Orchestrator::migrate(&config).await.unwrap();
        Orchestrator::check_migrations(&config).await.unwrap();
        let shutdown = Shutdown::new();
        let task = tokio::spawn(Orchestrator::run(config, listener, shutdown.clone()));
        let ready = format!("{url}/health/ready");
        self.running.push(Running {
            url,
            shutdown,
            task,
        });
        until("the orchestrator answers", PATIENCE, || async {
            let answer = saga_test_support::http_client().get(&ready).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Drains the first orchestrator, as after a SIGTERM.
    pub async fn stop_orchestrator(&mut self) {
        let Running { shutdown, task, .. } = self.running.remove(0);
        shutdown.soft.cancel();
        task.await.unwrap().unwrap();
        assert!(shutdown.drain(PATIENCE).await, "everything ends by itself");
        assert_eq!(shutdown.failure(), None);
    }

    /// Starts another orchestrator as a separate process, which can be killed.
    pub async fn spawn_process(&self, executable: &str) -> Child {
        self.spawn_process_on(executable, &self.database).await
    }

    /// Starts a process on the given database.
    pub async fn spawn_process_on(&self, executable: &str, database: &str) -> Child {
        let port = free_port().await;
        let child = self
            .command(executable, port, database)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the other process owns partitions", PATIENCE, || async {
            let metrics = format!("http://127.0.0.1:{port}/metrics");
            let answer = saga_test_support::http_client().get(metrics).send().await;
            let Ok(answer) = answer else { return false };
            let text = answer.text().await.unwrap_or_default();
            text.lines()
                .any(|line| line.starts_with("saga_partitions_owned") && !line.ends_with(" 0"))
        })
        .await;
        child
    }

    /// Returns the command of a process with this configuration, except for port and database.
    pub fn command(&self, executable: &str, port: u16, database: &str) -> Command {
        let mut command = Command::new(executable);
        command
            .env("ORCHESTRATOR__HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .env("ORCHESTRATOR__POSTGRES__URL", database)
            .env("ORCHESTRATOR__KAFKA__BROKERS", self.env.brokers())
            .env("ORCHESTRATOR__DEFINITIONS_DIR", &self.definitions)
            .env(
                "ORCHESTRATOR__PARTICIPANTS__PACKER__TOPIC",
                "packer.commands",
            )
            .env("ORCHESTRATOR__PARTICIPANTS__PACKER__GROUP", "packer")
            .env(
                "ORCHESTRATOR__PARTICIPANTS__SENDER__TOPIC",
                "sender.commands",
            )
            .env("ORCHESTRATOR__PARTICIPANTS__SENDER__GROUP", "sender")
            .env("NO_COLOR", "1")
            .kill_on_drop(true);
        command
    }

    /// Deletes the topics, and recreates them with the tests' configuration.
    pub async fn recreate_topics(&self, topics: &[&str]) {
        self.env.delete_topics(topics).await;
        create_topics(self.env).await;
    }

    /// Copies the database.
    pub async fn copy_database(&self) -> String {
        let url = self.create_database().await;
        let postgres = self.env.postgres();
        postgres.replace_by_copy(&url, &self.database).await;
        url
    }

    /// Waits until the database has more ticks than its backup.
    pub async fn ticks_since(&self, backup: &str) {
        let then = ticks(backup).await.unwrap();
        until("it ticks", PATIENCE, async || {
            ticks(&self.database).await.is_ok_and(|now| now > then)
        })
        .await;
    }

    /// Sets the database of orchestrators that are started from now on.
    pub fn use_database(&mut self, url: String) {
        self.database = url;
    }

    /// Waits until the first orchestrator stops by itself, and returns the reason.
    pub async fn ended_by_itself(&mut self) -> String {
        let Running { shutdown, task, .. } = self.running.remove(0);
        tokio::time::timeout(PATIENCE, task)
            .await
            .expect("it stops")
            .unwrap()
            .unwrap();
        assert!(shutdown.drain(PATIENCE).await, "everything ends by itself");
        shutdown.failure().expect("it says why").to_owned()
    }

    pub async fn create_database(&self) -> String {
        self.env.create_database("orchestrator").await
    }

    pub fn database(&self) -> &str {
        &self.database
    }

    pub fn brokers(&self) -> String {
        self.env.brokers()
    }

    /// Connects to the orchestrator's database.
    pub async fn connect(&self) -> sqlx::PgConnection {
        <sqlx::PgConnection as sqlx::Connection>::connect(&self.database)
            .await
            .unwrap()
    }

    pub async fn metrics(&self) -> String {
        let answer = saga_test_support::http_client()
            .get(self.url("/metrics"))
            .send()
            .await;
        answer.unwrap().text().await.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running[0].url)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let Ok(answer) = saga_test_support::http_client()
            .get(self.url(path))
            .send()
            .await
        else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut request = saga_test_support::http_client()
            .post(self.url(path))
            .json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Posts a body as text, for JSON that a `Value` cannot hold.
    pub async fn post_text(&self, path: &str, body: &str) -> (u16, Value) {
        let request = saga_test_support::http_client()
            .post(self.url(path))
            .header("content-type", "application/json")
            .body(body.to_owned());
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Collects server-sent events as text, from now on, until one of them contains `last`.
    pub async fn listen(&self, last: &'static str) -> JoinHandle<String> {
        let mut answer = saga_test_support::http_client()
            .get(self.url("/events"))
            .send()
            .await
            .unwrap();
        tokio::spawn(async move {
            let mut heard = String::new();
            while let Ok(Some(chunk)) = answer.chunk().await {
                heard.push_str(&String::from_utf8_lossy(&chunk));
                if heard.contains(last) {
                    break;
                }
            }
            heard
        })
    }

    pub async fn start_parcel(&self, business_key: &str) -> String {
        let body =
            json!({"definition": "parcel", "businessKey": business_key, "input": {"parcel": 7}});
        let (status, answer) = self.post("/sagas", &[], &body).await;
        assert_eq!(status, 202, "{answer:#}");
        answer["id"].as_str().unwrap().to_owned()
    }

    /// Waits until the saga satisfies `wanted`.
    pub async fn saga_until(&self, id: &str, what: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        until(what, PATIENCE, || async {
            let (status, saga) = self.get(&format!("/sagas/{id}")).await;
            if status == 200 && wanted(&saga) {
                Ok(saga)
            } else {
                Err(format!("{status} {saga:#}"))
            }
        })
        .await
    }

    pub async fn saga_is(&self, id: &str, wanted: &str) -> Value {
        self.saga_until(id, wanted, |saga| saga["status"] == wanted)
            .await
    }

    /// Starts a participant that answers until it is dropped.
    pub fn participant(&self, name: &str, answer: fn(&SagaCommand) -> Outcome) -> Participant {
        self.participant_of(name, &format!("{name}.commands"), answer)
    }

    /// Starts a participant with a topic of another name.
    pub fn participant_of(
        &self,
        group: &str,
        topic: &str,
        answer: fn(&SagaCommand) -> Outcome,
    ) -> Participant {
        let kafka = KafkaConfig::plaintext(self.env.brokers());
        let reader =
            KafkaReader::subscribe(&kafka, group, &[topic], ReaderOptions::default()).unwrap();
        let writer = KafkaWriter::connect(&kafka).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(reader, writer, answer, stop.clone()));
        Participant { stop, task }
    }
}

/// Returns a port that is free now.
pub async fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    listener.local_addr().unwrap().port()
}

pub struct Participant {
    stop: CancellationToken,
    task: JoinHandle<()>,
}

impl Participant {
    pub async fn stop(self) {
        self.stop.cancel();
        self.task.await.unwrap();
    }
}

async fn work(
    mut reader: KafkaReader,
    writer: KafkaWriter,
    answer: fn(&SagaCommand) -> Outcome,
    stop: CancellationToken,
) {
    loop {
        let polled = tokio::select! {
            () = stop.cancelled() => break,
            polled = reader.poll(100) => polled.unwrap(),
        };
        if let PollResult::Records(records) = polled {
            let replies: Vec<_> = records
                .iter()
                .map(|record| {
                    let command = SagaCommand::decode(record).unwrap();
                    let at = saga_service::clock::now();
                    reply(&command, answer(&command)).encode(&command.reply_to, "/test", at)
                })
                .collect();
            writer.publish(&replies).await.unwrap();
            reader.done(&records).unwrap();
        }
    }
    reader.close().await;
}

fn reply(command: &SagaCommand, outcome: Outcome) -> Reply {
    let direction = match (command.direction, outcome) {
        (Direction::Resolve, Outcome::Success | Outcome::Failure | Outcome::Error) => {
            Direction::Forward
        }
        (direction, _) => direction,
    };
    Reply {
        saga_id: command.saga_id,
        step: command.step.clone(),
        direction,
        attempt: command.attempt,
        reply_type: format!("{}.answered", command.command_type),
        outcome,
        payload: match outcome {
            Outcome::Success | Outcome::NotDone => json!({}),
            Outcome::Failure | Outcome::Error => {
                serde_json::to_value(Fault::new("refused", "not today")).unwrap()
            }
        },
        trace: command.trace.clone(),
    }
}

/// Answers as a participant whose handler fails and that cannot tell what became of a step.
pub fn errs(_command: &SagaCommand) -> Outcome {
    Outcome::Error
}

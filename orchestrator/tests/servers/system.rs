//! A running orchestrator, and participants that answer what a test wants.

use orchestrator::Orchestrator;
use saga_core::message::{Command as SagaCommand, Direction, Fault, Outcome, Reply};
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, Polled},
};
use saga_service::{Service, config, lifecycle::Shutdown};
use saga_testkit::environment::{TestEnv, until};
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

/// Two steps, quick to time out: `pack` can be undone, `send` decides.
const DEFINITION: &str = "name: parcel
version: 1
deadline: 1h
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

/// A database and definitions of one test's own, and the orchestrator while it runs.
pub struct System {
    env: &'static TestEnv,
    database: String,
    definitions: PathBuf,
    /// Configuration beyond what every test needs, as TOML.
    more: String,
    /// The first one is asked.
    running: Vec<Running>,
    _alone: MutexGuard<'static, ()>,
}

/// Topics have fixed names, so only one orchestrator at a time uses the broker.
static ALONE: Mutex<()> = Mutex::const_new(());

struct Running {
    url: String,
    shutdown: Shutdown,
    task: JoinHandle<anyhow::Result<()>>,
}

impl System {
    /// With a database of its own. What other tests left in the topics is of sagas that it does not know.
    pub async fn start() -> Self {
        Self::start_with("").await
    }

    /// The same, with sections of configuration that only this test needs.
    pub async fn start_with(more: &str) -> Self {
        let alone = ALONE.lock().await;
        let env = TestEnv::shared().await;
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
        system.start_orchestrator().await;
        system
    }

    pub async fn start_orchestrator(&mut self) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
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
        let config = config::load::<Orchestrator>(None, Some(&overrides)).unwrap();
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
            let answer = saga_testkit::http_client().get(&ready).send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Drains the first one, as after a SIGTERM.
    pub async fn stop_orchestrator(&mut self) {
        let Running { shutdown, task, .. } = self.running.remove(0);
        shutdown.soft.cancel();
        task.await.unwrap().unwrap();
        assert!(shutdown.drain(PATIENCE).await, "everything ends by itself");
        assert_eq!(shutdown.failure(), None);
    }

    /// Another orchestrator, as a process of its own that can be killed.
    pub async fn spawn_process(&self, executable: &str) -> Child {
        let port = free_port().await;
        let child = Command::new(executable)
            .env("ORCHESTRATOR__HTTP__LISTEN", format!("127.0.0.1:{port}"))
            .env("ORCHESTRATOR__POSTGRES__URL", &self.database)
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
            .kill_on_drop(true)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        until("the other process owns partitions", PATIENCE, || async {
            let metrics = format!("http://127.0.0.1:{port}/metrics");
            let answer = saga_testkit::http_client().get(metrics).send().await;
            let Ok(answer) = answer else { return false };
            let text = answer.text().await.unwrap_or_default();
            text.lines()
                .any(|line| line.starts_with("saga_partitions_owned") && !line.ends_with(" 0"))
        })
        .await;
        child
    }

    pub fn brokers(&self) -> String {
        self.env.brokers()
    }

    /// The orchestrator's own database.
    pub async fn connect(&self) -> sqlx::PgConnection {
        <sqlx::PgConnection as sqlx::Connection>::connect(&self.database)
            .await
            .unwrap()
    }

    pub async fn metrics(&self) -> String {
        let answer = saga_testkit::http_client()
            .get(self.url("/metrics"))
            .send()
            .await;
        answer.unwrap().text().await.unwrap()
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.running[0].url)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let Ok(answer) = saga_testkit::http_client().get(self.url(path)).send().await else {
            return (0, Value::Null);
        };
        let status = answer.status().as_u16();
        (status, answer.json().await.unwrap_or(Value::Null))
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> (u16, Value) {
        let mut request = saga_testkit::http_client().post(self.url(path)).json(body);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// Server-sent events as text, from now on, until one of them contains `last`.
    pub async fn listen(&self, last: &'static str) -> JoinHandle<String> {
        let mut answer = saga_testkit::http_client()
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

    /// Waits until the saga looks as wanted.
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

    /// A participant that answers until it is dropped.
    pub fn participant(&self, name: &str, answer: fn(&SagaCommand) -> Outcome) -> Participant {
        let kafka = KafkaConfig::plaintext(self.env.brokers());
        let topic = format!("{name}.commands");
        let reader =
            KafkaReader::subscribe(&kafka, name, &[&topic], ReaderOptions::default()).unwrap();
        let writer = KafkaWriter::connect(&kafka).unwrap();
        let stop = CancellationToken::new();
        let task = tokio::spawn(work(reader, writer, answer, stop.clone()));
        Participant { stop, task }
    }
}

/// A port that is free now.
async fn free_port() -> u16 {
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
        if let Polled::Records(records) = polled {
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

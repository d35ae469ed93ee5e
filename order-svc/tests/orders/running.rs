//! Tests the whole service, as `main` runs it, on a real Kafka and a real Postgres.

use crate::harness::{PATIENCE, confirm, order};
use order_svc::{Config, OrderService};
use saga_contracts::topic;
use saga_core::message::Input;
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, PollResult},
};
use saga_service::{Service, clock, config::load, lifecycle::Shutdown};
use saga_test_support::{
    environment::{TestEnv, until},
    http_client,
    service::refuses_another_database,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tokio::{net::TcpListener, task::JoinHandle};
use uuid::Uuid;

/// Returns the saga of the first start message on this test's broker.
async fn first_start(reader: &mut KafkaReader) -> Uuid {
    loop {
        match reader.poll(100).await.expect("polled") {
            PollResult::Records(records) => {
                let input = Input::decode(&records[0]).expect("an input");
                assert!(matches!(input, Input::Start(_)), "{input:?}");
                return input.saga_id().0;
            }
            PollResult::Assigned(_) | PollResult::Revoked(_) => {}
        }
    }
}

/// Returns the configuration's overrides; creates the topics and an empty database.
async fn overrides(env: &TestEnv) -> String {
    let dead_letters = topic::dead_letters_of(topic::ORDER_COMMANDS);
    env.create_topics(&[
        (topic::SAGA_INPUTS, 2),
        (topic::ORDER_COMMANDS, 2),
        (&dead_letters, 1),
    ])
    .await;
    let url = env.create_role_and_database("order-svc").await;
    format!(
        "postgres.url = \"{url}\"\nkafka.brokers = \"{}\"\norchestrator_url = \"http://127.0.0.1:9\"",
        env.brokers()
    )
}

async fn configuration(env: &TestEnv) -> Config {
    load::<OrderService>(None, Some(&overrides(env).await)).expect("configuration")
}

/// A running service.
struct Running {
    base: String,
    http: reqwest::Client,
    shutdown: Shutdown,
    service: JoinHandle<anyhow::Result<()>>,
}

impl Running {
    /// Starts the service on a migrated database and waits until it is ready.
    async fn start(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
        let base = format!("http://{}", listener.local_addr().expect("address"));
        let shutdown = Shutdown::new();
        let service = tokio::spawn(OrderService::run(config, listener, shutdown.clone()));
        let http = http_client();
        until("the service is ready", PATIENCE, async || {
            let ready = http.get(format!("{base}/health/ready")).send().await;
            ready.is_ok_and(|response| response.status() == 200)
        })
        .await;
        Self {
            base,
            http,
            shutdown,
            service,
        }
    }

    fn orders(&self) -> reqwest::RequestBuilder {
        self.http.post(format!("{}/orders", self.base))
    }

    async fn stop(self) {
        self.shutdown.soft.cancel();
        self.service.await.expect("no panic").expect("a clean end");
    }
}

async fn send_confirmation(kafka: &KafkaConfig, order: Uuid) {
    let command = confirm(order).encode(topic::ORDER_COMMANDS, "/test", clock::now());
    let writer = KafkaWriter::connect(kafka).expect("connected");
    writer.publish(&[command]).await.expect("published");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_order_is_started_confirmed_and_answered_by_the_running_service() {
    let env = TestEnv::shared().await;
    let config = configuration(env).await;
    assert!(
        OrderService::check_migrations(&config).await.is_err(),
        "nothing is there yet"
    );
    OrderService::migrate(&config).await.expect("migrated");
    OrderService::check_migrations(&config)
        .await
        .expect("everything is there");
    let owner = config.postgres.url.expose().to_owned();
    let running = Running::start(config).await;
    let health = running
        .http
        .get(format!("{}/health", running.base))
        .send()
        .await
        .expect("health");
    assert_eq!(health.status(), 200);

    let large = json!({"customerId": "x".repeat(10_000_000)}).to_string();
    let response = running
        .orders()
        .header("content-type", "application/json")
        .body(large)
        .send()
        .await;
    // A server may close the connection instead of reading the whole body.
    if let Ok(response) = response {
        assert_eq!(response.status(), 413);
    }

    let kafka = KafkaConfig::plaintext(env.brokers());
    let topics = [topic::SAGA_INPUTS];
    let mut reader = KafkaReader::subscribe(&kafka, "a-test", &topics, ReaderOptions::default())
        .expect("subscribed");
    let placing = running
        .orders()
        .header("prefer", "wait=20")
        .json(&order())
        .send();
    let deciding = async {
        let id = first_start(&mut reader).await;
        send_confirmation(&kafka, id).await;
        id
    };
    let (response, id) = tokio::join!(placing, deciding);
    let response = response.expect("answered");
    assert_eq!(response.status(), 201);
    let body: Value = response.json().await.expect("JSON");
    assert_eq!(
        (body["id"].as_str(), body["status"].as_str()),
        (Some(id.to_string().as_str()), Some("CONFIRMED"))
    );
    reader.close().await;
    let stranger = overrides(env).await;
    refuses_another_database::<OrderService>(&stranger, topic::ORDER_GROUP, &owner)
        .await
        .expect("another database is refused");
    running.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_hangs_up_and_asks_again_gets_its_order_as_it_is() {
    // The test has its own broker: topic names are fixed, and another test reads these topics on the shared broker.
    let env = TestEnv::exclusive().await;
    let config = configuration(&env).await;
    OrderService::migrate(&config).await.expect("migrated");
    let running = Running::start(config).await;
    let body = order();
    let placing = || running.orders().header("idempotency-key", "k").json(&body);
    let answer = async |request: reqwest::RequestBuilder| -> Value {
        let response = request.send().await.expect("answered");
        assert_eq!(response.status(), 201);
        response.json().await.expect("JSON")
    };
    let hang_up = Duration::from_secs(1);
    let first = placing().header("prefer", "wait=30").timeout(hang_up);
    assert!(first.send().await.expect_err("nothing yet").is_timeout());

    let began = Instant::now();
    let pending = answer(placing()).await;
    assert_eq!(pending["status"], "PENDING");
    let waiting = tokio::spawn(answer(placing().header("prefer", "wait=20")));
    let id: Uuid = pending["id"]
        .as_str()
        .and_then(|id| id.parse().ok())
        .expect("an id");
    send_confirmation(&KafkaConfig::plaintext(env.brokers()), id).await;
    let confirmed = waiting.await.expect("no panic");
    assert_eq!(
        (&confirmed["id"], &confirmed["status"]),
        (&pending["id"], &json!("CONFIRMED"))
    );
    assert!(
        began.elapsed() < Duration::from_secs(20),
        "it waited for its deadline"
    );
    assert_eq!(answer(placing()).await, confirmed);
    running.stop().await;
}

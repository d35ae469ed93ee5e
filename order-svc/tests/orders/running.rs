//! The whole service, as `main` runs it, on a real Kafka and a real Postgres.

use crate::harness::{PATIENCE, confirm, order};
use order_svc::{Config, OrderService};
use saga_contracts::topic;
use saga_core::message::Input;
use saga_messaging::{
    kafka::{KafkaConfig, KafkaReader, KafkaWriter, ReaderOptions},
    log::{LogReader, LogWriter, Polled},
};
use saga_service::{Service, clock, config::load, lifecycle::Shutdown};
use saga_testkit::{
    environment::{TestEnv, until},
    http_client,
};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use uuid::Uuid;

/// The first start of a saga of this test's broker.
async fn first_start(reader: &mut KafkaReader) -> Uuid {
    loop {
        match reader.poll(100).await.expect("polled") {
            Polled::Records(records) => {
                let input = Input::decode(&records[0]).expect("an input");
                assert!(matches!(input, Input::Start(_)), "{input:?}");
                return input.saga_id().0;
            }
            Polled::Assigned(_) | Polled::Revoked(_) => {}
        }
    }
}

/// The topics are there, the database is empty.
async fn configuration(env: &TestEnv) -> Config {
    let dead_letters = topic::dead_letters(topic::ORDER_COMMANDS);
    env.create_topics(&[
        (topic::SAGA_INPUTS, 2),
        (topic::ORDER_COMMANDS, 2),
        (&dead_letters, 1),
    ])
    .await;
    let url = env.create_role_and_database("order-svc").await;
    let overrides = format!(
        "postgres.url = \"{url}\"\nkafka.brokers = \"{}\"\norchestrator_url = \"http://127.0.0.1:9\"",
        env.brokers()
    );
    load::<OrderService>(None, Some(&overrides)).expect("configuration")
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
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("port");
    let base = format!("http://{}", listener.local_addr().expect("address"));
    let shutdown = Shutdown::new();
    let running = tokio::spawn(OrderService::run(config, listener, shutdown.clone()));
    let http = http_client();
    until("the service is ready", PATIENCE, async || {
        let ready = http.get(format!("{base}/health/ready")).send().await;
        ready.is_ok_and(|response| response.status() == 200)
    })
    .await;
    let health = http
        .get(format!("{base}/health"))
        .send()
        .await
        .expect("health");
    assert_eq!(health.status(), 200);

    let large = json!({"customerId": "x".repeat(10_000_000)}).to_string();
    let response = http
        .post(format!("{base}/orders"))
        .header("content-type", "application/json")
        .body(large)
        .send()
        .await;
    // A server may hang up on a body that it will not read.
    if let Ok(response) = response {
        assert_eq!(response.status(), 413);
    }

    let kafka = KafkaConfig::plaintext(env.brokers());
    let topics = [topic::SAGA_INPUTS];
    let mut reader = KafkaReader::subscribe(&kafka, "a-test", &topics, ReaderOptions::default())
        .expect("subscribed");
    let placing = http
        .post(format!("{base}/orders"))
        .header("prefer", "wait=20")
        .json(&order())
        .send();
    let deciding = async {
        let id = first_start(&mut reader).await;
        let command = confirm(id).encode(topic::ORDER_COMMANDS, "/test", clock::now());
        let writer = KafkaWriter::connect(&kafka).expect("connected");
        writer.publish(&[command]).await.expect("published");
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
    shutdown.soft.cancel();
    running.await.expect("no panic").expect("a clean end");
}

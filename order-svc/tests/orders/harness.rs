//! Runs the service's parts on the test's own database, with a log that records published messages.

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Method, Request, StatusCode},
};
use order_svc::{
    http::{App, order_request::RequestRules, router},
    intake::{
        batch::{Intake, Job, Outcome},
        upkeep::Partitions,
        waiting::Waiters,
    },
    participant::OrderParticipant,
    saga_log::SagaLog,
    store,
};
use saga_contracts::money::CurrencyUnit;
use saga_core::secret::Secret;
use saga_core::{
    ids::SagaId,
    message::{Command, Direction, IncomingRecord, Input, OutgoingRecord, StartSaga, header},
};
use saga_messaging::{
    backpressure::{Backpressure, Bounds},
    batcher::{Batcher, BatcherSettings},
    log::{Delivered, LogError, LogWriter},
    outbox::{Relay, RelaySettings},
};
use saga_participant::inbox;
use saga_postgres::{
    PostgresConfig, clock::Clock, migrations::migrate, reporting_pool, store_pool,
};
use saga_test_support::{
    environment::{TestEnv, until},
    participant::{Reaction, command, run_batch},
};
use serde_json::{Value, json};
use sqlx::PgPool;
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use uuid::Uuid;

/// Far above the time that anything here takes.
pub const PATIENCE: Duration = Duration::from_secs(20);
pub const PARTITIONS: i32 = 4;

/// A log that stores every record, or is unavailable.
#[derive(Clone, Default)]
pub struct Recorder {
    records: Arc<Mutex<Vec<OutgoingRecord>>>,
    unavailable: Arc<AtomicBool>,
}

#[async_trait]
impl LogWriter for Recorder {
    async fn publish_rest(
        &self,
        records: &[OutgoingRecord],
        delivered: &mut [Option<Delivered>],
    ) -> Result<(), LogError> {
        if self.unavailable.load(Ordering::SeqCst) {
            return Err(LogError::Unavailable("away".into()));
        }
        let mut all = self.records.lock().expect("lock");
        all.extend_from_slice(records);
        for (n, at) in delivered.iter_mut().enumerate() {
            *at = Some(Delivered {
                partition: 0,
                offset: n as i64,
            });
        }
        Ok(())
    }
}

pub struct TestService {
    pub pool: PgPool,
    pub app: Arc<App>,
    pub intake: Intake,
    pub log: Recorder,
    router: Router,
    stop: CancellationToken,
}

impl Drop for TestService {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

fn pressure(limit: u64) -> Backpressure {
    Backpressure::new(Bounds {
        patience: PATIENCE,
        least: 1_000,
        at_first: limit,
        limit,
    })
}

pub struct Response {
    pub status: StatusCode,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

impl Response {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .get(name)
            .map(|value| value.to_str().expect("text"))
    }

    pub fn id(&self) -> Uuid {
        self.json()["id"]
            .as_str()
            .expect("id")
            .parse()
            .expect("UUID")
    }

    pub fn state(&self) -> String {
        self.json()["status"].as_str().expect("status").to_owned()
    }

    /// Returns the first field that a problem names.
    pub fn field(&self) -> String {
        self.json()["errors"][0]["field"]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }
}

/// Returns an order of one product, 2 × 10.50 EUR.
pub fn order_of(customer: Uuid) -> Value {
    json!({
        "customerId": customer,
        "items": [{"productId": Uuid::new_v4(), "quantity": 2, "price": 10.5}],
    })
}

pub fn order() -> Value {
    order_of(Uuid::new_v4())
}

impl TestService {
    pub async fn start() -> Self {
        Self::with("http://127.0.0.1:9", u64::MAX).await
    }

    pub async fn with(orchestrator_url: &str, backlog_limit: u64) -> Self {
        Self::with_clock(orchestrator_url, backlog_limit, Clock::of_process()).await
    }

    pub async fn with_clock(
        orchestrator_url: &str,
        backlog_limit: u64,
        clock: &'static Clock,
    ) -> Self {
        let url = TestEnv::postgres_only()
            .await
            .create_role_and_database("order")
            .await;
        let config = PostgresConfig {
            url: Secret::new(url),
            max_connections: 5,
            connect_timeout_ms: 20_000,
        };
        let pool = store_pool(&config, "test").await.expect("pool");
        for migrator in store::migration::all() {
            migrate(&pool, &migrator).await.expect("migrated");
        }
        inbox::ensure_partitions(&pool, 1)
            .await
            .expect("partitions");
        let (log, stop) = (Recorder::default(), CancellationToken::new());
        let (outbox, relay, sending) = Relay::new(
            pool.clone(),
            log.clone(),
            RelaySettings::default(),
            stop.clone(),
        );
        tokio::spawn(sending);
        let waiters = Arc::new(Waiters::default());
        let (polling, poll_pool, poll_stop) = (Arc::clone(&waiters), pool.clone(), stop.clone());
        tokio::spawn(async move { polling.run(poll_pool, poll_stop).await });
        let intake = Intake {
            pool: pool.clone(),
            outbox: outbox.clone(),
            relay: relay.clone(),
            partition_alarm: inbox::alarm(),
        };
        let writing = intake.clone();
        let app = Arc::new(App {
            pool: pool.clone(),
            reporting: reporting_pool(&config, "test").await.expect("pool"),
            intake: Batcher::start("test", BatcherSettings::default(), move |jobs: Vec<Job>| {
                let writing = writing.clone();
                async move { writing.take_in(jobs).await }
            }),
            outbox,
            relay,
            partitions: Partitions::known(PARTITIONS),
            pressure: pressure(backlog_limit),
            waiters,
            clock,
            saga_log: SagaLog::new(orchestrator_url).expect("client"),
            rules: RequestRules {
                currency: CurrencyUnit::from_code("EUR").expect("currency"),
                definition: "place-order".to_owned(),
                definitions: vec!["place-order".to_owned(), "other".to_owned()],
            },
        });
        let router = router(Arc::clone(&app)).split_for_parts().0;
        Self {
            pool,
            app,
            intake,
            log,
            router,
            stop,
        }
    }

    pub async fn call(
        &self,
        method: Method,
        path: &str,
        headers: &[(&str, &str)],
        body: impl Into<Body>,
    ) -> Response {
        let mut request = Request::builder().method(method).uri(path);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        if !headers.iter().any(|(name, _)| *name == "content-type") {
            request = request.header("content-type", "application/json");
        }
        let request = request.body(body.into()).expect("request");
        let response = self
            .router
            .clone()
            .oneshot(request)
            .await
            .expect("infallible");
        Response {
            status: response.status(),
            headers: response.headers().clone(),
            body: to_bytes(response.into_body(), usize::MAX)
                .await
                .expect("body")
                .to_vec(),
        }
    }

    pub async fn get(&self, path: &str) -> Response {
        self.call(Method::GET, path, &[], Body::empty()).await
    }

    pub async fn post(&self, path: &str, headers: &[(&str, &str)], body: &Value) -> Response {
        self.call(Method::POST, path, headers, body.to_string())
            .await
    }

    /// Places an order, which must be accepted.
    pub async fn place(&self, body: &Value) -> Uuid {
        let response = self.post("/orders", &[], body).await;
        assert_eq!(response.status, 201, "{}", response.json());
        response.id()
    }

    /// Returns the number of rows of a table.
    pub async fn count(&self, table: &'static str) -> i64 {
        let statement = match table {
            "orders" => "SELECT COUNT(*) FROM orders",
            "order_event" => "SELECT COUNT(*) FROM order_event",
            "idempotency" => "SELECT COUNT(*) FROM idempotency",
            "inbox" => "SELECT COUNT(*) FROM inbox",
            "outbox" => "SELECT COUNT(*) FROM outbox",
            other => panic!("no table {other}"),
        };
        sqlx::query_scalar(statement)
            .fetch_one(&self.pool)
            .await
            .expect("count")
    }

    pub async fn run_sql(&self, statement: &'static str) {
        sqlx::query(statement)
            .execute(&self.pool)
            .await
            .expect(statement);
    }

    /// Returns the decoded messages published about a saga, each with its partition.
    pub fn published(&self, saga: Uuid) -> Vec<(Option<i32>, Input)> {
        let records = self.log.records.lock().expect("lock").clone();
        records
            .into_iter()
            .map(|record| {
                assert_eq!(record.topic, "saga.inputs");
                let incoming = IncomingRecord {
                    topic: record.topic,
                    partition: 0,
                    offset: 0,
                    timestamp_ms: 0,
                    key: Some(record.key),
                    headers: record.headers,
                    payload: Some(record.payload),
                };
                (
                    record.partition,
                    Input::decode(&incoming).expect("an input"),
                )
            })
            .filter(|(_, input)| input.saga_id() == SagaId(saga))
            .collect()
    }

    /// Returns, for each record published about a saga, true if its header marks it as a start sent again.
    pub fn published_again(&self, saga: Uuid) -> Vec<bool> {
        let key = saga.to_string().into_bytes();
        let records = self.log.records.lock().expect("lock").clone();
        let of_saga = records.into_iter().filter(|record| record.key == key);
        let again = |record: OutgoingRecord| {
            record.headers.get(header::START) == Some(StartSaga::AGAIN.as_bytes())
        };
        of_saga.map(again).collect()
    }

    /// Returns [`published`](Self::published) once there are at least `count` messages.
    pub async fn published_soon(&self, saga: Uuid, count: usize) -> Vec<(Option<i32>, Input)> {
        until("messages are published", PATIENCE, async || {
            Some(self.published(saga)).filter(|inputs| inputs.len() >= count)
        })
        .await
    }

    pub fn set_broker_unavailable(&self, unavailable: bool) {
        self.log.unavailable.store(unavailable, Ordering::SeqCst);
    }

    /// Handles commands in one transaction, without the barrier.
    pub async fn handle(&self, commands: &[Command]) -> Vec<Reaction> {
        let participant = OrderParticipant {
            waiters: Arc::clone(&self.app.waiters),
        };
        run_batch(participant, &self.pool, commands)
            .await
            .expect("handled")
    }

    pub async fn confirm(&self, id: Uuid) {
        let answers = self.handle(&[confirm(id)]).await;
        assert!(
            matches!(answers[0], Reaction::Success { .. }),
            "{answers:?}"
        );
    }

    pub async fn take_in(&self, jobs: Vec<Job>) -> Vec<Outcome> {
        self.intake.take_in(jobs).await.expect("taken in")
    }
}

pub fn confirm(id: Uuid) -> Command {
    command(
        SagaId(id),
        "order.confirm",
        Direction::Forward,
        json!({"orderId": id}),
    )
}

pub fn cancel(id: Uuid, code: &str) -> Command {
    let cause = json!({"step": "charge", "code": code, "message": "it was declined"});
    let payload = json!({"orderId": id, "cause": cause});
    command(SagaId(id), "order.cancel", Direction::Compensation, payload)
}

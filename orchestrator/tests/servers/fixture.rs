//! A database for one test, and the messages that advance sagas in it.

use chrono::{TimeDelta, Utc};
use orchestrator::{
    engine::{
        Engine,
        saga_store::{Loaded, SagaBatch, SagaStore},
        settings::{EngineSettings, Participant, Participants},
        shared::Shared,
    },
    registry,
    store::{
        self, PgStore,
        history::{self, HISTORY},
    },
};
use saga_core::secret::Secret;
use saga_core::{
    ids::SagaId,
    message::{
        IncomingRecord, Outcome, OutgoingRecord, PayloadLimit, Reply, ReplyTo, StartSaga, Trace,
        header,
    },
};
use saga_messaging::{consumer::Processor, migrations, partition::Span};
use saga_postgres::{PostgresConfig, reporting_pool, store_pool};
use saga_test_support::environment::TestEnv;
use serde_json::json;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};
use uuid::Uuid;

pub const INPUTS: &str = "saga.inputs";

pub struct Database {
    pub store: PgStore,
    offset: AtomicI64,
}

impl Database {
    /// Makes a migrated database, with partitions around the current time and the shipped definitions registered.
    pub async fn new() -> Self {
        let url = TestEnv::postgres_only()
            .await
            .create_database("orchestrator")
            .await;
        let config = PostgresConfig {
            url: Secret::new(url),
            max_connections: 8,
            connect_timeout_ms: 10_000,
        };
        let pool = store_pool(&config, "test").await.unwrap();
        let reporting = reporting_pool(&config, "test").await.unwrap();
        store::MIGRATIONS.run(&pool).await.unwrap();
        migrations::apply(&pool).await.unwrap();
        let store = PgStore::new(pool, reporting);
        let now_ms = saga_service::clock::now().timestamp_millis();
        let days = |days| TimeDelta::days(days).num_milliseconds();
        let around = Span::covering(now_ms - days(30), now_ms + days(14), HISTORY.width_ms);
        HISTORY.make(store.pool(), around).await.unwrap();
        let sources = registry::read(true, None).unwrap();
        store::definition::register(store.pool(), &sources, &settings().participants)
            .await
            .unwrap();
        Self {
            store,
            offset: AtomicI64::new(0),
        }
    }

    pub fn shared() -> Arc<Shared> {
        let shared = Arc::new(Shared::new(settings()));
        shared.timers().assign([0]);
        shared
    }

    /// Returns an engine with a cache of its own. Several engines compete, as those of several processes do.
    pub fn engine(&self) -> Engine<PgStore> {
        Engine::new(self.another_store(), Self::shared())
    }

    /// Returns another process's store on the same tables.
    pub fn another_store(&self) -> PgStore {
        PgStore::new(self.store.pool().clone(), self.store.reporting().clone())
    }

    pub fn append(&self, record: OutgoingRecord) -> IncomingRecord {
        IncomingRecord {
            topic: record.topic,
            partition: 0,
            offset: self.offset.fetch_add(1, Ordering::Relaxed),
            timestamp_ms: saga_service::clock::now().timestamp_millis(),
            key: Some(record.key),
            headers: record.headers,
            payload: Some(record.payload),
        }
    }

    pub fn start(&self, saga: SagaId) -> IncomingRecord {
        self.start_with_key(saga, &format!("key-{saga}"))
    }

    pub fn start_with_key(&self, saga: SagaId, key: &str) -> IncomingRecord {
        let start = StartSaga {
            saga_id: saga,
            start_type: "order.created".to_owned(),
            definition: "place-order".to_owned(),
            business_key: Some(key.to_owned()),
            input: json!({
                "orderId": saga.0, "customerId": saga.0, "amountMinor": 1000, "currency": "EUR",
                "items": [{"productId": saga.0, "quantity": 1, "unitPriceMinor": 1000}]
            }),
            trace: trace(),
        };
        self.append(start.encode(INPUTS, 0, "/order-svc", saga_service::clock::now()))
    }

    pub fn reply(&self, to: &OutgoingRecord) -> IncomingRecord {
        let reply = Reply {
            saga_id: text(to, header::SAGA_ID).parse().unwrap(),
            step: text(to, header::STEP),
            direction: text(to, header::DIRECTION).parse().unwrap(),
            attempt: text(to, header::ATTEMPT).parse().unwrap(),
            reply_type: "answered".to_owned(),
            outcome: Outcome::Success,
            payload: json!({"done": true}),
            trace: trace(),
        };
        let reply_to = ReplyTo {
            topic: INPUTS.to_owned(),
            partition: 0,
        };
        self.append(reply.encode(&reply_to, "/participant", saga_service::clock::now()))
    }

    /// Starts a saga and leaves its first command unanswered.
    pub async fn started(&self) -> (SagaId, OutgoingRecord) {
        let saga = new_saga();
        let outputs = self.engine().process(&[self.start(saga)]).await.unwrap();
        (saga, commands(&outputs).remove(0))
    }

    /// Answers all commands until the saga has ended.
    pub async fn run_to_end(&self, first: Vec<OutgoingRecord>) {
        let mut engine = self.engine();
        let mut waiting = commands(&first);
        while let Some(command) = waiting.pop() {
            let outputs = engine.process(&[self.reply(&command)]).await.unwrap();
            waiting.extend(commands(&outputs));
        }
    }

    pub async fn count(&self, table: &'static str) -> i64 {
        let query = match table {
            "saga" => "SELECT count(*) FROM saga",
            "saga_history" => "SELECT count(*) FROM saga_history",
            "outbox" => "SELECT count(*) FROM outbox",
            other => panic!("{other}"),
        };
        sqlx::query_scalar(query)
            .fetch_one(self.store.reporting())
            .await
            .unwrap()
    }

    pub async fn load(&self, saga: SagaId) -> Loaded {
        let mut batch = self.store.begin().await.unwrap();
        batch.load(&[saga], &[], &BTreeSet::new()).await.unwrap()
    }
}

pub fn new_saga() -> SagaId {
    SagaId(saga_service::clock::new_id())
}

/// Returns a saga id of the given time.
pub fn saga_at(at: chrono::DateTime<Utc>) -> SagaId {
    let least = history::least_id(at.timestamp_millis()).as_u128();
    SagaId(Uuid::from_u128(least | (7 << 76) | (2 << 62) | 1))
}

pub fn trace() -> Trace {
    Trace {
        correlation_id: "correlation".to_owned(),
        traceparent: None,
    }
}

pub fn text(record: &OutgoingRecord, name: &str) -> String {
    let value = record.headers.get(name).unwrap();
    String::from_utf8(value.to_vec()).unwrap()
}

pub fn commands(records: &[OutgoingRecord]) -> Vec<OutgoingRecord> {
    records
        .iter()
        .filter(|record| record.topic.ends_with(".commands"))
        .cloned()
        .collect()
}

pub fn settings() -> EngineSettings {
    let participants = ["order", "inventory", "payment"].map(|name| {
        let participant = Participant {
            topic: format!("{name}.commands"),
            group: format!("{name}-svc"),
        };
        (name.to_owned(), participant)
    });
    EngineSettings {
        inputs_topic: INPUTS.to_owned(),
        events_topic: "saga.events".to_owned(),
        source: "/saga/orchestrator".to_owned(),
        participants: Participants::from(BTreeMap::from(participants)),
        payload_limit: PayloadLimit::of_message(1_000_000),
    }
}

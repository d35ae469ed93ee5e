//! A small consistent system, written without any code of the services.

use rdkafka::{
    ClientConfig, Offset, TopicPartitionList,
    consumer::{BaseConsumer, CommitMode, Consumer},
    message::{Header, OwnedHeaders},
    producer::{FutureProducer, FutureRecord},
};
use saga_audit::{Journal, JournalEntry, Sources};
use saga_test_support::environment::TestEnv;
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, PgPool, migrate::Migrator};
use std::{path::Path, sync::atomic::AtomicU64, sync::atomic::Ordering, time::Duration};
use uuid::Uuid;

const MIGRATIONS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../migrations");

const TOPICS: [&str; 5] = [
    "saga.inputs",
    "saga.events",
    "order.commands",
    "inventory.commands",
    "payment.commands",
];
const GROUP: &str = "orchestrator";
/// Number of inputs that the orchestrator has handled.
const HANDLED: i64 = 10;

pub struct World {
    // Dropped last, because the servers stop with `_env`.
    pub sources: Sources,
    pub journal: Journal,
    pub orchestrator: PgPool,
    pub order: PgPool,
    pub inventory: PgPool,
    pub payment: PgPool,
    /// A confirmed order: charged and sold.
    pub confirmed: Uuid,
    /// A declined order: reserved and released.
    pub declined: Uuid,
    /// An order with payment first that was out of stock: refunded.
    pub refunded: Uuid,
    /// An order that waits for its charge.
    pub running: Uuid,
    pub parked: Uuid,
    pub product: Uuid,
    producer: FutureProducer,
    next: AtomicU64,
    _env: TestEnv,
}

impl World {
    pub async fn new() -> Self {
        let env = TestEnv::exclusive().await;
        let letters: Vec<String> = TOPICS.iter().map(|topic| format!("{topic}.dlq")).collect();
        let topics: Vec<(&str, i32)> = TOPICS
            .iter()
            .copied()
            .chain(letters.iter().map(String::as_str))
            .map(|topic| (topic, 1))
            .collect();
        env.create_topics(&topics).await;
        let database = async |name: &str, library: bool| {
            let migrator = Migrator::new(Path::new(MIGRATIONS).join(name))
                .await
                .unwrap();
            let url = env.create_database(name).await;
            let pool = PgPool::connect(&url).await.unwrap();
            migrator.run(&pool).await.unwrap();
            if library {
                saga_messaging::migrations::apply(&pool).await.unwrap();
                everything(&pool, "inbox").await;
            }
            (url, pool)
        };
        let (orchestrator_url, orchestrator) = database("orchestrator", false).await;
        everything(&orchestrator, "saga_history").await;
        let (order_url, order) = database("order", true).await;
        let (inventory_url, inventory) = database("inventory", true).await;
        let (payment_url, payment) = database("payment", true).await;
        let producer = ClientConfig::new()
            .set("bootstrap.servers", env.brokers())
            .create()
            .unwrap();
        let mut world = Self {
            sources: Sources {
                orchestrator: orchestrator_url,
                order: order_url,
                inventory: inventory_url,
                payment: payment_url,
                brokers: env.brokers(),
                kafka: Vec::new(),
                orchestrator_group: GROUP.to_owned(),
            },
            journal: Journal::default(),
            orchestrator,
            order,
            inventory,
            payment,
            confirmed: id(1),
            declined: id(2),
            refunded: id(3),
            running: id(4),
            parked: id(5),
            product: Uuid::from_u128(77),
            producer,
            next: AtomicU64::new(100),
            _env: env,
        };
        world.fill().await;
        world
    }

    async fn fill(&mut self) {
        // The orchestrator has consumed all inputs.
        for n in 0..HANDLED {
            self.produce("saga.inputs", id(1), &[("ce_type", "noise")], &json!(n))
                .await;
        }
        self.commit(HANDLED);
        self.stock().await;
        self.story(self.confirmed, &["started", "completed"]).await;
        self.ended(self.confirmed, "completed", 2).await;
        self.put_order(self.confirmed, "CONFIRMED").await;
        self.marks("order", self.confirmed, &[("create-order", "F", "D", 1)])
            .await;
        self.reservation(self.confirmed, "sold").await;
        self.charge(self.confirmed, "charged").await;
        self.story(self.declined, &["started", "compensated"]).await;
        self.ended(self.declined, "compensated", 2).await;
        self.put_order(self.declined, "CANCELLED").await;
        let undone = [
            ("reserve-stock", "F", "D", 1),
            ("reserve-stock", "C", "D", 2),
        ];
        self.marks("inventory", self.declined, &undone).await;
        self.reservation(self.declined, "released").await;
        self.story(self.refunded, &["started", "compensated"]).await;
        self.ended(self.refunded, "compensated", 2).await;
        self.put_order(self.refunded, "CANCELLED").await;
        self.charge(self.refunded, "refunded").await;
        self.ledger(self.refunded, "refund", "compensation/1").await;
        self.story(self.running, &["started"]).await;
        self.live(self.running, "running", &json!({})).await;
        self.put_order(self.running, "PENDING").await;
        self.reservation(self.running, "reserved").await;
        self.story(self.parked, &["started"]).await;
        let reason = json!({"reason": {"code": "used_up", "message": "no answer"}});
        self.live(self.parked, "parked", &reason).await;
        self.put_order(self.parked, "PENDING").await;
        let accepted = [self.confirmed, self.declined, self.refunded, self.running];
        for order in accepted {
            self.journal.add(JournalEntry::Accepted {
                order,
                customer: order,
                sole: true,
            });
        }
        self.journal.add(JournalEntry::Stocked {
            product: self.product,
            pieces: 100,
        });
    }

    async fn stock(&self) {
        let product = self.product;
        let row = format!(
            "INSERT INTO stock (product_id, available, reserved, sold, received)
             VALUES ('{product}', 96, 2, 2, 100)"
        );
        run(&self.inventory, &row).await;
    }

    pub async fn put_order(&self, id: Uuid, status: &str) {
        let items = json!([{"product_id": self.product, "quantity": 2, "unit_price_minor": 500, "amount_minor": 1000}]);
        let ended = if status == "PENDING" { "NULL" } else { "now()" };
        let reason = if status == "CANCELLED" {
            "'{\"code\": \"out_of_stock\", \"message\": \"none\"}'"
        } else {
            "NULL"
        };
        let row = format!(
            "INSERT INTO orders (id, customer_id, status, definition, items, amount_minor, currency, home_partition,
               correlation_id, created_at, ended_at, reason)
             VALUES ('{id}', '{id}', '{status}', 'place-order', '{items}', 1000, 'EUR', 0, 'c', now(), {ended}, {reason})"
        );
        run(&self.order, &row).await;
    }

    async fn ended(&self, id: Uuid, status: &str, sequence: i64) {
        let state = state(sequence, HANDLED - 1, &json!({}));
        let row = format!(
            "INSERT INTO saga_history (id, definition, definition_version, definition_hash, status, correlation_id,
               start_hash, started_at, ended_at, state)
             VALUES ('{id}', 'place-order', 1, 'h', '{status}', 'c', '', now(), now(), '{state}')"
        );
        run(&self.orchestrator, &row).await;
    }

    pub async fn live(&self, id: Uuid, status: &str, more: &Value) {
        let state = state(1, HANDLED - 1, more);
        let row = format!(
            "INSERT INTO saga (id, version, home_partition, definition, definition_version, definition_hash, status,
               waiting_kind, waiting_since, correlation_id, start_hash, started_at, state)
             VALUES ('{id}', 3, 0, 'place-order', 1, 'h', '{status}', 'reply', now(), 'c', '', now(), '{state}')"
        );
        run(&self.orchestrator, &row).await;
    }

    async fn reservation(&self, order: Uuid, state: &str) {
        let product = self.product;
        let row = format!(
            "INSERT INTO reservation (order_id, saga_id, product_id, quantity, state)
             VALUES ('{order}', '{order}', '{product}', 2, '{state}')"
        );
        run(&self.inventory, &row).await;
    }

    async fn charge(&self, order: Uuid, status: &str) {
        // The gateway's first entry is older than the first payment.
        self.ledger(order, "charge", "forward/1").await;
        let row = format!(
            "INSERT INTO payment (order_id, customer_id, amount_minor, currency, status, caller, history)
             VALUES ('{order}', '{order}', 1000, 'EUR', '{status}', '{order}/charge-payment/forward', '[]')"
        );
        run(&self.payment, &row).await;
    }

    pub async fn ledger(&self, order: Uuid, operation: &str, key: &str) {
        let row = format!(
            "INSERT INTO gateway_ledger (key, operation, amount_minor, currency, decision, reference)
             VALUES ('{order}/charge-payment/{key}', '{operation}', 1000, 'EUR', 'approved', 'r')"
        );
        run(&self.payment, &row).await;
    }

    /// Inserts marks of steps: step, direction, mark, second of the minute.
    pub async fn marks(&self, database: &str, saga: Uuid, marks: &[(&str, &str, &str, u32)]) {
        let pool = match database {
            "order" => &self.order,
            "inventory" => &self.inventory,
            _ => &self.payment,
        };
        for (step, direction, mark, second) in marks {
            let row = format!(
                "INSERT INTO inbox (saga_id, step, direction, mark, handled_at)
                 VALUES ('{saga}', '{step}', '{direction}', '{mark}', '2026-01-01 00:00:{second:02}Z')"
            );
            run(pool, &row).await;
        }
    }

    async fn story(&self, saga: Uuid, kinds: &[&str]) {
        for (kind, sequence) in kinds.iter().zip(1..) {
            self.event(saga, sequence, kind, "").await;
        }
    }

    pub async fn event(&self, saga: Uuid, sequence: i64, kind: &str, note: &str) {
        let value = json!({"sagaId": saga, "sequence": sequence, "type": kind, "note": note});
        let headers = [
            ("ce_type", format!("saga.{kind}")),
            ("saga-sequence", sequence.to_string()),
        ];
        let headers: Vec<(&str, &str)> = headers.iter().map(|(k, v)| (*k, v.as_str())).collect();
        self.produce("saga.events", saga, &headers, &value).await;
    }

    pub async fn reply(&self, saga: Uuid, step: &str, outcome: &str) {
        let headers = [
            ("saga-outcome", outcome),
            ("saga-step", step),
            ("saga-direction", "forward"),
        ];
        self.produce("saga.inputs", saga, &headers, &json!({}))
            .await;
    }

    pub async fn produce(&self, topic: &str, saga: Uuid, headers: &[(&str, &str)], value: &Value) {
        let key = saga.to_string();
        let payload = value.to_string();
        let all = headers.iter().copied().chain([("saga-id", key.as_str())]);
        let headers = all.fold(OwnedHeaders::new(), |headers, (key, value)| {
            headers.insert(Header {
                key,
                value: Some(value),
            })
        });
        let record = FutureRecord::to(topic)
            .key(&key)
            .payload(&payload)
            .headers(headers);
        self.producer
            .send(record, Duration::from_secs(10))
            .await
            .unwrap();
    }

    fn commit(&self, offset: i64) {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", &self.sources.brokers)
            .set("group.id", GROUP)
            .create()
            .unwrap();
        let mut offsets = TopicPartitionList::new();
        offsets
            .add_partition_offset("saga.inputs", 0, Offset::Offset(offset))
            .unwrap();
        consumer.commit(&offsets, CommitMode::Sync).unwrap();
    }

    /// Inserts an order without a saga or a start.
    pub async fn order_only(&self) -> Uuid {
        let id = id(self.next.fetch_add(1, Ordering::Relaxed));
        self.put_order(id, "PENDING").await;
        id
    }

    pub async fn start_in_front_of_the_orchestrator(&self, order: Uuid) {
        let headers = [
            ("ce_type", "order.created"),
            ("saga-definition", "place-order"),
        ];
        self.produce("saga.inputs", order, &headers, &json!({}))
            .await;
    }

    pub async fn start_in_the_outbox(&self, order: Uuid) {
        let records =
            json!([{"topic": "saga.inputs", "key": order, "headers": [], "payload": "{}"}]);
        sqlx::query(
            "INSERT INTO outbox (claimed_until, record_count, records) VALUES (now(), 1, $1)",
        )
        .bind(records.to_string().into_bytes())
        .execute(&self.order)
        .await
        .unwrap();
    }

    /// Inserts an ended saga whose last input is not committed yet: the orchestrator would consume it again and send
    /// the event.
    pub async fn ended_without_its_event(&self) {
        let id = id(self.next.fetch_add(1, Ordering::Relaxed));
        let state = state(2, HANDLED, &json!({}));
        let row = format!(
            "INSERT INTO saga_history (id, definition, definition_version, definition_hash, status, correlation_id,
               start_hash, started_at, ended_at, state)
             VALUES ('{id}', 'ship', 1, 'h', 'completed', 'c', '', now(), now(), '{state}')"
        );
        run(&self.orchestrator, &row).await;
    }
}

/// Returns the n-th UUIDv7 of a fixed instant.
fn id(n: u64) -> Uuid {
    let mut random = [0; 10];
    random[2..].copy_from_slice(&n.to_be_bytes());
    uuid::Builder::from_unix_timestamp_millis(1_790_000_000_000, &random).into_uuid()
}

fn state(sequence: i64, last_input: i64, more: &Value) -> Value {
    let mut state = json!({
        "sequence": sequence,
        "log": [
            {"partition": 0, "offset": 0, "events": []},
            {"partition": 0, "offset": last_input, "events": []},
        ],
    });
    for (key, value) in more.as_object().into_iter().flatten() {
        state[key] = value.clone();
    }
    state
}

/// Makes one partition for all ids.
async fn everything(pool: &PgPool, table: &str) {
    let (from, to) = (Uuid::nil(), Uuid::max());
    let make = format!(
        "CREATE TABLE {table}_all PARTITION OF {table} FOR VALUES FROM ('{from}') TO ('{to}')"
    );
    run(pool, &make).await;
}

pub async fn run(pool: &PgPool, statement: &str) {
    sqlx::raw_sql(AssertSqlSafe(statement.to_owned()))
        .execute(pool)
        .await
        .unwrap_or_else(|error| panic!("{statement}: {error}"));
}

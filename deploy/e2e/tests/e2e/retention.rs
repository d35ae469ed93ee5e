//! Retention under load: old data is dropped in all four databases, and orders in flight are not affected.
//!
//! A test cannot wait for weeks, so it creates its past: real sagas with ids from long ago, executed by the real
//! services while the retention is two months. Then the retention is reduced to one month.

use crate::{TestResult, alone, e2e};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use order_svc::domain::order::{Order, OrderLine, OrderStatus};
use saga_contracts::{
    definition::{PLACE_ORDER, STARTER_STEP},
    message_type::ORDER_CREATED,
    money::CurrencyUnit,
    payload::{OrderCreated, OrderItem},
    topic,
};
use saga_core::{
    ids::{SagaId, Timestamp},
    message::{IncomingRecord, StartSaga, Trace, header},
};
use saga_harness::{OrderRequest, Service, System, system::PATIENCE, topics};
use saga_messaging::partition::least_id;
use saga_participant::inbox;
use saga_test_support::environment::until;
use sqlx::{AssertSqlSafe, Connection, PgConnection, PgPool};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use uuid::Uuid;

const DAY: Duration = Duration::from_hours(24);
/// The old sagas began `OLD_DAYS` ago, in a partition that ends `OLD_PARTITION_DAYS` ago.
const OLD_DAYS: u32 = 45;
const OLD_PARTITION_DAYS: u32 = 40;
const OLD_SAGAS: u32 = 12;
/// The number of customers. Each places one order after the other, all the time.
const CUSTOMERS: usize = 4;
/// Upkeep runs every half minute, and waits for a moment in which it can lock a table.
const FORGETTING: Duration = Duration::from_mins(3);
const PARTICIPANTS: [Service; 3] = [Service::Order, Service::Inventory, Service::Payment];
const COMMANDS: [&str; 3] = [
    topic::ORDER_COMMANDS,
    topic::INVENTORY_COMMANDS,
    topic::PAYMENT_COMMANDS,
];

e2e! {
async fn retention_drops_partitions_in_all_four_databases_while_orders_flow() {
    let (system, _guard) = alone().await;
    let now = saga_service::clock::now();
    remember(system, "60").await?;
    for service in PARTICIPANTS {
        make_past(&mut connect(system, service).await?, now).await?;
    }
    system.restart(Service::Orchestrator).await?;
    let product = system.stock_product(100_000).await?;
    let old = run_old_sagas(system, product, now).await?;
    let traces = Traces::of(system, &old).await?;

    let stop = AtomicBool::new(false);
    let customers = try_join_all((0..CUSTOMERS).map(|_| order_all_the_time(system, product, &stop)));
    let forgetting = async {
        system.stop(Service::Orchestrator)?;
        system.configure(Service::Orchestrator, "RETENTION_DAYS", None);
        system.restart(Service::Orchestrator).await?;
        everything_old_is_gone(system, now).await?;
        traces.replay(system).await?;
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let (confirmed, forgotten) = tokio::join!(customers, forgetting);
    forgotten?;
    let confirmed: u32 = confirmed?.into_iter().sum();
    ensure!(confirmed > 0, "orders flowed meanwhile");

    // This order is placed after the replayed records, so they have been handled when it ends.
    let behind = system.place_and_wait(&OrderRequest::one(product, 1, 1.0)).await?;
    system.saga_is(behind.saga, "completed").await?;
    traces.check(system).await?;
    let sold = i64::from(confirmed + 1 + old.confirmed());
    assert_eq!(system.stock(product).await?, (100_000 - sold, 0, sold));
    Ok(())
}
}

async fn connect(system: &System, service: Service) -> Result<PgConnection> {
    Ok(PgConnection::connect(&system.databases[&service]).await?)
}

async fn pool(system: &System, service: Service) -> Result<PgPool> {
    Ok(PgPool::connect(&system.databases[&service]).await?)
}

/// Sets the retention and resets all floors, as if the retention had always been this long: floors never fall by
/// themselves. Leaves the orchestrator stopped.
async fn remember(system: &System, days: &str) -> TestResult {
    system.stop(Service::Orchestrator)?;
    system.configure(Service::Orchestrator, "RETENTION_DAYS", Some(days));
    let mut orchestrator = connect(system, Service::Orchestrator).await?;
    sqlx::raw_sql("UPDATE floor SET starts_from_ms = 0, floor_ms = 0")
        .execute(&mut orchestrator)
        .await?;
    for service in PARTICIPANTS {
        sqlx::raw_sql("UPDATE saga_floor SET own_ms = 0, seen_ms = 0")
            .execute(&mut connect(system, service).await?)
            .await?;
    }
    Ok(())
}

/// Creates inbox partitions that begin before the old sagas, as if the service had run for that long. The oldest
/// partition, which is replaced, is empty: all sagas of earlier tests are from today.
async fn make_past(participant: &mut PgConnection, now: Timestamp) -> TestResult {
    let day = |days: u32| {
        let at = (now - DAY * days).timestamp_millis();
        least_id(at - at % DAY.as_millis() as i64)
    };
    let statements = format!(
        "BEGIN; DROP TABLE inbox_oldest; \
         CREATE TABLE inbox_oldest PARTITION OF inbox FOR VALUES FROM (MINVALUE) TO ('{oldest}'); \
         CREATE TABLE inbox_old PARTITION OF inbox FOR VALUES FROM ('{oldest}') TO ('{old}'); \
         CREATE TABLE inbox_between PARTITION OF inbox FOR VALUES FROM ('{old}') TO ('{recent}'); \
         COMMIT",
        oldest = day(OLD_DAYS + 5),
        old = day(OLD_PARTITION_DAYS),
        recent = day(2),
    );
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(participant)
        .await?;
    Ok(())
}

/// Orders from long ago, and how each ended: a third is declined, and a third is out of stock.
struct Old(BTreeMap<Uuid, &'static str>);

impl Old {
    fn confirmed(&self) -> u32 {
        self.0.values().filter(|end| **end == "CONFIRMED").count() as u32
    }
}

/// Writes and starts the old orders as order-svc would have done.
async fn run_old_sagas(system: &System, product: Uuid, now: Timestamp) -> Result<Old> {
    let pool = pool(system, Service::Order).await?;
    let sold_out = system.stock_product(0).await?;
    let mut ends = BTreeMap::new();
    let mut starts = Vec::new();
    for number in 0..OLD_SAGAS {
        let at = now - DAY * OLD_DAYS + Duration::from_secs(u64::from(number));
        let id = id_at(at);
        let (product, amount_minor, end) = match number % 3 {
            0 => (product, 500_000, "payment_declined"),
            1 => (sold_out, 100, "out_of_stock"),
            _ => (product, 100, "CONFIRMED"),
        };
        let order = order(id, product, amount_minor, at)?;
        let mut tx = pool.begin().await?;
        order_svc::store::order::insert(&mut tx, &[&order]).await?;
        inbox::record_started(&mut tx, &[SagaId(id)], STARTER_STEP).await?;
        tx.commit().await?;
        starts.push(start(&order)?.encode(topic::SAGA_INPUTS, 0, "/order-svc", at));
        ends.insert(id, end);
    }
    topics::publish(&system.env.brokers(), &starts).await?;
    for (id, end) in &ends {
        let ended = system.ended(*id).await?;
        let found = if ended.reason().is_empty() {
            ended.status()
        } else {
            ended.reason()
        };
        ensure!(found == *end, "{}", ended.body);
    }
    // An order ends shortly before its saga.
    for id in ends.keys() {
        until("the saga stands in history", PATIENCE, || async {
            let saga = system.saga(*id).await?;
            ensure!(saga["endedAt"].is_string(), "{saga:#}");
            Ok(())
        })
        .await;
    }
    Ok(Old(ends))
}

fn id_at(at: Timestamp) -> Uuid {
    let random = Uuid::new_v4();
    let mut bytes = [0; 10];
    bytes.copy_from_slice(&random.as_bytes()[6..]);
    uuid::Builder::from_unix_timestamp_millis(at.timestamp_millis() as u64, &bytes).into_uuid()
}

fn order(id: Uuid, product_id: Uuid, amount_minor: i64, at: Timestamp) -> Result<Order> {
    Ok(Order {
        id,
        customer_id: Uuid::new_v4(),
        status: OrderStatus::Pending,
        definition: PLACE_ORDER.to_owned(),
        items: vec![OrderLine {
            product_id,
            quantity: 1,
            unit_price_minor: amount_minor,
            amount_minor,
        }],
        amount_minor,
        currency: CurrencyUnit::from_code("EUR")?,
        home_partition: 0,
        correlation_id: id.to_string(),
        created_at: at,
        ended_at: None,
        reason: None,
    })
}

fn start(order: &Order) -> Result<StartSaga> {
    let items = order.items.iter().map(|line| OrderItem {
        product_id: line.product_id,
        quantity: line.quantity,
        unit_price_minor: line.unit_price_minor,
    });
    let input = OrderCreated {
        order_id: order.id,
        customer_id: order.customer_id,
        items: items.collect(),
        amount_minor: order.amount_minor,
        currency: order.currency.code().to_owned(),
    };
    Ok(StartSaga {
        saga_id: SagaId(order.id),
        start_type: ORDER_CREATED.to_owned(),
        definition: order.definition.clone(),
        business_key: Some(order.id.to_string()),
        input: serde_json::to_value(input)?,
        trace: Trace {
            correlation_id: order.correlation_id.clone(),
            traceparent: None,
        },
    })
}

/// Places orders until `stop` is set, and returns their number. All must be confirmed.
async fn order_all_the_time(system: &System, product: Uuid, stop: &AtomicBool) -> Result<u32> {
    let mut confirmed = 0;
    while !stop.load(Ordering::Relaxed) {
        let order = system
            .place_and_wait(&OrderRequest::one(product, 1, 1.0))
            .await?;
        ensure!(order.status() == "CONFIRMED", "{}", order.body);
        confirmed += 1;
    }
    Ok(confirmed)
}

/// Waits until no database has a partition that ends before the floor. The partition that contains the floor must
/// remain.
async fn everything_old_is_gone(system: &System, now: Timestamp) -> TestResult {
    let old = least_id((now - DAY * OLD_PARTITION_DAYS).timestamp_millis());
    let orchestrator = &pool(system, Service::Orchestrator).await?;
    until("history forgets", FORGETTING, || async {
        let left: i64 = sqlx::query_scalar("SELECT count(*) FROM saga_history WHERE id < $1")
            .bind(old)
            .fetch_one(orchestrator)
            .await?;
        ensure!(left == 0, "{left} old sagas are left");
        Ok(())
    })
    .await;
    for service in PARTICIPANTS {
        let participant = &pool(system, service).await?;
        until(
            &format!("{} forgets", service.name()),
            FORGETTING,
            || async {
                let stand: Vec<String> = sqlx::query_scalar(
                    "SELECT inhrelid::regclass::text FROM pg_inherits \
                 WHERE inhparent = 'inbox'::regclass",
                )
                .fetch_all(participant)
                .await?;
                let has = |name: &str| stand.iter().any(|one| one == name);
                ensure!(has("inbox_between"), "too much is gone: {stand:?}");
                ensure!(!has("inbox_old") && !has("inbox_oldest"), "{stand:?}");
                Ok(())
            },
        )
        .await;
    }
    Ok(())
}

/// The old sagas' records in the topics and their rows in the tables.
struct Traces {
    sagas: BTreeSet<Uuid>,
    inputs: Vec<IncomingRecord>,
    commands: BTreeMap<&'static str, Vec<IncomingRecord>>,
    rows: BTreeMap<&'static str, Vec<String>>,
}

/// The tables that commands change for a single order: service, table, and the column with the order's id. Tables that
/// orders share are left out.
const EFFECTS: [(Service, &str, &str); 4] = [
    (Service::Order, "orders", "id"),
    (Service::Order, "order_event", "order_id"),
    (Service::Inventory, "reservation", "order_id"),
    (Service::Payment, "payment", "order_id"),
];

impl Traces {
    async fn of(system: &System, old: &Old) -> Result<Self> {
        let sagas: BTreeSet<Uuid> = old.0.keys().copied().collect();
        let brokers = system.env.brokers();
        let of_old = |topic: &str| -> Result<Vec<IncomingRecord>> {
            let mut records = topics::read_all(&brokers, topic)?;
            records.retain(|record| saga_of(record).is_some_and(|saga| sagas.contains(&saga)));
            ensure!(!records.is_empty(), "nothing of the old sagas in {topic}");
            Ok(records)
        };
        let mut commands = BTreeMap::new();
        for topic in COMMANDS {
            commands.insert(topic, of_old(topic)?);
        }
        Ok(Self {
            inputs: of_old(topic::SAGA_INPUTS)?,
            commands,
            rows: rows(system, &sagas).await?,
            sagas,
        })
    }

    /// Publishes the old sagas' starts, replies and commands again.
    async fn replay(&self, system: &System) -> TestResult {
        let brokers = system.env.brokers();
        for records in std::iter::once(&self.inputs).chain(self.commands.values()) {
            topics::replay(&brokers, records).await?;
        }
        Ok(())
    }

    /// Checks that every start and every command was refused, and that nothing has changed.
    async fn check(&self, system: &System) -> TestResult {
        let brokers = system.env.brokers();
        let starts = self
            .inputs
            .iter()
            .filter(|record| record.headers.get("ce_type") == Some(ORDER_CREATED.as_bytes()));
        let refused = std::iter::once((topic::SAGA_INPUTS, starts.count())).chain(
            self.commands
                .iter()
                .map(|(topic, records)| (*topic, records.len())),
        );
        for (topic, expected) in refused {
            let letters = topics::read_all(&brokers, &topic::dead_letters_of(topic))?;
            let below = letters.iter().filter(|letter| {
                saga_of(letter).is_some_and(|saga| self.sagas.contains(&saga))
                    && letter.headers.get(header::DEAD_LETTER_REASON) == Some(&b"below_floor"[..])
            });
            assert_eq!(below.count(), expected, "letters in {topic}");
        }
        assert_eq!(rows(system, &self.sagas).await?, self.rows);
        let ids: Vec<Uuid> = self.sagas.iter().copied().collect();
        let mut orchestrator = connect(system, Service::Orchestrator).await?;
        let known: i64 = sqlx::query_scalar(
            "SELECT (SELECT count(*) FROM saga WHERE id = ANY($1)) \
             + (SELECT count(*) FROM saga_history WHERE id = ANY($1))",
        )
        .bind(ids)
        .fetch_one(&mut orchestrator)
        .await?;
        assert_eq!(known, 0, "nothing of them is known any more");
        Ok(())
    }
}

fn saga_of(record: &IncomingRecord) -> Option<Uuid> {
    std::str::from_utf8(record.key.as_deref()?)
        .ok()?
        .parse()
        .ok()
}

async fn rows(
    system: &System,
    sagas: &BTreeSet<Uuid>,
) -> Result<BTreeMap<&'static str, Vec<String>>> {
    let ids: Vec<Uuid> = sagas.iter().copied().collect();
    let mut all = BTreeMap::new();
    for (service, table, key) in EFFECTS {
        let select = format!("SELECT t::text FROM {table} t WHERE {key} = ANY($1) ORDER BY 1");
        let found: Vec<String> = sqlx::query_scalar(AssertSqlSafe(select))
            .bind(&ids)
            .fetch_all(&mut connect(system, service).await?)
            .await
            .context(table)?;
        all.insert(table, found);
    }
    Ok(all)
}

//! Publishes one bad record of every kind to every consumed topic, among valid records. Each bad record must become a
//! dead letter with its reason, its partition must continue, and every order must end as expected.

use crate::{PAYMENT_FIRST, e2e, shared};
use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use rdkafka::{
    ClientConfig,
    producer::{FutureProducer, FutureRecord},
};
use saga_contracts::{message_type, topic};
use saga_core::{
    ids::SagaId,
    message::{
        Command, Direction, IncomingRecord, OutgoingRecord, ReplyTo, StartSaga, Trace, header,
    },
};
use saga_harness::{Order, OrderRequest, Service, System, system::PATIENCE, topics};
use saga_messaging::dead_letter::DeadLetter;
use saga_service::clock;
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap, ffi::OsStr, os::unix::ffi::OsStrExt, process::Stdio, time::Duration,
};
use uuid::Uuid;

const COMMAND_TOPICS: [(&str, &str, Service); 3] = [
    (
        topic::ORDER_COMMANDS,
        message_type::ORDER_CONFIRM,
        Service::Order,
    ),
    (
        topic::INVENTORY_COMMANDS,
        message_type::INVENTORY_RESERVE,
        Service::Inventory,
    ),
    (
        topic::PAYMENT_COMMANDS,
        message_type::PAYMENT_CHARGE,
        Service::Payment,
    ),
];

/// A bad record, its name in this test, and the reason that its dead letter must have.
struct Poison {
    kind: &'static str,
    reason: &'static str,
    record: OutgoingRecord,
}

impl Poison {
    /// Makes a poison from a line of a table.
    fn of((kind, reason, record): (&'static str, &'static str, OutgoingRecord)) -> Self {
        Self {
            kind,
            reason,
            record,
        }
    }
}

const DAY: Duration = Duration::from_hours(24);

fn now_ms() -> u64 {
    clock::now().timestamp_millis().unsigned_abs()
}

/// Returns a saga id with the given time, in milliseconds since the epoch.
fn id_at(ms: u64) -> SagaId {
    let random = *Uuid::new_v4().as_bytes();
    let tail = random.first_chunk().copied().unwrap_or_default();
    SagaId(uuid::Builder::from_unix_timestamp_millis(ms, &tail).into_uuid())
}

fn trace() -> Trace {
    Trace {
        correlation_id: "poison".to_owned(),
        traceparent: None,
    }
}

fn start(saga: SagaId, definition: &str, input: Value) -> OutgoingRecord {
    let start = StartSaga {
        saga_id: saga,
        start_type: message_type::ORDER_CREATED.to_owned(),
        definition: definition.to_owned(),
        business_key: None,
        input,
        trace: trace(),
    };
    start.encode(topic::SAGA_INPUTS, 0, "/poison", clock::now())
}

fn command(topic: &str, command_type: &str, saga: SagaId, payload: Value) -> OutgoingRecord {
    let command = Command {
        saga_id: saga,
        step: "poison".to_owned(),
        direction: Direction::Forward,
        attempt: 1,
        command_type: command_type.to_owned(),
        payload,
        save_failure: false,
        reply_to: ReplyTo {
            topic: topic::SAGA_INPUTS.to_owned(),
            partition: 0,
        },
        floor: None,
        trace: trace(),
    };
    OutgoingRecord {
        partition: Some(0),
        ..command.encode(topic, "/poison", clock::now())
    }
}

fn with_header(mut record: OutgoingRecord, name: &str, value: &[u8]) -> OutgoingRecord {
    record.headers.remove(name);
    record.headers.push(name, value);
    record
}

fn with_payload(record: OutgoingRecord, payload: &[u8]) -> OutgoingRecord {
    OutgoingRecord {
        payload: payload.to_vec(),
        ..record
    }
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({"deep": inner}))
}

/// Returns the records that are bad in any topic. `good` makes a valid record of the given saga with the given payload.
fn of_any_topic(good: &dyn Fn(SagaId, Value) -> OutgoingRecord) -> Vec<Poison> {
    let fine = || good(id_at(now_ms()), json!({}));
    let foreign = OutgoingRecord {
        headers: [("content-type", "text/plain")].into(),
        ..with_payload(fine(), b"hello")
    };
    let day_ms = DAY.as_millis() as u64;
    let number = br#"{"amountMinor": 99999999999999999999999999}"#;
    let kinds: Vec<(&'static str, &'static str, OutgoingRecord)> = vec![
        (
            "not JSON",
            "bad_payload",
            with_payload(fine(), b"{ this is not \xff"),
        ),
        (
            "JSON beyond the parser",
            "bad_payload",
            good(id_at(now_ms()), nested(200)),
        ),
        ("a tombstone", "no_payload", with_payload(fine(), b"")),
        ("foreign", "missing_header", foreign),
        (
            "no UUID",
            "bad_header",
            with_header(fine(), header::SAGA_ID, b"seven"),
        ),
        (
            "a header that is no text",
            "bad_header",
            with_header(fine(), header::CE_TYPE, b"\xff\xfe"),
        ),
        ("too deep", "too_deep", good(id_at(now_ms()), nested(100))),
        (
            "NUL",
            "nul_character",
            good(id_at(now_ms()), json!({"text": "a\0b"})),
        ),
        (
            "a number",
            "number_out_of_range",
            with_payload(fine(), number),
        ),
        (
            "forgotten",
            "below_floor",
            good(id_at(now_ms() - 40 * day_ms), json!({})),
        ),
        (
            "to come",
            "id_out_of_window",
            good(id_at(now_ms() + 2 * day_ms), json!({})),
        ),
    ];
    kinds.into_iter().map(Poison::of).collect()
}

/// Returns the records that are bad in `saga.inputs`. `known` is the id of a saga that has started.
fn of_inputs(known: SagaId) -> Vec<Poison> {
    let good = |saga, input| start(saga, "place-order", input);
    let mut all = of_any_topic(&good);
    let fine = || good(id_at(now_ms()), json!({}));
    let unrecognised = OutgoingRecord {
        headers: [(header::CE_TYPE, "somebody.elses")].into(),
        ..fine()
    };
    let key = "k".repeat(300);
    let further = [
        (
            "an id taken",
            "id_conflict",
            good(known, json!({"other": "content"})),
        ),
        (
            "no such definition",
            "unknown_definition",
            start(id_at(now_ms()), "no-such-thing", json!({})),
        ),
        ("neither of four", "unrecognised", unrecognised),
        (
            "JSON in a string",
            "bad_payload",
            with_payload(fine(), br#""{\"orderId\": 1}""#),
        ),
        ("a list", "bad_payload", with_payload(fine(), b"[]")),
        ("no order", "bad_payload", fine()),
        (
            "a long key",
            "bad_header",
            with_header(fine(), header::BUSINESS_KEY, key.as_bytes()),
        ),
        (
            "no UUIDv7",
            "id_out_of_window",
            good(SagaId(Uuid::new_v4()), json!({})),
        ),
    ];
    all.extend(further.map(Poison::of));
    all
}

fn of_commands(topic: &str, command_type: &str) -> Vec<Poison> {
    let good = |saga, payload| command(topic, command_type, saga, payload);
    let mut all = of_any_topic(&good);
    let fine = || good(id_at(now_ms()), json!({}));
    let (step, name) = ("s".repeat(1_000), "t".repeat(5_000));
    let further = [
        (
            "nobody's topic",
            "bad_header",
            with_header(fine(), header::REPLY_TOPIC, b"not.there"),
        ),
        (
            "no partition",
            "bad_header",
            with_header(fine(), header::REPLY_PARTITION, b"-1"),
        ),
        (
            "a long step",
            "bad_header",
            with_header(fine(), header::STEP, step.as_bytes()),
        ),
        (
            "a long type",
            "bad_header",
            with_header(fine(), header::CE_TYPE, name.as_bytes()),
        ),
        (
            "no UUIDv7",
            "bad_header",
            good(SagaId(Uuid::new_v4()), json!({})),
        ),
    ];
    all.extend(further.map(Poison::of));
    all
}

/// Returns the record key of a poison. It distinguishes the poison's dead letter from those of other tests.
fn key_of(marker: Uuid, kind: &str) -> Vec<u8> {
    format!("{marker}/{kind}").into_bytes()
}

async fn poison(brokers: &str, marker: Uuid, poisons: &[Poison]) -> Result<()> {
    let keyed: Vec<OutgoingRecord> = poisons
        .iter()
        .flat_map(|poison| [0, 1].map(|partition| (poison, partition)))
        .map(|(poison, partition)| OutgoingRecord {
            key: key_of(marker, poison.kind),
            partition: Some(partition),
            ..poison.record.clone()
        })
        .collect();
    topics::publish(brokers, &keyed).await
}

const HUGE_BYTES: usize = 5 * 1024 * 1024;

/// Publishes a record that is a few kilobytes when compressed, which every topic accepts. Uncompressed, as a dead
/// letter, it would be too large for every topic.
async fn poison_with_a_huge_record(brokers: &str, topic: &str, marker: Uuid) -> Result<()> {
    let producer: FutureProducer = ClientConfig::new()
        .set("bootstrap.servers", brokers)
        .set("compression.type", "gzip")
        .set("message.max.bytes", "20000000")
        .create()?;
    let (key, payload) = (key_of(marker, "huge"), vec![b'a'; HUGE_BYTES]);
    for partition in [0, 1] {
        let record = FutureRecord::<[u8], [u8]>::to(topic)
            .key(&key)
            .payload(&payload)
            .partition(partition);
        let sent = producer.send(record, PATIENCE).await;
        sent.map_err(|(error, _)| error)
            .with_context(|| format!("a huge record for {topic}"))?;
    }
    Ok(())
}

/// Publishes a record with a header name that is not UTF-8. The project's own clients cannot write such a header.
async fn poison_with_a_header_named_in_another_encoding(
    brokers: &str,
    topic: &str,
    marker: Uuid,
) -> Result<()> {
    for partition in ["0", "1"] {
        let mut kcat = tokio::process::Command::new("kcat")
            .args(["-P", "-b", brokers, "-t", topic, "-p", partition, "-k"])
            .arg(OsStr::from_bytes(&key_of(marker, "encoding")))
            .arg("-H")
            .arg(OsStr::from_bytes(b"gr\xf6\xdfe=7"))
            .stdin(Stdio::piped())
            .spawn()
            .context("kcat is needed: a Debian package")?;
        let mut input = kcat.stdin.take().context("its input")?;
        tokio::io::AsyncWriteExt::write_all(&mut input, b"hello").await?;
        drop(input);
        ensure!(kcat.wait().await?.success(), "kcat failed at {topic}");
    }
    Ok(())
}

/// Waits until a topic has at least `count` dead letters of this test's records, and returns them.
async fn letters(brokers: &str, topic: &str, marker: Uuid, count: usize) -> Vec<IncomingRecord> {
    let prefix = marker.to_string().into_bytes();
    until(&format!("the letters of {topic}"), PATIENCE, || async {
        let all = topics::read_all(brokers, &topic::dead_letters_of(topic))?;
        let ours: Vec<IncomingRecord> = all
            .into_iter()
            .filter(|letter| {
                letter
                    .key
                    .as_ref()
                    .is_some_and(|key| key.starts_with(&prefix))
            })
            .collect();
        ensure!(ours.len() >= count, "{} of {count}", ours.len());
        Ok(ours)
    })
    .await
}

/// Checks that each poison has two dead letters, one for each partition, each with the reason, the original record and
/// its position.
fn check_letters(
    letters: Vec<IncomingRecord>,
    sources: &[IncomingRecord],
    mut expected: BTreeMap<Vec<u8>, &'static str>,
    marker: Uuid,
) -> Result<()> {
    expected.insert(key_of(marker, "huge"), "missing_header");
    expected.insert(key_of(marker, "encoding"), "missing_header");
    ensure!(letters.len() == 2 * expected.len(), "{}", letters.len());
    for letter in letters {
        let letter = DeadLetter::read(letter);
        let kind = String::from_utf8_lossy(&letter.key).into_owned();
        let reason = expected.get(&letter.key).with_context(|| kind.clone())?;
        ensure!(
            letter.reason == *reason,
            "{kind}: {}: {}",
            letter.reason,
            letter.detail
        );
        let origin = letter.source.clone().with_context(|| kind.clone())?;
        let source = sources
            .iter()
            .find(|source| (source.partition, source.offset) == (origin.partition, origin.offset))
            .with_context(|| format!("{kind}: no record is at {origin:?}"))?;
        ensure!(
            source.key.as_ref() == Some(&letter.key),
            "{kind} came from {origin:?}"
        );
        ensure!(origin.time.is_some(), "{kind} has lost its time");
        if kind.ends_with("huge") {
            ensure!(
                letter
                    .cut_from_bytes
                    .is_some_and(|bytes| bytes > HUGE_BYTES as u64)
            );
            continue;
        }
        ensure!(
            letter.payload == source.payload.clone().unwrap_or_default(),
            "{kind}"
        );
        if !kind.ends_with("encoding") {
            ensure!(
                letter.headers == source.headers,
                "{kind}: {:?}",
                letter.headers
            );
        }
    }
    Ok(())
}

/// Raises the participants' floors to 35 days ago, as upkeep would. Commands of sagas that began before the floor have
/// no effect.
async fn raise_floors(system: &System) -> Result<()> {
    let floor_ms = (now_ms() - 35 * DAY.as_millis() as u64).cast_signed();
    for (_, _, service) in COMMAND_TOPICS {
        let pool = sqlx::PgPool::connect(&system.databases[&service]).await?;
        sqlx::query("UPDATE saga_floor SET own_ms = greatest(own_ms, $1)")
            .bind(floor_ms)
            .execute(&pool)
            .await?;
        pool.close().await;
    }
    Ok(())
}

/// Places orders of each kind, and checks how they end.
async fn orders(system: &System, rounds: usize) -> Result<()> {
    let (shelf, empty) = (
        system.stock_product(1_000).await?,
        system.stock_product(0).await?,
    );
    let kinds = [
        (OrderRequest::one(shelf, 1, 5.0), "CONFIRMED", ""),
        (
            OrderRequest::one(shelf, 1, 5_000.0),
            "CANCELLED",
            "payment_declined",
        ),
        (
            OrderRequest::one(empty, 1, 5.0),
            "CANCELLED",
            "out_of_stock",
        ),
        (
            OrderRequest::one(shelf, 2, 5.0).definition(PAYMENT_FIRST),
            "CONFIRMED",
            "",
        ),
        (
            OrderRequest::one(empty, 1, 5.0).definition(PAYMENT_FIRST),
            "CANCELLED",
            "out_of_stock",
        ),
    ];
    for _ in 0..rounds {
        let placed = kinds
            .iter()
            .map(|(request, _, _)| system.place_and_wait(request));
        let ended: Vec<Order> = try_join_all(placed).await?;
        for (order, (_, status, reason)) in ended.iter().zip(&kinds) {
            ensure!(
                (order.status(), order.reason()) == (*status, *reason),
                "{}",
                order.body
            );
        }
        let sagas = ended.iter().zip(&kinds).map(|(order, (_, status, _))| {
            let end = if *status == "CONFIRMED" {
                "completed"
            } else {
                "compensated"
            };
            system.saga_is(order.saga, end)
        });
        try_join_all(sagas).await?;
    }
    let sold = 3 * rounds as i64;
    ensure!(
        system.stock(shelf).await? == (1_000 - sold, 0, sold),
        "{:?}",
        system.stock(shelf).await?
    );
    Ok(())
}

e2e! {
async fn poison_of_every_kind_in_every_topic_becomes_letters_and_harms_no_order() {
    let (system, _guard) = shared().await;
    let brokers = system.env.brokers();
    raise_floors(system).await?;
    let product = system.stock_product(1).await?;
    let known = system.place_and_wait(&OrderRequest::one(product, 1, 5.0)).await?;
    system.saga_is(known.saga, "completed").await?;

    let marker = Uuid::new_v4();
    let mut kinds: Vec<(&str, Vec<Poison>)> =
        vec![(topic::SAGA_INPUTS, of_inputs(SagaId(known.saga)))];
    kinds.extend(COMMAND_TOPICS.map(|(name, kind, _)| (name, of_commands(name, kind))));
    let poisoning = async {
        for (name, poisons) in &kinds {
            poison(&brokers, marker, poisons).await?;
            poison_with_a_huge_record(&brokers, name, marker).await?;
            poison_with_a_header_named_in_another_encoding(&brokers, name, marker).await?;
        }
        Ok(())
    };
    tokio::try_join!(orders(system, 10), poisoning)?;
    // These orders are placed after all bad records.
    orders(system, 1).await?;

    for (name, poisons) in &kinds {
        let expected: BTreeMap<_, _> = poisons
            .iter()
            .map(|poison| (key_of(marker, poison.kind), poison.reason))
            .collect();
        let found = letters(&brokers, name, marker, 2 * (poisons.len() + 2)).await;
        let sources = topics::read_all(&brokers, name)?;
        check_letters(found, &sources, expected, marker).with_context(|| (*name).to_owned())?;
    }
    for service in Service::ALL {
        // The status would be 503 if anything were wrong.
        system.get(service, "/health").await?;
    }
    Ok(())
}
}

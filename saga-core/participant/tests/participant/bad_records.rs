//! Tests that records that cannot be processed are kept and do not stop others.

use crate::world::{
    World, all_told, compensation, deliver, forward, is_error, records, replies, take, told,
};
use async_trait::async_trait;
use saga_core::{
    ids::SagaId,
    message::{Command, Headers, IncomingRecord, OutgoingRecord, ReplyTo, header},
};
use saga_messaging::{
    consumer::{BatchError, Processor},
    log::{Delivered, TopicPartition},
};
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use uuid::Uuid;

const PATIENCE: Duration = Duration::from_secs(30);

pub fn letters(outputs: &[OutgoingRecord]) -> Vec<String> {
    let reason = |record: &OutgoingRecord| {
        let value = record.headers.get(header::DEAD_LETTER_REASON).unwrap();
        String::from_utf8(value.to_vec()).unwrap()
    };
    outputs
        .iter()
        .filter(|record| record.topic == "test.commands.dlq")
        .map(reason)
        .collect()
}

/// Checks that a bad command between two good ones fails alone, and that the good ones succeed.
async fn check(bad: impl FnOnce(Command) -> Command, reason: &str, answered: bool) {
    let world = World::new().await;
    let (first, middle, last) = (world.saga(), world.saga(), world.saga());
    let bad = bad(forward(middle, 1, "succeed"));
    let id = bad.saga_id;
    let batch = records(&[forward(first, 1, ""), bad, forward(last, 1, "")]);
    let outputs = deliver(world.frame(), batch).await;
    assert_eq!(letters(&outputs), [reason]);
    let answers = replies(&outputs);
    assert_eq!(answers.len(), if answered { 3 } else { 2 }, "{answers:?}");
    if answered {
        assert!(is_error(&answers[1], reason), "{answers:?}");
        assert_eq!(answers[1].saga_id, id);
    }
    for good in [first, last] {
        assert_eq!(world.effects(good).await, ["test.do"]);
        assert_eq!(world.rows(good).await, "F=D");
    }
    assert!(world.effects(id).await.is_empty());
    assert_eq!(world.rows(id).await, "");
}

fn asked(payload: Value) -> impl FnOnce(Command) -> Command {
    move |command| Command { payload, ..command }
}

#[tokio::test]
async fn a_panic_hits_its_own_command_only() {
    check(asked(json!({"do": "panic"})), "handler_panicked", true).await;
}

#[tokio::test]
async fn a_handler_over_time_hits_its_own_command_only() {
    check(asked(json!({"do": "stall"})), "handler_timeout", true).await;
}

#[tokio::test]
async fn a_statement_over_time_hits_its_own_command_only() {
    check(asked(json!({"do": "sleep"})), "handler_timeout", true).await;
}

#[tokio::test]
async fn a_violated_constraint_hits_its_own_command_only() {
    check(asked(json!({"do": "bad"})), "data_error", true).await;
}

/// The orchestrator would dead-letter such an answer, and never learn that the work was done.
#[tokio::test]
async fn a_result_that_the_orchestrator_would_refuse_hits_its_own_command_only() {
    check(asked(json!({"do": "garble"})), "handler_broken", true).await;
}

#[tokio::test]
async fn a_payload_that_no_database_keeps_is_answered_error() {
    check(asked(json!({"text": "a\0b"})), "nul_character", true).await;
}

#[tokio::test]
async fn a_deep_payload_is_answered_error() {
    let deep = (0..70).fold(json!(1), |inner, _| json!([inner]));
    check(asked(deep), "too_deep", true).await;
}

#[tokio::test]
async fn an_unknown_reply_topic_is_dead_lettered() {
    let nowhere = ReplyTo {
        topic: "not.there".to_owned(),
        partition: 0,
    };
    let bad = |command| Command {
        reply_to: nowhere,
        ..command
    };
    check(bad, "bad_header", false).await;
}

#[tokio::test]
async fn an_id_that_is_no_time_is_dead_lettered() {
    let bad = |command| Command {
        saga_id: SagaId(Uuid::from_u128(u128::MAX)),
        ..command
    };
    check(bad, "bad_header", false).await;
}

#[tokio::test]
async fn an_id_from_the_future_is_dead_lettered() {
    let late = uuid::Builder::from_unix_timestamp_millis(1 << 47, &[1; 10]).into_uuid();
    let bad = |command| Command {
        saga_id: SagaId(late),
        ..command
    };
    check(bad, "id_out_of_window", false).await;
}

#[tokio::test]
async fn a_step_longer_than_an_index_row_is_dead_lettered() {
    let bad = |command| Command {
        step: "s".repeat(5_000),
        ..command
    };
    check(bad, "bad_header", false).await;
}

#[tokio::test]
async fn a_record_that_is_no_command_is_dead_lettered_unchanged() {
    let world = World::new().await;
    let record = IncomingRecord {
        payload: Some(b"{not json".to_vec()),
        ..records(&[forward(world.saga(), 1, "")]).remove(0)
    };
    let tombstone = IncomingRecord {
        headers: Headers::default(),
        payload: None,
        key: None,
        ..record.clone()
    };
    let outputs = world.frame().process(&[record, tombstone]).await.unwrap();
    assert_eq!(letters(&outputs), ["bad_payload", "missing_header"]);
    assert_eq!(outputs[0].payload, b"{not json");
}

#[tokio::test]
async fn commands_below_the_floor_have_no_effect() {
    let world = World::new().await;
    let old = World::saga_at(world.now - Duration::from_hours(20));
    let floor = world.now - Duration::from_hours(10);
    sqlx::query("UPDATE saga_floor SET own_ms = $1")
        .bind(floor.timestamp_millis())
        .execute(&world.pool)
        .await
        .unwrap();
    let above = world.saga();
    let batch = records(&[compensation(old, 1, ""), forward(above, 1, "")]);
    let outputs = world.frame().process(&batch).await.unwrap();
    assert_eq!(letters(&outputs), ["below_floor"]);
    assert_eq!(
        all_told(&replies(&outputs)),
        ["test.done success forward 1"]
    );
    assert_eq!(world.rows(old).await, "");
}

#[tokio::test]
async fn the_highest_floor_seen_is_kept() {
    let world = World::new().await;
    let mut frame = world.frame();
    let seen = |hours| Command {
        floor: Some(world.now - Duration::from_hours(hours)),
        ..forward(world.saga(), 1, "")
    };
    let batch = records(&[seen(5), seen(3), seen(4)]);
    frame.process(&batch).await.unwrap();
    frame.process(&records(&[seen(6)])).await.unwrap();
    let kept: i64 = sqlx::query_scalar("SELECT seen_ms FROM saga_floor")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(
        kept,
        (world.now - Duration::from_hours(3)).timestamp_millis()
    );
}

#[tokio::test]
async fn a_stalled_database_is_not_the_handlers_fault() {
    let world = World::new().await;
    let mut frame = world.frame();
    let batch = records(&[forward(world.saga(), 1, "stall")]);
    // All other connections are taken, so that the database cannot be queried.
    let mut taken = Vec::new();
    for _ in 0..7 {
        taken.push(world.pool.acquire().await.unwrap());
    }
    let stalled = tokio::spawn(async move {
        let error = frame.process(&batch).await.unwrap_err();
        (frame, batch, error)
    });
    while world.pool.size() < 8 || world.pool.num_idle() > 0 {
        tokio::task::yield_now().await;
    }
    // The rollback frees the processor's own connection, and the longest waiting caller gets it.
    taken.push(world.pool.acquire().await.unwrap());
    let (mut frame, batch, error) = stalled.await.unwrap();
    assert!(matches!(error, BatchError::Retry(_)), "{error:?}");
    drop(taken);
    // The first timeout of a command that is alone is retried; the second one counts against the command.
    let again = frame.process(&batch).await;
    assert!(matches!(again, Err(BatchError::Retry(_))), "{again:?}");
    let third = frame.process(&batch).await;
    assert!(matches!(third, Err(BatchError::Data(_))), "{third:?}");
}

/// Checks a full batch with commands that violate a constraint: all other commands are answered in their order.
async fn check_full_batch(culprits: &[usize]) {
    const BATCH: usize = 500;
    let world = World::new().await;
    let sagas: Vec<SagaId> = (0..BATCH).map(|_| world.saga()).collect();
    let commands: Vec<Command> = sagas
        .iter()
        .enumerate()
        .map(|(n, saga)| {
            let behavior = if culprits.contains(&n) { "bad" } else { "" };
            forward(*saga, 1, behavior)
        })
        .collect();
    let counting = Counting {
        frame: world.frame(),
        transactions: Arc::default(),
    };
    let transactions = Arc::clone(&counting.transactions);
    let outputs = deliver(counting, records(&commands)).await;
    let answers = replies(&outputs);
    let answered: Vec<SagaId> = answers.iter().map(|reply| reply.saga_id).collect();
    assert_eq!(answered, sagas, "every command is answered once, in order");
    for (n, reply) in answers.iter().enumerate() {
        let bad = culprits.contains(&n);
        assert_eq!(is_error(reply, "data_error"), bad, "{n}: {reply:?}");
        assert_eq!(told(reply) == "test.done success forward 1", !bad);
    }
    assert_eq!(letters(&outputs), vec!["data_error"; culprits.len()]);
    let good = BATCH - culprits.len();
    for table in ["effect", "inbox"] {
        let count: i64 = sqlx::query_scalar(sqlx::AssertSqlSafe(format!(
            "SELECT count(DISTINCT saga_id) FROM {table}"
        )))
        .fetch_one(&world.pool)
        .await
        .unwrap();
        assert_eq!(count, good as i64, "{table}");
    }
    let bound = culprits.len() * 2 * BATCH.ilog2() as usize + 3;
    let count = transactions.load(Ordering::SeqCst);
    assert!(count <= bound, "{count} transactions, at most {bound}");
}

#[tokio::test]
async fn the_first_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_full_batch(&[0]).await;
}

#[tokio::test]
async fn one_in_the_middle_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_full_batch(&[250]).await;
}

#[tokio::test]
async fn the_last_of_a_full_batch_costs_its_neighbors_a_bisection() {
    check_full_batch(&[499]).await;
}

#[tokio::test]
async fn two_of_a_full_batch_cost_their_neighbors_two_bisections() {
    check_full_batch(&[17, 333]).await;
}

/// A wait for another transaction's lock is not the handler's fault: only the handler's own time counts against it.
#[tokio::test]
async fn a_rival_that_stalls_with_its_locks_costs_no_command_its_attempt() {
    let world = World::new().await;
    let mut rival = world.pool.begin().await.unwrap();
    sqlx::query("LOCK TABLE effect IN ACCESS EXCLUSIVE MODE")
        .execute(&mut *rival)
        .await
        .unwrap();
    let counting = Counting {
        frame: world.frame(),
        transactions: Arc::default(),
    };
    let transactions = Arc::clone(&counting.transactions);
    let batch = records(&[forward(world.saga(), 1, "")]);
    let delivering = tokio::spawn(deliver(counting, batch));
    // These are more attempts than a command with a timeout gets.
    until(
        "the command is tried again and again",
        PATIENCE,
        async || transactions.load(Ordering::SeqCst) >= 4 || delivering.is_finished(),
    )
    .await;
    rival.rollback().await.unwrap();
    let outputs = delivering.await.unwrap();
    assert_eq!(
        all_told(&replies(&outputs)),
        ["test.done success forward 1"]
    );
    assert_eq!(letters(&outputs), Vec::<String>::new());
}

/// A processor that counts its transactions.
struct Counting<P> {
    frame: P,
    transactions: Arc<AtomicUsize>,
}

#[async_trait]
impl<P: Processor> Processor for Counting<P> {
    async fn process(
        &mut self,
        records: &[IncomingRecord],
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.transactions.fetch_add(1, Ordering::SeqCst);
        self.frame.process(records).await
    }

    async fn reject(
        &mut self,
        record: &IncomingRecord,
        why: &BatchError,
    ) -> Result<Vec<OutgoingRecord>, BatchError> {
        self.frame.reject(record, why).await
    }

    fn published(&mut self, outputs: &[OutgoingRecord], delivered: &[Delivered]) {
        self.frame.published(outputs, delivered);
    }

    async fn assigned(&mut self, partitions: &[TopicPartition]) -> Result<(), BatchError> {
        self.frame.assigned(partitions).await
    }

    fn revoked(&mut self, partitions: &[TopicPartition]) {
        self.frame.revoked(partitions);
    }
}

/// A row that cannot be read concerns only its own saga: it blocks neither the partition nor other commands.
#[tokio::test]
async fn a_command_with_an_unreadable_row_is_dead_lettered_alone() {
    let world = World::new().await;
    let (first, spoiled, last) = (world.saga(), world.saga(), world.saga());
    take(&mut world.frame(), &[forward(spoiled, 1, "")]).await;
    sqlx::query("UPDATE inbox SET reply = '{\"type\": 7}' WHERE saga_id = $1")
        .bind(spoiled.0)
        .execute(&world.pool)
        .await
        .unwrap();
    let batch = [first, spoiled, last].map(|saga| forward(saga, 1, ""));
    let outputs = deliver(world.frame(), records(&batch)).await;
    assert_eq!(letters(&outputs), ["data_error"]);
    let answers = replies(&outputs);
    assert_eq!(answers.len(), 3);
    assert!(is_error(&answers[1], "data_error"), "{answers:?}");
    assert_eq!(world.rows(first).await, "F=D");
    assert_eq!(world.rows(last).await, "F=D");
}

/// The fault's message goes into a reply, which must not become too large to be sent.
#[tokio::test]
async fn the_fault_message_of_a_reply_is_bounded() {
    let world = World::new().await;
    let behavior = json!({"do": "fail at length"});
    let command = Command {
        payload: behavior,
        ..forward(world.saga(), 1, "")
    };
    let outputs = world.frame().process(&records(&[command])).await.unwrap();
    let reply = &replies(&outputs)[0];
    let message = reply.payload["message"].as_str().unwrap();
    assert!(message.len() <= 4_096 && message.starts_with("not today"));
}

#[tokio::test]
async fn a_type_that_leaves_no_room_for_an_answer_is_dead_lettered() {
    let bad = |command| Command {
        command_type: "t".repeat(2_000),
        ..command
    };
    check(bad, "bad_header", false).await;
}

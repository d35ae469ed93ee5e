//! Tests what a participant forgets and when, and that it therefore does nothing twice.

use crate::{
    bad_records::letters,
    world::{
        Outside, STEP, Script, World, all_told, compensation, deliver, forward, records, replies,
        take,
    },
};
use saga_core::{
    ids::SagaId,
    message::{Command, OutgoingRecord},
};
use saga_messaging::{consumer::Processor, partition::PartitionAlarm};
use saga_participant::{
    inbox,
    internal::{BarrierUpkeep, CommandProcessor, ParticipantConfig, PerCommand},
};
use saga_test_support::environment::until;
use sqlx::AssertSqlSafe;
use std::{sync::Arc, time::Duration};
use tokio_util::sync::CancellationToken;

const AHEAD_DAYS: u32 = 3;
const DAY: Duration = Duration::from_hours(24);
/// Longest wait: less than the time until the next round, which would clear the alarm in any case.
const HEALS_WITHIN: Duration = Duration::from_secs(20);

fn upkeep(world: &World) -> BarrierUpkeep {
    BarrierUpkeep::new(world.pool.clone(), AHEAD_DAYS, inbox::alarm())
}

/// Returns a saga in the oldest partition.
fn old_saga(world: &World) -> SagaId {
    World::saga_at(world.now - DAY * 40)
}

/// Returns a command of a young saga, with a floor that says that no saga older than three days is live.
fn with_floor(world: &World) -> Command {
    Command {
        floor: Some(world.now - DAY * 3),
        ..forward(world.saga(), 1, "")
    }
}

async fn see_floor(world: &World) {
    assert_eq!(
        take(&mut world.frame(), &[with_floor(world)]).await.len(),
        1
    );
}

/// A participant that has run for a while: one partition has everything until a week ago, and another one everything
/// from then until the daily partitions.
async fn world() -> World {
    let world = World::new().await;
    let bound = |days: u32| {
        let at = world.now - DAY * days;
        let midnight = at.date_naive().and_time(chrono::NaiveTime::MIN).and_utc();
        saga_messaging::partition::least_id(midnight.timestamp_millis())
    };
    let (week, days) = (bound(7), bound(2));
    let statements = format!(
        "ALTER TABLE inbox DETACH PARTITION inbox_oldest; \
         ALTER TABLE inbox ATTACH PARTITION inbox_oldest FOR VALUES FROM (MINVALUE) TO ('{week}'); \
         CREATE TABLE inbox_week PARTITION OF inbox FOR VALUES FROM ('{week}') TO ('{days}')"
    );
    sqlx::raw_sql(AssertSqlSafe(statements))
        .execute(&world.pool)
        .await
        .unwrap();
    world
}

async fn stands(world: &World, partition: &str) -> bool {
    sqlx::query_scalar("SELECT to_regclass($1) IS NOT NULL")
        .bind(partition)
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

async fn floors(world: &World) -> (i64, i64) {
    sqlx::query_as("SELECT own_ms, seen_ms FROM saga_floor")
        .fetch_one(&world.pool)
        .await
        .unwrap()
}

async fn process(world: &World, commands: &[Command]) -> Vec<OutgoingRecord> {
    world.frame().process(&records(commands)).await.unwrap()
}

#[tokio::test]
async fn a_command_below_the_floor_is_refused_and_does_not_run_again() {
    let world = world().await;
    let (old, middle) = (old_saga(&world), World::saga_at(world.now - DAY * 4));
    let commands = [forward(old, 1, ""), forward(middle, 1, "")];
    let before = process(&world, &commands).await;
    see_floor(&world).await;
    upkeep(&world).round().await;
    assert!(!stands(&world, "inbox_oldest").await);
    // The floor is within this partition.
    assert!(stands(&world, "inbox_week").await);
    let outputs = process(&world, &[commands[0].clone(), compensation(old, 1, "")]).await;
    assert_eq!(letters(&outputs), ["below_floor", "below_floor"]);
    assert!(replies(&outputs).is_empty());
    assert_eq!(world.effects(old).await, ["test.do"]);
    assert_eq!(world.rows(old).await, "");
    // The rows above the floor are still known.
    let again = process(&world, &commands[1..]).await;
    assert_eq!(all_told(&replies(&again)), all_told(&replies(&before[1..])));
    assert_eq!(world.effects(middle).await, ["test.do"]);
}

#[tokio::test]
async fn nothing_is_dropped_while_a_transaction_may_use_the_old_floor() {
    let world = world().await;
    let old = old_saga(&world);
    process(&world, &[forward(old, 1, "")]).await;
    see_floor(&world).await;
    let mut batch = world.pool.begin().await.unwrap();
    sqlx::query("SELECT own_ms FROM saga_floor")
        .execute(&mut *batch)
        .await
        .unwrap();
    let mut upkeep = upkeep(&world);
    upkeep.round().await;
    upkeep.round().await;
    assert!(stands(&world, "inbox_oldest").await);
    // The saga is refused already, although its row still exists.
    let outputs = process(&world, &[forward(old, 1, "")]).await;
    assert_eq!(letters(&outputs), ["below_floor"]);
    batch.rollback().await.unwrap();
    upkeep.round().await;
    assert!(!stands(&world, "inbox_oldest").await);
}

#[tokio::test]
async fn an_open_call_keeps_its_partition_until_it_is_settled() {
    let world = world().await;
    let mut instance = world.instance(&Outside::new(&[]));
    let old = old_saga(&world);
    assert!(instance.take(&[forward(old, 1, "call")]).await.is_empty());
    see_floor(&world).await;
    let mut upkeep = upkeep(&world);
    for _ in 0..2 {
        upkeep.round().await;
    }
    assert!(stands(&world, "inbox_oldest").await);
    assert_eq!(
        all_told(&instance.work().await),
        ["test.done success forward 1"]
    );
    assert_eq!(world.rows(old).await, "F=D");
    upkeep.round().await;
    assert!(!stands(&world, "inbox_oldest").await);
}

#[tokio::test]
async fn intents_of_calls_are_dropped_with_their_partition() {
    let world = world().await;
    let mut instance = world.instance(&Outside::new(&[Script::Errs, Script::Errs]));
    let (old, young) = (old_saga(&world), world.saga());
    instance
        .take(&[forward(old, 1, "call"), forward(young, 1, "call")])
        .await;
    assert_eq!(instance.work().await.len(), 2);
    assert_eq!(world.intents(old).await, ["F/2 released"]);
    see_floor(&world).await;
    upkeep(&world).round().await;
    assert!(world.intents(old).await.is_empty());
    assert_eq!(world.intents(young).await, ["F/2 released"]);
}

#[tokio::test]
async fn a_floor_above_its_own_command_is_not_believed() {
    let world = world().await;
    let old = World::saga_at(world.now - DAY);
    let command = Command {
        floor: Some(world.now),
        ..forward(old, 1, "")
    };
    assert_eq!(take(&mut world.frame(), &[command]).await.len(), 1);
    assert_eq!(floors(&world).await, (0, 0));
}

#[tokio::test]
async fn without_a_floor_nothing_is_forgotten() {
    let world = world().await;
    let old = old_saga(&world);
    process(&world, &[forward(old, 1, "")]).await;
    let mut upkeep = upkeep(&world);
    for _ in 0..2 {
        upkeep.round().await;
    }
    assert_eq!(world.rows(old).await, "F=D");
    assert_eq!(floors(&world).await, (0, 0));
}

#[tokio::test]
async fn a_dropped_partition_is_created_again_and_the_command_runs() {
    let world = world().await;
    // Only tomorrow's partition is dropped; later ones exist.
    let tomorrow = world.now.date_naive() + chrono::Days::new(1);
    let statement = format!("DROP TABLE {}", tomorrow.format("inbox_%Y%m%d"));
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&world.pool)
        .await
        .unwrap();
    let alarm = inbox::alarm();
    let frame = frame_with(&world, alarm.clone());
    let batch = records(&[
        forward(World::saga_at(world.now + DAY), 1, ""),
        forward(world.saga(), 1, ""),
    ]);
    let stop = CancellationToken::new();
    let upkeep = BarrierUpkeep::new(world.pool.clone(), AHEAD_DAYS, alarm.clone());
    let upkeep = tokio::spawn(upkeep.run(stop.clone()));
    let outputs = deliver(frame, batch).await;
    assert_eq!(replies(&outputs).len(), 2);
    assert!(letters(&outputs).is_empty());
    // An attempt that was in progress when the partition was created may have raised the alarm again: upkeep clears
    // that, too.
    until("the alarm is over", HEALS_WITHIN, async || alarm.health()).await;
    stop.cancel();
    upkeep.await.unwrap();
}

#[tokio::test]
async fn a_missing_partition_is_reported_until_it_is_created() {
    let world = world().await;
    let (alarm, beyond) = (inbox::alarm(), World::saga_at(world.now + DAY));
    let later = world.now.date_naive() + chrono::Days::new(1);
    let statement = format!("DROP TABLE {}", later.format("inbox_%Y%m%d"));
    sqlx::raw_sql(AssertSqlSafe(statement))
        .execute(&world.pool)
        .await
        .unwrap();
    let mut frame = frame_with(&world, alarm.clone());
    let batch = records(&[forward(beyond, 1, "")]);
    frame.process(&batch).await.unwrap_err();
    let told = alarm.health().unwrap_err();
    assert!(told.contains("inbox"), "{told}");
    BarrierUpkeep::new(world.pool.clone(), AHEAD_DAYS, alarm.clone())
        .round()
        .await;
    assert_eq!(alarm.health(), Ok(()));
    assert_eq!(replies(&frame.process(&batch).await.unwrap()).len(), 1);
    assert_eq!(world.effects(beyond).await.len(), 1, "once, by step {STEP}");
}

fn frame_with(
    world: &World,
    alarm: PartitionAlarm,
) -> CommandProcessor<PerCommand<crate::world::Obedient>> {
    let config = ParticipantConfig {
        partition_alarm: alarm,
        ..World::config()
    };
    let handler = Arc::new(PerCommand::new(Arc::new(crate::world::Obedient)));
    CommandProcessor::new(config, handler, None, world.pool.clone()).0
}

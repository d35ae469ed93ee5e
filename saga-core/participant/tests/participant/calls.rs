//! Tests external calls: nothing is lost between any two stages, and nothing is done twice.

use crate::world::{
    Instance, Outside,
    Script::{CannotBeSettled, Declines, Errs, IsNotHeard, Succeeds},
    World, Written, all_told, compensation, forward, is_error, records, replies, resolve, told,
};
use saga_core::{
    ids::SagaId,
    message::{Command, Reply},
};
use saga_messaging::consumer::{BatchError, Processor};
use saga_participant::internal::RawCalls;
use std::{
    num::NonZeroU32,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

const NONE: [&str; 0] = [];

/// Returns an instance with an open charge.
async fn pending(world: &World, outside: &Arc<Outside>) -> (Instance, Command) {
    let mut instance = world.instance(outside);
    let command = forward(world.saga(), 1, "call");
    assert!(
        instance
            .take(std::slice::from_ref(&command))
            .await
            .is_empty()
    );
    assert_eq!(world.rows(command.saga_id).await, "F=P");
    assert_eq!(world.intents(command.saga_id).await, ["F/1 open"]);
    (instance, command)
}

#[tokio::test]
async fn a_call_is_made_settled_answered_and_closed() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    let answers = instance.work().await;
    assert_eq!(all_told(&answers), ["test.done success forward 1"]);
    let key = format!("{saga}/charge/forward/1");
    assert_eq!(answers[0].payload["key"], key);
    assert_eq!(outside.calls(), [key]);
    assert_eq!(world.effects(saga).await, ["test.do", "test.done"]);
    assert_eq!(world.rows(saga).await, "F=D");
    assert_eq!(world.intents(saga).await, NONE);
    // A duplicate is now answered like that of any other command.
    let again = instance.take(&[command]).await;
    assert_eq!(again, answers);
    assert_eq!(outside.calls().len(), 1);
}

/// The process crashes after each stage, and another one has to finish the work.
#[tokio::test]
async fn a_crash_after_any_stage_loses_nothing() {
    for stage in 0..5 {
        let world = World::new().await;
        let outside = Outside::new(&[]);
        let (mut instance, command) = pending(&world, &outside).await;
        let saga = command.saga_id;
        let mut published = Vec::new();
        if stage >= 1 {
            let job = instance.open.next_job().unwrap();
            let finished = instance.open.call(job).await;
            if stage >= 2 {
                let answered = instance.open.settle(&[finished]).await.unwrap();
                if stage >= 3 {
                    published.extend(replies(&answered.records));
                    if stage >= 4 {
                        instance.open.acked(answered);
                        instance.open.close().await.unwrap();
                    }
                }
            }
        }
        drop(instance);

        let mut other = world.instance(&outside);
        assert!(other.sweep().await.is_empty(), "the lease still runs");
        world.expire_leases().await;
        let answers = other.sweep().await;
        assert_eq!(answers.len(), usize::from(stage < 4), "stage {stage}");
        published.extend(answers);
        for reply in &published {
            assert_eq!(told(reply), "test.done success forward 1", "stage {stage}");
            assert_eq!(reply.id(), published[0].id());
        }
        assert!(!published.is_empty());
        assert_eq!(outside.effects().len(), 1, "stage {stage}");
        assert_eq!(
            world.effects(saga).await,
            ["test.do", "test.done"],
            "stage {stage}"
        );
        assert_eq!(world.intents(saga).await, NONE, "stage {stage}");
        world.expire_leases().await;
        assert!(other.sweep().await.is_empty());
    }
}

#[tokio::test]
async fn an_unheard_call_is_repeated_with_its_key_and_has_one_effect() {
    let world = World::new().await;
    let outside = Outside::new(&[IsNotHeard, IsNotHeard, Succeeds]);
    let (mut instance, command) = pending(&world, &outside).await;
    assert!(instance.work().await.is_empty());
    assert_eq!(world.rows(command.saga_id).await, "F=P");
    world.expire_leases().await;
    assert!(instance.sweep().await.is_empty());
    world.expire_leases().await;
    let answers = instance.sweep().await;
    assert_eq!(all_told(&answers), ["test.done success forward 1"]);
    assert_eq!(outside.calls().len(), 3);
    assert_eq!(
        outside.effects(),
        [format!("{}/charge/forward/1", command.saga_id)]
    );
}

#[tokio::test]
async fn a_decline_is_saved_and_calls_no_more() {
    let world = World::new().await;
    let outside = Outside::new(&[Declines]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    let answers = instance.work().await;
    assert_eq!(all_told(&answers), ["test.failed failure forward 1"]);
    assert_eq!(answers[0].payload["code"], "declined");
    assert_eq!(world.rows(saga).await, "F=X");
    let again = instance.take(&[forward(saga, 2, "call")]).await;
    assert_eq!(all_told(&again), ["test.failed failure forward 2"]);
    assert_eq!(outside.calls().len(), 1);
    assert_eq!(world.intents(saga).await, NONE);
}

#[tokio::test]
async fn the_attempt_after_a_definite_error_has_a_key_of_its_own() {
    for unsaved in [Errs, Declines] {
        let world = World::new().await;
        let outside = Outside::new(&[unsaved, Succeeds]);
        let mut instance = world.instance(&outside);
        let saga = world.saga();
        let command = |attempt| Command {
            save_failure: false,
            ..forward(saga, attempt, "call")
        };
        instance.take(&[command(1)]).await;
        let answers = instance.work().await;
        assert_eq!(answers.len(), 1);
        assert_eq!(world.rows(saga).await, "");
        assert_eq!(world.intents(saga).await, ["F/2 released"]);
        // The sweep ignores a released intent, which is kept only for its generation.
        world.expire_leases().await;
        assert!(instance.sweep().await.is_empty());

        instance.take(&[command(2)]).await;
        let answers = instance.work().await;
        assert_eq!(all_told(&answers), ["test.done success forward 2"]);
        let keys = [1, 2].map(|n| format!("{saga}/charge/forward/{n}"));
        assert_eq!(outside.calls(), keys);
        assert_eq!(world.intents(saga).await, NONE);
    }
}

#[tokio::test]
async fn an_unacknowledged_error_is_sent_again_unless_the_command_runs_again() {
    let world = World::new().await;
    let outside = Outside::new(&[Errs, Succeeds]);
    let (mut instance, command) = pending(&world, &outside).await;
    let job = instance.open.next_job().unwrap();
    let finished = instance.open.call(job).await;
    drop(instance.open.settle(&[finished]).await.unwrap());
    drop(instance);
    let mut other = world.instance(&outside);
    world.expire_leases().await;
    let swept = other.open.sweep().await.unwrap();
    assert_eq!(
        all_told(&replies(&swept.answered.records)),
        ["test.do.error error forward 1"]
    );
    // The next attempt opens the intent again before the acknowledgment, which must then not close the intent.
    other.take(&[forward(command.saga_id, 2, "call")]).await;
    other.open.acked(swept.answered);
    other.open.close().await.unwrap();
    assert_eq!(world.intents(command.saga_id).await, ["F/2 open"]);
    assert_eq!(
        all_told(&other.work().await),
        ["test.done success forward 2"]
    );
}

#[tokio::test]
async fn a_late_acknowledgment_leaves_the_next_attempts_answer_to_be_sent() {
    let world = World::new().await;
    let outside = Outside::new(&[Errs, Succeeds]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    let mut answers = Vec::new();
    for attempt in [2, 3] {
        let job = instance.open.next_job().unwrap();
        let finished = instance.open.call(job).await;
        answers.push(instance.open.settle(&[finished]).await.unwrap());
        // The first of these commands opens the call again, the second finds it done.
        instance.take(&[forward(saga, attempt, "call")]).await;
    }
    assert_eq!(world.intents(saga).await, ["F/2 settled"]);
    instance.open.acked(answers.remove(0));
    instance.open.close().await.unwrap();
    assert_eq!(world.intents(saga).await, ["F/2 settled"]);
    instance.open.acked(answers.remove(0));
    instance.open.close().await.unwrap();
    assert_eq!(world.intents(saga).await, NONE);
}

#[tokio::test]
async fn duplicates_of_an_open_call_are_answered_on_settlement() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let mut instance = world.instance(&outside);
    let saga = world.saga();
    let call = |attempt| forward(saga, attempt, "call");
    assert!(instance.take(&[call(1), call(1)]).await.is_empty());
    assert!(instance.take(&[call(3)]).await.is_empty());
    assert!(instance.take(&[call(2)]).await.is_empty());
    assert_eq!(
        all_told(&instance.work().await),
        ["test.done success forward 3"]
    );
    assert_eq!(outside.calls().len(), 1);
}

#[tokio::test]
async fn a_charge_that_was_cancelled_while_open_is_refunded() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    assert!(
        instance
            .take(&[compensation(saga, 1, "call")])
            .await
            .is_empty()
    );
    assert_eq!(world.rows(saga).await, "F=P");
    let answers = instance.work().await;
    assert_eq!(
        all_told(&answers),
        [
            "test.done success forward 1",
            "test.undone success compensation 1"
        ]
    );
    let keys = ["forward", "compensation"].map(|way| format!("{saga}/charge/{way}/1"));
    assert_eq!(outside.calls(), keys);
    assert_eq!(world.rows(saga).await, "F=D C=D");
    assert_eq!(world.intents(saga).await, NONE);
}

#[tokio::test]
async fn a_refund_survives_a_crash_between_settlement_and_its_own_call() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    instance.take(&[compensation(saga, 1, "call")]).await;
    let job = instance.open.next_job().unwrap();
    let finished = instance.open.call(job).await;
    drop(instance.open.settle(&[finished]).await.unwrap());
    drop(instance);
    assert_eq!(world.rows(saga).await, "F=D C=P");
    assert_eq!(world.intents(saga).await, ["F/1 settled", "C/1 open"]);
    let mut other = world.instance(&outside);
    // A duplicate of the refund makes no additional call.
    assert!(
        other
            .take(&[compensation(saga, 2, "call")])
            .await
            .is_empty()
    );
    world.expire_leases().await;
    let mut told = all_told(&other.sweep().await);
    told.sort();
    assert_eq!(
        told,
        [
            "test.done success forward 1",
            "test.undone success compensation 2"
        ]
    );
    assert_eq!(outside.effects().len(), 2);
    assert_eq!(world.intents(saga).await, NONE);
}

#[tokio::test]
async fn canceling_a_call_without_effect_compensates_nothing() {
    for (script, mark) in [(Declines, "F=X C=D"), (Errs, "F=R C=D")] {
        let world = World::new().await;
        let outside = Outside::new(&[script]);
        let (mut instance, command) = pending(&world, &outside).await;
        let saga = command.saga_id;
        instance.take(&[compensation(saga, 1, "call")]).await;
        let answers = instance.work().await;
        assert_eq!(answers.len(), 2);
        assert_eq!(told(&answers[1]), "test.undone success compensation 1");
        assert_eq!(outside.calls().len(), 1);
        assert_eq!(world.rows(saga).await, mark);
        assert_eq!(world.intents(saga).await, NONE);
        // A later forward command is refused, too.
        let late = instance.take(&[forward(saga, 2, "call")]).await;
        assert_eq!(late.len(), 1);
        assert!(instance.work().await.is_empty());
        assert_eq!(outside.effects(), NONE);
    }
}

#[tokio::test]
async fn resolving_an_open_call_waits_for_its_outcome() {
    for (script, expected, mark) in [
        (Succeeds, "test.done success forward 7", "F=D"),
        (Declines, "test.failed failure forward 7", "F=X"),
        (Errs, "test.do.not_done not_done resolve 7", "F=R"),
    ] {
        let world = World::new().await;
        let outside = Outside::new(&[script]);
        let (mut instance, command) = pending(&world, &outside).await;
        let saga = command.saga_id;
        assert!(instance.take(&[resolve(saga, 7)]).await.is_empty());
        let answers = instance.work().await;
        assert_eq!(answers.len(), 2);
        assert_eq!(told(&answers[1]), expected);
        assert_eq!(world.rows(saga).await, mark);
        assert_eq!(world.intents(saga).await, NONE);
    }
}

#[tokio::test]
async fn a_refund_that_errs_is_tried_with_a_new_key() {
    let world = World::new().await;
    let outside = Outside::new(&[Succeeds, Errs, Succeeds]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    instance.work().await;
    instance.take(&[compensation(saga, 1, "call")]).await;
    assert_eq!(
        all_told(&instance.work().await),
        ["test.undo.error error compensation 1"]
    );
    assert_eq!(world.rows(saga).await, "F=D");
    instance.take(&[compensation(saga, 2, "call")]).await;
    assert_eq!(
        all_told(&instance.work().await),
        ["test.undone success compensation 2"]
    );
    assert_eq!(outside.calls()[2], format!("{saga}/charge/compensation/2"));
}

#[tokio::test]
async fn a_key_that_may_be_forgotten_is_not_repeated() {
    let world = World::new().await;
    let outside = Outside::with_key_lifetime(&[IsNotHeard], Duration::from_hours(1));
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    instance.take(&[compensation(saga, 1, "call")]).await;
    assert!(instance.work().await.is_empty());
    world
        .execute("UPDATE intent SET opened_at = now() - interval '2 hours'")
        .await;
    world.expire_leases().await;
    let answers = instance.sweep().await;
    assert_eq!(answers.len(), 2);
    for reply in &answers {
        assert!(is_error(reply, "outcome_unknown"), "{reply:?}");
    }
    assert_eq!(outside.calls().len(), 1);
    assert_eq!(world.rows(saga).await, "F=P");
    assert_eq!(world.intents(saga).await, ["F/1 expired"]);
    // Every further command is answered at once, and no call is made.
    for command in [
        forward(saga, 2, "call"),
        compensation(saga, 2, "call"),
        resolve(saga, 2),
    ] {
        let answers = instance.take(&[command]).await;
        assert!(is_error(&answers[0], "outcome_unknown"), "{answers:?}");
    }
    world.expire_leases().await;
    assert!(instance.sweep().await.is_empty());
    // A person finds out that the key is still known outside.
    world
        .execute(
            "UPDATE intent SET state = 'open', opened_at = now(), lease_until = now() \
             WHERE state = 'expired'",
        )
        .await;
    assert_eq!(
        all_told(&instance.sweep().await),
        ["test.done success forward 1"]
    );
    assert_eq!(outside.effects().len(), 1);
}

#[tokio::test]
async fn an_outcome_that_cannot_be_written_stops_no_other() {
    let world = World::new().await;
    let outside = Outside::new(&[Succeeds, CannotBeSettled, Succeeds]);
    let mut instance = world.instance(&outside);
    let sagas = [world.saga(), world.saga(), world.saga()];
    instance
        .take(&sagas.map(|saga| forward(saga, 1, "call")))
        .await;
    let mut finished = Vec::new();
    while let Some(job) = instance.open.next_job() {
        finished.push(instance.open.call(job).await);
    }
    let answered = instance.open.settle(&finished).await.unwrap();
    assert_eq!(replies(&answered.records).len(), 2);
    instance.open.acked(answered);
    instance.open.close().await.unwrap();
    let bad = finished[1].job.key.saga_id;
    assert_eq!(world.rows(bad).await, "F=P");
    // A call with the same key returns the outcome again.
    world.expire_leases().await;
    assert_eq!(
        all_told(&instance.sweep().await),
        ["test.done success forward 1"]
    );
    assert_eq!(outside.effects().len(), 3);
}

#[tokio::test]
async fn a_cancel_with_a_panicking_handler_does_not_block_the_outcome() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (mut instance, command) = pending(&world, &outside).await;
    let saga = command.saga_id;
    instance.take(&[compensation(saga, 1, "panic")]).await;
    let answers = instance.work().await;
    assert_eq!(told(&answers[0]), "test.done success forward 1");
    assert!(is_error(&answers[1], "settlement_failed"));
    assert_eq!(world.rows(saga).await, "F=D");
    let again = instance.take(&[compensation(saga, 2, "succeed")]).await;
    assert_eq!(all_told(&again), ["test.undone success compensation 2"]);
}

#[tokio::test]
async fn one_of_two_instances_with_the_same_outcome_settles() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (mut first, command) = pending(&world, &outside).await;
    let job = first.open.next_job().unwrap();
    let finished = first.open.call(job).await;
    world.expire_leases().await;
    let mut second = world.instance(&outside);
    let swept = second.open.sweep().await.unwrap();
    let repeated = second.open.call(swept.jobs[0].clone()).await;
    let (finished, repeated) = ([finished], [repeated]);
    let (one, other) = tokio::join!(first.open.settle(&finished), second.open.settle(&repeated));
    let answers = one.unwrap().records.len() + other.unwrap().records.len();
    assert_eq!(answers, 1);
    assert_eq!(outside.effects().len(), 1);
    assert_eq!(
        world.effects(command.saga_id).await,
        ["test.do", "test.done"]
    );
}

/// Returns the final answers to this many calls.
async fn answers_of(world: &World, outside: &Arc<Outside>, count: usize) -> Vec<Reply> {
    let mut instance = world.instance(outside);
    let commands: Vec<Command> = (0..count)
        .map(|_| forward(world.saga(), 1, "call"))
        .collect();
    assert!(instance.take(&commands).await.is_empty());
    let (written, shutdown) = (Written::default(), CancellationToken::new());
    let running = tokio::spawn(instance.open.run(written.clone(), shutdown.clone()));
    let all = async {
        while written.count() < count {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), all)
        .await
        .unwrap();
    shutdown.cancel();
    running.await.unwrap();
    replies(&written.taken())
}

#[tokio::test]
async fn calls_begin_no_faster_than_the_outside_takes_them() {
    let world = World::new().await;
    let outside = Outside::with_limits(|limits| limits.per_second = NonZeroU32::new(50));
    let began = Instant::now();
    let answers = answers_of(&world, &outside, 26).await;
    assert_eq!(answers.len(), 26);
    // Five calls begin at once, and the permission for one more was acquired before its job arrived.
    let least = Duration::from_secs(1) * (26 - 5 - 1) / 50;
    assert!(began.elapsed() >= least, "{:?}", began.elapsed());
}

#[tokio::test]
async fn many_calls_run_to_their_end_and_leave_nothing_open() {
    let world = World::new().await;
    let outside = Outside::new(&[IsNotHeard, Errs, Declines]);
    let answers = answers_of(&world, &outside, 60).await;
    assert_eq!(answers.len(), 60);
    assert_eq!(outside.effects().len(), 58);
    let open: i64 = sqlx::query_scalar("SELECT COUNT(*) FROM intent WHERE state <> 'released'")
        .fetch_one(&world.pool)
        .await
        .unwrap();
    assert_eq!(open, 0);
}

/// Makes the intent of a saga unreadable.
async fn spoil(world: &World, saga: SagaId) {
    sqlx::query("UPDATE intent SET command = '{}' WHERE saga_id = $1")
        .bind(saga.0)
        .execute(&world.pool)
        .await
        .unwrap();
}

#[tokio::test]
async fn an_intent_that_cannot_be_read_keeps_no_other_from_being_swept() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let (spoiled, other) = (world.saga(), world.saga());
    let calls = [spoiled, other].map(|saga| forward(saga, 1, "call"));
    drop(world.instance(&outside).take(&calls).await);
    spoil(&world, spoiled).await;
    world.expire_leases().await;
    let mut live = world.instance(&outside);
    let told = all_told(&live.sweep().await);
    assert_eq!(told, ["test.done success forward 1"]);
    assert_eq!(world.rows(other).await, "F=D");
    assert_eq!(world.rows(spoiled).await, "F=P");
}

#[tokio::test]
async fn a_call_that_cannot_be_settled_keeps_no_other_from_being_settled() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let mut instance = world.instance(&outside);
    let (first, spoiled, last) = (world.saga(), world.saga(), world.saga());
    let calls = [first, spoiled, last].map(|saga| forward(saga, 1, "call"));
    instance.take(&calls).await;
    let mut finished = Vec::new();
    while let Some(job) = instance.open.next_job() {
        finished.push(instance.open.call(job).await);
    }
    spoil(&world, spoiled).await;
    let answered = instance.open.settle(&finished).await.unwrap();
    assert_eq!(replies(&answered.records).len(), 2);
    instance.open.acked(answered);
    instance.open.close().await.unwrap();
    for saga in [first, last] {
        assert_eq!(world.rows(saga).await, "F=D");
        assert_eq!(world.intents(saga).await, NONE);
    }
    assert_eq!(world.intents(spoiled).await, ["F/1 open"]);
}

/// With a slow gateway, commands wait in the topic, where they count as queued, and not in memory, where they would
/// time out.
#[tokio::test]
async fn no_command_is_picked_up_while_the_calls_of_earlier_ones_wait() {
    let world = World::new().await;
    let outside = Outside::new(&[]);
    let mut instance = world.instance(&outside);
    let waiting = outside.limits().waiting();
    let sagas: Vec<SagaId> = (0..waiting).map(|_| world.saga()).collect();
    let commands: Vec<Command> = sagas.iter().map(|saga| forward(*saga, 1, "call")).collect();
    instance.take(&commands).await;
    let late = world.saga();
    let batch = records(&[forward(late, 1, "call")]);
    let refused = instance.frame.process(&batch).await.unwrap_err();
    assert!(matches!(refused, BatchError::Retry(_)), "{refused:?}");
    assert_eq!(world.rows(late).await, "");
    assert_eq!(instance.work().await.len(), waiting);
    instance.frame.process(&batch).await.unwrap();
    assert_eq!(world.rows(late).await, "F=P");
}

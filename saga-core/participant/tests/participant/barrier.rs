//! Tests the barrier from the outside.

use crate::world::{
    Obedient, Outside, STEP, World, all_told, compensation, forward, records, replies, resolve,
    take, told,
};
use async_trait::async_trait;
use saga_core::message::Command;
use saga_messaging::consumer::{BatchError, Processor};
use saga_participant::{
    Answer, Failure, inbox,
    internal::{CommandProcessor, PerCommand, RawCommandHandler},
};
use sqlx::PgConnection;
use std::sync::Arc;
use tokio::sync::Barrier;

/// The state of the step before the command.
#[derive(Clone, Copy, Debug)]
enum Before {
    Nothing,
    Pending,
    Done,
    Compensated,
    Failed,
    Refused,
    RefusedByCompensation,
}

#[derive(Clone, Copy, Debug)]
enum Arrives {
    Forward,
    Compensation,
    Resolve,
}

async fn check(world: &World, before: Before, arrives: Arrives, answer: &str, rows: &str) {
    let outside = Outside::new(&[]);
    let mut instance = world.instance(&outside);
    let saga = world.saga();
    let first: Vec<Command> = match before {
        Before::Nothing => vec![],
        Before::Pending => vec![forward(saga, 1, "call")],
        Before::Done => vec![forward(saga, 1, "succeed")],
        Before::Compensated => vec![forward(saga, 1, "succeed"), compensation(saga, 1, "")],
        Before::Failed => vec![forward(saga, 1, "fail")],
        Before::Refused => vec![resolve(saga, 1)],
        Before::RefusedByCompensation => vec![compensation(saga, 1, "")],
    };
    for command in first {
        instance.take(&[command]).await;
    }
    let command = match arrives {
        Arrives::Forward => forward(saga, 2, "succeed"),
        Arrives::Compensation => compensation(saga, 2, "succeed"),
        Arrives::Resolve => resolve(saga, 2),
    };
    let told = all_told(&instance.take(&[command]).await).join(", ");
    assert_eq!(told, answer, "{before:?}, then {arrives:?}");
    assert_eq!(world.rows(saga).await, rows, "{before:?}, then {arrives:?}");
}

#[tokio::test]
async fn every_row_of_the_table_holds_from_the_outside() {
    use Arrives::{Compensation, Forward, Resolve};
    let world = World::new().await;
    let w = &world;
    let done = "test.done success forward 2";
    let undone = "test.undone success compensation 2";
    let failed = "test.failed failure forward 2";
    let refused = "test.do.not_done not_done forward 2";
    let not_done = "test.do.not_done not_done resolve 2";

    check(w, Before::Nothing, Forward, done, "F=D").await;
    check(w, Before::Nothing, Compensation, undone, "F=R C=D").await;
    check(w, Before::Nothing, Resolve, not_done, "F=R").await;

    check(w, Before::Pending, Forward, "", "F=P").await;
    check(w, Before::Pending, Compensation, "", "F=P").await;
    check(w, Before::Pending, Resolve, "", "F=P").await;

    check(w, Before::Done, Forward, done, "F=D").await;
    check(w, Before::Done, Compensation, undone, "F=D C=D").await;
    check(w, Before::Done, Resolve, done, "F=D").await;

    check(w, Before::Compensated, Forward, done, "F=D C=D").await;
    check(w, Before::Compensated, Compensation, undone, "F=D C=D").await;
    check(w, Before::Compensated, Resolve, done, "F=D C=D").await;

    check(w, Before::Failed, Forward, failed, "F=X").await;
    check(w, Before::Failed, Compensation, undone, "F=X C=D").await;
    check(w, Before::Failed, Resolve, failed, "F=X").await;

    check(w, Before::Refused, Forward, refused, "F=R").await;
    check(w, Before::Refused, Compensation, undone, "F=R C=D").await;
    check(w, Before::Refused, Resolve, not_done, "F=R").await;

    let before = Before::RefusedByCompensation;
    check(w, before, Forward, refused, "F=R C=D").await;
    check(w, before, Compensation, undone, "F=R C=D").await;
    check(w, before, Resolve, not_done, "F=R C=D").await;
}

#[tokio::test]
async fn duplicates_have_one_effect_and_one_reply_id() {
    let world = World::new().await;
    let mut frame = world.frame();
    let saga = world.saga();
    let command = forward(saga, 1, "succeed");
    let twice = take(&mut frame, &[command.clone(), command.clone()]).await;
    let later = take(&mut frame, &[forward(saga, 4, "fail")]).await;
    assert_eq!(twice[0], twice[1]);
    assert_eq!(told(&later[0]), "test.done success forward 4");
    assert_eq!(later[0].id(), twice[0].id());
    assert_eq!(later[0].payload, twice[0].payload);
    assert_eq!(world.effects(saga).await, ["test.do"]);
}

#[tokio::test]
async fn a_redelivered_batch_yields_the_same_records() {
    let world = World::new().await;
    let mut frame = world.frame();
    let (first, second) = (world.saga(), world.saga());
    let batch = records(&[
        forward(first, 1, "succeed"),
        forward(second, 1, "fail"),
        compensation(first, 1, "succeed"),
    ]);
    let once = frame.process(&batch).await.unwrap();
    let again = world.frame().process(&batch).await.unwrap();
    assert_eq!(once.len(), 3);
    assert_eq!(once, again);
}

#[tokio::test]
async fn a_command_and_its_compensation_fold_in_one_batch() {
    let world = World::new().await;
    let mut frame = world.frame();
    let (done, overtaken) = (world.saga(), world.saga());
    let told = all_told(
        &take(
            &mut frame,
            &[
                forward(done, 1, "succeed"),
                compensation(overtaken, 1, ""),
                compensation(done, 1, "succeed"),
                forward(overtaken, 1, "succeed"),
                resolve(done, 2),
            ],
        )
        .await,
    );
    assert_eq!(
        told,
        [
            "test.done success forward 1",
            "test.undone success compensation 1",
            "test.undone success compensation 1",
            "test.do.not_done not_done forward 1",
            "test.done success forward 2",
        ]
    );
    assert_eq!(world.effects(done).await, ["test.do", "test.undo"]);
    assert!(world.effects(overtaken).await.is_empty());
}

#[tokio::test]
async fn a_failure_rolls_back_only_the_writes_of_its_handler() {
    let world = World::new().await;
    let mut frame = world.frame();
    let (before, fails, errs, after) = (world.saga(), world.saga(), world.saga(), world.saga());
    let told = all_told(
        &take(
            &mut frame,
            &[
                forward(before, 1, "succeed"),
                forward(fails, 1, "fail"),
                forward(errs, 1, "error"),
                forward(after, 1, "succeed"),
            ],
        )
        .await,
    );
    assert_eq!(told[1], "test.failed failure forward 1");
    assert_eq!(told[2], "test.do.error error forward 1");
    assert_eq!(world.effects(before).await, ["test.do"]);
    assert_eq!(world.effects(after).await, ["test.do"]);
    assert!(world.effects(fails).await.is_empty());
    assert!(world.effects(errs).await.is_empty());
    assert_eq!(world.rows(fails).await, "F=X");
    assert_eq!(world.rows(errs).await, "");
}

#[tokio::test]
async fn an_unsaved_outcome_runs_again() {
    let world = World::new().await;
    let mut frame = world.frame();
    let saga = world.saga();
    let unsaved = Command {
        save_failure: false,
        ..forward(saga, 1, "fail")
    };
    let mut attempts = vec![
        unsaved,
        forward(saga, 2, "error"),
        forward(saga, 3, "succeed"),
    ];
    let told = all_told(&take(&mut frame, &attempts).await);
    assert_eq!(
        told,
        [
            "test.failed failure forward 1",
            "test.do.error error forward 2",
            "test.done success forward 3",
        ]
    );
    // A failed compensation is not saved either, whatever the command says.
    attempts = vec![
        Command {
            save_failure: true,
            ..compensation(saga, 1, "fail")
        },
        compensation(saga, 2, "succeed"),
    ];
    let told = all_told(&take(&mut frame, &attempts).await);
    assert_eq!(
        told,
        [
            "test.failed failure compensation 1",
            "test.undone success compensation 2",
        ]
    );
    assert_eq!(world.rows(saga).await, "F=D C=D");
}

#[tokio::test]
async fn one_of_two_rivals_has_the_effect_and_both_answer_the_same() {
    let world = World::new().await;
    let saga = world.saga();
    let batch = records(&[forward(saga, 1, "succeed")]);
    // Both transactions have written their effects before either continues.
    let meeting = Arc::new(Barrier::new(2));
    let rival = |world: &World| {
        let meeting = Arc::clone(&meeting);
        let handler = Arc::new(PerCommand::new(Arc::new(Meets { meeting })));
        CommandProcessor::new(World::config(), handler, None, world.pool.clone()).0
    };
    let (mut first, mut second) = (rival(&world), rival(&world));
    let (one, other) = tokio::join!(first.process(&batch), second.process(&batch));
    let (won, lost) = if one.is_ok() {
        (one, other)
    } else {
        (other, one)
    };
    assert!(matches!(lost, Err(BatchError::Retry(_))), "{lost:?}");
    let again = world.frame().process(&batch).await.unwrap();
    assert_eq!(won.unwrap(), again);
    assert_eq!(world.effects(saga).await, ["test.do"]);
}

/// Waits for the concurrent handler, then does as the payload says.
struct Meets {
    meeting: Arc<Barrier>,
}

#[async_trait]
impl RawCommandHandler<PgConnection> for Meets {
    async fn handle(&self, tx: &mut PgConnection, command: &Command) -> Result<Answer, Failure> {
        let answer = Obedient.handle(tx, command).await;
        self.meeting.wait().await;
        answer
    }
}

#[tokio::test]
async fn the_starters_step_is_compensated_though_no_command_began_it() {
    let world = World::new().await;
    let saga = world.saga();
    let mut tx = world.pool.begin().await.unwrap();
    inbox::record_started(&mut tx, &[saga], STEP).await.unwrap();
    tx.commit().await.unwrap();
    let answers = take(&mut world.frame(), &[compensation(saga, 1, "succeed")]).await;
    assert_eq!(told(&answers[0]), "test.undone success compensation 1");
    assert_eq!(world.effects(saga).await, ["test.undo"]);
    let resolved = take(&mut world.frame(), &[resolve(saga, 1)]).await;
    assert_eq!(told(&resolved[0]), "charge.done success forward 1");
    // A second record is an error, not a duplicate.
    let mut tx = world.pool.begin().await.unwrap();
    assert!(inbox::record_started(&mut tx, &[saga], STEP).await.is_err());
}

#[tokio::test]
async fn replies_are_sent_to_the_partition_that_the_command_names_with_its_trace() {
    let world = World::new().await;
    let saga = world.saga();
    let outputs = world
        .frame()
        .process(&records(&[forward(saga, 1, "succeed")]))
        .await
        .unwrap();
    assert_eq!(
        (outputs[0].topic.as_str(), outputs[0].partition),
        ("saga.inputs", Some(3))
    );
    assert_eq!(replies(&outputs)[0].trace.correlation_id, "abc");
}

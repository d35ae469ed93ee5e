//! Runs one saga from its start to its end, including the actions of the person who operates it.

use super::{
    script::{Act, Case, RequestedAction},
    stage::Stage,
    stories::Story,
};
use anyhow::{Context, Result, bail, ensure};
use futures_util::future::try_join_all;
use saga_core::{ids::SagaId, instance::ActionVerdict, message::ActionKind};
use std::time::Duration;
use tokio::{sync::watch, time::timeout};

/// The slowest case, with ten silent attempts, takes half a minute. The limit is far above that, so that only a saga
/// that makes no progress exceeds it, even on a busy machine.
const PATIENCE: Duration = Duration::from_mins(3);

/// Runs the case's saga to its end, and then sends the messages that were kept back.
pub async fn run(stage: &Stage, case: &Case, saga: SagaId) -> Result<()> {
    let mut story = stage.stories.follow(saga);
    let outcome = timeout(PATIENCE, follow(stage, case, saga, &mut story)).await;
    stage.end(case, saga).await?;
    match outcome {
        Err(_) => bail!("it has not ended"),
        Ok(parked) => check(stage, case, saga, &story.borrow(), parked?),
    }
}

/// Returns how often a person let the saga try again.
async fn follow(
    stage: &Stage,
    case: &Case,
    saga: SagaId,
    story: &mut watch::Receiver<Story>,
) -> Result<usize> {
    for act in &case.acts {
        perform(stage, saga, story, act)
            .await
            .with_context(|| format!("{act:?}"))?;
    }
    let (mut seen, mut retried) = (0, 0);
    loop {
        let parks = {
            let resting = story
                .wait_for(|story| {
                    story.end().is_some() || (story.is_parked() && story.parks() > seen)
                })
                .await?;
            if resting.end().is_some() {
                return Ok(retried);
            }
            resting.parks()
        };
        seen = parks;
        match stage.ask(saga, &ActionKind::retry()).await? {
            ActionVerdict::Accepted { .. } => retried += 1,
            // The saga is ahead of its published events: another action or a late reply was faster.
            ActionVerdict::Refused { code, .. } if code == "not_parked" || code == "ended" => {}
            other @ (ActionVerdict::Pending | ActionVerdict::Refused { .. }) => {
                bail!("a retry of a parked saga: {other:?}")
            }
        }
    }
}

async fn perform(
    stage: &Stage,
    saga: SagaId,
    story: &mut watch::Receiver<Story>,
    act: &Act,
) -> Result<()> {
    match act {
        Act::Await {
            sent: (step, direction),
            done,
            undone,
        } => {
            let is_there = |story: &Story| {
                story.has_sent(step, *direction)
                    && done.iter().all(|step| story.has_done(step))
                    && undone.iter().all(|step| story.has_undone(step))
            };
            story.wait_for(is_there).await?;
        }
        Act::AwaitParked { done } => {
            let is_there =
                |story: &Story| story.is_parked() && done.iter().all(|step| story.has_done(step));
            story.wait_for(is_there).await?;
        }
        Act::Ask(requested_actions) => {
            try_join_all(
                requested_actions
                    .iter()
                    .map(|requested| ask(stage, saga, requested)),
            )
            .await?;
            let is_told = |story: &Story| {
                requested_actions
                    .iter()
                    .all(|requested| story.has_decided(requested))
            };
            story.wait_for(is_told).await?;
        }
        Act::LetGo => stage.relay.let_go(saga).await?,
    }
    Ok(())
}

async fn ask(stage: &Stage, saga: SagaId, requested: &RequestedAction) -> Result<()> {
    let found = stage.ask(saga, &requested.kind).await?;
    // The outcome that a pending action waits for may be known before the answer. The saga's events show that the
    // action was pending.
    let is_settled =
        requested.verdict == ActionVerdict::Pending && found == ActionVerdict::ACCEPTED;
    ensure!(
        found == requested.verdict || is_settled,
        "{:?} was answered {found:?}, not {:?}",
        requested.kind,
        requested.verdict
    );
    Ok(())
}

fn check(stage: &Stage, case: &Case, saga: SagaId, story: &Story, parked: usize) -> Result<()> {
    ensure!(
        story.end() == Some(case.end) && case.parked.allows(parked),
        "it is {:?} after {parked} retries by hand, and was to be {:?} after {:?}",
        story.end(),
        case.end,
        case.parked
    );
    if let Some(fault) = &story.fault {
        bail!("its events are not gapless: {fault}");
    }
    let script = &case.script;
    let intervenes = script.mishap.is_some() || script.silence.is_some() || script.held.is_some();
    ensure!(
        !intervenes || stage.relay.interventions(saga) > 0,
        "what was to go wrong never did"
    );
    Ok(())
}

/// Returns true if a granted action of this kind may leave effects behind.
pub fn may_leave(kind: &ActionKind) -> bool {
    match kind {
        ActionKind::Skip { compensation, .. } => *compensation,
        ActionKind::Abandon => true,
        ActionKind::Cancel
        | ActionKind::Compensate
        | ActionKind::Retry { .. }
        | ActionKind::Complete { .. }
        | ActionKind::NotDone { .. } => false,
    }
}

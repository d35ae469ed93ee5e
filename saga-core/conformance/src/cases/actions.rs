//! Rules for actions that come again, fail or err.

use super::{
    answers::{expect_header, expect_same},
    case::Played,
};
use crate::{
    ask::{Ask, Input},
    scene::Scene,
};
use saga_core::message::{Outcome, header};

/// Row F is done, and the action comes again: it has no second effect.
pub async fn no_second_effect(scene: &mut Scene<'_>) -> Played {
    scene.exchange(Ask::action(1)).await?;
    let once = scene.look().await?;
    scene.exchange(Ask::action(1)).await?;
    scene.exchange(Ask::action(2)).await?;
    scene.unchanged(Some(&once), "two duplicates").await
}

/// Row F is done, and the action comes again: it gets the saved reply.
pub async fn saved_answer(scene: &mut Scene<'_>) -> Played {
    let first = scene.exchange(Ask::action(1)).await?;
    let again = scene.exchange(Ask::action(1)).await?;
    expect_same(scene, &first, &again)
}

pub async fn attempt(scene: &mut Scene<'_>) -> Played {
    for attempt in [1, 2, 7] {
        let heard = scene.exchange(Ask::action(attempt)).await?;
        expect_header(scene, &heard, header::ATTEMPT, &attempt.to_string())?;
    }
    Ok(())
}

pub async fn failure_without_effect(scene: &mut Scene<'_>) -> Played {
    // The look at a failure (a status, say) may differ from the look before it, but not from one failure to the next.
    scene
        .exchange(Ask::action(1).with(Input::Fails).unsaved())
        .await?;
    let once = scene.look().await?;
    scene
        .exchange(Ask::action(2).with(Input::Fails).unsaved())
        .await?;
    scene.unchanged(Some(&once), "a second failure").await
}

/// Row F is failed, and the action comes again: it gets the saved failure, even if it would succeed now.
pub async fn saved_failure(scene: &mut Scene<'_>) -> Played {
    let first = scene.exchange(Ask::action(1).with(Input::Fails)).await?;
    let again = scene.ask(Ask::action(2), Outcome::Failure).await?;
    expect_same(scene, &first, &again)
}

pub async fn unsaved_failure(scene: &mut Scene<'_>) -> Played {
    scene
        .exchange(Ask::action(1).with(Input::Fails).unsaved())
        .await?;
    scene
        .ask(Ask::action(2).unsaved(), Outcome::Success)
        .await?;
    Ok(())
}

pub async fn error(scene: &mut Scene<'_>) -> Played {
    scene
        .ask(Ask::action(1).with(Input::Errors), Outcome::Error)
        .await?;
    scene.ask(Ask::action(2), Outcome::Success).await?;
    Ok(())
}

/// One step is refused for good, and another step of the same saga succeeds.
pub async fn steps(scene: &mut Scene<'_>) -> Played {
    scene.exchange(Ask::resolve(1)).await?;
    let other = Ask::action(1).in_step("another-step");
    scene.ask(other, Outcome::Success).await?;
    Ok(())
}

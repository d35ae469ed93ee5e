//! Rules for compensations: of a done action, of an action that was not done, and before the action.

use super::{answers::expect_same, case::Played};
use crate::{
    ask::{Ask, Input},
    scene::{Scene, Stop},
};
use saga_core::message::{Outcome, header};

/// Row F is done, and a compensation comes.
pub async fn undoes(scene: &mut Scene<'_>) -> Played {
    let expected = scene.compensation()?.reply.clone();
    scene.exchange(Ask::action(1)).await?;
    let done = scene.look().await?;
    let text = expected
        .as_deref()
        .map_or_else(|| "success".to_owned(), |kind| format!("success {kind}"));
    scene
        .ask_for(Ask::compensation(1), &text, |heard| {
            let kind = heard.header(header::CE_TYPE);
            heard.outcome() == Outcome::Success.as_str()
                && expected.is_none_or(|expected| kind == Some(expected))
        })
        .await?;
    let undone = scene.look().await?;
    scene.expect(
        undone != done,
        "a look at the effects after the compensation",
        format!("other than {done}"),
        undone,
    )
}

/// Row C is done, and the compensation comes again: it has no second effect.
pub async fn no_second_effect(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::action(1)).await?;
    scene.exchange(Ask::compensation(1)).await?;
    let undone = scene.look().await?;
    scene.exchange(Ask::compensation(1)).await?;
    scene.exchange(Ask::compensation(2)).await?;
    scene.unchanged(Some(&undone), "two duplicates").await
}

/// Row C is done, and the compensation comes again: it gets the saved reply.
pub async fn saved_answer(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::action(1)).await?;
    let first = scene.exchange(Ask::compensation(1)).await?;
    let again = scene.exchange(Ask::compensation(2)).await?;
    expect_same(scene, &first, &again)
}

/// Row F is absent, and a compensation comes.
pub async fn empty(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::compensation(1), Outcome::Success).await?;
    scene
        .unchanged(before.as_ref(), "an empty compensation")
        .await
}

/// Row F is refused and row C done, and the action comes.
pub async fn late_action(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::compensation(1)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::action(1), Outcome::NotDone).await?;
    scene.unchanged(before.as_ref(), "a late action").await
}

/// Row F is refused and row C done, and the compensation comes again.
pub async fn empty_again(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::compensation(1)).await?;
    let again = scene.ask(Ask::compensation(2), Outcome::Success).await?;
    let once_more = scene.exchange(Ask::compensation(3)).await?;
    expect_same(scene, &again, &once_more)
}

/// Row F is failed, and a compensation comes.
pub async fn of_failure(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::action(1).with(Input::Fails)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::compensation(1), Outcome::Success).await?;
    scene
        .unchanged(before.as_ref(), "a compensation of a failure")
        .await
}

/// Row F is failed and row C done, and the action and a resolve come.
pub async fn failure_stays(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let failed = scene.exchange(Ask::action(1).with(Input::Fails)).await?;
    scene.exchange(Ask::compensation(1)).await?;
    let again = scene.exchange(Ask::action(2)).await?;
    expect_same(scene, &failed, &again)?;
    let resolved = scene.exchange(Ask::resolve(1)).await?;
    expect_same(scene, &failed, &resolved)
}

/// Row F is done and row C done, and the action comes again.
pub async fn compensated_action(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let first = scene.exchange(Ask::action(1)).await?;
    scene.exchange(Ask::compensation(1)).await?;
    let undone = scene.look_if_any().await?;
    let again = scene.exchange(Ask::action(2)).await?;
    expect_same(scene, &first, &again)?;
    scene
        .unchanged(undone.as_ref(), "a duplicate of the action")
        .await
}

pub async fn unsaved_failure(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let failing = Ask::compensation(1).with(Input::CompensationFails);
    scene.exchange(Ask::action(1)).await?;
    scene.ask(failing, Outcome::Failure).await?;
    scene.ask(Ask::compensation(2), Outcome::Success).await?;
    Ok(())
}

/// The starter wrote row F in its own transaction, so this compensation is not an empty one.
pub async fn started(scene: &mut Scene<'_>) -> Played {
    let Some(started) = &scene.description.started else {
        return Err(Stop::Skipped("the description has no 'started'".to_owned()));
    };
    let before = scene.look().await?;
    let compensation = &started.compensation;
    let ask = Ask {
        step: started.step.clone(),
        ..Ask::compensation(1)
    }
    .of_type(&compensation.command_type)
    .with(Input::This(compensation.input.clone()));
    scene.ask(ask, Outcome::Success).await?;
    let after = scene.look().await?;
    scene.expect(
        after != before,
        "a look at the effects after the compensation",
        format!("other than {before}"),
        after,
    )
}

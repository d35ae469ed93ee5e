//! Rules for resolve, which asks if the action was done. If it was not, it never will be.

use super::{
    answers::{expect_header, expect_same},
    case::Played,
};
use crate::{
    ask::{Ask, Input},
    scene::Scene,
};
use saga_core::message::{Direction, Outcome, header};

/// Row F is absent, and a resolve comes.
pub async fn nothing(scene: &mut Scene<'_>) -> Played {
    scene.ask(Ask::resolve(1), Outcome::NotDone).await?;
    Ok(())
}

/// Row F is refused, and the action comes.
pub async fn late_action(scene: &mut Scene<'_>) -> Played {
    scene.exchange(Ask::resolve(1)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::action(1), Outcome::NotDone).await?;
    scene.unchanged(before.as_ref(), "a late action").await
}

/// Row F is refused, and the resolve comes again.
pub async fn nothing_again(scene: &mut Scene<'_>) -> Played {
    scene.exchange(Ask::resolve(1)).await?;
    let again = scene.ask(Ask::resolve(2), Outcome::NotDone).await?;
    let once_more = scene.exchange(Ask::resolve(3)).await?;
    expect_same(scene, &again, &once_more)
}

/// Row F is refused, and a compensation comes.
pub async fn compensation_after(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::resolve(1)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::compensation(1), Outcome::Success).await?;
    scene
        .unchanged(before.as_ref(), "a compensation of what was refused")
        .await
}

/// Row F is done, and a resolve comes: it gets the action's reply, with the action's direction.
pub async fn done(scene: &mut Scene<'_>) -> Played {
    let first = scene.exchange(Ask::action(1)).await?;
    let resolved = scene.exchange(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)?;
    expect_header(
        scene,
        &resolved,
        header::DIRECTION,
        Direction::Forward.as_str(),
    )
}

/// Row F is failed, and a resolve comes.
pub async fn failed(scene: &mut Scene<'_>) -> Played {
    let first = scene.exchange(Ask::action(1).with(Input::Fails)).await?;
    let resolved = scene.exchange(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)
}

/// Row F is refused and row C done, and a resolve comes.
pub async fn after_empty_compensation(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::compensation(1)).await?;
    scene.ask(Ask::resolve(1), Outcome::NotDone).await?;
    Ok(())
}

/// Row F is done and row C done, and a resolve comes.
pub async fn compensated(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let first = scene.exchange(Ask::action(1)).await?;
    scene.exchange(Ask::compensation(1)).await?;
    let resolved = scene.exchange(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)
}

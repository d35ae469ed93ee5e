//! Resolve: was it done? If not, it never will be.

use super::{
    Played,
    answers::{expect_header, expect_same},
};
use crate::conformance::{
    ask::{Ask, Input},
    scene::Scene,
};
use saga_core::message::{Direction, Outcome, header};

/// F absent, resolve.
pub async fn nothing(scene: &mut Scene<'_>) -> Played {
    scene.ask(Ask::resolve(1), Outcome::NotDone).await?;
    Ok(())
}

/// F refused, action.
pub async fn late_action(scene: &mut Scene<'_>) -> Played {
    scene.tell(Ask::resolve(1)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::action(1), Outcome::NotDone).await?;
    scene.unchanged(before.as_ref(), "a late action").await
}

/// F refused, resolve.
pub async fn nothing_again(scene: &mut Scene<'_>) -> Played {
    scene.tell(Ask::resolve(1)).await?;
    let again = scene.ask(Ask::resolve(2), Outcome::NotDone).await?;
    let once_more = scene.tell(Ask::resolve(3)).await?;
    expect_same(scene, &again, &once_more)
}

/// F refused, compensation.
pub async fn compensation_after(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.tell(Ask::resolve(1)).await?;
    let before = scene.look_if_any().await?;
    scene.ask(Ask::compensation(1), Outcome::Success).await?;
    scene
        .unchanged(before.as_ref(), "a compensation of what was refused")
        .await
}

/// F done, resolve: the action's answer, with the action's direction.
pub async fn done(scene: &mut Scene<'_>) -> Played {
    let first = scene.tell(Ask::action(1)).await?;
    let resolved = scene.tell(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)?;
    expect_header(
        scene,
        &resolved,
        header::DIRECTION,
        Direction::Forward.as_str(),
    )
}

/// F failed, resolve.
pub async fn failed(scene: &mut Scene<'_>) -> Played {
    let first = scene.tell(Ask::action(1).with(Input::Fails)).await?;
    let resolved = scene.tell(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)
}

/// F refused, C done, resolve.
pub async fn after_empty_compensation(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.tell(Ask::compensation(1)).await?;
    scene.ask(Ask::resolve(1), Outcome::NotDone).await?;
    Ok(())
}

/// F done, C done, resolve.
pub async fn compensated(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let first = scene.tell(Ask::action(1)).await?;
    scene.tell(Ask::compensation(1)).await?;
    let resolved = scene.tell(Ask::resolve(1)).await?;
    expect_same(scene, &first, &resolved)
}

//! Rules for two sagas that name the same business object.

use super::case::Played;
use crate::{
    ask::{Ask, Input},
    scene::Scene,
};
use saga_core::message::Outcome;

/// Expects a failure with the code that the description names.
async fn is_refused(scene: &mut Scene<'_>, ask: Ask) -> Played {
    let code = &scene.another_saga_is_refused()?.code;
    scene
        .ask_for(ask, &format!("failure {code}"), |heard| {
            heard.outcome() == Outcome::Failure.as_str() && heard.payload()["code"] == code.as_str()
        })
        .await?;
    Ok(())
}

/// The first saga has done its action, and a second saga sends the same action.
pub async fn refused(scene: &mut Scene<'_>) -> Played {
    scene.another_saga_is_refused()?;
    scene.exchange(Ask::action(1)).await?;
    let before = scene.look_if_any().await?;
    scene.foreign_saga();
    is_refused(scene, Ask::action(1)).await?;
    scene.unchanged(before.as_ref(), "another saga").await
}

/// A second saga compensates the first saga's object. The second saga has done its action on an object of its own
/// before, so that its compensation has something to undo.
pub async fn foreign_compensation(scene: &mut Scene<'_>) -> Played {
    scene.another_saga_is_refused()?;
    let input = scene.compensation()?.input.clone();
    scene.exchange(Ask::action(1)).await?;
    let before = scene.look_if_any().await?;
    let input = scene.fill_value(&input)?;
    let first = scene.set_aside();
    scene.exchange(Ask::action(1)).await?;
    // A success would mean that the second saga's own action is undone.
    is_refused(scene, Ask::compensation(1).with(Input::This(input))).await?;
    scene.back_to(first);
    scene
        .unchanged(before.as_ref(), "another saga's compensation")
        .await
}

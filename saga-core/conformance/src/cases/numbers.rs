//! Rules for whole numbers. JSON has one kind of number, and clients write whole numbers in different notations.

use super::case::Played;
use crate::{
    ask::{Ask, Heard, Input},
    scene::{Scene, Stop},
};
use saga_core::message::Outcome;
use serde_json::{Value, json};

/// 2^53 + 1, which a floating-point number cannot represent.
const NOT_HELD: i64 = (1 << 53) + 1;

/// Returns inputs in which one whole number is replaced, one input for each pointer of `whole`.
fn inputs(scene: &Scene<'_>, instead: impl Fn(f64) -> Value) -> Result<Vec<Value>, Stop> {
    let command = scene.command;
    if command.whole.is_empty() {
        let why = "the description names no 'whole' numbers".to_owned();
        return Err(Stop::Skipped(why));
    }
    let input = |pointer: &String| {
        let mut input = command.succeeds.input.clone();
        let place = input.pointer_mut(pointer);
        let number = place.as_deref().and_then(Value::as_f64);
        match (place, number) {
            (Some(place), Some(number)) => {
                *place = instead(number);
                Ok(input)
            }
            (_, _) => Err(Stop::Skipped(format!("{pointer} is not a number"))),
        }
    };
    command.whole.iter().map(input).collect()
}

pub async fn written_otherwise(scene: &mut Scene<'_>) -> Played {
    for input in inputs(scene, |number| json!(number))? {
        scene.another_saga();
        let ask = Ask::action(1).with(Input::This(input));
        scene.ask(ask, Outcome::Success).await?;
    }
    Ok(())
}

pub async fn not_whole(scene: &mut Scene<'_>) -> Played {
    for input in inputs(scene, |number| json!(number + 0.5))? {
        scene.another_saga();
        refused(scene, input).await?;
    }
    Ok(())
}

/// A large number must be refused because it may be another number, and not with the code of a business limit.
pub async fn too_large(scene: &mut Scene<'_>) -> Played {
    let fractions = inputs(scene, |number| json!(number + 0.5))?;
    let large = inputs(scene, |_| json!(NOT_HELD))?;
    for (fraction, large) in fractions.into_iter().zip(large) {
        scene.another_saga();
        let ask = Ask::action(1).with(Input::This(fraction));
        let unreadable = code(&scene.exchange(ask).await?);
        scene.another_saga();
        let heard = refused(scene, large).await?;
        if let Some(unreadable) = unreadable {
            let got = code(&heard).unwrap_or_default();
            scene.expect(got == unreadable, "its code", unreadable, &got)?;
        }
    }
    Ok(())
}

async fn refused(scene: &mut Scene<'_>, input: Value) -> Result<Heard, Stop> {
    let ask = Ask::action(1).with(Input::This(input));
    scene.ask(ask, Outcome::Failure).await
}

/// Returns the fault's code if the reply is a failure.
fn code(heard: &Heard) -> Option<String> {
    let is_failure = heard.outcome() == Outcome::Failure.as_str();
    let payload = heard.payload();
    let code = payload["code"].as_str().filter(|_| is_failure)?;
    Some(code.to_owned())
}

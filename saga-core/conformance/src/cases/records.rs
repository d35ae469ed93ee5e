//! Rules for batches, offsets, and records that cannot be read.

use super::{answers::expect_header, case::Played};
use crate::{
    ask::{Ask, Heard, Input},
    scene::{Scene, Stop},
};
use saga_core::message::{Outcome, header};
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Number of commands, more than most clients fetch or handle at once.
const MANY: usize = 300;
/// Time between two reads of the committed offset.
const POLL: Duration = Duration::from_millis(20);

/// Sends two commands as one batch, and expects two replies, the second with this outcome.
async fn second_of(scene: &mut Scene<'_>, asks: [Ask; 2], expected: Outcome) -> Played {
    let sent = scene.send(&asks).await?;
    let [first, second] = [0, 1].map(|index| {
        let name = sent.get(index).map_or("a command", String::as_str);
        format!("{name}, in one batch")
    });
    scene.hear(&first, "an answer", |_| true).await?;
    scene
        .hear(&second, expected.as_str(), |heard| {
            heard.outcome() == expected.as_str()
        })
        .await?;
    Ok(())
}

/// The effects must be the same as when the two commands come one after the other.
pub async fn action_then_compensation(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    scene.exchange(Ask::action(1)).await?;
    scene.exchange(Ask::compensation(1)).await?;
    let one_by_one = scene.look_if_any().await?.map(|seen| scene.hide(&seen));
    scene.another_saga();
    let asks = [Ask::action(1), Ask::compensation(1)];
    second_of(scene, asks, Outcome::Success).await?;
    let Some(one_by_one) = one_by_one else {
        // The effects cannot be seen, but a resolve shows them: an empty compensation would have refused the action.
        scene.ask(Ask::resolve(1), Outcome::Success).await?;
        return Ok(());
    };
    let together = scene.look().await?;
    let together = scene.hide(&together);
    scene.expect(
        one_by_one == together,
        "a look at the effects of both in one batch",
        format!("as one by one: {one_by_one}"),
        together,
    )
}

pub async fn compensation_then_action(scene: &mut Scene<'_>) -> Played {
    scene.compensation()?;
    let before = scene.look_if_any().await?;
    let asks = [Ask::compensation(1), Ask::action(1)];
    second_of(scene, asks, Outcome::NotDone).await?;
    scene.unchanged(before.as_ref(), "a refused action").await
}

pub async fn resolve_behind_action(scene: &mut Scene<'_>) -> Played {
    let asks = [Ask::action(1), Ask::resolve(1)];
    second_of(scene, asks, Outcome::Success).await
}

pub async fn many(scene: &mut Scene<'_>) -> Played {
    let mut records = Vec::with_capacity(MANY);
    let mut keys = Vec::with_capacity(MANY);
    for _ in 0..MANY {
        // Nothing is prepared, because the barrier answers a resolve whatever its input is.
        scene.another_saga();
        let ask = Ask::resolve(1).with(Input::This(json!({})));
        records.push(scene.record(&ask)?);
        keys.push(scene.key());
    }
    scene.wire.send(&records).await?;
    let deadline = Instant::now() + scene.patience();
    let mut unanswered = 0;
    for key in keys {
        let left = deadline.saturating_duration_since(Instant::now());
        unanswered += usize::from(scene.wire.reply(&key, left).await?.is_none());
    }
    scene.expect(
        unanswered == 0,
        format!("{MANY} commands of {MANY} sagas"),
        format!("{MANY} answers within {} s", scene.patience().as_secs()),
        format!("{} answers", MANY - unanswered),
    )
}

pub async fn committed(scene: &mut Scene<'_>) -> Played {
    let Some(group) = &scene.description.group else {
        let why = "the description names no group".to_owned();
        return Err(Stop::Skipped(why));
    };
    let delivered = scene.append(&Ask::resolve(1)).await?;
    scene.hear("a command", "an answer", |_| true).await?;
    let Some(at) = delivered else { return Ok(()) };
    let deadline = Instant::now() + scene.patience();
    loop {
        let committed = scene.wire.committed(group, at.partition).await?;
        if committed > at.offset || Instant::now() >= deadline {
            return scene.expect(
                committed > at.offset,
                format!(
                    "the offset that group {group} has committed in partition {}",
                    at.partition
                ),
                format!("beyond {}", at.offset),
                committed,
            );
        }
        sleep(POLL).await;
    }
}

pub async fn unknown_command(scene: &mut Scene<'_>) -> Played {
    let unknown = format!("{}.no-such-command", scene.description.participant);
    scene
        .ask(Ask::action(1).of_type(unknown), Outcome::Error)
        .await?;
    scene.ask(Ask::action(2), Outcome::Success).await?;
    Ok(())
}

pub async fn bad_payload(scene: &mut Scene<'_>) -> Played {
    for payload in [
        json!(null),
        json!("text"),
        json!([1]),
        json!({"unexpected": {"deep": [1.5e300]}}),
    ] {
        let ask = Ask::action(1).with(Input::This(payload));
        scene
            .ask_for(ask, "failure or error", |heard| {
                matches!(heard.outcome().as_str(), "failure" | "error")
            })
            .await?;
        scene.another_saga();
    }
    Ok(())
}

/// Returns records that contain no readable command.
fn unreadable() -> [(&'static str, Ask); 5] {
    [
        ("not JSON", Ask::action(1).value(Some(b"{ \xff"))),
        ("no value", Ask::action(1).value(None)),
        ("no saga-step", Ask::action(1).header(header::STEP, None)),
        (
            "a saga-id that is no UUID",
            Ask::action(1).header(header::SAGA_ID, Some("seven")),
        ),
        (
            "a direction that there is not",
            Ask::action(1).header(header::DIRECTION, Some("sideways")),
        ),
    ]
}

pub async fn dead_letters(scene: &mut Scene<'_>) -> Played {
    for (what, ask) in unreadable() {
        scene.another_saga();
        let Some(at) = scene.append(&ask).await? else {
            continue;
        };
        let (key, limit) = (scene.key(), scene.patience());
        let letter = scene.wire.dead_letter(&key, limit).await?.map(Heard);
        let sent = format!("a record with {what}");
        scene.expect(
            letter.is_some(),
            &sent,
            "a dead letter",
            letter.as_ref().map_or("none", |_| "one"),
        )?;
        let Some(letter) = letter else { continue };
        let reason = letter
            .header(header::DEAD_LETTER_REASON)
            .unwrap_or_default();
        scene.expect(!reason.is_empty(), &sent, "a dead-letter-reason", &reason)?;
        for (name, expected) in [
            (header::DEAD_LETTER_TOPIC, scene.description.topic.clone()),
            (header::DEAD_LETTER_PARTITION, at.partition.to_string()),
            (header::DEAD_LETTER_OFFSET, at.offset.to_string()),
        ] {
            expect_header(scene, &letter, name, &expected)?;
        }
        let original = scene.record(&ask)?.payload;
        let kept = letter.0.payload.unwrap_or_default();
        scene.expect(
            kept == original,
            &sent,
            format!("its value as it was, {} bytes", original.len()),
            format!("{} bytes", kept.len()),
        )?;
    }
    Ok(())
}

/// Sends a bad record and a good command behind it, in one batch and in one partition, for each kind of bad record.
pub async fn partition_flows(scene: &mut Scene<'_>) -> Played {
    for (what, bad) in unreadable() {
        scene.another_saga();
        scene.prepare().await?;
        let good = Ask::action(1);
        scene.send(&[bad, good]).await?;
        let sent = format!("a command behind a record with {what}");
        // A bad record whose sender is readable may have been answered, too.
        let mut heard = scene.hear(&sent, "an answer", |_| true).await?;
        while heard.outcome() == "error" {
            heard = scene.hear(&sent, "success", |_| true).await?;
        }
        scene.expect(heard.outcome() == "success", sent, "success", heard)?;
    }
    Ok(())
}

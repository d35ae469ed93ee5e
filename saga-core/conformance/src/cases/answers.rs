//! Rules that every reply must follow.

use super::case::Played;
use crate::{
    ask::{Ask, Heard, Input, STEP},
    scene::{Scene, Stop},
};
use saga_core::message::{Direction, Outcome, header};
use serde_json::Value;

/// Number of sagas per partition. A participant that sends replies by key would have to hit the right partition this
/// often by chance.
const SAGAS_A_PARTITION: usize = 4;

pub async fn reply_type(scene: &mut Scene<'_>) -> Played {
    let expected = scene.command.succeeds.reply.clone();
    let text = expected
        .as_deref()
        .map_or_else(|| "success".to_owned(), |kind| format!("success {kind}"));
    scene
        .ask_for(Ask::action(1), &text, |heard| {
            let kind = heard.header(header::CE_TYPE);
            heard.outcome() == Outcome::Success.as_str()
                && expected.is_none_or(|expected| kind == Some(expected))
        })
        .await?;
    Ok(())
}

pub async fn cloud_event(scene: &mut Scene<'_>) -> Played {
    let heard = scene.exchange(Ask::action(1)).await?;
    expect_header(scene, &heard, header::CE_SPECVERSION, "1.0")?;
    expect_header(scene, &heard, header::CONTENT_TYPE, "application/json")?;
    for name in [header::CE_ID, header::CE_TYPE, header::CE_SOURCE] {
        let value = heard.header(name).unwrap_or_default();
        scene.expect(!value.is_empty(), name, "a value", shown(&value))?;
    }
    let time = heard.header(header::CE_TIME).unwrap_or_default();
    let is_time = time.parse::<saga_core::ids::Timestamp>().is_ok();
    scene.expect(is_time, header::CE_TIME, "an RFC 3339 time", shown(&time))
}

pub async fn address(scene: &mut Scene<'_>) -> Played {
    let heard = scene.exchange(Ask::action(1)).await?;
    let saga = scene.key();
    expect_header(scene, &heard, header::SAGA_ID, &saga)?;
    expect_header(scene, &heard, header::STEP, STEP)?;
    expect_header(
        scene,
        &heard,
        header::DIRECTION,
        Direction::Forward.as_str(),
    )
}

/// The participant may continue the trace in a span of its own: only the trace id must stay.
pub async fn trace(scene: &mut Scene<'_>) -> Played {
    // Preparing may set the saga's id, which is part of the trace.
    scene.prepare().await?;
    let trace = scene.trace();
    let heard = scene.exchange(Ask::action(1)).await?;
    expect_header(scene, &heard, header::CORRELATION_ID, &trace.correlation_id)?;
    let trace_id = |parent: &str| parent.split('-').nth(1).unwrap_or_default().to_owned();
    let expected = trace_id(&trace.traceparent.unwrap_or_default());
    let got = heard.header(header::TRACEPARENT).unwrap_or_default();
    scene.expect(
        trace_id(&got) == expected,
        header::TRACEPARENT,
        format!("one of trace {expected}"),
        shown(&got),
    )
}

pub async fn no_trace(scene: &mut Scene<'_>) -> Played {
    let ask = Ask::action(1)
        .header(header::TRACEPARENT, None)
        .header(header::CORRELATION_ID, None);
    let heard = scene.ask(ask, Outcome::Success).await?;
    // Many clients write "undefined" or "null" instead of leaving the header out.
    let invented = heard.header(header::TRACEPARENT);
    let fine = invented
        .as_deref()
        .is_none_or(|parent| parent.split('-').count() >= 4);
    scene.expect(
        fine,
        header::TRACEPARENT,
        "none, or a real one",
        shown(&invented.unwrap_or_default()),
    )
}

pub async fn unknown_header(scene: &mut Scene<'_>) -> Played {
    let ask = Ask::action(1).header("saga-of-the-future", Some("1"));
    scene.ask(ask, Outcome::Success).await?;
    Ok(())
}

pub async fn partition(scene: &mut Scene<'_>) -> Played {
    let partitions = scene.wire.reply_partitions();
    if partitions < 2 {
        let why = format!("{} has one partition only", scene.wire.reply_topic());
        return Err(Stop::Skipped(why));
    }
    for partition in 0..partitions {
        for _ in 0..SAGAS_A_PARTITION {
            let ask = Ask {
                reply_partition: Some(partition),
                ..Ask::action(1)
            };
            let heard = scene.exchange(ask).await?;
            scene.expect(
                heard.0.partition == partition,
                "the answer's partition",
                partition,
                heard.0.partition,
            )?;
            scene.another_saga();
        }
    }
    Ok(())
}

pub async fn fault(scene: &mut Scene<'_>) -> Played {
    let fails = scene.fails()?;
    let (reply, code) = (fails.reply.clone(), fails.code.clone());
    let heard = scene
        .ask(Ask::action(1).with(Input::Fails), Outcome::Failure)
        .await?;
    let payload = heard.payload();
    let has_both = ["code", "message"]
        .iter()
        .all(|key| payload[*key].as_str().is_some_and(|text| !text.is_empty()));
    scene.expect(
        has_both,
        "the failure's payload",
        r#"{"code": "…", "message": "…"}"#,
        &payload,
    )?;
    if let Some(code) = code {
        scene.expect(
            payload["code"] == code.as_str(),
            "its code",
            code,
            &payload["code"],
        )?;
    }
    match reply {
        Some(reply) => expect_header(scene, &heard, header::CE_TYPE, &reply),
        None => Ok(()),
    }
}

pub fn expect_header(
    scene: &mut Scene<'_>,
    heard: &Heard,
    name: &'static str,
    expected: &str,
) -> Played {
    let got = heard.header(name).unwrap_or_default();
    scene.expect(got == expected, name, expected, shown(&got))
}

/// Expects the same reply again: its id, type, outcome and payload.
pub fn expect_same(scene: &mut Scene<'_>, first: &Heard, again: &Heard) -> Played {
    let essence = |heard: &Heard| -> (String, String, String, Value) {
        let header = |name| heard.header(name).unwrap_or_default();
        (
            header(header::CE_ID),
            header(header::CE_TYPE),
            heard.outcome(),
            heard.payload(),
        )
    };
    let text = |heard: &Heard| {
        let (id, kind, outcome, payload) = essence(heard);
        format!("{outcome} {kind} {id} {payload}")
    };
    scene.expect(
        essence(first) == essence(again),
        "the same question again",
        format!("the same answer: {}", text(first)),
        text(again),
    )
}

fn shown(value: &str) -> &str {
    if value.is_empty() { "nothing" } else { value }
}

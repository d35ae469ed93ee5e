//! `GET /overview`: the system at a glance.

use super::{
    ApiState,
    error::ApiResult,
    model::{Lag, Overview, RetentionView, StatusCount, WaitingCount},
};
use crate::store::{floor, history::least_id, listing};
use axum::{Json, extract::State};
use chrono::{DateTime, TimeDelta, Utc};
use futures_util::future::join_all;
use std::time::Duration;
use tokio::time::Instant;

/// The time before now in which ended sagas are counted.
const ENDED_WINDOW: TimeDelta = TimeDelta::hours(1);
/// The most ended sagas that are counted: a busy system ends millions within an hour.
const ENDED_LIMIT: i64 = 100_000;
/// The time for which an overview is cached. Counting reads the whole live table, and pages ask several times a second.
const CACHE_TIME: Duration = Duration::from_secs(1);

/// Returns the number of sagas by status, the number of waiting sagas by participant, and the lags.
#[utoipa::path(
    get, path = "/overview", operation_id = "overview", tag = "overview",
    responses((status = 200, description = "At most a moment old", body = Overview))
)]
pub async fn get(State(state): State<ApiState>) -> ApiResult<Json<Overview>> {
    load(&state).await.map(Json)
}

/// Returns the overview for the API and for the page.
pub async fn load(state: &ApiState) -> ApiResult<Overview> {
    // The lock is held while counting, so that concurrent requests share one count.
    let mut last = state.overview.last.lock().await;
    if let Some((at, overview)) = last.as_ref()
        && at.elapsed() < CACHE_TIME
    {
        return Ok(overview.clone());
    }
    let overview = count(state).await?;
    *last = Some((Instant::now(), overview.clone()));
    Ok(overview)
}

async fn count(state: &ApiState) -> ApiResult<Overview> {
    let pool = state.store.reporting();
    let now = state
        .shared
        .clock
        .now()
        .unwrap_or_else(saga_service::clock::now);
    let from = least_id((now - ENDED_WINDOW).timestamp_millis());
    let live = listing::count_live(pool, None).await?.by_status;
    let ended = listing::ended_since(pool, from, ENDED_LIMIT).await?;
    let waiting = listing::live_by_waiting(pool).await?;
    let by_status = |(status, count)| StatusCount { status, count };
    Ok(Overview {
        at: now,
        live: live.into_iter().map(by_status).collect(),
        ended: ended.into_iter().map(by_status).collect(),
        waiting: waiting
            .into_iter()
            .map(|(participant, kind, count, longest_since)| WaitingCount {
                participant,
                kind,
                count,
                longest_since,
            })
            .collect(),
        lags: lags(state).await,
        retention: retention(state).await?,
    })
}

async fn retention(state: &ApiState) -> ApiResult<RetentionView> {
    let (floors, overaged) = floor::current(state.store.reporting()).await?;
    let at = |ms| DateTime::<Utc>::from_timestamp_millis(ms).unwrap_or_default();
    Ok(RetentionView {
        floor: at(floors.floor_ms),
        starts_from: at(floors.starts_from_ms),
        overaged: overaged.count,
        oldest_overaged: overaged.ids,
    })
}

async fn lags(state: &ApiState) -> Vec<Lag> {
    let settings = &state.shared.settings;
    let own = (settings.inputs_topic.clone(), state.group.to_owned());
    let participants = settings.participants.all().into_values();
    let participants = participants.map(|participant| (participant.topic, participant.group));
    let looks = std::iter::once(own)
        .chain(participants)
        .map(|(topic, group)| async move {
            let records = state
                .offsets
                .seen(&topic, &group)
                .await
                .map(|seen| seen.lag());
            Lag {
                topic,
                group,
                records,
            }
        });
    join_all(looks).await
}

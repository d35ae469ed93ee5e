//! `GET /sagas` and the endpoints below it.

use super::{
    ApiState,
    action::decided,
    definitions::learn,
    error::{ApiError, ApiResult},
    model::{ActionList, ListQuery, SagaPage, SagaView, Timeline, WaitingView},
    view,
};
use crate::store::{
    self,
    listing::{self, Filter, FoundSaga},
};
use axum::{
    Json,
    extract::State,
    http::header,
    response::{IntoResponse, Response},
};
use saga_core::{definition::SagaDefinition, ids::SagaId, message::PickUpStatus};
use saga_service::http::{Problem, ValidPath, ValidQuery};
use std::sync::Arc;
use uuid::Uuid;

const DEFAULT_LIMIT: i64 = 50;
/// The most sagas on a page.
const MAX_LIMIT: i64 = 200;
const STATUSES: [&str; 6] = [
    "running",
    "compensating",
    "parked",
    "completed",
    "compensated",
    "abandoned",
];

/// Lists sagas, live and ended, newest first.
#[utoipa::path(
    get, path = "/sagas", operation_id = "list_sagas", tag = "sagas", params(ListQuery),
    responses(
        (status = 200, description = "A page", body = SagaPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(state): State<ApiState>,
    ValidQuery(query): ValidQuery<ListQuery>,
) -> ApiResult<Json<SagaPage>> {
    page(&state, query).await.map(Json)
}

/// Returns a page of sagas for the API and for the page at `/`.
pub async fn page(state: &ApiState, query: ListQuery) -> ApiResult<SagaPage> {
    if let Some(status) = &query.status
        && !STATUSES.contains(&status.as_str())
    {
        return Err(ApiError::parameter(
            "status",
            format!("must be one of {}", STATUSES.join(", ")),
        ));
    }
    let limit = query.limit.unwrap_or(DEFAULT_LIMIT);
    if !(1..=MAX_LIMIT).contains(&limit) {
        return Err(ApiError::parameter(
            "limit",
            format!("must be 1 to {MAX_LIMIT}"),
        ));
    }
    let filter = Filter {
        status: query.status,
        waiting_on: query.waiting_on,
        business_key: query.business_key,
        definition: query.definition,
        before: query.cursor,
    };
    let mut lines = listing::list(state.store.reporting(), &filter, limit + 1).await?;
    let more = lines.len() as i64 > limit;
    lines.truncate(limit as usize);
    let next_cursor = if more {
        lines.last().map(|line| line.id)
    } else {
        None
    };
    Ok(SagaPage {
        sagas: lines.into_iter().map(view::summary).collect(),
        next_cursor,
    })
}

/// Returns one saga with every step and attempt, and a sentence that says why it waits.
#[utoipa::path(
    get, path = "/sagas/{id}", operation_id = "get_saga", tag = "sagas", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "The saga", body = SagaView, headers(("etag" = String, description = "The saga's version"))),
        (status = 404, description = "No such saga", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    ValidPath(id): ValidPath<Uuid>,
) -> ApiResult<Response> {
    let (definition, found) = find(&state, id).await?;
    let mut saga = view::saga(&definition, &found);
    saga.waiting_on = right_now(&state, &definition, &found, saga.waiting_on).await;
    let etag = format!("\"{}\"", saga.version);
    Ok(([(header::ETAG, etag)], Json(saga)).into_response())
}

/// Replaces a wait for a reply by the command's current state. A row learns that its command is queued only when the
/// command's timer falls due; a client that asks gets the state now.
async fn right_now(
    state: &ApiState,
    definition: &SagaDefinition,
    found: &FoundSaga,
    waiting: WaitingView,
) -> WaitingView {
    let Some((part, participant, sent_at)) = view::unseen(definition, &found.instance, &waiting)
    else {
        return waiting;
    };
    let id = found.instance.id;
    match state
        .shared
        .pick_up_status(&state.offsets, id, &part, participant)
        .await
    {
        Some(PickUpStatus::Queued) => view::queued(waiting, participant, sent_at),
        Some(
            PickUpStatus::PickedUp
            | PickUpStatus::Unanswered
            | PickUpStatus::Gone
            | PickUpStatus::Unknown,
        )
        | None => waiting,
    }
}

/// Returns the log of a saga, as it was published to `saga.events`.
#[utoipa::path(
    get, path = "/sagas/{id}/events", operation_id = "saga_events", tag = "sagas", params(("id" = Uuid, Path)),
    responses(
        (status = 200, description = "From first to last", body = Timeline),
        (status = 404, description = "No such saga", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn events(
    State(state): State<ApiState>,
    ValidPath(id): ValidPath<Uuid>,
) -> ApiResult<Json<Timeline>> {
    let found = listing::find(state.store.reporting(), SagaId(id))
        .await?
        .ok_or_else(|| ApiError::no_saga(id))?;
    Ok(Json(Timeline {
        saga_id: id,
        events: view::events(&found.instance).cloned().collect(),
    }))
}

/// Returns the actions that people requested for a saga, and their decisions.
#[utoipa::path(
    get, path = "/sagas/{id}/actions", operation_id = "saga_actions", tag = "sagas", params(("id" = Uuid, Path)),
    responses((status = 200, description = "From first to last", body = ActionList))
)]
pub async fn actions(
    State(state): State<ApiState>,
    ValidPath(id): ValidPath<Uuid>,
) -> ApiResult<Json<ActionList>> {
    let actions = store::actions_of(state.store.reporting(), SagaId(id)).await?;
    Ok(Json(ActionList {
        actions: actions.into_iter().map(decided).collect(),
    }))
}

/// Returns a saga and the definition that it is pinned to.
pub async fn find(state: &ApiState, id: Uuid) -> ApiResult<(Arc<SagaDefinition>, FoundSaga)> {
    let found = listing::find(state.store.reporting(), SagaId(id))
        .await?
        .ok_or_else(|| ApiError::no_saga(id))?;
    let hash = &found.instance.definition_hash;
    if let Some(definition) = state.shared.registry.by_hash(hash) {
        return Ok((definition, found));
    }
    // Another orchestrator may have registered the definition after this process started.
    learn(state).await?;
    let definition = state.shared.registry.by_hash(hash);
    let definition = definition
        .ok_or_else(|| ApiError::busy("the saga's definition cannot be read by this release", 5))?;
    Ok((definition, found))
}

//! `POST /sagas/{id}/cancel` and `/retry`: asked for over the log, behind everything that was there first.

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    model::{ActionRequest, ActionView},
};
use crate::{
    engine::decode::{MAX_NAME_CHARS, MAX_TEXT_CHARS},
    store::{self, DecidedAction, listing},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use saga_core::{
    ids::SagaId,
    instance::{ActionVerdict, SagaInstance},
    message::{ActionKind, OperatorAction, Trace},
    transition::verdict_after_end,
};
use saga_messaging::log::LogWriter;
use saga_service::http::{Problem, RequestContext, ValidJson, ValidPath};
use std::time::Duration;
use tokio::time::Instant;
use tracing::info;
use uuid::Uuid;

/// How long an answer waits for the verdict before it says "undecided".
const VERDICT_WAIT: Duration = Duration::from_secs(2);
/// Between two looks for the verdict.
const VERDICT_POLL: Duration = Duration::from_millis(25);

/// Undoes the saga if its pivot is not done. With the pivot in flight its outcome decides: `pending`.
#[utoipa::path(
    post, path = "/sagas/{id}/cancel", tag = "actions", request_body = ActionRequest,
    params(
        ("id" = Uuid, Path),
        ("if-match" = Option<String>, Header, description = "Only if the saga is still at this version"),
    ),
    responses(
        (status = 202, description = "Taken, with the verdict if there is one yet", body = ActionView),
        (status = 404, description = "No such saga", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Refused, with the reason", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn cancel(
    State(state): State<ApiState>,
    ValidPath(id): ValidPath<Uuid>,
    context: RequestContext,
    headers: HeaderMap,
    ValidJson(request): ValidJson<ActionRequest>,
) -> ApiResult<Response> {
    let if_version = if_match(&headers)?;
    ask(&state, ActionKind::Cancel, id, context, if_version, request).await
}

/// A parked saga tries its used-up command again.
#[utoipa::path(
    post, path = "/sagas/{id}/retry", tag = "actions", request_body = ActionRequest,
    params(
        ("id" = Uuid, Path),
        ("if-match" = Option<String>, Header, description = "Only if the saga is still at this version"),
    ),
    responses(
        (status = 202, description = "Taken, with the verdict if there is one yet", body = ActionView),
        (status = 404, description = "No such saga", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Refused, with the reason", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn retry(
    State(state): State<ApiState>,
    ValidPath(id): ValidPath<Uuid>,
    context: RequestContext,
    headers: HeaderMap,
    ValidJson(request): ValidJson<ActionRequest>,
) -> ApiResult<Response> {
    let if_version = if_match(&headers)?;
    ask(&state, ActionKind::Retry, id, context, if_version, request).await
}

async fn ask(
    state: &ApiState,
    kind: ActionKind,
    id: Uuid,
    context: RequestContext,
    if_version: Option<u64>,
    request: ActionRequest,
) -> ApiResult<Response> {
    check(&request)?;
    let found = listing::find(state.store.reporting(), SagaId(id))
        .await?
        .ok_or_else(|| ApiError::no_saga(id))?;
    refuse_ended(&found.instance)?;
    let action = OperatorAction {
        saga_id: SagaId(id),
        action_id: saga_service::clock::new_id(),
        kind,
        actor: request.actor.unwrap_or_else(|| "http".to_owned()),
        reason: request.reason,
        if_version,
        trace: Trace {
            correlation_id: context.correlation_id,
            traceparent: Some(context.traceparent),
        },
    };
    info!(
        saga.id = %id,
        correlation.id = action.trace.correlation_id,
        action.id = %action.action_id,
        action = word(&action.kind),
        actor = action.actor,
        "an action is asked for"
    );
    produce(state, &action, found.instance.home_partition).await?;
    answer(verdict(state, action.action_id).await?, action)
}

async fn produce(state: &ApiState, action: &OperatorAction, home: i32) -> ApiResult<()> {
    let settings = &state.shared.settings;
    let at = state
        .shared
        .clock
        .now()
        .unwrap_or_else(saga_service::clock::now);
    let record = action.encode(&settings.inputs_topic, Some(home), &settings.source, at);
    state
        .writer
        .publish(&[record])
        .await
        .map_err(|error| ApiError::unavailable("the action could not be sent", &error))?;
    Ok(())
}

fn check(request: &ActionRequest) -> ApiResult<()> {
    let reason = request.reason.trim();
    if reason.is_empty() || request.reason.chars().count() > MAX_TEXT_CHARS {
        return Err(ApiError::field(
            "/reason",
            format!("must have 1 to {MAX_TEXT_CHARS} characters"),
        ));
    }
    let actor = request.actor.as_deref().unwrap_or("http");
    if actor.trim().is_empty() || actor.chars().count() > MAX_NAME_CHARS {
        return Err(ApiError::field(
            "/actor",
            format!("must have 1 to {MAX_NAME_CHARS} characters"),
        ));
    }
    Ok(())
}

/// `If-Match: "<version>"`, as the `ETag` of the saga said.
fn if_match(headers: &HeaderMap) -> ApiResult<Option<u64>> {
    let Some(value) = headers.get(header::IF_MATCH) else {
        return Ok(None);
    };
    let text = value.to_str().unwrap_or_default().trim();
    if text == "*" {
        return Ok(None);
    }
    text.trim_matches('"')
        .parse()
        .map(Some)
        .map_err(|_invalid| ApiError::field("if-match", "must be a version, such as \"7\""))
}

fn refuse_ended(instance: &SagaInstance) -> ApiResult<()> {
    if !instance.status.is_ended() {
        return Ok(());
    }
    match verdict_after_end(&instance.status) {
        ActionVerdict::Refused { code, message } => {
            Err(ApiError::new(StatusCode::CONFLICT, &code, message))
        }
        ActionVerdict::Accepted | ActionVerdict::Pending => Ok(()),
    }
}

async fn verdict(state: &ApiState, action: Uuid) -> ApiResult<Option<DecidedAction>> {
    let deadline = Instant::now() + VERDICT_WAIT;
    loop {
        if let Some(decided) = store::action(state.store.pool(), action).await? {
            return Ok(Some(decided));
        }
        if Instant::now() >= deadline {
            return Ok(None);
        }
        tokio::time::sleep(VERDICT_POLL).await;
    }
}

fn answer(decided_action: Option<DecidedAction>, asked: OperatorAction) -> ApiResult<Response> {
    let view = match decided_action {
        Some(row) if row.decision == "refused" => {
            let code = row.code.unwrap_or_else(|| "refused".to_owned());
            let message = row.message.unwrap_or_else(|| "refused".to_owned());
            return Err(ApiError::new(StatusCode::CONFLICT, &code, message));
        }
        Some(row) => decided(row),
        None => ActionView {
            id: asked.action_id,
            saga_id: asked.saga_id.0,
            action: word(&asked.kind).to_owned(),
            decision: "undecided".to_owned(),
            code: None,
            message: None,
            actor: asked.actor,
            reason: asked.reason,
            decided_at: None,
            status_before: None,
            status_after: None,
        },
    };
    let location = format!("/sagas/{}/actions", view.saga_id);
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(view),
    )
        .into_response())
}

fn word(kind: &ActionKind) -> &'static str {
    match kind {
        ActionKind::Cancel => "cancel",
        ActionKind::Retry => "retry",
    }
}

pub fn decided(row: DecidedAction) -> ActionView {
    ActionView {
        id: row.id,
        saga_id: row.saga_id,
        action: row.action,
        decision: row.decision,
        code: row.code,
        message: row.message,
        actor: row.actor,
        reason: row.reason,
        decided_at: Some(row.decided_at),
        status_before: row.status_before,
        status_after: row.status_after,
    }
}

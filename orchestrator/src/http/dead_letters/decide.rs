//! `POST /dead-letters/{topic}/{partition}/{offset}/replay` and `/discard`.

use super::{
    super::{
        ApiState,
        error::{ApiError, ApiResult},
    },
    LetterPath, id_of,
    model::{DiscardRequest, ReplayRequest, VerdictView},
};
use crate::{
    dead_letters::LetterDecisionRequest,
    engine::decode::{MAX_NAME_CHARS, MAX_TEXT_CHARS},
    store::dead_letter::Decision,
};
use axum::{Json, extract::State};
use saga_service::http::{Problem, RequestContext, ValidJson, ValidPath};

/// Publishes a letter's record to the topic that it came from, unchanged or corrected. A second replay does nothing.
#[utoipa::path(
    post, path = "/dead-letters/{topic}/{partition}/{offset}/replay", operation_id = "replay_dead_letter",
    tag = "dead letters", request_body = ReplayRequest,
    params(("topic" = String, Path), ("partition" = i32, Path), ("offset" = i64, Path)),
    responses(
        (status = 200, description = "Replayed, now or before", body = VerdictView),
        (status = 404, description = "No such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Refused, with the reason", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The retention of its topic has passed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Kafka or the database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn replay(
    State(state): State<ApiState>,
    ValidPath(path): ValidPath<LetterPath>,
    context: RequestContext,
    ValidJson(request): ValidJson<ReplayRequest>,
) -> ApiResult<Json<VerdictView>> {
    let id = id_of(path);
    let correction = request.correction();
    let decision_request =
        decision_request(request.reason, request.actor, request.dry_run, context)?;
    let verdict = state
        .dead_letters
        .replay(&id, &correction, decision_request)
        .await?;
    Ok(Json(VerdictView::of(
        id.to_string(),
        Decision::REPLAYED,
        verdict,
    )))
}

/// Records that a letter's record is not needed. The letter stays in Kafka until its topic's retention passes, and is
/// no longer listed as open. A second discard does nothing.
#[utoipa::path(
    post, path = "/dead-letters/{topic}/{partition}/{offset}/discard", operation_id = "discard_dead_letter",
    tag = "dead letters", request_body = DiscardRequest,
    params(("topic" = String, Path), ("partition" = i32, Path), ("offset" = i64, Path)),
    responses(
        (status = 200, description = "Discarded, now or before", body = VerdictView),
        (status = 404, description = "No such letter", body = Problem, content_type = "application/problem+json"),
        (status = 409, description = "Refused, with the reason", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The retention of its topic has passed", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Kafka or the database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn discard(
    State(state): State<ApiState>,
    ValidPath(path): ValidPath<LetterPath>,
    context: RequestContext,
    ValidJson(request): ValidJson<DiscardRequest>,
) -> ApiResult<Json<VerdictView>> {
    let id = id_of(path);
    let decision_request =
        decision_request(request.reason, request.actor, request.dry_run, context)?;
    let verdict = state.dead_letters.discard(&id, decision_request).await?;
    Ok(Json(VerdictView::of(
        id.to_string(),
        Decision::DISCARDED,
        verdict,
    )))
}

fn decision_request(
    reason: String,
    actor: Option<String>,
    dry_run: bool,
    context: RequestContext,
) -> ApiResult<LetterDecisionRequest> {
    let actor = actor.unwrap_or_else(|| "http".to_owned());
    let texts = [
        ("/reason", &reason, MAX_TEXT_CHARS),
        ("/actor", &actor, MAX_NAME_CHARS),
    ];
    for (field, text, limit) in texts {
        if text.trim().is_empty() || text.chars().count() > limit {
            return Err(ApiError::field(
                field,
                format!("must have 1 to {limit} characters"),
            ));
        }
    }
    Ok(LetterDecisionRequest {
        actor,
        reason,
        correlation_id: context.correlation_id,
        dry_run,
    })
}

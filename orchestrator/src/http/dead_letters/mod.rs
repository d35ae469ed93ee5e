//! `/dead-letters`: records that could not be processed, and what people decide about them.

pub mod decide;
pub mod model;

use super::{
    ApiState,
    error::{ApiError, ApiResult},
};
use crate::dead_letters::{Filter, LetterError};
use axum::{Json, extract::State, http::StatusCode};
use model::{LetterPage, LetterQuery, LetterSummary, LetterView};
use saga_core::ids::SagaId;
use saga_messaging::dead_letter::LetterId;
use saga_service::http::{Problem, ValidPath, ValidQuery, page_limit};

const DEFAULT_LIMIT: u32 = 50;
const MAX_LIMIT: u32 = 200;

/// The topic, partition and offset of a letter, as they are in the path.
type LetterPath = (String, i32, i64);

/// Lists the letters without a decision, or all letters, by topic and partition, oldest first.
#[utoipa::path(
    get, path = "/dead-letters", operation_id = "list_dead_letters", tag = "dead letters", params(LetterQuery),
    responses(
        (status = 200, description = "A page", body = LetterPage),
        (status = 400, description = "A parameter is wrong or unknown", body = Problem, content_type = "application/problem+json"),
        (status = 404, description = "No such topic", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Kafka or the database is unavailable", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn list(
    State(state): State<ApiState>,
    ValidQuery(query): ValidQuery<LetterQuery>,
) -> ApiResult<Json<LetterPage>> {
    let limit = page_limit(query.limit, DEFAULT_LIMIT, MAX_LIMIT)?;
    let cursor: Option<LetterId> = match &query.cursor {
        None => None,
        Some(text) => {
            let cursor = text.parse();
            Some(cursor.map_err(|_bad| ApiError::parameter("cursor", "is none of ours"))?)
        }
    };
    let filter = Filter {
        topic: query.topic,
        reason: query.reason,
        saga: query.saga.map(SagaId),
        decided_too: query.all,
    };
    let page = state
        .dead_letters
        .list(&filter, cursor.as_ref(), limit as usize)
        .await?;
    Ok(Json(LetterPage {
        letters: page.letters.iter().map(LetterSummary::of).collect(),
        next_cursor: page.next.map(|next| next.to_string()),
    }))
}

/// Returns one letter with its record's key, headers and value.
#[utoipa::path(
    get, path = "/dead-letters/{topic}/{partition}/{offset}", operation_id = "get_dead_letter", tag = "dead letters",
    params(("topic" = String, Path), ("partition" = i32, Path), ("offset" = i64, Path)),
    responses(
        (status = 200, description = "The letter", body = LetterView),
        (status = 404, description = "No such letter", body = Problem, content_type = "application/problem+json"),
        (status = 410, description = "The retention of its topic has passed", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    ValidPath(path): ValidPath<LetterPath>,
) -> ApiResult<Json<LetterView>> {
    let found = state.dead_letters.find(&id_of(path)).await?;
    Ok(Json(LetterView::of(&found)))
}

fn id_of((topic, partition, offset): LetterPath) -> LetterId {
    LetterId {
        topic,
        partition,
        offset,
    }
}

impl From<LetterError> for ApiError {
    fn from(error: LetterError) -> Self {
        let (status, code) = match &error {
            LetterError::UnknownTopic(..) => (StatusCode::NOT_FOUND, "unknown_topic"),
            LetterError::Unknown(_) => (StatusCode::NOT_FOUND, "unknown_letter"),
            LetterError::Gone { .. } => (StatusCode::GONE, "letter_gone"),
            LetterError::BadCorrection(bad) => return Self::field(bad.field, error.to_string()),
            LetterError::NotReplayable(_) => (StatusCode::CONFLICT, "not_replayable"),
            LetterError::BelowFloor { .. } => (StatusCode::CONFLICT, "below_floor"),
            LetterError::DecidedOtherwise(decision) => {
                let code = format!("already_{}", decision.decision);
                return Self::new(StatusCode::CONFLICT, &code, error.to_string());
            }
            LetterError::Log(_) | LetterError::Store(_) => {
                return Self::unavailable("dead letters cannot be used now", &error);
            }
        };
        Self::new(status, code, error.to_string())
    }
}

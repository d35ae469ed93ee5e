//! `POST /sagas`: accepted means durable. Requests that come together share one transaction.

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    model::{StartAccepted, StartRequest},
};
use crate::{
    engine::{
        decode::{MAX_NAME_CHARS, check_value},
        fold::start_hash,
        oversize,
    },
    store::intake::{self, Accepted, Intake, IntakeError},
};
use axum::{
    Json,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    response::{IntoResponse, Response},
};
use saga_core::{
    ids::SagaId,
    message::{StartSaga, Trace},
};
use saga_messaging::{
    batcher::{Batcher, BatcherError, BatcherSettings},
    kafka::home_partition,
    outbox::{Outbox, Relay},
};
use saga_service::http::{Problem, RequestContext, ValidJson};
use sqlx::PgPool;
use std::sync::Arc;

/// `ce_type` of a start that came over this API.
const START_TYPE: &str = "saga.start";
/// What a client that is pushed back waits.
const RETRY_AFTER_SECONDS: u64 = 2;

pub type StartBatcher = Batcher<Intake, Accepted, Arc<IntakeError>>;

/// Accepts what arrives together in one transaction, and publishes after it.
pub fn start_batcher(pool: PgPool, outbox: Outbox, relay: Relay) -> StartBatcher {
    Batcher::start("saga_starts", BatcherSettings::default(), move |batch| {
        let (pool, outbox, relay) = (pool.clone(), outbox.clone(), relay.clone());
        async move {
            let (answers, staged) = intake::accept(&pool, &outbox, batch)
                .await
                .map_err(Arc::new)?;
            if let Some(staged) = staged {
                relay.publish_soon(staged);
            }
            Ok(answers)
        }
    })
}

/// Starts a saga of any definition. The same `Idempotency-Key` and body give the same answer for 24 hours.
#[utoipa::path(
    post, path = "/sagas", operation_id = "start_saga", tag = "sagas", request_body = StartRequest,
    params(("idempotency-key" = Option<String>, Header, description = "At most 200 characters")),
    responses(
        (status = 202, description = "Accepted: the saga starts", body = StartAccepted, headers(("location" = String, description = "The saga"))),
        (status = 422, description = "A field is wrong, or the key came with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is waiting", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn start(
    State(state): State<ApiState>,
    context: RequestContext,
    headers: HeaderMap,
    ValidJson(request): ValidJson<StartRequest>,
) -> ApiResult<Response> {
    check(&state, &request)?;
    let key = idempotency_key(&headers)?;
    push_back(&state).await?;
    let start = StartSaga {
        saga_id: SagaId(saga_service::clock::new_id()),
        start_type: START_TYPE.to_owned(),
        definition: request.definition,
        business_key: request.business_key,
        input: request.input,
        trace: Trace {
            correlation_id: context.correlation_id,
            traceparent: Some(context.traceparent),
        },
    };
    let intake = Intake {
        saga: start.saga_id,
        idempotency: key.map(|key| (key, start_hash(&start))),
        record: record(&state, &start).await?,
    };
    match state.starts.submit(intake).await {
        Ok(Accepted::Saga(id)) => Ok(accepted(id, start)),
        Ok(Accepted::OtherContent) => Err(ApiError::new(
            StatusCode::UNPROCESSABLE_ENTITY,
            "idempotency_key_reused",
            "the Idempotency-Key was used for another request",
        )),
        Err(BatcherError::Failed(error)) => Err(ApiError::unavailable(
            "the start could not be written",
            &*error,
        )),
        Err(BatcherError::Full | BatcherError::Closed | BatcherError::BrokenOff) => {
            Err(ApiError::busy(
                "too much is waiting, or the service stops",
                RETRY_AFTER_SECONDS,
            ))
        }
    }
}

fn accepted(id: SagaId, start: StartSaga) -> Response {
    let body = StartAccepted {
        id: id.0,
        definition: start.definition,
        business_key: start.business_key,
    };
    let location = format!("/sagas/{id}");
    (
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(body),
    )
        .into_response()
}

fn check(state: &ApiState, request: &StartRequest) -> ApiResult<()> {
    if state.shared.registry.latest(&request.definition).is_none() {
        return Err(ApiError::field(
            "/definition",
            "no definition of this name is registered",
        ));
    }
    if !request.input.is_object() {
        return Err(ApiError::field("/input", "must be a JSON object"));
    }
    if let Err((_, detail)) = check_value(&request.input) {
        return Err(ApiError::field("/input", detail));
    }
    let Some(key) = &request.business_key else {
        return Ok(());
    };
    if key.is_empty() || key.chars().count() > MAX_NAME_CHARS {
        let message = format!("must have 1 to {MAX_NAME_CHARS} characters");
        return Err(ApiError::field("/businessKey", message));
    }
    Ok(())
}

fn idempotency_key(headers: &HeaderMap) -> ApiResult<Option<String>> {
    let Some(value) = headers.get("idempotency-key") else {
        return Ok(None);
    };
    match value.to_str() {
        Ok(key) if (1..=MAX_NAME_CHARS).contains(&key.len()) => Ok(Some(key.to_owned())),
        Ok(_) | Err(_) => Err(ApiError::field(
            "idempotency-key",
            format!("must have 1 to {MAX_NAME_CHARS} visible ASCII characters"),
        )),
    }
}

/// A flood of starts would make every saga pay the backlog once a step.
async fn push_back(state: &ApiState) -> ApiResult<()> {
    let inputs = state
        .offsets
        .seen(&state.shared.settings.inputs_topic, state.group)
        .await;
    let lag = inputs.map_or(0, |seen| seen.lag().max(0).cast_unsigned());
    let backlog = state.outbox.backlog().saturating_add(lag);
    if backlog > state.max_backlog {
        let detail = format!(
            "{backlog} starts and inputs are waiting, more than {}",
            state.max_backlog
        );
        return Err(ApiError::busy(&detail, RETRY_AFTER_SECONDS));
    }
    Ok(())
}

async fn record(
    state: &ApiState,
    start: &StartSaga,
) -> ApiResult<saga_core::message::OutgoingRecord> {
    let settings = &state.shared.settings;
    let partitions = state
        .writer
        .partition_count(&settings.inputs_topic)
        .await
        .map_err(|error| ApiError::unavailable("the log cannot be asked now", &error))?;
    let home = home_partition(&start.saga_id.to_string(), partitions);
    let at = saga_service::clock::now();
    let record = start.encode(&settings.inputs_topic, home, &settings.source, at);
    if !oversize::fits(record.payload.len(), settings.message_limit_bytes) {
        return Err(ApiError::field("/input", "is larger than a message may be"));
    }
    Ok(record)
}

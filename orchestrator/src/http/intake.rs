//! `POST /sagas`: a start is accepted only when it is durable. Concurrent requests share a transaction
//! (see [`start_batcher`](super::start_batcher)).

use super::{
    ApiState, definitions,
    error::{ApiError, ApiResult},
    model::{StartAccepted, StartRequest},
};
use crate::{
    engine::{
        decode::{MAX_NAME_CHARS, check_value},
        outcome::start_hash,
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
    definition::BusinessKey,
    ids::SagaId,
    message::{OutgoingRecord, StartSaga, Trace},
};
use saga_messaging::{batcher::BatcherError, kafka::home_partition};
use saga_postgres::clock::Clock;
use saga_service::{
    clock,
    http::{Problem, RequestContext, ValidJson},
};
use std::sync::Arc;

/// `ce_type` of a start that was requested over this API.
const START_TYPE: &str = "saga.start";
/// The most tries to submit a start. A start is decided again if definitions were registered or withdrawn meanwhile.
/// People do that, so it does not happen every second.
const GENERATIONS: usize = 3;
/// `Retry-After` of a response that pushes back.
const RETRY_AFTER_SECONDS: u64 = 2;

/// Starts a saga of any definition. The same `Idempotency-Key` and body give the same answer for 24 hours.
#[utoipa::path(
    post, path = "/sagas", operation_id = "start_saga", tag = "sagas", request_body = StartRequest,
    params(("idempotency-key" = Option<String>, Header, description = "At most 200 characters")),
    responses(
        (status = 202, description = "Accepted: the saga starts", body = StartAccepted, headers(("location" = String, description = "The saga"))),
        (status = 409, description = "The definition is withdrawn (`definition-withdrawn`), or a live saga has the business key to itself (`business-key-taken`)", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong, or the key came with another body", body = Problem, content_type = "application/problem+json"),
        (status = 503, description = "Too much is waiting, or the clocks differ too much (`clock-skew`)", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn start(
    State(state): State<ApiState>,
    context: RequestContext,
    headers: HeaderMap,
    ValidJson(request): ValidJson<StartRequest>,
) -> ApiResult<Response> {
    check(&request)?;
    clock::check_fit(Clock::of_process())?;
    let key = idempotency_key(&headers)?;
    push_back(&state).await?;
    let start = StartSaga {
        saga_id: SagaId(clock::new_id()),
        start_type: START_TYPE.to_owned(),
        definition: request.definition,
        business_key: request.business_key,
        input: request.input,
        trace: Trace {
            correlation_id: context.correlation_id,
            traceparent: Some(context.traceparent),
        },
    };
    let record = record(&state, &start).await?;
    let idempotency = key.map(|key| (key, start_hash(&start)));
    match submit(&state, &start, idempotency, record).await? {
        Ok(Accepted::Saga(id)) => Ok(accepted(id, start)),
        Ok(Accepted::KeyTaken(holder)) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "business_key_taken",
            format!(
                "saga {holder} of '{}' is live with the business key '{}'",
                start.definition,
                start.business_key.unwrap_or_default()
            ),
        )),
        Ok(Accepted::OutOfDate) => Err(ApiError::busy(
            "definitions are being registered or withdrawn",
            RETRY_AFTER_SECONDS,
        )),
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

/// Submits the start, decided by the definitions that are registered now. A start that was accepted under the same
/// idempotency key before gets the earlier response, even if its definition was withdrawn since.
async fn submit(
    state: &ApiState,
    start: &StartSaga,
    idempotency: Option<(String, Vec<u8>)>,
    record: OutgoingRecord,
) -> ApiResult<Result<Accepted, BatcherError<Arc<IntakeError>>>> {
    let mut answer = Ok(Accepted::OutOfDate);
    for _ in 0..GENERATIONS {
        let (current, definition) = match definitions::choose(state, &start.definition).await {
            Ok(chosen) => chosen,
            Err(refused) => {
                let earlier = intake::earlier(state.store.reporting(), idempotency.as_ref());
                return earlier.await?.map(Ok).ok_or(refused);
            }
        };
        if let Err(misfit) = definition.check_input(&start.input) {
            let field = format!("/input{}", misfit.pointer);
            return Err(ApiError::field(&field, misfit.why));
        }
        let own_key = match definition.business_key {
            BusinessKey::Unique => start.business_key.clone(),
            BusinessKey::Any => None,
        };
        let intake = Intake {
            saga: start.saga_id,
            idempotency: idempotency.clone(),
            generation: current.generation,
            own_key: own_key.map(|key| (start.definition.clone(), key)),
            record: record.clone(),
        };
        answer = state.starts.submit(intake).await;
        if !matches!(answer, Ok(Accepted::OutOfDate)) {
            break;
        }
        definitions::learn(state).await?;
    }
    Ok(answer)
}

fn check(request: &StartRequest) -> ApiResult<()> {
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

/// Refuses the start if the backlog is too large: each saga would wait for the backlog once per step.
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

async fn record(state: &ApiState, start: &StartSaga) -> ApiResult<OutgoingRecord> {
    let settings = &state.shared.settings;
    let partitions = state
        .writer
        .partition_count(&settings.inputs_topic)
        .await
        .map_err(|error| ApiError::unavailable("the log cannot be asked now", &error))?;
    let home = home_partition(&start.saga_id.to_string(), partitions);
    let at = clock::now();
    let record = start.encode(&settings.inputs_topic, home, &settings.source, at);
    if !settings.payload_limit.fits(record.payload.len()) {
        return Err(ApiError::field("/input", "is larger than a message may be"));
    }
    Ok(record)
}

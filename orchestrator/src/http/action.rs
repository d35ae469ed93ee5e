//! `POST /sagas/{id}/<action>`: an operator's action, which is sent over the log, after all earlier inputs.
//!
//! [`actions`] is the table of endpoints. Here only the request is checked, and the decision waited for:
//! `saga_core::transition` decides whether the action is legal when it is applied.

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    model::{
        ActionRequest, ActionView, CompleteRequest, NotDoneRequest, RetryRequest, SkipRequest,
    },
};
use crate::{
    engine::decode::{MAX_NAME_CHARS, MAX_TEXT_CHARS, check_value},
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

/// The longest wait for the decision. After it, the response says "undecided".
const VERDICT_WAIT: Duration = Duration::from_secs(2);
/// Time between two reads of the decision.
const VERDICT_POLL: Duration = Duration::from_millis(25);

/// The requested action, once the request's shape is read.
struct Asked {
    kind: ActionKind,
    actor: Option<String>,
    reason: String,
}

/// Defines one endpoint per action: its function, its URL, its request body, and the action that the body stands for.
macro_rules! actions {
    ($($(#[$($doc:tt)*])* $name:ident $url:tt $body:ident => $kind:expr;)*) => {$(
        $(#[$($doc)*])*
        #[utoipa::path(
            post, path = $url, tag = "actions", request_body = $body,
            params(
                ("id" = Uuid, Path),
                ("if-match" = Option<String>, Header, description = "Only if the saga is still at this version"),
            ),
            responses(
                (status = 202, description = "Taken, with the verdict if there is one yet", body = ActionView),
                (status = 404, description = "No such saga", body = Problem, content_type = "application/problem+json"),
                (status = 409, description = "Refused, with the reason and what is legal instead", body = Problem, content_type = "application/problem+json"),
                (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
            )
        )]
        pub async fn $name(
            State(state): State<ApiState>,
            ValidPath(id): ValidPath<Uuid>,
            context: RequestContext,
            headers: HeaderMap,
            ValidJson(request): ValidJson<$body>,
        ) -> ApiResult<Response> {
            let (actor, reason) = (request.actor.clone(), request.reason.clone());
            let kind: fn($body) -> ActionKind = $kind;
            let kind = kind(request);
            ask(&state, id, context, &headers, Asked { kind, actor, reason }).await
        }
    )*};
}

actions! {
    /// Retries the command for which a parked saga needs a person, optionally with a corrected input.
    retry "/sagas/{id}/retry" RetryRequest => |request| ActionKind::Retry {
        step: request.step,
        input: request.input,
    };

    /// Compensates the saga if its pivot is not done, because the business cancels it. If the pivot is in flight, the
    /// decision is `pending` and depends on the pivot's outcome.
    cancel "/sagas/{id}/cancel" ActionRequest => |_request| ActionKind::Cancel;

    /// Compensates the saga if its pivot is not done, because an operator decides so. Otherwise works as `cancel`.
    compensate "/sagas/{id}/compensate" ActionRequest => |_request| ActionKind::Compensate;

    /// Counts a step as done, with a result. The step's participant is asked for the outcome first: if the step was
    /// done, its own result counts. If the participant was asked before without success, the step counts as done at
    /// once, with a warning.
    complete "/sagas/{id}/complete" CompleteRequest => |request| ActionKind::Complete {
        step: request.step,
        result: request.result,
    };

    /// Counts the pivot as not done, and compensates the saga. Legal only if the pivot's participant was asked for the
    /// outcome without success. Gives a warning: if the pivot was done after all, it stays done.
    not_done "/sagas/{id}/not-done" NotDoneRequest => |request| ActionKind::NotDone {
        step: request.step,
    };

    /// Continues without a step, or without a step's compensation. The saga then ends as `abandoned`.
    skip "/sagas/{id}/skip" SkipRequest => |request| ActionKind::Skip {
        step: request.step,
        compensation: request.compensation,
    };

    /// Ends the saga in its current state: no further command is sent for it, and nothing is compensated.
    abandon "/sagas/{id}/abandon" ActionRequest => |_request| ActionKind::Abandon;
}

async fn ask(
    state: &ApiState,
    id: Uuid,
    context: RequestContext,
    headers: &HeaderMap,
    asked: Asked,
) -> ApiResult<Response> {
    let if_version = if_match(headers)?;
    check(&asked)?;
    let found = listing::find(state.store.reporting(), SagaId(id))
        .await?
        .ok_or_else(|| ApiError::no_saga(id))?;
    refuse_ended(&found.instance)?;
    let action = OperatorAction {
        saga_id: SagaId(id),
        action_id: saga_service::clock::new_id(),
        kind: asked.kind,
        actor: asked.actor.unwrap_or_else(|| "http".to_owned()),
        reason: asked.reason,
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
        action = %action.kind.name(),
        saga.step = action.kind.step(),
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
    if !settings.payload_limit.fits(record.payload.len()) {
        let given = field_of_given(&action.kind);
        return Err(ApiError::field(given, "is larger than a message may be"));
    }
    state
        .writer
        .publish(&[record])
        .await
        .map_err(|error| ApiError::unavailable("the action could not be sent", &error))?;
    Ok(())
}

fn check(asked: &Asked) -> ApiResult<()> {
    check_reason(&asked.reason)?;
    check_name("/actor", asked.actor.as_deref())?;
    check_name("/step", asked.kind.step())?;
    if let ActionKind::Retry {
        step: None,
        input: Some(_),
    } = asked.kind
    {
        return Err(ApiError::field("/step", "an input is one step's: name it"));
    }
    match asked.kind.given().map(check_value) {
        Some(Err((_, detail))) => Err(ApiError::field(field_of_given(&asked.kind), detail)),
        Some(Ok(())) | None => Ok(()),
    }
}

/// Checks the reason of a request, which is kept for the audit.
pub fn check_reason(reason: &str) -> ApiResult<()> {
    if reason.trim().is_empty() || reason.chars().count() > MAX_TEXT_CHARS {
        return Err(ApiError::field(
            "/reason",
            format!("must have 1 to {MAX_TEXT_CHARS} characters"),
        ));
    }
    Ok(())
}

/// Checks an optional name, such as an actor's.
pub fn check_name(field: &str, name: Option<&str>) -> ApiResult<()> {
    let Some(name) = name else { return Ok(()) };
    if name.trim().is_empty() || name.chars().count() > MAX_NAME_CHARS {
        let message = format!("must have 1 to {MAX_NAME_CHARS} characters");
        return Err(ApiError::field(field, message));
    }
    Ok(())
}

fn field_of_given(kind: &ActionKind) -> &'static str {
    match kind {
        ActionKind::Retry { .. } => "/input",
        ActionKind::Complete { .. } => "/result",
        ActionKind::Cancel
        | ActionKind::Compensate
        | ActionKind::NotDone { .. }
        | ActionKind::Skip { .. }
        | ActionKind::Abandon => "/reason",
    }
}

/// Reads `If-Match: "<version>"`; the version is that of the saga's `ETag`.
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
        ActionVerdict::Refused {
            code,
            message,
            legal,
        } => Err(ApiError::refused(&code, message, legal)),
        ActionVerdict::Accepted { .. } | ActionVerdict::Pending => Ok(()),
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

fn answer(row: Option<DecidedAction>, asked: OperatorAction) -> ApiResult<Response> {
    let view = match row {
        Some(row) if row.decision == "refused" => {
            let code = row.code.unwrap_or_else(|| "refused".to_owned());
            let message = row.message.unwrap_or_else(|| "refused".to_owned());
            let legal = row.legal.unwrap_or_default();
            return Err(ApiError::refused(&code, message, legal));
        }
        Some(row) => decided(row),
        None => undecided(asked),
    };
    let location = format!("/sagas/{}/actions", view.saga_id);
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(view),
    )
        .into_response())
}

fn undecided(asked: OperatorAction) -> ActionView {
    ActionView {
        id: asked.action_id,
        saga_id: asked.saga_id.0,
        action: asked.kind.name().to_string(),
        step: asked.kind.step().map(str::to_owned),
        given: asked.kind.given().cloned(),
        decision: "undecided".to_owned(),
        code: None,
        message: None,
        legal: Vec::new(),
        actor: asked.actor,
        reason: asked.reason,
        decided_at: None,
        status_before: None,
        status_after: None,
    }
}

/// Makes the view of an action from its audit row.
pub fn decided(row: DecidedAction) -> ActionView {
    ActionView {
        id: row.id,
        saga_id: row.saga_id,
        action: row.action,
        step: row.step,
        given: row.given.map(|given| given.0),
        decision: row.decision,
        code: row.code,
        message: row.message,
        legal: row.legal.unwrap_or_default(),
        actor: row.actor,
        reason: row.reason,
        decided_at: Some(row.decided_at),
        status_before: row.status_before,
        status_after: row.status_after,
    }
}

//! `GET /definitions`, and the endpoints that change which version of a definition new sagas take.

use super::{
    ApiState,
    action::{check_name, check_reason},
    error::{ApiError, ApiResult},
    model::{
        DefinitionActionList, DefinitionActionRequest, DefinitionActionView, DefinitionList,
        DefinitionQuery, DefinitionStepView, DefinitionView, VersionView, WithdrawnView,
    },
    view,
};
use crate::{
    engine::saga_store::DefinitionStore,
    registry::{Catalog, Choice, Current, Registered, that_runs},
    store::definition::{self, DefinitionAction},
};
use axum::{Json, extract::State, http::StatusCode};
use saga_core::definition::SagaDefinition;
use saga_service::http::{Problem, RequestContext, ValidJson, ValidPath, ValidQuery};
use std::sync::Arc;
use tracing::info;

/// Lists every definition in the version that new sagas take, or in the highest if every version is withdrawn.
#[utoipa::path(
    get, path = "/definitions", operation_id = "list_definitions", tag = "definitions",
    responses((status = 200, description = "By name", body = DefinitionList))
)]
pub async fn list(State(state): State<ApiState>) -> ApiResult<Json<DefinitionList>> {
    let catalog = read(&state).await?;
    let definitions = catalog
        .by_name()
        .into_values()
        .filter_map(|versions| {
            let shown = shown(&versions, None)?;
            let definition = shown.definition.as_ref().ok()?;
            Some(describe(definition, &versions))
        })
        .collect();
    Ok(Json(DefinitionList { definitions }))
}

/// Returns one definition.
#[utoipa::path(
    get, path = "/definitions/{name}", operation_id = "get_definition", tag = "definitions",
    params(("name" = String, Path), DefinitionQuery),
    responses(
        (status = 200, description = "The version that new sagas take, or the one asked for", body = DefinitionView),
        (status = 404, description = "No such definition", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    ValidPath(name): ValidPath<String>,
    ValidQuery(query): ValidQuery<DefinitionQuery>,
) -> ApiResult<Json<DefinitionView>> {
    find(&read(&state).await?, &name, query.version).map(Json)
}

/// Lists the withdrawals and restorations of a definition's versions: by whom, when and why.
#[utoipa::path(
    get, path = "/definitions/{name}/actions", operation_id = "definition_actions", tag = "definitions",
    params(("name" = String, Path)),
    responses((status = 200, description = "Newest first", body = DefinitionActionList))
)]
pub async fn actions(
    State(state): State<ApiState>,
    ValidPath(name): ValidPath<String>,
) -> ApiResult<Json<DefinitionActionList>> {
    let rows = definition::actions(state.store.reporting(), &name).await?;
    let actions = rows
        .into_iter()
        .map(
            |(version, action, actor, reason, at)| DefinitionActionView {
                version: version.cast_unsigned(),
                action,
                actor,
                reason,
                at,
            },
        )
        .collect();
    Ok(Json(DefinitionActionList { actions }))
}

/// Withdraws one version, or every version: new sagas do not take it any more. They take the next lower version that is
/// not withdrawn; if there is none, starts are refused with `definition_withdrawn`. Live sagas continue. A second
/// withdrawal does nothing.
#[utoipa::path(
    post, path = "/definitions/{name}/withdraw", operation_id = "withdraw_definition", tag = "definitions",
    request_body = DefinitionActionRequest, params(("name" = String, Path)),
    responses(
        (status = 200, description = "The definition as it is now", body = DefinitionView),
        (status = 404, description = "No such definition or version", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn withdraw(
    State(state): State<ApiState>,
    ValidPath(name): ValidPath<String>,
    context: RequestContext,
    ValidJson(request): ValidJson<DefinitionActionRequest>,
) -> ApiResult<Json<DefinitionView>> {
    decide(&state, name, context, request, true).await
}

/// Restores one version, or every version: new sagas may take it again. A second restoration does nothing.
#[utoipa::path(
    post, path = "/definitions/{name}/restore", operation_id = "restore_definition", tag = "definitions",
    request_body = DefinitionActionRequest, params(("name" = String, Path)),
    responses(
        (status = 200, description = "The definition as it is now", body = DefinitionView),
        (status = 404, description = "No such definition or version", body = Problem, content_type = "application/problem+json"),
        (status = 422, description = "A field is wrong", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn restore(
    State(state): State<ApiState>,
    ValidPath(name): ValidPath<String>,
    context: RequestContext,
    ValidJson(request): ValidJson<DefinitionActionRequest>,
) -> ApiResult<Json<DefinitionView>> {
    decide(&state, name, context, request, false).await
}

async fn decide(
    state: &ApiState,
    name: String,
    context: RequestContext,
    request: DefinitionActionRequest,
    withdraw: bool,
) -> ApiResult<Json<DefinitionView>> {
    check_reason(&request.reason)?;
    check_name("/actor", request.actor.as_deref())?;
    let action = DefinitionAction {
        name,
        version: request.version,
        withdraw,
        actor: request.actor.unwrap_or_else(|| "http".to_owned()),
        reason: request.reason,
        correlation_id: context.correlation_id,
    };
    let changed = definition::decide(state.store.pool(), &action)
        .await?
        .ok_or_else(|| unknown(&action.name, action.version))?;
    info!(
        definition = action.name,
        versions = ?changed,
        actor = action.actor,
        reason = action.reason,
        correlation.id = action.correlation_id,
        "versions are {}",
        if withdraw { "withdrawn" } else { "restored" }
    );
    let catalog = read(state).await?;
    let answer = find(&catalog, &action.name, None).map(Json);
    state.shared.learn(catalog);
    answer
}

async fn read(state: &ApiState) -> ApiResult<Catalog> {
    let catalog = state.store.catalog().await;
    catalog.map_err(|error| ApiError::unavailable("the definitions cannot be read now", &error))
}

/// Reads all registered definitions, including those of other processes, and holds them in memory.
pub async fn learn(state: &ApiState) -> ApiResult<Arc<Current>> {
    Ok(state.shared.learn(read(state).await?))
}

/// Returns the definition that a new saga takes, with its generation. If the definition does not run by what this
/// process knows, the database is read before the start is refused.
pub async fn choose(
    state: &ApiState,
    name: &str,
) -> ApiResult<(Arc<Current>, Arc<SagaDefinition>)> {
    let mut current = state.shared.registry.current();
    if !matches!(current.choose(name), Some(Choice::Runs(_))) {
        current = learn(state).await?;
    }
    match current.choose(name) {
        Some(Choice::Runs(definition)) => {
            let definition = Arc::clone(definition);
            Ok((current, definition))
        }
        Some(Choice::Withdrawn { why, .. }) => Err(ApiError::new(
            StatusCode::CONFLICT,
            "definition_withdrawn",
            why.clone(),
        )),
        Some(Choice::Unreadable(why)) => Err(ApiError::busy(why, 60)),
        None => Err(ApiError::field(
            "/definition",
            "no definition of this name is registered",
        )),
    }
}

fn unknown(name: &str, version: Option<u32>) -> ApiError {
    let version = version.map_or_else(String::new, |version| format!(" version {version}"));
    let detail = format!("no definition '{name}'{version} is registered");
    ApiError::new(StatusCode::NOT_FOUND, "unknown_definition", detail)
}

/// Returns the requested version, or else the one that new sagas take, or else the highest.
fn shown<'a>(versions: &[&'a Registered], asked: Option<u32>) -> Option<&'a Registered> {
    match asked {
        Some(asked) => versions.iter().copied().find(|one| one.version == asked),
        None => that_runs(versions.iter().copied()).or_else(|| versions.first().copied()),
    }
}

fn find(catalog: &Catalog, name: &str, version: Option<u32>) -> ApiResult<DefinitionView> {
    let mut names = catalog.by_name();
    let versions = names.remove(name).unwrap_or_default();
    let shown = shown(&versions, version).ok_or_else(|| unknown(name, version))?;
    match &shown.definition {
        Ok(definition) => Ok(describe(definition, &versions)),
        Err(_why) => Err(ApiError::busy(
            "this release cannot read the stored definition",
            60,
        )),
    }
}

fn version(one: &Registered) -> VersionView {
    VersionView {
        version: one.version,
        hash: one.hash.0.clone(),
        registered_at: one.registered_at,
        withdrawn: one.withdrawn.as_ref().map(|by| WithdrawnView {
            at: by.at,
            actor: by.actor.clone(),
            reason: by.reason.clone(),
        }),
    }
}

fn describe(definition: &SagaDefinition, versions: &[&Registered]) -> DefinitionView {
    let name_of = |index: &usize| definition.steps.get(*index).map(|step| step.name.clone());
    DefinitionView {
        name: definition.name.clone(),
        version: definition.version,
        hash: definition.hash.0.clone(),
        deadline_ms: definition.deadline_ms,
        steps: definition
            .steps
            .iter()
            .map(|step| DefinitionStepView {
                name: step.name.clone(),
                kind: view::kind(step.kind).to_owned(),
                participant: step.participant.clone(),
                command: step.action.as_ref().map(|spec| spec.command_type.clone()),
                compensation: step
                    .compensation
                    .as_ref()
                    .map(|spec| spec.command_type.clone()),
                after: step.after.iter().filter_map(name_of).collect(),
            })
            .collect(),
        document: definition.document.clone(),
        runs: that_runs(versions.iter().copied()).map(|one| one.version),
        versions: versions.iter().copied().map(version).collect(),
    }
}

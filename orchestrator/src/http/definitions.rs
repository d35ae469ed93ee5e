//! `GET /definitions`.

use super::{
    ApiState,
    error::{ApiError, ApiResult},
    model::{DefinitionList, DefinitionQuery, DefinitionStepView, DefinitionView},
    view,
};
use crate::store::definition::versions;
use axum::{Json, extract::State, http::StatusCode};
use saga_core::definition::{DefinitionHash, SagaDefinition};
use saga_service::http::{Problem, ValidPath, ValidQuery};

/// The newest version of every definition.
#[utoipa::path(
    get, path = "/definitions", operation_id = "list_definitions", tag = "definitions",
    responses((status = 200, description = "By name", body = DefinitionList))
)]
pub async fn list(State(state): State<ApiState>) -> Json<DefinitionList> {
    let latest = state.shared.registry.all_latest();
    Json(DefinitionList {
        definitions: latest
            .iter()
            .map(|definition| describe(definition, Vec::new()))
            .collect(),
    })
}

/// One definition.
#[utoipa::path(
    get, path = "/definitions/{name}", operation_id = "get_definition", tag = "definitions",
    params(("name" = String, Path), DefinitionQuery),
    responses(
        (status = 200, description = "The newest version, or the one asked for", body = DefinitionView),
        (status = 404, description = "No such definition", body = Problem, content_type = "application/problem+json"),
    )
)]
pub async fn get(
    State(state): State<ApiState>,
    ValidPath(name): ValidPath<String>,
    ValidQuery(query): ValidQuery<DefinitionQuery>,
) -> ApiResult<Json<DefinitionView>> {
    let unknown = || {
        let detail = format!("no such definition '{name}' is registered");
        ApiError::new(StatusCode::NOT_FOUND, "unknown_definition", detail)
    };
    let rows = versions(state.store.reporting(), &name).await?;
    let all = rows
        .iter()
        .map(|(version, ..)| version.cast_unsigned())
        .collect();
    let (_, hash, document) = rows
        .into_iter()
        .find(|(version, ..)| {
            query
                .version
                .is_none_or(|asked| asked == version.cast_unsigned())
        })
        .ok_or_else(unknown)?;
    let hash = DefinitionHash(hash);
    if let Some(held) = state.shared.registry.by_hash(&hash) {
        return Ok(Json(describe(&held, all)));
    }
    match SagaDefinition::from_document(&document) {
        Ok(definition) => Ok(Json(describe(&SagaDefinition { hash, ..definition }, all))),
        Err(_faults) => Err(ApiError::busy("the stored definition cannot be read", 60)),
    }
}

fn describe(definition: &SagaDefinition, versions: Vec<u32>) -> DefinitionView {
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
        versions,
    }
}

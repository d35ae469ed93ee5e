//! JSON types of the API. Keys are camelCase, instants RFC 3339 in UTC.

use chrono::{DateTime, Utc};
use saga_core::instance::LifecycleEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// Body of `POST /sagas`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRequest {
    /// Name of a registered definition. Its highest version that is not withdrawn is used.
    pub definition: String,
    /// The business's name for the saga, such as an order number; at most 200 characters.
    #[serde(default)]
    pub business_key: Option<String>,
    /// A JSON object, to which the definition's steps refer. It must match the schema that the definition may declare
    /// (`document.input.schema` of `GET /definitions/{name}`), and have no integer beyond 64 bits.
    #[schema(value_type = Object)]
    pub input: Value,
}

/// The start is durable; the saga begins when the orchestrator consumes its start.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartAccepted {
    pub id: Uuid,
    pub definition: String,
    pub business_key: Option<String>,
}

/// Body of `POST /sagas/{id}/cancel`, `/compensate` and `/abandon`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActionRequest {
    /// Reason for the audit and for the saga's cause; 1 to 2000 characters.
    pub reason: String,
    /// Name of the person who asks; `http` if left out.
    #[serde(default)]
    pub actor: Option<String>,
}

/// Body of `POST /sagas/{id}/retry`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    /// Retries only this step's command. If left out, every command that needs a person is retried.
    #[serde(default)]
    pub step: Option<String>,
    /// Sent instead of the input that the definition makes, from this attempt on. Requires `step`.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub input: Option<Value>,
}

/// Body of `POST /sagas/{id}/complete`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    pub step: String,
    /// Used by later steps as the step's result; `null` if left out.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub result: Value,
}

/// Body of `POST /sagas/{id}/not-done`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NotDoneRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    /// Name of the saga's pivot.
    pub step: String,
}

/// Body of `POST /sagas/{id}/skip`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkipRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    pub step: String,
    /// Skips the step's compensation, while the saga is compensating.
    #[serde(default)]
    pub compensation: bool,
}

/// An operator's action and its decision.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionView {
    pub id: Uuid,
    pub saga_id: Uuid,
    /// `retry`, `cancel`, `compensate`, `complete`, `not_done`, `skip` or `abandon`.
    pub action: String,
    /// The step, if the action is on one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The corrected input of a `retry`, or the result of a `complete`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub given: Option<Value>,
    /// `accepted`, `pending` (an outcome is being asked for, and decides), `refused`, or `undecided` (requested, but
    /// not consumed yet).
    pub decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The actions that are legal instead, if this one was refused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub legal: Vec<String>,
    pub actor: String,
    pub reason: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub decided_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_before: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status_after: Option<String>,
}

/// Query of `GET /sagas`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ListQuery {
    /// `running`, `compensating`, `parked`, `completed`, `compensated` or `abandoned`.
    pub status: Option<String>,
    /// Name of the participant that sagas wait for.
    pub waiting_on: Option<String>,
    pub business_key: Option<String>,
    pub definition: Option<String>,
    /// `nextCursor` of the previous page.
    pub cursor: Option<Uuid>,
    /// Number of sagas on the page: 1 to 200, 50 if left out.
    pub limit: Option<i64>,
}

/// A page of sagas, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaPage {
    pub sagas: Vec<SagaSummary>,
    /// The `cursor` of the next page; absent on the last page.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Uuid>,
}

/// One saga of a listing.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaSummary {
    pub id: Uuid,
    pub definition: String,
    pub definition_version: u32,
    pub status: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    pub correlation_id: String,
    pub started_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// The reason why a live saga waits.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<WaitingView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// The reason why a saga waits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// `reply`, `queued`, `backoff`, `resolve`, `person` or `nothing`.
    pub kind: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    pub since: DateTime<Utc>,
    /// The time when the saga continues by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
    /// A sentence that describes the wait.
    pub text: String,
}

/// A fault or a cause, with a code for programs and a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

/// One saga with all its steps.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaView {
    pub id: Uuid,
    pub definition: String,
    pub definition_version: u32,
    pub definition_hash: String,
    /// `running`, `compensating`, `parked`, `completed`, `compensated` or `abandoned`.
    pub status: String,
    /// The reason why the saga needs a person.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<FaultView>,
    /// The reason why an operator abandoned the saga, or skipped one of its compensations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
    /// The reason why the saga compensates: the first failure, the deadline, or an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<FaultView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    pub correlation_id: String,
    /// Rises with every event. It is the `ETag`, and is compared with `If-Match`.
    pub version: u64,
    pub home_partition: i32,
    pub started_at: DateTime<Utc>,
    pub deadline_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    pub waiting_on: WaitingView,
    /// The actions that are legal now, the mildest first. Any other action would be refused.
    pub legal_actions: Vec<LegalActionView>,
    #[schema(value_type = Object)]
    pub input: Value,
    pub steps: Vec<StepView>,
}

/// An action that would not be refused now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegalActionView {
    /// Name of the action, and the last segment of its URL.
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// True for a skip that skips the step's compensation.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compensation: bool,
    /// True if the decision is made only once an outcome is known, which is asked for first.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub pending: bool,
}

/// One step of a saga.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StepView {
    pub name: String,
    /// `compensatable`, `pivot` or `retriable`.
    pub kind: String,
    pub participant: String,
    /// `waiting`, `running`, `resolving`, `succeeded`, `failed`, `not_done`, `unknown`, `compensating`, `compensated`,
    /// `compensation_skipped` or `skipped`.
    pub state: String,
    /// True if the starter of the saga has done this step. It then has no forward attempts.
    pub done_by_starter: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// The reason why the step failed or is being retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    /// Every command that was sent for the step, oldest first.
    pub attempts: Vec<AttemptView>,
}

/// One command that was sent.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct AttemptView {
    /// `forward`, `compensation` or `resolve`.
    pub direction: String,
    pub attempt: u32,
    pub command: String,
    pub sent_at: DateTime<Utc>,
    /// The time when the orchestrator saw that the participant had not consumed the command yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<DateTime<Utc>>,
    /// The time when the orchestrator noted that the participant had consumed the command. It notes this when the
    /// step's timeout would pass, so a command that is answered in time has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub picked_up_at: Option<DateTime<Utc>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    /// `success`, `failure`, `error`, `timed_out` or `not_done`; absent while there is no answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<DateTime<Utc>>,
}

/// The log of a saga, oldest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Timeline {
    pub saga_id: Uuid,
    pub events: Vec<LifecycleEvent>,
}

/// The actions that were requested for a saga, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionList {
    pub actions: Vec<ActionView>,
}

/// A registered definition.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionView {
    pub name: String,
    pub version: u32,
    pub hash: String,
    pub deadline_ms: u64,
    pub steps: Vec<DefinitionStepView>,
    /// The definition as it was registered.
    #[schema(value_type = Object)]
    pub document: Value,
    /// The version that new sagas take; left out if every version is withdrawn.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// All registered versions, newest first.
    pub versions: Vec<VersionView>,
}

/// A registered version of a definition.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct VersionView {
    pub version: u32,
    pub hash: String,
    pub registered_at: DateTime<Utc>,
    /// The withdrawal: new sagas do not take this version, and live sagas continue.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub withdrawn: Option<WithdrawnView>,
}

/// The withdrawal of a version: by whom, when and why.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WithdrawnView {
    pub at: DateTime<Utc>,
    pub actor: String,
    pub reason: String,
}

/// Body of `POST /definitions/{name}/withdraw` and `/restore`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DefinitionActionRequest {
    /// The version to change; every version if left out.
    #[serde(default)]
    pub version: Option<u32>,
    /// Reason for the audit, and for clients whose starts are refused; 1 to 2000 characters.
    pub reason: String,
    /// Name of the person who asks; `http` if left out.
    #[serde(default)]
    pub actor: Option<String>,
}

/// A withdrawal or restoration of a version.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionActionView {
    pub version: u32,
    /// `withdrawn` or `restored`.
    pub action: String,
    pub actor: String,
    pub reason: String,
    pub at: DateTime<Utc>,
}

/// The withdrawals and restorations of a definition's versions, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionActionList {
    pub actions: Vec<DefinitionActionView>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionStepView {
    pub name: String,
    pub kind: String,
    pub participant: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub command: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub compensation: Option<String>,
    /// Names of the steps that this step waits for.
    pub after: Vec<String>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct DefinitionList {
    pub definitions: Vec<DefinitionView>,
}

/// Query of `GET /definitions/{name}`.
#[derive(Clone, Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct DefinitionQuery {
    /// The version to return. If left out, the version that new sagas take, or the highest if every version is
    /// withdrawn.
    pub version: Option<u32>,
}

/// The system at a glance.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Overview {
    pub at: DateTime<Utc>,
    /// Live sagas by status.
    pub live: Vec<StatusCount>,
    /// Sagas begun in the last hour that have ended, by status; the newest 100,000 are counted.
    pub ended: Vec<StatusCount>,
    /// Live sagas by the participant that they wait for.
    pub waiting: Vec<WaitingCount>,
    /// Records that the consumer groups have not consumed yet; `null` while offsets cannot be read.
    pub lags: Vec<Lag>,
    pub retention: RetentionView,
}

/// The state of retention: how far history reaches back, and which sagas hold it back.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionView {
    /// All sagas that began before this time have ended. Their history is dropped a partition at a time, and
    /// participants refuse their commands.
    pub floor: DateTime<Utc>,
    /// Starts of sagas that began before this time are refused.
    pub starts_from: DateTime<Utc>,
    /// Live sagas that began before `startsFrom`, 10,000 at most. The floor cannot pass them until they end or are
    /// abandoned.
    pub overaged: i64,
    /// The oldest ten of the overaged sagas.
    pub oldest_overaged: Vec<Uuid>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StatusCount {
    pub status: String,
    pub count: i64,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct WaitingCount {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub participant: Option<String>,
    pub kind: String,
    pub count: i64,
    pub longest_since: DateTime<Utc>,
}

#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lag {
    pub topic: String,
    pub group: String,
    pub records: Option<i64>,
}

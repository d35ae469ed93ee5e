//! What the API says, as JSON. Keys are camelCase, instants RFC 3339 in UTC.

use chrono::{DateTime, Utc};
use saga_core::instance::LifecycleEvent;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use uuid::Uuid;

/// `POST /sagas`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StartRequest {
    /// Name of a registered definition; its highest version is taken.
    pub definition: String,
    /// What people call it, such as an order number; at most 200 characters.
    #[serde(default)]
    pub business_key: Option<String>,
    /// A JSON object, which the definition's steps refer to.
    #[schema(value_type = Object)]
    pub input: Value,
}

/// The start is durable; the saga begins as soon as its start is read.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct StartAccepted {
    pub id: Uuid,
    pub definition: String,
    pub business_key: Option<String>,
}

/// `POST /sagas/{id}/cancel`, `/compensate` and `/abandon`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ActionRequest {
    /// For the audit and for the saga's cause; 1 to 2000 characters.
    pub reason: String,
    /// Who asks; `http` if left out.
    #[serde(default)]
    pub actor: Option<String>,
}

/// `POST /sagas/{id}/retry`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RetryRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    /// Only this step's command; if left out, whatever of the saga waits for a person.
    #[serde(default)]
    pub step: Option<String>,
    /// Sent instead of what the definition makes, from this attempt on; needs `step`.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub input: Option<Value>,
}

/// `POST /sagas/{id}/complete`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CompleteRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    pub step: String,
    /// What later steps find as the step's result; `null` if left out.
    #[serde(default)]
    #[schema(value_type = Option<Value>)]
    pub result: Value,
}

/// `POST /sagas/{id}/skip`.
#[derive(Clone, Debug, Deserialize, ToSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SkipRequest {
    pub reason: String,
    #[serde(default)]
    pub actor: Option<String>,
    pub step: String,
    /// The step's compensation is skipped, while the saga goes back.
    #[serde(default)]
    pub compensation: bool,
}

/// An operator's action and what became of it.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct ActionView {
    pub id: Uuid,
    pub saga_id: Uuid,
    /// `retry`, `cancel`, `compensate`, `complete`, `skip` or `abandon`.
    pub action: String,
    /// Of an action on one step.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The corrected input of a retry, or the result of a complete.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Value>)]
    pub given: Option<Value>,
    /// `accepted`, `pending` (an outcome is being asked for, which decides), `refused`, or `undecided` (asked for, not yet
    /// read).
    pub decision: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Of a refused one: what could have been asked for instead.
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
    /// `nextCursor` of the page before.
    pub cursor: Option<Uuid>,
    /// 1 to 200, 50 if left out.
    pub limit: Option<i64>,
}

/// A page of sagas, newest first.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaPage {
    pub sagas: Vec<SagaSummary>,
    /// Ask with it for the next page; absent on the last.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_cursor: Option<Uuid>,
}

/// One line of a listing.
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
    /// Of a live saga.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waiting_on: Option<WaitingView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

/// Why a saga is not moving.
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
    /// When it moves by itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub next_at: Option<DateTime<Utc>>,
    /// In plain words.
    pub text: String,
}

/// A fault or a cause: a code for programs, a message for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct FaultView {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    pub code: String,
    pub message: String,
}

/// One saga, whole.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct SagaView {
    pub id: Uuid,
    pub definition: String,
    pub definition_version: u32,
    pub definition_hash: String,
    /// `running`, `compensating`, `parked`, `completed`, `compensated` or `abandoned`.
    pub status: String,
    /// Why a person is needed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parked: Option<FaultView>,
    /// Why an operator abandoned it, or skipped one of its compensations.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub abandoned: Option<String>,
    /// What made it turn round: the first failure, the deadline, or an operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cause: Option<FaultView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub business_key: Option<String>,
    pub correlation_id: String,
    /// Rises with every event; the `ETag`, and what `If-Match` compares.
    pub version: u64,
    pub home_partition: i32,
    pub started_at: DateTime<Utc>,
    pub deadline_at: DateTime<Utc>,
    pub changed_at: DateTime<Utc>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<DateTime<Utc>>,
    pub waiting_on: WaitingView,
    /// What may be asked of it now, the mildest first; anything else would be refused.
    pub legal_actions: Vec<LegalActionView>,
    #[schema(value_type = Object)]
    pub input: Value,
    pub steps: Vec<StepView>,
}

/// An action that would not be refused now.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct LegalActionView {
    /// Also the last segment of its URL.
    pub action: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Of a skip: it is the step's compensation that would be skipped.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub compensation: bool,
    /// It would be decided only once an outcome is known, which is asked for first.
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
    /// Done by whoever started the saga; it has no forward attempts.
    pub done_by_starter: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<Object>)]
    pub result: Option<Value>,
    /// Why it failed or is being retried.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fault: Option<FaultView>,
    /// Every command sent for it, oldest first.
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
    /// When it was seen that its participant had not consumed it yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub queued_at: Option<DateTime<Utc>>,
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

/// The actions asked for of a saga, newest first.
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
    /// As it was registered.
    #[schema(value_type = Object)]
    pub document: Value,
    /// All registered versions, newest first.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub versions: Vec<u32>,
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
    /// Names of the steps it waits for.
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
    /// The highest if left out.
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
    /// Live sagas by whom they wait for.
    pub waiting: Vec<WaitingCount>,
    /// Records that the groups have not consumed yet; `null` while offsets cannot be read.
    pub lags: Vec<Lag>,
    pub retention: RetentionView,
}

/// What is forgotten, and what keeps more from being forgotten.
#[derive(Clone, Debug, Serialize, ToSchema)]
#[serde(rename_all = "camelCase")]
pub struct RetentionView {
    /// Sagas that began before it have ended, and are forgotten a partition at a time; participants refuse their commands.
    pub floor: DateTime<Utc>,
    /// Sagas that began before it are not started any more.
    pub starts_from: DateTime<Utc>,
    /// Live sagas that began before `startsFrom`, 10,000 at most: the floor cannot pass them until they end or are
    /// abandoned.
    pub overaged: i64,
    /// The oldest ten of them.
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

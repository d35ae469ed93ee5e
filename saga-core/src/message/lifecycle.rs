//! `saga.events`: every state change of every saga, as CloudEvents with a gapless sequence a saga.

use super::{
    Trace,
    record::{Headers, OutgoingRecord, header},
};
use crate::{
    ids::SagaId,
    instance::{LifecycleEvent, SagaInstance},
};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// One lifecycle event with what a reader of the topic needs to tell sagas apart.
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct LifecycleMessage<'a> {
    pub saga_id: SagaId,
    pub definition: Cow<'a, str>,
    pub definition_version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub business_key: Option<Cow<'a, str>>,
    pub correlation_id: Cow<'a, str>,
    #[serde(flatten)]
    pub event: Cow<'a, LifecycleEvent>,
}

impl<'a> LifecycleMessage<'a> {
    /// Borrowed, to be written.
    pub fn of(saga: &'a SagaInstance, event: &'a LifecycleEvent) -> Self {
        Self {
            saga_id: saga.id,
            definition: Cow::Borrowed(&saga.definition),
            definition_version: saga.definition_version,
            business_key: saga.business_key.as_deref().map(Cow::Borrowed),
            correlation_id: Cow::Borrowed(&saga.trace.correlation_id),
            event: Cow::Borrowed(event),
        }
    }

    /// `<saga>/event/<sequence>`: the same event has the same id however often it is sent.
    pub fn id(&self) -> String {
        format!("{}/event/{}", self.saga_id, self.event.sequence)
    }

    pub fn encode(&self, topic: &str, source: &str, trace: &Trace) -> OutgoingRecord {
        let kind = format!("saga.{}", self.event.kind.name());
        let mut headers = Headers::cloud_event(
            &self.id(),
            &kind,
            source,
            self.event.at,
            self.saga_id,
            trace,
        );
        headers.set(header::SEQUENCE, &self.event.sequence.to_string());
        headers.set(header::DEFINITION, &self.definition);
        if let Some(key) = &self.business_key {
            headers.set(header::CE_SUBJECT, key);
        }
        OutgoingRecord {
            topic: topic.to_owned(),
            partition: None,
            key: self.saga_id.to_string().into_bytes(),
            headers: headers.into_inner(),
            payload: serde_json::to_vec(self).unwrap_or_else(|_| b"null".to_vec()),
        }
    }
}

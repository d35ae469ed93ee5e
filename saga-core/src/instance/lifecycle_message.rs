//! Messages of `saga.events`: every state change of every saga, as CloudEvents. Each saga's sequence has no gaps.

use super::{LifecycleEvent, SagaInstance};
use crate::{
    ids::SagaId,
    message::{
        OutgoingRecord, Trace, header,
        record::{cloud_event, json},
    },
};
use serde::{Deserialize, Serialize};
use std::{
    borrow::Cow,
    fmt::{self, Display},
};

/// One lifecycle event, with the saga that it belongs to.
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
    /// Borrows the parts of a message that is to be written.
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

    /// Returns `<saga>/event/<sequence>`: the same event has the same id however often it is sent.
    pub fn id(&self) -> String {
        self.shown_id().to_string()
    }

    fn shown_id(&self) -> impl Display {
        fmt::from_fn(|f| write!(f, "{}/event/{}", self.saga_id, self.event.sequence))
    }

    pub fn encode(&self, topic: &str, source: &str, trace: &Trace) -> OutgoingRecord {
        let mut headers = cloud_event(
            self.shown_id(),
            format_args!("saga.{}", self.event.kind.name()),
            source,
            self.event.at,
            self.saga_id,
            trace,
        );
        headers.push_shown(header::SEQUENCE, self.event.sequence);
        headers.push(header::DEFINITION, &*self.definition);
        if let Some(key) = &self.business_key {
            headers.push(header::CE_SUBJECT, &**key);
        }
        OutgoingRecord {
            topic: topic.to_owned(),
            partition: None,
            key: self.saga_id.to_string().into_bytes(),
            headers,
            payload: json(self),
        }
    }
}

//! Reads from the orchestrator over HTTP: a saga's events, and the floor of starts. Orders can be shown and cancelled
//! without them, so every problem here is a result and not an error.

use chrono::{DateTime, Utc};
use saga_core::ids::SagaId;
use serde_json::Value;
use std::time::Duration;
use tracing::debug;
use uuid::Uuid;

/// The time limit of a request. It bounds how much longer a caller waits for an order's events.
const TIMEOUT: Duration = Duration::from_secs(2);
/// The maximum size of the orchestrator's answer. A saga's log is bounded, so a longer answer is not a saga's log.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// The orchestrator's answer about a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum SagaEvents {
    /// The saga's events, in the orchestrator's format.
    Available(Vec<Value>),
    /// The orchestrator does not know the saga: it has not read the saga's start yet.
    NotStarted,
    /// The orchestrator cannot be reached, or its answer is not usable.
    Unavailable,
}

#[derive(Clone, Debug)]
pub struct SagaLog {
    client: reqwest::Client,
    base: String,
}

impl SagaLog {
    pub fn new(orchestrator_url: &str) -> Result<Self, reqwest::Error> {
        // The client requires a default crypto provider even for plain HTTP. An error means that a provider is already
        // installed.
        drop(rustls::crypto::ring::default_provider().install_default());
        Ok(Self {
            client: reqwest::Client::builder()
                .timeout(TIMEOUT)
                .redirect(reqwest::redirect::Policy::none())
                .no_proxy()
                .build()?,
            base: orchestrator_url.trim_end_matches('/').to_owned(),
        })
    }

    pub async fn of_saga(&self, id: Uuid, correlation_id: &str) -> SagaEvents {
        match self
            .get(&format!("/sagas/{id}/events"), correlation_id)
            .await
        {
            Answer::Body(body) => parse(&body),
            Answer::NotFound => SagaEvents::NotStarted,
            Answer::Unavailable => SagaEvents::Unavailable,
        }
    }

    /// Returns the orchestrator's floor of starts if the saga is unknown there and older than that floor: its start
    /// would be dead-lettered (`below_floor`). Returns `None` also if the orchestrator cannot be asked.
    pub async fn floor_above(&self, id: Uuid, correlation_id: &str) -> Option<DateTime<Utc>> {
        if self.of_saga(id, correlation_id).await != SagaEvents::NotStarted {
            return None;
        }
        let Answer::Body(body) = self.get("/overview", correlation_id).await else {
            return None;
        };
        let overview: Value = serde_json::from_slice(&body).ok()?;
        let floor = overview.pointer("/retention/startsFrom")?.as_str()?;
        let floor = DateTime::parse_from_rfc3339(floor).ok()?.to_utc();
        let created_ms = SagaId(id).created_at_ms()?;
        (created_ms < floor.timestamp_millis()).then_some(floor)
    }

    async fn get(&self, path: &str, correlation_id: &str) -> Answer {
        match self.fetch(path, correlation_id).await {
            Ok(answer) => answer,
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    url.path = path,
                    correlation.id = correlation_id,
                    "the orchestrator could not be read"
                );
                Answer::Unavailable
            }
        }
    }

    async fn fetch(&self, path: &str, correlation_id: &str) -> Result<Answer, reqwest::Error> {
        let mut response = self
            .client
            .get(format!("{}{path}", self.base))
            .header("accept", "application/json")
            .header("x-correlation-id", correlation_id)
            .send()
            .await?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(Answer::NotFound);
        }
        if !response.status().is_success() {
            return Ok(Answer::Unavailable);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Ok(Answer::Unavailable);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(Answer::Body(body))
    }
}

/// An answer of the orchestrator's HTTP API.
enum Answer {
    Body(Vec<u8>),
    NotFound,
    Unavailable,
}

/// Parses the events, which are an array or the member `events` of an object.
fn parse(body: &[u8]) -> SagaEvents {
    let events = match serde_json::from_slice(body) {
        Ok(Value::Array(events)) => Some(events),
        Ok(Value::Object(mut object)) => match object.remove("events") {
            Some(Value::Array(events)) => Some(events),
            Some(_) | None => None,
        },
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => None,
    };
    events.map_or(SagaEvents::Unavailable, SagaEvents::Available)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_list_of_events_is_a_story() {
        let told = SagaEvents::Available(vec![json!({"type": "started"})]);
        assert_eq!(parse(br#"[{"type": "started"}]"#), told);
        assert_eq!(parse(br#"{"events": [{"type": "started"}]}"#), told);
        for other in ["", "null", "7", "{}", "<html>"] {
            assert_eq!(parse(other.as_bytes()), SagaEvents::Unavailable);
        }
    }

    #[tokio::test]
    async fn an_unreachable_orchestrator_is_no_error() {
        let log = SagaLog::new("http://127.0.0.1:9/").expect("client");
        assert_eq!(
            log.of_saga(Uuid::from_u128(1), "c").await,
            SagaEvents::Unavailable
        );
    }
}

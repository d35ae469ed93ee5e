//! The orchestrator's side of an order's story, asked for over HTTP. An order can be told of without it, so whatever
//! goes wrong here is an answer, not an error.

use serde_json::Value;
use std::time::Duration;
use tracing::debug;
use uuid::Uuid;

/// A caller waits for the whole story at most this much longer.
const TIMEOUT: Duration = Duration::from_secs(2);
/// A saga's log is bounded; more than this is not one.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// What the orchestrator says of a saga.
#[derive(Clone, Debug, PartialEq)]
pub enum SagaStory {
    /// Its events, in the orchestrator's own words.
    Told(Vec<Value>),
    /// It has not read the saga's start yet.
    NotStarted,
    /// It cannot be asked now.
    Unavailable,
}

#[derive(Clone, Debug)]
pub struct SagaLog {
    client: reqwest::Client,
    base: String,
}

impl SagaLog {
    pub fn new(orchestrator_url: &str) -> Result<Self, reqwest::Error> {
        // The client asks for a choice even where it only speaks plain HTTP; an error says that it was made already.
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

    pub async fn of_saga(&self, id: Uuid, correlation_id: &str) -> SagaStory {
        match self.fetch(id, correlation_id).await {
            Ok(story) => story,
            Err(error) => {
                debug!(
                    error = &error as &dyn std::error::Error,
                    saga.id = %id,
                    correlation.id = correlation_id,
                    "the orchestrator cannot be asked"
                );
                SagaStory::Unavailable
            }
        }
    }

    async fn fetch(&self, id: Uuid, correlation_id: &str) -> Result<SagaStory, reqwest::Error> {
        let mut response = self
            .client
            .get(format!("{}/sagas/{id}/events", self.base))
            .header("accept", "application/json")
            .header("x-correlation-id", correlation_id)
            .send()
            .await?;
        if response.status() == reqwest::StatusCode::NOT_FOUND {
            return Ok(SagaStory::NotStarted);
        }
        if !response.status().is_success() {
            return Ok(SagaStory::Unavailable);
        }
        let mut body = Vec::new();
        while let Some(chunk) = response.chunk().await? {
            if body.len() + chunk.len() > MAX_BYTES {
                return Ok(SagaStory::Unavailable);
            }
            body.extend_from_slice(&chunk);
        }
        Ok(parse(&body))
    }
}

/// The events, whether they come as an array or as the member `events` of an object.
fn parse(body: &[u8]) -> SagaStory {
    let events = match serde_json::from_slice(body) {
        Ok(Value::Array(events)) => Some(events),
        Ok(Value::Object(mut object)) => match object.remove("events") {
            Some(Value::Array(events)) => Some(events),
            Some(_) | None => None,
        },
        Ok(Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_)) | Err(_) => None,
    };
    events.map_or(SagaStory::Unavailable, SagaStory::Told)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn only_a_list_of_events_is_a_story() {
        let told = SagaStory::Told(vec![json!({"type": "started"})]);
        assert_eq!(parse(br#"[{"type": "started"}]"#), told);
        assert_eq!(parse(br#"{"events": [{"type": "started"}]}"#), told);
        for other in ["", "null", "7", "{}", "<html>"] {
            assert_eq!(parse(other.as_bytes()), SagaStory::Unavailable);
        }
    }

    #[tokio::test]
    async fn an_orchestrator_that_is_away_is_no_error() {
        let log = SagaLog::new("http://127.0.0.1:9/").expect("client");
        assert_eq!(
            log.of_saga(Uuid::from_u128(1), "c").await,
            SagaStory::Unavailable
        );
    }
}

//! The start of a participant, which can be asked already while its broker is waited for.

use super::{Server, until};
use crate::health::Readiness;
use saga_messaging::{
    kafka::{self, KafkaConfig},
    participant::{ParticipantConfig, approve_topics},
};
use tokio_util::sync::CancellationToken;

/// Waits for the broker, and is ready once the topics are as `participant` says that they must be, and `prepare`, which
/// needs the broker too, has succeeded. Yields the participant to run; topics that are not as they must be are an error,
/// `None` says that `stop` came first.
pub async fn approved<P: Future<Output = anyhow::Result<()>>>(
    participant: ParticipantConfig,
    kafka: &KafkaConfig,
    readiness: &Readiness,
    stop: &CancellationToken,
    prepare: impl Fn() -> P,
) -> anyhow::Result<Option<ParticipantConfig>> {
    let servers = [Server::kafka(&kafka.brokers, kafka::is_away)];
    let look = || async {
        approve_topics(&participant, kafka).await?;
        prepare().await
    };
    if until(&servers, readiness, stop, look).await?.is_none() {
        return Ok(None);
    }
    readiness.ready();
    Ok(Some(ParticipantConfig {
        // They have been looked at: it would look again, and wait again, for a service that is ready.
        topics: None,
        ..participant
    }))
}

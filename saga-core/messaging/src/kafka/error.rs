//! Which errors of the client are worth another try.

use super::context::Admission;
use crate::log::LogError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;

/// A refusal that says what to do about it.
#[derive(Debug, Error)]
pub enum Refusal {
    #[error(
        "topic '{0}' does not exist: create it, or correct its name (its partitions and retention are the \
         operator's choice, so consumers and producers never create it)"
    )]
    NoTopic(String),
    #[error("access to {what} is denied: {source}")]
    Denied {
        what: String,
        #[source]
        source: KafkaError,
    },
    #[error("the brokers do not let this client in: {0}")]
    NotAdmitted(String),
    #[error(
        "a record of {size} bytes for topic '{topic}' is larger than the limit \
         (message.max.bytes = {limit} here; max.message.bytes at the topic)"
    )]
    TooLarge {
        topic: String,
        size: usize,
        limit: usize,
    },
    #[error("the client cannot go on: {0}")]
    Fatal(#[source] KafkaError),
    #[error("the client's configuration is not valid: {0}")]
    Configuration(#[source] KafkaError),
}

impl From<Refusal> for LogError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge { .. } => Self::TooLarge(Box::new(refusal)),
            Refusal::NoTopic(_)
            | Refusal::Denied { .. }
            | Refusal::NotAdmitted(_)
            | Refusal::Fatal(_)
            | Refusal::Configuration(_) => Self::Refused(Box::new(refusal)),
        }
    }
}

/// Whether `error` says that the brokers are away, so that waiting may help. For one of a chain.
pub fn is_away(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<LogError>(),
        Some(LogError::Unavailable(_))
    )
}

/// `what` is the topic or group concerned.
pub(super) fn classify(error: KafkaError, what: &str) -> LogError {
    if let KafkaError::MessageConsumptionFatal(_) = error {
        return Refusal::Fatal(error).into();
    }
    if matches!(
        error,
        KafkaError::ClientConfig(..) | KafkaError::ClientCreation(_)
    ) {
        return Refusal::Configuration(error).into();
    }
    match error.rdkafka_error_code() {
        Some(RDKafkaErrorCode::UnknownTopic | RDKafkaErrorCode::UnknownTopicOrPartition) => {
            Refusal::NoTopic(what.to_owned()).into()
        }
        Some(
            RDKafkaErrorCode::TopicAuthorizationFailed
            | RDKafkaErrorCode::GroupAuthorizationFailed
            | RDKafkaErrorCode::ClusterAuthorizationFailed
            | RDKafkaErrorCode::Authentication
            | RDKafkaErrorCode::SaslAuthenticationFailed,
        ) => Refusal::Denied {
            what: what.to_owned(),
            source: error,
        }
        .into(),
        Some(RDKafkaErrorCode::Fatal) => Refusal::Fatal(error).into(),
        Some(_) | None => LogError::Unavailable(Box::new(error)),
    }
}

/// [`classify`], for a client whose connection may have been refused: then a request merely timed out.
pub(super) fn explain(error: KafkaError, what: &str, admission: &Admission) -> LogError {
    let login = is_login(error.rdkafka_error_code());
    match (classify(error, what), admission.denied()) {
        (LogError::Unavailable(_), Some(reason)) => Refusal::NotAdmitted(reason).into(),
        (LogError::Refused(_), Some(reason)) if login => Refusal::NotAdmitted(reason).into(),
        (other, _) => other,
    }
}

/// A wrong name or password.
pub(super) fn is_login(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(
        code,
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_that_are_away_may_come_back_and_a_refusal_stays() {
        let check = |code: RDKafkaErrorCode, away: bool| {
            let error = classify(KafkaError::MetadataFetch(code), "saga.inputs");
            assert_eq!(is_away(&error), away, "{code}");
        };
        check(RDKafkaErrorCode::BrokerTransportFailure, true);
        check(RDKafkaErrorCode::AllBrokersDown, true);
        check(RDKafkaErrorCode::OperationTimedOut, true);
        check(RDKafkaErrorCode::Resolve, true);
        check(RDKafkaErrorCode::LeaderNotAvailable, true);
        check(RDKafkaErrorCode::UnknownTopicOrPartition, false);
        check(RDKafkaErrorCode::TopicAuthorizationFailed, false);
        check(RDKafkaErrorCode::SaslAuthenticationFailed, false);
        check(RDKafkaErrorCode::Fatal, false);
        let refused = Refusal::NotAdmitted("not with this certificate".to_owned());
        assert!(!is_away(&LogError::from(refused)));
    }
}

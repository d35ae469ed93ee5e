//! Decides which errors of the client are worth another attempt.

use super::admission::{Admission, is_login};
use crate::log::LogError;
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use thiserror::Error;
use uuid::Uuid;

/// A refusal whose text says what to do about it.
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
    /// A refused record time, which is temporary because clocks get corrected.
    #[error("{0}")]
    Time(String),
    #[error("the client cannot go on: {0}")]
    Fatal(#[source] KafkaError),
    #[error("the client's configuration is not valid: {0}")]
    Configuration(#[source] KafkaError),
    #[error(
        "consumer group '{group}' belongs to database {theirs}, and this process has database {ours}: give it the \
         group's database, or stop every member of the group and let this database take it over with the subcommand \
         `adopt-group` (the offsets of {topic} partition {partition} say whose the group is)"
    )]
    Stranger {
        group: String,
        topic: String,
        partition: i32,
        theirs: Uuid,
        ours: Uuid,
    },
    #[error(
        "consumer group '{group}' has members ({}): stop them first", .members.join(", ")
    )]
    HasMembers { group: String, members: Vec<String> },
}

impl From<Refusal> for LogError {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::TooLarge { .. } => Self::TooLarge(Box::new(refusal)),
            Refusal::Time(_) => Self::Unavailable(Box::new(refusal)),
            Refusal::NoTopic(_)
            | Refusal::Denied { .. }
            | Refusal::NotAdmitted(_)
            | Refusal::Fatal(_)
            | Refusal::Stranger { .. }
            | Refusal::HasMembers { .. }
            | Refusal::Configuration(_) => Self::Refused(Box::new(refusal)),
        }
    }
}

/// Returns `true` if `error` says that the brokers are unavailable, so that waiting may help. It looks at this error
/// only, and not at its sources.
pub fn is_unavailable(error: &(dyn std::error::Error + 'static)) -> bool {
    matches!(
        error.downcast_ref::<LogError>(),
        Some(LogError::Unavailable(_))
    )
}

/// Classifies a client error; `what` is the topic or group concerned.
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

/// Classifies an error like [`classify`], for a client that the brokers may not have let in: then its requests merely
/// time out.
pub(super) fn explain(error: KafkaError, what: &str, admission: &Admission) -> LogError {
    let login = is_login(error.rdkafka_error_code());
    match (classify(error, what), admission.denied()) {
        (LogError::Unavailable(_), Some(reason)) => Refusal::NotAdmitted(reason).into(),
        (LogError::Refused(_), Some(reason)) if login => Refusal::NotAdmitted(reason).into(),
        (other, _) => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outages_of_brokers_are_temporary_and_refusals_are_permanent() {
        let check = |code: RDKafkaErrorCode, unavailable: bool| {
            let error = classify(KafkaError::MetadataFetch(code), "saga.inputs");
            assert_eq!(is_unavailable(&error), unavailable, "{code}");
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
        assert!(!is_unavailable(&LogError::from(refused)));
    }
}

//! Checks a corrected record before it is replayed: one that its consumer refuses again would only become another
//! letter.

use crate::{
    engine::decode,
    registry::{Choice, Registry},
};
use saga_core::message::{IncomingRecord, Input, OutgoingRecord};
use saga_messaging::dead_letter::reason;
use serde::de::IgnoredAny;
use thiserror::Error;

/// The reason why a corrected record would be refused again.
#[derive(Debug, PartialEq, Eq, Error)]
#[error("with this correction, the record would become a dead letter again: {why}")]
pub struct BadCorrection {
    /// JSON pointer into the request, to the part that is wrong.
    pub field: &'static str,
    pub why: String,
}

/// Decodes a corrected record as its consumer will. For commands, only the JSON can be checked here.
pub fn check(
    record: &OutgoingRecord,
    inputs_topic: &str,
    registry: &Registry,
) -> Result<(), BadCorrection> {
    let arriving = arriving(record);
    if record.topic != inputs_topic {
        return arriving
            .json::<IgnoredAny>()
            .map(drop)
            .map_err(|error| refused(error.reason(), error.to_string()));
    }
    let (arrived, rejected) = decode::decode(std::slice::from_ref(&arriving));
    if let Some(rejected) = rejected.into_iter().next() {
        return Err(refused(rejected.reason, rejected.detail));
    }
    let current = registry.current();
    for arrived in arrived {
        if let Input::Start(start) = arrived.input
            && let Some(Choice::Runs(definition)) = current.choose(&start.definition)
        {
            definition
                .check_input(&start.input)
                .map_err(|misfit| refused(reason::BAD_PAYLOAD, misfit.to_string()))?;
        }
    }
    Ok(())
}

fn arriving(record: &OutgoingRecord) -> IncomingRecord {
    IncomingRecord {
        topic: record.topic.clone(),
        partition: record.partition.unwrap_or_default(),
        offset: 0,
        timestamp_ms: 0,
        key: Some(record.key.clone()),
        headers: record.headers.clone(),
        payload: Some(record.payload.clone()),
    }
}

fn refused(reason: &str, why: String) -> BadCorrection {
    let is_header = [
        reason::MISSING_HEADER,
        reason::BAD_HEADER,
        reason::UNRECOGNISED,
    ]
    .contains(&reason);
    let field = if is_header { "/headers" } else { "/value" };
    BadCorrection { field, why }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{self, Catalog};
    use saga_core::{
        ids::{SagaId, Timestamp},
        message::{StartSaga, Trace, header},
    };
    use serde_json::{Value, json};

    fn start(payload: &str) -> OutgoingRecord {
        let start = StartSaga {
            saga_id: SagaId(uuid::Uuid::nil()),
            start_type: "order.created".to_owned(),
            definition: "place-order".to_owned(),
            business_key: None,
            input: Value::Null,
            trace: Trace::default(),
        };
        let mut record = start.encode("saga.inputs", 0, "/order-svc", Timestamp::UNIX_EPOCH);
        record.payload = payload.as_bytes().to_vec();
        record
    }

    fn checked(record: &OutgoingRecord) -> Result<(), BadCorrection> {
        let registry = Registry::default();
        let sources = registry::read(true, None).unwrap().into_iter();
        registry.learn(&Catalog::of(1, sources.map(|source| source.definition)));
        check(record, "saga.inputs", &registry)
    }

    #[test]
    fn an_invalid_correction_is_refused_with_its_field_and_reason() {
        let refused = |record: OutgoingRecord, field: &str, why: &str| {
            let bad = checked(&record).unwrap_err();
            assert_eq!(bad.field, field, "{bad}");
            assert!(bad.why.contains(why), "{bad}");
        };
        refused(start("{"), "/value", "EOF");
        refused(start("[]"), "/value", "an object was expected");
        refused(start(r#""{}""#), "/value", "an object was expected");
        refused(
            start(r#"{"a": {"b": 123456789012345678901234}}"#),
            "/value",
            "at /a/b: ",
        );
        refused(start(r#"{"a": "\u0000"}"#), "/value", "U+0000");
        refused(start("{}"), "/value", "\"orderId\" is a required property");
        let mut nameless = start("{}");
        nameless.headers.remove(header::SAGA_ID);
        refused(nameless, "/headers", header::SAGA_ID);
        let mut command = start(r#"{"a": 123456789012345678901234}"#);
        command.topic = "payment.commands".to_owned();
        refused(command, "/value", "at /a: ");
    }

    #[test]
    fn a_good_correction_is_let_through() {
        let id = "01a1fef6-296e-765a-8fbf-f91aec1fdb5b";
        let order = json!({
            "orderId": id, "customerId": id, "amountMinor": 100, "currency": "EUR",
            "items": [{"productId": id, "quantity": 1, "unitPriceMinor": 100}],
        });
        assert_eq!(checked(&start(&order.to_string())), Ok(()));
        let mut unknown = start("{}");
        unknown.headers.remove(header::DEFINITION);
        unknown
            .headers
            .push(header::DEFINITION, "not-yet-registered");
        assert_eq!(checked(&unknown), Ok(()));
        let mut command = start("[]");
        command.topic = "shipping.commands".to_owned();
        assert_eq!(checked(&command), Ok(()));
    }
}

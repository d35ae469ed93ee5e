//! Reads a command's payload.

use saga_core::{
    json,
    message::{Command, write_whole},
};
use serde::de::DeserializeOwned;

/// Longest message about an unreadable payload: the message may quote a part of the payload.
const MESSAGE_MAX_CHARS: usize = 300;

/// Returns the payload of `command`, which must be an object, or a message for a [`Fault`](saga_core::message::Fault)
/// that says what is wrong with it. A list is not read as an object's members in order, and a string is not read as
/// encoded JSON. An integer field accepts every whole number, also `100.0` and `1e2`.
pub fn read_payload<T: DeserializeOwned>(command: &Command) -> Result<T, String> {
    if !command.payload.is_object() {
        let instead = json::instead_of_object(command.payload.to_string().as_bytes());
        return Err(format!(
            "an object was expected, and this is {}",
            instead.unwrap_or_default()
        ));
    }
    T::deserialize(&command.payload)
        .or_else(|error| {
            let mut payload = command.payload.clone();
            if write_whole(&mut payload) {
                T::deserialize(payload)
            } else {
                Err(error)
            }
        })
        .map_err(|error| error.to_string().chars().take(MESSAGE_MAX_CHARS).collect())
}

#[cfg(test)]
mod tests {
    use super::*;
    use saga_core::{
        ids::SagaId,
        message::{Direction, ReplyTo, Trace},
    };
    use serde::Deserialize;
    use serde_json::{Value, json};

    #[derive(Debug, PartialEq, Deserialize)]
    struct Charge {
        order: String,
        amount: i64,
    }

    #[derive(Debug, PartialEq, Deserialize)]
    struct Parcel {
        pieces: u32,
        weights: Vec<i64>,
        length: f64,
    }

    fn read<T: DeserializeOwned>(payload: Value) -> Result<T, String> {
        let command = Command {
            saga_id: SagaId(uuid::Uuid::nil()),
            step: "charge".to_owned(),
            direction: Direction::Forward,
            attempt: 1,
            command_type: "payment.charge".to_owned(),
            payload,
            save_failure: true,
            reply_to: ReplyTo {
                topic: "saga.inputs".to_owned(),
                partition: 0,
            },
            floor: None,
            trace: Trace::default(),
        };
        read_payload(&command)
    }

    #[test]
    fn every_payload_that_is_no_object_is_refused() {
        let order = "o-1".to_owned();
        assert_eq!(
            read(json!({"order": "o-1", "amount": 7})),
            Ok(Charge { order, amount: 7 })
        );
        let encoded_twice = json!(r#"{"order": "o-1", "amount": 7}"#);
        for payload in [
            json!(["o-1", 7]),
            encoded_twice,
            json!(42),
            json!(null),
            json!([]),
        ] {
            let why = read::<Charge>(payload.clone()).expect_err("no object");
            assert!(why.contains("an object was expected"), "{payload}: {why}");
        }
    }

    #[test]
    fn an_integer_field_takes_every_whole_number() {
        let parcel = Parcel {
            pieces: 2,
            weights: vec![100, 7],
            length: 3.0,
        };
        let plain = json!({"pieces": 2, "weights": [100, 7], "length": 3});
        assert_eq!(read(plain).as_ref(), Ok(&parcel));
        let otherwise = json!({"pieces": 2.0, "weights": [1e2, 7.0], "length": 3.0});
        assert_eq!(read(otherwise), Ok(parcel));
    }

    #[test]
    fn fractions_and_numbers_out_of_range_are_refused() {
        let check = |pieces: Value| {
            let payload = json!({"pieces": pieces, "weights": [1.0], "length": 0.5});
            assert!(read::<Parcel>(payload).is_err(), "{pieces}");
        };
        check(json!(2.5));
        check(json!(-1.0));
        check(json!(4_294_967_296_i64));
        check(json!(1e300));
        check(json!("2"));
    }
}

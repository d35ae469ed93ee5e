//! The reasons for dead-lettering a record: the `dead-letter-reason` that programs filter by. Every component that
//! refuses a record uses one of these, for all topics, so that an operator has to learn only one list.

/// The record lacks a header that the contract requires. Most foreign records get this reason.
pub const MISSING_HEADER: &str = "missing_header";
/// A header has a value that is not valid in the contract.
pub const BAD_HEADER: &str = "bad_header";
/// The record is a tombstone.
pub const NO_PAYLOAD: &str = "no_payload";
/// The payload is not JSON, or not of the shape that its type requires; for a start, its definition's schema may refuse
/// it.
pub const BAD_PAYLOAD: &str = "bad_payload";
/// The record of `saga.inputs` is neither a start, a reply, a timer nor an action.
pub const UNRECOGNISED: &str = "unrecognised";
/// The payload is nested deeper than tables and other services can process.
pub const TOO_DEEP: &str = "too_deep";
/// A text contains U+0000, which no table stores.
pub const NUL_CHARACTER: &str = "nul_character";
/// An integer would change its value when it is written again.
pub const NUMBER_OUT_OF_RANGE: &str = "number_out_of_range";
/// The record starts a saga that has begun with other content.
pub const ID_CONFLICT: &str = "id_conflict";
/// The saga's id is no UUIDv7, or its time is in the future.
pub const ID_OUT_OF_WINDOW: &str = "id_out_of_window";
/// The saga began at a time whose sagas may be forgotten: it may have run already.
pub const BELOW_FLOOR: &str = "below_floor";
/// The record starts a saga of a definition that is not registered.
pub const UNKNOWN_DEFINITION: &str = "unknown_definition";
/// The record starts a saga of a definition whose versions are all withdrawn. It can be replayed once one is restored.
pub const DEFINITION_WITHDRAWN: &str = "definition_withdrawn";
/// The record starts a saga whose unique business key belongs to another live saga of its definition.
pub const BUSINESS_KEY_TAKEN: &str = "business_key_taken";
/// The record makes the orchestrator's transaction fail, even alone.
pub const CANNOT_BE_PROCESSED: &str = "cannot_be_processed";
/// The record makes a participant's transaction fail, even alone.
pub const DATA_ERROR: &str = "data_error";
/// A participant's handler did not answer the record: it broke, panicked, or took too long.
pub const HANDLER_BROKEN: &str = "handler_broken";
pub const HANDLER_PANICKED: &str = "handler_panicked";
pub const HANDLER_TIMEOUT: &str = "handler_timeout";

/// All reasons.
pub const ALL: [&str; 19] = [
    MISSING_HEADER,
    BAD_HEADER,
    NO_PAYLOAD,
    BAD_PAYLOAD,
    UNRECOGNISED,
    TOO_DEEP,
    NUL_CHARACTER,
    NUMBER_OUT_OF_RANGE,
    ID_CONFLICT,
    ID_OUT_OF_WINDOW,
    BELOW_FLOOR,
    UNKNOWN_DEFINITION,
    DEFINITION_WITHDRAWN,
    BUSINESS_KEY_TAKEN,
    CANNOT_BE_PROCESSED,
    DATA_ERROR,
    HANDLER_BROKEN,
    HANDLER_PANICKED,
    HANDLER_TIMEOUT,
];

/// Returns the metric label of a reason. Other programs can write to dead-letter topics, so unknown reasons share one
/// label.
pub fn label(reason: &str) -> &'static str {
    ALL.into_iter()
        .find(|known| *known == reason)
        .unwrap_or("other")
}

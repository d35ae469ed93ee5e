//! Why a record is dead-lettered: the `dead-letter-reason` that programs filter by. Whoever refuses a record names it by
//! one of these, whichever topic it came from, so that an operator learns them once.

/// A header that the contract demands is not there. Foreign records mostly end here.
pub const MISSING_HEADER: &str = "missing_header";
/// A header has a value that the contract does not know.
pub const BAD_HEADER: &str = "bad_header";
/// A tombstone.
pub const NO_PAYLOAD: &str = "no_payload";
/// Not JSON, or not of the shape that its type needs.
pub const BAD_PAYLOAD: &str = "bad_payload";
/// A record of `saga.inputs` that is neither a start, a reply, a timer nor an action.
pub const UNRECOGNISED: &str = "unrecognised";
/// Nested deeper than tables and other services can take.
pub const TOO_DEEP: &str = "too_deep";
/// U+0000 in a text, which no table keeps.
pub const NUL_CHARACTER: &str = "nul_character";
/// An integer that would come out of here as another one.
pub const NUMBER_OUT_OF_RANGE: &str = "number_out_of_range";
/// A start whose saga has begun with other content.
pub const ID_CONFLICT: &str = "id_conflict";
/// A saga's id that is no UUIDv7, or of a time that is to come.
pub const ID_OUT_OF_WINDOW: &str = "id_out_of_window";
/// Of a time that may be forgotten: it may have run already.
pub const BELOW_FLOOR: &str = "below_floor";
/// A start of a definition that nobody registered.
pub const UNKNOWN_DEFINITION: &str = "unknown_definition";
/// The orchestrator's transaction fails because of it, alone.
pub const CANNOT_BE_PROCESSED: &str = "cannot_be_processed";
/// A participant's transaction fails because of it, alone.
pub const DATA_ERROR: &str = "data_error";
/// A participant's handler does not answer it: it broke, panicked, or took too long.
pub const HANDLER_BROKEN: &str = "handler_broken";
pub const HANDLER_PANICKED: &str = "handler_panicked";
pub const HANDLER_TIMEOUT: &str = "handler_timeout";

/// All of them.
pub const ALL: [&str; 17] = [
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
    CANNOT_BE_PROCESSED,
    DATA_ERROR,
    HANDLER_BROKEN,
    HANDLER_PANICKED,
    HANDLER_TIMEOUT,
];

/// For metrics: dead-letter topics are open to others, and labels must not grow with what they write.
pub fn label(reason: &str) -> &'static str {
    ALL.into_iter()
        .find(|known| *known == reason)
        .unwrap_or("other")
}

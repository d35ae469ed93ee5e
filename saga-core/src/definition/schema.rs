//! Validates a saga's input against the JSON Schema that its definition declares. The schema is compiled once.

use jsonschema::{ReferencingError, Validator, error::ValidationErrorKind};
use serde_json::Value;
use std::sync::Arc;
use thiserror::Error;

/// A compiled schema for inputs. It is read as draft 2020-12 unless its `$schema` names another draft.
#[derive(Clone, Debug)]
pub struct InputSchema(Arc<Validator>);

/// The first part of an input that the schema does not allow.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("the input does not fit its schema{}: {why}", place(pointer))]
pub struct InputMisfit {
    /// JSON pointer (RFC 6901) into the input; empty for the whole input.
    pub pointer: String,
    /// The reason. It quotes no value of the input.
    pub why: String,
}

fn place(pointer: &str) -> String {
    if pointer.is_empty() {
        String::new()
    } else {
        format!(" at {pointer}")
    }
}

/// A schema that cannot be used.
pub(super) struct BadSchema {
    /// JSON pointer into the schema.
    pub pointer: String,
    pub why: String,
}

impl InputSchema {
    pub(super) fn compile(schema: &Value) -> Result<Self, BadSchema> {
        // An unknown format is an error: a format that is not checked would only look like a check.
        let options = jsonschema::options()
            .should_validate_formats(true)
            .should_ignore_unknown_formats(false);
        match options.build(schema) {
            Ok(validator) => Ok(Self(Arc::new(validator))),
            Err(error) => Err(BadSchema {
                pointer: place_of(&error, schema),
                why: why_bad(&error),
            }),
        }
    }

    pub(super) fn check(&self, input: &Value) -> Result<(), InputMisfit> {
        self.0.validate(input).map_err(|error| InputMisfit {
            pointer: error.instance_path().to_string(),
            why: error.masked_with("the value").to_string(),
        })
    }
}

/// Returns the JSON pointer of an error in the schema. The library first validates the schema as a document, and then
/// compiles it. An error of the compilation is located by the path of its keyword in the schema.
fn place_of(error: &jsonschema::ValidationError<'_>, schema: &Value) -> String {
    let keyword = error.schema_path().as_str();
    match error.instance_path().as_str() {
        "" if schema.pointer(keyword).is_some() => keyword.to_owned(),
        place => place.to_owned(),
    }
}

/// The base URI that the library puts before a reference that is relative to the schema.
const OWN_BASE: &str = "json-schema:///";

fn why_bad(error: &jsonschema::ValidationError<'_>) -> String {
    if let ValidationErrorKind::Referencing(ReferencingError::Unretrievable { uri, .. }) =
        error.kind()
    {
        let uri = uri.trim_start_matches(OWN_BASE);
        return format!(
            "'{uri}' is not in this schema, and nothing is fetched: put it under $defs, and refer to it as #/$defs/a-name"
        );
    }
    let text = error.to_string();
    // The rest of the text is advice about a setting of the library.
    let why = text.split(". Adjust configuration").next();
    why.unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn parcel() -> Value {
        json!({
            "type": "object",
            "required": ["parcel"],
            "properties": {
                "parcel": {"type": "integer", "minimum": 1},
                "order": {"type": "string", "format": "uuid"},
                "lines": {"type": "array", "items": {"$ref": "#/$defs/line"}},
            },
            "$defs": {"line": {"type": "object", "required": ["n"], "additionalProperties": false,
                "properties": {"n": {"enum": [1, 2]}}}},
        })
    }

    fn compiled(schema: &Value) -> InputSchema {
        match InputSchema::compile(schema) {
            Ok(schema) => schema,
            Err(bad) => panic!("{}: {}", bad.pointer, bad.why),
        }
    }

    #[test]
    fn a_misfit_is_named_by_its_pointer_and_not_by_its_value() {
        let schema = compiled(&parcel());
        let check = |input: Value, pointer: &str, why: &str| {
            let misfit = schema.check(&input).unwrap_err();
            assert_eq!(misfit.pointer, pointer, "{misfit}");
            assert!(misfit.why.contains(why), "{misfit}");
            assert!(!misfit.to_string().contains("secret"), "{misfit}");
        };
        let id = "01a1fef6-296e-765a-8fbf-f91aec1fdb5b";
        let good = json!({"parcel": 7.0, "order": id, "lines": [{"n": 1}], "more": null});
        assert_eq!(schema.check(&good), Ok(()));
        check(json!({}), "", "\"parcel\" is a required property");
        check(
            json!({"parcel": "secret"}),
            "/parcel",
            "the value is not of type \"integer\"",
        );
        check(json!({"parcel": 7.5}), "/parcel", "integer");
        check(
            json!({"parcel": 0}),
            "/parcel",
            "less than the minimum of 1",
        );
        check(json!({"parcel": 1, "order": "secret"}), "/order", "uuid");
        check(
            json!({"parcel": 1, "lines": [{"n": 1}, {"n": "secret"}]}),
            "/lines/1/n",
            "1",
        );
        check(json!({"parcel": 1, "lines": [{}]}), "/lines/0", "\"n\"");
        check(
            json!({"parcel": 1, "lines": [{"n": 1, "x": "secret"}]}),
            "/lines/0",
            "'x'",
        );
        check(json!(["secret"]), "", "object");
    }

    #[test]
    fn a_schema_that_cannot_be_used_is_refused_with_the_place() {
        let check = |schema: Value, pointer: &str, why: &str| {
            let bad = InputSchema::compile(&schema).err().unwrap();
            assert_eq!(bad.pointer, pointer, "{}", bad.why);
            assert!(bad.why.contains(why), "{}", bad.why);
            for word in ["configuration", "feature", "resolver", "registry"] {
                assert!(!bad.why.contains(word), "{}", bad.why);
            }
        };
        check(
            json!({"properties": {"a": {"type": "number of"}}}),
            "/properties/a/type",
            "",
        );
        check(json!({"required": "a"}), "/required", "array");
        check(
            json!({"properties": {"a": {"pattern": "("}}}),
            "/properties/a/pattern",
            "",
        );
        check(
            json!({"properties": {"a": {"format": "color"}}}),
            "/properties/a/format",
            "color",
        );
        check(json!("object"), "", "");
        for elsewhere in [
            "https://example.com/order.json",
            "file:///etc/order.json",
            "order.json",
        ] {
            let why = format!("'{elsewhere}' is not in this schema, and nothing is fetched");
            check(json!({"$ref": elsewhere}), "", &why);
        }
    }
}

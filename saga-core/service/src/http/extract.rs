//! Extractors that refuse a request with problem details that name the field.

use super::problem::{FieldError, Problem};
use axum::{
    body::Bytes,
    extract::{
        FromRequest, FromRequestParts, Path, Request,
        path::ErrorKind,
        rejection::{BytesRejection, PathRejection},
    },
    http::{StatusCode, header, request::Parts},
};
use percent_encoding::percent_decode_str;
use saga_core::json;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::Value;
use std::borrow::Cow;

/// The maximum nesting of a body. Deeper nesting is an attack on the stack, not an order.
pub const JSON_DEPTH_LIMIT: usize = 32;

/// The bytes of a body that has a JSON content type, for handlers that parse it themselves. Answers 415 if the content
/// type is missing or different. An empty body needs none.
#[derive(Clone, Debug)]
pub struct JsonBody(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for JsonBody {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        // If a missing content type were accepted, any website could make a visitor's browser send a body here without
        // a preflight.
        let is_json = check_content_type(&request);
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
        if !body.is_empty() {
            is_json?;
        }
        Ok(Self(body))
    }
}

/// A JSON object as a body, read strictly. Answers 415 without a JSON content type, and 400 if the body is not JSON,
/// not UTF-8 or too deep. Answers 422 if the body is not an object, or if a value does not fit, is an integer of more
/// than 64 bits, or holds a NUL character, which Postgres cannot store; the answer has the field's JSON pointer.
#[derive(Clone, Copy, Debug)]
pub struct ValidJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ValidJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_content_type(&request)?;
        let JsonBody(body) = JsonBody::from_request(request, state).await?;
        parse_json(&body).map(Self)
    }
}

/// Parses and checks a body like [`ValidJson`], for handlers that have a [`JsonBody`].
pub fn parse_json<T: DeserializeOwned>(body: &[u8]) -> Result<T, Problem> {
    let text = std::str::from_utf8(body).map_err(|error| {
        Problem::bad_request(format!(
            "the body is not UTF-8 from byte {} on",
            error.valid_up_to()
        ))
    })?;
    if depth(body) > JSON_DEPTH_LIMIT {
        return Err(Problem::bad_request(format!(
            "the body is nested deeper than {JSON_DEPTH_LIMIT} levels"
        )));
    }
    refuse_nul(text)?;
    refuse_non_object(text)?;
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        json_problem(error.inner(), pointer)
    })?;
    deserializer
        .end()
        .map_err(|error| json_problem(&error, String::new()))?;
    match json::out_of_range(body) {
        None => Ok(value),
        Some(found) => {
            let why = found.why();
            Err(Problem::invalid(vec![FieldError::new(found.pointer, why)]))
        }
    }
}

/// The parameters of a path.
#[derive(Clone, Copy, Debug)]
pub struct ValidPath<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for ValidPath<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let path = parts.uri.path();
        if decoded(path).is_none_or(|text| text.contains('\0')) {
            return Err(Problem::bad_request(
                "the path is not UTF-8, or holds a NUL character",
            ));
        }
        match Path::<T>::from_request_parts(parts, state).await {
            Ok(Path(value)) => Ok(Self(value)),
            Err(rejection) => Err(path_problem(rejection)),
        }
    }
}

/// The parameters of a query. Give `T` `deny_unknown_fields`, so that unknown parameters are refused.
#[derive(Clone, Copy, Debug)]
pub struct ValidQuery<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for ValidQuery<T> {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        parse_query(parts.uri.query().unwrap_or_default()).map(Self)
    }
}

fn parse_query<T: DeserializeOwned>(query: &str) -> Result<T, Problem> {
    for parameter in query.split('&') {
        let name = parameter.split('=').next().unwrap_or_default();
        if decoded(parameter).is_none_or(|text| text.contains('\0')) {
            let message = "is not UTF-8, or holds a NUL character";
            let error =
                FieldError::new(decoded(name).unwrap_or_default().replace('\0', ""), message);
            return Err(Problem::invalid_parameter(error));
        }
    }
    let deserializer =
        serde_urlencoded::Deserializer::new(form_urlencoded::parse(query.as_bytes()));
    serde_path_to_error::deserialize(deserializer).map_err(|error| {
        let message = error.inner().to_string();
        let field =
            named_field(&message).unwrap_or_else(|| match error.path().to_string().as_str() {
                "." => String::new(),
                path => path.to_owned(),
            });
        Problem::invalid_parameter(FieldError::new(field, message))
    })
}

fn path_problem(rejection: PathRejection) -> Problem {
    let PathRejection::FailedToDeserializePathParams(failed) = rejection else {
        return Problem::internal();
    };
    let (key, message) = match failed.into_kind() {
        ErrorKind::ParseErrorAtKey {
            key, expected_type, ..
        } => (key, format!("is not a valid {expected_type}")),
        ErrorKind::DeserializeError { key, message, .. } => (key, message),
        ErrorKind::InvalidUtf8InPathParam { key } => (key, "is not UTF-8".to_owned()),
        kind @ (ErrorKind::WrongNumberOfParameters { .. }
        | ErrorKind::ParseErrorAtIndex { .. }
        | ErrorKind::ParseError { .. }
        | ErrorKind::UnsupportedType { .. }
        | ErrorKind::Message(_)
        | _) => (String::new(), kind.to_string()),
    };
    Problem::invalid_parameter(FieldError::new(key, message))
}

fn check_content_type(request: &Request) -> Result<(), Problem> {
    let given = request
        .headers()
        .get(header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    let essence = given
        .unwrap_or_default()
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_lowercase();
    let is_json = essence == "application/json"
        || (essence.starts_with("application/") && essence.ends_with("+json"));
    if is_json {
        return Ok(());
    }
    let found = given.map_or_else(
        || "it has none".to_owned(),
        |given| format!("it has {given}"),
    );
    Err(Problem::unsupported_media_type(format!(
        "the request needs the header `content-type: application/json`; {found}"
    )))
}

fn unreadable(rejection: &BytesRejection) -> Problem {
    if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE {
        Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "the request's body is too large",
        )
        .with_type("body-too-large")
    } else {
        Problem::bad_request("the request's body could not be read to its end")
    }
}

/// Returns the maximum nesting of brackets outside of strings. The result is meaningless for a text that is not JSON.
fn depth(body: &[u8]) -> usize {
    let (mut depth, mut deepest, mut in_string, mut escaped) = (0_usize, 0, false, false);
    for byte in body {
        match (in_string, byte) {
            (true, _) if escaped => escaped = false,
            (true, b'\\') => escaped = true,
            (true, b'"') => in_string = false,
            (false, b'"') => in_string = true,
            (false, b'{' | b'[') => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            (false, b'}' | b']') => depth = depth.saturating_sub(1),
            (true | false, _) => {}
        }
    }
    deepest
}

/// Refuses a body that holds a NUL character. JSON can write NUL only as the escape `\u0000`, so most bodies need no
/// parse here.
fn refuse_nul(text: &str) -> Result<(), Problem> {
    if !text.contains("\\u0000") {
        return Ok(());
    }
    // A body that is not JSON is refused later, with a better message.
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    match find_nul(&value) {
        Some(pointer) => Err(Problem::invalid(vec![FieldError::new(
            pointer,
            "must not contain the NUL character",
        )])),
        None => Ok(()),
    }
}

/// Refuses a body that is not an object: serde would read a list as the members of a struct, in their order.
fn refuse_non_object(text: &str) -> Result<(), Problem> {
    let Some(instead) = json::instead_of_object(text.as_bytes()) else {
        return Ok(());
    };
    serde_json::from_str::<IgnoredAny>(text)
        .map_err(|error| json_problem(&error, String::new()))?;
    Err(Problem::invalid(vec![FieldError::new(
        "",
        format!("an object was expected, and this is {instead}"),
    )]))
}

fn find_nul(value: &Value) -> Option<String> {
    let below = |key: &str, value: &Value| {
        if key.contains('\0') {
            return Some(String::new());
        }
        find_nul(value).map(|rest| json::pointer_part(key) + &rest)
    };
    match value {
        Value::String(text) => text.contains('\0').then(String::new),
        Value::Array(items) => items
            .iter()
            .enumerate()
            .find_map(|(index, item)| below(&index.to_string(), item)),
        Value::Object(entries) => entries.iter().find_map(|(key, value)| below(key, value)),
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let parts = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(json::pointer_part(key)),
        Segment::Enum { .. } | Segment::Unknown => None,
    });
    parts.collect()
}

fn json_problem(error: &serde_json::Error, pointer: String) -> Problem {
    use serde_json::error::Category;
    match error.classify() {
        Category::Syntax | Category::Eof | Category::Io => {
            Problem::bad_request(format!("the body is not valid JSON: {error}"))
        }
        Category::Data => {
            let text = error.to_string();
            let message = match text.rsplit_once(" at line ") {
                Some((message, _)) => message.to_owned(),
                None => text,
            };
            let field = match named_field(&message) {
                Some(name) if !pointer.ends_with(&json::pointer_part(&name)) => {
                    pointer + &json::pointer_part(&name)
                }
                Some(_) | None => pointer,
            };
            Problem::invalid(vec![FieldError::new(field, message)])
        }
    }
}

/// Returns the field that serde names in "missing field `x`" and similar messages, where the error's path ends at the
/// parent.
fn named_field(message: &str) -> Option<String> {
    let rest = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    rest.split('`').next().map(str::to_owned)
}

/// Percent-decodes `text`. Returns `None` if the result is not UTF-8.
fn decoded(text: &str) -> Option<Cow<'_, str>> {
    percent_decode_str(text).decode_utf8().ok()
}

#[cfg(test)]
mod tests;

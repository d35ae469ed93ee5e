//! Extractors whose refusals are problem details that name the field.

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
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Deeper nesting is an attack on the stack, not an order.
pub const JSON_DEPTH_LIMIT: usize = 32;

/// A JSON body, read strictly: 415 without a JSON content type; 400 if it is not JSON, not UTF-8 or too deep; 422 with
/// the field's JSON pointer if a value does not fit or holds a NUL character, which Postgres cannot store.
#[derive(Clone, Copy, Debug)]
pub struct ValidJson<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for ValidJson<T> {
    type Rejection = Problem;

    async fn from_request(request: Request, state: &S) -> Result<Self, Problem> {
        check_content_type(&request)?;
        let body = Bytes::from_request(request, state)
            .await
            .map_err(|rejection| unreadable(&rejection))?;
        parse_json(&body).map(Self)
    }
}

/// What [`ValidJson`] does to a body, for handlers that need its bytes too.
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
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let pointer = pointer(error.path());
        json_problem(error.inner(), pointer)
    })?;
    deserializer
        .end()
        .map_err(|error| json_problem(&error, String::new()))?;
    Ok(value)
}

/// A path's parameters.
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

/// A query's parameters; refuses what `T` refuses, so give `T` `deny_unknown_fields`.
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

/// How deep brackets are nested outside of strings; of a text that is not JSON, whatever comes out.
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

/// In JSON a NUL can only be written as an escape, so that most bodies need no second look.
fn refuse_nul(text: &str) -> Result<(), Problem> {
    if !text.contains("\\u0000") {
        return Ok(());
    }
    // What is not JSON at all is refused with a better message later.
    let value: Value = serde_json::from_str(text).unwrap_or_default();
    match find_nul(&value) {
        Some(pointer) => Err(Problem::invalid(vec![FieldError::new(
            pointer,
            "must not contain the NUL character",
        )])),
        None => Ok(()),
    }
}

fn find_nul(value: &Value) -> Option<String> {
    let below = |key: &str, value: &Value| {
        if key.contains('\0') {
            return Some(String::new());
        }
        find_nul(value).map(|rest| format!("/{}{rest}", escape(key)))
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

/// A key as part of a JSON pointer (RFC 6901).
fn escape(key: &str) -> String {
    key.replace('~', "~0").replace('/', "~1")
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let parts = path.iter().filter_map(|segment| match segment {
        Segment::Seq { index } => Some(format!("/{index}")),
        Segment::Map { key } => Some(format!("/{}", escape(key))),
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
                Some(name) if !pointer.ends_with(&format!("/{}", escape(&name))) => {
                    format!("{pointer}/{}", escape(&name))
                }
                Some(_) | None => pointer,
            };
            Problem::invalid(vec![FieldError::new(field, message)])
        }
    }
}

/// The field in serde's "missing field `x`" and its like, where the path ends above it.
fn named_field(message: &str) -> Option<String> {
    let rest = ["missing field `", "unknown field `", "duplicate field `"]
        .iter()
        .find_map(|start| message.strip_prefix(start))?;
    rest.split('`').next().map(str::to_owned)
}

/// Percent-decoded; `None` if that is not UTF-8.
fn decoded(text: &str) -> Option<String> {
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut index = 0;
    while let Some(byte) = bytes.get(index) {
        let escaped = (*byte == b'%')
            .then(|| text.get(index + 1..index + 3))
            .flatten()
            .and_then(|digits| u8::from_str_radix(digits, 16).ok());
        decoded.push(escaped.unwrap_or(*byte));
        index += if escaped.is_some() { 3 } else { 1 };
    }
    String::from_utf8(decoded).ok()
}

#[cfg(test)]
mod tests;

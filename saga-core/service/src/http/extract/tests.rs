use super::*;
use serde::Deserialize;
use std::collections::BTreeMap;

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Order {
    #[expect(dead_code, reason = "only its presence matters")]
    customer_id: String,
    items: Vec<Item>,
    #[serde(default)]
    notes: BTreeMap<String, String>,
    #[serde(default)]
    #[expect(dead_code, reason = "only its reading matters")]
    given: Value,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Item {
    quantity: u32,
}

fn refused(body: &[u8]) -> Problem {
    parse_json::<Order>(body).expect_err("refused")
}

fn check(body: &str, status: u16, field: &str, message: &str) {
    let problem = refused(body.as_bytes());
    assert_eq!(problem.status, status, "{body}: {problem:?}");
    let named = problem
        .errors
        .first()
        .map_or("", |error| error.field.as_str());
    assert_eq!(named, field, "{body}: {problem:?}");
    assert!(problem.detail.contains(message), "{body}: {problem:?}");
    assert!(
        !problem.detail.contains("at line") || status == 400,
        "{problem:?}"
    );
}

#[test]
fn the_invalid_part_of_a_body_is_named() {
    check("", 400, "", "not valid JSON");
    check("{", 400, "", "not valid JSON");
    check("order", 400, "", "not valid JSON");
    check(
        r#"{"customerId":"a","items":[]} trailing"#,
        400,
        "",
        "not valid JSON",
    );
    for body in ["[]", r#"["a", []]"#, "null", "42", r#""{}""#] {
        check(body, 422, "", "an object was expected");
    }
    check(r#"{"items":[]}"#, 422, "/customerId", "missing field");
    check(
        r#"{"customerId":"a","items":[{"quantity":"two"}]}"#,
        422,
        "/items/0/quantity",
        "expected u32",
    );
    check(
        r#"{"customerId":"a","items":[{"quantity":-1}]}"#,
        422,
        "/items/0/quantity",
        "invalid value",
    );
    check(
        r#"{"customerId":"a","items":[{"quantity":1.5}]}"#,
        422,
        "/items/0/quantity",
        "expected u32",
    );
    check(
        r#"{"customerId":"a","items":[{}]}"#,
        422,
        "/items/0/quantity",
        "missing field",
    );
    check(
        r#"{"customerId":"a","items":[{"quantity":1,"colour":2}]}"#,
        422,
        "/items/0/colour",
        "unknown field",
    );
    check(
        r#"{"customerId":"a","customerId":"b","items":[]}"#,
        422,
        "/customerId",
        "duplicate field",
    );
}

#[test]
fn a_nul_character_is_refused_with_its_field() {
    check(
        r#"{"customerId":"a\u0000b","items":[]}"#,
        422,
        "/customerId",
        "NUL",
    );
    check(
        r#"{"customerId":"a","items":[],"notes":{"x/y":"\u0000"}}"#,
        422,
        "/notes/x~1y",
        "NUL",
    );
    check(
        r#"{"customerId":"a","items":[],"notes":{"\u0000":"x"}}"#,
        422,
        "/notes",
        "NUL",
    );
    let order: Order =
        parse_json(br#"{"customerId":"a","items":[],"notes":{"a":"\\u0000"}}"#).expect("no NUL");
    assert_eq!(order.notes["a"], "\\u0000");
}

#[test]
fn an_integer_that_would_become_another_one_is_refused_with_its_field() {
    let body =
        |number: &str| format!(r#"{{"customerId":"a","items":[],"given":{{"a/b":[1,{number}]}}}}"#);
    for number in [
        "123456789012345678901234",
        "-9223372036854775809",
        "18446744073709551616",
    ] {
        check(&body(number), 422, "/given/a~1b/1", number);
    }
    for number in [
        "18446744073709551615",
        "-9223372036854775808",
        "123456789012345678901234.0",
    ] {
        assert!(
            parse_json::<Order>(body(number).as_bytes()).is_ok(),
            "{number}"
        );
    }
}

#[test]
fn bad_utf8_and_deep_nesting_are_refused() {
    assert!(
        refused(b"{\"customerId\":\"\xff\"}")
            .detail
            .contains("not UTF-8 from byte 15 on")
    );
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    check(&deep, 400, "", "deeper than 32");
    let brackets_in_text = format!(
        r#"{{"customerId":"\"{}","items":[{{"quantity":1}}]}}"#,
        "[".repeat(1000)
    );
    let order: Order = parse_json(brackets_in_text.as_bytes()).expect("not nested");
    assert_eq!(order.items[0].quantity, 1);
}

#[test]
fn a_long_value_is_shortened_in_its_problem() {
    let body = format!(
        r#"{{"customerId":"a","items":[{{"quantity":"{}"}}]}}"#,
        "x".repeat(10_000)
    );
    let problem = refused(body.as_bytes());
    assert!(problem.detail.len() < 1000 && problem.errors[0].message.len() < 1000);
}

#[tokio::test]
async fn only_a_body_with_a_json_content_type_is_taken() {
    let taken = async |media_type: Option<&str>, body: &'static str| {
        let mut request = Request::builder();
        if let Some(media_type) = media_type {
            request = request.header(header::CONTENT_TYPE, media_type);
        }
        let request = request.body(body.into()).expect("request");
        JsonBody::from_request(request, &()).await.is_ok()
    };
    for (media_type, expected) in [
        ("application/json", true),
        ("Application/JSON; charset=utf-8", true),
        ("text/plain", false),
        ("application/jsonp", false),
        ("application/x-www-form-urlencoded", false),
    ] {
        assert_eq!(
            taken(Some(media_type), "{}").await,
            expected,
            "{media_type}"
        );
    }
    assert!(!taken(None, "{}").await);
    assert!(taken(None, "").await);
}

#[derive(Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Page {
    limit: Option<u32>,
    status: Option<String>,
}

#[test]
fn a_query_names_the_parameter_that_is_wrong() {
    let good: Page = parse_query("limit=5&status=a%C3%A4").expect("fits");
    assert_eq!(
        good,
        Page {
            limit: Some(5),
            status: Some("aä".to_owned())
        }
    );
    let check = |query: &str, field: &str| {
        let problem = parse_query::<Page>(query).expect_err("refused");
        assert_eq!(problem.status, 400);
        assert_eq!(problem.errors[0].field, field, "{problem:?}");
    };
    check("limit=many", "limit");
    check("limit=-1", "limit");
    check("page=2", "page");
    check("status=%ff", "status");
    check("status=a%00", "status");
    check("limit=1&limit=2", "limit");
}

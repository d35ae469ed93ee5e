use super::*;
use serde_json::{Value, json};

const CUSTOMER: &str = "0190b7a2-6d1c-7a3e-8f00-000000000001";
const PRODUCT: &str = "0190b7a2-6d1c-7a3e-8f00-000000000002";

fn rules() -> RequestRules {
    RequestRules {
        currency: CurrencyUnit::from_code("EUR").expect("currency"),
        definition: "place-order".to_owned(),
        definitions: vec![
            "place-order".to_owned(),
            "place-order-payment-first".to_owned(),
        ],
    }
}

fn parse(body: &str) -> Result<OrderRequest, Problem> {
    PlaceOrder::parse(body.as_bytes())?.check(&rules())
}

fn long() -> Value {
    json!({
        "customerId": CUSTOMER,
        "items": [{"productId": PRODUCT, "quantity": 2, "price": 10.5}],
    })
}

fn short() -> Value {
    json!({"customerId": CUSTOMER, "productId": PRODUCT, "quantity": 3, "amount": 10})
}

/// Checks that the request with one change is refused and that exactly this field is named.
fn check(mut body: Value, pointer: &str, wrong: Value, field: &str) {
    match body.pointer_mut(pointer) {
        Some(place) => *place = wrong,
        None => body[pointer.trim_start_matches('/')] = wrong,
    }
    refused(&body.to_string(), field);
}

fn refused(body: &str, field: &str) {
    let problem = parse(body).expect_err(body);
    assert_eq!(problem.status, 422, "{problem:?}");
    let fields: Vec<&str> = problem.errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(fields, [field], "{body}");
}

#[test]
fn a_whole_quantity_is_one_however_it_is_written() {
    for written in ["3", "3.0", "30e-1"] {
        let body = short().to_string().replace(":3", &format!(":{written}"));
        let order = parse(&body).expect("an order");
        assert_eq!(order.items[0].quantity, 3, "{written}");
    }
}

#[test]
fn the_long_form_multiplies_price_by_quantity() {
    let order = parse(&long().to_string()).expect("order");
    assert_eq!(order.amount_minor, 2100);
    assert_eq!(order.items[0].exact_unit_price_minor(), Some(1050));
    assert_eq!(order.definition, "place-order");
    assert_eq!(order.currency.code(), "EUR");
}

#[test]
fn the_short_form_keeps_the_total() {
    let order = parse(&short().to_string()).expect("order");
    assert_eq!(order.amount_minor, 1000);
    assert_eq!(order.items[0].unit_price_minor, 333);
    assert_eq!(order.items[0].exact_unit_price_minor(), None);
    let mut even = short();
    even["amount"] = json!(30);
    let order = parse(&even.to_string()).expect("order");
    assert_eq!(order.items[0].exact_unit_price_minor(), Some(1000));
}

#[test]
fn every_bad_value_is_refused_by_name() {
    let uuids = [
        json!(null),
        json!(7),
        json!("x"),
        json!("{}"),
        json!(PRODUCT.replace('-', "")),
    ];
    for bad in uuids
        .into_iter()
        .chain([json!("00000000-0000-0000-0000-000000000000")])
    {
        check(long(), "/customerId", bad.clone(), "/customerId");
        check(
            long(),
            "/items/0/productId",
            bad.clone(),
            "/items/0/productId",
        );
        check(short(), "/productId", bad, "/productId");
    }
    let quantities = [json!(0), json!(-1), json!(1.5), json!("1"), json!(null)];
    for bad in quantities
        .into_iter()
        .chain([json!(1_000_001), json!(u64::MAX), json!([])])
    {
        check(
            long(),
            "/items/0/quantity",
            bad.clone(),
            "/items/0/quantity",
        );
        check(short(), "/quantity", bad, "/quantity");
    }
    let amounts = [
        json!(0),
        json!(-1),
        json!(10.505),
        json!("10"),
        json!(null),
        json!(1e30),
    ];
    for bad in amounts
        .into_iter()
        .chain([json!(true), json!({}), json!(1e-7)])
    {
        check(long(), "/items/0/price", bad.clone(), "/items/0/price");
        check(short(), "/amount", bad, "/amount");
    }
}

#[test]
fn every_bad_shape_is_refused_by_name() {
    for bad in [json!([]), json!({}), json!(null), json!("x"), json!(1)] {
        check(long(), "/items", bad, "/items");
    }
    for bad in [json!(7), json!([PRODUCT, 2, 10.5])] {
        check(long(), "/items/0", bad, "/items/0");
    }
    for bad in [
        json!("eur"),
        json!("XXX"),
        json!(7),
        json!(null),
        json!("EUR\u{0}"),
    ] {
        check(long(), "/currency", bad, "/currency");
    }
    for bad in [json!("nobody-knows-it"), json!(7), json!(""), json!(null)] {
        check(long(), "/definition", bad, "/definition");
    }
}

#[test]
fn unknown_missing_and_repeated_fields_are_named() {
    check(long(), "/color", json!("red"), "/color");
    check(short(), "/price", json!(1), "/price");
    check(
        long(),
        "/items/0",
        json!({"productId": PRODUCT, "quantity": 1}),
        "/items/0/price",
    );
    let mut extra = long();
    extra["items"][0]["a/b"] = json!(1);
    refused(&extra.to_string(), "/items/0/a~1b");
    refused(&json!({"customerId": CUSTOMER}).to_string(), "/items");
    let short = short().to_string();
    let rest = short.strip_prefix('{').unwrap_or_default();
    let twice = format!(r#"{{"customerId":"{CUSTOMER}",{rest}"#);
    refused(&twice, "/customerId");
}

#[test]
fn the_forms_do_not_mix() {
    let mut mixed = long();
    mixed["amount"] = json!(21);
    refused(&mixed.to_string(), "/amount");
    let mut mixed = long();
    mixed["quantity"] = json!(21);
    refused(&mixed.to_string(), "/quantity");
}

#[test]
fn a_product_is_allowed_only_once_in_an_order() {
    let mut body = long();
    let line = body["items"][0].clone();
    body["items"] = json!([line.clone(), line]);
    refused(&body.to_string(), "/items/1/productId");
}

#[test]
fn sizes_are_bounded() {
    let line = |n: usize, price: Value| {
        let product = Uuid::from_u128(n as u128 + 1);
        json!({"productId": product, "quantity": 1, "price": price})
    };
    let of = |count: usize| {
        let items: Vec<Value> = (0..count).map(|n| line(n, json!(1))).collect();
        json!({"customerId": CUSTOMER, "items": items})
    };
    assert!(parse(&of(MAX_ITEMS).to_string()).is_ok());
    refused(&of(MAX_ITEMS + 1).to_string(), "/items");
    let largest = MAX_TOTAL_MINOR / 100;
    let items = [line(0, json!(largest)), line(1, json!(0.01))];
    refused(
        &json!({"customerId": CUSTOMER, "items": items}).to_string(),
        "/items",
    );
    let items = json!([{"productId": PRODUCT, "quantity": MAX_QUANTITY, "price": largest}]);
    refused(
        &json!({"customerId": CUSTOMER, "items": items}).to_string(),
        "/items",
    );
}

#[test]
fn a_body_that_is_no_json_object_is_unreadable() {
    let bodies: [&[u8]; 9] = [
        b"",
        b"{",
        b"[]",
        b"null",
        b"7",
        b"\"x\"",
        b"{} {}",
        b"{\"a\": \xff}",
        b"{\"a\": \0}",
    ];
    for body in bodies {
        let problem = PlaceOrder::parse(body).expect_err("refused");
        assert_eq!(problem.status, 400, "{body:?}: {problem:?}");
    }
    let deep = "[".repeat(50_000);
    assert_eq!(parse(&deep).expect_err("refused").status, 400);
}

#[test]
fn a_deeply_nested_value_is_refused() {
    let deep = format!("{}{}", "[".repeat(20_000), "]".repeat(20_000));
    let body =
        format!(r#"{{"customerId":{deep},"productId":"{PRODUCT}","quantity":1,"amount":1}}"#);
    let problem = parse(&body).expect_err("refused");
    assert_eq!(problem.status, 400, "{problem:?}");
}

#[test]
fn every_broken_rule_is_named() {
    let body = json!({
        "customerId": CUSTOMER,
        "definition": "nobody-knows-it",
        "items": [
            {"productId": PRODUCT, "quantity": 0, "price": 1.001},
            {"productId": PRODUCT, "quantity": 1, "price": "1"},
        ],
    });
    let problem = parse(&body.to_string()).expect_err("refused");
    let fields: Vec<&str> = problem.errors.iter().map(|e| e.field.as_str()).collect();
    assert_eq!(
        fields,
        [
            "/definition",
            "/items/0/quantity",
            "/items/0/price",
            "/items/1/productId",
            "/items/1/price",
        ]
    );
}

#[test]
fn mistakes_are_collected_but_not_without_end() {
    let item = json!({"productId": PRODUCT, "quantity": 0, "price": 0});
    let body = json!({"customerId": CUSTOMER, "items": vec![item; MAX_ITEMS]}).to_string();
    let problem = parse(&body).expect_err("refused");
    assert_eq!(problem.errors.len(), MAX_FIELD_ERRORS);
}

#[test]
fn the_hash_is_of_the_meaning() {
    let hash = |body: &str| parse(body).expect("order").hash();
    let first = format!(
        r#"{{"customerId":"{CUSTOMER}","items":[{{"productId":"{PRODUCT}","quantity":1,"price":10.5}}]}}"#
    );
    let spelled = format!(
        r#" {{ "items":[{{"price":10.50,"quantity":1,"productId":"{}"}}],"currency":"EUR","customerId":"{CUSTOMER}"}} "#,
        PRODUCT.to_uppercase()
    );
    assert_eq!(hash(&first), hash(&spelled));
    assert_ne!(hash(&first), hash(&first.replace("10.5", "10.51")));
    assert_ne!(
        hash(&first),
        hash(&first.replace("\"quantity\":1", "\"quantity\":2"))
    );
}

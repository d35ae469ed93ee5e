use super::*;
use crate::http::model::{Lag as LagView, RetentionView, WaitingView};
use uuid::Uuid;

fn at(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(1_800_000_000 + second, 0).expect("in range")
}

fn summary(status: &str, waiting: Option<&str>) -> SagaSummary {
    SagaSummary {
        id: Uuid::from_u128(0xfeed_beef),
        definition: "place-order".to_owned(),
        definition_version: 1,
        status: status.to_owned(),
        business_key: Some("<script>alert(1)</script>".to_owned()),
        correlation_id: "c".to_owned(),
        started_at: at(0),
        ended_at: waiting.is_none().then(|| at(1)),
        waiting_on: waiting.map(|text| WaitingView {
            kind: "queued".to_owned(),
            participant: Some("payment".to_owned()),
            step: None,
            attempt: None,
            since: at(0),
            next_at: None,
            text: text.to_owned(),
        }),
        last_error: None,
    }
}

fn list(sagas: Vec<SagaSummary>) -> SagasFragment {
    SagasFragment::of(
        Ok(SagaPage {
            sagas,
            next_cursor: None,
        }),
        "",
    )
}

fn overview(waiting: Vec<WaitingCount>, records: Option<i64>) -> OverviewFragment {
    let count = |status: &str, count| StatusCount {
        status: status.to_owned(),
        count,
    };
    OverviewFragment::of(Ok(Overview {
        at: at(0),
        live: vec![count("parked", 2), count("running", 7)],
        ended: vec![count("completed", 1_234)],
        waiting,
        lags: vec![LagView {
            topic: "payment.commands".to_owned(),
            group: "payment-svc".to_owned(),
            records,
        }],
        retention: RetentionView {
            floor: at(0),
            starts_from: at(0),
            overaged: 0,
            oldest_overaged: Vec::new(),
        },
    }))
}

fn waiting(kind: &str, count: i64) -> WaitingCount {
    WaitingCount {
        participant: Some("payment".to_owned()),
        kind: kind.to_owned(),
        count,
        longest_since: at(0),
    }
}

fn html(template: &impl Template) -> String {
    template.render().expect("renders")
}

fn page(config: &PageConfig, status: &str) -> String {
    html(&Page::new(
        config,
        status,
        overview(Vec::new(), Some(0)),
        list(Vec::new()),
    ))
}

fn shop() -> PageConfig {
    PageConfig {
        order_url: "http://127.0.0.1:3000/".to_owned(),
        inventory_url: "http://127.0.0.1:3002".to_owned(),
        order_definitions: vec!["place-order".to_owned()],
    }
}

#[test]
fn every_status_is_counted_also_at_zero() {
    let html = html(&overview(Vec::new(), Some(0)));
    for status in STATUSES {
        assert!(
            html.contains(&format!("class=\"count {status}\"")),
            "{status} in {html}"
        );
    }
    assert!(html.contains("1234") && html.contains('7'), "{html}");
    assert!(!html.contains("behind"), "{html}");
}

#[test]
fn unread_offsets_are_no_zero() {
    let html = html(&overview(Vec::new(), None));
    assert!(html.contains("behind") && html.contains('?'), "{html}");
}

#[test]
fn the_overview_explains_the_waits_of_sagas() {
    let waits = vec![
        waiting("queued", 3),
        waiting("person", 1),
        waiting("reply", 9),
    ];
    let html = html(&overview(waits, Some(3)));
    assert!(
        html.contains("3 are not picked up by payment, the longest since 2027-"),
        "{html}"
    );
    assert!(html.contains("1 needs a person"), "{html}");
    assert!(
        !html.contains("9 are"),
        "waiting for an answer is no news: {html}"
    );
}

#[test]
fn clients_text_is_escaped() {
    let html = html(&list(vec![summary(
        "running",
        Some("not picked up by <b>payment</b>"),
    )]));
    assert!(
        !html.contains("<script>") && !html.contains("<b>"),
        "{html}"
    );
    assert!(html.contains("not picked up by"), "{html}");
}

#[test]
fn a_saga_that_ended_says_when() {
    let html = html(&list(vec![summary("compensated", None)]));
    assert!(
        html.contains("compensated at 2027-01-15T08:00:01Z"),
        "{html}"
    );
    assert!(html.contains("…feedbeef"), "{html}");
}

#[test]
fn an_empty_list_explains_itself() {
    assert!(html(&list(Vec::new())).contains("No sagas yet"));
    let none = SagaPage {
        sagas: Vec::new(),
        next_cursor: None,
    };
    assert!(html(&SagasFragment::of(Ok(none), "parked")).contains("None with this status"));
    let unavailable = SagasFragment::of(Err("the database cannot be asked now".to_owned()), "");
    assert!(html(&unavailable).contains("the database cannot be asked now"));
}

#[test]
fn the_chosen_filter_is_marked() {
    let html = page(&shop(), "parked");
    assert_eq!(html.matches("aria-current").count(), 1, "{html}");
    let mark = html.find("aria-current").expect("mark");
    let filter = html.find("?status=parked").expect("filter");
    assert!(mark.abs_diff(filter) < 60, "{html}");
}

#[test]
fn without_a_shop_there_is_no_order_form() {
    let without = page(&PageConfig::default(), "");
    assert!(
        !without.contains("id=\"own\"") && !without.contains("id=\"stock\""),
        "{without}"
    );
    let with = page(&shop(), "");
    assert!(
        with.contains("id=\"own\"") && with.contains("id=\"stock\""),
        "{with}"
    );
    assert!(
        with.contains("data-orders=\"http://127.0.0.1:3000\""),
        "no slash at the end: {with}"
    );
}

#[test]
fn nothing_is_inline_that_the_policy_forbids() {
    let html = page(&shop(), "");
    for inline in [
        "style=",
        "onclick=",
        "onsubmit=",
        "<style",
        "<script>",
        "javascript:",
    ] {
        assert!(!html.contains(inline), "{inline} in {html}");
    }
}

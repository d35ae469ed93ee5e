//! Tests the orchestrator's page in a real browser, on the real system. Screenshots are left in `target/tmp/page` for
//! inspection.

mod browser;
mod view;

use crate::saga::Saga;
use anyhow::{Context, Result, ensure};
use browser::{ENTER, ESCAPE};
use futures_util::future::try_join_all;
use saga_test_support::environment::until;
use serde_json::{Value, json};
use std::time::Duration;
use uuid::Uuid;
use view::Page;

/// Far above the time that anything here takes on an idle machine.
const PATIENCE: Duration = Duration::from_mins(1);
const SHELF: &str = "a0000000-0000-4000-8000-000000000001";
const SOLD_OUT: &str = "a0000000-0000-4000-8000-000000000000";
const DEFINITIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/standalone/page/definitions"
);

/// A button's value, the end of its saga, and the states in which the steps are then shown.
type Kind = (
    &'static str,
    &'static str,
    &'static [(&'static str, &'static str)],
);

const KINDS: [Kind; 5] = [
    (
        "confirmed",
        "completed",
        &[
            ("create-order", "succeeded"),
            ("reserve-stock", "succeeded"),
            ("charge-payment", "succeeded"),
            ("complete-stock", "succeeded"),
            ("confirm-order", "succeeded"),
        ],
    ),
    (
        "declined",
        "compensated",
        &[
            ("create-order", "compensated"),
            ("reserve-stock", "compensated"),
            ("charge-payment", "failed"),
            ("complete-stock", "waiting"),
            ("confirm-order", "waiting"),
        ],
    ),
    (
        "out_of_stock",
        "compensated",
        &[
            ("create-order", "compensated"),
            ("reserve-stock", "failed"),
            ("charge-payment", "waiting"),
            ("complete-stock", "waiting"),
            ("confirm-order", "waiting"),
        ],
    ),
    (
        "payment_first",
        "completed",
        &[
            ("create-order", "succeeded"),
            ("charge-payment", "succeeded"),
            ("reserve-stock", "succeeded"),
            ("confirm-order", "succeeded"),
        ],
    ),
    (
        "refunded",
        "compensated",
        &[
            ("create-order", "compensated"),
            ("charge-payment", "compensated"),
            ("reserve-stock", "failed"),
            ("confirm-order", "waiting"),
        ],
    ),
];

#[tokio::test]
async fn orders_travel_to_their_ends_before_ones_eyes() -> Result<()> {
    if browser::is_missing("orders_travel_to_their_ends_before_ones_eyes") {
        return Ok(());
    }
    let mut saga = Saga::new("page").await?;
    saga.start(&[]).await?;
    let mut page = Page::open("orders", saga).await?;
    each_kind_ends_as_it_says(&page).await?;
    a_rollback_is_seen_step_by_step(&page).await?;
    an_order_of_ones_own_needs_no_mouse(&page).await?;
    one_saga_is_told_whole(&page).await?;
    the_list_is_filtered(&page).await?;
    every_control_has_a_name(&page).await?;
    nothing_foreign_runs(&page).await?;
    let complaints = page.browser.complaints().await?;
    ensure!(complaints.is_empty(), "the console says {complaints:#?}");
    it_looks_like_something(&page).await?;
    a_flood_leaves_it_as_large_as_it_was(&page).await?;
    page.saga.stop(libc::SIGTERM).await
}

async fn each_kind_ends_as_it_says(page: &Page) -> Result<()> {
    let before = page.stock().await?;
    let places =
        "return [...document.querySelectorAll('#overview, main > section')].map((section) => {
        const {x, y, width} = section.getBoundingClientRect();
        return [x, y, width];
    })";
    let at_first = page.browser.script(places).await?;
    for (kind, status, steps) in KINDS {
        let card = page.order(kind, status).await?;
        assert_eq!(card["steps"], json!(steps), "{kind}");
        ensure!(
            card["took"].as_str().is_some_and(|took| !took.is_empty()),
            "{kind}: {card}"
        );
        let id = card["id"].as_str().context("an id")?;
        let row = format!(
            "return document.querySelector('tr[data-saga=\"{id}\"] .status')?.textContent === '{status}'"
        );
        page.until("the list shows it", &row).await;
        let ended =
            format!("return document.querySelector('[data-event^=\"{id}/\"].{status}') !== null");
        page.until("the stream shows its end", &ended).await;
        let answer = page.text("#answer").await?;
        ensure!(answer.contains(status), "{kind}: {answer}");
    }
    assert_eq!(page.cards().await?.len(), KINDS.len());
    let sold = [before[0] - 2, before[1], before[2] + 2];
    until("two are sold", PATIENCE, || async {
        let stock = page.stock().await.map_err(|error| format!("{error:#}"))?;
        if stock == sold {
            Ok(())
        } else {
            Err(format!("{stock:?} instead of {sold:?}"))
        }
    })
    .await;
    let numbers = "return ['completed', 'compensated'].map((status) =>
        document.querySelector(`.count.${status} dd`).textContent).join() === '2,3'";
    page.until("the counts are right", numbers).await;
    ensure!(
        page.text(".lags").await?.contains("saga.inputs"),
        "lag is shown"
    );
    // Although much has happened, no section has moved.
    assert_eq!(page.browser.script(places).await?, at_first);
    Ok(())
}

async fn a_rollback_is_seen_step_by_step(page: &Page) -> Result<()> {
    let watch = "window.seen = [];
        new MutationObserver((changes) => {
            for (const {target} of changes) seen.push(`${target.dataset.step} ${target.dataset.state}`);
        }).observe(document.querySelector('#cards'), {subtree: true, attributeFilter: ['data-state']})";
    page.browser.script(watch).await?;
    page.order("declined", "compensated").await?;
    let seen = page.browser.script("return [...new Set(seen)]").await?;
    let seen: Vec<String> = serde_json::from_value(seen)?;
    let expected = [
        "reserve-stock running",
        "reserve-stock succeeded",
        "charge-payment running",
        "charge-payment failed",
        "reserve-stock compensating",
        "reserve-stock compensated",
        "create-order compensating",
        "create-order compensated",
    ];
    let positions: Vec<Option<usize>> = expected
        .iter()
        .map(|step| seen.iter().position(|one| one == step))
        .collect();
    ensure!(
        positions.iter().all(Option::is_some) && positions.is_sorted(),
        "{seen:#?}"
    );
    Ok(())
}

async fn an_order_of_ones_own_needs_no_mouse(page: &Page) -> Result<()> {
    // The last order was compensated, which the page shows at its next refresh of the stock.
    let available = until("nothing is reserved", PATIENCE, || async {
        match page.stock().await.map_err(|error| format!("{error:#}"))?[..] {
            [available, 0, _] => Ok(available),
            ref stock => Err(format!("{stock:?}")),
        }
    })
    .await;
    let newest = page.newest().await?;
    page.browser
        .script("document.querySelector('#own [name=quantity]').select()")
        .await?;
    page.browser
        .keys("#own [name=quantity]", &format!("3{ENTER}"))
        .await?;
    page.newer(&newest, "completed").await?;
    until("three are gone", PATIENCE, || async {
        let stock = page.stock().await.map_err(|error| format!("{error:#}"))?;
        if stock[0] == available - 3 {
            Ok(())
        } else {
            Err(format!("{stock:?}"))
        }
    })
    .await;
    // A refusal by the service is shown in the service's own words.
    page.browser
        .script("document.querySelector('#own [name=price]').step = 'any'")
        .await?;
    page.browser
        .script("document.querySelector('#own [name=price]').select()")
        .await?;
    page.browser
        .keys("#own [name=price]", &format!("1.234{ENTER}"))
        .await?;
    page.until("the refusal names the field", "return document.querySelector('#answer.bad')?.textContent.includes('/items/0/price') ?? false").await;
    Ok(())
}

async fn one_saga_is_told_whole(page: &Page) -> Result<()> {
    let is_open = "return document.querySelector('#detail').open";
    page.browser.keys(".card.compensated button", ENTER).await?;
    page.until("its dialog opens", is_open).await;
    let text = page.text("#detail").await?;
    for part in [
        "place-order v1",
        "payment_declined",
        "create-order",
        "compensation 1: success",
        "step_failed",
    ] {
        ensure!(text.contains(part), "{part} is missing in {text}");
    }
    page.screenshot("one-saga").await?;
    page.browser.keys("#detail button", ESCAPE).await?;
    page.until(
        "it closes",
        "return !document.querySelector('#detail').open",
    )
    .await;
    let focus = "return document.activeElement.matches('.card.compensated button')";
    assert_eq!(
        page.browser.script(focus).await?,
        json!(true),
        "focus goes back"
    );
    Ok(())
}

async fn the_list_is_filtered(page: &Page) -> Result<()> {
    page.browser
        .click(".filters [data-status=completed]")
        .await?;
    let rows = "const rows = [...document.querySelectorAll('#sagas tbody tr')];
        return rows.length > 0 && rows.every((row) => row.className === 'completed')";
    page.until("only completed ones are listed", rows).await;
    // The URL contains the filter, and the server applies the filter too.
    let address = page.browser.script("return location.search").await?;
    assert_eq!(address, json!("?status=completed"));
    let html = page
        .saga
        .http
        .get(page.saga.orchestrator_url("/?status=completed"))
        .send()
        .await?;
    let html = html.text().await?;
    ensure!(
        html.contains("class=\"completed\"") && !html.contains("class=\"compensated\""),
        "{html}"
    );
    page.browser.click(".filters [data-status=\"\"]").await
}

async fn every_control_has_a_name(page: &Page) -> Result<()> {
    let tree = page
        .browser
        .devtools("Accessibility.getFullAXTree", json!({}))
        .await?;
    let roles = [
        "button",
        "link",
        "combobox",
        "spinbutton",
        "textbox",
        "region",
        "log",
        "table",
    ];
    let nodes = tree["nodes"].as_array().context("nodes")?;
    let unnamed: Vec<&Value> = nodes
        .iter()
        .filter(|node| node["ignored"] != true)
        .filter(|node| {
            node["role"]["value"]
                .as_str()
                .is_some_and(|role| roles.contains(&role))
        })
        .filter(|node| node["name"]["value"].as_str().is_none_or(str::is_empty))
        .collect();
    ensure!(unnamed.is_empty(), "without a name: {unnamed:#?}");
    ensure!(nodes.len() > 100, "the page has content");
    Ok(())
}

async fn nothing_foreign_runs(page: &Page) -> Result<()> {
    let answer = page
        .saga
        .http
        .get(page.saga.orchestrator_url("/"))
        .send()
        .await?;
    let policy = answer.headers()["content-security-policy"]
        .to_str()?
        .to_owned();
    for url in [page.saga.order_url(""), page.saga.inventory_url("")] {
        ensure!(policy.contains(&url), "{policy}");
    }
    let inject = "const script = document.createElement('script');
        script.textContent = 'window.injected = true';
        document.body.append(script);
        return window.injected ?? false";
    assert_eq!(page.browser.script(inject).await?, json!(false));
    // The only complaints are those about the injected script, and the refused order.
    let complaints = page.browser.complaints().await?;
    let is_refusal =
        |said: &String| said.contains("Content Security Policy") || said.contains("422");
    ensure!(complaints.iter().all(is_refusal), "{complaints:#?}");
    Ok(())
}

async fn it_looks_like_something(page: &Page) -> Result<()> {
    for (width, height) in [(1360, 1000), (390, 844)] {
        for scheme in ["light", "dark"] {
            page.browser.look(width, height, scheme).await?;
            let overflow = "return document.documentElement.scrollWidth <= innerWidth";
            page.until("nothing sticks out at the side", overflow).await;
            page.screenshot(&format!("orders-{width}-{scheme}")).await?;
        }
    }
    page.browser.look(1360, 1000, "light").await
}

/// Each round produces about 4,000 events. The first round fills the lists that the page keeps.
async fn a_flood_leaves_it_as_large_as_it_was(page: &Page) -> Result<()> {
    const ORDERS: usize = 300;
    let mut sizes = Vec::new();
    for round in 1..=2 {
        let placed = (0..ORDERS).map(|_| async {
            let customer = "c0000000-0000-4000-8000-000000000009";
            let order =
                json!({"customerId": customer, "productId": SHELF, "quantity": 1, "amount": 5});
            let sent = page
                .saga
                .http
                .post(page.saga.order_url("/orders"))
                .json(&order)
                .send();
            sent.await?.error_for_status()
        });
        try_join_all(placed).await?;
        let expected = 3 + round * ORDERS;
        let counted = format!(
            "return document.querySelector('.count.completed dd').textContent === '{expected}'"
        );
        page.until("all have ended", &counted).await;
        let quiet = "const cards = [...document.querySelectorAll('.card')];
            return cards.every((card) => card.matches('.completed, .compensated'))";
        page.until("all cards have arrived", quiet).await;
        sizes.push(size(page).await?);
    }
    let lines = "return [document.querySelectorAll('#stream li').length, document.querySelectorAll('.card').length]";
    let kept: Vec<usize> = serde_json::from_value(page.browser.script(lines).await?)?;
    ensure!(kept[0] <= 200 && kept[1] <= 12, "{kept:?}");
    let [(nodes, bytes), (nodes_after, bytes_after)] = sizes[..] else {
        anyhow::bail!("two rounds");
    };
    ensure!(
        nodes_after < nodes * 1.2,
        "{nodes} nodes became {nodes_after}"
    );
    ensure!(
        bytes_after < bytes * 1.3,
        "{bytes} bytes became {bytes_after}"
    );
    page.screenshot("after-a-flood").await
}

/// Returns the number of nodes and bytes that remain after a garbage collection.
async fn size(page: &Page) -> Result<(f64, f64)> {
    page.browser
        .devtools("HeapProfiler.collectGarbage", json!({}))
        .await?;
    page.browser
        .devtools("Performance.enable", json!({}))
        .await?;
    let metrics = page
        .browser
        .devtools("Performance.getMetrics", json!({}))
        .await?;
    let of = |name: &str| {
        let metrics = metrics["metrics"].as_array()?;
        metrics.iter().find(|metric| metric["name"] == name)?["value"].as_f64()
    };
    Ok((
        of("Nodes").context("nodes")?,
        of("JSHeapUsedSize").context("bytes")?,
    ))
}

#[tokio::test]
async fn a_waiting_saga_shows_its_reason_and_a_restart_repeats_no_event() -> Result<()> {
    if browser::is_missing("a_waiting_saga_shows_its_reason_and_a_restart_repeats_no_event") {
        return Ok(());
    }
    let mut saga = Saga::new("page-waits").await?;
    saga.set(
        "ORCHESTRATOR__PARTICIPANTS__SHIPPING__TOPIC",
        "shipping.commands",
    );
    saga.set(
        "ORCHESTRATOR__PARTICIPANTS__SHIPPING__GROUP",
        "shipping-svc",
    );
    let rule = "[{amount_minor = 1313, operation = \"refund\", effect = \"error\", times = 2}]";
    saga.set("PAYMENT_SVC__GATEWAY__RULES", rule);
    saga.start(&["--definitions", DEFINITIONS]).await?;
    let mut page = Page::open("waits", saga).await?;
    let queued = a_queued_command_is_explained(&page).await?;
    a_parked_saga_asks_for_an_operator_until_it_is_resolved(&page).await?;
    an_abandoned_saga_is_marked(&page).await?;
    after_a_restart_it_goes_on(&mut page, &queued).await?;
    page.saga.stop(libc::SIGTERM).await
}

async fn a_queued_command_is_explained(page: &Page) -> Result<String> {
    let order = Uuid::new_v4();
    let items = json!([{"productId": SHELF, "quantity": 1, "unitPriceMinor": 100}]);
    let id = page
        .start_saga(
            "ship",
            "parcel 17",
            json!({"orderId": order, "items": items}),
        )
        .await?;
    let waits = format!("const card = document.querySelector('.card[data-saga=\"{id}\"]');
        return card?.querySelector('[data-step=ship-parcel]')?.dataset.state === 'queued'
            && card.querySelector('.why').textContent.startsWith('not picked up by shipping, since ')");
    page.until("its card says why it waits", &waits).await;
    let row = format!(
        "return document.querySelector('tr[data-saga=\"{id}\"] .waiting')?.textContent.startsWith('not picked up by shipping') ?? false"
    );
    page.until("its row says why it waits", &row).await;
    let overview = "return document.querySelector('.waits').textContent.includes('1 is not picked up by shipping')";
    page.until("the overview says it", overview).await;
    let lag = "return [...document.querySelectorAll('.lag.behind')].some((lag) => /shipping.commands\\s+1/.test(lag.textContent))";
    page.until("it is a lag", lag).await;
    Ok(id)
}

async fn a_parked_saga_asks_for_an_operator_until_it_is_resolved(page: &Page) -> Result<()> {
    let order = Uuid::new_v4();
    let input = json!({
        "orderId": order, "customerId": order, "amountMinor": 1313, "currency": "EUR",
        "items": [{"productId": SOLD_OUT, "quantity": 1, "unitPriceMinor": 1313}],
    });
    let id = page.start_saga("refund-once", "order 13", input).await?;
    let card = page.card(&id, "parked").await;
    assert_eq!(
        card["steps"],
        json!([["charge-payment", "parked"], ["reserve-stock", "failed"]])
    );
    ensure!(
        card["why"]
            .as_str()
            .is_some_and(|why| why.starts_with("needs a person")),
        "{card}"
    );
    page.until(
        "the overview says it",
        "return document.querySelector('.waits').textContent.includes('1 needs a person')",
    )
    .await;
    page.screenshot("waiting").await?;
    let reason = json!({"reason": "the gateway is whole again"});
    page.ask(&id, "retry", reason).await?;
    let card = page.card(&id, "compensated").await;
    assert_eq!(
        card["steps"],
        json!([
            ["charge-payment", "compensated"],
            ["reserve-stock", "failed"]
        ])
    );
    Ok(())
}

/// The participant does not run, so its compensation is skipped. The other steps are compensated.
async fn an_abandoned_saga_is_marked(page: &Page) -> Result<()> {
    let order = Uuid::new_v4();
    let items = json!([{"productId": SHELF, "quantity": 1, "unitPriceMinor": 100}]);
    let input = json!({"orderId": order, "items": items});
    let id = page.start_saga("ship", "parcel 18", input).await?;
    let shipping = |state: &str| {
        format!(
            "return document.querySelector('.card[data-saga=\"{id}\"] [data-step=ship-parcel]')?.dataset.state === '{state}'"
        )
    };
    page.until("it waits for its parcel", &shipping("queued"))
        .await;
    let reason = json!({"reason": "the customer has moved"});
    page.ask(&id, "compensate", reason).await?;
    page.card(&id, "compensating").await;
    let skip = json!({"reason": "nobody recalls it", "step": "ship-parcel", "compensation": true});
    page.ask(&id, "skip", skip).await?;
    let card = page.card(&id, "abandoned").await;
    assert_eq!(
        card["steps"],
        json!([["reserve-stock", "compensated"], ["ship-parcel", "kept"]])
    );
    assert_eq!(card["why"], "abandoned: nobody recalls it");
    Ok(())
}

async fn after_a_restart_it_goes_on(page: &mut Page, queued: &str) -> Result<()> {
    page.order("confirmed", "completed").await?;
    let before = page.cards().await?.len();
    page.saga.kill_tree().await?;
    page.until(
        "the page says that it is cut off",
        "return document.querySelector('#connection.lost') !== null",
    )
    .await;
    page.saga.start(&["--definitions", DEFINITIONS]).await?;
    page.until(
        "it is live again",
        "return document.querySelector('#connection.live') !== null",
    )
    .await;
    page.order("declined", "compensated").await?;
    let cards = page.cards().await?;
    assert_eq!(cards.len(), before + 1, "{cards:#?}");
    let still = cards
        .iter()
        .find(|card| card["id"] == queued)
        .context("the queued saga")?;
    assert_eq!(still["status"], "running", "{still}");
    let twice = "const ids = [...document.querySelectorAll('[data-event]')].map((line) => line.dataset.event);
        return ids.length - new Set(ids).size";
    assert_eq!(page.browser.script(twice).await?, json!(0));
    page.until(
        "numbers are fresh again",
        "return document.querySelector('.stale') === null",
    )
    .await;
    page.screenshot("after-a-restart").await
}

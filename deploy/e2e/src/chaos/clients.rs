//! Clients place orders of every kind, cancel some of them at a random time, repeat requests whose answer is unclear,
//! and record the acknowledged orders in a journal.

use super::{cluster::Cluster, plan::COPIES};
use anyhow::{Context, Result};
use saga_audit::{Journal, JournalEntry};
use saga_harness::random::Random;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs::File,
    io::Write,
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::sleep;
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use uuid::Uuid;

/// The timeout of a request. A client that would wait longer has a reason to repeat the request.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
const ASK_AGAIN: Duration = Duration::from_millis(700);
/// The maximum number of orders in flight. Orders do not accumulate when answers are slow.
const UNDER_WAY_MAX: usize = 200;
const CANCEL_WITHIN: Duration = Duration::from_secs(4);

/// The kinds of orders. [`OrderKind::allows`] says how they may end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum OrderKind {
    Short,
    Long,
    Declined,
    OutOfStock,
    /// Orders a product that runs out because many clients order it.
    Scarce,
    PaymentFirst,
    PaymentFirstOutOfStock,
    /// The gateway does the charge, but its answer is lost.
    GatewayTimesOut,
    GatewaySlow,
    GatewayErrs,
}

const ORDER_KINDS: [(u64, OrderKind); 10] = [
    (25, OrderKind::Short),
    (15, OrderKind::Long),
    (10, OrderKind::Declined),
    (8, OrderKind::OutOfStock),
    (10, OrderKind::Scarce),
    (14, OrderKind::PaymentFirst),
    (8, OrderKind::PaymentFirstOutOfStock),
    (4, OrderKind::GatewayTimesOut),
    (3, OrderKind::GatewaySlow),
    (3, OrderKind::GatewayErrs),
];

impl OrderKind {
    pub fn name(self) -> &'static str {
        match self {
            Self::Short => "short",
            Self::Long => "long",
            Self::Declined => "declined",
            Self::OutOfStock => "out of stock",
            Self::Scarce => "scarce",
            Self::PaymentFirst => "payment first",
            Self::PaymentFirstOutOfStock => "payment first, out of stock",
            Self::GatewayTimesOut => "gateway times out",
            Self::GatewaySlow => "gateway slow",
            Self::GatewayErrs => "gateway errs",
        }
    }

    /// Returns true if an order of this kind may end with this status and reason when no client cancels it. Any other
    /// end is a needless compensation, or worse.
    pub fn allows(self, status: &str, reason: Option<&str>) -> bool {
        match self {
            Self::Short
            | Self::Long
            | Self::PaymentFirst
            | Self::GatewayTimesOut
            | Self::GatewaySlow
            | Self::GatewayErrs => status == "CONFIRMED",
            Self::Declined => reason == Some("payment_declined"),
            Self::OutOfStock | Self::PaymentFirstOutOfStock => reason == Some("out_of_stock"),
            Self::Scarce => status == "CONFIRMED" || reason == Some("out_of_stock"),
        }
    }
}

/// The order that a customer has asked for. Each customer places one order.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    pub kind: OrderKind,
    pub cancelled: bool,
}

/// The products, which are created before the first order.
#[derive(Clone, Debug)]
pub struct Products {
    plenty: Vec<Uuid>,
    scarce: Uuid,
    none: Uuid,
}

const PLENTY: i64 = 1_000_000;
const SCARCE: i64 = 300;

/// The state that all clients share.
pub struct Clients {
    cluster: Arc<Cluster>,
    products: Products,
    journal: Mutex<(File, Journal)>,
    expected: Mutex<BTreeMap<Uuid, Expectation>>,
    /// Contradictions: a key that was answered with two orders, or an answer that makes no sense.
    contradictions: Mutex<Vec<String>>,
    pub tally: Tally,
    /// Cancelled when clients must not place new orders any more.
    closing: CancellationToken,
    /// Cancelled when clients must not repeat requests any more.
    giving_up: CancellationToken,
    tracker: TaskTracker,
}

/// Counts of requests, of their answers and of cancels.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    pub unclear: AtomicU64,
    pub asked_again: AtomicU64,
    pub cancels: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// The result of one request.
enum Answer {
    Accepted(Uuid),
    /// The order may have been accepted or not.
    Unclear,
    Refused(String),
}

impl Clients {
    pub async fn new(
        cluster: Arc<Cluster>,
        journal: &Path,
        random: &mut Random,
    ) -> Result<Arc<Self>> {
        let file = File::options().create(true).append(true).open(journal)?;
        let products = Products {
            plenty: (0..5).map(|_| random.uuid()).collect(),
            scarce: random.uuid(),
            none: random.uuid(),
        };
        let clients = Self {
            cluster,
            products,
            journal: Mutex::new((file, Journal::default())),
            expected: Mutex::default(),
            contradictions: Mutex::default(),
            tally: Tally::default(),
            closing: CancellationToken::new(),
            giving_up: CancellationToken::new(),
            tracker: TaskTracker::new(),
        };
        clients.stock().await?;
        Ok(Arc::new(clients))
    }

    async fn stock(&self) -> Result<()> {
        let inventory = super::plan::Copy {
            service: saga_harness::Service::Inventory,
            number: 0,
        };
        let plenty = self.products.plenty.iter().map(|id| (*id, PLENTY));
        for (product, pieces) in
            plenty.chain([(self.products.scarce, SCARCE), (self.products.none, 0)])
        {
            let url = self
                .cluster
                .direct_url(inventory, &format!("/stock/{product}"));
            let body = json!({ "available": pieces });
            let answer = self.cluster.http.put(url).json(&body).send().await?;
            answer.error_for_status().context("stocking")?;
            self.note(JournalEntry::Stocked { product, pieces })?;
        }
        Ok(())
    }

    /// Writes an entry to the journal file first, and then to the journal in memory.
    fn note(&self, entry: JournalEntry) -> Result<()> {
        let line = serde_json::to_string(&entry)?;
        let mut journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        writeln!(journal.0, "{line}")?;
        journal.1.add(entry);
        Ok(())
    }

    pub fn journal(&self) -> Journal {
        let journal = self.journal.lock().unwrap_or_else(PoisonError::into_inner);
        journal.1.clone()
    }

    pub fn expected(&self) -> BTreeMap<Uuid, Expectation> {
        let expected = self.expected.lock().unwrap_or_else(PoisonError::into_inner);
        expected.clone()
    }

    pub fn contradictions(&self) -> Vec<String> {
        let found = self
            .contradictions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        found.clone()
    }

    fn contradict(&self, what: String) {
        let mut found = self
            .contradictions
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        found.push(what);
    }

    /// Runs one client until [`close`](Self::close): places an order about every `period`.
    pub async fn order(self: Arc<Self>, mut random: Random, period: Duration) {
        loop {
            let pause = random.between(period / 2, period * 3 / 2);
            tokio::select! {
                () = self.closing.cancelled() => return,
                () = sleep(pause) => {}
            }
            if self.tracker.len() < UNDER_WAY_MAX {
                let stream = Random::new(random.below(u64::MAX), "order");
                self.tracker.spawn(Arc::clone(&self).one(stream));
            }
        }
    }

    /// Stops placing orders. Requests without a clear answer are still repeated.
    pub fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
    }

    /// Waits until every order task has ended. After `limit`, stops repeating requests without a clear answer. Returns
    /// true if all tasks ended within `limit`.
    pub async fn settled(&self, limit: Duration) -> bool {
        let settled = tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok();
        self.giving_up.cancel();
        self.tracker.wait().await;
        settled
    }

    /// Places one order of one customer, and may repeat or cancel it.
    async fn one(self: Arc<Self>, mut random: Random) {
        let customer = random.uuid();
        let Some(kind) = random.weighted(&ORDER_KINDS) else {
            return;
        };
        let cancelled = random.chance(20);
        self.expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(customer, Expectation { kind, cancelled });
        let body = self.body(kind, customer, &mut random);
        let key = random.chance(65).then(|| random.uuid().to_string());
        let Some(order) = self.ask(&body, key.as_deref(), &mut random).await else {
            return;
        };
        count(&self.tally.accepted);
        let entry = JournalEntry::Accepted {
            order,
            customer,
            sole: true,
        };
        if let Err(error) = self.note(entry) {
            self.contradict(format!("the journal cannot be written: {error:#}"));
        }
        if key.is_some() && random.chance(15) {
            self.repeat(&body, key.as_deref(), order, &mut random).await;
        }
        if cancelled {
            sleep(random.between(Duration::ZERO, CANCEL_WITHIN)).await;
            self.cancel(order, &mut random).await;
        }
    }

    fn body(&self, kind: OrderKind, customer: Uuid, random: &mut Random) -> Value {
        let plenty = *random.pick(&self.products.plenty);
        let short = |product: Uuid, quantity: u64, amount: f64| json!({"customerId": customer, "productId": product, "quantity": quantity, "amount": amount});
        match kind {
            OrderKind::Short => short(plenty, 1 + random.below(3), 10.0),
            OrderKind::Long => {
                let lines = 2 + random.below(3) as usize;
                let items: Vec<Value> = self.products.plenty.iter().take(lines)
                    .map(|product| json!({"productId": product, "quantity": 1 + random.below(4), "price": 7.25}))
                    .collect();
                json!({"customerId": customer, "items": items})
            }
            OrderKind::Declined => short(plenty, 1, 1500.0),
            OrderKind::OutOfStock => short(self.products.none, 1, 10.0),
            OrderKind::Scarce => short(self.products.scarce, 1 + random.below(2), 12.5),
            OrderKind::PaymentFirst => payment_first(short(plenty, 1, 20.0)),
            OrderKind::PaymentFirstOutOfStock => payment_first(short(self.products.none, 1, 20.0)),
            OrderKind::GatewayTimesOut => short(plenty, 1, 13.13),
            OrderKind::GatewaySlow => short(plenty, 1, 14.14),
            OrderKind::GatewayErrs => short(plenty, 1, 15.15),
        }
    }

    /// Repeats the request until its answer is clear. Without a key it is sent once, since a repeated request could
    /// place a second order.
    async fn ask(&self, body: &Value, key: Option<&str>, random: &mut Random) -> Option<Uuid> {
        loop {
            match self.post(body, key, random).await {
                Answer::Accepted(order) => return Some(order),
                Answer::Refused(why) => {
                    self.contradict(why);
                    return None;
                }
                Answer::Unclear => {
                    count(&self.tally.unclear);
                    key?;
                }
            }
            tokio::select! {
                () = self.giving_up.cancelled() => return None,
                () = sleep(ASK_AGAIN) => count(&self.tally.asked_again),
            }
        }
    }

    /// Sends the same request again. Its answer must name the same order.
    async fn repeat(&self, body: &Value, key: Option<&str>, order: Uuid, random: &mut Random) {
        if let Answer::Accepted(again) = self.post(body, key, random).await
            && again != order
        {
            self.contradict(format!(
                "a key was answered with {order}, then with {again}"
            ));
        }
    }

    async fn post(&self, body: &Value, key: Option<&str>, random: &mut Random) -> Answer {
        count(&self.tally.sent);
        let copy = random.below(COPIES as u64) as usize;
        let url = self.cluster.orders_url(copy, "/orders");
        let mut request = self
            .cluster
            .http
            .post(url)
            .json(body)
            .timeout(ANSWER_TIMEOUT);
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        if random.chance(10) {
            request = request.header("prefer", "wait=2");
        }
        let Ok(response) = request.send().await else {
            return Answer::Unclear;
        };
        let status = response.status();
        let Ok(text) = response.text().await else {
            return Answer::Unclear;
        };
        let id = serde_json::from_str::<Value>(&text)
            .ok()
            .and_then(|body| body["id"].as_str()?.parse().ok());
        match (status.as_u16(), id) {
            (200 | 201, Some(order)) => Answer::Accepted(order),
            (status @ 400..=499, _) => Answer::Refused(format!("{status} to {body}: {text}")),
            (_, _) => Answer::Unclear,
        }
    }

    async fn cancel(&self, order: Uuid, random: &mut Random) {
        let copy = random.below(COPIES as u64) as usize;
        let url = self
            .cluster
            .orders_url(copy, &format!("/orders/{order}/cancel"));
        let body = json!({"reason": "changed my mind"});
        count(&self.tally.cancels);
        let request = self.cluster.http.post(url).json(&body);
        // The answer does not matter, nor does a missing answer: the order must end either way.
        drop(request.timeout(ANSWER_TIMEOUT).send().await);
    }
}

fn payment_first(mut body: Value) -> Value {
    body["definition"] = json!(saga_contracts::definition::PLACE_ORDER_PAYMENT_FIRST);
    body
}

//! Clients: they order everything that can be ordered, cancel some of it at a random moment, ask again when the answer is
//! unclear, and write down what was acknowledged to them.

use super::{cluster::Cluster, plan::COPIES, random::Random};
use anyhow::{Context, Result};
use saga_audit::{Journal, JournalEntry};
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

/// A client that waits longer has a reason to ask again.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(6);
const ASK_AGAIN: Duration = Duration::from_millis(700);
/// Orders that one client has under way at most: when answers are slow, clients do not pile up.
const UNDER_WAY_MAX: usize = 200;
const CANCEL_WITHIN: Duration = Duration::from_secs(4);

/// Kinds of orders, and what may become of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Wish {
    Short,
    Long,
    Declined,
    OutOfStock,
    /// A product that runs out while everybody wants it.
    Scarce,
    PaymentFirst,
    PaymentFirstOutOfStock,
    /// The gateway does it and the answer is lost.
    GatewayTimesOut,
    GatewaySlow,
    GatewayErrs,
}

const WISHES: [(u64, Wish); 10] = [
    (25, Wish::Short),
    (15, Wish::Long),
    (10, Wish::Declined),
    (8, Wish::OutOfStock),
    (10, Wish::Scarce),
    (14, Wish::PaymentFirst),
    (8, Wish::PaymentFirstOutOfStock),
    (4, Wish::GatewayTimesOut),
    (3, Wish::GatewaySlow),
    (3, Wish::GatewayErrs),
];

impl Wish {
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

    /// Whether an order of this kind may end so, if nobody cancels it. Anything else is a needless compensation, or worse.
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

/// What a customer has asked for; each asks for one order.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    pub wish: Wish,
    pub cancelled: bool,
}

/// Products, made before the first order.
#[derive(Clone, Debug)]
pub struct Products {
    plenty: Vec<Uuid>,
    scarce: Uuid,
    none: Uuid,
}

const PLENTY: i64 = 1_000_000;
const SCARCE: i64 = 300;

/// What all clients share.
pub struct Clients {
    cluster: Arc<Cluster>,
    products: Products,
    journal: Mutex<(File, Journal)>,
    expected: Mutex<BTreeMap<Uuid, Expectation>>,
    /// One key answered with two orders, or an answer that makes no sense.
    contradictions: Mutex<Vec<String>>,
    pub tally: Tally,
    /// Nobody orders any more.
    closing: CancellationToken,
    /// Nobody asks again any more.
    giving_up: CancellationToken,
    tracker: TaskTracker,
}

/// How requests were answered.
#[derive(Debug, Default)]
pub struct Tally {
    pub sent: AtomicU64,
    pub accepted: AtomicU64,
    pub unclear: AtomicU64,
    pub pushed_back: AtomicU64,
    pub asked_again: AtomicU64,
    pub cancels: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

/// What became of one request.
enum Answer {
    Accepted(Uuid),
    /// Come again: definitely not taken.
    PushedBack,
    /// It may have been taken or not.
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
            service: crate::Service::Inventory,
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

    /// Written before anybody else is told.
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

    /// One client, until [`close`](Self::close): an order every `period` or so.
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

    /// No more orders; who has no clear answer yet goes on asking.
    pub fn close(&self) {
        self.closing.cancel();
        self.tracker.close();
    }

    /// Returns when everybody has a clear answer, or was given up on; whether it was the former.
    pub async fn settled(&self, limit: Duration) -> bool {
        let settled = tokio::time::timeout(limit, self.tracker.wait())
            .await
            .is_ok();
        self.giving_up.cancel();
        self.tracker.wait().await;
        settled
    }

    /// One order of one customer.
    async fn one(self: Arc<Self>, mut random: Random) {
        let customer = random.uuid();
        let Some(wish) = random.weighted(&WISHES) else {
            return;
        };
        let cancelled = random.chance(20);
        self.expected
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(customer, Expectation { wish, cancelled });
        let body = self.body(wish, customer, &mut random);
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

    fn body(&self, wish: Wish, customer: Uuid, random: &mut Random) -> Value {
        let plenty = *random.pick(&self.products.plenty);
        let short = |product: Uuid, quantity: u64, amount: f64| json!({"customerId": customer, "productId": product, "quantity": quantity, "amount": amount});
        match wish {
            Wish::Short => short(plenty, 1 + random.below(3), 10.0),
            Wish::Long => {
                let lines = 2 + random.below(3) as usize;
                let items: Vec<Value> = self.products.plenty.iter().take(lines)
                    .map(|product| json!({"productId": product, "quantity": 1 + random.below(4), "price": 7.25}))
                    .collect();
                json!({"customerId": customer, "items": items})
            }
            Wish::Declined => short(plenty, 1, 1500.0),
            Wish::OutOfStock => short(self.products.none, 1, 10.0),
            Wish::Scarce => short(self.products.scarce, 1 + random.below(2), 12.5),
            Wish::PaymentFirst => payment_first(short(plenty, 1, 20.0)),
            Wish::PaymentFirstOutOfStock => payment_first(short(self.products.none, 1, 20.0)),
            Wish::GatewayTimesOut => short(plenty, 1, 13.13),
            Wish::GatewaySlow => short(plenty, 1, 14.14),
            Wish::GatewayErrs => short(plenty, 1, 15.15),
        }
    }

    /// Until the answer is clear; without a key it is asked once, since asking again could order again.
    async fn ask(&self, body: &Value, key: Option<&str>, random: &mut Random) -> Option<Uuid> {
        loop {
            match self.post(body, key, random).await {
                Answer::Accepted(order) => return Some(order),
                Answer::Refused(why) => {
                    self.contradict(why);
                    return None;
                }
                Answer::PushedBack => count(&self.tally.pushed_back),
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

    /// The same again must be answered with the same order.
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
            (409, _) => Answer::PushedBack,
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
        // Whatever is answered, and if it is nothing: the order ends one way or the other.
        drop(request.timeout(ANSWER_TIMEOUT).send().await);
    }
}

fn payment_first(mut body: Value) -> Value {
    body["definition"] = json!(saga_contracts::definition::PLACE_ORDER_PAYMENT_FIRST);
    body
}

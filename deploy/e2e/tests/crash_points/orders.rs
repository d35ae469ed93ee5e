//! Places orders of all kinds with clients that do not give up, and checks how each order ended.

use anyhow::{Context, Result, bail, ensure};
use saga_harness::{Order, OrderRequest, System, definition::edited};
use saga_test_support::environment::until;
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{task::JoinSet, time::sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// The gateway answers the first charge of this amount in each process of payment-svc with an error.
pub const FAILS_AT_FIRST_MINOR: i64 = 1_313;
/// The name of the definition that [`patient`] returns.
const PATIENT: &str = "place-order-patient";
/// The gateway does a charge of this amount, but its answer is lost.
pub const IS_NOT_HEARD_MINOR: i64 = 1_717;

const STOCK: u64 = 1_000_000;
/// The pause between two orders.
const PACE: Duration = Duration::from_millis(150);
/// The pause between two attempts of a client.
const RETRY: Duration = Duration::from_millis(200);
/// The time limit for a client's request, and for all orders to have ended. It covers leases and retry delays after the
/// last crash, on a busy machine.
const PATIENCE: Duration = Duration::from_mins(4);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Plain,
    Declined,
    OutOfStock,
    PaymentFirst,
    Refunded,
    Cancelled,
    FailsAtFirst,
    IsNotHeard,
}

impl Kind {
    const ALL: [Self; 8] = [
        Self::Plain,
        Self::Declined,
        Self::OutOfStock,
        Self::PaymentFirst,
        Self::Refunded,
        Self::Cancelled,
        Self::FailsAtFirst,
        Self::IsNotHeard,
    ];

    /// Returns the status that an order of this kind must end with, crash or no crash: an outage alone must not cause a
    /// compensation. `None` if the outcome depends on a race.
    fn must_end(self) -> Option<&'static str> {
        match self {
            Self::Plain | Self::PaymentFirst | Self::FailsAtFirst | Self::IsNotHeard => {
                Some("CONFIRMED")
            }
            Self::Declined | Self::OutOfStock | Self::Refunded => Some("CANCELLED"),
            Self::Cancelled => None,
        }
    }
}

/// Returns the shipped definition with more attempts for a charge than payment-svc has crashes. The simulated gateway
/// counts its failures in memory, so an order that is to fail once can fail once in every process of payment-svc.
pub fn patient() -> String {
    let shipped = include_str!("../../../../orchestrator/definitions/place-order.yaml");
    let charge = "    command: payment.charge\n";
    let retry = "    retry: { attempts: 50, firstDelay: 500ms, maxDelay: 1s }\n";
    let (name, patient) = ("name: place-order\n", format!("name: {PATIENT}\n"));
    let retried = format!("{charge}{retry}");
    edited(shipped, &[(name, &patient), (charge, &retried)])
}

pub struct Traffic {
    system: &'static System,
    product: Uuid,
    sold_out: Uuid,
}

/// An order that was answered with 201.
pub struct Accepted {
    kind: Kind,
    order: Uuid,
}

/// The running clients.
pub struct Clients {
    stop: CancellationToken,
    running: tokio::task::JoinHandle<Result<Vec<Accepted>>>,
}

impl Clients {
    /// Stops placing orders, and waits until every requested order is accepted.
    pub async fn stop(self) -> Result<Vec<Accepted>> {
        self.stop.cancel();
        self.running.await?
    }
}

impl Traffic {
    pub async fn prepare(system: &'static System) -> Result<Self> {
        Ok(Self {
            system,
            product: system.stock_product(STOCK).await?,
            sold_out: system.stock_product(0).await?,
        })
    }

    pub fn start(self: &Arc<Self>) -> Clients {
        let (traffic, stop) = (Arc::clone(self), CancellationToken::new());
        let stopped = stop.clone();
        let running = tokio::spawn(async move {
            let mut clients = JoinSet::new();
            let mut accepted = Vec::new();
            for kind in Kind::ALL.into_iter().cycle() {
                if stopped.is_cancelled() {
                    break;
                }
                let traffic = Arc::clone(&traffic);
                clients.spawn(async move { traffic.order(kind).await });
                sleep(PACE).await;
                while let Some(done) = clients.try_join_next() {
                    accepted.push(done??);
                }
            }
            while let Some(done) = clients.join_next().await {
                accepted.push(done??);
            }
            Ok(accepted)
        });
        Clients { stop, running }
    }

    fn request(&self, kind: Kind) -> OrderRequest {
        let major = |minor: i64| minor as f64 / 100.0;
        let plain = |price| OrderRequest::one(self.product, 1, price);
        let payment_first = |request: OrderRequest| {
            request.definition(saga_contracts::definition::PLACE_ORDER_PAYMENT_FIRST)
        };
        let request = match kind {
            Kind::Plain | Kind::Cancelled => plain(10.0),
            Kind::Declined => plain(1_200.0),
            Kind::OutOfStock => OrderRequest::one(self.sold_out, 1, 10.0),
            Kind::PaymentFirst => payment_first(plain(10.0)),
            Kind::Refunded => payment_first(OrderRequest::one(self.sold_out, 1, 10.0)),
            Kind::FailsAtFirst => plain(major(FAILS_AT_FIRST_MINOR)).definition(PATIENT),
            Kind::IsNotHeard => plain(major(IS_NOT_HEARD_MINOR)),
        };
        request.header("idempotency-key", &Uuid::new_v4().to_string())
    }

    /// Places one order. Sends the same request with the same key until it is accepted.
    async fn order(&self, kind: Kind) -> Result<Accepted> {
        let request = self.request(kind);
        let began = Instant::now();
        let order = loop {
            match self.system.place(&request).await {
                Ok(order) => break order,
                Err(error) if began.elapsed() > PATIENCE => {
                    return Err(error).context("an order is not accepted");
                }
                Err(_) => sleep(RETRY).await,
            }
        };
        if kind == Kind::Cancelled {
            self.cancel(order.id).await?;
        }
        Ok(Accepted {
            kind,
            order: order.id,
        })
    }

    async fn cancel(&self, order: Uuid) -> Result<()> {
        let began = Instant::now();
        loop {
            match self.system.cancel(order).await {
                // The cancellation was accepted, or came too late.
                Ok((200..=299 | 409, _)) => return Ok(()),
                Ok((status, body)) if status < 500 => bail!("cancel answered {status}: {body}"),
                Ok(_) | Err(_) if began.elapsed() < PATIENCE => sleep(RETRY).await,
                Ok((status, body)) => bail!("cancel answers {status}: {body}"),
                Err(error) => return Err(error).context("a cancellation is not answered"),
            }
        }
    }

    /// Waits until every order and saga has ended, and checks outcomes, payments and stock.
    pub async fn check(&self, accepted: Vec<Accepted>) -> Result<()> {
        ensure!(!accepted.is_empty(), "no order was accepted");
        let (mut sold, mut wrong) = (0, Vec::new());
        let mut confirmed: BTreeMap<Kind, (u32, u32)> = BTreeMap::new();
        for one in &accepted {
            let order = self.ended(one.order).await?;
            if one.kind.must_end().is_some_and(|end| end != order.status()) {
                let saga = self.system.saga(order.saga).await?;
                wrong.push(format!("{:?}: {}\n{saga:#}", one.kind, order.body));
            }
            let (of, all) = confirmed.entry(one.kind).or_default();
            *all += 1;
            let paid = self.system.payment_status(order.id).await?;
            if order.status() == "CONFIRMED" {
                sold += 1;
                *of += 1;
                assert_eq!(paid, "charged", "{:?} {}", one.kind, order.id);
            } else {
                assert_ne!(paid, "charged", "{:?} {}", one.kind, order.id);
            }
        }
        ensure!(sold > 0, "no order was confirmed");
        let stock = STOCK as i64;
        assert_eq!(
            self.system.stock(self.product).await?,
            (stock - sold, 0, sold)
        );
        assert_eq!(self.system.stock(self.sold_out).await?, (0, 0, 0));
        for (kind, (of, all)) in &confirmed {
            println!("{kind:?}: {of} of {all} confirmed");
        }
        println!(
            "{} orders accepted and ended, {sold} confirmed",
            accepted.len()
        );
        assert!(wrong.is_empty(), "a crash decided:\n{}", wrong.join("\n"));
        Ok(())
    }

    /// Waits until the order and its saga have ended. A parked saga has not ended.
    async fn ended(&self, order: Uuid) -> Result<Order> {
        let what = format!("order {order} and its saga end");
        Ok(until(&what, PATIENCE, || async {
            let order = self.system.order(order).await?;
            let saga = self.system.saga(order.saga).await?;
            let status = saga["status"].as_str().unwrap_or_default();
            let expected = match order.status() {
                "CONFIRMED" => "completed",
                "CANCELLED" => "compensated",
                _ => bail!("it is {}, its saga {saga:#}", order.status()),
            };
            ensure!(status == expected, "its saga is {saga:#}");
            Ok(order)
        })
        .await)
    }
}

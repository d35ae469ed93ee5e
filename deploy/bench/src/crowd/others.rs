//! Sagas that do not need the dead participant: how fast they are, and how soon they end again after something was
//! restarted.

use crate::{
    check::Accepted,
    load::Tally,
    report::StageReport,
    run,
    scenario::{Kind, Scenario, Shop},
    stage::{Bench, Offer, Plan, Stage},
};
use anyhow::Result;
use reqwest::{Client, StatusCode};
use saga_e2e::{chaos::random::Random, system::Service};
use serde::Serialize;
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::task::JoinHandle;

use super::options::Pace;

/// Of what the closed loop reached.
const SHARE: f64 = 0.3;
/// Between two orders of a [`Trickle`].
const TRICKLE_PERIOD: Duration = Duration::from_millis(50);
const TRICKLE_LIMIT: Duration = Duration::from_secs(45);

/// Their shop, and what came of them so far.
pub struct Others {
    pub shop: Arc<Shop>,
    pub accepted: Accepted,
    pub mistakes: Vec<String>,
}

/// How fast they are: as many as go through, and at a rate that leaves room.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Speed {
    pub closed: StageReport,
    pub open: StageReport,
}

impl Others {
    pub async fn new(bench: &Bench<'_>) -> Result<Self> {
        let shop = Arc::new(Shop::new(Scenario::OutOfStock));
        bench.system.restock(&shop.sold_out, 0).await?;
        Ok(Self {
            shop,
            accepted: Accepted::default(),
            mistakes: Vec::new(),
        })
    }

    /// At `rate` if it is known what to compare with, else at a share of what they reach.
    pub async fn speed(
        &mut self,
        bench: &mut Bench<'_>,
        pace: &Pace,
        when: &str,
        rate: Option<f64>,
    ) -> Result<Speed> {
        let plan = |name: String, offer| Plan {
            name,
            offer,
            warm_up: pace.warm_up,
            measured: pace.measured,
        };
        let name = format!("{when}, {} in flight", pace.in_flight);
        let closed = plan(name, Offer::InFlight(pace.in_flight));
        let closed = self.stage(bench, closed).await?;
        // A rate of nothing would never send an order.
        let per_second = rate.unwrap_or_else(|| (SHARE * closed.sagas_a_second()).max(1.0));
        let name = format!("{when}, {per_second:.0}/s");
        let open = plan(name, Offer::Rate { per_second });
        let open = self.stage(bench, open).await?;
        Ok(Speed {
            closed: StageReport::new(&closed),
            open: StageReport::new(&open),
        })
    }

    pub async fn stage(&mut self, bench: &mut Bench<'_>, plan: Plan) -> Result<Stage> {
        let stage = bench.stage(&self.shop, plan).await?;
        self.add(&stage.plan.name, &stage.tally, stage.drained.is_some());
        Ok(stage)
    }

    fn add(&mut self, name: &str, tally: &Tally, drained: bool) {
        self.accepted.add(tally);
        let wrong = run::mistakes(tally, drained).into_iter();
        self.mistakes
            .extend(wrong.map(|what| format!("{name}: {what}")));
    }

    /// Some orders, one after the other, until [`Others::end`].
    pub fn trickle(&self, bench: &Bench<'_>) -> Trickle {
        let stop = Arc::new(AtomicBool::new(false));
        let sending = Sending {
            http: bench.system.http.clone(),
            url: bench.system.url(Service::Order, "/orders"),
            shop: Arc::clone(&self.shop),
            random: Random::new(bench.seed, "trickle"),
        };
        Trickle {
            task: tokio::spawn(sending.run(Arc::clone(&stop))),
            stop,
        }
    }

    pub async fn end(&mut self, trickle: Trickle) -> Result<()> {
        trickle.stop.store(true, Ordering::Relaxed);
        let Sent {
            accepted,
            unknown,
            refused,
        } = trickle.task.await?;
        *self.accepted.orders.entry(Kind::OutOfStock).or_default() += accepted;
        self.accepted.unknown += unknown;
        if refused > 0 {
            self.mistakes.push(format!(
                "{refused} orders were refused that should have been accepted"
            ));
        }
        Ok(())
    }
}

/// Orders that are sent while something is restarted, a few a second.
pub struct Trickle {
    stop: Arc<AtomicBool>,
    task: JoinHandle<Sent>,
}

#[derive(Default)]
struct Sent {
    accepted: u64,
    unknown: u64,
    refused: u64,
}

struct Sending {
    http: Client,
    url: String,
    shop: Arc<Shop>,
    random: Random,
}

impl Sending {
    async fn run(mut self, stop: Arc<AtomicBool>) -> Sent {
        let mut sent = Sent::default();
        while !stop.load(Ordering::Relaxed) {
            match self.order().await {
                Some(StatusCode::CREATED) => sent.accepted += 1,
                Some(StatusCode::SERVICE_UNAVAILABLE) => {}
                Some(_) => sent.refused += 1,
                None => sent.unknown += 1,
            }
            tokio::time::sleep(TRICKLE_PERIOD).await;
        }
        sent
    }

    async fn order(&mut self) -> Option<StatusCode> {
        let (_, body) = self.shop.order(&mut self.random);
        let post = self
            .http
            .post(&self.url)
            .header("content-type", "application/json")
            .timeout(TRICKLE_LIMIT)
            .body(body);
        Some(post.send().await.ok()?.status())
    }
}

//! The load: `POST /orders` over connections that are kept open, on one thread.
//!
//! ```text
//!  schedule, or room in flight ─▶ queue ─▶ the first idle connection ─▶ order-svc ─▶ answer ─▶ flight
//! ```
//!
//! The client is kept cheap, since it shares the machine with the system that it measures: a request is one write, and
//! an answer is read only as far as the `location` header. A server handles one request of a connection at a time, so
//! there are as many connections as requests under way, up to a limit. Beyond the limit, orders wait in the client's
//! queue, and that time is part of their latency.

use super::{
    answer::{self, Parsed},
    in_flight::Answer,
    in_flight::InFlight,
    schedule::Schedule,
};
use crate::scenario::{Kind, Shop};
use anyhow::{Context, Result, bail};
use saga_harness::random::Random;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::{LocalSet, spawn_local},
    time::{sleep, sleep_until, timeout},
};

/// Half of order-svc's `intake.queue_limit`: its queue is never full because of the bench alone.
const CONNECTIONS_MAX: usize = 1_000;
/// The buffer of a connection. An answer takes a few hundred bytes.
const BUFFER_BYTES: usize = 4_096;
/// How long to wait for answers after the last order was sent; above order-svc's own limit of 35 s.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
const ANSWER_POLL: Duration = Duration::from_millis(2);
/// How long a closed loop pauses after an order was turned away.
const PUSHED_BACK_PAUSE: Duration = Duration::from_millis(20);

/// How orders are offered: at a rate (open loop), however slow the system is, or with a fixed number in flight (closed
/// loop).
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Offer {
    Rate { per_second: f64 },
    InFlight(u64),
}

/// The sender of orders, and the address that it sends them to.
pub struct Client {
    pub address: SocketAddr,
    pub flight: Arc<InFlight>,
    pub shop: Arc<Shop>,
    /// The seed of the arrivals and of the orders.
    pub seed: u64,
    /// The time at which the load ends, by the flight's clock. An open loop may be ended earlier while it runs.
    pub until_us: Arc<AtomicU64>,
}

impl Client {
    /// Sends orders from `began_us` of the flight's clock on, and returns when the last one is answered. Blocks; needs
    /// its own thread.
    pub fn run(self, offer: Offer, began_us: u64) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the load")?;
        let pool = Rc::new(Pool::new(self.address, Arc::clone(&self.flight)));
        LocalSet::new().block_on(&runtime, async move {
            match offer {
                Offer::Rate { per_second } => self.open(&pool, per_second, began_us).await,
                Offer::InFlight(in_flight) => self.closed(&pool, in_flight).await,
            }
            pool.finish().await
        })
    }

    async fn open(self, pool: &Rc<Pool>, per_second: f64, began_us: u64) {
        let mut random = self.random();
        for offset_us in Schedule::poisson(per_second, self.seed) {
            let intended_us = began_us + offset_us;
            if intended_us >= self.until_us.load(Ordering::Relaxed) {
                return;
            }
            let at = self.flight.instant(intended_us);
            // The timer's resolution is a millisecond: orders that are due within the same millisecond are sent
            // together.
            if at > Instant::now() {
                sleep_until(at.into()).await;
            }
            self.send(pool, intended_us, &mut random);
        }
    }

    async fn closed(self, pool: &Rc<Pool>, in_flight: u64) {
        let mut random = self.random();
        let in_flight = i64::try_from(in_flight).unwrap_or(i64::MAX);
        let flight = Arc::clone(&self.flight);
        let end = flight.instant(self.until_us.load(Ordering::Relaxed));
        let mut turned_away = 0;
        while Instant::now() < end {
            while flight.open() < in_flight {
                self.send(pool, flight.now_us(), &mut random);
            }
            // A notification that arrives while this loop does not wait is kept for the next wait.
            drop(
                timeout(
                    end.saturating_duration_since(Instant::now()),
                    flight.moved.notified(),
                )
                .await,
            );
            let now = pool.turned_away.get();
            if now > turned_away {
                turned_away = now;
                sleep(PUSHED_BACK_PAUSE).await;
            }
        }
    }

    fn random(&self) -> Random {
        Random::new(self.seed, "orders")
    }

    fn send(&self, pool: &Rc<Pool>, intended_us: u64, random: &mut Random) {
        let (kind, body) = self.shop.order(random);
        pool.send(Job {
            kind,
            intended_us,
            request: request(&body),
        });
    }
}

pub(super) fn request(body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "POST /orders HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

struct Job {
    kind: Kind,
    intended_us: u64,
    request: Vec<u8>,
}

/// The connections and the queue of one stage.
struct Pool {
    address: SocketAddr,
    flight: Arc<InFlight>,
    queue: RefCell<VecDeque<Job>>,
    /// Has as many permits as there are jobs in the queue.
    jobs: Semaphore,
    idle: Cell<usize>,
    connections: Cell<usize>,
    /// Orders that were sent and are not answered yet.
    unanswered: Cell<usize>,
    turned_away: Cell<u64>,
}

impl Pool {
    fn new(address: SocketAddr, flight: Arc<InFlight>) -> Self {
        Self {
            address,
            flight,
            queue: RefCell::default(),
            jobs: Semaphore::new(0),
            idle: Cell::new(0),
            connections: Cell::new(0),
            unanswered: Cell::new(0),
            turned_away: Cell::new(0),
        }
    }

    fn send(self: &Rc<Self>, job: Job) {
        self.flight.enter();
        self.unanswered.set(self.unanswered.get() + 1);
        let waiting = {
            let mut queue = self.queue.borrow_mut();
            queue.push_back(job);
            queue.len()
        };
        self.jobs.add_permits(1);
        if waiting > self.idle.get() && self.connections.get() < CONNECTIONS_MAX {
            self.connections.set(self.connections.get() + 1);
            spawn_local(Rc::clone(self).serve());
        }
    }

    /// Serves jobs on one connection until the pool is closed.
    async fn serve(self: Rc<Self>) {
        let mut connection = None;
        loop {
            self.idle.set(self.idle.get() + 1);
            let job = self.jobs.acquire().await;
            self.idle.set(self.idle.get() - 1);
            let Ok(job) = job else { return };
            job.forget();
            // Each permit was added together with a job.
            let Some(job) = self.queue.borrow_mut().pop_front() else {
                return;
            };
            self.flight.sending(job.intended_us);
            let answer = exchange(&mut connection, self.address, &job.request).await;
            if answer.is_err() {
                connection = None;
            }
            let answer = answer.map_or(Answer::Unknown, |parsed| parsed.answer);
            if answer == Answer::PushedBack || answer == Answer::Unknown {
                self.turned_away.set(self.turned_away.get() + 1);
            }
            self.flight.answered(job.kind, job.intended_us, answer);
            self.unanswered.set(self.unanswered.get() - 1);
        }
    }

    async fn finish(&self) -> Result<()> {
        let began = Instant::now();
        while self.unanswered.get() > 0 {
            if began.elapsed() > ANSWER_LIMIT {
                bail!("{} orders are not answered", self.unanswered.get());
            }
            sleep(ANSWER_POLL).await;
        }
        self.jobs.close();
        Ok(())
    }
}

pub(super) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// Sends one request and reads its answer. An error leaves the connection in an unknown state.
pub(super) async fn exchange(
    connection: &mut Option<Connection>,
    address: SocketAddr,
    request: &[u8],
) -> Result<Parsed> {
    if connection.is_none() {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        *connection = Some(Connection {
            stream,
            buffer: Vec::with_capacity(BUFFER_BYTES),
        });
    }
    let open = connection.as_mut().context("a connection")?;
    open.stream.write_all(request).await?;
    open.buffer.clear();
    loop {
        if open.stream.read_buf(&mut open.buffer).await? == 0 {
            bail!("the connection was closed");
        }
        if let Some(parsed) = answer::parse(&open.buffer)? {
            if parsed.last {
                *connection = None;
            }
            return Ok(parsed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_how_long_its_body_is() {
        let text = String::from_utf8(request("{\"ä\":1}")).expect("text");
        assert!(
            text.ends_with("\r\ncontent-length: 8\r\n\r\n{\"ä\":1}"),
            "{text}"
        );
    }
}

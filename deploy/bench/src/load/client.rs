//! The load: `POST /orders` over connections that are kept, on one thread.
//!
//! ```text
//!  schedule, or room in flight ─▶ queue ─▶ the first idle connection ─▶ order-svc ─▶ answer ─▶ flight
//! ```
//!
//! It shares the machine with what it measures, so it is plain: a request is one write, an answer is read as far as the
//! `location` header. A server handles one request of a connection at a time, so there are as many connections as there
//! are requests under way, up to a limit; beyond it they wait here, and that waiting is part of their latency.

use super::{
    answer::{self, Parsed},
    flight::Answer,
    flight::Flight,
    schedule::Schedule,
};
use crate::scenario::{Kind, Shop};
use anyhow::{Context, Result, bail};
use saga_e2e::chaos::random::Random;
use std::{
    cell::{Cell, RefCell},
    collections::VecDeque,
    net::SocketAddr,
    rc::Rc,
    sync::Arc,
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Semaphore,
    task::{LocalSet, spawn_local},
    time::{sleep, sleep_until, timeout},
};

/// Half of what order-svc lets wait for a transaction: its queue is never full because of us alone.
const CONNECTIONS_MAX: usize = 1_000;
/// An answer takes a few hundred bytes.
const BUFFER_BYTES: usize = 4_096;
/// After the last order was sent, how long answers are waited for; above order-svc's own limit of 40 s.
const ANSWER_LIMIT: Duration = Duration::from_mins(1);
const ANSWER_POLL: Duration = Duration::from_millis(2);
/// A closed loop that was turned away comes again after this.
const PUSHED_BACK_PAUSE: Duration = Duration::from_millis(20);

/// How orders follow one another.
#[derive(Clone, Debug)]
pub enum Load {
    /// At their times, however the system fares.
    Open(Schedule),
    /// As soon as fewer than so many are on their way.
    Closed { in_flight: u64 },
}

/// What is sent, and where.
pub struct Client {
    pub address: SocketAddr,
    pub flight: Arc<Flight>,
    pub shop: Arc<Shop>,
    pub random: Random,
}

impl Client {
    /// Sends orders from `began_us` until `until_us` of the flight's clock, and returns when the last one is answered.
    /// Blocks; wants a thread of its own.
    pub fn run(self, load: Load, began_us: u64, until_us: u64) -> Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the load")?;
        let pool = Rc::new(Pool::new(self.address, Arc::clone(&self.flight)));
        LocalSet::new().block_on(&runtime, async move {
            match load {
                Load::Open(schedule) => self.open(&pool, schedule, began_us, until_us).await,
                Load::Closed { in_flight } => self.closed(&pool, in_flight, until_us).await,
            }
            pool.finish().await
        })
    }

    async fn open(mut self, pool: &Rc<Pool>, schedule: Schedule, began_us: u64, until_us: u64) {
        for offset_us in schedule {
            let intended_us = began_us + offset_us;
            if intended_us >= until_us {
                return;
            }
            let at = self.flight.instant(intended_us);
            // The timer's steps are a millisecond: what is due within one is sent together.
            if at > Instant::now() {
                sleep_until(at.into()).await;
            }
            self.send(pool, intended_us);
        }
    }

    async fn closed(mut self, pool: &Rc<Pool>, in_flight: u64, until_us: u64) {
        let in_flight = i64::try_from(in_flight).unwrap_or(i64::MAX);
        let flight = Arc::clone(&self.flight);
        let end = flight.instant(until_us);
        let mut turned_away = 0;
        while Instant::now() < end {
            while flight.open() < in_flight {
                self.send(pool, flight.now_us());
            }
            // Whoever is not awaited at the time of the notification finds it kept.
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

    fn send(&mut self, pool: &Rc<Pool>, intended_us: u64) {
        let (kind, body) = self.shop.order(&mut self.random);
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
        "POST /orders HTTP/1.1\r\nhost: order-svc\r\ncontent-type: application/json\r\n\
         content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

struct Job {
    kind: Kind,
    intended_us: u64,
    request: Vec<u8>,
}

/// The connections of one stage.
struct Pool {
    address: SocketAddr,
    flight: Arc<Flight>,
    queue: RefCell<VecDeque<Job>>,
    /// As many permits as there are jobs in the queue.
    jobs: Semaphore,
    idle: Cell<usize>,
    connections: Cell<usize>,
    /// Sent and not answered.
    unanswered: Cell<usize>,
    turned_away: Cell<u64>,
}

impl Pool {
    fn new(address: SocketAddr, flight: Arc<Flight>) -> Self {
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

    /// Until there is nothing more to send.
    async fn serve(self: Rc<Self>) {
        let mut connection = None;
        loop {
            self.idle.set(self.idle.get() + 1);
            let job = self.jobs.acquire().await;
            self.idle.set(self.idle.get() - 1);
            let Ok(job) = job else { return };
            job.forget();
            // A permit was added for it.
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

/// One request and its answer. An error leaves the connection in an unknown state.
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

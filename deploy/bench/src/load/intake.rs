//! Orders as fast as they are taken in, whatever becomes of their sagas.
//!
//! A number of customers, on one thread: each has one order on its way to order-svc, sends the next one as soon as it is
//! answered, and comes again when it was told to if it is turned away. Nobody waits for a saga's end, and nothing is kept of
//! an order but that it was accepted, so a million of them take no memory here.

use super::{
    answer::Parsed,
    client::{exchange, request},
    flight::Answer,
    tally::NotAccepted,
};
use crate::scenario::Shop;
use anyhow::{Context, Result};
use saga_e2e::chaos::random::Random;
use std::{
    cell::RefCell,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{task::LocalSet, time::sleep};

/// For whoever is turned away without being told for how long, or has lost the connection.
const PAUSE: Duration = Duration::from_secs(1);

/// What is sent, and where.
pub struct Intake {
    pub address: SocketAddr,
    pub shop: Arc<Shop>,
    pub random: Random,
    pub customers: u64,
    pub orders: u64,
    /// How many are accepted, for whoever waits.
    pub accepted: Arc<AtomicU64>,
}

/// What became of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Taken {
    pub accepted: u64,
    pub not_accepted: NotAccepted,
    /// Accepted, by second.
    pub seconds: Vec<u64>,
}

impl Taken {
    fn accept(&mut self, after: Duration) {
        self.accepted += 1;
        let second = after.as_secs() as usize;
        if self.seconds.len() <= second {
            self.seconds.resize(second + 1, 0);
        }
        self.seconds[second] += 1;
    }
}

impl Intake {
    /// Until all are answered. Blocks; wants a thread of its own.
    pub fn run(self) -> Result<Taken> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("a runtime for the intake")?;
        let customers = self.customers;
        let desk = Rc::new(Desk {
            began: Instant::now(),
            left: RefCell::new(self.orders),
            random: RefCell::new(self.random.clone()),
            taken: RefCell::default(),
            intake: self,
        });
        let all = LocalSet::new();
        for _ in 0..customers {
            all.spawn_local(Rc::clone(&desk).customer());
        }
        runtime.block_on(all);
        Ok(desk.taken.take())
    }
}

struct Desk {
    intake: Intake,
    began: Instant,
    /// To be sent.
    left: RefCell<u64>,
    random: RefCell<Random>,
    taken: RefCell<Taken>,
}

impl Desk {
    async fn customer(self: Rc<Self>) {
        let mut connection = None;
        while let Some(order) = self.next() {
            let answer = exchange(&mut connection, self.intake.address, &order).await;
            if answer.is_err() {
                connection = None;
            }
            if let Some(pause) = self.note(answer.ok()) {
                sleep(pause).await;
            }
        }
    }

    fn next(&self) -> Option<Vec<u8>> {
        let mut left = self.left.borrow_mut();
        *left = left.checked_sub(1)?;
        let (_, body) = self.intake.shop.order(&mut self.random.borrow_mut());
        Some(request(&body))
    }

    /// How long the customer stays away. An order that was not accepted for certain is sent again by somebody.
    fn note(&self, answer: Option<Parsed>) -> Option<Duration> {
        let mut taken = self.taken.borrow_mut();
        let not_accepted = &mut taken.not_accepted;
        let Some(parsed) = answer else {
            not_accepted.unknown += 1;
            return Some(PAUSE);
        };
        match parsed.answer {
            Answer::Accepted(_) => {
                taken.accept(self.began.elapsed());
                self.intake
                    .accepted
                    .store(taken.accepted, Ordering::Relaxed);
                None
            }
            Answer::PushedBack => {
                not_accepted.pushed_back += 1;
                *self.left.borrow_mut() += 1;
                let least = parsed.retry_after.unwrap_or(PAUSE);
                // Those who were turned away together do not come back together.
                let pause = self.random.borrow_mut().between(least, least.mul_f64(1.5));
                Some(pause)
            }
            Answer::Refused => {
                not_accepted.refused += 1;
                None
            }
            Answer::Unknown => {
                not_accepted.unknown += 1;
                Some(PAUSE)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::scenario::Scenario;
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
    };

    /// Turns every third order away, for no time at all.
    fn serve(listener: &TcpListener, sent: &AtomicU64) {
        std::thread::scope(|scope| {
            for stream in listener.incoming().flatten() {
                scope.spawn(|| answer_all(stream, sent));
            }
        });
    }

    fn answer_all(mut stream: TcpStream, sent: &AtomicU64) {
        let mut buffer = [0; 4_096];
        while stream.read(&mut buffer).is_ok_and(|count| count > 0) {
            let answer = if sent.fetch_add(1, Ordering::Relaxed) % 3 == 2 {
                "HTTP/1.1 503 x\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n".to_owned()
            } else {
                let id = uuid::Uuid::new_v4();
                format!("HTTP/1.1 201 x\r\nlocation: /orders/{id}\r\ncontent-length: 0\r\n\r\n")
            };
            if stream.write_all(answer.as_bytes()).is_err() {
                return;
            }
        }
    }

    #[test]
    fn as_many_orders_are_accepted_as_were_asked_for_however_many_are_turned_away() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        std::thread::spawn(move || serve(&listener, &AtomicU64::new(0)));
        let accepted = Arc::new(AtomicU64::new(0));
        let intake = Intake {
            address,
            shop: Arc::new(Shop::new(Scenario::Confirm)),
            random: Random::new(1, "intake"),
            customers: 4,
            orders: 100,
            accepted: Arc::clone(&accepted),
        };
        let taken = intake.run().unwrap();
        assert_eq!(taken.accepted, 100);
        assert_eq!(accepted.load(Ordering::Relaxed), 100);
        assert_eq!(taken.seconds.iter().sum::<u64>(), 100);
        let not_accepted = taken.not_accepted;
        assert!(
            (49..=52).contains(&not_accepted.pushed_back),
            "{not_accepted:?}"
        );
        assert_eq!((not_accepted.refused, not_accepted.unknown), (0, 0));
    }

    #[test]
    fn seconds_in_which_nothing_was_accepted_stand_there_too() {
        let mut taken = Taken::default();
        for ms in [100, 200, 2_500] {
            taken.accept(Duration::from_millis(ms));
        }
        assert_eq!(taken.seconds, [2, 0, 1]);
    }
}

//! Sends orders as fast as they are accepted, without regard to the ends of their sagas.
//!
//! A number of customers run on one thread. Each has one order in flight to order-svc and sends the next as soon as it
//! is answered. A customer that is turned away tries again after `Retry-After`. No customer waits for a saga's end, and
//! only the number of accepted orders is kept, so a million orders take no memory in the bench.

use super::{
    answer::Parsed,
    client::{exchange, request},
    in_flight::Answer,
    tally::{NotAccepted, count_second},
};
use crate::scenario::Shop;
use anyhow::{Context, Result};
use saga_harness::random::Random;
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

/// The pause of a customer that is turned away without a `Retry-After`, or that has lost its connection.
const PAUSE: Duration = Duration::from_secs(1);

/// The sender of the orders: address, orders and customers.
pub struct Intake {
    pub address: SocketAddr,
    pub shop: Arc<Shop>,
    pub random: Random,
    pub customers: u64,
    pub orders: u64,
    /// The number of orders accepted so far, for the thread that waits for them.
    pub accepted: Arc<AtomicU64>,
}

/// The results of the intake.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IntakeResult {
    pub accepted: u64,
    pub not_accepted: NotAccepted,
    /// Orders accepted in each second.
    pub seconds: Vec<u64>,
}

impl IntakeResult {
    fn accept(&mut self, after: Duration) {
        self.accepted += 1;
        count_second(&mut self.seconds, after.as_secs() as usize);
    }
}

impl Intake {
    /// Sends orders until all are answered. Blocks; needs its own thread.
    pub fn run(self) -> Result<IntakeResult> {
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
    /// The number of orders still to be sent.
    left: RefCell<u64>,
    random: RefCell<Random>,
    taken: RefCell<IntakeResult>,
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

    /// Records an answer, and returns how long the customer pauses. An order that was turned away is sent again, by any
    /// of the customers.
    fn note(&self, answer: Option<Parsed>) -> Option<Duration> {
        let mut taken = self.taken.borrow_mut();
        match answer.map_or(Answer::Unknown, |parsed| parsed.answer) {
            Answer::Accepted(_) => {
                taken.accept(self.began.elapsed());
                let accepted = &self.intake.accepted;
                accepted.store(taken.accepted, Ordering::Relaxed);
                None
            }
            Answer::PushedBack => {
                taken.not_accepted.pushed_back += 1;
                *self.left.borrow_mut() += 1;
                let least = answer.and_then(|parsed| parsed.retry_after);
                let least = least.unwrap_or(PAUSE);
                // The pauses are spread, so that customers who were turned away together do not return together.
                let pause = self.random.borrow_mut().between(least, least.mul_f64(1.5));
                Some(pause)
            }
            Answer::Refused => {
                taken.not_accepted.refused += 1;
                None
            }
            Answer::Unknown => {
                taken.not_accepted.unknown += 1;
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

    /// Serves orders, and turns every third one away with `retry-after: 0`.
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
    fn the_intake_continues_until_the_requested_number_is_accepted_despite_rejections() {
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
    fn seconds_without_an_accepted_order_are_listed() {
        let mut taken = IntakeResult::default();
        for ms in [100, 200, 2_500] {
            taken.accept(Duration::from_millis(ms));
        }
        assert_eq!(taken.seconds, [2, 0, 1]);
    }
}

//! Limits how many calls may begin in a second.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use std::num::NonZeroU32;
use tokio::time::sleep;

/// Divisor for the calls that may begin at once: a tenth of a second's calls.
const BURST: u32 = 10;

/// A rate limiter for the beginning of calls, which allows a small burst after a pause.
pub(super) struct Pace(Option<DefaultDirectRateLimiter>);

impl Pace {
    /// Returns a limiter for this rate; `None` sets no limit.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self(per_second.map(|rate| {
            let burst = NonZeroU32::new(rate.get() / BURST).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        }))
    }

    /// Waits until one more call may begin, and counts that call. If the future is dropped earlier, nothing is counted.
    pub async fn ready(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(early) = limiter.check() {
            sleep(early.wait_time_from(limiter.clock().now())).await;
        }
    }
}

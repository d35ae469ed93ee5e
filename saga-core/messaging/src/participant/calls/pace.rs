//! How many calls may begin in a second.

use governor::{DefaultDirectRateLimiter, Quota, RateLimiter, clock::Clock};
use std::num::NonZeroU32;
use tokio::time::sleep;

/// Calls of a second that may begin at once, as a share of it: one in so many.
const BURST: u32 = 10;

/// Lets calls begin at a rate, and a few at once after a pause.
pub(super) struct Pace(Option<DefaultDirectRateLimiter>);

impl Pace {
    /// `None`: whenever they like.
    pub fn new(per_second: Option<NonZeroU32>) -> Self {
        Self(per_second.map(|rate| {
            let burst = NonZeroU32::new(rate.get() / BURST).unwrap_or(NonZeroU32::MIN);
            RateLimiter::direct(Quota::per_second(rate).allow_burst(burst))
        }))
    }

    /// Until one more call may begin, which then counts. Dropped before that, it counts for nothing.
    pub async fn ready(&self) {
        let Some(limiter) = &self.0 else { return };
        while let Err(early) = limiter.check() {
            sleep(early.wait_time_from(limiter.clock().now())).await;
        }
    }
}

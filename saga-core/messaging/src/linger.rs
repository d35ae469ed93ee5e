//! Decides how long a batch lingers for more items.

use std::time::Duration;
use tokio::time::Instant;

/// The longest linger time.
const LONGEST: Duration = Duration::from_millis(8);
/// Fewest items that count as a stream: an item that arrives alone never waits.
const STREAM: usize = 2;

/// The linger time of a batch. A transaction costs the same for one item as for many, so the items of a stream wait for
/// each other: twice as long as the last batch took, because that is the time saved. An item that arrives alone, as in
/// an idle system, does not wait.
pub struct Linger {
    handed_out: Instant,
    items: usize,
}

impl Default for Linger {
    fn default() -> Self {
        Self {
            handed_out: Instant::now(),
            items: 0,
        }
    }
}

impl Linger {
    /// Notes that a batch of this many items begins.
    pub fn hand_out(&mut self, items: usize) {
        self.handed_out = Instant::now();
        self.items = items;
    }

    /// Returns until when the `here` items that have arrived wait, given that their consumer has been ready since
    /// `asked`. Returns `None` once they are `enough`.
    pub fn until(&self, asked: Instant, here: usize, enough: usize) -> Option<Instant> {
        if here.max(self.items) < STREAM || here >= enough {
            return None;
        }
        let took = asked.saturating_duration_since(self.handed_out);
        let until = asked + (took * 2).min(LONGEST);
        (until > Instant::now()).then_some(until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::advance;

    const MS: Duration = Duration::from_millis(1);
    const ENOUGH: usize = 100;

    /// Returns the state after a batch of `items` that took this long.
    async fn after(items: usize, took: Duration) -> (Linger, Instant) {
        let mut gather = Linger::default();
        gather.hand_out(items);
        advance(took).await;
        (gather, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn a_single_record_does_not_linger() {
        let (gather, asked) = after(1, MS * 3).await;
        assert_eq!(gather.until(asked, 1, ENOUGH), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_waits_for_twice_as_long_as_its_last_batch_took() {
        for (items, here) in [(2, 1), (1, 2)] {
            let (gather, asked) = after(items, MS * 3).await;
            assert_eq!(gather.until(asked, here, ENOUGH), Some(asked + MS * 6));
        }
        let (gather, asked) = after(50, MS * 300).await;
        assert_eq!(gather.until(asked, 1, ENOUGH), Some(asked + LONGEST));
    }

    #[tokio::test(start_paused = true)]
    async fn records_after_the_linger_time_do_not_wait() {
        let (gather, asked) = after(9, MS).await;
        advance(MS * 2).await;
        assert_eq!(gather.until(asked, 9, ENOUGH), None);
    }

    #[tokio::test(start_paused = true)]
    async fn enough_does_not_wait_for_more() {
        let (gather, asked) = after(9, MS * 3).await;
        assert_eq!(gather.until(asked, ENOUGH, ENOUGH), None);
    }
}

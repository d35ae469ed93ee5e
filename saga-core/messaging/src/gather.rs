//! How long what has arrived waits for company.

use std::time::Duration;
use tokio::time::Instant;

/// The longest wait, from when the last batch was done with.
const LONGEST: Duration = Duration::from_millis(8);
/// Batches of fewer are no stream: a saga alone waits nowhere.
const STREAM: usize = 2;

/// A transaction costs the same for one item as for many, so items of a stream wait for each other: twice as long as the
/// last batch took, since that is what is saved. One that comes alone, as in an idle system, does not wait.
pub(crate) struct Gather {
    handed_out: Instant,
    items: usize,
}

impl Gather {
    pub fn new() -> Self {
        Self {
            handed_out: Instant::now(),
            items: 0,
        }
    }

    /// A batch of so many begins.
    pub fn hand_out(&mut self, items: usize) {
        self.handed_out = Instant::now();
        self.items = items;
    }

    /// `here` items have arrived for whoever was ready for more at `asked`: until when they wait. Never once they are
    /// `enough`.
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

    /// After a batch of `items` that took so long.
    async fn after(items: usize, took: Duration) -> (Gather, Instant) {
        let mut gather = Gather::new();
        gather.hand_out(items);
        advance(took).await;
        (gather, Instant::now())
    }

    #[tokio::test(start_paused = true)]
    async fn what_comes_alone_does_not_wait() {
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
    async fn what_arrives_after_that_does_not_wait() {
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

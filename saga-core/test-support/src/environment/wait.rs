//! Waits for conditions.

use std::{fmt::Display, future::Future, time::Duration};
use tokio::time::{Instant, sleep, timeout};

const POLL: Duration = Duration::from_millis(20);
/// Limit of one look, so that a look that hangs, at a server that was just killed for example, does not use up all
/// time.
const LOOK_LIMIT: Duration = Duration::from_secs(5);

/// The result of a look: the condition holds (with a value), or does not hold yet (with a reason).
pub trait Condition {
    type Value;

    fn holds(self) -> Result<Self::Value, String>;
}

impl Condition for bool {
    type Value = ();

    fn holds(self) -> Result<(), String> {
        if self {
            Ok(())
        } else {
            Err("the condition is false".to_owned())
        }
    }
}

impl<T> Condition for Option<T> {
    type Value = T;

    fn holds(self) -> Result<T, String> {
        self.ok_or_else(|| "there is none".to_owned())
    }
}

impl<T, E: Display> Condition for Result<T, E> {
    type Value = T;

    fn holds(self) -> Result<T, String> {
        self.map_err(|error| format!("{error:#}"))
    }
}

/// Repeats a look until it yields `true`, `Some` or `Ok`, and returns its value. Panics after `limit`, with the reason
/// of the last look.
pub async fn until<F, Look, Outcome>(what: &str, limit: Duration, look: F) -> Outcome::Value
where
    F: FnMut() -> Look,
    Look: Future<Output = Outcome>,
    Outcome: Condition,
{
    holds_within(what, limit, look)
        .await
        .unwrap_or_else(|late| panic!("{late}"))
}

pub(super) async fn holds_within<F, Look, Outcome>(
    what: &str,
    limit: Duration,
    mut look: F,
) -> Result<Outcome::Value, String>
where
    F: FnMut() -> Look,
    Look: Future<Output = Outcome>,
    Outcome: Condition,
{
    let began = Instant::now();
    loop {
        let reason = match timeout(LOOK_LIMIT, look()).await.map(Condition::holds) {
            Ok(Ok(value)) => return Ok(value),
            Ok(Err(reason)) => reason,
            Err(_) => format!("the look took over {LOOK_LIMIT:?}"),
        };
        if began.elapsed() >= limit {
            return Err(format!("{what}: not within {limit:?}; at last: {reason}"));
        }
        sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn first_look_that_settles_gives_its_value() {
        let mut looks = 0;
        let value = until("three looks", Duration::from_secs(5), || {
            looks += 1;
            let seen = looks;
            async move { (seen == 3).then_some(seen) }
        })
        .await;
        assert_eq!(value, 3);
    }

    #[tokio::test]
    #[should_panic(expected = "the impossible: not within 10ms; at last: no")]
    async fn limit_panics_with_the_last_reason() {
        until("the impossible", Duration::from_millis(10), async || {
            Err::<(), _>("no")
        })
        .await;
    }
}

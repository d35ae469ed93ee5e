//! Limits work that waits for a database whose connection has gone silent.
//!
//! A firewall that forgets a connection, or a host that disappears, closes nothing: the client would wait until its
//! kernel gives the connection up, after a quarter of an hour or never. The server's own `statement_timeout` ends a
//! statement before this limit and reports it. If nothing arrives on a connection for longer than the limit, the
//! connection is broken.
//!
//! The time restarts whenever something wakes the work, so it limits each statement and each commit, however many of
//! them the work has. Aborted work drops its connection in the middle of a statement. The pool must then find out,
//! within a limit of its own, that the connection is unusable (see [`crate::store_pool`]). The outcome of the work is
//! unknown, as after a closed connection.

use futures_util::{FutureExt, task::AtomicWaker};
use std::{
    io,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use tokio::time::{Instant, sleep};

/// Longest silence. It is above the longest `statement_timeout` that a service sets, which is 30 s, so that a server
/// that is merely slow ends its statement first.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(32);

/// Aborts `work` if nothing has woken it for [`SILENCE_LIMIT`]. Use it only for work that waits for nothing but a
/// database: a wait for a client's request, or for new work, is silent as well.
pub fn limited<T, E: From<sqlx::Error>>(
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    limited_to(SILENCE_LIMIT, work)
}

/// Aborts `work` like [`limited`], with the caller's limit.
pub fn limited_to<T, E: From<sqlx::Error>>(
    limit: Duration,
    work: impl Future<Output = Result<T, E>>,
) -> impl Future<Output = Result<T, E>> {
    // Futures that wait for a database are large; boxing keeps them out of the caller's future.
    let work = unless_silent(limit, Box::pin(work));
    async move { work.await.unwrap_or_else(|| Err(silent(limit).into())) }
}

fn silent(limit: Duration) -> sqlx::Error {
    let text = format!(
        "nothing was heard on the connection for {} ms, it is given up",
        limit.as_millis()
    );
    sqlx::Error::Io(io::Error::new(io::ErrorKind::TimedOut, text))
}

/// Returns `None` if nothing has woken `work` for `limit`.
async fn unless_silent<F: Future + Unpin>(limit: Duration, mut work: F) -> Option<F::Output> {
    let mut silence = pin!(sleep(limit));
    let woken = Arc::new(Woken {
        by_the_work: AtomicBool::new(true),
        task: AtomicWaker::new(),
    });
    let waker = Waker::from(Arc::clone(&woken));
    std::future::poll_fn(move |context| {
        woken.task.register(context.waker());
        if woken.by_the_work.swap(false, Ordering::AcqRel) {
            silence.as_mut().reset(Instant::now() + limit);
            let polled = work.poll_unpin(&mut Context::from_waker(&waker));
            if let Poll::Ready(output) = polled {
                return Poll::Ready(Some(output));
            }
        }
        silence.as_mut().poll(context).map(|()| None)
    })
    .await
}

/// A waker that distinguishes a wake of the work from other wakes of its task.
struct Woken {
    by_the_work: AtomicBool,
    task: AtomicWaker,
}

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.by_the_work.store(true, Ordering::Release);
        self.task.wake();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::{join, time::interval};

    const LIMIT: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn each_statement_has_the_whole_time() {
        let three_slow_statements = async {
            for _ in 0..3 {
                sleep(Duration::from_secs(9)).await;
            }
            Ok::<_, sqlx::Error>(7)
        };
        let result = limited_to(LIMIT, three_slow_statements).await;
        assert_eq!(result.unwrap(), 7);
    }

    #[tokio::test(start_paused = true)]
    async fn silence_is_an_error_of_the_connection() {
        let began = Instant::now();
        let silent = std::future::pending::<Result<(), sqlx::Error>>();
        let error = limited_to(LIMIT, silent).await.unwrap_err();
        assert!(matches!(error, sqlx::Error::Io(_)), "{error}");
        assert_eq!(began.elapsed(), LIMIT);
    }

    #[tokio::test(start_paused = true)]
    async fn wake_ups_for_other_futures_do_not_reset_the_limit() {
        let mut ticks = interval(Duration::from_secs(1));
        let busy = async {
            for _ in 0..30 {
                ticks.tick().await;
            }
        };
        let began = Instant::now();
        let silent = async {
            let silent = std::future::pending::<Result<(), sqlx::Error>>();
            limited_to(LIMIT, silent).await.unwrap_err();
            began.elapsed()
        };
        let ((), took) = join!(busy, silent);
        assert_eq!(took, LIMIT);
    }
}

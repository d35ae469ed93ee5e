//! Makes the calls.

use super::{CallResult, Job, pace::Pace};
use crate::{CallLimits, CallOutcome, RawCalls, guard::panic_message};
use futures_util::FutureExt;
use metrics::histogram;
use saga_core::mutant::{self, Mutant};
use saga_messaging::crash_point::CrashPoint;
use std::{panic::AssertUnwindSafe, sync::Arc};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, info_span};

/// Makes one call. A panic or a timeout makes the outcome indeterminate.
pub(super) async fn call<C: Send + 'static>(
    outside: &dyn RawCalls<C>,
    limits: CallLimits,
    job: Job,
) -> CallResult {
    let mut key = job.idempotency_key();
    if mutant::on(Mutant::NewKeyForRepeat) {
        key = format!("{key}/{:?}", Instant::now());
    }
    let command = &job.command;
    let span = info_span!(
        "external_call",
        saga.id = %command.saga_id,
        saga.step = command.step,
        correlation.id = command.trace.correlation_id,
    );
    CrashPoint::CallBeforeCall.pass();
    let began = Instant::now();
    let work = AssertUnwindSafe(outside.call(&key, command)).catch_unwind();
    let outcome = match timeout(limits.timeout, work.instrument(span)).await {
        Ok(Ok(outcome)) => outcome,
        Ok(Err(panic)) => CallOutcome::Indeterminate {
            why: format!("the call panicked: {}", panic_message(&*panic)),
        },
        Err(_) => CallOutcome::Indeterminate {
            why: format!("no answer in {} ms", limits.timeout.as_millis()),
        },
    };
    histogram!("saga_external_call_seconds", "command" => command.command_type.clone())
        .record(began.elapsed());
    CrashPoint::CallAfterCall.pass();
    CallResult { job, outcome }
}

/// Makes calls until `shutdown`, then waits for the calls in flight.
pub(super) async fn run<C: Send + 'static>(
    outside: Arc<dyn RawCalls<C>>,
    limits: CallLimits,
    mut jobs: mpsc::Receiver<Job>,
    finished: mpsc::Sender<CallResult>,
    shutdown: CancellationToken,
) {
    let mut under_way = JoinSet::new();
    let pace = Pace::new(limits.per_second);
    // The rate allows one more call, whose job need not have arrived yet.
    let mut may_begin = false;
    loop {
        let room = under_way.len() < limits.concurrency.max(1);
        tokio::select! {
            biased;
            () = shutdown.cancelled() => break,
            Some(_) = under_way.join_next() => {}
            () = pace.ready(), if !may_begin => may_begin = true,
            Some(job) = jobs.recv(), if room && may_begin => {
                may_begin = false;
                let (outside, finished) = (Arc::clone(&outside), finished.clone());
                let calling = async move {
                    let done = call(&*outside, limits, job).await;
                    // The settler ends after this task. If it is gone nevertheless, the sweep claims the intent.
                    drop(finished.send(done).await);
                };
                under_way.spawn(calling.in_current_span());
            }
            else => break,
        }
    }
    while under_way.join_next().await.is_some() {}
}

//! Visits every crash point of every service, one after the other, under a stream of orders of all kinds.
//!
//! ```text
//! cargo test -p saga-e2e --features failpoints --test crash_points
//! ```
//!
//! Each service is started with a point at which it crashes. After the crash it is started again at once with its next
//! point, while the other services visit theirs. Most crashes therefore happen in a system that has not yet recovered
//! from the crash before. The test fails if no service reaches a point, or if a process ends in any other way. At the
//! end, every accepted order must have ended as it would have ended without any crash: an order that could be confirmed
//! is confirmed. Stock, payments and orders must agree exactly.

#![expect(
    clippy::print_stdout,
    reason = "it takes minutes, and tells how far it is"
)]

mod orders;
mod walk;

use anyhow::Result;
use orders::Traffic;
use saga_harness::{Service, System};
use saga_test_support::environment::reaper;
use std::sync::Arc;
use walk::Walk;

const BINARY: &str = env!("CARGO_BIN_EXE_saga-e2e-service");

/// Copies the binary: a build without crash points that runs in the meantime must not replace it.
fn binary() -> Result<String> {
    let copy = std::env::temp_dir().join(format!("saga-crash-points-{}", std::process::id()));
    std::fs::copy(BINARY, &copy)?;
    reaper::at_end(&format!("rm -f {}", copy.display()));
    Ok(copy.to_string_lossy().into_owned())
}

/// Configures the orders' special cases. Calls to the gateway are taken over quickly, so that an order survives several
/// crashes in a row within its attempts. One amount fails at first, so that timers become due. For another amount, the
/// gateway's answer is lost.
fn configure(system: &System) -> Result<()> {
    let rules = format!(
        "[{{amount_minor = {}, operation = \"charge\", effect = \"error\", times = 1}}, \
          {{amount_minor = {}, operation = \"charge\", effect = \"time_out\", times = 1}}]",
        orders::FAILS_AT_FIRST_MINOR,
        orders::IS_NOT_HEARD_MINOR,
    );
    let settings = [
        ("GATEWAY__RULES", rules.as_str()),
        ("CALLS__TIMEOUT_MS", "1000"),
        ("CALLS__LEASE_MS", "2000"),
    ];
    for (key, value) in settings {
        system.configure(Service::Payment, key, Some(value));
    }
    let definition = system.definitions().join("patient.yaml");
    Ok(std::fs::write(definition, orders::patient())?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crash_at_any_point_changes_no_outcome() -> Result<()> {
    let (system, _guard) = System::alone(&binary()?).await;
    configure(system)?;
    let traffic = Arc::new(Traffic::prepare(system).await?);
    let mut walk = Walk::begin(system)?;
    let clients = traffic.start();
    let walked = walk.finish().await;
    let accepted = clients.stop().await?;
    walked?;
    walk.has_visited_every_point();
    traffic.check(accepted).await
}

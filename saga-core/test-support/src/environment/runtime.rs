//! A runtime that outlives every test.

use std::{future::Future, sync::LazyLock};
use tokio::runtime::Runtime;

/// The runtime of containers and of connections to the engine. A test's own runtime would end with the test.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .thread_name("test-environment")
        .enable_all()
        .build()
        .expect("a runtime can be built")
});

/// Runs `work` on the runtime that outlives every test.
pub(super) async fn outlive<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> T {
    RUNTIME
        .spawn(work)
        .await
        .expect("the test environment does not panic")
}

//! The name of the service that the current thread works for.

use std::{cell::Cell, sync::OnceLock};

static PROCESS_NAME: OnceLock<&'static str> = OnceLock::new();

thread_local! {
    static THREAD_NAME: Cell<Option<&'static str>> = const { Cell::new(None) };
}

/// Names the service of the whole process. A name set by [`name_thread`] takes precedence.
pub fn name_process(service: &'static str) {
    PROCESS_NAME.get_or_init(|| service);
}

/// Names the service that this thread works for. Call it in a runtime's `on_thread_start`.
pub fn name_thread(service: &'static str) {
    THREAD_NAME.set(Some(service));
}

pub(crate) fn service_name() -> &'static str {
    THREAD_NAME
        .get()
        .or_else(|| PROCESS_NAME.get().copied())
        .unwrap_or("-")
}

//! Recognizes and remembers that the brokers did not let a client in.

use rdkafka::error::RDKafkaErrorCode;
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// How long a denial counts. The client tries again every second, but reports an identical error of a broker only every
/// 30 seconds.
const DENIAL_LIFETIME: Duration = Duration::from_mins(1);

/// The reason why the brokers did not let this client in.
#[derive(Debug)]
struct Denial {
    at: Instant,
    reason: String,
}

/// The latest denial of a client by the brokers, shared by everything that uses the client.
#[derive(Clone, Debug, Default)]
pub(super) struct Admission(Arc<Mutex<Option<Denial>>>);

impl Admission {
    /// Returns why the client was not let in, if it was not. Its requests only time out, so this is the reason for
    /// their timeout.
    pub(super) fn denied(&self) -> Option<String> {
        let denied = self.lock();
        let denial = denied
            .as_ref()
            .filter(|denial| denial.at.elapsed() < DENIAL_LIFETIME)?;
        Some(denial.reason.clone())
    }

    pub(super) fn deny(&self, reason: &str) {
        *self.lock() = Some(Denial {
            at: Instant::now(),
            reason: reason.to_owned(),
        });
    }

    fn lock(&self) -> MutexGuard<'_, Option<Denial>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Returns `true` for a wrong name, password or certificate, and `false` for a handshake that a broker's restart has
/// interrupted.
pub(super) fn is_denial(code: Option<RDKafkaErrorCode>, reason: &str) -> bool {
    is_login(code) || (code == Some(RDKafkaErrorCode::SSL) && reason.contains("certificate"))
}

/// Returns `true` for a wrong name or password.
pub(super) fn is_login(code: Option<RDKafkaErrorCode>) -> bool {
    matches!(
        code,
        Some(RDKafkaErrorCode::Authentication | RDKafkaErrorCode::SaslAuthenticationFailed)
    )
}

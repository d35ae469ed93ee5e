//! Names that nothing else on a server has.

use uuid::Uuid;

/// Returns a unique name that is valid for a database, a role, a topic and a consumer group.
pub(super) fn unique(prefix: &str) -> String {
    let random = Uuid::new_v4().simple().to_string();
    let short: String = random.chars().take(12).collect();
    format!("{prefix}_{short}")
}

//! Classifies the errors that say that the database is unavailable, so that waiting may help.

use std::{error::Error, io::ErrorKind};

/// Returns true if `error` says that no connection was possible now. A wrong password, a database or a role that does
/// not exist, and every error in a statement return false.
pub fn is_unavailable(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Io(error)) => is_unavailable_kind(error.kind()),
        Some(sqlx::Error::Database(error)) => {
            error.code().is_some_and(|code| is_unavailable_state(&code))
        }
        Some(sqlx::Error::Protocol(text)) => text.starts_with(CUT_OFF),
        Some(sqlx::Error::PoolTimedOut) => true,
        Some(_) | None => false,
    }
}

/// The client's error when a proxy or load balancer accepts the connection and drops it because the database behind it
/// is unavailable.
const CUT_OFF: &str = "unexpected response from SSLRequest: 0x00";

/// Returns true for every kind except those caused by this process or its machine. An unresolved name has no kind of
/// its own.
fn is_unavailable_kind(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        // TLS reports an untrusted certificate with this kind.
        ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
            | ErrorKind::OutOfMemory
    )
}

/// Returns true if this SQLSTATE says that the database is unavailable. See "PostgreSQL Error Codes" in its manual.
fn is_unavailable_state(code: &str) -> bool {
    let of_class = |class: &str| code.starts_with(class);
    match code {
        // admin_shutdown, crash_shutdown, cannot_connect_now; a standby that is about to take over says
        // read_only_sql_transaction.
        "57P01" | "57P02" | "57P03" | "25006" => true,
        // connection_exception, insufficient_resources
        _ => of_class("08") || of_class("53"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io;

    #[test]
    fn outages_of_the_server_are_temporary_and_refusals_are_permanent() {
        let check = |code: &str, unavailable: bool| {
            assert_eq!(is_unavailable_state(code), unavailable, "{code}");
        };
        check("57P01", true);
        check("57P02", true);
        check("57P03", true);
        check("53300", true);
        check("53100", true);
        check("08006", true);
        check("25006", true);
        check("57P04", false); // database_dropped
        check("57014", false); // query_canceled
        check("28P01", false); // invalid_password
        check("28000", false); // invalid_authorization_specification
        check("3D000", false); // invalid_catalog_name
        check("42501", false); // insufficient_privilege
        check("42P01", false); // undefined_table
        check("23505", false); // unique_violation
        check("40P01", false); // deadlock_detected
        check("XX000", false); // internal_error
    }

    #[test]
    fn network_errors_are_temporary_and_local_errors_are_permanent() {
        // An unresolved name: std has no name for its kind.
        let unnamed = io::Error::from_raw_os_error(i32::MAX).kind();
        let check = |kind: ErrorKind, unavailable: bool| {
            let error = sqlx::Error::Io(kind.into());
            assert_eq!(is_unavailable(&error), unavailable, "{kind:?}");
        };
        check(ErrorKind::ConnectionRefused, true);
        check(ErrorKind::ConnectionReset, true);
        check(ErrorKind::ConnectionAborted, true);
        check(ErrorKind::BrokenPipe, true);
        check(ErrorKind::UnexpectedEof, true);
        check(ErrorKind::TimedOut, true);
        check(ErrorKind::HostUnreachable, true);
        check(ErrorKind::NetworkUnreachable, true);
        check(ErrorKind::NotFound, true); // a socket that does not exist yet
        check(ErrorKind::Other, true);
        assert!(is_unavailable_kind(unnamed), "{unnamed:?}");
        check(ErrorKind::InvalidData, false);
        check(ErrorKind::InvalidInput, false);
        check(ErrorKind::PermissionDenied, false);
    }

    #[test]
    fn only_connection_errors_are_waited_for() {
        let check = |error: sqlx::Error, unavailable: bool| {
            assert_eq!(is_unavailable(&error), unavailable, "{error}");
        };
        check(sqlx::Error::PoolTimedOut, true);
        check(sqlx::Error::PoolClosed, false);
        check(sqlx::Error::RowNotFound, false);
        check(sqlx::Error::Configuration("no address".into()), false);
        check(sqlx::Error::Tls("does not support TLS".into()), false);
        check(sqlx::Error::Protocol("a bad message".to_owned()), false);
        assert!(!is_unavailable(&io::Error::from(
            ErrorKind::ConnectionRefused
        )));
    }
}

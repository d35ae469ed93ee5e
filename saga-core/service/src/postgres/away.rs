//! Which errors say that the database is away, so that waiting may help.

use std::{error::Error, io::ErrorKind};

/// Whether `error` says that no connection could be had now. A wrong password, a database or a role that does not exist,
/// and everything that is wrong with a statement are no such thing.
pub fn is_away(error: &(dyn Error + 'static)) -> bool {
    match error.downcast_ref::<sqlx::Error>() {
        Some(sqlx::Error::Io(error)) => is_away_kind(error.kind()),
        Some(sqlx::Error::Database(error)) => error.code().is_some_and(|code| is_away_state(&code)),
        Some(sqlx::Error::Protocol(text)) => text.starts_with(CUT_OFF),
        Some(sqlx::Error::PoolTimedOut) => true,
        Some(_) | None => false,
    }
}

/// What the client says when somebody between (a proxy, a balancer) takes the connection and drops it, because the
/// database behind is away.
const CUT_OFF: &str = "unexpected response from SSLRequest: 0x00";

/// Everything but what lies in this process or its surroundings. A name that is not resolved yet has no kind of its own.
fn is_away_kind(kind: ErrorKind) -> bool {
    !matches!(
        kind,
        // What TLS makes of a certificate that is not to be trusted.
        ErrorKind::InvalidData
            | ErrorKind::InvalidInput
            | ErrorKind::PermissionDenied
            | ErrorKind::Unsupported
            | ErrorKind::OutOfMemory
    )
}

/// Of SQLSTATEs, see "PostgreSQL Error Codes" in its manual.
fn is_away_state(code: &str) -> bool {
    let of_class = |class: &str| code.starts_with(class);
    match code {
        // admin_shutdown, crash_shutdown, cannot_connect_now; read_only_sql_transaction is what a standby says that is
        // about to take over.
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
    fn a_server_that_is_away_may_come_back_and_a_refusal_stays() {
        let check = |code: &str, away: bool| assert_eq!(is_away_state(code), away, "{code}");
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
    fn what_the_network_says_may_change_and_what_this_machine_says_stays() {
        // A name that is not resolved: std has no name for its kind.
        let unnamed = io::Error::from_raw_os_error(i32::MAX).kind();
        let check = |kind: ErrorKind, away: bool| {
            let error = sqlx::Error::Io(kind.into());
            assert_eq!(is_away(&error), away, "{kind:?}");
        };
        check(ErrorKind::ConnectionRefused, true);
        check(ErrorKind::ConnectionReset, true);
        check(ErrorKind::ConnectionAborted, true);
        check(ErrorKind::BrokenPipe, true);
        check(ErrorKind::UnexpectedEof, true);
        check(ErrorKind::TimedOut, true);
        check(ErrorKind::HostUnreachable, true);
        check(ErrorKind::NetworkUnreachable, true);
        check(ErrorKind::NotFound, true); // a socket that is not made yet
        check(ErrorKind::Other, true);
        assert!(is_away_kind(unnamed), "{unnamed:?}");
        check(ErrorKind::InvalidData, false);
        check(ErrorKind::InvalidInput, false);
        check(ErrorKind::PermissionDenied, false);
    }

    #[test]
    fn only_what_a_connection_may_say_is_waited_for() {
        let check = |error: sqlx::Error, away: bool| assert_eq!(is_away(&error), away, "{error}");
        check(sqlx::Error::PoolTimedOut, true);
        check(sqlx::Error::PoolClosed, false);
        check(sqlx::Error::RowNotFound, false);
        check(sqlx::Error::Configuration("no address".into()), false);
        check(sqlx::Error::Tls("does not support TLS".into()), false);
        check(sqlx::Error::Protocol("a bad message".to_owned()), false);
        assert!(!is_away(&io::Error::from(ErrorKind::ConnectionRefused)));
    }
}

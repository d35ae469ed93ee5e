//! Finds free ports on loopback.

use crate::error::ServerError;
use std::{
    net::{Ipv4Addr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
};

/// The first port. It is below the range from which kernels take ports for outgoing connections, so the port of a
/// server that is down for a moment is still free when the server starts again.
const FIRST: u16 = 20_000;
const COUNT: u16 = 12_000;

/// Returns a port that no process listens on, different at each call in one process.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Each process starts at another number, so that two processes that start together do not take the same port.
    let offset =
        u16::try_from(std::process::id().wrapping_mul(101) % u32::from(COUNT)).unwrap_or(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = FIRST + offset.wrapping_add(step) % COUNT;
        if is_free(port) {
            return port;
        }
    }
}

pub(crate) fn check_free(server: &'static str, port: u16) -> Result<(), ServerError> {
    if is_free(port) {
        Ok(())
    } else {
        Err(ServerError::PortTaken { server, port })
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn taken_port_is_an_error_that_names_it() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let error = check_free("Kafka", port).unwrap_err().to_string();
        assert_eq!(
            error,
            format!("port {port}, wanted for Kafka, is already taken by another process")
        );
    }

    #[test]
    fn free_ports_differ() {
        assert_ne!(free_port(), free_port());
    }
}

//! The configuration section `http` that every service has.

use crate::config::ConfigError;
use axum::http::Uri;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpConfig {
    pub listen: SocketAddr,
    /// The names, besides loopback's, under which clients may address the service. On loopback these names must be
    /// listed; on other addresses an empty list allows every name.
    pub allowed_hosts: Vec<String>,
    /// The maximum size of a request's body, bytes.
    pub body_limit_bytes: usize,
    pub request_timeout_ms: u64,
    /// The browser origins that may call this service, such as the origin of the orchestrator's page.
    pub cors_origins: Vec<String>,
}

impl HttpConfig {
    /// Refuses names and origins that no request can have.
    pub fn check(&self) -> Result<(), ConfigError> {
        let is_name = |host: &String| {
            let of_names = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c);
            !host.is_empty() && host.chars().all(of_names)
        };
        if let Some(wrong) = self.allowed_hosts.iter().find(|host| !is_name(host)) {
            return Err(ConfigError(format!(
                "http.allowed_hosts: {wrong:?} is no host name; it has no scheme and no port, such as saga.example.com"
            )));
        }
        let is_origin = |origin: &String| {
            let parsed: Result<Uri, _> = origin.parse();
            let parts = parsed.map(Uri::into_parts);
            parts.is_ok_and(|parts| match (parts.scheme, parts.authority) {
                (Some(scheme), Some(authority)) => *origin == format!("{scheme}://{authority}"),
                (_, _) => false,
            })
        };
        let wrong = |origin: &&String| *origin != "*" && !is_origin(origin);
        match self.cors_origins.iter().find(wrong) {
            Some(wrong) => Err(ConfigError(format!(
                "http.cors_origins: {wrong:?} is no origin; it is a scheme, a host and perhaps a port, without a path, such \
                 as https://saga.example.com, or \"*\""
            ))),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::HttpConfig;

    #[test]
    fn names_and_origins_that_no_request_could_have_are_refused() {
        let check = |hosts: &[&str], origins: &[&str]| {
            let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
            let config = HttpConfig {
                listen: ([127, 0, 0, 1], 3001).into(),
                allowed_hosts: texts(hosts),
                body_limit_bytes: 1,
                request_timeout_ms: 1,
                cors_origins: texts(origins),
            };
            config.check().map_err(|error| error.0)
        };
        let origins = ["*", "http://localhost:3001", "https://saga.example"];
        assert_eq!(check(&["saga.example", "orchestrator"], &origins), Ok(()));
        for wrong in ["", "saga.example:443", "https://saga.example", "a b", "*"] {
            let refused = check(&["saga.example", wrong], &[]).expect_err(wrong);
            assert!(refused.starts_with("http.allowed_hosts: "), "{refused}");
        }
        for wrong in ["", "localhost:3001", "http://localhost:3001/", "null"] {
            let refused = check(&[], &["*", wrong]).expect_err(wrong);
            assert!(refused.starts_with("http.cors_origins: "), "{refused}");
        }
    }
}

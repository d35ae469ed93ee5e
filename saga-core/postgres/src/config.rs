//! The settings by which a database is reached.

use saga_core::secret::Secret;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// `postgres://role:password@host:port/database?sslmode=verify-full&sslrootcert=…`; its password is masked.
    #[serde(serialize_with = "masked_url")]
    pub url: Secret,
    pub max_connections: u32,
    pub connect_timeout_ms: u64,
}

impl PostgresConfig {
    /// Returns the database's URL with its passwords masked, for logs and errors.
    pub fn place(&self) -> String {
        mask_url(self.url.expose())
    }
}

/// Serializes a URL with its password masked.
fn masked_url<S: serde::Serializer>(url: &Secret, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&mask_url(url.expose()))
}

/// Masks the passwords in a URL: `postgres://role:secret@host/db?password=secret` becomes
/// `postgres://role:***@host/db?password=***`.
fn mask_url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else {
        return "***".to_owned();
    };
    let (base, query) = match rest.split_once('?') {
        Some((base, query)) => (base, Some(query)),
        None => (rest, None),
    };
    let base = match base.rsplit_once('@') {
        Some((credentials, place)) => match credentials.split_once(':') {
            Some((user, _)) => format!("{user}:***@{place}"),
            None => base.to_owned(),
        },
        None => base.to_owned(),
    };
    let query = query.map_or_else(String::new, |query| {
        let masked: Vec<String> = query.split('&').map(mask_parameter).collect();
        format!("?{}", masked.join("&"))
    });
    format!("{scheme}://{base}{query}")
}

fn mask_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((name, _)) if name.to_lowercase().contains("password") => format!("{name}=***"),
        Some(_) | None => parameter.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_in_urls_are_masked() {
        let check = |url, masked| assert_eq!(mask_url(url), masked);
        check("postgres://a:b@h:1/d", "postgres://a:***@h:1/d");
        check(
            "postgres://a:b@c@h/d?sslmode=require",
            "postgres://a:***@h/d?sslmode=require",
        );
        check("postgres://a@h/d", "postgres://a@h/d");
        check(
            "postgres:///d?host=/tmp&password=b",
            "postgres:///d?host=/tmp&password=***",
        );
        check(
            "postgres://h/d?sslpassword=b",
            "postgres://h/d?sslpassword=***",
        );
        check("host=h password=b", "***");
    }
}

//! Access control: a bearer token protects a service's mutating endpoints.
//!
//! On loopback only this machine's users can reach a service, so no token is required. On any other address reads are
//! open, but without a configured token every change is refused.

use super::problem::Problem;
use axum::{
    extract::{Request, State},
    http::{Method, header},
    middleware::Next,
    response::{IntoResponse, Response},
};
use saga_core::secret::Secret;
use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use subtle::ConstantTimeEq;

/// The `access` section of a service's configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct AccessConfig {
    /// The token that every request that changes something must carry: `Authorization: Bearer <token>`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub token: Option<Secret>,
}

impl AccessConfig {
    /// Returns the guard for [`require_token`] on a service that listens on `listen`.
    pub fn guard(&self, listen: SocketAddr) -> AccessGuard {
        // An empty token would be no protection at all.
        let token = self
            .token
            .clone()
            .filter(|token| !token.expose().is_empty());
        match token {
            Some(token) => AccessGuard::Token(token),
            None if listen.ip().is_loopback() => AccessGuard::Open,
            None => AccessGuard::Closed,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessGuard {
    Open,
    Token(Secret),
    /// The service is reachable from other machines and has no token, so every change is refused.
    Closed,
}

/// Middleware that refuses changes without the token. Add it with
/// `router.layer(axum::middleware::from_fn_with_state(config.guard(listen), require_token))`.
pub async fn require_token(
    State(guard): State<AccessGuard>,
    request: Request,
    next: Next,
) -> Response {
    match check(&guard, &request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

fn check(guard: &AccessGuard, request: &Request) -> Result<(), Problem> {
    let reads = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS
    );
    match guard {
        _ if reads => Ok(()),
        AccessGuard::Open => Ok(()),
        AccessGuard::Closed => Err(Problem::forbidden(
            "this service can be reached from other machines and has no token configured, so it refuses every change: \
             set access.token, or listen on a loopback address",
        )),
        AccessGuard::Token(token) => {
            let Some(given) = bearer(request) else {
                return Err(Problem::unauthorized(
                    "this request needs the header `authorization: Bearer <token>`",
                ));
            };
            // In constant time, so that the token cannot be guessed byte by byte.
            if given.as_bytes().ct_eq(token.expose().as_bytes()).into() {
                Ok(())
            } else {
                Err(Problem::unauthorized("the token is not the right one"))
            }
        }
    }
}

fn bearer(request: &Request) -> Option<&str> {
    let value = request
        .headers()
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?;
    let (scheme, token) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;

    fn verdict(
        token: Option<&str>,
        listen: &str,
        method: Method,
        authorization: Option<&str>,
    ) -> u16 {
        let config = AccessConfig {
            token: token.map(Secret::new),
        };
        let mut request = Request::builder().method(method);
        if let Some(value) = authorization {
            request = request.header(header::AUTHORIZATION, value);
        }
        let request = request.body(Body::empty()).expect("request");
        let guard = config.guard(listen.parse().expect("address"));
        check(&guard, &request).map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn changes_from_elsewhere_need_a_token() {
        const HERE: &str = "127.0.0.1:3001";
        const EVERYWHERE: &str = "0.0.0.0:3001";
        let right = Some("Bearer secret");
        let check = |token, listen, method, authorization, expected| {
            assert_eq!(
                verdict(token, listen, method, authorization),
                expected,
                "{token:?} {listen} {authorization:?}"
            );
        };
        check(None, HERE, Method::POST, None, 200);
        check(None, "[::1]:3001", Method::POST, None, 200);
        check(None, EVERYWHERE, Method::GET, None, 200);
        check(None, EVERYWHERE, Method::POST, None, 403);
        check(None, EVERYWHERE, Method::POST, right, 403);
        check(Some(""), EVERYWHERE, Method::POST, Some("Bearer "), 403);
        for listen in [HERE, EVERYWHERE] {
            check(Some("secret"), listen, Method::GET, None, 200);
            check(Some("secret"), listen, Method::DELETE, None, 401);
            check(Some("secret"), listen, Method::POST, right, 200);
            check(
                Some("secret"),
                listen,
                Method::POST,
                Some("bearer secret"),
                200,
            );
            for wrong in [
                "Bearer secreT",
                "Bearer secret2",
                "Bearer",
                "Basic secret",
                "secret",
            ] {
                check(Some("secret"), listen, Method::POST, Some(wrong), 401);
            }
        }
    }
}

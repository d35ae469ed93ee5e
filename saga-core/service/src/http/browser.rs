//! Keeps foreign web pages from reading or changing anything through a visitor's browser.
//!
//! A browser on this machine can reach services on loopback, and so can every page that the browser shows. Two headers
//! tell where a request comes from, and no page can set them:
//!
//! - `Host` is the name that the client resolved. A page whose own name resolves to 127.0.0.1 (DNS rebinding) has the
//!   same origin as the service and could read every answer. A service on loopback therefore answers only to loopback
//!   names and the names in `http.allowed_hosts`.
//! - `Origin` is the page's address. CORS keeps a foreign page from reading, but not from sending: a form, or a POST
//!   without a body, is sent without a preflight. A change is therefore refused if it comes from a foreign origin that
//!   `http.cors_origins` does not name.
//!
//! Clients other than browsers send no `Origin`, and in `Host` the name that they were configured to connect to.

use super::{config::HttpConfig, problem::Problem};
use axum::{
    extract::{Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri, Version, header, uri::Authority},
    middleware::Next,
    response::{IntoResponse, Response},
};
use std::{net::IpAddr, sync::Arc};

/// The header in which a browser says where a request comes from. It covers requests to which the browser adds no
/// `Origin`.
const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

#[derive(Clone, Debug)]
pub(super) struct OriginCheck(Arc<Rules>);

#[derive(Debug)]
struct Rules {
    hosts: Hosts,
    /// `http.cors_origins`.
    origins: Vec<String>,
}

/// Names under which the service may be addressed.
#[derive(Debug)]
enum Hosts {
    /// Every name: the service does not listen on loopback, and its names are not configured.
    Any,
    /// Loopback names, and the listed names.
    Loopback(Vec<String>),
    /// Loopback names, the listed names, and every IP address. Probes address a pod by its IP address, and DNS
    /// rebinding needs a name.
    Addresses(Vec<String>),
}

impl OriginCheck {
    pub fn new(config: &HttpConfig) -> Self {
        let names = config.allowed_hosts.clone();
        let hosts = if config.listen.ip().is_loopback() {
            Hosts::Loopback(names)
        } else if names.is_empty() {
            Hosts::Any
        } else {
            Hosts::Addresses(names)
        };
        Self(Arc::new(Rules {
            hosts,
            origins: config.cors_origins.clone(),
        }))
    }
}

/// Middleware that refuses requests of foreign pages.
pub(super) async fn admit(
    State(check): State<OriginCheck>,
    request: Request,
    next: Next,
) -> Response {
    match check.0.check(&request) {
        Ok(()) => next.run(request).await,
        Err(problem) => problem.into_response(),
    }
}

impl Rules {
    fn check(&self, request: &Request) -> Result<(), Problem> {
        let addressed = addressed(request.uri(), request.version(), request.headers())?;
        if let Some(authority) = &addressed
            && !self.hosts.allow(authority.host())
        {
            let detail = format!(
                "this service does not answer to the name {authority}: use localhost, or add the name to http.allowed_hosts"
            );
            return Err(Problem::new(StatusCode::MISDIRECTED_REQUEST, detail)
                .with_type("misdirected-request"));
        }
        if request.method().is_safe() {
            return Ok(());
        }
        self.check_origin(addressed.as_ref(), request.headers())
    }

    fn check_origin(
        &self,
        addressed: Option<&Authority>,
        headers: &HeaderMap,
    ) -> Result<(), Problem> {
        let Some(origin) = headers.get(header::ORIGIN) else {
            return match headers.get(SEC_FETCH_SITE).map(HeaderValue::as_bytes) {
                None | Some(b"same-origin" | b"none") => Ok(()),
                Some(_) => Err(foreign("of another site")),
            };
        };
        let origin = origin.to_str().unwrap_or_default();
        let named = |name: &String| name == "*" || name == origin;
        if self.origins.iter().any(named) || addressed.is_some_and(|host| is_own(origin, host)) {
            return Ok(());
        }
        Err(foreign(&format!("of the origin {origin:?}")))
    }
}

fn foreign(page: &str) -> Problem {
    let detail = format!(
        "a page {page} may change nothing here: http.cors_origins does not name its origin, and it is not the origin of `Host`"
    );
    Problem::forbidden(detail).with_type("foreign-origin")
}

/// Returns the host and port that the client addressed: the request's target in HTTP/2 and for proxies, otherwise
/// `Host`. Returns `None` for HTTP/1.0 without `Host`, which that version allows; no browser speaks it.
fn addressed(
    uri: &Uri,
    version: Version,
    headers: &HeaderMap,
) -> Result<Option<Authority>, Problem> {
    let mut hosts = headers.get_all(header::HOST).iter();
    let host = hosts.next().map(parse_host).transpose()?;
    if hosts.next().is_some() {
        return Err(Problem::bad_request("the header `host` is there twice"));
    }
    match (uri.authority(), host) {
        // If the two differed, a proxy in front of this service might have checked the other host.
        (Some(target), Some(host)) if *target != host => Err(Problem::bad_request(
            "the header `host` and the request's target must name the same host",
        )),
        (Some(target), _) => Ok(Some(target.clone())),
        (None, Some(host)) => Ok(Some(host)),
        (None, None) if version <= Version::HTTP_10 => Ok(None),
        (None, None) => Err(Problem::bad_request("the header `host` is missing")),
    }
}

fn parse_host(value: &HeaderValue) -> Result<Authority, Problem> {
    let parsed = Authority::try_from(value.as_bytes()).ok();
    // `user@host` is an authority, but no `Host`.
    let host = parsed.filter(|authority| !authority.as_str().contains('@'));
    host.ok_or_else(|| Problem::bad_request("the header `host` must be a host and perhaps a port"))
}

impl Hosts {
    fn allow(&self, host: &str) -> bool {
        let name = host.strip_suffix('.').unwrap_or(host);
        let listed = |names: &[String]| names.iter().any(|one| one.eq_ignore_ascii_case(name));
        let address = address(name);
        let loopback = name.eq_ignore_ascii_case("localhost")
            || address.is_some_and(|ip| ip.to_canonical().is_loopback());
        match self {
            Self::Any => true,
            Self::Loopback(names) => loopback || listed(names),
            Self::Addresses(names) => loopback || address.is_some() || listed(names),
        }
    }
}

/// Parses a host that is an IP address. An IPv6 address is in brackets.
fn address(host: &str) -> Option<IpAddr> {
    let bare = host
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    bare.unwrap_or(host).parse().ok()
}

/// Returns true if the origin has the host and port that the client addressed. The scheme only decides the default
/// port, because a proxy may have terminated the TLS of the page's `https`.
fn is_own(origin: &str, addressed: &Authority) -> bool {
    let Ok(origin) = origin.parse::<Uri>() else {
        return false;
    };
    let default = match origin.scheme_str() {
        Some("http") => 80,
        Some("https") => 443,
        Some(_) | None => return false,
    };
    origin.host().is_some_and(|host| {
        host.eq_ignore_ascii_case(addressed.host())
            && origin.port_u16().unwrap_or(default) == addressed.port_u16().unwrap_or(default)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::{body::Body, http::Method};

    const HERE: &str = "127.0.0.1:3001";
    const EVERYWHERE: &str = "0.0.0.0:3001";

    fn rules(listen: &str, allowed: &[&str], origins: &[&str]) -> Rules {
        let texts = |all: &[&str]| all.iter().map(|one| (*one).to_owned()).collect();
        let check = OriginCheck::new(&HttpConfig {
            listen: listen.parse().expect("address"),
            allowed_hosts: texts(allowed),
            body_limit_bytes: 1,
            request_timeout_ms: 1,
            cors_origins: texts(origins),
        });
        Arc::try_unwrap(check.0).expect("one owner")
    }

    fn request(method: Method, headers: &[(&str, &str)]) -> Request {
        let builder = Request::builder().method(method);
        let builder = headers.iter().fold(builder, |builder, (name, value)| {
            builder.header(*name, *value)
        });
        builder.body(Body::empty()).expect("request")
    }

    fn status(rules: &Rules, request: &Request) -> u16 {
        rules
            .check(request)
            .map_or_else(|problem| problem.status, |()| 200)
    }

    #[test]
    fn on_loopback_only_loopback_names_and_listed_ones_are_answered() {
        let check = |rules: &Rules, host: &str, expected: u16| {
            let request = request(Method::GET, &[("host", host)]);
            assert_eq!(status(rules, &request), expected, "{host} {rules:?}");
        };
        let here = rules(HERE, &["saga.example"], &[]);
        for ours in [
            "127.0.0.1:3001",
            "127.0.0.1",
            "127.8.0.1:9",
            "localhost:3001",
            "LOCALHOST",
            "localhost.:3001",
            "[::1]:3001",
            "[::1]",
            "[::ffff:127.0.0.1]:3001",
            "saga.example",
            "Saga.Example:443",
        ] {
            check(&here, ours, 200);
        }
        for foreign in [
            "evil.example:3001",
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "notlocalhost",
            "10.0.0.1:3001",
            "0.0.0.0:3001",
            "[::2]",
            "saga.example.evil.example",
        ] {
            check(&here, foreign, 421);
        }
        check(&rules("[::1]:3001", &[], &[]), "evil.example", 421);
        for broken in ["", "a b", "http://localhost", "me@localhost"] {
            check(&here, broken, 400);
        }
    }

    #[test]
    fn elsewhere_any_name_is_answered_until_names_are_listed() {
        let (any, listed) = (
            rules(EVERYWHERE, &[], &[]),
            rules(EVERYWHERE, &["orchestrator"], &[]),
        );
        for (host, of_listed) in [
            ("evil.example:3001", 421),
            ("orchestrator:3001", 200),
            ("10.1.2.3:3001", 200),
            ("[fd00::1]:3001", 200),
            ("localhost:3001", 200),
        ] {
            let request = request(Method::GET, &[("host", host)]);
            assert_eq!(status(&any, &request), 200, "{host}");
            assert_eq!(status(&listed, &request), of_listed, "{host}");
        }
    }

    #[test]
    fn a_request_has_exactly_one_host() {
        let here = rules(HERE, &[], &[]);
        let none = request(Method::GET, &[]);
        assert_eq!(status(&here, &none), 400);
        let twice = request(
            Method::GET,
            &[("host", "localhost"), ("host", "evil.example")],
        );
        assert_eq!(status(&here, &twice), 400);
        let old = |host: &[(&str, &str)]| {
            let mut request = request(Method::GET, host);
            *request.version_mut() = Version::HTTP_10;
            request
        };
        assert_eq!(status(&here, &old(&[])), 200, "a probe");
        assert_eq!(status(&here, &old(&[("host", "evil.example")])), 421);
        let target = |target: &str, host: &[(&str, &str)]| {
            let mut request = request(Method::GET, host);
            *request.uri_mut() = target.parse().expect("a target");
            request
        };
        assert_eq!(status(&here, &target("http://localhost:3001/", &[])), 200);
        assert_eq!(status(&here, &target("http://evil.example/", &[])), 421);
        let differing = target("http://localhost/", &[("host", "evil.example")]);
        assert_eq!(status(&here, &differing), 400);
    }

    #[test]
    fn only_pages_of_the_service_and_of_named_origins_change_anything() {
        let check = |rules: &Rules, host: &str, headers: &[(&str, &str)], expected: u16| {
            let all: Vec<_> = [("host", host)].iter().chain(headers).copied().collect();
            for method in [Method::POST, Method::PUT, Method::PATCH, Method::DELETE] {
                let status = status(rules, &request(method, &all));
                assert_eq!(status, expected, "{all:?}");
            }
            for method in [Method::GET, Method::HEAD, Method::OPTIONS] {
                assert_eq!(status(rules, &request(method, &all)), 200, "{all:?}");
            }
        };
        let page = "http://localhost:3001";
        let here = rules(HERE, &["saga.example"], &[page]);
        let origin = |of: &'static str| [("origin", of)];
        check(&here, HERE, &[], 200);
        check(&here, HERE, &origin(page), 200);
        check(&here, HERE, &origin("http://127.0.0.1:3001"), 200);
        check(&here, "[::1]:3001", &origin("http://[::1]:3001"), 200);
        check(&here, "saga.example", &origin("https://saga.example"), 200);
        check(
            &here,
            "saga.example:443",
            &origin("https://saga.example"),
            200,
        );
        for foreign in [
            "http://evil.example",
            "http://127.0.0.1:3000",
            "http://localhost",
            "http://localhost:3001.evil.example",
            "null",
            "",
            "file://",
            "chrome-extension://127.0.0.1:3001",
        ] {
            check(&here, HERE, &origin(foreign), 403);
            check(&rules(EVERYWHERE, &[], &[]), HERE, &origin(foreign), 403);
        }
        check(
            &here,
            "saga.example:80",
            &origin("https://saga.example"),
            403,
        );
        let site = |of: &'static str| [("sec-fetch-site", of)];
        check(&here, HERE, &site("cross-site"), 403);
        check(&here, HERE, &site("same-site"), 403);
        check(&here, HERE, &site("same-origin"), 200);
        check(&here, HERE, &site("none"), 200);
        let foreign = [("origin", page), ("sec-fetch-site", "same-site")];
        check(&here, HERE, &foreign, 200);
        let everyone = rules(HERE, &[], &["*"]);
        check(&everyone, HERE, &origin("http://evil.example"), 200);
    }
}

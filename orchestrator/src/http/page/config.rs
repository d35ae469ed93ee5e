//! Configuration of the page: the addresses of the reference application's services.

use axum::http::{HeaderValue, Uri};
use saga_service::config::ConfigError;
use serde::{Deserialize, Serialize};

/// The `page` section of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PageConfig {
    /// URL of order-svc, as browsers reach it. If empty, the page has no order form.
    pub order_url: String,
    /// URL of inventory-svc, as browsers reach it. If empty, the page shows no stock.
    pub inventory_url: String,
    /// The definitions that the order form offers; the same as order-svc's `orders.definitions`.
    pub order_definitions: Vec<String>,
}

/// The policy without the services' origins: everything is loaded from this host, and inline scripts and styles are not
/// allowed. The origins of the page's services are appended to `connect-src`.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; \
                      form-action 'self'; base-uri 'none'; frame-ancestors 'none'; connect-src 'self'";

impl PageConfig {
    pub fn check(&self) -> Result<(), ConfigError> {
        let urls = [
            ("page.order_url", &self.order_url),
            ("page.inventory_url", &self.inventory_url),
        ];
        for (key, url) in urls {
            if !url.is_empty() && origin(url).is_none() {
                return Err(ConfigError::new(format!(
                    "{key} is \"{url}\"; it must be http:// or https:// with a host, and perhaps a port and a path"
                )));
            }
        }
        Ok(())
    }

    /// Returns the page's `Content-Security-Policy`.
    pub(super) fn policy(&self) -> HeaderValue {
        let origins = [&self.order_url, &self.inventory_url]
            .into_iter()
            .filter_map(|url| origin(url));
        let policy = origins.fold(POLICY.to_owned(), |policy, origin| {
            format!("{policy} {origin}")
        });
        // Each origin comes from a parsed URI, so the value is valid. The fallback allows connections to this host
        // only.
        HeaderValue::from_str(&policy).unwrap_or(HeaderValue::from_static(POLICY))
    }
}

/// Returns scheme, host and port of a URL. No other part of it may get into a header.
fn origin(url: &str) -> Option<String> {
    let uri: Uri = url.parse().ok()?;
    let scheme = uri
        .scheme_str()
        .filter(|scheme| ["http", "https"].contains(scheme))?;
    let authority = uri
        .authority()
        .filter(|authority| !authority.as_str().contains(['@', ';', ',']))?;
    Some(format!("{scheme}://{authority}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(order_url: &str) -> PageConfig {
        PageConfig {
            order_url: order_url.to_owned(),
            ..PageConfig::default()
        }
    }

    #[test]
    fn policy_names_origins_only() {
        let policy = config("https://shop.example:8443/api/").policy();
        let policy = policy.to_str().expect("text");
        assert!(
            policy.ends_with("connect-src 'self' https://shop.example:8443"),
            "{policy}"
        );
        assert!(!policy.contains("unsafe-inline"), "{policy}");
    }

    #[test]
    fn an_invalid_page_url_is_refused_by_key() {
        let refused = [
            "shop",
            "127.0.0.1:3000",
            "/orders",
            "ftp://shop",
            "javascript:alert(1)",
            "http://a; script-src *",
            "http://a;b",
            "http://user@host",
        ];
        for url in refused {
            let error = config(url).check().expect_err(url);
            assert!(error.0.contains("page.order_url"), "{error}");
            assert_eq!(config(url).policy(), config("").policy(), "{url}");
        }
        for url in ["", "http://127.0.0.1:3000", "https://[::1]:3000/shop"] {
            config(url).check().expect(url);
        }
    }
}

//! The page's style and script, embedded in the binary. Browsers revalidate them on each use: a new version is used at
//! once, and an unchanged one is not transferred again.

use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
};
use sha2::{Digest, Sha256};
use std::sync::LazyLock;
use utoipa_axum::router::OpenApiRouter;

struct Asset {
    content_type: &'static str,
    text: &'static str,
    etag: String,
}

static STYLE: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/css; charset=utf-8", include_str!("page.css")));
static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("text/javascript; charset=utf-8", include_str!("page.js")));

pub fn router() -> OpenApiRouter {
    OpenApiRouter::new()
        .route(
            "/page.css",
            get(async |headers: HeaderMap| STYLE.answer(&headers)),
        )
        .route(
            "/page.js",
            get(async |headers: HeaderMap| SCRIPT.answer(&headers)),
        )
}

impl Asset {
    fn new(content_type: &'static str, text: &'static str) -> Self {
        let digest = Sha256::digest(text.as_bytes());
        let start = digest
            .iter()
            .take(8)
            .fold(0_u64, |tag, byte| tag << 8 | u64::from(*byte));
        Self {
            content_type,
            text,
            etag: format!("\"{start:016x}\""),
        }
    }

    fn answer(&self, request: &HeaderMap) -> Response {
        let headers = [
            (header::ETAG, self.etag.as_str()),
            (header::CACHE_CONTROL, "no-cache"),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        ];
        if self.is_known(request.get(header::IF_NONE_MATCH)) {
            return (StatusCode::NOT_MODIFIED, headers).into_response();
        }
        (
            headers,
            [(header::CONTENT_TYPE, self.content_type)],
            self.text,
        )
            .into_response()
    }

    /// Checks whether `If-None-Match` contains the asset's tag. A tag is weak if a proxy has compressed the text.
    fn is_known(&self, tags: Option<&HeaderValue>) -> bool {
        tags.and_then(|tags| tags.to_str().ok())
            .is_some_and(|tags| {
                let strong = |tag: &str| tag.trim().trim_start_matches("W/").to_owned();
                tags.split(',')
                    .map(strong)
                    .any(|tag| tag == self.etag || tag == "*")
            })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked_with(tags: &str) -> Response {
        let tags = HeaderValue::from_str(tags).expect("header");
        SCRIPT.answer(&HeaderMap::from_iter([(header::IF_NONE_MATCH, tags)]))
    }

    #[test]
    fn an_unchanged_asset_is_not_sent_again() {
        let first = SCRIPT.answer(&HeaderMap::new());
        assert_eq!(first.status(), StatusCode::OK);
        assert_eq!(
            first.headers()[header::CONTENT_TYPE],
            "text/javascript; charset=utf-8"
        );
        assert_eq!(first.headers()[header::CACHE_CONTROL], "no-cache");
        let etag = first.headers()[header::ETAG]
            .to_str()
            .expect("etag")
            .to_owned();
        for tags in [
            etag.clone(),
            format!("W/{etag}"),
            format!("\"other\", {etag}"),
        ] {
            assert_eq!(
                asked_with(&tags).status(),
                StatusCode::NOT_MODIFIED,
                "{tags}"
            );
        }
        assert_eq!(asked_with("\"other\"").status(), StatusCode::OK);
    }

    #[test]
    fn style_and_script_have_tags_of_their_own() {
        assert_ne!(STYLE.etag, SCRIPT.etag);
    }
}

//! The OpenAPI document, and the page that shows it: Swagger UI, read from an archive that is part of the program.

use axum::{
    Json, Router,
    extract::Path,
    http::{StatusCode, header},
    response::{IntoResponse, Redirect, Response},
    routing::get,
};
use std::{
    io::{Cursor, Read},
    sync::{Arc, LazyLock},
};
use utoipa::openapi::OpenApi;
use utoipa_swagger_ui_vendored::SWAGGER_UI_VENDORED;
use zip::ZipArchive;

/// The page's settings, which take the place of the archive's example.
const INITIALIZER: &str = include_str!("swagger-initializer.js");

/// The release of Swagger UI, with its folder `dist`. Clones share the archive's directory.
static SWAGGER_UI: LazyLock<ZipArchive<Cursor<&'static [u8]>>> = LazyLock::new(|| {
    ZipArchive::new(Cursor::new(SWAGGER_UI_VENDORED)).expect("the archive is complete")
});

pub(super) fn router(document: OpenApi) -> Router {
    let document = Json(Arc::new(document));
    Router::new()
        .route("/api/openapi.json", get(async || document))
        .route("/api/docs", get(async || Redirect::to("/api/docs/")))
        .route("/api/docs/", get(async || file("index.html")))
        .route(
            "/api/docs/{name}",
            get(async |Path(name): Path<String>| file(&name)),
        )
}

fn file(name: &str) -> Response {
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html",
        Some("css") => "text/css",
        Some("js") => "text/javascript",
        Some("png") => "image/png",
        _ => "application/octet-stream",
    };
    let content = match name {
        "swagger-initializer.js" => Some(INITIALIZER.into()),
        _ => unpacked(name),
    };
    match content {
        Some(content) => ([(header::CONTENT_TYPE, kind)], content).into_response(),
        None => StatusCode::NOT_FOUND.into_response(),
    }
}

fn unpacked(name: &str) -> Option<Vec<u8>> {
    let is_wanted = |path: &str| path.split('/').skip(1).eq(["dist", name]);
    let index = SWAGGER_UI
        .file_names()
        .position(|path| path.is_ok_and(|path| is_wanted(&path)))?;
    let mut archive = SWAGGER_UI.clone();
    let mut content = Vec::new();
    archive
        .by_index(index)
        .ok()?
        .read_to_end(&mut content)
        .ok()?;
    Some(content)
}

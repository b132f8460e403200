//! The files that pages load. Their names have a hash of what is in them, so they may be kept for ever.

use std::sync::LazyLock;

use axum::extract::Path;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use xxhash_rust::xxh3::xxh3_64;

use super::super::problem::Problem;

/// How pages look.
pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    Asset::new(
        "style",
        "css",
        "text/css; charset=utf-8",
        concat!(include_str!("assets/style.css"), include_str!("assets/rollouts.css")),
    )
});
/// What puts changed fragments in place.
pub(super) static SCRIPT: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("live", "js", "text/javascript; charset=utf-8", include_str!("assets/live.js")));
/// The mark of the page's tab.
pub(super) static ICON: LazyLock<Asset> =
    LazyLock::new(|| Asset::new("mark", "svg", "image/svg+xml", include_str!("assets/mark.svg")));

/// One file.
pub(super) struct Asset {
    name: String,
    kind: &'static str,
    text: &'static str,
}

impl Asset {
    fn new(stem: &str, end: &str, kind: &'static str, text: &'static str) -> Self {
        Self { name: format!("{stem}-{:016x}.{end}", xxh3_64(text.as_bytes())), kind, text }
    }

    /// Where it is.
    pub(super) fn path(&self) -> String {
        format!("/ui/assets/{}", self.name)
    }
}

/// A file by its name.
pub(super) async fn get_asset(Path(file): Path<String>) -> Result<Response, Problem> {
    let all = [&*STYLE, &*SCRIPT, &*ICON];
    let asset = all.into_iter().find(|asset| asset.name == file);
    let asset = asset.ok_or_else(|| Problem::new(StatusCode::NOT_FOUND, "", "there is no such file"))?;
    let headers = [(header::CONTENT_TYPE, asset.kind), (header::CACHE_CONTROL, "public, max-age=31536000, immutable")];
    Ok((headers, asset.text).into_response())
}

//! `[services.X.maintenance]`: the page for browsers, and who passes.

use super::formats;
use super::view::View;
use crate::model::MaintenanceSpec;

/// The largest page in bytes: it is sent again and again while everyone is waiting.
const MAX_PAGE: usize = 64 << 10;

/// The table of a service.
pub(super) fn maintenance(view: &View<'_>) -> MaintenanceSpec {
    let bypass_secret = view.read("bypass_secret", formats::visible);
    // The secret travels with requests and is guessed at by anyone.
    if bypass_secret.as_ref().is_some_and(|s| s.len() < 16) {
        view.warn_at("bypass_secret", "is short; 16 characters or more cannot be guessed");
    }
    MaintenanceSpec { page: page(view), bypass_secret, bypass: view.read_list("bypass", formats::network) }
}

fn page(view: &View<'_>) -> Option<std::sync::Arc<str>> {
    let bytes = view.cx.contents(view.get("page")?, view.text("page")?)?;
    let wrong = |what: &str| {
        view.wrong_at("page", format!("names a file that {what}; allowed is HTML as UTF-8, 1 byte to 64 KiB"));
    };
    if bytes.is_empty() {
        wrong("is empty");
    } else if bytes.len() > MAX_PAGE {
        wrong(&format!("has {} bytes", bytes.len()));
    } else {
        match String::from_utf8(bytes) {
            Ok(text) => return Some(text.into()),
            Err(_) => wrong("is not UTF-8"),
        }
    }
    None
}

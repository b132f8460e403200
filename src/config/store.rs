//! `[store]`: a file, or etcd and how it is reached.

use super::formats;
use super::notify::Hidden;
use super::process::secrets;
use super::settings::{EtcdSettings, ProxySettings, StoreSettings};
use super::view::View;

/// `[store]`.
pub(super) fn store(view: &View<'_>) -> StoreSettings {
    let without = StoreSettings::default();
    let path = view.file("path").unwrap_or_else(|| view.cx.place(&without.path.to_string_lossy()));
    let last_good = view.flag("last_good").unwrap_or(without.last_good);
    let secret = secrets(view, "secret").into_iter().map(Hidden::new).collect();
    StoreSettings { path, last_good, secret, keep_events: view.integer("keep_events"), etcd: etcd(view) }
}

/// What the settings have in the store that others may read.
pub(super) fn warn(root: &View<'_>, proxy: &ProxySettings, store: &StoreSettings) {
    if store.etcd.is_some() && store.secret.is_empty() && proxy.cookie_secret.is_empty() {
        let message = "is not set, so the keys that sign cookies lie in etcd unencrypted: whoever reads etcd or a backup of it \
                       can forge sessions; set it, or proxy.cookie_secret, the same on all nodes";
        root.cx.warning("store.secret", message);
    }
}

fn etcd(view: &View<'_>) -> Option<EtcdSettings> {
    if view.get("etcd").is_none() {
        for key in ["cert", "key", "username", "password"] {
            let message = "means nothing here; allowed is it beside the key etcd";
            view.get(key).into_iter().for_each(|_| view.wrong_at(key, message));
        }
        return None;
    }
    if view.get("path").is_some() {
        view.wrong_at("etcd", "stands beside path, and the state is in one place; allowed is one of the two keys");
    }
    let endpoints = view.read_list("etcd", formats::etcd);
    let encrypted = endpoints.iter().filter(|e| e.starts_with("https://")).count();
    if encrypted > 0 && encrypted < endpoints.len() {
        view.wrong_at("etcd", "has both http and https addresses; allowed are addresses of one kind");
    }
    if encrypted == 0 {
        for key in ["ca", "cert", "key"] {
            let message = "says nothing with http addresses; allowed is it with https addresses in etcd";
            view.get(key).into_iter().for_each(|_| view.wrong_at(key, message));
        }
    } else if view.get("ca").is_none() {
        view.wrong_at(
            "ca",
            "is missing; https addresses in etcd need a PEM file of the authorities of its certificates",
        );
    }
    let identity = pem(view, "cert").zip(pem(view, "key")).map(|(cert, key)| (cert, Hidden::new(key)));
    let password = view.text("password").map(Hidden::new);
    Some(EtcdSettings {
        endpoints,
        prefix: view.text("prefix").unwrap_or("/switchback").to_owned(),
        user: view.text("username").map(str::to_owned).zip(password),
        ca: pem(view, "ca"),
        identity,
        compact: view.flag("compact").unwrap_or(true),
    })
}

/// The text of a PEM file.
fn pem(view: &View<'_>, key: &str) -> Option<String> {
    let bytes = view.cx.contents(view.get(key)?, view.text(key)?)?;
    match String::from_utf8(bytes) {
        Ok(text) if text.contains("-----BEGIN ") => Some(text),
        _ => {
            view.wrong_at(key, "names a file that is not PEM; allowed is a PEM file");
            None
        }
    }
}

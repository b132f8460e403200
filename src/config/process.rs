//! Settings of the process: proxy, admin API, store, metrics.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::formats;
use super::notify::Hidden;
use super::settings::{
    AccessLog, AdminSettings, CertificateFiles, FollowParent, Limits, MetricsSettings, ProxySettings, Role,
    TlsListener, TlsVersion, Token, Tracing,
};
use super::tree::Node;
use super::view::View;

/// SHA-256 of nothing: what `sha256sum` says about a variable that is not set.
pub(super) const SHA256_OF_NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// `[proxy]`.
pub(super) fn proxy(view: &View<'_>) -> ProxySettings {
    let without = ProxySettings::default();
    let settings = ProxySettings {
        listen: view.read_list("listen", formats::address),
        threads: view.integer("threads").unwrap_or(without.threads),
        tls: view.tables("tls").iter().filter_map(tls).collect(),
        trusted: view.read_list("trusted", formats::network),
        proxy_protocol: view.read_list("proxy_protocol", formats::network),
        limits: limits(&view.table("limits")),
        access_log: access_log(&view.table("access_log")),
        tracing: tracing(&view.table("tracing")),
        drain_timeout: view.duration("drain_timeout").unwrap_or(without.drain_timeout),
        ready_delay: view.duration("ready_delay").unwrap_or(without.ready_delay),
        watch: view.flag("watch").unwrap_or(without.watch),
        handover: handover(view),
        cookie_secret: secrets(view, "cookie_secret"),
        upstream_keepalive: view.integer("upstream_keepalive").unwrap_or(without.upstream_keepalive),
    };
    if view.exists() && view.list("listen").is_empty() && view.list("tls").is_empty() {
        view.wrong_at("listen", "there is no address to listen on; at least one of listen and tls is needed");
    }
    settings
}

fn handover(view: &View<'_>) -> Option<PathBuf> {
    match view.text("handover") {
        Some("off") => None,
        given => Some(view.cx.place(given.unwrap_or("switchback.sock"))),
    }
}

/// One secret, or several: the first signs or seals.
pub(super) fn secrets(view: &View<'_>, key: &'static str) -> Vec<String> {
    match view.list(key) {
        [] => view.read(key, formats::long_secret).into_iter().collect(),
        _ => view.read_list(key, formats::long_secret),
    }
}

fn tls(view: &View<'_>) -> Option<TlsListener> {
    let certificate =
        |c: &View<'_>| Some(CertificateFiles { cert: c.existing_file("cert")?, key: c.existing_file("key")? });
    Some(TlsListener {
        listen: view.read("listen", formats::address)?,
        certificates: view.tables("certificates").iter().filter_map(certificate).collect(),
        client_ca: view.existing_file("client_ca"),
        client_certificates_optional: view.text("client_certificates") == Some("optional"),
        refuse_unknown_names: view.text("unknown_name") == Some("refuse"),
        min_version: if view.text("min_version") == Some("1.3") { TlsVersion::V1_3 } else { TlsVersion::V1_2 },
    })
}

fn limits(view: &View<'_>) -> Limits {
    let without = Limits::default();
    Limits {
        header_size: view.size("header_size").unwrap_or(without.header_size),
        headers: view.integer("headers").unwrap_or(without.headers),
        header_timeout: view.duration("header_timeout").unwrap_or(without.header_timeout),
        body_size: view.size("body_size").map_or(without.body_size, |n| Some(n).filter(|n| *n > 0)),
        body_timeout: view.duration("body_timeout").unwrap_or(without.body_timeout),
        min_body_rate: view.size("min_body_rate").unwrap_or(without.min_body_rate),
        connections: view.integer("connections").unwrap_or(without.connections),
        connections_per_address: view.integer("connections_per_address").unwrap_or(without.connections_per_address),
        requests: view.integer("requests").map_or(without.requests, |n| Some(n).filter(|n| *n > 0)),
        keepalive_timeout: view.duration("keepalive_timeout").unwrap_or(without.keepalive_timeout),
        keepalive_requests: view
            .integer("keepalive_requests")
            .map_or(without.keepalive_requests, |n| Some(n).filter(|n| *n > 0)),
        write_timeout: view.duration("write_timeout").unwrap_or(without.write_timeout),
        h2_streams: view.integer("h2_streams").unwrap_or(without.h2_streams),
        h2_control_frames: view.integer("h2_control_frames").unwrap_or(without.h2_control_frames),
    }
}

fn access_log(view: &View<'_>) -> AccessLog {
    let without = AccessLog::default();
    AccessLog {
        enabled: view.flag("enabled").unwrap_or(without.enabled),
        path: view.file("path"),
        queue: view.integer("queue").unwrap_or(without.queue),
    }
}

fn tracing(view: &View<'_>) -> Tracing {
    let without = Tracing::default();
    let header = |(name, node): &(String, Node)| {
        let value = super::view::read_text(node, &formats::header_value, view.cx)?;
        Some((formats::header(name).ok()?, Hidden::new(value)))
    };
    Tracing {
        endpoint: view.read("endpoint", formats::link),
        headers: view.entries("headers").iter().filter_map(header).collect(),
        service_name: view.read("service_name", formats::not_empty).unwrap_or(without.service_name),
        sample: view.share("sample").unwrap_or(without.sample),
        parent: match view.text("parent") {
            Some("trusted") => FollowParent::Trusted,
            Some("none") => FollowParent::None,
            _ => FollowParent::All,
        },
        queue: view.integer("queue").unwrap_or(without.queue),
        batch: view.integer("batch").unwrap_or(without.batch),
        delay: view.duration("delay").unwrap_or(without.delay),
        timeout: view.duration("timeout").unwrap_or(without.timeout),
    }
}

/// `[admin]`.
pub(super) fn admin(view: &View<'_>) -> AdminSettings {
    let without = AdminSettings::default();
    let settings = AdminSettings {
        listen: view.read("listen", formats::address_or_off).unwrap_or(without.listen),
        tokens: view.tables("tokens").iter().filter_map(token).collect(),
        allowed_hosts: view.read_list("allowed_hosts", formats::host_port),
        body_size: view.size("body_size").unwrap_or(without.body_size),
        endpoint_networks: view.read_list("endpoint_networks", formats::network),
        public_url: view.read("public_url", formats::link).map(|url| url.trim_end_matches('/').to_owned()),
    };
    distinct_tokens(view);
    let open = settings.listen.filter(|address| !address.ip().to_canonical().is_loopback());
    if let Some(address) = open.filter(|_| view.list("tokens").is_empty()) {
        let message = format!(
            "{address} is open to other machines and there are no tokens; \
             allowed without tokens is a loopback address such as \"127.0.0.1:9900\""
        );
        view.wrong_at("listen", message);
    }
    settings
}

fn token(view: &View<'_>) -> Option<Token> {
    if view.text("sha256").is_some_and(|text| text.eq_ignore_ascii_case(SHA256_OF_NOTHING)) {
        view.wrong_at("sha256", "is the SHA-256 of nothing; allowed is the SHA-256 of a token");
    }
    Some(Token {
        name: view.read("name", formats::not_empty)?,
        role: match view.text("role")? {
            "viewer" => Role::Viewer,
            "operator" => Role::Operator,
            "admin" => Role::Admin,
            _ => return None,
        },
        sha256: view.read("sha256", formats::sha256)?,
    })
}

fn distinct_tokens(view: &View<'_>) {
    let tokens = view.tables("tokens");
    for (i, token) in tokens.iter().enumerate() {
        for key in ["name", "sha256"] {
            let same =
                |other: &View<'_>| token.text(key).zip(other.text(key)).is_some_and(|(a, b)| a.eq_ignore_ascii_case(b));
            if tokens[..i].iter().any(same) {
                token.wrong_at(key, "is that of a token before; each token needs its own");
            }
        }
    }
}

/// `[metrics]`.
pub(super) fn metrics(view: &View<'_>) -> MetricsSettings {
    let without = MetricsSettings::default();
    MetricsSettings {
        tenants: view.integer("tenants").unwrap_or(without.tenants),
        tracked_tenants: view.integer("tracked_tenants").unwrap_or(without.tracked_tenants),
    }
}

/// No two listeners may claim the same address, the admin API's included.
pub(super) fn distinct_listeners(root: &View<'_>) {
    let (proxy, admin) = (root.table("proxy"), root.table("admin"));
    let mut listeners: Vec<(SocketAddr, String, usize)> = Vec::new();
    let mut add = |address: Option<SocketAddr>, path: String, line: usize| {
        let Some(address) = address else { return };
        if let Some((_, taken, _)) = listeners.iter().find(|(other, _, _)| overlap(address, *other)) {
            let message = format!("{address} is already taken by {taken}; each listener needs an address of its own");
            root.cx.mistake(line, &path, message);
        }
        listeners.push((address, path, line));
    };
    for node in proxy.list("listen") {
        add(super::view::read_text(node, &formats::address, root.cx), node.path.clone(), node.line);
    }
    for tls in proxy.tables("tls") {
        let path = tls.get("listen").map(|node| node.path.clone()).unwrap_or_default();
        add(tls.read("listen", formats::address), path, tls.line_of("listen"));
    }
    let address = match admin.get("listen") {
        Some(_) => admin.read("listen", formats::address_or_off).flatten(),
        None => AdminSettings::default().listen,
    };
    add(address, "admin.listen".to_owned(), admin.line_of("listen"));
}

/// Whether the system would refuse the second of two addresses. Port 0 is a new port each time. Whether `[::]` includes
/// 0.0.0.0 depends on the system, so addresses of different families are left to it.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let same_family = a.is_ipv4() == b.is_ipv4();
    let same_ip = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
    a.port() != 0 && a.port() == b.port() && same_family && same_ip
}

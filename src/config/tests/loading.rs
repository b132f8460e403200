//! Files that load, and what comes of them.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::super::{
    AdminSettings, BadFile, Limits, MetricsSettings, ProxySettings, Role, Settings, StoreSettings, check,
    load as load_file,
};
use super::{SMALL, good};
use crate::model::{
    Conflict, EndpointSpec, GuardSpec, HeaderSpec, KeySource, MatchRule, RescueSpec, ServiceSpec, SessionSpec,
    TenantSource, Timeouts, UnknownTenant, Weights,
};

fn service(settings: &Settings, name: &str) -> ServiceSpec {
    ServiceSpec::clone(&settings.structure.services[name])
}

#[test]
fn the_small_file_has_the_defaults() {
    let settings = good(SMALL);
    let listen = vec!["127.0.0.1:8080".parse().unwrap()];
    let handover = Some("/etc/sb/switchback.sock".into());
    assert_eq!(settings.proxy, ProxySettings { listen, handover, ..ProxySettings::default() });
    assert_eq!(settings.admin, AdminSettings::default());
    assert_eq!(settings.metrics, MetricsSettings::default());
    assert_eq!(settings.store, StoreSettings { path: "/etc/sb/switchback.db".into(), ..StoreSettings::default() });
    assert!(settings.store.last_good && settings.store.secret.is_empty() && settings.store.etcd.is_none());
    assert_eq!(settings.structure.tenants, Default::default());
    assert_eq!(settings.warnings, [""; 0]);
    let a = service(&settings, "a");
    assert_eq!(*a.guard, GuardSpec::default());
    assert_eq!((a.headers, a.retries, a.body_limit), (HeaderSpec::default(), 1, None));
    assert_eq!(a.split, Weights::all_on(a.baseline.clone()));
    assert_eq!(a.rules, [MatchRule { path: Some("/".to_owned()), ..MatchRule::default() }]);
    assert_eq!(a.versions["1"].timeouts, Timeouts::default());
}

#[test]
fn the_file_of_the_benchmark_loads() {
    let text = r#"
[proxy]
listen = ["127.0.0.1:18030"]
threads = 1
[[proxy.tls]]
listen = "127.0.0.1:18430"
certificates = [{ cert = "/x/tls/cert.pem", key = "/x/tls/key.pem" }]
[admin]
listen = "127.0.0.1:18930"
[store]
path = "/run/x/switchback.db"
[tenants]
identify = [{ header = "x-tenant-id" }]
unknown = "default"
[services.bench]
match = [{ path = "/" }]
sticky = [{ header = "x-user" }]
baseline = "old"
split = { old = 90, new = 10 }
[services.bench.versions.old]
endpoints = ["127.0.0.1:17001"]
[services.bench.versions.new]
endpoints = ["127.0.0.1:17002"]
"#;
    let settings = good(text);
    assert_eq!(settings.store.path, PathBuf::from("/run/x/switchback.db"));
    assert_eq!(settings.proxy.tls[0].certificates[0].key, PathBuf::from("/x/tls/key.pem"));
    assert_eq!(service(&settings, "bench").split.share("new").points(), 1_000);
    assert_eq!(settings.proxy.threads, 1);
}

#[test]
fn values_are_read() {
    let text = r#"
[proxy]
listen = ["0.0.0.0:${PORT}"]
trusted = ["10.0.0.1", "192.168.7.9/16", "fd00::/8"]
[proxy.limits]
body_size = 0
header_size = 2048
keepalive_requests = 0
[admin]
listen = "off"
allowed_hosts = ["Admin.Example.com", "admin:9900"]
tokens = [{ name = "ci", role = "operator", sha256 = "${CI_TOKEN_SHA256}" }]
[tenants]
identify = [{ host = "{tenant}.API.example.com" }, { header = "X-Tenant", trusted = true }, { path = "/t/{tenant}/", strip = true }]
conflict = "reject"
unknown = "reject"
groups = { "beta.2" = ["acme", "globex"] }
[services.a]
match = [{ host = "*.Example.com", path = "/a/", header = { X-B = "1" }, method = ["POST", "GET", "GET"] }, { header = "X-C" }, { method = "PUT" }]
sticky = [{ header = "X-User" }, { cookie = "sid" }, { cookie = "sb", issue = true, max_age = "1h" }]
baseline = "1.0"
salt = "$${x}"
choose = { header = "X-Version", secret = "0123456789abcdef" }
body_limit = 0
rescue = true
routes = ["GET /a/users/{name}/", "/a/files/*"]
versions."1.0" = { endpoints = ["{tenant}.internal:80"], tls = {}, rewrite = { from = "/a", to = "/" }, path = "/a/v1" }
"#;
    let settings = good(text);
    let Limits { body_size, header_size, keepalive_requests, .. } = settings.proxy.limits;
    assert_eq!((body_size, header_size, keepalive_requests), (None, 2048, None));
    assert_eq!(settings.proxy.listen[0].port(), 8080);
    let trusted: Vec<_> = settings.proxy.trusted.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.1/32", "192.168.0.0/16", "fd00::/8"]);
    assert_eq!(settings.admin.listen, None);
    assert_eq!(settings.admin.allowed_hosts, ["admin.example.com", "admin:9900"]);
    assert_eq!((settings.admin.tokens[0].role, settings.admin.tokens[0].sha256[0]), (Role::Operator, 0x9f));
    let tenants = &settings.structure.tenants;
    assert_eq!((tenants.conflict, tenants.unknown), (Conflict::Reject, UnknownTenant::Reject));
    assert_eq!(tenants.groups["beta.2"].len(), 2);
    let host = TenantSource::Host { prefix: String::new(), suffix: ".api.example.com".to_owned() };
    let header = TenantSource::Header { name: http::HeaderName::from_static("x-tenant"), trusted_only: true };
    let path = TenantSource::Path { prefix: "/t/".to_owned(), strip: true };
    assert_eq!(tenants.identify, [host, header, path]);
    let a = service(&settings, "a");
    assert_eq!(a.rules[0].host.as_deref(), Some("*.example.com"));
    assert_eq!(a.rules[0].path.as_deref(), Some("/a"));
    assert_eq!(a.rules[0].methods, [http::Method::GET, http::Method::POST]);
    assert_eq!(a.rules[0].headers, [(http::HeaderName::from_static("x-b"), Some("1".to_owned()))]);
    assert_eq!(a.rules[1].headers, [(http::HeaderName::from_static("x-c"), None)]);
    assert_eq!(a.rules[2].methods, [http::Method::PUT]);
    assert_eq!(a.sticky[2].source, KeySource::Issued { name: "sb".to_owned(), max_age: Duration::from_secs(3600) });
    assert_eq!((a.salt.as_deref(), a.body_limit), (Some("${x}"), Some(u64::MAX)));
    let routes: Vec<_> = a.routes.iter().map(|r| r.as_str()).collect();
    assert_eq!((a.route_stats, routes), (true, vec!["GET /a/users/{name}", "/a/files/*"]));
    let version = &a.versions["1.0"];
    assert!(matches!(version.endpoints[0], EndpointSpec::PerTenant { port: 80, .. }));
    assert!(version.tls.as_ref().is_some_and(|tls| tls.verify && tls.server_name.is_none()));
    assert_eq!(version.rewrite.as_ref().map(|r| r.to.as_str()), Some("/"));
    assert_eq!(a.rescue, Some(RescueSpec::default()));
    assert_eq!(settings.warnings, [""; 0]);
}

#[test]
fn what_is_hardly_meant_is_warned_about() {
    let warnings = |more: &str| good(&format!("{SMALL}{more}\n")).warnings.join("\n");
    assert!(
        warnings("sticky = [{ address = true }, { cookie = \"a\" }]").contains("services.a.sticky: every request has")
    );
    assert!(warnings("sticky = [{ tenant = true }]").contains("services.a.sticky: nothing identifies tenants"));
    assert!(warnings("choose = { header = \"v\", secret = \"abc\" }").contains("services.a.choose.secret: is short"));
    let jwt = "[[tenants.identify]]\njwt.keys = [{ algorithm = \"HS256\", secret = \"abc\" }]";
    assert!(warnings(jwt).contains("tenants.identify[0].jwt.keys[0].secret: has 3 bytes"));
    assert!(warnings("drain = true").contains("services.a.drain: no sticky source keeps sessions"));
    assert!(warnings("route_stats = false\nroutes = [\"/a\"]").contains("services.a.routes: route_stats is false"));
    assert_eq!(warnings("rescue = false\nroute_stats = false"), "");
    assert!(warnings("rescue = { budget = 0, reserve = 0 }").contains("services.a.rescue: has a budget"));
}

#[test]
fn rescue_is_true_or_a_table() {
    let rescue = |text: &str| service(&good(&format!("{SMALL}{text}\n")), "a").rescue.clone();
    assert_eq!(rescue(""), None);
    assert_eq!(rescue("rescue = false"), None);
    assert_eq!(rescue("rescue = {}"), Some(RescueSpec::default()));
    let own = rescue(
        "rescue = { methods = [\"POST\"], statuses = [500, 599], grpc = [], budget = 12.5, reserve = 0, rate = 7 }",
    );
    let own = own.unwrap();
    assert_eq!((own.methods, own.statuses, own.grpc), (vec![http::Method::POST], vec![500, 599], vec![]));
    assert_eq!((own.budget.points(), own.reserve, own.rate), (1_250, 0, Some(7)));
    let skew = good(&format!("{SMALL}skew = [\"/assets\"]\ndeadline = \"5s\"\n"));
    assert_eq!(service(&skew, "a").skew, ["/assets"]);
    assert_eq!(service(&skew, "a").deadline, Duration::from_secs(5));
}

#[test]
fn sessions_and_their_keys() {
    let text =
        SMALL.replace("[proxy]", &format!("[proxy]\ncookie_secret = [\"{}\", \"{}\"]", "n".repeat(32), "o".repeat(32)));
    let sticky = "sticky = [{ header = \"x\", session = true }, { address = true, session = true, session_ttl = \"5m\", \
                  session_cookie = \"s\" }]\ndrain = true\n";
    let settings = good(&(text + sticky));
    assert_eq!(settings.proxy.cookie_secret, ["n".repeat(32), "o".repeat(32)]);
    let a = service(&settings, "a");
    let of = |cookie: &str, secs| Some(SessionSpec { cookie: cookie.to_owned(), ttl: Duration::from_secs(secs) });
    assert_eq!([a.sticky[0].session.clone(), a.sticky[1].session.clone()], [of("sb_session_a", 3600), of("s", 300)]);
    assert!(a.drain);
}

#[test]
fn secrets_are_not_in_debug() {
    let text = SMALL.replace("[proxy]", "[proxy]\ncookie_secret = \"SECRET1-SECRET1-SECRET1-SECRET1-\"")
        + "choose = { header = \"v\", secret = \"SECRET2-SECRET2-SECRET2\" }\n"
        + "[[tenants.identify]]\njwt.keys = [{ algorithm = \"HS256\", secret = \"SECRET3-SECRET3-SECRET3-SECRET3-\" }]\n"
        + "[admin]\ntokens = [{ name = \"ci\", role = \"viewer\", sha256 = \"${CI_TOKEN_SHA256}\" }]\n";
    let shown = format!("{:?}", good(&text));
    // The material of a key is bytes: 83, 69, 67, … would be "SEC…".
    assert!(!shown.contains("SECRET") && !shown.contains("83, 69, 67") && !shown.contains("159, 134"), "{shown}");
    assert_eq!(shown.matches("[secret]").count(), 4, "{shown}");
}

#[test]
fn files_are_read_and_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("sb.toml");
    assert!(load_file(&file).unwrap_err().to_string().contains("sb.toml: cannot be read: "));
    let tls = "[[proxy.tls]]\nlisten = \"127.0.0.1:1\"\ncertificates = [{ cert = \"c.pem\",\nkey = \"k.pem\" }]\n";
    std::fs::write(&file, format!("{SMALL}{tls}")).unwrap();
    let settings = load_file(&file).unwrap();
    assert_eq!(settings.proxy.tls[0].certificates[0].cert, folder.path().join("c.pem"));
    assert_eq!(settings.file, file);
    let mistakes = check(&file, &|_| Vec::new()).unwrap_err();
    let found: Vec<_> = mistakes.list().iter().map(|m| (m.line, m.key.as_str())).collect();
    assert_eq!(found, [(9, "proxy.tls[0].certificates[0].cert"), (10, "proxy.tls[0].certificates[0].key")]);
    std::fs::write(folder.path().join("c.pem"), "").unwrap();
    std::fs::write(folder.path().join("k.pem"), "").unwrap();
    assert_eq!(check(&file, &|_| Vec::new()), Ok(settings));
    let bad = |_: &super::super::Settings| {
        let bad = |path: PathBuf| BadFile { path, detail: "is empty".to_owned() };
        vec![bad(folder.path().join("k.pem")), bad(PathBuf::from("other"))]
    };
    let shown = check(&file, &bad).unwrap_err().to_string();
    let lines: Vec<_> = shown.lines().map(|line| line.rsplit_once("sb.toml:").unwrap().1).collect();
    let key = format!("10: proxy.tls[0].certificates[0].key: the file {}/k.pem is empty", folder.path().display());
    assert_eq!(lines, [" the file other is empty", &key]);
    std::fs::write(&file, b"a = 1\n\xff").unwrap();
    assert_eq!(load_file(&file).unwrap_err().list()[0].line, 2);
}

#[test]
fn a_relative_file_has_a_relative_folder() {
    let settings = super::super::parse(SMALL, Path::new("sb.toml"), &super::env).unwrap();
    assert_eq!(settings.store.path, PathBuf::from("switchback.db"));
}

#[test]
fn etcd_is_reached_as_the_file_says() {
    let store = |keys: &str| good(&format!("{SMALL}[store]\n{keys}\n")).store;
    let plain = store("etcd = [\"http://10.0.0.1:2379/\", \"http://10.0.0.2:2379\"]");
    let etcd = plain.etcd.unwrap();
    assert_eq!(etcd.endpoints, ["http://10.0.0.1:2379", "http://10.0.0.2:2379"]);
    assert!(etcd.compact);
    assert_eq!((etcd.prefix.as_str(), etcd.user, etcd.ca, etcd.identity), ("/switchback", None, None, None));
    assert_eq!(plain.path, PathBuf::from("/etc/sb/switchback.db"), "where the last good copy is");
    let all = store(
        "etcd = [\"https://e:2379\"]\ncompact = false\nprefix = \"/eu\"\nca = \"etcd-ca.pem\"\ncert = \"proxy.crt\"\n\
         key = \"proxy.key\"\nusername = \"proxy\"\npassword = \"${ETCD_PASSWORD}\"",
    );
    let etcd = all.etcd.unwrap();
    assert_eq!((etcd.prefix.as_str(), etcd.compact), ("/eu", false));
    assert_eq!((plain.keep_events, store("keep_events = 1000").keep_events), (None, Some(1_000)));
    let (user, password) = etcd.user.clone().unwrap();
    assert_eq!((user.as_str(), password.reveal()), ("proxy", "secret"));
    assert!(etcd.ca.as_ref().unwrap().contains("BEGIN CERTIFICATE") && etcd.identity.is_some());
    assert!(!format!("{etcd:?}").contains("\"secret\""));
}

#[test]
fn what_seals_the_keys_is_one_secret_or_several_and_etcd_should_have_one() {
    let store = |keys: &str| good(&format!("{SMALL}[store]\n{keys}\n"));
    let (new, old) = ("n".repeat(32), "o".repeat(32));
    let several = store(&format!("secret = [\"{new}\", \"{old}\"]"));
    let shown: Vec<_> = several.store.secret.iter().map(|s| s.reveal().to_owned()).collect();
    assert_eq!(shown, [new.clone(), old]);
    assert!(!format!("{several:?}").contains(&new));
    let etcd = "etcd = [\"http://e:1\"]";
    let warnings = store(etcd).warnings;
    assert!(warnings.len() == 1 && warnings[0].starts_with("store.secret: is not set"), "{warnings:?}");
    assert_eq!(store(&format!("{etcd}\nsecret = \"{new}\"")).warnings, [""; 0]);
    let signs = SMALL.replace("[proxy]", &format!("[proxy]\ncookie_secret = \"{new}\""));
    assert_eq!(good(&format!("{signs}[store]\n{etcd}\n")).warnings, [""; 0]);
}

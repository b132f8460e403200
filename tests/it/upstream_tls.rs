//! TLS towards endpoints: whom a version trusts, what the proxy shows of itself, and what happens when files change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http_body_util::{BodyExt as _, Full};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::RootCertStore;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use serde_json::json;
use switchback::proxy::bad_files;
use tempfile::TempDir;
use tokio_rustls::TlsAcceptor;

use crate::harness::{Backend, TestApp, until};

type Authority = CertifiedIssuer<'static, KeyPair>;

/// A new authority, its certificate in this file.
fn authority(folder: &Path, file: &str) -> Authority {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join(file), authority.pem()).unwrap();
    authority
}

/// A certificate of the authority for this name, and its key.
fn issue(authority: &Authority, name: &str) -> (String, String) {
    let key = KeyPair::generate().unwrap();
    let certificate = CertificateParams::new(vec![name.to_owned()]).unwrap().signed_by(&key, authority).unwrap();
    (certificate.pem(), key.serialize_pem())
}

/// Writes a certificate and its key.
fn write(folder: &Path, file: &str, (cert, key): &(String, String)) {
    std::fs::write(folder.join(format!("{file}.key")), key).unwrap();
    std::fs::write(folder.join(format!("{file}.crt")), cert).unwrap();
}

/// A version that speaks TLS.
struct Secure {
    address: SocketAddr,
    seen: Arc<Seen>,
    task: tokio::task::JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicU64,
    requests: AtomicU64,
    /// Bodies of the last requests, newest last.
    bodies: Mutex<Vec<String>>,
    /// The server name, protocol and whether a certificate was shown, of each connection.
    handshakes: Mutex<Vec<(String, String, bool)>>,
}

impl Secure {
    /// `clients`: only clients of this authority are served.
    async fn start(certificate: &(String, String), clients: Option<&Authority>) -> Self {
        let chain = CertificateDer::pem_slice_iter(certificate.0.as_bytes()).collect::<Result<Vec<_>, _>>().unwrap();
        let key = PrivateKeyDer::from_pem_slice(certificate.1.as_bytes()).unwrap();
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = rustls::ServerConfig::builder_with_provider(provider.clone());
        let builder = builder.with_safe_default_protocol_versions().unwrap();
        let builder = match clients {
            None => builder.with_no_client_auth(),
            Some(authority) => {
                let mut roots = RootCertStore::empty();
                roots.add(authority.der().clone()).unwrap();
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_single_cert(chain, key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::new(Seen::default());
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, seen) = (acceptor.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let session = stream.get_ref().1;
                    let protocol = String::from_utf8_lossy(session.alpn_protocol().unwrap_or_default()).into_owned();
                    let name = session.server_name().unwrap_or_default().to_owned();
                    seen.handshakes.lock().unwrap().push((name, protocol, session.peer_certificates().is_some()));
                    seen.connections.fetch_add(1, SeqCst);
                    let service = service_fn(move |request| answer(seen.clone(), request));
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ended = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        Self { address, seen, task }
    }

    fn last_handshake(&self) -> (String, String, bool) {
        self.seen.handshakes.lock().unwrap().last().cloned().unwrap()
    }
}

impl Drop for Secure {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    seen: Arc<Seen>,
    request: hyper::Request<Incoming>,
) -> Result<hyper::Response<Full<Bytes>>, hyper::Error> {
    seen.requests.fetch_add(1, SeqCst);
    let body = request.into_body().collect().await?.to_bytes();
    seen.bodies.lock().unwrap().push(String::from_utf8_lossy(&body).into_owned());
    Ok(hyper::Response::new(Full::new(body)))
}

/// The shop: a plain baseline, and a canary that everyone goes to, spoken to with this `tls`.
fn shop(old: &Backend, endpoint: SocketAddr, tls: &str, service: &str) -> String {
    format!(
        r#"
[services.shop]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "1.0.0"
split = {{ "1.0.0" = 0, "2.0.0" = 100 }}
guard = {{ enabled = false }}
retries = 0
{service}
[services.shop.versions."1.0.0"]
endpoints = ["{}"]
[services.shop.versions."2.0.0"]
endpoints = ["{endpoint}"]
{tls}
"#,
        old.address
    )
}

async fn connect_failures(app: &TestApp) -> f64 {
    app.metric("switchback_request_failures_total{service=\"shop\",version=\"2.0.0\",kind=\"connect\"}").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_trusts_its_own_authority_and_no_other() {
    let folder = Arc::new(TempDir::new().unwrap());
    let (own, _other) = (authority(folder.path(), "own.pem"), authority(folder.path(), "other.pem"));
    let old = Backend::start("1.0.0").await;
    let new = Secure::start(&issue(&own, "shop.internal"), None).await;
    let tls = |more: &str| format!("tls = {{ server_name = \"shop.internal\"{more} }}");
    let app = TestApp::start_in(folder.clone(), &shop(&old, new.address, &tls(", ca = \"own.pem\""), "")).await;
    assert_eq!(app.get("/", &[]).await.status, 200);
    let handshake = ("shop.internal".to_owned(), "http/1.1".to_owned(), false);
    assert_eq!(new.last_handshake(), handshake);
    // A connection made under the right authority stands in the pool, and must not serve who trusts another.
    for wrong in [", ca = \"other.pem\"", ""] {
        let failed = connect_failures(&app).await;
        app.write_config(&shop(&old, new.address, &tls(wrong), ""));
        app.app.as_ref().unwrap().reload().await.unwrap();
        assert_eq!(app.get("/", &[]).await.status, 502, "{wrong}");
        let counted = async || connect_failures(&app).await == failed + 1.0;
        until("the failure to be counted", Duration::from_secs(5), counted).await;
    }
    assert_eq!(new.seen.connections.load(SeqCst), 1);
    // Another name than the certificate's.
    app.write_config(&shop(&old, new.address, "tls = { server_name = \"x.internal\", ca = \"own.pem\" }", ""));
    app.app.as_ref().unwrap().reload().await.unwrap();
    assert_eq!(app.get("/", &[]).await.status, 502);
    // And the failure is one that the baseline can make good, since nothing was sent.
    app.write_config(&shop(&old, new.address, &tls(", ca = \"other.pem\""), "rescue = true"));
    app.app.as_ref().unwrap().reload().await.unwrap();
    let post = app.client.post(format!("{}/", app.proxy)).body("hello").send().await.unwrap();
    assert_eq!((post.status().as_u16(), post.headers()["x-switchback-version"].to_str().unwrap()), (200, "1.0.0"));
    assert_eq!(new.seen.requests.load(SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_proxy_shows_its_certificate_to_endpoints_that_ask() {
    let folder = Arc::new(TempDir::new().unwrap());
    let own = authority(folder.path(), "own.pem");
    let (known, stranger) = (authority(folder.path(), "known.pem"), authority(folder.path(), "stranger.pem"));
    write(folder.path(), "proxy", &issue(&stranger, "proxy"));
    let old = Backend::start("1.0.0").await;
    let new = Secure::start(&issue(&own, "127.0.0.1"), Some(&known)).await;
    let app = TestApp::start_in(folder.clone(), &shop(&old, new.address, "tls = { ca = \"own.pem\" }", "")).await;
    assert_eq!(app.get("/", &[]).await.status, 502, "no certificate");
    let with = "tls = { ca = \"own.pem\", cert = \"proxy.crt\", key = \"proxy.key\" }";
    app.write_config(&shop(&old, new.address, with, ""));
    app.app.as_ref().unwrap().reload().await.unwrap();
    assert_eq!(app.get("/", &[]).await.status, 502, "a stranger's certificate");
    assert_eq!(new.seen.requests.load(SeqCst), 0);
    // The file changes: nobody has to reload anything.
    write(folder.path(), "proxy", &issue(&known, "proxy"));
    until("the new certificate", Duration::from_secs(10), || async { app.get("/", &[]).await.status == 200 }).await;
    assert!(new.last_handshake().2);
    let metrics = app.metrics().await;
    let ends = metrics.lines().find(|l| l.starts_with("switchback_certificate_expiry_timestamp_seconds{"));
    assert!(ends.is_some_and(|line| line.contains("proxy.crt")), "{ends:?}");
    // A broken file leaves what worked, and a reload that names it is refused.
    std::fs::write(folder.path().join("proxy.crt"), "no certificate").unwrap();
    until("the failure to be counted", Duration::from_secs(10), || async {
        app.metric("switchback_certificate_reloads_total{result=\"failure\"}").await >= 1.0
    })
    .await;
    assert_eq!(app.get("/", &[]).await.status, 200);
    let refused = app.app.as_ref().unwrap().reload().await.unwrap_err().to_string();
    assert!(refused.contains("versions.\"2.0.0\".tls.cert: the file ") && refused.contains("proxy.crt"), "{refused}");
    assert_eq!(app.get("/", &[]).await.status, 200);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_is_spoken_over_tls_with_bodies_both_ways() {
    let folder = Arc::new(TempDir::new().unwrap());
    let own = authority(folder.path(), "own.pem");
    let old = Backend::start("1.0.0").await;
    let new = Secure::start(&issue(&own, "127.0.0.1"), None).await;
    let app = TestApp::start_in(folder, &shop(&old, new.address, "http2 = true\ntls = { ca = \"own.pem\" }", "")).await;
    let url = format!("{}/", app.proxy);
    let ask = |n: u32| app.client.post(&url).body(format!("{n}").repeat(10_000)).send();
    let answers = futures::future::join_all((0..20).map(ask)).await;
    for (n, answer) in answers.into_iter().enumerate() {
        let answer = answer.unwrap();
        assert_eq!(answer.status(), 200);
        assert_eq!(answer.text().await.unwrap(), format!("{n}").repeat(10_000));
    }
    assert_eq!(new.last_handshake().1, "h2");
    let connections = new.seen.connections.load(SeqCst);
    assert_eq!(app.client.post(&url).body("again").send().await.unwrap().text().await.unwrap(), "again");
    assert_eq!(new.seen.connections.load(SeqCst), connections, "connections are used again");
}

#[tokio::test(flavor = "multi_thread")]
async fn health_checks_and_copies_speak_the_versions_tls() {
    let folder = Arc::new(TempDir::new().unwrap());
    let own = authority(folder.path(), "own.pem");
    authority(folder.path(), "other.pem");
    write(folder.path(), "proxy", &issue(&own, "proxy"));
    let old = Backend::start("1.0.0").await;
    let new = Secure::start(&issue(&own, "127.0.0.1"), Some(&own)).await;
    let version = |ca: &str| {
        format!(
            "tls = {{ ca = \"{ca}\", cert = \"proxy.crt\", key = \"proxy.key\" }}\n\
             health = {{ path = \"/healthz\", interval = \"100ms\", unhealthy_after = 1, healthy_after = 1 }}"
        )
    };
    let service = "split = { \"1.0.0\" = 100 }\nshadow = { version = \"2.0.0\", share = 100, noise_share = 0 }";
    let config = |ca: &str| {
        shop(&old, new.address, &version(ca), service).replace("split = { \"1.0.0\" = 0, \"2.0.0\" = 100 }\n", "")
    };
    let app = TestApp::start_in(folder, &config("own.pem")).await;
    until("checks", Duration::from_secs(5), || async { new.seen.requests.load(SeqCst) >= 3 }).await;
    let healthy = async || app.api("GET", "/v1/services/shop", None).await.1["versions"][1]["endpoints"][0].clone();
    assert_eq!(healthy().await["healthy"], true);
    assert_eq!(app.get("/", &[]).await.status, 200);
    let copies = "switchback_shadow_requests_total{service=\"shop\",version=\"2.0.0\",result=\"different\"}";
    until("the copy", Duration::from_secs(5), || async { app.metric(copies).await == 1.0 }).await;
    app.write_config(&config("other.pem"));
    app.app.as_ref().unwrap().reload().await.unwrap();
    until("a failed check", Duration::from_secs(5), || async { healthy().await["healthy"] == false }).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn unverified_versions_show_everywhere_and_bad_files_nowhere_pass() {
    let folder = Arc::new(TempDir::new().unwrap());
    let own = authority(folder.path(), "own.pem");
    let old = Backend::start("1.0.0").await;
    let new = Secure::start(&issue(&own, "elsewhere.internal"), None).await;
    let config = shop(&old, new.address, "tls = { verify = false }", "");
    let app = TestApp::start_in(folder.clone(), &config).await;
    assert_eq!(app.get("/", &[]).await.status, 200, "any certificate will do");
    let (_, status) = app.api("GET", "/v1/status", None).await;
    assert_eq!(status["services"][0]["unverified_versions"], json!(["2.0.0"]));
    let warnings = status["warnings"].to_string();
    assert!(warnings.contains("shop: certificates of version 2.0.0 are not verified"), "{warnings}");
    let put = async |tls| {
        let body = json!({"endpoints": [new.address.to_string()], "tls": tls});
        app.api("PUT", "/v1/services/shop/versions/3.0.0", Some(body)).await
    };
    let (code, problem) = put(json!({"ca": "gone.pem"})).await;
    assert_eq!(code, 422, "{problem}");
    assert!(problem["detail"].as_str().unwrap().contains("gone.pem"), "{problem}");
    assert_eq!(put(json!({"ca": "own.pem", "cert": "own.pem"})).await.0, 422, "a certificate without its key");
    let (code, _) = put(json!({"ca": "own.pem", "server_name": "elsewhere.internal"})).await;
    assert_eq!(code, 200);
    app.change("PUT", "/v1/services/shop/split", json!({"weights": {"3.0.0": 100}})).await;
    assert_eq!(app.get("/", &[]).await.status, 200, "files of a registered version lie beside the configuration");
    // What is wrong with a file is a mistake of the line that names it.
    std::fs::write(folder.path().join("bad.pem"), "no certificate").unwrap();
    let file = folder.path().join("bad.toml");
    let proxy = "[proxy]\nlisten = [\"127.0.0.1:0\"]\n";
    std::fs::write(&file, format!("{proxy}{}", shop(&old, new.address, "tls = { ca = \"bad.pem\" }", ""))).unwrap();
    let mistakes = switchback::config::check(&file, &bad_files).unwrap_err();
    let [mistake] = mistakes.list() else { panic!("{mistakes}") };
    assert_eq!((mistake.line, mistake.key.as_str()), (16, "services.shop.versions.\"2.0.0\".tls.ca"));
    assert!(mistake.message.contains("bad.pem cannot be used"), "{mistake}");
}

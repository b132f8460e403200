//! TLS towards clients: which certificate, which clients, and what happens when files change.

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::tls::TlsConnector;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use reqwest::{Certificate, Identity};
use rustls::HandshakeKind;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, ServerName};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use crate::harness::{Backend, TestApp, two_versions, until};

/// Writes a new self-signed certificate under this file name and gives what a client needs to trust it.
pub fn write_certificate(folder: &Path, file: &str, names: &[&str]) -> Certificate {
    let made = rcgen::generate_simple_self_signed(names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>()).unwrap();
    std::fs::write(folder.join(format!("{file}.key")), made.signing_key.serialize_pem()).unwrap();
    std::fs::write(folder.join(format!("{file}.crt")), made.cert.pem()).unwrap();
    Certificate::from_pem(made.cert.pem().as_bytes()).unwrap()
}

/// An authority for clients, and one client of it.
fn write_authority(folder: &Path, file: &str) -> Identity {
    let mut params = CertificateParams::new(Vec::new()).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    std::fs::write(folder.join(file), authority.pem()).unwrap();
    let key = KeyPair::generate().unwrap();
    let client = CertificateParams::new(vec!["client".to_owned()]).unwrap().signed_by(&key, &authority).unwrap();
    Identity::from_pem(format!("{}{}", client.pem(), key.serialize_pem()).as_bytes()).unwrap()
}

async fn start(folder: Arc<TempDir>, listener: &str, service: &str) -> (Backend, TestApp, SocketAddr) {
    let old = Backend::start("1.0.0").await;
    let listener = format!("[[proxy.tls]]\nlisten = \"127.0.0.1:0\"\n{listener}\n");
    let app = TestApp::start_in(folder, &(listener + &two_versions(&old, &old, service))).await;
    let address = app.app.as_ref().unwrap().listen_tls[0];
    (old, app, address)
}

/// A request by a client that trusts only this certificate. None: the handshake failed.
async fn ask(address: SocketAddr, name: &str, root: &Certificate, identity: Option<&Identity>) -> Option<u16> {
    let client = reqwest::Client::builder().no_proxy().use_rustls_tls().tls_built_in_root_certs(false);
    let client = client.add_root_certificate(root.clone()).resolve(name, address);
    let client = identity.into_iter().fold(client, |client, identity| client.identity(identity.clone()));
    let sent = client.build().unwrap().get(format!("https://{name}:{}/", address.port())).send().await;
    sent.ok().map(|answer| answer.status().as_u16())
}

#[tokio::test(flavor = "multi_thread")]
async fn changed_certificates_are_read_again_and_broken_ones_are_not() {
    let folder = Arc::new(TempDir::new().unwrap());
    let first = write_certificate(folder.path(), "site", &["a.test"]);
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    let (_old, app, address) = start(folder.clone(), files, "").await;
    assert_eq!(ask(address, "a.test", &first, None).await, Some(200));
    let second = write_certificate(folder.path(), "site", &["a.test", "b.test"]);
    until("the new certificate", Duration::from_secs(10), || async {
        ask(address, "b.test", &second, None).await == Some(200)
    })
    .await;
    assert_eq!(ask(address, "a.test", &first, None).await, None, "the old one is gone");
    assert!(app.metric("switchback_certificate_reloads_total{result=\"success\"}").await >= 1.0);
    std::fs::write(folder.path().join("site.crt"), "no certificate").unwrap();
    until("the failure to be counted", Duration::from_secs(10), || async {
        app.metric("switchback_certificate_reloads_total{result=\"failure\"}").await >= 1.0
    })
    .await;
    assert_eq!(ask(address, "a.test", &second, None).await, Some(200), "what worked stays");
    let metrics = app.metrics().await;
    let ends = metrics.lines().find(|l| l.starts_with("switchback_certificate_expiry_timestamp_seconds{"));
    assert!(ends.is_some_and(|line| line.contains("site.crt")), "{ends:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_names_are_shown_the_first_certificate_or_refused() {
    let folder = Arc::new(TempDir::new().unwrap());
    let root = write_certificate(folder.path(), "site", &["*.a.test", "b.test"]);
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    let (_old, _app, address) = start(folder.clone(), files, "").await;
    assert_eq!(ask(address, "x.a.test", &root, None).await, Some(200), "a wildcard");
    // Whoever accepts any certificate sees which one is shown.
    let careless = reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).resolve("c.test", address);
    let careless = careless.build().unwrap();
    let url = format!("https://c.test:{}/", address.port());
    assert_eq!(careless.get(&url).send().await.unwrap().status(), 200);
    let (_old, _app, address) = start(folder.clone(), &format!("{files}\nunknown_name = \"refuse\""), "").await;
    let careless = reqwest::Client::builder().no_proxy().danger_accept_invalid_certs(true).resolve("c.test", address);
    let url = format!("https://c.test:{}/", address.port());
    assert!(careless.build().unwrap().get(&url).send().await.is_err());
    assert_eq!(ask(address, "b.test", &root, None).await, Some(200));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_is_for_the_name_of_its_handshake() {
    let folder = Arc::new(TempDir::new().unwrap());
    let root = write_certificate(folder.path(), "site", &["a.test", "b.test"]);
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    let (old, _app, address) = start(folder.clone(), files, "").await;
    let client = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false).add_root_certificate(root);
    let client = client.resolve("a.test", address).http1_only().build().unwrap();
    let url = format!("https://a.test:{}/", address.port());
    for (host, status) in [("a.test", 200), ("A.TEST:443", 200), ("b.test", 421)] {
        assert_eq!(client.get(&url).header("host", host).send().await.unwrap().status(), status, "{host}");
    }
    assert_eq!(old.script.requests(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_need_a_certificate_of_the_authority() {
    let folder = Arc::new(TempDir::new().unwrap());
    let root = write_certificate(folder.path(), "site", &["a.test"]);
    let (known, stranger) =
        (write_authority(folder.path(), "clients.pem"), write_authority(folder.path(), "other.pem"));
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]\nclient_ca = \"clients.pem\"";
    let (_old, _app, address) = start(folder.clone(), files, "").await;
    assert_eq!(ask(address, "a.test", &root, Some(&known)).await, Some(200));
    assert_eq!(ask(address, "a.test", &root, Some(&stranger)).await, None);
    assert_eq!(ask(address, "a.test", &root, None).await, None);
    // The authority changes: nobody has to restart anything.
    std::fs::copy(folder.path().join("other.pem"), folder.path().join("clients.pem")).unwrap();
    until("the other authority", Duration::from_secs(10), || async {
        ask(address, "a.test", &root, Some(&stranger)).await == Some(200)
    })
    .await;
    assert_eq!(ask(address, "a.test", &root, Some(&known)).await, None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_may_need_certificates_that_the_listener_only_asks_for() {
    let folder = Arc::new(TempDir::new().unwrap());
    let root = write_certificate(folder.path(), "site", &["a.test"]);
    let known = write_authority(folder.path(), "clients.pem");
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]\nclient_ca = \"clients.pem\"\nclient_certificates = \"optional\"";
    let (old, _app, address) = start(folder.clone(), files, "").await;
    assert_eq!(ask(address, "a.test", &root, None).await, Some(200));
    let (new, app, address) = start(folder.clone(), files, "client_certificate = true").await;
    assert_eq!(ask(address, "a.test", &root, None).await, Some(403));
    assert_eq!(ask(address, "a.test", &root, Some(&known)).await, Some(200));
    assert_eq!((old.script.requests(), new.script.requests()), (1, 1));
    assert_eq!(app.metric("switchback_refused_requests_total{reason=\"no_certificate\"}").await, 1.0);
}

/// A client that trusts this certificate.
fn client_for(
    address: SocketAddr,
    root: &[u8],
    config: impl FnOnce(rustls::RootCertStore) -> rustls::ClientConfig,
) -> (TlsConnector, ServerName<'static>, SocketAddr) {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(root.to_vec())).unwrap();
    (TlsConnector::from(Arc::new(config(roots))), ServerName::try_from("a.test").unwrap(), address)
}

/// One request over a new connection: the kind of its handshake.
async fn connect(
    (connector, name, address): &(TlsConnector, ServerName<'static>, SocketAddr),
) -> Option<HandshakeKind> {
    let socket = tokio::net::TcpStream::connect(address).await.unwrap();
    let mut stream = connector.connect(name.clone(), socket).await.ok()?;
    stream.write_all(b"GET / HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    let _no_close_notify = stream.read_to_end(&mut answer).await;
    assert!(answer.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&answer));
    stream.get_ref().1.handshake_kind()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_are_resumed_until_the_files_change() {
    let folder = Arc::new(TempDir::new().unwrap());
    write_certificate(folder.path(), "site", &["a.test"]);
    let pem = std::fs::read(folder.path().join("site.crt")).unwrap();
    let root = CertificateDer::from_pem_slice(&pem).unwrap();
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    let (_old, app, address) = start(folder.clone(), files, "").await;
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let config = |roots| {
            rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
                .with_protocol_versions(&[version])
                .unwrap()
                .with_root_certificates(roots)
                .with_no_client_auth()
        };
        let client = client_for(address, &root, config);
        assert_eq!(connect(&client).await, Some(HandshakeKind::Full), "{version:?}");
        for _ in 0..3 {
            assert_eq!(connect(&client).await, Some(HandshakeKind::Resumed), "{version:?}");
        }
        // The same certificate again, as a new file: nobody's session outlives what it was begun under.
        let before = app.metric("switchback_certificate_reloads_total{result=\"success\"}").await;
        std::fs::write(folder.path().join("site.crt"), [&pem[..], b"\n"].concat()).unwrap();
        until("the files to be read again", Duration::from_secs(10), || async {
            app.metric("switchback_certificate_reloads_total{result=\"success\"}").await > before
        })
        .await;
        assert_eq!(connect(&client).await, Some(HandshakeKind::Full), "{version:?}");
        std::fs::write(folder.path().join("site.crt"), &pem).unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_oldest_version_of_tls_is_configured() {
    let folder = Arc::new(TempDir::new().unwrap());
    let root = write_certificate(folder.path(), "site", &["a.test"]);
    let files = "certificates = [{ cert = \"site.crt\", key = \"site.key\" }]";
    for (min, with_1_2) in [("1.2", Some(200)), ("1.3", None)] {
        let (_old, _app, address) = start(folder.clone(), &format!("{files}\nmin_version = \"{min}\""), "").await;
        let ask = async |most| {
            let client = reqwest::Client::builder().no_proxy().tls_built_in_root_certs(false);
            let client = client.add_root_certificate(root.clone()).resolve("a.test", address).max_tls_version(most);
            let sent = client.build().unwrap().get(format!("https://a.test:{}/", address.port())).send().await;
            sent.ok().map(|answer| answer.status().as_u16())
        };
        assert_eq!(ask(reqwest::tls::Version::TLS_1_2).await, with_1_2, "at least {min}");
        assert_eq!(ask(reqwest::tls::Version::TLS_1_3).await, Some(200), "at least {min}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_that_stalls_is_cut() {
    let folder = Arc::new(TempDir::new().unwrap());
    write_certificate(folder.path(), "site", &["a.test"]);
    let old = Backend::start("1.0.0").await;
    let text = format!(
        "[proxy]\nlimits = {{ header_timeout = \"300ms\" }}\n[[proxy.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{{ cert = \"site.crt\", key = \"site.key\" }}]\n{}",
        two_versions(&old, &old, "")
    );
    let app = TestApp::start_in(folder, &text.replace("[proxy]", "[proxy]\nlisten = [\"127.0.0.1:0\"]")).await;
    let address = app.app.as_ref().unwrap().listen_tls[0];
    for begin in [&b""[..], b"\x16\x03\x01\x02\x00\x01"] {
        let mut socket = tokio::net::TcpStream::connect(address).await.unwrap();
        socket.write_all(begin).await.unwrap();
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), socket.read_to_end(&mut rest)).await;
        assert!(ended.is_ok(), "{begin:?}");
    }
}

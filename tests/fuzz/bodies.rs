//! What each fuzz target does with one input: an ordinary function that panics when something holds no longer. The
//! targets of cargo-fuzz call them without end, `tests/fuzz_corpus.rs` calls them over the corpus with the stable toolchain.

use std::path::Path;
use std::sync::{Arc, OnceLock};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use switchback::config;
use switchback::model::{Author, Change, ChangeRequest, JsonPath, ServiceName, State, TenantName};
use switchback::proxy::bare;
use switchback::routing::{Context, CookieSigner, Decision, Head, Refusal, Routes, Silent, decide};
use switchback::shadow::{Body, differences};
use switchback::telemetry::{SessionResult, Tallies};

/// A target: its name, which is also that of its corpus, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// Every target.
pub const TARGETS: [Target; 8] = [
    ("configuration", configuration),
    ("version", version),
    ("tenants", tenants),
    ("jwt", jwt),
    ("cookies", cookies),
    ("headers", headers),
    ("proxy_protocol", proxy_protocol),
    ("shadow_diff", shadow_diff),
];

/// A configuration file is read or refused with mistakes that say where and what, always in the same way.
pub fn configuration(input: &[u8]) {
    let Ok(text) = std::str::from_utf8(input) else { return };
    let gone = |_: &Path| Err(std::io::ErrorKind::NotFound.into());
    let env = |name: &str| (name.len().is_multiple_of(2)).then(|| "0123456789abcdef0123456789abcdef".to_owned());
    let read = || config::parse_with(text, Path::new("/etc/switchback.toml"), &env, &gone);
    match (read(), read()) {
        (Ok(one), Ok(two)) => {
            assert_eq!(one, two);
            assert!(!one.proxy.listen.is_empty() || !one.proxy.tls.is_empty());
            for spec in one.structure.services.values() {
                assert!(spec.versions.contains_key(&spec.baseline), "{}", spec.name);
                for version in spec.versions.values() {
                    let shown = config::version_to_json(version);
                    assert_eq!(config::version_from_json(&shown).as_ref(), Ok(&**version));
                }
            }
        }
        (Err(mistakes), Err(again)) => {
            assert!(!mistakes.list().is_empty() && mistakes.list().iter().all(|m| !m.message.is_empty()));
            assert_eq!(mistakes.list().len(), again.list().len());
        }
        _ => panic!("read in two ways"),
    }
}

/// A version of the admin API is refused by field, or shown in a form that is read back as the same.
pub fn version(input: &[u8]) {
    let Ok(value) = serde_json::from_slice::<serde_json::Value>(input) else { return };
    match config::version_from_json(&value) {
        Ok(spec) => {
            assert!(!spec.endpoints.is_empty());
            assert_eq!(config::version_from_json(&config::version_to_json(&spec)).as_ref(), Ok(&spec));
        }
        Err(mistakes) => assert!(!mistakes.is_empty() && mistakes.iter().all(|m| !m.message.is_empty())),
    }
}

/// The secret of `choose` in the file below.
const CHOOSE_SECRET: &str = "0123456789abcdef";

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:8080"]
[tenants]
identify = [
  { host = "{tenant}.api.example.com" },
  { jwt = { keys = [{ algorithm = "HS256", secret = "fuzz-secret" }] } },
  { header = "x-tenant-id" },
  { path = "/t/{tenant}", strip = true },
]
conflict = "reject"
[services.kept]
match = [{ path = "/kept" }]
sticky = [{ cookie = "user", session = true }]
baseline = "old"
split = { old = 50, new = 50 }
versions = { old = { endpoints = ["127.0.0.1:1"], path = "/kept/old" }, new = { endpoints = ["127.0.0.1:2"] } }
[services.issued]
match = [{ path = "/issued" }]
sticky = [{ cookie = "sb", issue = true }]
choose = { cookie = "choose", header = "x-choose", secret = "0123456789abcdef" }
baseline = "old"
split = { old = 50, new = 50 }
versions = { old = { endpoints = ["127.0.0.1:1"] }, new = { endpoints = ["127.0.0.1:2"] } }
[services.rest]
match = [{ path = "/" }]
sticky = [{ header = "x-user" }, { address = true }]
baseline = "old"
versions = { old = { endpoints = ["127.0.0.1:1"] } }
"#;

fn routes() -> &'static Routes {
    static ROUTES: OnceLock<Routes> = OnceLock::new();
    ROUTES.get_or_init(|| {
        let structure = config::parse(FILE, Path::new("/etc/switchback.toml"), &|_| None).unwrap().structure;
        let mut state = State::default();
        for name in ["kept", "issued", "rest"] {
            let request = ChangeRequest {
                service: ServiceName::new(name).unwrap(),
                change: Change::AddService,
                author: Author::File,
                reason: String::new(),
                if_revision: None,
                if_attempt: None,
                evidence: serde_json::Value::Null,
            };
            state = state.apply(&structure, &request, 1, 0).unwrap().state;
        }
        let signer = Arc::new(CookieSigner::new([b"fuzz-signs-cookies-with-this-key".as_slice()]));
        let context = Context { tallies: Arc::new(Tallies::new(10)), signer, reach: Arc::default() };
        Routes::compile(&structure, &state, &context, None).unwrap()
    })
}

/// Decides, and holds the decision against what must hold for every request.
fn decided<'h>(host: &'h str, path: &'h str, headers: &'h HeaderMap) -> Result<Decision<'static, 'h>, Refusal> {
    let head = Head {
        method: &Method::GET,
        host,
        path,
        headers,
        address: [10, 0, 0, 1].into(),
        trusted: false,
        random: [1, 2],
        now_s: 1_000,
    };
    let decision = decide(routes(), &head, &mut Silent)?;
    if let Some(tenant) = &decision.tenant {
        assert!(TenantName::allows(tenant), "{tenant:?}");
    }
    assert!(path.is_char_boundary(decision.strip), "{path:?} {}", decision.strip);
    assert!(decision.service.versions.iter().any(|v| v.name == decision.version.name));
    let again = decide(routes(), &head, &mut Silent).unwrap();
    assert_eq!((&decision.version.name, &decision.tenant), (&again.version.name, &again.tenant));
    Ok(decision)
}

/// Host, path and headers in lines; tenants are found, refused or absent, and never anything in between.
pub fn tenants(input: &[u8]) {
    let mut lines = input.split(|b| *b == b'\n');
    let text = |line: Option<&[u8]>| line.and_then(|l| std::str::from_utf8(l).ok()).unwrap_or_default().to_owned();
    let (host, path) = (text(lines.next()), format!("/{}", text(lines.next())));
    let headers = fields(lines);
    let _refused_or_decided = decided(&host, &path, &headers);
}

fn fields<'a>(lines: impl Iterator<Item = &'a [u8]>) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for line in lines.take(50) {
        let Some(colon) = line.iter().position(|b| *b == b':') else { continue };
        let name = HeaderName::from_bytes(&line[..colon]);
        if let (Ok(name), Ok(value)) = (name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii())) {
            headers.append(name, value);
        }
    }
    headers
}

/// A token names a tenant only when its signature holds: `acme`, which the corpus has signed, or nobody.
pub fn jwt(input: &[u8]) {
    let Ok(value) = HeaderValue::from_bytes(input) else { return };
    let headers = HeaderMap::from_iter([(http::header::AUTHORIZATION, value)]);
    if let Ok(decision) = decided("example.com", "/", &headers) {
        assert!(decision.tenant.as_deref().is_none_or(|t| t == "acme"), "{:?} was believed", decision.tenant);
    }
}

/// Lines of `cookie`: no session and no key that was not signed here is taken for one that was.
pub fn cookies(input: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in input.split(|b| *b == b'\n').take(20) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(http::header::COOKIE, value);
        }
    }
    let kept = decided("example.com", "/kept", &headers).unwrap();
    let result = kept.session.map(|s| s.result);
    assert!(!matches!(result, Some(SessionResult::Kept | SessionResult::Renewed)), "{result:?}");
    let issued = decided("example.com", "/issued", &headers).unwrap();
    assert!(issued.issue.is_some(), "a key that was made up was accepted");
    // Whoever compares byte by byte may be told the secret, so the fuzzer finds it in the end.
    let knows = input.windows(CHOOSE_SECRET.len()).any(|part| part == CHOOSE_SECRET.as_bytes());
    assert!(!issued.wanted || knows, "a version was chosen without the secret");
}

/// Heads, chunked bodies and answers: what is complete stays so whatever follows, and ends in one place however it comes.
pub fn headers(input: &[u8]) {
    let whole = bare::head(input);
    if let Ok(Some(head)) = whole {
        let end = head.skip + head.length;
        assert!(end <= input.len() && input[..end].ends_with(b"\r\n\r\n"));
        assert!(!(head.chunked && head.body.is_some()));
        assert_eq!(bare::head(&input[..end]), whole, "what follows has changed it");
        assert_eq!(bare::head(&input[..end - 1]), Ok(None), "it was complete before its end");
    }
    for at in [1, input.len() / 2, input.len().saturating_sub(1)] {
        let Some((a, b)) = input.split_at_checked(at) else { continue };
        match (bare::head(a), whole) {
            (Ok(None), _) => {}
            (part, whole) => assert!(part == whole || part.is_err() && whole.is_err(), "{part:?} and {whole:?}"),
        }
        assert_eq!(bare::chunks(&[a, b]), bare::chunks(&[input]), "parts make a difference");
    }
    let lines = || input.split(|b| *b == b'\n');
    let wanted = fields(lines());
    for name in bare::unwanted(&wanted, true) {
        assert!(wanted.contains_key(&name) && bare::unwanted(&wanted, false).contains(&name), "{name}");
    }
    let pairs: Vec<_> = wanted.iter().map(|(name, value)| (name.as_str(), value.as_bytes())).collect();
    let status = 100 + u16::from(input.first().copied().unwrap_or(100));
    if let Some(answer) = bare::answer(status, &pairs) {
        let count = |name: &str| answer.iter().filter(|(n, _)| n == name).count();
        assert!(count("content-length") + count("transfer-encoding") <= 1, "{answer:?}");
        assert!(status == 101 || count("connection") == 0, "{answer:?}");
    }
}

/// A header of the PROXY protocol is within the bytes, and what follows it does not change it.
pub fn proxy_protocol(input: &[u8]) {
    match bare::proxy_protocol(input) {
        Ok(Some((length, source))) => {
            assert!(length <= input.len());
            assert_eq!(bare::proxy_protocol(&input[..length]), Ok(Some((length, source))));
            assert_eq!(bare::proxy_protocol(&input[..length - 1]), Ok(None));
        }
        Ok(None) => assert!(input.len() < 16 + 4_096),
        Err(bare::NoHeader) => {
            let longer = [input, b"\r\n"].concat();
            assert_eq!(bare::proxy_protocol(&longer), Err(bare::NoHeader), "more bytes have mended it");
        }
    }
}

/// Two bodies with a byte of 0 between them, and a path to ignore before another one: what is the same does not differ,
/// and what differs does so from both sides.
pub fn shadow_diff(input: &[u8]) {
    let mut parts = input.split(|b| *b == 0);
    let (one, two) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let ignore = parts.next().and_then(|p| std::str::from_utf8(p).ok()).and_then(|p| p.parse::<JsonPath>().ok());
    let ignore: Vec<_> = ignore.into_iter().collect();
    let encoding = [None, Some("gzip"), Some("br"), Some("deflate")][input.len() % 4];
    for (kind, encoding) in [(Some("application/json"), None), (None, None), (Some("text/plain"), encoding)] {
        let body = |bytes| Body::read(kind, encoding, bytes, 64 << 10);
        let (a, b) = (body(one), body(two));
        if let Some(same) = differences(&a, &a, &ignore) {
            assert!(same.is_empty(), "{same:?}");
        }
        let (there, back) = (differences(&a, &b, &ignore), differences(&b, &a, &ignore));
        assert_eq!(there.is_some(), back.is_some());
        if let (Some(there), Some(back)) = (there, back) {
            assert_eq!((there.is_empty(), there.more), (back.is_empty(), back.more));
            assert!(there.more || there.fields.keys().eq(back.fields.keys()), "{there:?} and {back:?}");
        }
    }
}

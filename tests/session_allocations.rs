//! Deciding allocates nothing: neither without sessions nor when a session's cookie is checked and kept, nor when the
//! tenant's limits are looked at. Stands alone
//! because it counts what the whole process allocates.

use std::alloc::{GlobalAlloc, Layout, System};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};

use http::{HeaderMap, Method, header};
use switchback::config;
use switchback::model::{Author, Change, ChangeRequest, ServiceName, State};
use switchback::routing::{Context, CookieSigner, Head, Routes, SessionClaims, SessionOwner, Silent, decide, permit};
use switchback::telemetry::{SessionResult, Tallies};

struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

/// Tests that count do so one after the other.
static COUNTS: Mutex<()> = Mutex::new(());

// SAFETY: everything is passed on unchanged to the system's allocator.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        // SAFETY: the block comes from `alloc` above.
        unsafe { System.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:8080"]
[tenants]
identify = [{ header = "x-tenant" }]
[services.kept]
match = [{ path = "/kept" }]
sticky = [{ header = "x-user", session = true }]
baseline = "old"
versions = { old = { endpoints = ["127.0.0.1:1"] }, new = { endpoints = ["127.0.0.1:2"] } }
[services.plain]
match = [{ path = "/plain" }]
limits = { rate = 1000, concurrency = 10, tenants = { acme = { rate = 2000 } } }
sticky = [{ header = "x-user" }]
baseline = "old"
versions = { old = { endpoints = ["127.0.0.1:1"] }, new = { endpoints = ["127.0.0.1:2"] } }
"#;

fn routes(signer: &Arc<CookieSigner>) -> Routes {
    let structure = config::parse(FILE, Path::new("/etc/sb.toml"), &|_| None).unwrap().structure;
    let mut state = State::default();
    for name in ["kept", "plain"] {
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
    let context = Context { tallies: Arc::new(Tallies::new(10)), signer: signer.clone(), reach: Arc::default() };
    Routes::compile(&structure, &state, &context, None).unwrap()
}

#[test]
fn deciding_allocates_nothing() {
    let _alone = COUNTS.lock().unwrap();
    let signer = Arc::new(CookieSigner::new([b"new".as_slice(), b"old".as_slice()]));
    let routes = routes(&signer);
    let owner = SessionOwner { service: "kept", tenant: "acme", key: Some(b"alice") };
    let claims = SessionClaims { version: "new", attempt: 1, expires_s: 4_000, id: 0 };
    let cookie = signer.sign_session(&owner, &claims).unwrap();
    let mut headers = HeaderMap::new();
    headers.insert("x-tenant", "acme".parse().unwrap());
    headers.insert("x-user", "alice".parse().unwrap());
    headers.insert(header::COOKIE, format!("a=b; sb_session_kept={cookie}").parse().unwrap());
    let head = |path| Head {
        method: &Method::GET,
        host: "localhost",
        path,
        headers: &headers,
        address: [10, 0, 0, 1].into(),
        trusted: false,
        random: [1, 2],
        now_s: 1_000,
    };
    for (path, result, version) in [("/plain", None, "old"), ("/kept", Some(SessionResult::Kept), "new")] {
        let head = head(path);
        // The least of several: another thread of the test's harness may allocate beside one.
        let allocated = (0..20).map(|_| {
            let before = ALLOCATIONS.load(Relaxed);
            let decision = decide(&routes, &head, &mut Silent).unwrap();
            let permit = permit(&routes, decision.service, Some("acme"), head.address, 1_000_000_000);
            let allocated = ALLOCATIONS.load(Relaxed) - before;
            assert_eq!(permit.unwrap().is_some(), path == "/plain", "only one of the services has limits");
            assert_eq!((decision.session.map(|s| s.result), decision.version.name.as_str()), (result, version));
            allocated
        });
        assert_eq!(allocated.min(), Some(0), "{path}");
    }
}

/// Strangers make up more tenants than there are places for: none of them costs memory.
#[test]
fn tenants_that_are_made_up_allocate_nothing() {
    let _alone = COUNTS.lock().unwrap();
    let routes = routes(&Arc::new(CookieSigner::new([b"key".as_slice()])));
    let service = routes.service("plain").unwrap();
    let names: Vec<String> = (0..100_000).map(|i| format!("made-up-{i}")).collect();
    let before = ALLOCATIONS.load(Relaxed);
    let mut refused = 0;
    for (at, name) in names.iter().enumerate() {
        let permit = permit(&routes, service, Some(name), [10, 0, 0, 1].into(), 1_000_000_000 + at as u64);
        refused += u64::from(permit.is_err());
    }
    let allocated = ALLOCATIONS.load(Relaxed) - before;
    // Another thread of the test's harness may allocate beside it.
    assert!(allocated < 100, "{allocated}");
    assert!(refused < 1_000, "{refused} who came once were refused");
}

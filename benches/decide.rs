//! What one decision costs, and what a tenant with a split of its own costs: nanoseconds and allocations for each
//! decision, bytes for each tenant, and the time until a change of one tenant's split is in the routes.
//! `cargo bench --bench decide`. The targets: under 300 ns at 100 000 tenants, no allocation, at most 1 KiB for each
//! tenant, and a change far below 10 ms whatever the number of tenants.

use std::alloc::{GlobalAlloc, Layout};
use std::hint::black_box;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, Method};
use mimalloc::MiMalloc;
use switchback::config;
use switchback::model::{
    Author, BasisPoints, Change, ChangeRequest, DOCUMENT_FORMAT, Scope, ServiceName, Split, State, Structure,
    TenantName, TenantState, VersionName, Weights,
};
use switchback::routing::{Context, CookieSigner, Head, Routes, Silent, decide};
use switchback::telemetry::Tallies;
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Counts allocations and the bytes that are in use.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);
static ALLOCATED: AtomicU64 = AtomicU64::new(0);
static FREED: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is passed on unchanged to the allocator that the program uses.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Relaxed);
        ALLOCATED.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the caller keeps the contract of `alloc`.
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn dealloc(&self, block: *mut u8, layout: Layout) {
        FREED.fetch_add(layout.size() as u64, Relaxed);
        // SAFETY: the block comes from `alloc` above.
        unsafe { MiMalloc.dealloc(block, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const FILE: &str = r#"
[proxy]
listen = ["127.0.0.1:8080"]
[tenants]
identify = [{ header = "x-tenant-id" }]
[services.bench]
match = [{ path = "/" }]
sticky = [{ header = "x-user" }]
baseline = "old"
split = { old = 90, new = 10 }
versions = { old = { endpoints = ["127.0.0.1:17001"] }, new = { endpoints = ["127.0.0.1:17002"] } }
"#;

/// How many decisions are timed at once, so that the clock does not count and the headers are as warm as just read ones.
const BATCH: u64 = 64;
const BATCHES: u64 = 20_000;
const CHANGES: u64 = 500;

/// How many tenants are asked for again and again in the second measurement: the caches of the processor hold them.
const WARM: u64 = 1_000;

fn main() {
    println!(
        "| tenants | decide, any tenant | decide, {WARM} of them | allocations | bytes per tenant | change, mean | longest |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    // What a service costs without tenants, tallies included, is not the tenants'.
    let before = in_use();
    let empty = House::with(0);
    let fixed = in_use() - before;
    drop(empty);
    for tenants in [1, 1_000, 100_000, 1_000_000] {
        let before = in_use();
        let mut house = House::with(tenants);
        let bytes = (in_use() - before).saturating_sub(fixed) / tenants;
        let (any, allocations) = house.decisions(tenants);
        let (warm, more) = house.decisions(tenants.min(WARM));
        let (mean, longest) = house.changes();
        let allocations = allocations + more;
        println!("| {tenants} | {any:.0} ns | {warm:.0} ns | {allocations} | {bytes} | {mean:.1?} | {longest:.1?} |");
    }
}

fn in_use() -> u64 {
    ALLOCATED.load(Relaxed) - FREED.load(Relaxed)
}

/// A small generator, so that every run asks the same.
fn number(seed: u64, i: u64) -> u64 {
    xxh3_64_with_seed(&i.to_le_bytes(), seed)
}

fn weights(points: u16) -> Weights {
    let share = |p| BasisPoints::new(p).expect("at most 10 000");
    let version = |name| VersionName::new(name).expect("a version's name");
    Weights::new([(version("new"), share(points)), (version("old"), share(10_000 - points))]).expect("they add up")
}

fn tenant(i: u64) -> String {
    format!("customer-{i:08}")
}

struct House {
    tenants: u64,
    service: ServiceName,
    structure: Structure,
    state: State,
    context: Context,
    routes: Routes,
}

impl House {
    fn with(tenants: u64) -> Self {
        let structure = config::parse(FILE, Path::new("/etc/bench.toml"), &|_| None).expect("a good file").structure;
        let service = ServiceName::new("bench").expect("a service's name");
        let begin = request(&service, Change::AddService);
        let mut state = State::default().apply(&structure, &begin, 1, 0).expect("it begins").state;
        let baseline = VersionName::new("old").expect("a version's name");
        let own = (0..tenants).map(|i| {
            let split = Split::new(&weights((i % 9_000) as u16 + 500), &baseline, i, i + 2);
            let name = TenantName::new(&tenant(i)).expect("a tenant's name");
            (
                name,
                TenantState { format: DOCUMENT_FORMAT, revision: i + 2, split, by: None, unknown: Default::default() },
            )
        });
        state.tenants.insert(service.clone(), own.collect());
        // As a process starts: from its documents, one after the other.
        let documents: Vec<_> = state.to_documents().collect();
        state = State::from_documents(tenants + 2, &documents).expect("its own documents");
        drop(documents);
        let signer = CookieSigner::new([b"a secret of the cookies".as_slice()]);
        let context =
            Context { tallies: Arc::new(Tallies::new(1_000)), signer: Arc::new(signer), reach: Arc::default() };
        let routes = Routes::compile(&structure, &state, &context, None).expect("it compiles");
        Self { tenants, service, structure, state, context, routes }
    }

    /// Nanoseconds and allocations for one decision, for this many of the tenants in random order.
    fn decisions(&self, among: u64) -> (f64, f64) {
        let names = [HeaderName::from_static("x-tenant-id"), HeaderName::from_static("x-user")];
        let mut heads: Vec<_> = (0..BATCH).map(|_| HeaderMap::with_capacity(8)).collect();
        let (mut spent, mut allocated) = (Duration::ZERO, 0);
        for batch in 0..BATCHES {
            for (i, headers) in heads.iter_mut().enumerate() {
                let n = batch * BATCH + i as u64;
                for (name, value) in names.iter().zip([tenant(number(1, n) % among), format!("user-{n}")]) {
                    headers.insert(name, HeaderValue::from_str(&value).expect("plain text"));
                }
            }
            let (allocations, start) = (ALLOCATIONS.load(Relaxed), Instant::now());
            for headers in &heads {
                let head = head(headers);
                let decision = decide(&self.routes, black_box(&head), &mut Silent).expect("it is not refused");
                black_box(&decision);
            }
            // The first batches warm up.
            if batch >= BATCHES / 10 {
                spent += start.elapsed();
                allocated += ALLOCATIONS.load(Relaxed) - allocations;
            }
        }
        let decisions = (BATCH * (BATCHES - BATCHES / 10)) as f64;
        (spent.as_nanos() as f64 / decisions, allocated as f64 / decisions)
    }

    /// Mean and longest time of setting one tenant's split, from the request to routes that can be published.
    fn changes(&mut self) -> (Duration, Duration) {
        let mut times = Vec::new();
        for i in 0..CHANGES {
            let name = TenantName::new(&tenant(number(2, i) % self.tenants)).expect("a tenant's name");
            let weights = weights((number(3, i) % 9_999) as u16 + 1);
            let change = request(&self.service, Change::SetSplit { scope: Scope::Tenant(name), weights });
            let start = Instant::now();
            let applied = self.state.apply(&self.structure, &change, i + 2, i).expect("it is allowed");
            let routes = self.routes.with_service(&self.service, &applied.state, &self.context).expect("it compiles");
            times.push(start.elapsed());
            self.state = applied.state;
            self.routes = routes;
        }
        let total: Duration = times.iter().sum();
        (total / times.len() as u32, times.into_iter().max().unwrap_or_default())
    }
}

fn head(headers: &HeaderMap) -> Head<'_> {
    Head {
        method: &Method::GET,
        host: "api.example.com",
        path: "/v1/things/42",
        headers,
        address: [10, 0, 0, 1].into(),
        trusted: false,
        random: [1, 2],
        now_s: 1_700_000_000,
    }
}

fn request(service: &ServiceName, change: Change) -> ChangeRequest {
    ChangeRequest {
        service: service.clone(),
        change,
        author: Author::File,
        reason: String::new(),
        if_revision: None,
        if_attempt: None,
        evidence: serde_json::Value::Null,
    }
}

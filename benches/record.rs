//! What counting one request costs: begin, answered and finish, in nanoseconds, for threads that share one scope or
//! spread over a thousand. `cargo bench --bench record`; the first part checks that a warm request allocates nothing.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;
use std::hint::black_box;
use std::time::Instant;

use switchback::model::{BasisPoints, ServiceName, Split, VersionName, Weights};
use switchback::routing::RoutePatterns;
use switchback::telemetry::latency::{bucket_of, bucket_of_seconds};
use switchback::telemetry::{Draw, Outcome, RouteRequest, ServiceTally, Start, Tallies};

/// Counts the allocations of each thread.
struct Counting;

thread_local! {
    static ALLOCATIONS: Cell<u64> = const { Cell::new(0) };
}

#[expect(unsafe_code, reason = "an allocator that counts cannot be written without")]
// SAFETY: everything is passed on to the system's allocator unchanged.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let _ = ALLOCATIONS.try_with(|n| n.set(n.get() + 1));
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

const REQUESTS: u64 = 400_000;

fn main() {
    check_allocations();
    bench_buckets();
    bench_routes();
    println!("{:<28}{:>9}{:>9}{:>9}{:>9}{:>9}", "CPU ns per request, threads:", 1, 2, 4, 8, 16);
    for scopes in [1, 1_000] {
        for (name, points, cuts, key) in [
            ("sole version, coin", 0, false, false),
            ("coin, no cuts", 1_000, false, false),
            ("coin, aged", 1_000, true, false),
            ("key, aged", 1_000, true, true),
        ] {
            print!("{:<28}", format!("{name}, {scopes} scopes"));
            for threads in [1, 2, 4, 8, 16] {
                print!("{:>9.0}", measure(scopes, threads, points, cuts, key));
            }
            println!();
        }
    }
}

struct House {
    tallies: Tallies,
    service: ServiceName,
    tenants: Vec<String>,
    versions: [VersionName; 2],
    split: Split,
}

impl House {
    fn new(scopes: usize, canary_points: u16, cuts: bool) -> Self {
        let versions = ["1.0.0", "2.0.0"].map(|v| VersionName::new(v).expect("a name"));
        let share = |points| BasisPoints::new(points).expect("a share");
        let shares =
            [(versions[0].clone(), share(10_000 - canary_points)), (versions[1].clone(), share(canary_points))];
        let split = Split::new(&Weights::new(shares).expect("weights"), &versions[0], 7, 1);
        let tenants = (0..scopes).map(|i| format!("tenant-{i}")).collect();
        let service = ServiceName::new("accounting").expect("a name");
        let house = Self { tallies: Tallies::new(scopes), service, tenants, versions, split };
        for i in 0..scopes as u64 * 20 {
            house.request(i, false);
        }
        if cuts {
            for scope in house.tallies.service(&house.service).scopes() {
                scope.set_cuts(10_000, 50_000, 1.05, &house.versions[0]);
            }
        }
        house
    }

    fn request(&self, i: u64, key: bool) {
        let service = self.tallies.service(&self.service);
        self.request_at(&service, i, key);
    }

    fn request_at(&self, service: &ServiceTally, i: u64, key: bool) {
        let sole = self.split.slices.len() == 1;
        let canary = usize::from(!sole && i.is_multiple_of(10));
        let draw = if key { Draw::Key(i.wrapping_mul(0x9e37_79b9_7f4a_7c15) % 10_007) } else { Draw::Coin };
        let mut ticket = service.begin(&Start {
            tenant: Some(&self.tenants[(i as usize).wrapping_mul(7919) % self.tenants.len()]),
            version: &self.versions[canary],
            now_us: i,
            draw,
            split: Some(&self.split),
            pooled: false,
        });
        ticket.answered(i + 5_000 + i % 97);
        ticket.finish(Outcome::served(200), i + 6_000);
        black_box(&ticket);
    }
}

fn measure(scopes: usize, threads: u64, points: u16, cuts: bool, key: bool) -> f64 {
    let house = House::new(scopes, points, cuts);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let house = &house;
            scope.spawn(move || {
                let service = house.tallies.service(&house.service);
                for i in 0..REQUESTS / threads {
                    house.request_at(&service, thread * 1_000_003 + i, key);
                    // The tick's part, about as often as at 100,000 requests per second.
                    if thread == 0 && i % (10_000 / threads) == 0 {
                        black_box(house.tallies.age(i));
                        black_box(house.tallies.take_active());
                    }
                }
            });
        }
    });
    // What one request takes of a core: with perfect scaling the same for any number of threads.
    let cores = std::thread::available_parallelism().map_or(1, |n| n.get() as u64);
    began.elapsed().as_nanos() as f64 * threads.min(cores) as f64 / REQUESTS as f64
}

fn bench_buckets() {
    let latencies: Vec<u64> = (0..4_096u64).map(|i| i.wrapping_mul(2_654_435_761) % 2_000_000).collect();
    let time = |name: &str, bucket: &dyn Fn(u64) -> usize| {
        let began = Instant::now();
        for _ in 0..500 {
            latencies.iter().for_each(|us| _ = black_box(bucket(*us)));
        }
        println!("{name}: {:.1} ns", began.elapsed().as_nanos() as f64 / (500.0 * latencies.len() as f64));
    };
    time("bucket by table", &bucket_of);
    time("bucket by formula", &|us| bucket_of_seconds(us as f64 / 1e6));
}

/// What counting by route adds to a request: its name, the look-up and the counts.
fn bench_routes() {
    let patterns: Vec<_> = (0..100).map(|i| format!("GET /v1/things-{i}/{{id}}").parse().expect("a route")).collect();
    let (none, hundred) = (RoutePatterns::new(&[]), RoutePatterns::new(&patterns));
    let house = House::new(1, 1_000, false);
    let get = http::Method::GET;
    for (name, patterns, path) in [
        ("route, short path", &none, "/v1/orders/4711"),
        ("route, UUID and six segments", &none, "/api/v1/orders/0b5f6c9e-3d0a-4c1e-9a67-0f1d2c3b4a59/items/17"),
        ("route, one of 100 named", &hundred, "/v1/things-57/4711"),
        ("route, junk", &none, "/wp-content/plugins/akismet.php"),
    ] {
        let service =
            house.tallies.service(&ServiceName::new(name.split(' ').next_back().expect("a word")).expect("a name"));
        let status = if name.ends_with("junk") { 404 } else { 200 };
        let request = |i: u64| {
            let mut room = None;
            let (route, configured) = patterns.name(&get, black_box(path), Some("acme"), &mut room);
            service.routes().count(&RouteRequest {
                route,
                configured,
                version: &house.versions[usize::from(i.is_multiple_of(10))],
                outcome: Outcome::served(status),
                answered: Some(status),
                latency_us: Some(5_000 + i % 97),
                now_us: i,
            });
        };
        // A table with as many routes as there usually are.
        (0..40).for_each(|i| {
            let (route, version) = (format!("GET /known/{i}"), &house.versions[0]);
            let outcome = Outcome::served(200);
            let answered = Some(200);
            service.routes().count(&RouteRequest {
                route: &route,
                configured: false,
                version,
                outcome,
                answered,
                latency_us: None,
                now_us: 0,
            });
        });
        (0..100).for_each(request);
        let before = ALLOCATIONS.with(Cell::get);
        let batch = || {
            let began = Instant::now();
            (0..REQUESTS / 100).for_each(request);
            began.elapsed().as_nanos() as f64 / (REQUESTS / 100) as f64
        };
        // The best of many short batches is what it costs when nobody else has the core.
        let best = (0..100).map(|_| batch()).fold(f64::INFINITY, f64::min);
        println!("{name}: {best:.0} ns");
        assert_eq!(ALLOCATIONS.with(Cell::get), before, "a known route allocates nothing");
    }
}

fn check_allocations() {
    for (points, cuts, most) in [(0, false, 0), (0, true, 0), (1_000, false, 0), (1_000, true, 1)] {
        let house = House::new(10, points, cuts);
        let service = house.tallies.service(&house.service);
        (0..100).for_each(|i| house.request_at(&service, i, false));
        let before = ALLOCATIONS.with(Cell::get);
        (0..1_000).for_each(|i| house.request_at(&service, i, false));
        let each = (ALLOCATIONS.with(Cell::get) - before).div_ceil(1_000);
        assert!(each <= most, "{each} allocations per request with a canary at {points} basis points, cuts {cuts}");
    }
    println!("allocations per warm request: 0; with its age watched: 1");
}

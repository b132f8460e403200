//! The demo's users: a few threads that send requests at an even pace, each request as one of many users.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

/// Threads that send.
const THREADS: u64 = 10;
/// Time between two requests of one thread: 20 a second each, 200 in all.
const EVERY: Duration = Duration::from_millis(50);
/// How many users there are.
const USERS: u64 = 20_000;

/// What clients saw.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Seen {
    pub requests: u64,
    pub failures: u64,
    /// Requests by version, old and new.
    pub by_version: [u64; 2],
    /// Failures by version, old and new.
    pub failures_by_version: [u64; 2],
}

#[derive(Default)]
struct Counters {
    requests: AtomicU64,
    failures: AtomicU64,
    by_version: [AtomicU64; 2],
    failures_by_version: [AtomicU64; 2],
}

/// The running load.
pub(super) struct Load {
    counters: Arc<Counters>,
    stop: Arc<AtomicBool>,
    threads: Vec<std::thread::JoinHandle<()>>,
}

impl Load {
    /// Starts to send to the proxy.
    pub fn start(proxy: SocketAddr) -> Self {
        let counters = Arc::new(Counters::default());
        let stop = Arc::new(AtomicBool::new(false));
        let threads = (0..THREADS).map(|i| {
            let (counters, stop) = (counters.clone(), stop.clone());
            std::thread::spawn(move || send(proxy, i, &counters, &stop))
        });
        Self { threads: threads.collect(), counters, stop }
    }

    /// What clients saw so far.
    pub fn seen(&self) -> Seen {
        let c = &self.counters;
        let both = |a: &[AtomicU64; 2]| [a[0].load(Relaxed), a[1].load(Relaxed)];
        Seen {
            requests: c.requests.load(Relaxed),
            failures: c.failures.load(Relaxed),
            by_version: both(&c.by_version),
            failures_by_version: both(&c.failures_by_version),
        }
    }

    /// Stops, and waits for the requests that are on their way.
    pub fn stop(&mut self) {
        self.stop.store(true, Relaxed);
        for thread in self.threads.drain(..) {
            let _its_panic_is_not_ours = thread.join();
        }
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Relaxed);
    }
}

fn send(proxy: SocketAddr, index: u64, counters: &Counters, stop: &AtomicBool) {
    let config = ureq::Agent::config_builder()
        .http_status_as_error(false)
        .proxy(None)
        .timeout_global(Some(Duration::from_secs(10)));
    let agent: ureq::Agent = config.build().into();
    let url = format!("http://{proxy}/orders");
    let mut due = Instant::now() + EVERY * (index as u32) / (THREADS as u32);
    while !stop.load(Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += EVERY;
        let user = format!("user-{}", rand::random_range(0..USERS));
        let answer = agent.get(&url).header("x-user-id", &user).call();
        let (failed, new) = match answer {
            Ok(answer) => {
                let new = answer.headers().get("x-switchback-version").is_some_and(|v| v == super::NEW);
                let failed = answer.status().is_server_error();
                let _keeps_the_connection = answer.into_body().read_to_string();
                (failed, new)
            }
            Err(_) => (true, false),
        };
        counters.requests.fetch_add(1, Relaxed);
        counters.by_version[usize::from(new)].fetch_add(1, Relaxed);
        if failed {
            counters.failures.fetch_add(1, Relaxed);
            counters.failures_by_version[usize::from(new)].fetch_add(1, Relaxed);
        }
    }
}

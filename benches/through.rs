//! Requests through the whole proxy, beside Pingora built into the same binary: CPU per request, requests per second, p50
//! and p99. `bare` is Pingora alone; `dressed` is Pingora with the deadlines that an edge needs and the headers that
//! backends are owed, but without split, metrics and guard: the difference to it is what those three cost. Rounds
//! alternate between the contenders and ratios are taken per round, so that a machine whose speed drifts does not decide
//! the outcome.
//!
//! `cargo bench --bench through [-- ROUNDS SECONDS]`. Each contender is a process of its own with one proxy thread.
//!
//! `cargo bench --bench through -- instructions [REQUESTS]` needs valgrind and counts the instructions of a request in
//! place of time: the same on a busy machine. What the kernel does is not in them.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::http::{RequestHeader, ResponseHeader};
use pingora::prelude::*;
use pingora::proxy::{ProxyHttp, Session, http_proxy_service};
use pingora::server::configuration::ServerConf;
use pingora::services::Service as _;
use switchback::app::App;
use switchback::config;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const ROLE: &str = "SWITCHBACK_BENCH_ROLE";
const CONNECTIONS: usize = 64;
const BODY: usize = 1024;

fn main() {
    match std::env::var(ROLE).as_deref() {
        Ok("backend") => backend(),
        Ok("bare") => pingora_alone(Bare(backend_address())),
        Ok("dressed") => pingora_alone(Dressed(backend_address())),
        Ok("switchback") => switchback(),
        _ if std::env::args().any(|a| a == "instructions") => instructions(),
        _ => compare(),
    }
}

/// A process of this binary in a role; ended when dropped.
struct Contender {
    name: &'static str,
    child: Child,
    address: SocketAddr,
}

impl Contender {
    fn start(name: &'static str, folder: &Path, backend: Option<SocketAddr>) -> Self {
        Self::run(name, Command::new(std::env::current_exe().expect("this binary")), folder, backend)
    }

    fn run(name: &'static str, mut command: Command, folder: &Path, backend: Option<SocketAddr>) -> Self {
        command.env(ROLE, name).env("FOLDER", folder).stdin(Stdio::piped()).stdout(Stdio::piped());
        if let Some(backend) = backend {
            command.env("BACKEND", backend.to_string());
        }
        let mut child = command.spawn().expect("a child process");
        let mut line = String::new();
        let out = child.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut line).expect("the child's address");
        let address = line.trim().parse().unwrap_or_else(|_| panic!("{name} said {line:?}"));
        Self { name, child, address }
    }

    /// CPU time so far in clock ticks of 10 ms.
    fn ticks(&self) -> u64 {
        let text = std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).unwrap_or_default();
        let fields: Vec<&str> = text.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        let field = |i: usize| fields.get(i).and_then(|f| f.parse::<u64>().ok()).unwrap_or(0);
        field(11) + field(12)
    }
}

impl Drop for Contender {
    fn drop(&mut self) {
        let _gone = self.child.kill();
        let _reaped = self.child.wait();
    }
}

/// Counts with callgrind, in the thread that handles requests: the guard's tick, which others do, goes by time.
fn instructions() {
    let requests = std::env::args().find_map(|a| a.parse().ok()).unwrap_or(1_000);
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backend = Contender::start("backend", folder.path(), None);
    println!("| proxy | instructions/request | beside bare | beside dressed |\n|---|---|---|---|");
    let mut all = Vec::new();
    for name in ["bare", "dressed", "switchback"] {
        // What is left between two runs is what the further requests took.
        let [few, many] = [requests, 3 * requests].map(|n| counted(name, n, folder.path(), backend.address));
        let most = few.iter().zip(&many).map(|(few, many)| many.saturating_sub(*few)).max().unwrap_or(0);
        all.push(most as f64 / (2 * requests) as f64);
        let beside = |i: usize| all.get(i).map_or("".to_owned(), |other| format!("{:.3}", all[all.len() - 1] / other));
        println!("| {name} | {:.0} | {} | {} |", all[all.len() - 1], beside(0), beside(1));
    }
}

/// The instructions of each thread of a contender that lives for so many requests.
fn counted(name: &'static str, requests: u64, folder: &Path, backend: SocketAddr) -> Vec<u64> {
    let out = std::env::var_os("KEEP").map_or(folder.to_owned(), PathBuf::from).join(format!("{name}.{requests}"));
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["--tool=callgrind", "--separate-threads=yes", "--quiet"]);
    // Long copies by one instruction that repeats itself would count as many instructions as they have bytes.
    valgrind.env("GLIBC_TUNABLES", "glibc.cpu.x86_rep_movsb_threshold=0x10000000");
    valgrind.arg(format!("--callgrind-out-file={}", out.display())).arg(std::env::current_exe().expect("this binary"));
    let mut contender = Contender::run(name, valgrind, folder, Some(backend));
    let mut stream = TcpStream::connect(contender.address).expect("the proxy listens");
    let mut buffer = [0; 16 << 10];
    for user in 0..requests {
        let request = format!("GET /bench HTTP/1.1\r\nhost: bench.local\r\nx-user: user-{user}\r\n\r\n");
        stream.write_all(request.as_bytes()).expect("the proxy reads");
        let mut have = 0;
        while !buffer[..have].ends_with(&[b'x'; BODY]) {
            let n = stream.read(&mut buffer[have..]).expect("the proxy answers");
            assert!(n > 0, "{name} closed the connection");
            have += n;
        }
    }
    drop(contender.child.stdin.take());
    assert!(contender.child.wait().expect("it ends").success());
    let of_thread = |thread: u32| std::fs::read_to_string(format!("{}-{thread:02}", out.display())).ok();
    let total = |text: String| text.lines().find_map(|l| l.strip_prefix("totals: ")?.parse().ok()).unwrap_or(0);
    (1..).map_while(of_thread).map(total).collect()
}

/// What one round of one contender came to.
struct Round {
    cpu_us: f64,
    rate: f64,
    p50_us: u64,
    p99_us: u64,
    failed: u64,
}

fn compare() {
    let numbers: Vec<u64> = std::env::args().filter_map(|a| a.parse().ok()).collect();
    let rounds = numbers.first().copied().unwrap_or(7);
    let length = Duration::from_secs(numbers.get(1).copied().unwrap_or(4));
    let folder = tempfile::tempdir().expect("a temporary folder");
    let backend = Contender::start("backend", folder.path(), None);
    let start = |name| Contender::start(name, folder.path(), Some(backend.address));
    let contenders = [start("bare"), start("dressed"), start("switchback")];
    let mut results: [Vec<Round>; 3] = Default::default();
    for contender in &contenders {
        load(contender, Duration::from_secs(2));
    }
    for _ in 0..rounds {
        for (contender, rounds) in contenders.iter().zip(&mut results) {
            rounds.push(load(contender, length));
        }
    }
    println!("\n{CONNECTIONS} connections, {BODY} byte answers, {rounds} rounds of {length:?}, medians\n");
    println!("| proxy | CPU µs/request | requests/s | p50 µs | p99 µs | failed |\n|---|---|---|---|---|---|");
    for (contender, rounds) in contenders.iter().zip(&results) {
        println!(
            "| {} | {:.1} | {:.0} | {} | {} | {} |",
            contender.name,
            median(rounds.iter().map(|r| r.cpu_us)),
            median(rounds.iter().map(|r| r.rate)),
            median(rounds.iter().map(|r| r.p50_us as f64)),
            median(rounds.iter().map(|r| r.p99_us as f64)),
            rounds.iter().map(|r| r.failed).sum::<u64>()
        );
    }
    for (against, name) in [(&results[0], "bare"), (&results[1], "dressed")] {
        let ratios: Vec<f64> = results[2].iter().zip(against).map(|(s, b)| s.cpu_us / b.cpu_us).collect();
        let (least, most) = ratios.iter().fold((f64::MAX, 0.0_f64), |(l, m), r| (l.min(*r), m.max(*r)));
        println!(
            "\nCPU per request, switchback / {name}: {:.3} ({least:.3} to {most:.3})",
            median(ratios.iter().copied())
        );
    }
}

fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = values.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// Keeps every connection busy for a while.
fn load(contender: &Contender, length: Duration) -> Round {
    let (stop, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let (failed, latencies) = (Arc::new(AtomicU64::new(0)), Arc::new(Mutex::new(Vec::new())));
    let (before, begun) = (contender.ticks(), Instant::now());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    runtime.block_on(async {
        let clients = (0..CONNECTIONS).map(|i| {
            let (stop, done, failed, latencies) = (stop.clone(), done.clone(), failed.clone(), latencies.clone());
            client(contender.address, i, stop, done, failed, latencies)
        });
        let all = futures::future::join_all(clients);
        let end = async {
            tokio::time::sleep(length).await;
            stop.store(true, Relaxed);
        };
        tokio::join!(all, end);
    });
    let (elapsed, ticks) = (begun.elapsed(), contender.ticks() - before);
    let requests = done.load(Relaxed).max(1);
    let mut times = latencies.lock().expect("no client panics").clone();
    times.sort_unstable();
    let at = |q: f64| times.get((times.len() as f64 * q) as usize).copied().unwrap_or(0);
    Round {
        cpu_us: ticks as f64 * 10_000.0 / requests as f64,
        rate: requests as f64 / elapsed.as_secs_f64(),
        p50_us: at(0.5),
        p99_us: at(0.99),
        failed: failed.load(Relaxed),
    }
}

async fn client(
    address: SocketAddr,
    index: usize,
    stop: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    failed: Arc<AtomicU64>,
    latencies: Arc<Mutex<Vec<u64>>>,
) {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(address).await.expect("the proxy listens");
    let _small = stream.set_nodelay(true);
    let mut buffer = vec![0; 16 << 10];
    let mut mine = Vec::new();
    for n in 0u64.. {
        if stop.load(Relaxed) {
            break;
        }
        let user = (n * CONNECTIONS as u64 + index as u64) % 10_000;
        let request = format!("GET /bench HTTP/1.1\r\nhost: bench.local\r\nx-user: user-{user}\r\n\r\n");
        let begun = Instant::now();
        stream.write_all(request.as_bytes()).await.expect("the proxy reads");
        let mut have = 0;
        let whole = loop {
            let n = stream.read(&mut buffer[have..]).await.unwrap_or(0);
            if n == 0 {
                break false;
            }
            have += n;
            if let Some(head) = buffer[..have].windows(4).position(|w| w == b"\r\n\r\n")
                && have >= head + 4 + BODY
            {
                break buffer.starts_with(b"HTTP/1.1 200");
            }
        };
        done.fetch_add(1, Relaxed);
        mine.push(begun.elapsed().as_micros() as u64);
        if !whole {
            failed.fetch_add(1, Relaxed);
            break;
        }
    }
    latencies.lock().expect("no client panics").extend(mine);
}

fn say(address: SocketAddr) {
    println!("{address}");
    std::io::stdout().flush().expect("a parent that listens");
}

/// Ends as soon as the parent closes its end of the pipe.
fn say_and_stay(address: SocketAddr) -> ! {
    say(address);
    let _closed = std::io::stdin().read(&mut [0]);
    std::process::exit(0);
}

/// A backend that only answers: one thread per connection, no parsing beyond the end of the head.
fn backend() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    say(listener.local_addr().expect("bound"));
    let answer =
        format!("HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {BODY}\r\n\r\n{}", "x".repeat(BODY));
    for stream in listener.incoming().flatten() {
        let answer = answer.clone();
        std::thread::spawn(move || serve(stream, answer.as_bytes()));
    }
}

fn serve(mut stream: TcpStream, answer: &[u8]) {
    let _small = stream.set_nodelay(true);
    let mut buffer = [0; 8 << 10];
    let mut have = 0;
    while let Ok(n) = stream.read(&mut buffer[have..]) {
        have += n;
        if n == 0 {
            return;
        }
        if buffer[..have].ends_with(b"\r\n\r\n") {
            have = 0;
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    }
}

fn backend_address() -> SocketAddr {
    std::env::var("BACKEND").ok().and_then(|b| b.parse().ok()).expect("BACKEND")
}

/// Everything to one backend: what Pingora costs by itself.
struct Bare(SocketAddr);

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();
    fn new_ctx(&self) {}
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}
    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        Ok(Box::new(HttpPeer::new(self.0, false, String::new())))
    }
}

/// Pingora as an edge would have to run it, with one version.
struct Dressed(SocketAddr);

#[async_trait]
impl ProxyHttp for Dressed {
    type CTX = ();
    fn new_ctx(&self) {}
    fn init_downstream_modules(&self, _: &mut pingora::modules::http::HttpModules) {}

    async fn request_filter(&self, session: &mut Session, _: &mut ()) -> Result<bool> {
        session.set_keepalive(Some(75));
        Ok(false)
    }

    async fn upstream_peer(&self, _: &mut Session, _: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = HttpPeer::new(self.0, false, String::new());
        peer.options.connection_timeout = Some(Duration::from_secs(1));
        peer.options.total_connection_timeout = Some(Duration::from_secs(1));
        peer.options.read_timeout = Some(Duration::from_secs(30));
        peer.options.idle_timeout = Some(Duration::from_secs(30));
        Ok(Box::new(peer))
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        _: &mut (),
    ) -> Result<()> {
        let client = session.client_addr().map(ToString::to_string).unwrap_or_default();
        request.insert_header("x-forwarded-for", client)?;
        request.insert_header("x-forwarded-proto", "http")?;
        if let Some(host) = session.req_header().headers.get("host") {
            request.insert_header("x-forwarded-host", host.clone())?;
        }
        request.insert_header("x-request-id", format!("{:032x}", rand::random::<u128>()))?;
        let trace = format!("00-{:032x}-{:016x}-00", rand::random::<u128>(), rand::random::<u64>());
        request.insert_header("traceparent", trace)?;
        request.insert_header("x-switchback-version", "old")
    }

    async fn response_filter(&self, _: &mut Session, response: &mut ResponseHeader, _: &mut ()) -> Result<()> {
        response.insert_header("x-switchback-version", "old")
    }
}

fn pingora_alone<P>(app: P)
where
    P: ProxyHttp + Send + Sync + 'static,
    P::CTX: Send + Sync,
{
    let address = TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port");
    let conf = ServerConf { threads: 1, upstream_keepalive_pool_size: 1024, ..ServerConf::default() };
    let mut service = http_proxy_service(&Arc::new(conf), app);
    service.add_tcp(&address.to_string());
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let (_stop, watch) = tokio::sync::watch::channel(false);
    runtime.spawn(async move { service.start_service(None, watch, 1).await });
    while TcpStream::connect(address).is_err() {
        std::thread::yield_now();
    }
    say_and_stay(address);
}

/// The product as its users would run it: a 90/10 split by header, guard and metrics on.
fn switchback() {
    let folder = PathBuf::from(std::env::var_os("FOLDER").expect("FOLDER"));
    let backend = backend_address();
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\n[admin]\nlisten = \"127.0.0.1:0\"\n[store]\npath = \"bench.db\"\n\
         [tenants]\nidentify = [{{ header = \"x-tenant-id\" }}]\n\
         [services.bench]\nmatch = [{{ path = \"/\" }}]\nsticky = [{{ header = \"x-user\" }}]\nbaseline = \"old\"\nsplit = {{ old = 90, new = 10 }}\n\
         [services.bench.versions.old]\nendpoints = [\"{backend}\"]\n[services.bench.versions.new]\nendpoints = [\"{backend}\"]\n"
    );
    let settings = config::parse(&text, &folder.join("bench.toml"), &|_| None).unwrap_or_else(|e| panic!("{e}"));
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let app = runtime.block_on(App::start(settings)).unwrap_or_else(|e| panic!("{e}"));
    say_and_stay(app.listen[0]);
}

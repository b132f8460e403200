//! A long load in which everything changes all the time, on the real binary: strict clients of HTTP/1.1, HTTP/2 and
//! WebSocket, while splits change, the configuration is read again, new processes take over, and the store goes away.
//! Whatever is not the expected answer, whole, is a failure; the command ends with 1 if there is one.
//!
//! `cargo bench --bench soak -- [--minutes N] [--clients N] [--upgrade-every SECONDS]`, 2 minutes, 24 clients and 5 seconds
//! unless told otherwise; `--upgrade-every 0` keeps one process, so that its memory and its descriptors can be watched.

#[path = "../tests/it/strict.rs"]
mod strict;

use std::net::SocketAddr;
use std::ops::Range;
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::Request;
use futures::{SinkExt as _, StreamExt as _};
use serde_json::{Value, json};
use strict::{Counts, Strict};
use tokio::net::{TcpListener, TcpStream};
use tokio_tungstenite::tungstenite::Message;

/// Between two changes of a split.
const CHANGE: Duration = Duration::from_millis(60);
/// Between two readings of the configuration.
const RELOAD: Duration = Duration::from_millis(700);
/// Between two outages of the store, and how long one lasts.
const OUTAGE: (Duration, Duration) = (Duration::from_secs(15), Duration::from_secs(1));
/// How often memory and descriptors are looked at.
const LOOK: Duration = Duration::from_secs(10);

struct Asked {
    minutes: f64,
    clients: u64,
    upgrade_every: f64,
}

/// What was done to the proxy meanwhile.
#[derive(Default)]
struct Done {
    changes: AtomicU64,
    /// Changes that were not taken at first: the store was away, or a process was handing over.
    repeated: AtomicU64,
    reloads: AtomicU64,
    upgrades: AtomicU64,
    outages: AtomicU64,
    messages: AtomicU64,
    wrong: Mutex<Vec<String>>,
    stop: AtomicBool,
}

impl Done {
    fn wrong(&self, what: String) {
        self.wrong.lock().expect("nothing panics with it").push(what);
    }

    fn goes_on(&self) -> bool {
        !self.stop.load(SeqCst)
    }
}

/// The proxy under test; whichever process serves is ended with it.
struct Proxy {
    /// The first process; it ends when another one has taken over.
    first: Mutex<Child>,
    pid: AtomicU64,
    proxy: String,
    admin: String,
    client: reqwest::Client,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = Command::new("kill").args(["-KILL", &self.pid.load(SeqCst).to_string()]).status();
        if let Ok(mut first) = self.first.lock() {
            let _gone = (first.kill(), first.wait());
        }
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let asked = asked();
    let folder = tempfile::tempdir().expect("a folder");
    let proxy = Arc::new(start(folder.path()).await);
    let done = Arc::new(Done::default());
    let load = Strict::start(&proxy.proxy, asked.clients);
    let mut tasks = vec![
        tokio::spawn(changes(proxy.clone(), done.clone())),
        tokio::spawn(reloads(proxy.clone(), done.clone())),
        tokio::spawn(outages(folder.path().join("switchback.db"), done.clone())),
    ];
    tasks.extend((0..4).map(|_| tokio::spawn(streams(proxy.proxy.clone(), done.clone()))));
    if asked.upgrade_every > 0.0 {
        let every = Duration::from_secs_f64(asked.upgrade_every);
        tasks.push(tokio::spawn(upgrades(proxy.clone(), every, done.clone())));
    }
    let grown = watch(&proxy, &load, &done, Duration::from_secs_f64(asked.minutes * 60.0)).await;
    done.stop.store(true, SeqCst);
    for task in tasks {
        task.await.expect("a task of the load");
    }
    let counts = load.stop().await;
    report(&counts, &done, &grown)
}

fn asked() -> Asked {
    let mut asked = Asked { minutes: 2.0, clients: 24, upgrade_every: 5.0 };
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    for pair in arguments.windows(2) {
        let number = || pair[1].parse().unwrap_or_else(|_| panic!("{} is no number", pair[1]));
        match pair[0].as_str() {
            "--minutes" => asked.minutes = number(),
            "--clients" => asked.clients = number() as u64,
            "--upgrade-every" => asked.upgrade_every = number(),
            _ => {}
        }
    }
    asked
}

async fn start(folder: &Path) -> Proxy {
    let (one, two, live) = (backend().await, backend().await, echo().await);
    let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
    let (proxy, admin) = (free(), free());
    let text = format!(
        r#"
[proxy]
listen = ["{proxy}"]
threads = 1
drain_timeout = "20s"
[admin]
listen = "{admin}"
[services.shop]
match = [{{ path = "/" }}]
sticky = [{{ header = "x-user-id" }}]
baseline = "1.0.0"
[services.shop.versions."1.0.0"]
endpoints = ["{one}"]
[services.shop.versions."2.0.0"]
endpoints = ["{two}"]
[services.live]
match = [{{ path = "/live" }}]
baseline = "1.0.0"
[services.live.versions."1.0.0"]
endpoints = ["{live}"]
"#
    );
    let file = folder.join("switchback.toml");
    std::fs::write(&file, text).expect("the configuration is written");
    let child = Command::new(env!("CARGO_BIN_EXE_switchback"))
        .args(["serve", "--config"])
        .arg(&file)
        .env("RUST_LOG", "error")
        .stdout(Stdio::null())
        .spawn()
        .expect("the proxy starts");
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(60)).build().expect("a client");
    let pid = AtomicU64::new(child.id().into());
    let first = Mutex::new(child);
    let proxy = Proxy { first, pid, proxy: format!("http://{proxy}"), admin: format!("http://{admin}"), client };
    let ready = format!("{}/readyz", proxy.admin);
    while !proxy.client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    proxy
}

/// Tells each request what it was.
async fn backend() -> SocketAddr {
    let router = Router::new().fallback(|request: Request| async {
        let path = request.uri().path().to_owned();
        let body = axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default();
        json!({ "path": path, "body_len": body.len() }).to_string()
    });
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move { axum::serve(listener, router).await });
    address
}

/// Sends back what comes over WebSockets.
async fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("its address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(socket) = tokio_tungstenite::accept_async(stream).await else { return };
                let (write, read) = socket.split();
                let _ended = read
                    .take_while(|m| std::future::ready(m.as_ref().is_ok_and(Message::is_text)))
                    .forward(write)
                    .await;
            });
        }
    });
    address
}

/// Conversations of five seconds, each message of which must come back.
async fn streams(proxy: String, done: Arc<Done>) {
    let address = proxy.trim_start_matches("http://").to_owned();
    while done.goes_on() {
        if let Err(error) = conversation(&address, &done).await {
            done.wrong(format!("WebSocket: {error}"));
        }
    }
}

async fn conversation(address: &str, done: &Done) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let stream = TcpStream::connect(address).await?;
    let (mut socket, _) = tokio_tungstenite::client_async(format!("ws://{address}/live"), stream).await?;
    for n in 0..50 {
        let sent = Message::text(format!("message {n}"));
        socket.send(sent.clone()).await?;
        let answer = tokio::time::timeout(Duration::from_secs(10), socket.next()).await?;
        if answer.ok_or("it was closed")?? != sent {
            return Err("another message came back".into());
        }
        done.messages.fetch_add(1, SeqCst);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(socket.close(None).await?)
}

/// One split after the other. A change that is not taken is asked for again: the answer says that nothing has changed.
async fn changes(proxy: Arc<Proxy>, done: Arc<Done>) {
    let url = format!("{}/v1/services/shop/split", proxy.admin);
    for n in 0.. {
        if !done.goes_on() {
            return;
        }
        let new = n * 37 % 101;
        let body = json!({ "weights": { "2.0.0": new, "1.0.0": 100 - new } });
        loop {
            match proxy.client.put(&url).json(&body).send().await {
                Ok(answer) if answer.status() == 200 => break,
                Ok(answer) if answer.status() == 503 => {}
                Ok(answer) => done.wrong(format!("a change: {} {:?}", answer.status(), answer.text().await)),
                Err(_) => {}
            }
            done.repeated.fetch_add(1, SeqCst);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        done.changes.fetch_add(1, SeqCst);
        tokio::time::sleep(CHANGE).await;
    }
}

async fn reloads(proxy: Arc<Proxy>, done: Arc<Done>) {
    while done.goes_on() {
        if proxy.client.post(format!("{}/v1/reload", proxy.admin)).send().await.is_ok_and(|a| a.status() == 200) {
            done.reloads.fetch_add(1, SeqCst);
        }
        tokio::time::sleep(RELOAD).await;
    }
}

/// Another process takes the store's lock and keeps it for a while.
async fn outages(store: std::path::PathBuf, done: Arc<Done>) {
    let mut next = Instant::now() + OUTAGE.0;
    while done.goes_on() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if Instant::now() < next {
            continue;
        }
        let store = store.clone();
        let locked = tokio::task::spawn_blocking(move || -> rusqlite::Result<()> {
            let connection = rusqlite::Connection::open(store)?;
            connection.busy_timeout(Duration::from_secs(5))?;
            connection.execute_batch("BEGIN IMMEDIATE")?;
            std::thread::sleep(OUTAGE.1);
            connection.execute_batch("ROLLBACK")
        });
        match locked.await.expect("a thread") {
            Ok(()) => drop(done.outages.fetch_add(1, SeqCst)),
            Err(error) => done.wrong(format!("the store could not be taken away: {error}")),
        }
        next = Instant::now() + OUTAGE.0;
    }
}

async fn upgrades(proxy: Arc<Proxy>, every: Duration, done: Arc<Done>) {
    let mut next = Instant::now() + every;
    while done.goes_on() {
        tokio::time::sleep(Duration::from_millis(100)).await;
        if Instant::now() < next {
            continue;
        }
        // Refused while the store is away: then another process would begin with an older state.
        let Ok(answer) = proxy.client.post(format!("{}/v1/upgrade", proxy.admin)).send().await else { continue };
        let status = answer.status();
        let report: Value = answer.json().await.unwrap_or_default();
        match report["to"].as_u64() {
            Some(pid) => {
                proxy.pid.store(pid, SeqCst);
                done.upgrades.fetch_add(1, SeqCst);
                next = Instant::now() + every;
            }
            None => eprintln!("no upgrade yet: {status} {report}"),
        }
    }
}

/// Memory in KiB and open descriptors, at each look.
type Grown = Vec<(Duration, u64, usize)>;

async fn watch(proxy: &Proxy, load: &Strict, done: &Done, long: Duration) -> Grown {
    let begun = Instant::now();
    let mut grown = Vec::new();
    println!(
        "{:>7} {:>10} {:>7} {:>8} {:>8} {:>9} {:>9} {:>5}",
        "s", "requests", "failed", "changes", "reloads", "upgrades", "RSS KiB", "fds"
    );
    while begun.elapsed() < long {
        tokio::time::sleep(LOOK.min(long.saturating_sub(begun.elapsed()))).await;
        let pid = proxy.pid.load(SeqCst);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let memory = status.lines().find_map(|l| l.strip_prefix("VmRSS:")?.trim().split(' ').next()?.parse().ok());
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
        grown.push((begun.elapsed(), memory.unwrap_or(0), descriptors));
        let (requests, failed) = (load.counts.requests.load(SeqCst), load.counts.failed.load(SeqCst));
        let count = |n: &AtomicU64| n.load(SeqCst);
        println!(
            "{:>7.0} {requests:>10} {failed:>7} {:>8} {:>8} {:>9} {:>9} {descriptors:>5}",
            begun.elapsed().as_secs_f64(),
            count(&done.changes),
            count(&done.reloads),
            count(&done.upgrades),
            memory.unwrap_or(0),
        );
    }
    grown
}

/// The mean of the memory within these seconds.
fn mean(grown: &Grown, within: Range<u64>) -> f64 {
    let looks = grown.iter().filter(|(at, ..)| within.contains(&at.as_secs())).map(|(_, memory, _)| *memory as f64);
    let (n, sum) = looks.fold((0.0, 0.0), |(n, sum), memory| (n + 1.0, sum + memory));
    sum / n
}

fn report(counts: &Counts, done: &Done, grown: &Grown) -> ExitCode {
    let count = |n: &AtomicU64| n.load(SeqCst);
    println!();
    println!(
        "requests          {:>10}   slowest {:.0} ms",
        count(&counts.requests),
        count(&counts.slowest_us) as f64 / 1e3
    );
    println!(
        "failed            {:>10}   {:?}",
        count(&counts.failed),
        counts.failures.lock().expect("nothing panics with it")
    );
    println!("WebSocket messages{:>10}", count(&done.messages));
    println!("split changes     {:>10}   asked again {}", count(&done.changes), count(&done.repeated));
    println!("reloads           {:>10}", count(&done.reloads));
    println!("upgrades          {:>10}", count(&done.upgrades));
    println!("store outages     {:>10}", count(&done.outages));
    let wrong = done.wrong.lock().expect("nothing panics with it");
    println!("else              {:>10}   {:?}", wrong.len(), &wrong[..wrong.len().min(10)]);
    // What a process needs is there after some minutes; what comes later is growth. Memory follows the load of the moment,
    // so means are compared.
    let last = grown.last().map_or(0, |(at, ..)| at.as_secs());
    let early = mean(grown, if last >= 600 { 300..600 } else { last / 4..last / 2 });
    let late = mean(grown, if last >= 600 { last - 300..last + 1 } else { last * 3 / 4..last + 1 });
    let percent = (late / early - 1.0) * 100.0;
    let descriptors = grown.iter().map(|(.., descriptors)| descriptors).max();
    println!(
        "memory            {early:.0} KiB, at the end {late:.0} KiB: {percent:+.1} %; at most {descriptors:?} descriptors"
    );
    match count(&counts.failed) == 0 && wrong.is_empty() {
        true => ExitCode::SUCCESS,
        false => ExitCode::FAILURE,
    }
}

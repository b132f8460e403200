//! Beyond its limits the proxy refuses at once, holds no more memory for it, and stays in the hands of its operator.

use std::net::SocketAddr;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::harness::{Backend, client, two_versions, until};
use crate::lifecycle::Process;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";
/// What the process may grow by in a flood, in KiB. A debug build with 50 connections holds some 30 MiB.
const GROWTH: u64 = 48 << 10;

struct Overloaded {
    process: Process,
    client: reqwest::Client,
    address: SocketAddr,
    old: Backend,
    _new: Backend,
    _folder: TempDir,
}

impl Overloaded {
    async fn start(limits: &str, wrapper: &[&str]) -> Self {
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let folder = TempDir::new().unwrap();
        let text = format!("[proxy.limits]\n{limits}\n{}", two_versions(&old, &new, ""));
        let process = Process::start_under(&folder, &text, wrapper);
        process.ready().await;
        let address = process.proxy.trim_start_matches("http://").parse().unwrap();
        Self { process, client: client(), address, old, _new: new, _folder: folder }
    }

    async fn metric(&self, series: &str) -> f64 {
        let url = format!("{}/metrics", self.process.admin);
        let text = self.client.get(url).send().await.unwrap().text().await.unwrap();
        let line = text.lines().find(|l| l.strip_prefix(series).is_some_and(|rest| rest.starts_with(' ')));
        line.map_or(0.0, |l| l.rsplit(' ').next().unwrap().parse().unwrap())
    }

    async fn refused(&self, why: &str) -> f64 {
        self.metric(&format!("switchback_refused_requests_total{{reason=\"{why}\"}}")).await
    }

    /// Requests and failures, as the guard counts them.
    async fn counted(&self) -> (u64, u64) {
        let url = format!("{}/v1/services/shop/stats", self.process.admin);
        let stats: Value = self.client.get(url).send().await.unwrap().json().await.unwrap();
        let sum = |key: &str| stats["versions"].as_array().unwrap().iter().map(|v| v[key].as_u64().unwrap()).sum();
        (sum("requests"), sum("failures_total"))
    }

    /// How long the operator waits: for health, for numbers, and for a change.
    async fn operator_waits(&self, percent: u32) -> Duration {
        let (admin, begun) = (&self.process.admin, Instant::now());
        let health = self.client.get(format!("{admin}/readyz")).send().await.unwrap();
        let numbers = self.client.get(format!("{admin}/metrics")).send().await.unwrap();
        let body = json!({ "weights": { "2.0.0": percent, "1.0.0": 100 - percent } });
        let change = self.client.put(format!("{admin}/v1/services/shop/split")).json(&body).send().await.unwrap();
        assert_eq!([health.status(), numbers.status(), change.status()], [200; 3]);
        begun.elapsed()
    }

    /// Memory that the process holds, in KiB.
    fn memory(&self) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.process.pid)).unwrap();
        let line = status.lines().find_map(|l| l.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }

    async fn served(&self) -> bool {
        ask(self.address).await.is_ok_and(|answer| answer.starts_with("HTTP/1.1 200"))
    }
}

/// One request over its own connection, and all that comes back.
async fn ask(address: SocketAddr) -> std::io::Result<String> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n").await?;
    let mut answer = String::new();
    tokio::time::timeout(Duration::from_secs(10), stream.read_to_string(&mut answer)).await??;
    Ok(answer)
}

fn is_refusal(answer: &str) -> bool {
    answer.starts_with("HTTP/1.1 503 ")
        && answer.contains("\r\nretry-after: 1\r\n")
        && answer.contains("\r\nproxy-status: switchback; error=http_request_denied\r\n")
        && answer.ends_with("}\n")
}

/// Connections that have been served and stay open.
async fn hold(address: SocketAddr, n: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..n {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut start = [0; 12];
        stream.read_exact(&mut start).await.unwrap();
        assert_eq!(&start, b"HTTP/1.1 200");
        held.push(stream);
    }
    held
}

#[tokio::test(flavor = "multi_thread")]
async fn who_finds_no_place_is_told_so_at_once() {
    let it = Overloaded::start("connections = 20", &[]).await;
    let held = hold(it.address, 20).await;
    let begun = Instant::now();
    let answers = futures::future::join_all((0..40).map(|_| ask(it.address))).await;
    for answer in &answers {
        assert!(answer.as_ref().is_ok_and(|a| is_refusal(a)), "{answer:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    // Who says nothing is not waited for.
    let mut silent = TcpStream::connect(it.address).await.unwrap();
    let mut answer = String::new();
    silent.read_to_string(&mut answer).await.unwrap();
    assert!(is_refusal(&answer), "{answer:?}");
    assert_eq!(it.refused("too_many_connections").await, 41.0);
    drop(held);
    until("places to be free again", Duration::from_secs(5), || it.served()).await;
    until("the served ones are all that counts", Duration::from_secs(5), async || it.counted().await == (21, 0)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_flood_of_connections_holds_no_memory_and_does_not_shut_out_the_operator() {
    let it = Overloaded::start("connections = 50", &[]).await;
    let mut held = hold(it.address, 50).await;
    it.operator_waits(0).await;
    let before = it.memory();
    let end = Instant::now() + Duration::from_secs(3);
    let flood: Vec<_> = (0..64)
        .map(|_| {
            let address = it.address;
            tokio::spawn(async move {
                let mut tried = 0u64;
                while Instant::now() < end {
                    // In a flood a reset may come before the answer is read.
                    if let Ok(answer) = ask(address).await {
                        assert!(answer.is_empty() || is_refusal(&answer), "{answer:?}");
                    }
                    tried += 1;
                }
                tried
            })
        })
        .collect();
    let mut slowest = Duration::ZERO;
    let mut percent = 0;
    while Instant::now() < end {
        percent = 1 - percent;
        slowest = slowest.max(it.operator_waits(percent).await);
        let stream = &mut held[0];
        stream.write_all(REQUEST).await.unwrap();
        let mut some = [0; 64];
        assert!(stream.read(&mut some).await.unwrap() > 0, "who has a place is served");
    }
    let mut tried = 0;
    for task in flood {
        tried += task.await.unwrap();
    }
    let after = it.memory();
    eprintln!("{tried} connections refused; the operator waited {slowest:?} at most; {before} -> {after} KiB");
    assert!(tried > 500, "{tried}");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    assert!(after < before + GROWTH, "{before} KiB, then {after}");
    assert_eq!(it.refused("too_many_connections").await, tried as f64);
    drop(held);
    until("all to be as before", Duration::from_secs(5), || it.served()).await;
    until("the gauge to go down", Duration::from_secs(5), async || {
        it.metric("switchback_open_connections").await == 0.0
    })
    .await;
    assert_eq!(it.counted().await.1, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_beyond_the_limit_of_the_process_are_refused_before_any_version() {
    let it = Overloaded::start("requests = 8", &[]).await;
    it.old.script.hang.store(true, SeqCst);
    let h2 = reqwest::Client::builder().no_proxy().http2_prior_knowledge().build().unwrap();
    let url = &it.process.proxy;
    let slow = |client: &reqwest::Client| tokio::spawn(client.get(url).send());
    let held: Vec<_> = (0..8).map(|n| slow(if n % 2 == 0 { &h2 } else { &it.client })).collect();
    until("all places to be taken", Duration::from_secs(5), async || it.old.script.requests() == 8).await;
    let before = it.memory();
    let flood: Vec<_> = (0..16)
        .map(|n| {
            let (client, url) = (if n % 2 == 0 { h2.clone() } else { it.client.clone() }, url.clone());
            tokio::spawn(async move {
                let mut slowest = Duration::ZERO;
                for i in 0..100 {
                    let begun = Instant::now();
                    let request = if i % 2 == 0 { client.get(&url) } else { client.post(&url).body("b".repeat(9_000)) };
                    let answer = request.send().await.unwrap();
                    assert_eq!(
                        (answer.status().as_u16(), &answer.headers()["retry-after"]),
                        (503, &"1".parse().unwrap())
                    );
                    assert_eq!(answer.headers()["proxy-status"], "switchback; error=http_request_denied");
                    slowest = slowest.max(begun.elapsed());
                }
                slowest
            })
        })
        .collect();
    let operator = it.operator_waits(0).await;
    let mut slowest = Duration::ZERO;
    for task in flood {
        slowest = slowest.max(task.await.unwrap());
    }
    let after = it.memory();
    eprintln!("refused within {slowest:?}; the operator waited {operator:?}; {before} -> {after} KiB");
    assert!(slowest < Duration::from_secs(2) && operator < Duration::from_secs(2), "{slowest:?} {operator:?}");
    assert!(after < before + GROWTH, "{before} KiB, then {after}");
    assert_eq!((it.old.script.requests(), it.refused("too_many_requests").await), (8, 1_600.0));
    it.old.script.hang.store(false, SeqCst);
    held.iter().for_each(tokio::task::JoinHandle::abort);
    // Those of HTTP/2 are gone at once; the others are waited for as if they still wanted their answers.
    until("places to be free again", Duration::from_secs(5), || it.served()).await;
    assert_eq!(it.counted().await.1, 0, "nobody's failure");
}

#[tokio::test(flavor = "multi_thread")]
async fn when_files_are_few_connections_are_refused_before_endpoints_cannot_be_reached() {
    let it = Overloaded::start("", &["sh", "-c", "ulimit -n 256 && exec \"$@\"", "sh"]).await;
    let (mut open, mut refused) = (Vec::new(), 0);
    for _ in 0..300 {
        let mut stream = TcpStream::connect(it.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        let mut start = [0; 12];
        match stream.read_exact(&mut start).await {
            Ok(_) if &start == b"HTTP/1.1 200" => open.push(stream),
            answer => {
                assert!(answer.is_err() || &start == b"HTTP/1.1 503", "{:?}", String::from_utf8_lossy(&start));
                refused += 1;
            }
        }
    }
    assert!(open.len() >= 40 && refused >= 200, "{} open, {refused} refused", open.len());
    assert!(it.operator_waits(0).await < Duration::from_secs(2));
    let n = open.len() as u64;
    until("all to be counted, none as a failure", Duration::from_secs(5), async || it.counted().await == (n, 0)).await;
    drop(open);
    until("all to be as before", Duration::from_secs(5), || it.served()).await;
}

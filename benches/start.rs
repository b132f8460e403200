//! Starts of the real binary: with how many tenants it takes how long until requests are served, and how much memory. And
//! starts after `kill -9` in the middle of changes, none of which may be lost once it was acknowledged.
//!
//! `cargo bench --bench start -- [--tenants N] [--kills N]`; 100,000 tenants with splits of their own and no kills unless told
//! otherwise. Ends with 1 when a change is lost.

#[path = "../tests/it/many_tenants.rs"]
mod many_tenants;

use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

/// Starts that are timed.
const STARTS: usize = 5;

/// The proxy; killed when dropped.
struct Proxy {
    child: Child,
    admin: String,
    /// From the start of the process until it said that it is ready.
    took: Duration,
}

impl Proxy {
    async fn start(folder: &Path, client: &reqwest::Client) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let (proxy, admin) = (free(), free());
        let text = format!(
            r#"
[proxy]
listen = ["{proxy}"]
[admin]
listen = "{admin}"
[tenants]
identify = [{{ header = "x-tenant-id" }}]
[services.shop]
match = [{{ path = "/" }}]
baseline = "1.0.0"
[services.shop.versions."1.0.0"]
endpoints = ["127.0.0.1:9"]
[services.shop.versions."2.0.0"]
endpoints = ["127.0.0.1:9"]
"#
        );
        let file = folder.join("switchback.toml");
        std::fs::write(&file, text).expect("the configuration is written");
        let begun = Instant::now();
        let child = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let mut started = Self { child, admin: format!("http://{admin}"), took: Duration::ZERO };
        let ready = format!("{}/readyz", started.admin);
        while !client.get(&ready).send().await.is_ok_and(|answer| answer.status() == 200) {
            assert!(begun.elapsed() < Duration::from_secs(120), "it does not start");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        started.took = begun.elapsed();
        started
    }

    /// Memory in MiB: now, and the most so far.
    fn memory(&self) -> (u64, u64) {
        let status = std::fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap_or_default();
        let of = |key: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(key)?.trim().split(' ').next());
            line.and_then(|kib| kib.parse::<u64>().ok()).unwrap_or(0) / 1024
        };
        (of("VmRSS:"), of("VmHWM:"))
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = (self.child.kill(), self.child.wait());
    }
}

#[tokio::main]
async fn main() -> ExitCode {
    let (tenants, kills) = asked();
    let folder = tempfile::tempdir().expect("a folder");
    many_tenants::many_tenants(folder.path(), tenants).await;
    let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(30)).build().expect("a client");
    let mut times = Vec::new();
    for _ in 0..STARTS {
        let proxy = Proxy::start(folder.path(), &client).await;
        let (now, most) = proxy.memory();
        println!(
            "{tenants} tenants: ready after {:.0} ms, {now} MiB, at most {most} MiB",
            proxy.took.as_secs_f64() * 1e3
        );
        times.push(proxy.took);
    }
    times.sort();
    println!("median of {STARTS}: {:.0} ms", times[STARTS / 2].as_secs_f64() * 1e3);
    match kills {
        0 => ExitCode::SUCCESS,
        _ => killed(folder.path(), &client, tenants, kills).await,
    }
}

fn asked() -> (usize, u32) {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let number = |name: &str| {
        let pair = arguments.windows(2).find(|pair| pair[0] == name)?;
        Some(pair[1].parse::<u32>().unwrap_or_else(|_| panic!("{} is no number", pair[1])))
    };
    (number("--tenants").unwrap_or(100_000) as usize, number("--kills").unwrap_or(0))
}

/// A change that was acknowledged: of which tenant, to which share, at which revision of the state.
type Acknowledged = (usize, u64, u64);

async fn killed(folder: &Path, client: &reqwest::Client, tenants: usize, kills: u32) -> ExitCode {
    let (mut times, mut acknowledged, mut lost) = (Vec::new(), 0u64, 0);
    let mut last: Option<Acknowledged> = None;
    for round in 0..kills {
        let mut proxy = Proxy::start(folder, client).await;
        times.push(proxy.took);
        if let Some(last) = last
            && let Err(what) = still_there(&proxy, client, last).await
        {
            lost += 1;
            println!("round {round}: {what}");
        }
        let (admin, sender) = (proxy.admin.clone(), client.clone());
        let writer = tokio::spawn(write(admin, sender, tenants, u64::from(round)));
        // Another instant in each round, from the first moments on.
        tokio::time::sleep(Duration::from_micros(2_000 + u64::from(round) * 7_919 % 120_000)).await;
        let _gone = (proxy.child.kill(), proxy.child.wait());
        let (count, newest) = writer.await.expect("the writer");
        acknowledged += count;
        last = newest.or(last);
    }
    times.sort();
    let ms = |at: usize| times[at].as_secs_f64() * 1e3;
    println!(
        "{kills} kills: {acknowledged} changes acknowledged, {lost} lost; starts: median {:.0} ms, slowest {:.0} ms",
        ms(times.len() / 2),
        ms(times.len() - 1)
    );
    if lost == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Changes one tenant after the other until the proxy is gone.
async fn write(admin: String, client: reqwest::Client, tenants: usize, round: u64) -> (u64, Option<Acknowledged>) {
    let (mut count, mut newest) = (0, None);
    for n in 0.. {
        let (tenant, share) = ((round * 1_000 + n) as usize % tenants, 1 + (round + n) % 99);
        let url = format!("{admin}/v1/services/shop/tenants/tenant-{tenant}/split");
        let body = json!({ "weights": { "2.0.0": share, "1.0.0": 100 - share } });
        let answer = match client.put(url).json(&body).send().await {
            Ok(answer) if answer.status() == 200 => answer.json::<Value>().await,
            _ => break,
        };
        let Ok(receipt) = answer else { break };
        count += 1;
        newest = Some((tenant, share, receipt["revision"].as_u64().unwrap_or(0)));
    }
    (count, newest)
}

/// The change is there, and the event that tells of it.
async fn still_there(proxy: &Proxy, client: &reqwest::Client, last: Acknowledged) -> Result<(), String> {
    let (tenant, share, revision) = last;
    let get = async |path: String| -> Result<Value, String> {
        let answer = client.get(format!("{}{path}", proxy.admin)).send().await.map_err(|e| e.to_string())?;
        answer.json().await.map_err(|e| e.to_string())
    };
    let status = get("/v1/status".to_owned()).await?;
    if status["revision"].as_u64() < Some(revision) {
        return Err(format!("revision {revision} was acknowledged, and it is at {}", status["revision"]));
    }
    let split = get(format!("/v1/services/shop/tenants/tenant-{tenant}/split")).await?;
    if split["weights"]["2.0.0"] != share {
        return Err(format!("{share} % was acknowledged for tenant-{tenant}, and it has {split}"));
    }
    let events = get(format!("/v1/events?service=shop&tenant=tenant-{tenant}")).await?;
    let told = |event: &Value| event["revision"] == revision;
    match events["events"].as_array().is_some_and(|events| events.iter().any(told)) {
        true => Ok(()),
        false => Err(format!("no event tells of revision {revision}: {events}")),
    }
}

//! What a fleet costs and how fast it is, each on an etcd of its own.
//!
//! * `cargo bench --bench fleet -- load [--members N] [--splits N] [--seconds N] [--failing PER_1000]`: what etcd has to do for
//!   the counts of N members with N compared scopes each, every one of which counts something every second. The members
//!   are in one process; store, cards, leader and standby are the real ones. Where all scopes together are more than
//!   `GUARDED`, the others have no guard, for which one machine is too small, and write pages that are the same
//!   to etcd and the leader. Without numbers: all pairs of the table.
//! * `cargo bench --bench fleet -- spread`: how long until a change is in effect on the other two of three members.
//! * `cargo bench --bench fleet -- failover [--rounds N]`: how long until another process leads after the leader was killed.

#[path = "../src/store/etcd/server.rs"]
#[expect(dead_code, reason = "the tests of the store do more with it")]
mod etcd_server;
#[path = "fleet/load.rs"]
mod load;
#[path = "../tests/it/many_tenants.rs"]
mod many_tenants;

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use etcd_server::Etcd;
use serde_json::Value;
use switchback::autopilot::{self, AutopilotParts, CarriedGuard, Machine};
use switchback::control::{self, Card, Control, Parts};
use switchback::model::{
    Author, BasisPoints, Change, ChangeRequest, Commit, Scope, ServiceName, TenantName, VersionName, Weights,
};
use switchback::proxy::Clock;
use switchback::store::{Access, EmbeddedStore, EtcdStore, KEEP_EVENTS, Options, Role, Store as _};
use switchback::telemetry::{Metrics, Tallies, Windows};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Changes that are waited for on the other members.
const CHANGES: usize = 300;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|a| a != "--bench").collect();
    let number = |name: &str| {
        let pair = arguments.windows(2).find(|pair| pair[0] == name)?;
        Some(pair[1].parse::<usize>().unwrap_or_else(|_| panic!("{name} {} is no number", pair[1])))
    };
    match arguments.first().map(String::as_str) {
        Some("load") => {
            let members = number("--members").map_or(vec![3, 10, 100], |n| vec![n]);
            let splits = number("--splits").map_or(vec![10, 100, 1_000], |n| vec![n]);
            let seconds = Duration::from_secs(number("--seconds").unwrap_or(30) as u64);
            load::load(&members, &splits, seconds, number("--failing").unwrap_or(0));
        }
        Some("spread") => spread(),
        Some("failover") => failover(number("--rounds").unwrap_or(20)),
        _ => panic!("say what: load, spread or failover"),
    }
}

/// One member of a fleet, as far as it has to do with etcd.
struct Member {
    control: Control,
    tallies: Arc<Tallies>,
    clock: Clock,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

impl Member {
    async fn join(etcd: &Etcd, text: &str, number: usize, guards: bool) -> Self {
        let endpoints = vec![etcd.url("http")];
        let prefix = "/switchback".to_owned();
        let access = Access { endpoints, prefix, user: None, ca: None, identity: None, compact: true };
        let tallies = Arc::new(Tallies::new(10_000));
        let metrics = Arc::new(Metrics::new(tallies.clone(), 5));
        let text = format!("[proxy]\nlisten = [\"127.0.0.1:0\"]\n{text}");
        let settings = switchback::config::parse(&text, Path::new("/etc/switchback.toml"), &|_| None);
        let settings = settings.expect("it is valid");
        let parts = Parts {
            settings,
            store: Arc::new(EtcdStore::open(access, KEEP_EVENTS)),
            last_good: None,
            salvaged: None,
            returns: true,
            tallies: tallies.clone(),
            metrics: metrics.clone(),
            fresh_secret: "s".repeat(32),
        };
        let started = control::start(parts).await.expect("it starts");
        let (control, clock) = (started.control, Clock::start());
        let instance = format!("proxy-{number}:8080");
        let card = move || Card { instance: instance.clone(), phase: "ready".to_owned(), ..Card::default() };
        let mut tasks = vec![tokio::spawn(control.clone().show_card(card))];
        if guards {
            let windows = Arc::new(Mutex::new(Windows::default()));
            let parts = AutopilotParts { control: control.clone(), tallies: tallies.clone(), windows, metrics, clock };
            let Machine { task, .. } = autopilot::start(parts, CarriedGuard::default());
            tasks.push(task);
        }
        let member = Self { control, tallies, clock, tasks };
        until("a member joins", || member.role() != Role::Alone).await;
        member
    }

    fn role(&self) -> Role {
        self.control.fleet().map_or(Role::Alone, |fleet| fleet.role)
    }

    fn revision(&self) -> u64 {
        self.control.view().state.revision
    }

    /// Sets the share of the new version, and answers how long that took and at which revision it is in effect; none when
    /// the store did not take it.
    async fn change(&self, service: &str, scope: Scope, percent: u16) -> (Duration, Option<u64>) {
        let share = |percent: u16| BasisPoints::new(100 * percent).expect("a share");
        let weights = [(version("1.0.0"), share(100 - percent)), (version("2.0.0"), share(percent))];
        let weights = Weights::new(weights).expect("weights");
        let request = ChangeRequest {
            service: ServiceName::new(service).expect("a name"),
            change: Change::SetSplit { scope, weights },
            author: Author::Person { name: "bench".to_owned() },
            reason: "to see how long it takes".to_owned(),
            if_revision: None,
            if_attempt: None,
            evidence: Value::Null,
        };
        let begun = Instant::now();
        let receipt = self.control.submit(request, false).await.ok();
        (begun.elapsed(), receipt.map(|receipt| receipt.revision))
    }
}

fn version(name: &str) -> VersionName {
    VersionName::new(name).expect("a name")
}

fn configuration(canary_percent: f64) -> String {
    let of = |service: &str, path: &str| {
        format!(
            r#"
[services.{service}]
match = [{{ path = "{path}" }}]
baseline = "1.0.0"
split = {{ "1.0.0" = {:.2}, "2.0.0" = {canary_percent:.2} }}
[services.{service}.versions."1.0.0"]
endpoints = ["127.0.0.1:9"]
[services.{service}.versions."2.0.0"]
endpoints = ["127.0.0.1:9"]
"#,
            100.0 - canary_percent
        )
    };
    let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n";
    format!("{tenants}{}{}", of("shop", "/"), of("beside", "/beside"))
}

async fn until(what: &str, so: impl Fn() -> bool) {
    let begun = Instant::now();
    while !so() {
        assert!(begun.elapsed() < Duration::from_secs(60), "{what} not in time");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Of sorted times the one that so many of a thousand do not exceed, in milliseconds.
fn ms(times: &mut [Duration], per_1000: usize) -> f64 {
    times.sort();
    times
        .get((times.len() * per_1000 / 1000).min(times.len().saturating_sub(1)))
        .map_or(f64::NAN, |t| t.as_secs_f64() * 1e3)
}

fn spread() {
    println!(
        "| tenants with splits of their own | a change is answered after, ms: p50, p99, at most | it is in effect on both others after, ms: p50, p99, at most |"
    );
    println!("|---|---|---|");
    for tenants in [10, 100_000] {
        let runtime = Runtime::new().expect("a runtime");
        runtime.block_on(spread_once(tenants));
        runtime.shutdown_timeout(Duration::from_secs(5));
    }
}

async fn spread_once(tenants: usize) {
    let etcd = Etcd::start();
    fill(&etcd, tenants).await;
    let text = configuration(0.0);
    let mut fleet = Vec::new();
    for number in 0..3 {
        fleet.push(Member::join(&etcd, &text, number, false).await);
    }
    let (mut answered, mut everywhere) = (Vec::new(), Vec::new());
    for n in 0..CHANGES {
        let tenant = TenantName::new(&format!("tenant-{}", n * 7_919 % tenants)).expect("a name");
        let begun = Instant::now();
        let (took, revision) = fleet[n % 3].change("shop", Scope::Tenant(tenant), 1 + n as u16 % 99).await;
        let revision = revision.expect("the change is made");
        until("a change is everywhere", || fleet.iter().all(|member| member.revision() >= revision)).await;
        everywhere.push(begun.elapsed());
        answered.push(took);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let row = |times: &mut [Duration]| format!("{:.1}, {:.1}, {:.1}", ms(times, 500), ms(times, 990), ms(times, 1000));
    println!("| {tenants} | {} | {} |", row(&mut answered), row(&mut everywhere));
}

/// Puts a state with so many tenants into etcd, in one commit.
async fn fill(etcd: &Etcd, tenants: usize) {
    let folder = tempfile::tempdir().expect("a folder");
    many_tenants::many_tenants(folder.path(), tenants).await;
    let from = EmbeddedStore::open(&folder.path().join("switchback.db"), Options::default()).expect("it opens");
    let puts = from.load().await.expect("it is read").documents.into_iter().map(|d| (d.key, d.body)).collect();
    let (endpoints, prefix) = (vec![etcd.url("http")], "/switchback".to_owned());
    let access = Access { endpoints, prefix, user: None, ca: None, identity: None, compact: false };
    let to = EtcdStore::open(access, KEEP_EVENTS);
    to.commit(Commit { expected: 0, revision: 1, puts, ..Commit::default() }).await.expect("it is written");
    to.close().await;
}

/// A proxy as a process of its own; killed when dropped.
struct Proxy {
    child: Child,
    admin: String,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _gone = (self.child.kill(), self.child.wait());
    }
}

impl Proxy {
    async fn start(etcd: &Etcd, folder: &Path, client: &reqwest::Client) -> Self {
        let free = || std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("its address");
        let (proxy, admin) = (free(), free());
        let process = format!("[proxy]\nlisten = [\"{proxy}\"]\n[admin]\nlisten = \"{admin}\"\n");
        let text = format!("{process}[store]\netcd = [\"{}\"]\n{}", etcd.url("http"), configuration(10.0));
        let file = folder.join("switchback.toml");
        std::fs::write(&file, text).expect("the configuration is written");
        let child = Command::new(env!("CARGO_BIN_EXE_switchback"))
            .args(["serve", "--config"])
            .arg(&file)
            .env("RUST_LOG", "error")
            .stdout(Stdio::null())
            .spawn()
            .expect("the proxy starts");
        let started = Self { child, admin: format!("http://{admin}") };
        let begun = Instant::now();
        while matches!(started.role(client).await.as_str(), "" | "alone") {
            assert!(begun.elapsed() < Duration::from_secs(60), "it does not join");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        started
    }

    async fn role(&self, client: &reqwest::Client) -> String {
        let answer = client.get(format!("{}/v1/status", self.admin)).send().await;
        let status: Value = match answer {
            Ok(answer) => answer.json().await.unwrap_or_default(),
            Err(_) => Value::Null,
        };
        status["fleet"]["role"].as_str().unwrap_or_default().to_owned()
    }
}

fn failover(rounds: usize) {
    Runtime::new().expect("a runtime").block_on(async {
        let etcd = Etcd::start();
        let client = reqwest::Client::builder().no_proxy().timeout(Duration::from_secs(5)).build().expect("a client");
        let folders: Vec<_> = (0..3).map(|_| tempfile::tempdir().expect("a folder")).collect();
        // In the order in which they joined: the first leads.
        let mut fleet = std::collections::VecDeque::new();
        for folder in &folders {
            fleet.push_back((Proxy::start(&etcd, folder.path(), &client).await, folder));
        }
        let mut times = Vec::new();
        for round in 0..rounds as u64 {
            // At another moment between two signs of life in each round.
            tokio::time::sleep(Duration::from_millis(1_000 + round * 379 % 1_000)).await;
            let (mut leader, folder) = fleet.pop_front().expect("three");
            assert_eq!(leader.role(&client).await, "leader");
            leader.child.kill().expect("it runs");
            let begun = Instant::now();
            while fleet[0].0.role(&client).await != "leader" {
                assert!(begun.elapsed() < Duration::from_secs(30), "nobody leads");
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            times.push(begun.elapsed());
            drop(leader);
            fleet.push_back((Proxy::start(&etcd, folder.path(), &client).await, folder));
        }
        println!("| kills of the leader | another one leads after, s: median, at most |\n|---|---|");
        println!("| {rounds} | {:.2}, {:.2} |", ms(&mut times, 500) / 1e3, ms(&mut times, 1000) / 1e3);
    });
}

//! What etcd has to do for the counts of a fleet: the members are in this process, etcd is one of its own.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use switchback::model::{Scope, ServiceName, TenantName};
use switchback::routing::split_for;
use switchback::store::{Note, Role};
use switchback::telemetry::{Draw, FailureKind, Outcome, Start};
use tokio::runtime::Builder;
use tokio::task::JoinHandle;

use super::etcd_server::Etcd;
use super::{Member, configuration, ms, version};

/// Parts of a second in which a member counts its share of the scopes.
const SLOTS: usize = 20;
/// How long a fleet works before it is measured.
const WARM_UP: Duration = Duration::from_secs(8);
/// Between two changes of a split beside the load.
const CHANGE: Duration = Duration::from_millis(500);
/// Scopes whose counts are followed to the leader.
const FOLLOWED: usize = 20;
/// Scopes of all members together up to which each member has a guard of its own.
const GUARDED: usize = 3_000;
/// What a member without a guard has counted of each scope before, so that its numbers are as long as after a day.
const BEFORE: u64 = 86_400;

/// What etcd says of itself, and what this process used.
struct Reading {
    etcd_cpu: f64,
    own_cpu: f64,
    puts: f64,
    bytes: f64,
    database: f64,
    at: Instant,
}

impl Reading {
    async fn now(etcd: &Etcd) -> Self {
        let answer = reqwest::get(format!("{}/metrics", etcd.url("http"))).await.expect("etcd answers");
        let text = answer.text().await.expect("its metrics");
        let of = |name: &str| {
            let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse::<f64>().ok());
            value.unwrap_or_else(|| panic!("etcd has no metric {name}"))
        };
        let stat = std::fs::read_to_string("/proc/self/stat").expect("there is one");
        let fields: Vec<_> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
        // In hundredths of a second, at 11 and 12 behind the name.
        let ticks: f64 = [11, 12].iter().filter_map(|n: &usize| fields.get(*n)?.parse::<f64>().ok()).sum();
        Self {
            etcd_cpu: of("process_cpu_seconds_total"),
            own_cpu: ticks / 100.0,
            puts: of("etcd_mvcc_put_total"),
            bytes: of("etcd_debugging_mvcc_total_put_size_in_bytes"),
            database: of("etcd_mvcc_db_total_size_in_bytes"),
            at: Instant::now(),
        }
    }
}

/// Measures each number of members with each number of splits, and prints a table.
pub fn load(members: &[usize], splits: &[usize], seconds: Duration, failing: usize) {
    println!(
        "| members | splits of each | etcd's CPU, of one core | puts/s | KiB/s put | etcd's DB, MiB | counts heard by the leader after, ms: p50, p99 | a change of a split, ms: p50, p99 | CPU of all members |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for members in members {
        for splits in splits {
            // More threads than cores: a guard that looks at much must not hold up the members that would be elsewhere.
            let runtime = Builder::new_multi_thread().worker_threads(16).enable_all().build().expect("a runtime");
            runtime.block_on(load_once(*members, *splits, seconds, failing));
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

/// When a scope's counts grew at the only member that sends requests of it to the canary, so that the leader's sum tells which
/// of them it has heard.
type Counted = Arc<Vec<Mutex<Vec<Instant>>>>;

async fn load_once(members: usize, splits: usize, seconds: Duration, failing: usize) {
    let etcd = Etcd::start();
    let text = configuration(100.0 / members as f64);
    let guards = if members * splits > GUARDED { 2 } else { members };
    let mut fleet = Vec::new();
    for number in 0..members {
        fleet.push(Arc::new(Member::join(&etcd, &text, number, number < guards).await));
    }
    assert_eq!(fleet[0].role(), Role::Leader, "the first one leads");
    let counted: Counted = Arc::new((0..splits).map(|_| Mutex::default()).collect());
    let mut tasks = Vec::new();
    for (number, member) in fleet.iter().enumerate() {
        let (member, place, counted) = (member.clone(), (number, members), counted.clone());
        tasks.push(match number < guards {
            true => tokio::spawn(count(member, place, counted, failing)),
            false => tokio::spawn(write_pages(member, place, counted)),
        });
    }
    let ages = Arc::new(Mutex::new(Vec::new()));
    tokio::time::sleep(WARM_UP).await;
    let (least, before) = if guards < members { (guards, BEFORE) } else { (1, 0) };
    let scopes: Vec<_> = (0..splits).filter(|scope| scope % members >= least).collect();
    let some: Vec<_> = scopes.iter().step_by((scopes.len() / FOLLOWED).max(1)).copied().collect();
    tasks.push(tokio::spawn(listen(fleet[0].clone(), (some, before), counted, ages.clone())));
    let before = Reading::now(&etcd).await;
    let (mut changes, mut refused) = (Vec::new(), 0);
    while before.at.elapsed() < seconds {
        let percent = 10 + changes.len() as u16 % 50;
        let (took, revision) = fleet[members - 1].change("beside", Scope::Service, percent).await;
        changes.push(took);
        refused += usize::from(revision.is_none());
        tokio::time::sleep(CHANGE).await;
    }
    let after = Reading::now(&etcd).await;
    tasks.iter().for_each(JoinHandle::abort);
    let took = (after.at - before.at).as_secs_f64();
    let mut ages = std::mem::take(&mut *ages.lock().expect("whole"));
    assert!(!ages.is_empty(), "the leader hears what the others count: are the pages still of its format?");
    println!(
        "| {members} | {splits} | {:.0} % | {:.0} | {:.0} | {:.0} | {:.0}, {:.0} | {:.1}, {:.1} | {:.0} % |",
        (after.etcd_cpu - before.etcd_cpu) / took * 100.0,
        (after.puts - before.puts) / took,
        (after.bytes - before.bytes) / took / 1024.0,
        after.database / f64::from(1 << 20),
        ms(&mut ages, 500),
        ms(&mut ages, 990),
        ms(&mut changes, 500),
        ms(&mut changes, 990),
        (after.own_cpu - before.own_cpu) / took * 100.0,
    );
    if refused > 0 {
        println!("{refused} of {} changes got no answer in time.", changes.len());
    }
    let led = fleet[0].control.fleet().map_or(0, |fleet| fleet.members.len());
    if (led, fleet[0].role()) != (members, Role::Leader) {
        println!("In the end {led} of {members} members were there, and the first was {:?}.", fleet[0].role());
    }
}

/// Counts one request of each scope in each second, spread over it.
async fn count(member: Arc<Member>, (number, members): (usize, usize), counted: Counted, failing: usize) {
    let service = ServiceName::new("shop").expect("a name");
    let versions = [version("1.0.0"), version("2.0.0")];
    let names: Vec<_> = (0..counted.len()).map(|scope| format!("tenant-{scope}")).collect();
    let tally = member.tallies.service(&service);
    let mut every = tokio::time::interval(Duration::from_secs(1) / SLOTS as u32);
    for slot in number.. {
        every.tick().await;
        let view = member.control.view();
        let route = view.routes.service("shop").expect("it is configured");
        for scope in (slot % SLOTS..names.len()).step_by(SLOTS) {
            let canary = scope % members == number;
            let now_us = member.clock.now_us();
            let mut ticket = tally.begin(&Start {
                tenant: Some(&names[scope]),
                version: &versions[usize::from(canary)],
                now_us: now_us.saturating_sub(5_000),
                draw: Draw::Coin,
                split: Some(split_for(&view.routes, route, Some(&names[scope])).0),
                pooled: false,
            });
            let fails = (slot / SLOTS * 7 + scope * 13) % 1000 < failing;
            let outcome = if fails { Outcome::failed(FailureKind::Status, 503) } else { Outcome::served(200) };
            ticket.answered(now_us);
            if canary {
                counted[scope].lock().expect("whole").push(Instant::now());
            }
            ticket.finish(outcome, now_us);
        }
    }
}

/// A page as the guard writes it: by service its versions and scopes; a scope's tenant, its arms by epoch, the attempt and the keys
/// that spoke in it; an arm's version, share, coins, requests, failures, signals and since when it fails.
type Arm = (u8, u16, u64, u64, u64, [(u64, u64); 4], Option<u64>);
type PageScope<'a> = (Option<&'a str>, [(u64, [Arm; 2]); 1], u64, [(u8, u8, u64); 0]);
type Page<'a> = (u8, [(&'a str, [&'a str; 2], Vec<PageScope<'a>>); 1]);

/// Counts as [`count`] does and writes it as the publisher of the guard would: pages of 64 scopes, once a second those that
/// waited longest, within this member's share of the 2 MiB.
async fn write_pages(member: Arc<Member>, (number, members): (usize, usize), counted: Counted) {
    let names: Vec<_> = (0..counted.len()).map(|scope| format!("tenant-{scope}")).collect();
    let mut counts = vec![BEFORE; names.len()];
    let view = member.control.view();
    let split = &view.routes.service("shop").expect("it is configured").state.split;
    let points = split.weights().share("2.0.0").points();
    let membership = member.control.membership().expect("etcd has members");
    let budget = ((2 << 20) / members).clamp(8 << 10, 256 << 10);
    let arm = |version: u8, count: u64| {
        let share = if version == 1 { points } else { 10_000 - points };
        (version, share, count, count, 0, [(count, 0), (0, 0), (0, 0), (count, 0)], None)
    };
    let (mut next, mut written) = (0, Instant::now());
    let mut every = tokio::time::interval(Duration::from_secs(1) / SLOTS as u32);
    for slot in number.. {
        every.tick().await;
        for scope in (slot % SLOTS..names.len()).step_by(SLOTS) {
            counts[scope] += 1;
            if scope % members == number {
                counted[scope].lock().expect("whole").push(Instant::now());
            }
        }
        if written.elapsed() < Duration::from_secs(1) {
            continue;
        }
        written = Instant::now();
        let (mut notes, mut bytes) = (Vec::new(), 0);
        for _ in 0..names.len().div_ceil(64) {
            let scope = |scope: usize| {
                let count = |canary: bool| if canary == (scope % members == number) { counts[scope] } else { 0 };
                (
                    Some(names[scope].as_str()),
                    [(split.epoch, [arm(0, count(false)), arm(1, count(true))])],
                    split.attempt,
                    [],
                )
            };
            let scopes = (next * 64..names.len().min(next * 64 + 64)).map(scope).collect();
            let page: Page = (1, [("shop", ["1.0.0", "2.0.0"], scopes)]);
            let body = encode(&page);
            bytes += body.len();
            if bytes > budget && !notes.is_empty() {
                break;
            }
            notes.push(Note { name: format!("counts/{next:03}"), body: Some(body) });
            next = (next + 1) % names.len().div_ceil(64);
        }
        let _told_again = membership.write(notes).await;
    }
}

/// Sequences have their length in front in this form, arrays and tuples have none.
fn encode((format, [(service, versions, scopes)]): &Page<'_>) -> Vec<u8> {
    let scope = |(tenant, epochs, attempt, keys): &PageScope<'_>| {
        let epochs = epochs.map(|(epoch, arms)| (epoch, arms.to_vec())).to_vec();
        (tenant.map(str::to_owned), epochs, *attempt, keys.to_vec())
    };
    let scopes: Vec<_> = scopes.iter().map(scope).collect();
    let services = vec![(service, versions.to_vec(), scopes)];
    postcard::to_extend(&services, vec![*format]).expect("it has such a form")
}

/// Looks at what the leader has heard of some scopes, and how old it is.
async fn listen(
    leader: Arc<Member>,
    (scopes, before): (Vec<usize>, u64),
    counted: Counted,
    ages: Arc<Mutex<Vec<Duration>>>,
) {
    let service = ServiceName::new("shop").expect("a name");
    let of = |scope: &usize| (*scope, TenantName::new(&format!("tenant-{scope}")).expect("a name"), None::<usize>);
    let mut scopes: Vec<_> = scopes.iter().map(of).collect();
    loop {
        for (scope, tenant, known) in &mut scopes {
            let reports = leader.control.board().of(&service, Some(tenant));
            let heard = reports.first().map_or(0, |report| report.requests.saturating_sub(before) as usize);
            let times = counted[*scope].lock().expect("whole");
            // What was heard before somebody looked is of no known age.
            let new = &times[known.unwrap_or(heard).min(times.len())..heard.min(times.len())];
            ages.lock().expect("whole").extend(new.iter().map(Instant::elapsed));
            *known = Some(heard);
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

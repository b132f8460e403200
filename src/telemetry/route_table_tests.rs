//! The table of routes: who gets a place, who keeps it, and that counts and history agree.

use super::*;
use crate::model::ServiceName;
use crate::telemetry::{ServiceTally, Tallies, VersionStats, Windows};

const MINUTE_US: u64 = 60_000_000;

fn version(name: &str) -> VersionName {
    VersionName::new(name).unwrap()
}

/// A request that version `1` answers with this status at this minute.
fn ask(table: &RouteTable, route: &str, status: u16, minute: u64) {
    ask_on(table, "1", route, status, minute);
}

fn ask_on(table: &RouteTable, name: &str, route: &str, status: u16, minute: u64) {
    let failed = status >= 500;
    let outcome = if failed { Outcome::failed(FailureKind::Status, status) } else { Outcome::served(status) };
    table.count(&request(route, &version(name), outcome, Some(status), minute));
}

fn request<'a>(
    route: &'a str,
    version: &'a VersionName,
    outcome: Outcome,
    answered: Option<u16>,
    minute: u64,
) -> RouteRequest<'a> {
    let latency_us = answered.map(|_| 10_000);
    RouteRequest { route, configured: false, version, outcome, answered, latency_us, now_us: minute * MINUTE_US }
}

fn names(table: &RouteTable) -> Vec<String> {
    table.names().iter().map(ToString::to_string).collect()
}

fn requests(table: &RouteTable, route: &str) -> u64 {
    let entries = table.entries();
    let of = entries.iter().filter(|e| *e.route.name == *route).flat_map(|e| &e.versions);
    of.map(|c| c.ended()).sum()
}

#[test]
fn only_what_a_version_knows_gets_a_place() {
    let table = RouteTable::default();
    for status in [404, 405, 401, 403, 400, 410, 429] {
        ask(&table, "GET /junk", status, 0);
    }
    assert_eq!(names(&table), [OTHER_ROUTE]);
    let left = Outcome { fault: Fault::ClientLeft, status: 0 };
    let refused = Outcome { fault: Fault::Refused, status: 413 };
    let no_connection = Outcome::failed(FailureKind::Connect, 502);
    for (i, outcome) in [left, refused, no_connection].into_iter().enumerate() {
        table.count(&request(&format!("GET /junk/{i}"), &version("1"), outcome, None, 0));
    }
    assert_eq!(names(&table), [OTHER_ROUTE]);
    assert_eq!(requests(&table, OTHER_ROUTE), 10);
    for (route, status) in [("ok", 200), ("moved", 302), ("fails", 500), ("switches", 101)] {
        ask(&table, route, status, 0);
    }
    table.count(&request("hangs", &version("1"), Outcome::failed(FailureKind::Timeout, 504), None, 0));
    table.count(&request("left late", &version("1"), left, Some(200), 0));
    assert_eq!(names(&table), ["fails", "hangs", "left late", "moved", "ok", "switches", OTHER_ROUTE]);
    ask(&table, "ok", 404, 0);
    assert_eq!(requests(&table, "ok"), 2, "a known route keeps its client errors");
}

#[test]
fn the_table_is_bounded_and_idle_routes_give_way() {
    let table = RouteTable::default();
    for i in 0..MAX_ROUTES {
        ask(&table, &format!("r{i:03}"), 200, i as u64 / 20);
    }
    ask(&table, "late", 200, 5);
    assert_eq!((table.names().len(), requests(&table, OTHER_ROUTE)), (MAX_ROUTES + 1, 1));
    // Everyone but the first twenty goes on.
    for i in 20..MAX_ROUTES {
        ask(&table, &format!("r{i:03}"), 200, 14);
    }
    ask(&table, "late", 200, 14);
    assert_eq!(requests(&table, "late"), 0, "fourteen minutes are not enough");
    for i in 0..30 {
        ask(&table, &format!("new{i}"), 200, 16);
    }
    let names = names(&table);
    assert_eq!(names.len(), MAX_ROUTES + 1);
    assert_eq!(names.iter().filter(|n| n.starts_with("new")).count(), 20);
    assert!((20..MAX_ROUTES).all(|i| names.contains(&format!("r{i:03}"))));
    for minute in 17..40 {
        ask(&table, "r099", 200, minute);
    }
    ask(&table, "later still", 200, 40);
    assert_eq!(requests(&table, "later still"), 1, "the note that the table is full does not last for ever");
    assert_eq!(requests(&table, "r099"), 1 + 1 + 23);
}

#[test]
fn routes_of_the_operator_come_first() {
    let table = RouteTable::default();
    (0..MAX_ROUTES).for_each(|i| ask(&table, &format!("r{i}"), 200, i as u64 / 20));
    let one = version("1");
    let mine = RouteRequest { configured: true, ..request("mine", &one, Outcome::served(404), Some(404), 5) };
    table.count(&mine);
    let gone: Vec<_> = (0..MAX_ROUTES).filter(|i| requests(&table, &format!("r{i}")) == 0).collect();
    assert_eq!((requests(&table, "mine"), gone.len(), table.names().len()), (1, 1, MAX_ROUTES));
    assert!(gone[0] < 20, "the one that was not seen for longest: {gone:?}");
    for i in 0..MAX_ROUTES {
        let name = format!("mine{i}");
        table.count(&RouteRequest { route: &name, now_us: 6 * MINUTE_US, ..mine });
    }
    let mine = names(&table).iter().filter(|n| n.starts_with("mine")).count();
    assert_eq!((mine, requests(&table, OTHER_ROUTE)), (MAX_ROUTES, 1), "there are never more of them in a file");
}

#[test]
fn names_of_one_hash_are_not_mixed_up() {
    let table = RouteTable::default();
    ask(&table, "real", 200, 0);
    let route =
        Route { id: 99, name: "twin".into(), configured: AtomicBool::new(false), last_seen_s: AtomicU32::new(0) };
    let hash = xxh3_64(b"forged");
    table.change(|routes| {
        let at = routes.partition_point(|e| e.hash < hash);
        routes.insert(
            at,
            Entry { hash, route: Arc::new(route), versions: vec![Arc::new(RouteCounts::new(&version("1")))] },
        );
    });
    ask(&table, "forged", 200, 0);
    assert_eq!((requests(&table, "twin"), requests(&table, "forged"), requests(&table, OTHER_ROUTE)), (0, 0, 1));
}

#[test]
fn versions_and_routes_are_forgotten() {
    let table = RouteTable::default();
    ask_on(&table, "1", "both", 200, 0);
    ask_on(&table, "2", "both", 200, 0);
    ask_on(&table, "2", "only new", 200, 0);
    table.forget_version(&version("2"));
    assert_eq!((names(&table), requests(&table, "both")), (vec!["both".to_owned()], 1));
    table.clear();
    assert_eq!(names(&table), [""; 0]);
}

#[test]
fn threads_count_every_request_once() {
    let table = RouteTable::default();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let table = &table;
            scope.spawn(move || {
                for i in 0..5_000 {
                    ask_on(table, ["1", "2"][thread % 2], &format!("r{}", i % 150), 200, 0);
                }
            });
        }
    });
    let all: u64 = table.names().iter().map(|n| requests(&table, n)).sum();
    assert_eq!((all, table.names().len()), (20_000, MAX_ROUTES + 1));
}

fn service() -> (Tallies, Arc<ServiceTally>) {
    let tallies = Tallies::new(4);
    let service = tallies.service(&ServiceName::new("accounting").unwrap());
    (tallies, service)
}

fn of<'s>(stats: &'s [VersionStats], name: &str) -> &'s VersionStats {
    stats.iter().find(|s| s.version == version(name)).unwrap()
}

#[test]
fn windows_tell_what_came_to_a_route_lately() {
    let (_tallies, service) = service();
    let (mut windows, table) = (Windows::default(), service.routes());
    let stats = |windows: &Windows, name: &str, window: Option<u64>, minute: u64| {
        let id = windows.route_id(service.service(), name)?;
        let stats = windows.route_stats(service.service(), id, window, minute * 60_000)?;
        assert!(stats.versions.iter().all(|(s, latency)| latency.iter().sum::<u64>() == s.requests));
        Some(stats.versions.into_iter().map(|(s, _)| s).collect::<Vec<_>>())
    };
    for minute in 0..3 {
        for i in 0..10 {
            ask_on(table, "1", "a", 200, minute);
            ask_on(table, "2", "a", if i < 3 { 500 } else { 200 }, minute);
        }
        ask_on(table, "1", "b", 200, minute);
        windows.record_routes(minute * 60_000, &service);
        windows.record_routes(minute * 60_000 + 900, &service);
    }
    let lately = stats(&windows, "a", Some(30_000), 2).unwrap();
    assert_eq!((of(&lately, "1").requests, of(&lately, "2").failed), (10, 3));
    assert!((of(&lately, "2").error_rate - 0.3).abs() < 1e-9);
    assert!((of(&lately, "1").p99_s.unwrap() - 0.01).abs() < 0.001);
    let all = stats(&windows, "a", None, 2).unwrap();
    assert_eq!((of(&all, "1").requests, of(&all, "2").failures[FailureKind::Status.index()]), (30, 9));
    service.forget_version(&version("2"));
    windows.record_routes(181_000, &service);
    assert_eq!(stats(&windows, "a", None, 4).unwrap().len(), 1);
    windows.sweep(100 * 60_000);
    assert_eq!(stats(&windows, "a", Some(900_000), 100).unwrap()[0].requests, 0);
    assert_eq!(windows.routes(service.service()).len(), 2);
    table.clear();
    windows.record_routes(101 * 60_000, &service);
    assert!(windows.routes(service.service()).is_empty() && stats(&windows, "a", None, 101).is_none());
}

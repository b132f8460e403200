//! The verbs of the command line against a scripted admin API: the real binary runs, a fake server answers.
//!
//! What is checked is what goes over the wire (method, path with its percent-encoding, headers, body) and what the user
//! gets (standard output, standard error, exit code), so that CLI and API can change apart without drifting apart.

mod fake;

use std::io::Read as _;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use axum::http::{StatusCode, header};
use axum::response::IntoResponse as _;
use serde_json::{Value, json};

use fake::{Fake, Ran, cli, json_answer, problem};

fn receipt() -> Value {
    json!({"revision": 17, "event": 42, "dry_run": false,
        "before": {"weights": {"1.0.0": 100}}, "after": {"weights": {"1.0.0": 90, "2.0.0": 10}}})
}

fn split() -> Value {
    json!({"service": "accounting", "weights": {"1.0.0": 90, "2.0.0": 10}, "epoch": 3, "attempt": 3,
        "source": "service", "braked": false, "rolled_back": null, "revision": 17})
}

fn summary() -> Value {
    json!({"name": "accounting", "baseline": "1.0.0", "weights": {"1.0.0": 90, "2.0.0": 10}, "hold": null, "rolled_back": null,
        "own_splits": 0, "requests_per_second": 12.5, "error_rate": 0.001, "verdict": "not_enough_evidence",
        "healthy_endpoints": {"1.0.0": [2, 2], "2.0.0": [1, 1]}})
}

fn status() -> Value {
    json!({"instance": "host-1", "version": "0.1.0", "revision": 17, "started": "2026-01-02T03:04:05Z", "uptime_seconds": 61.0,
        "ready": true, "draining": false, "read_only": false, "store": {"kind": "embedded", "path": "x.db", "up": true},
        "proxy": {"listen": ["127.0.0.1:8080"], "open_connections": 3}, "services": [summary()], "warnings": []})
}

fn service() -> Value {
    let endpoint = json!({"address": "127.0.0.1:7101", "healthy": true, "in_flight": 0, "ejected": false});
    json!({"name": "accounting", "revision": 17, "baseline": "1.0.0", "split": split(), "groups": {}, "hold": null,
        "pins": [{"kind": "tenant", "name": "acme", "pin": {"version": "2.0.0"}},
                 {"kind": "user", "name": "u", "pin": {"exclude": "2.0.0"}}],
        "versions": [{"name": "2.0.0", "source": "api", "role": "canary", "share": 10, "endpoints": [endpoint], "spec": {}}],
        "match": ["path /accounting"], "sticky": [], "guard": {}, "tenants_with_own_split": 0, "last_rollback": null})
}

fn event(id: u64, kind: &str) -> Value {
    json!({"id": id, "revision": id, "at": "2026-01-02T03:04:05Z", "kind": kind, "service": "accounting", "version": "2.0.0",
        "author": {"kind": "autopilot"}, "reason": "2.0.0 fails more often. It failed 9 of 100.", "first_bad_to_rollback_ms": 3200})
}

#[test]
fn reading_verbs_show_tables() {
    let fake = Fake::with([
        ("GET /v1/status", status()),
        ("GET /v1/services", json!({"services": [summary()]})),
        ("GET /v1/services/accounting", service()),
        ("GET /v1/services/accounting/split", split()),
    ]);
    let out = fake.run(&["status"]).done();
    assert!(out.starts_with("switchback 0.1.0  host-1  ready  up 1 min 1 s  revision 17\n"), "{out}");
    assert!(
        out.contains("1.0.0 90 %, 2.0.0 10 %  █████████░  12.5/s   0.1 %  3/3      not enough evidence\n"),
        "{out}"
    );
    assert!(!out.contains('\x1b'), "no colours without a terminal");
    for args in [&["services"][..], &["services", "list"]] {
        assert!(fake.run(args).done().contains("accounting  1.0.0 "));
    }
    assert!(fake.run(&["services", "get", "accounting"]).done().contains("tenant  acme  2.0.0\n"));
    assert!(
        fake.run(&["versions", "list", "accounting"]).done().contains("2.0.0    canary   10 %  1/1      api   127")
    );
    assert!(fake.run(&["split", "get", "accounting"]).done().contains("1.0.0     90 %  ██████████████████░░\n"));
    let seen = fake.seen();
    assert!(seen.iter().all(|s| s.header("authorization").is_none() && s.body.is_null()));
    assert!(seen[0].header("user-agent").unwrap().starts_with("switchback-cli/"));
}

#[test]
fn health_asks_without_a_token_and_says_why_not() {
    let plain = |status: u16, text: &str| {
        let status = StatusCode::from_u16(status).unwrap();
        (status, [(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text.to_owned()).into_response()
    };
    let fake = Fake::new(move |_, before| if before == 0 { plain(200, "ok") } else { plain(503, "draining") });
    assert_eq!(fake.run(&["health"]).done(), "ready\n");
    assert_eq!(fake.run(&["health"]).failed(1), "error: not ready: draining\n");
    assert!(fake.lines().iter().all(|line| line == "GET /readyz"), "{:?}", fake.lines());
    let other = Fake::with([("GET /readyz", json!({}))]);
    assert!(other.run(&["health"]).failed(1).contains("is this really the address of the admin API?"));
    let ran = Ran::from(cli(&["health", "--admin", "http://127.0.0.1:9"]).output().unwrap());
    assert_eq!((ran.code, ran.out.as_str()), (1, ""), "{ran:?}");
}

#[test]
fn maintenance_is_begun_ended_and_shown() {
    let on = json!({"message": "moving", "retry_after": "1h", "since": "2026-01-02T03:04:05Z",
        "author": {"kind": "person", "name": "ada"}});
    let fake = Fake::with([
        ("PUT /v1/services/accounting/maintenance", receipt()),
        ("PUT /v1/services/accounting/tenants/a%2Fb/maintenance?dry_run=true", json!({"dry_run": true})),
        ("DELETE /v1/services/accounting/maintenance?reason=moved", receipt()),
        ("GET /v1/services/accounting/maintenance", json!({"service": "accounting", "maintenance": on, "tenants": []})),
    ]);
    let out = fake.run(&["maintenance", "on", "accounting", "--message", "moving", "--reason", "disks"]).done();
    assert_eq!(out, "accounting is in maintenance, back in 10m (revision 17, event 42)\n");
    let args = ["maintenance", "on", "accounting", "--tenant", "a/b", "--retry-after", "1h", "--dry-run"];
    let out = fake.run(&args).done();
    assert_eq!(out, "dry run, nothing was changed: accounting, tenant a/b is in maintenance, back in 1h\n");
    let out = fake.run(&["maintenance", "off", "accounting", "--reason", "moved"]).done();
    assert_eq!(out, "accounting is served again (revision 17, event 42)\n");
    let out = fake.run(&["maintenance", "get", "accounting"]).done();
    assert!(out.contains("all of accounting") && out.contains("moving") && out.contains("ada"), "{out}");
    let seen = fake.seen();
    assert_eq!(seen[0].body, json!({"message": "moving", "retry_after": "10m", "reason": "disks"}));
    assert_eq!(seen[1].body, json!({"retry_after": "1h"}));
    let err = fake.run(&["maintenance", "on", "accounting", "--retry-after", "soon"]).failed(2);
    assert!(err.contains("\"soon\" is no duration"), "{err}");
    let gone = fake.run(&["maintenance", "off", "billing"]).failed(1);
    assert!(gone.contains("the script lacks"), "{gone}");
}

#[test]
fn a_version_is_disabled_enabled_and_its_tenants_listed() {
    let report = json!({"service": "accounting", "version": "2.0.0", "deprecated": {"since": "2026-06-01"},
        "tenants": [{"tenant": "acme", "requests": 7, "failures": 0, "last_seen": "2026-01-02T03:04:05Z", "by": "tenant"}],
        "more": true, "own_splits": 1, "pinned_tenants": 0, "requests_without_tenant": 0, "window_seconds": 60.0});
    let mut disabled = service();
    disabled["versions"][0]["role"] = json!("disabled");
    disabled["versions"][0]["disabled"] =
        json!({"author": {"kind": "person", "name": "ada"}, "reason": "a CVE", "since": "2026-01-02T03:04:05Z"});
    disabled["versions"][0]["spec"] = json!({"deprecated": {"since": "2026-06-01", "sunset": "2026-12-31"}});
    let fake = Fake::with([
        ("PUT /v1/services/accounting/versions/2.0.0/disabled", receipt()),
        ("DELETE /v1/services/accounting/versions/2.0.0/disabled?reason=mended", receipt()),
        ("GET /v1/services/accounting/versions/2.0.0/tenants?window=1m&limit=1", report),
        ("GET /v1/services/accounting", disabled),
        ("PUT /v1/services/accounting/versions/3.0.0", receipt()),
    ]);
    let out = fake.run(&["versions", "disable", "accounting", "2.0.0", "--reason", "a CVE"]).done();
    let sentence = "accounting: version 2.0.0 is disabled; the baseline has all its traffic (revision 17, event 42)\n";
    assert_eq!(out, sentence);
    assert_eq!(fake.seen()[0].body, json!({"reason": "a CVE"}));
    let out = fake.run(&["versions", "enable", "accounting", "2.0.0", "--reason", "mended"]).done();
    assert!(
        out.starts_with("accounting: version 2.0.0 is enabled; it gets traffic when a split or pin names it"),
        "{out}"
    );
    let ran = fake.run(&["versions", "tenants", "accounting", "2.0.0", "--window", "1m", "--limit", "1"]);
    assert_eq!(ran.code, 0);
    assert!(ran.out.contains("accounting 2.0.0  deprecated since 2026-06-01\n") && ran.out.contains("acme"), "{ran:?}");
    assert!(ran.err.contains("there are more"), "{ran:?}");
    let out = fake.run(&["versions", "list", "accounting"]).done();
    assert!(out.contains("2.0.0    disabled   10 %"), "{out}");
    assert!(out.contains("2.0.0: disabled by ada since ") && out.contains(": a CVE\n"), "{out}");
    assert!(out.contains("2.0.0: deprecated since 2026-06-01, ends 2026-12-31\n"), "{out}");
    let args = ["versions", "register", "accounting", "3.0.0", "--endpoint", "h:1", "--deprecated-since", "2026-06-01"];
    fake.run(&args).done();
    let deprecated = json!({"endpoints": ["h:1"], "deprecated": {"since": "2026-06-01"}});
    assert_eq!(fake.seen().last().unwrap().body, deprecated);
}

#[test]
fn everything_is_frozen_and_released() {
    let freeze = json!({"author": {"kind": "person", "name": "ada"}, "reason": "the database moves",
        "since": "2026-01-02T03:04:05Z", "until": "2026-01-02T05:04:05Z"});
    let mut frozen = status();
    frozen["freeze"] = freeze.clone();
    let answer = json!({"revision": 17, "event": 42, "dry_run": false, "before": null, "after": freeze});
    let fake = Fake::with([
        ("PUT /v1/freeze", answer),
        ("PUT /v1/freeze?dry_run=true", json!({"dry_run": true, "after": {"until": null}})),
        ("DELETE /v1/freeze?reason=moved", receipt()),
        ("GET /v1/status", frozen),
    ]);
    let out = fake.run(&["freeze", "--for", "2h", "--reason", "the database moves"]).done();
    let until = "no automation may advance anything until 2026-01-02 05:04:05; it may still shift back";
    assert_eq!(out, format!("{until} (revision 17, event 42)\n"));
    let out = fake
        .run(&["freeze", "--until", "2026-12-01T06:00:00Z", "--reason", "x", "--dry-run", "--if-revision", "9"])
        .done();
    assert!(out.contains("nothing was changed: no automation may advance anything until somebody ends it"), "{out}");
    let out = fake.run(&["unfreeze", "--reason", "moved"]).done();
    assert_eq!(out, "automation may advance again (revision 17, event 42)\n");
    let out = fake.run(&["status"]).done();
    let line = "\nfrozen by ada since 2026-01-02 03:04:05 until 2026-01-02 05:04:05: the database moves\n";
    assert!(out.contains(line), "{out}");
    let seen = fake.seen();
    assert_eq!(seen[0].body, json!({"reason": "the database moves", "for": "2h"}));
    assert_eq!(seen[1].body, json!({"reason": "x", "until": "2026-12-01T06:00:00Z"}));
    assert_eq!(seen[1].header("if-match"), Some("\"9\""));
    for wrong in [
        &["freeze"][..],
        &["freeze", "--reason", "x", "--for", "soon"],
        &["freeze", "--reason", "x", "--for", "1h", "--until", "y"],
    ] {
        fake.run(wrong).failed(2);
    }
}

#[test]
fn snapshots_are_taken_compared_restored_and_deleted() {
    let counts = json!({"groups": 1, "tenants": 7, "pins": 2, "held": false});
    let by = json!({"kind": "person", "name": "ada"});
    let list = json!({"most": 100, "snapshots": [{"name": "mon/day", "at": "2026-01-02T03:04:05Z", "author": by,
        "reason": "a sale", "revision": 9, "services": {"a": counts, "b": counts}}]});
    let of_service = json!({"baseline": "1", "weights": {"1": 90, "2": 10}, "groups": {"beta": {"2": 100}}, "hold": {},
        "pins_total": 2, "tenants_total": 101, "tenants": {"acme": {"1": 100}}});
    let one = json!({"name": "monday", "at": "2026-01-02T03:04:05Z", "author": by, "reason": "a sale", "revision": 9,
        "services": {"a": of_service}});
    let same = json!({"snapshot": "monday", "revision": 17, "same": true, "services": {"a": {"same": true}}});
    let told = json!({"changed": {"split": true, "tenants": 7, "pins": 0}, "withheld_versions": ["2"]});
    let restored = json!({"revision": 17, "event": 42, "dry_run": false, "after": {"services": {"a": told}}});
    let taken = json!({"revision": 17, "event": 42, "dry_run": false, "after": {"snapshot": "monday"}});
    let fake = Fake::with([
        ("POST /v1/snapshots", taken),
        ("GET /v1/snapshots", list),
        ("GET /v1/snapshots/monday", one),
        ("GET /v1/snapshots/monday/diff?service=a&service=b&force=true&limit=5", same),
        ("POST /v1/snapshots/monday/restore?dry_run=true", json!({"dry_run": true})),
        ("POST /v1/snapshots/monday/restore", restored),
        ("DELETE /v1/snapshots/mon%2Fday?reason=old", receipt()),
    ]);
    let out = fake.run(&["snapshot", "create", "monday", "--service", "a", "--reason", "a sale"]).done();
    assert_eq!(out, "snapshot monday is taken (revision 17, event 42)\n");
    fake.run(&["snapshot", "create"]).done();
    let out = fake.run(&["snapshot", "list"]).done();
    assert!(out.contains("mon/day  2026-01-02 03:04:05  ada         2       14     4  a sale\n"), "{out}");
    let out = fake.run(&["snapshot", "get", "monday"]).done();
    assert!(out.starts_with("snapshot monday of 2026-01-02 03:04:05 by ada, revision 9: a sale\n"), "{out}");
    assert!(out.contains("group beta") && out.contains("tenant acme") && out.contains("1 90 %, 2 10 %"), "{out}");
    assert!(out.ends_with("a: 100 tenants more\na: baseline 1, 2 pins, held\n"), "{out}");
    let diff = ["snapshot", "diff", "monday", "--service", "a", "--service", "b", "--force", "--limit", "5"];
    assert_eq!(fake.run(&diff).done(), "everything is as in monday\n");
    let restore = ["snapshot", "restore", "monday", "--reason", "over"];
    let out = fake.run(&[&restore[..], &["--dry-run"]].concat()).done();
    assert!(out.starts_with("dry run, nothing was changed: "), "{out}");
    let out = fake.run(&[&restore[..], &["--force", "--service", "a"]].concat()).done();
    assert_eq!(out, "went back to monday: a (split, 7 tenants, without 2) (revision 17, event 42)\n");
    fake.run(&["snapshot", "delete", "mon/day", "--reason", "old"]).done();
    let bodies: Vec<_> = fake.seen().into_iter().map(|s| s.body).filter(|b| !b.is_null()).collect();
    let expected = [
        json!({"name": "monday", "services": ["a"], "reason": "a sale"}),
        json!({}),
        json!({"reason": "over"}),
        json!({"reason": "over", "force": true, "services": ["a"]}),
    ];
    assert_eq!(bodies, expected);
    fake.run(&["snapshot", "restore", "monday"]).failed(2);
}

#[test]
fn json_is_the_documents_unchanged_and_yaml_says_the_same() {
    let fake = Fake::with([("GET /v1/status", status()), ("GET /v1/services/accounting/split", split())]);
    let out = fake.run(&["status", "-o", "json"]).done();
    assert_eq!(out, format!("{:#}\n", status()));
    let out = fake.run(&["-o", "yaml", "split", "get", "accounting"]).done();
    assert!(out.starts_with("service: accounting\nweights:\n  \"1.0.0\": 90\n"), "{out}");
    assert!(out.contains("\nrolled_back: null\n"), "{out}");
    // Numbers too: this needs the feature `float_roundtrip` of serde_json, which else may change the last digit.
    let exact = "{\n  \"services\": [\n    0.49803556301816565\n  ]\n}\n";
    let numbers = Fake::new(move |_, _| ([(header::CONTENT_TYPE, "application/json")], exact).into_response());
    assert_eq!(numbers.run(&["services", "-o", "json"]).done(), exact);
    let out = fake.run(&["version", "-o", "json"]).done();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap()["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn a_split_is_set_with_everything_that_was_asked() {
    let fake = Fake::new(|_, _| json_answer(200, "application/json", &receipt()));
    let out = fake.run(&["split", "set", "accounting", "2.0.0=10", "1.0.0"]).done();
    assert_eq!(out, "accounting: 1.0.0 100 % → 1.0.0 90 %, 2.0.0 10 % (revision 17, event 42)\n");
    fake.run(&[
        "split",
        "set",
        "a",
        "2=0.25",
        "1=99.75",
        "--tenant",
        "acme/eu 100%",
        "--reason",
        "try \"it\"",
        "--dry-run",
        "--if-revision",
        "16",
    ])
    .done();
    fake.run(&["split", "set", "a", "1", "--group", "beta"]).done();
    fake.run(&["split", "clear", "a", "--tenant", "..", "--reason", "a&b"]).done();
    fake.run(&["split", "clear", "a", "--group", "g"]).done();
    let seen = fake.seen();
    assert_eq!(
        fake.lines(),
        [
            "PUT /v1/services/accounting/split",
            "PUT /v1/services/a/tenants/acme%2Feu%20100%25/split?dry_run=true",
            "PUT /v1/services/a/groups/beta/split",
            "DELETE /v1/services/a/tenants/%2E%2E/split?reason=a%26b",
            "DELETE /v1/services/a/groups/g/split",
        ]
    );
    assert_eq!(seen[0].body, json!({"weights": {"2.0.0": 10, "1.0.0": 90}}));
    assert_eq!(seen[0].header("content-type"), Some("application/json"));
    assert_eq!(seen[0].header("if-match"), None);
    assert_eq!(seen[1].body, json!({"weights": {"2": 0.25, "1": 99.75}, "reason": "try \"it\""}));
    assert_eq!(seen[1].header("if-match"), Some("\"16\""));
    assert_eq!(seen[2].body, json!({"weights": {"1": 100}}));
}

#[test]
fn steering_verbs_call_their_resources() {
    let fake = Fake::new(|_, _| json_answer(200, "application/json", &receipt()));
    let cases: [(&[&str], &str, Value, &str); 10] = [
        (
            &["pin", "a", "user", "u@x#1", "2"],
            "PUT /v1/services/a/pins/user/u%40x%231",
            json!({"version": "2"}),
            "user u@x#1 is pinned to 2",
        ),
        (
            &["pin", "a", "tenant", "t", "2", "--exclude"],
            "PUT /v1/services/a/pins/tenant/t",
            json!({"exclude": "2"}),
            "is kept away from 2",
        ),
        (&["unpin", "a", "group", "g"], "DELETE /v1/services/a/pins/group/g", Value::Null, "follows the split again"),
        (&["hold", "a", "--reason", "fair"], "PUT /v1/services/a/hold", json!({"reason": "fair"}), "may not advance"),
        (&["release", "a"], "DELETE /v1/services/a/hold", Value::Null, "may advance again"),
        (
            &["keys", "rotate", "--reason", "a leak"],
            "POST /v1/keys/rotate",
            json!({"reason": "a leak"}),
            "a new key signs cookies",
        ),
        (&["baseline", "a", "2"], "PUT /v1/services/a/baseline", json!({"version": "2"}), "the baseline is 2"),
        (&["versions", "remove", "a", "2"], "DELETE /v1/services/a/versions/2", Value::Null, "2 is removed"),
        (
            &["versions", "register", "a", "2", "--endpoint", "10.0.0.1:80", "--endpoint", "{tenant}.x:80"],
            "PUT /v1/services/a/versions/2",
            json!({"endpoints": ["10.0.0.1:80", "{tenant}.x:80"]}),
            "version 2 is registered (revision 17, event 42)",
        ),
        (
            &[
                "versions",
                "register",
                "a",
                "3",
                "--endpoint",
                "h:80",
                "--health-path",
                "/up",
                "--connect-timeout",
                "1s",
                "--rewrite",
                "/v3=/",
                "--http2",
                "--tls",
                "--host",
                "h.example",
                "--reason",
                "new",
            ],
            "PUT /v1/services/a/versions/3",
            json!({"endpoints": ["h:80"], "health": {"path": "/up"}, "timeouts": {"connect": "1s"}, "host": "h.example",
                "rewrite": {"from": "/v3", "to": "/"}, "http2": true, "tls": {}, "reason": "new"}),
            "is registered",
        ),
    ];
    for (args, line, body, sentence) in cases {
        let out = fake.run(args).done();
        let seen = fake.seen().pop().unwrap();
        assert_eq!((seen.line.as_str(), &seen.body), (line, &body), "{args:?}");
        assert!(out.contains(sentence), "{args:?}: {out}");
    }
}

#[test]
fn a_rollback_tells_what_is_left() {
    let after = json!({"weights": {"1.0.0": 100}, "source": "service", "revision": 18,
        "rolled_back": {"version": "2.0.0", "at": "2026-01-02T03:04:05Z", "event": 42}});
    let fake = Fake::with([
        ("POST /v1/services/accounting/rollback", receipt()),
        ("GET /v1/services/accounting/split", after),
        ("GET /v1/services/accounting", service()),
        ("POST /v1/services/accounting/tenants/a%2Fb/rollback?dry_run=true", json!({"dry_run": true})),
    ]);
    let out = fake.run(&["rollback", "accounting", "--reason", "it smells"]).done();
    for part in [
        "accounting: all traffic goes to the baseline (revision 17, event 42)\n",
        "1.0.0    100 %  ████████████████████\n",
        "2.0.0 was rolled back at 2026-01-02 03:04:05 (event 42)\n",
        "1 pin still leads to versions other than the baseline:\n  tenant acme to 2.0.0\n",
    ] {
        assert!(out.contains(part), "{part:?} is missing in:\n{out}");
    }
    assert_eq!(fake.seen()[0].body, json!({"reason": "it smells"}));
    let args = ["rollback", "accounting", "--tenant", "a/b", "--version", "2.0.0", "--reason", "r", "--dry-run"];
    let out = fake.run(&args).done();
    assert!(out.starts_with("dry run, nothing was changed: accounting, tenant a/b: 2.0.0 gives its share"), "{out}");
    assert_eq!(fake.seen()[3].body, json!({"reason": "r", "version": "2.0.0"}));
    let out = fake.run(&["rollback", "accounting", "--reason", "r", "-o", "json"]).done();
    assert_eq!(serde_json::from_str::<Value>(&out).unwrap(), receipt());
}

#[test]
fn a_rollback_is_done_even_if_the_rest_cannot_be_shown() {
    let fake = Fake::with([("POST /v1/services/a/rollback", receipt())]);
    let ran = fake.run(&["rollback", "a", "--reason", "r"]);
    assert_eq!(ran.code, 0);
    assert!(
        ran.out.contains("all traffic goes to the baseline") && ran.err.contains("The rollback is done"),
        "{ran:?}"
    );
}

#[test]
fn the_shadow_is_shown_by_itself_and_in_compare() {
    let field = json!({"path": "$.items[*].price", "kind": "type", "requests": 12, "rate": 0.02,
        "example": {"baseline": {"type": "null", "length": null}, "shadow": {"type": "string", "length": 9}}});
    let requests =
        json!({"same": 588, "different": 12, "failed": 0, "timeout": 3, "dropped": 1, "unjudged": 0, "waiting": 0});
    let quantiles = json!({"p50": 0.01, "p90": 0.02, "p99": 1.5});
    let shadow = json!({"service": "a", "version": "2", "baseline": "1", "active": true, "since": "2026-01-02T03:04:05Z",
        "settings": {"share": 10, "methods": ["GET", "HEAD"]}, "verdict": "breach", "requests": requests,
        "difference_rate": 0.02, "fields": [field], "fields_total": 1, "other_fields": 0,
        "statuses": [{"baseline": 200, "shadow": 500, "requests": 2}],
        "noise": {"samples": 61, "needed": 20, "fields": ["$.at", "$.id"]},
        "latency": {"baseline": quantiles, "shadow": {"p50": null}}, "without_credentials": 4});
    let mut early = shadow.clone();
    (early["active"], early["noise"]["samples"], early["fields"]) = (json!(false), json!(3), json!([]));
    let compare = json!({"service": "a", "since_seconds": 600, "a": {"version": "1"}, "b": {"version": "2"},
        "difference": {}, "tenants": [], "comparison": null, "shadow": shadow.clone()});
    let fake = Fake::with([
        ("GET /v1/services/a/shadow", shadow.clone()),
        ("GET /v1/services/early/shadow", early),
        ("GET /v1/services/a/compare?a=1&b=2&since=10m", compare),
    ]);
    let out = fake.run(&["shadow", "a"]).done();
    for part in [
        "a, 10 % of GET, HEAD, since 2026-01-02 03:04:05\n",
        "shadow 2 against 1: breach, 2 % differ\n  same 588, different 12, timeout 3, dropped 1\n",
        "  differ by themselves: $.at, $.id\n",
        "$.items[*].price  type           12    2 %  null      string(9)\n",
        "200                 500               2\n",
        "p99        1.50 s       -\n",
        "4 requests had credentials that the shadow was not given",
    ] {
        assert!(out.contains(part), "{part:?} is missing in:\n{out}");
    }
    assert_eq!(fake.run(&["shadow", "a", "-o", "json"]).done(), format!("{shadow:#}\n"));
    let out = fake.run(&["shadow", "early"]).done();
    assert!(out.contains("not copying") && out.contains("answered 20 requests twice; now 3\n"), "{out}");
    let out = fake.run(&["compare", "a", "1", "2"]).done();
    assert!(out.contains("shadow 2 against 1: breach, 2 % differ\n") && out.contains("$.items[*].price"), "{out}");
}

#[test]
fn analysis_verbs_pass_their_questions_on() {
    let versions = json!([{"version": "2", "role": "canary", "share": 10, "requests": 100, "error_rate": 0.09, "latency": {"p50": 0.01}}]);
    let stats = json!({"service": "a", "tenant": null, "window_seconds": 300, "versions": versions, "comparisons": [
        {"canary": "2", "baseline": "1", "verdict": "breach", "evidence": 20000.0, "threshold": 10000}],
        "detours": [{"from": "2", "to": "1", "rescues": {"saved": 31, "over_budget": 2, "failed": 0}, "assets_found": 0}]});
    let compare = json!({"service": "a", "tenant": null, "since_seconds": 600, "a": {"version": "1", "error_rate": 0.01},
        "b": versions[0], "difference": {"error_rate": 0.08}, "tenants": [], "comparison": null,
        "routes": [{"route": "GET /o/{id}", "a": {"requests": 9}, "b": {"requests": 8, "failures_total": 4, "error_rate": 0.5}}]});
    let explain = json!({"service": "a", "tenant": "t", "version": "2", "endpoints": ["h:1"], "path": "/x",
        "steps": [{"step": "match", "detail": "path /a"}, {"step": "split", "detail": "bucket 7"}]});
    let fake = Fake::with([
        ("GET /v1/services/a/stats?tenant=t%26u&window=5m", stats),
        ("GET /v1/services/a/compare?a=1&b=2&since=10m", compare.clone()),
        ("GET /v1/services/a/compare?a=1&b=2&since=5m&routes=100", compare),
        ("GET /v1/services/a/stats?route=GET%20%2Fo%2F%7Bid%7D", json!({"service": "a", "route": "GET /o/{id}"})),
        (
            "GET /v1/services/a/explain?tenant=t&key=k&path=%2Fa%3Fb&host=h&method=GET&header=x-a%3A1&header=x-b%3A2%2C3&address=%3A%3A1",
            explain,
        ),
        ("GET /v1/services/a/tenants?search=x", json!({"tenants": [{"name": "t", "split": split()}], "next": "t"})),
        ("POST /v1/reload", json!({"revision": 3, "changed": ["services.a"], "needs_restart": [], "warnings": []})),
    ]);
    let out = fake.run(&["stats", "a", "--tenant", "t&u", "--window", "5m"]).done();
    assert!(out.contains("2 against 1: breach, evidence 20000 (shifts back at 10000)"), "{out}");
    assert!(out.contains("From 2 to 1: 31 rescued, 2 over the budget\n"), "{out}");
    let out = fake.run(&["compare", "a", "1", "2"]).done();
    assert!(out.contains("error rate   1 %     9 %        +8 %\n"), "{out}");
    assert!(out.contains("GET /o/{id}     -/9 (-)  4/8 (50 %)"), "{out}");
    let out = fake.run(&["compare", "a", "1", "2", "--by", "route", "--since", "5m"]).done();
    assert!(out.contains("GET /o/{id}"), "{out}");
    let out = fake.run(&["stats", "a", "--route", "GET /o/{id}"]).done();
    assert!(out.starts_with("a, route GET /o/{id}, since"), "{out}");
    let ran = fake.run(&["stats", "a", "--route", "GET /o", "--tenant", "t"]);
    assert_eq!(ran.code, 2, "routes are counted over all tenants: {ran:?}");
    let args = [
        "explain",
        "a",
        "--tenant",
        "t",
        "--key",
        "k",
        "--path",
        "/a?b",
        "--host",
        "h",
        "--method",
        "GET",
        "--header",
        "x-a: 1",
        "--header",
        "x-b:2,3",
        "--address",
        "::1",
    ];
    let out = fake.run(&args).done();
    assert_eq!(out, "1. match  path /a\n2. split  bucket 7\n→ a 2 at h:1, path /x\n");
    let ran = fake.run(&["tenants", "list", "a", "--search", "x"]);
    assert!(ran.out.contains("t       1.0.0 90 %, 2.0.0 10 %\n"), "{ran:?}");
    assert_eq!(ran.err, "there are more: --after t\n");
    assert_eq!(fake.run(&["reload"]).done(), "reloaded, changed: services.a (revision 3)\n");
}

#[test]
fn events_are_lines_oldest_first() {
    let events = json!({"events": [event(8, "rollback"), event(7, "split_set")], "next": 7});
    let fake = Fake::with([
        ("GET /v1/events?service=accounting&kind=rollback&limit=50&order=desc", events.clone()),
        ("GET /v1/events?limit=2&after=6", events.clone()),
    ]);
    let out = fake.run(&["events", "--service", "accounting", "--kind", "rollback"]).done();
    let expected = "\
2026-01-02 03:04:05  accounting 2.0.0  split_set  autopilot  2.0.0 fails more often.
2026-01-02 03:04:05  accounting 2.0.0  rollback  autopilot  2.0.0 fails more often.
    2.0.0 fails more often. It failed 9 of 100.
    3.2 s from the first bad request to the rollback
";
    assert_eq!(out, expected);
    let ran = fake.run(&["events", "--limit", "2", "--after", "6", "-o", "json"]);
    assert_eq!(serde_json::from_str::<Value>(&ran.out).unwrap(), events, "{ran:?}");
}

/// Waits until the fake server has seen so many requests, and ends the program with Ctrl-C.
fn interrupted(mut command: Command, fake: &Fake, requests: usize) -> Ran {
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let deadline = Instant::now() + Duration::from_secs(20);
    while fake.seen().len() < requests && Instant::now() < deadline {
        std::thread::sleep(Duration::from_millis(20));
    }
    // The answer to the last request still has to be shown.
    std::thread::sleep(Duration::from_millis(300));
    assert!(Command::new("kill").args(["-INT", &child.id().to_string()]).status().unwrap().success());
    let (mut out, mut err) = (String::new(), String::new());
    child.stdout.take().unwrap().read_to_string(&mut out).unwrap();
    child.stderr.take().unwrap().read_to_string(&mut err).unwrap();
    Ran { code: child.wait().unwrap().code().unwrap_or(-1), out, err }
}

#[test]
fn following_events_comes_back_after_a_broken_stream() {
    let fake = Fake::new(|seen, before| {
        let stream = |text: String| ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response();
        let frame = |id| format!(": hi\n\nid: {id}\nevent: split_set\ndata: {}\n\n", event(id, "split_set"));
        match (seen.header("accept"), before) {
            (Some("text/event-stream"), 1) => stream(frame(8) + "id: 9\ndata: {\"half"),
            (Some("text/event-stream"), 2) => problem(503, json!({"title": "Draining"})),
            (Some("text/event-stream"), 3) => stream(frame(9)),
            (Some("text/event-stream"), _) => stream(": nothing new\n\n".to_owned()),
            _ => json_answer(200, "application/json", &json!({"events": [event(7, "split_set")], "next": null})),
        }
    });
    let ran = interrupted(fake.command(&["events", "-f", "-o", "json", "--tenant", "a b"]), &fake, 5);
    assert_eq!(ran.code, 0, "{ran:?}");
    let ids: Vec<Value> = ran.out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["id"].clone()).collect();
    assert_eq!(ids, [7, 8, 9], "none lost, none twice");
    assert!(ran.err.contains("trying again") && ran.err.contains("Draining"), "{ran:?}");
    let seen = fake.seen();
    assert_eq!(seen[0].line, "GET /v1/events?tenant=a%20b&limit=50&order=desc");
    assert_eq!(seen[1].line, "GET /v1/events?tenant=a%20b");
    let resumed: Vec<_> = seen[1..5].iter().map(|s| s.header("last-event-id").unwrap()).collect();
    assert_eq!(resumed, ["7", "8", "8", "9"]);
}

#[test]
fn following_ends_when_the_api_refuses() {
    let fake = Fake::new(|_, _| problem(401, json!({"title": "No token"})));
    let err = fake.run(&["events", "-f", "--after", "3"]).failed(1);
    assert!(err.starts_with("error: No token\n") && err.contains("SWITCHBACK_TOKEN"), "{err}");
    assert_eq!(fake.seen()[0].header("last-event-id"), Some("3"));
}

#[test]
fn watching_the_status_goes_on_until_it_is_interrupted() {
    let of = |revision: usize| {
        let mut status = status();
        status["revision"] = json!(revision);
        status
    };
    let fake = Fake::new(move |_, before| match before {
        2 | 3 => problem(503, json!({"title": "Draining"})),
        // It runs on, which is no news.
        n => {
            let mut status = of(n / 4);
            status["uptime_seconds"] = json!(n);
            json_answer(200, "application/json", &status)
        }
    });
    let command = |form: &str| fake.command(&["status", "-w", "--interval", "100ms", "-o", form]);
    let ran = interrupted(command("json"), &fake, 9);
    assert_eq!(ran.code, 0, "{ran:?}");
    let revisions: Vec<_> =
        ran.out.lines().map(|l| serde_json::from_str::<Value>(l).unwrap()["revision"].clone()).collect();
    assert_eq!(revisions[..3], [0, 1, 2], "a document for each change: {ran:?}");
    assert_eq!(ran.err, "Draining\n", "and a word for each trouble");
    let yaml = interrupted(command("yaml"), &fake, fake.seen().len() + 6);
    assert!(yaml.out.matches("---\n").count() >= 2 && !yaml.out.contains('\x1b'), "{yaml:?}");
}

#[test]
fn a_test_message_that_did_not_arrive_exits_with_1() {
    let result = |target: &str, ok: bool| json!({"target": target, "ok": ok, "detail": "so it is", "seconds": 0.1});
    let fake = Fake::with([(
        "POST /v1/notify/test",
        json!({"ok": false, "results": [result("team", true), result("mail", false)]}),
    )]);
    let ran = fake.run(&["notify", "test", "mail"]);
    assert_eq!(ran.code, 1);
    assert_eq!(ran.out, "team: reached, so it is\nmail: not reached, so it is\n");
    assert!(ran.err.contains("not reached: mail"), "{}", ran.err);
    assert_eq!(fake.seen()[0].body, json!({"target": "mail"}));
}

#[test]
fn a_refusal_shows_every_field_and_exits_with_1() {
    let fake = Fake::new(|seen, _| match seen.header("if-match") {
        Some(_) => problem(
            412,
            json!({"title": "Stale", "status": 412, "detail": "changed in between", "current_revision": 18}),
        ),
        None => problem(
            422,
            json!({"type": "about:blank", "title": "Not valid", "status": 422,
            "detail": "service accounting has no version \"2.0.1\"; it has: 1.0.0, 2.0.0",
            "errors": [{"field": "weights.2.0.1", "message": "unknown"}, {"field": "reason", "message": "too long"}]}),
        ),
    });
    let err = fake.run(&["split", "set", "accounting", "2.0.1=10", "1.0.0"]).failed(1);
    let expected = "error: Not valid: service accounting has no version \"2.0.1\"; it has: 1.0.0, 2.0.0\n  \
                    weights.2.0.1: unknown\n  reason: too long\n";
    assert_eq!(err, expected);
    let err = fake.run(&["hold", "a", "--if-revision", "1", "-o", "json"]).failed(1);
    assert!(err.contains("The document is at revision 18 now."), "{err}");
}

#[test]
fn wrong_usage_exits_with_2_and_asks_nobody() {
    let fake = Fake::with([]);
    let cases: [(&[&str], &str); 13] = [
        (&[], "Usage: switchback"),
        (&["rolback", "a"], "'rollback'"),
        (&["rollback", "a"], "--reason"),
        (&["rollback", "a", "--reason", ""], "--reason"),
        (&["split", "set", "a", "2=x", "1"], "\"x\" is no share; allowed are numbers from 0 to 100"),
        (&["split", "set", "a", "2", "1"], "2 and 1 have no number"),
        (&["split", "set", "a", "2=10", "1=80"], "the weights add up to 90 %, but must add up to 100 %"),
        (&["split", "get", "a", "--tenant", "t", "--group", "g"], "cannot be used with"),
        (&["pin", "a", "tenat", "t", "1"], "'tenant'"),
        (&["status", "-o", "xml"], "xml"),
        (&["status", "--admin", "ftp://x"], "allowed are addresses such as http://127.0.0.1:9900"),
        (&["status", "--token-file", "/does/not/exist"], "cannot be read from /does/not/exist"),
        (&["status", "--token", "a\nb"], "the token has characters"),
    ];
    for (args, part) in cases {
        let err = fake.run(args).failed(2);
        assert!(err.contains(part) && !err.contains("a\nb"), "{args:?}: {err}");
    }
    assert!(fake.seen().is_empty());
}

#[test]
fn each_kind_of_failure_has_its_exit_code() {
    let fake = Fake::new(|seen, _| match (seen.line.as_str(), seen.header("authorization")) {
        (_, Some("Bearer wrong")) => problem(401, json!({"title": "Unauthorized", "detail": "the token is unknown"})),
        (_, Some("Bearer viewer")) => problem(403, json!({"title": "Forbidden", "detail": "needs the role operator"})),
        ("GET /v1/services/acounting", _) => problem(
            404,
            json!({"title": "Not found", "suggestion": "accounting",
                "detail": "there is no service \"acounting\"; did you mean \"accounting\"?"}),
        ),
        ("GET /v1/status", _) => problem(503, json!({"title": "Store"})),
        (line, _) if line.starts_with("GET") => json_answer(200, "application/json", &json!({})),
        _ => problem(409, json!({"title": "In use", "detail": "2.0.0 has traffic"})),
    });
    let cases: [(&[&str], i32, &str); 10] = [
        (&["services"], 0, ""),
        (&["versions", "remove", "accounting", "2.0.0"], 1, "error: In use: 2.0.0 has traffic\n"),
        (&["hold", "accounting", "--token", "viewer"], 1, "The token's role does not allow this."),
        (&["hold", "accounting", "--token", "wrong"], 1, "Give a token with --token"),
        (
            &["services", "get", "acounting"],
            1,
            "error: there is no service \"acounting\"; did you mean \"accounting\"?\n",
        ),
        (&["status"], 1, "error: Store\n"),
        (&["status", "--admin", "http://127.0.0.1:1"], 1, "does not answer"),
        (&["services", "--ouptut", "json"], 2, "'--output'"),
        (&["services", "--token", "a\u{7f}"], 2, "the token has characters"),
        (&["rollout", "status", "r7", "--timeout", "soon"], 2, "is no duration"),
    ];
    for (args, code, text) in cases {
        let ran = fake.run(args);
        assert_eq!(ran.code, code, "{args:?}: {ran:?}");
        assert!(ran.err.contains(text) && (code == 0) == ran.err.is_empty(), "{args:?}: {ran:?}");
        assert!(code == 0 || ran.out.is_empty(), "messages are no data: {ran:?}");
    }
}

#[test]
fn the_check_of_a_configuration_can_be_read_by_programs() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("switchback.toml");
    std::fs::write(&file, "[proxy]\nlisten = 7\n").unwrap();
    let file = file.to_str().unwrap();
    let ran = Ran::from(cli(&["check", "--config", file, "-o", "json"]).output().unwrap());
    let report: Value = serde_json::from_str(&ran.out).unwrap();
    assert_eq!((ran.code, &report["ok"], &report["mistakes"][0]["line"]), (2, &json!(false), &json!(2)), "{ran:?}");
    let good = Ran::from(cli(&["check", "--config", "conf/switchback.toml", "-o", "yaml"]).output().unwrap()).done();
    assert!(good.contains("ok: true\n") && good.contains("mistakes: []\n"), "{good}");
    let schema = Ran::from(cli(&["schema", "-o", "yaml"]).output().unwrap()).done();
    assert!(schema.contains("$schema"), "{schema}");
}

#[test]
fn the_token_comes_from_option_file_or_environment() {
    let fake = Fake::with([("GET /v1/services", json!({"services": []}))]);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    std::fs::write(&file, "from-file\n").unwrap();
    let file = file.to_str().unwrap();
    for (args, expected) in [
        (&["services"][..], "Bearer from-env"),
        (&["services", "--token-file", file], "Bearer from-file"),
        (&["--token", "from-option", "services"], "Bearer from-option"),
    ] {
        let ran = Ran::from(fake.command(args).env("SWITCHBACK_TOKEN", "from-env").output().unwrap());
        assert_eq!(ran.done(), "there are no services\n");
        assert_eq!(fake.seen().pop().unwrap().header("authorization"), Some(expected));
    }
    let ran = Ran::from(fake.command(&["services"]).env("SWITCHBACK_TOKEN", "").output().unwrap());
    ran.done();
    assert_eq!(fake.seen().pop().unwrap().header("authorization"), None);
}

#[test]
fn a_server_that_is_not_there_is_named_with_what_to_check() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    drop(listener);
    for args in [&["status", "--admin", &url][..], &["events", "-f", "--admin", &url], &["hold", "a", "--admin", &url]]
    {
        let err = Ran::from(cli(args).output().unwrap()).failed(1);
        assert!(err.contains(&format!("does not answer at {url}: connection refused")), "{err}");
        assert!(err.contains("switchback serve") && err.contains("SWITCHBACK_ADMIN"), "{err}");
    }
}

#[test]
fn a_change_whose_answer_is_lost_is_not_called_undone() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = std::thread::spawn(move || {
        let (mut connection, _) = listener.accept().unwrap();
        let _ = connection.read(&mut [0; 4096]).unwrap();
    });
    let err = Ran::from(cli(&["release", "a", "--admin", &url]).output().unwrap()).failed(1);
    assert!(err.contains("the change may be in effect or not: look before you try again"), "{err}");
    server.join().unwrap();
}

#[test]
fn something_else_than_the_api_is_recognised() {
    let html = Fake::new(|_, _| ([(header::CONTENT_TYPE, "text/html")], "<html>").into_response());
    let err = html.run(&["status"]).failed(1);
    assert!(err.contains("answered with status 200 with text/html, not JSON; is this really"), "{err}");
    let moved = Fake::new(|_, _| (StatusCode::FOUND, [(header::LOCATION, "http://127.0.0.1:1/")]).into_response());
    let err = moved.run(&["status", "--token", "secret"]).failed(1);
    assert!(err.contains("status 302"), "redirects are not followed: {err}");
}

#[test]
fn colours_stay_away_and_helpers_work_without_a_server() {
    let fake = Fake::with([("GET /v1/status", status())]);
    for args in [&["status"][..], &["status", "--no-color"]] {
        let ran = Ran::from(fake.command(args).env("NO_COLOR", "1").env("TERM", "xterm-256color").output().unwrap());
        assert!(!ran.done().contains('\x1b'));
    }
    // Nothing that does without the API minds a bad address of it.
    assert_eq!(Ran::from(cli(&["version"]).env("SWITCHBACK_ADMIN", "::").output().unwrap()).code, 0);
    let version = format!("switchback {}\n", env!("CARGO_PKG_VERSION"));
    assert_eq!(Ran::from(cli(&["version"]).output().unwrap()).done(), version);
    assert_eq!(Ran::from(cli(&["--version"]).output().unwrap()).done(), version);
    let schema = Ran::from(cli(&["schema"]).output().unwrap()).done();
    assert!(serde_json::from_str::<Value>(&schema).unwrap().is_object());
    for shell in ["bash", "zsh", "fish", "elvish", "powershell"] {
        assert!(Ran::from(cli(&["completions", shell]).output().unwrap()).done().contains("switchback"));
    }
    assert!(Ran::from(cli(&["--help"]).output().unwrap()).done().contains("Exit codes: 0 done"));
}

#[test]
fn a_reader_that_goes_away_ends_it_quietly() {
    let fake = Fake::with([("GET /v1/status", status())]);
    let mut child = fake.command(&["status"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let ran = Ran::from(child.wait_with_output().unwrap());
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
}

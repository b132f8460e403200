//! What people see in a terminal: the real binary in a pseudo terminal, a scripted admin API behind it, and an emulator
//! that knows what would stand on the screen.

mod fake;

use std::io::{Read as _, Write as _};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use axum::http::header;
use axum::response::{IntoResponse as _, Response};
use portable_pty::{Child, CommandBuilder, MasterPty, PtySize, native_pty_system};
use serde_json::{Value, json};
use vt100::Parser;

use fake::{Fake, json_answer, problem};

const LONG: &str = "a-service-whose-name-is-as-long-as-sixty-three-characters-allow";
const LONG_VERSION: &str = "2026.11.25-release-candidate-17-build-4711-of-the-main-branch";
const LONG_TENANT: &str = "the-federal-association-of-tenants-with-very-long-names-e-v";

/// A program in a terminal.
struct Terminal {
    child: Box<dyn Child + Send + Sync>,
    master: Box<dyn MasterPty + Send>,
    input: Box<dyn std::io::Write + Send>,
    /// What the terminal shows, and every byte that came.
    seen: Arc<Mutex<(Parser, Vec<u8>)>>,
}

impl Terminal {
    fn run(fake: &Fake, args: &[&str], (rows, cols): (u16, u16), environment: &[(&str, &str)]) -> Self {
        let pair = native_pty_system().openpty(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
        let mut command = CommandBuilder::new(env!("CARGO_BIN_EXE_switchback"));
        command.args(args);
        command.env_clear();
        command.env("SWITCHBACK_ADMIN", format!("http://{}", fake.address));
        command.env("TZ", "UTC");
        command.env("TERM", "xterm-256color");
        environment.iter().for_each(|(name, value)| command.env(name, value));
        let child = pair.slave.spawn_command(command).unwrap();
        drop(pair.slave);
        let mut output = pair.master.try_clone_reader().unwrap();
        let seen =
            Arc::new(Mutex::new((Parser::new(rows.try_into().unwrap(), cols.try_into().unwrap(), 1000), Vec::new())));
        let to = seen.clone();
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(n) = output.read(&mut bytes) {
                if n == 0 {
                    break;
                }
                let mut seen = to.lock().unwrap();
                seen.0.process(&bytes[..n]);
                seen.1.extend_from_slice(&bytes[..n]);
            }
        });
        let input = pair.master.take_writer().unwrap();
        Self { child, master: pair.master, input, seen }
    }

    fn shows(&self) -> String {
        self.seen.lock().unwrap().0.screen().contents()
    }

    fn bytes(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().1).into_owned()
    }

    /// Waits until the screen is as it should be, and tells how long that took.
    #[track_caller]
    fn until(&self, what: &str, is_so: impl Fn(&Parser) -> bool) -> Duration {
        let begin = Instant::now();
        while !is_so(&self.seen.lock().unwrap().0) {
            assert!(begin.elapsed() < Duration::from_secs(20), "{what} did not come; there is:\n{}", self.shows());
            std::thread::sleep(Duration::from_millis(10));
        }
        begin.elapsed()
    }

    #[track_caller]
    fn until_shown(&self, text: &str) -> Duration {
        self.until(text, |parser| parser.screen().contents().contains(text))
    }

    fn press(&mut self, keys: &str) {
        self.input.write_all(keys.as_bytes()).unwrap();
        self.input.flush().unwrap();
    }

    fn resize(&self, rows: u16, cols: u16) {
        self.master.resize(PtySize { rows, cols, pixel_width: 0, pixel_height: 0 }).unwrap();
        self.seen.lock().unwrap().0.screen_mut().set_size(rows.try_into().unwrap(), cols.try_into().unwrap());
    }

    /// The exit code when it has ended by itself.
    #[track_caller]
    fn ended(&mut self) -> u32 {
        let begin = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // What it wrote last is on its way.
                std::thread::sleep(Duration::from_millis(100));
                return status.exit_code();
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "it did not end; there is:\n{}", self.shows());
            std::thread::sleep(Duration::from_millis(10));
        }
    }

    /// The terminal is as it was before: its first screen, a cursor, lines and echo.
    #[track_caller]
    fn is_restored(&self) {
        let seen = self.seen.lock().unwrap();
        assert!(!seen.0.screen().alternate_screen(), "the other screen is still there");
        assert!(!seen.0.screen().hide_cursor(), "the cursor is gone");
        drop(seen);
        let modes = self.master.get_termios().unwrap();
        use nix_flags::{ECHO, ICANON};
        assert!(modes.local_flags.bits() & (ICANON | ECHO) == ICANON | ECHO, "the terminal is still raw");
    }
}

/// Bits of the terminal's local modes, as Linux numbers them.
mod nix_flags {
    pub const ICANON: u32 = 0o2;
    pub const ECHO: u32 = 0o10;
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
    }
}

fn ok(document: &Value) -> Response {
    json_answer(200, "application/json", document)
}

fn weights(canary: f64) -> Value {
    json!({LONG_VERSION: canary, "1.0.0": 100.0 - canary})
}

fn status(canary: f64, rolled_back: Value) -> Value {
    json!({"instance": LONG, "version": "0.1.0", "revision": 17, "uptime_seconds": 61.0, "ready": true, "draining": false,
        "read_only": false, "store": {"kind": "embedded", "up": true}, "warnings": ["a certificate ends within a week and nobody has renewed it so far"],
        "proxy": {"listen": ["127.0.0.1:8080", "[2001:db8::1]:8443", "10.0.0.1:8443"], "open_connections": 3},
        "freeze": {"author": {"kind": "person", "name": "ada"}, "since": "2026-01-02T03:04:05Z", "until": null, "reason": "moving the database to another place"},
        "services": [{"name": LONG, "baseline": "1.0.0", "weights": weights(canary), "hold": {"reason": "a fair that goes on for the whole week and longer"},
            "rolled_back": rolled_back, "own_splits": 2, "requests_per_second": 12.5, "error_rate": 0.001, "verdict": "not_enough_evidence",
            "healthy_endpoints": {"1.0.0": [2, 2], LONG_VERSION: [0, 1]}, "rollout": null}]})
}

fn stats() -> Value {
    let version = |name: &str, role: &str, share: f64| {
        json!({"version": name, "role": role, "share": share, "requests": 1_234_567,
        "requests_per_second": 1234.5, "failures": {"status": 12, "timeout": 3, "connect": 4}, "failures_total": 19, "error_rate": 0.0123, "client_aborts": 1,
        "latency": {"p50": 0.01, "p90": 0.1, "p99": 1.0}, "in_flight": 12})
    };
    json!({"service": LONG, "tenant": LONG_TENANT, "window_seconds": 300, "versions": [version("1.0.0", "baseline", 90.0), version(LONG_VERSION, "canary", 10.0)],
        "comparisons": [{"canary": LONG_VERSION, "baseline": "1.0.0", "verdict": "breach", "evidence": 100.0, "log_evidence": 4.6, "threshold": 10000.0, "braked": true,
            "window": {"seconds": 90.0, "baseline": {"requests": 900, "failures": 1}, "canary": {"requests": 100, "failures": 9}}}]})
}

fn rollback(id: u64) -> Value {
    json!({"id": id, "at": "2026-01-02T03:04:05Z", "kind": "rollback", "service": LONG, "version": LONG_VERSION,
        "author": {"kind": "autopilot"}, "reason": format!("{LONG_VERSION} fails more often than 1.0.0. It failed 9 of 100 requests."), "first_bad_to_rollback_ms": 3200})
}

/// Answers everything that verbs ask with long names.
fn answers(line: &str) -> Value {
    let side = json!({"requests": 100_000, "failures": 10_000, "failures_total": 10_000, "error_rate": 0.1, "latency": {"p50": 0.1, "p90": 0.2, "p99": 0.3}});
    let split = json!({"service": LONG, "weights": weights(10.0), "revision": 17, "source": "service", "braked": true, "intended": weights(50.0),
        "rolled_back": {"version": LONG_VERSION, "at": "2026-01-02T03:04:05Z", "event": 9}});
    let rollout = json!({"id": "r7-of-a-rather-long-name", "service": LONG, "from": "1.0.0", "to": LONG_VERSION, "phase": "progressing", "step": "1.2",
        "share": 25.0, "in_effect": true, "batches": 3, "counts": {"completed": 3, "total": 40, "rolled_back": 1}, "failed_requests": 3,
        "waiting": {"message": "the step bakes until there is proof that the new version is not worse", "until": "2026-01-02T03:04:05Z"},
        "paused": {"author": {"kind": "person", "name": LONG_TENANT}, "reason": "lunch"}, "created": "2026-01-02T03:04:05Z"});
    let path = line.split_once(' ').unwrap().1.split('?').next().unwrap();
    let last = path.rsplit('/').next().unwrap();
    match last {
        "status" => status(10.0, json!({"version": LONG_VERSION})),
        "services" => json!({"services": status(10.0, Value::Null)["services"]}),
        "split" => split,
        "stats" => stats(),
        "compare" => {
            json!({"service": LONG, "tenant": LONG_TENANT, "since_seconds": 600, "a": stats()["versions"][0], "b": stats()["versions"][1],
            "difference": {"error_rate": 0.02, "p50": 0.0, "p99": -0.2}, "tenants": [{"tenant": LONG_TENANT, "a": side, "b": side}],
            "routes": [{"route": format!("GET /{LONG}/orders/{{id}}"), "excess_failures": 12.5, "excess_slow": 1.0, "a": side, "b": side}], "comparison": stats()["comparisons"][0]})
        }
        "explain" => {
            json!({"service": LONG, "version": LONG_VERSION, "endpoints": ["10.0.0.1:7001", "10.0.0.2:7001", "10.0.0.3:7001"], "path": format!("/{LONG}/x"),
            "steps": [{"step": "match", "detail": format!("the path begins with /{LONG}")}, {"step": "tenant", "detail": format!("the header x-tenant-id says {LONG_TENANT}")}]})
        }
        "events" => json!({"events": [rollback(8)], "next": null}),
        "rollouts" => json!({"rollouts": [rollout]}),
        "r7" => rollout,
        "logs" => {
            json!({"units": [{"name": LONG_TENANT, "status": "rolled_back", "batch": 12, "step": 3, "started": "2026-01-02T03:04:05Z", "ended": "2026-01-02T03:04:05Z", "error": "it failed more often than the others did"}],
            "events": [rollback(8)], "next": null})
        }
        "tenants" if path.contains("/versions/") => {
            json!({"service": LONG, "version": LONG_VERSION, "tenants": [{"tenant": LONG_TENANT, "requests": 1_234_567, "failures": 12, "last_seen": "2026-01-02T03:04:05Z", "by": "tenant"}], "own_splits": 1, "pinned_tenants": 1})
        }
        "tenants" => json!({"tenants": [{"name": LONG_TENANT, "split": split}], "next": null}),
        "snapshots" => {
            json!({"snapshots": [{"name": LONG, "at": "2026-01-02T03:04:05Z", "author": {"kind": "person", "name": LONG_TENANT}, "reason": "before the sale of the whole company",
            "services": {LONG: {"tenants": 7, "pins": 2}}}]})
        }
        "diff" => {
            json!({"snapshot": LONG, "same": false, "services": {LONG: {"split": true, "splits": [{"scope": format!("tenant {LONG_TENANT}"), "before": weights(50.0), "after": weights(10.0), "moved_percent": 40.0}],
            "pins_total": 0, "pins": [], "withheld": [{"whose": format!("the pin of tenant {LONG_TENANT}"), "version": LONG_VERSION, "why": "disabled"}], "withheld_total": 1}}})
        }
        "monday" => {
            json!({"name": "monday", "at": "2026-01-02T03:04:05Z", "author": {"kind": "person", "name": "ada"}, "revision": 9, "reason": "before the sale of the whole company",
            "services": {LONG: {"baseline": "1.0.0", "weights": weights(10.0), "tenants": {LONG_TENANT: weights(20.0)}, "tenants_total": 1, "pins_total": 3}}})
        }
        "notify" => {
            json!({"targets": [{"name": LONG, "type": "slack", "address": format!("https://{LONG}.example.com"), "severity": "warning", "sent": 3, "failed": 0, "dropped": 0, "suppressed": 2,
            "last": {"ok": false, "detail": "no answer within 10 s, tried three times"}}]})
        }
        "maintenance" => {
            json!({"service": LONG, "maintenance": null, "tenants": [{"tenant": LONG_TENANT, "message": "we are moving house and will be back", "retry_after": "10m", "since": "2026-01-02T03:04:05Z", "author": {"kind": "person", "name": "ada"}}]})
        }
        "shadow" => {
            json!({"service": LONG, "version": LONG_VERSION, "baseline": "1.0.0", "active": true, "settings": {"share": 10.0, "methods": ["GET", "HEAD", "OPTIONS"]}, "verdict": "breach", "difference_rate": 0.5,
            "requests": {"same": 1000, "different": 1000, "failed": 10, "timeout": 10, "dropped": 7}, "noise": {"samples": 100, "needed": 10, "fields": ["$.timestamp", "$.request.identifier", "$.server.hostname"]},
            "fields": [{"path": "$.orders[*].lines[*].price.including.tax.and.shipping", "kind": "value", "requests": 500, "rate": 0.5, "example": {"baseline": {"type": "string", "length": 12}, "shadow": {"type": "number"}}}],
            "statuses": [], "latency": {"baseline": {}, "shadow": {}}})
        }
        _ if path == format!("/v1/services/{LONG}") => {
            json!({"name": LONG, "revision": 17, "baseline": "1.0.0", "split": split, "groups": {LONG: split}, "hold": null,
            "pins": [{"kind": "tenant", "name": LONG_TENANT, "pin": {"version": LONG_VERSION}}], "match": [format!("path /{LONG}"), format!("host {LONG}.example.com")], "sticky": [],
            "versions": [{"name": LONG_VERSION, "source": "api", "role": "canary", "share": 10.0, "spec": {}, "endpoints": [{"address": "10.0.0.1:7001", "healthy": true}, {"address": "10.0.0.2:7001", "healthy": false}, {"address": "10.0.0.3:7001", "healthy": true}]}],
            "tenants_with_own_split": 2, "last_rollback": rollback(8)})
        }
        _ => {
            json!({"revision": 17, "event": 42, "dry_run": false, "before": {"weights": weights(0.0)}, "after": {"weights": weights(10.0)}})
        }
    }
}

#[test]
fn nothing_is_wider_than_the_terminal() {
    let fake = Fake::new(|seen, _| ok(&answers(&seen.line)));
    let weight = format!("{LONG_VERSION}=10");
    let verbs: &[&[&str]] = &[
        &["status"],
        &["services"],
        &["services", "get", LONG],
        &["split", "get", LONG, "--tenant", LONG_TENANT],
        &["split", "set", LONG, &weight, "1.0.0", "--tenant", LONG_TENANT],
        &["versions", "list", LONG],
        &["versions", "tenants", LONG, LONG_VERSION],
        &["tenants", "list", LONG],
        &["pin", LONG, "tenant", LONG_TENANT, LONG_VERSION],
        &["hold", LONG],
        &["maintenance", "get", LONG],
        &["rollout", "list"],
        &["rollout", "get", "r7"],
        &["rollout", "logs", "r7"],
        &["rollback", LONG, "--tenant", LONG_TENANT, "--reason", "x"],
        &["compare", LONG, "1.0.0", LONG_VERSION],
        &["shadow", LONG],
        &["stats", LONG],
        &["explain", LONG, "--tenant", LONG_TENANT],
        &["events"],
        &["snapshot", "list"],
        &["snapshot", "get", "monday"],
        &["snapshot", "diff", "monday"],
        &["notify"],
    ];
    for verb in verbs {
        // On a terminal of twice the width one sees what would have been wrapped: lines are measured, not the screen.
        let mut terminal = Terminal::run(&fake, verb, (60, 80), &[("NO_COLOR", "1")]);
        assert_eq!(terminal.ended(), 0, "{verb:?}: {}", terminal.shows());
        let text = terminal.bytes();
        assert!(!text.contains('\x1b'), "{verb:?}: {text:?}");
        for line in text.split("\r\n") {
            let width = unicode_width::UnicodeWidthStr::width(line);
            assert!(width <= 80, "{verb:?} has a line of {width} columns:\n{text}");
        }
        let piped = fake.run(verb);
        assert_eq!(piped.code, 0);
        let cut = piped.out.lines().find(|line| line.contains('…') && !line.ends_with("tenants list …"));
        assert_eq!(cut, None, "nothing is cut without a terminal: {}", piped.out);
    }
}

#[test]
fn colours_are_there_on_a_terminal_unless_somebody_does_not_want_them() {
    let fake = Fake::new(|seen, _| ok(&answers(&seen.line)));
    let coloured = |args: &[&str], environment: &[(&str, &str)]| {
        let mut terminal = Terminal::run(&fake, args, (40, 120), environment);
        assert_eq!(terminal.ended(), 0);
        terminal.bytes().contains("\x1b[3")
    };
    assert!(coloured(&["status"], &[]));
    assert!(!coloured(&["status", "--no-color"], &[]));
    assert!(!coloured(&["status"], &[("NO_COLOR", "1")]));
    assert!(!coloured(&["status"], &[("NO_COLOR", "1"), ("CLICOLOR_FORCE", "1")]));
    assert!(!coloured(&["status"], &[("CLICOLOR", "0")]));
    assert!(!coloured(&["status"], &[("TERM", "dumb")]));
    assert!(!coloured(&["status", "-o", "json"], &[]));
    let piped = |name: &str| fake::Ran::from(fake.command(&["status"]).env(name, "1").output().unwrap()).done();
    assert!(piped("CLICOLOR_FORCE").contains("\x1b[3"), "asked for where there is no terminal");
    assert!(!piped("CLICOLOR").contains('\x1b'));
}

#[test]
fn watching_rewrites_one_picture_and_gives_the_terminal_back() {
    let fake = Fake::new(|seen, before| match (seen.line.contains("rollouts"), before) {
        (true, _) => ok(&answers(&seen.line)),
        (false, 3) => problem(503, json!({"title": "Draining"})),
        (false, n) => ok(&status(n as f64, Value::Null)),
    });
    for verb in [&["status", "-w", "--interval", "200ms"][..], &["rollout", "get", "r7", "-w", "--interval", "200ms"]] {
        let mut terminal = Terminal::run(&fake, verb, (30, 100), &[]);
        terminal.until("a screen of its own", |p| p.screen().alternate_screen() && p.screen().hide_cursor());
        terminal.until_shown(if verb[0] == "status" { "ready" } else { "progressing" });
        let pictures = || terminal.bytes().matches("\x1b[?2026h").count();
        let before = pictures();
        terminal.until("two more pictures", |_| true);
        let begin = Instant::now();
        while pictures() < before + 2 && begin.elapsed() < Duration::from_secs(10) {
            std::thread::sleep(Duration::from_millis(20));
        }
        assert!(pictures() >= before + 2);
        assert_eq!(terminal.bytes().matches("\x1b[2J").count(), 1, "cleared once, rewritten from then on");
        terminal.resize(12, 60);
        terminal.until("a picture that fits", |p| p.screen().contents().lines().count() <= 12);
        terminal.press("\x03");
        assert_eq!(terminal.ended(), 0);
        terminal.is_restored();
        let last = terminal.bytes().rsplit("\x1b[?1049l").next().unwrap_or_default().to_owned();
        assert!(last.contains("a-serv"), "what was seen last stays: {last:?}");
    }
}

#[test]
fn watching_gives_the_terminal_back_when_the_api_refuses_or_it_is_over() {
    let refusing = Fake::new(|_, before| match before {
        0..3 => ok(&status(1.0, Value::Null)),
        _ => problem(403, json!({"title": "Forbidden"})),
    });
    let mut terminal = Terminal::run(&refusing, &["status", "-w", "--interval", "100ms"], (30, 100), &[]);
    assert_eq!(terminal.ended(), 1);
    terminal.is_restored();
    assert!(terminal.shows().contains("error: Forbidden"), "{}", terminal.shows());

    let ending = Fake::new(|seen, before| {
        let mut rollout = answers(&seen.line);
        if before > 3 {
            rollout["phase"] = json!("completed");
        }
        ok(&rollout)
    });
    let mut terminal = Terminal::run(&ending, &["rollout", "get", "r7", "-w", "--interval", "100ms"], (30, 100), &[]);
    assert_eq!(terminal.ended(), 0);
    terminal.is_restored();
    assert!(terminal.shows().contains("completed"), "{}", terminal.shows());
}

#[test]
fn a_wait_is_explained_on_the_terminal_only() {
    let fake = Fake::new(|seen, before| {
        if seen.line.contains("reload") {
            std::thread::sleep(Duration::from_millis(1500));
            return ok(&json!({"revision": 3, "changed": [], "needs_restart": [], "warnings": []}));
        }
        let mut rollout = answers(&seen.line);
        if before > 5 {
            rollout["phase"] = json!("completed");
        }
        ok(&rollout)
    });
    let mut terminal = Terminal::run(&fake, &["rollout", "status", "r7", "--timeout", "20s"], (30, 100), &[]);
    terminal.until_shown("rollout r7: progressing, paused, step 1.2, 25 %, 3 of 40, 1 back");
    assert_eq!(terminal.ended(), 0);
    assert!(!terminal.shows().contains(" left ("), "it goes away: {}", terminal.shows());
    let mut terminal = Terminal::run(&fake, &["reload"], (30, 100), &[]);
    terminal.until_shown("reading the configuration again (1 s)");
    assert_eq!(terminal.ended(), 0);
    assert_eq!(terminal.shows().trim(), "reloaded, nothing changed (revision 3)");
    assert_eq!(fake.run(&["reload"]).done(), "reloaded, nothing changed (revision 3)\n");
}

/// An API whose canary is rolled back when `bad` is set, with the event on the stream.
fn shifting(bad: &Arc<Mutex<bool>>) -> Fake {
    let bad = bad.clone();
    Fake::new(move |seen, _| {
        let bad_now = *bad.lock().unwrap();
        if seen.header("accept") == Some("text/event-stream") {
            // The stream is open until something happens, as a long poll.
            let begin = Instant::now();
            while !*bad.lock().unwrap() && begin.elapsed() < Duration::from_secs(3) {
                std::thread::sleep(Duration::from_millis(10));
            }
            let new = seen.header("last-event-id") == Some("7") && *bad.lock().unwrap();
            let text = if new { format!("id: 8\ndata: {}\n\n", rollback(8)) } else { ": nothing\n\n".to_owned() };
            return ([(header::CONTENT_TYPE, "text/event-stream")], text).into_response();
        }
        match seen.line.split(['?', ' ']).nth(1).unwrap_or_default() {
            "/v1/status" if bad_now => ok(&status(0.0, json!({"version": LONG_VERSION}))),
            "/v1/status" => ok(&status(10.0, Value::Null)),
            "/v1/events" => ok(
                &json!({"events": [{"id": 7, "at": "2026-01-02T03:04:05Z", "kind": "split_set", "service": LONG, "author": {"kind": "file"}}], "next": null}),
            ),
            _ => ok(&answers(&seen.line)),
        }
    })
}

#[test]
fn top_shows_a_rollback_at_once_and_gives_the_terminal_back() {
    let bad = Arc::new(Mutex::new(false));
    let fake = shifting(&bad);
    let mut terminal = Terminal::run(&fake, &["top"], (40, 120), &[]);
    terminal.until_shown("Services");
    terminal.until("statistics", |p| p.screen().contents().contains("go back"));
    assert!(terminal.shows().contains("split_set"), "{}", terminal.shows());
    *bad.lock().unwrap() = true;
    let took = terminal.until("the rollback", |p| {
        let text = p.screen().contents();
        text.contains("03:04:05  rollback") && text.contains("rolled back")
    });
    assert!(took < Duration::from_secs(2), "after {took:?}");
    terminal.press("\r");
    terminal.until_shown("Worst tenants");
    terminal.press("?");
    terminal.until_shown("hold the picture still");
    terminal.press("x");
    terminal.resize(14, 50);
    terminal.until("the smaller screen", |p| {
        p.screen().contents().contains("┘") && p.screen().contents().lines().count() <= 14
    });
    terminal.press("q");
    assert_eq!(terminal.ended(), 0);
    terminal.is_restored();
}

#[test]
fn top_survives_a_server_that_goes_away() {
    let away = Arc::new(Mutex::new(false));
    let gone = away.clone();
    let fake = Fake::new(move |seen, _| match *gone.lock().unwrap() {
        true => problem(503, json!({"title": "Draining"})),
        false if seen.header("accept") == Some("text/event-stream") => problem(503, json!({"title": "Not yet"})),
        false => ok(&answers(&seen.line)),
    });
    let mut terminal = Terminal::run(&fake, &["top", "--interval", "100ms"], (40, 120), &[("NO_COLOR", "1")]);
    terminal.until_shown("Services");
    *away.lock().unwrap() = true;
    terminal.until_shown("reconnecting… Draining");
    *away.lock().unwrap() = false;
    terminal.until("the server", |p| !p.screen().contents().contains("reconnecting"));
    assert!(!terminal.bytes().contains("\x1b[38;5"), "no colours");
    terminal.press("\x03");
    assert_eq!(terminal.ended(), 0);
    terminal.is_restored();
    let ran = fake.run(&["top"]);
    assert!(ran.clone().failed(2).contains("status -w -o json"), "{ran:?}");
}

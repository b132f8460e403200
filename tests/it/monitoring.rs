//! What `deploy/prometheus` and `deploy/grafana` ship, on a real Prometheus that scrapes the real program under traffic.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::time::Duration;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::AsyncWriteExt as _;

use crate::harness::{Backend, client, read_head, scripted, until};
use crate::lifecycle::Process;
use crate::promql::{Catalogue, labels_of};
use crate::receiver::Receiver;
use crate::tls::write_certificate;

const LONG: Duration = Duration::from_secs(60);

/// What may well be empty: nothing of the kind happens here.
const QUIET: [&str; 1] = ["increase(switchback_refused_states_total[30s]) > 0"];

fn read(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The real program with something of everything that has metrics.
struct Scene {
    old: Backend,
    new: Backend,
    process: Process,
    folder: TempDir,
    _told: Receiver,
}

impl Scene {
    async fn start() -> Self {
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let live = scripted(async |mut stream: tokio::net::TcpStream| {
            read_head(&mut stream).await;
            let answer = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\nconnection: close\r\n\r\ndata: 1\n\n";
            let _gone = stream.write_all(answer).await;
        })
        .await;
        let told = Receiver::start().await;
        let folder = TempDir::new().unwrap();
        let _root = write_certificate(folder.path(), "site", &["a.test"]);
        *new.script.missing.lock().unwrap() = vec!["/assets/old".to_owned()];
        let process = Process::start(&folder, &configuration(&old, &new, live, &told));
        process.ready().await;
        Self { old, new, process, folder, _told: told }
    }

    async fn call(&self, method: &str, path: &str, body: Value) -> Value {
        let url = format!("{}{path}", self.process.admin);
        let answer = client().request(method.parse().unwrap(), url).json(&body).send().await.unwrap();
        let (status, answer) = (answer.status().as_u16(), answer.text().await.unwrap());
        assert!(status < 300, "{method} {path}: {status} {answer}");
        serde_json::from_str(&answer).unwrap_or_default()
    }

    /// One rollout that is over and one that a person has to let go on.
    async fn roll_out(&self) {
        let plan = json!({ "service": "moved", "to": "2.0.0", "steps": [50, 100], "bake": "1h", "max_bake": "2h" });
        for verb in ["abort", "pause"] {
            let started = self.call("POST", "/v1/rollouts", plan.clone()).await;
            let path = format!("/v1/rollouts/{}", started["id"].as_str().unwrap());
            until("the first step", LONG, || async { self.call("GET", &path, Value::Null).await["in_effect"] == true })
                .await;
            self.call("POST", &format!("{path}/{verb}"), json!({ "reason": "test" })).await;
        }
    }

    /// Requests of all kinds, until it is dropped.
    fn load(&self) -> Traffic {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, proxy, client) = (stop.clone(), self.process.proxy.clone(), client());
        let task = tokio::spawn(async move {
            for n in 0u64.. {
                if stopped.load(SeqCst) {
                    return;
                }
                let path = match n % 20 {
                    0 => "/assets/old.js",
                    1 => "/side/x",
                    2 => "/live",
                    3 => "/moved/x",
                    _ => "/v1/orders",
                };
                let request = client.get(format!("{proxy}{path}"));
                let request = request.header("x-user-id", format!("u{n}")).header("x-tenant-id", format!("t{}", n % 5));
                let _answered_or_not = request.send().await;
                tokio::time::sleep(Duration::from_millis(4)).await;
            }
        });
        Traffic { stop, _task: task }
    }
}

struct Traffic {
    stop: Arc<AtomicBool>,
    _task: tokio::task::JoinHandle<()>,
}

impl Drop for Traffic {
    fn drop(&mut self) {
        self.stop.store(true, SeqCst);
    }
}

fn configuration(old: &Backend, new: &Backend, live: SocketAddr, told: &Receiver) -> String {
    let service = |name: &str, path: &str, more: &str, old: SocketAddr, new: SocketAddr| {
        format!(
            r#"
[services.{name}]
match = [{{ path = "{path}" }}]
sticky = [{{ header = "x-user-id"{more}
baseline = "1.0.0"
[services.{name}.versions."1.0.0"]
endpoints = ["{old}"]
[services.{name}.versions."2.0.0"]
endpoints = ["{new}"]
"#
        )
    };
    let (a, b) = (old.address, new.address);
    let shop = r#", session = true }]
rescue = true
skew = ["/assets"]
split = { "1.0.0" = 50, "2.0.0" = 50 }"#;
    [
        "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\n".to_owned(),
        service("shop", "/", shop, a, b),
        service("side", "/side", " }]\nshadow = { version = \"2.0.0\", share = 100 }", a, b),
        service("live", "/live", " }]", live, live),
        service("moved", "/moved", " }]", a, b),
        format!("[[notify]]\nname = \"team\"\ntype = \"webhook\"\nurl = \"{}\"\n", told.url("/in")),
        "[[proxy.tls]]\nlisten = \"127.0.0.1:0\"\ncertificates = [{ cert = \"site.crt\", key = \"site.key\" }]\n"
            .to_owned(),
    ]
    .concat()
}

/// A real Prometheus with what is shipped, and the times of a test.
struct Prometheus {
    child: Child,
    url: String,
    _folder: TempDir,
}

impl Prometheus {
    async fn start(admin: &str, alertmanager: &str) -> Self {
        let folder = TempDir::new().unwrap();
        for name in ["rules.yaml", "alerts.yaml"] {
            std::fs::write(folder.path().join(name), read(&format!("deploy/prometheus/{name}"))).unwrap();
        }
        let plain = |url: &str| url.trim_start_matches("http://").trim_end_matches('/').to_owned();
        let shipped = read("deploy/prometheus/prometheus.yml");
        let ours = shipped
            .replace("interval: 15s", "interval: 1s")
            .replacen("127.0.0.1:9900", &plain(admin), 1)
            .replace("127.0.0.1:9093", &plain(alertmanager));
        assert!(ours.contains(&plain(admin)) && ours.contains(&plain(alertmanager)) && !ours.contains("15s"), "{ours}");
        let file = folder.path().join("prometheus.yml");
        std::fs::write(&file, ours).unwrap();
        let address = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let option = |name: &str, value: PathBuf| format!("--{name}={}", value.display());
        let child = Command::new("prometheus")
            .arg(option("config.file", file))
            .arg(option("storage.tsdb.path", folder.path().join("data")))
            .arg(format!("--web.listen-address={address}"))
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("this test needs the command prometheus: use tests/run");
        let prometheus = Self { child, url: format!("http://{address}"), _folder: folder };
        let ready = format!("{}/-/ready", prometheus.url);
        let is_ready = || async { client().get(&ready).send().await.is_ok_and(|a| a.status() == 200) };
        until("Prometheus to be ready", LONG, is_ready).await;
        prometheus
    }

    async fn ask(&self, path: &str, parameters: &[(&str, &str)]) -> Value {
        let answer = client().get(format!("{}/api/v1/{path}", self.url)).query(parameters).send().await.unwrap();
        let answer: Value = answer.json().await.unwrap();
        assert_eq!(answer["status"], "success", "{parameters:?}: {answer}");
        answer["data"].clone()
    }

    /// How many series an expression has now.
    async fn count(&self, expression: &str) -> usize {
        self.ask("query", &[("query", expression)]).await["result"].as_array().unwrap().len()
    }

    /// Everything that was ever scraped or recorded, by name.
    async fn catalogue(&self) -> Catalogue {
        let all = self.ask("series", &[("match[]", "{__name__!=\"\"}")]).await;
        let mut catalogue = Catalogue::new();
        for series in all.as_array().unwrap() {
            let series = series.as_object().unwrap();
            let name = series["__name__"].as_str().unwrap();
            catalogue.entry(name.to_owned()).or_default().extend(series.keys().cloned());
        }
        catalogue
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

/// An expression that is shipped.
struct Shipped {
    place: String,
    expression: String,
    /// Labels that texts beside it name.
    named: BTreeSet<String>,
}

fn of_rules(file: &str) -> Vec<Shipped> {
    let groups: Value = serde_saphyr::from_str(&read(file)).unwrap();
    let rules = groups["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap());
    let shipped = rules.map(|rule| {
        let texts = rule["annotations"].to_string();
        let word = |rest: &str| rest.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
        Shipped {
            place: rule["alert"].as_str().or(rule["record"].as_str()).unwrap().to_owned(),
            expression: rule["expr"].as_str().unwrap().to_owned(),
            named: texts.split("$labels.").skip(1).map(word).collect(),
        }
    });
    shipped.collect()
}

/// Queries and annotations of the dashboard, with everything chosen.
fn of_dashboard() -> Vec<Shipped> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/switchback.json")).unwrap();
    let braced = |text: &str| {
        let parts = text.split("{{").skip(1).map(|rest| rest.split_once("}}").unwrap().0.to_owned());
        parts.collect::<BTreeSet<_>>()
    };
    let mut all = Vec::new();
    let mut add = |place: &Value, expression: &Value, text: &Value| {
        let expression = ["$service", "$version", "$tenant"]
            .iter()
            .fold(expression.as_str().unwrap().to_owned(), |text, variable| text.replace(variable, ".*"))
            .replace("$__rate_interval", "30s")
            .replace("$__range", "5m");
        assert!(!expression.contains('$'), "{expression}");
        let named = braced(text.as_str().unwrap());
        all.push(Shipped { place: place.as_str().unwrap().to_owned(), expression, named });
    };
    for panel in dashboard["panels"].as_array().unwrap() {
        for target in panel["targets"].as_array().into_iter().flatten() {
            add(&panel["title"], &target["expr"], &target["legendFormat"]);
        }
    }
    let annotations = dashboard["annotations"]["list"].as_array().unwrap();
    for annotation in annotations.iter().filter(|annotation| annotation["expr"].is_string()) {
        add(&annotation["name"], &annotation["expr"], &annotation["titleFormat"]);
    }
    all
}

/// What the variables of the dashboard are chosen from: selector and label.
fn of_variables() -> Vec<(String, String)> {
    let dashboard: Value = serde_json::from_str(&read("deploy/grafana/switchback.json")).unwrap();
    let variables = dashboard["templating"]["list"].as_array().unwrap().clone();
    let queries = variables.into_iter().filter(|variable| variable["type"] == "query");
    let split = queries.map(|variable| {
        let query = variable["query"]["query"].as_str().unwrap().to_owned();
        let inner = query.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (selector, label) = inner.rsplit_once(", ").unwrap();
        (selector.replace("$service", ".*"), label.to_owned())
    });
    split.collect()
}

fn check_names(shipped: &[Shipped], catalogue: &Catalogue) {
    for Shipped { place, expression, named } in shipped {
        let labels = labels_of(expression, catalogue).unwrap_or_else(|why| panic!("{place}: {expression}\n{why}"));
        let of_targets = ["job", "instance"].map(str::to_owned);
        let unknown: Vec<_> = named.iter().filter(|n| !labels.contains(*n) && !of_targets.contains(n)).collect();
        assert!(unknown.is_empty(), "{place} speaks of {unknown:?}, and has {labels:?}: {expression}");
    }
    for (selector, label) in of_variables() {
        assert!(labels_of(&selector, catalogue).is_ok_and(|labels| labels.contains(&label)), "{selector} {label}");
    }
}

/// Those that have no series now.
async fn empty_ones(prometheus: &Prometheus, shipped: &[Shipped]) -> BTreeSet<String> {
    let mut empty = BTreeSet::new();
    for Shipped { expression, .. } in shipped {
        if prometheus.count(expression).await == 0 {
            empty.insert(expression.clone());
        }
    }
    empty
}

fn alerts_of(receiver: &Receiver) -> Vec<Value> {
    let calls = receiver.calls().into_iter().filter(|call| call.path == "/api/v2/alerts");
    calls.flat_map(|call| call.json().as_array().unwrap().clone()).collect()
}

/// Of the rollback that is waited for; other services may have gone back, too, and have alerts of their own.
fn is_of_shop(alert: &Value) -> bool {
    let labels = &alert["labels"];
    (&labels["alertname"], &labels["service"], &labels["reason"])
        == (&json!("SwitchbackRolledBack"), &json!("shop"), &json!("errors"))
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_alerts_and_dashboard_work_on_what_a_proxy_under_traffic_emits() {
    let (scene, alertmanager) = (Scene::start().await, Receiver::start().await);
    let prometheus = Prometheus::start(&scene.process.admin, &alertmanager.url("")).await;
    let traffic = scene.load();
    let scraped = || async { prometheus.count("rate(switchback_requests_total[10s]) > 0").await > 0 };
    until("requests to be seen", LONG, scraped).await;
    scene.call("POST", "/v1/reload", json!({})).await;
    scene.roll_out().await;
    let compared = || async { prometheus.count("service:switchback_guard_evidence:ratio").await > 0 };
    until("a comparison to be seen", LONG, compared).await;
    let dashboard = of_dashboard();
    let quiet = empty_ones(&prometheus, &dashboard).await;
    assert!(alerts_of(&alertmanager).is_empty(), "nothing is wrong yet: {:?}", alerts_of(&alertmanager));

    // The new version breaks, and goes back.
    scene.new.script.fail(100.0);
    let back = "sum(increase(switchback_rollbacks_total{service=\"shop\",reason=\"errors\"}[1m])) > 0";
    until("the rollback to be seen", LONG, || async { prometheus.count(back).await == 1 }).await;
    let rescued = || async { prometheus.count("rate(switchback_rescues_total{result=\"saved\"}[10s]) > 0").await > 0 };
    until("rescues to be seen", LONG, rescued).await;
    let still = empty_ones(&prometheus, &dashboard).await;
    let never: Vec<_> = quiet.intersection(&still).filter(|e| !QUIET.contains(&e.as_str())).collect();
    assert!(never.is_empty(), "these panels never show anything: {never:#?}");
    let firing = "ALERTS{alertname=\"SwitchbackRolledBack\",alertstate=\"firing\",service=\"shop\",reason=\"errors\"}";
    until("the alert to fire", LONG, || async { prometheus.count(firing).await == 1 }).await;
    let arrived = || async { alerts_of(&alertmanager).iter().any(is_of_shop) };
    until("the alert to arrive", LONG, arrived).await;
    let alert = alerts_of(&alertmanager).into_iter().find(is_of_shop).unwrap();
    assert_eq!(alert["annotations"]["summary"], "shop went back to its baseline.", "{alert}");
    assert_eq!(alert["annotations"]["runbook_url"], "deploy/README.md#switchbackrolledback");
    drop(traffic);

    // Names: of rules and alerts, too, whether they have fired or not.
    let catalogue = prometheus.catalogue().await;
    let rules = [of_rules("deploy/prometheus/rules.yaml"), of_rules("deploy/prometheus/alerts.yaml")];
    check_names(&rules.into_iter().flatten().collect::<Vec<_>>(), &catalogue);
    check_names(&dashboard, &catalogue);
    let health = prometheus.ask("rules", &[]).await;
    for rule in health["groups"].as_array().unwrap().iter().flat_map(|group| group["rules"].as_array().unwrap()) {
        assert_eq!(rule["health"], "ok", "{rule}");
    }
    assert!(scene.old.script.requests() > 0 && scene.folder.path().exists());
}

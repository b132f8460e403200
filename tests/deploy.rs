//! What `deploy` ships: the image, the fleet of compose, the chart of Helm, and what watches them. Their configuration goes
//! through the real binary, and what they say of it, of each other and of themselves is compared.

#[path = "deploy/chart.rs"]
mod chart;
#[path = "deploy/compose.rs"]
mod compose;
#[path = "../src/store/etcd/server.rs"]
#[expect(dead_code, reason = "the store's own tests use the rest")]
mod etcd_server;
#[path = "deploy/image.rs"]
mod image;
#[path = "deploy/linked.rs"]
mod linked;
#[path = "deploy/monitoring.rs"]
mod monitoring;
#[path = "deploy/package.rs"]
mod package;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// A file of the repository.
fn path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    std::fs::read_to_string(path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
}

/// One document.
fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

/// The texts of a list.
fn texts(list: &Value) -> Vec<&str> {
    list.as_array().unwrap_or_else(|| panic!("{list}")).iter().map(|v| v.as_str().unwrap()).collect()
}

/// The variables of the environment that a configuration names.
fn variables(toml: &str) -> BTreeSet<String> {
    toml.split("${").skip(1).map(|rest| rest.split_once('}').unwrap().0.to_owned()).collect()
}

/// What a variable may hold, judged by its name.
fn example(name: &str) -> String {
    match name {
        _ if name.ends_with("_SHA256") || name.starts_with("SWITCHBACK_TOKEN_") => token_hash(name),
        _ if name.ends_with("_URL") => "https://hooks.example.com/x".to_owned(),
        _ => "only-for-tests-".repeat(3),
    }
}

/// Another one for each name: no two tokens may be the same.
fn token_hash(name: &str) -> String {
    format!("{:064x}", xxhash_rust::xxh3::xxh3_64(name.as_bytes()))
}

/// What `switchback check` says of a configuration under these variables and no others: what is wrong, when it refuses.
fn check(toml: &str, environment: &BTreeMap<String, String>) -> Result<(), String> {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("switchback.toml");
    std::fs::write(&file, toml).unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    let output = command.args(["check", "--config"]).arg(&file).env_clear().envs(environment).output().unwrap();
    if output.status.success() { Ok(()) } else { Err(String::from_utf8(output.stderr).unwrap()) }
}

/// Seconds of a duration as the configuration has them.
fn seconds(duration: &Value) -> u64 {
    switchback::config::read_duration(duration.as_str().unwrap()).unwrap().as_secs()
}

/// The configuration, as JSON.
fn parsed(toml: &str) -> Value {
    let table: toml::Table = toml::from_str(toml).unwrap_or_else(|e| panic!("{e}\n{toml}"));
    serde_json::to_value(table).unwrap()
}

/// Waits until something holds, for 20 seconds at most.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !holds() {
        assert!(begun.elapsed() < Duration::from_secs(20), "{what} did not come");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// The real binary as a process; killed when dropped.
struct Proxy(Child);

impl Proxy {
    fn start(configuration: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
        let command = command.args(["serve", "--config"]).arg(configuration);
        Self(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        let _killed = self.0.kill();
        let _ended = self.0.wait();
    }
}

/// A port of loopback that nobody has.
fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

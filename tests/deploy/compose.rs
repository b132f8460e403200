//! `deploy/compose`: a fleet on one machine.

use std::collections::{BTreeMap, BTreeSet};
use std::process::{Command, Stdio};

use serde_json::Value;

use super::{Proxy, check, example, free_port, parsed, read, seconds, texts, until, variables, yaml};

const CONFIGURATION: &str = "deploy/compose/conf/switchback.toml";

fn compose() -> Value {
    yaml(&read("deploy/compose/compose.yaml"))
}

/// The services whose names begin like this.
fn services<'a>(compose: &'a Value, kind: &str) -> BTreeMap<&'a str, &'a Value> {
    let all = compose["services"].as_object().unwrap();
    all.iter().filter(|(name, _)| name.starts_with(kind)).map(|(name, service)| (name.as_str(), service)).collect()
}

/// What a service mounts: place → from where and how.
fn mounts(service: &Value) -> BTreeMap<&str, &str> {
    let pair = |text| {
        let (from, to) = str::split_once(text, ':').unwrap();
        to.split_once(':').map_or((to, from), |(to, _)| (to, text))
    };
    texts(&service["volumes"]).into_iter().map(pair).collect()
}

#[test]
fn three_proxies_keep_one_state_in_three_members_of_etcd() {
    let compose = compose();
    let (proxies, members) = (services(&compose, "proxy"), services(&compose, "etcd"));
    assert_eq!((proxies.len(), members.len()), (3, 3));

    let configuration = parsed(&read(CONFIGURATION));
    let named: Vec<_> = texts(&configuration["store"]["etcd"]);
    let meant: Vec<_> = members.keys().map(|name| format!("http://{name}:2379")).collect();
    assert_eq!(named, meant);
    for proxy in proxies.values() {
        assert_eq!(mounts(proxy)["/etc/switchback"], "./conf:/etc/switchback:ro", "one file for all");
        assert!(texts(&proxy["networks"]).contains(&"state"));
    }

    let cluster: Vec<_> = members.keys().map(|name| format!("{name}=http://{name}:2380")).collect();
    let cluster = format!("--initial-cluster={}", cluster.join(","));
    for (name, member) in members {
        let image = member["image"].as_str().unwrap();
        assert!(image.contains("/etcd:v3.5."), "{image}");
        let command = texts(&member["command"]);
        for argument in [&cluster, "--auto-compaction-mode=periodic", "--auto-compaction-retention=5m"] {
            assert!(command.contains(&argument), "{name} has no {argument}");
        }
        assert!(command.iter().any(|a| a.starts_with("--quota-backend-bytes=")));
        assert_eq!(member["environment"]["ETCD_NAME"], name);
        assert_eq!(member["environment"]["ETCD_ADVERTISE_CLIENT_URLS"], format!("http://{name}:2379"));
        assert_eq!(member["environment"]["ETCD_INITIAL_ADVERTISE_PEER_URLS"], format!("http://{name}:2380"));
        assert_eq!(
            (texts(&member["networks"]), &member["ports"]),
            (vec!["state"], &Value::Null),
            "nobody else comes in"
        );
    }
    assert_eq!(compose["networks"]["state"]["internal"], true);
}

#[test]
fn each_has_a_volume_and_a_health_check_and_may_do_nothing_else() {
    let compose = compose();
    let kept = [("proxy", "/var/lib/switchback"), ("etcd", "/var/lib/etcd")];
    let mut volumes = BTreeSet::new();
    for (kind, place) in kept {
        for (name, service) in services(&compose, kind) {
            let volume = mounts(service)[place];
            assert!(compose["volumes"].get(volume).is_some(), "{name}: {volume} is no named volume");
            assert!(volumes.insert(volume.to_owned()), "{name}: {volume} is another one's");
            // The image of the proxy brings its own.
            assert_eq!(service["healthcheck"]["test"].is_array(), kind == "etcd", "{name}");
        }
    }
    for (name, service) in services(&compose, "") {
        assert_eq!(service["read_only"], true, "{name}");
        assert_eq!(texts(&service["cap_drop"]), ["ALL"], "{name}");
        assert_eq!(service["restart"], "unless-stopped", "{name}");
        let image = service["image"].as_str().unwrap();
        let tag = image.rsplit_once(':').unwrap().1.trim_end_matches('}');
        assert!(tag.trim_start_matches('v').starts_with(|c: char| c.is_ascii_digit()), "{name}: {image} is not pinned");
    }
}

#[test]
fn a_proxy_ends_before_it_is_killed_and_answers_to_its_ports() {
    let compose = compose();
    let configuration = parsed(&read(CONFIGURATION));
    let proxy = &configuration["proxy"];
    let hosts = texts(&configuration["admin"]["allowed_hosts"]);
    for (name, service) in services(&compose, "proxy") {
        let grace = seconds(&service["stop_grace_period"]);
        assert!(grace > seconds(&proxy["ready_delay"]) + seconds(&proxy["drain_timeout"]), "{name}: {grace} s");
        let admin = texts(&service["ports"]).into_iter().find_map(|p| p.strip_suffix(":9900")).unwrap();
        let port = admin.strip_prefix("127.0.0.1:").expect("the admin API is for this machine");
        for host in ["127.0.0.1", "localhost"] {
            assert!(hosts.contains(&format!("{host}:{port}").as_str()), "{name}: {host}:{port} is not in {hosts:?}");
        }
    }
    for version in parsed(&read(CONFIGURATION))["services"]["demo"]["versions"].as_object().unwrap().values() {
        let endpoint = texts(&version["endpoints"])[0];
        let (host, port) = endpoint.split_once(':').unwrap();
        assert!(compose["services"].get(host).is_some() && port == "5678", "{endpoint} is no service of compose.yaml");
    }
}

#[test]
fn secrets_come_from_outside_and_nothing_starts_without_them() {
    let toml = read(CONFIGURATION);
    let needed = variables(&toml);
    assert_eq!(needed.len(), 2, "{needed:?}");
    for (name, service) in services(&compose(), "proxy") {
        let given = service["environment"].as_object().unwrap();
        assert_eq!(given.keys().cloned().collect::<BTreeSet<_>>(), needed, "{name}");
        for (variable, value) in given {
            let refuses = value.as_str().unwrap().starts_with(&format!("${{{variable}:?"));
            assert!(refuses, "{name} would start without {variable}: {value}");
        }
    }
    let example = read("deploy/compose/.env.example");
    let settings = example.lines().filter(|line| !line.starts_with('#') && !line.is_empty());
    let empty: BTreeSet<_> = settings.map(|line| line.strip_suffix('=').expect("no value").to_owned()).collect();
    assert_eq!(empty, needed);
    assert!(read("deploy/compose/.gitignore").lines().any(|line| line == ".env"));

    let configuration = parsed(&toml);
    let secrets = [&configuration["proxy"]["cookie_secret"], &configuration["admin"]["tokens"][0]["sha256"]];
    assert!(secrets.iter().all(|s| s.as_str().unwrap().starts_with("${")), "{secrets:?}");
    for name in [CONFIGURATION, "deploy/compose/compose.yaml", "deploy/compose/.env.example"] {
        let text = read(name);
        let long = text.split(|c: char| !c.is_ascii_alphanumeric()).find(|word| {
            word.len() >= 24 && word.contains(|c: char| c.is_ascii_digit()) && word.contains(char::is_alphabetic)
        });
        assert_eq!(long, None, "{name} has what looks like a secret");
    }
}

#[test]
fn the_configuration_is_accepted_with_its_secrets_only() {
    let toml = read(CONFIGURATION);
    let all: BTreeMap<_, _> = variables(&toml).into_iter().map(|name| (name.clone(), example(&name))).collect();
    check(&toml, &all).unwrap();
    for left_out in all.keys() {
        let some = all.iter().filter(|(name, _)| *name != left_out).map(|(n, v)| (n.clone(), v.clone())).collect();
        let refused = check(&toml, &some).unwrap_err();
        assert!(refused.contains(&format!("{left_out} is not set")), "{refused}");
    }
}

/// The health check of the image, at our port instead of its own.
fn healthy(port: u16) -> bool {
    let check = super::image::health_check();
    let [_, arguments @ ..] = &check[..] else { panic!("{check:?}") };
    let mut command = Command::new(env!("CARGO_BIN_EXE_switchback"));
    command.args(arguments).env("SWITCHBACK_ADMIN", format!("http://127.0.0.1:{port}"));
    command.stdout(Stdio::null()).stderr(Stdio::null()).status().unwrap().success()
}

#[test]
fn the_health_check_tells_a_proxy_that_serves_from_one_that_drains_and_from_none() {
    let folder = tempfile::tempdir().unwrap();
    let port = free_port();
    let file = folder.path().join("switchback.toml");
    let text = format!(
        "[proxy]\nlisten = [\"127.0.0.1:0\"]\nthreads = 1\nready_delay = \"1h\"\n[admin]\nlisten = \"127.0.0.1:{port}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    assert!(!healthy(port), "there is none");
    let mut proxy = Proxy::start(&file);
    until("a proxy that serves", || healthy(port));
    let pid = rustix::process::Pid::from_child(&proxy.0);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    until("a proxy that drains", || !healthy(port));
    assert!(proxy.0.try_wait().unwrap().is_none(), "it is still there, and says that it drains");
}

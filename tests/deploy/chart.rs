//! `deploy/helm`: what the chart renders to.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::process::Command;

use serde_json::Value;

use super::image::stages;
use super::{check, example, parsed, path, read, seconds, texts, variables, yaml};

const CHART: &str = "deploy/helm/switchback";
const OWN: &str = "own-etcd-values.yaml";
const EXTERNAL: &str = "external-etcd-values.yaml";
const SINGLE: &str = "single-values.yaml";

fn helm() -> Command {
    let kept = path("target/tools/helm");
    let named = std::env::var_os("HELM").map(PathBuf::from);
    let mut command = Command::new(named.unwrap_or(if kept.exists() { kept } else { "helm".into() }));
    command.env_remove("KUBECONFIG");
    command
}

/// What the release "edge" in the namespace "shop" is made of, by kind and name; or why not.
fn rendered(values: &[&str], arguments: &[&str]) -> Result<BTreeMap<String, Value>, String> {
    let mut command = helm();
    command.args(["template", "edge"]).arg(path(CHART)).args(["--namespace", "shop"]).args(arguments);
    for file in values {
        command.arg("--values").arg(path(CHART).join("ci").join(file));
    }
    let output = command.output().expect("these tests need the command helm: use tests/run, or name one by HELM");
    if !output.status.success() {
        return Err(String::from_utf8(output.stderr).unwrap());
    }
    let text = String::from_utf8(output.stdout).unwrap();
    let all: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap_or_else(|e| panic!("{e}\n{text}"));
    let named = |object: Value| {
        let name = format!("{}/{}", object["kind"].as_str().unwrap(), object["metadata"]["name"].as_str().unwrap());
        (name, object)
    };
    let count = all.len();
    let objects: BTreeMap<_, _> = all.into_iter().map(named).collect();
    assert_eq!(objects.len(), count, "two objects of one name");
    Ok(objects)
}

/// The proxies of the values files: what their full name is, and what is rendered.
fn each() -> [(&'static str, &'static str, BTreeMap<String, Value>); 3] {
    [(OWN, "edge-switchback"), (EXTERNAL, "edge"), (SINGLE, "edge-switchback")]
        .map(|(values, name)| (values, name, rendered(&[values], &[]).unwrap()))
}

fn configuration(objects: &BTreeMap<String, Value>, name: &str) -> String {
    objects[&format!("ConfigMap/{name}")]["data"]["switchback.toml"].as_str().unwrap().to_owned()
}

/// The template of a StatefulSet's pods.
fn pod<'a>(objects: &'a BTreeMap<String, Value>, name: &str) -> &'a Value {
    &objects[&format!("StatefulSet/{name}")]["spec"]["template"]
}

fn by_name<'a>(list: &'a Value, name: &str) -> &'a Value {
    list.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// Whether pods with these labels are meant by this selector.
fn selects(selector: &Value, pod: &Value) -> bool {
    let labels = &pod["metadata"]["labels"];
    selector.as_object().is_some_and(|s| !s.is_empty() && s.iter().all(|(label, value)| labels[label] == *value))
}

#[test]
fn the_binary_accepts_every_configuration_that_is_rendered() {
    let certificate = rcgen::generate_simple_self_signed(["etcd.example.com".to_owned()]).unwrap();
    let files = tempfile::tempdir().unwrap();
    for name in ["ca.crt", "tls.crt"] {
        std::fs::write(files.path().join(name), certificate.cert.pem()).unwrap();
    }
    std::fs::write(files.path().join("tls.key"), certificate.signing_key.serialize_pem()).unwrap();
    for (values, name, objects) in each() {
        let toml = configuration(&objects, name);
        let container = &pod(&objects, name)["spec"]["containers"][0];
        let given = container["env"].as_array().unwrap().iter().map(|v| v["name"].as_str().unwrap().to_owned());
        let given: BTreeMap<_, _> = given.map(|variable| (variable.clone(), example(&variable))).collect();
        assert_eq!(variables(&toml), given.keys().cloned().collect(), "{values}: what it names is what it gets");
        // What the pod sees in folders of Secrets is in ours.
        let ours = format!("{}/", files.path().display());
        let seen = ["/etc/switchback-etcd/", "/etc/switchback-tls/"].iter().fold(toml, |t, f| t.replace(f, &ours));
        check(&seen, &given).unwrap_or_else(|e| panic!("{values}: {e}"));
        assert!(check(&seen.replace("drain_timeout", "drain_timeuot"), &given).is_err(), "{values}");
    }
}

#[test]
fn the_state_is_in_one_place_and_all_members_are_named() {
    let objects = rendered(&[OWN], &[]).unwrap();
    let store = parsed(&configuration(&objects, "edge-switchback"))["store"].clone();
    let etcd = pod(&objects, "edge-etcd");
    let arguments = texts(&etcd["spec"]["containers"][0]["args"]);
    let value = |name: &str| arguments.iter().find_map(|a| a.strip_prefix(&format!("--{name}="))).unwrap();
    let members = value("initial-cluster").split(',').map(|m| m.split_once('=').unwrap());
    let replicas = objects["StatefulSet/edge-etcd"]["spec"]["replicas"].as_u64().unwrap();
    assert_eq!(members.clone().count() as u64, replicas);
    let peers: Vec<_> = members.clone().map(|(_, peer)| peer.replace(":2380", ":2379")).collect();
    assert_eq!(texts(&store["etcd"]), peers);
    for (name, peer) in members {
        let service = objects["StatefulSet/edge-etcd"]["spec"]["serviceName"].as_str().unwrap();
        assert_eq!(peer, format!("http://{name}.{service}.shop.svc:2380"));
        assert_eq!(value("initial-advertise-peer-urls").replace("$(POD_NAME)", name), peer);
    }
    assert_eq!((value("auto-compaction-mode"), value("auto-compaction-retention")), ("periodic", "5m"));
    assert_eq!(value("quota-backend-bytes"), "2147483648");
    let service = &objects["Service/edge-etcd"]["spec"];
    assert_eq!((&service["clusterIP"], &service["publishNotReadyAddresses"]), (&"None".into(), &true.into()));
    assert!(selects(&service["selector"], etcd));
    // Its door is open to the proxies, and only to them.
    let rule = &objects["NetworkPolicy/edge-etcd"]["spec"]["ingress"][0];
    let guests = &rule["from"][0]["podSelector"]["matchLabels"];
    assert!(selects(guests, pod(&objects, "edge-switchback")) && !selects(guests, etcd));

    let outside = rendered(&[EXTERNAL], &[]).unwrap();
    let store = parsed(&configuration(&outside, "edge"))["store"].clone();
    assert_eq!(texts(&store["etcd"])[2], "https://etcd-2.example.com:2379");
    assert_eq!((&store["prefix"], &store["ca"]), (&"/edge".into(), &"/etc/switchback-etcd/ca.crt".into()));
    assert!(!outside.contains_key("StatefulSet/edge-etcd"));
    let alone = rendered(&[SINGLE], &[]).unwrap();
    assert_eq!(parsed(&configuration(&alone, "edge-switchback"))["store"], Value::Null, "in a file");
}

#[test]
fn pods_may_do_nothing_and_end_in_their_own_time() {
    let users = &stages()[1];
    let user: u64 = users.iter().find_map(|line| line.strip_prefix("USER ")?.split_once(':')?.0.parse().ok()).unwrap();
    for (values, name, objects) in each() {
        let pod = &pod(&objects, name)["spec"];
        assert_eq!(pod["securityContext"]["runAsUser"], user, "{values}: the user of the image");
        assert_eq!(pod["securityContext"]["runAsNonRoot"], true);
        assert_eq!(pod["automountServiceAccountToken"], false);
        let account = &objects[&format!("ServiceAccount/{}", pod["serviceAccountName"].as_str().unwrap())];
        assert_eq!(account["automountServiceAccountToken"], false);
        for container in [&pod["containers"][0], &pod["initContainers"][0]] {
            let context = &container["securityContext"];
            assert_eq!(context["readOnlyRootFilesystem"], true);
            assert_eq!(context["allowPrivilegeEscalation"], false);
            assert_eq!(texts(&context["capabilities"]["drop"]), ["ALL"]);
        }
        let toml = parsed(&configuration(&objects, name));
        let needed = seconds(&toml["proxy"]["ready_delay"]) + seconds(&toml["proxy"]["drain_timeout"]);
        assert_eq!(pod["terminationGracePeriodSeconds"].as_u64().unwrap(), needed + 5, "{values}");
        let container = &pod["containers"][0];
        let port = by_name(&container["ports"], "admin")["containerPort"].as_u64().unwrap();
        assert_eq!(toml["admin"]["listen"], format!("0.0.0.0:{port}"));
        for (probe, asks) in [("readinessProbe", "/readyz"), ("livenessProbe", "/livez"), ("startupProbe", "/livez")] {
            let get = &container[probe]["httpGet"];
            assert_eq!((&get["path"], &get["port"]), (&asks.into(), &"admin".into()), "{values}: {probe}");
        }
        assert_eq!(pod["topologySpreadConstraints"].as_array().unwrap().len(), 2);
    }
}

#[test]
fn each_proxy_has_a_volume_with_a_link_to_the_configuration() {
    for (values, name, objects) in each() {
        let set = &objects[&format!("StatefulSet/{name}")]["spec"];
        let pod = &pod(&objects, name)["spec"];
        let container = &pod["containers"][0];
        let place = |volume: &str| by_name(&container["volumeMounts"], volume)["mountPath"].as_str().unwrap();
        assert_eq!(set["volumeClaimTemplates"][0]["metadata"]["name"], "data", "{values}");
        let config = by_name(&pod["volumes"], "config");
        assert_eq!(config["configMap"]["name"], name);
        assert!(by_name(&container["volumeMounts"], "config").get("subPath").is_none(), "it would never change");
        let link = format!("{}/switchback.toml", place("data"));
        let file = format!("{}/switchback.toml", place("config"));
        assert_eq!(texts(&pod["initContainers"][0]["command"]), ["ln", "-sfn", &file, &link]);
        assert_eq!(texts(&container["args"]), ["serve", "--config", &link]);
        // Every folder that the configuration names is mounted, from a Secret.
        let toml = configuration(&objects, name);
        for folder in ["/etc/switchback-etcd", "/etc/switchback-tls"] {
            let mount = container["volumeMounts"].as_array().unwrap().iter().find(|m| m["mountPath"] == folder);
            assert_eq!(mount.is_some(), toml.contains(&format!("{folder}/")), "{values}: {folder}");
            let volume = mount.map(|m| by_name(&pod["volumes"], m["name"].as_str().unwrap()));
            assert!(volume.is_none_or(|v| v["secret"]["secretName"].is_string()), "{values}: {folder}");
        }
    }
    let without = rendered(&[OWN], &["--set", "persistence.enabled=false"]).unwrap();
    assert!(without["StatefulSet/edge-switchback"]["spec"].get("volumeClaimTemplates").is_none());
    let volumes = &pod(&without, "edge-switchback")["spec"]["volumes"];
    assert!(by_name(volumes, "data")["emptyDir"].is_object());
}

#[test]
fn services_lead_to_the_proxies() {
    for (values, name, objects) in each() {
        let pod = pod(&objects, name);
        let (traffic, admin, pods) = (name.to_owned(), format!("{name}-admin"), format!("{name}-pods"));
        for service in [&traffic, &admin, &pods] {
            let service = &objects[&format!("Service/{service}")]["spec"];
            assert!(selects(&service["selector"], pod), "{values}: {service}");
            for port in service["ports"].as_array().unwrap() {
                by_name(&pod["spec"]["containers"][0]["ports"], port["targetPort"].as_str().unwrap());
            }
        }
        assert_eq!(objects[&format!("StatefulSet/{name}")]["spec"]["serviceName"], pods);
        assert_eq!(objects[&format!("Service/{pods}")]["spec"]["clusterIP"], "None");
        let toml = parsed(&configuration(&objects, name));
        let hosts = texts(&toml["admin"]["allowed_hosts"]);
        assert!(
            hosts.contains(&format!("{admin}.shop.svc").as_str()),
            "{values}: it answers to its own name: {hosts:?}"
        );
        let budget = objects.get(&format!("PodDisruptionBudget/{name}"));
        assert_eq!(budget.is_some(), values != SINGLE, "{values}");
        assert!(budget.is_none_or(|b| selects(&b["spec"]["selector"]["matchLabels"], pod)));
        let optional = |kind: &str| objects.get(&format!("{kind}/{name}"));
        for kind in ["NetworkPolicy", "ServiceMonitor"] {
            assert_eq!(optional(kind).is_some(), values == EXTERNAL, "{values}: {kind}");
        }
        if let Some(monitor) = optional("ServiceMonitor") {
            let wanted = monitor["spec"]["selector"]["matchLabels"].clone();
            let found = objects.values().filter(|o| o["kind"] == "Service" && selects(&wanted, o));
            assert_eq!(found.map(|o| &o["metadata"]["name"]).collect::<Vec<_>>(), [&pods], "scraped once");
        }
        let policy = optional("NetworkPolicy").map(|p| &p["spec"]);
        assert!(policy.is_none_or(|p| selects(&p["podSelector"]["matchLabels"], pod)));
    }
}

#[test]
fn a_change_restarts_the_proxies_only_where_it_must() {
    let template = |arguments: &[&str]| pod(&rendered(&[OWN], arguments).unwrap(), "edge-switchback").clone();
    let before = template(&[]);
    assert_eq!(template(&["--set", "config=[services]"]), before, "the proxies read it by themselves");
    for change in ["proxy.drainTimeoutSeconds=60", "store.prefix=/other", "proxy.settings.threads=2"] {
        assert_ne!(template(&["--set", change]), before, "{change}");
    }
    let secret = format!("secrets.data.cookie-secret={}", "another".repeat(6));
    assert_ne!(template(&["--set", &secret]), before);
    assert!(configuration(&rendered(&[OWN], &[]).unwrap(), "edge-switchback").contains("watch = true"));
}

#[test]
fn values_that_cannot_be_are_refused_by_name() {
    let refused = |values: &[&str], set: &str, why: &str| {
        let error = rendered(values, &["--set", set]).err().unwrap_or_else(|| panic!("{set} is taken"));
        assert!(error.contains(why), "{set}: {error}");
    };
    refused(&[], "replicaCount=3", "secrets.data.cookie-secret is missing");
    refused(&[], "secrets.data.cookie-secret=short", "/secrets/data/cookie-secret");
    refused(
        &[OWN],
        "admin.tokens[0].name=a,admin.tokens[0].role=admin,admin.tokens[0].key=k",
        "secrets.data.k is missing",
    );
    refused(&[OWN], "etcd.enabled=false", "replicaCount is above 1 without etcd");
    refused(&[SINGLE], "persistence.enabled=false", "persistence.enabled is false without etcd");
    refused(&[EXTERNAL], "etcd.enabled=true", "etcd.enabled and externalEtcd.endpoints are both set");
    refused(&[EXTERNAL], "externalEtcd.tls.keyKey=", "externalEtcd.tls.keyKey is missing");
    refused(&[OWN], "etcd.replicas=2", "/etcd/replicas");
    refused(&[OWN], "etcd.quota=1", "'quota'");
    refused(&[OWN], "replicas=3", "'replicas'");
    refused(&[OWN], "proxy.settings.listen=a", "invalid propertyName 'listen'");
    refused(&[OWN], "admin.tokens=null", "missing property 'tokens'");
    refused(&[OWN], "config=null,store.prefix=switchback", "/store/prefix");
}

/// Every value that a chart's templates name, as written after `.Values`.
fn named(chart: &str) -> BTreeSet<String> {
    let folder = path(chart).join("templates");
    let mut found = BTreeSet::new();
    for file in std::fs::read_dir(folder).unwrap() {
        let text = std::fs::read_to_string(file.unwrap().path()).unwrap();
        for rest in text.split(".Values.").skip(1) {
            let end = rest.find(|c: char| !c.is_ascii_alphanumeric() && c != '.').unwrap();
            found.insert(rest[..end].trim_end_matches('.').to_owned());
        }
    }
    found
}

#[test]
fn values_schema_and_templates_name_the_same() {
    for chart in [CHART.to_owned(), format!("{CHART}/charts/etcd")] {
        let text = read(&format!("{chart}/values.yaml"));
        let values = yaml(&text);
        let schema: Value = serde_json::from_str(&read(&format!("{chart}/values.schema.json"))).unwrap();
        let named = named(&chart);
        for name in &named {
            let pointer = format!("/{}", name.replace('.', "/"));
            assert!(values.pointer(&pointer).is_some(), "{chart}: values.yaml has no {name}");
        }
        let known = |value: &Value| value.as_object().unwrap().keys().cloned().collect::<BTreeSet<_>>();
        let mut allowed = known(&schema["properties"]);
        assert!(allowed.remove("global"), "Helm gives it to charts in charts");
        assert_eq!(known(&values), allowed, "{chart}: values.yaml and its schema");
        for key in known(&values) {
            let used = named.iter().any(|n| *n == key || n.starts_with(&format!("{key}.")));
            assert!(used || (chart != CHART && key == "enabled"), "{chart}: no template uses {key}");
        }
    }
    let lint = helm()
        .args(["lint", "--strict"])
        .arg(path(CHART))
        .arg("--values")
        .arg(path(CHART).join("ci").join(OWN))
        .output();
    let lint = lint.unwrap();
    assert!(lint.status.success(), "{}", String::from_utf8_lossy(&lint.stdout));
    let (chart, cargo) = (yaml(&read(&format!("{CHART}/Chart.yaml"))), read("Cargo.toml"));
    let package = parsed(&cargo)["package"]["version"].clone();
    assert_eq!(chart["appVersion"], package, "the release that it installs is the one it comes with");
}

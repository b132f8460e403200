//! Ingresses of ingress-nginx: an Ingress for the version of now and, for the same host and path, one that has the
//! annotation `canary: "true"`.

use serde_json::Value;

use super::kubernetes::{Object, address, text};
use super::service::{Service, quoted, round};

const PREFIX: &str = "nginx.ingress.kubernetes.io/";

/// A host and path with what answers there.
struct Backend<'a> {
    ingress: &'a Object,
    host: Option<String>,
    path: Option<String>,
    exact: bool,
    service: String,
    port: &'a Value,
}

/// The services of all Ingresses.
pub(super) fn services(objects: &[Object]) -> Vec<Service> {
    let ingresses: Vec<_> = objects.iter().filter(|o| o.kind == "Ingress" && o.api == "networking.k8s.io/v1").collect();
    let (canary, main): (Vec<_>, Vec<_>) = ingresses.into_iter().partition(|ingress| is_canary(ingress));
    let canaries: Vec<_> = canary.iter().flat_map(|ingress| backends(ingress)).collect();
    let mut services: Vec<Service> = Vec::new();
    for backend in main.iter().flat_map(|ingress| backends(ingress)) {
        let rule = (backend.host.clone(), backend.path.clone());
        let same = |s: &Service| s.name == backend.service && s.namespace == backend.ingress.namespace;
        let at = services.iter().position(same).unwrap_or_else(|| {
            services.push(service(objects, &backend));
            services.len() - 1
        });
        let service = &mut services[at];
        service.rules.push(rule);
        if backend.exact {
            service.note(format!(
                "The path {} was Exact; here it is a prefix, so what lies below it comes here, too.",
                backend.path.as_deref().unwrap_or("/")
            ));
        }
        let at_the_same_place = |c: &&Backend<'_>| {
            (&c.ingress.namespace, &c.host, &c.path) == (&backend.ingress.namespace, &backend.host, &backend.path)
        };
        if let Some(canary) = canaries.iter().find(at_the_same_place) {
            add_canary(objects, service, canary);
        }
    }
    services
}

fn is_canary(ingress: &Object) -> bool {
    ingress.annotations().any(|(name, value)| name.strip_prefix(PREFIX) == Some("canary") && value == "true")
}

fn backends(ingress: &Object) -> Vec<Backend<'_>> {
    let mut all = Vec::new();
    for rule in ingress.list("/spec/rules") {
        let host = rule["host"].as_str().map(str::to_owned);
        for path in rule.pointer("/http/paths").and_then(Value::as_array).into_iter().flatten() {
            let of = path["path"].as_str().filter(|path| *path != "/").map(str::to_owned);
            // A rule needs something to match.
            let of = of.or_else(|| host.is_none().then(|| "/".to_owned()));
            all.extend(one(ingress, host.clone(), of, path["pathType"] == "Exact", &path["backend"]));
        }
    }
    if let Some(backend) = ingress.at("/spec/defaultBackend") {
        all.extend(one(ingress, None, Some("/".to_owned()), false, backend));
    }
    all
}

fn one<'a>(
    ingress: &'a Object,
    host: Option<String>,
    path: Option<String>,
    exact: bool,
    backend: &'a Value,
) -> Option<Backend<'a>> {
    let service = backend.pointer("/service/name")?.as_str()?.to_owned();
    let port = backend.pointer("/service/port")?;
    let port = port.get("number").or_else(|| port.get("name"))?;
    Some(Backend { ingress, host, path, exact, service, port })
}

fn service(objects: &[Object], backend: &Backend<'_>) -> Service {
    let mut service =
        Service { name: backend.service.clone(), namespace: backend.ingress.namespace.clone(), ..Service::default() };
    add_version(objects, &mut service, backend);
    if !backend.ingress.list("/spec/tls").is_empty() {
        service.note("It had TLS: name the certificates in [[proxy.tls]].");
    }
    let mut sticky = None;
    for (name, value) in backend.ingress.annotations() {
        let Some(name) = name.strip_prefix(PREFIX) else { continue };
        match name {
            "affinity" if value == "cookie" => sticky = sticky.or(Some("INGRESSCOOKIE".to_owned())),
            "session-cookie-name" => sticky = Some(value),
            "proxy-body-size" => size(&mut service, &value),
            "proxy-connect-timeout" | "proxy-read-timeout" => {
                service.note(format!("{name} was {value} s: timeouts.connect and timeouts.response of each version."));
            }
            "use-regex" | "rewrite-target" => {
                service.note(format!(
                    "{name} = {value:?}: paths are prefixes here, and rewrite of a version replaces one."
                ));
            }
            "session-cookie-max-age" | "session-cookie-expires" | "affinity-mode" | "affinity-canary-behavior" => {}
            _ => service.note(format!("No counterpart was looked for: {name} = {value:?}.")),
        }
    }
    match sticky {
        Some(cookie) => service.keys.push(format!("sticky = [{{ cookie = {}, issue = true }}]", quoted(&cookie))),
        None => service.note(
            "Without sticky each request is drawn afresh, as nginx did by weight; \
             sticky = [{ header = \"x-user-id\" }] or a cookie keeps each user on one version.",
        ),
    }
    service
}

/// `8m` and the like; 0 is no limit in both.
fn size(service: &mut Service, value: &str) {
    let (number, unit) = value.split_at(value.find(|c: char| !c.is_ascii_digit()).unwrap_or(value.len()));
    let unit = match unit.to_ascii_lowercase().as_str() {
        "" => "B",
        "k" => "KiB",
        "m" => "MiB",
        "g" => "GiB",
        _ => return service.note(format!("proxy-body-size = {value:?} is not understood: see body_limit.")),
    };
    match number {
        "0" => service.keys.push("body_limit = 0".to_owned()),
        "" => service.note(format!("proxy-body-size = {value:?} is not understood: see body_limit.")),
        number => service.keys.push(format!("body_limit = \"{number}{unit}\"")),
    }
}

fn add_version(objects: &[Object], service: &mut Service, backend: &Backend<'_>) {
    let namespace = &backend.ingress.namespace;
    let address = address(objects, namespace, &backend.service, backend.port).unwrap_or_else(|note| {
        service.note(note);
        format!("{}.{namespace}.svc:80", backend.service)
    });
    service.versions.push((backend.service.clone(), address));
}

fn add_canary(objects: &[Object], service: &mut Service, canary: &Backend<'_>) {
    if service.versions.iter().any(|(name, _)| *name == canary.service) {
        return;
    }
    if service.versions.len() > 1 {
        return service
            .note(format!("{} is another canary of the same service; only the first became one.", canary.service));
    }
    add_version(objects, service, canary);
    let annotation = |wanted: &str| {
        let mut all = canary.ingress.annotations();
        all.find(|(name, _)| name.strip_prefix(PREFIX) == Some(wanted)).map(|(_, value)| value)
    };
    let number = |name: &str| annotation(name).and_then(|value| value.parse::<f64>().ok());
    let total = number("canary-weight-total").filter(|total| *total > 0.0).unwrap_or(100.0);
    service.share = round((number("canary-weight").unwrap_or(0.0) / total * 100.0).clamp(0.0, 100.0));
    let header = annotation("canary-by-header");
    let cookie = annotation("canary-by-cookie");
    if header.is_some() || cookie.is_some() {
        choose(service, canary, header, cookie);
    }
    for (name, value) in canary.ingress.annotations() {
        let known = name.strip_prefix(PREFIX).is_none_or(|name| name.starts_with("canary"));
        if !known {
            service.note(format!(
                "The canary had {name} = {}: versions here share what the service has.",
                text(&value.into())
            ));
        }
    }
}

/// Who said `always` by header or cookie chose the canary; here one says which version, and proves that one may.
fn choose(service: &mut Service, canary: &Backend<'_>, header: Option<String>, cookie: Option<String>) {
    let mut lines = Vec::new();
    lines.extend(header.as_ref().map(|header| format!("header = {}", quoted(&header.to_ascii_lowercase()))));
    lines.extend(cookie.as_ref().map(|cookie| format!("cookie = {}", quoted(cookie))));
    lines.push("# secret = \"${TESTER_SECRET}\"    # without it only clients in proxy.trusted may choose".to_owned());
    service.tables.push(("choose", lines));
    let named =
        header.map_or_else(|| format!("cookie {}", cookie.unwrap_or_default()), |header| format!("header {header}"));
    let version = &canary.service;
    service.note(format!(
        "Whoever sent the {named} as always got the canary, and as never did not. Here the value names the version, {version} \
         or the baseline, and is believed with the secret ({version}:SECRET) or from proxy.trusted."
    ));
    let pattern = ["canary-by-header-value", "canary-by-header-pattern"];
    let mut others = canary.ingress.annotations().filter_map(|(name, value)| Some((name.strip_prefix(PREFIX)?, value)));
    if let Some((name, value)) = others.find(|(name, _)| pattern.contains(name)) {
        service.note(format!(
            "{name} = {value:?} has no counterpart: use a pin for those users or tenants, or a match rule."
        ));
    }
}

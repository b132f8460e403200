//! `import`: a configuration from what other tools were told, to begin with: Ingresses of ingress-nginx with canary
//! annotations, and Canaries of Flagger.
//!
//! Nothing is left out in silence: what has no counterpart here stands as a comment beside the service, with what to do
//! about it.

mod flagger;
mod kubernetes;
mod nginx;
mod service;

use std::collections::BTreeMap;
use std::io::Read as _;
use std::path::PathBuf;

use serde_json::Value;

use self::kubernetes::Object;
use self::service::Service;
use super::error::CliError;

/// Reads the files, or standard input for `-`, and answers the configuration as TOML.
///
/// # Errors
/// A file that cannot be read, is no YAML or holds nothing that could become a service.
pub(super) fn import(files: &[PathBuf]) -> Result<String, CliError> {
    let mut objects = Vec::new();
    for file in files {
        let name = file.display();
        let text = match file.as_os_str() == "-" {
            true => {
                let mut text = String::new();
                std::io::stdin().read_to_string(&mut text).map(|_| text)
            }
            false => std::fs::read_to_string(file),
        };
        let text = text.map_err(|e| CliError::Usage(format!("{name} cannot be read: {e}")))?;
        objects.extend(read(&text).map_err(|e| CliError::Usage(format!("{name} is no YAML: {e}")))?);
    }
    configuration(&objects).ok_or_else(|| {
        let kinds: Vec<_> = objects.iter().map(|object| object.kind.as_str()).collect();
        let found = if kinds.is_empty() { "nothing".to_owned() } else { kinds.join(", ") };
        let wanted = "an Ingress of networking.k8s.io/v1 with a host or path, or a Canary of flagger.app";
        CliError::Usage(format!("nothing can be imported: found {found}; wanted is {wanted}"))
    })
}

/// Every object of the documents, those within lists too.
fn read(text: &str) -> Result<Vec<Object>, serde_saphyr::Error> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text)?;
    let mut objects = Vec::new();
    for mut document in documents {
        match document.get_mut("items").map(Value::take) {
            Some(Value::Array(items)) => objects.extend(items),
            _ => objects.push(document),
        }
    }
    Ok(objects.into_iter().filter(Value::is_object).map(Object::new).collect())
}

fn configuration(objects: &[Object]) -> Option<String> {
    let mut services: BTreeMap<String, Service> = BTreeMap::new();
    for service in nginx::services(objects).into_iter().chain(flagger::services(objects)) {
        // The same name in two namespaces is two services.
        let of_namespace = format!("{}-{}", service.namespace, service.name);
        let numbered = (2..).map(|n| format!("{of_namespace}-{n}"));
        let mut names = [service.name.clone(), of_namespace.clone()].into_iter().chain(numbered);
        let Some(name) = names.find(|name| !services.contains_key(name)) else { continue };
        services.insert(name.clone(), Service { name, ..service });
    }
    if services.is_empty() {
        return None;
    }
    let mut text = HEAD.to_owned();
    services.values().for_each(|service| service.write(&mut text));
    Some(text)
}

const HEAD: &str = r#"# Made by `switchback import`. Read the comments, then: switchback check --config FILE

[proxy]
listen = ["0.0.0.0:8080"]

# Endpoints are names of Kubernetes' DNS, so this is for a proxy within the cluster. The service's address is one endpoint;
# a headless service would let the proxy see each pod.
"#;

#[cfg(test)]
mod tests;

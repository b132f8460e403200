//! Objects of Kubernetes, as far as they are looked at here.

use serde_json::Value;

/// One object.
pub(super) struct Object {
    /// Such as `Ingress`.
    pub kind: String,
    /// Such as `networking.k8s.io/v1`.
    pub api: String,
    /// Its name.
    pub name: String,
    /// Its namespace; `default` unless it says so.
    pub namespace: String,
    body: Value,
}

impl Object {
    /// Reads what is there.
    pub fn new(body: Value) -> Self {
        let text = |path: &str| body.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
        let (kind, api, name) = (text("/kind"), text("/apiVersion"), text("/metadata/name"));
        let namespace = text("/metadata/namespace");
        let namespace = if namespace.is_empty() { "default".to_owned() } else { namespace };
        Self { kind, api, name, namespace, body }
    }

    /// A value below, by JSON pointer.
    pub fn at(&self, path: &str) -> Option<&Value> {
        self.body.pointer(path)
    }

    /// A list below; empty when there is none.
    pub fn list(&self, path: &str) -> &[Value] {
        self.at(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
    }

    /// Its annotations, as text.
    pub fn annotations(&self) -> impl Iterator<Item = (&str, String)> {
        let all = self.at("/metadata/annotations").and_then(Value::as_object);
        all.into_iter().flatten().map(|(name, value)| (name.as_str(), text(value)))
    }
}

/// A value as it would be written.
pub(super) fn text(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// The address of a service's port within the cluster. Ports with a name are looked up among the objects.
pub(super) fn address(objects: &[Object], namespace: &str, service: &str, port: &Value) -> Result<String, String> {
    if let Some(number) = port.as_u64() {
        return Ok(format!("{service}.{namespace}.svc:{number}"));
    }
    let port = text(port);
    let known = objects.iter().find(|o| o.kind == "Service" && o.name == service && o.namespace == namespace);
    let ports = known.map_or(&[][..], |object| object.list("/spec/ports"));
    let number = ports.iter().find(|p| p["name"] == port.as_str()).and_then(|p| p["port"].as_u64());
    number.map(|number| format!("{service}.{namespace}.svc:{number}")).ok_or_else(|| {
        format!("the port {port:?} of the service {service} is a name, and 80 a guess: give the Service to import, too")
    })
}

//! Names that only the admin API knows, asked for with little patience.

use std::time::Duration;

use serde_json::Value;

use super::Candidate;
use super::place::Place;
use crate::cli::address::Resource;
use crate::cli::args::Global;
use crate::cli::client::Client;
use crate::cli::text::Fields;

/// Whoever pressed the tab key waits no longer than this for each document.
const PATIENCE: Duration = Duration::from_millis(700);
/// Most tenants that are offered.
const MOST: u32 = 200;

/// What a name is a name of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A service.
    Service,
    /// A version of the service that was named before.
    Version,
    /// A tenant with settings of its own, of the service that was named before.
    Tenant,
    /// A group of tenants with settings of its own, of the service that was named before.
    Group,
    /// A rollout.
    Rollout,
    /// A snapshot.
    Snapshot,
    /// Somebody who is told of what happens.
    Target,
}

/// Where names come from.
pub(super) struct Names<'a> {
    client: Option<Client>,
    place: &'a Place,
}

impl<'a> Names<'a> {
    /// From the API that the line names, or else the environment.
    pub(super) fn new(place: &'a Place, global: &Global, version: &str) -> Self {
        let given = |id: &str| place.value(id).map(str::to_owned);
        let global = Global {
            admin: given("admin").unwrap_or_else(|| global.admin.clone()),
            token: given("token").or_else(|| global.token.clone()),
            token_file: given("token_file").map(Into::into).or_else(|| global.token_file.clone()),
            ..global.clone()
        };
        let client = crate::cli::client(&global, version).ok();
        Self { client: client.map(|client| client.silent().within(PATIENCE)), place }
    }

    /// All of that kind; none when nobody answers.
    pub(super) fn all(&self, kind: Kind) -> Vec<Candidate> {
        let service = self.place.value("service");
        match kind {
            Kind::Service => self.list(&["services"], "services", "name", service_about),
            Kind::Rollout => self.list(&["rollouts"], "rollouts", "id", rollout_about),
            Kind::Snapshot => self.list(&["snapshots"], "snapshots", "name", |s| s.text("reason").unwrap_or_default()),
            Kind::Target => self.list(&["notify"], "targets", "name", |t| t.text("type").unwrap_or_default()),
            Kind::Version => service.map(|service| self.versions(service)).unwrap_or_default(),
            Kind::Tenant => service.map(|service| self.tenants(service)).unwrap_or_default(),
            Kind::Group => service.map(|service| self.groups(service)).unwrap_or_default(),
        }
    }

    fn get(&self, resource: &Resource) -> Value {
        self.client.as_ref().and_then(|client| client.get(resource).ok()).unwrap_or_default()
    }

    fn list(&self, path: &[&str], key: &str, name: &str, about: fn(&Value) -> String) -> Vec<Candidate> {
        let document = self.get(&Resource::new(path));
        let entry = |of: &Value| Some(Candidate { text: of.text(name)?, about: about(of) });
        document.list(key).iter().filter_map(entry).collect()
    }

    fn versions(&self, service: &str) -> Vec<Candidate> {
        self.list(&["services", service], "versions", "name", |version| version.text("role").unwrap_or_default())
    }

    fn tenants(&self, service: &str) -> Vec<Candidate> {
        let begun = Some(self.place.begun.as_str()).filter(|begun| !begun.is_empty());
        let resource = Resource::new(&["services", service, "tenants"]).with("search", begun).with("limit", Some(MOST));
        let split = |of: &Value| Some(Candidate { text: of.text("name")?, about: "has a split of its own".to_owned() });
        let mut all: Vec<_> = self.get(&resource).list("tenants").iter().filter_map(split).collect();
        let pinned = self.get(&Resource::new(&["services", service]));
        for pin in pinned.list("pins").iter().filter(|pin| pin.text("kind").as_deref() == Some("tenant")) {
            let name = pin.text("name").unwrap_or_default();
            if !all.iter().any(|known| known.text == name) {
                all.push(Candidate { text: name, about: "is pinned".to_owned() });
            }
        }
        all
    }

    fn groups(&self, service: &str) -> Vec<Candidate> {
        let document = self.get(&Resource::new(&["services", service]));
        let split = document.at("groups").as_object().into_iter().flatten().map(|(name, _)| name.clone());
        let mut all: Vec<_> =
            split.map(|text| Candidate { text, about: "has a split of its own".to_owned() }).collect();
        for pin in document.list("pins").iter().filter(|pin| pin.text("kind").as_deref() == Some("group")) {
            let name = pin.text("name").unwrap_or_default();
            if !all.iter().any(|known| known.text == name) {
                all.push(Candidate { text: name, about: "is pinned".to_owned() });
            }
        }
        all
    }
}

fn service_about(service: &Value) -> String {
    service.text("baseline").map(|baseline| format!("baseline {baseline}")).unwrap_or_default()
}

fn rollout_about(rollout: &Value) -> String {
    let text = |key| rollout.text(key).unwrap_or_default();
    format!("{} to {}, {}", text("service"), text("to"), text("phase").replace('_', " "))
}

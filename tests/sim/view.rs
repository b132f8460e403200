//! What every scope has, worked out once for each state that differs in it.

use std::collections::BTreeMap;

use switchback::model::{Scope, ServiceName, Split, State, Structure, VersionName, Weights};

/// The split that a scope follows.
pub struct Seen {
    pub split: Split,
    pub owner: Scope,
    /// The shares in effect.
    weights: Weights,
}

/// What all scopes have.
#[derive(Default)]
pub struct View(BTreeMap<Scope, Seen>);

impl View {
    pub fn new(state: &State, structure: &Structure, service: &ServiceName, scopes: &[Scope]) -> Self {
        let live = state.service(service.as_str()).expect("the service is there");
        let see = |scope: &Scope| {
            let (split, owner) = state.split_of(structure, service, scope).expect("the service is there");
            let weights = live.weights_in_effect(&split);
            (scope.clone(), Seen { split, owner, weights })
        };
        Self(scopes.iter().map(see).collect())
    }

    pub fn of(&self, scope: &Scope) -> &Seen {
        &self.0[scope]
    }

    /// Basis points of the version that are in effect for a scope.
    pub fn share(&self, scope: &Scope, version: &VersionName) -> u16 {
        self.of(scope).weights.share(version.as_str()).points()
    }

    pub fn attempt(&self, scope: &Scope) -> u64 {
        self.of(scope).split.attempt
    }
}

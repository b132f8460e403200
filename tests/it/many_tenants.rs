//! A store that looks like that of a large operator.

use std::path::Path;
use std::sync::Arc;

use switchback::model::{
    BasisPoints, Commit, DOCUMENT_FORMAT, ServiceName, ServiceState, Split, State, TenantName, TenantState,
    VersionName, Weights,
};
use switchback::store::{EmbeddedStore, Options, Store as _};

/// A store with this many tenants that have splits of their own.
pub async fn many_tenants(folder: &Path, tenants: usize) {
    let one = VersionName::new("1.0.0").unwrap();
    let service = ServiceName::new("shop").unwrap();
    let mut state = State { revision: 1, ..State::default() };
    let live = ServiceState::new(one.clone(), &Weights::all_on(one.clone()), 7, 1);
    let own = |n: usize| {
        let half = BasisPoints::from_percent(50.0).unwrap();
        let weights = Weights::new([(one.clone(), half), (VersionName::new("2.0.0").unwrap(), half)]).unwrap();
        TenantState {
            format: DOCUMENT_FORMAT,
            revision: 1,
            split: Split::new(&weights, &one, n as u64, 1),
            by: None,
            unknown: Default::default(),
        }
    };
    let names = (0..tenants).map(|n| (TenantName::new(&format!("tenant-{n}")).unwrap(), own(n)));
    state.tenants.insert(service.clone(), names.collect());
    state.services.insert(service, Arc::new(live));
    let store = EmbeddedStore::open(&folder.join("switchback.db"), Options::default()).unwrap();
    let puts = state.to_documents().map(|d| (d.key, d.body)).collect();
    store.commit(Commit { expected: 0, revision: 1, puts, ..Commit::default() }).await.unwrap();
    store.close().await;
}

//! What every handler needs: the parts, and how names are looked up in one view.

use std::ops::Deref;
use std::sync::{Arc, MutexGuard, PoisonError};

use tokio::sync::Semaphore;

use super::AdminParts;
use super::problem::Problem;
use super::simulate::MAX_SIMULATIONS;
use super::throttle::Throttle;
use crate::control::View;
use crate::model::{ServiceName, ServiceState, VersionName};
use crate::routing::ServiceRoute;
use crate::telemetry::Windows;

/// Event streams that may be open at a time.
pub(super) const MAX_STREAMS: usize = 256;

/// The parts and what the room keeps itself.
pub(super) struct Shared {
    parts: AdminParts,
    /// Slows down whoever guesses tokens.
    pub throttle: Throttle,
    /// One permit for each event stream.
    pub streams: Arc<Semaphore>,
    /// One permit for each simulation.
    pub simulations: Arc<Semaphore>,
    /// The API's description, as JSON.
    pub description: bytes::Bytes,
}

/// The state of every handler.
pub(super) type Cx = Arc<Shared>;

impl Deref for Shared {
    type Target = AdminParts;

    fn deref(&self) -> &AdminParts {
        &self.parts
    }
}

impl Shared {
    pub(super) fn new(parts: AdminParts, description: bytes::Bytes) -> Self {
        let streams = Arc::new(Semaphore::new(MAX_STREAMS));
        let simulations = Arc::new(Semaphore::new(MAX_SIMULATIONS));
        Self { parts, throttle: Throttle::default(), streams, simulations, description }
    }

    /// The history of counts.
    pub(super) fn lock_windows(&self) -> MutexGuard<'_, Windows> {
        // Counts are plain numbers: after a panic elsewhere they are at worst a little low.
        self.windows.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Milliseconds on the axis of windows and endpoints.
    pub(super) fn now(&self) -> u64 {
        (self.now_ms)()
    }
}

/// One service within one view.
pub(super) struct Found {
    /// Everything at the same revision.
    pub view: Arc<View>,
    /// The compiled service.
    pub route: Arc<ServiceRoute>,
}

impl Found {
    /// Looks a service up.
    pub(super) fn service(cx: &Shared, name: &ServiceName) -> Result<Self, Problem> {
        let view = cx.control.view();
        let known = || view.routes.services.iter().map(|s| s.spec.name.as_str());
        let route = view.routes.service(name.as_str()).cloned();
        let route = route.ok_or_else(|| Problem::unknown("service", name.as_str(), known()))?;
        Ok(Self { view, route })
    }

    /// Its name.
    pub(super) fn name(&self) -> &ServiceName {
        &self.route.spec.name
    }

    /// Its live part.
    pub(super) fn live(&self) -> &ServiceState {
        &self.route.state
    }

    /// A version of it, or a refusal that names the parameter.
    pub(super) fn version(&self, field: &str, name: &str) -> Result<VersionName, Problem> {
        let known = || self.route.versions.iter().map(|v| v.name.as_str());
        match self.route.version(name) {
            Some(version) => Ok(version.name.clone()),
            None => {
                let list = known().collect::<Vec<_>>().join(", ");
                let text = format!("{} has no version {:?}; it has: {list}", self.name(), super::problem::echo(name));
                Err(Problem::invalid(field, text).guess(name, known()))
            }
        }
    }
}

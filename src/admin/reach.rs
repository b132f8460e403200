//! Where gates lie that a rollout names, and where the endpoints of a version that is being registered lie: refused at once when they may not be there. The proxy
//! looks again whenever it has looked a name up, since a name may lead elsewhere tomorrow.

use axum::http::StatusCode;

use super::problem::Problem;
use crate::config::AdminSettings;
use crate::model::{EndpointSpec, Gate, OutOfReach, Reach, VersionSpec};
use crate::proxy;
use crate::webhook::{check_url, origin};

/// Looks at every endpoint. A name that cannot be looked up now is taken: it may exist when the version does.
pub(super) async fn check(settings: &AdminSettings, spec: &VersionSpec) -> Result<(), Problem> {
    let reach = settings.reach();
    let looked = futures::future::join_all(spec.endpoints.iter().map(|endpoint| look(&reach, endpoint))).await;
    let wrong: Vec<_> = looked
        .into_iter()
        .enumerate()
        .filter_map(|(i, out)| Some((format!("endpoints[{i}]"), out.err()?, &spec.endpoints[i])))
        .map(|(field, out, endpoint)| (field, sentence(settings, endpoint, &out)))
        .collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let list: Vec<_> = wrong.iter().map(|(field, message)| format!("{field}: {message}")).collect();
    let problem = Problem::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", list.join("; "));
    Err(wrong.iter().fold(problem, |problem, (field, message)| problem.field(field, message)))
}

async fn look(reach: &Reach, endpoint: &EndpointSpec) -> Result<(), OutOfReach> {
    match endpoint {
        EndpointSpec::Address(address) => reach.check(address.ip()),
        EndpointSpec::PerTenant { host, .. } => reach.check_host(host),
        EndpointSpec::Name { host, port } => {
            reach.check_host(host)?;
            let found = proxy::resolve(host, *port).await.unwrap_or_default();
            found.into_iter().try_for_each(|address| reach.check(address.ip()))
        }
    }
}

/// Looks at the addresses of a rollout's gates, as they are written; names are looked at when they are called.
pub(super) fn check_gates(settings: &AdminSettings, gates: &[Gate]) -> Result<(), Problem> {
    let reach = settings.reach();
    for (i, gate) in gates.iter().enumerate() {
        if let Err(out) = check_url(&gate.url, &reach) {
            let listed = listed(settings);
            let why = format!("{} is not allowed: {out}; {listed}", origin(&gate.url));
            return Err(Problem::invalid(&format!("gates[{i}].url"), why));
        }
    }
    Ok(())
}

fn sentence(settings: &AdminSettings, endpoint: &EndpointSpec, out: &OutOfReach) -> String {
    format!("{:?} is not allowed: {out}; {}", endpoint.to_string(), listed(settings))
}

fn listed(settings: &AdminSettings) -> String {
    let listed: Vec<_> = settings.endpoint_networks.iter().map(ToString::to_string).collect();
    let listed = if listed.is_empty() { "nothing".to_owned() } else { listed.join(", ") };
    format!("allowed are private and public addresses, and what admin.endpoint_networks lists, which is {listed}")
}

//! A change on its way: who asks, for what, against which revision; and the answer when it is durable and in effect.

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::answers::present;
use super::auth::Caller;
use super::context::{Cx, Found};
use super::parameters::{Names, Parameters};
use super::precondition::{Conditions, tagged};
use super::problem::Problem;
use crate::control::{Receipt, SubmitError};
use crate::model::{
    Change, ChangeError, ChangeRequest, EventKind, PinTarget, Scope, ServiceName, TenantName, scope_of,
};

/// The longest reason in characters.
const MAX_REASON: usize = 1_000;

/// What every change brings besides its body.
pub(super) struct Asked {
    /// Names in the path.
    pub names: Names,
    /// The service it is about.
    pub found: Found,
    cx: Cx,
    caller: Caller,
    conditions: Conditions,
    dry_run: bool,
    reason: Option<String>,
}

/// What a change came to.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Receipt)]
pub(super) struct ReceiptAnswer {
    /// Revision of the state, and of the document when it was changed.
    pub revision: u64,
    /// The event that tells of it; none for a dry run.
    #[schema(required)]
    pub event: Option<u64>,
    /// Whether nothing was changed.
    pub dry_run: bool,
    /// The store is away: the change is in effect here and will be committed when the store is back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    #[schema(required = false)]
    pub unconfirmed: bool,
    /// What was before.
    #[schema(required)]
    pub before: Value,
    /// What is now.
    #[schema(required)]
    pub after: Value,
}

impl FromRequestParts<Cx> for Asked {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, cx: &Cx) -> Result<Self, Problem> {
        let names = Names::from_request_parts(parts, cx).await?;
        let parameters = Parameters::from_request_parts(parts, cx).await?;
        // The route's own middleware puts the caller there; without it nobody may change anything.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller = caller.ok_or_else(|| {
            Problem::new(axum::http::StatusCode::UNAUTHORIZED, "unauthorized", "nobody asked who you are")
        })?;
        // A rollout belongs to a service.
        let service = match names.text("id") {
            "" => names.service()?,
            _ => super::rollouts::find(cx, &names.rollout()?)?.rollout.service.clone(),
        };
        Ok(Self { names, ..Self::new(cx, caller, &parts.headers, parameters, &service)? })
    }
}

impl Asked {
    /// A change of this service.
    pub(super) fn new(
        cx: &Cx,
        caller: Caller,
        headers: &HeaderMap,
        parameters: Parameters,
        service: &ServiceName,
    ) -> Result<Self, Problem> {
        let parameters = parameters.only(&["dry_run", "reason"], &[])?;
        Ok(Self {
            found: Found::service(cx, service)?,
            names: Names::default(),
            cx: cx.clone(),
            caller,
            conditions: Conditions::read(headers)?,
            dry_run: parameters.flag("dry_run")?,
            reason: parameters.text("reason").map(str::to_owned),
        })
    }

    /// Whether nothing is to be changed.
    pub(super) fn is_dry_run(&self) -> bool {
        self.dry_run
    }

    /// Hands the change to the writer and tells what it came to. A reason in the body comes before one in the query.
    pub(super) async fn submit(self, change: Change, reason: Option<String>) -> Result<Response, Problem> {
        let kind = kind_of(&change);
        let current = self.document_revision(&change);
        let if_revision = self.conditions.expected(current);
        if if_revision == Some(u64::MAX) {
            return Err(Problem::no_match(current));
        }
        let request = ChangeRequest {
            service: self.found.name().clone(),
            if_revision,
            change,
            author: self.caller.author(),
            reason: tidy(reason.or(self.reason).unwrap_or_default())?,
            if_attempt: None,
            evidence: Value::Null,
        };
        let removed = removed(&request.change);
        match self.cx.control.submit(request, self.dry_run).await {
            Ok(receipt) => Ok(answer(kind, receipt)),
            Err(error) => Err(explained(&self.found, error, removed)),
        }
    }

    /// The revision now of the document that a change writes, 0 when there is none.
    fn document_revision(&self, change: &Change) -> u64 {
        if let Change::Rollout(id, _) = change {
            return self.found.view.state.rollouts.get(id).map_or(0, |live| live.rollout.revision);
        }
        match scope_of(change) {
            Some(Scope::Tenant(tenant)) => self.found.route.tenants.get(tenant).map_or(0, |own| own.revision),
            _ => self.found.live().revision,
        }
    }
}

fn answer(kind: Option<EventKind>, receipt: Receipt) -> Response {
    let body = ReceiptAnswer {
        revision: receipt.revision,
        event: receipt.event,
        dry_run: receipt.dry_run,
        unconfirmed: receipt.unconfirmed,
        before: present(kind, &receipt.before),
        after: present(kind, &receipt.after),
    };
    // A dry run made no document that could have a tag.
    if receipt.dry_run { Json(body).into_response() } else { tagged(receipt.document_revision, Json(body)) }
}

/// The refusal; where something is not there, with the name that was probably meant.
fn explained(found: &Found, error: SubmitError, removed: Option<PinTarget>) -> Problem {
    let not_there = matches!(&error, SubmitError::Refused(ChangeError::NotThere { .. }));
    let problem = Problem::from(error);
    let Some(target) = removed.filter(|_| not_there) else { return problem };
    let (live, pins) = (found.live(), &found.live().pins);
    match &target {
        PinTarget::Tenant(tenant) => {
            let own = found.route.tenants.keys();
            let known = own.chain(pins.tenants.keys()).chain(live.maintenance.tenants.keys());
            problem.guess(tenant.as_str(), known.map(TenantName::as_str))
        }
        PinTarget::User(user) => problem.guess(user.as_str(), pins.users.keys().map(|u| u.as_str())),
        PinTarget::Group(group) => {
            problem.guess(group.as_str(), live.groups.keys().chain(pins.groups.keys()).map(|g| g.as_str()))
        }
    }
}

/// Whose settings a change removes.
fn removed(change: &Change) -> Option<PinTarget> {
    match change {
        Change::ClearPin(target) => Some(target.clone()),
        Change::ClearSplit { scope: Scope::Tenant(tenant) } | Change::ClearMaintenance { tenant: Some(tenant) } => {
            Some(PinTarget::Tenant(tenant.clone()))
        }
        Change::ClearSplit { scope: Scope::Group(group) } => Some(PinTarget::Group(group.clone())),
        _ => None,
    }
}

/// Documents of these kinds are stored otherwise than they are shown.
fn kind_of(change: &Change) -> Option<EventKind> {
    match change {
        Change::PutVersion(..) => Some(EventKind::VersionPut),
        Change::DeleteVersion(_) => Some(EventKind::VersionDeleted),
        Change::SetHold => Some(EventKind::HoldSet),
        Change::ClearHold => Some(EventKind::HoldCleared),
        Change::SetMaintenance { .. } => Some(EventKind::MaintenanceOn),
        Change::ClearMaintenance { .. } => Some(EventKind::MaintenanceOff),
        _ => None,
    }
}

/// Reasons end up in logs and terminals, so they are one line without control characters.
pub(super) fn tidy(reason: String) -> Result<String, Problem> {
    let count = reason.chars().count();
    if count > MAX_REASON {
        return Err(Problem::invalid("reason", format!("has {count} characters; allowed are up to {MAX_REASON}")));
    }
    let line: String = reason.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    Ok(line.trim().to_owned())
}

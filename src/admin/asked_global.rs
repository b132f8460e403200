//! A change of the whole proxy on its way, as `asked` is for a change of one service.

use std::sync::Arc;

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};

use super::answers::present;
use super::asked::{ReceiptAnswer, tidy};
use super::auth::Caller;
use super::context::Cx;
use super::parameters::{Names, Parameters, read_name};
use super::precondition::{Conditions, tagged};
use super::problem::Problem;
use crate::control::{Control, Receipt, View};
use crate::model::{Author, EventKind, GlobalChange, GlobalRequest, SnapshotName};

/// What every such change brings besides its body.
pub(super) struct AskedGlobal {
    names: Names,
    cx: Cx,
    caller: Caller,
    conditions: Conditions,
    /// Whether nothing shall be changed.
    pub dry_run: bool,
    reason: Option<String>,
}

impl FromRequestParts<Cx> for AskedGlobal {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, cx: &Cx) -> Result<Self, Problem> {
        let names = Names::from_request_parts(parts, cx).await?;
        let parameters = Parameters::from_request_parts(parts, cx).await?.only(&["dry_run", "reason"], &[])?;
        // The route's own middleware puts the caller there; without it nobody may change anything.
        let caller = parts.extensions.get::<Caller>().cloned();
        let caller =
            caller.ok_or_else(|| Problem::new(StatusCode::UNAUTHORIZED, "unauthorized", "nobody asked who you are"))?;
        Ok(Self {
            names,
            cx: cx.clone(),
            caller,
            conditions: Conditions::read(&parts.headers)?,
            dry_run: parameters.flag("dry_run")?,
            reason: parameters.text("reason").map(str::to_owned),
        })
    }
}

impl AskedGlobal {
    /// The picture of now.
    pub(super) fn view(&self) -> Arc<View> {
        self.cx.control.view()
    }

    /// The door to the state.
    pub(super) fn control(&self) -> &Control {
        &self.cx.control
    }

    /// Who asks.
    pub(super) fn author(&self) -> Author {
        self.caller.author()
    }

    /// `{snapshot}`.
    pub(super) fn snapshot(&self) -> Result<SnapshotName, Problem> {
        read_name("snapshot", self.names.text("snapshot"))
    }

    /// The reason of the body, or else of the query.
    pub(super) fn reason(&self, of_body: Option<String>) -> Result<String, Problem> {
        tidy(of_body.or_else(|| self.reason.clone()).unwrap_or_default())
    }

    /// Hands the change to the writer and tells what it came to. `current` is the revision of the document concerned, 0
    /// when there is none.
    pub(super) async fn submit(
        self,
        change: GlobalChange,
        reason: Option<String>,
        current: u64,
    ) -> Result<Response, Problem> {
        let if_revision = self.conditions.expected(current);
        if if_revision == Some(u64::MAX) {
            return Err(Problem::no_match(current));
        }
        let kind = kind_of(&change);
        let request = GlobalRequest { change, author: self.author(), reason: self.reason(reason)?, if_revision };
        let receipt = self.cx.control.submit_global(request, self.dry_run).await?;
        Ok(answer(kind, receipt))
    }
}

/// The receipt as an answer.
pub(super) fn answer(kind: EventKind, receipt: Receipt) -> Response {
    let body = ReceiptAnswer {
        revision: receipt.revision,
        event: receipt.event,
        dry_run: receipt.dry_run,
        unconfirmed: receipt.unconfirmed,
        before: present(Some(kind), &receipt.before),
        after: present(Some(kind), &receipt.after),
    };
    // A dry run made no document that could have a tag.
    if receipt.dry_run { Json(body).into_response() } else { tagged(receipt.document_revision, Json(body)) }
}

fn kind_of(change: &GlobalChange) -> EventKind {
    match change {
        GlobalChange::SetFreeze { .. } => EventKind::FreezeSet,
        GlobalChange::ClearFreeze => EventKind::FreezeCleared,
        GlobalChange::TakeSnapshot { .. } => EventKind::SnapshotTaken,
        GlobalChange::RestoreSnapshot { .. } => EventKind::SnapshotRestored,
        GlobalChange::DeleteSnapshot(_) => EventKind::SnapshotDeleted,
    }
}

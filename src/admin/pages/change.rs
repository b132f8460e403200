//! Changes from pages: first a page that says what exactly would happen, then the change itself.
//!
//! Both steps go through the same door as the API. The first is a dry run, so whatever the writer would refuse is told
//! before anybody confirms. The revision comes from the page where the change began: whoever decided on what has changed
//! since is told so, in either step.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::Value;

use super::super::asked::tidy;
use super::super::context::{Cx, Found};
use super::super::parameters::{Names, read_name};
use super::super::problem::{Problem, echo};
use super::actions::left_alone;
use super::form::Form;
use super::layout::{Nav, Visitor, see_other};
use super::words::{plural, service_path, tenant_path};
use crate::control::Receipt;
use crate::model::{BasisPoints, Change, Pin, PinTarget, Scope, ServiceName, TenantName, VersionName, Weights};

/// Where changes of a service are.
pub(super) const SERVICE: &str = "/services/{service}/change/{action}";
/// Where changes of a tenant are.
pub(super) const TENANT: &str = "/services/{service}/tenants/{tenant}/change/{action}";
/// What the history calls a rollback that somebody asked for.
const PERSON: &str = "person";
/// The longest query that is read.
const MAX_FIELDS: usize = 64;

/// The path of a service's action.
pub(super) fn service_action(service: &ServiceName, action: &str) -> String {
    format!("{}/change/{action}", service_path(service))
}

/// The path of a tenant's action.
pub(super) fn tenant_action(service: &ServiceName, tenant: &TenantName, action: &str) -> String {
    format!("{}/change/{action}", tenant_path(service, tenant))
}

/// What was asked for.
struct Wanted {
    found: Found,
    tenant: Option<TenantName>,
    action: String,
    change: Change,
    /// The revision of the document concerned, as the author saw it.
    revision: Option<u64>,
    fields: Vec<(String, String)>,
}

/// Says what would happen.
pub(super) async fn ask(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let fields: Vec<(String, String)> = serde_urlencoded::from_str(query.as_deref().unwrap_or_default())
        .map_err(|e| Problem::bad("", format!("the query cannot be read: {e}")))?;
    let wanted = Wanted::read(&cx, &names, fields)?;
    let receipt = wanted.submit(&cx, &visitor, String::new(), true).await?;
    Ok(visitor.page(&cx, Nav::Overview, &wanted.title(), wanted.confirmation(&visitor, &receipt)))
}

/// Makes the change, and leads back to where it began.
pub(super) async fn make(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    form: Form,
) -> Result<Response, Problem> {
    let reason = tidy(form.text("reason").to_owned())?;
    let wanted = Wanted::read(&cx, &names, form.fields())?;
    if wanted.needs_reason() && reason.is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why traffic goes back"));
    }
    let receipt = wanted.submit(&cx, &visitor, reason, false).await?;
    Ok(see_other(&format!("{}?done={}", wanted.back(), receipt.event.unwrap_or_default())))
}

impl Wanted {
    fn read(cx: &Cx, names: &Names, fields: Vec<(String, String)>) -> Result<Self, Problem> {
        if fields.len() > MAX_FIELDS {
            return Err(Problem::bad("", format!("there are more than {MAX_FIELDS} fields")));
        }
        let found = Found::service(cx, &names.service()?)?;
        let tenant = if names.text("tenant").is_empty() { None } else { Some(names.tenant()?) };
        let action = names.text("action").to_owned();
        let change = change_of(&found, tenant.as_ref(), &action, &fields)?;
        let number = |name: &str| match text(&fields, name) {
            "" => Ok(None),
            given => given
                .parse::<u64>()
                .map(Some)
                .map_err(|_| Problem::bad(name, format!("{:?} is not a revision", echo(given)))),
        };
        let (revision, seen) = (number("revision")?, number("seen")?);
        // What a tenant inherits is part of what its page showed.
        if seen.is_some_and(|seen| seen != found.live().revision) {
            return Err(crate::model::ChangeError::StaleRevision {
                expected: seen.unwrap_or_default(),
                current: found.live().revision,
            }
            .into());
        }
        Ok(Self { found, tenant, action, change, revision, fields })
    }

    async fn submit(&self, cx: &Cx, visitor: &Visitor, reason: String, dry_run: bool) -> Result<Receipt, Problem> {
        let request = visitor.asks(self.found.name(), self.change.clone(), reason, self.revision)?;
        Ok(cx.control.submit(request, dry_run).await?)
    }

    fn back(&self) -> String {
        let service = self.found.name();
        self.tenant.as_ref().map_or_else(|| service_path(service), |tenant| tenant_path(service, tenant))
    }

    fn needs_reason(&self) -> bool {
        matches!(self.change, Change::Rollback { .. })
    }

    /// The exact target.
    fn target(&self) -> String {
        let service = self.found.name();
        match &self.tenant {
            Some(tenant) => format!("tenant {tenant} of service {service}"),
            None => format!("service {service}"),
        }
    }

    fn title(&self) -> String {
        let what = match self.change {
            Change::SetSplit { .. } => "Set the split?",
            Change::ClearSplit { .. } => "Follow the wider split again?",
            Change::Rollback { .. } => "Roll back?",
            Change::SetHold => "Hold automation?",
            Change::ClearHold => "Release the hold?",
            Change::SetPin(..) => "Pin this tenant?",
            _ => "Remove the pin?",
        };
        what.to_owned()
    }

    fn confirmation(&self, visitor: &Visitor, receipt: &Receipt) -> Markup {
        let danger = self.needs_reason();
        let path = match &self.tenant {
            Some(tenant) => tenant_action(self.found.name(), tenant, &self.action),
            None => service_action(self.found.name(), &self.action),
        };
        html! {
            section.card aria-label="What would happen" {
                p.change { strong { bdi { (self.target()) } } ": " (self.effect(receipt)) }
                @for line in self.consequences(receipt) { p { (line) } }
                form method="post" action=(path) {
                    (visitor.word())
                    @for (name, value) in self.fields.iter().filter(|(name, _)| name != "reason") {
                        input type="hidden" name=(name) value=(value);
                    }
                    div.field {
                        label for="reason" { "Reason" @if !danger { span.soft { " (if you like)" } } }
                        input id="reason" name="reason" maxlength="1000" autocomplete="off" required[danger] aria-describedby="reason-hint";
                        p.hint id="reason-hint" { "Stands in the history, for those who wonder later." }
                    }
                    div.inline {
                        button.primary[!danger].danger[danger] type="submit" { (self.title().trim_end_matches('?')) }
                        a.button href=(self.back()) { "Cancel" }
                    }
                }
            }
        }
    }

    /// What would be different.
    fn effect(&self, receipt: &Receipt) -> Markup {
        match &self.change {
            Change::SetHold => html! { "automation may not advance any more; it may still shift back." },
            Change::ClearHold => html! { "automation may advance again." },
            Change::SetPin(_, Pin::Exclude(version)) => {
                html! { "never goes to " (version) ", whatever the split says." }
            }
            Change::SetPin(_, pin) => html! { "always goes to " (pin.version()) ", whatever the split says." },
            Change::ClearPin(_) => html! { "follows its split again." },
            _ => {
                let moves = differences(&receipt.before, &receipt.after);
                html! {
                    @if moves.is_empty() { "the shares stay as they are." }
                    @else { (moves.join(", ")) "." }
                }
            }
        }
    }

    /// What follows from it.
    fn consequences(&self, receipt: &Receipt) -> Vec<String> {
        let mut lines = Vec::new();
        let moved = receipt.after.get("moved_percent").and_then(Value::as_f64).unwrap_or_else(|| moved(receipt));
        if matches!(self.change, Change::SetSplit { .. } | Change::ClearSplit { .. } | Change::Rollback { .. }) {
            let whose = if self.tenant.is_some() { "its users" } else { "users" };
            lines.push(match moved {
                m if m > 0.0 => {
                    format!("About {}\u{a0}% of {whose} move to another version.", (m * 100.0).round() / 100.0)
                }
                _ => "Nobody moves.".to_owned(),
            });
        }
        match &self.change {
            Change::SetSplit { scope: Scope::Service, .. } => lines.extend(left_alone(&self.found)),
            Change::SetSplit { .. } => lines.push("The tenant no longer follows its group or the service.".to_owned()),
            Change::Rollback { scope: Scope::Service, .. } => {
                let own = self.found.route.tenants.len() as u64;
                if own > 0 {
                    let whom =
                        plural(own, "tenant with a split of its own goes", "tenants with splits of their own go");
                    lines.push(format!("It holds for everyone: {whom} back as well."));
                }
                let pins = receipt.after.get("pins_left").and_then(Value::as_u64).unwrap_or_default();
                if pins > 0 {
                    lines.push(format!(
                        "{} to a version that is rolled back; pins stay.",
                        plural(pins, "pin leads", "pins lead")
                    ));
                }
            }
            _ => {}
        }
        lines
    }
}

/// The change that an action means.
fn change_of(
    found: &Found,
    tenant: Option<&TenantName>,
    action: &str,
    fields: &[(String, String)],
) -> Result<Change, Problem> {
    let scope = || tenant.map_or(Scope::Service, |t| Scope::Tenant(t.clone()));
    Ok(match (action, tenant) {
        ("split", _) => Change::SetSplit { scope: scope(), weights: weights(found, fields)? },
        ("rollback", _) => {
            Change::Rollback { scope: scope(), canary: None, cause: PERSON.to_owned(), first_bad_ms: None }
        }
        ("hold", None) => Change::SetHold,
        ("release", None) => Change::ClearHold,
        ("follow", Some(_)) => Change::ClearSplit { scope: scope() },
        ("unpin", Some(tenant)) => Change::ClearPin(PinTarget::Tenant(tenant.clone())),
        ("pin", Some(tenant)) => {
            let version = found.version("version", text(fields, "version"))?;
            let pin = match text(fields, "kind") {
                "version" => Pin::Version(version),
                "exclude" => Pin::Exclude(version),
                other => return Err(Problem::bad("kind", format!("{:?} is neither version nor exclude", echo(other)))),
            };
            Change::SetPin(PinTarget::Tenant(tenant.clone()), pin)
        }
        _ => {
            return Err(Problem::new(
                StatusCode::NOT_FOUND,
                "not_found",
                format!("there is no action {:?} here", echo(action)),
            ));
        }
    })
}

fn text<'f>(fields: &'f [(String, String)], name: &str) -> &'f str {
    fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.trim())
}

/// The shares of the form, one field for each version.
fn weights(found: &Found, fields: &[(String, String)]) -> Result<Weights, Problem> {
    let mut shares: Vec<(VersionName, BasisPoints)> = Vec::new();
    for (name, value) in fields {
        let Some(version) = name.strip_prefix("share.") else { continue };
        let version: VersionName = read_name("share", version)?;
        let version = found.version("share", version.as_str())?;
        let value = value.trim().replace(',', ".");
        let percent = if value.is_empty() { Some(0.0) } else { value.parse::<f64>().ok() };
        let percent =
            percent.ok_or_else(|| Problem::invalid("share", format!("{:?} is not a number", echo(&value))))?;
        if shares.iter().any(|(v, _)| *v == version) {
            return Err(Problem::invalid("share", format!("{version} stands twice")));
        }
        shares
            .push((version, BasisPoints::from_percent(percent).map_err(|e| Problem::invalid("share", e.to_string()))?));
    }
    Weights::new(shares).map_err(|e| Problem::invalid("share", e.to_string()))
}

/// `2.0.0 from 10 % to 25 %` for each version whose share would change.
fn differences(before: &Value, after: &Value) -> Vec<String> {
    let (before, after) = (percents(before), percents(after));
    let share = |list: &[(String, f64)], name: &str| list.iter().find(|(n, _)| n == name).map_or(0.0, |(_, s)| *s);
    let mut names: Vec<&String> = before.iter().chain(&after).map(|(name, _)| name).collect();
    names.sort();
    names.dedup();
    let change = |name: &&String| {
        let (from, to) = (share(&before, name), share(&after, name));
        (from != to).then(|| (to - from, format!("{name} from {from}\u{a0}% to {to}\u{a0}%")))
    };
    let mut changes: Vec<_> = names.iter().filter_map(change).collect();
    // What grows comes first: it is what one decides on.
    changes.sort_by(|a, b| b.0.total_cmp(&a.0));
    changes.into_iter().map(|(_, text)| text).collect()
}

/// The share of users that would move, in percent: half of what the shares differ by.
fn moved(receipt: &Receipt) -> f64 {
    let (before, after) = (percents(&receipt.before), percents(&receipt.after));
    let of = |list: &[(String, f64)], name: &str| list.iter().find(|(n, _)| n == name).map_or(0.0, |(_, s)| *s);
    after.iter().map(|(name, to)| (to - of(&before, name)).max(0.0)).sum()
}

fn percents(document: &Value) -> Vec<(String, f64)> {
    let weights = document.get("weights").and_then(Value::as_object);
    weights.into_iter().flatten().filter_map(|(name, share)| Some((name.clone(), share.as_f64()?))).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_would_be_different_is_told_from_both_sides() {
        let (before, after) = (json!({ "weights": { "1": 90, "2": 10 } }), json!({ "weights": { "1": 75, "2": 25 } }));
        let text = |list: Vec<String>| list.join(", ").replace('\u{a0}', " ");
        assert_eq!(text(differences(&before, &after)), "2 from 10 % to 25 %, 1 from 90 % to 75 %");
        assert_eq!(
            text(differences(&before, &json!({ "weights": { "1": 100 } }))),
            "1 from 90 % to 100 %, 2 from 10 % to 0 %"
        );
        assert!(differences(&before, &before).is_empty());
    }
}

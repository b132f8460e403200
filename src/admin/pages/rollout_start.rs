//! Starting a rollout: a form, a page that shows what the plan would do, and the start itself. The plan is the one that the
//! API takes, and goes through the same checks.

use axum::extract::State;
use axum::response::Response;
use maud::{Markup, html};
use serde_json::{Map, Value, json};

use super::super::asked::tidy;
use super::super::body::checked;
use super::super::context::{Cx, Found};
use super::super::parameters::{Parameters, read_name};
use super::super::problem::{Problem, echo};
use super::super::rollouts::body::RolloutBody;
use super::super::rollouts::{prepared, speak_for};
use super::form::Form;
use super::layout::{Nav, Visitor, see_other};
use super::rollout_form::form as fields;
use super::rollout_words::{rollout_path, span};
use super::words::{count, part, plural, share};
use crate::model::{Change, ServiceName};
use crate::planning::Report;

/// Where the form is.
pub(super) const FORM: &str = "/rollouts/new";
/// Where its plan is looked at.
pub(super) const LOOK: &str = "/rollouts/look";
/// Where it begins.
pub(super) const START: &str = "/rollouts/start";

/// The form, of one service; without a service, the choice of one.
pub(super) async fn show(State(cx): State<Cx>, visitor: Visitor, parameters: Parameters) -> Result<Response, Problem> {
    let parameters = parameters.only(&["service"], &[])?;
    let service: Option<ServiceName> = parameters.text("service").map(|t| read_name("service", t)).transpose()?;
    let view = cx.control.view();
    let only = match view.routes.services.as_slice() {
        [one] => Some(one.spec.name.clone()),
        _ => None,
    };
    let body = match service.or(only) {
        Some(service) => fields(&visitor, &Found::service(&cx, &service)?, &|_| "", None),
        None => html! {
            section.card {
                h2 { "Of which service?" }
                @if view.routes.services.is_empty() { p.soft { "There are no services yet." } }
                ul.legend { @for s in &view.routes.services { li { a.button href={ (FORM) "?service=" (part(s.spec.name.as_str())) } { bdi { (s.spec.name) } } } } }
            }
        },
    };
    let heading = html! { p.crumb { a href="/rollouts" { "Rollouts" } " ›" } h1 { "Start a rollout" } };
    Ok(visitor.page_with(&cx, Nav::Rollouts, "Start a rollout", heading, body, None))
}

/// The plan as the API takes it.
fn plan(text: &dyn Fn(&str) -> String) -> Result<Value, Problem> {
    let given = |name: &str| Some(text(name).trim().to_owned()).filter(|t| !t.is_empty());
    let mut plan = match given("more") {
        None => Map::new(),
        Some(more) => {
            serde_json::from_str(&more).map_err(|e| Problem::invalid("more", format!("is no JSON object: {e}")))?
        }
    };
    let mut put = |name: &str, value: Value| -> Result<(), Problem> {
        match plan.insert(name.to_owned(), value) {
            None => Ok(()),
            Some(_) => Err(Problem::invalid("more", format!("has {name}, which has a field of its own"))),
        }
    };
    for name in ["service", "to", "strategy", "bake", "max_bake", "on_insufficient"] {
        if let Some(value) = given(name) {
            put(name, json!(value))?;
        }
    }
    if let Some(steps) = steps(given("steps").as_deref(), given("approval").as_deref())? {
        put("steps", steps)?;
    }
    if let Some(size) = given("batch") {
        let mut batch = json!({ "size": whole("batch", &size)? });
        if let Some(delay) = given("delay") {
            batch["delay"] = json!(delay);
        }
        put("batch", batch)?;
    } else if given("delay").is_some() {
        return Err(Problem::invalid("delay", "is between batches; say how many tenants go at a time too"));
    }
    if let Some(canary) = given("canary") {
        put("canary", json!(percent("canary", &canary)?))?;
    }
    for name in ["groups", "tenants", "exclude"] {
        if let Some(list) = given(name) {
            put(name, json!(names(&list)))?;
        }
    }
    Ok(Value::Object(plan))
}

/// Steps with approvals where they are wanted; none: those of the API.
fn steps(list: Option<&str>, approval: Option<&str>) -> Result<Option<Value>, Problem> {
    if list.is_none() && approval.is_none() {
        return Ok(None);
    }
    let shares: Vec<f64> = match list {
        None => vec![10.0, 25.0, 50.0, 100.0],
        Some(list) => {
            let parts = list.split([',', ' ', ';', '%']).filter(|part| !part.is_empty());
            parts.map(|part| percent("steps", part)).collect::<Result<_, _>>()?
        }
    };
    let last = shares.len().saturating_sub(1);
    let approved = |i: usize| match approval {
        Some("last") => i == last,
        Some("later") => i > 0,
        _ => false,
    };
    let step = |(i, share): (usize, &f64)| match approved(i) {
        true => json!({ "share": share, "approval": true }),
        false => json!(share),
    };
    Ok(Some(shares.iter().enumerate().map(step).collect()))
}

fn percent(field: &str, text: &str) -> Result<f64, Problem> {
    let number = text.trim().trim_end_matches('%').trim_end().parse::<f64>().ok().filter(|n| n.is_finite());
    number.ok_or_else(|| Problem::invalid(field, format!("{:?} is not a number of percent", echo(text))))
}

fn whole(field: &str, text: &str) -> Result<u32, Problem> {
    text.trim().parse().map_err(|_| Problem::invalid(field, format!("{:?} is not a whole number", echo(text))))
}

/// Names never have commas or spaces in them.
fn names(list: &str) -> Vec<&str> {
    list.split([',', '\n', '\r', '\t', ' ']).filter(|name| !name.is_empty()).collect()
}

/// Shows what the plan would do, or the form again with what is wrong. Nothing begins.
pub(super) async fn look(State(cx): State<Cx>, visitor: Visitor, form: Form) -> Result<Response, Problem> {
    let wrong = match looked_at(&cx, &visitor, &form).await {
        Ok(markup) => {
            let heading = html! { p.crumb { a href="/rollouts" { "Rollouts" } " ›" } h1 { "Start this rollout?" } };
            return Ok(visitor.page_with(&cx, Nav::Rollouts, "Start this rollout?", heading, markup, None));
        }
        Err(wrong) => wrong,
    };
    let found = Found::service(&cx, &read_name("service", form.text("service"))?)?;
    let body = fields(&visitor, &found, &|name| form.text(name), Some(&wrong));
    let heading = html! { p.crumb { a href="/rollouts" { "Rollouts" } " ›" } h1 { "Start a rollout" } };
    let mut response = visitor.page_with(&cx, Nav::Rollouts, "Start a rollout", heading, body, None);
    *response.status_mut() = wrong.status();
    Ok(response)
}

async fn looked_at(cx: &Cx, visitor: &Visitor, form: &Form) -> Result<Markup, Problem> {
    let plan = plan(&|name| form.text(name).to_owned())?;
    let body: RolloutBody = checked(plan.clone())?;
    let found = Found::service(cx, &body.service)?;
    let (new, report) = prepared(cx, &found, &body)?;
    let revision = found.live().revision;
    // Whatever the writer would refuse is refused here too.
    submit(cx, visitor, &body, Change::StartRollout(Box::new(new)), String::new(), revision, true).await?;
    Ok(confirmation(visitor, &body, &plan, &report, revision))
}

/// Begins it, and leads to its page.
pub(super) async fn start(State(cx): State<Cx>, visitor: Visitor, form: Form) -> Result<Response, Problem> {
    let reason = tidy(form.text("reason").to_owned())?;
    let plan: Value = serde_json::from_str(form.text("plan")).map_err(|e| Problem::bad("plan", e.to_string()))?;
    let body: RolloutBody = checked(plan)?;
    let revision = form.text("revision").parse().map_err(|_| Problem::bad("revision", "is not a revision"))?;
    let found = Found::service(&cx, &body.service)?;
    let (new, report) = prepared(&cx, &found, &body)?;
    speak_for(&report, body.force || form.text("force") == "true")?;
    submit(&cx, &visitor, &body, Change::StartRollout(Box::new(new)), reason, revision, false).await?;
    let view = cx.control.view();
    let path = view.state.running_rollout(&body.service).map(|live| rollout_path(&live.rollout.id));
    Ok(see_other(path.as_deref().unwrap_or("/rollouts")))
}

async fn submit(
    cx: &Cx,
    visitor: &Visitor,
    body: &RolloutBody,
    change: Change,
    reason: String,
    revision: u64,
    dry_run: bool,
) -> Result<(), Problem> {
    let reason = if reason.is_empty() { tidy(body.reason.clone().unwrap_or_default())? } else { reason };
    let request = visitor.asks(&body.service, change, reason, Some(revision))?;
    cx.control.submit(request, dry_run).await?;
    Ok(())
}

fn confirmation(visitor: &Visitor, body: &RolloutBody, plan: &Value, report: &Report, revision: u64) -> Markup {
    let path = report.path.iter().map(|v| v.as_str()).collect::<Vec<_>>().join(" to ");
    let whom = match report.tenants {
        0 => "everyone who has no split of their own".to_owned(),
        n => plural(n as u64, "tenant", "tenants"),
    };
    html! {
        section.card aria-label="What would happen" {
            p.change { strong { "service " bdi { (body.service) } } ": " (whom) " would go from " bdi { (path) } "." }
            p { "It takes at least " (span(report.shortest_seconds))
                @match report.longest_seconds { Some(s) => { ", at most " (span(s)) " unless something speaks against it." }, None => ", and waits for a person on the way." }
                @if report.excluded > 0 { " " (plural(report.excluded as u64, "tenant stays", "tenants stay")) " where they are." } }
            (checks(report))
            (steps_table(report))
            details { summary { "The plan as the API takes it" } pre.json { (serde_json::to_string_pretty(plan).unwrap_or_default()) } }
            form method="post" action=(START) {
                (visitor.word())
                input type="hidden" name="plan" value=(plan.to_string());
                input type="hidden" name="revision" value=(revision);
                @if !report.ok && !body.force {
                    div.check {
                        input id="force" name="force" type="checkbox" value="true" required;
                        label for="force" { "Start although the checks speak against it" }
                    }
                }
                div.field {
                    label for="reason" { "Reason" span.soft { " (if you like)" } }
                    input id="reason" name="reason" maxlength="1000" autocomplete="off" aria-describedby="reason-hint";
                    p.hint id="reason-hint" { "Stands in the history, for those who wonder later." }
                }
                div.inline {
                    button.primary type="submit" { "Start the rollout" }
                    a.button href="/rollouts" { "Cancel" }
                }
            }
        }
    }
}

fn checks(report: &Report) -> Markup {
    html! {
        h2 { "Checks" }
        ul.checks {
            @for check in &report.checks { li { span class={ "chip " (if check.ok { "ok" } else { "bad" }) } { (if check.ok { "well" } else { "against it" }) } " " (check.message) } }
            @for risk in &report.risks { li { span.chip.warn { "risk" } " " (risk) } }
        }
    }
}

fn steps_table(report: &Report) -> Markup {
    html! {
        h2 id="plan-title" { "Steps" }
        div.scroll tabindex="0" role="region" aria-labelledby="plan-title" {
            table {
                thead { tr { th scope="col" { "Step" } th.nums scope="col" { "Share" } th.nums scope="col" { "Tenants" } th.nums scope="col" { "Not before" } } }
                tbody {
                    @for step in &report.steps {
                        tr {
                            th scope="row" { (step.step) } td.nums { (share(step.share)) }
                            td.nums { (step.tenants.map_or_else(|| "everyone".to_owned(), |n| count(n as u64))) }
                            td.nums { @if step.after_seconds == 0 { "at once" } @else { "after " (span(step.after_seconds)) } }
                        }
                    }
                }
            }
        }
        @if report.steps_total > report.steps.len() { p.soft.small { "and " (count((report.steps_total - report.steps.len()) as u64)) " more" } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(fields: &[(&str, &str)]) -> Result<Value, Problem> {
        plan(&|name| fields.iter().find(|(n, _)| *n == name).map_or(String::new(), |(_, v)| (*v).to_owned()))
    }

    #[test]
    fn the_form_says_what_the_api_takes() {
        let plan =
            of(&[("service", "shop"), ("to", "2"), ("steps", "10 %, 50,100"), ("approval", "last"), ("bake", "30s")]);
        let approved = json!({ "share": 100.0, "approval": true });
        let wanted = json!({ "service": "shop", "to": "2", "steps": [10.0, 50.0, approved], "bake": "30s" });
        assert_eq!(plan.unwrap(), wanted);
        let plan = of(&[("batch", "5"), ("delay", "1h"), ("tenants", "a\r\nb c"), ("more", "{\"keep\": 2}")]).unwrap();
        assert_eq!(plan, json!({ "batch": { "size": 5, "delay": "1h" }, "tenants": ["a", "b", "c"], "keep": 2 }));
        let usual = of(&[("approval", "later")]).unwrap();
        assert_eq!(usual["steps"][0], json!(10.0));
        assert_eq!(usual["steps"][1], json!({ "share": 25.0, "approval": true }));
    }

    #[test]
    fn what_makes_no_sense_names_the_field() {
        let detail = |fields: &[(&str, &str)]| of(fields).unwrap_err().detail().to_owned();
        assert!(detail(&[("steps", "ten")]).starts_with("steps: \"ten\" is not a number of percent"));
        assert!(detail(&[("batch", "1.5")]).starts_with("batch: "));
        assert!(detail(&[("delay", "1h")]).starts_with("delay: "));
        assert!(detail(&[("more", "[]")]).starts_with("more: is no JSON object"));
        assert!(detail(&[("to", "2"), ("more", "{\"to\": \"3\"}")]).starts_with("more: has to, which"));
    }
}

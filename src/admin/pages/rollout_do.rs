//! What may be done to a rollout: offered when it is possible, confirmed on a page that says what it does, and made through
//! the same door as the API.
//!
//! What stops a rollout is not fenced by a revision: whoever wants it stopped wants that wherever it is by now. Everything
//! else names the revision that the page showed.

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;
use maud::{Markup, html};

use super::super::asked::tidy;
use super::super::context::Cx;
use super::super::parameters::{Names, read_name};
use super::super::problem::{Problem, echo};
use super::super::rollouts::find;
use super::form::Form;
use super::layout::{Nav, Visitor, see_other};
use super::past;
use super::rollout_words::{rollout_path, span};
use super::words::{count, plural, share};
use crate::control::{Receipt, View};
use crate::model::{Change, Input, LiveRollout, Phase, Rollout, RolloutCommand, RolloutId, Scope, Stage, TenantName};

/// Where actions are.
pub(super) const PATH: &str = "/rollouts/{id}/change/{action}";
/// What the history calls a rollback that somebody asked for.
const PERSON: &str = "person";

/// What a person may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Action {
    Approve,
    Promote,
    Full,
    Pause,
    Resume,
    Abort,
    Retry,
    Undo,
    Tenant,
}

impl Action {
    const ALL: [Self; 9] = [
        Self::Approve,
        Self::Promote,
        Self::Full,
        Self::Pause,
        Self::Resume,
        Self::Abort,
        Self::Retry,
        Self::Undo,
        Self::Tenant,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Approve => "approve",
            Self::Promote => "promote",
            Self::Full => "full",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::Abort => "abort",
            Self::Retry => "retry",
            Self::Undo => "undo",
            Self::Tenant => "tenant",
        }
    }

    fn parse(text: &str) -> Result<Self, Problem> {
        Self::ALL.into_iter().find(|action| action.as_str() == text).ok_or_else(|| {
            let detail = format!("there is no action {:?} here", echo(text));
            Problem::new(StatusCode::NOT_FOUND, "not_found", detail)
        })
    }

    fn label(self) -> &'static str {
        match self {
            Self::Approve => "Approve the next step",
            Self::Promote => "Go on without waiting",
            Self::Full => "Move everyone at once",
            Self::Pause => "Pause",
            Self::Resume => "Resume",
            Self::Abort => "Take everything back",
            Self::Retry => "Begin again",
            Self::Undo => "Undo",
            Self::Tenant => "Roll back one tenant",
        }
    }

    /// Whether traffic goes back, which wants a reason.
    fn goes_back(self) -> bool {
        matches!(self, Self::Abort | Self::Undo | Self::Tenant)
    }
}

/// The path of an action.
pub(super) fn action_path(id: &RolloutId, action: Action) -> String {
    format!("{}/change/{}", rollout_path(id), action.as_str())
}

/// The step that would be entered next; none after the last.
fn next(rollout: &Rollout) -> Option<Stage> {
    if rollout.in_effect { rollout.next_stage() } else { Some(rollout.stage) }
}

/// What is possible now. Whether it still is when somebody asks for it is for the writer to say.
fn possible(view: &View, live: &LiveRollout) -> Vec<Action> {
    let rollout = &live.rollout;
    let can = |input| rollout.phase.after(input).is_some();
    let next = next(rollout);
    let needs_approval =
        next.is_some_and(|stage| rollout.spec.steps.get(stage.step as usize).is_some_and(|s| s.approval));
    let is_last = |l: &&std::sync::Arc<LiveRollout>| {
        l.rollout.service == rollout.service && l.rollout.first_event > rollout.first_event
    };
    let again = !live.units.is_empty() && !view.state.rollouts.values().any(|l| is_last(&l));
    let delayed = rollout.stage.batch > 0 && rollout.stage.step == 0 && rollout.spec.batch_delay_ms > 0;
    let offered = |action: &Action| match action {
        Action::Approve => can(Input::Promote) && needs_approval && rollout.approved != next,
        Action::Promote => {
            let waits = if rollout.in_effect { !rollout.bake_over } else { delayed && rollout.approved != next };
            can(Input::Promote) && !needs_approval && waits
        }
        Action::Full => can(Input::PromoteFull) && rollout.next_stage().is_some(),
        Action::Pause => can(Input::Pause) && rollout.paused.is_none(),
        Action::Resume => can(Input::Resume) && rollout.paused.is_some(),
        Action::Abort => can(Input::Abort),
        Action::Retry => can(Input::Retry) && again,
        Action::Undo => can(Input::Undo) && again,
        Action::Tenant => matches!(rollout.phase, Phase::Progressing | Phase::Finishing),
    };
    Action::ALL.into_iter().filter(offered).collect()
}

/// The buttons. Each leads to a page that asks for confirmation.
pub(super) fn offered(view: &View, live: &LiveRollout) -> Markup {
    let rollout = &live.rollout;
    let all = possible(view, live);
    html! {
        section.card id="do" aria-labelledby="do-title" {
            h2 id="do-title" { "What you can do" }
            @if all.is_empty() { p.soft { "Nothing: it is over, and another rollout of the service has begun since." } }
            div.inline {
                @for action in all.iter().filter(|a| **a != Action::Tenant) {
                    form method="get" action=(action_path(&rollout.id, *action)) data-key=(action.as_str()) {
                        input type="hidden" name="revision" value=(rollout.revision);
                        button.danger[action.goes_back()].primary[*action == Action::Approve] type="submit" { (action.label()) "…" }
                    }
                }
            }
            @if all.contains(&Action::Tenant) {
                form.inline method="get" action=(action_path(&rollout.id, Action::Tenant)) data-key="tenant" {
                    div.field {
                        label for="tenant" { "Tenant" }
                        input id="tenant" name="tenant" required maxlength="128" spellcheck="false" autocomplete="off";
                    }
                    button.danger type="submit" { "Roll back this tenant…" }
                }
            }
        }
    }
}

/// What was asked for.
struct Wanted {
    live: std::sync::Arc<LiveRollout>,
    action: Action,
    tenant: Option<TenantName>,
    /// The step that is approved.
    stage: Option<Stage>,
    revision: Option<u64>,
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
    let text = |name: &str| fields.iter().find(|(n, _)| n == name).map_or("", |(_, v)| v.trim());
    let wanted = Wanted::read(&cx, &names, &text)?;
    // Whether it is forced is decided with the confirmation.
    let receipt = wanted.submit(&cx, &visitor, String::new(), true, true).await?;
    let title = format!("{}?", wanted.action.label());
    Ok(visitor.page(&cx, Nav::Rollouts, &title, wanted.confirmation(&visitor, &receipt)))
}

/// Does it, and leads back to the rollout.
pub(super) async fn make(
    State(cx): State<Cx>,
    visitor: Visitor,
    names: Names,
    form: Form,
) -> Result<Response, Problem> {
    let reason = tidy(form.text("reason").to_owned())?;
    let wanted = Wanted::read(&cx, &names, &|name| form.text(name).trim())?;
    if wanted.action.goes_back() && reason.is_empty() {
        return Err(Problem::invalid("reason", "is empty; say in a sentence why traffic goes back"));
    }
    let receipt = wanted.submit(&cx, &visitor, reason, form.text("force") == "true", false).await?;
    let path = rollout_path(&wanted.live.rollout.id);
    Ok(see_other(&format!("{path}?done={}", receipt.event.unwrap_or_default())))
}

impl Wanted {
    fn read<'f>(cx: &Cx, names: &Names, text: &dyn Fn(&str) -> &'f str) -> Result<Self, Problem> {
        let live = find(cx, &names.rollout()?)?;
        let action = Action::parse(names.text("action"))?;
        let tenant = match action {
            Action::Tenant => Some(read_name("tenant", text("tenant"))?),
            _ => None,
        };
        let next = next(&live.rollout);
        let stage = match (action, text("step")) {
            (Action::Approve, "") => next,
            (Action::Approve, given) => Some(given.parse().map_err(|why: String| Problem::bad("step", why))?),
            _ => None,
        };
        let revision = match text("revision") {
            "" => None,
            given => Some(
                given.parse().map_err(|_| Problem::bad("revision", format!("{:?} is not a revision", echo(given))))?,
            ),
        };
        let stops = matches!(action, Action::Pause | Action::Abort | Action::Tenant);
        Ok(Self { live, action, tenant, stage, revision: revision.filter(|_| !stops) })
    }

    fn change(&self, force: bool) -> Change {
        let command = |command| Change::Rollout(self.live.rollout.id.clone(), command);
        match (self.action, &self.tenant) {
            (Action::Tenant, Some(tenant)) => Change::Rollback {
                scope: Scope::Tenant(tenant.clone()),
                canary: Some(self.live.rollout.spec.to.clone()),
                cause: PERSON.to_owned(),
                first_bad_ms: None,
            },
            (Action::Approve, _) => command(RolloutCommand::Promote { stage: self.stage, full: false }),
            (Action::Promote | Action::Tenant, _) => command(RolloutCommand::Promote { stage: None, full: false }),
            (Action::Full, _) => command(RolloutCommand::Promote { stage: None, full: true }),
            (Action::Pause, _) => command(RolloutCommand::Pause),
            (Action::Resume, _) => command(RolloutCommand::Resume),
            (Action::Abort, _) => command(RolloutCommand::Abort { force }),
            (Action::Retry, _) => command(RolloutCommand::Retry),
            (Action::Undo, _) => command(RolloutCommand::Undo { force }),
        }
    }

    async fn submit(
        &self,
        cx: &Cx,
        visitor: &Visitor,
        reason: String,
        force: bool,
        dry_run: bool,
    ) -> Result<Receipt, Problem> {
        let request = visitor.asks(&self.live.rollout.service, self.change(force), reason, self.revision)?;
        Ok(cx.control.submit(request, dry_run).await?)
    }

    /// The exact target.
    fn target(&self) -> String {
        let rollout = &self.live.rollout;
        let of = format!("rollout {} of service {}", rollout.id, rollout.service);
        match &self.tenant {
            Some(tenant) => format!("tenant {tenant} of service {} in rollout {}", rollout.service, rollout.id),
            None => of,
        }
    }

    fn confirmation(&self, visitor: &Visitor, receipt: &Receipt) -> Markup {
        let rollout = &self.live.rollout;
        let danger = self.action.goes_back();
        let forced = rollout.is_beyond_return() && matches!(self.action, Action::Abort | Action::Undo);
        html! {
            section.card aria-label="What would happen" {
                p.change { strong { bdi { (self.target()) } } ": " (self.effect(receipt)) }
                form method="post" action=(action_path(&rollout.id, self.action)) {
                    (visitor.word())
                    @if let Some(revision) = self.revision { input type="hidden" name="revision" value=(revision); }
                    @if let Some(tenant) = &self.tenant { input type="hidden" name="tenant" value=(tenant); }
                    @if let Some(stage) = self.stage { input type="hidden" name="step" value=(stage); }
                    @if forced {
                        div.check {
                            input id="force" name="force" type="checkbox" value="true" required;
                            label for="force" { "It is past its point of no return. Take it back all the same." }
                        }
                    }
                    div.field {
                        label for="reason" { "Reason" @if !danger { span.soft { " (if you like)" } } }
                        input id="reason" name="reason" maxlength="1000" autocomplete="off" required[danger] aria-describedby="reason-hint";
                        p.hint id="reason-hint" { "Stands in the history, for those who wonder later." }
                    }
                    div.inline {
                        button.primary[!danger].danger[danger] type="submit" { (self.action.label()) }
                        a.button href=(rollout_path(&rollout.id)) { "Cancel" }
                    }
                }
            }
        }
    }

    /// What would be different.
    fn effect(&self, receipt: &Receipt) -> String {
        let rollout = &self.live.rollout;
        let (spec, counts) = (&rollout.spec, &rollout.counts);
        let of = |stage: Stage| {
            let points = spec.steps.get(stage.step as usize).map_or_else(String::new, |s| share(s.share));
            format!("step {stage} ({points} on {})", spec.to)
        };
        let next = next(rollout);
        match self.action {
            Action::Approve => {
                let what = self.stage.map_or_else(String::new, of);
                let ends = if rollout.in_effect {
                    format!("the bake of {} ends, and ", of(rollout.stage))
                } else {
                    String::new()
                };
                format!("{ends}{what} is approved and begins as soon as nothing else holds it.")
            }
            Action::Promote => match next {
                Some(stage) if rollout.in_effect => {
                    format!("the bake of {} ends without further proof; then comes {}.", of(rollout.stage), of(stage))
                }
                Some(stage) => format!("{} begins without waiting for the delay.", of(stage)),
                None => format!("the bake of {}, the last one, ends without further proof.", of(rollout.stage)),
            },
            Action::Full => format!(
                "everyone who is left ({}) goes to {} at once, as one last step that still bakes and is still guarded.",
                plural(u64::from(counts.pending + counts.in_progress), "unit", "units"),
                spec.to
            ),
            Action::Pause => {
                "nothing advances until it is resumed. The guard goes on and still takes traffic back.".to_owned()
            }
            Action::Resume => match next {
                Some(stage) if !rollout.in_effect => format!("it goes on, next with {}.", of(stage)),
                _ => format!("it goes on from {}.", of(rollout.stage)),
            },
            Action::Retry => {
                format!("begins again from its first step ({}), with everyone who went back.", of(Stage::default()))
            }
            Action::Tenant => {
                let before = past::shares(&receipt.before);
                let had = if before.is_empty() { String::new() } else { format!(" It has {before} now.") };
                format!("all its traffic goes back to {}, and the rollout leaves it there.{had}", spec.from)
            }
            Action::Abort | Action::Undo => self.way_back(),
        }
    }

    /// How traffic goes back.
    fn way_back(&self) -> String {
        let rollout = &self.live.rollout;
        let (spec, counts) = (&rollout.spec, &rollout.counts);
        let moved = u64::from(counts.in_progress + counts.completed);
        let whom = if moved == 0 {
            "nothing has moved, so nothing moves back".to_owned()
        } else {
            // A whole service is one unit, which says nothing.
            let units =
                if counts.total() > 1 { format!(" ({})", plural(moved, "unit", "units")) } else { String::new() };
            format!("all traffic that it moved{units} goes back to {}", spec.from)
        };
        let how = match (spec.back.as_slice(), rollout.phase) {
            (_, Phase::GoingBack) => " at once",
            ([], _) if moved > 0 => " at once",
            ([], _) => "",
            (steps, _) => {
                return format!(
                    "{whom}, by way of {}, one every {}.",
                    steps.iter().map(|s| share(*s)).collect::<Vec<_>>().join(", "),
                    span(spec.back_every_ms / 1_000)
                );
            }
        };
        let stay = if counts.rolled_back > 0 {
            format!(" {} went back before.", count(counts.rolled_back.into()))
        } else {
            String::new()
        };
        format!("{whom}{how}.{stay}")
    }
}

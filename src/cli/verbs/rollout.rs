//! `rollout …`: planned moves from one version to another, started, watched and led.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::rollout_view::{in_short, logs, one, plan, statistics, table};
use super::{ask, receipt, text_or_nothing, with_reason};
use crate::cli::address::Resource;
use crate::cli::client::Client;
use crate::cli::error::CliError;
use crate::cli::live::{Watched, watch};
use crate::cli::output::Output;
use crate::cli::progress::Progress;
use crate::cli::rollout_args::{ChangedArgs, EndArgs, InsufficientArg, PlanArgs, RolloutVerb, StartArgs, StrategyArg};
use crate::cli::text::{Fields, span};
use crate::cli::verb_args::HowArgs;
use crate::config::read_duration;

/// How often a rollout is asked about while one waits for its end.
const ASK_EVERY: Duration = Duration::from_millis(500);

/// Does what the verb says.
pub(super) fn rollout(client: &Client, output: Output, verb: &RolloutVerb) -> Result<(), CliError> {
    match verb {
        RolloutVerb::Start(args) => start(client, output, args),
        RolloutVerb::List { service, phase, limit } => {
            let resource = Resource::new(&["rollouts"]).with("service", service.as_ref());
            let document = client.get(&resource.with("phase", phase.as_ref()).with("limit", *limit))?;
            output.show(&document, |look| table(&document, look))
        }
        RolloutVerb::Get { id, watch, interval } => get(client, output, id, watch.then_some(*interval)),
        RolloutVerb::Status { id, timeout } => status(client, output, id, timeout),
        RolloutVerb::Pause(of) => lead(client, output, of, "pause", "is paused", Map::new()),
        RolloutVerb::Resume(of) => lead(client, output, of, "resume", "goes on", Map::new()),
        RolloutVerb::Retry(of) => lead(client, output, of, "retry", "begins again", Map::new()),
        RolloutVerb::Promote { of, step, full } => {
            let mut body = Map::from_iter(step.iter().map(|step| ("step".to_owned(), json!(step))));
            if *full {
                body.insert("full".to_owned(), json!(true));
            }
            lead(client, output, of, "promote", "is promoted", body)
        }
        RolloutVerb::Abort(of) => end(client, output, of, &["abort"], "is aborted, its traffic goes back"),
        RolloutVerb::Undo(of) => end(client, output, of, &["undo"], "is undone, its traffic goes back"),
        RolloutVerb::Rollback { of, tenant } => {
            let done = format!("took tenant {tenant} back");
            end(client, output, of, &["tenants", tenant, "rollback"], &done)
        }
        RolloutVerb::Logs { id, tenant, status, limit } => {
            let resource = Resource::new(&["rollouts", id, "logs"]).with("tenant", tenant.as_ref());
            let document = client.get(&resource.with("status", status.as_ref()).with("limit", *limit))?;
            output.show(&document, |look| logs(&document, look))
        }
        RolloutVerb::Statistics { service } => {
            let resource = Resource::new(&["rollouts", "statistics"]).with("service", service.as_ref());
            let document = client.get(&resource)?;
            output.show(&document, |_| statistics(&document))
        }
    }
}

fn start(client: &Client, output: Output, args: &StartArgs) -> Result<(), CliError> {
    let mut body = plan_of(&args.plan)?;
    if args.force {
        body["force"] = json!(true);
    }
    let body = with_reason(body, args.reason.as_deref());
    let how = HowArgs { dry_run: args.dry_run, if_revision: None };
    let answer = ask(client, Method::POST, Resource::new(&["rollouts"]), Some(body), &how)?;
    if args.dry_run {
        return output.show(&answer, |look| plan(&answer, look));
    }
    let (id, service) = (text_or_nothing(&answer, "id"), text_or_nothing(&answer, "service"));
    let to = text_or_nothing(&answer, "to");
    output.show(&answer, |_| format!("{id}: {service} moves to {to}; watch it: switchback rollout get -w {id}\n"))
}

/// The plan of the file, if one is given, and over it what the options say.
pub(super) fn plan_of(args: &PlanArgs) -> Result<Value, CliError> {
    let mut body = match &args.file {
        None => Map::new(),
        Some(file) => {
            let wrong = |why: String| CliError::Usage(format!("{}: {why}", file.display()));
            let text = std::fs::read_to_string(file).map_err(|e| wrong(e.to_string()))?;
            serde_json::from_str(&text).map_err(|e| wrong(format!("is no plan in JSON: {e}")))?
        }
    };
    let mut set = |name: &str, value: Option<Value>| {
        if let Some(value) = value {
            body.insert(name.to_owned(), value);
        }
    };
    let list = |items: &Vec<String>| (!items.is_empty()).then(|| json!(items));
    set("service", Some(json!(args.service)));
    set("to", Some(json!(args.version)));
    set("from", args.from.as_ref().map(|from| json!(from)));
    set("strategy", args.strategy.map(|strategy| json!(strategy_name(strategy))));
    set("steps", (!args.steps.is_empty()).then(|| json!(args.steps)));
    set("bake", args.bake.as_ref().map(|bake| json!(bake)));
    set("max_bake", args.max_bake.as_ref().map(|bake| json!(bake)));
    set(
        "batch",
        args.batch.map(|size| match &args.delay {
            Some(delay) => json!({ "size": size, "delay": delay }),
            None => json!({ "size": size }),
        }),
    );
    set("canary", args.canary.map(|canary| json!(canary)));
    set("tenants", list(&args.tenants));
    set("groups", list(&args.groups));
    set("exclude", list(&args.exclude));
    set("on_insufficient", args.on_insufficient.map(|what| json!(insufficient_name(what))));
    set("min_requests", args.min_requests.map(|n| json!(n)));
    set("start_at", args.start_at.as_ref().map(|at| json!(at)));
    Ok(Value::Object(body))
}

fn strategy_name(strategy: StrategyArg) -> &'static str {
    match strategy {
        StrategyArg::Steps => "steps",
        StrategyArg::Batch => "batch",
        StrategyArg::Canary => "canary",
        StrategyArg::All => "all",
    }
}

fn insufficient_name(what: InsufficientArg) -> &'static str {
    match what {
        InsufficientArg::Hold => "hold",
        InsufficientArg::Advance => "advance",
        InsufficientArg::Abort => "abort",
    }
}

fn lead(
    client: &Client,
    output: Output,
    of: &ChangedArgs,
    verb: &str,
    done: &str,
    body: Map<String, Value>,
) -> Result<(), CliError> {
    let body = with_reason(Value::Object(body), of.change.reason.as_deref());
    let resource = Resource::new(&["rollouts", &of.id, verb]);
    let answer = ask(client, Method::POST, resource, Some(body), &of.change.how)?;
    receipt(output, &answer, &format!("rollout {} {done}", of.id))
}

fn end(client: &Client, output: Output, of: &EndArgs, path: &[&str], done: &str) -> Result<(), CliError> {
    let mut body = json!({ "reason": of.reason });
    if of.force {
        body["force"] = json!(true);
    }
    let resource = Resource::new(&[&["rollouts", of.id.as_str()], path].concat());
    let answer = ask(client, Method::POST, resource, Some(body), &of.how)?;
    receipt(output, &answer, &format!("rollout {} {done}", of.id))
}

fn of(id: &str) -> Resource {
    Resource::new(&["rollouts", id])
}

fn is_over(document: &Value) -> bool {
    matches!(document.text("phase").as_deref(), Some("completed" | "rolled_back" | "aborted"))
}

fn get(client: &Client, output: Output, id: &str, every: Option<Duration>) -> Result<(), CliError> {
    let document = client.get(&of(id))?;
    let Some(every) = every else { return output.show(&document, |look| one(&document, look)) };
    let watched = Watched { resource: of(id), every, people: one, is_over, no_news: &[] };
    watch(&client.silent(), output, document, &watched)
}

/// The rollout when it is over or the time is up. Goes on when the server is away for a moment.
fn until_over(client: &Client, id: &str, timeout: Duration) -> Result<Value, CliError> {
    let begin = Instant::now();
    let mut document = client.get(&of(id))?;
    let progress = Progress::begin(format!("rollout {id}"));
    loop {
        let left = timeout.saturating_sub(begin.elapsed());
        if is_over(&document) || left.is_zero() {
            return Ok(document);
        }
        progress.say(format!("rollout {id}: {}; {} left", in_short(&document), span(left.as_secs_f64().round())));
        std::thread::sleep(ASK_EVERY.min(left));
        document = match client.get(&of(id)) {
            Err(e) if e.may_pass() => document,
            other => other?,
        };
    }
}

/// Waits for the end, as scripts do.
fn status(client: &Client, output: Output, id: &str, timeout: &str) -> Result<(), CliError> {
    let timeout = read_duration(timeout).map_err(|why| CliError::Usage(format!("--timeout: {timeout} {why}")))?;
    let document = until_over(&client.silent(), id, timeout)?;
    output.show(&document, |look| one(&document, look))?;
    let phase = text_or_nothing(&document, "phase");
    let why = || document.at("going_back").text("reason").unwrap_or_default();
    match phase.as_str() {
        "completed" => Ok(()),
        "rolled_back" | "aborted" | "going_back" => {
            Err(CliError::EndedBadly(format!("rollout {id} is {phase}: {}", why())))
        }
        // Whoever does not wait only wants to know.
        _ if timeout.is_zero() => Ok(()),
        _ => Err(CliError::EndedBadly(format!("rollout {id} is {phase} and was not over in time"))),
    }
}

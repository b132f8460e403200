//! Pages of rollouts, the history and the proxies without a browser: what is offered, what it does, and who may.

use super::pages::Browser;
use super::*;
use crate::admin::freeze::now_ms;
use crate::config::Role;
use crate::model::{
    Author, Change, ChangeRequest, Event, EventKind, RolloutCommand, RolloutId, ServiceName, Stage, VersionName,
};

/// A plan that waits for a person at its last step.
const FORM: [(&str, &str); 6] = [
    ("service", "accounting"),
    ("to", "2.0.0"),
    ("strategy", "steps"),
    ("steps", "10, 100"),
    ("approval", "last"),
    ("bake", "30s"),
];

async fn set_split_to_baseline(api: &Api) {
    let body = json!({ "weights": { "1.0.0": 100 } });
    let answer =
        api.send("PUT", "/v1/services/accounting/split", &[("authorization", "Bearer admin-token")], body).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// Starts the rollout of the form, and says where its page is.
async fn started(api: &Api, browser: &Browser<'_>) -> String {
    set_split_to_baseline(api).await;
    let word = browser.get("/rollouts/new?service=accounting").await.word();
    let with_word = |more: &[(&'static str, String)]| -> Vec<(String, String)> {
        let word = ("csrf".to_owned(), word.clone());
        std::iter::once(word).chain(more.iter().map(|(n, v)| ((*n).to_owned(), v.clone()))).collect()
    };
    let fields = with_word(&FORM.map(|(n, v)| (n, v.to_owned())));
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let look = browser.post("/rollouts/look", &fields, &[]).await;
    assert_eq!(look.status, 200, "{}", look.text);
    for told in
        ["from <bdi>1.0.0 to 2.0.0</bdi>", "and waits for a person on the way", "endpoints of 2.0.0 can be reached"]
    {
        assert!(look.text.contains(told), "{told}: {}", look.text);
    }
    assert!(api.control.view().state.rollouts.is_empty(), "nothing has begun");
    let hidden = |name: &str| {
        let value = look.text.split(&format!("name=\"{name}\" value=\"")).nth(1).unwrap().split('"').next().unwrap();
        value.replace("&quot;", "\"")
    };
    let fields = [("plan", hidden("plan")), ("revision", hidden("revision")), ("force", "true".to_owned())];
    let fields =
        with_word(&[fields[0].clone(), fields[1].clone(), fields[2].clone(), ("reason", "<b>new</b>".to_owned())]);
    let fields: Vec<_> = fields.iter().map(|(n, v)| (n.as_str(), v.as_str())).collect();
    let start = browser.post("/rollouts/start", &fields, &[]).await;
    assert_eq!(start.status, 303, "{}", start.text);
    let path = start.header("location").to_owned();
    assert!(path.starts_with("/rollouts/r"), "{path}");
    path
}

#[tokio::test]
async fn a_plan_that_cannot_be_keeps_what_was_typed() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let operator = Browser::signed_in(&api, Role::Operator).await;
    set_split_to_baseline(&api).await;
    let word = operator.get("/rollouts/new?service=accounting").await.word();
    let mut fields = vec![("csrf", word.as_str())];
    fields.extend(FORM.map(|(n, v)| if n == "steps" { (n, "50, \"10") } else { (n, v) }));
    fields.push(("tenants", "<acme>"));
    let page = operator.post("/rollouts/look", &fields, &[]).await;
    assert_eq!(page.status, 422, "{}", page.text);
    assert!(
        page.text.contains("is not a number of percent") && page.text.contains("value=\"50, &quot;10\""),
        "{}",
        page.text
    );
    assert!(page.text.contains("&lt;acme&gt;</textarea>") && page.text.contains("<details open>"), "{}", page.text);
    assert!(page.text.contains("value=\"last\" selected"), "{}", page.text);
}

/// What the machine would do.
async fn command(api: &Api, path: &str, command: RolloutCommand) {
    let id: RolloutId = path.trim_start_matches("/rollouts/").parse().unwrap();
    let request = ChangeRequest {
        service: ServiceName::new("accounting").unwrap(),
        change: Change::Rollout(id, command),
        author: Author::Autopilot,
        reason: "It is time.".to_owned(),
        if_revision: None,
        if_attempt: None,
        evidence: Value::Null,
    };
    api.control.submit(request, false).await.unwrap();
}

/// The actions that a page offers.
fn offered(page: &str) -> Vec<&str> {
    let all = page.split("/change/").skip(1).map(|rest| rest.split(['"', '?']).next().unwrap());
    all.collect()
}

#[tokio::test]
async fn what_is_possible_now_is_offered_and_nothing_else() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let operator = Browser::signed_in(&api, Role::Operator).await;
    let path = started(&api, &operator).await;
    let page = operator.get(&path).await;
    assert!(page.text.contains("Nothing has moved yet from 1.0.0 to 2.0.0."), "{}", page.text);
    assert!(page.text.contains("&lt;b&gt;new&lt;/b&gt;") && !page.text.contains("<b>new"), "{}", page.text);
    assert_eq!(offered(&page.text), ["pause", "abort"]);
    let viewer = Browser::signed_in(&api, Role::Viewer).await;
    assert_eq!(offered(&viewer.get(&path).await.text), [""; 0]);
    assert_eq!(viewer.get(&format!("{path}/change/pause")).await.status, 403);
    assert_eq!(viewer.get("/rollouts/new").await.status, 403);
    command(&api, &path, RolloutCommand::Begin).await;
    let first = Stage { batch: 0, step: 0 };
    command(&api, &path, RolloutCommand::Enter { stage: first, only: None }).await;
    let page = operator.get(&path).await;
    assert!(page.text.contains("In effect is step 1 of 2 (10\u{a0}% on 2.0.0)."), "{}", page.text);
    assert!(page.text.contains("in effect since"), "{}", page.text);
    assert_eq!(offered(&page.text), ["approve", "full", "pause", "abort", "tenant"]);
    let ask = operator.get(&format!("{path}/change/approve")).await;
    let effect = "the bake of step 1.1 (10\u{a0}% on 2.0.0) ends, and step 1.2 (100\u{a0}% on 2.0.0) is approved";
    assert!(ask.text.contains(effect), "{}", ask.text);
    let word = ask.word();
    let done = operator.post(&format!("{path}/change/approve"), &[("csrf", &word), ("step", "1.2")], &[]).await;
    assert!(done.header("location").starts_with(&format!("{path}?done=")), "{}", done.text);
    command(&api, &path, RolloutCommand::Pass { stage: first }).await;
    operator.post(&format!("{path}/change/pause"), &[("csrf", &word), ("reason", "lunch")], &[]).await;
    let page = operator.get(&path).await;
    assert_eq!(offered(&page.text), ["resume", "abort", "tenant"]);
    assert!(page.text.contains("Paused by") && page.text.contains("lunch"), "{}", page.text);
}

#[tokio::test]
async fn what_goes_back_wants_a_reason_and_is_told_before() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let operator = Browser::signed_in(&api, Role::Operator).await;
    let path = started(&api, &operator).await;
    command(&api, &path, RolloutCommand::Begin).await;
    command(&api, &path, RolloutCommand::Enter { stage: Stage::default(), only: None }).await;
    let abort = format!("{path}/change/abort");
    let ask = operator.get(&format!("{abort}?revision=1")).await;
    assert!(ask.text.contains("all traffic that it moved goes back to 1.0.0 at once."), "{}", ask.text);
    let word = ask.word();
    let refused = operator.post(&abort, &[("csrf", &word)], &[]).await;
    assert!(refused.status == 422 && refused.text.contains("Reason: is empty"), "{}", refused.text);
    // Somebody who resumes on what has changed since is told so; whoever takes traffic back is not held up.
    let stale = operator.get(&format!("{path}/change/full?revision=1")).await;
    assert_eq!(stale.status, 412, "{}", stale.text);
    let done = operator.post(&abort, &[("csrf", &word), ("reason", "slow"), ("revision", "1")], &[]).await;
    assert_eq!(done.status, 303, "{}", done.text);
    let page = operator.get(&path).await;
    assert!(page.text.contains("A person ended it; traffic is on 1.0.0."), "{}", page.text);
    assert_eq!(offered(&page.text), ["retry"]);
    let list = operator.get("/rollouts?phase=aborted&service=accounting").await;
    assert!(
        list.text.contains(&format!("href=\"{path}\"")) && list.text.contains("1 rollout, the newest"),
        "{}",
        list.text
    );
    assert!(list.text.contains("0\u{a0}% of those that are over"), "{}", list.text);
    assert!(operator.get("/rollouts?phase=pending").await.text.contains("There is none like that."));
    assert!(operator.get("/rollouts?phase=odd").await.text.contains("there are: pending"));
}

#[tokio::test]
async fn tenants_of_a_campaign_are_searched_and_come_in_pages() {
    let api = Api::with(FILE, "127.0.0.1:9900").await;
    api.put("/v1/services/accounting/split", json!({ "weights": { "1.0.0": 100 } })).await;
    let tenants: Vec<_> = (0..20_000).map(|i| format!("tenant-{i:06}")).collect();
    let plan = json!({
        "service": "accounting", "to": "2.0.0", "tenants": tenants, "batch": { "size": 100 }, "force": true,
        "order": { "random": 1 },
    });
    let answer = api.post("/v1/rollouts", plan).await;
    let path = format!("/rollouts/{}", answer.body["id"].as_str().unwrap());
    let browser = Browser::new(&api);
    let begun = std::time::Instant::now();
    let page = browser.get(&path).await;
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
    assert!(page.text.len() < 100_000, "{}", page.text.len());
    assert_eq!(page.text.matches("/services/accounting/tenants/tenant-").count(), 50);
    assert!(page.text.contains("after=50#units") && page.text.contains("195 after these"), "{}", page.text);
    let found = browser.get(&format!("{path}?search=ANT-000017")).await;
    assert_eq!(found.text.matches("/services/accounting/tenants/tenant-").count(), 1);
    assert!(browser.get(&format!("{path}?status=completed")).await.text.contains("None is like that."));
    let last = browser.get(&format!("{path}?batch=200&after=19950")).await;
    assert_eq!(last.text.matches("/services/accounting/tenants/tenant-").count(), 50);
    assert!(!last.text.contains("Next 50"));
}

fn rollback(reason: &str, evidence: Value) -> Event {
    Event {
        service: Some(ServiceName::new("accounting").unwrap()),
        version: Some(VersionName::new("2.0.0").unwrap()),
        author: Author::Autopilot,
        reason: reason.to_owned(),
        cause: Some("errors".to_owned()),
        evidence,
        ..Event::of_proxy(EventKind::Rollback, 1, now_ms())
    }
}

#[tokio::test]
async fn the_history_is_filtered_and_rollbacks_have_their_minutes() {
    let api = Api::with(FILE, "127.0.0.1:9900").await;
    let arm = |version: &str, failed: u64| json!({ "version": version, "requests": vec![90; 12], "failed": vec![failed; 12] });
    let begin = now_ms() - 110_000;
    let series = json!({ "seconds": 10, "begin_ms": begin, "baseline": arm("1.0.0", 0), "canary": arm("2.0.0", 7) });
    let odd = json!({ "seconds": 0, "begin_ms": -1, "baseline": arm("1.0.0", 0) });
    let mut events =
        vec![rollback("It was <b>worse</b>.", json!({ "series": series })), rollback("Old.", json!({ "series": odd }))];
    for n in 0..120 {
        let name = format!("person-{}", n % 2);
        events.push(Event {
            author: Author::Person { name },
            service: Some(ServiceName::new("billing").unwrap()),
            ..Event::of_proxy(EventKind::HoldSet, 1, now_ms())
        });
    }
    crate::store::Store::append(&*api.store, events).await.unwrap();
    let browser = Browser::new(&api);
    let page = browser.get("/history?kind=rollback").await;
    assert!(
        page.text
            .contains("Failures before and after the rollback. 1.0.0: 0 before, 0 after. 2.0.0: 84 before, 0 after."),
        "{}",
        page.text
    );
    assert_eq!(page.text.matches("The minutes around it were not kept.").count(), 1);
    assert!(page.text.contains("It was &lt;b&gt;worse") && !page.text.contains("<b>worse"), "{}", page.text);
    assert_eq!(page.text.matches("<details class=\"more\" open").count(), 1);
    assert!(!page.text.contains("begin_ms"), "the series is drawn, not told: {}", page.text);
    let mut next = "/history?author=person-1".to_owned();
    let mut seen = 0;
    loop {
        let page = browser.get(&next).await;
        seen += page.text.matches("<details class=\"more\"").count();
        assert!(!page.text.contains("person-0"), "{next}");
        let Some((before, _)) = page.text.split_once("\">Older<") else { break };
        next = format!("/history{}", before.rsplit('"').next().unwrap().replace("&amp;", "&"));
    }
    assert_eq!(seen, 60);
    let page = browser.get("/history?service=accounting&until=2001-01-01T00:00").await;
    assert!(page.text.contains("Nothing like that."), "{}", page.text);
    let page = browser.get("/history?service=accounting&since=2001-01-01T00:00").await;
    assert!(page.text.contains("was rolled back"), "{}", page.text);
    assert!(browser.get("/history?since=soon").await.text.contains("is no day and time"));
    assert!(browser.get("/history?event=99999").await.text.contains("is not in the history any more"));
}

#[tokio::test]
async fn proxies_show_the_process_the_store_and_who_is_told() {
    let api = Api::with(&with_tokens(), "127.0.0.1:9900").await;
    let viewer = Browser::signed_in(&api, Role::Viewer).await;
    let page = viewer.get("/proxies").await;
    for told in
        ["alone with its store", "test-1", "127.0.0.1:8080", "takes changes", "takes traffic", "Nothing needs a look."]
    {
        assert!(page.text.contains(told), "{told}: {}", page.text);
    }
    api.readiness.lock().unwrap().ready = false;
    api.store.set_down(true);
    let page = viewer.get("/proxies").await;
    assert!(page.text.contains("takes no traffic") && page.text.contains(">away<"), "{}", page.text);
    assert!(page.text.contains("https://hooks.example.com") && page.text.contains("answered 200"), "{}", page.text);
    let page = viewer.get("/history").await;
    assert!(page.text.contains("cannot be read while the store is away"), "{}", page.text);
}

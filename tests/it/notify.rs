//! Notifications on real receivers: what they get, when, how often, and that nobody waits for one that hangs.

use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use base64::Engine as _;
use serde_json::{Value, json};
use switchback::webhook::signature;

use crate::harness::{Backend, Load, TestApp, many_users, two_versions, until};
use crate::mail::MailServer;
use crate::receiver::Receiver;

const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

struct Stage {
    _old: Backend,
    new: Backend,
    app: TestApp,
}

/// An app that tells these targets.
async fn stage(targets: &str) -> Stage {
    let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
    let app = TestApp::start(&config(&old, &new, targets)).await;
    Stage { _old: old, new, app }
}

fn config(old: &Backend, new: &Backend, targets: &str) -> String {
    format!(
        "{targets}\n{}\n[tenants]\nidentify = [{{ header = \"x-tenant-id\" }}]\n\
         [admin]\nlisten = \"127.0.0.1:0\"\npublic_url = \"https://sb.example.com/\"\n",
        two_versions(old, new, "")
    )
}

fn target(name: &str, kind: &str, more: &str) -> String {
    format!("[[notify]]\nname = \"{name}\"\ntype = \"{kind}\"\ngather = \"0s\"\n{more}\n")
}

fn webhook(name: &str, receiver: &Receiver, more: &str) -> String {
    target(name, "webhook", &format!("url = \"{}\"\n{more}", receiver.url("/in")))
}

async fn count(app: &TestApp, target: &str, result: &str) -> f64 {
    app.metric(&format!("switchback_notifications_total{{target=\"{target}\",result=\"{result}\"}}")).await
}

async fn roll_back(app: &TestApp, tenant: &str) {
    let path = format!("/v1/services/shop/tenants/{tenant}/rollback");
    app.change("POST", &path, json!({ "reason": "it is slow" })).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_of_the_guard_reaches_everybody_in_the_form_they_want() {
    let (slack, pagerduty, events, mail) =
        (Receiver::start().await, Receiver::start().await, Receiver::start().await, MailServer::start().await);
    let targets = [
        target("team", "slack", &format!("url = \"{}\"", slack.url("/services/T0/B0/door"))),
        target("on-call", "pagerduty", &format!("url = \"{}\"\nrouting_key = \"a-key\"", pagerduty.url("/v2/enqueue"))),
        webhook("audit", &events, &format!("secret = \"{SECRET}\"\nseverity = \"critical\"")),
        target(
            "everyone",
            "email",
            &format!(
                "from = \"Switchback <sb@example.com>\"\nto = [\"ops@example.com\", \"dev@example.com\"]\n\
                 kinds = [\"rollback\"]\nsmtp = {{ host = \"127.0.0.1\", port = {}, tls = \"none\", \
                 username = \"sb\", password = \"pw\" }}",
                mail.address.port()
            ),
        ),
    ];
    let stage = stage(&targets.concat()).await;
    let app = &stage.app;
    let load = Load::start(app, 200, many_users(100_000));
    until("traffic", Duration::from_secs(10), async || stage._old.script.requests() > 100).await;
    stage.new.script.fail(100.0);
    app.split("shop", 10.0).await;
    let pages = pagerduty.wait_for(1).await;
    load.stop().await;
    let event = app.events("kind=rollback").await.remove(0);
    let reason = event["reason"].as_str().unwrap();

    let page = pages[0].json();
    assert_eq!((&page["event_action"], &page["routing_key"]), (&json!("trigger"), &json!("a-key")));
    assert_eq!(page["dedup_key"], "switchback/shop/2.0.0/rollback");
    assert_eq!((&page["payload"]["severity"], &page["payload"]["class"]), (&json!("critical"), &json!("rollback")));
    assert_eq!(page["payload"]["summary"], "shop: 2.0.0 was rolled back");
    assert_eq!(page["payload"]["custom_details"]["Reason"], reason);
    let link = format!("https://sb.example.com/?service=shop&event={}", event["id"]);
    assert_eq!(page["links"][0]["href"], link);

    until("slack gets the rollback", Duration::from_secs(10), async || {
        slack.calls().iter().any(|c| c.json()["text"] == "shop: 2.0.0 was rolled back")
    })
    .await;
    let told = slack.calls().into_iter().find(|c| c.json()["text"] == "shop: 2.0.0 was rolled back").unwrap();
    assert_eq!((told.path.as_str(), &told.headers["content-type"][..]), ("/services/T0/B0/door", "application/json"));
    let attachment = &told.json()["attachments"][0];
    assert_eq!(attachment["color"], "#d92d20");
    let blocks = attachment["blocks"].as_array().unwrap();
    assert_eq!(blocks[0]["type"], "header");
    assert_eq!(blocks[1]["text"]["text"], reason);
    let facts = blocks[2]["text"]["text"].as_str().unwrap();
    assert!(facts.contains("*By:* autopilot\n*Evidence:* 2.0.0 ") && facts.contains(" failed ("), "{facts}");
    assert!(facts.contains("*Worst routes:* GET / ("), "{facts}");
    assert_eq!(blocks[3]["text"]["text"], format!("<{}|Open the dashboard>", link.replace('&', "&amp;")));

    let told = events.wait_for(1).await.remove(0);
    let body = told.json();
    assert_eq!(told.headers["content-type"], "application/cloudevents+json; charset=utf-8");
    assert_eq!((&body["specversion"], &body["type"]), (&json!("1.0"), &json!("io.switchback.rollback")));
    assert_eq!((&body["subject"], &body["data"]["event"]["id"]), (&json!("shop"), &event["id"]));
    assert_eq!((&body["data"]["reason"], &body["id"]), (&json!(reason), &json!(told.headers["webhook-id"])));
    let at = told.headers["webhook-timestamp"].parse().unwrap();
    let signed = signature(&SECRET.parse().unwrap(), &told.headers["webhook-id"], at, &told.body);
    assert_eq!(told.headers["webhook-signature"], signed);

    until("a mail", Duration::from_secs(10), async || !mail.mails().is_empty()).await;
    let mails = mail.mails();
    assert_eq!((mails.len(), mails[0].to.len()), (1, 2));
    assert!(mails[0].from.contains("<sb@example.com>") && mails[0].to[1].contains("<dev@example.com>"));
    let login = base64::engine::general_purpose::STANDARD.encode("\0sb\0pw");
    assert_eq!(mails[0].login, format!("PLAIN {login}"));
    let text = mails[0].text.replace("=\n", "");
    assert!(text.contains("Subject: [Switchback critical] shop: 2.0.0 was rolled back"), "{text}");
    assert!(text.contains("Traffic was therefore returned to 1.0.0."), "{text}");

    // Somebody tries again: the incident is over.
    app.split("shop", 5.0).await;
    let pages = pagerduty.wait_for(2).await;
    let over = json!({
        "routing_key": "a-key", "event_action": "resolve", "dedup_key": "switchback/shop/2.0.0/rollback"
    });
    assert_eq!(pages[1].json(), over);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_tenants_and_routes_that_suffer_most_are_named() {
    let receiver = Receiver::start().await;
    let stage = stage(&webhook("audit", &receiver, "severity = \"critical\"")).await;
    let app = &stage.app;
    // The guard must not be faster than the person.
    app.change("PUT", "/v1/services/shop/tenants/quiet/split", json!({ "weights": { "2.0.0": 100 } })).await;
    app.change("PUT", "/v1/services/shop/tenants/acme/split", json!({ "weights": { "2.0.0": 100 } })).await;
    for _ in 0..3 {
        app.get("/orders", &[("x-tenant-id", "quiet")]).await;
    }
    *stage.new.script.fail_tenant.lock().unwrap() = Some("acme".to_owned());
    for _ in 0..3 {
        app.get("/orders", &[("x-tenant-id", "acme")]).await;
    }
    until("the failures are counted", Duration::from_secs(10), async || {
        let (_, stats) = app.api("GET", "/v1/services/shop/stats?tenant=acme", None).await;
        stats.to_string().contains("\"status\":3")
    })
    .await;
    app.change("POST", "/v1/services/shop/rollback", json!({ "reason": "acme complains" })).await;
    let data = receiver.wait_for(1).await[0].json()["data"].clone();
    assert_eq!(data["worst_tenants"], json!([{ "tenant": "acme", "failures": 3, "requests": 3 }]), "{data}");
    assert_eq!((&data["reason"], &data["event"]["author"]["name"]), (&json!("acme complains"), &json!("local")));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_fails_is_tried_again_and_asked_for_no_more_than_it_wants() {
    let receiver = Receiver::start().await;
    receiver.reply(500, &[]);
    receiver.reply(429, &[("retry-after", "3")]);
    let stage = stage(&webhook("audit", &receiver, "severity = \"critical\"")).await;
    roll_back(&stage.app, "acme").await;
    receiver.wait_for(2).await;
    let asked = Instant::now();
    let calls = receiver.wait_for(3).await;
    assert!(asked.elapsed() > Duration::from_millis(2_500), "{:?}", asked.elapsed());
    let id = |i: usize| calls[i].headers["webhook-id"].clone();
    assert!(id(0) == id(1) && id(1) == id(2), "the same message: {calls:?}");
    until("it is counted", Duration::from_secs(5), async || count(&stage.app, "audit", "sent").await == 1.0).await;
    assert_eq!(count(&stage.app, "audit", "retried").await, 2.0);
    assert_eq!(count(&stage.app, "audit", "failed").await, 0.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn who_refuses_is_not_asked_again() {
    let receiver = Receiver::start().await;
    receiver.reply(404, &[]);
    let stage = stage(&webhook("audit", &receiver, "severity = \"critical\"")).await;
    roll_back(&stage.app, "acme").await;
    until("it is given up", Duration::from_secs(5), async || count(&stage.app, "audit", "failed").await == 1.0).await;
    assert_eq!(receiver.calls().len(), 1);
    let (_, answer) = stage.app.api("GET", "/v1/notify", None).await;
    let last = &answer["targets"][0]["last"];
    assert_eq!((&last["ok"], &last["detail"]), (&json!(false), &json!("answered 404: noted")), "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receiver_that_hangs_delays_neither_rollbacks_nor_others() {
    let (hanging, other) = (Receiver::start().await, Receiver::start().await);
    hanging.hang.store(true, SeqCst);
    let more = "severity = \"critical\"\ntimeout = \"60s\"";
    let stage = stage(&(webhook("hangs", &hanging, more) + &webhook("other", &other, more))).await;
    roll_back(&stage.app, "acme").await;
    hanging.wait_for(1).await;
    let begun = Instant::now();
    for n in 0..20 {
        roll_back(&stage.app, &format!("t{n}")).await;
    }
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    until("the other gets all", Duration::from_secs(10), async || {
        let events = other.calls().iter().map(|c| c.json()["data"]["events"].as_u64().unwrap()).sum::<u64>();
        events == 21
    })
    .await;
    assert_eq!(hanging.calls().len(), 1);
    let (_, answer) = stage.app.api("GET", "/v1/notify", None).await;
    assert!(answer["targets"][0]["waiting"].as_u64().unwrap() >= 1, "{answer}");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_tenants_at_once_are_one_message_and_repetitions_are_counted() {
    let receiver = Receiver::start().await;
    let targets = webhook("audit", &receiver, "severity = \"critical\"").replace("0s", "3s");
    let stage = stage(&targets).await;
    for n in 0..30 {
        roll_back(&stage.app, &format!("t{n}")).await;
    }
    let call = receiver.wait_for(1).await.remove(0).json();
    let data = &call["data"];
    assert_eq!(data["title"], format!("shop: 2.0.0 was rolled back for {} tenants", 30), "{call}");
    assert_eq!((&data["events"], &data["tenant_count"]), (&json!(30), &json!(30)));
    assert_eq!(data["tenants"].as_array().unwrap().len(), 10);
    roll_back(&stage.app, "t0").await;
    until("it is counted", Duration::from_secs(5), async || count(&stage.app, "audit", "suppressed").await == 1.0)
        .await;
    assert_eq!(receiver.calls().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_target_gets_only_what_it_asked_for() {
    let (all, kinds) = (Receiver::start().await, Receiver::start().await);
    let targets = webhook("all", &all, "severity = \"info\"")
        + &webhook("kinds", &kinds, "severity = \"info\"\nkinds = [\"hold_set\"]");
    let stage = stage(&targets).await;
    stage.app.split("shop", 5.0).await;
    stage.app.change("PUT", "/v1/services/shop/hold", json!({ "reason": "a freeze" })).await;
    let kinds = kinds.wait_for(1).await;
    assert_eq!((kinds.len(), &kinds[0].json()["data"]["reason"]), (1, &json!("a freeze")));
    let types: Vec<Value> = all.wait_for(2).await.iter().map(|c| c.json()["type"].clone()).collect();
    assert_eq!(types, [json!("io.switchback.split_set"), json!("io.switchback.hold_set")]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_test_message_tells_who_is_reached_and_nothing_secret_is_shown() {
    let (good, page) = (Receiver::start().await, Receiver::start().await);
    let closed = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let targets = [
        target("good", "slack", &format!("url = \"{}\"", good.url("/hidden"))),
        target("gone", "slack", &format!("url = \"http://{closed}/hidden\"")),
        target("page", "pagerduty", &format!("url = \"{}\"\nrouting_key = \"hidden\"", page.url("/"))),
    ];
    let stage = stage(&targets.concat()).await;
    let (status, answer) = stage.app.api("POST", "/v1/notify/test", None).await;
    assert_eq!((status, &answer["ok"]), (200, &json!(false)), "{answer}");
    let ok: Vec<_> = answer["results"].as_array().unwrap().iter().map(|r| r["ok"].as_bool().unwrap()).collect();
    assert_eq!(ok, [true, false, true], "{answer}");
    let gone = answer["results"][1]["detail"].as_str().unwrap();
    assert!(gone.starts_with("the receiver cannot be reached: "), "{gone}");
    assert_eq!(good.calls().len(), 1);
    let actions: Vec<_> = page.calls().iter().map(|c| c.json()["event_action"].clone()).collect();
    assert_eq!(actions, ["trigger", "resolve"]);
    let (_, list) = stage.app.api("GET", "/v1/notify", None).await;
    assert_eq!(list["targets"][0]["address"], good.url(""));
    assert!(!format!("{answer}{list}{}", stage.app.metrics().await).contains("hidden"), "{answer}{list}");
    let (status, _) = stage.app.api("POST", "/v1/notify/test", Some(json!({ "target": "god" }))).await;
    assert_eq!(status, 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn targets_follow_a_reload() {
    let (before, after) = (Receiver::start().await, Receiver::start().await);
    let stage = stage(&webhook("before", &before, "severity = \"critical\"")).await;
    roll_back(&stage.app, "acme").await;
    before.wait_for(1).await;
    stage.app.write_config(&config(&stage._old, &stage.new, &webhook("after", &after, "severity = \"critical\"")));
    let report = stage.app.change("POST", "/v1/reload", json!({})).await;
    assert!(report["changed"].as_array().unwrap().contains(&json!("notify")), "{report}");
    roll_back(&stage.app, "globex").await;
    let call = after.wait_for(1).await.remove(0).json();
    assert_eq!(call["data"]["event"]["tenant"], "globex");
    assert_eq!(before.calls().len(), 1);
    let metrics = stage.app.metrics().await;
    assert!(metrics.contains("target=\"after\"") && !metrics.contains("target=\"before\""));
}

//! Rollouts, the history and the proxies of the dashboard in a real browser.

use std::sync::Arc;

use fantoccini::Locator;
use serde_json::{Value, json};

use crate::browser::{Browser, PATIENCE};
use crate::dashboard::{FAULTS, HOSTILE, Stage, words};
use crate::harness::{Load, Shape, many_users, until};

async fn choose(browser: &Browser, css: &str, value: &str) {
    let select = browser.page.find(Locator::Css(css)).await.unwrap();
    select.select_by_value(value).await.unwrap();
}

async fn sees(browser: &Browser, css: &str, what: &str) {
    until(&format!("{what:?} in {css}"), PATIENCE, || async { words(&browser.text(css).await).contains(what) }).await;
}

async fn no_complaints(browser: &Browser) {
    let told = browser.complaints().await;
    assert!(told.is_empty(), "{told:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollout_is_started_followed_and_led_by_hand() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    let load = Load::start(&stage.app, 200, many_users(100_000));
    stage.sign_in(&browser, "operator").await;
    browser.goto(&stage.url("/rollouts")).await;
    browser.follow(".heading a.button").await;
    browser.fill("#steps", "20, 100").await;
    choose(&browser, "#approval", "last").await;
    browser.fill("#bake", "1s").await;
    browser.fill("#max_bake", "4s").await;
    browser.picture("rollout-form").await;
    browser.follow("form[action$=look] button").await;
    let text = words(&browser.text("main").await);
    assert!(
        text.contains("service shop: everyone who has no split of their own would go from 1.0.0 to 2.0.0."),
        "{text}"
    );
    assert!(text.contains("1.2 100 % everyone after 1 s"), "{text}");
    browser.picture("rollout-look").await;
    browser.fill("#reason", "the <new> shop").await;
    browser.follow("form[action$=start] button").await;
    let path = browser.path().await;
    assert!(path.starts_with("/rollouts/r"), "{path}");
    browser.value("window.mark = 1; document.querySelector('#state').mark = 1; return 1").await;
    sees(&browser, "#phase", "In effect is step 1 of 2 (20 % on 2.0.0).").await;
    sees(&browser, "#steps li[aria-current]", "in effect since").await;
    browser.picture("rollout-step").await;
    sees(&browser, "#waiting", "Waits for a person's approval: step 1.2 (100 %) needs an approval").await;
    sees(&browser, "#do", "Approve the next step").await;
    let same = "return window.mark === 1 && document.querySelector('#state').mark === 1";
    assert_eq!(browser.value(same).await, true, "the same page, the same nodes");
    assert!(browser.text("#log").await.contains("the <new> shop"));
    no_complaints(&browser).await;
    led_by_hand(&browser).await;
    no_complaints(&browser).await;
    // A viewer sees all of it and is offered nothing.
    stage.sign_in(&browser, "viewer").await;
    browser.goto(&stage.url(&path)).await;
    assert!(!browser.has("#do").await && !browser.has("form[action*=change]").await);
    browser.goto(&stage.url(&format!("{path}/change/retry"))).await;
    assert_eq!(browser.text("h1").await, "Not allowed");
    browser.goto(&stage.url("/rollouts/new")).await;
    assert_eq!(browser.text("h1").await, "Not allowed");
    load.stop().await;
}

/// Stopped, let go on, approved and taken back: each after a page that says what it does.
async fn led_by_hand(browser: &Browser) {
    browser.follow("#do form[action$=pause] button").await;
    assert!(browser.text("main").await.contains("nothing advances until it is resumed"));
    browser.fill("#reason", "lunch").await;
    browser.follow("form[method=post][action$=pause] button").await;
    assert!(browser.text("#state .chip").await.contains("paused"), "{}", browser.text("#state").await);
    assert!(words(&browser.text("#state .note").await).contains("Paused by operator-ci"));
    browser.picture("rollout-paused").await;
    browser.follow("#do form[action$=resume] button").await;
    browser.follow("form[method=post][action$=resume] button").await;
    sees(browser, "#waiting", "Waits for a person's approval").await;
    browser.follow("#do form[action$=approve] button").await;
    let text = words(&browser.text("main").await);
    assert!(
        text.contains("step 1.2 (100 % on 2.0.0) is approved and begins as soon as nothing else holds it."),
        "{text}"
    );
    browser.follow("form[method=post][action$=approve] button").await;
    sees(browser, "#phase", "In effect is step 2 of 2 (100 % on 2.0.0).").await;
    browser.follow("#do form[action$=abort] button").await;
    assert!(words(&browser.text("main").await).contains("all traffic that it moved goes back to 1.0.0 at once."));
    browser.fill("#reason", "not <today>").await;
    browser.picture("rollout-abort").await;
    browser.follow("form[method=post][action$=abort] button").await;
    sees(browser, "#phase", "A person ended it; traffic is on 1.0.0.").await;
    assert!(browser.has("#do form[action$=retry]").await && !browser.has("#do form[action$=abort]").await);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_keeps_the_minutes_around_it() {
    let (stage, browser) = (Stage::open(false).await, Browser::start().await);
    let load = Load::start(&stage.app, 200, many_users(100_000));
    stage.app.split("shop", 10.0).await;
    until("requests on the canary", PATIENCE, || async { stage.new.script.requests() > 200 }).await;
    stage.new.script.fail(100.0);
    until("a rollback", PATIENCE, || async { !stage.app.events("kind=rollback").await.is_empty() }).await;
    let event = stage.app.events("kind=rollback").await.remove(0);
    let series = &event["evidence"]["series"];
    let sum = |list: &Value| list.as_array().unwrap().iter().map(|n| n.as_u64().unwrap()).sum::<u64>();
    assert_eq!((&series["seconds"], &series["canary"]["version"]), (&json!(10), &json!("2.0.0")), "{event}");
    assert!(sum(&series["canary"]["failed"]) > 0 && sum(&series["baseline"]["failed"]) == 0, "{series}");
    assert!(sum(&series["baseline"]["requests"]) > sum(&series["canary"]["requests"]), "{series}");
    assert!(series.to_string().len() < 1_500, "{series}");
    browser.goto(&stage.url("/history?kind=rollback")).await;
    assert!(
        words(&browser.text("#events").await).contains("shop: 2.0.0 was rolled back"),
        "{}",
        browser.text("#events").await
    );
    let label = "return document.querySelector('details[open] figure:nth-of-type(2) svg').getAttribute('aria-label')";
    let label = browser.value(label).await;
    assert!(label.as_str().unwrap().starts_with("Failures before and after the rollback. 1.0.0: 0 before"), "{label}");
    assert!(words(&browser.text("details[open]").await).contains("Traffic was therefore returned to 1.0.0"));
    // The minutes after are added while the page is asked for.
    until("the minutes after", PATIENCE, || async {
        browser.goto(&stage.url("/history?kind=rollback")).await;
        let after = "return document.querySelector('details[open] figure svg').getAttribute('aria-label')";
        !browser.value(after).await.as_str().unwrap().contains("1.0.0: 0 after")
            && browser
                .value("return document.querySelectorAll('details[open] figure svg polyline').length")
                .await
                .as_u64()
                > Some(2)
    })
    .await;
    for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light")] {
        browser.look(width, scheme).await;
        browser.goto(&stage.url("/history?kind=rollback")).await;
        assert_eq!(browser.overflow().await, 0);
        browser.picture(&format!("history-rollback-{scheme}{}", if width == 360 { "-phone" } else { "" })).await;
    }
    // Filters find what they say and nothing else.
    browser.look(1280, "light").await;
    browser.goto(&stage.url("/history")).await;
    browser.fill("#author", "guard").await;
    browser.follow("form[role=search] button").await;
    assert!(
        browser.text("#events").await.contains("was rolled back")
            && !browser.text("#events").await.contains("split set")
    );
    browser.goto(&stage.url("/history?kind=split_set&service=shop")).await;
    assert!(
        browser.text("#events").await.contains("split set")
            && !browser.text("#events").await.contains("was rolled back")
    );
    browser.goto(&stage.url("/history?until=2001-01-01T00:00")).await;
    assert!(browser.text("#events").await.contains("Nothing like that."));
    no_complaints(&browser).await;
    load.stop().await;
}

/// Requests of tenants with bad names.
fn hostile_tenants() -> Shape {
    Arc::new(|n: u64| {
        let tenant = HOSTILE[(n % HOSTILE.len() as u64) as usize].to_owned();
        ("/".to_owned(), vec![("x-tenant-id".to_owned(), tenant), ("x-user-id".to_owned(), format!("u{n}"))])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_of_rollouts_is_sound_with_bad_names_at_any_width() {
    let (stage, browser) = (Stage::open(false).await, Browser::start().await);
    let load = Load::start(&stage.app, 60, hostile_tenants());
    let mut tenants = HOSTILE.map(str::to_owned).to_vec();
    tenants.push("x".repeat(128));
    tenants.extend((0..120).map(|i| format!("tenant-{i:03}")));
    let plan = json!({
        "service": "shop", "to": "2.0.0", "tenants": tenants, "batch": { "size": 50, "delay": "1h" }, "steps": [50, 100],
        "bake": "10m", "reason": format!("\u{202e}evil <script>alert(2)</script> {}", "w".repeat(200)), "order": { "random": 3 },
        "gates": [{ "name": "migrate", "at": "before_step", "url": "http://127.0.0.1:9/" }],
    });
    let (status, rollout) = stage.app.api("POST", "/v1/rollouts", Some(plan)).await;
    assert_eq!(status, 201, "{rollout}");
    let path = format!("/rollouts/{}", rollout["id"].as_str().unwrap());
    browser.goto(&stage.url(&path)).await;
    sees(&browser, "#gates", "closed").await;
    sees(&browser, "#waiting", "gate").await;
    let pages = [
        ("rollouts", "/rollouts".to_owned()),
        ("rollout", path.clone()),
        ("rollout-new", "/rollouts/new".to_owned()),
        ("rollout-tenant", format!("{path}/change/tenant?tenant=%3Cscript%3Ealert(1)%3C%2Fscript%3E")),
        ("history", "/history".to_owned()),
        ("proxies", "/proxies".to_owned()),
    ];
    for (name, path) in &pages {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            browser.look(width, scheme).await;
            browser.goto(&stage.url(path)).await;
            assert_eq!(browser.overflow().await, 0, "{path} at {width}");
            assert_eq!(browser.value(FAULTS).await, json!([]), "{path} at {width}, {scheme}");
            let nothing =
                "return window.alerted === undefined && !document.querySelector('bdi script, bdi img, bdi b')";
            assert_eq!(browser.value(nothing).await, true, "{path}");
            browser.picture(&format!("{name}-{scheme}{}", if width == 360 { "-phone" } else { "" })).await;
        }
    }
    no_complaints(&browser).await;
    browser.look(1280, "light").await;
    browser.goto(&stage.url(&path)).await;
    browser.fill("#search", "<SCRIPT>").await;
    browser.follow("form[role=search] button").await;
    assert!(
        browser.text("#units tbody").await.contains("<script>alert(1)</script>"),
        "{}",
        browser.text("#units").await
    );
    assert_eq!(browser.value("return document.querySelectorAll('#units tbody tr').length").await, 1);
    browser.goto(&stage.url(&format!("{path}?batch=1"))).await;
    assert_eq!(browser.value("return document.querySelectorAll('#units tbody tr').length").await, 50);
    load.stop().await;
}

//! The dashboard in a real browser: what people see, do and cannot do.

use std::sync::Arc;

use fantoccini::key::Key;
use serde_json::{Value, json};

use crate::browser::{Browser, PATIENCE};
use crate::harness::{Backend, Load, Shape, TestApp, many_users, two_versions, until};

/// What tenants may be called at worst: 1 to 128 visible ASCII characters without `"`, `\`, `,` and `;`.
pub const HOSTILE: [&str; 4] = [
    "<script>alert(1)</script>",
    "'onmouseover='alert(1)",
    "</bdi><img/src=x/onerror=alert(1)>",
    "{{7*7}}&lt/../?#%2e",
];

/// Two versions, a load, and the proxy with tokens for each role.
pub struct Stage {
    pub app: TestApp,
    pub new: Backend,
    _old: Backend,
}

impl Stage {
    pub async fn open(with_tokens: bool) -> Self {
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let token = |role: &str| {
            let hash = ring::digest::digest(&ring::digest::SHA256, format!("{role}-token").as_bytes());
            let hex: String = hash.as_ref().iter().map(|b| format!("{b:02x}")).collect();
            format!("{{ name = \"{role}-ci\", role = \"{role}\", sha256 = \"{hex}\" }}")
        };
        let tokens = ["viewer", "operator", "admin"].map(token).join(", ");
        let admin = match with_tokens {
            true => format!("[admin]\nlisten = \"127.0.0.1:0\"\ntokens = [{tokens}]\n"),
            false => String::new(),
        };
        let tenants = "[tenants]\nidentify = [{ header = \"x-tenant-id\" }]\ngroups = { beta = [\"acme\"] }\n";
        let app = TestApp::start(&format!("{admin}{tenants}{}", two_versions(&old, &new, ""))).await;
        Self { app, new, _old: old }
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.app.admin)
    }

    pub async fn sign_in(&self, browser: &Browser, role: &str) {
        browser.page.delete_all_cookies().await.unwrap();
        browser.goto(&self.url("/sign-in")).await;
        browser.fill("#token", &format!("{role}-token")).await;
        browser.follow("main button").await;
    }

    async fn weights(&self) -> Value {
        let request = self.app.client.get(self.url("/v1/services/shop/split")).bearer_auth("admin-token");
        let mut split: Value = request.send().await.unwrap().json().await.unwrap();
        split["weights"].take()
    }

    /// Sets the split through the API, as somebody else would.
    async fn split(&self, new: f64) {
        let body = json!({ "weights": { "1.0.0": 100.0 - new, "2.0.0": new } });
        let request = self.app.client.put(self.url("/v1/services/shop/split")).bearer_auth("admin-token").json(&body);
        assert_eq!(request.send().await.unwrap().status(), 200);
    }
}

/// The words of a text, whatever stands between them.
pub fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// Requests of tenants with bad names among others.
fn tenants() -> Shape {
    Arc::new(|n: u64| {
        let mixed = n.wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 32;
        let tenant = match mixed % 8 {
            i @ 0..4 => HOSTILE[i as usize].to_owned(),
            4 => "x".repeat(128),
            i => format!("tenant-{i}"),
        };
        ("/".to_owned(), vec![("x-tenant-id".to_owned(), tenant), ("x-user-id".to_owned(), format!("u{n}"))])
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn one_signs_in_with_a_token_and_out_again() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    browser.goto(&stage.url("/services/shop?done=1")).await;
    assert_eq!(browser.path().await, "/sign-in?to=%2Fservices%2Fshop%3Fdone%3D1");
    assert!(!browser.text("body").await.contains("shop\n"), "nothing of the proxy is told before");
    browser.fill("#token", "a guess").await;
    browser.follow("main button").await;
    assert_eq!(browser.text("[role=alert]").await, "This token is not known.");
    // The answer was 401, which the browser mentions.
    let told = browser.complaints().await;
    assert!(told.iter().all(|line| line.contains("401")), "{told:?}");
    browser.fill("#token", "operator-token").await;
    browser.follow("main button").await;
    assert_eq!(browser.path().await, "/services/shop?done=1", "one comes where one wanted to go");
    assert!(browser.text(".who").await.starts_with("operator-ci (operator)"), "{}", browser.text(".who").await);
    let cookie = browser.page.get_named_cookie("switchback_session").await.unwrap();
    assert_eq!((cookie.http_only(), cookie.path(), cookie.secure()), (Some(true), Some("/"), Some(false)));
    assert_eq!(cookie.same_site().map(|s| s.is_strict()), Some(true));
    assert_eq!(browser.value("return document.cookie").await, "", "no script sees it");
    let told = browser.complaints().await;
    assert!(told.is_empty(), "{told:?}");
    // A link of another site, as notifications are read on.
    browser.goto(&stage.url("/sign-in").replace("127.0.0.1", "localhost")).await;
    let link = stage.url("/?service=shop&event=1");
    browser.leave().await;
    browser
        .value(&format!("const a = document.createElement('a'); a.href = '{link}'; document.body.append(a); a.click()"))
        .await;
    browser.next_page().await;
    until("the page behind the link", PATIENCE, || async { browser.text("h1").await == "Overview" }).await;
    assert_eq!(browser.path().await, "/?service=shop&event=1", "signed in still");
    browser.follow(".who button").await;
    assert_eq!(browser.path().await, "/sign-in");
    browser.goto(&stage.url("/")).await;
    assert_eq!(browser.path().await, "/sign-in");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rollback_is_seen_as_it_happens() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    let load = Load::start(&stage.app, 200, many_users(100_000));
    stage.split(10.0).await;
    stage.sign_in(&browser, "operator").await;
    browser.goto(&stage.url("/services/shop")).await;
    assert_eq!(words(&browser.text("#state .legend").await), "1.0.0 90 % 2.0.0 10 %");
    until("a live page", PATIENCE, || async { browser.text("#live").await == "Live" }).await;
    browser.fill("[name='share.1.0.0']", "77").await;
    browser.value("scrollTo(0, 120); window.mark = 1; document.querySelector('#state').mark = 1").await;
    let place = "return Math.round(document.activeElement.getBoundingClientRect().top)";
    let marked = browser.value(place).await;
    browser.picture("service-before").await;
    stage.new.script.fail(100.0);
    until("the bar without the canary", PATIENCE, || async {
        words(&browser.text("#state .legend").await) == "1.0.0 100 %"
    })
    .await;
    let verdict = browser.text("#verdict").await;
    assert_eq!(verdict, "2.0.0 was rolled back; 1.0.0 has its traffic again.");
    until("the reason", PATIENCE, || async { browser.text("#state .note").await.contains("Traffic was therefore") })
        .await;
    assert_eq!(browser.text("#state .chip").await, "rolled back");
    let stayed = "return window.mark === 1 && document.querySelector('#state').mark === 1 \
                  && document.activeElement.name === 'share.1.0.0' && document.activeElement.value === '77'";
    assert_eq!(browser.value(stayed).await, true, "the same page, the same nodes, the focus where it was");
    assert_eq!(browser.value(place).await, marked, "what one looks at stays where it is");
    let told = browser.complaints().await;
    assert!(told.is_empty(), "{told:?}");
    browser.picture("service-rolled-back").await;
    browser.goto(&stage.url("/")).await;
    assert!(browser.text("#today").await.contains("shop: 2.0.0 was rolled back"), "{}", browser.text("#today").await);
    browser.picture("overview-rolled-back").await;
    load.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn names_are_shown_and_never_run() {
    let (stage, browser) = (Stage::open(false).await, Browser::start().await);
    let load = Load::start(&stage.app, 100, tenants());
    let long_reason = format!("\u{202e}evil <script>alert(2)</script> \"quotes\" {}", "w".repeat(200));
    for name in HOSTILE {
        let mut url = url_of(&stage.app.admin, name);
        url.push_str("/split");
        let body = json!({ "weights": { "1.0.0": 50, "2.0.0": 50 }, "reason": long_reason });
        assert_eq!(stage.app.client.put(&url).json(&body).send().await.unwrap().status(), 200, "{url}");
    }
    until("tenants with traffic", PATIENCE, || async {
        browser.goto(&stage.url("/services/shop/tenants")).await;
        browser.text("tbody").await.contains("xxxxxxxx")
    })
    .await;
    let paths = HOSTILE.map(|name| url_of("", name).trim_start_matches("/v1").to_owned());
    let mut paths = paths.to_vec();
    paths.extend(["/", "/services/shop", "/services/shop/tenants?search=%3Cscript%3E"].map(str::to_owned));
    paths.push(format!("/services/shop/tenants/{}", "x".repeat(128)));
    paths.push("/explain?service=shop&tenant=%3Cscript%3Ealert(1)%3C/script%3E&key=%27%3E%3Cb%3E".to_owned());
    for path in &paths {
        for width in [1280, 360] {
            browser.look(width, "light").await;
            browser.goto(&stage.url(path)).await;
            let nothing =
                "return window.alerted === undefined && !document.querySelector('bdi script, bdi img, bdi b')";
            assert_eq!(browser.value(nothing).await, true, "{path}");
            assert_eq!(browser.overflow().await, 0, "{path} at {width}");
            let told = browser.complaints().await;
            assert!(told.is_empty(), "{path}: {told:?}");
        }
    }
    for (name, path) in HOSTILE.iter().zip(&paths) {
        browser.goto(&stage.url(path)).await;
        assert_eq!(browser.text("h1").await, **name);
        assert!(browser.text("main").await.contains("evil <script>alert(2)</script> \"quotes\""), "{path}");
    }
    browser.picture("hostile-tenant-phone").await;
    load.stop().await;
}

fn url_of(admin: &str, tenant: &str) -> String {
    let encoded: String = tenant.bytes().map(|b| format!("%{b:02X}")).collect();
    format!("{admin}/v1/services/shop/tenants/{encoded}")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_viewer_changes_nothing() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    stage.sign_in(&browser, "viewer").await;
    for path in ["/services/shop", "/services/shop/tenants/acme"] {
        browser.goto(&stage.url(path)).await;
        assert!(!browser.has("form[action*=change]").await, "{path} offers no change");
    }
    browser.goto(&stage.url("/services/shop/change/hold")).await;
    assert_eq!(browser.text("h1").await, "Not allowed");
    assert!(
        browser.text("main").await.contains("This needs the role operator; token \"viewer-ci\" has the role viewer.")
    );
    let forge = "const form = document.createElement('form'); form.method = 'post'; \
                 form.action = '/services/shop/change/hold'; const word = document.querySelector('[name=csrf]').cloneNode(); \
                 form.append(word); document.body.append(form); window.before = true; form.submit();";
    browser.value(forge).await;
    browser.next_page().await;
    assert_eq!(browser.text("h1").await, "Not allowed");
    stage.sign_in(&browser, "operator").await;
    browser.goto(&stage.url("/services/shop")).await;
    let forge = forge.replace("form.append(word);", "word.value = 'AAAA'; form.append(word);");
    browser.value(&forge).await;
    browser.next_page().await;
    assert!(browser.text("main").await.contains("not of a page that you were shown"), "{}", browser.text("main").await);
    assert!(!browser.complaints().await.iter().any(|line| line.contains("Content Security Policy")));
    let service =
        stage.app.client.get(stage.url("/v1/services/shop")).bearer_auth("viewer-token").send().await.unwrap();
    assert_eq!(service.json::<Value>().await.unwrap()["hold"], Value::Null);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_split_is_set_after_a_look_at_what_it_does() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    stage.split(10.0).await;
    stage.sign_in(&browser, "operator").await;
    browser.goto(&stage.url("/services/shop")).await;
    browser.fill("[name='share.1.0.0']", "75").await;
    browser.fill("[name='share.2.0.0']", "25").await;
    browser.follow("form[action$=split] button").await;
    let text = browser.text("main").await;
    assert!(text.contains("service shop: 2.0.0 from 10 % to 25 %, 1.0.0 from 90 % to 75 %."), "{text}");
    assert!(text.contains("About 15 % of users move to another version."), "{text}");
    assert_eq!(stage.weights().await, json!({ "1.0.0": 90, "2.0.0": 10 }), "nothing has changed yet");
    browser.picture("confirm-split").await;
    browser.fill("#reason", "looks <good>").await;
    browser.follow("form[method=post][action$=split] button").await;
    assert!(browser.path().await.starts_with("/services/shop?done="), "{}", browser.path().await);
    assert_eq!(stage.weights().await, json!({ "1.0.0": 75, "2.0.0": 25 }));
    let done = browser.text("[role=status].note").await;
    assert!(done.starts_with("Done. shop: split set to 1.0.0 75 %, 2.0.0 25 %"), "{done}");
    assert!(browser.text("#past").await.contains("looks <good>"));
    // What does not add up is told, and nothing changes.
    browser.fill("[name='share.2.0.0']", "20").await;
    browser.follow("form[action$=split] button").await;
    assert!(browser.text("main").await.contains("add up to 95 %"), "{}", browser.text("main").await);
    // Decided on what has changed since: refused before and after the confirmation.
    browser.goto(&stage.url("/services/shop")).await;
    stage.split(30.0).await;
    browser.follow("form[action$=hold] button").await;
    assert_eq!(browser.text("h1").await, "It changed in between");
    browser.goto(&stage.url("/services/shop")).await;
    browser.follow("form[action$=rollback] button").await;
    stage.split(40.0).await;
    browser.fill("#reason", "too slow").await;
    browser.follow("form[method=post][action$=rollback] button").await;
    assert_eq!(browser.text("h1").await, "It changed in between");
    assert!(browser.text("main").await.contains("Nothing was changed"));
    assert_eq!(stage.weights().await, json!({ "1.0.0": 60, "2.0.0": 40 }));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_tenant_is_pinned_moved_and_let_go_without_a_script() {
    let (stage, browser) = (Stage::open(false).await, Browser::start().await);
    browser.devtools("Emulation.setScriptExecutionDisabled", json!({ "value": true })).await;
    let page = stage.url("/services/shop/tenants/acme");
    let goes_to = async |version: &str| {
        until(version, PATIENCE, || async {
            let (_, explained) = stage.app.api("GET", "/v1/services/shop/explain?tenant=acme&key=u1", None).await;
            explained["version"] == version
        })
        .await;
    };
    let press = async |form: &str| {
        let button = format!("form[action$='{form}'] button");
        let found = browser.page.find(fantoccini::Locator::Css(&button)).await;
        found.unwrap_or_else(|e| panic!("{button}: {e}")).click().await.unwrap();
    };
    let sees = async |text: &str| {
        until(text, PATIENCE, || async {
            // The page may be on its way out.
            let Ok(main) = browser.page.find(fantoccini::Locator::Css("main")).await else { return false };
            main.text().await.is_ok_and(|seen| seen.replace('\u{a0}', " ").contains(text))
        })
        .await;
    };
    browser.goto(&page).await;
    let select = browser.page.find(fantoccini::Locator::Css("#pin-version")).await.unwrap();
    select.select_by_label("2.0.0").await.unwrap();
    press("pin").await;
    sees("tenant acme of service shop: always goes to 2.0.0, whatever the split says.").await;
    press("pin").await;
    sees("Pinned: always goes to 2.0.0").await;
    goes_to("2.0.0").await;
    press("unpin").await;
    sees("follows its split again").await;
    press("unpin").await;
    sees("Done.").await;
    goes_to("1.0.0").await;
    browser.fill("[name='share.1.0.0']", "0").await;
    browser.fill("[name='share.2.0.0']", "100").await;
    press("split").await;
    sees("About 100 % of its users move").await;
    press("split").await;
    sees("Follows the split of its own settings.").await;
    goes_to("2.0.0").await;
    press("rollback").await;
    sees("2.0.0 from 100 % to 0 %").await;
    browser.fill("#reason", "slow").await;
    press("rollback").await;
    sees("for this tenant; below is told why").await;
    press("follow").await;
    sees("Nobody moves.").await;
    press("follow").await;
    sees("Follows the split of the service.").await;
    browser.goto(&stage.url("/explain?service=shop&tenant=acme&key=u1&path=/cart")).await;
    sees("Version 1.0.0 of shop would answer").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_keyboard_is_enough() {
    let (stage, browser) = (Stage::open(true).await, Browser::start().await);
    stage.split(10.0).await;
    browser.goto(&stage.url("/services/shop")).await;
    // The field has the focus from the start.
    browser.leave().await;
    browser.keys("operator-token").await;
    browser.press(Key::Enter).await;
    browser.next_page().await;
    browser.press(Key::Tab).await;
    assert_eq!(browser.value("return document.activeElement.className").await, "skip");
    let visible = "const box = document.activeElement.getBoundingClientRect(); return box.top >= 0 && box.height > 0";
    until("the skip link in sight", PATIENCE, || async { browser.value(visible).await == true }).await;
    browser.press(Key::Enter).await;
    assert_eq!(browser.value("return document.activeElement.id").await, "main");
    tab_to(&browser, "input[name='share.1.0.0']").await;
    let outline = "return getComputedStyle(document.activeElement).outlineStyle";
    assert_eq!(browser.value(outline).await, "solid", "one sees where the focus is");
    browser.value("document.activeElement.select()").await;
    browser.keys("50").await;
    tab_to(&browser, "input[name='share.2.0.0']").await;
    browser.value("document.activeElement.select()").await;
    browser.keys("50").await;
    browser.leave().await;
    browser.press(Key::Enter).await;
    browser.next_page().await;
    tab_to(&browser, "#reason").await;
    browser.keys("by hand").await;
    tab_to(&browser, "form[method=post][action$=split] button").await;
    browser.leave().await;
    browser.press(Key::Enter).await;
    browser.next_page().await;
    assert_eq!(stage.weights().await, json!({ "1.0.0": 50, "2.0.0": 50 }));
    let told = browser.complaints().await;
    assert!(told.is_empty(), "{told:?}");
}

/// Goes on with the tabulator until the focus is there.
async fn tab_to(browser: &Browser, css: &str) {
    for _ in 0..60 {
        browser.press(Key::Tab).await;
        let script = format!("return document.activeElement.matches({})", json!(css));
        if browser.value(&script).await == true {
            return;
        }
    }
    panic!("the tabulator does not come to {css}");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_page_is_sound_at_any_width_and_in_the_dark() {
    let (stage, browser) = (Stage::open(false).await, Browser::start().await);
    let load = Load::start(&stage.app, 60, tenants());
    stage.app.split("shop", 10.0).await;
    until("requests counted", PATIENCE, || async {
        browser.goto(&stage.url("/services/shop")).await;
        !browser.text("#versions").await.contains("0/s\t–")
    })
    .await;
    let pages = [
        ("overview", "/"),
        ("service", "/services/shop"),
        ("tenants", "/services/shop/tenants?search=tenant"),
        ("tenant", "/services/shop/tenants/tenant-5"),
        ("explain", "/explain?service=shop&tenant=acme&key=u1"),
        ("confirm", "/services/shop/change/rollback"),
    ];
    for (name, path) in pages {
        for (width, scheme) in [(1280, "light"), (1280, "dark"), (360, "light"), (360, "dark")] {
            browser.look(width, scheme).await;
            browser.goto(&stage.url(path)).await;
            assert_eq!(browser.overflow().await, 0, "{path} at {width}");
            let faults = browser.value(FAULTS).await;
            assert_eq!(faults, json!([]), "{path} at {width}, {scheme}");
            let told = browser.complaints().await;
            assert!(told.is_empty(), "{path}: {told:?}");
            let wide = if width == 360 { "-phone" } else { "" };
            browser.picture(&format!("{name}-{scheme}{wide}")).await;
        }
    }
    browser.goto(&stage.url("/nothing/here")).await;
    assert_eq!(browser.text("h1").await, "Not Found");
    assert_eq!(
        stage.app.client.get(stage.url("/nothing/here")).send().await.unwrap().headers()["content-type"],
        "application/problem+json"
    );
    load.stop().await;
}

/// What a reader of the page without eyes, or with weak ones, would stumble over.
pub const FAULTS: &str = r#"
const faults = [];
const say = (what, e) => faults.push(what + ': ' + e.outerHTML.slice(0, 120));
if (!document.documentElement.lang) faults.push('no language');
for (const mark of ['main', 'header', 'nav', 'footer', 'h1'])
  if (document.querySelectorAll(mark === 'header' || mark === 'footer' ? 'body > ' + mark : mark).length !== 1) faults.push('not one ' + mark);
let level = 0;
for (const h of document.querySelectorAll('h1,h2,h3,h4')) { const l = +h.tagName[1]; if (l > level + 1) say('heading skips a level', h); level = l; }
for (const th of document.querySelectorAll('th')) if (!th.scope) say('no scope', th);
for (const f of document.querySelectorAll('input:not([type=hidden],[hidden]),select,textarea')) if (!f.labels.length) say('no label', f);
for (const s of document.querySelectorAll('svg')) if (s.getAttribute('role') !== 'img' || !s.getAttribute('aria-label')) say('no words', s);
const ids = [...document.querySelectorAll('[id]')].map(e => e.id);
for (const id of ids) if (ids.indexOf(id) !== ids.lastIndexOf(id)) faults.push('id twice: ' + id);
for (const a of document.querySelectorAll('[aria-labelledby],[aria-describedby]'))
  for (const id of (a.getAttribute('aria-labelledby') || a.getAttribute('aria-describedby')).split(' ')) if (!document.getElementById(id)) say('names nothing', a);
if (document.querySelector('[style],style,script:not([src])')) faults.push('inline style or script');
const parse = c => (c.match(/[\d.]+/g) || []).map(Number);
const light = ([r, g, b]) => { const f = v => (v /= 255) <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4; return .2126 * f(r) + .7152 * f(g) + .0722 * f(b); };
const back = e => { for (; e; e = e.parentElement) { const c = parse(getComputedStyle(e).backgroundColor); if (c.length === 3 || c[3] > 0) return c; } return [255, 255, 255]; };
for (const e of document.querySelectorAll('main *, header *, footer *')) {
  if (e.closest('svg,.hide,option') || ![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim())) continue;
  const [a, b] = [light(parse(getComputedStyle(e).color)), light(back(e))].sort((x, y) => y - x);
  if ((a + .05) / (b + .05) < 4.5) say('contrast ' + ((a + .05) / (b + .05)).toFixed(2), e);
}
return faults;
"#;

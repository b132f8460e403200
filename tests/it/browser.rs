//! A real browser without a window: Chromium, driven by chromedriver. Both end with the test.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use base64::Engine as _;
use fantoccini::key::Key;
use fantoccini::{Client, ClientBuilder, Locator};
use hyper_util::client::legacy::connect::HttpConnector;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::until;

/// How long anything on a page may take.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// One browser with a profile of its own.
pub struct Browser {
    pub page: Client,
    /// Where chromedriver takes what the standard does not know.
    session: String,
    http: reqwest::Client,
    _driver: Driver,
    _profile: TempDir,
}

/// chromedriver, which starts Chromium and ends it.
struct Driver {
    child: Child,
    port: u16,
}

impl Browser {
    pub async fn start() -> Self {
        let driver = Driver::start();
        let profile = TempDir::new().unwrap();
        let arguments = [
            "--headless=new",
            "--no-sandbox",
            "--disable-dev-shm-usage",
            "--disable-background-networking",
            "--disable-component-update",
            "--no-first-run",
            "--no-proxy-server",
            &format!("--user-data-dir={}", profile.path().display()),
        ];
        let wanted = json!({ "goog:chromeOptions": { "args": arguments }, "goog:loggingPrefs": { "browser": "ALL" } });
        let driver_url = format!("http://127.0.0.1:{}", driver.port);
        let page = ClientBuilder::new(HttpConnector::new())
            .capabilities(wanted.as_object().unwrap().clone())
            .connect(&driver_url)
            .await
            .expect(
                "these tests need chromium: install Debian's packages chromium and chromium-driver, or use tests/run",
            );
        let session = format!("{driver_url}/session/{}", page.session_id().await.unwrap().unwrap());
        let http = reqwest::Client::builder().no_proxy().timeout(PATIENCE).build().unwrap();
        let browser = Self { page, session, http, _driver: driver, _profile: profile };
        browser.look(1280, "light").await;
        browser
    }

    /// Sets the width of the window and the colours that the reader likes.
    pub async fn look(&self, width: u32, scheme: &str) {
        let size = json!({ "width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500 });
        self.devtools("Emulation.setDeviceMetricsOverride", size).await;
        let media = json!({ "features": [{ "name": "prefers-color-scheme", "value": scheme }] });
        self.devtools("Emulation.setEmulatedMedia", media).await;
    }

    pub async fn goto(&self, url: &str) {
        self.page.goto(url).await.unwrap();
    }

    /// The path and query of the page.
    pub async fn path(&self) -> String {
        let url = self.page.current_url().await.unwrap();
        url.query().map_or(url.path().to_owned(), |query| format!("{}?{query}", url.path()))
    }

    /// The text of an element as people see it; empty when it is not there.
    pub async fn text(&self, css: &str) -> String {
        let script = "const e = document.querySelector(arguments[0]); return e ? e.innerText : '';";
        let text = self.page.execute(script, vec![json!(css)]).await.unwrap();
        text.as_str().unwrap_or_default().replace(['\u{a0}', '\u{202f}'], " ")
    }

    /// What a script says.
    pub async fn value(&self, script: &str) -> Value {
        self.page.execute(script, Vec::new()).await.unwrap()
    }

    pub async fn has(&self, css: &str) -> bool {
        !self.page.find_all(Locator::Css(css)).await.unwrap().is_empty()
    }

    /// Puts a text in place of what a field has.
    pub async fn fill(&self, css: &str, text: &str) {
        let field = self.page.find(Locator::Css(css)).await.unwrap();
        field.clear().await.unwrap();
        field.send_keys(text).await.unwrap();
    }

    /// Clicks on what leads to another page, and waits until that is there.
    pub async fn follow(&self, css: &str) {
        self.value("window.before = true").await;
        let element = self.page.find(Locator::Css(css)).await.unwrap_or_else(|e| panic!("{css}: {e}"));
        element.click().await.unwrap();
        self.next_page().await;
    }

    /// Presses a key where the focus is; for keys that lead to another page, `next_page` waits for it.
    pub async fn press(&self, key: Key) {
        self.keys(&char::from(key).to_string()).await;
    }

    /// Types where the focus is.
    pub async fn keys(&self, text: &str) {
        self.page.active_element().await.unwrap().send_keys(text).await.unwrap();
    }

    /// Notes that this page is to be left.
    pub async fn leave(&self) {
        self.value("window.before = true").await;
    }

    /// Waits until the page that `leave` was called on is gone and the next one is whole.
    pub async fn next_page(&self) {
        until("another page", PATIENCE, || async {
            let script = "return !window.before && document.readyState === 'complete'";
            self.page.execute(script, Vec::new()).await.is_ok_and(|v| v == json!(true))
        })
        .await;
    }

    /// What the browser complained of since the last call: errors of scripts, refusals by the policy, missing files.
    pub async fn complaints(&self) -> Vec<String> {
        let answer = self.http.post(format!("{}/se/log", self.session)).json(&json!({ "type": "browser" }));
        let answer: Value = answer.send().await.unwrap().json().await.unwrap();
        let entries = answer["value"].as_array().unwrap();
        entries.iter().map(|entry| entry["message"].as_str().unwrap().to_owned()).collect()
    }

    /// By how many pixels the page is wider than its window.
    pub async fn overflow(&self) -> i64 {
        let script = "return document.documentElement.scrollWidth - document.documentElement.clientWidth";
        self.value(script).await.as_i64().unwrap()
    }

    /// Keeps a picture of the whole page in `target/screenshots`.
    pub async fn picture(&self, name: &str) {
        let taken = self.devtools("Page.captureScreenshot", json!({ "captureBeyondViewport": true })).await;
        let bytes = base64::engine::general_purpose::STANDARD.decode(taken["data"].as_str().unwrap()).unwrap();
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("target/screenshots");
        std::fs::create_dir_all(&folder).unwrap();
        std::fs::write(folder.join(format!("{name}.png")), bytes).unwrap();
    }

    /// A command of the developer tools.
    pub async fn devtools(&self, command: &str, parameters: Value) -> Value {
        let body = json!({ "cmd": command, "params": parameters });
        let answer = self.http.post(format!("{}/goog/cdp/execute", self.session)).json(&body).send().await.unwrap();
        let mut answer: Value = answer.json().await.unwrap();
        assert!(answer["value"].get("error").is_none(), "{command}: {answer}");
        answer["value"].take()
    }
}

impl Driver {
    fn start() -> Self {
        let mut command = Command::new("chromedriver");
        let started = command.arg("--port=0").stdout(Stdio::piped()).stderr(Stdio::null()).spawn();
        let child = started.expect(
            "these tests need the command chromedriver: install Debian's package chromium-driver, or use tests/run",
        );
        let mut driver = Self { child, port: 0 };
        let mut lines = BufReader::new(driver.child.stdout.take().unwrap());
        let mut line = String::new();
        while driver.port == 0 {
            line.clear();
            assert!(lines.read_line(&mut line).unwrap() > 0, "chromedriver ended");
            if let Some((_, port)) = line.trim().trim_end_matches('.').rsplit_once("successfully on port ") {
                driver.port = port.parse().unwrap();
            }
        }
        // Whoever writes into a pipe that nobody reads stops one day.
        std::thread::spawn(move || std::io::copy(&mut lines, &mut std::io::sink()));
        driver
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        // Asked to end, it ends its browsers; killed, it would leave them.
        if let Ok(mut stream) = TcpStream::connect(("127.0.0.1", self.port)) {
            let _slow = stream.set_read_timeout(Some(Duration::from_secs(5)));
            let _gone = stream.write_all(b"GET /shutdown HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
            let _answer = stream.read_to_end(&mut Vec::new());
        }
        let _killed = self.child.kill();
        let _ended = self.child.wait();
    }
}

//! What the documents tell people to type is typed here: the recipes of the README, whole and in order, each on a proxy of
//! its own, the first configuration that a user writes, and the way from other tools.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use tempfile::TempDir;

use crate::fleet::Traffic;
use crate::harness::{Backend, until};
use crate::lifecycle::Process;

const README: &str = include_str!("../../README.md");
const DEPLOY: &str = include_str!("../../deploy/README.md");

/// A fenced block: its language and its text.
struct Block {
    kind: String,
    text: String,
}

/// The fenced blocks of a text, in order.
fn blocks(text: &str) -> Vec<Block> {
    let mut all: Vec<Block> = Vec::new();
    let mut open = false;
    for line in text.lines() {
        match line.strip_prefix("```") {
            Some(_) if open => open = false,
            Some(kind) => {
                open = true;
                all.push(Block { kind: kind.to_owned(), text: String::new() });
            }
            None if open => all.last_mut().unwrap().text += &format!("{line}\n"),
            None => {}
        }
    }
    all
}

/// What stands below a heading, up to the next of the same kind.
fn section<'a>(text: &'a str, heading: &str) -> &'a str {
    let (_, rest) = text.split_once(&format!("\n{heading}\n")).unwrap_or_else(|| panic!("no {heading:?}"));
    let level = format!("\n{} ", heading.split(' ').next().unwrap());
    rest.split_once(&level).map_or(rest, |(section, _)| section)
}

/// The service of the first five minutes, at the backends of a test instead of those of the reader.
struct Place {
    _old: Backend,
    _new: Backend,
    replace: Vec<(String, String)>,
    folder: TempDir,
    process: Process,
}

impl Place {
    async fn new() -> Self {
        let (old, new) = (Backend::start("1.0.0").await, Backend::start("2.0.0").await);
        let folder = TempDir::new().unwrap();
        let mut replace = vec![
            ("127.0.0.1:7001".to_owned(), old.address.to_string()),
            ("127.0.0.1:7101".to_owned(), new.address.to_string()),
            ("10.0.3.7:7201".to_owned(), new.address.to_string()),
            ("https://migrations.example.com".to_owned(), format!("http://{}", old.address)),
        ];
        let five = section(README, "## Five minutes");
        let first = blocks(five).into_iter().find(|block| block.kind == "toml").expect("a configuration").text;
        // The test says where it listens, and that what it registers may be on this machine.
        let (_, services) = first.split_once("\n\n").unwrap();
        let services = replaced(services, &replace);
        let text =
            services.replace("[tenants]\n", "[tenants]\ngroups = { beta = [\"acme\", \"globex\", \"initech\"] }\n");
        let process = Process::start_allowing(&folder, &text, "127.0.0.0/8");
        process.ready().await;
        replace.push(("http://127.0.0.1:9900".to_owned(), process.admin.clone()));
        std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_switchback"), folder.path().join("switchback")).unwrap();
        Self { _old: old, _new: new, replace, folder, process }
    }

    /// Adds to the configuration file.
    fn configure(&self, more: &str) {
        let file = self.folder.path().join("switchback.toml");
        let text = std::fs::read_to_string(&file).unwrap();
        std::fs::write(file, format!("{text}\n{}", replaced(more, &self.replace))).unwrap();
    }

    /// Runs a block as somebody would who pastes it into a shell.
    fn run(&self, block: &str) {
        let script = replaced(block, &self.replace);
        let path = format!("{}:{}", self.folder.path().display(), std::env::var("PATH").unwrap());
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", &script])
            .current_dir(self.folder.path())
            .env("PATH", path)
            .env("SWITCHBACK_ADMIN", &self.process.admin)
            .env_remove("SWITCHBACK_TOKEN")
            .output()
            .unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        assert!(output.status.success(), "{script}\n{}{}", text(&output.stdout), text(&output.stderr));
    }
}

fn replaced(text: &str, replace: &[(String, String)]) -> String {
    replace.iter().fold(text.to_owned(), |text, (from, to)| text.replace(from, to))
}

#[tokio::test(flavor = "multi_thread")]
async fn every_recipe_works_as_it_is_written() {
    let cookbook = section(README, "## Cookbook");
    let recipes: Vec<_> = cookbook.split("\n### ").skip(1).collect();
    assert!(recipes.len() >= 6, "{}", recipes.len());
    for recipe in recipes {
        let place = Place::new().await;
        let traffic = Traffic::of_tenants(&[&place.process], 100, "/accounting", &["acme", "globex", "initech"]);
        until("traffic of each tenant", Duration::from_secs(10), async || {
            let stats = crate::fleet::get(&place.process, "/v1/services/accounting/stats").await;
            stats["versions"][0]["requests"].as_u64() >= Some(30)
        })
        .await;
        let name = recipe.lines().next().unwrap();
        println!("### {name}");
        for block in blocks(recipe) {
            match block.kind.as_str() {
                "sh" => place.run(&block.text),
                "toml" => place.configure(&block.text),
                other => panic!("{name}: what is {other:?}?"),
            }
        }
        // Maintenance is meant to be noticed.
        let failed = traffic.stop().await;
        assert!(failed == 0 || recipe.contains("maintenance on"), "{name}: {failed} requests failed");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_first_five_minutes_are_as_they_are_written() {
    let place = Place::new().await;
    let five = section(README, "## Five minutes");
    let typed = blocks(five).into_iter().filter(|block| block.kind == "sh").map(|block| block.text).collect::<String>();
    let mut run = 0;
    for line in typed.lines() {
        let line = line.split('#').next().unwrap().trim();
        match line {
            // The next test.
            "" | "deploy/demo" => {}
            // It is what the others talk to.
            _ if line.starts_with("switchback serve ") => {}
            // It watches until somebody interrupts it.
            "switchback status -w" => place.run("timeout 2 switchback status -w || [ $? = 124 ]"),
            _ => {
                place.run(line);
                run += 1;
            }
        }
    }
    assert!(run >= 3, "{typed}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_demo_shows_a_bad_version_go_back_and_the_dashboard_shows_it_too() {
    use std::io::BufRead as _;
    let script = std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/demo")).unwrap();
    assert!(script.ends_with("exec target/release/switchback demo \"$@\"\n"), "what it runs is what is run here");
    let mut demo = Command::new(env!("CARGO_BIN_EXE_switchback"));
    let mut demo = demo.args(["demo", "--plain"]).stdout(std::process::Stdio::piped()).spawn().unwrap();
    let mut lines = std::io::BufReader::new(demo.stdout.take().unwrap()).lines().map(Result::unwrap);
    let first = lines.next().unwrap();
    let dashboard = first.rsplit_once(' ').unwrap().1.to_owned();
    let page = crate::harness::client().get(&dashboard).header("accept", "text/html").send().await.unwrap();
    assert_eq!(page.status(), 200, "{first}");
    assert!(page.text().await.unwrap().contains("<title>"), "{first}");
    let rest: Vec<_> = tokio::task::spawn_blocking(move || lines.collect()).await.unwrap();
    let told = rest.join("\n");
    assert!(
        told.contains("rollback by autopilot") && told.contains("Traffic was therefore returned to 1.0.0."),
        "{told}"
    );
    assert!(demo.wait().unwrap().success());
}

#[tokio::test(flavor = "multi_thread")]
async fn the_way_from_other_tools_is_as_it_is_written() {
    let place = Place::new().await;
    // There is no cluster; what it would say is in two files.
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/import");
    let cluster = format!(
        "#!/bin/sh\n[ \"$1 $2\" = 'get ingress,service,canary' ] && cat {0}/ingress-nginx.yaml && echo --- && cat {0}/flagger.yaml\n",
        data.display()
    );
    let kubectl = place.folder.path().join("kubectl");
    std::fs::write(&kubectl, cluster).unwrap();
    std::fs::set_permissions(&kubectl, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    let section = section(DEPLOY, "## Coming from elsewhere");
    let mut typed = blocks(section).into_iter().filter(|block| block.kind == "sh");
    place.run(&typed.next().unwrap().text);
    assert!(typed.next().is_none());
    let made = std::fs::read_to_string(place.folder.path().join("switchback.toml")).unwrap();
    for service in ["[services.cart]", "[services.shop-v1]", "[services.podinfo]"] {
        assert!(made.contains(service), "{made}");
    }
}

#[test]
fn commands_that_are_not_run_here_are_run_elsewhere() {
    // By what a line begins with, and where that is run.
    let elsewhere = [
        ("promtool ", "tests/deploy/monitoring.rs"),
        ("deploy/debian/build ", "tests/deploy/package.rs"),
        ("sudo apt-get ", "needs a machine to change; tests/deploy/package.rs unpacks the same package"),
    ];
    let (before, after) = DEPLOY.split_once("\n## Coming from elsewhere\n").unwrap();
    let rest = after.split_once("\n## ").map_or("", |(_, rest)| rest);
    for block in blocks(&format!("{before}\n{rest}")).into_iter().filter(|block| block.kind == "sh") {
        for line in block.text.lines().filter(|line| !line.trim().is_empty()) {
            assert!(elsewhere.iter().any(|(begin, _)| line.starts_with(begin)), "nobody runs {line:?}");
        }
    }
}

//! `deploy/Dockerfile`, as far as it can be read without building it.

use super::{path, read};

/// The instructions, continued lines joined, comments left out; by stage.
pub fn stages() -> Vec<Vec<String>> {
    let text = read("deploy/Dockerfile");
    let lines: Vec<_> = text.lines().filter(|line| !line.starts_with('#')).collect();
    let mut stages: Vec<Vec<String>> = Vec::new();
    for instruction in lines.join("\n").replace("\\\n", " ").lines().filter(|line| !line.trim().is_empty()) {
        if instruction.starts_with("FROM ") {
            stages.push(Vec::new());
        }
        stages.last_mut().expect("an instruction before FROM").push(instruction.to_owned());
    }
    stages
}

/// What is given to an instruction, of which there must be one.
fn only<'a>(stage: &'a [String], instruction: &str) -> &'a str {
    let mut found = stage.iter().filter_map(|line| line.strip_prefix(&format!("{instruction} ")));
    let (Some(one), None) = (found.next(), found.next()) else { panic!("not one {instruction} in {stage:?}") };
    one
}

/// The command of the health check.
pub fn health_check() -> Vec<String> {
    let stages = stages();
    let (_, command) = only(&stages[1], "HEALTHCHECK").split_once(" CMD ").unwrap();
    serde_json::from_str(command).unwrap()
}

/// The packages of Debian that a stage installs.
fn packages(stage: &[String]) -> Vec<&str> {
    let run = stage.iter().find_map(|line| line.split_once("--no-install-recommends ")).unwrap().1;
    run.split("&&").next().unwrap().split_whitespace().collect()
}

#[test]
fn the_build_gets_what_it_reads_and_what_it_is_built_with() {
    let build = &stages()[0];
    let ignored = read("deploy/Dockerfile.dockerignore");
    let kept: Vec<_> = ignored.lines().filter_map(|line| line.strip_prefix('!')).collect();
    assert!(ignored.lines().any(|line| line == "*"), "all else stays outside");
    let copied: Vec<_> = build.iter().filter_map(|line| line.strip_prefix("COPY ")).collect();
    let sources = copied.iter().flat_map(|line| line.rsplit_once(' ').unwrap().0.split(' ')).collect::<Vec<_>>();
    assert_eq!(sources, kept, "what is copied is what is not ignored");
    for source in ["Cargo.toml", "Cargo.lock", "src", "benches"] {
        assert!(sources.contains(&source) && path(source).exists(), "{source}");
    }

    let installed = packages(build);
    let needed = read("deploy/demo");
    let needed = needed.lines().filter_map(|line| line.strip_prefix("need_command ")?.split_once(' '));
    let needed: Vec<_> = needed.map(|(_, package)| package).chain(["protobuf-compiler", "libprotobuf-dev"]).collect();
    assert!(needed.contains(&"cmake"), "{needed:?}");
    for package in needed {
        assert!(installed.contains(&package), "{package} is not among {installed:?}");
    }

    let image = only(build, "FROM").strip_prefix("rust:").unwrap();
    let (release, _) = image.split_once('-').unwrap();
    let cargo: toml::Table = toml::from_str(&read("Cargo.toml")).unwrap();
    let least = cargo["package"]["rust-version"].as_str().unwrap();
    let number = |text: &str| text.split('.').map(|n| n.parse::<u32>().unwrap()).collect::<Vec<_>>();
    assert!(number(release) >= number(least), "Rust {release} is older than {least}");
}

#[test]
fn the_image_has_the_binary_and_no_rights() {
    let stages = stages();
    let [_, last] = &stages[..] else { panic!("two stages: {stages:?}") };
    assert_eq!(only(last, "FROM"), "debian:12-slim");
    assert!(only(&stages[0], "FROM").ends_with("-slim-bookworm AS build"), "the same Debian, whose C library it needs");
    assert_eq!(packages(last), ["ca-certificates"]);
    assert_eq!(only(last, "COPY"), "--from=build /switchback /usr/local/bin/switchback");
    assert_eq!(only(last, "STOPSIGNAL"), "SIGTERM");
    assert_eq!(only(last, "ENTRYPOINT"), "[\"/usr/local/bin/switchback\"]");
    assert_eq!(health_check(), ["/usr/local/bin/switchback", "health"]);
    let (user, group) = only(last, "USER").split_once(':').unwrap();
    assert!([user, group].iter().all(|id| id.parse::<u32>().unwrap() > 0), "{user}:{group}");
    let run = only(last, "RUN");
    assert!(run.contains(&format!("-o {user} -g {group} -m 0750 /var/lib/switchback")), "it may write there: {run}");
    assert!(run.contains("ln -s /etc/switchback/switchback.toml /var/lib/switchback/switchback.toml"), "{run}");
    assert_eq!(only(last, "ENV"), "SWITCHBACK_CONFIG=/var/lib/switchback/switchback.toml");
}

//! `[services.X.shadow]`: defaults, every key, and what is refused.

use std::time::Duration;

use super::super::keys_shadow::SHADOW;
use super::super::kinds::Absent;
use super::{bad, good};
use crate::model::{BasisPoints, ShadowSpec, VersionName};

const TWO: &str = r#"[proxy]
listen = ["127.0.0.1:8080"]
[services.a]
match = [{ path = "/" }]
baseline = "1"
versions = { 1 = { endpoints = ["127.0.0.1:7001"] }, 2 = { endpoints = ["127.0.0.1:7002"] } }
"#;

fn shadow(keys: &str) -> ShadowSpec {
    let settings = good(&format!("{TWO}shadow = {{ {keys} }}\n"));
    ShadowSpec::clone(settings.structure.services["a"].shadow.as_ref().unwrap())
}

fn mistake(keys: &str) -> String {
    let mistakes = bad(&format!("{TWO}shadow = {{ {keys} }}\n"));
    assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
    mistakes[0].clone()
}

#[test]
fn defaults_are_those_of_the_table_and_of_the_reference() {
    assert!(good(TWO).structure.services["a"].shadow.is_none());
    let plain = ShadowSpec::new(VersionName::new("2").unwrap());
    assert_eq!(shadow("version = \"2\""), plain);
    let reference = include_str!("../../../conf/switchback.toml");
    let mut written = String::from("version = \"2\"");
    for key in SHADOW.keys {
        let Absent::Value(default) = key.absent else { continue };
        written.push_str(&format!(", {} = {default}", key.name));
        assert!(reference.contains(&format!("\n# {} = {default} ", key.name)), "{}", key.name);
    }
    assert_eq!(shadow(&written), plain);
}

#[test]
fn every_key_is_read() {
    let read = shadow(
        r#"version = "2", share = 2.5, methods = ["OPTIONS", "GET", "GET"], credentials = true, ignore = ["$.a[*].at", "$['x y']"],
        noise_share = 0, body = "1MiB", timeout = "250ms", concurrency = 3, queue = 7, max_difference = 0.5"#
            .replace('\n', " ")
            .as_str(),
    );
    let points = |n| BasisPoints::new(n).unwrap();
    let wanted = ShadowSpec {
        version: VersionName::new("2").unwrap(),
        share: points(250),
        methods: vec![http::Method::GET, http::Method::OPTIONS],
        credentials: true,
        ignore: vec!["$.a[*].at".parse().unwrap(), "$['x y']".parse().unwrap()],
        noise_share: points(0),
        body: 1 << 20,
        timeout: Duration::from_millis(250),
        concurrency: 3,
        queue: 7,
        max_difference: points(50),
    };
    assert_eq!(read, wanted);
}

#[test]
fn mistakes_name_the_key_and_what_is_allowed() {
    let starts = [
        ("share = 5", "7 services.a.shadow.version: is missing"),
        (
            "version = \"3\"",
            "7 services.a.shadow.version: \"3\" is no version of this service; allowed are \"1\", \"2\"",
        ),
        ("version = \"1\"", "7 services.a.shadow.version: \"1\" is the baseline"),
        ("version = \"2\", share = 101", "7 services.a.shadow.share: 101"),
        (
            "version = \"2\", methods = [\"POST\"]",
            "7 services.a.shadow.methods[0]: \"POST\" is not known; allowed is \"GET\"",
        ),
        ("version = \"2\", methods = []", "7 services.a.shadow.methods: is empty"),
        (
            "version = \"2\", ignore = [\"a.b\"]",
            "7 services.a.shadow.ignore[0]: \"a.b\" does not begin with \"$\"; allowed is a path",
        ),
        ("version = \"2\", ignore = [\"$.a[0]\"]", "7 services.a.shadow.ignore[0]: \"$.a[0]\" names one element"),
        ("version = \"2\", body = \"1GiB\"", "7 services.a.shadow.body: \"1GiB\" is out of range"),
        ("version = \"2\", queue = 0", "7 services.a.shadow.queue: 0 is out of range"),
        ("version = \"2\", max_difference = 0", "7 services.a.shadow.max_difference: is 0"),
        ("version = \"2\", shares = 1", "7 services.a.shadow.shares: unknown key, did you mean \"share\""),
    ];
    for (keys, start) in starts {
        let found = mistake(keys);
        assert!(found.starts_with(start), "expected {start}\n   found {found}");
    }
}

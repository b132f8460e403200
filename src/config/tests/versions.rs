//! Versions through the admin API.

use std::time::Duration;

use proptest::prelude::*;
use serde_json::json;

use super::super::{version_from_json, version_to_json};
use crate::model::{ClientFiles, Deprecation, HealthSpec, Rewrite, Timeouts, UpstreamTls, VersionSpec};

#[test]
fn a_version_needs_endpoints_only() {
    let spec = version_from_json(&json!({ "endpoints": ["10.0.0.1:80"], "health": null })).unwrap();
    assert_eq!((spec.timeouts, spec.health.clone(), spec.http2), (Timeouts::default(), None, false));
    let spec = version_from_json(&json!({ "endpoints": ["a:80"], "health": {} })).unwrap();
    assert_eq!(spec.health, Some(HealthSpec::default()));
}

#[test]
fn every_field_that_is_wrong_is_listed() {
    let body = json!({
        "endpoints": ["10.0.0.1", "a:1", "a:1"],
        "helth": {},
        "timeouts": { "connect": "1 s", "idle": 60 },
        "path": "x",
        "host": "${HOME}",
        "rewrite": { "from": "/a" },
    });
    let mistakes = version_from_json(&body).unwrap_err();
    let mut fields: Vec<_> = mistakes.iter().map(|m| m.field.as_str()).collect();
    fields.sort_unstable();
    let expected =
        ["endpoints[0]", "endpoints[2]", "helth", "host", "path", "rewrite.to", "timeouts.connect", "timeouts.idle"];
    assert_eq!(fields, expected);
    assert!(mistakes.iter().any(|m| m.message.contains("did you mean \"health\"?")));
    for body in [json!(null), json!([]), json!("x"), json!({}), json!({ "endpoints": null })] {
        assert!(!version_from_json(&body).unwrap_err().is_empty(), "{body}");
    }
}

#[test]
fn a_deprecation_has_dates_in_their_order() {
    let read = |deprecated: serde_json::Value| {
        version_from_json(&json!({ "endpoints": ["a:1"], "deprecated": deprecated }))
            .map(|spec| spec.deprecated)
            .map_err(|m| m.iter().map(|m| format!("{}: {}", m.field, m.message)).collect::<Vec<_>>().join("; "))
    };
    assert_eq!(read(json!(null)), Ok(None));
    let link = "https://docs.example.com/v1";
    let spec = read(json!({ "since": "2026-06-01", "sunset": "2026-12-31T01:00:00+01:00", "link": link })).unwrap();
    let expected = Deprecation {
        since_s: 1_780_272_000,
        sunset_s: Some(1_798_675_200),
        link: Some(link.to_owned()),
        unknown: Default::default(),
    };
    assert_eq!(spec, Some(expected));
    let same = json!({ "since": "2026-06-01", "sunset": "2026-06-01" });
    assert!(read(same).is_ok());
    let mistakes = [
        (json!({}), "deprecated.since: is missing; allowed is a date"),
        (json!({ "since": 2026 }), "deprecated.since: is an integer; allowed is a date"),
        (json!({ "since": "2026-02-30" }), "deprecated.since: \"2026-02-30\" is neither a date nor a time"),
        (json!({ "since": "2026-06-01T08:00:00" }), "with its offset; allowed is a date"),
        (json!({ "since": "1969-12-31" }), "is neither a date"),
        (
            json!({ "since": "2026-06-01", "sunset": "2026-05-31" }),
            "deprecated.sunset: is before the deprecation itself",
        ),
        (json!({ "since": "2026-06-01", "link": "docs" }), "deprecated.link: \"docs\" is not an http or https address"),
        (json!({ "since": "2026-06-01", "link": "https://x/>; rel=evil" }), "deprecated.link"),
        (json!({ "since": "2026-06-01", "until": "2026-06-01" }), "deprecated.until: unknown key"),
    ];
    for (deprecated, wrong) in mistakes {
        let found = read(deprecated.clone()).unwrap_err();
        assert!(found.contains(wrong), "{deprecated}: {found}");
    }
}

fn any_timeouts() -> impl Strategy<Value = Timeouts> {
    let ms = |max: u64| (1..=max).prop_map(Duration::from_millis);
    (ms(3_600_000), ms(86_400_000), ms(86_400_000), ms(86_400_000), ms(86_400_000), ms(86_400_000)).prop_map(
        |(connect, response, read, idle, stream, keepalive)| Timeouts {
            connect,
            response,
            read,
            idle,
            stream,
            keepalive,
            unknown: Default::default(),
        },
    )
}

fn any_health() -> impl Strategy<Value = HealthSpec> {
    let ms = |max: u64| (1..=max).prop_map(Duration::from_millis);
    ("/[a-z]{0,5}", 100..3_600_000u64, ms(1000), 1..=100u32, 1..=100u32).prop_map(|(path, i, t, h, u)| {
        let path = Some(path).filter(|p| p != "/");
        let timeout = t + Duration::from_millis(10);
        HealthSpec {
            path,
            interval: Duration::from_millis(i),
            timeout,
            healthy_after: h,
            unhealthy_after: u,
            unknown: Default::default(),
        }
    })
}

fn any_version() -> impl Strategy<Value = VersionSpec> {
    let endpoints =
        proptest::collection::btree_set("[a-z]{1,5}(\\.\\{tenant\\})?:[1-9][0-9]{0,3}|10\\.0\\.0\\.[1-9]:80", 1..4);
    let file = || proptest::option::of("[a-z/]{0,9}[a-z]\\.pem");
    let client = proptest::option::of(("[a-z]{1,9}", "/[a-z]{1,9}").prop_map(|(cert, key)| ClientFiles {
        cert,
        key,
        unknown: Default::default(),
    }));
    let tls = (proptest::option::of("[a-z]{1,9}\\.x"), any::<bool>(), file(), client).prop_map(
        |(server_name, verify, ca, client)| UpstreamTls {
            server_name,
            verify,
            ca: ca.filter(|_| verify),
            client,
            unknown: Default::default(),
        },
    );
    let rewrite =
        ("/[a-z]{1,9}", "/[a-z]{1,9}").prop_map(|(from, to)| Rewrite { from, to, unknown: Default::default() });
    let of = proptest::option::of::<BoxedStrategy<String>>;
    // Up to the year 9999; days' first moments are shown otherwise.
    let time = || prop_oneof![(0i64..2_932_896).prop_map(|day| day * 86_400), 0i64..253_402_300_800];
    let deprecated = (time(), proptest::option::of(time()), of("https?://[a-z]{1,9}/[a-z?#&=]{0,9}".boxed())).prop_map(
        |(since_s, sunset_s, link)| Deprecation {
            since_s,
            sunset_s: sunset_s.filter(|s| *s >= since_s),
            link,
            unknown: Default::default(),
        },
    );
    let rest = (of("/[a-z]{1,9}".boxed()), proptest::option::of(rewrite), any::<bool>(), proptest::option::of(tls));
    let upgrade_from = proptest::collection::vec("[0-9]\\.[0-9]".prop_map(|v| v.parse().unwrap()), 0..3);
    let host = of("[a-z]{1,9}(:80)?".boxed());
    (
        endpoints,
        proptest::option::of(any_health()),
        any_timeouts(),
        rest,
        host,
        proptest::option::of(deprecated),
        upgrade_from,
    )
        .prop_map(|(endpoints, health, timeouts, (path, rewrite, http2, tls), host, deprecated, upgrade_from)| {
            VersionSpec {
                endpoints: endpoints.iter().map(|e| e.parse().unwrap()).collect(),
                health,
                timeouts,
                path,
                rewrite,
                http2,
                tls,
                host,
                deprecated,
                upgrade_from,
                unknown: Default::default(),
            }
        })
}

proptest! {
    #[test]
    fn a_version_survives_the_way_out_and_in(spec in any_version()) {
        let shown = version_to_json(&spec);
        prop_assert_eq!(version_from_json(&shown), Ok(spec), "{}", shown);
    }
}

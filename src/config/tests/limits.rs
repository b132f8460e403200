//! `[services.X.limits]`: what each tenant may use.

use super::{SMALL, bad, good};
use crate::model::{GroupName, Limit, LimitsSpec, Rate, WithoutTenant};

fn with(keys: &str) -> String {
    format!("{SMALL}[services.a.limits]\n{keys}\n[tenants]\ngroups = {{ gold = [\"globex\"] }}\n")
}

fn read(keys: &str) -> LimitsSpec {
    good(&with(keys)).structure.services["a"].limits.clone()
}

#[test]
fn without_keys_nobody_is_limited() {
    assert_eq!((read(""), read("rate = \"none\"")), (LimitsSpec::default(), LimitsSpec::default()));
    assert!(good(SMALL).structure.services["a"].limits.is_empty());
}

#[test]
fn limits_and_exceptions_are_read() {
    let spec = read(
        "rate = 2.5\nconcurrency = 7\nwithout_tenant = \"together\"\ngroups = { gold = { rate = 100, burst = 300 } }\n\
         tenants = { acme = { rate = \"none\" }, \"a@b\" = { concurrency = \"none\" } }",
    );
    let rate = |rate, burst| Rate::new(rate, burst);
    assert_eq!(spec.each, Limit { rate: rate(2.5, Some(3)), concurrency: Some(7) });
    assert_eq!(spec.without_tenant, WithoutTenant::Together);
    let gold = [GroupName::new("gold").unwrap()];
    assert_eq!(spec.of("globex", &gold), Limit { rate: rate(100.0, Some(300)), concurrency: Some(7) });
    assert_eq!(spec.of("acme", &[]), Limit { rate: None, concurrency: Some(7) });
    assert_eq!(spec.of("a@b", &[]), Limit { rate: rate(2.5, Some(3)), concurrency: None });
}

#[test]
fn what_limits_nobody_or_everybody_is_a_mistake() {
    for (keys, wrong) in [
        ("rate = 0", "8 services.a.limits.rate: 0 is out of range; allowed is a number from 0.01 to 1000000"),
        ("rate = \"any\"", "\"any\" is not known"),
        ("concurrency = 0", "0 is out of range; allowed is an integer from 1 to 1000000"),
        ("burst = 5", "means nothing here; allowed is it beside the key rate"),
        ("rate = \"none\"\nburst = 5", "9 services.a.limits.burst: means nothing beside rate = \"none\""),
        ("without_tenant = \"ip\"", "\"address\", \"together\", \"unlimited\""),
        ("groups = { silver = { rate = 1 } }", "\"silver\" is no group of tenants.groups; allowed are gold"),
        ("tenants = { acme = {} }", "at least one of rate, concurrency is needed"),
        ("tenants = { \"a b\" = { rate = 1 } }", "the name has the character ' '"),
        ("rates = 1", "unknown key, did you mean \"rate\"?"),
    ] {
        let mistakes = bad(&with(keys));
        assert!(mistakes.len() == 1 && mistakes[0].contains(wrong), "{keys}: {mistakes:?}");
    }
}

//! Maintenance and the kill switch: what each may do, what it writes, and what it leaves alone.

use super::*;
use crate::model::PinTarget;
use crate::model::maintenance::{Disabled, InMaintenance, Maintenance};

fn on(tenant: Option<&str>, message: &str, retry_after_s: u64) -> Change {
    let tenant = tenant.map(|t| TenantName::new(t).unwrap());
    Change::SetMaintenance { tenant, message: message.to_owned(), retry_after_s }
}

fn off(tenant: Option<&str>) -> Change {
    Change::ClearMaintenance { tenant: tenant.map(|t| TenantName::new(t).unwrap()) }
}

fn disable(name: &str) -> Change {
    Change::DisableVersion(version(name))
}

fn enable(name: &str) -> Change {
    Change::EnableVersion(version(name))
}

fn pin(target: PinTarget, name: &str) -> Change {
    Change::SetPin(target, Pin::Version(version(name)))
}

#[test]
fn maintenance_begins_changes_and_ends() {
    let mut house = House::new();
    let begun = house.does(on(None, "moving", 600));
    let (kind, before, after) = told(&begun);
    assert_eq!((kind, before), (EventKind::MaintenanceOn, Value::Null));
    assert_eq!((&after["message"], &after["retry_after_s"]), (&json!("moving"), &json!(600)));
    assert_eq!(begun.commit.events[0].tenant, None);
    let since = house.live().maintenance.service.as_ref().unwrap().since_ms;
    house.does(on(None, "", 60));
    let changed = house.live().maintenance.service.clone().unwrap();
    assert_eq!((changed.message.as_str(), changed.retry_after_s, changed.since_ms), ("", 60, since), "since it began");
    assert_eq!(changed.author, person());
    let (kind, before, after) = told(&house.does(off(None)));
    assert_eq!((kind, &before["retry_after_s"], after), (EventKind::MaintenanceOff, &json!(60), Value::Null));
    assert_eq!(house.live().maintenance, InMaintenance::default());
    let again = house.refuses(off(None));
    assert_eq!(again.to_string(), "maintenance of api does not exist");
}

#[test]
fn a_tenants_maintenance_is_kept_with_the_service_and_told_with_the_tenant() {
    let mut house = House::new();
    let begun = house.does(on(Some("acme"), "yours", 60));
    assert_eq!(begun.commit.events[0].tenant, Some(TenantName::new("acme").unwrap()));
    assert_eq!(written(&begun), written(&house.does(on(None, "everyone's", 60))), "the service's document");
    let all = &house.live().maintenance;
    let message = |tenant| all.of(tenant).map(|m| m.message.as_str());
    assert_eq!(
        (message(Some("acme")), message(Some("globex")), message(None)),
        (Some("yours"), Some("everyone's"), Some("everyone's"),)
    );
    house.does(off(None));
    assert_eq!(house.live().maintenance.of(Some("globex")), None);
    assert_eq!(house.refuses(off(Some("globex"))).to_string(), "maintenance of tenant globex of api does not exist");
    house.does(off(Some("acme")));
    assert!(house.live().maintenance.is_empty());
}

#[test]
fn maintenance_has_limits_and_is_a_persons_word() {
    let mut house = House::new();
    let long = "x".repeat(Maintenance::MAX_MESSAGE + 1);
    for (change, wrong) in [
        (on(None, &long, 60), "the message has 1001 characters; allowed are up to 1000"),
        (on(None, "", 0), "retry_after is 0 s; allowed are 1s to 30d"),
        (on(None, "", Maintenance::MAX_RETRY_AFTER_S + 1), "allowed are 1s to 30d"),
    ] {
        let error = house.refuses(change).to_string();
        assert!(error.contains(wrong), "{error}");
    }
    for change in [on(None, "", 60), off(None), disable("2"), enable("2")] {
        let error = house.ask(&by_autopilot(change)).unwrap_err();
        assert!(error.to_string().ends_with("by people only"), "{error}");
    }
    house.does(on(Some("t0"), "", 60));
    let mut live = house.live().clone();
    let one = live.maintenance.tenants.values().next().unwrap().clone();
    let all = (0..Maintenance::MAX_TENANTS).map(|i| (TenantName::new(&format!("t{i}")).unwrap(), one.clone()));
    live.maintenance.tenants = all.collect();
    house.state.services.insert(service(API), Arc::new(live));
    assert!(house.refuses(on(Some("one-more"), "", 60)).to_string().contains("at most 10000 tenants"));
    house.does(on(Some("t7"), "", 90));
}

#[test]
fn a_disabled_version_leaves_every_split_by_one_document() {
    let mut house = House::new().does_all([
        set(Scope::Service, "1=50 2=30 3=20"),
        set(of_group("beta"), "1=50 2=50"),
        set(of_tenant("initech"), "2=100"),
        pin(pin_tenant("acme"), "2"),
        pin(pin_user("alice"), "2"),
        pin(pin_user("bob"), "3"),
    ]);
    let done = house.does(disable("2"));
    assert_eq!(done.commit.puts.len(), 1);
    assert_eq!(done.commit.events[0].version, Some(version("2")));
    let (kind, before, after) = told(&done);
    assert_eq!(
        (kind, &before["disabled"], &after["disabled"]),
        (EventKind::VersionDisabled, &json!(false), &json!(true))
    );
    assert_eq!(after["pins_suspended"], 2);
    for (scope, shares) in [(Scope::Service, "1=80 3=20"), (of_group("beta"), "1=100"), (of_tenant("initech"), "1=100")]
    {
        let (split, _) = house.split(&scope);
        assert_eq!(house.live().weights_in_effect(&split), weights(shares), "{scope}");
    }
    let (split, _) = house.split(&Scope::Service);
    assert!(split.slices.iter().all(|s| s.version != version("2")), "what is left of the split goes on being evidence");
    let pins = &house.live().pins;
    assert_eq!(pins.tenants["acme"], Pin::Suspended(version("2")));
    assert_eq!(pins.users["bob"], Pin::Version(version("3")));
    let expected = Disabled {
        author: person(),
        reason: "because".to_owned(),
        since_ms: done.commit.events[0].at_ms,
        unknown: Default::default(),
    };
    assert_eq!(house.live().disabled[&version("2")], expected);
}

#[test]
fn a_version_without_traffic_is_disabled_without_touching_the_split() {
    let mut house = House::new().does_all([set(Scope::Service, "1=90 3=10")]);
    let before = house.split(&Scope::Service).0;
    house.does(disable("2"));
    assert_eq!(house.split(&Scope::Service).0, before, "evidence against 3 goes on");
}

#[test]
fn a_brake_does_not_bring_a_disabled_version_back() {
    let mut house = House::new().does_all([
        set(Scope::Service, "1=50 2=50"),
        brake(Scope::Service, 0.0),
        set(of_tenant("acme"), "1=50 2=50"),
        brake(of_tenant("acme"), 0.0),
        disable("2"),
    ]);
    house.refuses(Change::ReleaseBrake { scope: Scope::Service });
    house.does(Change::ReleaseBrake { scope: of_tenant("acme") });
    for scope in [Scope::Service, of_tenant("acme")] {
        let (split, _) = house.split(&scope);
        assert_eq!(house.live().weights_in_effect(&split), weights("1=100"), "{scope}");
    }
}

#[test]
fn nothing_may_lead_to_a_disabled_version() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), disable("2")]);
    let refused = [
        set(Scope::Service, "1=90 2=10"),
        set(of_group("beta"), "1=90 2=10"),
        set(of_tenant("acme"), "1=90 2=10"),
        probe(Scope::Service),
        pin(pin_tenant("acme"), "2"),
        Change::SetBaseline(version("2")),
    ];
    for change in refused {
        let error = house.refuses(change.clone());
        assert!(matches!(&error, ChangeError::Disabled { version: v, .. } if *v == version("2")), "{change:?}");
        let expected = "version 2 of api is disabled by ada (\"because\") and gets no traffic; enable it first: \
                        switchback versions enable api 2";
        assert_eq!(error.to_string(), expected);
    }
    house.does(Change::SetPin(pin_tenant("acme"), Pin::Exclude(version("2"))));
    house.does(set(Scope::Service, "1=100 2=0"));
    let suspended = Change::SetPin(pin_tenant("acme"), Pin::Suspended(version("2")));
    assert!(matches!(house.refuses(suspended), ChangeError::Invalid(_)));
}

#[test]
fn the_baseline_is_not_disabled_and_unknown_versions_are_named() {
    let mut house = House::new();
    let error = house.refuses(disable("1")).to_string();
    assert!(error.starts_with("1 is the baseline of api"), "{error}");
    assert!(matches!(house.refuses(disable("9")), ChangeError::UnknownVersion { .. }));
    assert!(matches!(house.refuses(enable("9")), ChangeError::UnknownVersion { .. }));
    assert_eq!(house.refuses(enable("2")).to_string(), "a kill switch on version 2 does not exist");
}

#[test]
fn enabling_moves_nobody() {
    let mut house = House::new().does_all([
        set(Scope::Service, "1=50 2=50"),
        set(of_tenant("acme"), "2=100"),
        pin(pin_tenant("globex"), "2"),
        disable("2"),
    ]);
    let owners = |house: &House| [Scope::Service, of_tenant("acme")].map(|scope| house.owners(&scope));
    let before = owners(&house);
    let (kind, _, after) = told(&house.does(enable("2")));
    assert_eq!((kind, &after["disabled"]), (EventKind::VersionEnabled, &json!(false)));
    assert_eq!(owners(&house), before);
    assert_eq!(house.live().pins.tenants["globex"], Pin::Suspended(version("2")), "a pin too must be set again");
    assert!(house.live().disabled.is_empty());
    house.does(set(of_tenant("acme"), "1=50 2=50"));
    house.does(pin(pin_tenant("globex"), "2"));
    assert_eq!(house.live().weights_in_effect(&house.split(&of_tenant("acme")).0), weights("1=50 2=50"));
}

#[test]
fn disabling_again_changes_the_reason_only() {
    let mut house = House::new().does_all([set(Scope::Service, "1=50 2=50"), disable("2")]);
    let since = house.live().disabled[&version("2")].since_ms;
    house.ask(&ChangeRequest { reason: "a CVE".to_owned(), ..asked(disable("2")) }).unwrap();
    let disabled = &house.live().disabled[&version("2")];
    assert_eq!((disabled.reason.as_str(), disabled.since_ms), ("a CVE", since));
}

#[test]
fn a_disabled_version_can_be_removed_and_old_splits_stay_away_from_its_successor() {
    let mut house = House::new().does_all([
        Change::PutVersion(version("4"), some_version(7_004)),
        set(of_tenant("acme"), "4=100"),
        disable("4"),
        Change::DeleteVersion(version("4")),
    ]);
    assert!(house.live().disabled.is_empty());
    house.does(Change::PutVersion(version("4"), some_version(7_005)));
    let (split, _) = house.split(&of_tenant("acme"));
    assert_eq!(house.live().weights_in_effect(&split), weights("1=100"));
}

#[test]
fn documents_from_before_are_read() {
    let house = House::new();
    let body = body_of(house.live());
    assert!(!body.contains("maintenance") && !body.contains("disabled"), "nothing is written that nobody set: {body}");
    let read: ServiceState = serde_json::from_str(&body).unwrap();
    assert!(read.maintenance.is_empty() && read.disabled.is_empty());
}

//! The checker finds what cannot have happened, and lets pass what can: small histories by hand.

use super::history::{Content, Fields, Operation, What, explain};

fn split(value: &str) -> Fields {
    Fields::from([("split".to_owned(), value.to_owned())])
}

fn begin() -> Content {
    Content { revision: 1, exact: true, fields: split("a") }
}

fn operation(called: u64, answered: Option<u64>, what: What) -> Operation {
    Operation { name: format!("of turn {called}"), called, answered, what }
}

fn set(value: &str, if_revision: Option<u64>, revision: Option<u64>) -> What {
    let (field, value) = ("split".to_owned(), Some(value.to_owned()));
    What::Write { field, value, before: None, if_revision, revision }
}

fn read(revision: u64, value: &str) -> What {
    What::Read { revision, fields: split(value) }
}

fn fits(history: Vec<Operation>) -> bool {
    explain(&begin(), history).is_ok()
}

#[test]
fn what_can_have_happened_passes() {
    assert!(fits(vec![]));
    assert!(fits(vec![operation(1, Some(2), set("b", Some(1), Some(2))), operation(3, Some(4), read(2, "b"))]));
    // Two at a time, in either order, and a read between them.
    let overlap = vec![
        operation(1, Some(6), set("b", None, Some(3))),
        operation(2, Some(7), set("c", None, Some(2))),
        operation(3, Some(4), read(2, "c")),
        operation(8, Some(9), read(3, "b")),
    ];
    assert!(fits(overlap));
}

#[test]
fn a_write_that_nobody_was_told_of_happened_or_did_not() {
    let unknown = || operation(1, None, set("b", Some(1), None));
    assert!(fits(vec![unknown(), operation(2, Some(3), read(1, "a"))]));
    assert!(fits(vec![unknown(), operation(2, Some(3), read(5, "b"))]));
    let late = vec![unknown(), operation(2, Some(3), read(1, "a")), operation(4, Some(5), read(2, "b"))];
    assert!(fits(late));
    // But not happened first and not happened afterwards.
    let undone = vec![unknown(), operation(2, Some(3), read(2, "b")), operation(4, Some(5), read(1, "a"))];
    assert!(!fits(undone));
    // Nor against another revision than the one it was made against.
    let too_late = vec![
        unknown(),
        operation(2, Some(3), set("c", Some(1), Some(2))),
        operation(4, Some(5), read(2, "c")),
        operation(6, Some(7), read(3, "b")),
    ];
    assert!(!fits(too_late));
}

#[test]
fn a_lost_update_is_found() {
    let both_won = vec![
        operation(1, Some(3), set("b", Some(1), Some(2))),
        operation(2, Some(4), set("c", Some(1), Some(3))),
        operation(5, Some(6), read(3, "c")),
    ];
    let why = explain(&begin(), both_won).unwrap_err();
    assert!(why.contains("of turn"), "{why}");
}

#[test]
fn an_acknowledged_write_that_is_gone_is_found() {
    assert!(!fits(vec![operation(1, Some(2), set("b", None, Some(2))), operation(3, Some(4), read(1, "a"))]));
    // Also when it is gone for those only who write.
    let before = vec![
        operation(1, Some(2), set("b", None, Some(2))),
        operation(
            3,
            Some(4),
            What::Write {
                field: "split".to_owned(),
                value: Some("c".to_owned()),
                before: Some("a".to_owned()),
                if_revision: None,
                revision: Some(3),
            },
        ),
    ];
    assert!(!fits(before));
}

#[test]
fn a_read_from_the_past_is_found() {
    let stale = vec![
        operation(1, Some(2), set("b", None, Some(2))),
        operation(3, Some(4), set("c", None, Some(3))),
        operation(5, Some(6), read(2, "b")),
    ];
    assert!(!fits(stale));
}

#[test]
fn a_revision_that_does_not_grow_is_found() {
    let same = vec![operation(1, Some(2), set("b", None, Some(2))), operation(3, Some(4), set("c", None, Some(2)))];
    assert!(!fits(same));
}

#[test]
fn fields_are_told_apart() {
    let pin = What::Write {
        field: "pin t0".to_owned(),
        value: Some("2".to_owned()),
        before: None,
        if_revision: Some(1),
        revision: Some(2),
    };
    let both = Fields::from([("split".to_owned(), "a".to_owned()), ("pin t0".to_owned(), "2".to_owned())]);
    let seen = What::Read { revision: 2, fields: both };
    assert!(fits(vec![operation(1, Some(2), pin.clone()), operation(3, Some(4), seen)]));
    assert!(!fits(vec![operation(1, Some(2), pin), operation(3, Some(4), read(2, "a"))]));
}

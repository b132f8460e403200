//! Tests of the comparison: named cases, and laws over any documents.

use proptest::prelude::*;
use serde_json::json;

use super::*;

fn paths(text: &[&str]) -> Vec<JsonPath> {
    text.iter().map(|t| t.parse().unwrap()).collect()
}

fn found(a: Value, b: Value, ignore: &[&str]) -> Vec<(String, Kind)> {
    let all = differences(&Body::Json(a), &Body::Json(b), &paths(ignore)).unwrap();
    assert!(!all.more);
    all.fields.into_iter().map(|(path, d)| (path, d.kind)).collect()
}

fn one(path: &str, kind: Kind) -> Vec<(String, Kind)> {
    vec![(path.to_owned(), kind)]
}

#[test]
fn each_kind_of_difference_is_found_at_its_path() {
    let a = json!({ "id": 1, "items": [{ "price": 5, "tags": ["x"] }, { "price": 6, "tags": [] }], "end": null });
    let with = |pointer: &str, value: Value| {
        let mut b = a.clone();
        *b.pointer_mut(pointer).unwrap() = value;
        found(a.clone(), b, &[])
    };
    assert_eq!(with("/id", json!(2)), one("$.id", Kind::Changed));
    assert_eq!(with("/id", json!("1")), one("$.id", Kind::Type));
    assert_eq!(with("/end", json!(false)), one("$.end", Kind::Type));
    assert_eq!(with("/items/1/price", json!(7)), one("$.items[*].price", Kind::Changed));
    assert_eq!(with("/items/0/tags", json!(["x", "y"])), one("$.items[*].tags", Kind::Length));
    assert_eq!(with("/items/0/tags/0", json!("y")), one("$.items[*].tags[*]", Kind::Changed));
    assert_eq!(with("", json!([])), one("$", Kind::Type));
    let mut b = a.clone();
    b.as_object_mut().unwrap().remove("end");
    assert_eq!(found(a.clone(), b.clone(), &[]), one("$.end", Kind::Missing));
    assert_eq!(found(b, a, &[]), one("$.end", Kind::Added));
}

#[test]
fn order_of_fields_and_spelling_of_numbers_mean_nothing() {
    let parse = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    assert_eq!(found(parse(r#"{"a":1,"b":10}"#), parse(r#"{"b":1e1,"a":1.0}"#), &[]), []);
    let (a, b) = (json!(9_007_199_254_740_993_u64), json!(9_007_199_254_740_992_u64));
    assert_eq!(found(a, b, &[]), one("$", Kind::Changed));
}

#[test]
fn keys_that_are_data_are_not_shown() {
    let by_key = |key: &str, value: u8| json!({ "users": { key: { "name": value } } });
    for key in ["bob@example.com", "5f2b9c1e-7a40", "12345", "a b", "", "user-20250102", &"x".repeat(41)] {
        assert_eq!(found(by_key(key, 1), by_key(key, 2), &[]), one("$.users.*.name", Kind::Changed), "{key}");
    }
    for key in ["address2", "sha256", "_links", "$ref", "content-type"] {
        assert_eq!(found(by_key(key, 1), by_key(key, 2), &[]), one(&format!("$.users.{key}.name"), Kind::Changed));
    }
}

#[test]
fn ignored_paths_hide_what_is_there_and_below() {
    let a = json!({ "at": 1, "meta": { "x": 1, "y": { "z": 1 } }, "items": [{ "at": 1, "v": 1 }], "a b": 1 });
    let b = json!({ "at": 2, "meta": { "x": 2, "y": {} }, "items": [{ "at": 2, "v": 2 }, {}], "a b": 2 });
    let all = |ignore: &[&str]| found(a.clone(), b.clone(), ignore).into_iter().map(|(p, _)| p).collect::<Vec<_>>();
    assert_eq!(all(&[]), ["$.*", "$.at", "$.items", "$.meta.x", "$.meta.y.z"]);
    assert_eq!(all(&["$.at", "$.meta", "$['a b']"]), ["$.items"]);
    assert_eq!(all(&["$.*"]), [""; 0]);
    assert_eq!(all(&["$.*.x", "$.at.below", "$.items[*]"]), ["$.*", "$.at", "$.meta.y.z"]);
    let (a, b) = (json!({ "items": [{ "at": 1, "v": 1 }] }), json!({ "items": [{ "at": 2, "v": 2 }] }));
    assert_eq!(found(a, b, &["$.items[*].at"]), one("$.items[*].v", Kind::Changed));
}

#[test]
fn other_bodies_are_compared_whole() {
    let body = |kind: &str, text: &str| Body::read(Some(kind), None, text.as_bytes(), 100);
    let kinds =
        |a: &Body, b: &Body| differences(a, b, &[]).map(|d| d.fields.into_iter().map(|(p, d)| (p, d.kind)).collect());
    let html = body("text/html; charset=utf-8", "<p>1");
    assert_eq!(kinds(&html, &body("text/html", "<p>1")), Some(vec![]));
    assert_eq!(kinds(&html, &body("text/html", "<p>2")), Some(one("body text/html", Kind::Changed)));
    assert_eq!(kinds(&html, &body("text/plain", "<p>1")), Some(one("body", Kind::Type)));
    assert_eq!(kinds(&html, &body("application/json", "{}")), Some(one("body", Kind::Type)));
    assert_eq!(kinds(&html, &Body::Unreadable), None);
}

#[test]
fn examples_tell_type_and_length_only() {
    let (a, b) = (
        json!({ "card": "4111 1111 1111 1111", "n": 1234.5, "ok": true }),
        json!({ "card": "x", "n": 7, "ok": false }),
    );
    let all = differences(&Body::Json(a), &Body::Json(b), &[]).unwrap();
    let shape = |kind: &str, length: Option<u64>| Shape { kind: kind.to_owned(), length };
    let card = &all.fields["$.card"];
    assert_eq!((&card.baseline, &card.shadow), (&shape("string", Some(19)), &shape("string", Some(1))));
    assert_eq!(all.fields["$.n"].baseline, shape("number", Some(6)));
    assert_eq!(all.fields["$.ok"].baseline, shape("boolean", None));
    let shown = format!("{all:?}");
    assert!(!shown.contains("4111") && !shown.contains("1234") && !shown.contains("true"), "{shown}");
}

#[test]
fn paths_are_bounded() {
    let wide = |value: u8| (0..5_000).map(|i| (letters(i), json!(value))).collect::<Map<_, _>>();
    let all = differences(&Body::Json(Value::Object(wide(1))), &Body::Json(Value::Object(wide(2))), &[]).unwrap();
    assert_eq!((all.fields.len(), all.more), (PATHS_MAX, true));
}

/// A name without digits for each number.
fn letters(mut n: usize) -> String {
    let mut name = String::from("f");
    for _ in 0..4 {
        name.push(char::from(b'a' + (n % 26) as u8));
        n /= 26;
    }
    name
}

fn any_document() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_filter("JSON has no others", |f| f.is_finite()).prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            prop::collection::hash_map("[a-z]{1,6}", inner, 0..5)
                .prop_map(|map| Value::Object(map.into_iter().collect())),
        ]
    })
}

/// Every leaf by its pointer (RFC 6901) and the path that it is reported under.
fn leaves(value: &Value, pointer: &str, path: &str, all: &mut Vec<(String, String)>) {
    match value {
        Value::Object(map) if !map.is_empty() => {
            map.iter().for_each(|(k, v)| leaves(v, &format!("{pointer}/{k}"), &format!("{path}.{k}"), all));
        }
        Value::Array(list) if !list.is_empty() => {
            let each = list.iter().enumerate();
            each.for_each(|(i, v)| leaves(v, &format!("{pointer}/{i}"), &format!("{path}[*]"), all));
        }
        _ => all.push((pointer.to_owned(), path.to_owned())),
    }
}

proptest! {
    #[test]
    fn a_document_never_differs_from_itself(value in any_document()) {
        let text = serde_json::to_vec_pretty(&value).unwrap();
        let again = Body::read(Some("application/json"), None, &text, 1 << 20);
        prop_assert!(differences(&Body::Json(value.clone()), &Body::Json(value.clone()), &[]).unwrap().is_empty());
        prop_assert!(differences(&Body::Json(value), &again, &[]).unwrap().is_empty());
    }

    #[test]
    fn one_changed_leaf_gives_exactly_its_path_unless_it_is_ignored(value in any_document(), which: prop::sample::Index) {
        let mut all = Vec::new();
        leaves(&value, "", "$", &mut all);
        let (pointer, path) = which.get(&all);
        let mut other = value.clone();
        let leaf = other.pointer_mut(pointer).unwrap();
        // No document that is drawn holds this text.
        *leaf = json!("a text that is longer than any that is drawn");
        let (a, b) = (Body::Json(value), Body::Json(other));
        let found = differences(&a, &b, &[]).unwrap();
        prop_assert_eq!(found.fields.keys().collect::<Vec<_>>(), [path]);
        let back = differences(&b, &a, &[]).unwrap();
        prop_assert_eq!(back.fields.keys().collect::<Vec<_>>(), [path]);
        if path != "$" {
            prop_assert!(differences(&a, &b, &paths(&[path])).unwrap().is_empty());
        }
    }
}

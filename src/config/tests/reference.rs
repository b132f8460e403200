//! The reference file, the schema and the table of keys say the same as the code.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use super::super::kinds::{Absent, Kind, Table};
use super::super::tree::{Node, Value, from_toml};
use super::super::{keys::FILE_TABLE, schema};
use super::{env, good};

const REFERENCE: &str = include_str!("../../../conf/switchback.toml");
const SCHEMA: &str = include_str!("../../../conf/switchback.schema.json");

/// The reference with its commented keys in effect. Where a key then stands twice in a table, the later one stays.
fn uncommented() -> String {
    let mut out: Vec<String> = Vec::new();
    let mut table = 0;
    for line in REFERENCE.lines() {
        let inner = line.trim_start().strip_prefix('#').map(str::trim_start).unwrap_or_default();
        let key = |line: &str| line.split_once(" = ").map(|(k, _)| k.to_owned()).filter(|k| !k.contains([' ', '{']));
        let code = inner.starts_with("{ ") || inner.starts_with(['[', ']']) || key(inner).is_some();
        let line = if code { inner } else { line };
        if line.starts_with('[') {
            table = out.len();
        }
        if let Some(key) = key(line).filter(|_| code) {
            let twin = out[table..].iter().position(|l| l.starts_with(&format!("{key} = ")));
            twin.map(|at| out.remove(table + at));
        }
        out.push(line.to_owned());
    }
    // The store is in a file or in etcd.
    out.retain(|line| !line.starts_with("path = \"switchback.db\""));
    out.join("\n") + "\n"
}

fn root(text: &str) -> Node {
    let (root, mistakes) = from_toml(text, &env);
    assert_eq!(mistakes, []);
    root.unwrap()
}

/// Calls `see` with every table of the tree, what the table of keys says about it, and each key's value.
fn walk(node: &Node, kind: &'static Kind, see: &mut impl FnMut(&'static Table, &'static str, &Node)) {
    match (&node.value, kind) {
        (Value::Table(entries), Kind::Table(table)) => {
            for (name, value) in entries {
                let key = table.keys.iter().find(|k| k.name == name).unwrap_or_else(|| panic!("{}", value.path));
                see(table, key.name, value);
                walk(value, &key.kind, see);
            }
        }
        (Value::Table(entries), Kind::Map(_, of)) => entries.iter().for_each(|(_, value)| walk(value, of, see)),
        (Value::List(list), Kind::List(of, _)) => list.iter().for_each(|value| walk(value, of, see)),
        _ => {}
    }
}

static WHOLE: Kind = Kind::Table(&FILE_TABLE);

/// Every table of keys.
fn tables(kind: &'static Kind, found: &mut Vec<&'static Table>) {
    match kind {
        Kind::Table(table) => {
            found.push(table);
            table.keys.iter().for_each(|key| tables(&key.kind, found));
        }
        Kind::Map(_, of) | Kind::List(of, _) => tables(of, found),
        _ => {}
    }
}

#[test]
fn the_reference_loads_with_and_without_its_comments() {
    assert_eq!(good(REFERENCE).warnings, [""; 0]);
    let settings = good(&uncommented());
    assert_eq!(settings.proxy.tls.len(), 1);
    assert_eq!(settings.structure.tenants.identify.len(), 4);
    assert!(settings.structure.services["accounting"].choose.is_some());
}

#[test]
fn the_reference_has_every_key() {
    let mut seen = BTreeSet::new();
    for text in [REFERENCE, &uncommented()] {
        walk(&root(text), &WHOLE, &mut |table, key, _| {
            seen.insert((table.doc, key));
        });
    }
    let mut all = Vec::new();
    tables(&WHOLE, &mut all);
    assert!(all.len() > 20);
    for (table, key) in all.iter().flat_map(|t| t.keys.iter().map(|k| (t.doc, k))) {
        // { tenant = true } stands alone.
        let named = key.name == "tenant" && matches!(key.kind, Kind::Mark);
        assert!(seen.contains(&(table, key.name)) || named && REFERENCE.contains(key.name), "{table} {}", key.name);
    }
}

/// A value without the places where it and its parts stand.
fn alone(value: &Value) -> String {
    match value {
        Value::List(list) => format!("{:?}", list.iter().map(|node| alone(&node.value)).collect::<Vec<_>>()),
        Value::Table(entries) => {
            format!("{:?}", entries.iter().map(|(key, node)| (key, alone(&node.value))).collect::<Vec<_>>())
        }
        other => format!("{other:?}"),
    }
}

#[test]
fn the_reference_states_the_defaults_of_the_table() {
    let lines: Vec<_> = REFERENCE.lines().collect();
    let mut compared = 0;
    walk(&root(REFERENCE), &WHOLE, &mut |table, name, value| {
        let key = table.keys.iter().find(|k| k.name == name).unwrap();
        let Absent::Value(default) = key.absent else { return };
        if matches!(key.kind, Kind::Table(_) | Kind::Map(..))
            && default == "{}"
            && !lines[value.line - 1].contains("= {}")
        {
            return;
        }
        let example = value.path.starts_with("tenants.identify") && name == "identify";
        if !example && !lines[value.line - 1].contains("example") {
            let written = root(&format!("x = {default}")).get("x").unwrap().value.clone();
            assert_eq!(alone(&value.value), alone(&written), "{} in line {}", value.path, value.line);
            compared += 1;
        }
    });
    assert!(compared > 50, "{compared}");
}

/// A table with every default written out, as TOML.
fn written_out(table: &Table, without: &[&str]) -> String {
    let keys =
        table.keys.iter().filter(|k| !without.contains(&k.name)).filter_map(|key| match (&key.kind, key.absent) {
            (Kind::Table(inner), Absent::Value(_)) => Some(format!("{} = {{ {} }}", key.name, written_out(inner, &[]))),
            (_, Absent::Value(default)) => Some(format!("{} = {default}", key.name)),
            _ => None,
        });
    keys.collect::<Vec<_>>().join(", ")
}

fn inner(table: &'static Table, key: &str) -> &'static Table {
    let mut found = Vec::new();
    table.keys.iter().filter(|k| k.name == key).for_each(|k| tables(&k.kind, &mut found));
    found[0]
}

#[test]
fn defaults_of_the_table_are_those_of_the_code() {
    let services = inner(&FILE_TABLE, "services");
    let version = |more: &str| format!("versions = {{ 1 = {{ endpoints = [\"a:1\"], {more} }} }}");
    let file = |proxy: &str, service: &str, more: &str| {
        format!(
            "proxy = {{ listen = [\"127.0.0.1:1\"], {proxy} }}\n\
             services.a = {{ match = [{{ path = \"/\" }}], baseline = \"1\", {service} }}\n{more}"
        )
    };
    let issued = "sticky = [{ cookie = \"a\", issue = true, max_age = \"30d\" }]";
    let plain = file("", &format!("{}, {}", version("health = {}"), issued.replace(", max_age = \"30d\"", "")), "");
    let table = inner(services, "versions");
    let health = written_out(inner(table, "health"), &[]);
    let version = version(&format!("health = {{ {health} }}, {}", written_out(table, &[])));
    let rest = written_out(&FILE_TABLE, &["proxy", "services"]).replace(" }, ", " }\n");
    let full = file(
        &written_out(inner(&FILE_TABLE, "proxy"), &["listen"]),
        &format!("{version}, {issued}, {}", written_out(services, &["sticky"])),
        &rest,
    );
    assert!(full.contains("ratio = 1.1") && full.contains("body_size = \"1GiB\""), "{full}");
    assert_eq!(good(&full), good(&plain));
}

#[test]
fn the_schema_in_the_repository_is_this_one() {
    let committed: Json = serde_json::from_str(SCHEMA).unwrap();
    assert_eq!(committed, schema::schema(), "write schema() to conf/switchback.schema.json");
}

/// Whether a document agrees with a schema, as far as types, keys, words and bounds go.
fn agrees(schema: &Json, value: &Json) -> Result<(), String> {
    let fail = |why: &str| Err(format!("{why}: {value} against {schema:.200}"));
    let each = |list: &Json| list.as_array().map_or(0, |l| l.iter().filter(|s| agrees(s, value).is_ok()).count());
    if let Some(object) = value.as_object() {
        for (key, inner) in object {
            match (schema["properties"].get(key), &schema["additionalProperties"]) {
                (Some(known), _) => agrees(known, inner).map_err(|e| format!("{key}: {e}"))?,
                (None, Json::Bool(false)) => return fail(&format!("unknown key {key}")),
                (None, other) => agrees(other, inner).map_err(|e| format!("{key}: {e}"))?,
            }
        }
        let required = schema["required"].as_array().into_iter().flatten();
        if required.into_iter().any(|key| !object.contains_key(key.as_str().unwrap())) {
            return fail("missing key");
        }
    }
    for element in value.as_array().into_iter().flatten() {
        agrees(&schema["items"], element)?;
    }
    let types = match &schema["type"] {
        Json::Array(types) => types.clone(),
        Json::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is = |t: &Json| match t.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64(),
        _ => value.is_number(),
    };
    let number = value.as_f64();
    if !types.is_empty() && !types.iter().any(is)
        || schema["enum"].as_array().is_some_and(|words| !words.contains(value))
        || schema.get("const").is_some_and(|c| c != value)
        || number.zip(schema["minimum"].as_f64()).is_some_and(|(n, min)| n < min)
        || number.zip(schema["maximum"].as_f64()).is_some_and(|(n, max)| n > max)
        || schema.get("not").is_some()
        || schema.get("anyOf").is_some_and(|list| each(list) == 0)
        || schema.get("oneOf").is_some_and(|list| each(list) != 1)
    {
        return fail("not allowed");
    }
    Ok(())
}

fn as_json(text: &str) -> Json {
    serde_json::to_value(toml::from_str::<toml::Value>(text).unwrap()).unwrap()
}

#[test]
fn the_schema_takes_the_reference_and_refuses_what_the_reader_refuses() {
    let schema = schema::schema();
    agrees(&schema, &as_json(REFERENCE)).unwrap();
    agrees(&schema, &as_json(&uncommented())).unwrap();
    for (from, to) in [
        ("threads = 0", "thread = 0"),
        ("threads = 0", "threads = -1"),
        ("unknown = \"default\"", "unknown = \"drop\""),
        ("baseline = \"1.0.0\"", ""),
        ("path = \"switchback.db\"", "etcd = 7"),
        ("{ cookie = \"sid\" }", "{ cookie = \"sid\", header = \"a\" }"),
        ("enabled = true ", "enabled = 1 "),
    ] {
        assert!(REFERENCE.contains(from), "{from}");
        let text = REFERENCE.replace(from, to);
        assert!(agrees(&schema, &as_json(&text)).is_err(), "{to}");
        assert!(super::load(&text).is_err(), "{to}");
    }
}

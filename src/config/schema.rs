//! The JSON Schema for editors, made from the table of keys.

use serde_json::{Map, Value as Json, json};

use super::formats::{duration_text, size_text};
use super::keys::FILE_TABLE;
use super::kinds::{Absent, Key, Kind, Table};

/// Texts with a variable are whatever the variable says, so each form of text allows them too.
const VARIABLE: &str = r"\$\{";

/// The JSON Schema (draft 7, which editors know best) of the configuration file. `conf/switchback.schema.json` holds it.
pub fn schema() -> Json {
    let mut schema = of_table(&FILE_TABLE);
    let head = json!({
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Switchback",
    });
    if let (Json::Object(head), Json::Object(body)) = (head, &mut schema) {
        let mut whole = head;
        whole.append(body);
        return Json::Object(whole);
    }
    schema
}

fn of_table(table: &Table) -> Json {
    let properties: Map<String, Json> = table.keys.iter().map(|key| (key.name.to_owned(), of_key(key))).collect();
    let required: Vec<_> = table.keys.iter().filter(|k| matches!(k.absent, Absent::Mistake)).map(|k| k.name).collect();
    let with: Map<String, Json> =
        table.keys.iter().filter(|k| !k.with.is_empty()).map(|k| (k.name.to_owned(), json!([k.with]))).collect();
    let each = |names: &[&str]| -> Vec<Json> { names.iter().map(|name| json!({ "required": [name] })).collect() };
    let mut out = Map::new();
    out.insert("type".to_owned(), json!("object"));
    out.insert("description".to_owned(), json!(table.doc));
    out.insert("properties".to_owned(), Json::Object(properties));
    out.insert("additionalProperties".to_owned(), json!(false));
    if !required.is_empty() {
        out.insert("required".to_owned(), json!(required));
    }
    if !with.is_empty() {
        out.insert("dependencies".to_owned(), Json::Object(with));
    }
    if !table.one_of.is_empty() {
        out.insert("oneOf".to_owned(), json!(each(table.one_of)));
    }
    if !table.any_of.is_empty() {
        out.insert("anyOf".to_owned(), json!(each(table.any_of)));
    }
    Json::Object(out)
}

fn of_key(key: &Key) -> Json {
    let mut schema = of_kind(&key.kind);
    let Json::Object(out) = &mut schema else { return schema };
    let mut doc = key.doc.to_owned();
    match key.absent {
        Absent::Value(text) => {
            if let Some(value) = default_value(text) {
                out.insert("default".to_owned(), value);
            }
        }
        Absent::Meaning(without) if !without.is_empty() => doc = format!("{doc} Without it: {without}."),
        _ => {}
    }
    match out.get("description").and_then(Json::as_str) {
        // A form says what is allowed; that comes after what the key means.
        Some(form) if !matches!(key.kind, Kind::Table(_)) => doc = format!("{doc} Allowed: {form}."),
        _ => {}
    }
    out.insert("description".to_owned(), json!(doc));
    schema
}

/// The default as JSON. What TOML and JSON write alike is all that defaults use.
fn default_value(text: &str) -> Option<Json> {
    serde_json::from_str(text).ok()
}

fn of_kind(kind: &Kind) -> Json {
    match kind {
        Kind::Text(format) => json!({ "type": "string", "description": format.allowed }),
        Kind::Bool => json!({ "type": "boolean" }),
        Kind::Mark => json!({ "const": true }),
        Kind::Integer(min, max) => json!({ "type": "integer", "minimum": min, "maximum": max }),
        Kind::Number(min, max) => json!({ "type": "number", "minimum": min, "maximum": max }),
        Kind::Percent => json!({ "type": "number", "minimum": 0, "maximum": 100, "description": "percent" }),
        Kind::Duration(min, max) => json!({
            "type": "string",
            "pattern": format!(r"^[0-9]+(ms|s|m|h|d)$|{VARIABLE}"),
            "description": format!("{} to {}", duration_text(*min), duration_text(*max)),
        }),
        Kind::Date => json!({
            "type": "string",
            "pattern": format!(r"^[0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}([Tt ][0-9:.]+([Zz]|[+-][0-9]{{2}}:[0-9]{{2}}))?$|{VARIABLE}"),
            "description": "a date or a time of RFC 3339",
        }),
        Kind::Size(min, max) => json!({
            "type": ["string", "integer"],
            "pattern": format!(r"^[0-9]+(B|KiB|MiB|GiB|TiB)$|{VARIABLE}"),
            "minimum": min,
            "maximum": max,
            "description": format!("{} to {}", size_text(*min), size_text(*max)),
        }),
        Kind::Choice(words) => json!({ "enum": words }),
        Kind::List(of, least) => json!({ "type": "array", "items": of_kind(of), "minItems": least }),
        Kind::Map(names, of) => json!({
            "type": "object",
            "additionalProperties": of_kind(of),
            "propertyNames": { "description": names.allowed },
        }),
        Kind::Table(table) => of_table(table),
        Kind::Either(one, other) => json!({ "anyOf": [of_kind(one), of_kind(other)] }),
    }
}

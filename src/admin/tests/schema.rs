//! Holds a value against a JSON schema as far as the API's description uses it: references, types, required fields.

use axum::http::Method;
use serde_json::{Map, Value};

/// Holds an answer against the description of its operation.
pub(super) fn check_answer(document: &Value, method: &Method, path: &str, status: u16, body: &Value) {
    let fits = |template: &str| {
        let (a, b) = (template.split('/'), path.split('/'));
        a.clone().count() == b.clone().count() && a.zip(b).all(|(t, p)| t == p || t.starts_with('{'))
    };
    let paths = document["paths"].as_object().unwrap();
    let method = method.as_str().to_ascii_lowercase();
    let operation = paths.iter().find(|(t, o)| fits(t) && o.get(&method).is_some());
    let (template, operations) = operation.unwrap_or_else(|| panic!("{method} {path} is not described"));
    let schema = &operations[&method]["responses"][status.to_string()]["content"]["application/json"]["schema"];
    assert!(!schema.is_null(), "{method} {template} {status} has no schema");
    check(document, schema, body, &format!("{method} {template}"));
}

/// Panics with the place where the value is not what the schema says.
pub(super) fn check(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Err(why) = validate(document, schema, value, at) {
        panic!("{why}\n{value:#}");
    }
}

fn validate(document: &Value, schema: &Value, value: &Value, at: &str) -> Result<(), String> {
    let Some(schema) = schema.as_object() else { return Ok(()) };
    if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
        let target = document.pointer(reference.trim_start_matches('#'));
        return validate(document, target.ok_or_else(|| format!("{at}: nothing at {reference}"))?, value, at);
    }
    for part in list(schema, "allOf") {
        validate(document, part, value, at)?;
    }
    for choice in ["oneOf", "anyOf"] {
        let choices = list(schema, choice);
        if !choices.is_empty() && !choices.iter().any(|s| validate(document, s, value, at).is_ok()) {
            return Err(format!("{at}: fits none of {choice}"));
        }
    }
    let kinds = match schema.get("type") {
        Some(Value::String(kind)) => vec![kind.as_str()],
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    if !kinds.is_empty() && !kinds.iter().any(|kind| is(value, kind)) {
        return Err(format!("{at}: {value} is not {kinds:?}"));
    }
    if let Value::Object(fields) = value {
        for name in list(schema, "required").iter().filter_map(Value::as_str) {
            fields.get(name).ok_or_else(|| format!("{at}: {name} is missing"))?;
        }
        let known = schema.get("properties").and_then(Value::as_object);
        for (name, value) in fields {
            let of_name = known.and_then(|k| k.get(name)).or(schema.get("additionalProperties"));
            match of_name {
                Some(schema) => validate(document, schema, value, &format!("{at}.{name}"))?,
                // Parts of an allOf know their own fields only.
                None if known.is_some() && schema.contains_key("title") => {
                    return Err(format!("{at}: {name} is not described"));
                }
                None => {}
            }
        }
    }
    if let (Value::Array(items), Some(schema)) = (value, schema.get("items")) {
        for (i, item) in items.iter().enumerate() {
            validate(document, schema, item, &format!("{at}[{i}]"))?;
        }
    }
    Ok(())
}

fn list<'s>(schema: &'s Map<String, Value>, key: &str) -> &'s [Value] {
    schema.get(key).and_then(Value::as_array).map_or(&[], |l| l)
}

fn is(value: &Value, kind: &str) -> bool {
    match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        _ => false,
    }
}

#[test]
fn the_check_itself_notices() {
    let document = serde_json::json!({ "components": { "schemas": { "A": {
        "type": "object", "required": ["n"], "properties": { "n": { "type": "integer" } } } } } });
    let schema = serde_json::json!({ "$ref": "#/components/schemas/A" });
    let ok = |value: Value| validate(&document, &schema, &value, "x").is_ok();
    assert!(ok(serde_json::json!({ "n": 1 })));
    assert!(!ok(serde_json::json!({})) && !ok(serde_json::json!({ "n": "1" })) && !ok(serde_json::json!([])));
}

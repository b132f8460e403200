//! JSON values as YAML, for `-o yaml`.
//!
//! Small because it only has to write what JSON can say. Plain words stay plain; everything that some YAML reader might
//! take for a number, a truth value, a date or a piece of syntax is quoted. A JSON string in quotes is also a YAML string, once
//! the few characters are escaped that YAML does not allow to stand for themselves.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde_json::Value;

/// The value as a YAML document without a marker, ending in a line break.
pub(super) fn to_yaml(value: &Value) -> String {
    let mut out = String::new();
    match value {
        Value::Object(map) if !map.is_empty() => block(value, 0, &mut out),
        Value::Array(list) if !list.is_empty() => block(value, 0, &mut out),
        _ => {
            scalar(value, &mut out);
            out.push('\n');
        }
    }
    out
}

/// Writes a map or list that is not empty; the first line's indentation stands already.
fn block(value: &Value, indent: usize, out: &mut String) {
    let mut first = true;
    let mut begin = |out: &mut String| {
        if !std::mem::take(&mut first) {
            out.push_str(&" ".repeat(indent));
        }
    };
    match value {
        Value::Object(map) => {
            for (key, entry) in map {
                begin(out);
                text(key, out);
                out.push(':');
                if is_block(entry) {
                    out.push('\n');
                    out.push_str(&" ".repeat(indent + 2));
                    block(entry, indent + 2, out);
                } else {
                    out.push(' ');
                    scalar(entry, out);
                    out.push('\n');
                }
            }
        }
        Value::Array(list) => {
            for entry in list {
                begin(out);
                out.push_str("- ");
                if is_block(entry) {
                    block(entry, indent + 2, out);
                } else {
                    scalar(entry, out);
                    out.push('\n');
                }
            }
        }
        _ => scalar(value, out),
    }
}

fn is_block(value: &Value) -> bool {
    match value {
        Value::Object(map) => !map.is_empty(),
        Value::Array(list) => !list.is_empty(),
        _ => false,
    }
}

fn scalar(value: &Value, out: &mut String) {
    match value {
        Value::Null => out.push_str("null"),
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Number(number) => out.push_str(&number_text(&number.to_string())),
        Value::String(string) => text(string, out),
        Value::Array(_) => out.push_str("[]"),
        Value::Object(_) => out.push_str("{}"),
    }
}

/// Readers of YAML 1.1 take `1e300` for text: a number with an exponent needs a dot before it and a sign in it.
fn number_text(number: &str) -> Cow<'_, str> {
    let Some((mantissa, exponent)) = number.split_once('e') else { return Cow::Borrowed(number) };
    let dot = if mantissa.contains('.') { "" } else { ".0" };
    let sign = if exponent.starts_with(['+', '-']) { "" } else { "+" };
    Cow::Owned(format!("{mantissa}{dot}e{sign}{exponent}"))
}

fn text(string: &str, out: &mut String) {
    if is_plain(string) {
        out.push_str(string);
    } else {
        quoted(string, out);
    }
}

/// Letters first, then letters, digits and a few harmless signs, and no word with a meaning of its own.
fn is_plain(string: &str) -> bool {
    const WORDS: [&str; 12] = ["true", "false", "null", "yes", "no", "on", "off", "y", "n", "nan", "inf", "infinity"];
    let mut chars = string.chars();
    chars.next().is_some_and(|c| c.is_ascii_alphabetic())
        && chars.all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | '/'))
        && !WORDS.iter().any(|word| word.eq_ignore_ascii_case(string))
}

fn quoted(string: &str, out: &mut String) {
    out.push('"');
    for c in string.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            // Not printable for YAML, or a line break for readers of YAML 1.1.
            c if c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}') => {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn maps_lists_and_scalars() {
        let value = json!({
            "service": "accounting",
            "weights": {"1.0.0": 90, "2.0.0": 10.5},
            "pins": [{"kind": "tenant", "pin": {"version": "2.0.0"}}, {"kind": "user"}],
            "list": [[1, 2], [], {}, null, true],
            "empty": {},
        });
        let expected = "\
service: accounting
weights:
  \"1.0.0\": 90
  \"2.0.0\": 10.5
pins:
  - kind: tenant
    pin:
      version: \"2.0.0\"
  - kind: user
list:
  - - 1
    - 2
  - []
  - {}
  - null
  - true
empty: {}
";
        assert_eq!(to_yaml(&value), expected);
    }

    #[test]
    fn what_might_be_misread_is_quoted() {
        for word in
            ["", "no", "On", "NULL", "1.0", "0x1", "~", "-", "a b", "a: b", "#x", "2026-01-01", ".inf", "é", "a,"]
        {
            let text = to_yaml(&json!(word));
            assert!(text.starts_with('"'), "{word:?} became {text}");
        }
        assert_eq!(to_yaml(&json!("x\u{7f}\u{2028}\"\\\n")), "\"x\\u007f\\u2028\\\"\\\\\\n\"\n");
        assert_eq!(to_yaml(&json!("tenant/acme-1.x")), "tenant/acme-1.x\n");
        assert_eq!(to_yaml(&json!([])), "[]\n");
        assert_eq!(to_yaml(&json!([1e300, 1.5e-9, -2, 0.25])), "- 1.0e+300\n- 1.5e-9\n- -2\n- 0.25\n");
    }
}

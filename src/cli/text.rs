//! Texts for people: numbers, times and sentences as they stand in tables, and reading fields out of the API's JSON.
//!
//! Fields are read leniently, because a CLI meets older and newer servers: what is missing is shown as `-`, never an
//! error. All texts pass through [`clean`], because reasons and names come from others and must not steer a terminal.

use std::borrow::Cow;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde_json::Value;
use unicode_width::{UnicodeWidthChar as _, UnicodeWidthStr as _};

/// What stands where there is nothing to say.
pub(super) const NOTHING: &str = "-";

/// Reads fields of the API's documents.
pub(super) trait Fields {
    /// The field, or null.
    fn at(&self, key: &str) -> &Value;
    /// The field's text without control characters, or nothing.
    fn text(&self, key: &str) -> Option<String>;
    /// The field's number.
    fn number(&self, key: &str) -> Option<f64>;
    /// The field's whole number.
    fn count(&self, key: &str) -> Option<u64>;
    /// Whether the field is true.
    fn is(&self, key: &str) -> bool;
    /// The entries of the field's list.
    fn list(&self, key: &str) -> &[Value];
    /// The texts of the field's list.
    fn texts(&self, key: &str) -> Vec<String>;
}

impl Fields for Value {
    fn at(&self, key: &str) -> &Value {
        self.get(key).unwrap_or(&Value::Null)
    }

    fn text(&self, key: &str) -> Option<String> {
        self.at(key).as_str().map(|text| clean(text).into_owned())
    }

    fn number(&self, key: &str) -> Option<f64> {
        self.at(key).as_f64()
    }

    fn count(&self, key: &str) -> Option<u64> {
        self.at(key).as_u64()
    }

    fn is(&self, key: &str) -> bool {
        self.at(key).as_bool().unwrap_or(false)
    }

    fn list(&self, key: &str) -> &[Value] {
        self.at(key).as_array().map_or(&[], Vec::as_slice)
    }

    fn texts(&self, key: &str) -> Vec<String> {
        self.list(key).iter().filter_map(Value::as_str).map(|text| clean(text).into_owned()).collect()
    }
}

/// The text without characters that steer a terminal or turn the direction of writing.
pub(super) fn clean(text: &str) -> Cow<'_, str> {
    let hostile = |c: char| c.is_control() || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    if !text.contains(hostile) {
        return Cow::Borrowed(text);
    }
    let keep = |c: char| match c {
        '\n' | '\r' | '\t' => ' ',
        c if hostile(c) => '\u{fffd}',
        c => c,
    };
    Cow::Owned(text.chars().map(keep).collect())
}

/// A share or rate in percent, with as many decimals as it has, two at most.
pub(super) fn percent(value: f64) -> String {
    let text = format!("{value:.2}");
    format!("{} %", trimmed(&text))
}

/// A ratio from 0 to 1 in percent; small ones keep a digit that is not zero.
pub(super) fn ratio(value: f64) -> String {
    let value = value * 100.0;
    if value > 0.0 && value < 0.01 { "<0.01 %".to_owned() } else { percent(value) }
}

/// How often something happens per second.
pub(super) fn per_second(value: f64) -> String {
    let text = if value.abs() < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") };
    format!("{}/s", trimmed(&text))
}

/// A latency in the unit that reads best.
pub(super) fn latency(seconds: f64) -> String {
    match seconds.abs() {
        s if s < 0.001 => format!("{:.0} µs", seconds * 1e6),
        s if s < 0.01 => format!("{:.1} ms", seconds * 1e3),
        s if s < 1.0 => format!("{:.0} ms", seconds * 1e3),
        _ => format!("{seconds:.2} s"),
    }
}

/// A length of time in its two largest units.
pub(super) fn span(seconds: f64) -> String {
    if seconds < 60.0 {
        return format!("{} s", trimmed(&format!("{seconds:.1}")));
    }
    let whole = seconds as u64;
    let (days, hours, minutes) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes} min {} s", whole % 60),
        (0, _) => format!("{hours} h {minutes} min"),
        _ => format!("{days} d {hours} h"),
    }
}

/// How much evidence there is, as a ratio; large ones as a power of ten.
pub(super) fn evidence(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{v:.1e}"),
        v if v >= 100.0 => format!("{v:.0}"),
        v => trimmed(&format!("{v:.2}")).to_owned(),
    }
}

/// A difference with its sign.
pub(super) fn signed(value: f64, show: impl Fn(f64) -> String) -> String {
    let sign = if value < 0.0 { "-" } else { "+" };
    format!("{sign}{}", show(value.abs()))
}

/// A time of the API in the local time zone; what is no time stays as it is.
pub(super) fn time(at: &Value) -> String {
    let stamp = match at {
        Value::String(text) => text.parse::<Timestamp>().ok(),
        Value::Number(ms) => ms.as_i64().and_then(|ms| Timestamp::from_millisecond(ms).ok()),
        _ => None,
    };
    match (stamp, at) {
        (Some(stamp), _) => stamp.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S").to_string(),
        (None, Value::String(text)) => clean(text).into_owned(),
        (None, _) => NOTHING.to_owned(),
    }
}

/// A text up to the end of its first sentence. A dot inside a version or number ends none.
pub(super) fn first_sentence(text: &str) -> &str {
    let text = text.trim();
    let ends = text.char_indices().zip(text.chars().skip(1)).find_map(|((at, c), next)| match c {
        '\n' => Some(at),
        '.' | '!' | '?' if next.is_whitespace() => Some(at + 1),
        _ => None,
    });
    ends.map_or(text, |end| text[..end].trim_end())
}

/// How many columns of a terminal the text takes.
pub(super) fn width(text: &str) -> usize {
    text.width()
}

/// As much of the beginning as fits into so many columns.
pub(super) fn beginning(text: &str, room: usize) -> &str {
    let mut used = 0;
    let end = text.char_indices().find(|(_, c)| {
        used += c.width().unwrap_or(0);
        used > room
    });
    end.map_or(text, |(end, _)| &text[..end])
}

/// The text, or its beginning and an ellipsis, in so many columns.
pub(super) fn cut(text: &str, room: usize) -> Cow<'_, str> {
    match width(text) <= room {
        true => Cow::Borrowed(text),
        false => Cow::Owned(format!("{}…", beginning(text, room.saturating_sub(1)))),
    }
}

/// A text in lines of at most `room` columns, broken at spaces; its own line breaks stay.
pub(super) fn wrapped(text: &str, room: usize) -> Vec<String> {
    let mut lines = Vec::new();
    for paragraph in text.lines() {
        let mut line = String::new();
        for word in clean(paragraph).split_whitespace() {
            if !line.is_empty() && width(&line) + 1 + width(word) > room {
                lines.push(std::mem::take(&mut line));
            }
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
        lines.push(line);
    }
    lines
}

/// `1 pin`, `2 pins`.
pub(super) fn counted(count: u64, one: &str) -> String {
    if count == 1 { format!("1 {one}") } else { format!("{count} {one}s") }
}

/// Without zeros at the end of the decimals.
fn trimmed(number: &str) -> &str {
    if number.contains('.') { number.trim_end_matches('0').trim_end_matches('.') } else { number }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_read_well() {
        assert_eq!(percent(10.0), "10 %");
        assert_eq!(percent(0.5), "0.5 %");
        assert_eq!(percent(99.99), "99.99 %");
        assert_eq!(ratio(0.0123), "1.23 %");
        assert_eq!(ratio(0.00001), "<0.01 %");
        assert_eq!(ratio(0.0), "0 %");
        assert_eq!(per_second(0.0), "0/s");
        assert_eq!(per_second(12.34), "12.3/s");
        assert_eq!(per_second(1234.5), "1234/s");
        assert_eq!(latency(0.000_25), "250 µs");
        assert_eq!(latency(0.0042), "4.2 ms");
        assert_eq!(latency(0.25), "250 ms");
        assert_eq!(latency(1.5), "1.50 s");
        assert_eq!(span(3.25), "3.2 s");
        assert_eq!(span(125.0), "2 min 5 s");
        assert_eq!(span(3_780.0), "1 h 3 min");
        assert_eq!(span(180_000.0), "2 d 2 h");
        assert_eq!(evidence(0.5), "0.5");
        assert_eq!(evidence(12_345.6), "12346");
        assert_eq!(evidence(1e12), "1.0e12");
        assert_eq!(signed(-0.01, ratio), "-1 %");
        assert_eq!(signed(0.01, ratio), "+1 %");
    }

    #[test]
    fn a_sentence_ends_at_a_dot_before_a_space() {
        assert_eq!(
            first_sentence("2.0.0 fails 4.5 % of requests. The rest follows."),
            "2.0.0 fails 4.5 % of requests."
        );
        assert_eq!(first_sentence("one line\nanother"), "one line");
        assert_eq!(first_sentence("No end"), "No end");
        assert_eq!(first_sentence("Ünïcödé! Ja."), "Ünïcödé!");
        assert_eq!(first_sentence(""), "");
    }

    #[test]
    fn texts_of_others_do_not_steer_the_terminal() {
        assert_eq!(clean("a\u{1b}[2Jb\nc\u{202e}"), "a\u{fffd}[2Jb c\u{fffd}");
        assert!(matches!(clean("plain"), Cow::Borrowed(_)));
        assert_eq!(wrapped("a\u{1b}b", 10), ["a\u{fffd}b"]);
    }

    #[test]
    fn long_texts_are_wrapped() {
        assert_eq!(wrapped("one two three\nfour", 8), ["one two", "three", "four"]);
        assert_eq!(wrapped("unbreakable word", 4), ["unbreakable", "word"]);
    }

    #[test]
    fn times_come_as_text_or_milliseconds() {
        assert_eq!(time(&json!("soon")), "soon");
        assert_eq!(time(&Value::Null), NOTHING);
        assert_eq!(time(&json!("2026-01-02T03:04:05Z")), time(&json!(1_767_323_045_000_i64)));
    }

    #[test]
    fn missing_fields_are_no_error() {
        let value = json!({"a": "x\ty", "n": 2, "l": ["p", 1, "q"], "t": true});
        assert_eq!(value.text("a").as_deref(), Some("x y"));
        assert_eq!(value.text("n"), None);
        assert_eq!((value.count("n"), value.number("n"), value.number("a")), (Some(2), Some(2.0), None));
        assert_eq!(value.texts("l"), ["p", "q"]);
        assert!(value.is("t") && !value.is("missing") && value.list("missing").is_empty());
        assert_eq!(counted(1, "pin"), "1 pin");
        assert_eq!(counted(0, "pin"), "0 pins");
    }
}

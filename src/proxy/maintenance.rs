//! What clients get while a service or a tenant is in maintenance: 503, as a page for browsers and as JSON for programs.

use bytes::Bytes;
use http::HeaderMap;
use http::header::{ACCEPT, CONTENT_TYPE, RETRY_AFTER, VARY};
use pingora::http::ResponseHeader;
use pingora::prelude::Result;
use pingora::proxy::Session;
use serde_json::json;

use super::refusal;
use crate::model::{Maintenance, MaintenanceSpec};

/// The word for metrics and the access log.
pub(super) const WORD: &str = "maintenance";

const TITLE: &str = "The service is in maintenance";

/// Answers a request.
pub(super) async fn answer(session: &mut Session, spec: &MaintenanceSpec, found: &Maintenance) -> Result<()> {
    let html = wants_html(&session.req_header().headers);
    let (kind, body) = match html {
        true => ("text/html; charset=utf-8", page(spec, found)),
        false => ("application/problem+json", document(found)),
    };
    let mut header = ResponseHeader::build(503, Some(8))?;
    header.insert_header(CONTENT_TYPE, kind)?;
    header.insert_header(RETRY_AFTER, found.retry_after_s.to_string())?;
    header.insert_header(VARY, "accept")?;
    let message = if found.message.is_empty() { TITLE } else { &found.message };
    refusal::send(session, header, "http_request_denied", message, Bytes::from(body)).await
}

fn document(found: &Maintenance) -> String {
    let Maintenance { message, retry_after_s, .. } = found;
    let mut document = json!({
        "type": "urn:switchback:maintenance", "title": TITLE, "status": 503, "retry_after": retry_after_s,
    });
    if !message.is_empty() {
        document["detail"] = json!(message);
    }
    format!("{document}\n")
}

fn page(spec: &MaintenanceSpec, found: &Maintenance) -> String {
    let Maintenance { message, retry_after_s, .. } = found;
    match &spec.page {
        // The number first: a message that has the other mark in it must stay as it is.
        Some(page) => page.replace("{retry_after}", &retry_after_s.to_string()).replace("{message}", &escaped(message)),
        None => plain_page(message, *retry_after_s),
    }
}

fn plain_page(message: &str, retry_after_s: u64) -> String {
    let message = if message.is_empty() { "We will be back soon." } else { message };
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n<meta name=\"viewport\" \
         content=\"width=device-width, initial-scale=1\">\n<title>Maintenance</title>\n<style>body{{font:1.1rem/1.5 \
         system-ui,sans-serif;max-width:34rem;margin:20vh auto;padding:0 1rem}}</style>\n</head>\n<body>\n\
         <h1>Maintenance</h1>\n<p>{}</p>\n<p>Please try again in {}.</p>\n</body>\n</html>\n",
        escaped(message),
        span(retry_after_s)
    )
}

/// Text as it stands in HTML, between tags and in attributes.
fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            _ => out.push(c),
        }
    }
    out
}

/// A time in words, rounded up to its largest unit.
fn span(seconds: u64) -> String {
    let (number, unit) = match seconds {
        0..=90 => (seconds, "second"),
        91..=5_400 => (seconds.div_ceil(60), "minute"),
        5_401..=172_800 => (seconds.div_ceil(3_600), "hour"),
        _ => (seconds.div_ceil(86_400), "day"),
    };
    if number == 1 { format!("1 {unit}") } else { format!("{number} {unit}s") }
}

/// Whether a client would rather have HTML than JSON. Browsers name HTML; programs name JSON, everything, or nothing.
fn wants_html(headers: &HeaderMap) -> bool {
    let mut html = Wish::default();
    let (mut json, mut problem) = (Wish::default(), Wish::default());
    let ranges = headers.get_all(ACCEPT).iter().filter_map(|v| v.to_str().ok()).flat_map(|v| v.split(','));
    for range in ranges {
        html.consider(range, "text", "html");
        json.consider(range, "application", "json");
        problem.consider(range, "application", "problem+json");
    }
    html.rank() > json.rank().max(problem.rank())
}

/// How much a client wants one type: what the most specific range that covers it says.
#[derive(Default)]
struct Wish {
    specific: u8,
    thousandths: u16,
}

impl Wish {
    fn consider(&mut self, range: &str, kind: &str, subkind: &str) {
        let mut parts = range.split(';').map(str::trim);
        let Some((a, b)) = parts.next().and_then(|name| name.split_once('/')) else { return };
        let specific = match (a, b) {
            ("*", "*") => 1,
            (a, "*") if a.eq_ignore_ascii_case(kind) => 2,
            (a, b) if a.eq_ignore_ascii_case(kind) && b.eq_ignore_ascii_case(subkind) => 3,
            _ => return,
        };
        let quality = parts.find_map(|p| p.strip_prefix("q=").or_else(|| p.strip_prefix("Q=")));
        let thousandths = quality.map_or(1_000, |q| q.parse::<f32>().map_or(0, |q| (q.clamp(0.0, 1.0) * 1e3) as u16));
        if specific > self.specific || specific == self.specific && thousandths > self.thousandths {
            *self = Self { specific, thousandths };
        }
    }

    fn rank(&self) -> (u16, u8) {
        if self.thousandths == 0 { (0, 0) } else { (self.thousandths, self.specific) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn html(accept: &str) -> bool {
        wants_html(&HeaderMap::from_iter([(ACCEPT, accept.parse().unwrap())]))
    }

    #[test]
    fn browsers_get_html_and_programs_json() {
        assert!(html("text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,*/*;q=0.8"), "browsers");
        assert!(html("text/html") && html("TEXT/*") && html("application/json;q=0.5, text/html;q=0.8"));
        assert!(html("text/html, application/json;q=0, */*"));
        for json in [
            "*/*",
            "application/json",
            "application/json, text/plain, */*",
            "application/problem+json, text/html;q=0.9",
            "text/html;q=0, */*",
            "text/html;q=0.5, application/json",
            "image/png",
            "",
            ";;,/,text/html;q=nonsense",
        ] {
            assert!(!html(json), "{json}");
        }
        assert!(!wants_html(&HeaderMap::new()));
    }

    #[test]
    fn a_message_is_text_wherever_it_stands() {
        let page = plain_page("<script>alert(\"1\")</script> & 'more'", 600);
        assert!(page.contains("&lt;script&gt;alert(&quot;1&quot;)&lt;/script&gt; &amp; &#39;more&#39;"), "{page}");
        assert!(!page.contains("<script") && page.contains("in 10 minutes."), "{page}");
        assert!(plain_page("", 1).contains("We will be back soon"));
    }

    #[test]
    fn times_are_in_words() {
        let all = [(1, "1 second"), (90, "90 seconds"), (91, "2 minutes"), (5_401, "2 hours"), (172_801, "3 days")];
        for (seconds, words) in all {
            assert_eq!(span(seconds), words);
        }
    }
}

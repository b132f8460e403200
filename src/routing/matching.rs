//! Which service a request belongs to: the rule that says most about the request wins.
//!
//! Rules are ordered once: exact host before wildcard before any, then the longer path, then more headers, then a method.

use http::{HeaderMap, Method};

use crate::model::{MatchRule, ServiceSpec};

/// Rules of all services, most specific first.
#[derive(Debug, Default)]
pub struct Matcher {
    rules: Vec<(MatchRule, usize)>,
}

impl Matcher {
    /// Orders the rules; a service is known by its place in the list.
    pub fn new<'a>(services: impl IntoIterator<Item = &'a ServiceSpec>) -> Self {
        let mut rules: Vec<_> = services
            .into_iter()
            .enumerate()
            .flat_map(|(i, spec)| spec.rules.iter().map(move |rule| (rule.clone(), i)))
            .collect();
        rules.sort_by_key(|(rule, i)| (std::cmp::Reverse(specificity(rule)), *i));
        Self { rules }
    }

    /// The service of a request, and the rule by which it is.
    pub fn find(&self, method: &Method, host: &str, path: &str, headers: &HeaderMap) -> Option<(usize, &MatchRule)> {
        let hit = |rule: &MatchRule| holds(rule, method, host, path, headers);
        self.rules.iter().find(|(rule, _)| hit(rule)).map(|(rule, i)| (*i, rule))
    }
}

fn specificity(rule: &MatchRule) -> (u8, usize, usize, usize, bool) {
    let (kind, length) = match rule.host.as_deref() {
        None => (0, 0),
        Some(host) if host.starts_with("*.") => (1, host.len()),
        Some(host) => (2, host.len()),
    };
    (kind, length, rule.path.as_ref().map_or(0, String::len), rule.headers.len(), !rule.methods.is_empty())
}

fn holds(rule: &MatchRule, method: &Method, host: &str, path: &str, headers: &HeaderMap) -> bool {
    rule.host.as_deref().is_none_or(|pattern| host_matches(pattern, host))
        && rule.path.as_deref().is_none_or(|prefix| has_prefix(path, prefix))
        && (rule.methods.is_empty() || rule.methods.contains(method))
        && rule.headers.iter().all(|(name, value)| {
            let mut given = headers.get_all(name).iter();
            given.any(|g| value.as_deref().is_none_or(|v| g.as_bytes() == v.as_bytes()))
        })
}

fn host_matches(pattern: &str, host: &str) -> bool {
    match pattern.strip_prefix('*') {
        None => pattern.eq_ignore_ascii_case(host),
        Some(suffix) => {
            let (host, suffix) = (host.as_bytes(), suffix.as_bytes());
            host.len() > suffix.len() && host[host.len() - suffix.len()..].eq_ignore_ascii_case(suffix)
        }
    }
}

/// Whether a path begins with a prefix that ends at a segment border: `/api` holds for `/api` and `/api/x`, not `/apix`.
pub fn has_prefix(path: &str, prefix: &str) -> bool {
    let prefix = prefix.strip_suffix('/').unwrap_or(prefix);
    path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

/// The path with one prefix replaced by another; `None` when the prefix does not hold. Both begin with `/`.
pub fn rewrite(path: &str, from: &str, to: &str) -> Option<String> {
    if !has_prefix(path, from) {
        return None;
    }
    let rest = &path[from.strip_suffix('/').unwrap_or(from).len()..];
    let to = to.strip_suffix('/').unwrap_or(to);
    Some(if rest.is_empty() && to.is_empty() { "/".to_owned() } else { format!("{to}{rest}") })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(host: Option<&str>, path: Option<&str>) -> MatchRule {
        MatchRule { host: host.map(Into::into), path: path.map(Into::into), ..MatchRule::default() }
    }

    fn matcher(rules: &[MatchRule]) -> Matcher {
        let mut rules: Vec<_> = rules.iter().cloned().enumerate().map(|(i, r)| (r, i)).collect();
        rules.sort_by_key(|(rule, i)| (std::cmp::Reverse(specificity(rule)), *i));
        Matcher { rules }
    }

    #[test]
    fn the_most_specific_rule_wins() {
        let with_header = MatchRule {
            headers: vec![(http::HeaderName::from_static("x-beta"), Some("1".into()))],
            ..rule(None, Some("/api"))
        };
        let with_method = MatchRule { methods: vec![Method::POST], ..rule(None, Some("/api")) };
        let m = matcher(&[
            rule(None, Some("/")),
            rule(None, Some("/api")),
            rule(Some("*.example.com"), None),
            rule(Some("a.example.com"), None),
            rule(Some("a.example.com"), Some("/api/v2")),
            with_header,
            with_method,
        ]);
        let find =
            |method: &Method, host, path, headers: &HeaderMap| m.find(method, host, path, headers).map(|(i, _)| i);
        let none = HeaderMap::new();
        let get = Method::GET;
        assert_eq!(find(&get, "x", "/", &none), Some(0));
        assert_eq!(find(&get, "x", "/apix", &none), Some(0));
        assert_eq!(find(&get, "x", "/api", &none), Some(1));
        assert_eq!(find(&get, "B.example.COM", "/api", &none), Some(2));
        assert_eq!(find(&get, "example.com", "/", &none), Some(0));
        assert_eq!(find(&get, "a.example.com", "/api/v1", &none), Some(3));
        assert_eq!(find(&get, "a.example.com", "/api/v2/x", &none), Some(4));
        let beta: HeaderMap = [(http::HeaderName::from_static("x-beta"), "1".parse().unwrap())].into_iter().collect();
        assert_eq!(find(&get, "x", "/api", &beta), Some(5));
        assert_eq!(find(&Method::POST, "x", "/api", &none), Some(6));
    }

    #[test]
    fn rewriting_keeps_segment_borders() {
        assert_eq!(rewrite("/api/v2/x", "/api/v2", "/").as_deref(), Some("/x"));
        assert_eq!(rewrite("/api/v2", "/api/v2", "/").as_deref(), Some("/"));
        assert_eq!(rewrite("/api/v2/x", "/api/v2/", "/new/").as_deref(), Some("/new/x"));
        assert_eq!(rewrite("/api/v20", "/api/v2", "/"), None);
        assert_eq!(rewrite("/x", "/", "/base").as_deref(), Some("/base/x"));
    }
}

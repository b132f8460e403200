//! The routes that an operator names, compiled: from the head of a request to the most specific of them.
//!
//! A tree of segments. At each of them a literal comes before `{name}` and that before `*`; where the path fits and the
//! method does not, the next best is tried. What a look-up costs depends on the path and hardly on the number of routes.

use http::Method;

use super::route_name::RouteName;
use crate::model::{RoutePattern, RouteSegment};

/// The routes of one service.
#[derive(Debug, Default)]
pub struct RoutePatterns {
    names: Vec<Box<str>>,
    root: Node,
}

/// What can stand at one place of a path.
#[derive(Debug, Default)]
struct Node {
    /// By text.
    literals: Vec<(Box<str>, Node)>,
    any: Option<Box<Node>>,
    here: Ends,
    rest: Ends,
}

/// Routes that end at a place: by method, those for any method last.
type Ends = Vec<(Option<Method>, usize)>;

impl RoutePatterns {
    /// Compiles the routes.
    pub fn new(patterns: &[RoutePattern]) -> Self {
        let mut all = Self::default();
        for (place, pattern) in patterns.iter().enumerate() {
            all.names.push(pattern.as_str().into());
            all.root.add(pattern.segments(), pattern.method(), place);
        }
        all
    }

    /// The name of a request's route, and whether the operator named it. `path` has no query and no tenant's prefix;
    /// `room` holds the name if it has to be made.
    pub fn name<'n>(
        &'n self,
        method: &Method,
        path: &str,
        tenant: Option<&str>,
        room: &'n mut Option<RouteName>,
    ) -> (&'n str, bool) {
        match self.find(method, path) {
            Some(name) => (name, true),
            None => (room.insert(RouteName::new(method, path, tenant)).as_str(), false),
        }
    }

    /// The most specific route of the operator's that a request fits.
    pub fn find(&self, method: &Method, path: &str) -> Option<&str> {
        if self.names.is_empty() {
            return None;
        }
        self.root.find(method, path).map(|place| &*self.names[place])
    }
}

impl Node {
    fn add(&mut self, segments: &[RouteSegment], method: Option<&Method>, place: usize) {
        match segments.split_first() {
            None => end(&mut self.here, method, place),
            Some((RouteSegment::Rest, _)) => end(&mut self.rest, method, place),
            Some((RouteSegment::Any, rest)) => self.any.get_or_insert_default().add(rest, method, place),
            Some((RouteSegment::Literal(text), rest)) => {
                let at = self.literals.binary_search_by(|(t, _)| (**t).cmp(text.as_str()));
                let at = at.unwrap_or_else(|at| {
                    self.literals.insert(at, (text.as_str().into(), Self::default()));
                    at
                });
                self.literals[at].1.add(rest, method, place);
            }
        }
    }

    fn find(&self, method: &Method, path: &str) -> Option<usize> {
        let path = path.trim_start_matches('/');
        if path.is_empty() {
            return pick(&self.here, method).or_else(|| pick(&self.rest, method));
        }
        let (segment, rest) = path.split_once('/').unwrap_or((path, ""));
        let literal = self.literals.binary_search_by(|(t, _)| (**t).cmp(segment)).ok();
        literal
            .and_then(|at| self.literals[at].1.find(method, rest))
            .or_else(|| self.any.as_ref()?.find(method, rest))
            .or_else(|| pick(&self.rest, method))
    }
}

fn end(ends: &mut Ends, method: Option<&Method>, place: usize) {
    ends.push((method.cloned(), place));
    ends.sort_by_key(|(method, _)| method.is_none());
}

fn pick(ends: &Ends, method: &Method) -> Option<usize> {
    ends.iter().find(|(own, _)| own.as_ref().is_none_or(|own| own == method)).map(|(_, place)| *place)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn patterns(texts: &[&str]) -> RoutePatterns {
        RoutePatterns::new(&texts.iter().map(|t| t.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn the_most_specific_route_wins() {
        let all = patterns(&[
            "/*",
            "/orders/*",
            "/orders/{id}",
            "GET /orders/{id}",
            "/orders/export",
            "POST /orders/{id}/items",
            "/orders/{id}/items/{item}",
            "/",
        ]);
        let find = |method: &Method, path| all.find(method, path).unwrap();
        let (get, post) = (Method::GET, Method::POST);
        assert_eq!(find(&get, "/"), "/");
        assert_eq!(find(&get, "/x/y"), "/*");
        assert_eq!(find(&get, "/orders"), "/orders/*");
        assert_eq!(find(&get, "/orders/7/"), "GET /orders/{id}");
        assert_eq!(find(&post, "/orders/7"), "/orders/{id}");
        assert_eq!(find(&get, "/orders/export"), "/orders/export");
        assert_eq!(find(&post, "/orders/7/items"), "POST /orders/{id}/items");
        assert_eq!(find(&get, "/orders/7/items"), "/orders/*", "another method goes on to the next best");
        assert_eq!(find(&get, "/orders/export/items/3"), "/orders/{id}/items/{item}", "and so does a dead end");
        assert_eq!(find(&get, "//orders//7"), "GET /orders/{id}");
    }

    #[test]
    fn without_a_match_the_name_is_made() {
        let all = patterns(&["GET /v1/orders/{order}", "PUT /v1/orders/{order}"]);
        let name = |method: &Method, path, tenant| {
            let mut room = None;
            let (name, configured) = all.name(method, path, tenant, &mut room);
            (name.to_owned(), configured)
        };
        assert_eq!(name(&Method::GET, "/v1/orders/7", None), ("GET /v1/orders/{order}".to_owned(), true));
        assert_eq!(name(&Method::POST, "/v1/orders/7", None), ("POST /v1/orders/{id}".to_owned(), false));
        assert_eq!(name(&Method::GET, "/acme/7", Some("acme")), ("GET /{tenant}/{id}".to_owned(), false));
        assert_eq!(patterns(&[]).find(&Method::GET, "/"), None);
    }

    proptest! {
        /// The tree finds one exactly when a plain look at each pattern does.
        #[test]
        fn the_tree_finds_what_fits(
            texts in proptest::collection::vec("(GET |POST |)(/(a|b|\\{x\\})){1,3}(/\\*)?", 1..20),
            path in "(/(a|b|c)){0,4}",
            get in any::<bool>(),
        ) {
            let all: Vec<RoutePattern> = texts.iter().map(|t| t.parse().unwrap()).collect();
            let method = if get { Method::GET } else { Method::POST };
            let given: Vec<_> = path.split('/').filter(|s| !s.is_empty()).collect();
            let fits = |pattern: &RoutePattern| {
                let open = pattern.segments().last() == Some(&RouteSegment::Rest);
                let segments = &pattern.segments()[..pattern.segments().len() - usize::from(open)];
                let long_enough = if open { given.len() >= segments.len() } else { given.len() == segments.len() };
                let same = segments.iter().zip(&given).all(|(s, g)| match s {
                    RouteSegment::Literal(text) => text == g,
                    _ => true,
                });
                long_enough && same && pattern.method().is_none_or(|m| *m == method)
            };
            match RoutePatterns::new(&all).find(&method, &path) {
                Some(name) => prop_assert!(all.iter().any(|p| p.as_str() == name && fits(p)), "{}", name),
                None => prop_assert!(!all.iter().any(fits)),
            }
        }
    }
}

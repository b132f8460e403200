//! Names in paths and parameters in queries: read once, refused with what is allowed.

use std::str::FromStr;
use std::time::Duration;

use axum::extract::{FromRequestParts, Query, RawPathParams};
use axum::http::StatusCode;
use axum::http::request::Parts;

use super::problem::{Problem, did_you_mean, echo};
use crate::model::{GroupName, NameError, RolloutId, ServiceName, TenantName, UserName, VersionName};

/// The names in the path of a request.
#[derive(Debug, Default)]
pub(super) struct Names(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Names {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Problem> {
        let raw = RawPathParams::from_request_parts(parts, state).await.map_err(|e| {
            Problem::new(StatusCode::BAD_REQUEST, "bad_request", format!("the path cannot be read: {e}"))
        })?;
        Ok(Self(raw.iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()))
    }
}

impl Names {
    /// The text of one part of the path.
    pub(super) fn text(&self, part: &str) -> &str {
        self.0.iter().find(|(name, _)| name == part).map_or("", |(_, value)| value)
    }

    fn name<N: FromStr<Err = NameError>>(&self, part: &str) -> Result<N, Problem> {
        read_name(part, self.text(part))
    }

    /// `{service}`.
    pub(super) fn service(&self) -> Result<ServiceName, Problem> {
        self.name("service")
    }

    /// `{version}`.
    pub(super) fn version(&self) -> Result<VersionName, Problem> {
        self.name("version")
    }

    /// `{tenant}`.
    pub(super) fn tenant(&self) -> Result<TenantName, Problem> {
        self.name("tenant")
    }

    /// `{group}`.
    pub(super) fn group(&self) -> Result<GroupName, Problem> {
        self.name("group")
    }

    /// `{id}` as a rollout.
    pub(super) fn rollout(&self) -> Result<RolloutId, Problem> {
        self.name("id")
    }

    /// `{name}` as a tenant.
    pub(super) fn named_tenant(&self) -> Result<TenantName, Problem> {
        self.name("name")
    }

    /// `{name}` as a user.
    pub(super) fn named_user(&self) -> Result<UserName, Problem> {
        self.name("name")
    }

    /// `{name}` as a group.
    pub(super) fn named_group(&self) -> Result<GroupName, Problem> {
        self.name("name")
    }
}

/// A name, or a refusal that tells the field, the value and what is allowed.
pub(super) fn read_name<N: FromStr<Err = NameError>>(field: &str, text: &str) -> Result<N, Problem> {
    text.parse().map_err(|e: NameError| Problem::bad(field, format!("{:?} {e}", echo(text))))
}

/// The parameters of a query, in their order.
#[derive(Debug)]
pub(super) struct Parameters(Vec<(String, String)>);

impl<S: Send + Sync> FromRequestParts<S> for Parameters {
    type Rejection = Problem;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Problem> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(&parts.uri);
        let pairs = pairs.map_err(|e| Problem::bad("", format!("the query cannot be read: {e}")))?;
        Ok(Self(pairs.0))
    }
}

impl Parameters {
    /// From the text of a query.
    pub(super) fn of(query: &str) -> Result<Self, Problem> {
        serde_urlencoded::from_str(query)
            .map(Self)
            .map_err(|e| Problem::bad("", format!("the query cannot be read: {e}")))
    }

    /// Refuses parameters that the route does not know, and those given twice unless they are in `repeatable`.
    pub(super) fn only(self, known: &[&str], repeatable: &[&str]) -> Result<Self, Problem> {
        for (i, (name, _)) in self.0.iter().enumerate() {
            let all = || known.iter().chain(repeatable).copied();
            if !all().any(|k| k == name) {
                let (list, guess) = (all().collect::<Vec<_>>().join(", "), did_you_mean(name, all()));
                return Err(Problem::bad(&echo(name), format!("is no parameter here; there are: {list}{guess}")));
            }
            if !repeatable.contains(&name.as_str()) && self.0[..i].iter().any(|(n, _)| n == name) {
                return Err(Problem::bad(name, "stands twice; allowed is once"));
            }
        }
        Ok(self)
    }

    /// The value of a parameter; an empty one counts as absent.
    pub(super) fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()).filter(|v| !v.is_empty())
    }

    /// Every value of a parameter.
    pub(super) fn all<'p>(&'p self, name: &'p str) -> impl Iterator<Item = &'p str> {
        self.0.iter().filter(move |(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    /// A name.
    pub(super) fn name<N: FromStr<Err = NameError>>(&self, name: &str) -> Result<Option<N>, Problem> {
        self.text(name).map(|text| read_name(name, text)).transpose()
    }

    /// A whole number within bounds.
    pub(super) fn number(&self, name: &str, bounds: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let number = text.parse().ok().filter(|n| bounds.contains(n));
        let (least, most) = (bounds.start(), bounds.end());
        let refuse = || Problem::bad(name, format!("{:?} is not a whole number from {least} to {most}", echo(text)));
        number.map(Some).ok_or_else(refuse)
    }

    /// `true` or `false`; a parameter without value means `true`.
    pub(super) fn flag(&self, name: &str) -> Result<bool, Problem> {
        match self.0.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str()) {
            None | Some("false") => Ok(false),
            Some("true" | "") => Ok(true),
            Some(other) => Err(Problem::bad(name, format!("{:?} is neither true nor false", echo(other)))),
        }
    }

    /// A duration such as `30s` within bounds.
    pub(super) fn duration(&self, name: &str, most: Duration) -> Result<Option<Duration>, Problem> {
        let Some(text) = self.text(name) else { return Ok(None) };
        let span = text.parse::<jiff::SignedDuration>().ok().and_then(|d| Duration::try_from(d).ok());
        let span = span.filter(|d| (Duration::from_secs(1)..=most).contains(d));
        let allowed = super::describe::duration(most);
        let refuse = || Problem::bad(name, format!("{:?} is not a duration from 1s to {allowed}", echo(text)));
        span.map(Some).ok_or_else(refuse)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parameters(query: &str) -> Parameters {
        let uri = format!("http://x/?{query}").parse().unwrap();
        Parameters(Query::<Vec<(String, String)>>::try_from_uri(&uri).unwrap().0)
    }

    #[test]
    fn parameters_are_known_and_stand_once() {
        assert!(parameters("a=1&h=1&h=2").only(&["a"], &["h"]).is_ok());
        assert!(parameters("a=1&a=2").only(&["a"], &[]).is_err());
        assert!(parameters("limits=1").only(&["limit"], &[]).is_err());
    }

    #[test]
    fn values_are_read_or_refused() {
        let p = parameters("n=5&big=99&d=1m30s&far=2h&minus=-5s&yes=&no=false&odd=1&empty=");
        assert_eq!(p.number("n", 1..=10).unwrap(), Some(5));
        assert_eq!(p.number("empty", 1..=10).unwrap(), None);
        assert!(p.number("big", 1..=10).is_err() && p.number("d", 1..=10).is_err());
        let most = Duration::from_secs(900);
        assert_eq!(p.duration("d", most).unwrap(), Some(Duration::from_secs(90)));
        assert!(["far", "minus", "n"].iter().all(|name| p.duration(name, most).is_err()));
        assert!(
            p.flag("yes").unwrap() && !p.flag("no").unwrap() && !p.flag("absent").unwrap() && p.flag("odd").is_err()
        );
    }
}

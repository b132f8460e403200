//! Calls to addresses that a token of the admin API may name: only where the configuration lets such calls go.
//!
//! An address is looked at as it is written, before the call, and a name whenever it is connected to, since it may lead
//! elsewhere tomorrow. Of a name that leads to several addresses all must be allowed.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::Url;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use crate::model::{OutOfReach, Reach};

/// Where calls may go at this moment. A reload may change it.
pub type Within = Arc<dyn Fn() -> Reach + Send + Sync>;

/// Whether a call to this address may be made, as far as the text alone tells. What is no address is for the call to refuse.
///
/// # Errors
/// [`OutOfReach`] says what the address is.
pub fn check_url(url: &str, reach: &Reach) -> Result<(), OutOfReach> {
    // The parser of the client, so that 0x7f.1 is here what it is there.
    let Some(host) = Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)) else { return Ok(()) };
    match host.trim_start_matches('[').trim_end_matches(']').parse::<IpAddr>() {
        Ok(address) => reach.check(address),
        Err(_) => reach.check_host(&host),
    }
}

/// Looks names up, and gives none that leads where calls may not go.
pub(super) struct Resolver(pub Within);

impl Resolve for Resolver {
    fn resolve(&self, name: Name) -> Resolving {
        let within = self.0.clone();
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let found = allowed(name.as_str(), found, &within())?;
            Ok(Box::new(found.into_iter()) as Addrs)
        })
    }
}

/// What a name leads to, when all of it is allowed.
fn allowed(name: &str, found: Vec<SocketAddr>, reach: &Reach) -> Result<Vec<SocketAddr>, OutOfReach> {
    reach.check_host(name)?;
    found.iter().try_for_each(|address| reach.check(address.ip()))?;
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_looked_at_in_every_form() {
        let shut = |url: &str| check_url(url, &Reach::default()).is_err();
        for url in [
            "http://127.0.0.1:8080/x",
            "http://169.254.169.254/latest/meta-data",
            "https://user:password@169.254.169.254/",
            "http://0x7f.1/",
            "http://2130706433/",
            "http://127.1/",
            "http://[::1]:80/",
            "http://[::ffff:169.254.169.254]/",
            "http://[fd00:ec2::254]/",
            "http://localhost:9900/v1/status",
            "http://LOCALHOST./",
            "http://x.localhost/",
        ] {
            assert!(shut(url), "{url}");
        }
        for url in ["https://deploy.example.com/migrate", "http://10.0.0.7:8080/", "http://[fd12::1]/", "no address"] {
            assert!(!shut(url), "{url}");
        }
        let open = Reach::new(vec!["127.0.0.0/8".parse().unwrap()]);
        assert_eq!(check_url("http://127.0.0.1/", &open), Ok(()));
    }

    #[test]
    fn a_name_is_refused_when_any_of_its_addresses_is() {
        let found = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<SocketAddr>>();
        let allowed = |texts: &[&str]| allowed("deploy.example.com", found(texts), &Reach::default());
        assert_eq!(allowed(&["10.0.0.7:0", "[fd12::1]:0"]), Ok(found(&["10.0.0.7:0", "[fd12::1]:0"])));
        assert_eq!(allowed(&["10.0.0.7:0", "169.254.169.254:0"]).unwrap_err().address, "169.254.169.254");
        assert!(allowed(&["[::1]:0"]).is_err());
    }
}

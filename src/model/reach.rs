//! Where endpoints may lie that somebody registers through the admin API: a pure look at an address or a name.
//!
//! Whoever may register versions could else make the proxy fetch what only the proxy's own machine or its cloud may see:
//! services on loopback, or credentials from the metadata address (server-side request forgery). Private networks are
//! open, since that is where endpoints live. Names are looked at again whenever they were looked up, because a name may
//! lead elsewhere tomorrow.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks that are open besides those that are open anyway.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reach {
    allowed: Vec<IpNet>,
}

/// Why an endpoint may not lie there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{address} {what}")]
pub struct OutOfReach {
    /// The address, or a name that can only be such an address.
    pub address: String,
    /// What it is, as the rest of a sentence.
    pub what: &'static str,
}

const fn v4(a: u8, b: u8, c: u8, d: u8, prefix: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), prefix)
}

const fn v6(a: u16, b: u16, c: u16, prefix: u8) -> Ipv6Net {
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, 0, 0, 0, 0, 0), prefix)
}

const METADATA: &str = "is where clouds keep the credentials of machines";
const RESERVED: &str = "is reserved";
const DOCUMENTATION: &str = "is an address for documentation";
const LOOPBACK: &str = "is a loopback address";
const LINK_LOCAL: &str = "is a link-local address, among which clouds keep the credentials of machines";
const UNSPECIFIED: &str = "is no address of another machine";
const MULTICAST: &str = "is a multicast address";

/// IANA's registry of special addresses, as far as no service can be meant, and the clouds' own.
const V4: [(Ipv4Net, &str); 14] = [
    (v4(0, 0, 0, 0, 8), UNSPECIFIED),
    (v4(127, 0, 0, 0, 8), LOOPBACK),
    (v4(169, 254, 0, 0, 16), LINK_LOCAL),
    // Alibaba's metadata and Azure's; Oracle's lies in 192.0.0.0/24.
    (v4(100, 100, 100, 200, 32), METADATA),
    (v4(168, 63, 129, 16, 32), METADATA),
    (v4(192, 0, 0, 0, 24), RESERVED),
    (v4(192, 0, 2, 0, 24), DOCUMENTATION),
    (v4(198, 51, 100, 0, 24), DOCUMENTATION),
    (v4(203, 0, 113, 0, 24), DOCUMENTATION),
    (v4(192, 88, 99, 0, 24), RESERVED),
    (v4(198, 18, 0, 0, 15), RESERVED),
    (v4(224, 0, 0, 0, 4), MULTICAST),
    (v4(255, 255, 255, 255, 32), "is the broadcast address"),
    (v4(240, 0, 0, 0, 4), RESERVED),
];

const V6: [(Ipv6Net, &str); 12] = [
    (Ipv6Net::new_assert(Ipv6Addr::UNSPECIFIED, 128), UNSPECIFIED),
    (Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128), LOOPBACK),
    (v6(0xfe80, 0, 0, 10), LINK_LOCAL),
    (v6(0xfec0, 0, 0, 10), "is a site-local address, which nobody uses any more"),
    // Amazon's, Google's and Scaleway's, within networks that are private otherwise.
    (v6(0xfd00, 0x0ec2, 0, 32), METADATA),
    (v6(0xfd20, 0x00ce, 0, 32), METADATA),
    (v6(0xfd00, 0x0042, 0, 32), METADATA),
    (v6(0x2001, 0x0db8, 0, 32), DOCUMENTATION),
    (v6(0x3fff, 0, 0, 20), DOCUMENTATION),
    (v6(0x0100, 0, 0, 64), RESERVED),
    (v6(0x5f00, 0, 0, 16), RESERVED),
    (v6(0xff00, 0, 0, 8), MULTICAST),
];

impl Reach {
    /// What is open anyway, and these networks.
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether an endpoint may have this address.
    ///
    /// # Errors
    /// [`OutOfReach`] says what the address is.
    pub fn check(&self, address: IpAddr) -> Result<(), OutOfReach> {
        let address = address.to_canonical();
        if self.allowed.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match special(address) {
            Some(what) => Err(OutOfReach { address: address.to_string(), what }),
            None => Ok(()),
        }
    }

    /// Whether an endpoint may have this name, which may contain `{tenant}`, as far as the name alone tells.
    ///
    /// # Errors
    /// [`OutOfReach`] says what the name is.
    pub fn check_host(&self, host: &str) -> Result<(), OutOfReach> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let out = |what| Err(OutOfReach { address: host.clone(), what });
        // By definition this machine (RFC 6761, section 6.3).
        if host == "localhost" || host.ends_with(".localhost") {
            return self.check(Ipv4Addr::LOCALHOST.into()).or_else(|e| out(e.what));
        }
        // The look-up of a system takes 0x7f.1 and 2130706433 for addresses, whatever is meant.
        for name in [host.as_str(), &host.replace("{tenant}", "1")] {
            if let Ok(address) = name.parse() {
                self.check(address)?;
            } else if name.rsplit('.').next().is_some_and(is_number) {
                return out("is a number where names have letters, which systems take for an address");
            }
        }
        Ok(())
    }
}

/// Whether a label would be taken for a part of an IPv4 address.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
    hex || !label.is_empty() && label.bytes().all(|b| b.is_ascii_digit())
}

/// What an address is when it is none that a service can have.
fn special(address: IpAddr) -> Option<&'static str> {
    match address {
        IpAddr::V4(address) => special_v4(address),
        IpAddr::V6(address) => {
            let own = V6.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what);
            own.or_else(|| embedded(address).into_iter().flatten().find_map(special_v4))
        }
    }
}

fn special_v4(address: Ipv4Addr) -> Option<&'static str> {
    V4.iter().find(|(net, _)| net.contains(&address)).map(|(_, what)| *what)
}

/// The IPv4 addresses that an IPv6 address leads to or through, on machines that have such a way.
fn embedded(address: Ipv6Addr) -> [Option<Ipv4Addr>; 2] {
    let s = address.segments();
    let at = |i: usize| Ipv4Addr::from((u32::from(s[i]) << 16) | u32::from(s[i + 1]));
    match s {
        // Compatible, mapped, translated, and NAT64's well-known and local prefixes.
        [0, 0, 0, 0, 0, 0 | 0xffff, ..] | [0, 0, 0, 0, 0xffff, 0, ..] | [0x64, 0xff9b, 0 | 1, ..] => {
            [Some(at(6)), None]
        }
        // 6to4.
        [0x2002, ..] => [Some(at(1)), None],
        // Teredo: the server, and the client with its bits turned over.
        [0x2001, 0, ..] => [Some(at(2)), Some(Ipv4Addr::from(!u32::from(at(6))))],
        // ISATAP.
        [_, _, _, _, 0 | 0x0200, 0x5efe, ..] => [Some(at(6)), None],
        _ => [None, None],
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn check(text: &str) -> Result<(), OutOfReach> {
        Reach::default().check(text.parse().unwrap())
    }

    #[test]
    fn where_services_live_is_open() {
        for open in [
            "10.0.0.1",
            "172.16.3.4",
            "192.168.1.1",
            "100.64.0.1",
            "8.8.8.8",
            "192.0.1.1",
            "fd12:3456::1",
            "fc00::1",
            "2a00:1450:4001::1",
            "64:ff9b::a00:1",
            "2002:a00:1::1",
            "::ffff:10.0.0.1",
        ] {
            assert_eq!(check(open), Ok(()), "{open}");
        }
    }

    #[test]
    fn what_only_this_machine_may_see_is_not() {
        for shut in [
            "0.0.0.0",
            "0.1.2.3",
            "127.0.0.1",
            "127.255.255.254",
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "192.0.2.1",
            "198.51.100.7",
            "203.0.113.9",
            "198.18.0.1",
            "224.0.0.1",
            "239.255.255.255",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "febf::1",
            "fec0::1",
            "ff02::1",
            "fd00:ec2::254",
            "fd20:ce::254",
            "fd00:42::42",
            "2001:db8::1",
            "3fff::1",
            "100::1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "::127.0.0.1",
            "::ffff:0:127.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
            "64:ff9b:1::a9fe:a9fe",
            "2002:7f00:1::",
            "2002:a9fe:a9fe::1",
            "2001:0:7f00:1::1",
            "2001:0:808:808:0:0:80ff:fffe",
            "2001:0:808:808::5601:5601",
            "fd12::5efe:7f00:1",
            "fd12::200:5efe:a9fe:a9fe",
        ] {
            assert!(check(shut).is_err(), "{shut}");
        }
    }

    #[test]
    fn what_is_listed_is_open() {
        let reach = Reach::new(vec!["127.0.0.0/8".parse().unwrap(), "::1/128".parse().unwrap()]);
        for open in ["127.0.0.1", "::ffff:127.0.0.2", "::1"] {
            assert_eq!(reach.check(open.parse().unwrap()), Ok(()), "{open}");
        }
        assert!(reach.check("169.254.169.254".parse().unwrap()).is_err());
        assert!(reach.check("2002:7f00:1::".parse().unwrap()).is_err(), "another way to the same place is not listed");
        assert_eq!(reach.check_host("a.localhost"), Ok(()));
    }

    #[test]
    fn names_that_can_only_be_such_addresses_are_refused() {
        let reach = Reach::default();
        for shut in [
            "localhost",
            "LOCALHOST.",
            "a.b.localhost",
            "{tenant}.localhost",
            "0x7f000001",
            "0x7f.1",
            "127.1",
            "0177.1",
            "2130706433",
            "a.0x1",
            "127.0.0.{tenant}",
            "169.254.169.254",
        ] {
            assert!(reach.check_host(shut).is_err(), "{shut}");
        }
        for open in ["api.internal", "{tenant}.internal", "localhost.example", "notlocalhost", "10.0.0.{tenant}", "a1"]
        {
            assert_eq!(reach.check_host(open), Ok(()), "{open}");
        }
    }

    proptest! {
        /// Every way of IPv6 to an IPv4 address that is shut is shut.
        #[test]
        fn no_form_leads_around(bits in any::<u32>()) {
            let v4 = Ipv4Addr::from(bits);
            let [a, b] = [(bits >> 16) as u16, bits as u16];
            let forms = [
                v4.to_ipv6_mapped(),
                Ipv6Addr::new(0, 0, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, a, b),
                Ipv6Addr::new(0x2002, a, b, 0, 0, 0, 0, 1),
                Ipv6Addr::new(0x2001, 0, 0x808, 0x808, 0, 0, !a, !b),
            ];
            if special_v4(v4).is_some() {
                for form in forms {
                    prop_assert!(Reach::default().check(form.into()).is_err(), "{form}");
                }
            }
        }
    }
}

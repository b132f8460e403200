//! Addresses as text, for a header of every request: without an allocation, and for IPv4 without the general formatting
//! of the standard library, which takes longer than adding the header.

use std::io::Write as _;
use std::net::IpAddr;

/// The longest text: eight groups of four digits. Longer forms, with an IPv4 address at the end, have five groups less.
const MAX: usize = 39;

/// An address as text.
pub(super) struct AddressText {
    bytes: [u8; MAX],
    length: usize,
}

impl AddressText {
    /// The same text as that of `Display`.
    pub fn of(address: IpAddr) -> Self {
        let mut text = Self { bytes: [0; MAX], length: 0 };
        match address {
            IpAddr::V4(v4) => {
                for (place, octet) in v4.octets().into_iter().enumerate() {
                    if place > 0 {
                        text.push(b'.');
                    }
                    text.push_number(octet);
                }
            }
            IpAddr::V6(v6) => {
                let mut room = &mut text.bytes[..];
                let written = write!(room, "{v6}");
                debug_assert!(written.is_ok(), "{v6} is longer than {MAX}");
                text.length = MAX - room.len();
            }
        }
        text
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.length]
    }

    fn push_number(&mut self, number: u8) {
        if number >= 100 {
            self.push(b'0' + number / 100);
        }
        if number >= 10 {
            self.push(b'0' + number / 10 % 10);
        }
        self.push(b'0' + number % 10);
    }

    fn push(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;
    use proptest::prelude::*;

    fn same(address: IpAddr) -> bool {
        AddressText::of(address).as_bytes() == address.to_string().as_bytes()
    }

    #[test]
    fn every_number_is_written_as_it_should_be() {
        assert!((0..=255).all(|n| same([n, 255 - n, n / 2, 255].into())));
        assert!(same(Ipv6Addr::UNSPECIFIED.into()) && same(Ipv6Addr::from([0xffff; 8]).into()));
        assert!(
            same(Ipv4Addr::BROADCAST.to_ipv6_mapped().into()) && same(Ipv4Addr::BROADCAST.to_ipv6_compatible().into())
        );
    }

    proptest! {
        #[test]
        fn addresses_are_written_as_by_the_standard_library(v4: Ipv4Addr, v6: Ipv6Addr, few in 0u16..3) {
            prop_assert!(same(v4.into()) && same(v6.into()));
            prop_assert!(same(Ipv6Addr::from(v6.segments().map(|group| group % (few + 1))).into()));
        }
    }
}

use std::fmt;
use std::net::Ipv6Addr;

/// An IPv6 prefix without host bits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Ipv6Prefix {
    address: Ipv6Addr,
    len: u8,
}

impl Ipv6Prefix {
    /// `None` if the length is over 128 or bits beyond it are set.
    #[must_use]
    pub fn new(address: Ipv6Addr, len: u8) -> Option<Self> {
        (len <= 128 && address.to_bits() & host_bits(len) == 0).then_some(Self { address, len })
    }

    /// The prefix of this length that the address lies in; a length over 128 counts as 128.
    #[must_use]
    pub fn around(address: Ipv6Addr, len: u8) -> Self {
        let len = len.min(128);
        Self { address: Ipv6Addr::from_bits(address.to_bits() & !host_bits(len)), len }
    }

    /// The lowest address.
    #[must_use]
    pub const fn first(self) -> Ipv6Addr {
        self.address
    }

    /// The highest address.
    #[must_use]
    pub const fn last(self) -> Ipv6Addr {
        Ipv6Addr::from_bits(self.address.to_bits() | host_bits(self.len))
    }

    /// The length in bits, 0 to 128.
    #[must_use]
    pub const fn prefix_len(self) -> u8 {
        self.len
    }

    /// Whether the address lies in the prefix.
    #[must_use]
    pub fn contains(self, address: Ipv6Addr) -> bool {
        self.first() <= address && address <= self.last()
    }
}

impl fmt::Display for Ipv6Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.len)
    }
}

/// The bits beyond a prefix length of at most 128.
const fn host_bits(len: u8) -> u128 {
    if len >= 128 { 0 } else { u128::MAX >> len }
}

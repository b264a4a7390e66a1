use std::net::Ipv6Addr;

use crate::{IaId, OptionCode, StatusCode, WireError};

/// One option: its code and its body.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RawOption<'a> {
    /// The option code.
    pub code: OptionCode,
    /// The octets after the length field.
    pub data: &'a [u8],
}

/// A sequence of options whose lengths have been checked (RFC 8415 section 21.1).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Options<'a>(&'a [u8]);

impl<'a> Options<'a> {
    /// No options.
    pub const EMPTY: Self = Self(&[]);

    /// Walks over the option headers once.
    ///
    /// # Errors
    /// [`WireError::OptionOverrun`] or [`WireError::StrayOctets`].
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        let mut rest = octets;
        while let [c0, c1, l0, l1, tail @ ..] = rest {
            let claimed = usize::from(u16::from_be_bytes([*l0, *l1]));
            rest = tail.get(claimed..).ok_or_else(|| WireError::OptionOverrun {
                code: u16::from_be_bytes([*c0, *c1]),
                claimed,
                have: tail.len(),
            })?;
        }
        if rest.is_empty() { Ok(Self(octets)) } else { Err(WireError::StrayOctets(rest.len())) }
    }

    /// The options in the order of the message.
    #[must_use]
    pub fn iter(&self) -> OptionsIter<'a> {
        OptionsIter(self.0)
    }

    /// The body of the first option with this code.
    #[must_use]
    pub fn first(&self, code: OptionCode) -> Option<&'a [u8]> {
        self.iter().find(|option| option.code == code).map(|option| option.data)
    }

    /// The bodies of all options with this code.
    pub fn all(&self, code: OptionCode) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        self.iter().filter(move |option| option.code == code).map(|option| option.data)
    }

    /// Whether there is no option at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The options as they stood on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> IntoIterator for Options<'a> {
    type Item = RawOption<'a>;
    type IntoIter = OptionsIter<'a>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

/// Iterator over [`Options`].
#[derive(Clone, Debug)]
pub struct OptionsIter<'a>(&'a [u8]);

impl<'a> Iterator for OptionsIter<'a> {
    type Item = RawOption<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let [c0, c1, l0, l1, tail @ ..] = self.0 else { return None };
        let len = usize::from(u16::from_be_bytes([*l0, *l1]));
        let (data, rest) = tail.split_at_checked(len)?;
        self.0 = rest;
        Some(RawOption { code: OptionCode(u16::from_be_bytes([*c0, *c1])), data })
    }
}

fn fixed<'a, const N: usize>(
    what: &'static str,
    data: &'a [u8],
) -> Result<([u8; N], &'a [u8]), WireError> {
    data.split_first_chunk::<N>().map(|(head, tail)| (*head, tail)).ok_or(WireError::Truncated {
        what,
        have: data.len(),
        need: N,
    })
}

fn u32_at(octets: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([octets[at], octets[at + 1], octets[at + 2], octets[at + 3]])
}

fn address_at(octets: &[u8], at: usize) -> Ipv6Addr {
    let mut address = [0; 16];
    address.copy_from_slice(&octets[at..at + 16]);
    Ipv6Addr::from(address)
}

/// Body of an IA_NA or IA_PD option (RFC 8415 sections 21.4 and 21.21): the two have one format.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ia<'a> {
    /// The IAID.
    pub iaid: IaId,
    /// T1 in seconds; 0 leaves it to the receiver.
    pub t1: u32,
    /// T2 in seconds; 0 leaves it to the receiver.
    pub t2: u32,
    /// IA Address or IA Prefix options, Status Code, and others.
    pub options: Options<'a>,
}

impl<'a> Ia<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If the fixed part or the enclosed options do not fit.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (head, rest) = fixed::<12>("IA_NA or IA_PD", data)?;
        Ok(Self {
            iaid: IaId(u32_at(&head, 0)),
            t1: u32_at(&head, 4),
            t2: u32_at(&head, 8),
            options: Options::parse(rest)?,
        })
    }
}

/// Body of an IA_TA option (RFC 8415 section 21.5); obsoleted by RFC 9915, read but not assigned.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IaTa<'a> {
    /// The IAID.
    pub iaid: IaId,
    /// IA Address options, Status Code, and others.
    pub options: Options<'a>,
}

impl<'a> IaTa<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If the fixed part or the enclosed options do not fit.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (head, rest) = fixed::<4>("IA_TA", data)?;
        Ok(Self { iaid: IaId(u32_at(&head, 0)), options: Options::parse(rest)? })
    }
}

/// Body of an IA Address option (RFC 8415 section 21.6).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IaAddr<'a> {
    /// The address.
    pub address: Ipv6Addr,
    /// Preferred lifetime in seconds.
    pub preferred: u32,
    /// Valid lifetime in seconds.
    pub valid: u32,
    /// Enclosed options.
    pub options: Options<'a>,
}

impl<'a> IaAddr<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If the fixed part or the enclosed options do not fit.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (head, rest) = fixed::<24>("IA Address", data)?;
        Ok(Self {
            address: address_at(&head, 0),
            preferred: u32_at(&head, 16),
            valid: u32_at(&head, 20),
            options: Options::parse(rest)?,
        })
    }
}

/// Body of an IA Prefix option (RFC 8415 section 21.22).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct IaPrefix<'a> {
    /// Preferred lifetime in seconds.
    pub preferred: u32,
    /// Valid lifetime in seconds.
    pub valid: u32,
    /// Length of the prefix in bits, 0 to 128; a client may send 0 for "any".
    pub prefix_len: u8,
    /// The prefix; a client may send `::` with a length as a hint.
    pub prefix: Ipv6Addr,
    /// Enclosed options.
    pub options: Options<'a>,
}

impl<'a> IaPrefix<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If the fixed part or the enclosed options do not fit, or the length exceeds 128.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (head, rest) = fixed::<25>("IA Prefix", data)?;
        if head[8] > 128 {
            return Err(WireError::BadValue { what: "prefix length", value: u32::from(head[8]) });
        }
        Ok(Self {
            preferred: u32_at(&head, 0),
            valid: u32_at(&head, 4),
            prefix_len: head[8],
            prefix: address_at(&head, 9),
            options: Options::parse(rest)?,
        })
    }
}

/// Body of a Status Code option (RFC 8415 section 21.13).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Status<'a> {
    /// The code.
    pub code: StatusCode,
    /// Text for people, UTF-8 by the RFC, not checked.
    pub message: &'a [u8],
}

impl<'a> Status<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If there are fewer than two octets.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (head, message) = fixed::<2>("Status Code", data)?;
        Ok(Self { code: StatusCode(u16::from_be_bytes(head)), message })
    }

    /// The status in `options`: absence means Success (section 21.13).
    #[must_use]
    pub fn of(options: &Options<'a>) -> StatusCode {
        options
            .first(OptionCode::STATUS_CODE)
            .and_then(|data| Self::parse(data).ok())
            .map_or(StatusCode::SUCCESS, |status| status.code)
    }
}

/// Body of an Option Request option (RFC 8415 section 21.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct OptionRequest<'a>(&'a [u8]);

impl<'a> OptionRequest<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If the number of octets is odd.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        if data.len().is_multiple_of(2) { Ok(Self(data)) } else { Err(WireError::StrayOctets(1)) }
    }

    /// The requested codes in order.
    pub fn codes(&self) -> impl Iterator<Item = OptionCode> + use<'a> {
        self.0.chunks_exact(2).map(|pair| OptionCode(u16::from_be_bytes([pair[0], pair[1]])))
    }

    /// Whether the client asked for this option.
    #[must_use]
    pub fn contains(&self, code: OptionCode) -> bool {
        self.codes().any(|requested| requested == code)
    }
}

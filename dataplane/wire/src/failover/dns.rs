use super::DnsFlags;
use crate::{Emitter, OptionCode, Options, WireError};

/// The longest name in octets, the root included (RFC 1035 section 2.3.4).
const NAME_LEN_MAX: usize = 255;
/// The longest label (RFC 1035 section 2.3.4). Greater length octets would be compression, which
/// DHCPv6 does not allow (RFC 8415 section 10).
const LABEL_LEN_MAX: u8 = 63;

/// A DNS name in the encoding of RFC 1035 without compression (RFC 8415 section 10), as it stands
/// on the wire. A name without the root at its end is taken, too: host names are often partial.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct DnsName<'a>(&'a [u8]);

impl<'a> DnsName<'a> {
    /// Checks the labels.
    ///
    /// # Errors
    /// If the name or a label is too long, a label is cut off, or something follows the root.
    pub fn parse(octets: &'a [u8]) -> Result<Self, WireError> {
        if octets.len() > NAME_LEN_MAX {
            let value = u32::try_from(octets.len()).unwrap_or(u32::MAX);
            return Err(WireError::BadValue { what: "DNS name length", value });
        }
        let mut rest = octets;
        while let Some((&len, tail)) = rest.split_first() {
            if len > LABEL_LEN_MAX {
                return Err(WireError::BadValue { what: "DNS label length", value: len.into() });
            }
            if len == 0 && !tail.is_empty() {
                let value = u32::try_from(tail.len()).unwrap_or(u32::MAX);
                return Err(WireError::BadValue { what: "octets after a DNS name's root", value });
            }
            let need = usize::from(len);
            rest = tail.get(need..).ok_or(WireError::Truncated {
                what: "DNS label",
                have: tail.len(),
                need,
            })?;
        }
        Ok(Self(octets))
    }

    /// The labels from left to right, the root left out.
    pub fn labels(&self) -> impl Iterator<Item = &'a [u8]> + use<'a> {
        let mut rest = self.0;
        std::iter::from_fn(move || {
            let (len, tail) = rest.split_first().filter(|(len, _)| **len > 0)?;
            let (label, next) = tail.split_at_checked(usize::from(*len))?;
            rest = next;
            Some(label)
        })
    }

    /// The name as on the wire.
    #[must_use]
    pub fn as_bytes(&self) -> &'a [u8] {
        self.0
    }
}

/// Body of OPTION_F_DNS_REMOVAL_INFO (RFC 8156 section 5.5.3): what is needed to remove a name
/// that the partner has put into the DNS.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct DnsRemovalInfo<'a> {
    /// OPTION_F_DNS_HOST_NAME.
    pub host_name: Option<DnsName<'a>>,
    /// OPTION_F_DNS_ZONE_NAME.
    pub zone_name: Option<DnsName<'a>>,
    /// OPTION_F_DNS_FLAGS.
    pub flags: Option<DnsFlags>,
}

impl<'a> DnsRemovalInfo<'a> {
    /// Reads the body of the option. Of several enclosed options with one code the first counts;
    /// options that do not belong here are skipped.
    ///
    /// # Errors
    /// If one of the three options is malformed.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let options = Options::parse(data)?;
        let name = |code: OptionCode| options.first(code).map(DnsName::parse).transpose();
        let flags = match options.first(OptionCode::F_DNS_FLAGS) {
            Some(data) => Some(DnsFlags(super::option::u16_body("OPTION_F_DNS_FLAGS", data)?)),
            None => None,
        };
        Ok(Self {
            host_name: name(OptionCode::F_DNS_HOST_NAME)?,
            zone_name: name(OptionCode::F_DNS_ZONE_NAME)?,
            flags,
        })
    }

    /// Appends the whole option.
    pub fn emit(&self, out: &mut Emitter<'_>) {
        let mark = out.begin(OptionCode::F_DNS_REMOVAL_INFO);
        if let Some(name) = self.host_name {
            out.option(OptionCode::F_DNS_HOST_NAME, name.as_bytes());
        }
        if let Some(name) = self.zone_name {
            out.option(OptionCode::F_DNS_ZONE_NAME, name.as_bytes());
        }
        if let Some(flags) = self.flags {
            out.option(OptionCode::F_DNS_FLAGS, &flags.0.to_be_bytes());
        }
        out.end(mark);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names() {
        for (octets, labels) in [
            (&b"\x03foo\x07example\x00"[..], &[&b"foo"[..], b"example"][..]),
            (b"\x03foo", &[b"foo"]),
            (b"\x00", &[]),
            (b"", &[]),
        ] {
            let name = DnsName::parse(octets).unwrap();
            assert!(name.labels().eq(labels.iter().copied()), "{octets:?}");
            assert_eq!(name.as_bytes(), octets);
        }
        for octets in [&b"\x04foo"[..], b"\x00\x01a", b"\xc0\x0c", b"\x40", &[0; 2]] {
            assert!(DnsName::parse(octets).is_err(), "{octets:?}");
        }
    }

    #[test]
    fn longest_name() {
        let label = [&[63_u8][..], &[b'a'; 63]].concat();
        let name = [&label[..], &label, &label, &[61], &[b'b'; 61], &[0]].concat();
        assert_eq!(name.len(), 255);
        assert_eq!(DnsName::parse(&name).unwrap().labels().count(), 4);
        let longer = [&label[..], &label, &label, &[62], &[b'b'; 62], &[0]].concat();
        let error = WireError::BadValue { what: "DNS name length", value: 256 };
        assert_eq!(DnsName::parse(&longer), Err(error));
    }

    #[test]
    fn removal_info_as_in_the_rfc() {
        let info = DnsRemovalInfo {
            host_name: Some(DnsName::parse(b"\x01h\x00").unwrap()),
            zone_name: Some(DnsName::parse(b"\x01z\x00").unwrap()),
            flags: Some(DnsFlags::REV_UPTODATE.with(DnsFlags::FWD_UPTODATE)),
        };
        let mut buffer = [0; 64];
        let mut out = Emitter::new(&mut buffer);
        info.emit(&mut out);
        let len = out.finish().unwrap();
        let expected =
            [0, 116, 0, 20, 0, 117, 0, 3, 1, b'h', 0, 0, 118, 0, 3, 1, b'z', 0, 0, 119, 0, 2, 0, 3];
        assert_eq!(&buffer[..len], expected);
        assert_eq!(DnsRemovalInfo::parse(&buffer[4..len]), Ok(info));
        assert_eq!(DnsRemovalInfo::parse(&[]), Ok(DnsRemovalInfo::default()));
        assert!(DnsRemovalInfo::parse(&[0, 119, 0, 3, 0, 0, 0]).is_err());
    }
}

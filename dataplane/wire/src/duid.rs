use std::fmt;

use crate::WireError;

/// The longest DUID: a type of two octets and an identifier of 128 (RFC 8415 section 11.1).
pub const DUID_LEN_MAX: usize = 130;

/// A DHCP unique identifier, kept whole and opaque (RFC 8415 section 11). Between 3 and
/// [`DUID_LEN_MAX`] octets, the type code included.
#[derive(Clone, Copy)]
pub struct Duid {
    len: u8,
    octets: [u8; DUID_LEN_MAX],
}

impl Duid {
    /// Takes the body of a Client or Server Identifier option.
    ///
    /// # Errors
    /// [`WireError::Truncated`] below three octets, [`WireError::BadValue`] above the maximum.
    pub fn new(octets: &[u8]) -> Result<Self, WireError> {
        Self::check(octets)?;
        let mut duid =
            Self { len: u8::try_from(octets.len()).unwrap_or(0), octets: [0; DUID_LEN_MAX] };
        duid.octets[..octets.len()].copy_from_slice(octets);
        Ok(duid)
    }

    /// Checks the length of a DUID without copying it.
    ///
    /// # Errors
    /// As [`Duid::new`].
    pub fn check(octets: &[u8]) -> Result<&[u8], WireError> {
        if octets.len() < 3 {
            return Err(WireError::Truncated { what: "DUID", have: octets.len(), need: 3 });
        }
        if octets.len() > DUID_LEN_MAX {
            let value = u32::try_from(octets.len()).unwrap_or(u32::MAX);
            return Err(WireError::BadValue { what: "DUID length", value });
        }
        Ok(octets)
    }

    /// The octets, type code first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.octets[..usize::from(self.len)]
    }
}

impl PartialEq for Duid {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for Duid {}

impl std::hash::Hash for Duid {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Colon-separated hexadecimal, as operators write DUIDs.
impl fmt::Display for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, octet) in self.as_bytes().iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Duid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Duid({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn length_bounds() {
        assert!(Duid::new(&[0, 1]).is_err());
        assert!(Duid::new(&[0, 3, 9]).is_ok());
        assert!(Duid::new(&[7; DUID_LEN_MAX]).is_ok());
        assert!(Duid::new(&[7; DUID_LEN_MAX + 1]).is_err());
    }

    #[test]
    fn prints_as_hex() {
        assert_eq!(Duid::new(&[0, 3, 0xab]).unwrap().to_string(), "00:03:ab");
    }
}

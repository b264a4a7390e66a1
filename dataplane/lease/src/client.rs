use std::fmt;

use gemel_wire::IaId;

use crate::IaKind;

/// The longest DUID that is kept inside the binding; longer ones go to the heap. Real DUIDs have
/// 10 to 18 octets.
const INLINE_LEN_MAX: usize = 22;

/// A client's DUID in a quarter of the space of [`gemel_wire::Duid`], since a server holds millions.
/// Empty where a lease has no client.
#[derive(Clone)]
pub struct ClientDuid(Repr);

#[derive(Clone)]
enum Repr {
    Inline { len: u8, octets: [u8; INLINE_LEN_MAX] },
    Heap(Box<[u8]>),
}

impl ClientDuid {
    /// No client.
    pub const NONE: Self = Self(Repr::Inline { len: 0, octets: [0; INLINE_LEN_MAX] });

    /// Copies the octets; the caller has checked the length ([`gemel_wire::Duid::check`]).
    #[must_use]
    pub fn new(octets: &[u8]) -> Self {
        match u8::try_from(octets.len()) {
            Ok(len) if octets.len() <= INLINE_LEN_MAX => {
                let mut inline = [0; INLINE_LEN_MAX];
                inline[..octets.len()].copy_from_slice(octets);
                Self(Repr::Inline { len, octets: inline })
            }
            _ => Self(Repr::Heap(octets.into())),
        }
    }

    /// The octets, type code first.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Inline { len, octets } => &octets[..usize::from(*len)],
            Repr::Heap(octets) => octets,
        }
    }
}

impl PartialEq for ClientDuid {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ClientDuid {}

/// Colon-separated hexadecimal, as operators write DUIDs; `-` for none.
impl fmt::Display for ClientDuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.as_bytes().is_empty() {
            return f.write_str("-");
        }
        for (i, octet) in self.as_bytes().iter().enumerate() {
            let colon = if i == 0 { "" } else { ":" };
            write!(f, "{colon}{octet:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for ClientDuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ClientDuid({self})")
    }
}

/// Which identity association of which client: what bindings are indexed by
/// (RFC 8415 section 4.2, "Binding").
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ClientKey<'a> {
    /// The client's DUID.
    pub duid: &'a [u8],
    /// Address or prefix association.
    pub kind: IaKind,
    /// The IAID.
    pub iaid: IaId,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_small_and_holds_any_length() {
        assert_eq!(size_of::<ClientDuid>(), 24);
        for len in 0..=gemel_wire::DUID_LEN_MAX {
            let octets: Vec<u8> = (0..len).map(|i| u8::try_from(i).unwrap()).collect();
            assert_eq!(ClientDuid::new(&octets).as_bytes(), octets);
        }
    }
}

use std::{fmt, net::Ipv6Addr};

use gemel_wire::IaId;

use crate::{AbsoluteTime, ClientDuid, ClientKey};

/// The kind of identity association a lease belongs to.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
#[repr(u8)]
pub enum IaKind {
    /// Non-temporary address, IA_NA (RFC 8415 section 21.4).
    Na = 1,
    /// Temporary address, IA_TA (RFC 8415 section 21.5): never assigned here, but kept for a partner.
    Ta = 2,
    /// Delegated prefix, IA_PD (RFC 8415 section 21.21).
    Pd = 3,
}

impl IaKind {
    /// The kind with this number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Na),
            2 => Some(Self::Ta),
            3 => Some(Self::Pd),
            _ => None,
        }
    }
}

impl fmt::Display for IaKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Na => "na",
            Self::Ta => "ta",
            Self::Pd => "pd",
        })
    }
}

/// What is leased: an address (length 128) or a delegated prefix.
#[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Lease {
    /// The address, or the first address of the prefix.
    pub address: Ipv6Addr,
    /// Prefix length in bits; 128 for an address.
    pub prefix_len: u8,
}

impl Lease {
    /// A single address.
    #[must_use]
    pub const fn address(address: Ipv6Addr) -> Self {
        Self { address, prefix_len: 128 }
    }

    /// A delegated prefix.
    #[must_use]
    pub const fn prefix(address: Ipv6Addr, prefix_len: u8) -> Self {
        Self { address, prefix_len }
    }

    /// The address as a number.
    #[must_use]
    pub const fn bits(&self) -> u128 {
        self.address.to_bits()
    }
}

impl fmt::Display for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.prefix_len == 128 {
            self.address.fmt(f)
        } else {
            write!(f, "{}/{}", self.address, self.prefix_len)
        }
    }
}

impl fmt::Debug for Lease {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// The status of a lease (RFC 8156 sections 5.5.1 and 7.2); the numbers are those of the wire.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
#[repr(u8)]
pub enum BindingStatus {
    /// Leased to a client.
    Active = 1,
    /// The valid lifetime has ended.
    Expired = 2,
    /// The client has given it back.
    Released = 3,
    /// Ended and acknowledged by the partner, about to be free.
    PendingFree = 4,
    /// Available; for a prefix, to the primary.
    Free = 5,
    /// A prefix available to the secondary.
    FreeBackup = 6,
    /// Found in use by somebody else: declined by a client.
    Abandoned = 7,
    /// Returned to service by an operator.
    Reset = 8,
}

impl BindingStatus {
    /// The status with this number.
    #[must_use]
    pub const fn from_u8(value: u8) -> Option<Self> {
        match value {
            1 => Some(Self::Active),
            2 => Some(Self::Expired),
            3 => Some(Self::Released),
            4 => Some(Self::PendingFree),
            5 => Some(Self::Free),
            6 => Some(Self::FreeBackup),
            7 => Some(Self::Abandoned),
            8 => Some(Self::Reset),
            _ => None,
        }
    }
}

impl fmt::Display for BindingStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Released => "released",
            Self::PendingFree => "pending-free",
            Self::Free => "free",
            Self::FreeBackup => "free-backup",
            Self::Abandoned => "abandoned",
            Self::Reset => "reset",
        })
    }
}

/// One lease and whom it belongs to, with the times of RFC 8156 section 7.3.
///
/// A server without a partner leaves the partner's three times at [`AbsoluteTime::ZERO`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Binding {
    /// Address or prefix.
    pub lease: Lease,
    /// The kind of identity association.
    pub kind: IaKind,
    /// The status.
    pub status: BindingStatus,
    /// The client that has it, or had it last.
    pub duid: ClientDuid,
    /// The IAID of that client's identity association.
    pub iaid: IaId,
    /// Preferred lifetime last given to the client, in seconds.
    pub preferred_lifetime: u32,
    /// Valid lifetime last given to the client, in seconds.
    pub valid_lifetime: u32,
    /// When the client last spoke about this lease.
    pub client_last_transaction_time: AbsoluteTime,
    /// When the status became what it is.
    pub start_time_of_state: AbsoluteTime,
    /// When the status ends by itself: of an [`BindingStatus::Active`] lease the end of the valid
    /// lifetime given to the client, of an [`BindingStatus::Abandoned`] one the end of its
    /// quarantine; [`AbsoluteTime::ZERO`] where it does not.
    pub state_expiration_time: AbsoluteTime,
    /// The greatest lifetime that this server has acknowledged to its partner: until then, and the
    /// MCLT beyond, the partner may have given the lease to the client.
    pub expiration_time: AbsoluteTime,
    /// The lifetime told to the partner, or to be told; [`AbsoluteTime::ZERO`] when the partner has
    /// acknowledged it (section 7.7).
    pub partner_lifetime: AbsoluteTime,
    /// The greatest lifetime that the partner has acknowledged.
    pub acked_partner_lifetime: AbsoluteTime,
    /// The partner's own client-last-transaction-time, as it sent it.
    pub partner_raw_clt_time: AbsoluteTime,
    /// Whether the partner still has to acknowledge the binding as it is now.
    pub update_pending: bool,
}

impl Binding {
    /// Nobody's binding of nothing, as a placeholder.
    pub const EMPTY: Self = Self {
        lease: Lease::address(Ipv6Addr::UNSPECIFIED),
        kind: IaKind::Na,
        status: BindingStatus::Free,
        duid: ClientDuid::NONE,
        iaid: IaId(0),
        preferred_lifetime: 0,
        valid_lifetime: 0,
        client_last_transaction_time: AbsoluteTime::ZERO,
        start_time_of_state: AbsoluteTime::ZERO,
        state_expiration_time: AbsoluteTime::ZERO,
        expiration_time: AbsoluteTime::ZERO,
        partner_lifetime: AbsoluteTime::ZERO,
        acked_partner_lifetime: AbsoluteTime::ZERO,
        partner_raw_clt_time: AbsoluteTime::ZERO,
        update_pending: false,
    };

    /// What the binding is indexed by.
    #[must_use]
    pub fn client_key(&self) -> ClientKey<'_> {
        ClientKey { duid: self.duid.as_bytes(), kind: self.kind, iaid: self.iaid }
    }

    /// Whether a client may use the lease at `now`.
    #[must_use]
    pub fn is_active(&self, now: AbsoluteTime) -> bool {
        self.status == BindingStatus::Active && now < self.state_expiration_time
    }
}

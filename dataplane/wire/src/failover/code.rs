use std::fmt;

use crate::code::open_enum;

open_enum! {
    /// Status of a lease (RFC 8156 section 5.5.1; meaning: section 7.2).
    BindingStatus(u8) {
        /// Assigned to a client.
        ACTIVE = 1, "ACTIVE";
        /// The client's binding has expired.
        EXPIRED = 2, "EXPIRED";
        /// The client has sent RELEASE.
        RELEASED = 3, "RELEASED";
        /// Was expired or released, about to become FREE or FREE-BACKUP.
        PENDING_FREE = 4, "PENDING-FREE";
        /// Available to the primary.
        FREE = 5, "FREE";
        /// Available to the secondary.
        FREE_BACKUP = 6, "FREE-BACKUP";
        /// Considered unusable, mostly because a client has sent DECLINE.
        ABANDONED = 7, "ABANDONED";
        /// Made available by an operator.
        RESET = 8, "RESET";
    }
}

open_enum! {
    /// State of a failover endpoint (RFC 8156 section 5.5.16; meaning: section 8).
    ServerState(u8) {
        /// Never on the wire: [`ServerFlags::STARTUP`] tells it (section 8.3).
        STARTUP = 1, "STARTUP";
        /// Section 8.8.
        NORMAL = 2, "NORMAL";
        /// Section 8.9.
        COMMUNICATIONS_INTERRUPTED = 3, "COMMUNICATIONS-INTERRUPTED";
        /// Section 8.4.
        PARTNER_DOWN = 4, "PARTNER-DOWN";
        /// Section 8.10.
        POTENTIAL_CONFLICT = 5, "POTENTIAL-CONFLICT";
        /// Section 8.5.
        RECOVER = 6, "RECOVER";
        /// Section 8.6.
        RECOVER_WAIT = 7, "RECOVER-WAIT";
        /// Section 8.7.
        RECOVER_DONE = 8, "RECOVER-DONE";
        /// Section 8.11.
        RESOLUTION_INTERRUPTED = 9, "RESOLUTION-INTERRUPTED";
        /// Section 8.12.
        CONFLICT_DONE = 10, "CONFLICT-DONE";
    }
}

/// Declares a set of flag bits. Bits that must be zero survive a round trip and are ignored by
/// `contains`.
macro_rules! flags {
    ($(#[$meta:meta])* $name:ident($int:ty) { $($(#[$vmeta:meta])* $konst:ident = $value:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Default, Eq, Hash, PartialEq)]
        pub struct $name(pub $int);

        impl $name {
            /// No flag is set.
            pub const NONE: Self = Self(0);
            $($(#[$vmeta])* pub const $konst: Self = Self($value);)*

            /// Whether all of `flags` are set.
            #[must_use]
            pub const fn contains(self, flags: Self) -> bool {
                self.0 & flags.0 == flags.0
            }

            /// These flags and those.
            #[must_use]
            pub const fn with(self, flags: Self) -> Self {
                Self(self.0 | flags.0)
            }
        }

        /// The names of the flags, and in hexadecimal the bits that have none.
        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut set = f.debug_set();
                let mut rest = self.0;
                $(if self.contains(Self::$konst) {
                    set.entry(&format_args!("{}", stringify!($konst)));
                    rest &= !$value;
                })*
                if rest != 0 {
                    set.entry(&format_args!("{rest:#x}"));
                }
                set.finish()
            }
        }
    };
}

flags! {
    /// Attributes of the connecting server (RFC 8156 section 5.5.2).
    ConnectFlags(u16) {
        /// F: all prefixes delegated from one delegable prefix have one length.
        FIXED_PD_LENGTH = 0x0001;
    }
}

flags! {
    /// What is needed to remove a DNS name (RFC 8156 section 5.5.3.3).
    DnsFlags(u16) {
        /// U: the name came from the client's FQDN.
        USING_REQUESTED_FQDN = 0x0008;
        /// S: the name was made by an algorithm.
        SYNTHESIZED_NAME = 0x0004;
        /// R: the reverse zone is up to date.
        REV_UPTODATE = 0x0002;
        /// F: the forward zone is up to date.
        FWD_UPTODATE = 0x0001;
    }
}

flags! {
    /// Flags of the sending endpoint (RFC 8156 section 5.5.15).
    ServerFlags(u8) {
        /// A: the flags received last had STARTUP set.
        ACK_STARTUP = 0x04;
        /// S: the sender is in STARTUP state.
        STARTUP = 0x02;
        /// C: the sender has communicated with its partner.
        COMMUNICATED = 0x01;
    }
}

/// Version of the failover protocol (RFC 8156 section 5.5.11).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct ProtocolVersion {
    /// Counts large changes.
    pub major: u16,
    /// Counts small changes.
    pub minor: u16,
}

impl ProtocolVersion {
    /// The version of RFC 8156: 1.0.
    pub const RFC8156: Self = Self { major: 1, minor: 0 };
}

impl fmt::Display for ProtocolVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.major, self.minor)
    }
}

/// Maximum Client Lead Time in seconds (RFC 8156 section 5.5.6): how much longer a lifetime given
/// to a client may be than what the partner knows.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mclt(pub u32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unknown_values_stay() {
        assert_eq!(BindingStatus(9).name(), None);
        assert_eq!(format!("{:?} {}", BindingStatus(9), BindingStatus(9)), "BindingStatus(9) 9");
        assert_eq!(ServerState::CONFLICT_DONE.to_string(), "CONFLICT-DONE");
    }

    #[test]
    fn flags() {
        let flags = ServerFlags::STARTUP.with(ServerFlags(0x80));
        assert!(flags.contains(ServerFlags::STARTUP) && flags.contains(ServerFlags::NONE));
        assert!(!flags.contains(ServerFlags::STARTUP.with(ServerFlags::COMMUNICATED)));
        assert_eq!(format!("{flags:?}"), "{STARTUP, 0x80}");
    }
}

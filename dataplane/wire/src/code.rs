use std::fmt;

/// Declares an integer newtype with named constants: a registry is an open set, so a value that
/// is not named here survives a round trip.
macro_rules! open_enum {
    ($(#[$meta:meta])* $name:ident($int:ty) { $($(#[$vmeta:meta])* $konst:ident = $value:literal, $text:literal;)* }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub struct $name(pub $int);

        impl $name {
            $($(#[$vmeta])* pub const $konst: Self = Self($value);)*

            /// The name in the registry, if this crate knows it.
            #[must_use]
            pub const fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($value => Some($text),)*
                    _ => None,
                }
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => write!(f, "{name}({})", self.0),
                    None => write!(f, "{}({})", stringify!($name), self.0),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self.name() {
                    Some(name) => f.write_str(name),
                    None => write!(f, "{}", self.0),
                }
            }
        }
    };
}

pub(crate) use open_enum;

open_enum! {
    /// DHCPv6 message type (RFC 8415 section 7.3).
    MessageType(u8) {
        /// Section 16.2.
        SOLICIT = 1, "SOLICIT";
        /// Section 16.3.
        ADVERTISE = 2, "ADVERTISE";
        /// Section 16.4.
        REQUEST = 3, "REQUEST";
        /// Section 16.5.
        CONFIRM = 4, "CONFIRM";
        /// Section 16.6.
        RENEW = 5, "RENEW";
        /// Section 16.7.
        REBIND = 6, "REBIND";
        /// Section 16.10.
        REPLY = 7, "REPLY";
        /// Section 16.9.
        RELEASE = 8, "RELEASE";
        /// Section 16.8.
        DECLINE = 9, "DECLINE";
        /// Section 16.11.
        RECONFIGURE = 10, "RECONFIGURE";
        /// Section 16.12.
        INFORMATION_REQUEST = 11, "INFORMATION-REQUEST";
        /// Section 16.13.
        RELAY_FORW = 12, "RELAY-FORW";
        /// Section 16.14.
        RELAY_REPL = 13, "RELAY-REPL";
        /// RFC 5007.
        LEASEQUERY = 14, "LEASEQUERY";
        /// RFC 5007.
        LEASEQUERY_REPLY = 15, "LEASEQUERY-REPLY";
        /// RFC 5460.
        LEASEQUERY_DONE = 16, "LEASEQUERY-DONE";
        /// RFC 5460.
        LEASEQUERY_DATA = 17, "LEASEQUERY-DATA";
        /// RFC 7653 section 6.2.2.
        STARTTLS = 23, "STARTTLS";
        /// RFC 8156 section 5.3.1.
        BNDUPD = 24, "BNDUPD";
        /// RFC 8156 section 5.3.2.
        BNDREPLY = 25, "BNDREPLY";
        /// RFC 8156 section 5.3.3.
        POOLREQ = 26, "POOLREQ";
        /// RFC 8156 section 5.3.4.
        POOLRESP = 27, "POOLRESP";
        /// RFC 8156 section 5.3.5.
        UPDREQ = 28, "UPDREQ";
        /// RFC 8156 section 5.3.6.
        UPDREQALL = 29, "UPDREQALL";
        /// RFC 8156 section 5.3.7.
        UPDDONE = 30, "UPDDONE";
        /// RFC 8156 section 5.3.8.
        CONNECT = 31, "CONNECT";
        /// RFC 8156 section 5.3.9.
        CONNECTREPLY = 32, "CONNECTREPLY";
        /// RFC 8156 section 5.3.10.
        DISCONNECT = 33, "DISCONNECT";
        /// RFC 8156 section 5.3.11.
        STATE = 34, "STATE";
        /// RFC 8156 section 5.3.12.
        CONTACT = 35, "CONTACT";
    }
}

open_enum! {
    /// DHCPv6 option code (RFC 8415 section 21 and the registry).
    OptionCode(u16) {
        /// Client Identifier, section 21.2.
        CLIENT_ID = 1, "OPTION_CLIENTID";
        /// Server Identifier, section 21.3.
        SERVER_ID = 2, "OPTION_SERVERID";
        /// Identity Association for Non-temporary Addresses, section 21.4.
        IA_NA = 3, "OPTION_IA_NA";
        /// Identity Association for Temporary Addresses, section 21.5; obsoleted by RFC 9915.
        IA_TA = 4, "OPTION_IA_TA";
        /// IA Address, section 21.6.
        IA_ADDR = 5, "OPTION_IAADDR";
        /// Option Request, section 21.7.
        ORO = 6, "OPTION_ORO";
        /// Preference, section 21.8.
        PREFERENCE = 7, "OPTION_PREFERENCE";
        /// Elapsed Time, section 21.9.
        ELAPSED_TIME = 8, "OPTION_ELAPSED_TIME";
        /// Relay Message, section 21.10.
        RELAY_MSG = 9, "OPTION_RELAY_MSG";
        /// Authentication, section 21.11.
        AUTH = 11, "OPTION_AUTH";
        /// Server Unicast, section 21.12; obsoleted by RFC 9915, never sent.
        UNICAST = 12, "OPTION_UNICAST";
        /// Status Code, section 21.13.
        STATUS_CODE = 13, "OPTION_STATUS_CODE";
        /// Rapid Commit, section 21.14.
        RAPID_COMMIT = 14, "OPTION_RAPID_COMMIT";
        /// User Class, section 21.15.
        USER_CLASS = 15, "OPTION_USER_CLASS";
        /// Vendor Class, section 21.16.
        VENDOR_CLASS = 16, "OPTION_VENDOR_CLASS";
        /// Vendor-specific Information, section 21.17.
        VENDOR_OPTS = 17, "OPTION_VENDOR_OPTS";
        /// Interface-Id, section 21.18.
        INTERFACE_ID = 18, "OPTION_INTERFACE_ID";
        /// Reconfigure Message, section 21.19.
        RECONF_MSG = 19, "OPTION_RECONF_MSG";
        /// Reconfigure Accept, section 21.20.
        RECONF_ACCEPT = 20, "OPTION_RECONF_ACCEPT";
        /// DNS Recursive Name Server, RFC 3646.
        DNS_SERVERS = 23, "OPTION_DNS_SERVERS";
        /// Domain Search List, RFC 3646.
        DOMAIN_LIST = 24, "OPTION_DOMAIN_LIST";
        /// Identity Association for Prefix Delegation, section 21.21.
        IA_PD = 25, "OPTION_IA_PD";
        /// IA Prefix, section 21.22.
        IA_PREFIX = 26, "OPTION_IAPREFIX";
        /// Simple Network Time Protocol Servers, RFC 4075.
        SNTP_SERVERS = 31, "OPTION_SNTP_SERVERS";
        /// Information Refresh Time, section 21.23.
        INFORMATION_REFRESH_TIME = 32, "OPTION_INFORMATION_REFRESH_TIME";
        /// Relay Agent Remote-ID, RFC 4649.
        REMOTE_ID = 37, "OPTION_REMOTE_ID";
        /// Relay Agent Subscriber-ID, RFC 4580.
        SUBSCRIBER_ID = 38, "OPTION_SUBSCRIBER_ID";
        /// Client FQDN, RFC 4704.
        CLIENT_FQDN = 39, "OPTION_CLIENT_FQDN";
        /// Client Data, RFC 5007 section 4.1.2.2.
        CLIENT_DATA = 45, "OPTION_CLIENT_DATA";
        /// Client Last Transaction Time, RFC 5007 section 4.1.2.3.
        CLT_TIME = 46, "OPTION_CLT_TIME";
        /// Relay Data, RFC 5007 section 4.1.2.4.
        LQ_RELAY_DATA = 47, "OPTION_LQ_RELAY_DATA";
        /// Network Time Protocol server, RFC 5908.
        NTP_SERVER = 56, "OPTION_NTP_SERVER";
        /// Prefix Exclude, RFC 6603.
        PD_EXCLUDE = 67, "OPTION_PD_EXCLUDE";
        /// Virtual Subnet Selection, RFC 6607 section 3.4.
        VSS = 68, "OPTION_VSS";
        /// Client Link-Layer Address, RFC 6939.
        CLIENT_LINKLAYER_ADDR = 79, "OPTION_CLIENT_LINKLAYER_ADDR";
        /// SOL_MAX_RT, section 21.24.
        SOL_MAX_RT = 82, "OPTION_SOL_MAX_RT";
        /// INF_MAX_RT, section 21.25.
        INF_MAX_RT = 83, "OPTION_INF_MAX_RT";
        /// Base Time, RFC 7653 section 6.3.1.
        LQ_BASE_TIME = 100, "OPTION_LQ_BASE_TIME";
        /// RFC 8156 section 5.5.1.
        F_BINDING_STATUS = 114, "OPTION_F_BINDING_STATUS";
        /// RFC 8156 section 5.5.2.
        F_CONNECT_FLAGS = 115, "OPTION_F_CONNECT_FLAGS";
        /// RFC 8156 section 5.5.3.
        F_DNS_REMOVAL_INFO = 116, "OPTION_F_DNS_REMOVAL_INFO";
        /// RFC 8156 section 5.5.3.1.
        F_DNS_HOST_NAME = 117, "OPTION_F_DNS_HOST_NAME";
        /// RFC 8156 section 5.5.3.2.
        F_DNS_ZONE_NAME = 118, "OPTION_F_DNS_ZONE_NAME";
        /// RFC 8156 section 5.5.3.3.
        F_DNS_FLAGS = 119, "OPTION_F_DNS_FLAGS";
        /// RFC 8156 section 5.5.4.
        F_EXPIRATION_TIME = 120, "OPTION_F_EXPIRATION_TIME";
        /// RFC 8156 section 5.5.5.
        F_MAX_UNACKED_BNDUPD = 121, "OPTION_F_MAX_UNACKED_BNDUPD";
        /// RFC 8156 section 5.5.6.
        F_MCLT = 122, "OPTION_F_MCLT";
        /// RFC 8156 section 5.5.7.
        F_PARTNER_LIFETIME = 123, "OPTION_F_PARTNER_LIFETIME";
        /// RFC 8156 section 5.5.8.
        F_PARTNER_LIFETIME_SENT = 124, "OPTION_F_PARTNER_LIFETIME_SENT";
        /// RFC 8156 section 5.5.9.
        F_PARTNER_DOWN_TIME = 125, "OPTION_F_PARTNER_DOWN_TIME";
        /// RFC 8156 section 5.5.10.
        F_PARTNER_RAW_CLT_TIME = 126, "OPTION_F_PARTNER_RAW_CLT_TIME";
        /// RFC 8156 section 5.5.11.
        F_PROTOCOL_VERSION = 127, "OPTION_F_PROTOCOL_VERSION";
        /// RFC 8156 section 5.5.12.
        F_KEEPALIVE_TIME = 128, "OPTION_F_KEEPALIVE_TIME";
        /// RFC 8156 section 5.5.13.
        F_RECONFIGURE_DATA = 129, "OPTION_F_RECONFIGURE_DATA";
        /// RFC 8156 section 5.5.14.
        F_RELATIONSHIP_NAME = 130, "OPTION_F_RELATIONSHIP_NAME";
        /// RFC 8156 section 5.5.15.
        F_SERVER_FLAGS = 131, "OPTION_F_SERVER_FLAGS";
        /// RFC 8156 section 5.5.16.
        F_SERVER_STATE = 132, "OPTION_F_SERVER_STATE";
        /// RFC 8156 section 5.5.17.
        F_START_TIME_OF_STATE = 133, "OPTION_F_START_TIME_OF_STATE";
        /// RFC 8156 section 5.5.18.
        F_STATE_EXPIRATION_TIME = 134, "OPTION_F_STATE_EXPIRATION_TIME";
        /// Relay Source Port, RFC 8357.
        RELAY_PORT = 135, "OPTION_RELAY_PORT";
    }
}

open_enum! {
    /// Status code (RFC 8415 section 21.13).
    StatusCode(u16) {
        /// Success.
        SUCCESS = 0, "Success";
        /// Failure, reason unspecified.
        UNSPEC_FAIL = 1, "UnspecFail";
        /// The server has no addresses available to assign to the IA.
        NO_ADDRS_AVAIL = 2, "NoAddrsAvail";
        /// Client record (binding) unavailable.
        NO_BINDING = 3, "NoBinding";
        /// The prefix for the address is not appropriate for the link.
        NOT_ON_LINK = 4, "NotOnLink";
        /// Use multicast; obsoleted by RFC 9915, never sent.
        USE_MULTICAST = 5, "UseMulticast";
        /// The server has no prefixes available to assign to the IA_PD.
        NO_PREFIX_AVAIL = 6, "NoPrefixAvail";
        /// What was asked for is not supported (RFC 7653); also an unknown version of the failover
        /// protocol (RFC 8156 section 6.1.2).
        NOT_SUPPORTED = 14, "NotSupported";
        /// No TLS on this connection (RFC 7653 section 9.1).
        TLS_CONNECTION_REFUSED = 15, "TLSConnectionRefused";
        /// The lease is another client's, or another IAID's, on the other server (RFC 8156
        /// section 5.6, as all below).
        ADDRESS_IN_USE = 16, "AddressInUse";
        /// A BNDUPD contradicts the receiver's configuration.
        CONFIGURATION_CONFLICT = 17, "ConfigurationConflict";
        /// A BNDUPD does not hold enough to be processed.
        MISSING_BINDING_INFORMATION = 18, "MissingBindingInformation";
        /// The receiver of a BNDUPD knows the lease better.
        OUTDATED_BINDING_INFORMATION = 19, "OutdatedBindingInformation";
        /// A planned shutdown.
        SERVER_SHUTTING_DOWN = 20, "ServerShuttingDown";
        /// A BNDUPD holds DNS update information, and the receiver does no DNS updates.
        DNS_UPDATE_NOT_SUPPORTED = 21, "DNSUpdateNotSupported";
        /// The partners' clocks differ by more than 5 seconds.
        EXCESSIVE_TIME_SKEW = 22, "ExcessiveTimeSkew";
    }
}

/// Transaction identifier: three octets, opaque (RFC 8415 section 8).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct TransactionId(pub [u8; 3]);

/// Identity association identifier, unique among a client's IAs of one type (RFC 8415 section 12).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct IaId(pub u32);

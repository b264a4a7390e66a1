use std::net::Ipv6Addr;

use super::{
    BindingStatus, ConnectFlags, DnsFlags, DnsName, DnsRemovalInfo, FailoverTime, Mclt,
    ProtocolVersion, ServerFlags, ServerState,
};
use crate::{Emitter, OptionCode, Options, RawOption, WireError};

/// One option of a failover message (RFC 8156 section 5.5), its body read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailoverOption<'a> {
    /// OPTION_CLIENT_DATA: what is known of a client (RFC 5007 section 4.1.2.2).
    ClientData(Options<'a>),
    /// OPTION_CLT_TIME: seconds since the client was last heard, counted back from the base time
    /// (RFC 5007 section 4.1.2.3).
    CltTime(u32),
    /// OPTION_LQ_RELAY_DATA (RFC 5007 section 4.1.2.4).
    LqRelayData(RelayData<'a>),
    /// OPTION_LQ_BASE_TIME: when the information was put together (RFC 7653 section 6.3.1).
    LqBaseTime(FailoverTime),
    /// Section 5.5.1.
    BindingStatus(BindingStatus),
    /// Section 5.5.2.
    ConnectFlags(ConnectFlags),
    /// Section 5.5.3.
    DnsRemovalInfo(DnsRemovalInfo<'a>),
    /// Section 5.5.3.1.
    DnsHostName(DnsName<'a>),
    /// Section 5.5.3.2.
    DnsZoneName(DnsName<'a>),
    /// Section 5.5.3.3.
    DnsFlags(DnsFlags),
    /// Section 5.5.4.
    ExpirationTime(FailoverTime),
    /// Number of messages; section 5.5.5.
    MaxUnackedBndUpd(u32),
    /// Section 5.5.6.
    Mclt(Mclt),
    /// Section 5.5.7.
    PartnerLifetime(FailoverTime),
    /// Section 5.5.8.
    PartnerLifetimeSent(FailoverTime),
    /// Section 5.5.9.
    PartnerDownTime(FailoverTime),
    /// Section 5.5.10.
    PartnerRawCltTime(FailoverTime),
    /// Section 5.5.11.
    ProtocolVersion(ProtocolVersion),
    /// Seconds; section 5.5.12.
    KeepaliveTime(u32),
    /// Section 5.5.13.
    ReconfigureData(ReconfigureData<'a>),
    /// Section 5.5.14.
    RelationshipName(RelationshipName<'a>),
    /// Section 5.5.15.
    ServerFlags(ServerFlags),
    /// Section 5.5.16.
    ServerState(ServerState),
    /// Section 5.5.17.
    StartTimeOfState(FailoverTime),
    /// Section 5.5.18.
    StateExpirationTime(FailoverTime),
    /// Any other option.
    Other(RawOption<'a>),
}

impl<'a> FailoverOption<'a> {
    /// Reads the body of an option.
    ///
    /// # Errors
    /// If it is malformed; options of fixed length must have exactly that length.
    pub fn parse(option: RawOption<'a>) -> Result<Self, WireError> {
        let RawOption { code, data } = option;
        let name = code.name().unwrap_or("option");
        let number = || u32_body(name, data);
        let time = || number().map(FailoverTime);
        Ok(match code {
            OptionCode::CLIENT_DATA => Self::ClientData(Options::parse(data)?),
            OptionCode::CLT_TIME => Self::CltTime(number()?),
            OptionCode::LQ_RELAY_DATA => Self::LqRelayData(RelayData::parse(data)?),
            OptionCode::LQ_BASE_TIME => Self::LqBaseTime(time()?),
            OptionCode::F_BINDING_STATUS => {
                Self::BindingStatus(BindingStatus(u8_body(name, data)?))
            }
            OptionCode::F_CONNECT_FLAGS => Self::ConnectFlags(ConnectFlags(u16_body(name, data)?)),
            OptionCode::F_DNS_REMOVAL_INFO => Self::DnsRemovalInfo(DnsRemovalInfo::parse(data)?),
            OptionCode::F_DNS_HOST_NAME => Self::DnsHostName(DnsName::parse(data)?),
            OptionCode::F_DNS_ZONE_NAME => Self::DnsZoneName(DnsName::parse(data)?),
            OptionCode::F_DNS_FLAGS => Self::DnsFlags(DnsFlags(u16_body(name, data)?)),
            OptionCode::F_EXPIRATION_TIME => Self::ExpirationTime(time()?),
            OptionCode::F_MAX_UNACKED_BNDUPD => Self::MaxUnackedBndUpd(number()?),
            OptionCode::F_MCLT => Self::Mclt(Mclt(number()?)),
            OptionCode::F_PARTNER_LIFETIME => Self::PartnerLifetime(time()?),
            OptionCode::F_PARTNER_LIFETIME_SENT => Self::PartnerLifetimeSent(time()?),
            OptionCode::F_PARTNER_DOWN_TIME => Self::PartnerDownTime(time()?),
            OptionCode::F_PARTNER_RAW_CLT_TIME => Self::PartnerRawCltTime(time()?),
            OptionCode::F_PROTOCOL_VERSION => {
                let [a0, a1, i0, i1] = exact(name, data)?;
                Self::ProtocolVersion(ProtocolVersion {
                    major: u16::from_be_bytes([a0, a1]),
                    minor: u16::from_be_bytes([i0, i1]),
                })
            }
            OptionCode::F_KEEPALIVE_TIME => Self::KeepaliveTime(number()?),
            OptionCode::F_RECONFIGURE_DATA => Self::ReconfigureData(ReconfigureData::parse(data)?),
            OptionCode::F_RELATIONSHIP_NAME => {
                Self::RelationshipName(RelationshipName::parse(data)?)
            }
            OptionCode::F_SERVER_FLAGS => Self::ServerFlags(ServerFlags(u8_body(name, data)?)),
            OptionCode::F_SERVER_STATE => Self::ServerState(ServerState(u8_body(name, data)?)),
            OptionCode::F_START_TIME_OF_STATE => Self::StartTimeOfState(time()?),
            OptionCode::F_STATE_EXPIRATION_TIME => Self::StateExpirationTime(time()?),
            _ => Self::Other(option),
        })
    }

    /// The option code.
    #[must_use]
    pub fn code(&self) -> OptionCode {
        match self {
            Self::ClientData(_) => OptionCode::CLIENT_DATA,
            Self::CltTime(_) => OptionCode::CLT_TIME,
            Self::LqRelayData(_) => OptionCode::LQ_RELAY_DATA,
            Self::LqBaseTime(_) => OptionCode::LQ_BASE_TIME,
            Self::BindingStatus(_) => OptionCode::F_BINDING_STATUS,
            Self::ConnectFlags(_) => OptionCode::F_CONNECT_FLAGS,
            Self::DnsRemovalInfo(_) => OptionCode::F_DNS_REMOVAL_INFO,
            Self::DnsHostName(_) => OptionCode::F_DNS_HOST_NAME,
            Self::DnsZoneName(_) => OptionCode::F_DNS_ZONE_NAME,
            Self::DnsFlags(_) => OptionCode::F_DNS_FLAGS,
            Self::ExpirationTime(_) => OptionCode::F_EXPIRATION_TIME,
            Self::MaxUnackedBndUpd(_) => OptionCode::F_MAX_UNACKED_BNDUPD,
            Self::Mclt(_) => OptionCode::F_MCLT,
            Self::PartnerLifetime(_) => OptionCode::F_PARTNER_LIFETIME,
            Self::PartnerLifetimeSent(_) => OptionCode::F_PARTNER_LIFETIME_SENT,
            Self::PartnerDownTime(_) => OptionCode::F_PARTNER_DOWN_TIME,
            Self::PartnerRawCltTime(_) => OptionCode::F_PARTNER_RAW_CLT_TIME,
            Self::ProtocolVersion(_) => OptionCode::F_PROTOCOL_VERSION,
            Self::KeepaliveTime(_) => OptionCode::F_KEEPALIVE_TIME,
            Self::ReconfigureData(_) => OptionCode::F_RECONFIGURE_DATA,
            Self::RelationshipName(_) => OptionCode::F_RELATIONSHIP_NAME,
            Self::ServerFlags(_) => OptionCode::F_SERVER_FLAGS,
            Self::ServerState(_) => OptionCode::F_SERVER_STATE,
            Self::StartTimeOfState(_) => OptionCode::F_START_TIME_OF_STATE,
            Self::StateExpirationTime(_) => OptionCode::F_STATE_EXPIRATION_TIME,
            Self::Other(option) => option.code,
        }
    }

    /// Appends the whole option.
    pub fn emit(&self, out: &mut Emitter<'_>) {
        let code = self.code();
        match self {
            Self::ClientData(options) => out.option(code, options.as_bytes()),
            Self::CltTime(number)
            | Self::MaxUnackedBndUpd(number)
            | Self::Mclt(Mclt(number))
            | Self::KeepaliveTime(number)
            | Self::LqBaseTime(FailoverTime(number))
            | Self::ExpirationTime(FailoverTime(number))
            | Self::PartnerLifetime(FailoverTime(number))
            | Self::PartnerLifetimeSent(FailoverTime(number))
            | Self::PartnerDownTime(FailoverTime(number))
            | Self::PartnerRawCltTime(FailoverTime(number))
            | Self::StartTimeOfState(FailoverTime(number))
            | Self::StateExpirationTime(FailoverTime(number)) => {
                out.option(code, &number.to_be_bytes());
            }
            Self::ConnectFlags(ConnectFlags(flags)) | Self::DnsFlags(DnsFlags(flags)) => {
                out.option(code, &flags.to_be_bytes());
            }
            Self::BindingStatus(BindingStatus(octet))
            | Self::ServerFlags(ServerFlags(octet))
            | Self::ServerState(ServerState(octet)) => out.option(code, &[*octet]),
            Self::DnsHostName(name) | Self::DnsZoneName(name) => {
                out.option(code, name.as_bytes());
            }
            Self::DnsRemovalInfo(info) => info.emit(out),
            Self::LqRelayData(data) => data.emit(out),
            Self::ProtocolVersion(version) => {
                let mark = out.begin(code);
                out.u16(version.major);
                out.u16(version.minor);
                out.end(mark);
            }
            Self::ReconfigureData(data) => data.emit(out),
            Self::RelationshipName(name) => out.option(code, name.as_str().as_bytes()),
            Self::Other(option) => out.option(code, option.data),
        }
    }
}

/// Body of OPTION_LQ_RELAY_DATA (RFC 5007 section 4.1.2.4): through which relay agents the client
/// was last heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RelayData<'a> {
    /// The relay agent from which the server received the message.
    pub peer_address: Ipv6Addr,
    /// The RELAY-FORW without the client's message in the innermost OPTION_RELAY_MSG; to be read
    /// with [`RelayMessage::parse`](crate::RelayMessage::parse).
    pub relay_message: &'a [u8],
}

impl<'a> RelayData<'a> {
    /// Reads the body of the option; the relay message is not entered.
    ///
    /// # Errors
    /// If there is no whole address.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (address, relay_message) = head::<16>("OPTION_LQ_RELAY_DATA", data)?;
        Ok(Self { peer_address: Ipv6Addr::from(*address), relay_message })
    }

    /// Appends the whole option.
    pub fn emit(&self, out: &mut Emitter<'_>) {
        let mark = out.begin(OptionCode::LQ_RELAY_DATA);
        out.address(self.peer_address);
        out.bytes(self.relay_message);
        out.end(mark);
    }
}

/// Body of OPTION_F_RECONFIGURE_DATA (RFC 8156 section 5.5.13).
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct ReconfigureData<'a> {
    /// When the key was created.
    pub reconfigure_time: FailoverTime,
    /// The reconfigure key: a secret.
    pub reconfigure_key: &'a [u8],
}

impl<'a> ReconfigureData<'a> {
    /// Reads the body of the option.
    ///
    /// # Errors
    /// If there is no whole time.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        let (time, reconfigure_key) = head::<4>("OPTION_F_RECONFIGURE_DATA", data)?;
        let reconfigure_time = FailoverTime(u32::from_be_bytes(*time));
        Ok(Self { reconfigure_time, reconfigure_key })
    }

    /// Appends the whole option.
    pub fn emit(&self, out: &mut Emitter<'_>) {
        let mark = out.begin(OptionCode::F_RECONFIGURE_DATA);
        out.u32(self.reconfigure_time.0);
        out.bytes(self.reconfigure_key);
        out.end(mark);
    }
}

/// Leaves out the key, so that it gets into no log.
impl std::fmt::Debug for ReconfigureData<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("ReconfigureData")
            .field("reconfigure_time", &self.reconfigure_time)
            .field("reconfigure_key_len", &self.reconfigure_key.len())
            .finish()
    }
}

/// Body of OPTION_F_RELATIONSHIP_NAME (RFC 8156 section 5.5.14): UTF-8, not null-terminated.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RelationshipName<'a>(&'a str);

impl<'a> RelationshipName<'a> {
    /// Takes a name for display.
    ///
    /// # Errors
    /// [`WireError::BadValue`] if it ends in a null character.
    pub fn new(name: &'a str) -> Result<Self, WireError> {
        if name.ends_with('\0') {
            return Err(WireError::BadValue { what: "last octet of relationship-name", value: 0 });
        }
        Ok(Self(name))
    }

    /// Reads the body of the option.
    ///
    /// # Errors
    /// [`WireError::BadValue`] with the first octet that is not UTF-8, or with 0 if the name is
    /// null-terminated.
    pub fn parse(data: &'a [u8]) -> Result<Self, WireError> {
        match std::str::from_utf8(data) {
            Ok(name) => Self::new(name),
            Err(error) => Err(WireError::BadValue {
                what: "octet of relationship-name (not UTF-8)",
                value: data.get(error.valid_up_to()).map_or(0, |&octet| octet.into()),
            }),
        }
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &'a str {
        self.0
    }
}

/// A body of exactly `N` octets.
fn exact<const N: usize>(what: &'static str, data: &[u8]) -> Result<[u8; N], WireError> {
    data.try_into().map_err(|_| WireError::BadLength { what, have: data.len(), need: N })
}

fn head<'a, const N: usize>(
    what: &'static str,
    data: &'a [u8],
) -> Result<(&'a [u8; N], &'a [u8]), WireError> {
    data.split_first_chunk().ok_or(WireError::Truncated { what, have: data.len(), need: N })
}

pub(super) fn u8_body(what: &'static str, data: &[u8]) -> Result<u8, WireError> {
    exact(what, data).map(u8::from_be_bytes)
}

pub(super) fn u16_body(what: &'static str, data: &[u8]) -> Result<u16, WireError> {
    exact(what, data).map(u16::from_be_bytes)
}

pub(super) fn u32_body(what: &'static str, data: &[u8]) -> Result<u32, WireError> {
    exact(what, data).map(u32::from_be_bytes)
}

#[cfg(test)]
mod tests;

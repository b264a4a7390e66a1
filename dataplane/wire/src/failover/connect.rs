use super::error::require;
use super::{
    ConnectFlags, FailoverError, FailoverMessage, FailoverOption, Header, Mclt, ProtocolVersion,
    RelationshipName,
};
use crate::{Emitter, MessageType, OptionCode, Options, Status, StatusCode};

/// What CONNECT and an accepting CONNECTREPLY have in common (RFC 8156 sections 6.1.1 and 6.1.2):
/// all of it is mandatory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ConnectParameters {
    /// The version in which the sender writes.
    pub protocol_version: ProtocolVersion,
    /// CONNECT: as configured; CONNECTREPLY: the same back.
    pub mclt: Mclt,
    /// Seconds without a message after which the sender takes the connection for dead.
    pub keepalive_secs: u32,
    /// How many BNDUPD messages the sender takes before it has answered the first.
    pub max_unacked_bndupd: u32,
    /// Attributes of the sender.
    pub connect_flags: ConnectFlags,
}

impl ConnectParameters {
    fn emit(&self, out: &mut Emitter<'_>) {
        FailoverOption::ProtocolVersion(self.protocol_version).emit(out);
        FailoverOption::Mclt(self.mclt).emit(out);
        FailoverOption::KeepaliveTime(self.keepalive_secs).emit(out);
        FailoverOption::MaxUnackedBndUpd(self.max_unacked_bndupd).emit(out);
        FailoverOption::ConnectFlags(self.connect_flags).emit(out);
    }
}

/// Reads the parameters and, where there is one, the relationship name.
fn parse<'a>(
    within: &'static str,
    options: Options<'a>,
) -> Result<(ConnectParameters, Option<RelationshipName<'a>>), FailoverError> {
    let (mut version, mut mclt, mut keepalive) = (None, None, None);
    let (mut max_unacked, mut flags, mut name) = (None, None, None);
    for option in options {
        match FailoverOption::parse(option)? {
            FailoverOption::ProtocolVersion(value) => _ = version.get_or_insert(value),
            FailoverOption::Mclt(value) => _ = mclt.get_or_insert(value),
            FailoverOption::KeepaliveTime(value) => _ = keepalive.get_or_insert(value),
            FailoverOption::MaxUnackedBndUpd(value) => _ = max_unacked.get_or_insert(value),
            FailoverOption::ConnectFlags(value) => _ = flags.get_or_insert(value),
            FailoverOption::RelationshipName(value) => _ = name.get_or_insert(value),
            _ => {}
        }
    }
    let parameters = ConnectParameters {
        protocol_version: require(version, within, OptionCode::F_PROTOCOL_VERSION)?,
        mclt: require(mclt, within, OptionCode::F_MCLT)?,
        keepalive_secs: require(keepalive, within, OptionCode::F_KEEPALIVE_TIME)?,
        max_unacked_bndupd: require(max_unacked, within, OptionCode::F_MAX_UNACKED_BNDUPD)?,
        connect_flags: require(flags, within, OptionCode::F_CONNECT_FLAGS)?,
    };
    Ok((parameters, name))
}

/// CONNECT, the first message on a connection, from the primary (RFC 8156 sections 5.3.8, 6.1.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Connect<'a> {
    /// What the reply repeats for the other side.
    pub parameters: ConnectParameters,
    /// Which relationship; without it there is one between the two servers.
    pub relationship_name: Option<RelationshipName<'a>>,
}

impl<'a> Connect<'a> {
    /// Reads the options.
    ///
    /// # Errors
    /// If a mandatory option is missing or any is malformed.
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        message.expect(MessageType::CONNECT, "CONNECT")?;
        let (parameters, relationship_name) = parse("CONNECT", message.options)?;
        Ok(Self { parameters, relationship_name })
    }

    /// Appends the message as a frame.
    pub fn emit(&self, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::CONNECT, out, |out| {
            self.parameters.emit(out);
            if let Some(name) = self.relationship_name {
                FailoverOption::RelationshipName(name).emit(out);
            }
        });
    }
}

/// CONNECTREPLY, the secondary's answer to CONNECT (RFC 8156 sections 5.3.9 and 6.1.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ConnectReply<'a> {
    /// The connection is accepted; STATE messages follow from both sides.
    Accepted(ConnectParameters),
    /// It is rejected; the status tells why and is never Success.
    Rejected(Status<'a>),
}

impl<'a> ConnectReply<'a> {
    /// Reads the options. A status code of Success does not reject.
    ///
    /// # Errors
    /// If it does not reject and a mandatory option is missing, or any option that counts is
    /// malformed.
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        message.expect(MessageType::CONNECTREPLY, "CONNECTREPLY")?;
        match rejection(&message.options)? {
            Some(status) => Ok(Self::Rejected(status)),
            None => parse("CONNECTREPLY", message.options).map(|(it, _)| Self::Accepted(it)),
        }
    }

    /// Appends the message as a frame.
    pub fn emit(&self, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::CONNECTREPLY, out, |out| match self {
            Self::Accepted(parameters) => parameters.emit(out),
            Self::Rejected(status) => emit_status(status, out),
        });
    }
}

/// DISCONNECT, before a connection is closed on purpose (RFC 8156 section 5.3.10).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Disconnect<'a> {
    /// Why, and a text for people. Should be there.
    pub status: Option<Status<'a>>,
}

impl<'a> Disconnect<'a> {
    /// Reads the options.
    ///
    /// # Errors
    /// If the status code is malformed.
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        message.expect(MessageType::DISCONNECT, "DISCONNECT")?;
        Ok(Self { status: status(&message.options)? })
    }

    /// Appends the message as a frame.
    pub fn emit(&self, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::DISCONNECT, out, |out| {
            if let Some(status) = &self.status {
                emit_status(status, out);
            }
        });
    }
}

/// The status code option among `options`.
pub(super) fn status<'a>(options: &Options<'a>) -> Result<Option<Status<'a>>, FailoverError> {
    Ok(options.first(OptionCode::STATUS_CODE).map(Status::parse).transpose()?)
}

/// The status code among `options`, if it is an error: Success is only information (RFC 8156
/// sections 7.6 and 7.7).
pub(super) fn rejection<'a>(options: &Options<'a>) -> Result<Option<Status<'a>>, FailoverError> {
    Ok(status(options)?.filter(|status| status.code != StatusCode::SUCCESS))
}

pub(super) fn emit_status(status: &Status<'_>, out: &mut Emitter<'_>) {
    let mark = out.begin(OptionCode::STATUS_CODE);
    out.u16(status.code.0);
    out.bytes(status.message);
    out.end(mark);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::testing::{HEADER, frame, parse_frame, without};

    const PARAMETERS: ConnectParameters = ConnectParameters {
        protocol_version: ProtocolVersion::RFC8156,
        mclt: Mclt(3600),
        keepalive_secs: 60,
        max_unacked_bndupd: 10,
        connect_flags: ConnectFlags::FIXED_PD_LENGTH,
    };

    #[test]
    fn connect_names_what_is_missing() {
        let connect = Connect {
            parameters: PARAMETERS,
            relationship_name: Some(RelationshipName::new("cmts-1").unwrap()),
        };
        let octets = frame(|out| connect.emit(HEADER, out));
        assert_eq!(Connect::parse(&parse_frame(&octets)), Ok(connect));
        for option in [
            OptionCode::F_PROTOCOL_VERSION,
            OptionCode::F_MCLT,
            OptionCode::F_KEEPALIVE_TIME,
            OptionCode::F_MAX_UNACKED_BNDUPD,
            OptionCode::F_CONNECT_FLAGS,
        ] {
            let octets = without(&octets, option);
            let error = FailoverError::Missing { within: "CONNECT", option };
            assert_eq!(Connect::parse(&parse_frame(&octets)), Err(error));
            assert_eq!(error.to_string(), format!("CONNECT: {option} is missing"));
        }
        let octets = without(&octets, OptionCode::F_RELATIONSHIP_NAME);
        let unnamed = Connect { relationship_name: None, ..connect };
        assert_eq!(Connect::parse(&parse_frame(&octets)), Ok(unnamed));
        assert!(ConnectReply::parse(&parse_frame(&octets)).is_err());
    }

    #[test]
    fn connect_reply_accepts_or_rejects() {
        let status = Status { code: StatusCode::EXCESSIVE_TIME_SKEW, message: b"7 s" };
        for reply in [ConnectReply::Accepted(PARAMETERS), ConnectReply::Rejected(status)] {
            let octets = frame(|out| reply.emit(HEADER, out));
            assert_eq!(ConnectReply::parse(&parse_frame(&octets)), Ok(reply));
        }
        let octets = frame(|out| {
            HEADER.emit(MessageType::CONNECTREPLY, out, |out| {
                out.status(StatusCode::SUCCESS, "hello");
                PARAMETERS.emit(out);
            });
        });
        let accepted = Ok(ConnectReply::Accepted(PARAMETERS));
        assert_eq!(ConnectReply::parse(&parse_frame(&octets)), accepted);
        let octets = frame(|out| HEADER.emit_bare(MessageType::CONNECTREPLY, out));
        assert!(ConnectReply::parse(&parse_frame(&octets)).is_err());
    }

    #[test]
    fn disconnect_with_and_without_a_status() {
        let status = Status { code: StatusCode::SERVER_SHUTTING_DOWN, message: b"upgrade" };
        for disconnect in [Disconnect { status: Some(status) }, Disconnect { status: None }] {
            let octets = frame(|out| disconnect.emit(HEADER, out));
            assert_eq!(Disconnect::parse(&parse_frame(&octets)), Ok(disconnect));
        }
    }
}

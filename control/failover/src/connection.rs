//! One connection to the partner: handshake (section 6.1), the order of messages, clock skew
//! (section 7.5.1). What the messages bring about is the business of the endpoint.

use std::time::Duration;

use gemel_lease::AbsoluteTime;
use gemel_wire::{
    MessageType, Status, StatusCode, TransactionId,
    failover::{
        Body, Connect, ConnectFlags, ConnectParameters, ConnectReply, Disconnect, FailoverError,
        FailoverMessage, FailoverTime, Mclt, ProtocolVersion, RelationshipName, SKEW_SECS_MAX,
        ServerFlags, StateMsg, TcpMessage,
    },
};

use crate::{Config, Now, Role, ServerState, outbox::Outbox};

/// FO_CONTACT_PER_KEEPALIVE_TIME (section 6.5).
const CONTACTS_PER_KEEPALIVE: u32 = 4;

/// How much of the partner's words gets into a log.
const TEXT_LEN_MAX: usize = 256;

/// How far a connection has come.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Stage {
    /// There is none.
    None,
    /// The primary has sent CONNECT with this id.
    AwaitConnectReply(TransactionId),
    /// The secondary waits for CONNECT.
    AwaitConnect,
    /// CONNECT and CONNECTREPLY are exchanged, the partner's STATE has not come yet.
    AwaitState,
    /// Communications are "OK".
    Open,
    /// It is to be closed; what still comes is not read.
    Closing,
}

/// The connection, or that there is none.
#[derive(Debug)]
pub(crate) struct Connection {
    stage: Stage,
    /// FO_SEND_TIME (section 6.5).
    send_time: Duration,
    skew_secs: Option<i32>,
    /// Of the last STATE message.
    partner_flags: Option<ServerFlags>,
    partner_down_time: Option<AbsoluteTime>,
}

/// What a message asks of the endpoint.
#[derive(Debug)]
pub(crate) enum Event<'a> {
    /// Nothing more.
    Nothing,
    /// CONNECT and CONNECTREPLY are exchanged: send STATE. With the primary's MCLT, if this is the
    /// secondary.
    Established { max_unacked: u32, mclt: Option<u32> },
    /// The partner's state.
    State { state: ServerState, flags: ServerFlags, since: AbsoluteTime },
    /// An update of the partner's.
    BndUpd(FailoverMessage<'a>),
    /// An answer to one of ours.
    BndReply(FailoverMessage<'a>),
    /// The secondary wants prefixes.
    PoolReq(TransactionId),
    /// UPDREQ, or UPDREQALL.
    UpdReq { all: bool, id: TransactionId },
    /// UPDDONE.
    UpdDone(TransactionId),
}

/// Why the connection cannot go on.
#[derive(Debug)]
pub(crate) struct Refusal {
    /// For the log.
    pub(crate) reason: String,
    /// To be told to the partner in a DISCONNECT message.
    pub(crate) goodbye: Option<StatusCode>,
    /// A person should hear of it.
    pub(crate) alarm: bool,
    /// Do not connect again at once.
    pub(crate) refused: bool,
}

impl Refusal {
    /// The partner does not keep to the protocol.
    fn protocol(reason: impl ToString) -> Self {
        let goodbye = Some(StatusCode::UNSPEC_FAIL);
        Self { reason: reason.to_string(), goodbye, alarm: false, refused: true }
    }

    /// This server is suspended.
    pub(crate) fn out_of_service() -> Self {
        let goodbye = Some(StatusCode::SERVER_SHUTTING_DOWN);
        Self { reason: "suspended".to_owned(), goodbye, alarm: false, refused: true }
    }

    /// The connection does not work, or somebody does not want it any more.
    pub(crate) fn drop(reason: impl ToString) -> Self {
        Self { reason: reason.to_string(), goodbye: None, alarm: false, refused: false }
    }
}

impl From<FailoverError> for Refusal {
    fn from(error: FailoverError) -> Self {
        Self::protocol(error)
    }
}

impl Connection {
    pub(crate) fn new() -> Self {
        Self {
            stage: Stage::None,
            send_time: Duration::ZERO,
            skew_secs: None,
            partner_flags: None,
            partner_down_time: None,
        }
    }

    /// A connection stands: the primary sends CONNECT (section 6.1.1).
    pub(crate) fn open(&mut self, config: &Config, now: Now, outbox: &mut Outbox) {
        *self = Self::new();
        self.send_time = send_time(config.keepalive_secs);
        self.stage = match config.role {
            Role::Secondary => Stage::AwaitConnect,
            Role::Primary => {
                let id = outbox.next_id();
                let connect = Connect {
                    parameters: parameters(config, config.mclt),
                    relationship_name: RelationshipName::new(&config.name).ok(),
                };
                outbox.message(id, now, |header, out| connect.emit(header, out));
                Stage::AwaitConnectReply(id)
            }
        };
    }

    /// It is to be closed. `goodbye`, if there is one, is told to the partner.
    pub(crate) fn close(&mut self, refusal: &Refusal, now: Now, outbox: &mut Outbox) {
        if let Some(code) = refusal.goodbye {
            let message = refusal.reason.as_bytes();
            let disconnect = Disconnect { status: Some(Status { code, message }) };
            let id = outbox.next_id();
            outbox.message(id, now, |header, out| disconnect.emit(header, out));
        }
        self.stage = Stage::Closing;
    }

    /// It is gone.
    pub(crate) fn lost(&mut self) {
        self.stage = Stage::None;
        self.partner_flags = None;
    }

    /// Reads a message (section 6.1 and the order of messages that follows from it).
    pub(crate) fn received<'a>(
        &mut self,
        frame: &'a [u8],
        config: &Config,
        now: Now,
        outbox: &mut Outbox,
    ) -> Result<Event<'a>, Refusal> {
        let message = match TcpMessage::parse(frame)? {
            TcpMessage::Failover(message) => message,
            TcpMessage::StartTls(_) => {
                return Err(Refusal::protocol("STARTTLS or its REPLY within the connection"));
            }
        };
        self.skew_secs = Some(skew_secs(&message, now));
        if message.msg_type == MessageType::DISCONNECT {
            return Err(disconnected(&message));
        }
        self.check_skew(&message, now, outbox)?;
        match self.stage {
            Stage::AwaitConnect => self.connect(&message, config, now, outbox),
            Stage::AwaitConnectReply(id) => self.connect_reply(&message, id, config),
            Stage::AwaitState => match message.msg_type {
                MessageType::STATE => self.state(&message),
                // The partner's state may take its time to reach stable storage.
                MessageType::CONTACT => Ok(Event::Nothing),
                found => Err(Refusal::protocol(format!("{found} before STATE"))),
            },
            Stage::Open => self.established(message, config.role),
            Stage::None | Stage::Closing => Ok(Event::Nothing),
        }
    }

    /// Whether anything is read from it.
    pub(crate) fn is_live(&self) -> bool {
        match self.stage {
            Stage::None | Stage::Closing => false,
            Stage::AwaitConnectReply(_) | Stage::AwaitConnect | Stage::AwaitState | Stage::Open => {
                true
            }
        }
    }

    /// Whether there is one, be it about to be closed.
    pub(crate) fn exists(&self) -> bool {
        self.stage != Stage::None
    }

    /// Whether CONNECT and CONNECTREPLY are exchanged.
    pub(crate) fn is_established(&self) -> bool {
        matches!(self.stage, Stage::AwaitState | Stage::Open)
    }

    /// Whether the partner is there and has still to say its state.
    pub(crate) fn awaits_state(&self) -> bool {
        self.stage == Stage::AwaitState
    }

    /// Whether communications are "OK".
    pub(crate) fn is_open(&self) -> bool {
        self.stage == Stage::Open
    }

    /// FO_SEND_TIME.
    pub(crate) fn send_time(&self) -> Duration {
        self.send_time
    }

    pub(crate) fn skew_secs(&self) -> Option<i32> {
        self.skew_secs
    }

    pub(crate) fn partner_flags(&self) -> Option<ServerFlags> {
        self.partner_flags
    }

    pub(crate) fn partner_down_time(&self) -> Option<AbsoluteTime> {
        self.partner_down_time
    }

    /// Section 7.5.1, and section 6.1.2 for CONNECT, which is answered.
    fn check_skew(
        &self,
        message: &FailoverMessage<'_>,
        now: Now,
        outbox: &mut Outbox,
    ) -> Result<(), Refusal> {
        let FailoverMessage { msg_type, header, .. } = message;
        let skew = skew_secs(message, now);
        if skew.unsigned_abs() <= SKEW_SECS_MAX {
            return Ok(());
        }
        let reason = format!(
            "the clocks are {} s apart: {msg_type} was sent at {} and received at {} (seconds \
             since 1970)",
            skew.unsigned_abs(),
            AbsoluteTime(header.sent_time.0),
            now.wall,
        );
        let code = StatusCode::EXCESSIVE_TIME_SKEW;
        let mut refusal = Refusal { reason, goodbye: Some(code), alarm: true, refused: true };
        if self.stage == Stage::AwaitConnect && *msg_type == MessageType::CONNECT {
            reject(message, code, &refusal.reason, now, outbox);
            refusal.goodbye = None;
        }
        Err(refusal)
    }

    /// Section 6.1.2.
    fn connect<'a>(
        &mut self,
        message: &FailoverMessage<'a>,
        config: &Config,
        now: Now,
        outbox: &mut Outbox,
    ) -> Result<Event<'a>, Refusal> {
        let Connect { parameters: theirs, relationship_name } = Connect::parse(message)?;
        let objection = if theirs.protocol_version.major != ProtocolVersion::RFC8156.major {
            let version = theirs.protocol_version;
            Some((StatusCode::NOT_SUPPORTED, format!("protocol version {version}")))
        } else if let Some(name) = relationship_name
            && name.as_str() != config.name
        {
            let (theirs, ours) = (name.as_str(), &config.name);
            let text = format!("relationship {theirs:?} is none of ours, which is {ours:?}");
            Some((StatusCode::CONFIGURATION_CONFLICT, text))
        } else if theirs.mclt == Mclt(0) {
            Some((StatusCode::CONFIGURATION_CONFLICT, "an MCLT of 0".to_owned()))
        } else {
            // Either value of FIXED_PD_LENGTH is fine: a pool here has one length, and what does
            // not fit into a pool is rejected lease by lease.
            None
        };
        if let Some((code, text)) = objection {
            let reason = format!("CONNECT rejected: {text}");
            reject(message, code, &reason, now, outbox);
            return Err(Refusal { reason, goodbye: None, alarm: false, refused: true });
        }
        let reply = ConnectReply::Accepted(parameters(config, theirs.mclt.0));
        let id = message.header.transaction_id;
        outbox.message(id, now, |header, out| reply.emit(header, out));
        Ok(self.agree(&theirs, Some(theirs.mclt.0)))
    }

    /// Section 6.1.3.
    fn connect_reply<'a>(
        &mut self,
        message: &FailoverMessage<'a>,
        id: TransactionId,
        config: &Config,
    ) -> Result<Event<'a>, Refusal> {
        let theirs = match ConnectReply::parse(message)? {
            _ if message.header.transaction_id != id => {
                return Err(Refusal::protocol("CONNECTREPLY to another CONNECT"));
            }
            ConnectReply::Accepted(parameters) => parameters,
            ConnectReply::Rejected(status) => {
                let alarm = status.code == StatusCode::EXCESSIVE_TIME_SKEW;
                let reason = format!("the partner rejects CONNECT: {}", text(&status));
                return Err(Refusal { reason, goodbye: None, alarm, refused: true });
            }
        };
        let objection = |code, reason| {
            Err(Refusal { reason, goodbye: Some(code), alarm: false, refused: true })
        };
        if theirs.protocol_version.major != ProtocolVersion::RFC8156.major {
            let reason = format!("protocol version {} is not supported", theirs.protocol_version);
            return objection(StatusCode::NOT_SUPPORTED, reason);
        }
        if theirs.mclt != Mclt(config.mclt) {
            let (theirs, ours) = (theirs.mclt.0, config.mclt);
            let reason = format!("the partner uses an MCLT of {theirs} s instead of {ours} s");
            return objection(StatusCode::CONFIGURATION_CONFLICT, reason);
        }
        Ok(self.agree(&theirs, None))
    }

    fn agree<'a>(&mut self, theirs: &ConnectParameters, mclt: Option<u32>) -> Event<'a> {
        self.stage = Stage::AwaitState;
        self.send_time = send_time(theirs.keepalive_secs);
        Event::Established { max_unacked: theirs.max_unacked_bndupd, mclt }
    }

    /// Section 6.4.
    fn state<'a>(&mut self, message: &FailoverMessage<'_>) -> Result<Event<'a>, Refusal> {
        let StateMsg { server_state, server_flags, start_time_of_state, partner_down_time } =
            StateMsg::parse(message)?;
        let Some(state) = ServerState::from_wire(server_state) else {
            return Err(Refusal::protocol(format!("STATE with state {server_state}")));
        };
        self.stage = Stage::Open;
        self.partner_flags = Some(server_flags);
        self.partner_down_time = partner_down_time.map(|time| AbsoluteTime(time.0));
        let since = AbsoluteTime(start_time_of_state.0);
        Ok(Event::State { state, flags: server_flags, since })
    }

    fn established<'a>(
        &mut self,
        message: FailoverMessage<'a>,
        role: Role,
    ) -> Result<Event<'a>, Refusal> {
        let id = message.header.transaction_id;
        let misplaced = |what: &str| Err(Refusal::protocol(what));
        Ok(match message.msg_type {
            // What is in them is looked at lease by lease.
            MessageType::BNDUPD => Event::BndUpd(message),
            MessageType::BNDREPLY => Event::BndReply(message),
            _ => match Body::parse(&message)? {
                Body::State(_) => self.state(&message)?,
                Body::Contact => Event::Nothing,
                Body::UpdReq => Event::UpdReq { all: false, id },
                Body::UpdReqAll => Event::UpdReq { all: true, id },
                Body::UpdDone => Event::UpdDone(id),
                Body::PoolReq => match role {
                    Role::Primary => Event::PoolReq(id),
                    Role::Secondary => return misplaced("POOLREQ from the primary"),
                },
                Body::PoolResp => match role {
                    Role::Primary => return misplaced("POOLRESP from the secondary"),
                    Role::Secondary => Event::Nothing,
                },
                Body::Connect(_) => return misplaced("CONNECT on an established connection"),
                Body::ConnectReply(_) => {
                    return misplaced("CONNECTREPLY on an established connection");
                }
                // Handled before, or by the other arm.
                Body::Disconnect(_) | Body::BndUpd(_) | Body::BndReply(_) => Event::Nothing,
            },
        })
    }
}

/// How far the partner's clock is ahead, as far as a message can tell.
fn skew_secs(message: &FailoverMessage<'_>, now: Now) -> i32 {
    message.header.sent_time.wrapping_diff(FailoverTime(now.wall.0))
}

/// What this server says of itself. Its pools delegate prefixes of one length each.
fn parameters(config: &Config, mclt: u32) -> ConnectParameters {
    ConnectParameters {
        protocol_version: ProtocolVersion::RFC8156,
        mclt: Mclt(mclt),
        keepalive_secs: config.keepalive_secs.max(1),
        max_unacked_bndupd: config.max_unacked_bndupd,
        connect_flags: ConnectFlags::FIXED_PD_LENGTH,
    }
}

/// A partner that wants to hear something every 0 seconds gets it four times a second.
fn send_time(keepalive_secs: u32) -> Duration {
    Duration::from_secs(keepalive_secs.max(1).into()) / CONTACTS_PER_KEEPALIVE
}

fn reject(
    connect: &FailoverMessage<'_>,
    code: StatusCode,
    text: &str,
    now: Now,
    outbox: &mut Outbox,
) {
    let reply = ConnectReply::Rejected(Status { code, message: text.as_bytes() });
    outbox.message(connect.header.transaction_id, now, |header, out| reply.emit(header, out));
}

/// The partner closes the connection (section 5.3.10). One that goes out of service may be back
/// soon, and then has to find this server before it serves by itself: it has not refused anything.
fn disconnected(message: &FailoverMessage<'_>) -> Refusal {
    let (reason, code) = match Disconnect::parse(message) {
        Ok(Disconnect { status: Some(status) }) => (text(&status), Some(status.code)),
        Ok(Disconnect { status: None }) => ("no reason given".to_owned(), None),
        Err(error) => (error.to_string(), None),
    };
    Refusal {
        reason: format!("the partner disconnects: {reason}"),
        goodbye: None,
        alarm: code == Some(StatusCode::EXCESSIVE_TIME_SKEW),
        refused: code != Some(StatusCode::SERVER_SHUTTING_DOWN),
    }
}

/// Code and text, which may be anything, and of any length.
fn text(status: &Status<'_>) -> String {
    let message = &status.message[..status.message.len().min(TEXT_LEN_MAX)];
    match String::from_utf8_lossy(message) {
        message if message.is_empty() => status.code.to_string(),
        message => format!("{}: {}", status.code, message.escape_debug()),
    }
}

#[cfg(test)]
mod tests;

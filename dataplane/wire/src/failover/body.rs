use super::{
    BndReply, BndUpd, Connect, ConnectReply, Disconnect, FailoverError, FailoverMessage, StateMsg,
};
use crate::MessageType;

/// What a failover message says (RFC 8156 section 5.3), in the order of the registry.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Body<'a> {
    /// Changes of bindings, to be answered with BNDREPLY.
    BndUpd(BndUpd<'a>),
    /// The answer to BNDUPD.
    BndReply(BndReply<'a>),
    /// The secondary asks for delegable prefixes.
    PoolReq,
    /// The primary has taken up the request.
    PoolResp,
    /// Asks for all changes that are not acknowledged.
    UpdReq,
    /// Asks for all bindings.
    UpdReqAll,
    /// All that was asked for has been sent and acknowledged.
    UpdDone,
    /// The primary opens the connection.
    Connect(Connect<'a>),
    /// The secondary takes or rejects it.
    ConnectReply(ConnectReply<'a>),
    /// The connection is about to be closed.
    Disconnect(Disconnect<'a>),
    /// The state of the sender.
    State(StateMsg),
    /// The sender is alive.
    Contact,
}

impl<'a> Body<'a> {
    /// Reads the options that belong to the message type. Options of others are passed over.
    ///
    /// # Errors
    /// If a mandatory option is missing or one that counts is malformed. A BNDUPD can be answered
    /// nevertheless: see [`BndUpd::parse`].
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        Ok(match message.msg_type {
            MessageType::BNDUPD => Self::BndUpd(BndUpd::parse(message)?),
            MessageType::BNDREPLY => Self::BndReply(BndReply::parse(message)?),
            MessageType::POOLREQ => Self::PoolReq,
            MessageType::POOLRESP => Self::PoolResp,
            MessageType::UPDREQ => Self::UpdReq,
            MessageType::UPDREQALL => Self::UpdReqAll,
            MessageType::UPDDONE => Self::UpdDone,
            MessageType::CONNECT => Self::Connect(Connect::parse(message)?),
            MessageType::CONNECTREPLY => Self::ConnectReply(ConnectReply::parse(message)?),
            MessageType::DISCONNECT => Self::Disconnect(Disconnect::parse(message)?),
            MessageType::STATE => Self::State(StateMsg::parse(message)?),
            MessageType::CONTACT => Self::Contact,
            found => {
                let expected = "a failover message";
                return Err(FailoverError::UnexpectedType { expected, found });
            }
        })
    }
}

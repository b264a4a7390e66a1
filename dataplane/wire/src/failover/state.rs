use super::error::require;
use super::{
    FailoverError, FailoverMessage, FailoverOption, FailoverTime, Header, ServerFlags, ServerState,
};
use crate::{Emitter, MessageType, OptionCode};

/// STATE: the sender's endpoint is in this state (RFC 8156 sections 5.3.11 and 6.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct StateMsg {
    /// The state; never STARTUP, which is told by a flag.
    pub server_state: ServerState,
    /// The flags.
    pub server_flags: ServerFlags,
    /// Since when the endpoint is in this state.
    pub start_time_of_state: FailoverTime,
    /// When the endpoint went into PARTNER-DOWN: there if and only if it is in that state. In
    /// another state it is neither written nor read.
    pub partner_down_time: Option<FailoverTime>,
}

impl StateMsg {
    /// Reads the options.
    ///
    /// # Errors
    /// If a mandatory option is missing or any is malformed.
    pub fn parse(message: &FailoverMessage<'_>) -> Result<Self, FailoverError> {
        message.expect(MessageType::STATE, "STATE")?;
        let (mut state, mut flags, mut start, mut down) = (None, None, None, None);
        for option in message.options {
            match FailoverOption::parse(option)? {
                FailoverOption::ServerState(value) => _ = state.get_or_insert(value),
                FailoverOption::ServerFlags(value) => _ = flags.get_or_insert(value),
                FailoverOption::StartTimeOfState(value) => _ = start.get_or_insert(value),
                FailoverOption::PartnerDownTime(value) => _ = down.get_or_insert(value),
                _ => {}
            }
        }
        let within = "STATE";
        let server_state = require(state, within, OptionCode::F_SERVER_STATE)?;
        Ok(Self {
            server_state,
            server_flags: require(flags, within, OptionCode::F_SERVER_FLAGS)?,
            start_time_of_state: require(start, within, OptionCode::F_START_TIME_OF_STATE)?,
            partner_down_time: if server_state == ServerState::PARTNER_DOWN {
                Some(require(down, within, OptionCode::F_PARTNER_DOWN_TIME)?)
            } else {
                None
            },
        })
    }

    /// Appends the message as a frame.
    pub fn emit(&self, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::STATE, out, |out| {
            FailoverOption::ServerState(self.server_state).emit(out);
            FailoverOption::ServerFlags(self.server_flags).emit(out);
            FailoverOption::StartTimeOfState(self.start_time_of_state).emit(out);
            if let Some(time) = self.partner_down_time
                && self.server_state == ServerState::PARTNER_DOWN
            {
                FailoverOption::PartnerDownTime(time).emit(out);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::failover::testing::{HEADER, frame, parse_frame, without};

    const PARTNER_DOWN: StateMsg = StateMsg {
        server_state: ServerState::PARTNER_DOWN,
        server_flags: ServerFlags::STARTUP,
        start_time_of_state: FailoverTime(70),
        partner_down_time: Some(FailoverTime(71)),
    };

    #[test]
    fn names_what_is_missing() {
        let octets = frame(|out| PARTNER_DOWN.emit(HEADER, out));
        assert_eq!(StateMsg::parse(&parse_frame(&octets)), Ok(PARTNER_DOWN));
        for option in [
            OptionCode::F_SERVER_STATE,
            OptionCode::F_SERVER_FLAGS,
            OptionCode::F_START_TIME_OF_STATE,
            OptionCode::F_PARTNER_DOWN_TIME,
        ] {
            let octets = without(&octets, option);
            let error = FailoverError::Missing { within: "STATE", option };
            assert_eq!(StateMsg::parse(&parse_frame(&octets)), Err(error));
        }
    }

    #[test]
    fn partner_down_time_belongs_to_partner_down() {
        let normal = StateMsg { server_state: ServerState::NORMAL, ..PARTNER_DOWN };
        let expected = StateMsg { partner_down_time: None, ..normal };
        let octets = frame(|out| normal.emit(HEADER, out));
        assert_eq!(parse_frame(&octets).options.iter().count(), 3);
        assert_eq!(StateMsg::parse(&parse_frame(&octets)), Ok(expected));
        let octets = frame(|out| {
            HEADER.emit(MessageType::STATE, out, |out| {
                FailoverOption::PartnerDownTime(FailoverTime(1)).emit(out);
                FailoverOption::ServerState(ServerState::NORMAL).emit(out);
                FailoverOption::ServerFlags(ServerFlags::STARTUP).emit(out);
                FailoverOption::StartTimeOfState(FailoverTime(70)).emit(out);
            });
        });
        assert_eq!(StateMsg::parse(&parse_frame(&octets)), Ok(expected));
    }
}

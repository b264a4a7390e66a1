use super::{
    Binding, BindingReply, BndReply, ClientData, ClientReply, FailoverError, FailoverMessage,
    Header, Lease, LeaseReply, PrefixLease, PrefixReply,
};
use crate::{Emitter, IaPrefix, MessageType, OptionCode, Options, Status};

/// BNDUPD: a change of bindings (RFC 8156 sections 5.3.1 and 7.4). It holds one client with any
/// number of leases, or one prefix without a client; never several clients or several prefixes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BndUpd<'a> {
    /// OPTION_CLIENT_DATA.
    Client(Binding<'a>),
    /// OPTION_IAPREFIX.
    Prefix(PrefixLease<'a>),
}

impl<'a> BndUpd<'a> {
    /// Reads all but the leases of a client.
    ///
    /// # Errors
    /// If a mandatory option is missing, any is malformed, or there is not exactly one of
    /// OPTION_CLIENT_DATA and OPTION_IAPREFIX. Unless it is the last, which [`BndSubject::of`]
    /// tells apart, the message can still be answered: [`BndSubject::emit_rejection`].
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        message.expect(MessageType::BNDUPD, "BNDUPD")?;
        match BndSubject::of(message)? {
            BndSubject::Client(options) => Binding::parse(options).map(Self::Client),
            BndSubject::Prefix(option) => PrefixLease::parse(&option).map(Self::Prefix),
        }
    }

    /// Appends a BNDUPD with the binding of a client as a frame. All leases of one IA should stand
    /// together, for neighbours of one IA share an IA option.
    pub fn emit_client<'l>(
        client: &ClientData<'_>,
        leases: impl IntoIterator<Item = Lease<'l>>,
        header: Header,
        out: &mut Emitter<'_>,
    ) {
        header.emit(MessageType::BNDUPD, out, |out| client.emit(leases, out));
    }

    /// Appends a BNDUPD with a prefix that belongs to no client as a frame.
    pub fn emit_prefix(prefix: &PrefixLease<'_>, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::BNDUPD, out, |out| prefix.emit(out));
    }
}

/// What a BNDUPD or BNDREPLY is about, its mandatory options not yet looked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BndSubject<'a> {
    /// The client-options of the OPTION_CLIENT_DATA.
    Client(Options<'a>),
    /// The OPTION_IAPREFIX.
    Prefix(IaPrefix<'a>),
}

impl<'a> BndSubject<'a> {
    /// Looks for the single OPTION_CLIENT_DATA or OPTION_IAPREFIX (RFC 8156 section 7.5.3).
    ///
    /// # Errors
    /// If there is none or more than one, or its lengths are wrong: then there is nothing that a
    /// BNDREPLY could be about, and the partner breaks the protocol.
    pub fn of(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        let within = if message.msg_type == MessageType::BNDREPLY { "BNDREPLY" } else { "BNDUPD" };
        let is_subject = |code| matches!(code, OptionCode::CLIENT_DATA | OptionCode::IA_PREFIX);
        let mut subjects = message.options.iter().filter(|option| is_subject(option.code));
        let options = "OPTION_CLIENT_DATA, OPTION_IAPREFIX";
        let subject = subjects.next().ok_or(FailoverError::MissingOneOf { within, options })?;
        if let Some(second) = subjects.next() {
            return Err(FailoverError::NotSingle { within, option: second.code });
        }
        if subject.code == OptionCode::CLIENT_DATA {
            return Ok(Self::Client(Options::parse(subject.data)?));
        }
        Ok(Self::Prefix(IaPrefix::parse(subject.data)?))
    }

    /// Appends a BNDREPLY as a frame that rejects the whole BNDUPD with this subject (RFC 8156
    /// section 7.6, "Entire BNDUPD"). Of the other information that a reply repeats it holds what
    /// can be read.
    pub fn emit_rejection(&self, status: Status<'_>, header: Header, out: &mut Emitter<'_>) {
        match self {
            Self::Client(options) => {
                let client = ClientReply {
                    client_id: options.first(OptionCode::CLIENT_ID).unwrap_or_default(),
                    vss: options.first(OptionCode::VSS),
                    status: Some(status),
                };
                let leases = BindingReply::entries(*options).flatten();
                let leases = leases.map(|entry| LeaseReply::repeat(&entry));
                BndReply::emit_client(&client, leases, header, out);
            }
            Self::Prefix(option) => {
                BndReply::emit_prefix(&PrefixReply::reject(option, status), header, out);
            }
        }
    }
}

#[cfg(test)]
mod tests;

use std::net::Ipv6Addr;

use super::connect::{emit_status, rejection, status};
use super::lease::{emit_leases, emit_prefix};
use super::{
    BindingStatus, BndSubject, FailoverError, FailoverMessage, FailoverOption, FailoverTime,
    Header, Lease, LeaseEntry, LeaseHead, Leases, PrefixLease,
};
use crate::{Duid, Emitter, IaPrefix, MessageType, OptionCode, Options, Status, StatusCode};

/// BNDREPLY: the answer to a BNDUPD, about the same client or prefix (RFC 8156 sections 5.3.2,
/// 7.6 and 7.7).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum BndReply<'a> {
    /// OPTION_CLIENT_DATA.
    Client(BindingReply<'a>),
    /// OPTION_IAPREFIX.
    Prefix(PrefixReply<'a>),
}

impl<'a> BndReply<'a> {
    /// Reads all but the leases of a client.
    ///
    /// # Errors
    /// If a mandatory option is missing, any is malformed, or there is not exactly one of
    /// OPTION_CLIENT_DATA and OPTION_IAPREFIX.
    pub fn parse(message: &FailoverMessage<'a>) -> Result<Self, FailoverError> {
        message.expect(MessageType::BNDREPLY, "BNDREPLY")?;
        match BndSubject::of(message)? {
            BndSubject::Client(options) => BindingReply::parse(options).map(Self::Client),
            BndSubject::Prefix(option) => PrefixReply::parse(&option).map(Self::Prefix),
        }
    }

    /// Appends a BNDREPLY about a client's binding as a frame. The transaction id is that of the
    /// BNDUPD, the leases are its leases in their order.
    pub fn emit_client<'l>(
        client: &ClientReply<'_>,
        leases: impl IntoIterator<Item = LeaseReply<'l>>,
        header: Header,
        out: &mut Emitter<'_>,
    ) {
        header.emit(MessageType::BNDREPLY, out, |out| {
            let mark = out.begin(OptionCode::CLIENT_DATA);
            if !client.client_id.is_empty() {
                out.option(OptionCode::CLIENT_ID, client.client_id);
            }
            if let Some(vss) = client.vss {
                out.option(OptionCode::VSS, vss);
            }
            if let Some(status) = &client.status {
                emit_status(status, out);
            }
            let leases = leases.into_iter();
            emit_leases(
                leases.map(|it| (it.head, move |out: &mut Emitter<'_>| it.ack.emit(out))),
                out,
            );
            out.end(mark);
        });
    }

    /// Appends a BNDREPLY about a prefix without a client as a frame.
    pub fn emit_prefix(prefix: &PrefixReply<'_>, header: Header, out: &mut Emitter<'_>) {
        header.emit(MessageType::BNDREPLY, out, |out| prefix.emit(out));
    }
}

/// What a BNDREPLY says about a client as such.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ClientReply<'a> {
    /// The DUID of the client. Empty, and not on the wire, if a BNDUPD without one is rejected.
    pub client_id: &'a [u8],
    /// Body of OPTION_VSS as in the BNDUPD.
    pub vss: Option<&'a [u8]>,
    /// An error rejects the whole BNDUPD. Success says nothing about the leases.
    pub status: Option<Status<'a>>,
}

/// Body of an OPTION_CLIENT_DATA in a BNDREPLY.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct BindingReply<'a> {
    /// What is said about the client.
    pub client: ClientReply<'a>,
    /// All client-options.
    pub options: Options<'a>,
}

impl<'a> BindingReply<'a> {
    fn parse(options: Options<'a>) -> Result<Self, FailoverError> {
        let status = status(&options)?;
        let client_id = match options.first(OptionCode::CLIENT_ID) {
            Some(client_id) => Duid::check(client_id)?,
            // Who rejects a BNDUPD without a client id cannot repeat one.
            None if is_error(status.as_ref()) => &[],
            None => {
                let option = OptionCode::CLIENT_ID;
                return Err(FailoverError::Missing { within: "OPTION_CLIENT_DATA", option });
            }
        };
        let client = ClientReply { client_id, vss: options.first(OptionCode::VSS), status };
        Ok(Self { client, options })
    }

    /// The leases of all IAs. One that cannot be read gives an error; it counts as not
    /// acknowledged.
    pub fn leases(&self) -> impl Iterator<Item = Result<LeaseReply<'a>, FailoverError>> + use<'a> {
        Self::entries(self.options).map(|entry| LeaseReply::parse(&entry?))
    }

    /// The leases in client-options; IAs without any are passed over.
    pub(super) fn entries(options: Options<'a>) -> Leases<'a> {
        Leases::new(options, false)
    }

    /// Whether everything is rejected, whatever the leases say.
    #[must_use]
    pub fn is_rejected(&self) -> bool {
        is_error(self.client.status.as_ref())
    }
}

/// The answer to one lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseReply<'a> {
    /// IA, address or prefix, and lifetimes, as in the BNDUPD.
    pub head: LeaseHead,
    /// The options.
    pub ack: Ack<'a>,
}

impl<'a> LeaseReply<'a> {
    /// Accepts a lease of a BNDUPD.
    #[must_use]
    pub fn accept(lease: &Lease<'_>) -> Self {
        let ack = Ack {
            status: None,
            binding_status: Some(lease.state.binding_status),
            state_expiration_time: lease.state.state_expiration_time,
            partner_lifetime_sent: lease.state.partner_lifetime,
        };
        Self { head: lease.head, ack }
    }

    /// Rejects a lease of a BNDUPD.
    #[must_use]
    pub fn reject(lease: &LeaseEntry<'_>, status: Status<'a>) -> Self {
        let ack = Ack { status: Some(status), ..Ack::repeat(&lease.options) };
        Self { head: lease.head, ack }
    }

    /// Repeats a lease without a word on its acceptance.
    pub(super) fn repeat(lease: &LeaseEntry<'_>) -> Self {
        Self { head: lease.head, ack: Ack::repeat(&lease.options) }
    }

    fn parse(entry: &LeaseEntry<'a>) -> Result<Self, FailoverError> {
        let mut ack = Ack::parse(&entry.options)?;
        // A rejected IA takes all its leases with it (section 7.7).
        if let Some(status) = rejection(&entry.ia_options)?
            && ack.is_accepted()
        {
            ack.status = Some(status);
        }
        Ok(Self { head: entry.head, ack })
    }
}

/// The options with which a BNDREPLY answers to a lease (RFC 8156 section 7.6).
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Ack<'a> {
    /// An error rejects the lease; nothing, and Success, accepts it.
    pub status: Option<Status<'a>>,
    /// As in the BNDUPD.
    pub binding_status: Option<BindingStatus>,
    /// As in the BNDUPD.
    pub state_expiration_time: Option<FailoverTime>,
    /// The OPTION_F_PARTNER_LIFETIME of the BNDUPD.
    pub partner_lifetime_sent: Option<FailoverTime>,
}

impl<'a> Ack<'a> {
    /// Whether the lease is accepted, unless the whole BNDUPD is rejected.
    #[must_use]
    pub fn is_accepted(&self) -> bool {
        !is_error(self.status.as_ref())
    }

    /// What a BNDREPLY repeats from the options of a BNDUPD, as far as they can be read.
    fn repeat(options: &Options<'_>) -> Self {
        let mut ack = Self::default();
        for option in options.iter().filter_map(|option| FailoverOption::parse(option).ok()) {
            match option {
                FailoverOption::BindingStatus(it) => _ = ack.binding_status.get_or_insert(it),
                FailoverOption::StateExpirationTime(time) => {
                    ack.state_expiration_time.get_or_insert(time);
                }
                FailoverOption::PartnerLifetime(time) => {
                    ack.partner_lifetime_sent.get_or_insert(time);
                }
                _ => {}
            }
        }
        ack
    }

    fn parse(options: &Options<'a>) -> Result<Self, FailoverError> {
        let mut ack = Self { status: status(options)?, ..Self::default() };
        for option in *options {
            match FailoverOption::parse(option)? {
                FailoverOption::BindingStatus(it) => _ = ack.binding_status.get_or_insert(it),
                FailoverOption::StateExpirationTime(time) => {
                    ack.state_expiration_time.get_or_insert(time);
                }
                FailoverOption::PartnerLifetimeSent(time) => {
                    ack.partner_lifetime_sent.get_or_insert(time);
                }
                _ => {}
            }
        }
        Ok(ack)
    }

    fn emit(&self, out: &mut Emitter<'_>) {
        if let Some(status) = &self.status {
            emit_status(status, out);
        }
        if let Some(status) = self.binding_status {
            FailoverOption::BindingStatus(status).emit(out);
        }
        if let Some(time) = self.state_expiration_time {
            FailoverOption::StateExpirationTime(time).emit(out);
        }
        if let Some(time) = self.partner_lifetime_sent {
            FailoverOption::PartnerLifetimeSent(time).emit(out);
        }
    }
}

/// The answer to a prefix without a client: body of the OPTION_IAPREFIX in a BNDREPLY.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PrefixReply<'a> {
    /// The prefix.
    pub prefix: Ipv6Addr,
    /// Its length in bits, at most 128.
    pub prefix_len: u8,
    /// Preferred lifetime in seconds, as in the BNDUPD.
    pub preferred: u32,
    /// Valid lifetime likewise.
    pub valid: u32,
    /// Body of OPTION_VSS as in the BNDUPD.
    pub vss: Option<&'a [u8]>,
    /// The other options.
    pub ack: Ack<'a>,
}

impl<'a> PrefixReply<'a> {
    /// Accepts the prefix of a BNDUPD.
    #[must_use]
    pub fn accept(lease: &PrefixLease<'a>) -> Self {
        Self {
            prefix: lease.prefix,
            prefix_len: lease.prefix_len,
            preferred: lease.preferred,
            valid: lease.valid,
            vss: lease.vss,
            ack: Ack {
                status: None,
                binding_status: Some(lease.state.binding_status),
                state_expiration_time: lease.state.state_expiration_time,
                partner_lifetime_sent: lease.state.partner_lifetime,
            },
        }
    }

    /// Rejects the prefix of a BNDUPD.
    #[must_use]
    pub fn reject(option: &IaPrefix<'a>, status: Status<'a>) -> Self {
        let ack = Ack { status: Some(status), ..Ack::repeat(&option.options) };
        Self::new(option, ack)
    }

    fn parse(option: &IaPrefix<'a>) -> Result<Self, FailoverError> {
        Ok(Self::new(option, Ack::parse(&option.options)?))
    }

    fn new(option: &IaPrefix<'a>, ack: Ack<'a>) -> Self {
        let IaPrefix { preferred, valid, prefix_len, prefix, options } = *option;
        Self { prefix, prefix_len, preferred, valid, vss: options.first(OptionCode::VSS), ack }
    }

    fn emit(&self, out: &mut Emitter<'_>) {
        emit_prefix(self.prefix, self.prefix_len, self.preferred, self.valid, out, |out| {
            if let Some(vss) = self.vss {
                out.option(OptionCode::VSS, vss);
            }
            self.ack.emit(out);
        });
    }
}

fn is_error(status: Option<&Status<'_>>) -> bool {
    status.is_some_and(|status| status.code != StatusCode::SUCCESS)
}

#[cfg(test)]
mod tests;

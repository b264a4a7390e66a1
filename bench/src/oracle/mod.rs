//! Judges one reply: is it what a server may answer to what was asked?
//!
//! The oracle knows the message that was sent and nothing of the past; what has been granted to
//! whom is the [`ledger`](crate::ledger)'s matter.

use std::net::Ipv6Addr;

use gemel_wire::{
    INFINITY, Ia, IaAddr, IaId, IaPrefix, Message, MessageType, OptionCode, Options, Status,
    StatusCode,
};

use crate::{
    client::Identity,
    message::NamedLease,
    stats::{Counter, named},
};

named! {
    /// What a server must not do. One of these makes the run a failure.
    Violation {
        /// It cannot be read.
        Malformed = "malformed",
        /// The relay envelopes do not carry back what was sent in them (RFC 8415 19.3).
        RelayMismatch = "relay_mismatch",
        /// No request has this transaction id.
        UnknownTransaction = "unknown_transaction",
        /// A type of message that does not answer the request (RFC 8415 18.3).
        WrongMessageType = "wrong_message_type",
        /// No Client Identifier (RFC 8415 16.3, 16.10).
        ClientIdMissing = "client_id_missing",
        /// Another client's identifier.
        ClientIdMismatch = "client_id_mismatch",
        /// No Server Identifier, or not a DUID (RFC 8415 16.3, 16.10).
        ServerIdMissing = "server_id_missing",
        /// A REPLY from another server than the one that was asked by name.
        ServerIdMismatch = "server_id_mismatch",
        /// An IA that was asked for is not in the answer.
        IaMissing = "ia_missing",
        /// An IA that was not asked for.
        IaUnexpected = "ia_unexpected",
        /// Success, but neither a lease nor a status in the IA.
        LeaseMissing = "lease_missing",
        /// No Status Code in the answer to RELEASE, DECLINE or CONFIRM (RFC 8415 18.3.7, 18.3.8, 18.3.3).
        StatusMissing = "status_missing",
        /// The preferred lifetime exceeds the valid one (RFC 8415 21.6, 21.22).
        PreferredOverValid = "preferred_over_valid",
        /// T1 exceeds T2 (RFC 8415 21.4, 21.21).
        T1OverT2 = "t1_over_t2",
        /// T2 lies behind the end of the lease, so REBIND would come too late.
        T2OverValid = "t2_over_valid",
        /// An address that no client can use: multicast, unspecified, loopback or link-local.
        AddressUnusable = "address_unusable",
        /// A subnet-router anycast address or reserved interface identifier (RFC 4291 2.6.1, 5453).
        AddressReserved = "address_reserved",
        /// Bits of the prefix are set behind its length, or the length is 0.
        PrefixMisaligned = "prefix_misaligned",
        /// The lease belongs to another client, whose lease is still valid.
        Duplicate = "duplicate",
        /// The client was given another lease although the old one is still valid.
        Renumbered = "renumbered",
        /// NoBinding for a lease that is still valid.
        BindingForgotten = "binding_forgotten",
    }
}

/// What was asked.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// What kind of message it was.
    pub msg_type: MessageType,
    /// The client.
    pub identity: &'a Identity,
    /// The server that was named.
    pub server_id: Option<&'a [u8]>,
    /// The message had an IA_NA.
    pub na: bool,
    /// The message had an IA_PD.
    pub pd: bool,
    /// The message had Rapid Commit.
    pub rapid_commit: bool,
    /// The address that the client holds or was offered: of several in the answer it keeps this one.
    pub preferred_na: Option<NamedLease>,
    /// The same of prefixes.
    pub preferred_pd: Option<NamedLease>,
}

/// A lease in a reply; lifetimes in seconds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Grant {
    /// The address or prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix, 128 for an address.
    pub prefix_len: u8,
    /// Preferred lifetime.
    pub preferred: u32,
    /// Valid lifetime.
    pub valid: u32,
}

/// What a reply says of one IA.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum IaAnswer {
    /// It was not asked for.
    NotAsked,
    /// A lease.
    Granted(Grant),
    /// A status code other than Success.
    Refused(StatusCode),
}

impl IaAnswer {
    /// The lease, if there is one.
    #[must_use]
    pub fn grant(&self) -> Option<Grant> {
        match self {
            Self::Granted(grant) => Some(*grant),
            _ => None,
        }
    }

    /// The status code, if it was refused.
    #[must_use]
    pub fn refusal(&self) -> Option<StatusCode> {
        match self {
            Self::Refused(status) => Some(*status),
            _ => None,
        }
    }
}

/// A valid reply.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Answer<'a> {
    /// ADVERTISE or REPLY.
    pub msg_type: MessageType,
    /// The server's DUID.
    pub server_id: &'a [u8],
    /// The IA_NA.
    pub na: IaAnswer,
    /// The IA_PD.
    pub pd: IaAnswer,
    /// Leases that an IA has beside these, and whether they are prefixes: a server may give more
    /// than one, and of a pair each may have given its own when a REPLY got lost.
    pub further: Vec<(bool, Grant)>,
}

impl Answer<'_> {
    /// The first refusal.
    #[must_use]
    pub fn refusal(&self) -> Option<StatusCode> {
        self.na.refusal().or_else(|| self.pd.refusal())
    }
}

/// The counter of a refusal.
#[must_use]
pub fn refusal_counter(status: StatusCode) -> Counter {
    match status {
        StatusCode::NO_ADDRS_AVAIL => Counter::RefusedNoAddrsAvail,
        StatusCode::NO_PREFIX_AVAIL => Counter::RefusedNoPrefixAvail,
        StatusCode::NO_BINDING => Counter::RefusedNoBinding,
        StatusCode::NOT_ON_LINK => Counter::RefusedNotOnLink,
        _ => Counter::RefusedOther,
    }
}

/// Judges a reply whose transaction id has been found to belong to `asked`.
///
/// # Errors
/// The first violation that is found.
pub fn judge<'a>(message: &Message<'a>, asked: &Asked<'_>) -> Result<Answer<'a>, Violation> {
    let fits = match message.msg_type {
        MessageType::ADVERTISE => asked.msg_type == MessageType::SOLICIT,
        MessageType::REPLY if asked.msg_type == MessageType::SOLICIT => {
            // RFC 8415 18.2.1: a REPLY to SOLICIT only counts with Rapid Commit on both sides.
            asked.rapid_commit && message.options.first(OptionCode::RAPID_COMMIT).is_some()
        }
        MessageType::REPLY => true,
        _ => false,
    };
    if !fits {
        return Err(Violation::WrongMessageType);
    }
    let client = message.options.first(OptionCode::CLIENT_ID).ok_or(Violation::ClientIdMissing)?;
    if client != asked.identity.duid {
        return Err(Violation::ClientIdMismatch);
    }
    let server_id = message.options.first(OptionCode::SERVER_ID).unwrap_or_default();
    if gemel_wire::Duid::check(server_id).is_err() {
        return Err(Violation::ServerIdMissing);
    }
    if asked.server_id.is_some_and(|named| named != server_id) {
        return Err(Violation::ServerIdMismatch);
    }
    let overall = Status::of(&message.options);
    if let MessageType::RELEASE
    | MessageType::DECLINE
    | MessageType::CONFIRM
    | MessageType::INFORMATION_REQUEST = asked.msg_type
    {
        return judge_without_leases(message, asked, server_id, overall);
    }
    let mut further = Vec::new();
    let na = IaAsked {
        wanted: asked.na,
        code: OptionCode::IA_NA,
        iaid: asked.identity.iaid_na,
        preferred: asked.preferred_na,
        read: read_address,
    };
    let pd = IaAsked {
        wanted: asked.pd,
        code: OptionCode::IA_PD,
        iaid: asked.identity.iaid_pd,
        preferred: asked.preferred_pd,
        read: read_prefix,
    };
    Ok(Answer {
        msg_type: message.msg_type,
        server_id,
        na: na.judge(&message.options, overall, &mut further)?,
        pd: pd.judge(&message.options, overall, &mut further)?,
        further,
    })
}

/// Judges a reply that grants nothing.
fn judge_without_leases<'a>(
    message: &Message<'a>,
    asked: &Asked<'_>,
    server_id: &'a [u8],
    overall: StatusCode,
) -> Result<Answer<'a>, Violation> {
    let stateless = asked.msg_type == MessageType::INFORMATION_REQUEST;
    if !stateless && message.options.first(OptionCode::STATUS_CODE).is_none() {
        return Err(Violation::StatusMissing);
    }
    let refused = |code, iaid: IaId| {
        for body in message.options.all(code) {
            let ia = Ia::parse(body).map_err(|_| Violation::Malformed)?;
            // Who asks for information names no IA (RFC 8415 16.12), and there is none in the answer.
            if stateless || ia.iaid != iaid {
                return Err(Violation::IaUnexpected);
            }
            let status = Status::of(&ia.options);
            if status != StatusCode::SUCCESS {
                return Ok(IaAnswer::Refused(status));
            }
        }
        Ok(IaAnswer::NotAsked)
    };
    let pd = refused(OptionCode::IA_PD, asked.identity.iaid_pd)?;
    let na = match refused(OptionCode::IA_NA, asked.identity.iaid_na)? {
        IaAnswer::NotAsked if overall != StatusCode::SUCCESS => IaAnswer::Refused(overall),
        na => na,
    };
    Ok(Answer { msg_type: message.msg_type, server_id, na, pd, further: Vec::new() })
}

/// One IA of the message.
struct IaAsked {
    wanted: bool,
    code: OptionCode,
    iaid: IaId,
    preferred: Option<NamedLease>,
    /// Reads a lease; none if it is no grant.
    read: fn(&[u8]) -> Result<Option<Grant>, Violation>,
}

impl IaAsked {
    fn judge(
        &self,
        options: &Options<'_>,
        overall: StatusCode,
        further: &mut Vec<(bool, Grant)>,
    ) -> Result<IaAnswer, Violation> {
        let Self { wanted, code, iaid, .. } = *self;
        let mut found = None;
        for body in options.all(code) {
            let ia = Ia::parse(body).map_err(|_| Violation::Malformed)?;
            if !wanted || ia.iaid != iaid || found.replace(ia).is_some() {
                return Err(Violation::IaUnexpected);
            }
        }
        let Some(ia) = found.filter(|_| wanted) else {
            // A status that stands for the whole message may stand alone (RFC 8415 18.3.9, 18.3.2).
            return match (wanted, overall) {
                (false, _) => Ok(IaAnswer::NotAsked),
                (true, StatusCode::SUCCESS) => Err(Violation::IaMissing),
                (true, status) => Ok(IaAnswer::Refused(status)),
            };
        };
        let status = Status::of(&ia.options);
        if status != StatusCode::SUCCESS {
            return Ok(IaAnswer::Refused(status));
        }
        let Some(grant) = self.choose(&ia.options, further)? else {
            return match overall {
                StatusCode::SUCCESS => Err(Violation::LeaseMissing),
                status => Ok(IaAnswer::Refused(status)),
            };
        };
        if ia.t2 != 0 && ia.t1 > ia.t2 {
            return Err(Violation::T1OverT2);
        }
        if grant.valid != INFINITY && (ia.t1 > grant.valid || ia.t2 > grant.valid) {
            return Err(Violation::T2OverValid);
        }
        Ok(IaAnswer::Granted(grant))
    }

    /// The lease that the client keeps: the preferred one if it is there, else the first. The others
    /// go to `further`.
    fn choose(
        &self,
        options: &Options<'_>,
        further: &mut Vec<(bool, Grant)>,
    ) -> Result<Option<Grant>, Violation> {
        let (delegated, code) = match self.code {
            OptionCode::IA_PD => (true, OptionCode::IA_PREFIX),
            _ => (false, OptionCode::IA_ADDR),
        };
        let mut chosen: Option<Grant> = None;
        for body in options.all(code) {
            let Some(grant) = (self.read)(body)? else { continue };
            if grant.preferred > grant.valid {
                return Err(Violation::PreferredOverValid);
            }
            let is_preferred = self.preferred.is_some_and(|lease| {
                (lease.address, lease.prefix_len) == (grant.address, grant.prefix_len)
            });
            let other =
                if is_preferred || chosen.is_none() { chosen.replace(grant) } else { Some(grant) };
            further.extend(other.map(|other| (delegated, other)));
        }
        Ok(chosen)
    }
}

/// An address with a valid lifetime; one of zero takes a lease away and is no grant.
fn read_address(body: &[u8]) -> Result<Option<Grant>, Violation> {
    let lease = IaAddr::parse(body).map_err(|_| Violation::Malformed)?;
    if lease.valid == 0 || Status::of(&lease.options) != StatusCode::SUCCESS {
        return Ok(None);
    }
    let address = lease.address;
    if address.is_unspecified()
        || address.is_multicast()
        || address.is_loopback()
        || address.is_unicast_link_local()
    {
        return Err(Violation::AddressUnusable);
    }
    let identifier = u128::from(address) & u128::from(u64::MAX);
    if identifier == 0 || (0xfdff_ffff_ffff_ff80..=0xfdff_ffff_ffff_ffff).contains(&identifier) {
        return Err(Violation::AddressReserved);
    }
    let (preferred, valid) = (lease.preferred, lease.valid);
    Ok(Some(Grant { address, prefix_len: 128, preferred, valid }))
}

/// A prefix with a valid lifetime.
fn read_prefix(body: &[u8]) -> Result<Option<Grant>, Violation> {
    let lease = IaPrefix::parse(body).map_err(|_| Violation::Malformed)?;
    if lease.valid == 0 || Status::of(&lease.options) != StatusCode::SUCCESS {
        return Ok(None);
    }
    let host_bits = u128::MAX.checked_shr(u32::from(lease.prefix_len)).unwrap_or(0);
    if lease.prefix_len == 0 || u128::from(lease.prefix) & host_bits != 0 {
        return Err(Violation::PrefixMisaligned);
    }
    if lease.prefix.is_unspecified()
        || lease.prefix.is_multicast()
        || lease.prefix.is_unicast_link_local()
    {
        return Err(Violation::AddressUnusable);
    }
    let (preferred, valid) = (lease.preferred, lease.valid);
    let prefix_len = lease.prefix_len;
    Ok(Some(Grant { address: lease.prefix, prefix_len, preferred, valid }))
}

#[cfg(test)]
mod tests;

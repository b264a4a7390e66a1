use std::net::Ipv6Addr;

use super::error::require;
use super::{BindingStatus, DnsRemovalInfo, FailoverError, FailoverOption, FailoverTime};
use crate::{
    Emitter, Ia, IaAddr, IaId, IaPrefix, IaTa, OptionCode, OptionMark, Options, OptionsIter,
};

/// Type of an identity association; each type numbers its IAIDs apart (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum IaKind {
    /// OPTION_IA_NA: addresses.
    Na,
    /// OPTION_IA_TA: temporary addresses.
    Ta,
    /// OPTION_IA_PD: prefixes.
    Pd,
}

/// The IA that holds a lease.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct IaHeader {
    /// Its type.
    pub kind: IaKind,
    /// Its number.
    pub iaid: IaId,
    /// T1 in seconds as sent to the client; an IA_TA has none (read as 0, not written).
    pub t1: u32,
    /// T2 likewise.
    pub t2: u32,
}

impl IaHeader {
    fn begin(&self, out: &mut Emitter<'_>) -> OptionMark {
        match self.kind {
            IaKind::Na => out.begin_ia(OptionCode::IA_NA, self.iaid, self.t1, self.t2),
            IaKind::Pd => out.begin_ia(OptionCode::IA_PD, self.iaid, self.t1, self.t2),
            IaKind::Ta => {
                let mark = out.begin(OptionCode::IA_TA);
                out.u32(self.iaid.0);
                mark
            }
        }
    }

    /// Whether the leases of both go into one option.
    fn is_same_option(&self, other: &Self) -> bool {
        let has_times = self.kind != IaKind::Ta;
        (self.kind, self.iaid) == (other.kind, other.iaid)
            && (!has_times || (self.t1, self.t2) == (other.t1, other.t2))
    }

    /// The option for a lease of this IA.
    fn lease_code(&self) -> OptionCode {
        if self.kind == IaKind::Pd { OptionCode::IA_PREFIX } else { OptionCode::IA_ADDR }
    }
}

/// The fixed part of a lease: the IA, and the fields of OPTION_IAADDR or OPTION_IAPREFIX.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct LeaseHead {
    /// The IA.
    pub ia: IaHeader,
    /// The address or prefix.
    pub address: Ipv6Addr,
    /// Length of the prefix in bits, at most 128; for an address 128 is read and nothing written.
    pub prefix_len: u8,
    /// Preferred lifetime in seconds as sent to the client.
    pub preferred: u32,
    /// Valid lifetime likewise.
    pub valid: u32,
}

impl LeaseHead {
    fn emit<'b>(&self, out: &mut Emitter<'b>, options: impl FnOnce(&mut Emitter<'b>)) {
        if self.ia.kind == IaKind::Pd {
            let (prefix, len) = (self.address, self.prefix_len);
            emit_prefix(prefix, len, self.preferred, self.valid, out, options);
            return;
        }
        let mark = out.begin(OptionCode::IA_ADDR);
        out.address(self.address);
        out.u32(self.preferred);
        out.u32(self.valid);
        options(out);
        out.end(mark);
    }
}

/// Appends OPTION_IAPREFIX around what `options` appends.
pub(super) fn emit_prefix<'b>(
    prefix: Ipv6Addr,
    prefix_len: u8,
    preferred: u32,
    valid: u32,
    out: &mut Emitter<'b>,
    options: impl FnOnce(&mut Emitter<'b>),
) {
    let mark = out.begin(OptionCode::IA_PREFIX);
    out.u32(preferred);
    out.u32(valid);
    out.u8(prefix_len);
    out.address(prefix);
    options(out);
    out.end(mark);
}

/// Appends leases, one IA option around neighbours of one IA.
pub(super) fn emit_leases<'b, F: FnOnce(&mut Emitter<'b>)>(
    leases: impl Iterator<Item = (LeaseHead, F)>,
    out: &mut Emitter<'b>,
) {
    let mut open: Option<(IaHeader, OptionMark)> = None;
    for (head, options) in leases {
        let mark = match open.take() {
            Some((ia, mark)) if ia.is_same_option(&head.ia) => mark,
            other => {
                if let Some((_, mark)) = other {
                    out.end(mark);
                }
                head.ia.begin(out)
            }
        };
        head.emit(out, options);
        open = Some((head.ia, mark));
    }
    if let Some((_, mark)) = open {
        out.end(mark);
    }
}

/// A lease of a client in a BNDUPD (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Lease<'a> {
    /// IA, address or prefix, and lifetimes.
    pub head: LeaseHead,
    /// What the failover options say.
    pub state: LeaseState<'a>,
}

/// The failover options of a lease in a BNDUPD (RFC 8156 section 7.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseState<'a> {
    /// Mandatory.
    pub binding_status: BindingStatus,
    /// Mandatory: since when the lease has this status.
    pub start_time_of_state: FailoverTime,
    /// When the status ends; only for a status that ends by itself.
    pub state_expiration_time: Option<FailoverTime>,
    /// OPTION_CLT_TIME: seconds from when the sender last heard the client to the base time. See
    /// [`LeaseState::client_last_transaction_time`].
    pub clt_secs: Option<u32>,
    /// After this the receiver may take the lease for expired; only for a status that ends by
    /// itself.
    pub partner_lifetime: Option<FailoverTime>,
    /// When the receiver last heard the client, as far as the sender knows.
    pub partner_raw_clt_time: Option<FailoverTime>,
    /// The greatest lifetime that the sender has acknowledged to the receiver; only for a status
    /// that ends by itself.
    pub expiration_time: Option<FailoverTime>,
    /// Body of OPTION_CLIENT_FQDN (RFC 4704 section 4).
    pub client_fqdn: Option<&'a [u8]>,
    /// What is needed to remove the client's name from the DNS (section 9.2).
    pub dns_removal_info: Option<DnsRemovalInfo<'a>>,
}

impl<'a> LeaseState<'a> {
    /// A state with the two mandatory options alone.
    #[must_use]
    pub fn new(binding_status: BindingStatus, start_time_of_state: FailoverTime) -> Self {
        Self {
            binding_status,
            start_time_of_state,
            state_expiration_time: None,
            clt_secs: None,
            partner_lifetime: None,
            partner_raw_clt_time: None,
            expiration_time: None,
            client_fqdn: None,
            dns_removal_info: None,
        }
    }

    /// When the sender last heard the client: OPTION_CLT_TIME is counted back from the base time
    /// (RFC 7653 section 6.3.1).
    #[must_use]
    pub fn client_last_transaction_time(&self, base_time: FailoverTime) -> Option<FailoverTime> {
        self.clt_secs.map(|secs| base_time.wrapping_sub(secs))
    }

    /// Reads IAaddr-options or IAprefix-options. Section 5.5.17 has the start time in the options
    /// of the IA, section 7.4 in those of the lease: it is taken from either, and written to the
    /// latter.
    pub(super) fn parse(
        within: &'static str,
        options: Options<'a>,
        ia_options: Options<'a>,
    ) -> Result<Self, FailoverError> {
        let (mut status, mut start) = (None, None);
        let mut state = Self::new(BindingStatus(0), FailoverTime(0));
        for option in options {
            match FailoverOption::parse(option)? {
                FailoverOption::BindingStatus(value) => _ = status.get_or_insert(value),
                FailoverOption::StartTimeOfState(value) => _ = start.get_or_insert(value),
                FailoverOption::StateExpirationTime(value) => {
                    state.state_expiration_time.get_or_insert(value);
                }
                FailoverOption::CltTime(value) => _ = state.clt_secs.get_or_insert(value),
                FailoverOption::PartnerLifetime(value) => {
                    state.partner_lifetime.get_or_insert(value);
                }
                FailoverOption::PartnerRawCltTime(value) => {
                    state.partner_raw_clt_time.get_or_insert(value);
                }
                FailoverOption::ExpirationTime(value) => {
                    state.expiration_time.get_or_insert(value);
                }
                FailoverOption::DnsRemovalInfo(value) => {
                    state.dns_removal_info.get_or_insert(value);
                }
                FailoverOption::Other(it) if it.code == OptionCode::CLIENT_FQDN => {
                    state.client_fqdn.get_or_insert(it.data);
                }
                _ => {}
            }
        }
        if start.is_none()
            && let Some(option) =
                ia_options.iter().find(|it| it.code == OptionCode::F_START_TIME_OF_STATE)
            && let FailoverOption::StartTimeOfState(value) = FailoverOption::parse(option)?
        {
            start = Some(value);
        }
        state.binding_status = require(status, within, OptionCode::F_BINDING_STATUS)?;
        state.start_time_of_state = require(start, within, OptionCode::F_START_TIME_OF_STATE)?;
        Ok(state)
    }

    /// Appends the options in the order of section 7.4.
    pub(super) fn emit(&self, out: &mut Emitter<'_>) {
        let mut emit = |option: Option<FailoverOption<'a>>| {
            if let Some(option) = option {
                option.emit(out);
            }
        };
        emit(Some(FailoverOption::BindingStatus(self.binding_status)));
        emit(Some(FailoverOption::StartTimeOfState(self.start_time_of_state)));
        emit(self.state_expiration_time.map(FailoverOption::StateExpirationTime));
        emit(self.clt_secs.map(FailoverOption::CltTime));
        emit(self.partner_lifetime.map(FailoverOption::PartnerLifetime));
        emit(self.partner_raw_clt_time.map(FailoverOption::PartnerRawCltTime));
        emit(self.expiration_time.map(FailoverOption::ExpirationTime));
        if let Some(fqdn) = self.client_fqdn {
            out.option(OptionCode::CLIENT_FQDN, fqdn);
        }
        if let Some(info) = &self.dns_removal_info {
            info.emit(out);
        }
    }
}

/// A lease in an OPTION_CLIENT_DATA whose fixed part has been read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct LeaseEntry<'a> {
    /// IA, address or prefix, and lifetimes.
    pub head: LeaseHead,
    /// The options of the IA.
    pub ia_options: Options<'a>,
    /// The options of the lease itself.
    pub options: Options<'a>,
}

impl<'a> LeaseEntry<'a> {
    /// Reads the options as those of a BNDUPD.
    ///
    /// # Errors
    /// If a mandatory option is missing or any is malformed: this lease is to be rejected with
    /// MissingBindingInformation (RFC 8156 section 7.5.3).
    pub fn lease(&self) -> Result<Lease<'a>, FailoverError> {
        let within =
            if self.head.ia.kind == IaKind::Pd { "OPTION_IAPREFIX" } else { "OPTION_IAADDR" };
        let state = LeaseState::parse(within, self.options, self.ia_options)?;
        Ok(Lease { head: self.head, state })
    }

    fn parse(ia: IaHeader, ia_options: Options<'a>, data: &'a [u8]) -> Result<Self, FailoverError> {
        let (head, options);
        if ia.kind == IaKind::Pd {
            let IaPrefix { preferred, valid, prefix_len, prefix, options: enclosed } =
                IaPrefix::parse(data)?;
            head = LeaseHead { ia, address: prefix, prefix_len, preferred, valid };
            options = enclosed;
        } else {
            let IaAddr { address, preferred, valid, options: enclosed } = IaAddr::parse(data)?;
            head = LeaseHead { ia, address, prefix_len: 128, preferred, valid };
            options = enclosed;
        }
        Ok(Self { head, ia_options, options })
    }
}

/// Iterator over all leases in all IAs of an OPTION_CLIENT_DATA, in their order. An IA or a lease
/// that cannot be read gives an error, and the iterator goes on behind it.
#[derive(Clone, Debug)]
pub struct Leases<'a> {
    client_options: OptionsIter<'a>,
    current: Option<CurrentIa<'a>>,
    /// Whether an IA without any lease is an error.
    leases_mandatory: bool,
}

#[derive(Clone, Debug)]
struct CurrentIa<'a> {
    ia: IaHeader,
    options: Options<'a>,
    rest: OptionsIter<'a>,
    is_empty: bool,
}

impl<'a> Leases<'a> {
    pub(super) fn new(client_options: Options<'a>, leases_mandatory: bool) -> Self {
        Self { client_options: client_options.iter(), current: None, leases_mandatory }
    }
}

impl<'a> Iterator for Leases<'a> {
    type Item = Result<LeaseEntry<'a>, FailoverError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(current) = &mut self.current {
                let code = current.ia.lease_code();
                if let Some(option) = current.rest.find(|option| option.code == code) {
                    current.is_empty = false;
                    return Some(LeaseEntry::parse(current.ia, current.options, option.data));
                }
                let is_empty = current.is_empty;
                self.current = None;
                if is_empty && self.leases_mandatory {
                    return Some(Err(FailoverError::Missing { within: "an IA", option: code }));
                }
            }
            let option = self.client_options.next()?;
            match parse_ia(option.code, option.data) {
                None => {}
                Some(Err(error)) => return Some(Err(error)),
                Some(Ok((ia, options))) => {
                    let rest = options.iter();
                    self.current = Some(CurrentIa { ia, options, rest, is_empty: true });
                }
            }
        }
    }
}

/// Whether this is an option for an IA.
pub(super) fn is_ia(code: OptionCode) -> bool {
    matches!(code, OptionCode::IA_NA | OptionCode::IA_TA | OptionCode::IA_PD)
}

fn parse_ia(
    code: OptionCode,
    data: &[u8],
) -> Option<Result<(IaHeader, Options<'_>), FailoverError>> {
    let kind = match code {
        OptionCode::IA_NA => IaKind::Na,
        OptionCode::IA_PD => IaKind::Pd,
        OptionCode::IA_TA => {
            let ia = IaTa::parse(data).map_err(FailoverError::Wire);
            return Some(ia.map(|IaTa { iaid, options }| {
                (IaHeader { kind: IaKind::Ta, iaid, t1: 0, t2: 0 }, options)
            }));
        }
        _ => return None,
    };
    let ia = Ia::parse(data).map_err(FailoverError::Wire);
    Some(ia.map(|Ia { iaid, t1, t2, options }| (IaHeader { kind, iaid, t1, t2 }, options)))
}

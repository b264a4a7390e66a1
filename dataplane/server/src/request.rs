//! One pass over a client's message: everything that the rules look at, checked before anything
//! is changed.

use gemel_lease::{IaKind, Lease};
use gemel_wire::{
    Duid, Ia, IaAddr, IaId, IaPrefix, IaTa, Message, MessageType, OptionCode, OptionRequest,
    Options,
};

use crate::{DropReason, Prefix};

/// The most identity associations in one message. A client has one or two for each interface.
pub(crate) const IAS_MAX: usize = 16;

/// An identity association of the message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct IaRequest<'a> {
    pub(crate) kind: IaKind,
    pub(crate) iaid: IaId,
    options: Options<'a>,
}

/// A lease that the client named. An unspecified address or prefix is kept: its length is a hint.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Named {
    pub(crate) lease: Lease,
    /// An address, rather than a prefix (which may have 128 bits too).
    pub(crate) is_address: bool,
}

impl Named {
    /// Whether it names a lease, rather than only a length.
    pub(crate) fn is_specified(self) -> bool {
        !self.lease.address.is_unspecified()
    }
}

impl<'a> IaRequest<'a> {
    const NONE: Self = Self { kind: IaKind::Na, iaid: IaId(0), options: Options::EMPTY };

    /// The IA Address or IA Prefix options in order. Bits after a prefix's length are cleared.
    pub(crate) fn leases(&self) -> impl Iterator<Item = Named> + use<'a> {
        let kind = self.kind;
        self.options.iter().filter_map(move |option| match (kind, option.code) {
            (IaKind::Na | IaKind::Ta, OptionCode::IA_ADDR) => {
                let address = IaAddr::parse(option.data).ok()?.address;
                Some(Named { lease: Lease::address(address), is_address: true })
            }
            (IaKind::Pd, OptionCode::IA_PREFIX) => {
                let body = IaPrefix::parse(option.data).ok()?;
                let prefix = Prefix::new(body.prefix, body.prefix_len)?;
                let lease = Lease::prefix(prefix.address(), prefix.prefix_len());
                Some(Named { lease, is_address: false })
            }
            _ => None,
        })
    }

    fn check(&self) -> Result<(), DropReason> {
        for option in self.options {
            let fits = match (self.kind, option.code) {
                (IaKind::Na | IaKind::Ta, OptionCode::IA_ADDR) => {
                    IaAddr::parse(option.data).is_ok()
                }
                (IaKind::Pd, OptionCode::IA_PREFIX) => IaPrefix::parse(option.data).is_ok(),
                _ => true,
            };
            if !fits {
                return Err(DropReason::Malformed);
            }
        }
        Ok(())
    }
}

/// The options of a client's message that the rules look at.
#[derive(Debug)]
pub(crate) struct Request<'a> {
    pub(crate) message: Message<'a>,
    pub(crate) client_id: Option<&'a [u8]>,
    server_id: Option<&'a [u8]>,
    pub(crate) rapid_commit: bool,
    requested: RequestedOptions<'a>,
    ias: [IaRequest<'a>; IAS_MAX],
    ia_count: usize,
}

impl<'a> Request<'a> {
    /// A message of which nothing has been read.
    pub(crate) fn new(message: Message<'a>) -> Self {
        Self {
            message,
            client_id: None,
            server_id: None,
            rapid_commit: false,
            requested: RequestedOptions::default(),
            ias: [IaRequest::NONE; IAS_MAX],
            ia_count: 0,
        }
    }

    /// Reads the message and applies the rules of RFC 8415 section 16. In place: this is too large
    /// to be handed about.
    pub(crate) fn read(&mut self, server_duid: &Duid) -> Result<(), DropReason> {
        self.check_type()?;
        // Of a singleton option that occurs twice the first one counts (RFC 8415 section 21 only
        // says that they must not be joined).
        for option in self.message.options {
            match option.code {
                OptionCode::CLIENT_ID => {
                    self.client_id.get_or_insert(option.data);
                }
                OptionCode::SERVER_ID => {
                    self.server_id.get_or_insert(option.data);
                }
                OptionCode::ORO if self.requested.0.is_none() => {
                    let oro =
                        OptionRequest::parse(option.data).map_err(|_| DropReason::Malformed)?;
                    self.requested = RequestedOptions::new(oro);
                }
                OptionCode::RAPID_COMMIT => self.rapid_commit = true,
                OptionCode::IA_NA => self.add_ia(IaKind::Na, option.data)?,
                OptionCode::IA_TA => self.add_ia(IaKind::Ta, option.data)?,
                OptionCode::IA_PD => self.add_ia(IaKind::Pd, option.data)?,
                _ => {}
            }
        }
        self.check_ids(server_duid)
    }

    /// The identity associations in the order of the message.
    pub(crate) fn ias(&self) -> &[IaRequest<'a>] {
        &self.ias[..self.ia_count]
    }

    /// Whether the message names this server; one that names another has been refused.
    pub(crate) fn names_server(&self) -> bool {
        self.server_id.is_some()
    }

    /// Whether the client asked for an option.
    pub(crate) fn wants(&self, code: OptionCode) -> bool {
        self.requested.contains(code)
    }

    fn add_ia(&mut self, kind: IaKind, data: &'a [u8]) -> Result<(), DropReason> {
        let parsed = match kind {
            IaKind::Ta => IaTa::parse(data).map(|ia| (ia.iaid, ia.options)),
            IaKind::Na | IaKind::Pd => Ia::parse(data).map(|ia| (ia.iaid, ia.options)),
        };
        let (iaid, options) = parsed.map_err(|_| DropReason::Malformed)?;
        // Each IA of a type has an IAID of its own (RFC 8415 section 21.4); a second one with the
        // same IAID has no meaning and is passed over.
        if self.ias().iter().any(|ia| ia.kind == kind && ia.iaid == iaid) {
            return Ok(());
        }
        let ia = IaRequest { kind, iaid, options };
        ia.check()?;
        *self.ias.get_mut(self.ia_count).ok_or(DropReason::TooManyIas)? = ia;
        self.ia_count += 1;
        Ok(())
    }

    /// Which messages a server takes (RFC 8415 sections 16 and 16.1 to 16.14).
    fn check_type(&self) -> Result<(), DropReason> {
        match self.message.msg_type {
            MessageType::SOLICIT
            | MessageType::REQUEST
            | MessageType::CONFIRM
            | MessageType::RENEW
            | MessageType::REBIND
            | MessageType::RELEASE
            | MessageType::DECLINE
            | MessageType::INFORMATION_REQUEST => Ok(()),
            MessageType::ADVERTISE
            | MessageType::REPLY
            | MessageType::RECONFIGURE
            | MessageType::RELAY_REPL
            | MessageType::LEASEQUERY_REPLY
            | MessageType::LEASEQUERY_DONE
            | MessageType::LEASEQUERY_DATA => Err(DropReason::MessageForClients),
            MessageType::LEASEQUERY => Err(DropReason::Leasequery),
            _ => Err(DropReason::UnknownMessageType),
        }
    }

    fn check_ids(&self, server_duid: &Duid) -> Result<(), DropReason> {
        let information = self.message.msg_type == MessageType::INFORMATION_REQUEST;
        match self.client_id {
            Some(duid) if Duid::check(duid).is_err() => return Err(DropReason::ClientIdLength),
            None if !information => return Err(DropReason::NoClientId),
            _ => {}
        }
        let matches = self.server_id.map(|server_id| server_id == server_duid.as_bytes());
        match self.message.msg_type {
            // Sections 16.2, 16.5 and 16.7.
            MessageType::SOLICIT | MessageType::CONFIRM | MessageType::REBIND => {
                if matches.is_some() {
                    return Err(DropReason::UnexpectedServerId);
                }
            }
            // Section 16.12.
            MessageType::INFORMATION_REQUEST => {
                if matches == Some(false) {
                    return Err(DropReason::ServerIdMismatch);
                }
                if self.ia_count > 0 {
                    return Err(DropReason::InformationRequestWithIa);
                }
            }
            // Sections 16.4, 16.6, 16.8 and 16.9.
            _ => match matches {
                None => return Err(DropReason::MissingServerId),
                Some(false) => return Err(DropReason::ServerIdMismatch),
                Some(true) => {}
            },
        }
        Ok(())
    }
}

/// The Option Request option with a map of the codes below 256, which are nearly all.
#[derive(Debug, Default)]
struct RequestedOptions<'a>(Option<OptionRequest<'a>>, [u64; 4]);

impl<'a> RequestedOptions<'a> {
    fn new(oro: OptionRequest<'a>) -> Self {
        let mut map = [0_u64; 4];
        for code in oro.codes() {
            if let Some(word) = map.get_mut(usize::from(code.0 / 64)) {
                *word |= 1 << (code.0 % 64);
            }
        }
        Self(Some(oro), map)
    }

    fn contains(&self, code: OptionCode) -> bool {
        match self.1.get(usize::from(code.0 / 64)) {
            Some(word) => word & (1 << (code.0 % 64)) != 0,
            None => self.0.is_some_and(|oro| oro.contains(code)),
        }
    }
}
